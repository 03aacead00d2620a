//! Chat completions, whole and streamed.

use std::time::Duration;

use hone::{
    model::wire::{ChatRequest, Stop},
    registry::Office,
};
use serde_json::{Value, json};

use crate::harness::{BASE, World, question, schema_that_becomes_too_much};

async fn post(world: &World, body: &Value) -> reqwest::Response {
    let url = format!("{}/chat/completions", world.server.base_url);
    reqwest::Client::new().post(url).json(body).send().await.unwrap()
}

/// The chunks of a streamed answer; the last event must be the end mark.
async fn stream(world: &World, body: &Value) -> Vec<Value> {
    let response = post(world, body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let events: Vec<&str> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
    assert_eq!(events.last(), Some(&"data: [DONE]"));
    let chunks = events[..events.len() - 1].iter();
    chunks.map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()).collect()
}

fn body(change: Value) -> Value {
    let mut body =
        json!({"model": BASE, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20, "seed": 5});
    body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    body
}

fn text_of(chunks: &[Value], index: u64) -> String {
    let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
    choices.filter(|c| c["index"] == index).filter_map(|c| c["delta"]["content"].as_str()).collect()
}

#[tokio::test]
async fn an_answer_has_usage_and_a_reason() {
    let world = World::new().await;
    let request = ChatRequest { max_completion_tokens: Some(5), seed: Some(1), ..question(BASE) };
    let reply = world.client.chat(&request).await.unwrap();
    let usage = reply.usage.unwrap();
    assert_eq!((usage.completion_tokens, usage.total_tokens), (5, usage.prompt_tokens + 5));
    assert_eq!(reply.choices[0].finish_reason.as_deref(), Some("length"));
    assert_eq!((reply.model.as_str(), reply.object.as_str()), (BASE, "chat.completion"));
    assert!(reply.id.starts_with("chatcmpl-"));
}

#[tokio::test]
async fn the_same_seed_gives_the_same_answer() {
    let world = World::new().await;
    let ask = async |seed: i64| {
        let request = ChatRequest { max_tokens: Some(30), seed: Some(seed), ..question(BASE) };
        world.client.chat(&request).await.unwrap().text().to_owned()
    };
    assert_eq!(ask(1).await, ask(1).await);
    assert_ne!(ask(1).await, ask(2).await);
}

#[tokio::test]
async fn several_answers_have_seeds_of_their_own() {
    let world = World::new().await;
    let mut request = ChatRequest { n: Some(3), max_tokens: Some(30), seed: Some(1), ..question(BASE) };
    // The tokens that end an answer are ruled out.
    request.extra.insert("logit_bias".into(), json!({"0": -100, "1": -100, "2": -100}));
    let reply = world.client.chat(&request).await.unwrap();
    let texts: Vec<_> = reply.choices.iter().map(|choice| choice.message.content.clone().unwrap()).collect();
    assert_eq!(texts.len(), 3);
    assert!(texts[0] != texts[1] && texts[1] != texts[2]);
    assert_eq!(reply.usage.unwrap().completion_tokens, 90);
}

#[tokio::test]
async fn a_stop_text_ends_the_answer_and_is_not_part_of_it() {
    let world = World::new().await;
    let request = ChatRequest { max_tokens: Some(60), seed: Some(3), ..question(BASE) };
    let whole = world.client.chat(&request).await.unwrap().text().to_owned();
    let stop: String = whole.chars().skip(10).take(3).collect();
    let request = ChatRequest { stop: Some(Stop::One(stop.clone())), ..request };
    let reply = world.client.chat(&request).await.unwrap();
    assert_eq!(reply.text(), whole.split(&stop).next().unwrap());
    assert_eq!(reply.choices[0].finish_reason.as_deref(), Some("stop"));
}

#[tokio::test]
async fn a_stream_says_what_the_whole_answer_says() {
    let world = World::new().await;
    let whole = post(&world, &body(json!({"n": 2}))).await.json::<Value>().await.unwrap();
    let chunks = stream(&world, &body(json!({"n": 2, "stream": true}))).await;
    for index in [0, 1] {
        assert_eq!(
            text_of(&chunks, index),
            whole["choices"][index as usize]["message"]["content"].as_str().unwrap()
        );
    }
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
    assert!(chunks.iter().all(|chunk| chunk["usage"].is_null() && chunk["id"] == chunks[0]["id"]));
    let chunks =
        stream(&world, &body(json!({"stream": true, "stream_options": {"include_usage": true}}))).await;
    let last = chunks.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(20)));
}

