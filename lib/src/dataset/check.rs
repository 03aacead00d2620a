//! Whether a fine-tuning file would be accepted: every problem at once, with its line.
//!
//! Codes are those of OpenAI's cookbook where it has one (`data_type`, `missing_messages_list`, `message_missing_key`,
//! `message_unrecognized_key`, `unrecognized_role`, `missing_content`, `example_missing_assistant_message`).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::wire::MIN_EXAMPLES;

/// Sort of a fine-tuning file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    #[default]
    Chat,
    Dpo,
}

/// Whether a problem stops a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// 1-based; null when it is about the file as a whole.
    pub line: Option<usize>,
    pub code: String,
    pub severity: Severity,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{} ({})", self.message, self.code)
    }
}

/// What was found in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub format: Format,
    /// Rows without an error.
    pub examples: usize,
    pub problems: Vec<Problem>,
}

impl Report {
    /// Whether a job would take the file.
    pub fn ok(&self) -> bool {
        self.problems.iter().all(|p| p.severity != Severity::Error)
    }

    fn add(&mut self, line: Option<usize>, severity: Severity, code: &str, message: impl Into<String>) {
        self.problems.push(Problem { line, code: code.to_owned(), severity, message: message.into() });
    }

    fn errors(&self) -> usize {
        self.problems.iter().filter(|p| p.severity == Severity::Error).count()
    }
}

/// Checks a file's text. The format is that of its first row; all rows must have it.
pub fn check(text: &str) -> Report {
    let mut report = Report::default();
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    if body.len() < text.len() {
        report.add(Some(1), Severity::Warning, "byte_order_mark", "the file begins with a byte-order mark");
    }
    let mut format = None;
    for (line, number) in body.lines().zip(1..) {
        if line.trim().is_empty() {
            report.add(Some(number), Severity::Warning, "blank_line", "the line is empty");
            continue;
        }
        let before = report.errors();
        check_line(line, number, &mut format, &mut report);
        report.examples += usize::from(report.errors() == before);
    }
    report.format = format.unwrap_or_default();
    if report.examples < MIN_EXAMPLES {
        let message = format!("{} usable examples, at least {MIN_EXAMPLES} are needed", report.examples);
        report.add(None, Severity::Error, "too_few_examples", message);
    }
    report
}

fn check_line(line: &str, number: usize, format: &mut Option<Format>, report: &mut Report) {
    let row = match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(row)) => row,
        Ok(_) => {
            return report.add(Some(number), Severity::Error, "data_type", "the line is not a JSON object");
        }
        Err(e) => {
            return report.add(
                Some(number),
                Severity::Error,
                "not_json",
                format!("the line is not JSON: {e}"),
            );
        }
    };
    let is_dpo = row.contains_key("preferred_output") || row.contains_key("non_preferred_output");
    let own = if is_dpo { Format::Dpo } else { Format::Chat };
    if *format.get_or_insert(own) != own {
        report.add(Some(number), Severity::Error, "mixed_formats", "the file mixes chat and preference rows");
    }
    let mut row_check = RowCheck { report, line: number };
    match own {
        Format::Chat => row_check.chat(&row),
        Format::Dpo => row_check.dpo(&row),
    }
}

struct RowCheck<'a> {
    report: &'a mut Report,
    line: usize,
}

const MESSAGE_KEYS: [&str; 8] =
    ["role", "content", "name", "weight", "tool_calls", "tool_call_id", "function_call", "refusal"];
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];
const SPECIAL_TOKENS: [&str; 7] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|im_sep|>",
    "<|endoftext|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
];

