//! OpenAI's fine-tuning and chat protocol over the local engine.
//!
//! Requests come in through `http`; `app` looks models up; `engine` writes answers on a thread of its own; `training`
//! checks and supervises jobs, which run in child processes; `disk` is everything that outlives the server; `exchange`
//! takes adapters of other trainers in and gives models out. One server at a time runs on a folder.

mod app;
mod config;
mod disk;
mod engine;
mod error;
mod exchange;
mod http;
mod ids;
mod serve;
mod training;

pub use app::ALIAS;
pub use config::{BaseModel, Champion, MoreModels, ServerConfig};
pub use error::ServeError;
pub use exchange::{ExchangeError, Export, Exported, Form, TunedCard, add_adapter, export, tuned_cards};
pub use serve::{LocalServer, Server, running, spawn_at, spawn_local};
pub use training::run_training_child;
