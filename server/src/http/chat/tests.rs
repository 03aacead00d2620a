use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(change: &Value) -> Result<ChatRequest, ApiError> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    ChatRequest::read(body.as_object().unwrap().clone())
}

fn check(change: Value, expected: Option<&str>) {
    let param = read(&change).err().map(|error| error.envelope().error.param.unwrap_or_default());
    assert_eq!(param.as_deref(), expected, "{change}");
}

#[test]
fn requests_are_checked_before_they_reach_the_engine() {
    check(json!({}), None);
    check(json!({"user": "me", "store": true, "logprobs": false, "tools": [], "nonsense": 3}), None);
    check(json!({"response_format": {"type": "text"}, "stop": null, "n": null, "temperature": null}), None);
    check(json!({"temperature": 2.1}), Some("temperature"));
    check(json!({"temperature": -0.1}), Some("temperature"));
    check(json!({"temperature": "hot"}), Some("temperature"));
    check(json!({"top_p": 0}), None);
    check(json!({"top_p": 1.1}), Some("top_p"));
    check(json!({"n": 0}), Some("n"));
    check(json!({"n": 17}), Some("n"));
    check(json!({"stop": ["a", "b", "c", "d", "e"]}), Some("stop"));
    check(json!({"stop": ""}), Some("stop"));
    check(json!({"stop": 3}), Some("stop"));
    check(json!({"max_tokens": 0}), Some("max_tokens"));
    check(json!({"max_completion_tokens": -1}), Some("max_completion_tokens"));
    check(json!({"messages": []}), Some("messages"));
    check(json!({"messages": null}), Some("messages"));
    check(json!({"model": 3}), Some("model"));
    check(json!({"presence_penalty": 2.5}), Some("presence_penalty"));
    check(json!({"frequency_penalty": -2.5}), Some("frequency_penalty"));
    check(json!({"logit_bias": {"x": 1}}), Some("logit_bias"));
    check(json!({"logit_bias": {"5": 101}}), Some("logit_bias"));
    check(json!({"logit_bias": {"5": -100, "7": 3.5}}), None);
    check(json!({"logprobs": true, "top_logprobs": 20}), None);
    check(json!({"logprobs": true, "top_logprobs": 21}), Some("top_logprobs"));
    check(json!({"top_logprobs": 2}), Some("top_logprobs"));
    check(json!({"tools": [{}]}), Some("tools"));
    check(json!({"tools": [{}], "tool_choice": "none"}), None);
    check(json!({"modalities": ["text"]}), None);
    check(json!({"modalities": ["text", "audio"], "audio": {}}), Some("modalities"));
    check(json!({"response_format": {"type": "json_object"}}), None);
    check(json!({"response_format": {"type": "json_schema"}}), Some("response_format"));
    check(json!({"response_format": {"type": "xml"}}), Some("response_format"));
    let schema = json!({"name": "a", "strict": false, "schema": {"type": "object"}});
    check(json!({"response_format": {"type": "json_schema", "json_schema": schema}}), None);
}

#[test]
fn messages_are_text_in_one_piece_or_in_parts() {
    let check = |message: Value, expected: Result<(&str, &str), &str>| {
        let read = read(&json!({"messages": [{"role": "user", "content": "hi"}, message]}));
        match (read, expected) {
            (Ok(request), Ok((role, content))) => {
                let message = &request.messages[1];
                assert_eq!(json!(message.role), role);
                assert_eq!(message.content, content);
            }
            (Err(error), Err(reason)) => {
                let error = error.envelope().error;
                assert!(
                    error.message.starts_with("`messages[1]`: ") && error.message.contains(reason),
                    "{error:?}"
                );
                assert_eq!(error.param.as_deref(), Some("messages"));
            }
            (read, expected) => panic!("{read:?} {expected:?}"),
        }
    };
    check(json!({"role": "developer", "content": "x"}), Ok(("system", "x")));
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    check(json!({"role": "user", "content": parts, "name": "me"}), Ok(("user", "ab")));
    check(json!({"role": "tool", "content": "x", "tool_call_id": "1"}), Ok(("tool", "x")));
    check(json!({"role": "assistant", "content": null, "tool_calls": []}), Ok(("assistant", "")));
    let picture = json!([{"type": "image_url", "image_url": {"url": "data:,x"}}]);
    check(json!({"role": "user", "content": picture}), Err("`image_url` is not supported"));
    check(json!({"role": "assistant", "tool_calls": [{"id": "1"}]}), Err("`tool_calls` is not supported"));
    check(json!({"role": "king", "content": "x"}), Err("the role `king`"));
    check(json!("x"), Err("invalid type"));
    check(json!({"content": "x"}), Err("role"));
}

#[test]
fn whoever_speaks_says_something() {
    let silent = |message: Value, expected: Option<&str>| {
        check(json!({"messages": [{"role": "user", "content": "hi"}, message]}), expected);
    };
    for role in ["user", "system", "developer", "tool"] {
        silent(json!({ "role": role }), Some("messages[1].content"));
        silent(json!({"role": role, "content": null}), Some("messages[1].content"));
        silent(json!({"role": role, "content": ""}), None);
    }
    // What it did instead is not of use here, and no fault of the request's.
    silent(json!({"role": "assistant", "content": null, "refusal": "no"}), None);
    silent(json!({"role": "assistant", "tool_calls": []}), None);
    silent(json!({"role": "assistant"}), None);
}

#[test]
fn every_answer_has_its_own_seed() {
    let request = read(&json!({"n": 3, "seed": -1})).unwrap();
    let answers = sampling::answers(&request.params, request.n);
    let seeds: Vec<u64> = answers.iter().map(|params| params.choice.seed).collect();
    assert_eq!(seeds, [u64::MAX, 0, 1]);
}

#[test]
fn the_newer_name_of_the_limit_wins() {
    let limit = |change: Value| read(&change).unwrap().params.max_tokens;
    assert_eq!(limit(json!({"max_tokens": 3, "max_completion_tokens": 5})), 5);
    assert_eq!(limit(json!({"max_tokens": 3})), 3);
    assert_eq!(limit(json!({})), usize::MAX);
}

/// Any JSON.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z_]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z_]{1,12}|type|role|content", inner), 0..4)
                .prop_map(|fields| fields.into_iter().collect::<Value>()),
        ]
    })
}

const FIELDS: [&str; 20] = [
    "model",
    "messages",
    "n",
    "stop",
    "seed",
    "logprobs",
    "top_logprobs",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "response_format",
    "tools",
    "tool_choice",
    "stream",
    "stream_options",
    "modalities",
];

proptest! {
    /// Whatever stands in a body: it is read, or refused as a fault of the client's that names the parameter.
    #[test]
    fn any_body_is_read_or_refused(
        changes in prop::collection::vec((prop::sample::select(FIELDS.to_vec()), json_value()), 0..5),
    ) {
        let body: Value = changes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        match read(&body) {
            Ok(request) => {
                prop_assert!(request.n >= 1 && !request.messages.is_empty());
                prop_assert!((0.0..=2.0).contains(&request.params.choice.temperature));
                prop_assert!(request.params.choice.top_p > 0.0 && request.params.choice.top_p <= 1.0);
            }
            Err(error) => {
                let param = error.envelope().error.param;
                let silent = |param: &str| param.starts_with("messages[") && param.ends_with("].content");
                prop_assert!(param.is_some_and(|param| FIELDS.contains(&param.as_str()) || silent(&param)));
            }
        }
    }
}
