//! Training files: chat rows or preference pairs in JSON lines, checked line by line.
//!
//! What a row has to be is said by [`validate::example`], which `hone validate` goes by too: what it finds nothing wrong with is
//! trained on here.
//!
//! Files are read a line at a time, twice: once to check them before the job is queued, once to train.

use std::{
    io::{self, BufRead, BufReader},
    path::Path,
};

use hone::{
    dataset::validate::{self, Code, Example, Problem, Speaker, Turn},
    model::wire::Job,
};
use hone_engine::chat::{ChatMessage, Role};

/// Faults that are listed before the rest is only counted.
const LISTED: usize = 10;

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

    fn of_rows(self) -> validate::Format {
        match self {
            Self::Chat => validate::Format::Chat,
            Self::Preference => validate::Format::Dpo,
        }
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
        if is_blank(text) {
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
        if is_blank(text) {
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
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        take(number, text.strip_suffix(b"\r").unwrap_or(text))?;
        line.clear();
    }
    Ok(())
}

fn is_blank(line: &[u8]) -> bool {
    std::str::from_utf8(line).is_ok_and(|text| text.trim().is_empty())
}

/// One row, or what is wrong with it.
pub fn parse(line: &[u8], format: Format) -> Result<Row, String> {
    let text =
        std::str::from_utf8(line).map_err(|e| format!("byte {} is not valid UTF-8", e.valid_up_to() + 1))?;
    let example = validate::example(text, format.of_rows()).map_err(|problem| reason(&problem, format))?;
    let conversation = |turns: Vec<Turn>| turns.into_iter().map(message).collect();
    Ok(match example {
        Example::Chat(turns) => Row::Chat(conversation(turns)),
        Example::Pair { preferred, non_preferred } => {
            Row::Pair { preferred: conversation(preferred), non_preferred: conversation(non_preferred) }
        }
    })
}

/// What is wrong with a row; one of the other format is for the other method.
fn reason(problem: &Problem, format: Format) -> String {
    let method = match format {
        _ if problem.code != Code::MixedFormats => return problem.to_string(),
        Format::Chat => "only the method `dpo` learns from preference pairs",
        Format::Preference => {
            "the method `dpo` learns from `input`, `preferred_output` and `non_preferred_output` alone"
        }
    };
    format!("{problem}: {method}")
}

fn message(turn: Turn) -> ChatMessage {
    let role = match turn.speaker {
        Speaker::System => Role::System,
        Speaker::User => Role::User,
        Speaker::Assistant => Role::Assistant,
    };
    ChatMessage { role, content: turn.text, train: turn.train }
}

#[cfg(test)]
mod tests {
    use hone::{
        cancel::Cancel,
        dataset::validate::{Options, Place, Report as Found},
    };
    use proptest::prelude::*;
    use serde_json::{Value, json};

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
        let mut row = json!({
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
        let answer = |text: &str| json!({"role": "assistant", "content": text});
        check_pair(json!({}), Ok(()));
        check_pair(json!({"preferred_output": [answer("x"), answer("y")]}), Ok(()));
        check_pair(json!({"messages": [answer("x")]}), Ok(()));
        check_pair(json!({"input": null}), Err("`input.messages` is not a list"));
        check_pair(json!({"input": "q"}), Err("`input.messages` is not a list"));
        check_pair(json!({"input": {}}), Err("`input.messages` is not a list"));
        let ended = json!({"messages": [{"role": "user", "content": "q"}, answer("x")]});
        check_pair(json!({ "input": ended }), Err("`input.messages`: the last message is the assistant's"));
        let tools = json!({"messages": [{"role": "user", "content": "q"}], "tools": [{"type": "function", "function": {"name": "get"}}]});
        check_pair(
            json!({ "input": tools }),
            Err("`input.tools`: the local trainer teaches no use of tools"),
        );
        check_pair(json!({"preferred_output": null}), Err("`preferred_output` is not a list"));
        check_pair(json!({"non_preferred_output": []}), Err("`non_preferred_output` is not a list"));
        check_pair(
            json!({"non_preferred_output": [answer("")]}),
            Err("`non_preferred_output[0].content`: a message's content is empty"),
        );
        let user = json!([{"role": "user", "content": "q"}]);
        check_pair(
            json!({ "preferred_output": user }),
            Err("`preferred_output`: there is no assistant message"),
        );
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
        check_row("{}", Err("`messages` is not a list"));
        check_row(r#"{"messages":[]}"#, Err("not a list"));
        check_row(r#"{"prompt":"a","completion":"b"}"#, Err("in place of `messages`"));
        check_row(r#"{"input":{},"preferred_output":[]}"#, Err("a preference row in a chat file"));
        check_row(&row(user), Err("no assistant message"));
        check_row(
            &row(&format!(r#"{user},{{"content":"a"}}"#)),
            Err("`messages[1].role`: a message has no `role`"),
        );
        check_row(
            &row(&format!(r#"{user},{{"role":"robot","content":"a"}}"#)),
            Err("\"robot\" is not a role"),
        );
        check_row(
            &row(&format!(r#"{user},{{"role":"assistant"}}"#)),
            Err("`messages[1].content`: a message has no `content`"),
        );
        check_row(
            &row(&format!(r#"{user},{{"role":"assistant","content":""}}"#)),
            Err("`messages[1].content`: a message's content is empty"),
        );
        check_row(
            &row(&format!(r#"{user},{{"role":"assistant","content":"<|im_end|>"}}"#)),
            Err("special token `<|im_end|>`"),
        );
        check_row(
            &row(&format!(r#"{user},{{"role":"assistant","content":"a","x":1}}"#)),
            Err("unknown key `x`"),
        );
        check_row(
            &row(&format!(r#"{{"role":"user","content":"q","weight":1}},{answer}"#)),
            Err("only assistant messages have a weight"),
        );
        check_row(
            &row(&format!(r#"{user},{{"role":"assistant","content":"a","weight":2}}"#)),
            Err("weight is 0 or 1, not 2"),
        );
        check_row(
            &row(&format!(r#"{user},{{"role":"assistant","content":"a","weight":0}}"#)),
            Err("every assistant message has weight 0"),
        );
    }

    #[test]
    fn a_report_counts_and_names_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let good = r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}"#;
        std::fs::write(file.path(), format!("\u{feff}{good}\n\n{{}}\r\n{good}")).unwrap();
        let report = check(file.path(), Format::Chat).unwrap();
        assert_eq!((report.examples, report.blank, report.first_blank), (2, 1, Some(2)));
        assert_eq!(
            report.describe(),
            "line 3: `messages`: `messages` is not a list of messages (missing_messages_list)"
        );
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

    /// What `hone validate` says of a file of ten good rows and this one, for a model of this machine.
    fn found(line: &[u8], format: Format) -> Found {
        let good = |n: usize| match format {
            Format::Chat => {
                json!({"messages": [said("user", json!(n.to_string())), said("assistant", json!("b"))]})
            }
            Format::Preference => pair(
                vec![said("user", json!(n.to_string()))],
                said("assistant", json!("b")),
                said("assistant", json!("c")),
            ),
        };
        let good: String = (0..10).map(|n| format!("{}\n", good(n))).collect();
        let text = [good.as_bytes(), line].concat();
        let options = Options {
            format: Some(format.of_rows()),
            place: Place::Local,
            code: false,
            ..Options::default()
        };
        validate::validate_stream(&text[..], &options, &Cancel::new()).unwrap()
    }

    fn said(role: &str, content: Value) -> Value {
        json!({"role": role, "content": content})
    }

    fn pair(prompt: Vec<Value>, preferred: Value, non_preferred: Value) -> Value {
        json!({"input": {"messages": prompt}, "preferred_output": [preferred], "non_preferred_output": [non_preferred]})
    }

    /// A row is trained on and fine by `hone validate`, or refused by both for the same reason.
    fn check_agreement(line: &[u8], format: Format) -> Result<(), TestCaseError> {
        let (trained, found) = (parse(line, format), found(line, format));
        let shown = String::from_utf8_lossy(line);
        if is_blank(line) {
            prop_assert!(found.ok, "{}: {:?}", shown, found.problems);
            return Ok(());
        }
        prop_assert_eq!(trained.is_ok(), found.ok, "{}: {:?}, {:?}", shown, trained, found.problems);
        let Err(why) = trained else { return Ok(()) };
        let reason = format!("line 11: {why}");
        // Not UTF-8 is said without a code, another format with the method that reads it.
        let same = found.errors().any(|problem| {
            problem.to_string().starts_with(&reason) || reason.starts_with(&problem.to_string())
        });
        prop_assert!(same, "{}: {}, {:?}", shown, reason, found.problems);
        Ok(())
    }

    #[test]
    fn content_in_parts_is_trained_on_as_chat_completions_read_it() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "\n"}, {"type": "text", "text": "b"}]);
        let turns = |content: &Value| vec![said("user", content.clone()), said("assistant", content.clone())];
        let chat = |content: &Value| {
            parse(json!({"messages": turns(content)}).to_string().as_bytes(), Format::Chat).unwrap()
        };
        assert_eq!(chat(&parts), chat(&json!("a\nb")));
        let Row::Chat(messages) = chat(&parts) else { panic!() };
        for (trained, asked) in messages.iter().zip(turns(&parts)) {
            let read: hone::model::wire::Message = serde_json::from_value(asked).unwrap();
            assert_eq!(trained.content, read.content);
        }
        let preference = |content: &Value| {
            let row = pair(
                vec![said("user", content.clone())],
                said("assistant", content.clone()),
                said("assistant", json!("c")),
            );
            parse(row.to_string().as_bytes(), Format::Preference).unwrap()
        };
        assert_eq!(preference(&parts), preference(&json!("a\nb")));
    }

    /// Messages of every sort that the format has, some of which this trainer refuses.
    fn messages() -> Vec<(Value, bool)> {
        let call = json!([{"id": "c", "type": "function", "function": {"name": "get", "arguments": "{}"}}]);
        let text = |text: &str| json!({"type": "text", "text": text});
        let picture = json!({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}});
        vec![
            (said("user", json!("q")), true),
            (said("system", json!("q")), true),
            (said("developer", json!("q")), true),
            (said("assistant", json!("q")), true),
            (json!({"role": "assistant", "content": "q", "weight": 0}), true),
            (json!({"role": "assistant", "content": "q", "refusal": null, "tool_calls": null}), true),
            (json!({"role": "user", "content": "q", "name": "ann"}), true),
            (said("user", json!([text("a"), text(" "), text("b")])), true),
            (said("assistant", json!([text("a")])), true),
            (said("user", json!([text("a"), picture])), false),
            (said("user", json!([picture])), false),
            (said("assistant", json!([picture])), false),
            (said("user", json!([])), false),
            (said("user", json!([text(""), text(" ")])), false),
            (said("user", json!([text("<|im_"), text("end|>")])), false),
            (said("user", json!([{"type": "audio"}])), false),
            (said("user", json!(" ")), false),
            (said("user", json!(null)), false),
            (said("user", json!(7)), false),
            (said("user", json!("<|im_sep|>")), false),
            (json!({"role": "assistant", "content": null, "refusal": "no"}), false),
            (json!({"role": "assistant", "content": "q", "refusal": "no"}), false),
            (json!({"role": "assistant", "content": null, "tool_calls": call}), false),
            (
                json!({"role": "assistant", "content": null, "function_call": {"name": "get", "arguments": "{}"}}),
                false,
            ),
            (json!({"role": "tool", "content": "7", "tool_call_id": "c"}), false),
            (json!({"role": "function", "content": "7", "name": "get"}), false),
            (json!({"role": "user", "content": "q", "tool_call_id": "c"}), false),
            (json!({"role": "user", "content": "q", "name": 7}), false),
            (json!({"role": "user", "content": "q", "mood": 1}), false),
            (json!({"role": "user", "content": "q", "weight": 1}), false),
            (json!({"role": "assistant", "content": "q", "weight": 2}), false),
            (json!({"content": "q"}), false),
            (json!("q"), false),
        ]
    }

    #[test]
    fn each_message_is_trained_on_or_refused_by_validate_too() {
        let last = said("assistant", json!("the end"));
        for (message, trained) in messages() {
            let chat = json!({"messages": [message, last]}).to_string();
            assert_eq!(parse(chat.as_bytes(), Format::Chat).is_ok(), trained, "{chat}");
            check_agreement(chat.as_bytes(), Format::Chat).unwrap();
            let asked = pair(
                vec![message.clone(), said("user", json!("q"))],
                last.clone(),
                said("assistant", json!("b")),
            );
            let asked = asked.to_string();
            assert_eq!(parse(asked.as_bytes(), Format::Preference).is_ok(), trained, "{asked}");
            check_agreement(asked.as_bytes(), Format::Preference).unwrap();
            let answered = pair(vec![said("user", json!("q"))], last.clone(), message).to_string();
            check_agreement(answered.as_bytes(), Format::Preference).unwrap();
        }
    }

    /// What a row says beside its messages, and how it ends.
    #[test]
    fn each_row_is_trained_on_or_refused_by_validate_too() {
        let good = [said("user", json!("q")), said("assistant", json!("a"))];
        let tool = json!([{"type": "function", "function": {"name": "get"}}]);
        let with = |key: &str, value: Value| {
            let mut row = json!({ "messages": good });
            row[key] = value;
            row
        };
        let ends = |more: Value| json!({"messages": [good[0], good[1], more]});
        for (row, trained) in [
            (json!({ "messages": good }), true),
            (with("id", json!(1)), true),
            (with("input", json!("x")), true),
            (with("tools", json!([])), true),
            (with("tools", json!(null)), true),
            (with("parallel_tool_calls", json!(true)), true),
            (with("parallel_tool_calls", json!("no")), false),
            (with("tools", tool), false),
            (with("tools", json!("x")), false),
            (with("functions", json!([{"name": "get"}])), false),
            (with("preferred_output", json!([])), false),
            (ends(said("user", json!("thanks"))), false),
            (ends(said("system", json!("s"))), false),
            (ends(json!({"role": "assistant", "content": "a", "weight": 0})), true),
            (json!({"messages": [good[0]]}), false),
            (json!({"messages": []}), false),
            (json!({"prompt": "a", "completion": "b"}), false),
        ] {
            let line = row.to_string();
            assert_eq!(parse(line.as_bytes(), Format::Chat).is_ok(), trained, "{line}");
            check_agreement(line.as_bytes(), Format::Chat).unwrap();
            check_agreement(line.as_bytes(), Format::Preference).unwrap();
        }
    }

    /// Only for this machine: providers take all of it.
    #[test]
    fn what_is_refused_here_alone_has_a_code_of_its_own() {
        let chat = |message: Value| json!({"messages": [said("user", json!("q")), message, said("assistant", json!("a"))]});
        let picture = json!([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]);
        let tools = json!([{"type": "function", "function": {"name": "get"}}]);
        let mut tooled = chat(said("user", json!("q")));
        tooled["tools"] = tools;
        let ends = json!({"messages": [said("user", json!("q")), said("assistant", json!("a")), said("user", json!("thanks"))]});
        for (row, field) in [
            (chat(said("user", picture)), "messages[1].content[0]"),
            (chat(json!({"role": "assistant", "content": null, "refusal": "no"})), "messages[1].refusal"),
            (tooled, "tools"),
            (ends, "messages"),
        ] {
            let found = found(row.to_string().as_bytes(), Format::Chat);
            let errors: Vec<_> =
                found.errors().map(|p| (p.line, p.code, p.field.as_deref().unwrap_or_default())).collect();
            assert_eq!(errors, [(Some(11), Code::NotTrainedLocally, field)]);
            assert!(found.errors().all(|problem| !problem.remedy.is_empty()));
        }
    }

    proptest! {
        #[test]
        fn no_line_breaks_the_parser(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&line, Format::Chat);
            let _ = parse(&line, Format::Preference);
        }

        #[test]
        fn no_json_breaks_the_parser(role in ".{0,9}", content in ".{0,9}", weight in any::<i64>()) {
            let row = json!({"messages": [{"role": role, "content": content, "weight": weight}]});
            let _ = parse(row.to_string().as_bytes(), Format::Chat);
            let pair = json!({"input": row, "preferred_output": row["messages"], "non_preferred_output": [1]});
            let _ = parse(pair.to_string().as_bytes(), Format::Preference);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn rows_of_any_messages_are_judged_alike(
            chosen in prop::collection::vec(prop::sample::select(messages()), 0..5), cut in 0usize..400, tail in "[^\r\n]{0,2}",
        ) {
            let chosen: Vec<Value> = chosen.into_iter().map(|(message, _)| message).collect();
            let chat = json!({ "messages": chosen }).to_string();
            let (prompt, answers) = chosen.split_at(chosen.len() / 2);
            let pair = json!({"input": {"messages": prompt}, "preferred_output": answers, "non_preferred_output": [said("assistant", json!("b"))]});
            for line in [&chat, &pair.to_string()] {
                check_agreement(line.as_bytes(), Format::Chat)?;
                check_agreement(line.as_bytes(), Format::Preference)?;
                // Cut somewhere, and ended with something.
                let broken = format!("{}{tail}", &line[..cut.min(line.len())]);
                check_agreement(broken.as_bytes(), Format::Chat)?;
            }
        }
    }
}
