//! Replies that exist already, as first candidates: from the logs of a chat, from a provider's stored completions, or from
//! a table.
//!
//! A line or row is a request and its reply: the last message of the user is the brief, the reply is read as a new one would
//! be. What is no whole reply, holds no files, or comes near a held-out brief is left out, with a reason.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::log::EvolutionLog;
use crate::{
    agent,
    brief::{Brief, BriefId, near::Fingerprint},
    error::{Explain, Kind},
    store::{self, StoreError, Workspace},
};

const FORMAT: &str = "hone.import";
const VERSION: u32 = 1;
/// Who wrote a reply of which the file does not say it.
const UNNAMED: &str = "imported";
/// What our own prompt puts before a description: requests that Hone made are told by it.
const OUR_REQUEST: &str = "Create a Streamlit UI: ";

/// A reply that was made elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    pub reply: String,
    /// The model that wrote it, or `imported`.
    pub model: String,
    /// Name of the file that it came from, and its 1-based line or row there.
    pub source: String,
    pub line: usize,
}

/// One brief's replies on disk.
#[derive(Serialize, Deserialize)]
struct ImportFile {
    format: String,
    version: u32,
    replies: Vec<Imported>,
}

/// The replies that were imported into a workspace. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imports(Arc<BTreeMap<String, Vec<Imported>>>);

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportSummary {
    /// Replies that are there now and were not before.
    pub imported: usize,
    /// Briefs that they answer.
    pub briefs: usize,
    /// What was left out, by reason.
    pub skipped: BTreeMap<String, usize>,
    /// The briefs' file, for `hone evolve --briefs`.
    pub files: BTreeMap<String, PathBuf>,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("`{}` holds nothing that can be imported: {why}", file.display())]
    Nothing { file: PathBuf, why: String },
    #[error("`{}` is not a table with a prompt and a reply in each row: its columns are {columns}", file.display())]
    Columns { file: PathBuf, columns: String },
    #[error("`{}` is in the format `{found}`, this version reads `{FORMAT} {VERSION}`", file.display())]
    Version { file: PathBuf, found: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for ImportError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            _ => Kind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Nothing { .. } => Some("docs/agents.md shows the forms that `hone import` reads".into()),
            Self::Columns { .. } => {
                Some("name the columns `prompt` and `reply` (and `model`, where it is known)".into())
            }
            Self::Version { .. } => Some("import the replies again".into()),
            Self::Store(e) => e.hint(),
        }
    }
}

impl Imports {
    /// Everything in a workspace's folder of imports, which need not exist.
    pub fn load(workspace: &Workspace) -> Result<Self, ImportError> {
        let mut all = BTreeMap::new();
        let Ok(files) = std::fs::read_dir(workspace.imported()) else { return Ok(Self::default()) };
        for file in files.flatten().map(|file| file.path()) {
            let id = file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
            let json = file.extension().is_some_and(|ending| ending == "json");
            if let (Some(id), true) = (id, json) {
                all.insert(id, read_file(&file)?);
            }
        }
        Ok(Self(Arc::new(all)))
    }

    /// The reply that stands for a brief's draft of that number, from 0.
    pub fn reply(&self, brief: &BriefId, draft: u32) -> Option<&Imported> {
        self.0.get(brief.as_str())?.get(draft as usize)
    }

    /// Whether a log starts from what is imported for its brief now.
    pub(super) fn fit(&self, log: &EvolutionLog) -> bool {
        let drafts: Vec<_> = log.evolution_history.iter().filter(|entry| entry.operator == "draft").collect();
        let none = Vec::new();
        let replies = self.0.get(&log.id).unwrap_or(&none);
        drafts.iter().enumerate().all(|(at, entry)| match replies.get(at) {
            Some(reply) => {
                entry.model == reply.model && entry.files == agent::parse_reply(&reply.reply).files
            }
            None => entry.model == log.agent,
        })
    }
}

