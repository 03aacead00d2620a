//! Reading what providers say when it is not what was hoped for.

use reqwest::Url;
use serde_json::Value;

use crate::model::{
    provider::Dialect,
    wire::{ErrorBody, ErrorEnvelope},
};

/// Code and message of a refusal, in the shapes that are about.
pub(super) fn refusal(bytes: &[u8], dialect: Dialect) -> (Option<String>, String) {
    let Some(error) = error_body(bytes) else { return (None, excerpt(bytes)) };
    // Anthropic has no codes: its types are as fine.
    let code = error
        .code
        .or_else(|| (dialect == Dialect::Messages && !error.r#type.is_empty()).then_some(error.r#type));
    let message = if error.message.is_empty() { excerpt(bytes) } else { error.message };
    (code, message)
}

fn error_body(bytes: &[u8]) -> Option<ErrorBody> {
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    // Gemini wraps its errors in a list.
    if let Value::Array(items) = &mut value {
        let first = items.drain(..).next()?;
        value = first;
    }
    match &value["error"] {
        Value::String(message) => Some(ErrorBody { message: message.clone(), ..ErrorBody::default() }),
        Value::Object(_) => serde_json::from_value(value).ok().map(|envelope: ErrorEnvelope| envelope.error),
        _ => serde_json::from_value(value).ok().filter(|error: &ErrorBody| !error.message.is_empty()),
    }
}

/// What is wrong with an answer that is not the JSON it should be.
pub(super) fn describe(bytes: &[u8], error: &serde_json::Error) -> String {
    let text = bytes.trim_ascii();
    if text.is_empty() {
        "it is empty".into()
    } else if text.starts_with(b"<") {
        format!("it is a web page, not JSON: {}", excerpt(bytes))
    } else if error.is_eof() {
        "its JSON breaks off".into()
    } else {
        format!("{error}: {}", excerpt(bytes))
    }
}

/// The first words of an answer, on one line.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    // What can come into 200 characters, however long the answer.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(8 << 10)]);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &words[..end]),
        None if words.is_empty() => "no reason given".into(),
        None => words,
    }
}

/// An error with its causes: reqwest's own text leaves out what happened.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if causes.last().is_none_or(|last| !last.contains(&text)) {
            causes.push(text);
        }
        next = error.source();
    }
    causes.join(": ")
}

/// An address without what may be secret: user, password and query.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Addresses without a host have neither.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_recognised() {
        for (url, expected) in [
            ("http://127.0.0.1:1/v1", true),
            ("http://localhost/v1", true),
            ("http://[::1]:3/v1", true),
            ("http://127.0.0.1.example.com", false),
            ("https://api.openai.com/v1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt(b"<html>\n  <b>no</b>"), "<html> <b>no</b>");
        assert_eq!(excerpt(b""), "no reason given");
        assert_eq!(excerpt("\u{e9}".repeat(300).as_bytes()).chars().count(), 203);
    }

    #[test]
    fn refusals_come_in_many_shapes() {
        let check = |text: &str, dialect, code: Option<&str>, message: &str| {
            assert_eq!(refusal(text.as_bytes(), dialect), (code.map(Into::into), message.into()), "{text}");
        };
        let openai = r#"{"error": {"message": "no", "type": "t", "param": null, "code": "c"}}"#;
        check(openai, Dialect::Chat, Some("c"), "no");
        check(r#"{"error": {"message": "no", "type": "t"}}"#, Dialect::Chat, None, "no");
        let anthropic = r#"{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}"#;
        check(anthropic, Dialect::Messages, Some("overloaded_error"), "busy");
        check(r#"[{"error": {"code": 400, "message": "odd"}}]"#, Dialect::Chat, Some("400"), "odd");
        check(r#"{"error": "model not loaded"}"#, Dialect::Chat, None, "model not loaded");
        check(r#"{"object": "error", "message": "no", "code": 1500}"#, Dialect::Chat, Some("1500"), "no");
        check(r#"{"detail": "not here"}"#, Dialect::Chat, None, r#"{"detail": "not here"}"#);
        check("<html>", Dialect::Chat, None, "<html>");
        check("[]", Dialect::Chat, None, "[]");
    }
}