#[tokio::test]
async fn a_stream_is_refused_before_it_starts() {
    let world = World::new().await;
    let response = post(&world, &body(json!({"model": "nobody", "stream": true}))).await;
    assert_eq!(response.status(), 404);
    let long = "x".repeat(9000);
    let messages = json!([{"role": "user", "content": long}]);
    let response = post(&world, &body(json!({"messages": messages, "stream": true}))).await;
    assert_eq!(response.status(), 400);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "context_length_exceeded");
}

#[tokio::test]
async fn log_probabilities_come_whole_and_streamed() {
    let world = World::new().await;
    let wanted = json!({"logprobs": true, "top_logprobs": 3, "n": 2});
    let whole = post(&world, &body(wanted.clone())).await.json::<Value>().await.unwrap();
    let mut streamed = wanted;
    streamed["stream"] = true.into();
    let chunks = stream(&world, &body(streamed)).await;
    for index in [0, 1] {
        let choice = &whole["choices"][index as usize];
        let tokens = choice["logprobs"]["content"].as_array().unwrap();
        assert_eq!((tokens.len(), &choice["logprobs"]["refusal"]), (20, &Value::Null));
        for token in tokens {
            let top = token["top_logprobs"].as_array().unwrap();
            let logprob = |token: &Value| token["logprob"].as_f64().unwrap();
            assert!(top.len() == 3 && top.iter().all(|other| logprob(other) <= logprob(&top[0])), "{token}");
            assert!(
                token["token"].is_string() && token["bytes"].is_array() && logprob(token) <= 0.0,
                "{token}"
            );
        }
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|token| token["bytes"].as_array().unwrap())
            .map(|byte| byte.as_u64().unwrap() as u8)
            .collect();
        assert_eq!(String::from_utf8_lossy(&bytes), choice["message"]["content"].as_str().unwrap());
        let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
        let streamed: Vec<&Value> = choices
            .filter(|choice| choice["index"] == index)
            .filter_map(|choice| choice["logprobs"]["content"].as_array())
            .flatten()
            .collect();
        assert_eq!(streamed, tokens.iter().collect::<Vec<_>>());
    }
    let without = post(&world, &body(json!({}))).await.json::<Value>().await.unwrap();
    assert_eq!(without["choices"][0]["logprobs"], Value::Null);
}

/// A schema, and whether a value is of it.
type Case = (Value, fn(&Value) -> bool);

