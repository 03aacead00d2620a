//! A workspace in a scratch folder, and `hone` with nothing of this machine's user in its environment.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
};

use hone_engine::model::Model;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A two-layer model with random weights: it writes gibberish, learns a little, and takes no time.
static TINY: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let own = folder.join(format!("tiny-{}.gguf", std::process::id()));
    Model::random_tiny(1).save(&own).unwrap();
    let path = folder.join("tiny-1.gguf");
    std::fs::rename(own, &path).unwrap();
    path
});

/// The shared cache with the runtime, or a loud skip.
pub fn cache(test: &str) -> Option<PathBuf> {
    match std::env::var_os("HONE_TEST_PYTHON") {
        Some(python) => Some(Path::new(&python).ancestors().nth(3).unwrap().to_owned()),
        None => {
            assert!(std::env::var_os("HONE_TEST_REQUIRE").is_none(), "HONE_TEST_PYTHON is not set");
            eprintln!("SKIPPED {test}: set HONE_TEST_PYTHON to the Python that `hone setup` made");
            None
        }
    }
}

pub struct World {
    pub folder: TempDir,
    cache: PathBuf,
    weights: Option<PathBuf>,
}

impl World {
    /// A machine on which `hone setup` has never run.
    pub fn bare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        Self { folder, cache, weights: Some(TINY.clone()) }
    }

    /// A machine with the runtime; the model is the tiny one.
    pub fn with_runtime(cache: PathBuf) -> Self {
        Self { cache, ..Self::bare() }
    }

    /// A machine with the runtime and the real weights in it.
    pub fn real(cache: PathBuf) -> Self {
        Self { weights: None, ..Self::with_runtime(cache) }
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("workspace")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// `n` training and `m` held-out briefs of the shipped ones.
    pub fn briefs(&self, n: usize, m: usize) -> &Self {
        let first = |text: &str, n: usize| text.lines().take(n).map(|l| format!("{l}\n")).collect::<String>();
        self.write("briefs/train.jsonl", first(hone::brief::TRAIN_JSONL, n));
        self.write("briefs/heldout.jsonl", first(hone::brief::HELDOUT_JSONL, m));
        self
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hone"));
        command
            .args(arguments)
            .arg("-C")
            .arg(self.root())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path().join("home"))
            .env("HONE_CACHE", &self.cache)
            .stdin(Stdio::null());
        if let Some(weights) = &self.weights {
            command.env("HONE_WEIGHTS", weights);
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments))
    }

    /// Runs to exit code 0; what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}\n{ran:?}");
        ran.stdout
    }

    /// Runs with `--json` to exit code 0; the one object that it printed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"))
    }

    /// Runs to an error: its exit code, and words of the message and of the hint.
    pub fn fails(&self, arguments: &[&str], code: i32, message: &str, hint: &str) -> Ran {
        let ran = self.run(arguments);
        ran.failed(code, message, hint);
        ran
    }

    /// Evolution logs by file name.
    pub fn logs(&self) -> Vec<(String, Value)> {
        let Ok(entries) = std::fs::read_dir(self.path("data/evolutionary_logs")) else { return Vec::new() };
        let mut logs: Vec<_> = entries
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().extension().is_some_and(|end| end == "json"))
            .map(|entry| {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                let log = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{entry:?} is spoilt: {e}"));
                (entry.file_name().into_string().unwrap(), log)
            })
            .collect();
        logs.sort_by(|a, b| a.0.cmp(&b.0));
        logs
    }
}

/// A row `fake` for a provider that is paid.
pub fn fake_row(url: &str) -> String {
    format!(
        "[models.fake]\nprovider = \"openai-compatible\"\nbase_url = \"{url}\"\nmodel = \"m\"\n\
         price = {{ input = 3.75, output = 15.0, as_of = \"2026-01-31\" }}\n"
    )
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Command> for Ran {
    fn from(mut command: Command) -> Self {
        Self::of(command.output().unwrap())
    }
}

impl Ran {
    pub fn of(Output { status, stdout, stderr }: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
    }

    /// The error that was printed: on stderr alone, with cause and hint.
    pub fn failed(&self, code: i32, message: &str, hint: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "", "an error prints no data");
        let said = |start: &str| self.stderr.lines().any(|line| line.starts_with(start));
        assert!(said("error: ") && self.stderr.contains(message), "no `{message}` in: {}", self.stderr);
        assert!(said("hint: ") && self.stderr.contains(hint), "no hint `{hint}` in: {}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

/// A dataset of good rows.
pub fn dataset(rows: usize) -> String {
    let row = |n: usize| {
        json!({"messages": [
            {"role": "system", "content": "You write Streamlit apps."},
            {"role": "user", "content": format!("form number {n}")},
            {"role": "assistant", "content": format!("import streamlit as st\nst.title('Form {n}')")},
        ]})
    };
    (0..rows).map(|n| format!("{}\n", row(n))).collect()
}

pub const DATASET: &str = "data/ui_agent_openai_finetuning.jsonl";
