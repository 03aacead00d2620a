//! Every rule about the form of one line, each with the place and the reason.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{
    duplicates, keys, local,
    problem::{Code, Problem, Severity},
    row::{Format, Part, Place, Row, Said, special_token},
    tools::{Calls, Tools},
    vision,
};
use crate::model::wire::text_of_part;

const MESSAGE_KEYS: [&str; 8] =
    ["role", "content", "name", "weight", "tool_calls", "tool_call_id", "function_call", "refusal"];
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];
const CHAT_KEYS: [&str; 4] = ["messages", "tools", "parallel_tool_calls", "functions"];
const PAIR_KEYS: [&str; 3] = ["input", "preferred_output", "non_preferred_output"];

/// Reads a line that may have anything in it.
pub(super) fn read(line: &str, expected: Format, place: Place) -> Row<'static> {
    let mut rules = Rules::default();
    let mut row = Row { format: expected, ..Row::default() };
    match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(fields)) => {
            row.format = format_of(&fields, expected);
            for at in keys::repeated(line) {
                rules.add(Code::RepeatedKey, &at, "the key is there more than once");
            }
            rules.row(&fields, row.format, expected);
            if place == Place::Local {
                local::refuse(&fields, row.format, &mut rules.found);
            }
            row.said = said(&fields, row.format);
            row.tools = present(&fields, "tools").map(Value::to_string).unwrap_or_default();
            row.item = (row.format == Format::Rft).then(|| item(&fields));
            let beside = if rules.is_mendable() { beside_texts(fields, row.format) } else { sorted(fields) };
            row.print = Some(duplicates::print(&row.said, &beside));
        }
        Ok(_) => rules.found.push(Problem::new(Code::DataType, "the line is not a JSON object")),
        Err(e) => {
            rules.found.push(Problem::new(Code::NotJson, format!("the line is not JSON: {}", reason(&e))))
        }
    }
    row.problems = rules.found;
    row
}

/// A parser's reason without the line, which is always 1.
fn reason(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

/// The value of a key; null, which tables write where a row has nothing, is none.
pub(super) fn present<'v>(fields: &'v Map<String, Value>, key: &str) -> Option<&'v Value> {
    fields.get(key).filter(|value| !value.is_null())
}

/// What a row is, in a file that should hold rows of `expected`.
pub(super) fn format_of(fields: &Map<String, Value>, expected: Format) -> Format {
    let pair = PAIR_KEYS[1..].iter().any(|key| present(fields, key).is_some());
    match expected {
        _ if pair => Format::Dpo,
        Format::Rft => Format::Rft,
        Format::Dpo if present(fields, "messages").is_none() => Format::Dpo,
        _ => Format::Chat,
    }
}

/// What a row says of the file that it is in.
pub(super) struct Shown {
    pub format: Format,
    /// Its last message asks for an answer, as a task for a grader does.
    asks: bool,
}

impl Shown {
    /// Tasks for a grader have no answer, and more than a chat has. None when it is no row.
    pub fn of_row(line: &str) -> Option<Self> {
        let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(line) else { return None };
        let messages = fields.get("messages").and_then(Value::as_array);
        let is_unanswered = messages.is_some_and(|all| !all.is_empty() && !all.iter().any(is_assistant));
        let more = fields.keys().any(|key| !CHAT_KEYS.contains(&key.as_str()));
        let format = format_of(&fields, Format::Chat);
        let format = if format == Format::Chat && is_unanswered && more { Format::Rft } else { format };
        let asks = messages.and_then(|all| all.last()).is_some_and(|last| !is_assistant(last));
        Some(Self { format, asks })
    }

    /// Whether it is a row of that format, or one that nothing but the file's purpose tells from it.
    pub fn may_be(&self, format: Format) -> bool {
        self.format == format || (format == Format::Rft && self.format == Format::Chat && self.asks)
    }
}

/// What a grader finds beside the messages.
fn item(fields: &Map<String, Value>) -> String {
    let own = fields.iter().filter(|(key, _)| !CHAT_KEYS.contains(&key.as_str()));
    let mut named: Vec<String> = own.map(|(key, value)| format!("`{key}` ({})", sort(value))).collect();
    named.sort();
    if named.is_empty() { "nothing".to_owned() } else { named.join(", ") }
}

