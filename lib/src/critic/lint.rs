//! Ruff's findings: a static tool on source as data, outside the sandbox.

use std::{path::Path, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{Lint, error::CriticError};
use crate::agent::SourceFile;

/// Ruff takes 10 ms for a file.
const LIMIT: Duration = Duration::from_secs(20);
/// A second look tells a file that ruff cannot read from a ruff that something else ended.
const ATTEMPTS: usize = 2;
/// What stands for a rule where ruff has no findings to give.
const UNREADABLE: &str = "unreadable";
/// Findings beyond this number of one file say nothing new.
const MOST: usize = 30;
/// Pyflakes, the errors of pycodestyle, and passwords by what they are assigned to: what is wrong rather than a matter of taste.
pub(super) const RULES: &str = "E4,E7,E9,F,S105,S106,S107";

/// What ruff calls syntax that the Python in use refuses though our parser reads it.
pub(super) const REFUSED: &str = "invalid-syntax";
/// The minor version that is assumed where no Python was asked: what Hone sets up.
const USUAL: u32 = 11;
/// The minor versions that ruff knows.
const KNOWN: std::ops::RangeInclusive<u32> = 7..=15;

/// Ruff's name for a version of Python such as `3.12.1`: the nearest that it knows.
pub(super) fn target(python: Option<&str>) -> String {
    let minor = python.and_then(|version| version.strip_prefix("3.")?.split('.').next()?.parse().ok());
    format!("py3{}", minor.unwrap_or(USUAL).clamp(*KNOWN.start(), *KNOWN.end()))
}

/// Whether a rule is about a password or a key in the source.
pub(super) fn names_secret(code: &str) -> bool {
    matches!(code, "S105" | "S106" | "S107")
}

#[derive(Deserialize)]
struct Finding {
    code: Option<String>,
    message: String,
    location: Place,
}

#[derive(Deserialize)]
struct Place {
    row: usize,
    column: usize,
}

/// Lints one file that parses, as a [`target`] reads it.
///
/// Ruff that ends abnormally (its stack is smaller than our parser's), or not at all, says something about the file: that
/// is one finding. Whether ruff works is known since [`version`] was asked; so only a ruff that cannot be started any
/// more is an error.
pub(super) async fn lint(ruff: &Path, file: &SourceFile, target: &str) -> Result<Vec<Lint>, CriticError> {
    for _ in 0..ATTEMPTS {
        if let Some(findings) = attempt(ruff, file, target).await? {
            return Ok(findings);
        }
    }
    let message = "the linter cannot read this file: nest less and write shorter expressions".to_owned();
    Ok(vec![Lint { code: UNREADABLE.to_owned(), at: format!("{}:1:1", file.path), message }])
}

/// Ruff's findings, if it ends as it should.
async fn attempt(ruff: &Path, file: &SourceFile, target: &str) -> Result<Option<Vec<Lint>>, CriticError> {
    let mut child = Command::new(ruff)
        .env_clear()
        .current_dir("/")
        .args(["check", "--isolated", "--no-cache", "--quiet", "--output-format", "json", "--select", RULES])
        .args(["--target-version", target, "--stdin-filename", &file.path, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| broken(ruff, format!("ruff cannot be started: {e}")))?;
    let input = child.stdin.take();
    let source = file.content.clone();
    let write = async move {
        if let Some(mut input) = input {
            // Ruff that ends early says so by its output.
            let _ = input.write_all(source.as_bytes()).await;
        }
    };
    let both = async { tokio::join!(write, child.wait_with_output()).1 };
    let Ok(output) = timeout(LIMIT, both).await else { return Ok(None) };
    let output = output.map_err(|e| broken(ruff, format!("ruff failed: {e}")))?;
    Ok(read(&output.stdout, &file.path))
}

/// Ruff's version, such as `0.14.2`.
///
/// # Errors
/// Ruff is not there or does not work.
pub(super) async fn version(ruff: &Path) -> Result<String, CriticError> {
    let mut command = Command::new(ruff);
    command.env_clear().current_dir("/").arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(LIMIT, command.output()).await;
    let output = output.map_err(|_| broken(ruff, "ruff does not end".to_owned()))?;
    let output = output.map_err(|e| broken(ruff, format!("ruff cannot be started: {e}")))?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.trim().strip_prefix("ruff ") {
        Some(version) if output.status.success() => Ok(version.to_owned()),
        _ => Err(broken(ruff, "ruff does not tell its version".to_owned())),
    }
}

fn broken(ruff: &Path, why: String) -> CriticError {
    CriticError::Runtime { python: ruff.to_owned(), why }
}

fn read(output: &[u8], path: &str) -> Option<Vec<Lint>> {
    let findings: Vec<Finding> = serde_json::from_slice(output).ok()?;
    let lint = |finding: Finding| Lint {
        code: finding.code.unwrap_or_default(),
        at: format!("{path}:{}:{}", finding.location.row, finding.location.column),
        message: finding.message,
    };
    Some(findings.into_iter().take(MOST).map(lint).collect())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::PathBuf};

    use super::*;
    use crate::critic::Guidelines;

    #[test]
    fn findings_are_read_with_their_place() {
        let output =
            br#"[{"code":"F821","message":"Undefined name `x`","location":{"row":3,"column":5},"fix":null}]"#;
        let expected =
            Lint { code: "F821".into(), at: "a.py:3:5".into(), message: "Undefined name `x`".into() };
        assert_eq!(read(output, "a.py"), Some(vec![expected]));
        assert_eq!(read(b"[]", "a.py"), Some(vec![]));
        assert_eq!(read(b"no", "a.py"), None);
    }

    #[test]
    fn a_target_is_a_version_that_ruff_knows() {
        let names =
            [Some("3.11.2"), Some("3.14.0rc1"), Some("3.99.1"), Some("3.6"), Some("4.0"), None].map(target);
        assert_eq!(names, ["py311", "py314", "py315", "py37", "py311", "py311"]);
    }

    fn file() -> SourceFile {
        SourceFile { path: "a.py".into(), content: "x = 1\n".into() }
    }

    #[tokio::test]
    async fn a_linter_that_ends_abnormally_is_a_finding() {
        // It says nothing and ends.
        let findings = lint(Path::new("/bin/true"), &file(), "py311").await.unwrap();
        let places: Vec<_> = findings.iter().map(|f| (f.code.as_str(), f.at.as_str())).collect();
        assert_eq!(places, [(UNREADABLE, "a.py:1:1")]);
    }

    #[tokio::test]
    async fn a_linter_that_is_not_there_is_an_error() {
        let nowhere = Path::new("/nowhere/ruff");
        assert!(matches!(lint(nowhere, &file(), "py311").await, Err(CriticError::Runtime { .. })));
        assert!(matches!(version(nowhere).await, Err(CriticError::Runtime { .. })));
        assert!(matches!(version(Path::new("/bin/true")).await, Err(CriticError::Runtime { .. })));
    }

    /// Every rule that [`RULES`] selects of ruff 0.17.6, what it says of files that do not parse, and what we say of those
    /// that it cannot read.
    const SELECTED: &str = "E401 E402 E701 E702 E703 E711 E712 E713 E714 E721 E722 E731 E741 E742 E743 E902 F401 F402 F403 \
        F404 F405 F406 F407 F501 F502 F503 F504 F505 F506 F507 F508 F509 F521 F522 F523 F524 F525 F541 F601 F602 F621 \
        F622 F631 F632 F633 F634 F701 F702 F704 F706 F707 F722 F811 F821 F822 F823 F841 F842 F901 S105 S106 S107";

    #[test]
    fn every_rule_leads_to_a_guideline() {
        for rule in SELECTED.split_whitespace().chain([REFUSED, UNREADABLE]) {
            assert!(Guidelines::embedded().checked_by("ruff", rule).is_some(), "{rule}");
        }
    }

    /// With `HONE_TEST_PYTHON`, whose folder has ruff; without it this says that it is skipped.
    #[test]
    fn the_rules_are_those_that_ruff_has() {
        let Some(python) = std::env::var_os("HONE_TEST_PYTHON").map(PathBuf::from) else {
            eprintln!("SKIPPED the rules of ruff: set HONE_TEST_PYTHON to the Python that `hone setup` made");
            return;
        };
        let ruff = python.with_file_name("ruff");
        let any = concat!(env!("CARGO_MANIFEST_DIR"), "/src/critic/sandbox/worker.py");
        let listed = std::process::Command::new(ruff)
            .args(["check", "--isolated", "--show-settings", "--select", RULES, any])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let settings = String::from_utf8(listed.stdout).unwrap();
        let enabled = settings.split_once("linter.rules.enabled = [").unwrap().1.split(']').next().unwrap();
        let code = |line: &str| Some(line.split_once('(')?.1.split_once(')')?.0.to_owned());
        let enabled: BTreeSet<String> = enabled.lines().filter_map(code).collect();
        assert_eq!(enabled, SELECTED.split_whitespace().map(str::to_owned).collect());
    }
}
