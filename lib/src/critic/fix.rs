//! What of a source can be mended without understanding it: what ruff calls safe, and commands that Streamlit renamed.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{CriticError, lint};
use crate::agent::SourceFile;

/// Commands that are called otherwise now and take what they took.
const RENAMED: &[(&str, &str)] = &[
    ("experimental_rerun", "rerun"),
    ("experimental_memo", "cache_data"),
    ("experimental_singleton", "cache_resource"),
    ("experimental_data_editor", "data_editor"),
    ("experimental_dialog", "dialog"),
    ("experimental_fragment", "fragment"),
    ("experimental_user", "user"),
    ("beta_columns", "columns"),
    ("beta_container", "container"),
    ("beta_expander", "expander"),
    ("cache", "cache_data"),
];

const LIMIT: Duration = Duration::from_secs(20);

/// The file mended, as [`lint::target`] names the Python that reads it; none when nothing here mends it.
///
/// # Errors
/// Ruff cannot be started.
pub(super) async fn fix(ruff: &Path, file: &SourceFile, target: &str) -> Result<Option<String>, CriticError> {
    let renamed = rename(&file.content);
    let tidied = tidy(ruff, &file.path, &renamed, target).await?.unwrap_or_else(|| renamed.clone());
    Ok((tidied != file.content).then_some(tidied))
}

/// Renames commands where they stand as `st.name`.
fn rename(source: &str) -> String {
    RENAMED.iter().fold(source.to_owned(), |text, (old, new)| {
        let wanted = format!("st.{old}");
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find(&wanted) {
            let (before, after) = (&rest[..at], &rest[at + wanted.len()..]);
            let word = |c: char| c.is_alphanumeric() || c == '_';
            let whole = !before.ends_with(|c| word(c) || c == '.') && !after.starts_with(word);
            out.push_str(before);
            out.push_str(&if whole { format!("st.{new}") } else { wanted.clone() });
            rest = after;
        }
        out.push_str(rest);
        out
    })
}

/// Ruff's safe fixes; none when it cannot read the file. Its name matters: an `__init__.py` imports for others.
async fn tidy(ruff: &Path, name: &str, source: &str, target: &str) -> Result<Option<String>, CriticError> {
    let broken = |e: std::io::Error| CriticError::Runtime {
        python: ruff.to_owned(),
        why: format!("ruff cannot be started: {e}"),
    };
    let mut child = Command::new(ruff)
        .env_clear()
        .current_dir("/")
        .args(["check", "--isolated", "--no-cache", "--quiet", "--fix-only", "--exit-zero"])
        .args(["--select", lint::RULES, "--target-version", target, "--stdin-filename", name, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(broken)?;
    let input = child.stdin.take();
    let text = source.to_owned();
    let write = async move {
        if let Some(mut input) = input {
            // Ruff that ends early says so by its status.
            let _ = input.write_all(text.as_bytes()).await;
        }
    };
    let both = async { tokio::join!(write, child.wait_with_output()).1 };
    let Ok(output) = timeout(LIMIT, both).await else { return Ok(None) };
    let output = output.map_err(broken)?;
    // An empty answer to a source that is not empty is none.
    let fixed = String::from_utf8(output.stdout).ok().filter(|fixed| !fixed.is_empty());
    Ok(fixed.filter(|_| output.status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        assert_eq!(rename(source), expected);
    }

    #[test]
    fn renamed_commands_get_their_new_names() {
        check("@st.cache\ndef f(): pass\n", "@st.cache_data\ndef f(): pass\n");
        check("st.cache(ttl=1)", "st.cache_data(ttl=1)");
        check("a, b = st.beta_columns(2)", "a, b = st.columns(2)");
        check("st.cache_resource(f); st.cached", "st.cache_resource(f); st.cached");
        check("best.cache(x); x.st.cache", "best.cache(x); x.st.cache");
        check("st.experimental_rerun()\nst.experimental_rerun()", "st.rerun()\nst.rerun()");
        check("", "");
    }
}
