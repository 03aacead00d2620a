//! Parts to files: a safe path each, none twice.

use std::{borrow::Cow, collections::HashSet};

use super::{Part, clean, language::Language, path};
use crate::agent::{Candidate, SourceFile};

/// Files that are kept; a reply with more is repeating itself.
const MAX_FILES: usize = 64;

pub(super) fn assemble(parts: Vec<Part>) -> Candidate {
    let paths: Vec<Option<String>> = parts.iter().map(|part| path::safe(part.path.as_deref()?)).collect();
    let mut named: HashSet<String> = paths.iter().flatten().cloned().collect();
    let mut files: Vec<SourceFile> = Vec::new();
    for (Part { language, content, .. }, path) in parts.into_iter().zip(paths) {
        let content = tidy(content);
        if content.is_empty() {
            continue;
        }
        let is_full = files.len() >= MAX_FILES;
        let path = match path {
            Some(path) => path,
            None if is_full => continue,
            None => unused(default_path(language, &content, &named), &mut named),
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
fn tidy(content: String) -> String {
    let plain = match clean::plain(&content) {
        Cow::Borrowed(_) => None,
        Cow::Owned(plain) => Some(plain),
    };
    let mut content = plain.unwrap_or(content);
    content.truncate(content.trim_end().len());
    let first = content.len() - content.trim_start().len();
    if let Some(newline) = content[..first].rfind('\n') {
        content.drain(..=newline);
    }
    if !content.is_empty() {
        content.push('\n');
    }
    content
}

/// A later version replaces an earlier one; an excerpt does not.
fn replace(earlier: &mut SourceFile, content: String) {
    if content.len() * 2 >= earlier.content.len() {
        earlier.content = content;
    }
}

fn default_path(language: Language, content: &str, named: &HashSet<String>) -> &'static str {
    let draws = content.contains("streamlit") || content.contains("st.");
    if language == Language::Python && draws && !named.contains("app.py") {
        return "app.py";
    }
    language.default_path(content)
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
