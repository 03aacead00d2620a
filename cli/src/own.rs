//! Rows that are the user's own agent: from settings and environment to something that can be asked.

use std::{sync::Arc, time::Duration};

use hone::{
    agent::{Own, Program, Writer},
    config::{ModelRow, OWN_AGENTS},
    error::Kind,
    model::{client::Client, journal::Journal},
};
use tokio::sync::Semaphore;

use crate::{
    context::Context,
    error::{CommandError, Result},
    rows,
};

/// The provider of rows that are an address with a protocol of its own.
pub const SERVICE: &str = "http";

pub fn is_own(row: &ModelRow) -> bool {
    OWN_AGENTS.contains(&row.provider.as_str())
}

/// For whoever needs a model that can be asked anything: judges, trainers and trials.
pub fn no_chat_model(name: &str) -> CommandError {
    CommandError::new(Kind::Input, format!("`models.{name}` is an agent of yours, not a chat model"))
        .hint("as `--agent` and `--teacher` it can be used; to judge, to tune or to test, name a chat model")
}

/// A service's client: no provider's rules, so those of the most general one.
pub fn client(name: &str, row: &ModelRow, context: &Context) -> Result<Client> {
    rows::client(name, &ModelRow { provider: "openai-compatible".into(), ..row.clone() }, context)
}

pub fn service(name: &str, client: Client, journal: Journal) -> Writer {
    Writer::Own(Box::new(Own::service(name, client, journal)))
}

/// A program with the environment that its row gives it, and nothing else of ours.
pub fn program(name: &str, row: &ModelRow, context: &Context, journal: Journal) -> Result<Writer> {
    if row.command.is_empty() {
        let message = format!("`models.{name}` does not say which program it is");
        return Err(CommandError::new(Kind::Input, message)
            .hint("add `command = [\"python3\", \"my_agent.py\"]` to the row"));
    }
    let passed = row.pass_env.iter().map(|variable| match context.secret(variable) {
        Some(value) => Ok((variable.clone(), value)),
        None => {
            let message = format!("`models.{name}` passes `{variable}` on, which is not set");
            Err(CommandError::new(Kind::Provider, message).hint(format!(
                "set `{variable}` in the environment or in `.env`, or take it out of `pass_env`"
            )))
        }
    });
    let folder = context.workspace.root();
    let search_path = std::env::join_paths(&context.machine.path).unwrap_or_default();
    let usual = Program::new(name, std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()));
    let program = Program {
        command: row.command.clone(),
        settings: row.env.clone().into_iter().collect(),
        passed: passed.collect::<Result<_>>()?,
        search_path: search_path.to_string_lossy().into_owned(),
        limit: row.timeout_s.map_or(usual.limit, Duration::from_secs),
        at_once: row.concurrency.map_or(usual.at_once.clone(), |n| Arc::new(Semaphore::new(n.max(1)))),
        cancel: context.cancel.clone(),
        ..usual
    };
    Ok(Writer::Own(Box::new(Own::program(name, program, journal))))
}
