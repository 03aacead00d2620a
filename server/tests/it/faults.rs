//! What goes wrong around a server: it is killed, its disk is full, clients are many, slow, gone or hostile.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hone::model::wire::JobStatus;
use reqwest::{StatusCode, multipart};
use rustix::process::{Resource, Signal, getrlimit, kill_process, setrlimit};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{BASE, Process, Settings, World, data},
    resume::child,
};

/// Only so that a test that hangs ends.
const WAIT: Duration = Duration::from_secs(300);

/// Skips aloud; where nothing may be skipped, fails.
fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("HONE_TEST_REQUIRE").is_none(), "{test} cannot run: {why}");
    eprintln!("SKIPPED {test}: {why}");
}

impl World<Process> {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.base_url)
    }

    async fn connect(&self) -> TcpStream {
        let address = self.server.base_url.trim_start_matches("http://").trim_end_matches("/v1");
        TcpStream::connect(address).await.unwrap()
    }

    async fn post_file(&self, name: &str, content: Vec<u8>) -> (StatusCode, Value) {
        let part = multipart::Part::bytes(content).file_name(name.to_owned());
        let form = multipart::Form::new().text("purpose", "fine-tune").part("file", part);
        answer(reqwest::Client::new().post(self.url("/files")).multipart(form)).await
    }

    /// Everything in the folder of files, kept or on its way.
    fn stored(&self) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(self.folder.path().join("server/files"));
        folder.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    }

    async fn assert_well(&self) {
        assert!(self.client.models().await.unwrap().iter().any(|card| card.id == BASE));
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// What comes until the server closes; an error of the connection counts as that.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(WAIT, stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the server closes the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn head(request: &str, headers: &str) -> String {
    format!("{request} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n")
}

