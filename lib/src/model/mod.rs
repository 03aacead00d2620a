//! Chat models and the one client that reaches them: hosted providers and the local server alike; and the hub from which
//! weights come.

pub mod client;
pub mod hub;
pub mod journal;
pub mod provider;
pub mod wire;
