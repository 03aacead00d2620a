//! Whatever is sent, no answer is a 5xx and every answer is JSON.

use std::{cell::RefCell, sync::LazyLock};

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::harness::{BASE, World};

const CASES: u32 = 300;

struct Server {
    runtime: Runtime,
    world: World,
    /// Where parts of an upload go that waits for them.
    parts: String,
    client: reqwest::Client,
}

thread_local! {
    /// Each of these tests has its own server; proptest calls it from one thread.
    static SERVER: RefCell<LazyLock<Server>> = const { RefCell::new(LazyLock::new(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let world = runtime.block_on(World::new());
        let request = json!({"bytes": 9, "filename": "a", "mime_type": "text/plain", "purpose": "user_data"});
        let (_, upload) = runtime.block_on(world.post("/uploads", &request));
        let parts = format!("/uploads/{}/parts", upload["id"].as_str().unwrap());
        Server { runtime, world, parts, client: reqwest::Client::new() }
    })) };
}

/// Sends a body and looks at the answer.
fn send(path: &str, kind: &str, body: Vec<u8>) -> Result<u16, TestCaseError> {
    SERVER.with_borrow(|server| {
        server.runtime.block_on(async {
            let request = server.client.post(server.world.url(path)).header("content-type", kind).body(body);
            let response = request.send().await.map_err(|e| TestCaseError::fail(format!("{path}: {e}")))?;
            let status = response.status().as_u16();
            let text = response.text().await.map_err(|e| TestCaseError::fail(format!("{path}: {e}")))?;
            prop_assert!(status < 500, "{} answers {}: {}", path, status, text);
            if status >= 400 {
                let error: Value = serde_json::from_str(&text).map_err(|e| {
                    TestCaseError::fail(format!("{path} answers {status} with `{text}`: {e}"))
                })?;
                prop_assert!(error["error"]["message"].is_string(), "{}", text);
            }
            Ok(status)
        })
    })
}

/// A good body for every POST that takes JSON.
fn good_bodies() -> Vec<(&'static str, Value)> {
    let message = json!({"role": "user", "content": "x"});
    let grader = json!({"type": "string_check", "name": "c", "input": "{{sample.output_text}}",
        "reference": "{{item.a}}", "operation": "eq"});
    let multi =
        json!({"type": "multi", "name": "m", "graders": {"c": grader}, "calculate_output": "1 - c * 2"});
    let method = json!({"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": "auto"}}});
    vec![
        (
            "/chat/completions",
            json!({"model": BASE, "messages": [message], "max_tokens": 1, "n": 1,
            "temperature": 0.5, "top_p": 0.9, "stop": ["a"], "seed": 1, "stream": false,
            "response_format": {"type": "text"}, "metadata": {}}),
        ),
        (
            "/fine_tuning/jobs",
            json!({"model": BASE, "training_file": "file-1", "validation_file": null, "suffix": "s",
            "seed": 1, "method": method, "hyperparameters": {"n_epochs": "auto"}, "metadata": {"k": "v"},
            "integrations": []}),
        ),
        (
            "/uploads",
            json!({"bytes": 1, "filename": "a", "mime_type": "text/plain", "purpose": "user_data",
            "expires_after": {"anchor": "created_at", "seconds": 3600}}),
        ),
        ("/uploads/upload_1/complete", json!({"part_ids": ["part_1"], "md5": "00"})),
        ("/uploads/upload_1/cancel", json!({})),
        (
            "/batches",
            json!({"input_file_id": "file-1", "endpoint": "/v1/chat/completions",
            "completion_window": "24h", "metadata": {"k": "v"},
            "output_expires_after": {"anchor": "created_at", "seconds": 3600}}),
        ),
        ("/batches/batch_1/cancel", json!({})),
        ("/fine_tuning/jobs/ftjob-1/cancel", json!({})),
        ("/fine_tuning/jobs/ftjob-1/pause", json!({})),
        ("/fine_tuning/jobs/ftjob-1/resume", json!({})),
        (
            "/fine_tuning/alpha/graders/run",
            json!({"grader": multi, "model_sample": "{\"a\": 1}", "item": {"a": "b"}}),
        ),
        ("/fine_tuning/alpha/graders/validate", json!({"grader": multi})),
        ("/fine_tuning/checkpoints/ft:a:b::c/permissions", json!({"project_ids": ["p"]})),
        ("/completions", json!({"model": BASE, "prompt": "x"})),
        ("/embeddings", json!({"model": BASE, "input": "x"})),
    ]
}

/// Some JSON that nobody expects.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!([])),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(1e308)),
        Just(json!(u64::MAX)),
        any::<String>().prop_map(Value::from),
        Just(json!("../../etc/passwd\u{0}")),
        Just(json!("x".repeat(5000))),
        Just(json!([[[[[[{"a": [{}]}]]]]]])),
        ".{0,9}".prop_map(|key| json!({ key: null })),
    ]
}

