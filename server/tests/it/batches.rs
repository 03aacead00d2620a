//! Batches: checked, run, cancelled, expired, picked up by the next server.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{BASE, World};

const CHAT: &str = "/v1/chat/completions";

fn line(id: &str, tokens: u32) -> Value {
    let message = json!({"role": "user", "content": "Make a form."});
    let body = json!({"model": BASE, "messages": [message], "max_tokens": tokens, "temperature": 0});
    json!({"custom_id": id, "method": "POST", "url": CHAT, "body": body})
}

fn lines(lines: impl IntoIterator<Item = Value>) -> String {
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}

async fn begin(world: &World, content: String) -> String {
    let file = world.file("batch", content).await;
    let body =
        json!({"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", "metadata": {"k": "v"}});
    let (status, batch) = world.post("/batches", &body).await;
    assert_eq!((status, &batch["status"]), (200, &json!("validating")), "{batch}");
    batch["id"].as_str().unwrap().to_owned()
}

/// Waits until a batch is as it should be.
async fn until(world: &World, id: &str, done: impl Fn(&Value) -> bool) -> Value {
    let look = async {
        loop {
            let (_, batch) = world.get(&format!("/batches/{id}")).await;
            if done(&batch) {
                return batch;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), look).await.expect("the batch gets there")
}

async fn end(world: &World, id: &str) -> Value {
    let over = ["completed", "failed", "cancelled", "expired"];
    until(world, id, |batch| over.contains(&batch["status"].as_str().unwrap())).await
}

/// A file of the batch by `custom_id`, each of which has to be there once.
async fn answers(world: &World, file: &Value) -> std::collections::BTreeMap<String, Value> {
    let content = world.content(file).await;
    let lines = content.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let answers: std::collections::BTreeMap<_, _> =
        lines.map(|line| (line["custom_id"].as_str().unwrap().to_owned(), line)).collect();
    assert_eq!(answers.len(), content.lines().count(), "{content}");
    answers
}

#[tokio::test]
async fn every_request_is_answered_in_one_of_two_files() {
    let world = World::new().await;
    let mut bad = line("bad", 4);
    bad["body"]["temperature"] = json!(9);
    let input = lines((0..30).map(|n| line(&format!("r{n}"), 4)).chain([bad]));
    let id = begin(&world, input).await;
    let batch = end(&world, &id).await;
    assert_eq!(batch["status"], "completed", "{batch}");
    assert_eq!(batch["request_counts"], json!({"total": 31, "completed": 30, "failed": 1}));
    let good = answers(&world, &batch["output_file_id"]).await;
    assert_eq!(good.len(), 30);
    let first = &good["r7"];
    assert_eq!((&first["response"]["status_code"], &first["error"]), (&json!(200), &Value::Null));
    assert_eq!(first["response"]["body"]["object"], "chat.completion");
    assert!(first["response"]["request_id"].as_str().unwrap().starts_with("req_"));
    let wrong = answers(&world, &batch["error_file_id"]).await;
    assert_eq!(wrong["bad"]["response"]["status_code"], 400);
    assert_eq!(wrong["bad"]["response"]["body"]["error"]["param"], "temperature");
    let used: u64 =
        good.values().map(|l| l["response"]["body"]["usage"]["total_tokens"].as_u64().unwrap()).sum();
    assert_eq!(batch["usage"]["total_tokens"], json!(used));
    assert_eq!((&batch["model"], &batch["metadata"]), (&json!(BASE), &json!({"k": "v"})));
    for time in ["in_progress_at", "finalizing_at", "completed_at"] {
        assert!(batch[time].is_i64(), "{time}: {batch}");
    }
    let file = world.get(&format!("/files/{}", batch["output_file_id"].as_str().unwrap())).await.1;
    assert_eq!(file["purpose"], "batch_output");
    assert_eq!(world.post(&format!("/batches/{id}/cancel"), &json!({})).await.0, 400);
}

#[tokio::test]
async fn an_input_that_makes_no_sense_fails_by_line() {
    let world = World::new().await;
    let id = begin(&world, lines([line("a", 1), line("a", 1)])).await;
    let batch = end(&world, &id).await;
    assert_eq!((&batch["status"], &batch["output_file_id"]), (&json!("failed"), &Value::Null));
    let error = &batch["errors"]["data"][0];
    assert_eq!((&error["code"], &error["line"]), (&json!("duplicate_custom_id"), &json!(2)), "{batch}");
    let mut other = line("a", 1);
    other["body"]["model"] = json!("nobody");
    let id = begin(&world, lines([other])).await;
    assert_eq!(end(&world, &id).await["errors"]["data"][0]["code"], "model_not_found");
}

#[tokio::test]
async fn bad_requests_make_no_batch() {
    let world = World::new().await;
    let (batch, tune) = (world.file("batch", "{}\n").await, world.file("fine-tune", "{}\n").await);
    let request = |change: Value| {
        let mut request = json!({"input_file_id": batch, "endpoint": CHAT, "completion_window": "24h"});
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        request
    };
    for (change, param) in [
        (json!({"input_file_id": "file-nobody"}), "input_file_id"),
        (json!({"input_file_id": tune}), "input_file_id"),
        (json!({"endpoint": "/v1/embeddings"}), "endpoint"),
        (json!({"completion_window": "1h"}), "completion_window"),
        (json!({"output_expires_after": {"anchor": "created_at", "seconds": 1}}), "output_expires_after"),
        (json!({"metadata": {"k": "x".repeat(513)}}), "metadata"),
    ] {
        let (status, error) = world.post("/batches", &request(change)).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)), "{error}");
    }
    assert_eq!(world.get("/batches").await.1["data"], json!([]));
    assert_eq!(world.get("/batches/batch_nobody").await.0, 404);
}

