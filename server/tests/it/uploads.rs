//! Files in parts.

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::harness::{World, data, read};

async fn begin(world: &World, bytes: usize) -> String {
    let body = json!({"bytes": bytes, "filename": "../big.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"});
    let (status, upload) = world.post("/uploads", &body).await;
    assert_eq!(
        (status, &upload["status"], &upload["file"]),
        (200, &json!("pending"), &Value::Null),
        "{upload}"
    );
    assert_eq!(upload["filename"], "big.jsonl");
    assert_eq!(upload["expires_at"].as_i64(), Some(upload["created_at"].as_i64().unwrap() + 3600));
    upload["id"].as_str().unwrap().to_owned()
}

async fn part(world: &World, upload: &str, data: &[u8]) -> (u16, Value) {
    let form = Form::new().part("data", Part::bytes(data.to_vec()).file_name("upload"));
    read(reqwest::Client::new().post(world.url(&format!("/uploads/{upload}/parts"))).multipart(form)).await
}

async fn complete(world: &World, upload: &str, body: Value) -> (u16, Value) {
    world.post(&format!("/uploads/{upload}/complete"), &body).await
}

fn left(world: &World) -> Vec<std::path::PathBuf> {
    let folder = world.folder.path().join("server/uploads");
    let parts = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path().join("parts"));
    parts.filter(|parts| parts.exists()).collect()
}

#[tokio::test]
async fn parts_that_come_side_by_side_make_a_file() {
    let world = World::new().await;
    let content = data(40);
    let pieces: Vec<&[u8]> = content.as_bytes().chunks(1000).collect();
    let upload = begin(&world, content.len()).await;
    let parts = futures::future::join_all(pieces.iter().map(|piece| part(&world, &upload, piece))).await;
    let ids: Vec<_> = parts.iter().map(|(_, part)| part["id"].clone()).collect();
    assert!(
        parts.iter().all(|(status, part)| *status == 200 && part["object"] == "upload.part"),
        "{parts:?}"
    );
    // A server that stops in between forgets nothing.
    let world = world.restart().await;
    let (status, done) = complete(&world, &upload, json!({"part_ids": ids, "md5": md5(&content)})).await;
    assert_eq!((status, &done["status"]), (200, &json!("completed")), "{done}");
    assert_eq!(done["file"]["filename"], "big.jsonl");
    assert_eq!(world.content(&done["file"]["id"]).await, content);
    assert_eq!(left(&world), Vec::<std::path::PathBuf>::new());
    let (status, again) = complete(&world, &upload, json!({"part_ids": ids})).await;
    assert_eq!((status, again["error"]["message"].as_str().unwrap().contains("is complete")), (400, true));
}

/// By the tool that everybody has.
fn md5(content: &str) -> String {
    use md5::{Digest, Md5};
    Md5::digest(content).iter().map(|byte| format!("{byte:02X}")).collect()
}

#[tokio::test]
async fn what_does_not_add_up_is_refused_and_can_be_mended() {
    let world = World::new().await;
    let content = data(2);
    let upload = begin(&world, content.len()).await;
    let (_, whole) = part(&world, &upload, content.as_bytes()).await;
    let (_, more) = part(&world, &upload, b"{}\n").await;
    let (whole, more) = (&whole["id"], &more["id"]);
    for (body, param) in [
        (json!({"part_ids": [whole, more]}), "part_ids"),
        (json!({"part_ids": [whole, whole]}), "part_ids"),
        (json!({"part_ids": []}), "part_ids"),
        (json!({"part_ids": ["part_nobody"]}), "part_ids"),
        (json!({"part_ids": ["../upload"]}), "part_ids"),
        (json!({"part_ids": [whole], "md5": "00"}), "md5"),
        (json!({}), "part_ids"),
    ] {
        let (status, error) = complete(&world, &upload, body).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)), "{error}");
    }
    assert_eq!(complete(&world, &upload, json!({"part_ids": [whole]})).await.0, 200);
}

#[tokio::test]
async fn what_is_not_json_lines_is_refused_when_it_is_whole() {
    let world = World::new().await;
    let upload = begin(&world, 6).await;
    let (_, part) = part(&world, &upload, b"{}\nno\n").await;
    let (status, error) = complete(&world, &upload, json!({"part_ids": [part["id"]]})).await;
    assert_eq!(status, 400);
    assert!(error["error"]["message"].as_str().unwrap().contains("line 2"), "{error}");
    assert_eq!(world.get("/files").await.1["data"], json!([]));
}

#[tokio::test]
async fn an_upload_that_is_over_takes_nothing() {
    let world = World::new().await;
    let upload = begin(&world, 3).await;
    part(&world, &upload, b"{}\n").await;
    let (status, cancelled) = world.post(&format!("/uploads/{upload}/cancel"), &json!({})).await;
    assert_eq!((status, &cancelled["status"]), (200, &json!("cancelled")));
    assert_eq!(part(&world, &upload, b"{}\n").await.0, 400);
    assert_eq!(world.post(&format!("/uploads/{upload}/cancel"), &json!({})).await.0, 400);
    assert_eq!(left(&world), Vec::<std::path::PathBuf>::new());
    assert_eq!(world.post("/uploads/upload_nobody/cancel", &json!({})).await.0, 404);

    let late = begin(&world, 3).await;
    let path = world.folder.path().join("server/uploads").join(&late).join("upload.json");
    let mut record: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    record["upload"]["expires_at"] = json!(1);
    std::fs::write(&path, record.to_string()).unwrap();
    let (status, error) = part(&world, &late, b"{}\n").await;
    assert_eq!((status, error["error"]["message"].as_str().unwrap().contains("expired")), (400, true));
}

#[tokio::test]
async fn sizes_have_limits() {
    let world = World::new().await;
    let body = |bytes: u64, purpose: &str| json!({"bytes": bytes, "filename": "a", "mime_type": "text/plain", "purpose": purpose});
    for (bytes, purpose, param) in [
        (0, "fine-tune", "bytes"),
        ((8 << 30) + 1, "fine-tune", "bytes"),
        ((200 << 20) + 1, "batch", "bytes"),
        (1, "nope", "purpose"),
    ] {
        let (status, error) = world.post("/uploads", &body(bytes, purpose)).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)), "{error}");
    }
    let upload = begin(&world, 3).await;
    let (status, _) = part(&world, &upload, &vec![b' '; (64 << 20) + 1]).await;
    assert_eq!(status, 413);
    assert_eq!(part(&world, &upload, b"").await.0, 400);
}