fn sort(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// What training reads of a row beside its texts, whatever the order of its keys; nothing of a plain row.
fn beside_texts(mut fields: Map<String, Value>, format: Format) -> String {
    let is_read = |known: &[&str], key: &str| format == Format::Rft || known.contains(&key);
    let known = if format == Format::Dpo { &PAIR_KEYS[..] } else { &CHAT_KEYS[..] };
    fields.retain(|key, value| is_read(known, key) && !value.is_null());
    if format == Format::Dpo {
        if let Some(Value::Object(input)) = fields.get_mut("input") {
            input.retain(|key, value| CHAT_KEYS.contains(&key.as_str()) && !value.is_null());
            take_texts(input, "messages");
            if input.is_empty() {
                fields.remove("input");
            }
        }
        PAIR_KEYS[1..].iter().for_each(|key| take_texts(&mut fields, key));
    } else {
        take_texts(&mut fields, "messages");
    }
    if fields.is_empty() { String::new() } else { sorted(fields) }
}

fn sorted(fields: Map<String, Value>) -> String {
    let mut value = Value::Object(fields);
    value.sort_all_objects();
    value.to_string()
}

/// Takes out of a list of messages what [`said`] tells of them, and the list when that is all.
fn take_texts(fields: &mut Map<String, Value>, key: &str) {
    let Some(Value::Array(messages)) = fields.get_mut(key) else { return };
    let mut is_all = true;
    for message in messages {
        let Value::Object(own) = message else {
            is_all = false;
            continue;
        };
        own.retain(|key, value| match key.as_str() {
            "role" => !value.is_string(),
            "content" => !is_text(value) && !value.is_null(),
            "weight" => false,
            key => MESSAGE_KEYS.contains(&key) && !value.is_null(),
        });
        is_all &= own.is_empty();
    }
    if is_all {
        fields.remove(key);
    }
}

fn is_text(content: &Value) -> bool {
    let of_text = |part: &Value| part.get("type").and_then(Value::as_str) == Some("text");
    content.is_string() || content.as_array().is_some_and(|parts| parts.iter().all(of_text))
}

pub(super) fn role(message: &Value) -> Option<&str> {
    message.get("role").and_then(Value::as_str)
}

pub(super) fn is_assistant(message: &Value) -> bool {
    role(message) == Some("assistant")
}

fn is_trained(message: &Value) -> bool {
    is_assistant(message) && message.get("weight").and_then(Value::as_u64) != Some(0)
}

/// The texts that training sees, as far as they are there.
fn said(fields: &Map<String, Value>, format: Format) -> Vec<Said<'static>> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let all = |messages: Vec<Value>, part: fn(&Value) -> Part| {
        messages.into_iter().map(move |message| message_said(&message, part(&message)))
    };
    if format == Format::Dpo {
        let input = fields.get("input").and_then(|input| input.get("messages"));
        return all(list(input), |_| Part::Prompt)
            .chain(all(list(fields.get("preferred_output")), |_| Part::Answer))
            .chain(all(list(fields.get("non_preferred_output")), |_| Part::Rejected))
            .collect();
    }
    let part = |message: &Value| if is_trained(message) { Part::Answer } else { Part::Prompt };
    all(list(fields.get("messages")), part).collect()
}

fn message_said(message: &Value, part: Part) -> Said<'static> {
    let text = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().filter_map(said_in_part).collect(),
        _ => message.get("refusal").and_then(Value::as_str).unwrap_or_default().to_owned(),
    };
    let more = ["name", "tool_calls", "function_call"].into_iter().filter_map(|key| message.get(key));
    let more = more.filter(|value| !value.is_null());
    let more = more.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
    Said { role: role(message).unwrap_or_default().to_owned().into(), text: text.into(), more, part }
}

/// What a part of a content says: a text, or a refusal in its place.
fn said_in_part(part: &Value) -> Option<&str> {
    ["text", "refusal"].into_iter().find_map(|key| part.get(key)?.as_str())
}

