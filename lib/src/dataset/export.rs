//! The dataset in the shapes that other trainers read. docs/data-formats.md says which reads what.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::{ChatRow, PreferenceRow, Prepared, manifest::Split, rft};
use crate::model::wire::Message;

/// A shape of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shape {
    /// OpenAI's chat rows, as the training file itself: `{"messages"}`.
    Chat,
    /// OpenAI's preference rows, as the pairs' file itself.
    Dpo,
    /// TRL's preference rows: `{"prompt", "chosen", "rejected"}`, each a list of messages.
    TrlDpo,
    /// `{"conversations": [{"from", "value"}]}`.
    ShareGpt,
    /// `{"system", "instruction", "input", "output"}`.
    Alpaca,
    /// TRL's `{"prompt", "completion"}`, each a list of messages.
    PromptCompletion,
    /// TRL's unpaired preferences: `{"prompt", "completion", "label"}`.
    Kto,
    /// Prompts of reinforcement fine-tuning with what a grader compares with; the grader lies beside them.
    Rft,
}

impl Shape {
    pub const ALL: [Self; 8] = [
        Self::Chat,
        Self::Dpo,
        Self::TrlDpo,
        Self::ShareGpt,
        Self::Alpaca,
        Self::PromptCompletion,
        Self::Kto,
        Self::Rft,
    ];

    /// As it stands on the command line and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Dpo => "dpo",
            Self::TrlDpo => "trl-dpo",
            Self::ShareGpt => "sharegpt",
            Self::Alpaca => "alpaca",
            Self::PromptCompletion => "prompt-completion",
            Self::Kto => "kto",
            Self::Rft => "rft",
        }
    }

    /// The files that it may have.
    pub(super) fn files(self) -> [String; 3] {
        [".jsonl", ".validation.jsonl", ".grader.json"].map(|end| format!("{}{end}", self.name()))
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name)
    }
}

/// A file of an export: its name, and its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// The files of a dataset in a shape: training rows, and validation rows where there are any.
pub fn export(prepared: &Prepared, shape: Shape) -> Vec<Export> {
    let chat = |suffix: &str, rows: &[ChatRow]| {
        let rows = rows.iter().map(|row| chat_row(shape, row)).collect();
        file(&format!("{}{suffix}.jsonl", shape.name()), rows)
    };
    let pairs = || {
        let rows = match shape {
            Shape::Kto => unpaired(&prepared.preferences),
            _ => prepared.preferences.iter().map(|row| pair(shape, row)).collect(),
        };
        file(&format!("{}.jsonl", shape.name()), rows)
    };
    let files = match shape {
        Shape::Dpo | Shape::TrlDpo | Shape::Kto => vec![pairs()],
        Shape::Rft => {
            vec![
                file("rft.jsonl", rft::items(prepared, Split::Train)),
                file("rft.validation.jsonl", rft::items(prepared, Split::Validation)),
                file("rft.grader.json", vec![rft::grader()]),
            ]
        }
        _ => vec![chat("", &prepared.train), chat(".validation", &prepared.validation)],
    };
    files.into_iter().filter(|file| !file.bytes.is_empty()).collect()
}

fn file(name: &str, rows: Vec<Value>) -> Export {
    let bytes = rows.iter().flat_map(|row| format!("{row}\n").into_bytes()).collect();
    Export { name: name.to_owned(), bytes }
}

/// Its prompt and its answer.
fn apart(messages: &[Message]) -> (&[Message], &[Message]) {
    messages.split_at(messages.len().saturating_sub(1))
}

fn chat_row(shape: Shape, row: &ChatRow) -> Value {
    let (prompt, answer) = apart(&row.messages);
    match shape {
        Shape::ShareGpt => {
            let turn =
                |message: &Message| json!({ "from": speaker(&message.role), "value": message.content });
            json!({ "conversations": row.messages.iter().map(turn).collect::<Vec<_>>() })
        }
        Shape::Alpaca => json!({
            "system": said(prompt, "system"),
            "instruction": said(prompt, "user"),
            "input": "",
            "output": said(answer, "assistant"),
        }),
        Shape::PromptCompletion => json!({ "prompt": plain(prompt), "completion": plain(answer) }),
        _ => json!({ "messages": plain(&row.messages) }),
    }
}

fn pair(shape: Shape, row: &PreferenceRow) -> Value {
    let (better, worse) = (plain(&row.preferred_output), plain(&row.non_preferred_output));
    let prompt = plain(&row.input.messages);
    match shape {
        Shape::TrlDpo => json!({ "prompt": prompt, "chosen": better, "rejected": worse }),
        _ => json!({
            "input": { "messages": prompt }, "preferred_output": better, "non_preferred_output": worse,
        }),
    }
}

