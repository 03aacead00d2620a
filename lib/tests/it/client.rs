//! The client against a provider that misbehaves in every way seen so far.

use std::time::Duration;

use hone::{
    cancel::Cancel,
    error::{Explain, Kind},
    model::{
        client::{Client, Endpoint, ModelError, Retry, Secret},
        wire::{ChatRequest, Finish, JobRequest, Message},
    },
};
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{any, method, path, query_param, query_param_is_missing},
};

fn answer(text: &str) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}})
}

fn ok(text: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(answer(text))
}

fn refusal(status: u16, code: &str) -> ResponseTemplate {
    let error = json!({"message": "no", "type": "t", "param": null, "code": code});
    ResponseTemplate::new(status).set_body_json(json!({ "error": error }))
}

fn client(server: &MockServer) -> Client {
    let retry = Retry { first_wait: Duration::from_millis(1), ..Retry::default() };
    let endpoint = Endpoint { retry, ..Endpoint::new("fake", format!("{}/v1", server.uri())) };
    Client::new(endpoint.with_key(Some(Secret::new("sk-test")))).unwrap()
}

fn request() -> ChatRequest {
    ChatRequest::new("m", vec![Message::user("hi")])
}

/// A provider that gives these answers in turn, the last one for ever.
async fn provider(answers: Vec<ResponseTemplate>) -> MockServer {
    let server = MockServer::start().await;
    let last = answers.len() - 1;
    for (index, template) in answers.into_iter().enumerate() {
        let mock = Mock::given(any()).respond_with(template).with_priority(index as u8 + 1);
        let mock = if index < last { mock.up_to_n_times(1) } else { mock };
        mock.mount(&server).await;
    }
    server
}

async fn tries(server: &MockServer) -> usize {
    server.received_requests().await.unwrap().len()
}

/// What a provider's answers come to, and after how many tries.
async fn check(answers: Vec<ResponseTemplate>, expected_tries: usize, expected: Result<&str, &str>) {
    let server = provider(answers).await;
    let result = client(&server).chat(&request()).await;
    match (&result, expected) {
        (Ok(reply), Ok(text)) => assert_eq!(reply.text(), text),
        (Err(error), Err(words)) => {
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.kind(), Kind::Provider);
            assert!(error.hint().is_some(), "no hint for: {error}");
        }
        _ => panic!("expected {expected:?}, got {result:?}"),
    }
    assert_eq!(tries(&server).await, expected_tries);
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    let limited = || refusal(429, "rate_limit_exceeded").insert_header("retry-after-ms", "1");
    check(vec![limited(), ok("a")], 2, Ok("a")).await;
    check(vec![ResponseTemplate::new(500).set_body_string("<html>"), ok("a")], 2, Ok("a")).await;
    check(vec![refusal(503, "server_error"), refusal(408, "timeout"), ok("a")], 3, Ok("a")).await;
    check(vec![refusal(400, "odd").insert_header("x-should-retry", "true"), ok("a")], 2, Ok("a")).await;
    let cut =
        ResponseTemplate::new(200).set_body_raw(r#"{"id": "chatcmpl-1", "choices": [{"#, "application/json");
    check(vec![cut, ok("a")], 2, Ok("a")).await;
}

#[tokio::test]
async fn what_does_not_pass_is_not_repeated() {
    check(vec![refusal(401, "invalid_api_key")], 1, Err("HTTP 401, invalid_api_key")).await;
    check(vec![refusal(429, "insufficient_quota")], 1, Err("insufficient_quota")).await;
    check(vec![refusal(403, "training_not_available")], 1, Err("training_not_available")).await;
    let told = refusal(429, "slow_down").insert_header("x-should-retry", "false");
    check(vec![told], 1, Err("slow_down")).await;
    let long = refusal(429, "slow_down").insert_header("retry-after", "121");
    check(vec![long], 1, Err("asks to wait 121 s")).await;
}

#[tokio::test]
async fn trouble_that_stays_is_reported_after_five_tries() {
    check(vec![refusal(500, "server_error")], 5, Err("HTTP 500, server_error")).await;
}

