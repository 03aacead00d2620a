//! Replies that are a JSON list of files.

use serde_json::{Map, Value};

use super::{Part, language, path};

/// The files of a reply whose first JSON value, before any fence, lists files.
pub(super) fn files_in_reply(text: &str) -> Option<Vec<Part>> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = line.trim_start();
        if start.starts_with("```") || start.starts_with("~~~") {
            return None;
        }
        if line.starts_with(['[', '{']) || (at == 0 && start.starts_with(['[', '{'])) {
            return files(&text[at..]);
        }
        at += line.len();
    }
    None
}

/// The files that a JSON value at the start of `text` lists: `[{"path","content"}]`, the same under `files`, or an object
/// from paths to contents.
pub(super) fn files(text: &str) -> Option<Vec<Part>> {
    if !text.trim_start().starts_with(['[', '{']) {
        return None;
    }
    let value = serde_json::Deserializer::from_str(text).into_iter::<Value>().next()?.ok()?;
    match &value {
        Value::Array(items) => list(items),
        Value::Object(object) => match object.get("files") {
            Some(Value::Array(items)) => list(items),
            Some(Value::Object(files)) => map(files),
            _ => map(object).or_else(|| item(&value).map(|part| vec![part])),
        },
        _ => None,
    }
}

fn list(items: &[Value]) -> Option<Vec<Part>> {
    let parts: Option<Vec<Part>> = items.iter().map(item).collect();
    parts.filter(|p| !p.is_empty())
}

fn item(value: &Value) -> Option<Part> {
    let text = |keys: &[&str]| keys.iter().find_map(|key| value.get(key)?.as_str());
    let path = text(&["path", "file", "filename", "file_path", "filePath", "file_name", "name"])?;
    let content = text(&["content", "code", "contents", "source", "text", "file_content"])?;
    Some(part(path, content))
}

fn map(object: &Map<String, Value>) -> Option<Vec<Part>> {
    let parts: Option<Vec<Part>> = object
        .iter()
        .map(|(path, content)| Some(part(Some(path).filter(|p| path::is_file_name(p))?, content.as_str()?)))
        .collect();
    parts.filter(|p| !p.is_empty())
}

fn part(path: &str, content: &str) -> Part {
    Part { path: Some(path.to_owned()), language: language::of_path(path), content: content.to_owned() }
}
