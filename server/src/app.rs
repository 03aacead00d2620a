//! What every request sees: the configuration, the folders, the engine, the supervisor.

use hone::store::StoreError;

use crate::{
    config::{BaseModel, ServerConfig},
    disk::{Files, Jobs, Tuned},
    engine::Engine,
    error::ApiError,
    ids,
    training::Supervisor,
};

/// The model that means the champion.
pub const ALIAS: &str = "ui-agent";

/// The server's state.
pub struct App {
    pub config: ServerConfig,
    pub files: Files,
    pub jobs: Jobs,
    pub tuned: Tuned,
    pub engine: Engine,
    pub supervisor: Supervisor,
    /// Held while a job is created.
    pub creating: tokio::sync::Mutex<()>,
    /// Only this machine can connect, so no other name of the server is right.
    pub loopback: bool,
    /// Unix seconds.
    pub started: i64,
}

/// A model id, looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The id with aliases resolved.
    pub id: String,
    pub base: BaseModel,
    /// Tuned models to merge into the base, in order; the last one is `id`.
    pub chain: Vec<String>,
}

impl App {
    pub fn new(config: ServerConfig, engine: Engine, supervisor: Supervisor, loopback: bool) -> Self {
        Self {
            files: Files::new(&config.root),
            jobs: Jobs::new(&config.root),
            tuned: Tuned::new(&config.root),
            config,
            engine,
            supervisor,
            creating: tokio::sync::Mutex::default(),
            loopback,
            started: ids::now(),
        }
    }

    /// A base model by its id.
    pub fn base(&self, id: &str) -> Option<BaseModel> {
        self.config.base_models().into_iter().find(|model| model.id == id)
    }

    /// What a request means by `model`.
    pub fn resolve(&self, model: &str) -> Result<Resolved, ApiError> {
        if model != ALIAS {
            return self.lookup(model)?.ok_or_else(|| ApiError::unknown_model(model));
        }
        let champion = (self.config.champion)();
        let first = || self.config.base_models().into_iter().next().map(|model| model.id);
        let id = &champion.or_else(first).ok_or_else(|| ApiError::unknown_model(model))?;
        let gone = || {
            let message = format!("`{ALIAS}` stands for `{id}`, which this server does not have");
            ApiError::not_found(message).param("model").code("model_not_found")
        };
        self.lookup(id)?.ok_or_else(gone)
    }

    fn lookup(&self, id: &str) -> Result<Option<Resolved>, StoreError> {
        if let Some(base) = self.base(id) {
            return Ok(Some(Resolved { id: id.into(), base, chain: Vec::new() }));
        }
        let Some(chain) = self.tuned.chain(id)? else { return Ok(None) };
        let base = chain.first().and_then(|first| self.base(&first.base));
        let chain = chain.iter().map(|model| model.id.clone()).collect();
        Ok(base.map(|base| Resolved { id: id.into(), base, chain }))
    }

    /// What a job that names `model` starts from: the base, and the tuned model to go on from.
    pub fn trainable(&self, model: &str) -> Result<(BaseModel, Option<String>), ApiError> {
        let unavailable = || {
            let known: Vec<_> = self.config.base_models().into_iter().map(|model| model.id).collect();
            let message = format!(
                "model `{model}` cannot be trained here: use `{}` or a model tuned from it",
                known.join("`, `")
            );
            ApiError::bad(message).param("model").code("model_not_available")
        };
        let resolved = self.lookup(model)?.ok_or_else(unavailable)?;
        Ok((resolved.base, resolved.chain.last().cloned()))
    }
}
