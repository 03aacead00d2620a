//! Chat completions: request, whole reply, streamed chunks.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Message, Usage};

/// Body of `POST /chat/completions`. Absent options are not sent, so that each provider's defaults hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    pub model: String,
    pub messages: Vec<Message>,
    /// 0 is greedy; at most 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// How many independent answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u32>,
    /// The older name of `max_completion_tokens`, still the only one that many servers know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Everything else, as it came or as it should go out.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ChatRequest {
    pub fn new(model: impl Into<String>, messages: Vec<Message>) -> Self {
        Self { model: model.into(), messages, ..Self::default() }
    }

    /// The length limit, by whichever of its two names.
    pub fn token_limit(&self) -> Option<u32> {
        self.max_completion_tokens.or(self.max_tokens)
    }
}

/// Texts that end an answer and are not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Stop {
    One(String),
    Many(Vec<String>),
}

impl Stop {
    pub fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOptions {
    /// One last chunk without choices carries the usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_usage: Option<bool>,
}

/// The answer to a chat request: a whole `chat.completion`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatReply {
    #[serde(default)]
    pub id: String,
    #[serde(default = "chat_object")]
    pub object: String,
    /// Unix seconds.
    #[serde(default)]
    pub created: i64,
    /// The model that answered: an alias is resolved.
    #[serde(default)]
    pub model: String,
    pub choices: Vec<ChatChoice>,
    #[serde(default)]
    pub usage: Option<Usage>,
    #[serde(default)]
    pub service_tier: Option<String>,
    #[serde(default)]
    pub system_fingerprint: Option<String>,
}

fn chat_object() -> String {
    "chat.completion".into()
}

impl ChatReply {
    pub fn new(id: impl Into<String>, created: i64, model: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            object: chat_object(),
            created,
            model: model.into(),
            choices: Vec::new(),
            usage: None,
            service_tier: Some("default".into()),
            system_fingerprint: Some("fp_local".into()),
        }
    }

    /// How the first answer ended.
    pub fn finish(&self) -> Finish {
        let Some(choice) = self.choices.first() else { return Finish::Complete };
        match (&choice.message.refusal, choice.finish_reason.as_deref()) {
            (Some(refusal), _) if choice.message.content.is_none() => Finish::Refused(refusal.clone()),
            (_, Some("refusal")) => Finish::Refused(String::new()),
            (_, Some("content_filter")) => Finish::Filtered,
            (_, Some("length")) => Finish::Length,
            _ => Finish::Complete,
        }
    }

    /// The first answer's text; the client has made sure that there is one.
    pub fn text(&self) -> &str {
        self.choices.first().and_then(|choice| choice.message.content.as_deref()).unwrap_or_default()
    }
}

/// How an answer ended. Only a complete one may be taught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    Complete,
    /// The limit on tokens cut it.
    Length,
    /// The model declined, in its own words where it gave any.
    Refused(String),
    /// The provider held it back.
    Filtered,
}

impl Finish {
    /// As logs and trials call it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Complete => "stop",
            Self::Length => "length",
            Self::Refused(_) => "refusal",
            Self::Filtered => "content_filter",
        }
    }
}

/// One of the `n` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatChoice {
    #[serde(default)]
    pub index: u32,
    pub message: ReplyMessage,
    #[serde(default)]
    pub logprobs: Option<Value>,
    /// `stop`, `length`, `tool_calls`, `content_filter`.
    #[serde(default)]
    pub finish_reason: Option<String>,
}

impl ChatChoice {
    pub fn new(index: u32, content: impl Into<String>, finish_reason: &str) -> Self {
        Self {
            index,
            message: ReplyMessage::new(content),
            logprobs: None,
            finish_reason: Some(finish_reason.into()),
        }
    }
}

/// What the model said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplyMessage {
    #[serde(default = "assistant")]
    pub role: String,
    #[serde(default)]
    pub content: Option<String>,
    #[serde(default)]
    pub refusal: Option<String>,
    #[serde(default)]
    pub annotations: Vec<Value>,
}

fn assistant() -> String {
    "assistant".into()
}

impl ReplyMessage {
    pub fn new(content: impl Into<String>) -> Self {
        Self { role: assistant(), content: Some(content.into()), refusal: None, annotations: Vec::new() }
    }
}

/// One event of a streamed answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatChunk {
    pub id: String,
    pub object: String,
    pub created: i64,
    pub model: String,
    pub choices: Vec<ChunkChoice>,
    /// In the last chunk only, and only when asked for.
    #[serde(default)]
    pub usage: Option<Usage>,
    #[serde(default)]
    pub service_tier: Option<String>,
    #[serde(default)]
    pub system_fingerprint: Option<String>,
}

impl ChatChunk {
    /// A chunk of the answer that `chat` would be if it were not streamed.
    pub fn of(chat: &ChatReply, choices: Vec<ChunkChoice>) -> Self {
        Self {
            id: chat.id.clone(),
            object: "chat.completion.chunk".into(),
            created: chat.created,
            model: chat.model.clone(),
            choices,
            usage: None,
            service_tier: chat.service_tier.clone(),
            system_fingerprint: chat.system_fingerprint.clone(),
        }
    }
}

/// A piece of one of the `n` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChunkChoice {
    pub index: u32,
    pub delta: Delta,
    #[serde(default)]
    pub logprobs: Option<Value>,
    #[serde(default)]
    pub finish_reason: Option<String>,
}

impl ChunkChoice {
    /// The opening of an answer.
    pub fn opening(index: u32) -> Self {
        Self::with(index, Delta { role: Some(assistant()), content: Some(String::new()) }, None)
    }

    pub fn text(index: u32, text: impl Into<String>) -> Self {
        Self::with(index, Delta { role: None, content: Some(text.into()) }, None)
    }

    pub fn end(index: u32, finish_reason: &str) -> Self {
        Self::with(index, Delta::default(), Some(finish_reason.into()))
    }

    fn with(index: u32, delta: Delta, finish_reason: Option<String>) -> Self {
        Self { index, delta, logprobs: None, finish_reason }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}
