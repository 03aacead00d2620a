//! What the trainer of this machine makes of a row: the turns that it learns from, or why it refuses the row.
//!
//! It learns to write text, so it refuses rows with pictures, tools or refusals, which providers train on. [`example`] is how
//! the trainer reads its files; `hone validate` reads by the same rules, so that the two cannot disagree.

use serde_json::{Map, Value};

use super::{
    problem::{Code, Problem, Severity},
    row::{self, Format, Part, Place, Said},
    rules, vision,
};

/// Who speaks in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    System,
    User,
    Assistant,
}

impl Speaker {
    fn of(role: &str) -> Option<Self> {
        match role {
            "system" | "developer" => Some(Self::System),
            "user" => Some(Self::User),
            "assistant" => Some(Self::Assistant),
            _ => None,
        }
    }
}

/// A message as the trainer reads it: content in parts is one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub speaker: Speaker,
    pub text: String,
    /// Whether the model learns to write it.
    pub train: bool,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Example {
    Chat(Vec<Turn>),
    /// Two conversations that part after the prompt. Both answer it: what is compared is the last message alone.
    Pair {
        preferred: Vec<Turn>,
        non_preferred: Vec<Turn>,
    },
}

/// Reads a line of a file of this format.
///
/// # Errors
/// The first thing that `hone validate` calls an error in this line, for a model of this machine.
pub fn example(line: &str, format: Format) -> Result<Example, Problem> {
    let row = row::read(line, format, Place::Local);
    if let Some(fault) = row.problems.into_iter().find(|problem| problem.severity == Severity::Error) {
        return Err(fault);
    }
    let turns = |parts: &[Part]| -> Result<Vec<Turn>, Problem> {
        row.said.iter().filter(|said| parts.contains(&said.part)).map(turn).collect()
    };
    Ok(match format {
        Format::Chat => Example::Chat(turns(&[Part::Prompt, Part::Answer])?),
        Format::Dpo => Example::Pair {
            preferred: last_alone(turns(&[Part::Prompt, Part::Answer])?),
            non_preferred: last_alone(turns(&[Part::Prompt, Part::Rejected])?),
        },
        Format::Rft => return Err(tasks()),
    })
}

fn turn(said: &Said<'_>) -> Result<Turn, Problem> {
    let speaker = Speaker::of(&said.role).ok_or_else(|| role(&said.role))?;
    Ok(Turn { speaker, text: said.text.clone().into_owned(), train: said.part == Part::Answer })
}

fn last_alone(mut turns: Vec<Turn>) -> Vec<Turn> {
    let last = turns.len().saturating_sub(1);
    turns.iter_mut().enumerate().for_each(|(index, turn)| turn.train = index == last);
    turns
}

fn refused(message: impl Into<String>) -> Problem {
    Problem::new(Code::NotTrainedLocally, message)
}

fn role(role: &str) -> Problem {
    refused(format!("the local trainer knows no `{role}` messages"))
}

/// Of a file of tasks for a grader.
pub(super) fn tasks() -> Problem {
    refused("the local trainer does not train on tasks for a grader")
}

/// Adds what this trainer refuses beside what everybody does.
pub(super) fn refuse(fields: &Map<String, Value>, format: Format, found: &mut Vec<Problem>) {
    match format {
        Format::Chat => {
            tools(fields, "", found);
            messages(fields.get("messages"), "messages", found);
            // What follows the last answer is read past by providers.
            for last in found.iter_mut().filter(|problem| problem.code == Code::LastNotAssistant) {
                let message =
                    format!("{}, with whom the local trainer wants every example to end", last.message);
                *last = Problem { field: last.field.take(), ..refused(message) };
            }
        }
        Format::Dpo => {
            if let Some(input) = fields.get("input").and_then(Value::as_object) {
                tools(input, "input.", found);
                messages(input.get("messages"), "input.messages", found);
            }
            for key in ["preferred_output", "non_preferred_output"] {
                messages(fields.get(key), key, found);
            }
        }
        // Told of once, for the whole file.
        Format::Rft => {}
    }
}

fn tools(fields: &Map<String, Value>, prefix: &str, found: &mut Vec<Problem>) {
    let used = |key: &&str| fields.get(*key).and_then(Value::as_array).is_some_and(|items| !items.is_empty());
    for key in ["tools", "functions"].into_iter().filter(used) {
        found.push(refused("the local trainer teaches no use of tools").at(format!("{prefix}{key}")));
    }
}

fn messages(list: Option<&Value>, name: &str, found: &mut Vec<Problem>) {
    for (index, message) in list.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let field = format!("{name}[{index}]");
        if let Some(role @ ("tool" | "function")) = rules::role(message) {
            found.push(self::role(role).at(format!("{field}.role")));
            continue;
        }
        for key in ["tool_calls", "function_call", "tool_call_id", "refusal"] {
            if message.get(key).is_some_and(|value| !value.is_null()) {
                let message = format!("the local trainer does not learn from `{key}`");
                found.push(refused(message).at(format!("{field}.{key}")));
            }
        }
        parts(message, &field, found);
    }
}

fn parts(message: &Value, field: &str, found: &mut Vec<Problem>) {
    // Those of other roles are refused everywhere.
    let (is_user, is_answer) =
        (rules::role(message) == Some("user"), rules::role(message) == Some("assistant"));
    let parts = message.get("content").and_then(Value::as_array).into_iter().flatten().enumerate();
    for (index, part) in parts {
        let at = format!("{field}.content[{index}]");
        if is_user && vision::is_picture(part) {
            found.push(refused("the local trainer sees no pictures").at(at));
        } else if is_answer && part["type"] == "refusal" {
            found.push(refused("the local trainer does not learn from `refusal`").at(at));
        }
    }
}
