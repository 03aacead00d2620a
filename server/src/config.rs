//! What a server is started with.

use std::{ffi::OsString, fmt, path::PathBuf, sync::Arc, time::Duration};

use hone::{
    model::client::Secret,
    registry::{Office, Share},
};
use hone_engine::infer;
use serde::{Deserialize, Serialize};

/// A model file that can be served and trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseModel {
    /// Its name in the API, without colons or slashes: `smollm2-135m-instruct`.
    pub id: String,
    /// A GGUF file, or a folder of safetensors as the hub stores it.
    pub path: PathBuf,
}

/// Says whom the alias `ui-agent` means now; without a champion it is the first base model. Asked at every request.
pub type Route = Arc<dyn Fn() -> Office + Send + Sync>;

/// Is told what was answered to requests to the alias while a canary takes a share of them. Must not block.
pub type Answered = Arc<dyn Fn(Answer) + Send + Sync>;

/// One answer of the alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Since when the canary has its share: tells this trial run from others.
    pub since: String,
    pub share: Share,
    /// The last thing that the user asked.
    pub asked: String,
    pub text: String,
}

/// Says which base models there are besides those that the server was started with: they may come and go.
pub type MoreModels = Arc<dyn Fn() -> Vec<BaseModel> + Send + Sync>;

/// What a client may take up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections; further ones are told 503. Fewer when the system allows fewer open files.
    pub connections: usize,
    /// For the head of a request, and for a connection between two requests.
    pub head: Duration,
    /// In which a body has to bring 1 KiB or its end.
    pub body_window: Duration,
    /// For a client to take what was sent to it.
    pub unread: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 12_000,
            head: Duration::from_secs(30),
            body_window: Duration::from_secs(30),
            unread: Duration::from_secs(60),
        }
    }
}

/// What a server is started with.
#[derive(Clone)]
pub struct ServerConfig {
    /// The workspace's server folder.
    pub root: PathBuf,
    /// Base models; the first one is what the alias means until a model is deployed.
    pub models: Vec<BaseModel>,
    pub more_models: MoreModels,
    /// When set, every request has to carry it.
    pub api_key: Option<Secret>,
    pub route: Route,
    pub answered: Answered,
    /// Program and arguments that train the job whose folder is appended: it ends in
    /// [`crate::run_training_child`].
    pub trainer: Vec<OsString>,
    /// Variables that the trainer is not handed: keys of providers, whom it has no reason to call.
    pub hidden: Vec<String>,
    /// Answers in the making or waiting; more are refused with 429.
    pub max_queue: usize,
    /// Answers written at the same time.
    pub max_batch: usize,
    /// Bytes of tuned models kept in memory beside their base models. The one in use is, however large.
    pub tuned_bytes: usize,
    /// Bytes of keys and values kept of earlier conversations, for those that start alike.
    pub prefix_bytes: usize,
    pub limits: Limits,
    /// What answers are computed with.
    pub kernels: infer::Options,
}

impl ServerConfig {
    /// Every base model, the one that the alias means first.
    pub fn base_models(&self) -> Vec<BaseModel> {
        let mut models = self.models.clone();
        for more in (self.more_models)() {
            if !models.iter().any(|model| model.id == more.id) {
                models.push(more);
            }
        }
        models
    }

    pub fn new(root: impl Into<PathBuf>, models: Vec<BaseModel>, trainer: Vec<OsString>) -> Self {
        Self {
            root: root.into(),
            models,
            more_models: Arc::new(Vec::new),
            api_key: None,
            route: Arc::new(Office::default),
            answered: Arc::new(drop),
            trainer,
            hidden: Vec::new(),
            max_queue: 256,
            max_batch: 16,
            tuned_bytes: 64 << 20,
            prefix_bytes: 64 << 20,
            limits: Limits::default(),
            kernels: infer::Options::default(),
        }
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("root", &self.root)
            .field("models", &self.models)
            .field("api_key", &self.api_key)
            .field("trainer", &self.trainer)
            .finish_non_exhaustive()
    }
}
