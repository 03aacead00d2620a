use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::wire::{Finish, Message, Stop};

fn access(name: &str) -> Access {
    Access::to(provider(name).unwrap())
}

fn asked() -> ChatRequest {
    ChatRequest {
        temperature: Some(1.5),
        max_completion_tokens: Some(640),
        seed: Some(7),
        ..ChatRequest::new("m", vec![Message::system("be brief"), Message::user("hi")])
    }
}

#[test]
fn names_are_unlike_each_other_and_addresses_are_some() {
    let mut names: Vec<_> = TABLE.iter().map(|provider| provider.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TABLE.len());
    for provider in TABLE {
        if let Some(base) = provider.base_url {
            let url = Url::parse(base).unwrap();
            assert!(url.scheme() == "https" || url.host_str() == Some("127.0.0.1"), "{base}");
            assert!(!base.ends_with('/'), "{base}");
        }
        let hosted = provider.base_url.is_some_and(|base| base.starts_with("https"));
        assert!(!hosted || provider.key_env.is_some(), "{} wants a key", provider.name);
    }
}

fn check_body(access: &Access, expected: Value) {
    let mut body = access.body(&asked()).unwrap();
    body.as_object_mut().unwrap().remove("messages");
    assert_eq!(body, expected, "{}", access.provider.name);
}

#[test]
fn each_provider_gets_the_knobs_that_it_takes() {
    let full = json!({"model": "m", "temperature": 1.5, "max_completion_tokens": 640, "seed": 7});
    check_body(&access("openai"), full.clone());
    check_body(&access("hone"), full);
    check_body(&access("groq"), json!({"model": "m", "temperature": 1.5, "max_tokens": 640, "seed": 7}));
    check_body(&access("mistral"), json!({"model": "m", "temperature": 1.5, "max_tokens": 640}));
    check_body(
        &Access { sampling: Some(false), ..access("openai") },
        json!({"model": "m", "max_completion_tokens": 640}),
    );
    check_body(
        &Access { deployment: Some("mine".into()), ..access("azure") },
        json!({"model": "mine", "temperature": 1.5, "max_completion_tokens": 640, "seed": 7}),
    );
    check_body(&access("anthropic"), json!({"model": "m", "max_tokens": 640, "system": "be brief"}));
    check_body(
        &Access { sampling: Some(true), ..access("anthropic") },
        json!({"model": "m", "max_tokens": 640, "system": "be brief", "temperature": 1.0}),
    );
    check_body(
        &Access { stream: Some(true), ..access("openai-compatible") },
        json!({"model": "m", "temperature": 1.5, "max_tokens": 640, "seed": 7, "stream": true,
            "stream_options": {"include_usage": true}}),
    );
}

#[test]
fn a_schema_goes_where_each_provider_has_it() {
    let schema = json!({"type": "object", "properties": {"why": {"type": "string"}}, "required": ["why"],
        "additionalProperties": false});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}});
    let mut request = asked();
    request.extra.insert("response_format".into(), format.clone());
    let openai = access("openai").body(&request).unwrap();
    assert_eq!((&openai["response_format"], openai.get("output_config")), (&format, None));
    let anthropic = access("anthropic").body(&request).unwrap();
    let config = json!({"format": {"type": "json_schema", "schema": schema}});
    assert_eq!((&anthropic["output_config"], anthropic.get("response_format")), (&config, None));
    request.extra.insert("response_format".into(), json!({"type": "json_object"}));
    assert_eq!(access("anthropic").body(&request).unwrap().get("output_config"), None);
}

#[test]
fn a_long_message_is_streamed() {
    let long = ChatRequest { max_completion_tokens: Some(9000), ..asked() };
    assert!(access("anthropic").streams(&long) && !access("openai").streams(&long));
    assert!(!Access { stream: Some(false), ..access("anthropic") }.streams(&long));
}

