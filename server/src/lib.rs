//! OpenAI's fine-tuning and chat protocol over the local engine.
//!
//! Requests come in over `connections` and through `http`; `app` looks models up; `engine` writes answers on a thread of
//! its own; `training` checks and supervises jobs, which run in child processes; `batch` answers files of requests when
//! there is time; `grader` scores answers; `disk` is everything that outlives the server; `exchange`
//! takes adapters of other trainers in and gives models out. One server at a time runs on a folder.

mod app;
mod batch;
mod config;
mod connections;
mod disk;
mod engine;
mod error;
mod exchange;
#[cfg(fuzzing)]
pub mod fuzzing;
mod grader;
mod http;
mod ids;
mod load;
mod serve;
mod training;

pub use app::ALIAS;
pub use config::{Answer, Answered, BaseModel, Limits, MoreModels, Route, ServerConfig};
pub use error::ServeError;
pub use exchange::{ExchangeError, Export, Exported, Form, TunedCard, add_adapter, export, tuned_cards};
pub use serve::{LocalServer, Server, running, spawn_at, spawn_local};
pub use training::run_training_child;

/// The jobs of a server's folder, newest first, whether one runs there or not.
pub fn jobs(root: &std::path::Path) -> Vec<hone::model::wire::Job> {
    disk::Jobs::new(root).list().unwrap_or_default().into_iter().map(|record| record.job).collect()
}

/// Where the weights of a tuned model's adapter are, if this server made it.
pub fn adapter(root: &std::path::Path, model: &str) -> std::path::PathBuf {
    disk::Tuned::new(root).folder(model).join("adapter_model.safetensors")
}
