//! Providers as rows of a table. There is one way over the network ([`super::client`]); what differs between providers is
//! said here: where they are, how the key goes out, which of three dialects they speak and which knobs they take.
//!
//! A dialect is a pair of pure functions, from a [`ChatRequest`] to the body that is sent and from an answer's bytes to a
//! [`ChatReply`]. The journal's keys are made from the request *before* it is put into a dialect, so that a row which is
//! taught a new spelling finds its old answers.

mod azure;
mod chat;
mod messages;
mod table;

pub(super) use table::HONE;
pub use table::TABLE;

use reqwest::Url;
use serde_json::Value;

use super::wire::{ChatReply, ChatRequest};

/// What is known about a provider.
#[derive(Debug)]
pub struct Provider {
    /// As a row of the settings names it.
    pub name: &'static str,
    /// None when every user has an address of their own.
    pub base_url: Option<&'static str>,
    /// The variable that holds the key when the row names none; none when no key is needed.
    pub key_env: Option<&'static str>,
    pub auth: Auth,
    pub dialect: Dialect,
    pub limit: Limit,
    /// Whether `seed` is sent. Some servers refuse what they do not know.
    pub seed: bool,
    /// Whether the temperature is sent unless the row says otherwise.
    pub temperature: bool,
    /// Whether answers can be held to a JSON schema.
    pub schema: bool,
    /// Whether a stream is asked to end with its usage.
    pub usage_in_stream: bool,
    /// Whether a creation that is sent twice under one `Idempotency-Key` creates one thing.
    pub idempotent: bool,
    pub batch: Option<Batches>,
    /// What a call in a batch costs, in percent of one that is answered at once.
    pub batch_percent: u32,
    pub tuning: Option<Tuning>,
    /// Calls at once at most, unless the row says otherwise.
    pub most_in_flight: usize,
}

/// The header that carries the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer KEY`
    Bearer,
    /// A header of its own.
    Header(&'static str),
}

/// How requests and answers are worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's chat completions.
    Chat,
    /// The same below Azure's addresses: deployments with `api-version` where the row has one, `/openai/v1` otherwise.
    Azure,
    /// Anthropic's messages.
    Messages,
}

/// How the limit on an answer's length is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    MaxCompletionTokens,
    /// The older name, still the only one that many servers know.
    MaxTokens,
}

/// Whose batches a provider takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batches {
    OpenAi,
    Messages,
}

/// Whose fine-tuning jobs a provider takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    OpenAi,
    Together,
    Fireworks,
}

impl Tuning {
    /// Passes over so many examples that `auto` is. OpenAI publishes its rule: three, more when that shows fewer than 100
    /// examples, fewer when it shows more than 25,000. The others make one.
    pub fn auto_epochs(self, examples: usize) -> u32 {
        let examples = examples.max(1);
        let epochs = match (self, examples.saturating_mul(3)) {
            (Self::Together | Self::Fireworks, _) => 1,
            (Self::OpenAi, ..100) => (100 / examples).min(25),
            (Self::OpenAi, 25_001..) => (25_000 / examples).max(1),
            (Self::OpenAi, _) => 3,
        };
        u32::try_from(epochs).unwrap_or(1)
    }
}

/// A provider by its name.
pub fn provider(name: &str) -> Option<&'static Provider> {
    TABLE.iter().find(|provider| provider.name == name)
}

/// The version of Anthropic's API that is asked for unless the row names another.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// A provider as one row of the settings uses it.
#[derive(Clone, Debug)]
pub struct Access {
    pub provider: &'static Provider,
    pub api_version: Option<String>,
    pub deployment: Option<String>,
    pub anthropic_version: Option<String>,
    /// Whether temperature and seed are sent; the provider's habit when it is not said.
    pub sampling: Option<bool>,
    /// Answers come piece by piece.
    pub stream: Option<bool>,
}

/// Whatever speaks OpenAI's protocol.
impl Default for Access {
    fn default() -> Self {
        Self::to(&table::COMPATIBLE)
    }
}

/// From this limit on, an answer of Anthropic's has to be streamed: connections do not stay open long enough.
const LONG_MESSAGE: u32 = 8192;

impl Access {
    /// A provider with its habits.
    pub fn to(provider: &'static Provider) -> Self {
        Self {
            provider,
            api_version: None,
            deployment: None,
            anthropic_version: None,
            sampling: None,
            stream: None,
        }
    }

    /// The address of a path below the base; ids are escaped as path segments.
    pub fn url(&self, base: &Url, path: &[&str]) -> Url {
        match self.provider.dialect {
            Dialect::Azure => azure::url(base, path, self.api_version.as_deref()),
            Dialect::Chat | Dialect::Messages => below(base, path),
        }
    }

    /// Where chat goes, below the base.
    pub(super) fn chat_path<'a>(&'a self, model: &'a str) -> Vec<&'a str> {
        match self.provider.dialect {
            Dialect::Messages => vec!["messages"],
            Dialect::Azure if self.api_version.is_some() => {
                vec!["deployments", self.deployment.as_deref().unwrap_or(model), "chat", "completions"]
            }
            Dialect::Chat | Dialect::Azure => vec!["chat", "completions"],
        }
    }