#[test]
fn turns_alternate_and_pictures_are_blocks() {
    let mut picture = Message::user("look");
    picture.images.push("data:image/png;base64,AAAA".into());
    let request = ChatRequest {
        stop: Some(Stop::One("END".into())),
        ..ChatRequest::new("m", vec![Message::user("a"), picture, Message::assistant("b")])
    };
    let body = access("anthropic").body(&request).unwrap();
    assert_eq!(
        body["messages"],
        json!([
            {"role": "user", "content": [
                {"type": "text", "text": "a"},
                {"type": "text", "text": "look"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            ]},
            {"role": "assistant", "content": "b"},
        ])
    );
    assert_eq!((&body["stop_sequences"], &body["max_tokens"]), (&json!(["END"]), &json!(4096)));
    assert!(body.get("system").is_none());
}

fn check_url(base: &str, version: Option<&str>, path: &[&str], expected: &str) {
    let access = Access { api_version: version.map(Into::into), ..access("azure") };
    assert_eq!(access.url(&Url::parse(base).unwrap(), path).as_str(), expected);
}

#[test]
fn azure_has_two_addresses_for_everything() {
    let jobs = ["fine_tuning", "jobs"];
    for base in [
        "https://r.openai.azure.com",
        "https://r.openai.azure.com/openai",
        "https://r.openai.azure.com/openai/v1/",
    ] {
        check_url(base, None, &jobs, "https://r.openai.azure.com/openai/v1/fine_tuning/jobs");
        check_url(
            base,
            Some("2025-04-01-preview"),
            &jobs,
            "https://r.openai.azure.com/openai/fine_tuning/jobs?api-version=2025-04-01-preview",
        );
    }
    check_url("https://gate.example/azure", None, &["files"], "https://gate.example/azure/openai/v1/files");
    let classic = Access { api_version: Some("v".into()), ..access("azure") };
    assert_eq!(classic.chat_path("m"), ["deployments", "m", "chat", "completions"]);
    assert_eq!(access("azure").chat_path("m"), ["chat", "completions"]);
    assert_eq!(access("anthropic").chat_path("m"), ["messages"]);
}

fn message(stop_reason: &str, content: Value) -> Vec<u8> {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": content,
        "stop_reason": stop_reason, "stop_sequence": null,
        "usage": {"input_tokens": 9, "output_tokens": 3, "cache_read_input_tokens": 2}})
    .to_string()
    .into_bytes()
}