/// Puts `odd` in the place of the `at`th value within `value`, or takes that away.
fn change(value: &mut Value, at: &mut usize, odd: &Option<Value>) {
    match value {
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            for key in keys {
                if *at == 0 {
                    match odd {
                        Some(odd) => map.insert(key, odd.clone()),
                        None => map.remove(&key),
                    };
                    *at = usize::MAX;
                    return;
                }
                *at -= 1;
                if let Some(inner) = map.get_mut(&key) {
                    change(inner, at, odd);
                }
                if *at == usize::MAX {
                    return;
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| {
            if *at != usize::MAX {
                change(item, at, odd);
            }
        }),
        _ => {}
    }
}

fn multipart(parts: &[(String, Option<String>, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, content) in parts {
        let file = file.as_ref().map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body.extend_from_slice(
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").as_bytes(),
        );
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b--\r\n");
    body
}

fn parts() -> impl Strategy<Value = Vec<(String, Option<String>, Vec<u8>)>> {
    let name = prop_oneof![
        Just("file".to_owned()),
        Just("data".to_owned()),
        Just("purpose".to_owned()),
        Just("expires_after[seconds]".to_owned()),
        Just("expires_after[anchor]".to_owned()),
        "[a-z]{0,5}",
    ];
    let content = prop_oneof![
        Just(b"fine-tune".to_vec()),
        Just(b"batch".to_vec()),
        Just(b"user_data".to_vec()),
        Just(b"created_at".to_vec()),
        Just(b"3600".to_vec()),
        Just(b"{\"a\":1}\n{}\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..60),
    ];
    let file = prop::option::of(prop_oneof![Just("../../a.jsonl".to_owned()), "[^\"\\r\\n]{0,12}"]);
    prop::collection::vec((name, file, content), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, ..ProptestConfig::default() })]

    #[test]
    fn bodies_that_are_nearly_right(
        which in 0usize..15, at in 0usize..14, odd in prop::option::weighted(0.8, odd()),
    ) {
        let (path, mut body) = good_bodies().swap_remove(which);
        let mut at = at;
        change(&mut body, &mut at, &odd);
        send(path, "application/json", body.to_string().into_bytes())?;
    }

    #[test]
    fn bodies_that_are_anything(which in 0usize..15, body in prop::collection::vec(any::<u8>(), 0..64)) {
        let (path, _) = good_bodies().swap_remove(which);
        send(path, "application/json", body)?;
    }

    #[test]
    fn multipart_bodies_of_odd_parts(
        parts in parts(), cut in prop::option::weighted(0.2, 0usize..300), to_upload in any::<bool>(),
    ) {
        let mut body = multipart(&parts);
        body.truncate(cut.unwrap_or(body.len()));
        let path = if to_upload { SERVER.with_borrow(|server| server.parts.clone()) } else { "/files".into() };
        send(&path, "multipart/form-data; boundary=b", body)?;
    }

    #[test]
    fn multipart_bodies_with_broken_bytes(
        parts in parts(),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut body = multipart(&parts);
        for (at, byte) in hits {
            let at = at.index(body.len());
            body[at] = byte;
        }
        send("/files", "multipart/form-data; boundary=b", body)?;
    }

    #[test]
    fn training_files_of_odd_lines(lines in prop::collection::vec(prop_oneof![
        Just(b"{\"messages\":[]}".to_vec()),
        odd().prop_map(|value| value.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..30),
    ], 0..5)) {
        let purpose = ("purpose".to_owned(), None, b"fine-tune".to_vec());
        let file = ("file".to_owned(), Some("a.jsonl".to_owned()), lines.join(&b'\n'));
        send("/files", "multipart/form-data; boundary=b", multipart(&[purpose, file]))?;
    }

    #[test]
    fn queries_and_ids_that_are_anything(id in "[^/?#]{1,20}", query in "[ -~]{0,30}") {
        SERVER.with_borrow(|server| server.runtime.block_on(async {
            for path in ["/files", "/fine_tuning/jobs", "/batches", "/models"] {
                let mut url = reqwest::Url::parse(&server.world.url(path)).unwrap();
                url.set_query(Some(&query));
                let listed = server.client.get(url.clone()).send().await.unwrap();
                prop_assert!(listed.status().as_u16() < 500, "{} {}", url, listed.status());
                url.path_segments_mut().unwrap().push(&id);
                let got = server.client.get(url.clone()).send().await.unwrap();
                prop_assert!(got.status().as_u16() < 500, "{} {}", url, got.status());
                prop_assert!(got.json::<Value>().await.is_ok(), "{} is not answered in JSON", url);
            }
            Ok(())
        }))?;
    }
}
