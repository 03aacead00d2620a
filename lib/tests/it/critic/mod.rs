//! The critic with a real Streamlit in real sandboxes.
//!
//! Needs `HONE_TEST_PYTHON`: the Python of an environment with Streamlit and ruff. Without it these tests say that they
//! are skipped and pass.

mod apart;
mod apps;
mod browser;
mod forged;
mod habits;
mod hostile;
mod uses;

use std::path::{Path, PathBuf};

use hone::{
    agent::{Candidate, SourceFile},
    brief::Brief,
    cancel::Cancel,
    critic::{Critic, CriticOptions, CriticRuntime},
};

/// Held by each test that starts sandboxes: they share the machine, and one looks for what is left.
pub static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The environment under test, or a loud skip.
pub fn runtime(test: &str) -> Option<CriticRuntime> {
    let Some(python) = std::env::var_os("HONE_TEST_PYTHON").map(PathBuf::from) else {
        assert!(std::env::var_os("HONE_TEST_REQUIRE").is_none(), "{test} needs HONE_TEST_PYTHON");
        eprintln!(
            "SKIPPED {test}: set HONE_TEST_PYTHON to the Python of an environment with Streamlit and ruff"
        );
        return None;
    };
    let ruff = python.with_file_name("ruff");
    let bwrap =
        ["/usr/bin/bwrap", "/usr/local/bin/bwrap"].iter().map(PathBuf::from).find(|path| path.exists());
    Some(CriticRuntime { python, bwrap, ruff, chromium: hone::runtime::find_chromium() })
}

pub async fn open(runtime: CriticRuntime) -> Critic {
    let options = CriticOptions { workers: 2, ahead: 2, ..CriticOptions::default() };
    Critic::open(runtime, options, &Cancel::new()).await.unwrap()
}

pub fn brief(description: &str) -> Brief {
    serde_json::from_value(serde_json::json!({ "id": "b", "description": description })).unwrap()
}

pub fn app(content: &str) -> Candidate {
    Candidate::single("app.py", content)
}

pub fn files(folder: &Path, names: &[String]) -> Candidate {
    let read = |name: &String| SourceFile {
        path: name.clone(),
        content: std::fs::read_to_string(folder.join(name)).unwrap(),
    };
    Candidate { files: names.iter().map(read).collect() }
}
