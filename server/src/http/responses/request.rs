//! What a client asks of `/responses`.

use std::collections::BTreeMap;

use hone_engine::{
    chat::{ChatMessage, Role},
    generate::SamplingParams,
};
use serde_json::{Map, Value, json};

use crate::{
    engine::Format,
    error::ApiError,
    http::{
        fields::Fields,
        sampling::{self, MOST_LOGPROBS},
    },
};

/// Most pairs of metadata, and the longest key and value.
const METADATA: (usize, usize, usize) = (16, 64, 512);

/// A checked request.
#[derive(Debug)]
pub struct ResponseRequest {
    pub model: String,
    pub instructions: Option<String>,
    /// What is new in the conversation.
    pub input: Vec<ChatMessage>,
    /// The response that the conversation goes on from.
    pub previous: Option<String>,
    pub store: bool,
    pub max_output_tokens: Option<u32>,
    pub params: SamplingParams,
    pub top_logprobs: u32,
    pub format: Format,
    /// The format as it came.
    pub format_echo: Value,
    pub metadata: BTreeMap<String, String>,
    pub tool_choice: &'static str,
    /// Whoever asks, by the name that the application gives them.
    pub safety_identifier: Option<String>,
    /// What that was called before.
    pub user: Option<String>,
    pub stream: bool,
}

impl ResponseRequest {
    pub fn read(body: Map<String, Value>) -> Result<Self, ApiError> {
        let mut fields = Fields::new(body);
        // The choice of no tool is the only one that differs from the default here.
        let tool_choice = if fields.is("tool_choice", "none") { "none" } else { "auto" };
        fields.refuse_tools()?;
        for (name, harmless) in
            [("background", json!(false)), ("conversation", json!(null)), ("prompt", json!(null))]
        {
            fields.refuse(name, |value| *value == harmless)?;
        }
        let max_output_tokens = fields.count("max_output_tokens", 1, u32::MAX)?;
        let top_logprobs = fields.count("top_logprobs", 0, MOST_LOGPROBS)?.unwrap_or(0);
        let include = fields.take::<Vec<String>>("include")?.unwrap_or_default();
        let logprobs = include.iter().any(|what| what == "message.output_text.logprobs");
        let (format, format_echo) = format(&mut fields)?;
        let request = Self {
            model: fields.need("model")?,
            instructions: fields.take("instructions")?,
            input: input(fields.need("input")?)?,
            previous: fields.take("previous_response_id")?,
            store: fields.take("store")?.unwrap_or(true),
            params: SamplingParams {
                choice: sampling::choice(&mut fields)?,
                max_tokens: max_output_tokens.map_or(usize::MAX, |limit| limit as usize),
                logprobs: (logprobs || top_logprobs > 0).then_some(top_logprobs as usize),
                ..SamplingParams::default()
            },
            max_output_tokens,
            top_logprobs,
            format,
            format_echo,
            metadata: metadata(&mut fields)?,
            tool_choice,
            safety_identifier: fields.take("safety_identifier")?,
            user: fields.take("user")?,
            stream: fields.take("stream")?.unwrap_or(false),
        };
        fields.ignore_the_rest();
        Ok(request)
    }
}

/// `text.format`, whose schema is not nested as it is in chat completions.
fn format(fields: &mut Fields) -> Result<(Format, Value), ApiError> {
    let text = fields.take::<Map<String, Value>>("text")?.unwrap_or_default();
    match text.get("format").filter(|format| !format.is_null()) {
        None => Ok((Format::Text, json!({"type": "text"}))),
        Some(format) => {
            Ok((sampling::format("text.format", format, |format| &format["schema"])?, format.clone()))
        }
    }
}

fn metadata(fields: &mut Fields) -> Result<BTreeMap<String, String>, ApiError> {
    let metadata = fields.take::<BTreeMap<String, String>>("metadata")?.unwrap_or_default();
    let (pairs, key, value) = METADATA;
    let long = |(k, v): (&String, &String)| k.chars().count() > key || v.chars().count() > value;
    if metadata.len() > pairs || metadata.iter().any(long) {
        let message = format!(
            "`metadata` holds up to {pairs} pairs, keys up to {key} and values up to {value} characters"
        );
        return Err(ApiError::bad_param("metadata", message));
    }
    Ok(metadata)
}

/// The input as messages: a text is what the user says.
fn input(value: Value) -> Result<Vec<ChatMessage>, ApiError> {
    let items = match value {
        Value::String(text) => return Ok(vec![ChatMessage::new(Role::User, text)]),
        Value::Array(items) if !items.is_empty() => items,
        _ => return Err(ApiError::bad_param("input", "`input` is a text or a list of at least one message")),
    };
    items.into_iter().enumerate().map(|(index, item)| message(index, item)).collect()
}

