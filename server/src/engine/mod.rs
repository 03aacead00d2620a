//! Answers from the engine. `models` loads, on threads of its own; one thread, `worker`, writes all answers together;
//! requests reach it through a channel, and pieces of text come back through another. Whoever drops an [`Answer`] frees
//! its slots.

mod models;
mod worker;

use std::{path::PathBuf, sync::Arc};

use hone::cancel::Cancel;
use hone_engine::{
    chat::ChatMessage,
    constrain::ConstraintError,
    generate::{Request, SamplingParams, SubmitError, Token},
    tokenizer::Tokenizer,
};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{app::Resolved, config::ServerConfig, error::ApiError};
use models::{Loaded, Models};

/// What is asked of the engine.
pub struct Ask {
    pub model: Resolved,
    /// Folders of the adapters in `model.chain`.
    pub adapters: Vec<PathBuf>,
    pub messages: Vec<ChatMessage>,
    /// One per answer wanted.
    pub params: Vec<SamplingParams>,
    pub format: Format,
}

/// What the answer has to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Format {
    #[default]
    Text,
    /// Any JSON object.
    Object,
    /// JSON of this schema.
    Schema(Value),
}

/// What comes back.
#[derive(Debug)]
pub enum Update {
    /// The next piece of answer `index`, in whole characters. Without text it only brings tokens whose log probabilities
    /// were asked for.
    Text { index: usize, text: String, tokens: Vec<Token> },
    /// Answer `index` is complete, or cut off where no more tokens were allowed.
    Done { index: usize, cut: bool, tokens: usize, cached: usize },
    /// Nothing more will come.
    Failed(ApiError),
}

/// Answers in the making.
pub struct Answer {
    pub prompt_tokens: usize,
    /// Of the model that answers.
    pub tokenizer: Tokenizer,
    updates: mpsc::UnboundedReceiver<Update>,
    _slots: OwnedSemaphorePermit,
}

/// Handle of the engine's thread, which ends when the last handle is gone.
pub struct Engine {
    models: Models,
    commands: std::sync::mpsc::Sender<worker::Command>,
    slots: Arc<Semaphore>,
}

impl Engine {
    /// Starts the thread. Models are loaded when they are first asked for.
    ///
    /// `stop` cuts off the answers that are being written.
    pub fn start(config: &ServerConfig, stop: Cancel) -> std::io::Result<Self> {
        let (commands, inbox) = std::sync::mpsc::channel();
        let worker = worker::Worker::new(inbox, stop, config.max_batch, config.prefix_bytes);
        std::thread::Builder::new().name("engine".into()).spawn(move || worker.run())?;
        let slots = Arc::new(Semaphore::new(config.max_queue));
        Ok(Self { models: Models::new(config.tuned_bytes, config.kernels), commands, slots })
    }

    /// Puts a request in the queue, or says that it is full or cannot be answered.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, ApiError> {
        let wanted = u32::try_from(ask.params.len()).unwrap_or(u32::MAX);
        let slots = self.slots.clone().try_acquire_many_owned(wanted).map_err(|_| ApiError::busy())?;
        let base = self.models.base(&ask.model.base).await?;
        let delta = self.models.delta(&base, &ask.model.id, &ask.adapters).await?;
        // Long conversations and large schemas take a while; the runtime has other clients.
        let prepared = tokio::task::spawn_blocking({
            let base = base.clone();
            move || prepare(&base, delta, ask)
        });
        let requests = prepared.await.map_err(ApiError::internal)??;
        let prompt_tokens = requests.first().map_or(0, |request| request.prompt.len());
        let (waiter, updates) = mpsc::unbounded_channel();
        let tokenizer = base.model.tokenizer.clone();
        self.commands.send(worker::Command { base, requests, waiter }).map_err(|_| ApiError::stopping())?;
        Ok(Answer { prompt_tokens, tokenizer, updates, _slots: slots })
    }

    /// Answers that can still be asked for before the queue is full.
    pub fn free(&self) -> usize {
        self.slots.available_permits()
    }

    /// Drops what a deleted model adds to its base.
    pub fn forget(&self, id: &str) {
        self.models.forget(id);
    }
}

impl Answer {
    /// The next update; an engine that is gone is a failure.
    pub async fn next(&mut self) -> Update {
        self.updates.recv().await.unwrap_or_else(|| Update::Failed(ApiError::stopping()))
    }
}

/// The requests for an ask, of which none will be refused.
fn prepare(base: &Loaded, delta: models::Tuning, ask: Ask) -> Result<Vec<Request>, ApiError> {
    let refused =
        |e| ApiError::bad_param("messages", format!("the model's chat template cannot take them: {e}"));
    let prompt = base.model.render(&ask.messages, true).map_err(refused)?;
    let constraint = match &ask.format {
        Format::Text => None,
        Format::Object => Some(base.grammars()?.json_object()),
        Format::Schema(schema) => Some(base.grammars()?.json_schema(schema)),
    };
    let constraint = constraint.transpose().map_err(|e| unusable(&e))?;
    let request = |params: SamplingParams| -> Result<Request, ApiError> {
        let params = SamplingParams { constraint: constraint.clone(), ..params };
        let decoder = base.model.weights.clone();
        let request = Request { decoder, delta: delta.clone(), prompt: prompt.clone(), params };
        request.check().map_err(refusal)?;
        Ok(request)
    };
    ask.params.into_iter().map(request).collect()
}

fn unusable(error: &ConstraintError) -> ApiError {
    invalid_schema(error.to_string())
}

/// A schema that turns out to be too much in the midst of an answer: the same request would fare no better.
fn too_much_work() -> ApiError {
    invalid_schema("following the schema became too much work: simplify it, its patterns before all")
}

fn invalid_schema(message: impl Into<String>) -> ApiError {
    ApiError::bad(message).param("response_format").code("invalid_json_schema")
}

fn refusal(error: SubmitError) -> ApiError {
    match error {
        SubmitError::PromptTooLong { tokens, context } => {
            let message = format!("the messages have {tokens} tokens, the model's context is {context}");
            ApiError::bad(message).param("messages").code("context_length_exceeded")
        }
        SubmitError::UnknownToken(id) => {
            let message =
                format!("`logit_bias`: the model has no token {id}; ids are those of its own tokenizer");
            ApiError::bad_param("logit_bias", message)
        }
        other => ApiError::bad(other.to_string()),
    }
}
