//! The responses API in its basic form.

use serde_json::{Value, json};

use crate::harness::{BASE, World, schema_that_becomes_too_much};

async fn post(world: &World, change: Value) -> reqwest::Response {
    let mut body = json!({"model": BASE, "input": "hi", "max_output_tokens": 20, "temperature": 0});
    body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let url = format!("{}/responses", world.server.base_url);
    reqwest::Client::new().post(url).json(&body).send().await.unwrap()
}

async fn create(world: &World, change: Value) -> Value {
    let response = post(world, change).await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

/// The named events of a streamed response.
async fn stream(world: &World, mut change: Value) -> Vec<Value> {
    change["stream"] = true.into();
    let response = post(world, change).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let events = text.split("\n\n").filter(|event| !event.is_empty());
    events
        .map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let event: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(name.strip_prefix("event: ").unwrap(), event["type"]);
            event
        })
        .collect()
}

fn text(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"].as_str().unwrap()
}

#[tokio::test]
async fn a_response_has_the_protocols_shape() {
    let world = World::new().await;
    let response =
        create(&world, json!({"metadata": {"k": "v"}, "instructions": "Be brief.", "store": false})).await;
    assert_eq!((&response["object"], &response["model"]), (&json!("response"), &json!(BASE)));
    assert_eq!(response["status"], "incomplete");
    assert_eq!(response["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(response["metadata"], json!({"k": "v"}));
    assert_eq!(response["text"]["format"], json!({"type": "text"}));
    let message = &response["output"][0];
    assert_eq!(
        (&message["type"], &message["role"], &message["status"]),
        (&json!("message"), &json!("assistant"), &json!("incomplete"))
    );
    let usage = &response["usage"];
    assert_eq!(usage["output_tokens"], 20);
    assert_eq!(usage["total_tokens"].as_u64(), usage["input_tokens"].as_u64().map(|input| input + 20));
    assert!(usage["input_tokens_details"]["cached_tokens"].is_u64());
    assert_eq!(usage["output_tokens_details"]["reasoning_tokens"], 0);
}

#[tokio::test]
async fn a_response_says_what_a_chat_says() {
    let world = World::new().await;
    let input = json!([{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]);
    let response = create(&world, json!({"instructions": "Be brief.", "input": input})).await;
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]);
    let chat = json!({"model": BASE, "messages": messages, "max_tokens": 20, "temperature": 0});
    let url = format!("{}/chat/completions", world.server.base_url);
    let chat: Value =
        reqwest::Client::new().post(url).json(&chat).send().await.unwrap().json().await.unwrap();
    assert_eq!(text(&response), chat["choices"][0]["message"]["content"]);
}

#[tokio::test]
async fn a_stream_tells_the_response_event_by_event() {
    let world = World::new().await;
    let wanted = json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2});
    let whole = create(&world, wanted.clone()).await;
    let events = stream(&world, wanted).await;
    let numbers: Vec<u64> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap().strip_prefix("response.").unwrap())
        .collect();
    assert_eq!(kinds[..4], ["created", "in_progress", "output_item.added", "content_part.added"]);
    let end = kinds.len() - 4;
    assert!(kinds[4..end].iter().all(|kind| *kind == "output_text.delta") && end > 4, "{kinds:?}");
    assert_eq!(kinds[end..], ["output_text.done", "content_part.done", "output_item.done", "incomplete"]);
    let deltas: String = events[4..end].iter().map(|event| event["delta"].as_str().unwrap()).collect();
    let last = &events.last().unwrap()["response"];
    assert_eq!((deltas.as_str(), text(last)), (text(&whole), text(&whole)));
    assert_eq!(last["output"][0]["content"][0]["logprobs"], whole["output"][0]["content"][0]["logprobs"]);
    assert_eq!(events[end]["logprobs"].as_array().unwrap().len(), 20);
    let ids: Vec<&Value> = events[4..=end + 1].iter().map(|event| &event["item_id"]).collect();
    assert!(ids.iter().all(|id| **id == last["output"][0]["id"]));
}

#[tokio::test]
async fn a_conversation_goes_on_from_a_stored_response() {
    let world = World::new().await;
    let first = create(&world, json!({"instructions": "Be brief."})).await;
    let id = first["id"].as_str().unwrap();
    let next = create(&world, json!({"previous_response_id": id, "input": "and?"})).await;
    assert_eq!(next["previous_response_id"], id);
    let said = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": text(&first)},
        {"role": "user", "content": "and?"},
    ]);
    assert_eq!(text(&create(&world, json!({"input": said})).await), text(&next));
    // A streamed response is kept as well.
    let streamed = stream(&world, json!({"previous_response_id": id, "input": "and?"})).await;
    let streamed = &streamed.last().unwrap()["response"];
    assert_eq!(text(streamed), text(&next));

    let url = |id: &str| format!("{}/responses/{id}", world.server.base_url);
    let client = reqwest::Client::new();
    for response in [&first, streamed] {
        let got: Value =
            client.get(url(response["id"].as_str().unwrap())).send().await.unwrap().json().await.unwrap();
        assert_eq!(&got, response);
    }
    let deleted: Value = client.delete(url(id)).send().await.unwrap().json().await.unwrap();
    assert_eq!(deleted, json!({"id": id, "object": "response", "deleted": true}));
    assert_eq!(client.get(url(id)).send().await.unwrap().status(), 404);
    assert_eq!(client.delete(url(id)).send().await.unwrap().status(), 404);
    let refused = post(&world, json!({"previous_response_id": id})).await;
    assert_eq!(refused.status(), 404);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "previous_response_not_found");
    let unkept = create(&world, json!({"store": false})).await;
    assert_eq!(client.get(url(unkept["id"].as_str().unwrap())).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_schema_stands_flat_in_the_format() {
    let world = World::new().await;
    let schema = json!({
        "type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["n"],
        "additionalProperties": false,
    });
    let format = json!({"type": "json_schema", "name": "digit", "strict": true, "schema": schema});
    let wanted = json!({"text": {"format": format}, "max_output_tokens": 200, "temperature": 1});
    let response = create(&world, wanted).await;
    assert_eq!((&response["status"], &response["text"]["format"]), (&json!("completed"), &format));
    let value: Value = serde_json::from_str(text(&response)).unwrap();
    assert!(value["n"].as_u64().is_some_and(|n| (1..=9).contains(&n)), "{value}");
    let refused = post(
        &world,
        json!({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"not": {}}}}}),
    )
    .await;
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["param"], "text.format");
    let long = "x".repeat(9000);
    let refused = post(&world, json!({"input": long})).await.json::<Value>().await.unwrap();
    assert_eq!(
        (&refused["error"]["param"], &refused["error"]["code"]),
        (&json!("input"), &json!("context_length_exceeded"))
    );
}

#[tokio::test]
async fn a_schema_that_becomes_too_much_work_is_the_clients_fault() {
    let world = World::new().await;
    let format = json!({"type": "json_schema", "name": "x", "schema": schema_that_becomes_too_much()});
    let refused = post(&world, json!({"text": {"format": format}})).await;
    assert_eq!(refused.status(), 400);
    let error = refused.json::<Value>().await.unwrap()["error"].clone();
    assert_eq!((&error["param"], &error["code"]), (&json!("text.format"), &json!("invalid_json_schema")));
    let events = stream(&world, json!({"text": {"format": format}})).await;
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.failed"), &json!("failed")));
    assert_eq!(last["response"]["error"], json!({"code": "invalid_prompt", "message": error["message"]}));
}
