//! Anthropic's messages.

use serde_json::{Map, Value, json};

use super::{CUT, Step, Unusable};
use crate::model::wire::{ChatChoice, ChatReply, ChatRequest, Message, ReplyMessage, Usage};

/// Longest answer where the request does not say: the API wants a number.
const DEFAULT_LIMIT: u32 = 4096;

/// The request as the messages API wants it. Sampling knobs are left out unless they are asked for: versions of the API
/// refuse them, and a seed does not exist here. A schema goes where the API has it; what asks for JSON says so in words too.
pub(super) fn body(request: &ChatRequest, sampling: bool, stream: bool) -> Value {
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    body.insert("max_tokens".into(), json!(request.token_limit().unwrap_or(DEFAULT_LIMIT)));
    let system: Vec<&str> = request
        .messages
        .iter()
        .filter(|message| is_system(message))
        .map(|message| message.content.as_str())
        .collect();
    if !system.is_empty() {
        body.insert("system".into(), json!(system.join("\n\n")));
    }
    body.insert("messages".into(), turns(&request.messages));
    if let Some(stop) = &request.stop {
        body.insert("stop_sequences".into(), json!(stop.texts()));
    }
    if sampling {
        // Its scale ends at 1.
        body.extend(request.temperature.map(|value| ("temperature".into(), json!(value.min(1.0)))));
        body.extend(request.top_p.map(|value| ("top_p".into(), json!(value))));
    }
    if let Some(schema) = schema(request) {
        body.insert("output_config".into(), json!({"format": {"type": "json_schema", "schema": schema}}));
    }
    if stream {
        body.insert("stream".into(), json!(true));
    }
    Value::Object(body)
}

/// The schema that answers are held to, out of OpenAI's `response_format`. A name and `strict` have no place here: it is
/// always strict.
fn schema(request: &ChatRequest) -> Option<&Value> {
    let format = request.extra.get("response_format").filter(|format| format["type"] == "json_schema")?;
    format["json_schema"].get("schema")
}

fn is_system(message: &Message) -> bool {
    matches!(message.role.as_str(), "system" | "developer")
}

/// Turns of user and assistant, which have to alternate: neighbours of one role become one.
fn turns(messages: &[Message]) -> Value {
    let mut turns: Vec<(&str, Vec<Value>)> = Vec::new();
    for message in messages.iter().filter(|message| !is_system(message)) {
        let role = if message.role == "assistant" { "assistant" } else { "user" };
        let blocks = blocks(message);
        match turns.last_mut() {
            Some((last, all)) if *last == role => all.extend(blocks),
            _ => turns.push((role, blocks)),
        }
    }
    let turn = |(role, blocks): (&str, Vec<Value>)| match blocks.as_slice() {
        [only] if only["type"] == "text" => json!({"role": role, "content": only["text"]}),
        _ => json!({"role": role, "content": blocks}),
    };
    turns.into_iter().map(turn).collect()
}

fn blocks(message: &Message) -> Vec<Value> {
    let text = json!({"type": "text", "text": message.content});
    let pictures = message.images.iter().map(|address| {
        let source = match data_address(address) {
            Some((kind, data)) => json!({"type": "base64", "media_type": kind, "data": data}),
            None => json!({"type": "url", "url": address}),
        };
        json!({"type": "image", "source": source})
    });
    std::iter::once(text).chain(pictures).collect()
}

/// Kind and content of a `data:` address in base64.
fn data_address(address: &str) -> Option<(&str, &str)> {
    address.strip_prefix("data:")?.split_once(";base64,")
}

/// A `message` as the reply that everybody reads.
pub(super) fn reply(message: Value) -> Result<ChatReply, Unusable> {
    if message["type"] != "message" {
        return Err(Unusable::Content("it is no message".into()));
    }
    // Thinking is not part of the answer.
    let texts = message["content"].as_array().into_iter().flatten().filter(|block| block["type"] == "text");
    let texts: Vec<&str> = texts.filter_map(|block| block["text"].as_str()).collect();
    let text = (!texts.is_empty()).then(|| texts.concat());
    Ok(whole(&message, text, message["stop_reason"].as_str(), &message["usage"]))
}

fn whole(head: &Value, text: Option<String>, stop_reason: Option<&str>, usage: &Value) -> ChatReply {
    let (finish, refusal) = finish(stop_reason);
    let count = |name: &str| usage[name].as_u64().unwrap_or(0);
    let cached = count("cache_read_input_tokens") + count("cache_creation_input_tokens");
    let word = |name: &str| head[name].as_str().unwrap_or_default().to_owned();
    let message = ReplyMessage { content: text, refusal, ..ReplyMessage::new("") };
    ChatReply {
        choices: vec![ChatChoice { message, ..ChatChoice::new(0, "", finish) }],
        usage: usage.is_object().then(|| Usage::new(count("input_tokens") + cached, count("output_tokens"))),
        service_tier: None,
        system_fingerprint: None,
        ..ChatReply::new(word("id"), 0, word("model"))
    }
}

/// How an answer ended, in OpenAI's words, and the refusal where it was one.
fn finish(stop_reason: Option<&str>) -> (&'static str, Option<String>) {
    match stop_reason {
        Some("max_tokens" | "model_context_window_exceeded") => ("length", None),
        Some("refusal") => ("refusal", Some(String::new())),
        Some("tool_use") => ("tool_calls", None),
        _ => ("stop", None),
    }
}

/// A streamed answer so far.
#[derive(Debug, Default)]
pub(in crate::model) struct Pieces {
    head: Value,
    /// Usage grows: what comes later replaces what came before.
    usage: Map<String, Value>,
    text: Option<String>,
    stop_reason: Option<String>,
    over: bool,
}

impl Pieces {
    pub(super) fn event(&mut self, event: &Value) -> Result<Step, Unusable> {
        let counted = |usage: &Value| usage.as_object().cloned().unwrap_or_default();
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => {
                self.head = event["message"].clone();
                self.usage.extend(counted(&event["message"]["usage"]));
            }
            "content_block_start" if event["content_block"]["type"] == "text" => {
                let opening = event["content_block"]["text"].as_str().unwrap_or_default();
                self.text.get_or_insert_default().push_str(opening);
            }
            "content_block_delta" if event["delta"]["type"] == "text_delta" => {
                let piece = event["delta"]["text"].as_str().unwrap_or_default();
                self.text.get_or_insert_default().push_str(piece);
            }
            "message_delta" => {
                self.stop_reason = event["delta"]["stop_reason"].as_str().map(str::to_owned);
                self.usage.extend(counted(&event["usage"]));
            }
            "message_stop" => {
                self.over = true;
                return Ok(Step::Over);
            }
            _ => {}
        }
        Ok(Step::More)
    }

    pub(super) fn reply(self) -> Result<ChatReply, Unusable> {
        if !self.over || self.stop_reason.is_none() {
            return Err(Unusable::Content(CUT.into()));
        }
        Ok(whole(&self.head, self.text, self.stop_reason.as_deref(), &Value::Object(self.usage)))
    }
}
