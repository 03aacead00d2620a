//! A server in a scratch folder, its client, and the training child: this test binary again.

use std::{
    ffi::OsString,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio, exit},
    sync::LazyLock,
    time::Duration,
};

use hone::auto::Auto;
use hone::cancel::Cancel;
use hone::model::{
    client::{Client, Endpoint, Retry, Secret},
    wire::{ChatRequest, Hyperparameters, Job, JobRequest, Message, Method},
};
use hone_engine::model::Model;
use hone_server::{BaseModel, Limits, LocalServer, Server, ServerConfig, run_training_child, spawn_local};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const BASE: &str = "tiny";

/// Only so that a test that hangs ends: how long training takes is no test's business.
const WAIT: Duration = Duration::from_secs(900);

/// The model file that all tests share; written once.
static MODEL: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Another run of these tests may be reading it.
    let own = folder.join(format!("tiny-{}.gguf", std::process::id()));
    Model::random_tiny(7).save(&own).unwrap();
    let path = folder.join("tiny-7.gguf");
    std::fs::rename(own, &path).unwrap();
    path
});

/// Runs as the training child when the server starts this binary; does nothing in a normal test run.
#[test]
#[ignore = "is the training child, started by the server under test"]
fn train_child() {
    let folder = std::env::args().next_back().unwrap();
    if Path::new(&folder).join("job.json").exists() {
        let kernels = std::env::var(KERNELS).unwrap_or_else(|_| "auto".into());
        let kernels = hone_engine::infer::Options::named(&kernels).unwrap();
        exit(i32::from(run_training_child(Path::new(&folder), kernels)));
    }
}

/// Names the kernels of the training child.
const KERNELS: &str = "HONE_TEST_KERNELS";

/// The trainer with kernels of that name.
pub fn trainer_with(kernels: &str) -> Vec<OsString> {
    let variable = OsString::from(format!("{KERNELS}={kernels}"));
    ["env".into(), variable].into_iter().chain(trainer()).collect()
}

/// This binary, told to run nothing but the child.
pub fn trainer() -> Vec<OsString> {
    let me = std::env::current_exe().unwrap().into_os_string();
    let arguments = ["--ignored", "--exact", "harness::train_child", "--nocapture"];
    std::iter::once(me).chain(arguments.map(OsString::from)).collect()
}

/// A server in a process of its own, so that it can be killed and its memory looked at.
pub struct Process {
    pub base_url: String,
    child: Child,
}

