//! Ruff's findings: a static tool on source as data, outside the sandbox.

use std::{path::Path, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{Lint, error::CriticError};
use crate::agent::SourceFile;

/// Ruff takes 10 ms for a file.
const LIMIT: Duration = Duration::from_secs(20);
/// Findings beyond this number of one file say nothing new.
const MOST: usize = 30;
/// Pyflakes and the errors of pycodestyle: what is wrong rather than a matter of taste.
const RULES: &str = "E4,E7,E9,F";

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

/// Lints one file that parses.
pub(super) async fn lint(ruff: &Path, file: &SourceFile) -> Result<Vec<Lint>, CriticError> {
    let fail = |why: String| CriticError::Runtime { python: ruff.to_owned(), why };
    let mut child = Command::new(ruff)
        .env_clear()
        .current_dir("/")
        .args(["check", "--isolated", "--no-cache", "--quiet", "--output-format", "json", "--select", RULES])
        .args(["--target-version", "py311", "--stdin-filename", "app.py", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| fail(format!("ruff cannot be started: {e}")))?;
    let input = child.stdin.take();
    let source = file.content.clone();
    let write = async move {
        if let Some(mut input) = input {
            // Ruff that ends early says so by its output.
            let _ = input.write_all(source.as_bytes()).await;
        }
    };
    let both = async { tokio::join!(write, child.wait_with_output()).1 };
    let output = timeout(LIMIT, both).await.map_err(|_| fail("ruff does not end".to_owned()))?;
    let output = output.map_err(|e| fail(format!("ruff failed: {e}")))?;
    read(&output.stdout, &file.path).ok_or_else(|| fail("ruff's output cannot be read".to_owned()))
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
    use super::*;

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
}
