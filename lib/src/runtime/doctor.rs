//! `hone doctor`: everything a run needs, and how to mend what is missing.

use std::{borrow::Cow, path::Path};

use serde::Serialize;
use tokio::process::Command;

use super::{Machine, python, weights};
use crate::{
    config::Settings,
    error::Explain,
    store::{self, Workspace},
};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    pub name: Cow<'static, str>,
    pub ok: bool,
    pub detail: String,
    /// What mends it; null when it is well or when nothing needs it yet.
    pub fix: Option<String>,
}

impl Check {
    pub fn well(name: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ok: true, detail: detail.into(), fix: None }
    }

    pub fn fault(
        name: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), ok: false, detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// What the doctor found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub ok: bool,
    pub checks: Vec<Check>,
}

impl Report {
    /// Adds what was looked at elsewhere.
    pub fn push(&mut self, check: Check) {
        self.ok &= check.ok;
        self.checks.push(check);
    }
}

/// What the doctor looks at.
pub struct Doctor<'a> {
    pub machine: &'a Machine,
    pub workspace: &'a Workspace,
    /// The settings, or why they could not be read.
    pub settings: Result<&'a Settings, String>,
}

/// Free space below which a run is likely to fail.
const LEAST_FREE_BYTES: u64 = 3_000_000_000;

/// Looks at everything; never fails itself.
pub async fn doctor(subject: &Doctor<'_>) -> Report {
    let machine = subject.machine;
    let checks = vec![
        python_check(machine).await,
        runtime_check(machine),
        weights_check(machine),
        added_check(machine, &subject.settings),
        sandbox_check(machine).await,
        browser_check(machine),
        disk_check("disk for the cache", &machine.cache),
        disk_check("disk for the workspace", subject.workspace.root()),
        workspace_check(subject.workspace),
        settings_check(&subject.settings),
        dataset_check(subject.workspace),
    ];
    Report { ok: checks.iter().all(|check| check.ok), checks }
}

async fn python_check(machine: &Machine) -> Check {
    match python::find(machine).await {
        Ok((path, version)) => Check::well("python", format!("{version} at `{}`", path.display())),
        Err(e) => Check::fault("python", e.to_string(), e.hint().unwrap_or_default()),
    }
}

fn runtime_check(machine: &Machine) -> Check {
    let venv = python::venv_folder(&machine.cache);
    if python::is_ready(&venv) {
        return Check::well("streamlit", format!("installed in `{}`", venv.display()));
    }
    Check::fault("streamlit", "the Python environment is not made yet", "run `hone setup`")
}

fn weights_check(machine: &Machine) -> Check {
    let path = weights::gguf(machine);
    if !path.is_file() {
        return Check::fault("weights", format!("`{}` is missing", path.display()), "run `hone setup`");
    }
    if machine.weights.is_some() {
        return Check::well("weights", format!("your own, `{}`", path.display()));
    }
    match weights::verify(&path, weights::SOURCE.sha256) {
        Ok(()) => Check::well("weights", format!("{} with the expected sha256", weights::BASE_MODEL)),
        Err(e) => Check::fault("weights", e.to_string(), e.hint().unwrap_or_default()),
    }
}

/// The base model that the settings train, where it is one that was added.
fn added_check(machine: &Machine, settings: &Result<&Settings, String>) -> Check {
    const NAME: &str = "base model";
    let chosen = settings.as_ref().map_or(weights::BASE_MODEL, |settings| &settings.finetune.base_model);
    if chosen == weights::BASE_MODEL {
        return Check::well(NAME, "the shipped one");
    }
    match machine.catalog().get(chosen) {
        Ok(Some(added)) => Check::well(NAME, format!("`{chosen}` at `{}`", added.path.display())),
        // Rows and hosted models are not on this machine.
        Ok(None) => Check::well(NAME, format!("`{chosen}`, which was not added here")),
        Err(e) => Check::fault(NAME, e.to_string(), e.hint().unwrap_or_default()),
    }
}