impl Process {
    /// Starts one on the folder and waits until it listens.
    pub async fn start(root: &Path, settings: &Settings) -> Self {
        let address = root.join("server/address");
        // One that was killed leaves it.
        let _ = std::fs::remove_file(&address);
        std::fs::write(root.join(SETTINGS), serde_json::to_vec(settings).unwrap()).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "harness::server_process", "--nocapture"])
            .arg(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let look = async {
            loop {
                match std::fs::read_to_string(&address) {
                    Ok(url) if !url.is_empty() => break url.trim().to_owned(),
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let base_url = tokio::time::timeout(WAIT, look).await.expect("the server starts");
        Self { base_url, child }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SETTINGS: &str = "settings.json";

/// What a server process is started with, beside its folder.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    pub api_key: Option<String>,
    pub max_queue: Option<usize>,
    pub max_batch: Option<usize>,
    pub connections: Option<usize>,
    pub head_ms: Option<u64>,
    pub body_ms: Option<u64>,
    pub unread_ms: Option<u64>,
}

impl Settings {
    fn apply(self, mut config: ServerConfig) -> ServerConfig {
        let ms = |given: Option<u64>, default| given.map_or(default, Duration::from_millis);
        let limits = config.limits;
        config.api_key = self.api_key.map(Secret::new);
        config.max_queue = self.max_queue.unwrap_or(config.max_queue);
        config.max_batch = self.max_batch.unwrap_or(config.max_batch);
        config.limits = Limits {
            connections: self.connections.unwrap_or(limits.connections),
            head: ms(self.head_ms, limits.head),
            body_window: ms(self.body_ms, limits.body_window),
            unread: ms(self.unread_ms, limits.unread),
        };
        config
    }
}

/// Runs as the server when [`Process::start`] starts this binary; does nothing in a normal test run.
#[test]
#[ignore = "is the server process, started by tests that kill it"]
fn server_process() {
    let root = PathBuf::from(std::env::args().next_back().unwrap());
    let Ok(settings) = std::fs::read(root.join(SETTINGS)) else { return };
    let settings: Settings = serde_json::from_slice(&settings).unwrap();
    // Ends with whoever started it, however that ends.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        exit(0);
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::open(settings.apply(config(&root)), listener).unwrap();
        server.serve(Cancel::new()).await.unwrap();
    });
}

pub struct World<S = LocalServer> {
    pub folder: TempDir,
    pub server: S,
    pub client: Client,
}

pub fn config(root: &Path) -> ServerConfig {
    let base = BaseModel { id: BASE.into(), path: MODEL.clone() };
    ServerConfig::new(root.join("server"), vec![base], trainer())
}

impl World<Process> {
    pub async fn spawn(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Process::start(folder.path(), &settings).await;
        let client = client_at(&server.base_url);
        Self { folder, server, client }
    }

    /// A new process on the same folder, after the other one was killed.
    pub async fn respawn(self) -> Self {
        let server = Process::start(self.folder.path(), &Settings::default()).await;
        let client = client_at(&server.base_url);
        Self { server, client, ..self }
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(|config| config).await
    }

    pub async fn with(change: impl FnOnce(ServerConfig) -> ServerConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = spawn_local(change(config(folder.path()))).await.unwrap();
        let client = client(&server);
        Self { folder, server, client }
    }

    /// The same folder with a new server.
    pub async fn restart(self) -> Self {
        self.server.stop().await.unwrap();
        let server = spawn_local(config(self.folder.path())).await.unwrap();
        let client = client(&server);
        Self { folder: self.folder, server, client }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.base_url)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        read(reqwest::Client::new().get(self.url(path))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        read(reqwest::Client::new().post(self.url(path)).json(body)).await
    }

    /// Uploads a file for a purpose.
    pub async fn file(&self, purpose: &str, content: impl Into<Vec<u8>>) -> Value {
        let content: Vec<u8> = content.into();
        let part = reqwest::multipart::Part::bytes(content).file_name("in.jsonl");
        let form = reqwest::multipart::Form::new().text("purpose", purpose.to_owned()).part("file", part);
        let (status, file) = read(reqwest::Client::new().post(self.url("/files")).multipart(form)).await;
        assert_eq!(status, 200, "{file}");
        file["id"].clone()
    }

    pub async fn content(&self, file: &Value) -> String {
        let path = format!("/files/{}/content", file.as_str().unwrap());
        reqwest::get(self.url(&path)).await.unwrap().text().await.unwrap()
    }
}

impl<S> World<S> {
    pub fn job_folder(&self, id: &str) -> PathBuf {
        self.folder.path().join("server/jobs").join(id)
    }

    pub async fn upload(&self, content: &str) -> String {
        let path = self.folder.path().join("train.jsonl");
        std::fs::write(&path, content).unwrap();
        self.client.upload_file(&path, "fine-tune").await.unwrap().id
    }

    /// A job on `rows` good rows for `epochs` epochs.
    pub async fn job(&self, rows: usize, epochs: u32) -> Job {
        let file = self.upload(&data(rows)).await;
        self.client.create_job(&request(&file, epochs), &format!("key-{file}")).await.unwrap()
    }

    /// Waits until a job is over.
    pub async fn end(&self, id: &str) -> Job {
        self.until(id, |job| job.status.is_terminal()).await
    }

    pub async fn until(&self, id: &str, done: impl Fn(&Job) -> bool) -> Job {
        let look = async {
            loop {
                let job = self.client.job(id).await.unwrap();
                if done(&job) {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(WAIT, look).await.expect("the job comes to what was waited for")
    }

    /// Waits until a job has trained some steps.
    pub async fn steps(&self, id: &str, steps: usize) {
        let look = async {
            while self.metrics(id).await.len() < steps {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(WAIT, look).await.expect("the job gets that far");
    }

    /// Steps of the job's metrics events, oldest first.
    pub async fn metrics(&self, id: &str) -> Vec<u64> {
        let events = self.client.events(id, None).await.unwrap();
        events.iter().filter_map(|event| event.number("step")).map(|step| step as u64).collect()
    }

    /// A greedy answer.
    pub async fn ask(&self, model: &str) -> String {
        let request = ChatRequest { temperature: Some(0.0), max_tokens: Some(24), ..question(model) };
        self.client.chat(&request).await.unwrap().text().to_owned()
    }
}

/// Sends a request: status and body.
pub async fn read(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

pub fn client(server: &LocalServer) -> Client {
    client_at(&server.base_url)
}

pub fn client_at(base_url: &str) -> Client {
    let retry = Retry { retries: 0, ..Retry::default() };
    Client::new(Endpoint { retry, ..Endpoint::local(base_url) }).unwrap()
}

pub fn question(model: &str) -> ChatRequest {
    ChatRequest::new(model, vec![Message::user("Make a form with a name and an email.")])
}

pub fn row(answer: &str) -> String {
    let messages = [Message::user("Make a form with a name and an email."), Message::assistant(answer)];
    json!({ "messages": messages }).to_string()
}

/// Good rows that all teach the same.
pub fn data(rows: usize) -> String {
    (0..rows).map(|_| row("import streamlit") + "\n").collect()
}

/// Good pairs that all prefer the same.
pub fn pairs(rows: usize) -> String {
    let pair = json!({
        "input": {"messages": [Message::user("Make a form with a name and an email.")]},
        "preferred_output": [Message::assistant("import streamlit")],
        "non_preferred_output": [Message::assistant("Sure! Here is a form.")],
    });
    (0..rows).map(|_| pair.to_string() + "\n").collect()
}

/// A job that learns from pairs.
pub fn preference(file: &str, epochs: u32) -> JobRequest {
    let request = request(file, epochs);
    let hyperparameters = request.hyperparameters.clone().unwrap_or_default();
    JobRequest { hyperparameters: None, method: Some(Method::dpo(hyperparameters, Auto::Auto)), ..request }
}

pub fn request(file: &str, epochs: u32) -> JobRequest {
    let hyperparameters = Hyperparameters {
        n_epochs: Auto::Fixed(epochs),
        batch_size: Auto::Fixed(2),
        learning_rate_multiplier: Auto::Fixed(10.0),
        ..Hyperparameters::default()
    };
    JobRequest {
        model: BASE.into(),
        training_file: file.into(),
        suffix: Some("UI-agent-v1".into()),
        seed: Some(42),
        hyperparameters: Some(hyperparameters),
        ..JobRequest::default()
    }
}

/// A schema that compiles, and is too much work at the first brace: three thousand kinds of object begin with one.
pub fn schema_that_becomes_too_much() -> Value {
    let kind = |n: usize| {
        let name = format!("p{n}");
        json!({"type": "object", "properties": {(&name): {"type": "integer"}}, "required": [name], "additionalProperties": false})
    };
    json!({"anyOf": (0..3000).map(kind).collect::<Vec<_>>()})
}
