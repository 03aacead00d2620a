//! The input of a batch: one request per line.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader},
    path::Path,
};

use hone::model::wire::BatchError;
use serde::Deserialize;
use serde_json::Value;

/// Most requests of a batch.
const MOST_REQUESTS: u64 = 50_000;
/// Most errors that are listed.
const MOST_ERRORS: usize = 100;
/// Most characters of a `custom_id`.
const LONGEST_ID: usize = 512;

/// A request of a batch.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Line {
    pub custom_id: String,
    pub method: String,
    pub url: String,
    pub body: Value,
}

impl Line {
    /// Places in the engine that its answers take.
    pub fn weight(&self) -> usize {
        self.body["n"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(1).max(1)
    }
}

/// What an input was found to be.
#[derive(Debug, Default, PartialEq)]
pub struct Checked {
    pub total: u64,
    /// Of all requests.
    pub model: Option<String>,
    /// The first line that names it.
    pub model_line: u64,
    pub errors: Vec<BatchError>,
}

/// Lines that are not blank, with their numbers from 1.
fn lines(path: &Path) -> std::io::Result<impl Iterator<Item = std::io::Result<(u64, Vec<u8>)>>> {
    let reader = BufReader::new(std::fs::File::open(path)?);
    let numbered = (1..).zip(reader.split(b'\n'));
    let lines = numbered.map(|(number, line)| line.map(|line| (number, line)));
    Ok(lines.filter(|line| !line.as_ref().is_ok_and(|(_, text)| plain(text).is_empty())))
}

fn plain(line: &[u8]) -> &[u8] {
    line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line).trim_ascii()
}

/// The requests of an input that was checked.
pub fn requests(path: &Path) -> std::io::Result<impl Iterator<Item = std::io::Result<Line>>> {
    let parse = |text: Vec<u8>| serde_json::from_slice(plain(&text)).map_err(std::io::Error::other);
    Ok(lines(path)?.map(move |line| line.and_then(|(_, text)| parse(text))))
}

/// Reads the whole input and finds what is wrong with it.
pub fn check(path: &Path, endpoint: &str) -> std::io::Result<Checked> {
    let (mut checked, mut seen) = (Checked::default(), HashSet::new());
    for line in lines(path)? {
        let (number, text) = line?;
        checked.total += 1;
        if checked.total > MOST_REQUESTS {
            let message = format!("a batch may have {MOST_REQUESTS} requests");
            checked.fault(number, "too_many_tasks", None, message);
            break;
        }
        if let Err((code, param, message)) = checked.take(number, plain(&text), endpoint, &mut seen) {
            checked.fault(number, code, param, message);
            if checked.errors.len() >= MOST_ERRORS {
                break;
            }
        }
    }
    if checked.total == 0 {
        checked.fault(1, "empty_file", None, "the input file holds no request".into());
    }
    Ok(checked)
}

type Wrong = (&'static str, Option<&'static str>, String);

impl Checked {
    fn fault(&mut self, line: u64, code: &str, param: Option<&str>, message: String) {
        let param = param.map(str::to_owned);
        self.errors.push(BatchError { code: code.into(), message, param, line: Some(line) });
    }

    fn take(
        &mut self,
        number: u64,
        text: &[u8],
        endpoint: &str,
        seen: &mut HashSet<String>,
    ) -> Result<(), Wrong> {
        let line: Line = serde_json::from_slice(text)
            .map_err(|e| ("invalid_json_line", None, format!("the line is not a request of a batch: {e}")))?;
        if line.custom_id.is_empty() || line.custom_id.chars().count() > LONGEST_ID {
            let message = format!("`custom_id` must have 1 to {LONGEST_ID} characters");
            return Err(("invalid_custom_id", Some("custom_id"), message));
        }
        if line.method != "POST" {
            let message = format!("`method` must be `POST`, not `{}`", line.method);
            return Err(("invalid_method", Some("method"), message));
        }
        if line.url != endpoint {
            let message = format!("`url` is `{}`, the batch was created for `{endpoint}`", line.url);
            return Err(("mismatched_url", Some("url"), message));
        }
        if !line.body.is_object() {
            return Err(("invalid_body", Some("body"), "`body` must be an object".into()));
        }
        if line.body["stream"] == true {
            let message = "answers of a batch cannot be streamed".into();
            return Err(("streaming_not_supported", Some("body.stream"), message));
        }
        self.check_model(number, &line)?;
        if !seen.insert(line.custom_id.clone()) {
            let message = format!("`custom_id` `{}` is used twice", line.custom_id);
            return Err(("duplicate_custom_id", Some("custom_id"), message));
        }
        Ok(())
    }

