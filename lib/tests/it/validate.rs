//! Faults put into whole fine-tuning files: each is found at its line, and nothing else is.

use hone::{
    cancel::Cancel,
    dataset::validate::{Code, Format, Options, Report, Severity, fix, validate_stream},
};
use proptest::prelude::*;
use serde_json::{Value, json};

const SYSTEM: &str = "You write Streamlit apps.";

fn report(text: impl AsRef<[u8]>, options: &Options) -> Report {
    validate_stream(text.as_ref(), options, &Cancel::new()).unwrap()
}

/// An app that is like no other.
fn app(n: usize) -> String {
    format!(
        "```python\n# app.py\nimport streamlit as st\n\nst.title(\"Orders of week {n}\")\ncount = st.number_input(\"Orders\", 0, {n} + 10)\nif st.button(\"Save\"):\n    st.success(f\"{{count}} saved\")\n```"
    )
}

fn row(n: usize, answer: &str) -> Value {
    json!({"messages": [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": format!("an order form for week {n}")},
        {"role": "assistant", "content": answer},
    ]})
}

fn good(n: usize) -> String {
    row(n, &app(n)).to_string()
}

fn file(rows: usize) -> Vec<Vec<u8>> {
    (0..rows).map(|n| good(n).into_bytes()).collect()
}

fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
    let mut text = lines.join(&b'\n');
    text.push(b'\n');
    text
}

/// A good row with one thing changed.
fn changed(n: usize, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut row = row(n, &app(n));
    change(&mut row);
    row.to_string().into_bytes()
}

fn tool(description: &str) -> Value {
    json!({"type": "function", "function": {"name": "get", "description": description}})
}

fn call(id: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": "get", "arguments": arguments}})
}