#[derive(Default)]
struct Rules {
    found: Vec<Problem>,
}

impl Rules {
    fn add(&mut self, code: Code, field: &str, message: impl Into<String>) {
        self.found.push(Problem::new(code, message).at(field));
    }

    /// Whether the row is an example but for keys that may be taken out of it; of any other nothing is known to be
    /// without meaning.
    fn is_mendable(&self) -> bool {
        let may_go = |problem: &Problem| problem.code == Code::MessageUnrecognizedKey;
        self.found.iter().all(|problem| problem.severity == Severity::Warning || may_go(problem))
    }

    fn row(&mut self, fields: &Map<String, Value>, format: Format, expected: Format) {
        if fields.contains_key("prompt")
            && fields.contains_key("completion")
            && present(fields, "messages").is_none()
        {
            return self.add(
                Code::CompletionsFormat,
                "prompt",
                "it has `prompt` and `completion` in place of `messages`",
            );
        }
        if format != expected {
            let message = format!("a {} row in a {} file", name(format), name(expected));
            self.found.push(Problem::new(Code::MixedFormats, message));
        }
        match format {
            Format::Chat => self.chat(fields),
            Format::Dpo => self.pair(fields),
            Format::Rft => self.task(fields),
        }
    }

    fn unknown(&mut self, fields: &Map<String, Value>, known: &[&str], prefix: &str, reader: &str) {
        let is_known = |key: &String, value: &Value| known.contains(&key.as_str()) || value.is_null();
        for (key, _) in fields.iter().filter(|(key, value)| !is_known(key, value)) {
            let message = format!("`{key}` is not read by {reader}");
            self.add(Code::UnrecognizedKey, &format!("{prefix}{key}"), message);
        }
    }

    fn chat(&mut self, fields: &Map<String, Value>) {
        self.unknown(fields, &CHAT_KEYS, "", "a chat job");
        let tools = self.tools(fields, "");
        let Some(messages) = self.messages(fields.get("messages"), "messages", &tools) else { return };
        if !messages.iter().any(is_assistant) {
            let message = "there is no assistant message to learn";
            self.add(Code::ExampleMissingAssistantMessage, "messages", message);
        } else if !messages.iter().any(is_trained) {
            self.add(Code::NoTrainedMessage, "messages", "every assistant message has weight 0");
        } else if !messages.last().is_some_and(is_assistant) {
            self.add(Code::LastNotAssistant, "messages", "the last message is not the assistant's");
        }
    }

    fn pair(&mut self, fields: &Map<String, Value>) {
        self.unknown(fields, &PAIR_KEYS, "", "a preference job");
        let none = Map::new();
        let input = fields.get("input").and_then(Value::as_object).unwrap_or(&none);
        self.unknown(input, &CHAT_KEYS, "input.", "a preference job");
        let tools = self.tools(input, "input.");
        if let Some(messages) = self.messages(input.get("messages"), "input.messages", &tools)
            && messages.last().is_some_and(is_assistant)
        {
            let message = "the last message is the assistant's, who is to answer it";
            self.add(Code::InputEndsWithAssistant, "input.messages", message);
        }
        for key in &PAIR_KEYS[1..] {
            self.output(fields, key, &tools);
        }
        if fields
            .get("preferred_output")
            .is_some_and(|output| Some(output) == fields.get("non_preferred_output"))
        {
            self.found.push(Problem::new(
                Code::IdenticalOutputs,
                "the preferred and the other answer are the same",
            ));
        }
    }

    fn output(&mut self, fields: &Map<String, Value>, key: &str, tools: &Tools) {
        let Some(messages) = self.messages(fields.get(key), key, tools) else { return };
        if !messages.iter().any(is_assistant) {
            self.add(Code::ExampleMissingAssistantMessage, key, "there is no assistant message");
        }
        for (index, message) in messages.iter().enumerate() {
            let field = format!("{key}[{index}]");
            // Roles that nobody knows are told of by themselves.
            if matches!(role(message), Some(role) if ROLES.contains(&role) && !["assistant", "tool"].contains(&role))
            {
                self.add(
                    Code::UnrecognizedRole,
                    &format!("{field}.role"),
                    "an output holds assistant and tool messages alone",
                );
            }
            if message.get("content").is_some_and(|content| vision::pictures(content).next().is_some()) {
                self.add(Code::ImageRole, &format!("{field}.content"), "an output is text alone");
            }
        }
    }