fn read_file(file: &Path) -> Result<Vec<Imported>, ImportError> {
    let text = store::read_text(file)?;
    match serde_json::from_str::<ImportFile>(&text) {
        Ok(read) if read.format == FORMAT && read.version == VERSION => Ok(read.replies),
        Ok(read) => Err(ImportError::Version {
            file: file.into(),
            found: format!("{} {}", read.format, read.version),
        }),
        Err(e) => Err(ImportError::Version { file: file.into(), found: e.to_string() }),
    }
}

/// A request and its reply as a file has them.
#[derive(Debug, PartialEq)]
struct Exchange {
    request: String,
    reply: String,
    model: Option<String>,
    line: usize,
}

/// What was read: exchanges, and why other lines are none.
#[derive(Debug, Default, PartialEq)]
struct Reading {
    exchanges: Vec<Exchange>,
    skipped: BTreeMap<String, usize>,
}

impl Reading {
    fn add(&mut self, exchange: Result<Exchange, &'static str>) {
        match exchange {
            Ok(exchange) => self.exchanges.push(exchange),
            Err(why) => self.skip(why),
        }
    }

    fn skip(&mut self, why: &str) {
        *self.skipped.entry(why.to_owned()).or_default() += 1;
    }
}

/// Takes the replies of a file into a workspace. `known` are briefs whose ids are kept when a request is theirs; `heldout`
/// those that nothing may come near.
///
/// # Errors
/// A file that cannot be read or written, or that holds nothing.
pub fn import(
    workspace: &Workspace,
    file: &Path,
    known: &[Brief],
    heldout: &[Brief],
) -> Result<ImportSummary, ImportError> {
    let text = store::read_text(file)?;
    let mut reading = read(file, &text)?;
    let source = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let taken = take(&mut reading, &source, known, heldout);
    if taken.is_empty() {
        let reasons: Vec<String> = reading.skipped.iter().map(|(why, n)| format!("{n} {why}")).collect();
        let why = if reasons.is_empty() { "it is empty".into() } else { reasons.join(", ") };
        return Err(ImportError::Nothing { file: file.into(), why });
    }
    let mut summary = ImportSummary { briefs: taken.len(), skipped: reading.skipped, ..Default::default() };
    for (brief, replies) in &taken {
        summary.imported += keep(&workspace.imported().join(format!("{}.json", brief.id)), replies)?;
    }
    let path = workspace.imported_briefs();
    write_briefs(&path, taken.into_iter().map(|(brief, _)| brief).collect())?;
    summary.files.insert("briefs".into(), path);
    Ok(summary)
}

/// Adds replies to those of a brief; how many were new.
fn keep(path: &Path, replies: &[Imported]) -> Result<usize, ImportError> {
    let mut all = if path.exists() { read_file(path)? } else { Vec::new() };
    let before = all.len();
    for reply in replies {
        if !all.iter().any(|other| other.reply == reply.reply) {
            all.push(reply.clone());
        }
    }
    let new = all.len() - before;
    if new > 0 {
        store::write_json(path, &ImportFile { format: FORMAT.into(), version: VERSION, replies: all })?;
    }
    Ok(new)
}

/// Adds briefs to the file of imported ones, those of before first.
fn write_briefs(path: &Path, briefs: Vec<Brief>) -> Result<(), ImportError> {
    let mut text = if path.exists() { store::read_text(path)? } else { String::new() };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let known = crate::brief::parse(path, text.as_bytes()).unwrap_or_default();
    for brief in briefs.iter().filter(|brief| !known.iter().any(|other| other.id == brief.id)) {
        // A brief is plain data and always becomes JSON.
        text.push_str(&serde_json::to_string(brief).unwrap_or_default());
        text.push('\n');
    }
    Ok(store::write_atomic(path, text.as_bytes())?)
}