/// Sends a byte now and then for as long as somebody takes them.
async fn dribble(stream: &mut TcpStream) -> String {
    let (mut read, mut write) = stream.split();
    let mut bytes = Vec::new();
    let sent = async {
        while write.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = sent => unreachable!(),
        read = tokio::time::timeout(WAIT, read.read_to_end(&mut bytes)) => {
            let _ = read.expect("the server closes the connection");
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_killed_server_is_followed_by_one_that_goes_on() {
    let mut world = World::spawn(Settings::default()).await;
    let job = world.job(20, 50).await;
    let queued = world.job(10, 1).await;
    world.steps(&job.id, 5).await;
    world.server.kill();
    let world = world.respawn().await;
    assert_eq!(world.end(&job.id).await.status, JobStatus::Succeeded);
    assert_eq!(world.metrics(&job.id).await, (1..=500).collect::<Vec<_>>());
    assert_eq!(world.end(&queued.id).await.status, JobStatus::Succeeded);
}

#[tokio::test]
async fn a_server_killed_with_its_child_goes_on_from_the_last_state() {
    let mut world = World::spawn(Settings::default()).await;
    let job = world.job(20, 50).await;
    world.steps(&job.id, 20).await;
    let pid = child(&world.job_folder(&job.id));
    world.server.kill();
    kill_process(pid, Signal::KILL).unwrap();
    let world = world.respawn().await;
    assert_eq!(world.end(&job.id).await.status, JobStatus::Succeeded);
    assert_eq!(world.metrics(&job.id).await, (1..=500).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_upload_that_a_kill_cuts_short_is_no_file() {
    let mut world = World::spawn(Settings::default()).await;
    let mut stream = world.connect().await;
    let kind = "content-type: multipart/form-data; boundary=b\r\ncontent-length: 9999999\r\n";
    let part = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{}\n";
    stream.write_all((head("POST /v1/files", kind) + part).as_bytes()).await.unwrap();
    let arrives = async {
        while world.stored().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT, arrives).await.expect("the upload goes to disk as it comes");
    world.server.kill();
    let world = world.respawn().await;
    world.assert_well().await;
    assert_eq!(world.stored(), Vec::<PathBuf>::new());
}

/// Open files that this process may have, raised as far as it goes; the server that it starts inherits it.
fn open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Megabytes that a process had at most.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
}

#[tokio::test]
async fn ten_thousand_open_connections_leave_room_for_work() {
    // Other tests of this process have files open too.
    let count = open_files().saturating_sub(1000).min(10_000);
    if count < 2000 {
        return skip("open connections", &format!("`ulimit -n` leaves room for {count} only"));
    }
    // Opening so many takes a while, on a busy machine longer than a head may: how slow heads end is another test's matter.
    let world = World::spawn(Settings { head_ms: Some(600_000), ..Settings::default() }).await;
    let before = peak(world.server.id());
    let mut open = Vec::new();
    for n in 0..count {
        let mut stream = world.connect().await;
        if n % 2 == 0 {
            stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n").await.unwrap();
        }
        open.push(stream);
    }
    assert_eq!(world.ask(BASE).await, world.ask(BASE).await);
    let job = world.job(10, 1).await;
    assert_eq!(world.end(&job.id).await.status, JobStatus::Succeeded);
    // Those that waited were not dropped for it.
    for stream in [0, (count as usize / 2) & !1].map(|n| open.swap_remove(n)).iter_mut() {
        stream.write_all(b"connection: close\r\n\r\n").await.unwrap();
        assert!(rest(stream).await.starts_with("HTTP/1.1 200"));
    }
    let grown = peak(world.server.id()) - before;
    println!("{count} connections, {grown} MB more");
    assert!(grown < 300, "{grown} MB");
    drop(open);
    world.assert_well().await;
}

/// Milliseconds that end what a test is about; other clients, which may be slow with all else on a busy machine, have their usual time.
const SHORT: Option<u64> = Some(1000);

#[tokio::test]
async fn who_is_slow_with_a_head_is_cut_off() {
    let world = World::spawn(Settings { head_ms: SHORT, ..Settings::default() }).await;
    let (mut stopped, mut slow, mut idle) =
        (world.connect().await, world.connect().await, world.connect().await);
    stopped.write_all(b"GET /v1/models HTTP/1.1\r\nhost:").await.unwrap();
    slow.write_all(b"GET /v1/models HTTP/1.1\r\nx-slow:").await.unwrap();
    idle.write_all(head("GET /v1/models", "").as_bytes()).await.unwrap();
    let (stopped, slow) = tokio::join!(rest(&mut stopped), dribble(&mut slow));
    for answer in [stopped, slow] {
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    // An answer, and then nothing: the connection ends too.
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"));
    world.assert_well().await;
}

#[tokio::test]
async fn who_is_slow_with_a_body_is_told_so() {
    let world = World::spawn(Settings { body_ms: SHORT, ..Settings::default() }).await;
    let form =
        "content-type: multipart/form-data; boundary=b\r\ncontent-length: 99999\r\nconnection: close\r\n";
    let part = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{}\n";
    let upload = head("POST /v1/files", form) + part;
    let json = "content-type: application/json\r\ncontent-length: 99999\r\nconnection: close\r\n";
    let chat = head("POST /v1/chat/completions", json) + "{\"model\":";
    for request in [&upload, &chat] {
        let (mut stopped, mut slow) = (world.connect().await, world.connect().await);
        stopped.write_all(request.as_bytes()).await.unwrap();
        slow.write_all(request.as_bytes()).await.unwrap();
        let (stopped, slow) = tokio::join!(rest(&mut stopped), dribble(&mut slow));
        assert!(stopped.starts_with("HTTP/1.1 408") && stopped.contains("request_timeout"), "{stopped}");
        // Its own bytes may meet the closed connection and take the answer back.
        assert!(slow.is_empty() || slow.starts_with("HTTP/1.1 408"), "{slow}");
    }
    assert_eq!(world.stored(), Vec::<PathBuf>::new());
    world.assert_well().await;
}

#[tokio::test]
async fn who_does_not_read_keeps_no_place() {
    let world =
        World::spawn(Settings { connections: Some(1), unread_ms: SHORT, ..Settings::default() }).await;
    let large = data(1).repeat(200_000);
    let (status, file) = world.post_file("large.jsonl", large.into_bytes()).await;
    assert_eq!(status, StatusCode::OK, "{file}");
    let path = format!("GET /v1/files/{}/content", file["id"].as_str().unwrap());
    let deaf = async {
        loop {
            let mut stream = world.connect().await;
            stream.write_all(head(&path, "").as_bytes()).await.unwrap();
            let mut start = [0; 12];
            if stream.read_exact(&mut start).await.is_ok() && start == *b"HTTP/1.1 200" {
                break stream;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // From here on nobody reads what the file's owner asked for.
    let deaf = tokio::time::timeout(WAIT, deaf).await.expect("the only place is free");
    let served = async {
        while world.client.models().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(WAIT, served).await.expect("the place is free again");
    drop(deaf);
}

#[tokio::test]
async fn streams_that_nobody_reads_on_give_their_place_back() {
    let tight = Settings { max_queue: Some(1), max_batch: Some(1), ..Settings::default() };
    let world = World::spawn(tight).await;
    let body = json!({
        "model": BASE, "stream": true, "max_tokens": 8000, "messages": [{ "role": "user", "content": "Write." }],
    });
    let ask = async || {
        let request = reqwest::Client::new().post(world.url("/chat/completions")).json(&body);
        request.send().await.unwrap()
    };
    for _ in 0..20 {
        // There is one place: the next one has it only when the one who left has not.
        let taken = async {
            loop {
                let mut response = ask().await;
                if response.status() == StatusCode::OK {
                    break response.chunk().await.unwrap().unwrap();
                }
                assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let first = tokio::time::timeout(WAIT, taken).await.expect("the place is free again");
        assert!(first.starts_with(b"data: "));
    }
}

/// A small file system of its own, until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, megabytes: u32) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount a small disk".into());
        }
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m");
        let mut command = std::process::Command::new("mount");
        let output = command.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        match output {
            Ok(output) if output.status.success() => Ok(Self(at.to_owned())),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes all room but these bytes.
    fn fill(&self, but: u64) -> PathBuf {
        let (path, ballast) = (self.0.join("ballast"), vec![0; 1 << 16]);
        let mut file = std::fs::File::create(&path).unwrap();
        while std::io::Write::write_all(&mut file, &ballast).is_ok() {}
        let size = file.metadata().unwrap().len();
        file.set_len(size.saturating_sub(but)).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_an_answer_and_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let disk = match SmallDisk::mount(&folder.path().join("server"), 16) {
        Ok(disk) => disk,
        // Where tests run in a container, root often may not mount.
        Err(why) => return eprintln!("SKIPPED full disk: {why}"),
    };
    let server = Process::start(folder.path(), &Settings::default()).await;
    let client = crate::harness::client_at(&server.base_url);
    let world = World { folder, server, client };
    let file = world.upload(&data(20)).await;

    let (status, body) = world.post_file("large.jsonl", data(1).repeat(200_000).into_bytes()).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (StatusCode::INSUFFICIENT_STORAGE, &json!("insufficient_storage"))
    );
    assert_eq!(world.stored().len(), 1, "{:?}", world.stored());
    assert_eq!(world.client.file(&file).await.unwrap().bytes, data(20).len() as u64);

    let job = world.job(20, 50).await;
    world.steps(&job.id, 5).await;
    let ballast = disk.fill(0);
    let (status, _) = world.post_file("small.jsonl", data(100).into_bytes()).await;
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE);
    let body = json!({ "model": BASE, "training_file": file });
    let (status, _) = answer(reqwest::Client::new().post(world.url("/fine_tuning/jobs")).json(&body)).await;
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE);
    assert!(!world.ask(BASE).await.is_empty());

    std::fs::remove_file(ballast).unwrap();
    let job = world.end(&job.id).await;
    match job.status {
        // Its child could not save, and that could not be written down either: it was started again.
        JobStatus::Succeeded => assert_eq!(world.metrics(&job.id).await, (1..=500).collect::<Vec<_>>()),
        _ => assert!(job.error.unwrap().message.unwrap().contains("space")),
    }
    let job = world.job(20, 1).await;
    assert_eq!(world.end(&job.id).await.status, JobStatus::Succeeded);
    drop(world);
}

#[tokio::test]
async fn names_lead_nowhere_else() {
    let world = World::spawn(Settings::default()).await;
    let outside = |world: &World<Process>| {
        let entries = std::fs::read_dir(world.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = outside(&world);
    for name in [
        "../../up.jsonl",
        "/up.jsonl",
        "..\\..\\up.jsonl",
        "a/../../up.jsonl",
        "..",
        ".",
        "",
        "%2e%2e%2fup",
        "~",
    ] {
        let (status, file) = world.post_file(name, data(1).into_bytes()).await;
        assert_eq!(status, StatusCode::OK, "{name}: {file}");
        let kept = file["filename"].as_str().unwrap();
        assert!(
            !kept.is_empty() && kept != "." && kept != ".." && !kept.contains(['/', '\\']),
            "{name}: {kept}"
        );
    }
    assert_eq!(outside(&world), before);

    let up =
        ["..%2f..%2fserver.lock", "%2e%2e", "..%2faddress", "%00", "a%2f..%2f..%2faddress", "file-a%0ab"];
    let places = ["files", "fine_tuning/jobs", "models", "uploads", "batches"];
    let client = reqwest::Client::new();
    for (place, id) in places.iter().flat_map(|place| up.map(|id| (place, id))) {
        for path in
            [format!("/{place}/{id}"), format!("/{place}/{id}/content"), format!("/{place}/{id}/cancel")]
        {
            for request in
                [client.get(world.url(&path)), client.delete(world.url(&path)), client.post(world.url(&path))]
            {
                let status = request.send().await.unwrap().status();
                assert!(status.is_client_error(), "{path}: {status}");
            }
        }
    }
    for training_file in ["../../settings.json", "..", "/etc/passwd"] {
        let body = json!({ "model": BASE, "training_file": training_file });
        let (status, body) = answer(client.post(world.url("/fine_tuning/jobs")).json(&body)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    }
    assert!(world.folder.path().join("server/address").exists());
    world.assert_well().await;
}

#[tokio::test]
async fn hostile_uploads_are_refused_and_leave_nothing() {
    let world = World::spawn(Settings::default()).await;
    let file = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{}\n\r\n";
    let purpose = "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n";
    let part = |headers: &str, content: &str| format!("--b\r\n{headers}\r\n\r\n{content}\r\n");
    let named = |name: &str| format!("content-disposition: form-data; name=\"{name}\"");
    let with_b = "multipart/form-data; boundary=b";
    let long = "x".repeat(1 << 20);
    let cases: Vec<(&str, &str, String)> = vec![
        ("no boundary", "multipart/form-data", format!("{purpose}{file}--b--\r\n")),
        ("an empty boundary", "multipart/form-data; boundary=", format!("{purpose}{file}--b--\r\n")),
        ("another boundary", "multipart/form-data; boundary=c", format!("{purpose}{file}--b--\r\n")),
        ("no multipart", "application/json", "{}".into()),
        ("nothing", with_b, String::new()),
        ("only the end", with_b, "--b--\r\n".into()),
        ("no end", with_b, format!("{purpose}{file}")),
        ("cut in a part's head", with_b, format!("{purpose}--b\r\ncontent-disposition: form-da")),
        ("cut in the file", with_b, format!("{purpose}{}", &file[..file.len() - 4])),
        ("parts without names", with_b, format!("{}{}--b--\r\n", part("x: y", "{}"), part("x: y", "{}"))),
        ("two files", with_b, format!("{purpose}{file}{file}--b--\r\n")),
        ("a long purpose", with_b, format!("{}{file}--b--\r\n", part(&named("purpose"), &long))),
        (
            "a purpose that is no text",
            with_b,
            format!("{}{file}--b--\r\n", part(&named("purpose"), "\u{0}\u{1}")),
        ),
        ("a part's head without end", with_b, format!("--b\r\nx: {long}")),
        ("a thousand heads", with_b, format!("--b\r\n{}\r\n\r\n", "x: y\r\n".repeat(100_000))),
        ("parts without number", with_b, part(&named("z"), "").repeat(100_000) + "--b--\r\n"),
        ("only line ends", with_b, "\r\n".repeat(1 << 20)),
    ];
    let before = peak(world.server.id());
    for (what, kind, body) in cases {
        let request =
            reqwest::Client::new().post(world.url("/files")).header("content-type", kind).body(body);
        let (status, body) = answer(request).await;
        assert!(status.is_client_error(), "{what}: {status} {body}");
        assert!(
            body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()),
            "{what}: {body}"
        );
    }
    assert_eq!(world.stored(), Vec::<PathBuf>::new());
    let grown = peak(world.server.id()) - before;
    assert!(grown < 64, "{grown} MB");
    world.assert_well().await;
}

#[tokio::test]
async fn an_upload_whose_client_leaves_is_no_file() {
    let world = World::spawn(Settings::default()).await;
    for body in ["content-length: 99999\r\n", "transfer-encoding: chunked\r\n"] {
        let mut stream = world.connect().await;
        let kind = format!("content-type: multipart/form-data; boundary=b\r\n{body}");
        stream.write_all(head("POST /v1/files", &kind).as_bytes()).await.unwrap();
        let part = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{}\n";
        let part = match body.starts_with("transfer") {
            true => format!("{:x}\r\n{part}\r\n", part.len()),
            false => part.to_owned(),
        };
        stream.write_all(part.as_bytes()).await.unwrap();
    }
    let gone = async {
        // The uploads may not have begun when this is asked first; a request that is answered comes after them.
        world.assert_well().await;
        while !world.stored().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT, gone).await.expect("what had come is removed");
    let (_, listed) = answer(reqwest::Client::new().get(world.url("/files"))).await;
    assert_eq!(listed["data"], json!([]));
}