    fn check_model(&mut self, number: u64, line: &Line) -> Result<(), Wrong> {
        let Some(model) = line.body["model"].as_str() else {
            return Err(("missing_model", Some("body.model"), "`body` names no `model`".into()));
        };
        match &self.model {
            None => (self.model, self.model_line) = (Some(model.to_owned()), number),
            Some(first) if first != model => {
                let message =
                    format!("a batch has one model: this line names `{model}`, an earlier one `{first}`");
                return Err(("model_mismatch", Some("body.model"), message));
            }
            Some(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const CHAT: &str = "/v1/chat/completions";

    fn line(change: Value) -> String {
        let mut line = json!({"custom_id": "a", "method": "POST", "url": CHAT, "body": {"model": "m"}});
        line.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        line.to_string()
    }

    fn checked(content: &[u8]) -> Checked {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        check(file.path(), CHAT).unwrap()
    }

    fn check_fault(lines: &[String], number: u64, code: &str) {
        let found = checked(lines.join("\n").as_bytes());
        let errors: Vec<_> = found.errors.iter().map(|e| (e.line, e.code.as_str())).collect();
        assert_eq!(errors, [(Some(number), code)], "{lines:?}");
    }

    #[test]
    fn faults_are_named_by_line() {
        let good = line(json!({}));
        let found = checked(format!("\u{feff}{good}\n\n{}\n", line(json!({"custom_id": "b"}))).as_bytes());
        assert_eq!((found.total, found.model.as_deref(), found.errors.len()), (2, Some("m"), 0));
        check_fault(&[String::new()], 1, "empty_file");
        check_fault(&["{}".into()], 1, "invalid_json_line");
        check_fault(&[line(json!({"custom_id": 3}))], 1, "invalid_json_line");
        check_fault(&[line(json!({"custom_id": ""}))], 1, "invalid_custom_id");
        check_fault(&[line(json!({"method": "GET"}))], 1, "invalid_method");
        check_fault(&[line(json!({"url": "/v1/responses"}))], 1, "mismatched_url");
        check_fault(&[line(json!({"body": []}))], 1, "invalid_body");
        check_fault(&[line(json!({"body": {"model": "m", "stream": true}}))], 1, "streaming_not_supported");
        check_fault(&[line(json!({"body": {}}))], 1, "missing_model");
        check_fault(&[good.clone(), String::new(), good.clone()], 3, "duplicate_custom_id");
        check_fault(&[good, line(json!({"custom_id": "b", "body": {"model": "n"}}))], 2, "model_mismatch");
        assert_eq!(checked("x\n".repeat(500).as_bytes()).errors.len(), MOST_ERRORS);
    }

    proptest! {
        /// What passes can be read as requests, line by line.
        #[test]
        fn what_passes_can_be_run(content in prop::collection::vec(
            prop_oneof![Just(line(json!({}))), Just(line(json!({"custom_id": "b"}))), ".{0,20}"], 0..4,
        )) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), content.join("\n")).unwrap();
            let found = check(file.path(), CHAT).unwrap();
            if found.errors.is_empty() {
                let run: Result<Vec<_>, _> = requests(file.path()).unwrap().collect();
                prop_assert_eq!(run.unwrap().len() as u64, found.total);
            }
        }
    }
}
