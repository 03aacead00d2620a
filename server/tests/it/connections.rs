//! Clients that are slow or many, and what every answer says about the queue.

use std::time::Duration;

use hone_server::{Limits, ServerConfig};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{BASE, World, read};

async fn world(change: impl FnOnce(Limits) -> Limits) -> World {
    World::with(|config| ServerConfig { limits: change(config.limits), ..config }).await
}

async fn connect(world: &World) -> TcpStream {
    let address = world.server.base_url.trim_start_matches("http://").trim_end_matches("/v1").to_owned();
    TcpStream::connect(address).await.unwrap()
}

/// Everything that comes until the server closes. Only so that a test that hangs ends.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    // Being cut off is an end as well.
    let _ = tokio::time::timeout(Duration::from_secs(60), read).await.expect("the server closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

const SHORT: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let world = world(|limits| Limits { head: SHORT, ..limits }).await;
    let mut silent = connect(&world).await;
    assert_eq!(rest(&mut silent).await, "");
    let mut slow = connect(&world).await;
    slow.write_all(b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ").await.unwrap();
    assert!(!rest(&mut slow).await.contains("200 OK"));
    assert_eq!(world.get("/models").await.0, 200);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_a_408() {
    let world = world(|limits| Limits { body_window: SHORT, ..limits }).await;
    for (path, kind, start) in [
        ("/v1/chat/completions", "application/json", "{\"model\":"),
        (
            "/v1/files",
            "multipart/form-data; boundary=b",
            "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nba",
        ),
        ("/v1/batches", "application/json", "{"),
    ] {
        let mut stream = connect(&world).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nidempotency-key: k\r\ncontent-type: {kind}\r\ncontent-length: 999\r\n\r\n{start}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{path}: {answer}");
    }
    let incoming = std::fs::read_dir(world.folder.path().join("server/files")).map_or(0, Iterator::count);
    assert_eq!(incoming, 0);
}

/// What the parser refuses has no body and no id: the exception to what every other answer has.
#[tokio::test]
async fn what_is_no_request_is_refused_by_status_alone() {
    let world = world(|limits| limits).await;
    // Exactly as many bytes as are looked at: more of them, unread, would take the answer back.
    let start = "GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nx-long: ";
    let long = format!("{start}{}", "x".repeat((64 << 10) - start.len()));
    for (head, status) in [(long.as_str(), "431"), ("GET /v1/models HTTP/1.1\r\nno header\r\n\r\n", "400")] {
        let mut stream = connect(&world).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.ends_with("\r\n\r\n") && !answer.contains("x-request-id"), "{answer}");
    }
    assert_eq!(world.get("/models").await.0, 200);
}

/// Only the head is sent: whoever waited for the body would wait in vain, or be told that it does not come.
#[tokio::test]
async fn a_body_that_is_declared_too_large_is_not_waited_for() {
    let world = world(|limits| limits).await;
    for (path, key) in
        [("/v1/chat/completions", ""), ("/v1/batches", "idempotency-key: k\r\n"), ("/v1/batches", "")]
    {
        let mut stream = connect(&world).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{key}content-type: application/json\r\ncontent-length: 33554433\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(std::str::from_utf8(&first).unwrap(), "HTTP/1.1 413", "{path}");
    }
    // A client that sends it all the same gets to read the answer.
    let body = vec![b' '; 40 << 20];
    let request =
        reqwest::Client::new().post(world.url("/batches")).header("content-type", "application/json");
    let (status, error) = read(request.body(body)).await;
    assert_eq!((status, &error["error"]["type"]), (413, &json!("invalid_request_error")));
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let world = world(|limits| Limits { connections: 3, ..limits }).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&world).await;
        stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        open.push(stream);
    }
    let answer = rest(&mut connect(&world).await).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("too_many_connections"), "{answer}");
    drop(open);
    let look = async {
        while !reqwest::get(world.url("/models")).await.is_ok_and(|answer| answer.status() == 200) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), look).await.expect("there is room again");
}

#[tokio::test]
async fn answers_say_how_full_the_queue_is() {
    let world = World::with(|config| ServerConfig { max_queue: 5, ..config }).await;
    let ask = async |stream: bool| {
        let body = json!({"model": BASE, "messages": [{"role": "user", "content": "x"}], "max_tokens": 4, "stream": stream});
        reqwest::Client::new().post(world.url("/chat/completions")).json(&body).send().await.unwrap()
    };
    let streamed = ask(true).await;
    assert_eq!(streamed.headers()["x-ratelimit-limit-requests"], "5");
    assert_eq!(streamed.headers()["x-ratelimit-remaining-requests"], "4");
    drop(streamed.text().await.unwrap());
    let whole = ask(false).await;
    let headers = whole.headers();
    assert!(headers["x-ratelimit-reset-requests"].to_str().unwrap().ends_with('s'));
    assert!(headers["openai-processing-ms"].to_str().unwrap().parse::<u64>().is_ok());
    assert_eq!(headers["openai-version"], "2020-10-01");
    assert!(headers.get("x-ratelimit-limit-tokens").is_none(), "there is no limit on tokens");
}
