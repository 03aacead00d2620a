//! Each rule with one row that breaks it; lib/tests/it/validate.rs puts faults into whole files.

use proptest::prelude::*;

use super::*;

const GOOD: &str = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
const PAIR: &str = r#"{"input":{"messages":[{"role":"user","content":"a"}]},"preferred_output":[{"role":"assistant","content":"b"}],"non_preferred_output":[{"role":"assistant","content":"c"}]}"#;
const TASK: &str = r#"{"messages":[{"role":"user","content":"a"}],"reference":"b"}"#;

fn report(text: &[u8], options: &Options) -> Report {
    validate_stream(text, options, &Cancel::new()).unwrap()
}

/// Ten rows like the line's, all different, then the line.
fn with_good_ones(line: &str, good: &str) -> Report {
    let good: String =
        (0..10).map(|n| format!("{}\n", good.replacen("\"a\"", &format!("\"a{n}\""), 1))).collect();
    report(format!("{good}{line}\n").as_bytes(), &Options::default())
}

/// Checks the codes and fields that one line adds to a file of good ones.
#[track_caller]
fn check_like(good: &str, line: &str, expected: &[(Code, &str)]) {
    let found = with_good_ones(line, good);
    let codes: Vec<(Code, &str)> =
        found.problems.iter().map(|p| (p.code, p.field.as_deref().unwrap_or_default())).collect();
    assert_eq!(codes, expected, "{line}: {:?}", found.problems);
    assert!(found.problems.iter().all(|p| p.line == Some(11) && !p.remedy.is_empty()));
    let errors = expected.iter().any(|(code, _)| code.severity() == Severity::Error);
    let none = errors
        || [Code::BlankLine, Code::NothingLeftToTrain]
            .contains(&expected.first().map_or(Code::Weight, |(code, _)| *code));
    assert_eq!((found.examples, found.ok), (10 + u64::from(!none), !errors));
}

#[track_caller]
fn check(line: &str, expected: &[(Code, &str)]) {
    check_like(GOOD, line, expected);
}