impl RowCheck<'_> {
    fn error(&mut self, code: &str, message: impl Into<String>) {
        self.report.add(Some(self.line), Severity::Error, code, message);
    }

    fn warn(&mut self, code: &str, message: impl Into<String>) {
        self.report.add(Some(self.line), Severity::Warning, code, message);
    }

    fn chat(&mut self, row: &Map<String, Value>) {
        for key in row.keys() {
            if !["messages", "tools", "parallel_tool_calls", "functions"].contains(&key.as_str()) {
                self.warn("unrecognized_key", format!("`{key}` is not read by a chat job"));
            }
        }
        let Some(messages) = self.messages(row.get("messages"), "messages") else { return };
        let trained = |m: &&Value| is_assistant(m) && m.get("weight").and_then(Value::as_u64) != Some(0);
        if !messages.iter().any(is_assistant) {
            self.error("example_missing_assistant_message", "there is no assistant message to learn");
        } else if !messages.iter().any(|m| trained(&m)) {
            self.error("no_trained_message", "every assistant message has weight 0");
        } else if !messages.last().is_some_and(is_assistant) {
            self.warn("last_not_assistant", "the last message is not the assistant's");
        }
    }

    fn dpo(&mut self, row: &Map<String, Value>) {
        let input = row.get("input").and_then(|input| input.get("messages"));
        if let Some(messages) = self.messages(input, "input.messages")
            && messages.last().is_some_and(is_assistant)
        {
            self.error("input_ends_with_assistant", "`input.messages` must not end with the assistant");
        }
        for key in ["preferred_output", "non_preferred_output"] {
            if let Some(messages) = self.messages(row.get(key), key) {
                if !messages.iter().any(is_assistant) {
                    self.error(
                        "example_missing_assistant_message",
                        format!("`{key}` has no assistant message"),
                    );
                }
                if messages.iter().any(|m| !matches!(role(m), Some("assistant" | "tool"))) {
                    self.error(
                        "unrecognized_role",
                        format!("`{key}` may hold assistant and tool messages alone"),
                    );
                }
            }
        }
        if row.get("preferred_output").is_some()
            && row.get("preferred_output") == row.get("non_preferred_output")
        {
            self.warn("identical_outputs", "the preferred and the other answer are the same");
        }
    }

    fn messages<'v>(&mut self, value: Option<&'v Value>, name: &str) -> Option<&'v Vec<Value>> {
        match value.and_then(Value::as_array).filter(|messages| !messages.is_empty()) {
            Some(messages) => {
                messages.iter().for_each(|message| self.message(message));
                Some(messages)
            }
            None => {
                self.error("missing_messages_list", format!("`{name}` is not a list of messages"));
                None
            }
        }
    }

    fn message(&mut self, message: &Value) {
        let Some(fields) = message.as_object() else {
            return self.error("data_type", "a message is not a JSON object");
        };
        for key in fields.keys().filter(|key| !MESSAGE_KEYS.contains(&key.as_str())) {
            self.error("message_unrecognized_key", format!("a message has the unknown key `{key}`"));
        }
        match fields.get("role") {
            None => self.error("message_missing_key", "a message has no `role`"),
            Some(Value::String(role)) if ROLES.contains(&role.as_str()) => {}
            Some(other) => self.error("unrecognized_role", format!("{other} is not a role")),
        }
        self.weight(message, fields.get("weight"));
        self.content(fields);
    }

    fn weight(&mut self, message: &Value, weight: Option<&Value>) {
        match weight {
            None => {}
            Some(_) if !is_assistant(message) => {
                self.error("weight", "only assistant messages have a weight")
            }
            Some(value) if matches!(value.as_u64(), Some(0 | 1)) => {}
            Some(value) => self.error("weight", format!("weight is 0 or 1, not {value}")),
        }
    }

    fn content(&mut self, fields: &Map<String, Value>) {
        let stands_in = ["tool_calls", "function_call", "refusal"];
        let elsewhere = stands_in.iter().any(|key| fields.get(*key).is_some_and(|v| !v.is_null()));
        match fields.get("content") {
            None if !elsewhere => self.error("message_missing_key", "a message has no `content`"),
            Some(Value::String(text)) => self.text(text),
            Some(Value::Array(parts)) if !parts.is_empty() => self.parts(fields, parts),
            None | Some(Value::Null) if elsewhere => {}
            _ => self.error("missing_content", "a message's content is not a text"),
        }
    }

    fn text(&mut self, text: &str) {
        if text.is_empty() {
            self.error("missing_content", "a message's content is empty");
        }
        for token in SPECIAL_TOKENS.iter().filter(|token| text.contains(**token)) {
            self.error("special_token", format!("the text contains the special token `{token}`"));
        }
    }

    fn parts(&mut self, fields: &Map<String, Value>, parts: &[Value]) {
        let is_user = fields.get("role").and_then(Value::as_str) == Some("user");
        for part in parts {
            match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
                (Some("text"), Some(text)) => self.text(text),
                (Some("image_url"), _) if is_user => {}
                (Some("image_url"), _) => self.error("image_role", "only user messages have images"),
                _ => self.error("missing_content", "a content part is neither text nor image"),
            }
        }
    }
}

fn role(message: &Value) -> Option<&str> {
    message.get("role").and_then(Value::as_str)
}

