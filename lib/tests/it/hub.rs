//! Downloads from a hub that is slow, forgetful, closed, or lies.

use std::{fs, path::Path, time::Duration};

use hone::{
    cancel::Cancel,
    error::{Explain, Kind},
    event::Events,
    model::{
        client::{Endpoint, Retry, Secret},
        hub::{Contents, Hub, HubError, HubId},
    },
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{header, method, path, path_regex},
};

const COMMIT: &str = "0123456789abcdef";
const TOKEN: &str = "hf_secret";

fn weights() -> Vec<u8> {
    (0..200_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect()
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hub_at(url: &str) -> Hub {
    let retry = Retry { first_wait: Duration::from_millis(1), ..Retry::default() };
    let endpoint = Endpoint { retry, ..Endpoint::new("the hub", url) };
    Hub::new(endpoint, Some(Secret::new(TOKEN)), Cancel::new()).unwrap()
}

fn id(text: &str) -> HubId {
    HubId::parse(text).unwrap()
}

fn description(files: &[(&str, &[u8])]) -> Value {
    let file = |(name, bytes): &(&str, &[u8])| match name.ends_with(".json") {
        true => json!({ "rfilename": name, "size": bytes.len() }),
        false => json!({ "rfilename": name, "size": bytes.len(),
            "lfs": { "sha256": sum(bytes), "size": bytes.len(), "pointerSize": 130 } }),
    };
    let files: Vec<Value> = files.iter().map(file).collect();
    json!({ "id": "owner/model", "sha": COMMIT, "siblings": files, "cardData": { "license": "apache-2.0" } })
}

/// Answers a range request as real servers do.
fn serve(bytes: Vec<u8>) -> impl Fn(&Request) -> ResponseTemplate {
    move |request: &Request| {
        let range = request.headers.get("range").map(|range| range.to_str().unwrap().to_owned());
        match range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()) {
            Some(from) => ResponseTemplate::new(206)
                .insert_header("content-range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()))
                .set_body_bytes(bytes[from..].to_vec()),
            None => ResponseTemplate::new(200).set_body_bytes(bytes.clone()),
        }
    }
}

/// A hub with one repository.
async fn hub_with(files: &[(&str, &[u8])]) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path("/api/models/owner/model"))
        .and(header("authorization", format!("Bearer {TOKEN}").as_str()))
        .respond_with(ResponseTemplate::new(200).set_body_json(description(files)))
        .mount(&server)
        .await;
    for (name, bytes) in files {
        Mock::given(path(format!("/owner/model/resolve/{COMMIT}/{name}")))
            .respond_with(serve(bytes.to_vec()))
            .mount(&server)
            .await;
    }
    server
}

async fn fetch(url: &str, folder: &Path) -> Result<std::path::PathBuf, HubError> {
    let hub = hub_at(url);
    let found = hub.find(&id("owner/model")).await?;
    hub.fetch(&found, folder, &Events::none()).await
}

#[tokio::test]
async fn a_folder_comes_whole_and_is_not_fetched_again() {
    let weights = weights();
    let files: [(&str, &[u8]); 4] = [
        ("config.json", b"{}"),
        ("tokenizer.json", b"[]"),
        ("README.md", b"x"),
        ("model.safetensors", &weights),
    ];
    let server = hub_with(&files).await;
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("m");
    let found = hub_at(&server.uri()).find(&id("owner/model")).await.unwrap();
    assert_eq!((found.contents, found.licence.as_deref()), (Contents::Folder, Some("apache-2.0")));
    assert_eq!(fetch(&server.uri(), &folder).await.unwrap(), folder);
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights);
    assert!(!folder.join("README.md").exists());
    let asked = server.received_requests().await.unwrap().len();
    fetch(&server.uri(), &folder).await.unwrap();
    assert_eq!(
        server.received_requests().await.unwrap().len(),
        asked + 1,
        "only the description is asked again"
    );
}

#[tokio::test]
async fn a_download_goes_on_where_it_was_stopped() {
    let weights = weights();
    let server = hub_with(&[("m.gguf", &weights)]).await;
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("m");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(".commit"), COMMIT).unwrap();
    fs::write(folder.join("m.gguf.partial"), &weights[..300_000]).unwrap();
    assert_eq!(fetch(&server.uri(), &folder).await.unwrap(), folder.join("m.gguf"));
    assert_eq!(fs::read(folder.join("m.gguf")).unwrap(), weights);
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests[1].headers["range"], "bytes=300000-");
}

/// Sends the head and a part of the body, and hangs up: `parts` times, then properly.
async fn flaky(bytes: Vec<u8>, parts: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut left = parts;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..n]).to_lowercase();
            if request.starts_with("get /api") {
                let body = description(&[("m.gguf", &bytes)]).to_string();
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
                continue;
            }
            let from = request.split("range: bytes=").nth(1).and_then(|r| r.split('-').next()?.parse().ok());
            let from: usize = from.unwrap_or(0);
            let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{}\r\nconnection: close\r\n\r\n",
                bytes.len() - from,
                bytes.len() - 1,
                bytes.len(),
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let rest = &bytes[from..];
            let sent = if left > 0 { &rest[..rest.len().min(60_000)] } else { rest };
            stream.write_all(sent).await.unwrap();
            stream.flush().await.unwrap();
            left = left.saturating_sub(1);
        }
    });
    url
}

#[tokio::test]
async fn a_connection_that_breaks_again_and_again_is_taken_up_again() {
    let weights = weights();
    // More breaks than tries: every one that brought bytes counts anew.
    let url = flaky(weights.clone(), 9).await;
    let scratch = tempfile::tempdir().unwrap();
    let file = fetch(&url, &scratch.path().join("m")).await.unwrap();
    assert_eq!(fs::read(file).unwrap(), weights);
}

