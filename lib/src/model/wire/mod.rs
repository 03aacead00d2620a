//! OpenAI's protocol as types: what the client sends and the server answers.
//!
//! One set of types for both ends. Serialising gives every key that the official SDK's strict mode asks for; reading is
//! lenient where real servers differ: optional keys may be missing, unknown ones are ignored.

mod batch;
mod chat;
mod file;
mod grader;
mod job;
mod message_batch;
mod upload;

pub use batch::{
    Batch, BatchError, BatchErrors, BatchLine, BatchLineError, BatchRequest, BatchResponse, BatchStatus,
    BatchUsage, CachedTokens, ReasoningTokens, RequestCounts,
};
pub use chat::{
    ChatChoice, ChatChunk, ChatReply, ChatRequest, ChunkChoice, Delta, Finish, ReplyMessage, Stop,
    StreamOptions,
};
pub use file::{File, PURPOSES};
pub use grader::{GraderErrors, GraderMetadata, GraderRun, GraderRunRequest, GraderValidation};
pub use job::{
    Checkpoint, CheckpointMetrics, Dpo, DpoHyperparameters, Hyperparameters, Job, JobError, JobEvent,
    JobRequest, JobStatus, Level, MIN_EXAMPLES, Method, Supervised,
};
pub use message_batch::{MessageBatch, MessageCounts, MessageLine, MessagePage};
pub use upload::{CompleteRequest, ExpiresAfter, Upload, UploadPart, UploadRequest, UploadStatus};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeMap as _};
use serde_json::{Value, json};

/// A chat message.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Message {
    pub role: String,
    /// Text. Read from a string, from a list of text parts, or from null (empty).
    #[serde(default, deserialize_with = "text_of_content")]
    pub content: String,
    /// Training rows only: 0 takes an assistant message out of the loss.
    #[serde(default)]
    pub weight: Option<u8>,
    /// Pictures beside the text, as `data:` addresses, for models that take them. Sent, never read.
    #[serde(skip)]
    pub images: Vec<String>,
}

impl Message {
    fn of(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), weight: None, images: Vec::new() }
    }

    pub fn system(content: impl Into<String>) -> Self {
        Self::of("system", content)
    }

    pub fn user(content: impl Into<String>) -> Self {
        Self::of("user", content)
    }

    pub fn assistant(content: impl Into<String>) -> Self {
        Self::of("assistant", content)
    }
}

/// Content is a string as long as there is no picture: that is all that many servers read.
impl Serialize for Message {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("role", &self.role)?;
        if self.images.is_empty() {
            map.serialize_entry("content", &self.content)?;
        } else {
            let picture = |url: &String| json!({"type": "image_url", "image_url": {"url": url}});
            let mut parts = vec![json!({"type": "text", "text": self.content})];
            parts.extend(self.images.iter().map(picture));
            map.serialize_entry("content", &parts)?;
        }
        if let Some(weight) = self.weight {
            map.serialize_entry("weight", &weight)?;
        }
        map.end()
    }
}

/// Content as one string: parts are joined, anything but text is an error.
fn text_of_content<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        Value::Array(parts) => {
            parts.iter().map(|part| text_of_part(part).map_err(D::Error::custom)).collect()
        }
        other => Err(D::Error::custom(format!("`content` must be text or a list of parts, not {other}"))),
    }
}

/// The text of one part of a content; a content in parts is these texts without anything between them.
///
/// # Errors
/// It is anything but text.
pub fn text_of_part(part: &Value) -> Result<&str, String> {
    let kind = part["type"].as_str().unwrap_or("no type");
    match (kind, part["text"].as_str()) {
        ("text", Some(text)) => Ok(text),
        _ => Err(format!("a content part of `{kind}` is not supported, only `text`")),
    }
}

/// Tokens that a call used, by the serving model's own tokenizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub total_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptDetails>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_tokens_details: Option<CompletionDetails>,
}

/// What a prompt's tokens consist of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptDetails {
    pub cached_tokens: u64,
    pub audio_tokens: u64,
}

/// What a completion's tokens consist of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompletionDetails {
    pub reasoning_tokens: u64,
    pub audio_tokens: u64,
    pub accepted_prediction_tokens: u64,
    pub rejected_prediction_tokens: u64,
}

impl Usage {
    /// Plain usage with every detail present and zero, as OpenAI writes it.
    pub fn new(prompt_tokens: u64, completion_tokens: u64) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: Some(PromptDetails::default()),
            completion_tokens_details: Some(CompletionDetails::default()),
        }
    }
}

/// A row of `GET /models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCard {
    pub id: String,
    #[serde(default = "model_object")]
    pub object: String,
    /// Unix seconds.
    #[serde(default)]
    pub created: i64,
    #[serde(default)]
    pub owned_by: String,
    /// The day on which the provider takes it away, where one is announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_date: Option<String>,
}

fn model_object() -> String {
    "model".into()
}

impl ModelCard {
    pub fn new(id: impl Into<String>, created: i64, owned_by: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            object: model_object(),
            created,
            owned_by: owned_by.into(),
            shutdown_date: None,
        }
    }
}

/// The answer to a DELETE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    pub id: String,
    pub object: String,
    pub deleted: bool,
}

/// A page of a list. The next one is asked for with `after` = the id of the last item, until `has_more` is false or
/// `data` is empty; a missing `has_more` counts as "maybe more".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    #[serde(default = "list_object")]
    pub object: String,
    pub data: Vec<T>,
    #[serde(default)]
    pub first_id: Option<String>,
    #[serde(default)]
    pub last_id: Option<String>,
    #[serde(default = "maybe_more")]
    pub has_more: bool,
}

fn list_object() -> String {
    "list".into()
}

fn maybe_more() -> bool {
    true
}

impl<T: Identified> Page<T> {
    pub fn new(data: Vec<T>, has_more: bool) -> Self {
        let id = |item: Option<&T>| item.map(|item| item.id().to_owned());
        Self { object: list_object(), first_id: id(data.first()), last_id: id(data.last()), data, has_more }
    }
}

/// A list item that pages can be cut at.
pub trait Identified {
    fn id(&self) -> &str;
}

macro_rules! identified {
    ($($name:ty),*) => { $(impl Identified for $name { fn id(&self) -> &str { &self.id } })* };
}
identified!(Batch, File, Job, JobEvent, Checkpoint, ModelCard);

/// A list that comes whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct List<T> {
    #[serde(default = "list_object")]
    pub object: String,
    pub data: Vec<T>,
}

impl<T> List<T> {
    pub fn new(data: Vec<T>) -> Self {
        Self { object: list_object(), data }
    }
}

/// `{"error": ..}`: how every refusal is worded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEnvelope {
    pub error: ErrorBody,
}

/// Why a request was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorBody {
    pub message: String,
    #[serde(deserialize_with = "text_or_empty")]
    pub r#type: String,
    pub param: Option<String>,
    /// Text at OpenAI; some gateways send a number.
    #[serde(deserialize_with = "code_text")]
    pub code: Option<String>,
}

fn text_or_empty<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(from)?.unwrap_or_default())
}

fn code_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    })
}

#[cfg(test)]
mod tests;