#[tokio::test]
async fn a_cancelled_batch_keeps_what_it_has() {
    let world = World::new().await;
    let id = begin(&world, lines((0..400).map(|n| line(&format!("r{n}"), 40)))).await;
    let waiting = begin(&world, lines([line("never", 4)])).await;
    until(&world, &id, |batch| batch["request_counts"]["completed"].as_u64() >= Some(3)).await;
    until(&world, &waiting, |batch| batch["status"] == "in_progress").await;
    let (_, other) = world.post(&format!("/batches/{waiting}/cancel"), &json!({})).await;
    assert_eq!((&other["status"], &other["output_file_id"]), (&json!("cancelled"), &Value::Null));
    let (status, batch) = world.post(&format!("/batches/{id}/cancel"), &json!({})).await;
    assert_eq!((status, &batch["status"]), (200, &json!("cancelling")), "{batch}");
    let batch = end(&world, &id).await;
    assert_eq!(batch["status"], "cancelled");
    let done = answers(&world, &batch["output_file_id"]).await;
    let not_run = answers(&world, &batch["error_file_id"]).await;
    assert_eq!(
        (done.len() + not_run.len(), done.len() as u64),
        (400, batch["request_counts"]["completed"].as_u64().unwrap())
    );
    assert!(
        not_run.values().all(|line| line["error"]["code"] == "batch_cancelled" && line["response"].is_null())
    );
    let (_, page) = world.get("/batches?limit=1").await;
    assert_eq!((&page["data"][0]["id"], &page["has_more"]), (&json!(waiting), &json!(true)));
}

#[tokio::test]
async fn the_next_server_repeats_nothing_and_expires_what_is_due() {
    let world = World::new().await;
    let id = begin(&world, lines((0..60).map(|n| line(&format!("r{n}"), 30)))).await;
    until(&world, &id, |batch| batch["request_counts"]["completed"].as_u64() >= Some(3)).await;
    let output = world.folder.path().join("server/batches").join(&id).join("output.jsonl");
    world.server.stop().await.unwrap();
    // As a server that is killed while it writes leaves it.
    let before = std::fs::read_to_string(&output).unwrap();
    std::fs::write(&output, format!("{before}{{\"id\":\"batch_req_x\",\"cust")).unwrap();
    let server = hone_server::spawn_local(crate::harness::config(world.folder.path())).await.unwrap();
    let world = World { client: crate::harness::client(&server), server, folder: world.folder };
    let batch = end(&world, &id).await;
    assert_eq!(batch["request_counts"], json!({"total": 60, "completed": 60, "failed": 0}), "{batch}");
    let content = world.content(&batch["output_file_id"]).await;
    assert!(content.starts_with(&before), "what was answered stays as it was");
    assert_eq!(answers(&world, &batch["output_file_id"]).await.len(), 60);

    let late = begin(&world, lines((0..400).map(|n| line(&format!("r{n}"), 40)))).await;
    until(&world, &late, |batch| batch["request_counts"]["completed"].as_u64() >= Some(1)).await;
    let path = world.folder.path().join("server/batches").join(&late).join("batch.json");
    world.server.stop().await.unwrap();
    let mut record: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    record["batch"]["expires_at"] = json!(1);
    std::fs::write(&path, record.to_string()).unwrap();
    let server = hone_server::spawn_local(crate::harness::config(world.folder.path())).await.unwrap();
    let world = World { client: crate::harness::client(&server), server, folder: world.folder };
    let batch = end(&world, &late).await;
    assert_eq!(batch["status"], "expired", "{batch}");
    let not_run = answers(&world, &batch["error_file_id"]).await;
    assert!(!not_run.is_empty() && not_run.values().all(|line| line["error"]["code"] == "batch_expired"));
}

#[tokio::test]
async fn whoever_waits_is_served_while_a_batch_runs() {
    let world = World::new().await;
    let id = begin(&world, lines((0..200).map(|n| line(&format!("r{n}"), 40)))).await;
    until(&world, &id, |batch| batch["request_counts"]["completed"].as_u64() >= Some(1)).await;
    for _ in 0..3 {
        world.ask(BASE).await;
    }
    let (_, batch) = world.get(&format!("/batches/{id}")).await;
    assert_eq!(batch["status"], "in_progress", "the batch was over before anybody asked: {batch}");
    world.post(&format!("/batches/{id}/cancel"), &json!({})).await;
    end(&world, &id).await;
}
