//! What every request sees: the configuration, the folders, the engine, the supervisor.

use hone::store::StoreError;

use crate::{
    batch::Clerk,
    config::{BaseModel, ServerConfig},
    disk::{Answers, Batches, Files, Jobs, Tuned, Uploads},
    engine::Engine,
    error::ApiError,
    http::{Keyed, Responses},
    ids,
    load::Load,
    training::Supervisor,
};

/// The model that means the champion.
pub const ALIAS: &str = "ui-agent";

/// The server's state.
pub struct App {
    pub config: ServerConfig,
    pub files: Files,
    pub uploads: Uploads,
    pub jobs: Jobs,
    pub batches: Batches,
    pub tuned: Tuned,
    /// What was answered to requests with an `Idempotency-Key`.
    pub answers: Answers,
    pub engine: Engine,
    pub supervisor: Supervisor,
    pub clerk: Clerk,
    pub load: Load,
    pub responses: Responses,
    /// Taken by uploads and by idempotency keys while they change.
    pub keys: Keyed,
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
            uploads: Uploads::new(&config.root),
            jobs: Jobs::new(&config.root),
            batches: Batches::new(&config.root),
            tuned: Tuned::new(&config.root),
            answers: Answers::new(&config.root),
            config,
            engine,
            supervisor,
            clerk: Clerk::default(),
            load: Load::default(),
            responses: Responses::default(),
            keys: Keyed::default(),
            loopback,
            started: ids::now(),
        }
    }

    /// Removes what was killed half way. Nobody else may be at work on the folder.
    pub fn clean(&self) {
        self.files.clean();
        self.uploads.clean();
        self.jobs.clean();
        self.batches.clean();
    }

    /// Removes what has expired.
    pub fn sweep(&self) -> Result<(), StoreError> {
        let jobs = self.jobs.list()?;
        self.files.sweep(|id| jobs.iter().any(|record| record.uses(id)))?;
        self.uploads.sweep()?;
        self.answers.sweep();
        Ok(())
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
