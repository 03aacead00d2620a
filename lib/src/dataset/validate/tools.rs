//! Tools of an example, and the calls of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    problem::{Code, Problem},
    row::special_token,
    rules::{control_token, present, role_of},
};

/// Characters of a function's name.
const LONGEST_NAME: usize = 64;

/// The names that an example may call.
#[derive(Debug, Default)]
pub(super) struct Tools {
    /// None when the example lists none.
    tools: Option<BTreeSet<String>>,
    functions: Option<BTreeSet<String>>,
}

impl Tools {
    /// Reads `tools` and the older `functions`.
    pub fn read(fields: &Map<String, Value>, prefix: &str, found: &mut Vec<Problem>) -> Self {
        let tools = list(fields, "tools", prefix, found, |tool| {
            let is_function = tool.get("type").and_then(Value::as_str) == Some("function");
            tool.get("function").filter(|_| is_function)
        });
        let functions = list(fields, "functions", prefix, found, itself);
        Self { tools, functions }
    }
}

fn itself(function: &Value) -> Option<&Value> {
    Some(function)
}

fn list(
    fields: &Map<String, Value>,
    key: &str,
    prefix: &str,
    found: &mut Vec<Problem>,
    function: impl Fn(&Value) -> Option<&Value>,
) -> Option<BTreeSet<String>> {
    let value = present(fields, key)?;
    let mut names = BTreeSet::new();
    let Some(items) = value.as_array() else {
        found.push(
            Problem::new(Code::ToolShape, format!("`{key}` is not a list")).at(format!("{prefix}{key}")),
        );
        return Some(names);
    };
    for (index, item) in items.iter().enumerate() {
        let at = format!("{prefix}{key}[{index}]");
        found.extend(special_token(&item.to_string()).map(|token| control_token(token).at(&*at)));
        let shaped = |f: &Value| f.get("parameters").is_none_or(|p| p.is_object() || p.is_null());
        let name = function(item).filter(|f| shaped(f)).and_then(|function| function.get("name")?.as_str());
        if let Some(message) = name.map_or_else(|| Some(UNSHAPED.to_owned()), |name| misnamed(name, &names)) {
            found.push(Problem::new(Code::ToolShape, message).at(at));
        }
        names.extend(name.map(str::to_owned));
    }
    Some(names)
}

const UNSHAPED: &str = "it is not a function with a name and, if any, an object of parameters";

/// What is wrong with a function's name, after those of others.
fn misnamed(name: &str, others: &BTreeSet<String>) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !(1..=LONGEST_NAME).contains(&name.len()) || !name.bytes().all(plain) {
        return Some(format!(
            "`{name}` is no function's name: 1 to {LONGEST_NAME} letters, digits, `_` and `-`"
        ));
    }
    others.contains(name).then(|| format!("`{name}` is listed twice"))
}

/// The calls of a conversation, message after message.
pub(super) struct Calls<'t> {
    tools: &'t Tools,
    /// Ids that the tool messages to come are to answer, with the places of the calls.
    open: BTreeMap<String, String>,
    /// Ids that were not answered before another turn began.
    late: BTreeMap<String, String>,
    answered: BTreeSet<String>,
}

impl<'t> Calls<'t> {
    pub fn new(tools: &'t Tools) -> Self {
        Self { tools, open: BTreeMap::new(), late: BTreeMap::new(), answered: BTreeSet::new() }
    }

    pub fn message(&mut self, fields: &Map<String, Value>, field: &str, found: &mut Vec<Problem>) {
        let role = role_of(fields);
        if role == Some("tool") {
            self.answer(fields, field, found);
        } else {
            self.late.extend(std::mem::take(&mut self.open));
        }
        let calls = ["tool_calls", "function_call"].map(|key| (key, present(fields, key)));
        for (key, call) in calls.into_iter().filter_map(|(key, call)| Some((key, call?))) {
            let at = format!("{field}.{key}");
            match (key, call.as_array()) {
                _ if role != Some("assistant") => {
                    let message = "only assistant messages call tools";
                    found.push(Problem::new(Code::ToolShape, message).at(at));
                }
                ("function_call", _) => called(Some(call), self.tools.functions.as_ref(), &at, found),
                (_, Some(calls)) if !calls.is_empty() => self.calls(calls, &at, found),
                _ => found.push(Problem::new(Code::ToolShape, "`tool_calls` is not a list of calls").at(at)),
            }
        }
    }

