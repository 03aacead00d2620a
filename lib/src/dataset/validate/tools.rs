//! Tools of an example, and the calls of them.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::problem::{Code, Problem};

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
    let value = fields.get(key).filter(|value| !value.is_null())?;
    let mut names = BTreeSet::new();
    let Some(items) = value.as_array() else {
        found.push(
            Problem::new(Code::ToolShape, format!("`{key}` is not a list")).at(format!("{prefix}{key}")),
        );
        return Some(names);
    };
    for (index, item) in items.iter().enumerate() {
        let name = function(item).and_then(|function| function.get("name")?.as_str());
        let shaped = function(item).is_some_and(|f| f.get("parameters").is_none_or(Value::is_object));
        match name.filter(|name| shaped && !name.is_empty()) {
            Some(name) => {
                names.insert(name.to_owned());
            }
            None => {
                let message = "it is not a function with a name and, if any, an object of parameters";
                found.push(Problem::new(Code::ToolShape, message).at(format!("{prefix}{key}[{index}]")));
            }
        }
    }
    Some(names)
}

/// The calls of a conversation, message after message.
pub(super) struct Calls<'t> {
    tools: &'t Tools,
    /// Ids of the calls so far.
    made: BTreeSet<String>,
}

impl<'t> Calls<'t> {
    pub fn new(tools: &'t Tools) -> Self {
        Self { tools, made: BTreeSet::new() }
    }

    pub fn message(&mut self, fields: &Map<String, Value>, field: &str, found: &mut Vec<Problem>) {
        let mut add = |code, at: String, message: String| found.push(Problem::new(code, message).at(at));
        if let Some(calls) = fields.get("tool_calls").filter(|value| !value.is_null()) {
            let Some(calls) = calls.as_array().filter(|calls| !calls.is_empty()) else {
                let message = "`tool_calls` is not a list of calls".to_owned();
                return add(Code::ToolShape, format!("{field}.tool_calls"), message);
            };
            for (index, call) in calls.iter().enumerate() {
                let at = format!("{field}.tool_calls[{index}]");
                match call.get("id").and_then(Value::as_str) {
                    Some(id) => {
                        self.made.insert(id.to_owned());
                    }
                    None => add(Code::ToolShape, format!("{at}.id"), "a call has no `id`".into()),
                }
                if call.get("type").and_then(Value::as_str) != Some("function") {
                    add(Code::ToolShape, format!("{at}.type"), "the type of a call is `function`".into());
                }
                called(call.get("function"), self.tools.tools.as_ref(), &format!("{at}.function"), &mut add);
            }
        }
        if let Some(call) = fields.get("function_call").filter(|value| !value.is_null()) {
            called(Some(call), self.tools.functions.as_ref(), &format!("{field}.function_call"), &mut add);
        }
        if fields.get("role").and_then(Value::as_str) == Some("tool") {
            let at = format!("{field}.tool_call_id");
            match fields.get("tool_call_id").and_then(Value::as_str) {
                Some(id) if self.made.contains(id) => {}
                Some(id) => add(Code::ToolCallId, at, format!("no call before it has the id `{id}`")),
                None => add(Code::ToolCallId, at, "a tool message has no `tool_call_id`".into()),
            }
        }
    }
}

fn called(
    call: Option<&Value>,
    listed: Option<&BTreeSet<String>>,
    field: &str,
    add: &mut impl FnMut(Code, String, String),
) {
    let Some(name) = call.and_then(|call| call.get("name")?.as_str()) else {
        return add(Code::ToolShape, format!("{field}.name"), "a call has no name".into());
    };
    match listed {
        None => {
            add(Code::MissingTools, format!("{field}.name"), format!("it calls `{name}` and lists no tools"))
        }
        Some(names) if names.contains(name) => {}
        Some(_) => {
            add(Code::ToolUnknown, format!("{field}.name"), format!("`{name}` is not among its tools"))
        }
    }
    let arguments = call.and_then(|call| call.get("arguments")?.as_str());
    let object =
        arguments.and_then(|text| serde_json::from_str::<Value>(text).ok()).is_some_and(|v| v.is_object());
    if !object {
        let message = "the arguments are not a JSON object in a string".into();
        add(Code::ToolArguments, format!("{field}.arguments"), message);
    }
}