async fn sandbox_check(machine: &Machine) -> Check {
    const NAME: &str = "sandbox";
    const INSTALL: &str = "`apt-get install bubblewrap`; without it only `--static-only` scoring is possible";
    let Some(bwrap) = machine.bubblewrap() else {
        return Check::fault(NAME, "bubblewrap was not found", INSTALL);
    };
    let trial = Command::new(&bwrap)
        .args(["--unshare-net", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "true"])
        .env_clear()
        .output()
        .await;
    match trial {
        Ok(output) if output.status.success() => {
            Check::well(NAME, format!("bubblewrap works at `{}`", bwrap.display()))
        }
        Ok(output) => Check::fault(
            NAME,
            format!(
                "bubblewrap may not make namespaces here: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
            "allow unprivileged user namespaces, or run as root; in a container, start it with the rights to make namespaces",
        ),
        Err(e) => Check::fault(NAME, e.to_string(), INSTALL),
    }
}

fn browser_check(machine: &Machine) -> Check {
    match machine.chromium() {
        Some(path) => Check::well("browser", format!("`{}`", path.display())),
        None => Check::well(
            "browser",
            "no Chromium: apps are run and used, but nobody looks at them (`apt-get install chromium-headless-shell`, or `chromium`)",
        ),
    }
}

fn disk_check(name: &'static str, folder: &Path) -> Check {
    let existing = folder.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            let free = stat.f_bavail * stat.f_frsize;
            let detail = format!("{:.1} GB free at `{}`", free as f64 / 1e9, existing.display());
            if free >= LEAST_FREE_BYTES {
                Check::well(name, detail)
            } else {
                Check::fault(name, detail, "free some space: a run wants 3 GB")
            }
        }
        Err(e) => Check::fault(name, e.to_string(), "check the path"),
    }
}

fn workspace_check(workspace: &Workspace) -> Check {
    const NAME: &str = "workspace";
    let root = workspace.root();
    if !root.exists() {
        return Check::fault(
            NAME,
            format!("`{}` does not exist", root.display()),
            "make it, or run `hone init`",
        );
    }
    if let Err(e) = tempfile::tempfile_in(root) {
        let detail = format!("`{}` cannot be written: {e}", root.display());
        return Check::fault(NAME, detail, "make it writable, or choose another with `-C DIR`");
    }
    if workspace.train_briefs().is_file() {
        Check::well(NAME, format!("`{}`", root.display()))
    } else {
        let detail = format!("`{}` has no briefs yet", root.display());
        Check { fix: Some("run `hone init`".into()), ..Check::well(NAME, detail) }
    }
}

fn settings_check(settings: &Result<&Settings, String>) -> Check {
    match settings {
        Ok(settings) => Check::well("settings", settings.describe()),
        Err(e) => Check::fault("settings", e.clone(), "mend `hone.toml`; `hone config` shows every setting"),
    }
}

fn dataset_check(workspace: &Workspace) -> Check {
    let path = workspace.dataset();
    match store::read_text(&path) {
        Ok(text) => {
            let (rows, errors) = store::parse_lines::<serde_json::Value>(&text);
            match errors.first() {
                None => Check::well("dataset", format!("{} rows", rows.len())),
                Some(e) => {
                    Check::fault("dataset", format!("`{}` {e}", path.display()), "run `hone prepare` again")
                }
            }
        }
        Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => {
            Check::well("dataset", "none yet; `hone prepare` makes it")
        }
        Err(e) => Check::fault("dataset", e.to_string(), "run `hone prepare` again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dataset_that_is_not_there_is_none_yet() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(folder.path());
        let check = |bytes: Option<&[u8]>, ok: bool, said: &str| {
            if let Some(bytes) = bytes {
                std::fs::write(workspace.dataset(), bytes).unwrap();
            }
            let found = dataset_check(&workspace);
            assert_eq!(found.ok, ok, "{found:?}");
            assert!(found.detail.contains(said), "{found:?}");
        };
        check(None, true, "none yet");
        std::fs::create_dir(folder.path().join("data")).unwrap();
        check(Some(b"{}\n{}\n"), true, "2 rows");
        check(Some(b"{}\n{\n"), false, "line 2");
        check(Some(b"{}\n\xff\xfe"), false, "line 2: byte 1 is not valid UTF-8");
    }
}
