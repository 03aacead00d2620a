//! Files, pages, and what holds for every endpoint.

use hone::model::client::Secret;
use reqwest::{StatusCode, multipart};
use serde_json::{Value, json};

use crate::harness::{World, data};

fn url(world: &World, path: &str) -> String {
    format!("{}{path}", world.server.base_url)
}

async fn get(world: &World, path: &str) -> (StatusCode, Value) {
    let response = reqwest::get(url(world, path)).await.unwrap();
    assert!(response.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
    (response.status(), response.json().await.unwrap())
}

async fn post(world: &World, form: multipart::Form) -> (StatusCode, Value) {
    let response = reqwest::Client::new().post(url(world, "/files")).multipart(form).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

fn part(content: &str, name: &str) -> multipart::Part {
    multipart::Part::bytes(content.as_bytes().to_vec()).file_name(name.to_owned())
}

#[tokio::test]
async fn a_file_comes_back_as_it_was() {
    let world = World::new().await;
    let content = data(3);
    let id = world.upload(&content).await;
    let file = world.client.file(&id).await.unwrap();
    assert_eq!(
        (file.bytes, file.filename.as_str(), file.status.as_str()),
        (content.len() as u64, "train.jsonl", "processed")
    );
    assert_eq!(world.client.file_content(&id).await.unwrap(), content.as_bytes());
    world.client.delete_file(&id).await.unwrap();
    assert_eq!(world.client.file(&id).await.unwrap_err().status(), Some(404));
}

#[tokio::test]
async fn parts_come_in_any_order_and_names_lose_their_path() {
    let world = World::new().await;
    let form =
        multipart::Form::new().part("file", part("{}\n", "/etc/../a.jsonl")).text("purpose", "fine-tune");
    let (status, file) = post(&world, form).await;
    assert_eq!((status, &file["filename"]), (StatusCode::OK, &json!("a.jsonl")));
    let form = multipart::Form::new()
        .text("purpose", "assistants")
        .text("expires_after[anchor]", "created_at")
        .text("expires_after[seconds]", "3600")
        .part("file", part("anything", "a.txt"));
    let (_, file) = post(&world, form).await;
    assert_eq!(file["expires_at"].as_i64().unwrap(), file["created_at"].as_i64().unwrap() + 3600);
}

#[tokio::test]
async fn bad_uploads_are_refused_and_leave_nothing() {
    let world = World::new().await;
    let purpose = |text: &str| multipart::Form::new().text("purpose", text.to_owned());
    let deep = format!("{{}}\n{{\"a\":{}{}}}\n", "[".repeat(5000), "]".repeat(5000));
    let latin = multipart::Part::bytes(b"{}\n{\"a\":\"\xe9\"}\n".to_vec()).file_name("a.jsonl");
    for (form, param, words) in [
        (purpose("fine-tune").part("file", latin), "file", "line 2"),
        (purpose("fine-tune").part("file", part(&deep, "a.jsonl")), "file", "line 2"),
        (purpose("fine-tune").part("file", part("{\"a\":\"\\ud83e\"}\n", "a.jsonl")), "file", "line 1"),
        (purpose("nope").part("file", part("{}", "a")), "purpose", "`nope`"),
        (purpose("fine-tune"), "file", "missing"),
        (multipart::Form::new().part("file", part("{}", "a")), "purpose", "missing"),
        (purpose("fine-tune").part("file", part("{}\nhello\n", "a.jsonl")), "file", "line 2"),
        (purpose("fine-tune").part("file", part("", "a.jsonl")), "file", "empty"),
        (purpose("batch").text("expires_after[seconds]", "3600"), "expires_after", "anchor"),
        (
            purpose("batch").text("expires_after[anchor]", "created_at").text("expires_after[seconds]", "10"),
            "expires_after",
            "3600",
        ),
    ] {
        let (status, body) = post(&world, form).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(body["error"]["param"], param, "{body}");
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert!(body["error"]["message"].as_str().unwrap().contains(words), "{body}");
    }
    assert_eq!(get(&world, "/files").await.1["data"], json!([]));
    let left: Vec<_> = std::fs::read_dir(world.folder.path().join("server/files")).unwrap().collect();
    assert_eq!(left.len(), 0, "{left:?}");
}

#[tokio::test]
async fn lists_are_paged() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.upload(&data(1)).await);
    }
    let (_, first) = get(&world, "/files?limit=2").await;
    assert_eq!((first["data"].as_array().unwrap().len(), &first["has_more"]), (2, &json!(true)));
    assert_eq!(first["first_id"], json!(ids[4]));
    let after = first["last_id"].as_str().unwrap();
    let (_, rest) = get(&world, &format!("/files?limit=9&after={after}")).await;
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["has_more"]), (3, &json!(false)));
    let (_, oldest) = get(&world, "/files?order=asc&limit=1").await;
    assert_eq!(oldest["data"][0]["id"], json!(ids[0]));
    assert_eq!(get(&world, "/files?purpose=batch").await.1["data"], json!([]));
    for bad in ["limit=0", "limit=x", "after=file-nobody", "order=up"] {
        assert_eq!(get(&world, &format!("/files?{bad}")).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn a_repeated_upload_with_a_key_is_one_file() {
    let world = World::new().await;
    let upload = async || {
        let form = multipart::Form::new().text("purpose", "fine-tune").part("file", part("{}", "a.jsonl"));
        let request =
            reqwest::Client::new().post(url(&world, "/files")).header("Idempotency-Key", "k").multipart(form);
        request.send().await.unwrap().json::<Value>().await.unwrap()["id"].clone()
    };
    assert_eq!(upload().await, upload().await);
}

#[tokio::test]
async fn what_is_not_there_is_a_404_in_json() {
    let world = World::new().await;
    for (path, code) in [
        ("/nothing", json!("unknown_url")),
        ("/files/file-nobody", Value::Null),
        ("/files/..%2f..%2fetc", Value::Null),
        ("/fine_tuning/jobs/ftjob-nobody", json!("fine_tune_not_found")),
        ("/models/ft:tiny:local::aaaaaaaa", json!("model_not_found")),
        ("/models/org%2Fname", json!("model_not_found")),
    ] {
        let (status, body) = get(&world, path).await;
        assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &code), "{path}: {body}");
    }
    // Not the ids of responses.
    for path in ["/responses/input_tokens", "/responses/compact"] {
        let (status, body) = world.post(path, &json!({})).await;
        assert_eq!((status, &body["error"]["code"]), (404, &json!("unknown_url")), "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(&format!("`/v1{path}`")), "{body}");
    }
    let wrong = reqwest::Client::new().put(url(&world, "/files")).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(wrong.json::<Value>().await.unwrap()["error"]["message"].is_string());
}

#[tokio::test]
async fn bodies_that_are_no_requests_are_named() {
    let world = World::new().await;
    let post = async |body: &'static str, kind: &str| {
        let request =
            reqwest::Client::new().post(url(&world, "/chat/completions")).header("content-type", kind);
        let response = request.body(body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap()["error"].clone())
    };
    assert_eq!(post("{}", "text/plain").await.0, 415);
    let (status, error) = post("{", "application/json").await;
    assert_eq!((status, error["message"].as_str().unwrap().contains("not JSON")), (400, true));
    let (status, error) = post(r#"{"model":"tiny"}"#, "application/json; charset=utf-8").await;
    assert_eq!(
        (status, &error["param"], &error["code"]),
        (400, &json!("messages"), &json!("missing_required_parameter"))
    );
}

#[tokio::test]
async fn a_key_is_asked_for_when_there_is_one() {
    let world =
        World::with(|config| hone_server::ServerConfig { api_key: Some(Secret::new("sk-1")), ..config })
            .await;
    assert_eq!(get(&world, "/models").await.0, StatusCode::UNAUTHORIZED);
    let ask = async |key: &str| {
        let request = reqwest::Client::new().get(url(&world, "/models")).bearer_auth(key);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!((ask("sk-2").await, ask("sk-1").await), (401, 200));
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let world = World::new().await;
    let request = reqwest::Client::new().get(url(&world, "/models")).header("origin", "https://evil.example");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn one_server_at_a_time_runs_on_a_folder() {
    let world = World::new().await;
    let root = world.folder.path().join("server");
    assert_eq!(hone_server::running(&root).as_ref(), Some(&world.server.base_url));
    let error = hone_server::spawn_local(crate::harness::config(world.folder.path())).await.unwrap_err();
    assert!(error.to_string().contains(&world.server.base_url), "{error}");
    world.server.stop().await.unwrap();
    assert_eq!(hone_server::running(&root), None);
}