#[tokio::test]
async fn answers_that_are_none_are_asked_for_twice_more() {
    let html = || ResponseTemplate::new(200).set_body_raw("<html><body>Sign in</body></html>", "text/html");
    check(vec![html()], 3, Err("a web page, not JSON: <html>")).await;
    check(vec![html(), html(), ok("a")], 3, Ok("a")).await;
    check(vec![ResponseTemplate::new(200)], 3, Err("it is empty")).await;
    let mut none = answer("");
    none["choices"] = json!([]);
    check(vec![ResponseTemplate::new(200).set_body_json(none)], 3, Err("no choices")).await;
    let mut null = answer("");
    null["choices"][0]["message"] = json!({"role": "assistant", "content": null});
    check(vec![ResponseTemplate::new(200).set_body_json(null)], 3, Err("has no text")).await;
    check(vec![ResponseTemplate::new(200).set_body_json(json!({}))], 3, Err("choices")).await;
}

/// Who declines has answered: it is paid for, and no other try is worth its price.
#[tokio::test]
async fn a_refusal_is_an_answer() {
    let mut refusal = answer("");
    refusal["choices"][0]["message"] = json!({"role": "assistant", "content": null, "refusal": "never"});
    let server = provider(vec![ResponseTemplate::new(200).set_body_json(refusal)]).await;
    let reply = client(&server).chat(&request()).await.unwrap();
    assert_eq!((reply.finish(), tries(&server).await), (Finish::Refused("never".into()), 1));
}