#[track_caller]
fn message(message: &str, expected: &[(Code, &str)]) {
    check(&format!(r#"{{"messages":[{message},{{"role":"assistant","content":"b"}}]}}"#), expected);
}

#[test]
fn rows() {
    check(GOOD, &[]);
    check("", &[(Code::BlankLine, "")]);
    check("{", &[(Code::NotJson, "")]);
    check("[]", &[(Code::DataType, "")]);
    check(r#"{"messages":[NaN]}"#, &[(Code::NotJson, "")]);
    check("{}", &[(Code::MissingMessagesList, "messages")]);
    check(r#"{"messages":"x"}"#, &[(Code::MissingMessagesList, "messages")]);
    check(r#"{"messages":[]}"#, &[(Code::MissingMessagesList, "messages")]);
    check(r#"{"messages":[1,{"role":"assistant","content":"b"}]}"#, &[(Code::DataType, "messages[0]")]);
    let asks = r#"{"messages":[{"role":"user","content":"x"}]}"#;
    check(asks, &[(Code::ExampleMissingAssistantMessage, "messages")]);
    let unweighed = r#"{"messages":[{"role":"assistant","content":"a","weight":0}]}"#;
    check(unweighed, &[(Code::NoTrainedMessage, "messages")]);
    let turned = r#"{"messages":[{"role":"assistant","content":"a"},{"role":"user","content":"b"}]}"#;
    check(turned, &[(Code::LastNotAssistant, "messages")]);
    check(r#"{"prompt":"a","completion":"b"}"#, &[(Code::CompletionsFormat, "prompt")]);
    let more = GOOD.replacen('{', r#"{"id":1,"#, 1).replace("\"a\"", "\"other\"");
    check(&more, &[(Code::UnrecognizedKey, "id")]);
    check(PAIR, &[(Code::MixedFormats, "")]);
    check_like(PAIR, GOOD, &[(Code::MixedFormats, "")]);
}

#[test]
fn messages() {
    use Code::*;
    message(r#"{"role":"user","content":"a"}"#, &[]);
    message(r#"{"role":"developer","content":"a"}"#, &[]);
    message(r#"{"role":"user","content":"a","name":"ann"}"#, &[]);
    message(r#"{"role":"user","content":"a","name":7}"#, &[(DataType, "messages[0].name")]);
    message(r#"{"role":"wizard","content":"a"}"#, &[(UnrecognizedRole, "messages[0].role")]);
    message(r#"{"content":"a"}"#, &[(MessageMissingKey, "messages[0].role")]);
    message(r#"{"role":"user"}"#, &[(MessageMissingKey, "messages[0].content")]);
    message(r#"{"role":"user","content":"a","mood":1}"#, &[(MessageUnrecognizedKey, "messages[0].mood")]);
    message(r#"{"role":"user","content":""}"#, &[(MissingContent, "messages[0].content")]);
    message(r#"{"role":"user","content":" \n"}"#, &[(MissingContent, "messages[0].content")]);
    message(r#"{"role":"user","content":null}"#, &[(MissingContent, "messages[0].content")]);
    message(r#"{"role":"user","content":"<|im_start|>"}"#, &[(SpecialToken, "messages[0].content")]);
    message(r#"{"role":"user","content":"a","weight":1}"#, &[(Weight, "messages[0].weight")]);
    message(r#"{"role":"user","content":"a","weight":null}"#, &[]);
    message(r#"{"role":"assistant","content":"a","weight":0}"#, &[]);
    message(r#"{"role":"assistant","content":"a","weight":2}"#, &[(Weight, "messages[0].weight")]);
    message(r#"{"role":"assistant","content":"a","weight":1.0}"#, &[(Weight, "messages[0].weight")]);
    message(r#"{"role":"assistant","content":null,"refusal":"no"}"#, &[]);
}

#[test]
fn null_is_nothing() {
    let nothing = r#""weight":null,"name":null,"tool_calls":null,"tool_call_id":null,"function_call":null,"refusal":null"#;
    message(&format!(r#"{{"role":"user","content":"a",{nothing}}}"#), &[]);
    for key in ["tools", "functions", "parallel_tool_calls", "preferred_output", "id"] {
        check(&GOOD.replacen('{', &format!(r#"{{"{key}":null,"#), 1), &[]);
    }
    check_like(PAIR, &PAIR.replacen('{', r#"{"messages":null,"#, 1), &[]);
    message(
        r#"{"role":"user","content":[{"type":"image_url","text":null,"image_url":{"url":"https://example.com/a.png","detail":null}}]}"#,
        &[],
    );
    let tools =
        r#","tools":[{"type":"function","function":{"name":"get","description":null,"parameters":null}}]}"#;
    check(&GOOD.replace("]}", &format!("]{tools}")), &[]);
    // Where something has to be, it is missing.
    message(r#"{"role":null,"content":"a"}"#, &[(Code::UnrecognizedRole, "messages[0].role")]);
}

#[test]
fn refusals_and_results() {
    use Code::*;
    message(r#"{"role":"assistant","content":[{"type":"refusal","refusal":"No."}]}"#, &[]);
    let part = r#"{"type":"refusal","refusal":"No."}"#;
    message(
        &format!(r#"{{"role":"user","content":[{part}]}}"#),
        &[(MissingContent, "messages[0].content[0]")],
    );
    message(r#"{"role":"user","content":null,"refusal":"no"}"#, &[(MissingContent, "messages[0].content")]);
    message(
        r#"{"role":"assistant","content":null,"refusal":""}"#,
        &[(MissingContent, "messages[0].content")],
    );
    message(r#"{"role":"assistant","refusal":" "}"#, &[(MessageMissingKey, "messages[0].content")]);
    for refusal in ["5", "false", "[]"] {
        let line = format!(r#"{{"role":"assistant","content":null,"refusal":{refusal}}}"#);
        message(&line, &[(DataType, "messages[0].refusal")]);
    }
    message(r#"{"role":"function","name":"get","content":""}"#, &[]);
    message(r#"{"role":"function","content":"7"}"#, &[(MessageMissingKey, "messages[0].name")]);
}

#[test]
fn keys_that_are_there_twice() {
    let twice = GOOD.replacen(r#""role":"user""#, r#""role":"user","role":"system""#, 1);
    check(&twice, &[(Code::RepeatedKey, "messages[0].role")]);
    let first = r#"{"messages":[{"role":"user","content":"a"}],"#;
    check(&GOOD.replacen('{', first, 1), &[(Code::RepeatedKey, "messages")]);
}

#[test]
fn control_tokens_wherever_they_are() {
    let found = |field| [(Code::SpecialToken, field)];
    message(r#"{"role":"user","content":"a<|endofprompt|>b"}"#, &found("messages[0].content"));
    message(r#"{"role":"user","content":"a","name":"<|im_start|>"}"#, &found("messages[0].name"));
    message(
        r#"{"role":"assistant","content":null,"refusal":"<|endoftext|>"}"#,
        &found("messages[0].refusal"),
    );
    let tool = |description: &str| {
        format!(r#"[{{"type":"function","function":{{"name":"get","description":"{description}"}}}}]"#)
    };
    let with = |tools: &str, rest: &str| format!(r#"{{"tools":{tools},"messages":[{rest}]}}"#);
    let described = with(&tool("<|endoftext|>"), r#"{"role":"assistant","content":"b"}"#);
    check(&described, &found("tools[0]"));
    let call = r#"{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"get","arguments":"{\"x\":\"<|im_end|>\"}"}}]}"#;
    check(&with(&tool("x"), call), &found("messages[0].tool_calls[0].function.arguments"));
}

#[test]
fn pictures() {
    use Code::*;
    let with = |role: &str, part: &str| {
        format!(r#"{{"role":"{role}","content":[{{"type":"text","text":"x"}},{part}]}}"#)
    };
    let url = |url: &str| format!(r#"{{"type":"image_url","image_url":{{"url":"{url}"}}}}"#);
    message(&with("user", &url("https://example.com/a.png")), &[]);
    message(&with("user", &url("data:image/png;base64,AAAA")), &[]);
    message(&with("user", &url("data:image/png;base64,AAA")), &[]);
    message(&with("user", &url("data:image/png;base64,AAAA\\nAA==")), &[]);
    for data in ["", "!!!", "A", "AA=A"] {
        let picture = with("user", &url(&format!("data:image/png;base64,{data}")));
        message(&picture, &[(ImageType, "messages[0].content[1].image_url.url")]);
    }
    message(
        &with("user", &url("http://example.com/a.png")),
        &[(ImageType, "messages[0].content[1].image_url.url")],
    );
    message(
        &with("user", &url("data:image/gif;base64,AAAA")),
        &[(ImageType, "messages[0].content[1].image_url.url")],
    );
    message(&with("assistant", &url("https://example.com/a.png")), &[(ImageRole, "messages[0].content[1]")]);
    let detail = r#"{"type":"image_url","image_url":{"url":"https://example.com/a.png","detail":"sharp"}}"#;
    message(&with("user", detail), &[(ImageType, "messages[0].content[1].image_url.detail")]);
    let many = vec![url("https://example.com/a.png"); 11].join(",");
    message(&with("user", &many), &[(ImageLimit, "messages")]);
    let large = url(&format!("data:image/png;base64,{}", "A".repeat(15 << 20)));
    message(&with("user", &large), &[(ImageLimit, "messages[0].content[1].image_url.url")]);
    message(&with("user", r#"{"type":"audio"}"#), &[(MissingContent, "messages[0].content[1]")]);
}

#[test]
fn tools() {
    use Code::*;
    let with = |tools: &str, call: &str, id: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"w"}},{{"role":"assistant","content":null,"tool_calls":[{call}]}},{{"role":"tool","tool_call_id":"{id}","content":"7"}},{{"role":"assistant","content":"b"}}]{tools}}}"#
        )
    };
    let tools = r#","tools":[{"type":"function","function":{"name":"get","parameters":{}}}],"parallel_tool_calls":false"#;
    let call = |name: &str, arguments: &str| {
        format!(r#"{{"id":"c","type":"function","function":{{"name":"{name}","arguments":"{arguments}"}}}}"#)
    };
    let at = |key: &str| format!("messages[1].tool_calls[0].{key}");
    check(&with(tools, &call("get", "{}"), "c"), &[]);
    check(&with(tools, &call("put", "{}"), "c"), &[(ToolUnknown, &at("function.name"))]);
    check(&with("", &call("get", "{}"), "c"), &[(MissingTools, &at("function.name"))]);
    check(&with(tools, &call("get", "{"), "c"), &[(ToolArguments, &at("function.arguments"))]);
    check(
        &with(tools, &call("get", "{}"), "d"),
        &[(ToolCallId, &at("id")), (ToolCallId, "messages[2].tool_call_id")],
    );
    let unnamed = r#"{"type":"function","function":{"name":"get","arguments":"{}"}}"#;
    check(&with(tools, unnamed, "c"), &[(ToolShape, &at("id")), (ToolCallId, "messages[2].tool_call_id")]);
    let shapeless = r#","tools":[{"name":"get"}]"#;
    check(
        &with(shapeless, &call("get", "{}"), "c"),
        &[(ToolShape, "tools[0]"), (ToolUnknown, &at("function.name"))],
    );
    let called = r#"{"messages":[{"role":"assistant","content":null,"function_call":{"name":"get","arguments":"{}"}}],"functions":[{"name":"get"}]}"#;
    check(called, &[]);
    let switch = GOOD.replacen('{', r#"{"parallel_tool_calls":"no","#, 1).replace("\"a\"", "\"other\"");
    check(&switch, &[(DataType, "parallel_tool_calls")]);
}

#[test]
fn names_of_tools() {
    let named = |names: &[&str]| {
        let tool = |name: &&str| format!(r#"{{"type":"function","function":{{"name":"{name}"}}}}"#);
        let tools: Vec<String> = names.iter().map(tool).collect();
        format!(r#"{{"tools":[{}],"messages":[{{"role":"assistant","content":"b"}}]}}"#, tools.join(","))
    };
    let long = "a".repeat(64);
    check(&named(&["get_it", "get-It2", &long]), &[]);
    for name in ["", "bad name", "gét", "a.b", &(long + "a")] {
        check(&named(&["get", name]), &[(Code::ToolShape, "tools[1]")]);
    }
    check(&named(&["get", "put", "get"]), &[(Code::ToolShape, "tools[2]")]);
}

#[test]
fn calls_are_answered_in_their_turn() {
    use Code::*;
    let check = |messages: &[&str], expected: &[(Code, &str)]| {
        let tools = r#"[{"type":"function","function":{"name":"get"}}]"#;
        let answer = r#"{"role":"assistant","content":"b"}"#;
        check(&format!(r#"{{"tools":{tools},"messages":[{},{answer}]}}"#, messages.join(",")), expected);
    };
    let (user, a, b) = (r#"{"role":"user","content":"x"}"#, called(&["a"]), called(&["b"]));
    let result = |id: &str| format!(r#"{{"role":"tool","tool_call_id":"{id}","content":""}}"#);
    let both = called(&["a", "b"]);
    check(&[&a, &result("a"), user], &[]);
    check(&[&both, &result("b"), &result("a"), user], &[]);
    // Turn after turn with the same id.
    check(&[&a, &result("a"), &a, &result("a")], &[]);
    check(&[&a, user], &[(ToolCallId, "messages[0].tool_calls[0].id")]);
    check(&[&both, &result("a")], &[(ToolCallId, "messages[0].tool_calls[1].id")]);
    check(&[&a, &b, &result("b")], &[(ToolCallId, "messages[0].tool_calls[0].id")]);
    check(&[&a, user, &result("a")], &[(ToolCallId, "messages[2].tool_call_id")]);
    check(&[&a, user, &a, &result("a")], &[(ToolCallId, "messages[0].tool_calls[0].id")]);
    check(&[&called(&["a", "a"]), &result("a")], &[(ToolCallId, "messages[0].tool_calls[1].id")]);
    let by_user = a.replace("assistant", "user");
    check(&[&by_user.replace("null", "\"x\"")], &[(ToolShape, "messages[0].tool_calls")]);
    check(&[&by_user], &[(MissingContent, "messages[0].content"), (ToolShape, "messages[0].tool_calls")]);
}

/// An assistant message that makes calls with these ids.
fn called(ids: &[&str]) -> String {
    let call = |id: &&str| {
        format!(r#"{{"id":"{id}","type":"function","function":{{"name":"get","arguments":"{{}}"}}}}"#)
    };
    let calls: Vec<String> = ids.iter().map(call).collect();
    format!(r#"{{"role":"assistant","content":null,"tool_calls":[{}]}}"#, calls.join(","))
}

#[test]
fn rows_that_say_the_same() {
    let others: String =
        (0..10).map(|n| format!("{}\n", GOOD.replacen("\"a\"", &format!("\"a{n}\""), 1))).collect();
    let repeats = |first: &str, second: &str| {
        report(format!("{others}{first}\n{second}\n").as_bytes(), &Options::default()).duplicates
    };
    let with = |more: &str| GOOD.replacen('{', &format!("{{{more},"), 1);
    let asks = |more: &str| GOOD.replacen(r#""a""#, &format!(r#""a",{more}"#), 1);
    let answers = |more: &str| GOOD.replacen(r#""b""#, &format!(r#""b",{more}"#), 1);
    for same in [
        with(r#""id":1"#),
        with(r#""tools":null"#),
        asks(r#""name":null"#),
        asks(r#""mood":7"#),
        answers(r#""weight":1"#),
        GOOD.replacen(r#""a""#, r#"[{"type":"text","text":"a"}]"#, 1),
    ] {
        assert_eq!((repeats(GOOD, &same), repeats(&same, &same)), (1, 1), "{same}");
    }
    for other in [
        with(r#""tools":[]"#),
        with(r#""parallel_tool_calls":true"#),
        asks(r#""name":"ann""#),
        GOOD.replacen(r#""a""#, r#"[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]"#, 1),
        GOOD.replacen("user", "developer", 1),
    ] {
        assert_eq!((repeats(GOOD, &other), repeats(&other, &other)), (0, 1), "{other}");
    }
    // Of what is no example all counts: what a wrong weight means is for whoever mends it.
    assert_eq!(repeats(GOOD, &answers(r#""weight":0.0"#)), 0);
    assert_eq!(repeats(r#"{"prompt":"a","completion":"b"}"#, r#"{"prompt":"c","completion":"d"}"#), 0);
    let shared = |text: &str| format!(r#"{{"messages":[{{"from":"human","value":"{text}"}}]}}"#);
    assert_eq!(repeats(&shared("a"), &shared("b")), 0);
}

#[test]
fn pairs_and_tasks() {
    use Code::*;
    check_like(PAIR, PAIR, &[]);
    check_like(PAIR, &PAIR.replace("\"c\"", "\"b\""), &[(IdenticalOutputs, "")]);
    let ends = PAIR.replacen(r#""role":"user""#, r#""role":"assistant""#, 1);
    check_like(PAIR, &ends, &[(InputEndsWithAssistant, "input.messages")]);
    let input = PAIR.replacen(r#"{"input":{"messages""#, r#"{"input":{"texts""#, 1);
    check_like(PAIR, &input, &[(UnrecognizedKey, "input.texts"), (MissingMessagesList, "input.messages")]);
    let user = PAIR.replacen(r#"{"role":"assistant","content":"b"}"#, r#"{"role":"user","content":"b"}"#, 1);
    check_like(
        PAIR,
        &user,
        &[
            (UnrecognizedRole, "preferred_output[0].role"),
            (ExampleMissingAssistantMessage, "preferred_output"),
        ],
    );
    let half = r#"{"input":{"messages":[{"role":"user","content":"a"}]},"preferred_output":[{"role":"assistant","content":"b"}]}"#;
    check_like(PAIR, half, &[(MissingMessagesList, "non_preferred_output")]);
    check_like(TASK, TASK, &[]);
    let answered =
        r#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"b"}],"reference":"b"}"#;
    check_like(TASK, answered, &[(RftLastRole, "messages")]);
    let other = r#"{"messages":[{"role":"user","content":"x"}],"reference":1,"level":"hard"}"#;
    check_like(TASK, other, &[(MixedItems, "")]);
    check_like(TASK, r#"{"messages":[{"role":"user","content":"x"}],"tools":[],"reference":"y"}"#, &[]);
    let message = &with_good_ones(other, TASK).problems[0].message;
    assert_eq!(
        message,
        "its grader finds `level` (text), `reference` (number), where line 1 has `reference` (text)"
    );
}

#[test]
fn a_file_for_another_method_is_told_of_once() {
    let pairs: String =
        (0..10).map(|n| format!("{}\n", PAIR.replacen("\"a\"", &format!("\"a{n}\""), 1))).collect();
    let options = Options { format: Some(Format::Chat), ..Options::default() };
    let found = report(pairs.as_bytes(), &options);
    let codes: Vec<_> = found.problems.iter().map(|p| (p.line, p.code)).collect();
    assert_eq!((codes, found.format), (vec![(None, Code::WrongMethod)], Format::Dpo));
    assert!(report(pairs.as_bytes(), &Options { format: Some(Format::Dpo), ..Options::default() }).ok);
}

#[test]
fn what_is_wanted_decides_where_a_row_may_be_that() {
    let format = |text: String, wanted| {
        report(text.as_bytes(), &Options { format: wanted, ..Options::default() }).format
    };
    let stray = r#"{"messages":[{"role":"user","content":"x"}],"id":1}"#;
    let file = format!("{stray}\n").repeat(20) + &format!("{GOOD}\n").repeat(11);
    assert_eq!((format(file.clone(), None), format(file, Some(Format::Chat))), (Format::Rft, Format::Chat));
    // Nothing but its purpose tells such a task from a chat.
    for task in [
        r#"{"messages":[{"role":"user","content":"x"}]}"#,
        r#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"},{"role":"user","content":"z"}],"reference":1}"#,
    ] {
        let rows = format!("{task}\n").repeat(12);
        let found = report(rows.as_bytes(), &Options { format: Some(Format::Rft), ..Options::default() });
        let errors: Vec<_> = found.problems.iter().filter(|p| p.severity == Severity::Error).collect();
        assert!(
            found.format == Format::Rft && errors.iter().all(|p| p.code == Code::TooFewExamples),
            "{errors:?}"
        );
    }
    assert_eq!(format(format!("{GOOD}\n"), Some(Format::Rft)), Format::Chat);
}

#[test]
fn rows_that_are_larger_than_a_block_are_counted_before_the_file_is_taken_for_what_one_shows() {
    let large = GOOD.replace("\"a\"", &format!("\"{}\"", "word ".repeat(60_000)));
    let text = [PAIR, &large, &large].map(|line| format!("{line}\n")).concat();
    assert_eq!(report(text.as_bytes(), &Options::default()).format, Format::Chat);
}

#[test]
fn few_examples_a_byte_order_mark_and_nothing() {
    let rows: String =
        (0..9).map(|n| format!("{}\n", GOOD.replacen("\"a\"", &format!("\"a{n}\""), 1))).collect();
    let found = report(format!("\u{feff}{rows}").as_bytes(), &Options::default());
    let codes: Vec<_> = found.problems.iter().map(|p| (p.line, p.code)).collect();
    assert_eq!(codes, [(None, Code::TooFewExamples), (Some(1), Code::ByteOrderMark)]);
    assert_eq!((found.examples, found.ok), (9, false));
    for nothing in [&b""[..], b"\n", b"\xff\xfe"] {
        let found = report(nothing, &Options::default());
        assert!(!found.ok && found.counts.contains_key(&Code::TooFewExamples), "{found:?}");
    }
}

#[test]
fn what_training_cuts_off_is_said() {
    let word = |n: usize| "word ".repeat(n);
    let line = |asked: usize, answered: usize| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"{}"}},{{"role":"assistant","content":"{}"}}]}}"#,
            word(asked),
            word(answered)
        )
    };
    check(&line(10, 65_000), &[]);
    check(&line(10, 66_000), &[(Code::OverLong, "")]);
    check(&line(66_000, 10), &[(Code::NothingLeftToTrain, "")]);
    let target = Target { model: "small".into(), context: 20, local: true };
    let local = Local { counter: std::sync::Arc::new(|text: &str| text.split(' ').count()), context: 20 };
    let options = Options { target, local: Some(local), ..Options::default() };
    let found = report(format!("{}\n{}\n", line(2, 3), line(2, 30)).as_bytes(), &options);
    assert_eq!(
        (found.counts[&Code::OverLong], found.token_counts.local),
        (1, Some(3 + 4 + 10 + 3 + 31 + 10))
    );
    assert_eq!((found.lengths.min, found.lengths.max), (17, 44));
    assert_eq!(
        [Target::hosted("ft:gpt-3.5-turbo-0613:o::1"), Target::hosted("gpt-4o")].map(|t| t.context),
        [4_096, 65_536]
    );
}

#[test]
fn many_problems_of_a_sort_leave_room_for_others() {
    let text = "{\n".repeat(100) + "\n" + GOOD + "\n";
    let found = report(text.as_bytes(), &Options { most: 3, ..Options::default() });
    assert_eq!((found.counts[&Code::NotJson], found.counts[&Code::BlankLine], found.more), (100, 1, 97));
    let lines: Vec<_> = found.problems.iter().filter(|p| p.code == Code::NotJson).map(|p| p.line).collect();
    assert_eq!(lines, [Some(1), Some(2), Some(3)]);
    let text = found.text("a.jsonl");
    assert!(text.contains("and 97 more") && text.contains("`a.jsonl` should not be trained on"), "{text}");
}

#[test]
fn content_in_parts_is_the_text_that_they_make() {
    use Code::*;
    let with = |parts: &str| format!(r#"{{"role":"user","content":[{parts}]}}"#);
    let text = |text: &str| format!(r#"{{"type":"text","text":"{text}"}}"#);
    message(&with(&[text("a"), text("\\n"), text("")].join(",")), &[]);
    message(&with(&[text(" "), text("")].join(",")), &[(MissingContent, "messages[0].content")]);
    message(
        &with(&[text("a"), text("<|im_end|>")].join(",")),
        &[(SpecialToken, "messages[0].content[1].text")],
    );
    message(&with(&[text("<|im_"), text("end|>")].join(",")), &[(SpecialToken, "messages[0].content")]);
    let local = Local { counter: std::sync::Arc::new(str::len), context: 2048 };
    let target = Target { model: "small".into(), context: 2048, local: true };
    let options = Options { target, place: Place::Local, local: Some(local), ..Options::default() };
    let measured = |line: &str| {
        let found = report(line.as_bytes(), &options);
        (found.examples, found.token_counts, found.lengths, found.read)
    };
    let parts = GOOD.replacen("\"a\"", &format!("[{},{}]", text("for"), text("m")), 1);
    assert_eq!(measured(&parts), measured(&GOOD.replacen("\"a\"", "\"form\"", 1)));
    assert_eq!(measured(&parts).0, 1);
}

#[test]
fn a_file_of_tasks_is_for_providers() {
    let tasks: String =
        (0..10).map(|n| format!("{}\n", TASK.replacen("\"a\"", &format!("\"a{n}\""), 1))).collect();
    assert!(report(tasks.as_bytes(), &Options::default()).ok);
    let found = report(tasks.as_bytes(), &Options { place: Place::Local, ..Options::default() });
    let codes: Vec<_> = found.problems.iter().map(|p| (p.line, p.code)).collect();
    assert_eq!((codes, found.ok), (vec![(None, Code::NotTrainedLocally)], false));
}

/// Rows that break in every way that a byte can.
fn mutated() -> impl Strategy<Value = String> {
    let rows = [GOOD, PAIR, TASK, r#"{"messages":[{"role":"assistant","content":"a","weight":1}]}"#];
    let pieces = [
        "\"",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "role",
        "weight",
        "user",
        "content",
        "<|im_end|>",
        " ",
        "7",
        "\\n",
    ];
    (prop::sample::select(rows.to_vec()), 0usize..200, 0usize..12, prop::sample::select(pieces.to_vec()))
        .prop_map(|(row, at, cut, piece)| {
            let at = at.min(row.len());
            format!("{}{piece}{}", &row[..at], &row[(at + cut).min(row.len())..])
        })
}

proptest! {
    #[test]
    fn what_is_read_quickly_breaks_no_rule(line in mutated(), expected in 0usize..3, local: bool) {
        let expected = [Format::Chat, Format::Dpo, Format::Rft][expected];
        let place = if local { Place::Local } else { Place::Hosted };
        let quick = row::read(&line, expected, place);
        let full = rules::read(&line, expected, place);
        prop_assert_eq!(&quick.problems, &full.problems, "{}", line);
        prop_assert_eq!(&quick.said, &full.said, "{}", line);
        prop_assert_eq!(quick.format, full.format);
    }

    #[test]
    fn nothing_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..200), line in mutated()) {
        report(&bytes, &Options::default());
        report(&[&bytes[..], b"\n", line.as_bytes()].concat(), &Options::default());
    }
}