fn cases() -> [Case; 4] {
    let text = |most: u64| json!({"type": "string", "maxLength": most});
    let person = json!({
        "type": "object", "additionalProperties": false, "required": ["name", "age", "tags"],
        "properties": {
            "name": text(8), "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        },
    });
    let tree = json!({
        "$defs": {"leaf": {"type": "object", "properties": {"v": {"type": "boolean"}}, "required": ["v"], "additionalProperties": false}},
        "type": "object", "additionalProperties": false, "required": ["left", "right"],
        "properties": {"left": {"$ref": "#/$defs/leaf"}, "right": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/leaf"}]}},
    });
    let pattern = json!({
        "type": "object", "additionalProperties": false, "required": ["date", "code"],
        "properties": {"date": {"type": "string", "format": "date"}, "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}},
    });
    let options = json!({"anyOf": [{"type": "object", "properties": {"ok": {"const": true}}, "required": ["ok"], "additionalProperties": false}]});
    let person_holds = |v: &Value| {
        v["name"].as_str().is_some_and(|name| name.chars().count() <= 8)
            && v["age"].as_u64().is_some_and(|age| age <= 120)
            && v["tags"]
                .as_array()
                .is_some_and(|tags| tags.len() <= 3 && tags.iter().all(|t| t == "a" || t == "b"))
    };
    let tree_holds =
        |v: &Value| v["left"]["v"].is_boolean() && (v["right"].is_null() || v["right"]["v"].is_boolean());
    let pattern_holds = |v: &Value| {
        let code = v["code"].as_str().unwrap_or_default();
        v["date"].as_str().is_some_and(|date| date.len() == 10)
            && code.len() == 6
            && code[..2].bytes().all(|b| b.is_ascii_uppercase())
            && code[3..].bytes().all(|b| b.is_ascii_digit())
    };
    [
        (person, person_holds),
        (tree, tree_holds),
        (pattern, pattern_holds),
        (options, |v| *v == json!({"ok": true})),
    ]
}

/// The model knows nothing; what it writes under a schema is of that schema all the same.
#[tokio::test]
async fn a_schema_holds_whatever_the_model_wants() {
    let world = World::new().await;
    for (schema, holds) in cases() {
        for strict in [true, false] {
            let format = json!({"type": "json_schema", "json_schema": {"name": "x", "strict": strict, "schema": schema}});
            let wanted = json!({"response_format": format, "n": 8, "max_tokens": 2000, "temperature": 2});
            let whole = post(&world, &body(wanted.clone())).await.json::<Value>().await.unwrap();
            let mut streamed = wanted;
            streamed["stream"] = true.into();
            let chunks = stream(&world, &body(streamed)).await;
            for (choice, index) in whole["choices"].as_array().unwrap().iter().zip(0..) {
                let text = choice["message"]["content"].as_str().unwrap();
                assert_eq!(choice["finish_reason"], "stop", "{text}");
                let value: Value = serde_json::from_str(text).unwrap();
                assert!(holds(&value), "{value} is not of {schema}");
                assert_eq!(text_of(&chunks, index), text);
            }
        }
    }
}

#[tokio::test]
async fn any_object_and_what_is_cut_off() {
    let world = World::new().await;
    let object = json!({"response_format": {"type": "json_object"}, "n": 8, "max_tokens": 300});
    let reply = post(&world, &body(object)).await.json::<Value>().await.unwrap();
    for choice in reply["choices"].as_array().unwrap() {
        let text = choice["message"]["content"].as_str().unwrap();
        assert!(text.starts_with('{'), "{text}");
        if choice["finish_reason"] == "stop" {
            assert!(serde_json::from_str::<Value>(text).unwrap().is_object(), "{text}");
        }
    }
}

#[tokio::test]
async fn a_schema_that_cannot_be_followed_is_refused() {
    let world = World::new().await;
    for schema in [json!({"type": "object", "not": {"type": "null"}}), json!({"$ref": "#/$defs/gone"})] {
        let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
        for stream in [true, false] {
            let response = post(&world, &body(json!({"response_format": format, "stream": stream}))).await;
            assert_eq!(response.status(), 400);
            let error = response.json::<Value>().await.unwrap()["error"].clone();
            assert_eq!(
                (&error["param"], &error["code"]),
                (&json!("response_format"), &json!("invalid_json_schema"))
            );
            assert!(
                error["message"].as_str().unwrap().starts_with("the schema cannot be followed: "),
                "{error}"
            );
        }
    }
}

/// The client is at fault: asking again would change nothing.
#[tokio::test]
async fn a_schema_that_becomes_too_much_work_is_refused_then() {
    let world = World::new().await;
    let schema = json!({"name": "x", "schema": schema_that_becomes_too_much()});
    let body = body(json!({"response_format": {"type": "json_schema", "json_schema": schema}}));
    let response = post(&world, &body).await;
    assert_eq!(response.status(), 400);
    let error = response.json::<Value>().await.unwrap()["error"].clone();
    assert_eq!(error["param"], "response_format");
    assert_eq!(
        (&error["code"], &error["type"]),
        (&json!("invalid_json_schema"), &json!("invalid_request_error"))
    );
    // Where the answer has begun, the stream ends with the same.
    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    let text = post(&world, &streamed).await.text().await.unwrap();
    let last = text.trim_end().rsplit("data: ").next().unwrap();
    assert_eq!(serde_json::from_str::<Value>(last).unwrap()["error"], error, "{text}");
}

#[tokio::test]
async fn bias_and_penalties_change_the_answer() {
    let world = World::new().await;
    let text = async |change: Value| {
        let reply = post(&world, &body(change)).await.json::<Value>().await.unwrap();
        reply["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    };
    // Of the byte model's tokens, number 100 is the letter `a`.
    assert_eq!(text(json!({"logit_bias": {"100": 100}})).await, "a".repeat(20));
    let greedy = text(json!({"temperature": 0, "max_tokens": 60})).await;
    let penalised =
        text(json!({"temperature": 0, "max_tokens": 60, "frequency_penalty": 2, "presence_penalty": 2}))
            .await;
    assert_ne!(greedy, penalised);
    let response = post(&world, &body(json!({"logit_bias": {"999": 1}}))).await;
    assert_eq!(response.status(), 400);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["param"], "logit_bias");
}

#[tokio::test]
async fn what_has_been_read_before_is_counted_and_changes_nothing() {
    let world = World::new().await;
    let ask = async |question: &str, n: u64| {
        let system = "Answer in one word. ".repeat(20);
        let messages = json!([{"role": "system", "content": system}, {"role": "user", "content": question}]);
        let reply =
            post(&world, &body(json!({"messages": messages, "n": n}))).await.json::<Value>().await.unwrap();
        let cached = reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        (reply["choices"].clone(), cached, reply["usage"]["prompt_tokens"].as_u64().unwrap())
    };
    let (first, cached, prompt) = ask("What?", 2).await;
    assert_eq!(cached, 0);
    let (again, cached, _) = ask("What?", 2).await;
    assert_eq!((again, cached), (first, prompt - 1));
    let (other, cached, prompt) = ask("Why so?", 1).await;
    assert!(cached > 400 && cached < prompt, "{cached} of {prompt}");
    let fresh = World::with(|config| hone_server::ServerConfig { prefix_bytes: 0, ..config }).await;
    let system = "Answer in one word. ".repeat(20);
    let messages = json!([{"role": "system", "content": system}, {"role": "user", "content": "Why so?"}]);
    let reply = post(&fresh, &body(json!({"messages": messages}))).await.json::<Value>().await.unwrap();
    assert_eq!(reply["choices"], other);
}

#[tokio::test]
async fn what_has_no_effect_is_ignored_and_what_cannot_be_done_is_refused() {
    let world = World::new().await;
    let harmless = json!({
        "user": "me", "store": true, "metadata": {"a": "b"}, "service_tier": "auto", "parallel_tool_calls": false,
        "reasoning_effort": "low", "verbosity": "low", "prompt_cache_key": "x", "safety_identifier": "x", "top_k": 5,
        "stream_options": null, "tools": [{"type": "function"}], "tool_choice": "none",
    });
    assert_eq!(post(&world, &body(harmless)).await.status(), 200);
    let picture = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]);
    let response = post(&world, &body(json!({"messages": picture}))).await;
    assert_eq!(response.status(), 400);
    let message = response.json::<Value>().await.unwrap()["error"]["message"].to_string();
    assert!(message.contains("image_url"), "{message}");
    let parts =
        json!([{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}]);
    let in_parts = post(&world, &body(json!({"messages": parts}))).await.json::<Value>().await.unwrap();
    let in_one = post(&world, &body(json!({}))).await.json::<Value>().await.unwrap();
    assert_eq!(in_parts["choices"], in_one["choices"]);
}

/// Nothing that a client can send is the server's fault, or its end.
#[tokio::test]
async fn nonsense_is_refused_and_the_server_stays() {
    use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..40_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,6}|user|text|json_schema|function".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        let name = "role|content|type|text|schema|json_schema|format|name|[a-z]{1,5}";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..4)
                .prop_map(|fields| fields.into_iter().collect::<Value>()),
        ]
    });
    let fields = vec![
        "messages",
        "input",
        "n",
        "stop",
        "seed",
        "logprobs",
        "top_logprobs",
        "temperature",
        "top_p",
        "logit_bias",
        "presence_penalty",
        "response_format",
        "text",
        "tools",
        "tool_choice",
        "stream",
        "stream_options",
        "metadata",
        "instructions",
        "previous_response_id",
        "include",
        "store",
    ];
    let changes = prop::collection::vec((prop::sample::select(fields), value), 0..4);
    let world = World::new().await;
    let mut runner = TestRunner::deterministic();
    for _ in 0..150 {
        let change: Value = changes
            .new_tree(&mut runner)
            .unwrap()
            .current()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        for (path, limit) in [("chat/completions", "max_tokens"), ("responses", "max_output_tokens")] {
            let mut body = json!({
                "model": BASE, limit: 3, "messages": [{"role": "user", "content": "hi"}], "input": "hi",
            });
            body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let url = format!("{}/{path}", world.server.base_url);
            let response = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
            let status = response.status().as_u16();
            assert!(matches!(status, 200 | 400 | 404), "{status} for {body}");
            response.bytes().await.unwrap();
        }
    }
    assert_eq!(post(&world, &body(json!({}))).await.status(), 200);
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams_with_a_word() {
    let world = World::new().await;
    // So long that it is not over when the server stops; the tokens that end an answer are ruled out.
    let endless = json!({"0": -100, "1": -100, "2": -100});
    let long = body(json!({"max_tokens": 8000, "n": 16, "stream": true, "logit_bias": endless}));
    let mut response = post(&world, &long).await;
    assert!(response.chunk().await.unwrap().is_some());
    let rest = async {
        let mut rest = Vec::new();
        while let Some(chunk) = response.chunk().await.expect("the stream ends properly") {
            rest.extend_from_slice(&chunk);
        }
        String::from_utf8(rest).unwrap()
    };
    let (rest, stopped) = tokio::join!(rest, world.server.stop());
    stopped.unwrap();
    let last = rest.trim_end().rsplit("\n\n").next().unwrap().strip_prefix("data: ").unwrap().to_owned();
    let last: Value = serde_json::from_str(&last).unwrap();
    assert!(last["error"]["message"].as_str().unwrap().contains("stopping"), "{last}");
}

