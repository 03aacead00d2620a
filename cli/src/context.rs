//! What every command is handed: the outside world as values.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use hone::{
    cancel::Cancel,
    config::{self, Loaded, Settings},
    event::Events,
    model::{
        journal::{self, Journal, Pace},
        price::{Prices, Usd},
    },
    registry::Registry,
    runtime::{Machine, is_for_python},
    store::Workspace,
};
use serde::Serialize;

use crate::{
    args::Global,
    error::{Exit, Result},
};

/// The outside world, read once.
pub struct Context {
    pub global: Global,
    pub workspace: Workspace,
    pub machine: Machine,
    pub events: Events,
    pub cancel: Cancel,
    environment: Vec<(String, String)>,
    /// This run's name in the ledger of calls.
    run: String,
}

impl Context {
    pub fn new(global: Global, events: Events, cancel: Cancel) -> Self {
        let for_python = |(name, _): &(OsString, OsString)| name.to_str().is_some_and(is_for_python);
        let machine = Machine {
            path: search_path(),
            cache: cache_folder(),
            weights: env_path("HONE_WEIGHTS"),
            environment: std::env::vars_os().filter(for_python).collect(),
        };
        let environment = std::env::vars().filter(|(name, _)| name.starts_with("HONE_")).collect();
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        let run = format!("{now}-{}", std::process::id());
        Self { workspace: Workspace::new(&global.dir), machine, events, cancel, global, environment, run }
    }

    /// Settings with where each came from; unknown keys become warnings.
    pub fn load_settings(&self, flags: &[(&str, String)]) -> Result<Loaded> {
        let loaded = self.read_settings(flags)?;
        for warning in &loaded.warnings {
            self.events.warn(warning, None);
        }
        Ok(loaded)
    }

    pub fn settings(&self, flags: &[(&str, String)]) -> Result<Settings> {
        Ok(self.load_settings(flags)?.settings)
    }

    /// [`Context::settings`] for whoever needs them after others have: warnings are given once.
    pub fn settings_again(&self) -> Result<Settings> {
        Ok(self.read_settings(&[])?.settings)
    }

    fn read_settings(&self, flags: &[(&str, String)]) -> Result<Loaded> {
        let budget = self.global.budget.map(|usd| ("budget.usd", format!("{usd:?}")));
        let flags: Vec<_> = flags.iter().cloned().chain(budget).collect();
        Ok(config::load(&self.workspace.settings(), &self.environment, &flags)?)
    }

    /// Where calls of models go, and what they may cost together.
    pub fn journal(&self, settings: &Settings) -> Result<Journal> {
        let options = journal::Options {
            cap: Usd::cap(settings.budget.usd),
            offline: self.global.offline,
            run: self.run.clone(),
            prices: Prices::load(&self.workspace.prices())?,
            pace: Pace {
                idle: Duration::from_secs_f64(settings.batch.idle_s),
                first_look: Duration::from_secs_f64(settings.batch.look_s),
                ..Pace::default()
            },
        };
        Ok(Journal::with(self.workspace.journal(), options))
    }

    /// The registry; lines that a killed process spoilt are warned of.
    pub fn registry(&self) -> Result<Registry> {
        let registry = Registry::open(&self.workspace.registry())?;
        for line in registry.unreadable() {
            let hint =
                "`hone models` shows which model is deployed; deploy again if it is not the one you meant";
            self.events.warn(format!("`{}` {line}", self.workspace.registry().display()), Some(hint.into()));
        }
        Ok(registry)
    }

    /// A key from the environment, or from `.env` in the workspace.
    pub fn secret(&self, variable: &str) -> Option<String> {
        let set = |value: String| (!value.trim().is_empty()).then(|| value.trim().to_owned());
        std::env::var(variable).ok().and_then(set).or_else(|| {
            let text = std::fs::read_to_string(self.workspace.root().join(".env")).ok()?;
            text.lines().find_map(|line| {
                let (name, value) = line.trim().trim_start_matches("export ").split_once('=')?;
                (name.trim() == variable)
                    .then(|| value.trim().trim_matches(['"', '\'']).to_owned())
                    .and_then(set)
            })
        })
    }

    /// Data for other programs, as one line, or a text for people.
    pub fn answer<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result {
        if self.global.json {
            print_line(&to_json(value))
        } else {
            print_line(&text())
        }
        Ok(Exit::Ok)
    }
}

/// One line of JSON. What cannot be serialised is our own fault and says so.
pub fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}"))
}

/// Prints to stdout; a closed pipe ends the output, not the work.
pub fn print_line(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn env_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// `HONE_CACHE`, else `hone` in the user's cache folder.
fn cache_folder() -> PathBuf {
    env_path("HONE_CACHE")
        .or_else(|| env_path("XDG_CACHE_HOME").map(|folder| folder.join("hone")))
        .or_else(|| env_path("HOME").map(|home| home.join(".cache/hone")))
        .unwrap_or_else(|| std::env::temp_dir().join("hone-cache"))
}
