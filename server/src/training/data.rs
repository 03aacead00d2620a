//! Training files: chat rows in JSON lines, checked line by line.
//!
//! Files are read a line at a time, twice: once to check them before the job is queued, once to train.

use std::{
    io::{self, BufRead, BufReader},
    path::Path,
};

use hone_engine::chat::{ChatMessage, Role};
use serde_json::{Map, Value};

/// Faults that are listed before the rest is only counted.
const LISTED: usize = 10;
/// Control tokens, which have no business in a text.
const SPECIAL: [&str; 6] =
    ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"];

/// What a check found; no larger for a file of half a gigabyte.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows without a fault.
    pub examples: usize,
    /// Rows with one.
    pub faulty: usize,
    /// The first of them, by line (from 1).
    listed: Vec<(usize, String)>,
    pub blank: usize,
    /// Line of the first blank one.
    pub first_blank: Option<usize>,
}

impl Report {
    /// The faults in a sentence, each with its line.
    pub fn describe(&self) -> String {
        let listed: Vec<_> = self.listed.iter().map(|(line, why)| format!("line {line}: {why}")).collect();
        let more = self.faulty - self.listed.len();
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        format!("{}{more}", listed.join("; "))
    }

    fn fault(&mut self, line: usize, why: String) {
        self.faulty += 1;
        if self.listed.len() < LISTED {
            self.listed.push((line, why));
        }
    }
}

/// Checks a whole file.
pub fn check(path: &Path) -> io::Result<Report> {
    let mut report = Report::default();
    each_line(path, |number, text| {
        if text.is_empty() {
            report.blank += 1;
            report.first_blank.get_or_insert(number);
            return Ok(());
        }
        match parse(text) {
            Ok(_) => report.examples += 1,
            Err(why) => report.fault(number, why),
        }
        Ok(())
    })?;
    Ok(report)
}

/// The conversations of a file that was checked; `take` gets each with its line.
pub fn read(path: &Path, mut take: impl FnMut(usize, Vec<ChatMessage>) -> io::Result<()>) -> io::Result<()> {
    each_line(path, |number, text| {
        if text.is_empty() {
            return Ok(());
        }
        let messages = parse(text).map_err(|why| io::Error::other(format!("line {number}: {why}")))?;
        take(number, messages)
    })
}

/// Gives each line, without its end and without a byte-order mark.
fn each_line(path: &Path, mut take: impl FnMut(usize, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut reader = BufReader::new(std::fs::File::open(path)?);
    let (mut line, mut number) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line)? > 0 {
        number += 1;
        let text =
            if number == 1 { line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line) } else { &line };
        take(number, text.trim_ascii())?;
        line.clear();
    }
    Ok(())
}

/// One row as a conversation, or what is wrong with it.
pub fn parse(line: &[u8]) -> Result<Vec<ChatMessage>, String> {
    let row: Value = serde_json::from_slice(line).map_err(|e| format!("it is not JSON ({e})"))?;
    let row = row.as_object().ok_or("it is not a JSON object")?;
    check_keys(row)?;
    let messages = row.get("messages").ok_or("it has no `messages`")?;
    let messages =
        messages.as_array().filter(|m| !m.is_empty()).ok_or("`messages` is not a list of messages")?;
    let numbered = messages.iter().enumerate();
    let messages: Vec<ChatMessage> = numbered
        .map(|(index, message)| parse_message(message).map_err(|why| format!("message {} {why}", index + 1)))
        .collect::<Result<_, _>>()?;
    check_conversation(&messages)?;
    Ok(messages)
}

fn check_keys(row: &Map<String, Value>) -> Result<(), String> {
    if row.contains_key("preferred_output") || row.contains_key("input") {
        return Err("it is a preference pair, which supervised training cannot use".into());
    }
    if row.contains_key("prompt") && !row.contains_key("messages") {
        return Err(
            "it has `prompt` and `completion`, which this trainer does not take: use `messages`".into()
        );
    }
    let used = |key: &str| row.get(key).and_then(Value::as_array).is_some_and(|items| !items.is_empty());
    if used("tools") || used("functions") {
        return Err("it has `tools`, which this trainer does not know".into());
    }
    Ok(())
}