/// Briefs with their replies, in the order of the file.
fn take(
    reading: &mut Reading,
    source: &str,
    known: &[Brief],
    heldout: &[Brief],
) -> Vec<(Brief, Vec<Imported>)> {
    let held: Vec<Fingerprint> = heldout.iter().map(|brief| Fingerprint::of(&brief.description)).collect();
    let mut taken: Vec<(Brief, Vec<Imported>)> = Vec::new();
    for Exchange { request, reply, model, line } in std::mem::take(&mut reading.exchanges) {
        let request = request.trim();
        let request = request.strip_prefix(OUR_REQUEST).unwrap_or(request);
        let print = Fingerprint::of(request);
        if held.iter().any(|held| print.overlaps(held).is_some()) {
            reading.skip("near a held-out brief");
            continue;
        }
        if agent::parse_reply(&reply).files.is_empty() {
            reading.skip("without files in the reply");
            continue;
        }
        let own = known.iter().find(|brief| brief.description == request).cloned();
        let Some(brief) = own.or_else(|| Brief::from_description(request).ok()) else {
            reading.skip("without a usable request");
            continue;
        };
        let model = model.filter(|name| !name.is_empty()).unwrap_or_else(|| UNNAMED.into());
        let imported = Imported { reply, model, source: source.into(), line };
        match taken.iter_mut().find(|(other, _)| other.id == brief.id) {
            Some((_, replies)) => replies.push(imported),
            None => taken.push((brief, vec![imported])),
        }
    }
    taken
}

/// Reads a file of any form: what it is shows in how it begins.
fn read(file: &Path, text: &str) -> Result<Reading, ImportError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.trim_start().chars().next() {
        Some('[') => Ok(read_list(text)),
        Some('{') => Ok(read_lines(text)),
        _ => read_table(file, text),
    }
}

fn read_list(text: &str) -> Reading {
    let mut reading = Reading::default();
    match serde_json::from_str::<Vec<Value>>(text) {
        Ok(items) => (1..).zip(&items).for_each(|(line, item)| reading.add(exchange(item, line))),
        Err(_) => reading.skip(NOT_JSON),
    }
    reading
}

const NOT_JSON: &str = "not JSON";

/// JSON lines, or one object that lists stored completions under `data`.
fn read_lines(text: &str) -> Reading {
    let mut reading = Reading::default();
    if let Ok(Value::Object(whole)) = serde_json::from_str::<Value>(text)
        && let Some(Value::Array(items)) = whole.get("data")
    {
        (1..).zip(items).for_each(|(line, item)| reading.add(exchange(item, line)));
        return reading;
    }
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        match serde_json::from_str::<Value>(text) {
            Ok(value) => reading.add(exchange(&value, line)),
            Err(_) => reading.skip(NOT_JSON),
        }
    }
    reading
}

/// A request and its reply from an object: a conversation that ends with the reply, a stored completion with its
/// request, a line of a batch's output beside its request, or plain keys.
fn exchange(value: &Value, line: usize) -> Result<Exchange, &'static str> {
    let answered = value.pointer("/response/body").unwrap_or(value);
    let choice = answered.pointer("/choices/0");
    match choice.and_then(|choice| choice.get("finish_reason")).and_then(Value::as_str) {
        Some("length") => return Err("cut at the token limit"),
        Some("content_filter" | "refusal") => return Err("refused"),
        _ if choice.and_then(|choice| choice.pointer("/message/refusal")).is_some_and(Value::is_string) => {
            return Err("refused");
        }
        _ => {}
    }
    let messages = [value.get("messages"), value.pointer("/request/messages"), value.get("input")];
    let messages = messages.into_iter().flatten().find_map(Value::as_array);
    let said = |role: &str| {
        messages?
            .iter()
            .rev()
            .find(|message| message["role"] == role)
            .and_then(|message| words(&message["content"]))
    };
    let plain = |keys: &[&str]| keys.iter().find_map(|key| words(value.get(*key)?));
    let request = said("user").or_else(|| plain(&PROMPT_KEYS)).ok_or("without a request")?;
    let reply = choice
        .and_then(|choice| words(choice.pointer("/message/content")?))
        .or_else(|| said("assistant"))
        .or_else(|| plain(&REPLY_KEYS))
        .ok_or("without a reply")?;
    let model = answered.get("model").or(value.get("model")).and_then(Value::as_str).map(str::to_owned);
    Ok(Exchange { request, reply, model, line })
}

