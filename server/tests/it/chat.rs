//! Chat completions, whole and streamed.

use std::time::Duration;

use hone::model::wire::{ChatRequest, Stop};
use serde_json::{Value, json};

use crate::harness::{BASE, World, question};

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
    let request = ChatRequest { n: Some(3), max_tokens: Some(30), seed: Some(1), ..question(BASE) };
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
async fn the_alias_means_the_champion() {
    let world = World::new().await;
    let reply =
        world.client.chat(&ChatRequest { max_tokens: Some(1), ..question("ui-agent") }).await.unwrap();
    assert_eq!(reply.model, BASE);
    let champion = || -> Option<String> { Some("ft:gone:local::aaaaaaaa".into()) };
    let gone =
        World::with(|config| hone_server::ServerConfig { champion: std::sync::Arc::new(champion), ..config })
            .await;
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
    let long = body(json!({"max_tokens": 8000, "temperature": 0, "n": 16, "stream": stream}));
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
        tokio::time::timeout(Duration::from_secs(20), full).await.expect("the slots are free soon");
    }
}