fn parse_message(message: &Value) -> Result<ChatMessage, String> {
    let message = message.as_object().ok_or("is not an object")?;
    if let Some(key) =
        message.keys().find(|key| !["role", "content", "name", "weight"].contains(&key.as_str()))
    {
        return Err(format!("has an unknown key `{key}`"));
    }
    let role = match message.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some(other) => return Err(format!("has the role `{other}`: use system, user or assistant")),
        None => return Err("has no `role`".into()),
    };
    let content = message.get("content").and_then(Value::as_str).ok_or("has no text as `content`")?;
    if content.is_empty() {
        return Err("is empty".into());
    }
    if let Some(token) = SPECIAL.iter().find(|token| content.contains(**token)) {
        return Err(format!("holds the control token `{token}`"));
    }
    let train = match message.get("weight") {
        None | Some(Value::Null) => true,
        Some(_) if role != Role::Assistant => {
            return Err("has a `weight`, which only assistant messages may".into());
        }
        Some(weight) => match weight.as_u64() {
            Some(0) => false,
            Some(1) => true,
            _ => return Err("has a `weight` other than 0 or 1".into()),
        },
    };
    Ok(ChatMessage { role, content: content.to_owned(), train })
}

fn check_conversation(messages: &[ChatMessage]) -> Result<(), String> {
    if messages.last().is_none_or(|last| last.role != Role::Assistant) {
        return Err("its last message is not the assistant's".into());
    }
    if !messages.iter().any(|message| message.role == Role::Assistant && message.train) {
        return Err("every assistant message has weight 0, so there is nothing to learn".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_row(row: &str, expected: Result<usize, &str>) {
        match (parse(row.as_bytes()), expected) {
            (Ok(messages), Ok(count)) => assert_eq!(messages.len(), count),
            (Err(why), Err(words)) => assert!(why.contains(words), "{row}: {why}"),
            (found, _) => panic!("{row}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn rows_are_checked_by_message_and_key() {
        let user = r#"{"role":"user","content":"q"}"#;
        let answer = r#"{"role":"assistant","content":"a"}"#;
        let row = |messages: &str| format!(r#"{{"messages":[{messages}]}}"#);
        check_row(&row(&format!("{user},{answer}")), Ok(2));
        check_row(&row(&format!(r#"{{"role":"developer","content":"s"}},{user},{answer}"#)), Ok(3));
        check_row("{", Err("not JSON"));
        check_row("[]", Err("not a JSON object"));
        check_row("{}", Err("no `messages`"));
        check_row(r#"{"messages":[]}"#, Err("not a list"));
        check_row(r#"{"prompt":"a","completion":"b"}"#, Err("use `messages`"));
        check_row(r#"{"input":{},"preferred_output":[]}"#, Err("preference pair"));
        check_row(&row(user), Err("last message"));
        check_row(&row(&format!(r#"{user},{{"content":"a"}}"#)), Err("message 2 has no `role`"));
        check_row(&row(&format!(r#"{user},{{"role":"robot","content":"a"}}"#)), Err("`robot`"));
        check_row(&row(&format!(r#"{user},{{"role":"assistant"}}"#)), Err("message 2 has no text"));
        check_row(&row(&format!(r#"{user},{{"role":"assistant","content":""}}"#)), Err("message 2 is empty"));
        check_row(
            &row(&format!(r#"{user},{{"role":"assistant","content":"<|im_end|>"}}"#)),
            Err("control token"),
        );
        check_row(
            &row(&format!(r#"{user},{{"role":"assistant","content":"a","x":1}}"#)),
            Err("unknown key `x`"),
        );
        check_row(
            &row(&format!(r#"{{"role":"user","content":"q","weight":1}},{answer}"#)),
            Err("only assistant"),
        );
        check_row(&row(&format!(r#"{user},{{"role":"assistant","content":"a","weight":2}}"#)), Err("0 or 1"));
        check_row(
            &row(&format!(r#"{user},{{"role":"assistant","content":"a","weight":0}}"#)),
            Err("nothing to learn"),
        );
    }

    #[test]
    fn a_report_counts_and_names_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let good = r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}"#;
        std::fs::write(file.path(), format!("\u{feff}{good}\n\n{{}}\r\n{good}")).unwrap();
        let report = check(file.path()).unwrap();
        assert_eq!((report.examples, report.blank, report.first_blank), (2, 1, Some(2)));
        assert_eq!(report.describe(), "line 3: it has no `messages`");
        let mut many = Report::default();
        (1..=12).for_each(|line| many.fault(line, "x".into()));
        assert!(many.describe().ends_with("line 10: x; and 2 more"));
    }

    proptest! {
        #[test]
        fn no_line_breaks_the_parser(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&line);
        }

        #[test]
        fn no_json_breaks_the_parser(role in ".{0,9}", content in ".{0,9}", weight in any::<i64>()) {
            let row = serde_json::json!({"messages": [{"role": role, "content": content, "weight": weight}]});
            let _ = parse(row.to_string().as_bytes());
        }
    }
}