fn message(index: usize, mut item: Value) -> Result<ChatMessage, ApiError> {
    let wrong = |message: String| ApiError::bad_param("input", format!("`input[{index}]`: {message}"));
    match item["type"].as_str() {
        None | Some("message") => {}
        Some(kind) => {
            return Err(wrong(format!("an item of type `{kind}` is not supported, only `message`")));
        }
    }
    // The parts of a message are those of chat completions under other names.
    for part in item.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten() {
        match part["type"].as_str() {
            Some("input_text" | "output_text" | "text") => part["type"] = "text".into(),
            Some("refusal") => *part = json!({"type": "text", "text": part["refusal"]}),
            _ => {}
        }
    }
    sampling::message("input", index, item)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(change: &Value) -> Result<ResponseRequest, ApiError> {
        let mut body = json!({"model": "m", "input": "hi"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        ResponseRequest::read(body.as_object().unwrap().clone())
    }

    fn check(change: Value, expected: Option<&str>) {
        let param = read(&change).err().map(|error| error.envelope().error.param.unwrap_or_default());
        assert_eq!(param.as_deref(), expected, "{change}");
    }

    #[test]
    fn requests_are_checked_before_they_reach_the_engine() {
        check(json!({}), None);
        check(json!({"reasoning": {"effort": "low"}, "truncation": "auto", "include": null}), None);
        check(json!({"background": true}), Some("background"));
        check(json!({"background": false, "conversation": null}), None);
        check(json!({"conversation": "conv_1"}), Some("conversation"));
        check(json!({"prompt": {"id": "x"}}), Some("prompt"));
        check(json!({"tools": [{"type": "web_search"}]}), Some("tools"));
        check(json!({"input": []}), Some("input"));
        check(json!({"input": null}), Some("input"));
        check(json!({"input": {}}), Some("input"));
        check(json!({"input": [{"role": "user", "content": null}]}), Some("input[0].content"));
        check(json!({"max_output_tokens": 0}), Some("max_output_tokens"));
        check(json!({"temperature": 3}), Some("temperature"));
        check(json!({"metadata": {"k": 3}}), Some("metadata"));
        check(json!({"metadata": {"k": "x".repeat(513)}}), Some("metadata"));
        check(json!({"text": {"format": {"type": "json_schema", "name": "x"}}}), Some("text.format"));
        check(json!({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}), None);
        check(json!({"text": {"format": {"type": "text"}, "verbosity": "low"}}), None);
    }

    #[test]
    fn input_is_a_text_or_messages() {
        let input = |input: Value| {
            read(&json!({"input": input}))
                .map(|request| request.input)
                .map_err(|e| e.envelope().error.message)
        };
        assert_eq!(input(json!("hi")).unwrap(), [ChatMessage::user("hi")]);
        let items = json!([
            {"role": "developer", "content": "d"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "c", "annotations": []}, {"type": "refusal", "refusal": "no"}]},
        ]);
        let messages = [ChatMessage::system("d"), ChatMessage::user("ab"), ChatMessage::assistant("cno")];
        assert_eq!(input(items).unwrap(), messages);
        for (item, reason) in [
            (json!({"type": "function_call"}), "`input[0]`: an item of type `function_call`"),
            (
                json!({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}),
                "`input_image`",
            ),
            (json!({"role": "user", "content": [3]}), "`input[0]`: "),
            (json!("x"), "`input[0]`: "),
            (json!({"role": "king", "content": "x"}), "the role `king`"),
        ] {
            let refusal = input(json!([item])).unwrap_err();
            assert!(refusal.contains(reason), "{refusal}");
        }
    }

    const FIELDS: [&str; 18] = [
        "model",
        "input",
        "instructions",
        "previous_response_id",
        "store",
        "max_output_tokens",
        "top_logprobs",
        "include",
        "text",
        "temperature",
        "top_p",
        "metadata",
        "tools",
        "tool_choice",
        "user",
        "stream",
        "background",
        "conversation",
    ];

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z_]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let name = "[a-z_]{1,8}|type|role|content|format|schema|text";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name, inner), 0..4)
                    .prop_map(|fields| fields.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        /// Whatever stands in a body: it is read, or refused as a fault of the client's that names the parameter.
        #[test]
        fn any_body_is_read_or_refused(
            changes in prop::collection::vec((prop::sample::select(FIELDS.to_vec()), json_value()), 0..5),
        ) {
            let body: Value = changes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            match read(&body) {
                Ok(request) => prop_assert!(!request.input.is_empty() && request.metadata.len() <= 16),
                Err(error) => {
                    let param = error.envelope().error.param.unwrap_or_default();
                    let silent = param.starts_with("input[") && param.ends_with("].content");
                    prop_assert!(FIELDS.contains(&param.as_str()) || param == "text.format" || silent, "{param}");
                }
            }
        }
    }
}
