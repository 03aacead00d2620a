//! Answers from the engine: one thread owns the models and writes all answers together; requests reach it through a
//! channel, and pieces of text come back through another. Whoever drops an [`Answer`] frees its slots.

mod worker;

use std::{path::PathBuf, sync::Arc};

use hone::cancel::Cancel;
use hone_engine::{
    chat::ChatMessage,
    generate::{Finish, SamplingParams},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{app::Resolved, config::ServerConfig, error::ApiError};

/// What is asked of the engine.
pub struct Ask {
    pub model: Resolved,
    /// Folders of the adapters in `model.chain`.
    pub adapters: Vec<PathBuf>,
    pub messages: Vec<ChatMessage>,
    /// One per answer wanted.
    pub params: Vec<SamplingParams>,
}

/// What comes back.
#[derive(Debug)]
pub enum Update {
    /// The prompt is in the queue; always the first unless it failed.
    Started { prompt_tokens: usize },
    /// The next piece of answer `index`, in whole characters.
    Text { index: usize, text: String },
    /// Answer `index` is complete.
    Done { index: usize, finish: Finish, tokens: usize },
    /// Nothing more will come.
    Failed(ApiError),
}

/// Answers in the making.
pub struct Answer {
    pub updates: mpsc::UnboundedReceiver<Update>,
    _slots: OwnedSemaphorePermit,
}

/// Handle of the engine's thread, which ends when the last handle is gone.
pub struct Engine {
    commands: std::sync::mpsc::Sender<worker::Command>,
    slots: Arc<Semaphore>,
}

impl Engine {
    /// Starts the thread. Models are loaded when they are first asked for.
    ///
    /// `stop` cuts off the answers that are being written.
    pub fn start(config: &ServerConfig, stop: Cancel) -> std::io::Result<Self> {
        let (commands, inbox) = std::sync::mpsc::channel();
        let worker = worker::Worker::new(inbox, stop, config.max_batch, config.tuned_in_memory);
        std::thread::Builder::new().name("engine".into()).spawn(move || worker.run())?;
        Ok(Self { commands, slots: Arc::new(Semaphore::new(config.max_queue)) })
    }

    /// Puts a request in the queue, or says that it is full.
    pub fn ask(&self, ask: Ask) -> Result<Answer, ApiError> {
        let wanted = u32::try_from(ask.params.len()).unwrap_or(u32::MAX);
        let slots = self.slots.clone().try_acquire_many_owned(wanted).map_err(|_| ApiError::busy())?;
        let (sender, updates) = mpsc::unbounded_channel();
        self.commands.send(worker::Command::Ask(ask, sender)).map_err(|_| stopped())?;
        Ok(Answer { updates, _slots: slots })
    }

    /// Answers that can still be asked for before the queue is full.
    pub fn free(&self) -> usize {
        self.slots.available_permits()
    }

    /// Drops a deleted model's weights.
    pub fn forget(&self, id: &str) {
        // An engine that is gone remembers nothing.
        let _ = self.commands.send(worker::Command::Forget(id.into()));
    }
}

impl Answer {
    /// The next update; an engine that is gone is a failure.
    pub async fn next(&mut self) -> Update {
        self.updates.recv().await.unwrap_or_else(|| Update::Failed(stopped()))
    }
}

fn stopped() -> ApiError {
    ApiError::stopping()
}