    fn task(&mut self, fields: &Map<String, Value>) {
        let tools = self.tools(fields, "");
        if let Some(messages) = self.messages(fields.get("messages"), "messages", &tools)
            && role_of_last(messages) != Some("user")
        {
            self.add(Code::RftLastRole, "messages", "the last message is not the user's");
        }
    }

    fn tools(&mut self, fields: &Map<String, Value>, prefix: &str) -> Tools {
        if present(fields, "parallel_tool_calls").is_some_and(|value| !value.is_boolean()) {
            let field = format!("{prefix}parallel_tool_calls");
            self.add(Code::DataType, &field, "`parallel_tool_calls` is neither true nor false");
        }
        Tools::read(fields, prefix, &mut self.found)
    }

    fn messages<'v>(
        &mut self,
        value: Option<&'v Value>,
        name: &str,
        tools: &Tools,
    ) -> Option<&'v Vec<Value>> {
        let Some(messages) = value.and_then(Value::as_array).filter(|messages| !messages.is_empty()) else {
            self.add(Code::MissingMessagesList, name, format!("`{name}` is not a list of messages"));
            return None;
        };
        let mut calls = Calls::new(tools);
        for (index, message) in messages.iter().enumerate() {
            let field = format!("{name}[{index}]");
            match message.as_object() {
                Some(fields) => {
                    self.message(message, fields, &field);
                    calls.message(fields, &field, &mut self.found);
                }
                None => self.add(Code::DataType, &field, "a message is not a JSON object"),
            }
        }
        calls.end(&mut self.found);
        vision::limit(messages, name, &mut self.found);
        Some(messages)
    }

    fn message(&mut self, message: &Value, fields: &Map<String, Value>, field: &str) {
        for key in fields.keys().filter(|key| !MESSAGE_KEYS.contains(&key.as_str())) {
            let said = format!("a message has the unknown key `{key}`");
            self.add(Code::MessageUnrecognizedKey, &format!("{field}.{key}"), said);
        }
        let at = format!("{field}.role");
        match fields.get("role") {
            None => self.add(Code::MessageMissingKey, &at, "a message has no `role`"),
            Some(Value::String(role)) if ROLES.contains(&role.as_str()) => {}
            Some(other) => self.add(Code::UnrecognizedRole, &at, format!("{other} is not a role")),
        }
        self.name(fields, &format!("{field}.name"));
        match present(fields, "refusal") {
            None => {}
            Some(Value::String(refusal)) => {
                self.no_special_token(refusal, &format!("{field}.refusal"));
            }
            Some(_) => self.add(Code::DataType, &format!("{field}.refusal"), "a refusal is not a text"),
        }
        self.weight(message, fields.get("weight"), &format!("{field}.weight"));
        self.content(fields, field);
    }

    fn name(&mut self, fields: &Map<String, Value>, at: &str) {
        match present(fields, "name") {
            Some(Value::String(name)) => {
                self.no_special_token(name, at);
            }
            Some(_) => self.add(Code::DataType, at, "a name is not a text"),
            None if role_of(fields) == Some("function") => {
                self.add(
                    Code::MessageMissingKey,
                    at,
                    "a function message has no `name` of what it answers for",
                );
            }
            None => {}
        }
    }

    fn weight(&mut self, message: &Value, weight: Option<&Value>, field: &str) {
        match weight {
            None | Some(Value::Null) => {}
            Some(_) if !is_assistant(message) => {
                self.add(Code::Weight, field, "only assistant messages have a weight");
            }
            Some(value) if matches!(value.as_u64(), Some(0 | 1)) => {}
            Some(value) => self.add(Code::Weight, field, format!("weight is 0 or 1, not {value}")),
        }
    }

    fn content(&mut self, fields: &Map<String, Value>, field: &str) {
        let elsewhere = is_said_elsewhere(fields);
        // A tool may have nothing to say.
        let may_be_empty = elsewhere || is_result(fields);
        let at = format!("{field}.content");
        match fields.get("content") {
            None if !elsewhere => self.add(Code::MessageMissingKey, &at, "a message has no `content`"),
            Some(Value::String(text)) if may_be_empty && text.trim().is_empty() => {}
            Some(Value::String(text)) => self.text(text, &at),
            Some(Value::Array(parts)) if !parts.is_empty() => self.parts(fields, parts, &at),
            None | Some(Value::Null) if elsewhere => {}
            _ => self.add(Code::MissingContent, &at, "a message's content is not a text"),
        }
    }

    fn text(&mut self, text: &str, field: &str) {
        if text.trim().is_empty() {
            self.add(Code::MissingContent, field, "a message's content is empty");
        }
        self.no_special_token(text, field);
    }

    /// Whether there is none.
    fn no_special_token(&mut self, text: &str, field: &str) -> bool {
        let token = special_token(text);
        self.found.extend(token.map(|token| control_token(token).at(field)));
        token.is_none()
    }

    fn parts(&mut self, fields: &Map<String, Value>, parts: &[Value], field: &str) {
        let (is_user, is_answer) = (role_of(fields) == Some("user"), role_of(fields) == Some("assistant"));
        let (mut whole, mut apart, mut text_alone) = (String::new(), true, true);
        for (index, part) in parts.iter().enumerate() {
            let at = format!("{field}[{index}]");
            if let Ok(text) = text_of_part(part) {
                apart &= self.no_special_token(text, &format!("{at}.text"));
                whole.push_str(text);
                continue;
            }
            text_alone = false;
            let refusal = part.get("refusal").and_then(Value::as_str).filter(|_| part["type"] == "refusal");
            match (refusal, vision::is_picture(part)) {
                (Some(refusal), _) if is_answer => self.text(refusal, &format!("{at}.refusal")),
                (_, true) if is_user => vision::picture(part, &at, &mut self.found),
                (_, true) => self.add(Code::ImageRole, &at, "only user messages have images"),
                (_, false) => self.add(Code::MissingContent, &at, "a content part is neither text nor image"),
            }
        }
        // Readers join the texts: what counts is what comes of it.
        if apart {
            self.no_special_token(&whole, field);
        }
        if text_alone && whole.trim().is_empty() && !is_result(fields) {
            self.add(Code::MissingContent, field, "a message's content is empty");
        }
    }
}

