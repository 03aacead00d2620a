//! Parts to files: a safe path each, none twice.

use std::collections::HashSet;

use super::{Part, language::Language, path};
use crate::agent::{Candidate, SourceFile};

/// Files that are kept; a reply with more is repeating itself.
const MAX_FILES: usize = 64;

pub(super) fn assemble(parts: Vec<Part>) -> Candidate {
    let mut named: HashSet<String> = parts.iter().filter_map(|p| path::safe(p.path.as_deref()?)).collect();
    let mut files: Vec<SourceFile> = Vec::new();
    for part in parts {
        let content = tidy(&part.content);
        if content.is_empty() {
            continue;
        }
        let is_full = files.len() >= MAX_FILES;
        let path = match part.path.as_deref().and_then(path::safe) {
            Some(path) => path,
            None if is_full => continue,
            None => unused(default_path(&part, &content, &named), &mut named),
        };
        if let Some(earlier) = files.iter_mut().find(|f| f.path == path) {
            replace(earlier, content);
        } else if !is_full {
            files.push(SourceFile { path: beside(path, &files), content });
        }
    }
    Candidate { files }
}

/// No blank lines before, one newline after.
fn tidy(content: &str) -> String {
    let content = content.replace("\r\n", "\n").replace('\r', "\n").replace(['\0', '\u{feff}'], "");
    let body = content.trim_end();
    let first = body.len() - body.trim_start().len();
    let start = body[..first].rfind('\n').map_or(0, |newline| newline + 1);
    if body.is_empty() { String::new() } else { format!("{}\n", &body[start..]) }
}

/// A later version replaces an earlier one; an excerpt does not.
fn replace(earlier: &mut SourceFile, content: String) {
    if content.len() * 2 >= earlier.content.len() {
        earlier.content = content;
    }
}

fn default_path(part: &Part, content: &str, named: &HashSet<String>) -> &'static str {
    let draws = content.contains("streamlit") || content.contains("st.");
    if part.language == Language::Python && draws && !named.contains("app.py") {
        return "app.py";
    }
    part.language.default_path(content)
}

fn unused(path: &str, named: &mut HashSet<String>) -> String {
    let mut free = path.to_owned();
    let mut number = 2;
    while !named.insert(free.clone()) {
        free = numbered(path, number);
        number += 1;
    }
    free
}

/// `script.py` as `script2.py`.
fn numbered(path: &str, number: usize) -> String {
    match path.rsplit_once('.').filter(|(stem, _)| !stem.is_empty() && !stem.ends_with('/')) {
        Some((stem, extension)) => format!("{stem}{number}.{extension}"),
        None => format!("{path}{number}"),
    }
}

/// A path that can lie beside the others: no file where another needs a folder.
fn beside(path: String, files: &[SourceFile]) -> String {
    let is_below =
        |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
    let clashes = |path: &str| {
        files.iter().any(|f| f.path == path || is_below(path, &f.path) || is_below(&f.path, path))
    };
    if !clashes(&path) {
        return path;
    }
    let flat = path.replace('/', "_");
    // The number stands in front, where shortening does not reach it.
    let numbers = (2..).map(|number| format!("{number}_{flat}"));
    let free =
        std::iter::once(flat.clone()).chain(numbers).filter_map(|p| path::safe(&p)).find(|p| !clashes(p));
    free.unwrap_or(path)
}