/// Each answer of the pairs once, and whether it is a good one.
fn unpaired(pairs: &[PreferenceRow]) -> Vec<Value> {
    let mut seen = HashSet::new();
    let answers = pairs.iter().flat_map(|row| {
        let answer = |messages: &[Message], label: bool| {
            json!({ "prompt": plain(&row.input.messages), "completion": plain(messages), "label": label })
        };
        [answer(&row.preferred_output, true), answer(&row.non_preferred_output, false)]
    });
    answers.filter(|row| seen.insert(row.to_string())).collect()
}

/// Role and text: what every trainer reads.
pub(super) fn plain(messages: &[Message]) -> Vec<Value> {
    #[derive(Serialize)]
    struct Plain<'a> {
        role: &'a str,
        content: &'a str,
    }
    let plain = |m: &Message| json!(Plain { role: &m.role, content: &m.content });
    messages.iter().map(plain).collect()
}

fn speaker(role: &str) -> &str {
    match role {
        "user" => "human",
        "assistant" => "gpt",
        other => other,
    }
}

fn said(messages: &[Message], role: &str) -> String {
    let of_role = messages.iter().filter(|message| message.role == role);
    of_role.map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::dataset::tests::of_every_kind;

    /// The rows of an export, as whoever trains reads them.
    fn rows(prepared: &Prepared, shape: Shape) -> BTreeMap<String, Vec<Value>> {
        let read = |file: Export| {
            let text = String::from_utf8(file.bytes).unwrap();
            (file.name, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
        };
        export(prepared, shape).into_iter().map(read).collect()
    }

    fn keys(row: &Value) -> Vec<&str> {
        row.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn every_shape_says_what_the_rows_say() {
        let prepared = of_every_kind();
        let first = &prepared.train[0].messages;
        let [system, user, answer] = first.as_slice() else { panic!("{first:?}") };
        let chat = |shape: Shape| {
            let mut files = rows(&prepared, shape);
            assert_eq!(files.len(), 2, "{shape:?}");
            let rows = files.remove(&format!("{}.jsonl", shape.name())).unwrap();
            let aside = &files[&format!("{}.validation.jsonl", shape.name())];
            assert_eq!((rows.len(), aside.len()), (prepared.train.len(), prepared.validation.len()));
            rows[0].clone()
        };
        assert_eq!(chat(Shape::Chat), serde_json::to_value(&prepared.train[0]).unwrap());
        let message = |m: &Message| json!({ "role": m.role, "content": m.content });
        assert_eq!(
            chat(Shape::PromptCompletion),
            json!({ "prompt": [message(system), message(user)], "completion": [message(answer)] })
        );
        let alpaca = json!({ "system": system.content, "instruction": user.content, "input": "", "output": answer.content });
        assert_eq!(chat(Shape::Alpaca), alpaca);
        let turn = |from: &str, m: &Message| json!({ "from": from, "value": m.content });
        assert_eq!(
            chat(Shape::ShareGpt),
            json!({ "conversations": [turn("system", system), turn("human", user), turn("gpt", answer)] })
        );
    }

    #[test]
    fn pairs_become_two_answers_to_one_prompt_or_each_answer_once() {
        let prepared = of_every_kind();
        let pair = &prepared.preferences[0];
        let pairs = |shape: Shape| rows(&prepared, shape).remove(&format!("{}.jsonl", shape.name())).unwrap();
        assert_eq!(pairs(Shape::Dpo)[0], serde_json::to_value(pair).unwrap());
        assert_eq!(pairs(Shape::Dpo).len(), prepared.preferences.len());
        let trl = &pairs(Shape::TrlDpo)[0];
        assert_eq!(keys(trl), ["prompt", "chosen", "rejected"]);
        assert_eq!(trl["chosen"][0]["content"], pair.preferred_output[0].content);
        assert_eq!(trl["rejected"][0]["content"], pair.non_preferred_output[0].content);
        let kto = pairs(Shape::Kto);
        let good = kto.iter().filter(|row| row["label"] == true).count();
        // Each brief has one good app and two bad ones, so the good one is in two pairs.
        assert_eq!((good, kto.len()), (prepared.preferences.len() / 2, prepared.preferences.len() * 3 / 2));
    }

    #[test]
    fn reinforcement_asks_each_brief_once_and_knows_its_best_answer() {
        let prepared = of_every_kind();
        let files = rows(&prepared, Shape::Rft);
        let items = &files["rft.jsonl"];
        let briefs: HashSet<&str> = items.iter().map(|item| item["brief"].as_str().unwrap()).collect();
        assert_eq!(briefs.len(), items.len());
        for item in items {
            let last = item["messages"].as_array().unwrap().last().unwrap();
            assert_eq!(last["role"], "user");
            let row = prepared.train.iter().find(|row| row.messages[1].content == last["content"]).unwrap();
            assert_eq!(item["reference"], row.messages[2].content);
        }
        assert_eq!(files["rft.grader.json"], [super::rft::grader()]);
    }

    #[test]
    fn names_are_read_back() {
        for shape in Shape::ALL {
            assert_eq!(Shape::parse(shape.name()), Some(shape));
        }
        assert_eq!(Shape::parse("parquet"), None);
    }
}