fn is_assistant(message: &Value) -> bool {
    role(message) == Some("assistant")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
    const PAIR: &str = r#"{"input":{"messages":[{"role":"user","content":"a"}]},"preferred_output":[{"role":"assistant","content":"b"}],"non_preferred_output":[{"role":"assistant","content":"c"}]}"#;

    /// Checks the codes that one line adds to a file of good ones.
    #[track_caller]
    fn codes(line: &str, expected: &[&str]) {
        let good = if line.contains("output") { PAIR } else { GOOD };
        let report = check(&format!("{}{line}\n", format!("{good}\n").repeat(10)));
        let codes: Vec<&str> = report.problems.iter().map(|p| p.code.as_str()).collect();
        assert_eq!(codes, expected, "{line}: {:?}", report.problems);
        assert!(report.problems.iter().all(|p| p.line == Some(11)));
    }

    #[track_caller]
    fn message(message: &str, expected: &[&str]) {
        codes(&format!(r#"{{"messages":[{message},{{"role":"assistant","content":"b"}}]}}"#), expected);
    }

    #[test]
    fn rows() {
        codes(GOOD, &[]);
        codes("", &["blank_line"]);
        codes("{", &["not_json"]);
        codes("[]", &["data_type"]);
        codes("{}", &["missing_messages_list"]);
        codes(r#"{"messages":"x"}"#, &["missing_messages_list"]);
        codes(r#"{"messages":[]}"#, &["missing_messages_list"]);
        codes(r#"{"messages":[{"role":"user","content":"a"}]}"#, &["example_missing_assistant_message"]);
        codes(r#"{"messages":[{"role":"assistant","content":"a","weight":0}]}"#, &["no_trained_message"]);
        codes(
            r#"{"messages":[{"role":"assistant","content":"a"},{"role":"user","content":"b"}]}"#,
            &["last_not_assistant"],
        );
        codes(
            r#"{"prompt":"a","completion":"b"}"#,
            &["unrecognized_key", "unrecognized_key", "missing_messages_list"],
        );
    }

    #[test]
    fn messages() {
        message(r#"{"role":"user","content":"a"}"#, &[]);
        message(r#"{"role":"developer","content":"a"}"#, &[]);
        message(r#"{"role":"assistant","content":null,"tool_calls":[{"id":"x"}]}"#, &[]);
        message(
            r#"{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}}]}"#,
            &[],
        );
        message(r#"7"#, &["data_type"]);
        message(r#"{"content":"a"}"#, &["message_missing_key"]);
        message(r#"{"role":"user"}"#, &["message_missing_key"]);
        message(r#"{"role":"user","content":""}"#, &["missing_content"]);
        message(r#"{"role":"user","content":null}"#, &["missing_content"]);
        message(r#"{"role":"user","content":7}"#, &["missing_content"]);
        message(r#"{"role":"bot","content":"a"}"#, &["unrecognized_role"]);
        message(r#"{"role":7,"content":"a"}"#, &["unrecognized_role"]);
        message(r#"{"role":"user","content":"a","x":1}"#, &["message_unrecognized_key"]);
        message(r#"{"role":"user","content":"a","weight":1}"#, &["weight"]);
        message(r#"{"role":"assistant","content":"a","weight":0.5}"#, &["weight"]);
        message(r#"{"role":"user","content":"a <|im_start|> b"}"#, &["special_token"]);
        message(r#"{"role":"assistant","content":[{"type":"image_url"}]}"#, &["image_role"]);
    }

    #[test]
    fn preference_rows() {
        codes(PAIR, &[]);
        codes(&PAIR.replace("\"c\"", "\"b\""), &["identical_outputs"]);
        codes(
            r#"{"preferred_output":[],"non_preferred_output":[{"role":"user","content":"c"}]}"#,
            &[
                "missing_messages_list",
                "missing_messages_list",
                "example_missing_assistant_message",
                "unrecognized_role",
            ],
        );
        let mixed = check(&format!("{GOOD}\n{PAIR}\n"));
        assert_eq!(mixed.problems[0].code, "mixed_formats");
        assert_eq!((mixed.format, check(PAIR).format), (Format::Chat, Format::Dpo));
    }

    #[test]
    fn few_examples_and_a_byte_order_mark() {
        let report = check(&format!("\u{feff}{}", format!("{GOOD}\n").repeat(9)));
        let codes: Vec<&str> = report.problems.iter().map(|p| p.code.as_str()).collect();
        assert_eq!(
            (codes, report.examples, report.ok()),
            (vec!["byte_order_mark", "too_few_examples"], 9, false)
        );
        assert_eq!(check("").problems.len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_breaks_the_checker(text in any::<String>(), cut in 0usize..60) {
            check(&text);
            check(&GOOD[..cut.min(GOOD.len())]);
        }
    }
}