    /// Tells of the calls that nobody answered. The last message's wait for what the example does not show.
    pub fn end(self, found: &mut Vec<Problem>) {
        found.extend(self.late.into_values().map(unanswered));
    }

    fn calls(&mut self, calls: &[Value], field: &str, found: &mut Vec<Problem>) {
        for (index, call) in calls.iter().enumerate() {
            let at = format!("{field}[{index}]");
            match call.get("id").and_then(Value::as_str) {
                Some(id) => self.open(id, format!("{at}.id"), found),
                None => {
                    found.push(Problem::new(Code::ToolShape, "a call has no `id`").at(format!("{at}.id")));
                }
            }
            if call.get("type").and_then(Value::as_str) != Some("function") {
                let message = "the type of a call is `function`";
                found.push(Problem::new(Code::ToolShape, message).at(format!("{at}.type")));
            }
            called(call.get("function"), self.tools.tools.as_ref(), &format!("{at}.function"), found);
        }
    }

    fn open(&mut self, id: &str, at: String, found: &mut Vec<Problem>) {
        // An id may come again in a later turn.
        self.answered.remove(id);
        found.extend(self.late.remove(id).map(unanswered));
        if self.open.contains_key(id) {
            found.push(Problem::new(Code::ToolCallId, format!("two calls have the id `{id}`")).at(at));
        } else {
            self.open.insert(id.to_owned(), at);
        }
    }

    fn answer(&mut self, fields: &Map<String, Value>, field: &str, found: &mut Vec<Problem>) {
        let message = match fields.get("tool_call_id").and_then(Value::as_str) {
            Some(id) if self.answered.contains(id) => return,
            Some(id) if self.open.remove(id).is_some() => {
                self.answered.insert(id.to_owned());
                return;
            }
            Some(id) if self.late.remove(id).is_some() => {
                self.answered.insert(id.to_owned());
                format!("it answers the call `{id}` after another message")
            }
            Some(id) => format!("no call before it has the id `{id}`"),
            None => "a tool message has no `tool_call_id`".to_owned(),
        };
        found.push(Problem::new(Code::ToolCallId, message).at(format!("{field}.tool_call_id")));
    }
}

fn unanswered(field: String) -> Problem {
    Problem::new(Code::ToolCallId, "the call is not answered by the messages that follow").at(field)
}

fn called(call: Option<&Value>, listed: Option<&BTreeSet<String>>, field: &str, found: &mut Vec<Problem>) {
    let mut add = |code, key: &str, message: String| {
        found.push(Problem::new(code, message).at(format!("{field}.{key}")));
    };
    let Some(name) = call.and_then(|call| call.get("name")?.as_str()) else {
        return add(Code::ToolShape, "name", "a call has no name".into());
    };
    match listed {
        None => add(Code::MissingTools, "name", format!("it calls `{name}` and lists no tools")),
        Some(names) if names.contains(name) => {}
        Some(_) => add(Code::ToolUnknown, "name", format!("`{name}` is not among its tools")),
    }
    let arguments = call.and_then(|call| call.get("arguments")?.as_str());
    let object =
        arguments.and_then(|text| serde_json::from_str::<Value>(text).ok()).is_some_and(|v| v.is_object());
    if !object {
        add(Code::ToolArguments, "arguments", "the arguments are not a JSON object in a string".into());
    }
    let token = arguments.and_then(special_token);
    found.extend(token.map(|token| control_token(token).at(format!("{field}.arguments"))));
}
