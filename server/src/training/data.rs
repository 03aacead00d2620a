//! Training files: chat rows or preference pairs in JSON lines, checked line by line.
//!
//! Files are read a line at a time, twice: once to check them before the job is queued, once to train.

use std::{
    io::{self, BufRead, BufReader},
    path::Path,
};

use hone::model::wire::Job;
use hone_engine::chat::{ChatMessage, Role};
use serde_json::{Map, Value};

/// Faults that are listed before the rest is only counted.
const LISTED: usize = 10;
/// Control tokens, which have no business in a text.
const SPECIAL: [&str; 6] =
    ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"];

/// What the rows of a file have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Conversations: `messages`.
    Chat,
    /// A prompt with two answers: `input`, `preferred_output`, `non_preferred_output`.
    Preference,
}

impl Format {
    /// What a job's files have to be.
    pub fn of(job: &Job) -> Self {
        if job.is_dpo() { Self::Preference } else { Self::Chat }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    Chat(Vec<ChatMessage>),
    /// Two conversations that part after the prompt; only the last answer of each is trained.
    Pair {
        preferred: Vec<ChatMessage>,
        non_preferred: Vec<ChatMessage>,
    },
}

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
    /// Pairs of equal answers, which teach nothing.
    pub equal: usize,
    /// Line of the first of them.
    pub first_equal: Option<usize>,
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
pub fn check(path: &Path, format: Format) -> io::Result<Report> {
    let mut report = Report::default();
    each_line(path, |number, text| {
        if text.is_empty() {
            report.blank += 1;
            report.first_blank.get_or_insert(number);
            return Ok(());
        }
        match parse(text, format) {
            Ok(row) => {
                report.examples += 1;
                if matches!(&row, Row::Pair { preferred, non_preferred } if preferred == non_preferred) {
                    report.equal += 1;
                    report.first_equal.get_or_insert(number);
                }
            }
            Err(why) => report.fault(number, why),
        }
        Ok(())
    })?;
    Ok(report)
}

/// The rows of a file that was checked; `take` gets each with its line.
pub fn read(
    path: &Path,
    format: Format,
    mut take: impl FnMut(usize, Row) -> io::Result<()>,
) -> io::Result<()> {
    each_line(path, |number, text| {
        if text.is_empty() {
            return Ok(());
        }
        let row = parse(text, format).map_err(|why| io::Error::other(format!("line {number}: {why}")))?;
        take(number, row)
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

/// One row, or what is wrong with it.
pub fn parse(line: &[u8], format: Format) -> Result<Row, String> {
    let row: Value = serde_json::from_slice(line).map_err(|e| format!("it is not JSON ({e})"))?;
    let row = row.as_object().ok_or("it is not a JSON object")?;
    match format {
        Format::Chat => parse_chat(row).map(Row::Chat),
        Format::Preference => parse_pair(row),
    }
}

fn parse_chat(row: &Map<String, Value>) -> Result<Vec<ChatMessage>, String> {
    if row.contains_key("preferred_output") || row.contains_key("input") {
        return Err("it is a preference pair, which only the method `dpo` can use".into());
    }
    if row.contains_key("prompt") && !row.contains_key("messages") {
        return Err(
            "it has `prompt` and `completion`, which this trainer does not take: use `messages`".into()
        );
    }
    check_tools(row)?;
    let messages = parse_messages(row, "messages", "message")?;
    check_conversation(&messages)?;
    Ok(messages)
}

fn parse_pair(row: &Map<String, Value>) -> Result<Row, String> {
    if row.contains_key("messages") {
        return Err("it is in chat format, which the method `dpo` cannot use: give `input`, \
                    `preferred_output` and `non_preferred_output`"
            .into());
    }
    let input = row.get("input").ok_or("it has no `input`")?;
    let input = input.as_object().ok_or("`input` is not an object with `messages`")?;
    check_tools(input)?;
    let prompt = parse_messages(input, "messages", "input message")?;
    if prompt.last().is_some_and(|last| last.role == Role::Assistant) {
        return Err("the last message of `input` is the assistant's, who is to answer it".into());
    }
    let (preferred, non_preferred) =
        (parse_answer(row, "preferred_output")?, parse_answer(row, "non_preferred_output")?);
    let whole = |answer: Vec<ChatMessage>| {
        // Both answer the same prompt: what is compared is the last message alone.
        let mut messages: Vec<ChatMessage> = prompt.iter().cloned().chain(answer).collect();
        let last = messages.len() - 1;
        messages.iter_mut().enumerate().for_each(|(index, message)| message.train = index == last);
        messages
    };
    Ok(Row::Pair { preferred: whole(preferred), non_preferred: whole(non_preferred) })
}

/// One of the two outputs: its last message is the assistant's.
fn parse_answer(row: &Map<String, Value>, key: &str) -> Result<Vec<ChatMessage>, String> {
    let messages = parse_messages(row, key, &format!("`{key}` message"))?;
    if let Some(index) = messages.iter().position(|message| message.role != Role::Assistant) {
        return Err(format!("`{key}` message {} is not the assistant's", index + 1));
    }
    Ok(messages)
}

/// The messages under a key; faults name them as `what`.
fn parse_messages(row: &Map<String, Value>, key: &str, what: &str) -> Result<Vec<ChatMessage>, String> {
    let messages = row.get(key).ok_or(format!("it has no `{key}`"))?;
    let messages = messages.as_array().filter(|m| !m.is_empty());
    let messages = messages.ok_or(format!("`{key}` is not a list of messages"))?;
    let numbered = messages.iter().enumerate();
    numbered
        .map(|(index, message)| parse_message(message).map_err(|why| format!("{what} {} {why}", index + 1)))
        .collect()
}

fn check_tools(row: &Map<String, Value>) -> Result<(), String> {
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
        match (parse(row.as_bytes(), Format::Chat), expected) {
            (Ok(Row::Chat(messages)), Ok(count)) => assert_eq!(messages.len(), count),
            (Err(why), Err(words)) => assert!(why.contains(words), "{row}: {why}"),
            (found, _) => panic!("{row}: {found:?}, expected {expected:?}"),
        }
    }

    /// A row of a prompt and two answers, with some keys replaced; a null removes one.
    fn check_pair(change: Value, expected: Result<(), &str>) {
        let mut row = serde_json::json!({
            "input": {"messages": [{"role": "user", "content": "q"}]},
            "preferred_output": [{"role": "assistant", "content": "a"}],
            "non_preferred_output": [{"role": "assistant", "content": "b"}],
        });
        row.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        row.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let found = parse(row.to_string().as_bytes(), Format::Preference);
        match (&found, expected) {
            (Ok(Row::Pair { .. }), Ok(())) => {}
            (Err(why), Err(words)) => assert!(why.contains(words), "{row}: {why}"),
            _ => panic!("{row}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn pairs_are_checked_part_by_part() {
        let answer = |text: &str| serde_json::json!({"role": "assistant", "content": text});
        check_pair(serde_json::json!({}), Ok(()));
        check_pair(serde_json::json!({"preferred_output": [answer("x"), answer("y")]}), Ok(()));
        check_pair(serde_json::json!({"messages": [answer("x")]}), Err("chat format"));
        check_pair(serde_json::json!({"input": null}), Err("no `input`"));
        check_pair(serde_json::json!({"input": "q"}), Err("`input` is not"));
        check_pair(serde_json::json!({"input": {}}), Err("no `messages`"));
        let ended = serde_json::json!({"messages": [{"role": "user", "content": "q"}, answer("x")]});
        check_pair(serde_json::json!({ "input": ended }), Err("last message of `input`"));
        let tools = serde_json::json!({"messages": [{"role": "user", "content": "q"}], "tools": [{}]});
        check_pair(serde_json::json!({ "input": tools }), Err("`tools`"));
        check_pair(serde_json::json!({"preferred_output": null}), Err("no `preferred_output`"));
        check_pair(
            serde_json::json!({"non_preferred_output": []}),
            Err("`non_preferred_output` is not a list"),
        );
        check_pair(
            serde_json::json!({"non_preferred_output": [answer("")]}),
            Err("`non_preferred_output` message 1 is empty"),
        );
        let user = serde_json::json!([{"role": "user", "content": "q"}]);
        check_pair(serde_json::json!({ "preferred_output": user }), Err("message 1 is not the assistant's"));
    }

    #[test]
    fn only_the_last_answer_of_a_pair_is_trained() {
        let row = br#"{"input":{"messages":[{"role":"user","content":"q"}]},
            "preferred_output":[{"role":"assistant","content":"a"},{"role":"assistant","content":"b"}],
            "non_preferred_output":[{"role":"assistant","content":"c","weight":0}]}"#;
        let Ok(Row::Pair { preferred, non_preferred }) = parse(row, Format::Preference) else { panic!() };
        let flags = |messages: &[ChatMessage]| messages.iter().map(|m| m.train).collect::<Vec<_>>();
        assert_eq!((flags(&preferred), flags(&non_preferred)), (vec![false, false, true], vec![false, true]));
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
        let report = check(file.path(), Format::Chat).unwrap();
        assert_eq!((report.examples, report.blank, report.first_blank), (2, 1, Some(2)));
        assert_eq!(report.describe(), "line 3: it has no `messages`");
        let same = r#"[{"role":"assistant","content":"a"}]"#;
        let input = r#"{"messages":[{"role":"user","content":"q"}]}"#;
        let pair = format!(r#"{{"input":{input},"preferred_output":{same},"non_preferred_output":{same}}}"#);
        std::fs::write(file.path(), format!("{good}\n{pair}\n{pair}\n")).unwrap();
        let report = check(file.path(), Format::Preference).unwrap();
        assert_eq!((report.examples, report.faulty, report.equal, report.first_equal), (2, 1, 2, Some(2)));
        let mut many = Report::default();
        (1..=12).for_each(|line| many.fault(line, "x".into()));
        assert!(many.describe().ends_with("line 10: x; and 2 more"));
    }

    proptest! {
        #[test]
        fn no_line_breaks_the_parser(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&line, Format::Chat);
            let _ = parse(&line, Format::Preference);
        }

        #[test]
        fn no_json_breaks_the_parser(role in ".{0,9}", content in ".{0,9}", weight in any::<i64>()) {
            let row = serde_json::json!({"messages": [{"role": role, "content": content, "weight": weight}]});
            let _ = parse(row.to_string().as_bytes(), Format::Chat);
            let pair = serde_json::json!({"input": row, "preferred_output": row["messages"], "non_preferred_output": [1]});
            let _ = parse(pair.to_string().as_bytes(), Format::Preference);
        }
    }
}