/// A call or a refusal of the assistant's in place of a content.
fn is_said_elsewhere(fields: &Map<String, Value>) -> bool {
    let refuses = |refusal: &Value| refusal.as_str().is_none_or(|text| !text.trim().is_empty());
    let has = |key: &str| present(fields, key).is_some();
    role_of(fields) == Some("assistant")
        && (has("tool_calls") || has("function_call") || present(fields, "refusal").is_some_and(refuses))
}

/// What a tool gave.
fn is_result(fields: &Map<String, Value>) -> bool {
    matches!(role_of(fields), Some("tool" | "function"))
}

pub(super) fn role_of(fields: &Map<String, Value>) -> Option<&str> {
    fields.get("role").and_then(Value::as_str)
}

pub(super) fn control_token(token: &str) -> Problem {
    Problem::new(Code::SpecialToken, format!("the text contains the special token `{token}`"))
}

fn role_of_last(messages: &[Value]) -> Option<&str> {
    messages.last().and_then(role)
}

pub(super) fn name(format: Format) -> &'static str {
    match format {
        Format::Chat => "chat",
        Format::Dpo => "preference",
        Format::Rft => "reinforcement",
    }
}

/// What of a row's keys and messages' keys nobody reads; for whoever takes them out.
pub(super) fn known_keys(format: Format) -> (Option<BTreeSet<&'static str>>, &'static [&'static str]) {
    let top = match format {
        Format::Chat => Some(CHAT_KEYS.into_iter().collect()),
        Format::Dpo => Some(PAIR_KEYS.into_iter().collect()),
        // A grader may ask for any of them.
        Format::Rft => None,
    };
    (top, &MESSAGE_KEYS)
}
