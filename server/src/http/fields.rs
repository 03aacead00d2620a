//! A JSON body, taken apart field by field, so that every fault names its parameter.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// The fields of a body that have not been read yet.
pub struct Fields {
    /// The path of the object that they are in, with a dot at its end; empty for the body itself.
    within: String,
    left: Map<String, Value>,
}

impl Fields {
    pub fn new(fields: Map<String, Value>) -> Self {
        Self { within: String::new(), left: fields }
    }

    /// A field's name with where it is: how a refusal names it.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.within)
    }

    /// The fields of the object of that name; none when it is missing or null.
    pub fn object(&mut self, name: &str) -> Result<Option<Self>, ApiError> {
        let path = self.path(name);
        match self.left.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(left)) => Ok(Some(Self { within: format!("{path}."), left })),
            Some(_) => Err(ApiError::bad_param(&path, format!("`{path}` must be an object"))),
        }
    }

    /// The field of that name; none when it is missing or null.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        match self.left.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value).map(Some).map_err(|e| {
                let path = self.path(name);
                ApiError::bad_param(&path, format!("`{path}`: {e}"))
            }),
        }
    }

    /// The field of that name, which has to be there.
    pub fn need<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, ApiError> {
        self.take(name)?.ok_or_else(|| ApiError::missing(&self.path(name)))
    }

    /// Whoever asks, by the name that the application gives them: the field of today, or the one that it replaced.
    pub fn caller(&mut self) -> Result<Option<String>, ApiError> {
        let (now, before) = (self.take("safety_identifier")?, self.take("user")?);
        Ok(now.or(before))
    }

    /// A number that has to be in a range.
    pub fn number(&mut self, name: &str, least: f64, most: f64) -> Result<Option<f64>, ApiError> {
        let number = self.take::<f64>(name)?;
        match number {
            Some(number) if !(least..=most).contains(&number) => Err(ApiError::bad_param(
                name,
                format!("`{name}` must be from {least} to {most}, not {number}"),
            )),
            number => Ok(number),
        }
    }

    /// A whole number that has to be in a range.
    pub fn count(&mut self, name: &str, least: u32, most: u32) -> Result<Option<u32>, ApiError> {
        let count = self.take::<u32>(name)?;
        match count {
            Some(count) if !(least..=most).contains(&count) => {
                let range = if most == u32::MAX {
                    format!("at least {least}")
                } else {
                    format!("from {least} to {most}")
                };
                Err(ApiError::bad_param(name, format!("`{name}` must be {range}, not {count}")))
            }
            count => Ok(count),
        }
    }

    /// Whether the field of that name is this text.
    pub fn is(&self, name: &str, text: &str) -> bool {
        self.left.get(name).is_some_and(|value| value == text)
    }

    /// Refuses a field that would change the answer if it were heeded, unless it says what holds anyway.
    pub fn refuse(&mut self, name: &str, harmless: impl Fn(&Value) -> bool) -> Result<(), ApiError> {
        match self.left.remove(name) {
            Some(value) if !value.is_null() && !harmless(&value) => {
                Err(ApiError::bad_param(name, format!("`{name}` is not supported by this server")))
            }
            _ => Ok(()),
        }
    }

    /// Tools, of which none can be called: they are taken when the request says so itself.
    pub fn refuse_tools(&mut self) -> Result<(), ApiError> {
        let choice = self.take::<Value>("tool_choice")?;
        for name in ["tools", "functions"] {
            let tools = self.take::<Vec<Value>>(name)?.unwrap_or_default();
            if !tools.is_empty() && choice != Some("none".into()) {
                let message = format!("`{name}` is not supported by this server: its models cannot call any");
                return Err(ApiError::bad_param(name, message));
            }
        }
        match choice {
            Some(Value::String(choice)) if choice == "none" || choice == "auto" => Ok(()),
            None => Ok(()),
            Some(_) => Err(ApiError::bad_param("tool_choice", "`tool_choice`: there is no tool to choose")),
        }
    }

    /// Refuses the first of what is left that is of those names and says something, and tells what there is instead.
    pub fn refuse_left(&self, which: impl Fn(&str) -> bool, instead: &str) -> Result<(), ApiError> {
        match self.left.iter().find(|(name, value)| which(name) && !value.is_null()) {
            None => Ok(()),
            Some((name, _)) => {
                let path = self.path(name);
                let error = ApiError::bad(format!("`{path}` has no effect: {instead}"));
                Err(error.param(&path).code("unknown_parameter"))
            }
        }
    }

    /// Ignores what is left, with a word in the log.
    pub fn ignore_the_rest(self) {
        for name in self.left.keys() {
            tracing::info!(name, "ignoring a parameter that has no effect here");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::new(value.as_object().unwrap().clone())
    }

    fn fault<T: std::fmt::Debug>(result: Result<T, ApiError>) -> (String, Option<String>) {
        let error = result.unwrap_err().envelope().error;
        (error.message, error.param)
    }

    #[test]
    fn a_fault_names_its_field() {
        let mut body = fields(json!({"n": "many", "t": 3, "seed": null, "k": 7}));
        let (message, param) = fault(body.take::<u32>("n"));
        assert!(message.starts_with("`n`: ") && param.as_deref() == Some("n"), "{message}");
        assert_eq!(fault(body.number("t", 0.0, 2.0)).0, "`t` must be from 0 to 2, not 3");
        assert_eq!(fault(body.count("k", 1, 4)).0, "`k` must be from 1 to 4, not 7");
        assert!(body.take::<i64>("seed").unwrap().is_none());
        assert_eq!(fault(body.need::<String>("model")), ("`model` is missing".into(), Some("model".into())));
    }

    #[test]
    fn a_field_within_is_named_by_its_path() {
        let mut body = fields(json!({"a": {"b": {"n": "x", "other": null, "more": 1}}, "list": []}));
        let mut inner = body.object("a").unwrap().unwrap().object("b").unwrap().unwrap();
        assert_eq!(fault(inner.take::<u32>("n")).1.as_deref(), Some("a.b.n"));
        assert_eq!(fault(inner.need::<u32>("m")).1.as_deref(), Some("a.b.m"));
        assert!(inner.refuse_left(|name| name == "other", "").is_ok(), "null says nothing");
        let (message, param) = fault(inner.refuse_left(|_| true, "use `m`"));
        assert_eq!(message, "`a.b.more` has no effect: use `m`");
        assert_eq!(param.as_deref(), Some("a.b.more"));
        assert_eq!(
            fault(body.object("list").map(drop)),
            ("`list` must be an object".into(), Some("list".into()))
        );
    }

    #[test]
    fn tools_are_taken_when_they_are_not_to_be_called() {
        let check = |body: Value, refused: Option<&str>| {
            let param = fields(body.clone()).refuse_tools().err().and_then(|e| e.envelope().error.param);
            assert_eq!(param.as_deref(), refused, "{body}");
        };
        check(json!({}), None);
        check(json!({"tools": [], "tool_choice": "auto"}), None);
        check(json!({"tools": [{}], "tool_choice": "none"}), None);
        check(json!({"tools": [{}]}), Some("tools"));
        check(json!({"tools": [{}], "tool_choice": "auto"}), Some("tools"));
        check(json!({"functions": [{}]}), Some("functions"));
        check(json!({"tool_choice": "required"}), Some("tool_choice"));
        check(json!({"tool_choice": {"type": "function"}}), Some("tool_choice"));
        check(json!({"tools": "x"}), Some("tools"));
    }
}