    /// Headers beside the key's.
    pub(super) fn headers(&self) -> Vec<(&'static str, String)> {
        match self.provider.dialect {
            Dialect::Messages => {
                let version = self.anthropic_version.as_deref().unwrap_or(ANTHROPIC_VERSION);
                vec![("anthropic-version", version.to_owned())]
            }
            Dialect::Chat | Dialect::Azure => Vec::new(),
        }
    }

    /// What the row says of its own that changes what is sent, where it is not the provider's habit. How an answer comes is no
    /// part of the question.
    pub(super) fn own_options(&self) -> Vec<String> {
        let sampling = self.sampling.filter(|sampling| *sampling != self.provider.temperature);
        let version = self.anthropic_version.as_deref();
        let version =
            version.filter(|v| self.provider.dialect == Dialect::Messages && *v != ANTHROPIC_VERSION);
        sampling
            .map(|sampling| format!("sampling={sampling}"))
            .into_iter()
            .chain(version.map(|version| format!("anthropic-version={version}")))
            .collect()
    }

    /// Whether the answer to a request comes piece by piece.
    pub(super) fn streams(&self, request: &ChatRequest) -> bool {
        self.stream.unwrap_or_else(|| match self.provider.dialect {
            Dialect::Messages => request.token_limit().is_some_and(|limit| limit > LONG_MESSAGE),
            Dialect::Chat | Dialect::Azure => false,
        })
    }

    /// The body that asks for what the request asks for.
    pub(super) fn body(&self, request: &ChatRequest) -> serde_json::Result<Value> {
        let stream = self.streams(request);
        match self.provider.dialect {
            Dialect::Messages => Ok(messages::body(request, self.sampling == Some(true), stream)),
            Dialect::Chat => chat::body(request, self, stream),
            Dialect::Azure => {
                let mut body = chat::body(request, self, stream)?;
                if let Some(deployment) = &self.deployment {
                    body["model"] = deployment.as_str().into();
                }
                Ok(body)
            }
        }
    }

    /// Reads a whole answer.
    ///
    /// # Errors
    /// What is wrong with it, when it is none that can be used.
    pub(super) fn reply(&self, bytes: &[u8]) -> Result<ChatReply, Unusable> {
        let reply = match self.provider.dialect {
            Dialect::Messages => messages::reply(serde_json::from_slice(bytes)?)?,
            Dialect::Chat | Dialect::Azure => serde_json::from_slice(bytes)?,
        };
        checked(reply)
    }

    /// What puts the pieces of a streamed answer together.
    pub(super) fn collector(&self) -> Collector {
        match self.provider.dialect {
            Dialect::Messages => Collector::Messages(messages::Pieces::default()),
            Dialect::Chat | Dialect::Azure => Collector::Chat(chat::Pieces::default()),
        }
    }
}

/// Why an answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Content(String),
}

impl From<String> for Unusable {
    fn from(why: String) -> Self {
        Self::Content(why)
    }
}

/// A reply with something in it: each choice has a text, a refusal, or was held back.
fn checked(reply: ChatReply) -> Result<ChatReply, Unusable> {
    if reply.choices.is_empty() {
        return Err(Unusable::Content("it holds no choices".into()));
    }
    let is_empty = |choice: &&super::wire::ChatChoice| {
        let held_back =
            matches!(choice.finish_reason.as_deref(), Some("content_filter" | "refusal" | "length"));
        choice.message.content.is_none() && choice.message.refusal.is_none() && !held_back
    };
    match reply.choices.iter().find(is_empty) {
        None => Ok(reply),
        Some(choice) => Err(Unusable::Content(format!("choice {} has no text", choice.index))),
    }
}

/// The pieces of a streamed answer, as they come.
#[derive(Debug)]
pub(super) enum Collector {
    Chat(chat::Pieces),
    Messages(messages::Pieces),
}

/// What an event of a stream means for reading on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    /// Nothing that matters comes after it.
    Over,
}

impl Collector {
    /// Takes the data of one event.
    pub fn event(&mut self, data: &str) -> Result<Step, Unusable> {
        if data.trim() == "[DONE]" {
            return Ok(Step::Over);
        }
        let data: Value = serde_json::from_str(data)?;
        if let Some(error) = data.get("error").filter(|error| !error.is_null()) {
            let message = error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned);
            return Err(Unusable::Content(format!("the stream ends with an error: {message}")));
        }
        match self {
            Self::Chat(pieces) => pieces.event(&data),
            Self::Messages(pieces) => pieces.event(&data),
        }
    }

    /// The whole answer, once the stream is over.
    pub fn reply(self) -> Result<ChatReply, Unusable> {
        checked(match self {
            Self::Chat(pieces) => pieces.reply()?,
            Self::Messages(pieces) => pieces.reply()?,
        })
    }
}

/// Why a stream that simply ends is no answer.
const CUT: &str = "the stream ends before the answer does";

/// A path below an address.
fn below(base: &Url, path: &[&str]) -> Url {
    let mut url = base.clone();
    if path.is_empty() {
        return url;
    }
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url
}

#[cfg(test)]
mod tests;