#[tokio::test]
async fn a_tuned_model_may_take_a_while_to_appear() {
    let server = provider(vec![refusal(404, "model_not_found"), ok("a")]).await;
    let tuned = ChatRequest { model: "ft:m:o::1".into(), ..request() };
    // Sockets need the real clock, so this takes the two seconds of the first wait.
    let reply = client(&server).chat(&tuned).await.unwrap();
    assert_eq!((reply.text(), tries(&server).await), ("a", 2));
    let server = provider(vec![refusal(404, "model_not_found"), ok("a")]).await;
    assert!(client(&server).chat(&request()).await.unwrap_err().is_unknown_model());
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address() {
    let retry = Retry { retries: 1, first_wait: Duration::from_millis(1), ..Retry::default() };
    let endpoint = Endpoint { retry, ..Endpoint::local("http://127.0.0.1:9/v1") };
    let error = Client::new(endpoint).unwrap().chat(&request()).await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
    assert!(error.hint().unwrap().contains("hone serve"));
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let server = provider(vec![ok("a").set_delay(Duration::from_secs(30))]).await;
    let retry = Retry { retries: 0, ..Retry::default() };
    let endpoint = Endpoint::new("fake", format!("{}/v1", server.uri()));
    let client = Client::new(Endpoint { retry, timeout: Duration::from_millis(50), ..endpoint }).unwrap();
    let error = client.chat(&request()).await.unwrap_err();
    assert!(error.to_string().contains("no answer in time"), "{error}");
}

#[tokio::test]
async fn cancelling_ends_a_wait() {
    let server = provider(vec![refusal(429, "slow_down").insert_header("retry-after", "100")]).await;
    let cancel = Cancel::new();
    let client = client(&server).cancelled_by(cancel.clone());
    let call = tokio::spawn(async move { client.chat(&request()).await });
    while tries(&server).await == 0 {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    assert!(matches!(call.await.unwrap(), Err(ModelError::Cancelled)));
}

#[tokio::test]
async fn the_key_goes_out_and_stays_out_of_errors() {
    let echo = json!({"error": {"message": "bad key sk-test", "type": "t", "param": null, "code": "invalid_api_key"}});
    let server = provider(vec![ResponseTemplate::new(401).set_body_json(echo)]).await;
    let error = client(&server).chat(&request()).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("sk-test"));
    let sent = &server.received_requests().await.unwrap()[0];
    assert_eq!(sent.headers["authorization"], "Bearer sk-test");
}

#[tokio::test]
async fn a_creation_is_repeated_where_its_key_is_honoured() {
    let job = || ResponseTemplate::new(200).set_body_json(json!({"id": "ftjob-1", "status": "queued"}));
    let server = provider(vec![refusal(500, "x"), job()]).await;
    let retry = Retry { first_wait: Duration::from_millis(1), ..Retry::default() };
    let ours = Client::new(Endpoint { retry, ..Endpoint::local(format!("{}/v1", server.uri())) }).unwrap();
    ours.create_job(&JobRequest::default(), "key-1").await.unwrap();
    let requests = server.received_requests().await.unwrap();
    let keys: Vec<_> = requests.iter().map(|r| r.headers["idempotency-key"].to_str().unwrap()).collect();
    assert_eq!(keys, ["key-1", "key-1"]);

    // Elsewhere a second request may make a second job: whether there is one is for the caller to find out.
    let server = provider(vec![refusal(500, "x"), job()]).await;
    let error = client(&server).create_job(&JobRequest::default(), "key-1").await.unwrap_err();
    assert!(error.is_in_doubt() && tries(&server).await == 1, "{error}");
    // A refusal is none.
    let server = provider(vec![refusal(429, "slow_down").insert_header("retry-after-ms", "1"), job()]).await;
    client(&server).create_job(&JobRequest::default(), "key-1").await.unwrap();
    assert_eq!(tries(&server).await, 2);
}

#[tokio::test]
async fn a_retried_upload_sends_the_whole_file_again() {
    let file = json!({"id": "file-1"});
    let server = provider(vec![refusal(500, "x"), ResponseTemplate::new(200).set_body_json(file)]).await;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("train.jsonl");
    std::fs::write(&data, "{\"a\":1}\n").unwrap();
    client(&server).upload_file(&data, "fine-tune").await.unwrap();
    for request in server.received_requests().await.unwrap() {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        assert!(body.contains("{\"a\":1}") && body.contains("filename=\"train.jsonl\""), "{body}");
        assert!(body.find("purpose") < body.find("train.jsonl"));
    }
    let missing = client(&server).upload_file(&folder.path().join("none"), "fine-tune").await.unwrap_err();
    assert!(missing.to_string().contains("cannot read"), "{missing}");
    assert_eq!(missing.kind(), Kind::Input);
}

fn event(n: u32) -> Value {
    json!({"id": format!("e{n}"), "level": "info", "message": "m", "type": "message", "data": {}})
}

#[tokio::test]
async fn events_are_paged_and_come_oldest_first() {
    let server = MockServer::start().await;
    let page = |data: Vec<Value>, more: bool| {
        ResponseTemplate::new(200).set_body_json(json!({"object": "list", "data": data, "has_more": more}))
    };
    let list = || Mock::given(method("GET")).and(path("/v1/fine_tuning/jobs/j/events"));
    let first = list().and(query_param_is_missing("after"));
    first.respond_with(page(vec![event(4), event(3)], true)).mount(&server).await;
    list()
        .and(query_param("after", "e3"))
        .respond_with(page(vec![event(2), event(1)], false))
        .mount(&server)
        .await;
    let ids = async |after| {
        let events = client(&server).events("j", after).await.unwrap();
        events.into_iter().map(|e| e.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(None).await, ["e1", "e2", "e3", "e4"]);
    assert_eq!(ids(Some("e2")).await, ["e3", "e4"]);
    assert_eq!(ids(Some("e4")).await, [""; 0]);
}

/// Such a gateway sends one page for ever.
#[tokio::test]
async fn a_list_that_repeats_itself_ends() {
    let server = MockServer::start().await;
    let event = json!({"id": "ftevent-1", "object": "fine_tuning.job.event", "created_at": 1, "level": "info",
        "message": "queued", "type": "message"});
    let page = json!({"object": "list", "data": [event]});
    Mock::given(any()).respond_with(ResponseTemplate::new(200).set_body_json(page)).mount(&server).await;
    let events = client(&server).events("ftjob-1", None).await.unwrap();
    assert_eq!((events.len(), tries(&server).await), (1, 2));
}