fn result(id: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": "7"})
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

/// A good row that calls a tool between the question and the answer.
fn calling(n: usize, tools: Value, between: &[Value]) -> Vec<u8> {
    changed(n, |row| {
        row["tools"] = tools;
        row["messages"].as_array_mut().unwrap().splice(2..2, between.iter().cloned());
    })
}

fn calls(calls: &[Value]) -> Value {
    json!({"role": "assistant", "content": null, "tool_calls": calls})
}

type Fault = (&'static str, Code, fn(usize) -> Vec<u8>);

/// Ways to spoil a row, and what is to be said of it.
const FAULTS: &[Fault] = &[
    ("cut off", Code::NotJson, |n| good(n).into_bytes()[..60].to_vec()),
    ("single quotes", Code::NotJson, |n| good(n).replace('"', "'").into_bytes()),
    ("two rows on a line", Code::NotJson, |n| [good(n), good(n + 1)].concat().into_bytes()),
    ("NaN", Code::NotJson, |n| good(n).replacen("\"messages\":", "\"a\":NaN,\"messages\":", 1).into_bytes()),
    ("half a surrogate", Code::NotJson, |n| good(n).replacen("an order", "\\ud800 order", 1).into_bytes()),
    ("a NUL", Code::NotJson, |n| good(n).replacen("an order", "\0 order", 1).into_bytes()),
    ("a list", Code::DataType, |_| b"[1, 2]".to_vec()),
    ("a text", Code::DataType, |_| b"\"messages\"".to_vec()),
    ("blank", Code::BlankLine, |_| b"  \t".to_vec()),
    ("Latin-1", Code::NotUtf8, |n| {
        [&good(n).into_bytes()[..40], b"\xe9", &good(n).into_bytes()[40..]].concat()
    }),
    ("no messages", Code::MissingMessagesList, |n| changed(n, |row| row["messages"] = json!([]))),
    ("messages as an object", Code::MissingMessagesList, |n| changed(n, |row| row["messages"] = json!({}))),
    ("a message as text", Code::DataType, |n| changed(n, |row| row["messages"][0] = json!("hello"))),
    ("no role", Code::MessageMissingKey, |n| {
        changed(n, |row| drop(row["messages"][1].as_object_mut().unwrap().remove("role")))
    }),
    ("no content", Code::MessageMissingKey, |n| {
        changed(n, |row| drop(row["messages"][1].as_object_mut().unwrap().remove("content")))
    }),
    ("a wrong role", Code::UnrecognizedRole, |n| {
        changed(n, |row| row["messages"][1]["role"] = json!("human"))
    }),
    ("a role in capitals", Code::UnrecognizedRole, |n| {
        changed(n, |row| row["messages"][0]["role"] = json!("System"))
    }),
    ("a role that is a number", Code::UnrecognizedRole, |n| {
        changed(n, |row| row["messages"][1]["role"] = json!(1))
    }),
    ("an unknown key", Code::MessageUnrecognizedKey, |n| {
        changed(n, |row| row["messages"][1]["timestamp"] = json!(1))
    }),
    ("an unknown key of the row", Code::UnrecognizedKey, |n| changed(n, |row| row["id"] = json!(n))),
    ("weight 2", Code::Weight, |n| changed(n, |row| row["messages"][2]["weight"] = json!(2))),
    ("half a weight", Code::Weight, |n| changed(n, |row| row["messages"][2]["weight"] = json!(0.5))),
    ("a weight as text", Code::Weight, |n| changed(n, |row| row["messages"][2]["weight"] = json!("1"))),
    ("a user's weight", Code::Weight, |n| changed(n, |row| row["messages"][1]["weight"] = json!(1))),
    ("nothing trained", Code::NoTrainedMessage, |n| {
        changed(n, |row| row["messages"][2]["weight"] = json!(0))
    }),
    ("no assistant", Code::ExampleMissingAssistantMessage, |n| {
        changed(n, |row| drop(row["messages"].as_array_mut().unwrap().pop()))
    }),
    ("the user last", Code::LastNotAssistant, |n| {
        changed(n, |row| {
            let more = json!({"role": "user", "content": "thanks"});
            row["messages"].as_array_mut().unwrap().push(more);
        })
    }),
    ("empty content", Code::MissingContent, |n| changed(n, |row| row["messages"][2]["content"] = json!(""))),
    ("blank content", Code::MissingContent, |n| {
        changed(n, |row| row["messages"][1]["content"] = json!("\n "))
    }),
    ("null content", Code::MissingContent, |n| changed(n, |row| row["messages"][2]["content"] = json!(null))),
    ("content as a number", Code::MissingContent, |n| {
        changed(n, |row| row["messages"][1]["content"] = json!(7))
    }),
    ("a special token", Code::SpecialToken, |n| {
        changed(n, |row| row["messages"][1]["content"] = json!(format!("form {n}<|endoftext|>")))
    }),
    ("a picture by the assistant", Code::ImageRole, |n| {
        let url = json!({"url": "https://example.com/a.png"});
        changed(n, |row| row["messages"][2]["content"] = json!([{"type": "image_url", "image_url": url}]))
    }),
    ("a picture over http", Code::ImageType, |n| {
        let url = json!({"url": "http://example.com/a.png"});
        changed(n, |row| row["messages"][1]["content"] = json!([{"type": "image_url", "image_url": url}]))
    }),
    ("a call without tools", Code::MissingTools, |n| {
        let call = json!({"id": "a", "type": "function", "function": {"name": "get", "arguments": "{}"}});
        changed(n, |row| row["messages"][2]["tool_calls"] = json!([call]))
    }),
    ("an answer to no call", Code::ToolCallId, |n| {
        changed(n, |row| row["messages"][1] = json!({"role": "tool", "tool_call_id": "a", "content": "7"}))
    }),
    ("a call that nobody answers", Code::ToolCallId, |n| {
        calling(n, json!([tool("x")]), &[calls(&[call("a", "{}")]), user("go on")])
    }),
    ("an answer after another turn", Code::ToolCallId, |n| {
        calling(n, json!([tool("x")]), &[calls(&[call("a", "{}")]), user("go on"), result("a")])
    }),
    ("two calls of one id", Code::ToolCallId, |n| {
        calling(n, json!([tool("x")]), &[calls(&[call("a", "{}"), call("a", "{}")]), result("a")])
    }),
    ("a call by the user", Code::ToolShape, |n| {
        changed(n, |row| {
            row["tools"] = json!([tool("x")]);
            row["messages"][1]["tool_calls"] = json!([call("a", "{}")]);
        })
    }),
    ("a refusal by the user", Code::MissingContent, |n| {
        changed(n, |row| row["messages"][1] = json!({"role": "user", "content": null, "refusal": "no"}))
    }),
    ("a tool with spaces in its name", Code::ToolShape, |n| {
        changed(n, |row| row["tools"] = json!([{"type": "function", "function": {"name": "get it"}}]))
    }),
    ("a tool twice", Code::ToolShape, |n| calling(n, json!([tool("x"), tool("y")]), &[])),
    ("a function without a name", Code::MessageMissingKey, |n| {
        calling(n, json!([]), &[json!({"role": "function", "content": "7"})])
    }),
    ("an empty refusal", Code::MissingContent, |n| {
        changed(n, |row| row["messages"][2] = json!({"role": "assistant", "content": null, "refusal": ""}))
    }),
    ("a refusal that is a number", Code::DataType, |n| {
        changed(n, |row| row["messages"][2] = json!({"role": "assistant", "content": null, "refusal": 5}))
    }),
    ("a role twice", Code::RepeatedKey, |n| {
        good(n).replacen("\"role\":\"user\"", "\"role\":\"user\",\"role\":\"system\"", 1).into_bytes()
    }),
    ("a picture that is no base64", Code::ImageType, |n| {
        let url = json!({"url": format!("data:image/png;base64,!!!{n}")});
        changed(n, |row| row["messages"][1]["content"] = json!([{"type": "image_url", "image_url": url}]))
    }),
    ("an empty picture", Code::ImageType, |n| {
        let url = json!({"url": "data:image/png;base64,"});
        changed(n, |row| row["messages"][1]["content"] = json!([{"type": "image_url", "image_url": url}]))
    }),
    ("the end of a prompt", Code::SpecialToken, |n| {
        changed(n, |row| row["messages"][1]["content"] = json!(format!("form {n}<|endofprompt|>")))
    }),
    ("a special token in a name", Code::SpecialToken, |n| {
        changed(n, |row| row["messages"][1]["name"] = json!("<|im_start|>"))
    }),
    ("a special token in a refusal", Code::SpecialToken, |n| {
        changed(n, |row| row["messages"][2]["refusal"] = json!("<|im_start|>"))
    }),
    ("a special token in a tool", Code::SpecialToken, |n| calling(n, json!([tool("<|endoftext|>")]), &[])),
    ("a special token in a call", Code::SpecialToken, |n| {
        let made = calls(&[call("a", "{\"x\":\"<|im_end|>\"}")]);
        calling(n, json!([tool("x")]), &[made, result("a")])
    }),
    ("a NUL in Python", Code::CodeDoesNotParse, |n| {
        row(n, &app(n).replacen("Orders", "Ord\0ers", 1)).to_string().into_bytes()
    }),
    ("requirements alone, without a fence", Code::ConfigFirst, |n| {
        row(n, &format!("# requirements.txt\nstreamlit==1.{n}\npandas>=2")).to_string().into_bytes()
    }),
    ("a theme without a fence", Code::ConfigFirst, |n| {
        row(n, &format!("# .streamlit/config.toml\n[theme]\nbase = \"{n}\"")).to_string().into_bytes()
    }),
    ("a settings module without a fence", Code::ConfigFirst, |n| {
        row(n, &format!("# config.py\nDEBUG = True\nPORT = {n}")).to_string().into_bytes()
    }),
    ("prompt and completion", Code::CompletionsFormat, |n| {
        json!({"prompt": format!("form {n}"), "completion": app(n)}).to_string().into_bytes()
    }),
    ("a preference pair", Code::MixedFormats, |n| {
        let asks = json!({"messages": [{"role": "user", "content": "a form"}]});
        let answer = |text: String| json!([{"role": "assistant", "content": text}]);
        json!({"input": asks, "preferred_output": answer(app(n)), "non_preferred_output": answer(app(n + 1))})
            .to_string()
            .into_bytes()
    }),
    ("over-long", Code::OverLong, |n| row(n, &"word ".repeat(70_000)).to_string().into_bytes()),
    ("a prompt that fills all", Code::NothingLeftToTrain, |n| {
        changed(n, |row| row["messages"][1]["content"] = json!("word ".repeat(70_000)))
    }),
    ("code that does not parse", Code::CodeDoesNotParse, |n| {
        row(n, &app(n).replace("st.button(\"Save\"):", "st.button(\"Save\"")).to_string().into_bytes()
    }),
    ("requirements first", Code::ConfigFirst, |n| {
        let answer = format!("```text\n# requirements.txt\nstreamlit\npandas\n```\n\n{}", app(n));
        row(n, &answer).to_string().into_bytes()
    }),
    ("a settings module first", Code::ConfigFirst, |n| {
        let answer =
            format!("```python\n# config.py\nDEBUG = True\nTITLE = \"Orders {n}\"\n```\n\n{}", app(n));
        row(n, &answer).to_string().into_bytes()
    }),
];

/// Checks that one fault is found at its line, and nothing beside it.
fn check(fault: &Fault, rows: usize, at: usize, options: &Options) -> Result<(), TestCaseError> {
    let (name, code, make) = fault;
    let mut lines = file(rows);
    lines[at] = make(rows + 10 * at);
    let found = report(joined(&lines), options);
    let problems: Vec<_> = found.problems.iter().map(|p| (p.line, p.code)).collect();
    prop_assert_eq!(problems, vec![(Some(at as u64 + 1), *code)], "{}: {:?}", name, found.problems);
    prop_assert_eq!(found.ok, code.severity() == Severity::Warning);
    prop_assert!(found.problems.iter().all(|p| !p.remedy.is_empty() && !p.message.is_empty()));
    Ok(())
}

#[test]
fn each_fault_is_found_at_its_line() {
    for fault in FAULTS {
        // In the first line a fault says nothing of the others.
        for at in [0, 17] {
            check(fault, 40, at, &Options::default()).unwrap();
        }
    }
    assert!(FAULTS.len() >= 30);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_fault_is_found_wherever_it_is(
        fault in 0..FAULTS.len(), rows in 30usize..4000, at in 0.0..1.0f64, workers in 1usize..5,
    ) {
        let at = ((rows - 1) as f64 * at) as usize;
        check(&FAULTS[fault], rows, at, &Options { workers, ..Options::default() })?;
    }

    #[test]
    fn what_is_said_does_not_depend_on_the_number_of_workers(
        faults in prop::collection::vec((0..FAULTS.len(), 0usize..3000), 0..12),
    ) {
        let mut lines = file(3000);
        for (fault, at) in faults {
            lines[at] = FAULTS[fault].2(3000 + 10 * at);
        }
        let text = joined(&lines);
        let one = report(&text, &Options { workers: 1, ..Options::default() });
        prop_assert_eq!(&one, &report(&text, &Options { workers: 3, ..Options::default() }));
    }
}

/// Applies a diff without context.
fn patched(original: &[u8], diff: &[u8]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = original.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    // What follows the last newline is no line.
    lines.pop();
    let mut kept: Vec<Option<Vec<u8>>> = lines.into_iter().map(Some).collect();
    let mut at = 0;
    for line in diff.split(|&byte| byte == b'\n').skip(2) {
        match line.first() {
            Some(b'@') => {
                let text = String::from_utf8_lossy(line);
                let number = text.strip_prefix("@@ -").unwrap().split_once(",1 +").unwrap().0;
                at = number.parse::<usize>().unwrap() - 1;
            }
            Some(b'-') => assert_eq!(kept[at].take().as_deref(), Some(&line[1..])),
            Some(b'+') => kept[at] = Some(line[1..].to_vec()),
            _ => assert_eq!(line, b""),
        }
    }
    joined(&kept.into_iter().flatten().collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_corrected_copy_has_nothing_left_to_correct(
        faults in prop::collection::vec((0..FAULTS.len(), 0usize..60), 0..20), repeated in 0usize..60,
    ) {
        let mut lines = file(60);
        for (fault, at) in faults {
            lines[at] = FAULTS[fault].2(60 + 10 * at);
        }
        lines.push(lines[repeated].clone());
        lines[0] = [b"\xef\xbb\xbf", &lines[0][..]].concat();
        let text = joined(&lines);
        let (mut copy, mut diff) = (Vec::new(), Vec::new());
        let options = Options { format: Some(Format::Chat), ..Options::default() };
        let fixed = fix(&text[..], &mut copy, &mut diff, &options, &Cancel::new()).unwrap();
        let found = report(&copy, &options);
        // Cut rows and what follows an answer need new text, and harm nobody.
        let left = [Code::OverLong, Code::NothingLeftToTrain, Code::LastNotAssistant];
        prop_assert!(found.problems.iter().all(|p| left.contains(&p.code)), "{:?}", found.problems);
        prop_assert_eq!(fixed.rows + fixed.left_out, 61);
        prop_assert_eq!(fixed.rows, copy.iter().filter(|&&byte| byte == b'\n').count() as u64);
        prop_assert_eq!(patched(&text, &diff), copy);
    }
}

#[test]
fn a_good_file_is_copied_as_it_is() {
    let text = joined(&file(40));
    let (mut copy, mut diff) = (Vec::new(), Vec::new());
    let fixed = fix(&text[..], &mut copy, &mut diff, &Options::default(), &Cancel::new()).unwrap();
    assert_eq!((copy, fixed.rows, fixed.changed, fixed.left_out), (text, 40, 0, 0));
    assert_eq!(diff, b"--- original\n+++ fixed\n");
}

#[test]
fn duplicates_are_named_with_the_first() {
    let mut lines = file(2500);
    // The same with other spaces and another order of keys.
    lines[2000] = good(100).replace("\":", "\" : ").into_bytes();
    lines[2400] = good(100).into_bytes();
    let found = report(joined(&lines), &Options::default());
    let problems: Vec<_> = found.problems.iter().map(|p| (p.line, p.code, p.message.as_str())).collect();
    let message = "it says what line 101 says";
    assert_eq!(problems, [(Some(2001), Code::Duplicate, message), (Some(2401), Code::Duplicate, message)]);
    assert_eq!((found.duplicates, found.examples, found.ok), (2, 2500, true));
}

#[test]
fn rows_that_differ_in_what_nobody_reads_are_duplicates() {
    let rows: Vec<Vec<u8>> = (0..30).map(|id| changed(1, |row| row["id"] = json!(id))).collect();
    for text in [joined(&rows), joined(&vec![good(1).into_bytes(); 30])] {
        let found = report(&text, &Options::default());
        assert_eq!((found.duplicates, found.examples, found.ok), (29, 30, false));
        let few = &found.problems[0];
        assert_eq!((few.line, few.code), (None, Code::TooFewExamples));
        assert_eq!(few.message, "1 different ones of 30 usable examples, at least 10 are needed");
        // The corrected copy is as bad, and says so of the same rows.
        let mut copy = Vec::new();
        let fixed = fix(&text[..], &mut copy, std::io::sink(), &Options::default(), &Cancel::new()).unwrap();
        assert_eq!((fixed.rows, fixed.reasons[&Code::Duplicate]), (1, found.duplicates));
        assert!(!report(&copy, &Options::default()).ok);
    }
}

#[test]
fn ends_of_lines_and_marks_do_not_move_lines() {
    let text = joined(&file(12));
    let windows = String::from_utf8(text.clone()).unwrap().replace('\n', "\r\n");
    assert_eq!(report(&windows, &Options::default()), report(&text, &Options::default()));
    let cut = report(&text[..text.len() - 1], &Options::default());
    assert_eq!((cut.examples, cut.problems), (12, vec![]));
    let marked = report([b"\xef\xbb\xbf", &text[..]].concat(), &Options::default());
    let problems: Vec<_> = marked.problems.iter().map(|p| (p.line, p.code)).collect();
    assert_eq!((problems, marked.ok), (vec![(Some(1), Code::ByteOrderMark)], true));
}

/// What the first team trained on: 11 rows, of which 5 hold Python that does not parse and 3 begin with `requirements.txt`.
#[test]
fn a_file_that_teaches_the_habit_is_refused_with_its_shares() {
    let mut lines = file(11);
    for at in [0, 4, 7] {
        lines[at] = row(at, &format!("requirements.txt\n```text\nstreamlit\n```\n\napp.py\n{}", app(at)))
            .to_string()
            .into_bytes();
    }
    for at in [1, 2, 5, 8, 9] {
        lines[at] = row(at, &app(at).replace("    st.success", "st.success(")).to_string().into_bytes();
    }
    let found = report(joined(&lines), &Options::default());
    assert!(!found.ok);
    let verdict = &found.problems[0];
    assert_eq!((verdict.line, verdict.code), (None, Code::TeachesUnwantedHabit));
    assert_eq!(
        verdict.message,
        "this file teaches the habit you want to remove: 3 of 11 answers with code begin with configuration such as \
         `requirements.txt` (27%); 5 of 11 answers with code hold Python that does not parse (45%)"
    );
    let lines_of =
        |code| found.problems.iter().filter(|p| p.code == code).filter_map(|p| p.line).collect::<Vec<_>>();
    assert_eq!(lines_of(Code::ConfigFirst), [1, 5, 8]);
    assert_eq!(lines_of(Code::CodeDoesNotParse), [2, 3, 6, 9, 10]);
    // Who does not ask for the habit is told of the code alone.
    let found = report(joined(&lines), &Options { ui_first: false, ..Options::default() });
    assert_eq!((found.code.config_first, found.code.does_not_parse, found.ok), (0, 5, false));
}

/// Rows in the shapes of OpenAI's documentation, none of which is wrong.
fn documented() -> Vec<(Format, Vec<Value>)> {
    let assistant = |text: &str| json!({"role": "assistant", "content": text});
    let tools = json!([{"type": "function", "function": {
        "name": "get_current_weather", "description": "Get the current weather",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
    }}]);
    let call = json!({"role": "assistant", "tool_calls": [
        {"id": "call_id", "type": "function", "function": {"name": "get_current_weather", "arguments": "{\"location\": \"Paris\"}"}},
    ]});
    let chat = vec![
        json!({"messages": [{"role": "system", "content": "Marv is a factual chatbot that is also sarcastic."}, user("What's the capital of France?"), assistant("Paris, as if everyone doesn't know that already.")]}),
        json!({"messages": [user("Who wrote it?"), {"role": "assistant", "content": "Shakespeare.", "weight": 0}, user("More sarcastic?"), {"role": "assistant", "content": "Some unknown fellow.", "weight": 1}]}),
        json!({"messages": [{"role": "developer", "content": "Be brief."}, user("How far is the moon?"), assistant("384,400 km.")]}),
        json!({"messages": [user("What is the weather in Paris?"), call], "parallel_tool_calls": false, "tools": tools}),
        json!({"messages": [user("And now?"), call, {"role": "tool", "tool_call_id": "call_id", "content": "21 °C"}, assistant("21 degrees.")], "tools": tools}),
        json!({"messages": [user("The old way?"), {"role": "assistant", "content": null, "function_call": {"name": "get", "arguments": "{}"}}], "functions": [{"name": "get", "parameters": {}}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Which cheese is it?"}, {"type": "image_url", "image_url": {"url": "https://example.com/cheese.jpg", "detail": "low"}}]}, assistant("Danbo")]}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]}, assistant("A dot.")]}),
        json!({"messages": [{"role": "user", "name": "ann", "content": "Sort a list in Python"}, assistant("Use `sorted`:\n\n```python\ndef ordered(items):\n    return sorted(items)\n```")]}),
        json!({"messages": [user("Extract: The Dolphins won"), assistant("{\"player\": null, \"team\": \"Dolphins\", \"sport\": \"football\"}")]}),
        json!({"messages": [user("Say no"), {"role": "assistant", "content": null, "refusal": "I can't help with that."}]}),
        json!({"messages": [user("Show the unicode: é 中 🙂 \u{2028}"), assistant("é 中 🙂 \u{2028}")]}),
        json!({"messages": [{"role": "user", "content": "As tables write it", "name": null, "weight": null, "tool_calls": null, "tool_call_id": null, "function_call": null, "refusal": null}, assistant("Null is nothing.")], "tools": null, "functions": null, "parallel_tool_calls": null, "preferred_output": null}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "text": null, "image_url": {"url": "https://example.com/a.png", "detail": null}}]}, assistant("A dot again.")]}),
        json!({"messages": [user("Say no in a part"), {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}]}),
        json!({"messages": [user("And nothing?"), call, {"role": "tool", "tool_call_id": "call_id", "content": ""}, assistant("It said nothing."), user("Again?"), call, {"role": "tool", "tool_call_id": "call_id", "content": [{"type": "text", "text": ""}]}, assistant("Nothing.")], "tools": tools}),
        json!({"messages": [user("What does Python print?"), assistant("```python\n>>> 1 + 1\n2\n```")]}),
        json!({"messages": [user("And in a session?"), assistant("Run this:\n\n```bash\npip install x\n```\n\nthen\n\n```pycon\n>>> for n in (1, 2):\n...     n\n1\n2\n```")]}),
        json!({"messages": [user("In a notebook?"), assistant("```python\n!pip install pandas\n%matplotlib inline\nimport pandas as pd\n```")]}),
        json!({"messages": [user("How many apples?"), assistant("Total = 3 apples + 4 apples\n\nX = 7")]}),
        json!({"messages": [user("What does `a <| b` mean?"), assistant("Nothing in Python: `<|` is no operator.")]}),
    ];
    let pairs = (0..12).map(|n| {
        json!({
            "input": {"messages": [user(&format!("Hello, can you tell me how cold place {n} is today?"))], "tools": [], "parallel_tool_calls": true},
            "preferred_output": [assistant("It is not too cold in the bay.")],
            "non_preferred_output": [assistant("It's not.")],
        })
    });
    let tasks = (0..12).map(|n| {
        json!({"messages": [{"role": "developer", "content": "Answer yes or no."}, user(&format!("Is {n} even?"))], "reference_answer": n % 2 == 0, "item": {"n": n}})
    });
    vec![(Format::Chat, chat), (Format::Dpo, pairs.collect()), (Format::Rft, tasks.collect())]
}

#[test]
fn clean_files_raise_no_alarm() {
    for (format, rows) in documented() {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let found = report(&text, &Options::default());
        assert_eq!((found.format, found.problems, found.ok), (format, vec![], true));
        assert_eq!(found.examples, rows.len() as u64);
    }
    let found = report(joined(&file(300)), &Options::default());
    assert_eq!((found.problems, found.code.answers, found.code.ui_first), (vec![], 300, 300));
}

#[test]
fn a_line_of_megabytes_is_a_line() {
    let mut lines = file(20);
    lines[5] = row(5, &"word \"quoted\" ".repeat(250_000)).to_string().into_bytes();
    let found = report(joined(&lines), &Options::default());
    let problems: Vec<_> = found.problems.iter().map(|p| (p.line, p.code)).collect();
    assert_eq!(problems, [(Some(6), Code::OverLong)]);
}
