//! What every request sees: the configuration, the folders, the engine, the supervisor.

use hone::{
    registry::{Canary, Office, Share},
    store::StoreError,
};
use sha2::{Digest, Sha256};

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

/// On which side of a trial run a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sided {
    pub share: Share,
    /// Since when the canary has its share.
    pub since: String,
}

/// Whether a caller is among the canary's; one who says no name is drawn anew each time.
fn takes(canary: &Canary, caller: Option<&str>) -> bool {
    let place = match caller {
        Some(caller) => {
            let hash = Sha256::digest(format!("{}\n{caller}", canary.model));
            u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])
        }
        None => rand::random(),
    };
    f64::from(place) < canary.share * (f64::from(u32::MAX) + 1.0)
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

    /// What a request means by `model`, whoever asks.
    pub fn resolve(&self, model: &str) -> Result<Resolved, ApiError> {
        Ok(self.route(model, None)?.0)
    }

    /// Who answers a request of `caller`. While a canary takes a share of the alias's requests, its side is said too; the same
    /// caller is always on the same side.
    pub fn route(&self, model: &str, caller: Option<&str>) -> Result<(Resolved, Option<Sided>), ApiError> {
        if model != ALIAS {
            let resolved = self.lookup(model)?.ok_or_else(|| ApiError::unknown_model(model))?;
            return Ok((resolved, None));
        }
        let Office { champion, canary } = (self.config.route)();
        let side = |share, canary: &Canary| Sided { share, since: canary.at.clone() };
        // A canary that is not here answers nothing: the champion does.
        if let Some(canary) = &canary
            && takes(canary, caller)
            && let Some(resolved) = self.lookup(&canary.model)?
        {
            return Ok((resolved, Some(side(Share::Canary, canary))));
        }
        let first = || self.config.base_models().into_iter().next().map(|model| model.id);
        let id = &champion.or_else(first).ok_or_else(|| ApiError::unknown_model(model))?;
        let gone = || {
            let message = format!("`{ALIAS}` stands for `{id}`, which this server does not have");
            ApiError::not_found(message).param("model").code("model_not_found")
        };
        let resolved = self.lookup(id)?.ok_or_else(gone)?;
        Ok((resolved, canary.map(|canary| side(Share::Champion, &canary))))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_stays_on_one_side_and_the_sides_have_their_shares() {
        let canary = |share| Canary { model: "ft:a".into(), share, at: String::new(), forced: false };
        let callers: Vec<String> = (0..2_000).map(|n| format!("user-{n}")).collect();
        let taken = |share| callers.iter().filter(|caller| takes(&canary(share), Some(caller))).count();
        let tenth = taken(0.1);
        assert!((150..250).contains(&tenth), "{tenth} of 2000");
        assert_eq!((tenth, taken(0.0), taken(1.0)), (taken(0.1), 0, 2_000));
        // Whoever has the canary at a small share has it at a larger one.
        let kept = callers.iter().filter(|caller| takes(&canary(0.1), Some(caller)));
        assert!(kept.clone().all(|caller| takes(&canary(0.3), Some(caller))));
        let unnamed = (0..2_000).filter(|_| takes(&canary(0.5), None)).count();
        assert!((850..1_150).contains(&unnamed), "{unnamed} of 2000");
    }
}
