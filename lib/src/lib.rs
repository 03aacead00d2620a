//! Hone's product: everything between a brief and a deployed model.
//!
//! Modules appear in the order in which data flows; each knows only those above it. The library never prints, prompts,
//! or reads the environment or the home folder: it is handed values, and it emits [`event::Event`]s.

pub mod auto;
pub mod cancel;
pub mod config;
pub mod error;
pub mod event;
pub mod store;
pub mod text;

pub mod runtime;

pub mod brief;
pub mod model;

pub mod agent;
pub mod critic;
pub mod evolve;

pub mod rating;

pub mod dataset;
pub mod finetune;

pub mod trial;

pub mod calibrate;
pub mod registry;

pub mod rounds;

pub mod monitor;

pub mod plan;