#[tokio::test]
async fn what_is_not_what_was_promised_is_thrown_away() {
    let weights = weights();
    let server = MockServer::start().await;
    let mut other = weights.clone();
    other[77] ^= 1;
    Mock::given(path("/api/models/owner/model"))
        .respond_with(ResponseTemplate::new(200).set_body_json(description(&[("m.gguf", &weights)])))
        .mount(&server)
        .await;
    Mock::given(path_regex("/resolve/")).respond_with(serve(other)).mount(&server).await;
    let scratch = tempfile::tempdir().unwrap();
    let error = fetch(&server.uri(), scratch.path().join("m").as_path()).await.unwrap_err();
    assert!(error.to_string().starts_with("`m.gguf` is not what the hub said"), "{error}");
    assert_eq!(error.kind(), Kind::Provider);
    assert!(!scratch.path().join("m/m.gguf.partial").exists() && !scratch.path().join("m/m.gguf").exists());
}

#[tokio::test]
async fn a_file_that_never_ends_is_cut_off() {
    let server = MockServer::start().await;
    Mock::given(path("/api/models/owner/model"))
        .respond_with(ResponseTemplate::new(200).set_body_json(description(&[("m.gguf", b"four")])))
        .mount(&server)
        .await;
    Mock::given(path_regex("/resolve/")).respond_with(serve(vec![1; 100_000])).mount(&server).await;
    let scratch = tempfile::tempdir().unwrap();
    let error = fetch(&server.uri(), scratch.path().join("m").as_path()).await.unwrap_err();
    assert!(error.to_string().contains("more than the 4 bytes"), "{error}");
}

async fn refused(template: ResponseTemplate) -> HubError {
    let server = MockServer::start().await;
    Mock::given(method("GET")).respond_with(template).mount(&server).await;
    fetch(&server.uri(), Path::new("/nowhere")).await.unwrap_err()
}

#[tokio::test]
async fn refusals_say_what_to_do_and_never_show_the_key() {
    let check = |error: HubError, words: &str, kind: Kind, hint: &str| {
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
        let said = error.hint().unwrap_or_default();
        assert!(said.contains(hint), "{said}");
        assert!(!format!("{error} {error:?} {said}").contains(TOKEN));
    };
    let text = format!("nothing for {TOKEN}");
    let answer = |status: u16| ResponseTemplate::new(status).set_body_json(json!({ "error": text }));
    check(refused(answer(404)).await, "no model `owner/model`", Kind::Input, "owner/name");
    check(refused(answer(401)).await, "no model `owner/model`", Kind::Input, "HF_TOKEN");
    let gated = answer(401).insert_header("x-error-code", "GatedRepo");
    check(refused(gated).await, "only to those", Kind::Provider, "accept its terms");
    check(refused(answer(403)).await, "only to those", Kind::Provider, "HF_TOKEN");
    check(refused(answer(400)).await, "HTTP 400", Kind::Provider, "");
    let page = ResponseTemplate::new(200).set_body_string("<html>a portal</html>");
    check(refused(page).await, "a web page", Kind::Provider, "");
    let gone = fetch("http://127.0.0.1:9", Path::new("/nowhere")).await.unwrap_err();
    check(gone, "cannot reach the hub", Kind::Provider, "goes on where it stopped");
}

#[tokio::test]
async fn more_than_the_disk_holds_is_not_begun() {
    let server = MockServer::start().await;
    let mut huge = description(&[("m.gguf", b"x")]);
    huge["siblings"][0]["lfs"]["size"] = json!(1_u64 << 60);
    Mock::given(path("/api/models/owner/model"))
        .respond_with(ResponseTemplate::new(200).set_body_json(huge))
        .mount(&server)
        .await;
    let scratch = tempfile::tempdir().unwrap();
    let error = fetch(&server.uri(), &scratch.path().join("m")).await.unwrap_err();
    assert!(matches!(error, HubError::Room { .. }), "{error}");
    assert_eq!(error.kind(), Kind::Environment);
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn names_that_leave_the_folder_are_no_files() {
    let server = MockServer::start().await;
    let evil = json!({ "sha": COMMIT, "siblings": [
        { "rfilename": "../../x.gguf", "size": 1 }, { "rfilename": "/etc/x.gguf", "size": 1 },
        { "rfilename": "sub/x.gguf", "size": 1 }, { "rfilename": ".x.gguf", "size": 1 },
    ] });
    Mock::given(method("GET"))
        .respond_with(ResponseTemplate::new(200).set_body_json(evil))
        .mount(&server)
        .await;
    let error = fetch(&server.uri(), Path::new("/nowhere")).await.unwrap_err();
    assert!(matches!(error, HubError::NoModel { .. }), "{error}");
}

#[tokio::test]
async fn a_stop_keeps_what_has_come() {
    let server = MockServer::start().await;
    let cancel = Cancel::new();
    Mock::given(path("/api/models/owner/model"))
        .respond_with(ResponseTemplate::new(200).set_body_json(description(&[("m.gguf", &weights())])))
        .mount(&server)
        .await;
    Mock::given(path_regex("/resolve/"))
        .respond_with(ResponseTemplate::new(200).set_delay(Duration::from_secs(60)))
        .mount(&server)
        .await;
    let hub = Hub::new(Endpoint::new("the hub", server.uri()), None, cancel.clone()).unwrap();
    let found = hub.find(&id("owner/model")).await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("m");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(".commit"), COMMIT).unwrap();
    fs::write(folder.join("m.gguf.partial"), b"begun").unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.cancel();
    });
    let error = hub.fetch(&found, &folder, &Events::none()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    assert_eq!(fs::read(folder.join("m.gguf.partial")).unwrap(), b"begun");
}
