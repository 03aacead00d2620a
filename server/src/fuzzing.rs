//! Doors for the targets in `fuzz/`, which come in without sockets. Compiled for them alone.

use std::{
    cell::Cell,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use hone::{
    cancel::Cancel,
    model::wire::{Batch, BatchRequest, File, Job, JobRequest, Upload, UploadRequest},
    store::StoreError,
};
use hone_engine::{
    lora::{Adapter, LoraConfig},
    model::Model,
};
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use crate::{
    app::App,
    batch::input,
    config::{BaseModel, ServerConfig},
    disk::{BatchRecord, JobRecord, TunedModel, UploadRecord},
    engine::Engine,
    http, ids,
    training::{Supervisor, data},
};

/// Every POST that reads a JSON body and is answered anew each time.
pub const ANSWERED: [&str; 4] = [
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/fine_tuning/alpha/graders/run",
    "/v1/fine_tuning/alpha/graders/validate",
];
/// Every POST that makes something out of a JSON body, once per key.
pub const MADE: [&str; 4] =
    ["/v1/fine_tuning/jobs", "/v1/uploads", "/v1/uploads/upload_1/complete", "/v1/batches"];
/// Where the parts go of the upload that every door has.
pub const PARTS: &str = "/v1/uploads/upload_1/parts";

/// A file, an upload and so on of these ids wait behind every door.
const TRAINING_FILE: &str = "file-1";
const BATCH_FILE: &str = "file-2";
const UPLOAD: &str = "upload_1";
const PART: &str = "part_1";
const JOB: &str = "ftjob-1";
const BATCH: &str = "batch_1";
const TUNED: &str = "ft:tiny:local:a:abcdefgh";

const ROW: &[u8] = br#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
const LINE: &[u8] =
    br#"{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{"model":"tiny","messages":[]}}"#;
const PART_CONTENT: &[u8] = b"123456789";

/// Most tokens of a conversation: an answer without a limit is soon over.
const CONTEXT: usize = 192;
/// Most bytes of an answer.
const ANSWER: usize = 16 << 20;

/// A server without a listener, with a random model.
pub struct Door {
    root: PathBuf,
    adapter: PathBuf,
    runtime: Runtime,
    app: Arc<App>,
    router: Router,
    /// Something may have been made or removed.
    changed: Cell<bool>,
}

impl Door {
    /// A server in `folder`.
    ///
    /// # Panics
    /// When the folder cannot be written.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let (root, path, adapter) = (folder.join("server"), folder.join("tiny.gguf"), folder.join("tuned"));
        must(fs::create_dir_all(&root), "make a folder");
        let model = tiny();
        must(model.save(&path), "save the model");
        let shape = &model.weights.config;
        must(Adapter::new(shape, &LoraConfig::default()).save(&adapter, shape, "tiny"), "save an adapter");
        let mut config = ServerConfig::new(&root, vec![BaseModel { id: "tiny".into(), path }], Vec::new());
        config.kernels.threads = NonZeroUsize::MIN;
        let engine = must(Engine::start(&config, Cancel::default()), "start the engine");
        let supervisor = Supervisor::new(&config);
        let app = Arc::new(App::new(config, engine, supervisor, true));
        let router = http::router(app.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = must(runtime, "start a runtime");
        Self { root, adapter, runtime, app, router, changed: Cell::new(true) }
    }

    /// Sends a body by POST; whether it was taken.
    ///
    /// # Panics
    /// When the answer is a fault of the server, or an error in another form than the protocol's.
    pub fn post(&self, path: &str, kind: &str, body: &[u8]) -> bool {
        self.send(Request::post(path).header("content-type", kind), body).0.is_success()
    }

    /// Sends a body twice under one key: what was made the first time is answered again, and nothing else is made.
    ///
    /// # Panics
    /// As [`Door::post`], and when the answers differ.
    pub fn post_twice(&self, path: &str, kind: &str, body: &[u8]) {
        self.restore();
        let request = || Request::post(path).header("content-type", kind).header("idempotency-key", "k");
        let first = self.send(request(), body);
        if first.0.is_success() {
            let (again, made) = (self.answer(request(), body), self.made());
            assert_eq!(first, again, "{path}, sent again");
            assert_eq!(made, self.made(), "{path}, sent again");
        }
    }

    /// Asks for what is at a path, or has it removed. Paths that no client could send are left out.
    ///
    /// # Panics
    /// As [`Door::post`], and when what is no part of the server's folder goes.
    pub fn visit(&self, remove: bool, path: &str) {
        let request = if remove { Request::delete(path) } else { Request::get(path) };
        if request.uri_ref().is_some_and(|uri| uri.path().starts_with('/')) {
            self.send(request, b"");
            assert!(self.adapter.exists() && self.root.exists(), "{path} reaches out of the server's folder");
        }
    }

    fn send(&self, request: axum::http::request::Builder, body: &[u8]) -> (StatusCode, String) {
        if self.changed.get() {
            self.restore();
        }
        let path = request.uri_ref().map(ToString::to_string).unwrap_or_default();
        let reads = request.method_ref().is_some_and(|method| method == "GET");
        let (status, text) = self.answer(request, body);
        self.changed.set(status.is_success() && !reads);
        assert!(!status.is_server_error(), "{path} answers {status}: {text}");
        let worded = || {
            let answer: Value = serde_json::from_str(&text).unwrap_or_default();
            answer["error"]["message"].is_string()
        };
        assert!(!status.is_client_error() || worded(), "{path} answers {status}: {text}");
        (status, text)
    }

    fn answer(&self, request: axum::http::request::Builder, body: &[u8]) -> (StatusCode, String) {
        let request = request.header("host", "127.0.0.1").body(Body::from(body.to_vec()));
        let request = must(request, "make a request");
        self.runtime.block_on(async {
            let response = match self.router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let status = response.status();
            let text = must(to_bytes(response.into_body(), ANSWER).await, "take an answer whole");
            (status, String::from_utf8_lossy(&text).into_owned())
        })
    }

    /// How many of everything there are.
    fn made(&self) -> [usize; 4] {
        ["files", "uploads", "jobs", "batches"]
            .map(|folder| fs::read_dir(self.root.join(folder)).map_or(0, Iterator::count))
    }

    /// Removes what requests have left, and puts back what they may have changed.
    fn restore(&self) {
        for folder in ["files", "uploads", "jobs", "batches", "models", "answers"] {
            // It may not be there yet.
            let _ = fs::remove_dir_all(self.root.join(folder));
        }
        must(self.fill(), "fill the server's folder");
        self.changed.set(false);
    }

    fn fill(&self) -> Result<(), StoreError> {
        let (app, now) = (&self.app, ids::now());
        for (id, purpose, content) in [(TRAINING_FILE, "fine-tune", ROW), (BATCH_FILE, "batch", LINE)] {
            app.files.write(&File::new(id, "a.jsonl", purpose, content.len() as u64, now), content)?;
        }
        let request = UploadRequest {
            bytes: PART_CONTENT.len() as u64,
            purpose: "user_data".into(),
            ..UploadRequest::default()
        };
        let upload = Upload::new(UPLOAD, &request, now, 3600);
        app.uploads.write(&UploadRecord { upload, expires_after: None })?;
        let part = app.uploads.incoming(UPLOAD)?;
        fs::write(part.path(), PART_CONTENT).map_err(|e| StoreError::new("write", part.path(), e))?;
        app.uploads.add_part(UPLOAD, PART, part)?;
        let request =
            JobRequest { model: "tiny".into(), training_file: TRAINING_FILE.into(), ..JobRequest::default() };
        let base = BaseModel { id: "tiny".into(), path: self.root.join("../tiny.gguf") };
        app.jobs.create(&JobRecord::new(Job::new(JOB, &request, now, 1), base, None))?;
        let request = BatchRequest {
            input_file_id: BATCH_FILE.into(),
            endpoint: "/v1/chat/completions".into(),
            completion_window: "24h".into(),
            metadata: None,
            output_expires_after: None,
        };
        let batch = Batch::new(BATCH, &request, now, 24 * 3600);
        app.batches.create(&BatchRecord::new(batch, None), &app.files.content(BATCH_FILE))?;
        let tuned =
            TunedModel { id: TUNED.into(), base: "tiny".into(), parent: None, job: JOB.into(), created: now };
        app.tuned.add(&tuned, &self.adapter)
    }
}

fn tiny() -> Model {
    let model = Model::random_tiny(1);
    let mut weights = (*model.weights).clone();
    weights.config.context = CONTEXT;
    Model { weights: weights.into(), ..model }
}

fn must<T, E: std::fmt::Display>(done: Result<T, E>, what: &str) -> T {
    done.unwrap_or_else(|error| panic!("cannot {what}: {error}"))
}

/// Reads a file of lines as a job's and as a batch's.
///
/// # Panics
/// When a check and the reading after it disagree.
pub fn look_at_lines(path: &Path) {
    for format in [data::Format::Chat, data::Format::Preference] {
        let Ok(report) = data::check(path, format) else { continue };
        let _ = report.describe();
        let mut rows = 0;
        let read = data::read(path, format, |_, _| {
            rows += 1;
            Ok(())
        });
        assert!(read.is_err() || rows == report.examples, "{rows} rows of {}", report.examples);
        assert_eq!(read.is_ok(), report.faulty == 0, "a check that found {}", report.describe());
    }
    let Ok(checked) = input::check(path, "/v1/chat/completions") else { return };
    let requests = input::requests(path).into_iter().flatten();
    if checked.errors.is_empty() {
        let whole = requests.filter(Result::is_ok).count() as u64;
        assert_eq!(whole, checked.total, "requests of a batch without errors");
    }
}
