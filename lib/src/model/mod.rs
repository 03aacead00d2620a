//! Chat models and the one client that reaches them: hosted providers and the local server alike.

pub mod client;
pub mod journal;
pub mod wire;