const PROMPT_KEYS: [&str; 5] = ["prompt", "description", "brief", "input", "question"];
const REPLY_KEYS: [&str; 6] = ["reply", "completion", "response", "output", "answer", "code"];

/// A text, or the texts of a message in parts.
fn words(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            Some(texts.join("\n")).filter(|text| !text.trim().is_empty())
        }
        _ => None,
    }
}

/// A table with a head: a column for the prompt, one for the reply, and perhaps one for the model.
fn read_table(file: &Path, text: &str) -> Result<Reading, ImportError> {
    let mut table =
        csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::Headers).from_reader(text.as_bytes());
    let head: Vec<String> =
        table.headers().map(|head| head.iter().map(str::to_lowercase).collect()).unwrap_or_default();
    let column = |names: &[&str]| names.iter().find_map(|name| head.iter().position(|other| other == name));
    let (Some(prompt), Some(reply)) = (column(&PROMPT_KEYS), column(&REPLY_KEYS)) else {
        let columns = head
            .iter()
            .map(|name| format!("`{}`", name.chars().take(40).collect::<String>()))
            .collect::<Vec<_>>();
        let columns = if columns.is_empty() { "none".into() } else { columns.join(", ") };
        return Err(ImportError::Columns { file: file.into(), columns });
    };
    let model = column(&["model"]);
    let mut reading = Reading::default();
    for (row, record) in (1..).zip(table.records()) {
        let Ok(record) = record else {
            reading.skip("not a row of a table");
            continue;
        };
        let cell = |at: usize| record.get(at).filter(|text| !text.trim().is_empty()).map(str::to_owned);
        reading.add(match (cell(prompt), cell(reply)) {
            (Some(request), Some(reply)) => {
                Ok(Exchange { request, reply, model: model.and_then(cell), line: row })
            }
            (None, _) => Err("without a request"),
            (_, None) => Err("without a reply"),
        });
    }
    Ok(reading)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Expect) {
        let reading = read(Path::new("file"), text);
        let lines = match reading {
            Ok(Reading { exchanges, skipped }) => {
                let line = |e: &Exchange| {
                    format!(
                        "{}: {} -> {} by {}",
                        e.line,
                        e.request,
                        e.reply,
                        e.model.as_deref().unwrap_or("?")
                    )
                };
                let skipped = skipped.iter().map(|(why, n)| format!("{n} {why}"));
                exchanges.iter().map(line).chain(skipped).collect::<Vec<_>>().join("\n")
            }
            Err(e) => e.to_string(),
        };
        expected.assert_eq(&lines);
    }

    #[test]
    fn chats_end_with_a_request_and_its_reply() {
        check(
            r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"old"},{"role":"assistant","content":"a"},{"role":"user","content":"new"},{"role":"assistant","content":"b"}]}

