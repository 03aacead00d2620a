//! One key, one thing: over retries, restarts and kills.

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::harness::{BASE, World, data, read};

async fn post(world: &World, path: &str, key: &str, body: &Value) -> (u16, Value) {
    read(reqwest::Client::new().post(world.url(path)).header("idempotency-key", key).json(body)).await
}

async fn upload(world: &World, key: &str, content: &str) -> (u16, Value) {
    let form = Form::new()
        .part("file", Part::bytes(content.as_bytes().to_vec()).file_name("a.jsonl"))
        .text("purpose", "batch");
    read(reqwest::Client::new().post(world.url("/files")).header("Idempotency-Key", key).multipart(form))
        .await
}

#[tokio::test]
async fn everything_that_is_created_is_created_once() {
    let world = World::new().await;
    let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": BASE, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}});
    let (_, file) = upload(&world, "f", &format!("{line}\n")).await;
    assert_eq!(upload(&world, "f", &format!("{line}\n")).await, (200, file.clone()));
    let train = world.upload(&data(10)).await;
    let job = |seed: u32| json!({"model": BASE, "training_file": train, "seed": seed});
    let batch = |window: &str| json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": window});
    let part = |bytes: u32| json!({"bytes": bytes, "filename": "a", "mime_type": "text/plain", "purpose": "user_data"});
    let mut made = Vec::new();
    for (path, body, other) in [
        ("/fine_tuning/jobs", job(1), job(2)),
        ("/batches", batch("24h"), batch("25h")),
        ("/uploads", part(3), part(4)),
    ] {
        let (status, first) = post(&world, path, "k", &body).await;
        assert_eq!(status, 200, "{first}");
        let again = futures::future::join_all((0..4).map(|_| post(&world, path, "k", &body))).await;
        assert!(again.iter().all(|(status, again)| (*status, again) == (200, &first)), "{again:?}");
        let (status, error) = post(&world, path, "k", &other).await;
        assert_eq!((status, &error["error"]["code"]), (400, &json!("idempotency_key_reused")), "{path}");
        made.push((path, body, first));
    }
    let (status, error) = upload(&world, "f", "{}\n").await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!("idempotency_key_reused")));
    let world = world.restart().await;
    for (path, body, first) in made {
        assert_eq!(post(&world, path, "k", &body).await, (200, first), "{path}");
    }
    for path in ["/fine_tuning/jobs", "/batches"] {
        assert_eq!(world.get(path).await.1["data"].as_array().unwrap().len(), 1, "{path}");
    }
}

#[tokio::test]
async fn a_kill_before_the_answer_makes_nothing_twice() {
    let world = World::new().await;
    let job = json!({"model": BASE, "training_file": world.upload(&data(10)).await});
    let (_, first) = post(&world, "/fine_tuning/jobs", "k", &job).await;
    let folder = world.folder.path().join("server/answers");
    let mut forgotten = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mut kept: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        kept["answer"] = Value::Null;
        std::fs::write(&path, kept.to_string()).unwrap();
        forgotten += 1;
    }
    // The upload of the training file was made with a key of its own.
    assert_eq!(forgotten, 2);
    let world = world.restart().await;
    let (status, again) = post(&world, "/fine_tuning/jobs", "k", &job).await;
    assert_eq!((status, &again["id"]), (200, &first["id"]));
    assert_eq!(world.get("/fine_tuning/jobs").await.1["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_refused_request_does_not_use_its_key_up() {
    let world = World::new().await;
    let train = world.upload(&data(10)).await;
    let job = |suffix: &str| json!({"model": BASE, "training_file": train, "suffix": suffix});
    assert_eq!(post(&world, "/fine_tuning/jobs", "k", &job("a:b")).await.0, 400);
    assert_eq!(post(&world, "/fine_tuning/jobs", "k", &job("a-b")).await.0, 200);
    assert_eq!(upload(&world, "u", "no\n").await.0, 400);
    assert_eq!(upload(&world, "u", "{}\n").await.0, 200);
    let (status, error) = post(&world, "/fine_tuning/jobs", &"x".repeat(256), &job("a")).await;
    assert_eq!((status, &error["error"]["param"]), (400, &json!("Idempotency-Key")));
}
