//! A line as the example that it holds.
//!
//! Nearly every row of a file is well-formed: it is read straight into borrowed types, which refuse whatever [`rules`] might
//! have to say something about. What they refuse is read again as plain JSON, by [`rules`], which has every message.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{duplicates, problem::Problem, rules};

/// Sort of a fine-tuning file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Conversations: `messages`.
    #[default]
    Chat,
    /// A prompt with two answers: `input`, `preferred_output`, `non_preferred_output`.
    Dpo,
    /// Prompts whose answers a grader scores: `messages` that end with the user, and what the grader asks for.
    Rft,
}

/// Where a file is trained on, which takes more or less of the same format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// At a provider.
    #[default]
    Hosted,
    /// By the engine of this machine: see [`super::local`].
    Local,
}

/// Whose turn a text is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// What is asked; of a chat also every answer that is not trained.
    Prompt,
    /// What is learnt.
    Answer,
    /// What a preference pair teaches against.
    Rejected,
}

/// One message as training sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Said<'a> {
    pub role: Cow<'a, str>,
    pub text: Cow<'a, str>,
    /// Its name, its tool calls.
    pub more: String,
    pub part: Part,
}

/// One example.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row<'a> {
    pub format: Format,
    pub said: Vec<Said<'a>>,
    /// Schemas of its tools.
    pub tools: String,
    /// Equal for examples that training cannot tell apart; none for what is no example.
    pub print: Option<u64>,
    /// Of a task: what its grader finds in `item`, as names with their types, in the order of the names.
    pub item: Option<String>,
    /// Without lines.
    pub problems: Vec<Problem>,
}

impl Row<'_> {
    /// The same, whatever becomes of the line.
    pub fn into_owned(self) -> Row<'static> {
        let said = self.said.into_iter().map(|said| Said {
            role: said.role.into_owned().into(),
            text: said.text.into_owned().into(),
            more: said.more,
            part: said.part,
        });
        Row {
            said: said.collect(),
            format: self.format,
            tools: self.tools,
            print: self.print,
            item: self.item,
            problems: self.problems,
        }
    }
}

/// Control tokens, which have no business in a text.
pub(super) const SPECIAL_TOKENS: [&str; 8] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|im_sep|>",
    "<|endoftext|>",
    "<|endofprompt|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
];

/// The first control token in a text.
pub(super) fn special_token(text: &str) -> Option<&'static str> {
    memchr::memmem::find(text.as_bytes(), b"<|")?;
    SPECIAL_TOKENS.into_iter().find(|token| text.contains(token))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chat<'a> {
    #[serde(borrow)]
    messages: Vec<Plain<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair<'a> {
    #[serde(borrow)]
    input: Chat<'a>,
    #[serde(borrow)]
    preferred_output: Vec<Plain<'a>>,
    #[serde(borrow)]
    non_preferred_output: Vec<Plain<'a>>,
}

/// A message of text alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain<'a> {
    role: Role,
    #[serde(borrow)]
    content: Cow<'a, str>,
    weight: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    System,
    Developer,
    User,
    Assistant,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl<'a> Plain<'a> {
    fn is_answer(&self) -> bool {
        self.role == Role::Assistant
    }

    fn is_trained(&self) -> bool {
        self.is_answer() && self.weight != Some(0)
    }

    fn is_fine(&self) -> bool {
        let weighed = self.weight.is_none_or(|weight| self.is_answer() && weight <= 1);
        weighed && !self.content.trim().is_empty() && special_token(&self.content).is_none()
    }

    fn said_in_chat(self) -> Said<'a> {
        let part = if self.is_trained() { Part::Answer } else { Part::Prompt };
        self.said(part)
    }

    fn said(self, part: Part) -> Said<'a> {
        Said { role: self.role.name().into(), text: self.content, more: String::new(), part }
    }
}

/// Reads a line; `expected` is the file's format. What is read quickly is trained on everywhere.
pub(super) fn read(line: &str, expected: Format, place: Place) -> Row<'_> {
    let quick = match expected {
        Format::Chat => serde_json::from_str(line).ok().and_then(chat),
        Format::Dpo => serde_json::from_str(line).ok().and_then(pair),
        Format::Rft => None,
    };
    quick.unwrap_or_else(|| rules::read(line, expected, place))
}

fn chat(row: Chat<'_>) -> Option<Row<'_>> {
    let messages = row.messages;
    let fine = messages.last()?.is_answer()
        && messages.iter().any(Plain::is_trained)
        && messages.iter().all(Plain::is_fine);
    fine.then(|| whole(Format::Chat, messages.into_iter().map(Plain::said_in_chat).collect()))
}

fn pair(row: Pair<'_>) -> Option<Row<'_>> {
    let Pair { input: Chat { messages: prompt }, preferred_output, non_preferred_output } = row;
    let outputs = [&preferred_output, &non_preferred_output];
    let answers = outputs.iter().all(|output| !output.is_empty() && output.iter().all(Plain::is_answer));
    let fine = answers
        && !prompt.last()?.is_answer()
        && prompt.iter().chain(outputs.into_iter().flatten()).all(Plain::is_fine)
        && !preferred_output.iter().map(|m| &m.content).eq(non_preferred_output.iter().map(|m| &m.content));
    let parts =
        [(prompt, Part::Prompt), (preferred_output, Part::Answer), (non_preferred_output, Part::Rejected)];
    let said = parts.into_iter().flat_map(|(messages, part)| messages.into_iter().map(move |m| m.said(part)));
    fine.then(|| whole(Format::Dpo, said.collect()))
}

fn whole(format: Format, said: Vec<Said<'_>>) -> Row<'_> {
    let print = Some(duplicates::print(&said, ""));
    Row { format, said, print, ..Row::default() }
}