{"messages":[{"role":"user","content":[{"type":"text","text":"in"},{"type":"text","text":"parts"}]},{"role":"assistant","content":"b"}],"model":"m"}
{"messages":[{"role":"user","content":"no reply"}]}
{"messages":[{"role":"assistant","content":"no request"}]}
not json
{"prompt":"p","completion":"c"}
{"other":1}"#,
            expect![[r#"
                1: new -> b by ?
                3: in
                parts -> b by m
                7: p -> c by ?
                1 not JSON
                1 without a reply
                2 without a request"#]],
        );
    }

    #[test]
    fn stored_completions_have_their_request_beside_them() {
        check(
            r#"{"object":"list","data":[
                {"id":"1","model":"gpt-x","messages":[{"role":"user","content":"q"}],"choices":[{"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]},
                {"id":"2","request":{"messages":[{"role":"user","content":"q2"}]},"choices":[{"message":{"content":"cut"},"finish_reason":"length"}]},
                {"id":"3","input":"plain","choices":[{"message":{"content":"a3"}}]},
                {"id":"4","input":[{"role":"user","content":"q4"}],"choices":[{"message":{"content":null,"refusal":"no"},"finish_reason":"stop"}]}]}"#,
            expect![[r#"
                1: q -> a by gpt-x
                3: plain -> a3 by ?
                1 cut at the token limit
                1 refused"#]],
        );
        check(
            r#"[{"input":"q","response":{"body":{"model":"m","choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}}}]"#,
            expect!["1: q -> a by m"],
        );
    }

    #[test]
    fn tables_name_their_columns() {
        check(
            "Prompt,Model,Reply\n\"a form,\nwith two lines\",m,\"```python\nx\n```\"\n,m,reply\nonly a prompt\n",
            expect![[r#"
                1: a form,
                with two lines -> ```python
                x
                ``` by m
                1 without a reply
                1 without a request"#]],
        );
        check(
            "who,what\n1,2\n",
            expect![
                "`file` is not a table with a prompt and a reply in each row: its columns are `who`, `what`"
            ],
        );
        check(
            "",
            expect!["`file` is not a table with a prompt and a reply in each row: its columns are none"],
        );
    }

    const APP: &str = "```python\nimport streamlit as st\nst.title('x')\n```";

    fn brief(description: &str) -> Brief {
        Brief::from_description(description).unwrap()
    }

    #[test]
    fn an_import_is_kept_once_and_keeps_out_what_is_held_out() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(folder.path());
        let known = Brief { id: BriefId::new("hours").unwrap(), ..brief("A form to note working hours") };
        let heldout = brief("A dashboard of the energy that a house uses every day of the month");
        let line = |request: &str, reply: &str| {
            format!("{}\n", serde_json::json!({"prompt": request, "reply": reply, "model": "m"}))
        };
        let file = folder.path().join("old.jsonl");
        let text = [
            line("Create a Streamlit UI: A form to note working hours", APP),
            line("A form to note working hours", "```python\nprint(1)\n```"),
            line("A map of trees", APP),
            line("A map of lakes", "I cannot draw"),
            line("A dashboard of the energy that a house uses every day of the month!", APP),
        ];
        std::fs::write(&file, text.concat()).unwrap();
        let take = || {
            import(&workspace, &file, std::slice::from_ref(&known), std::slice::from_ref(&heldout)).unwrap()
        };
        let summary = take();
        assert_eq!((summary.imported, summary.briefs), (3, 2));
        let skipped: Vec<&str> = summary.skipped.keys().map(String::as_str).collect();
        assert_eq!(skipped, ["near a held-out brief", "without files in the reply"]);
        assert_eq!(take().imported, 0);

        let imports = Imports::load(&workspace).unwrap();
        assert_eq!(imports.reply(&known.id, 0).unwrap().model, "m");
        assert_eq!(imports.reply(&known.id, 1).unwrap().line, 2);
        assert_eq!(imports.reply(&known.id, 2), None);
        let briefs = crate::brief::load(&workspace.imported_briefs()).unwrap();
        assert_eq!(briefs, [known, brief("A map of trees")]);
    }

    #[test]
    fn a_file_without_anything_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.jsonl");
        std::fs::write(&file, "{\"prompt\":\"x\",\"reply\":\"only words\"}\n{}\n").unwrap();
        let error = import(&Workspace::new(folder.path()), &file, &[], &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        let text = error.to_string();
        assert!(text.ends_with("imported: 1 without a request, 1 without files in the reply"), "{text}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*", lines in prop::collection::vec("[\\[{\",a:}\\]\n]{0,20}", 0..4)) {
            let _ = read(Path::new("f"), &text);
            let _ = read(Path::new("f"), &lines.join("\n"));
        }
    }
}