#[test]
fn a_message_is_read_as_a_reply() {
    let content = json!([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    let read = |reason: &str| access("anthropic").reply(&message(reason, content.clone())).unwrap();
    let reply = read("end_turn");
    assert_eq!((reply.text(), reply.model.as_str(), reply.finish()), ("ab", "claude", Finish::Complete));
    let usage = reply.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (11, 3));
    assert_eq!(read("stop_sequence").finish(), Finish::Complete);
    assert_eq!(read("max_tokens").finish(), Finish::Length);
    assert_eq!(read("model_context_window_exceeded").finish(), Finish::Length);
    let refused = access("anthropic").reply(&message("refusal", json!([]))).unwrap();
    assert_eq!(refused.finish(), Finish::Refused(String::new()));
    assert!(access("anthropic").reply(&message("end_turn", json!([]))).is_err());
}

fn check_finish(message: Value, reason: &str, expected: Option<Finish>) {
    let reply = json!({"choices": [{"index": 0, "message": message, "finish_reason": reason}]}).to_string();
    assert_eq!(
        access("openai").reply(reply.as_bytes()).ok().map(|reply| reply.finish()),
        expected,
        "{reply}"
    );
}

#[test]
fn how_an_answer_ended() {
    check_finish(json!({"content": "a"}), "stop", Some(Finish::Complete));
    check_finish(json!({"content": "a"}), "length", Some(Finish::Length));
    check_finish(json!({"content": null}), "length", Some(Finish::Length));
    check_finish(json!({"content": ""}), "content_filter", Some(Finish::Filtered));
    check_finish(json!({"content": null}), "content_filter", Some(Finish::Filtered));
    check_finish(json!({"content": null, "refusal": "never"}), "stop", Some(Finish::Refused("never".into())));
    check_finish(json!({"content": null}), "stop", None);
    assert!(access("openai").reply(b"{\"choices\": []}").is_err());
}

/// The reply that a stream of events amounts to.
fn streamed(name: &str, events: &[Value]) -> Result<ChatReply, Unusable> {
    let mut collector = access(name).collector();
    for event in events {
        if collector.event(&event.to_string())? == Step::Over {
            break;
        }
    }
    collector.reply()
}

fn delta(delta: Value, finish: Option<&str>) -> Value {
    json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": null})
}

#[test]
fn pieces_become_the_whole() {
    let usage = json!({"id": "c", "choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}});
    let opening = delta(json!({"role": "assistant", "content": ""}), None);
    let events = [
        opening.clone(),
        delta(json!({"content": "a"}), None),
        delta(json!({"content": "b"}), None),
        delta(json!({}), Some("length")),
        usage,
    ];
    let reply = streamed("openai", &events).unwrap();
    assert_eq!((reply.text(), reply.finish(), reply.model.as_str()), ("ab", Finish::Length, "m"));
    assert_eq!(reply.usage.unwrap().total_tokens, 3);
    // An end without a reason is a broken connection, not an answer.
    assert!(streamed("openai", &events[..3]).unwrap_err().to_string().contains("ends before"));
    assert!(streamed("openai", &[]).is_err());
    let refused = [opening, delta(json!({"refusal": "no"}), None), delta(json!({}), Some("stop"))];
    assert_eq!(streamed("openai", &refused).unwrap().finish(), Finish::Refused("no".into()));
    let broken = json!({"error": {"message": "overloaded", "type": "server_error"}});
    assert!(streamed("openai", &[broken]).unwrap_err().to_string().contains("overloaded"));
}

#[test]
fn pieces_of_a_message_become_the_whole() {
    let events = [
        json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "model": "claude", "content": [],
            "usage": {"input_tokens": 5, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "ab"}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}),
        json!({"type": "message_stop"}),
    ];
    let reply = streamed("anthropic", &events).unwrap();
    let usage = reply.usage.unwrap();
    assert_eq!((reply.text(), usage.prompt_tokens, usage.completion_tokens), ("ab", 5, 4));
    assert!(streamed("anthropic", &events[..7]).is_err());
}

/// Any JSON that is not too deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop_oneof![
            Just("message"),
            Just("text"),
            Just("stop"),
            Just("refusal"),
            Just("content_block_delta")
        ]
        .prop_map(Value::from),
    ];
    let names = prop_oneof![
        Just("type"),
        Just("choices"),
        Just("message"),
        Just("content"),
        Just("text"),
        Just("usage"),
        Just("index"),
        Just("delta"),
        Just("finish_reason"),
        Just("stop_reason"),
        Just("error"),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        let pairs = prop::collection::vec((names.clone(), inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            pairs.prop_map(|pairs| pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<Value>()),
        ]
    })
}

proptest! {
    #[test]
    fn no_answer_is_too_odd_to_be_read(value in any_json()) {
        for name in ["openai", "anthropic"] {
            // Whether it is one is told by the tests above; here it may not panic.
            let _ = access(name).reply(value.to_string().as_bytes());
            let _ = streamed(name, std::slice::from_ref(&value));
        }
    }
}

#[test]
fn epochs_of_auto_follow_each_trainers_rule() {
    let expected = [
        (0, 25),
        (1, 25),
        (4, 25),
        (10, 10),
        (33, 3),
        (34, 3),
        (80, 3),
        (8_333, 3),
        (8_334, 2),
        (10_000, 2),
        (30_000, 1),
    ];
    for (examples, epochs) in expected {
        assert_eq!(Tuning::OpenAi.auto_epochs(examples), epochs, "{examples} examples");
        assert_eq!(Tuning::Together.auto_epochs(examples), 1);
    }
}