#[tokio::test]
async fn the_alias_means_the_champion() {
    let world = World::new().await;
    let reply =
        world.client.chat(&ChatRequest { max_tokens: Some(1), ..question("ui-agent") }).await.unwrap();
    assert_eq!(reply.model, BASE);
    let route = || Office { champion: Some("ft:gone:local::aaaaaaaa".into()), canary: None };
    let gone =
        World::with(|config| hone_server::ServerConfig { route: std::sync::Arc::new(route), ..config }).await;
    let error = gone.client.chat(&question("ui-agent")).await.unwrap_err();
    assert!(error.to_string().contains("ft:gone"), "{error}");
}

#[tokio::test]
async fn too_many_answers_are_refused_for_now() {
    let world = World::with(|config| hone_server::ServerConfig { max_queue: 2, ..config }).await;
    let response = post(&world, &body(json!({"n": 3}))).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "2");
    assert_eq!(post(&world, &body(json!({"n": 2}))).await.status(), 200);
}

/// Asks for sixteen of the longest answers and hangs up before they come.
async fn hang_up(world: &World, stream: bool) {
    // The tokens that end an answer are ruled out.
    let endless = json!({"0": -100, "1": -100, "2": -100});
    let long = body(json!({"max_tokens": 8000, "logit_bias": endless, "n": 16, "stream": stream}));
    let request =
        reqwest::Client::new().post(format!("{}/chat/completions", world.server.base_url)).json(&long);
    // The time runs out, the future is dropped, the connection closes.
    let answer = async move { request.send().await.unwrap().text().await.unwrap() };
    let hung_up = tokio::time::timeout(Duration::from_millis(300), answer).await;
    assert!(hung_up.is_err(), "the answer came before the client could hang up");
}

/// The answers that nobody waits for would take minutes in the one slot there is.
#[tokio::test]
async fn clients_that_hang_up_free_their_slots() {
    for streaming in [true, false] {
        let world =
            World::with(|config| hone_server::ServerConfig { max_queue: 160, max_batch: 1, ..config }).await;
        futures::future::join_all((0..10).map(|_| hang_up(&world, streaming))).await;
        let full =
            async { while post(&world, &body(json!({"max_tokens": 1, "n": 16}))).await.status() == 429 {} };
        tokio::time::timeout(Duration::from_secs(300), full).await.expect("the slots are free soon");
    }
}
