//! The questions that a judge asks of every candidate of a brief: derived from the brief alone, once, and kept.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{material, prompt, reply};
use crate::{
    brief::Brief,
    store::{self, StoreError},
    text::hex,
};

const FORMAT: &str = "hone.checklist";
const VERSION: u32 = 1;
/// Fewer say too little of an app; of more, the first count.
const LEAST: usize = 8;
const MOST: usize = 12;
/// Characters of a question.
const QUESTION: usize = 240;

/// One question that `yes`, `partial` or `no` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Item {
    pub id: String,
    pub question: String,
}

/// What is asked of every candidate of one brief.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checklist {
    format: String,
    version: u32,
    /// Version of the prompt that it was derived with.
    prompt: u32,
    endpoint: String,
    model: String,
    description: String,
    requirements: Vec<String>,
    pub items: Vec<Item>,
}

impl Checklist {
    pub fn new(brief: &Brief, (endpoint, model): (&str, &str), items: Vec<Item>) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            prompt: prompt::VERSION,
            endpoint: endpoint.to_owned(),
            model: model.to_owned(),
            description: brief.description.clone(),
            requirements: brief.requirements.clone(),
            items,
        }
    }

    /// Where it lies in a folder: by the brief's text, the model and the prompt.
    pub fn path(folder: &Path, brief: &Brief, (endpoint, model): (&str, &str)) -> PathBuf {
        let asked = json!([prompt::VERSION, endpoint, model, brief.description, brief.requirements]);
        folder.join(format!("{:.16}.json", hex(&Sha256::digest(asked.to_string()))))
    }

    /// The one that is there. One that cannot be read is set aside.
    pub fn load(path: &Path) -> Result<Option<Self>, StoreError> {
        let text = match store::read_text(path) {
            Ok(text) => text,
            Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let kept: Option<Self> = serde_json::from_str(&text).ok();
        let usable =
            kept.filter(|kept| kept.format == FORMAT && kept.version == VERSION && !kept.items.is_empty());
        if usable.is_none() {
            store::set_aside(path)?;
        }
        Ok(usable)
    }

    /// Tells checklists apart in what was judged by them.
    pub fn fingerprint(&self) -> String {
        let text = serde_json::to_string(&self.items).unwrap_or_default();
        hex(&Sha256::digest(text))[..8].to_owned()
    }
}

/// Reads the questions that a model wrote; ids are ours.
///
/// # Errors
/// What is wrong with the reply, for the model to mend.
pub(super) fn parse(text: &str) -> Result<Vec<Item>, String> {
    reply::last(text, |value| {
        let list = value.get("items").unwrap_or(value).as_array().ok_or("there is no list `items`")?;
        let mut questions: Vec<String> = Vec::new();
        for question in list.iter().filter_map(question) {
            if !question.is_empty() && !questions.contains(&question) {
                questions.push(question);
            }
        }
        if questions.len() < LEAST {
            return Err(format!(
                "there are {} different questions, at least {LEAST} are needed",
                questions.len()
            ));
        }
        let item = |(i, question)| Item { id: format!("q{}", i + 1), question };
        Ok(questions.into_iter().take(MOST).enumerate().map(item).collect())
    })
}

fn question(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value.get("question")?.as_str())?;
    Some(material::line(text, QUESTION))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(n: usize) -> String {
        let items: Vec<Value> =
            (0..n).map(|i| json!({"id": "all", "question": format!("Is it {i}?")})).collect();
        json!({ "items": items }).to_string()
    }

    #[test]
    fn eight_to_twelve_questions_are_kept() {
        for (n, kept) in [(8, 8), (12, 12), (40, 12)] {
            let items = parse(&said(n)).unwrap();
            assert_eq!((items.len(), items[0].id.as_str()), (kept, "q1"));
        }
        let plain = json!(["a?", "b?", "c?", "d?", "e?", "f?", "g?", "h\u{0}?\n"]).to_string();
        assert_eq!(parse(&plain).unwrap()[7].question, "h?");
    }

    #[test]
    fn what_is_no_checklist_says_why() {
        for (text, why) in [
            (said(7), "there are 7 different questions, at least 8 are needed"),
            ("{\"questions\": 1}".into(), "there is no list `items`"),
            (
                json!({"items": vec!["same?"; 9]}).to_string(),
                "there are 1 different questions, at least 8 are needed",
            ),
            ("sorry".into(), "it holds no JSON"),
        ] {
            assert_eq!(parse(&text).unwrap_err(), why, "{text}");
        }
    }

    #[test]
    fn a_file_that_is_none_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let brief = Brief::from_description("a form").unwrap();
        let path = Checklist::path(folder.path(), &brief, ("e", "m"));
        assert_eq!(Checklist::load(&path).unwrap(), None);
        let list = Checklist::new(&brief, ("e", "m"), parse(&said(8)).unwrap());
        store::write_json(&path, &list).unwrap();
        assert_eq!(Checklist::load(&path).unwrap(), Some(list));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Checklist::load(&path).unwrap(), None);
        assert!(!path.exists());
        assert_ne!(path, Checklist::path(folder.path(), &brief, ("e", "n")));
    }
}
