//! The one client of OpenAI's protocol, for hosted providers and the local server alike.
//!
//! Each method is one exchange, repeated as [`Retry`] allows; the answer is checked before it is handed out, so that
//! whoever gets a [`ChatReply`] can rely on it having a text. Everything waits on the caller's [`Cancel`] too.

mod download;
mod error;
mod retry;
mod secret;
mod tuning;

pub use download::Download;
pub use error::ModelError;
pub use retry::Retry;
pub use secret::Secret;
pub use tuning::Pointed;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::{Method, Response, Url, multipart};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use self::retry::{Failure, Next};
use super::wire::{
    ChatReply, ChatRequest, Checkpoint, Deleted, ErrorEnvelope, File, Identified, Job, JobEvent, List,
    ModelCard, Page,
};
use crate::{cancel::Cancel, store::StoreError};

/// Where a provider is and how patient to be with it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// What errors call it, and what identifies it in the journal: it must stay the same when a port changes.
    pub name: String,
    /// Usually ends in `/v1`.
    pub base_url: String,
    pub api_key: Option<Secret>,
    /// Longest silence of the server.
    pub timeout: Duration,
    pub connect_timeout: Duration,
    pub retry: Retry,
    /// How long a tuned model may stay unknown after its job succeeded: hosted providers take minutes to show it.
    pub model_patience: Duration,
}

impl Endpoint {
    /// The usual patience: 600 s for an answer, 5 s for a connection.
    pub fn new(name: impl Into<String>, base_url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            base_url: base_url.into(),
            api_key: None,
            timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(5),
            retry: Retry::default(),
            model_patience: Duration::from_secs(180),
        }
    }

    /// The local server: what it does not know, it will not know later; and a long queue on a small machine is no
    /// reason to ask again.
    pub fn local(base_url: impl Into<String>) -> Self {
        let timeout = Duration::from_secs(3600);
        Self { model_patience: Duration::ZERO, timeout, ..Self::new("local", base_url) }
    }

    pub fn with_key(self, key: Option<Secret>) -> Self {
        Self { api_key: key, ..self }
    }
}

/// A client of one endpoint. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    base: Url,
    http: reqwest::Client,
    cancel: Cancel,
}

/// One request, in a form that can be sent again.
struct Call<'a> {
    method: Method,
    path: &'a [&'a str],
    query: Vec<(&'a str, String)>,
    body: Body<'a>,
    /// Sent on creation, so that a retried POST creates one thing.
    idempotency_key: Option<String>,
}

enum Body<'a> {
    None,
    Json(Value),
    Upload { path: &'a Path, purpose: &'a str },
}

impl<'a> Call<'a> {
    fn get(path: &'a [&'a str]) -> Self {
        Self { method: Method::GET, path, query: Vec::new(), body: Body::None, idempotency_key: None }
    }

    fn post(path: &'a [&'a str], body: Body<'a>) -> Self {
        Self { method: Method::POST, body, ..Self::get(path) }
    }

    fn query(mut self, key: &'a str, value: Option<String>) -> Self {
        self.query.extend(value.map(|value| (key, value)));
        self
    }
}

/// A failed try: what the caller is told, and what the retry rules look at.
struct Failed {
    error: ModelError,
    failure: Failure,
}

impl Client {
    /// A client; nothing is sent yet. Fails when the address is no URL or TLS cannot be set up.
    pub fn new(endpoint: Endpoint) -> Result<Self, ModelError> {
        let unusable =
            |why: String| ModelError::Endpoint(format!("`{}` is not usable: {why}", endpoint.base_url));
        let base = Url::parse(&endpoint.base_url).map_err(|e| unusable(e.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(unusable("it must start with http:// or https://".into()));
        }
        provide_tls();
        let mut builder = reqwest::Client::builder()
            .read_timeout(endpoint.timeout)
            .connect_timeout(endpoint.connect_timeout)
            .user_agent(concat!("hone/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&base) {
            // A proxy cannot reach this machine's loopback, and no certificate store is needed for it.
            builder = builder.no_proxy().tls_certs_only([]);
        }
        let http = builder.build().map_err(|e| unusable(with_sources(&e)))?;
        Ok(Self { endpoint, base, http, cancel: Cancel::new() })
    }

    /// The same client, whose calls end with [`ModelError::Cancelled`] as soon as `cancel` is given.
    pub fn cancelled_by(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// True when the provider is this machine.
    pub fn is_local(&self) -> bool {
        is_loopback(&self.base)
    }

    /// Asks for `n` answers (1 by default). Each has a text, or the call is an error.
    ///
    /// A tuned model that the provider does not show yet is asked for again until [`Endpoint::model_patience`] is over.
    pub async fn chat(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        let started = Instant::now();
        let mut wait = Duration::from_secs(2);
        loop {
            let body = Body::Json(self.json(request)?);
            match self.fetch(Call::post(&["chat", "completions"], body)).await {
                Err(e) if self.may_appear(&request.model, &e, started) => {
                    self.sleep(wait).await?;
                    wait = (wait * 2).min(Duration::from_secs(30));
                }
                other => return self.checked(other?),
            }
        }
    }

    fn may_appear(&self, model: &str, error: &ModelError, asked_first: Instant) -> bool {
        error.is_unknown_model()
            && model.starts_with("ft:")
            && asked_first.elapsed() < self.endpoint.model_patience
    }

    fn checked(&self, reply: ChatReply) -> Result<ChatReply, ModelError> {
        if reply.choices.is_empty() {
            return Err(self.garbled("it holds no choices"));
        }
        match reply.choices.iter().find(|choice| choice.message.content.is_none()) {
            None => Ok(reply),
            Some(choice) => Err(self.garbled(match &choice.message.refusal {
                Some(refusal) => format!("the model declined: {refusal}"),
                None => format!("choice {} has no text", choice.index),
            })),
        }
    }

    /// Posts JSON to the address of the endpoint itself: for services that have a protocol of their own.
    pub async fn post<T: DeserializeOwned>(&self, body: &impl Serialize) -> Result<T, ModelError> {
        self.fetch(Call::post(&[], Body::Json(self.json(body)?))).await
    }

    /// Uploads a file under its base name. The file is read as it is sent, again for each try.
    pub async fn upload_file(&self, path: &Path, purpose: &str) -> Result<File, ModelError> {
        let call = Call::post(&["files"], Body::Upload { path, purpose });
        self.fetch(Call { idempotency_key: Some(random_key()), ..call }).await
    }

    /// One GET whose answer is JSON: for services that have a protocol of their own.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, ModelError> {
        let query = query.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        self.fetch(Call { query, ..Call::get(path) }).await
    }

    pub async fn file(&self, id: &str) -> Result<File, ModelError> {
        self.fetch(Call::get(&["files", id])).await
    }

    /// The bytes of a file, as they were uploaded or as a job wrote them.
    pub async fn file_content(&self, id: &str) -> Result<Bytes, ModelError> {
        self.bytes(&Call::get(&["files", id, "content"])).await
    }

    pub async fn delete_file(&self, id: &str) -> Result<Deleted, ModelError> {
        self.fetch(Call { method: Method::DELETE, ..Call::get(&["files", id]) }).await
    }

    pub async fn job(&self, id: &str) -> Result<Job, ModelError> {
        self.fetch(Call::get(&["fine_tuning", "jobs", id])).await
    }

    /// The newest `limit` jobs, newest first.
    pub async fn jobs(&self, limit: usize) -> Result<Vec<Job>, ModelError> {
        self.pages(&["fine_tuning", "jobs"], limit, |_: &Job| false).await
    }

    /// The events after the one named, or all of them: oldest first.
    pub async fn events(&self, job: &str, after: Option<&str>) -> Result<Vec<JobEvent>, ModelError> {
        let seen = |event: &JobEvent| Some(event.id.as_str()) == after;
        let mut events = self.pages(&["fine_tuning", "jobs", job, "events"], usize::MAX, seen).await?;
        events.reverse();
        Ok(events)
    }

    /// A job's checkpoints, newest first.
    pub async fn checkpoints(&self, job: &str) -> Result<Vec<Checkpoint>, ModelError> {
        self.pages(&["fine_tuning", "jobs", job, "checkpoints"], usize::MAX, |_| false).await
    }

    pub async fn cancel_job(&self, id: &str) -> Result<Job, ModelError> {
        self.fetch(Call::post(&["fine_tuning", "jobs", id, "cancel"], Body::None)).await
    }

    /// Asks for a running job to be paused; the answer may still say `pausing`.
    pub async fn pause_job(&self, id: &str) -> Result<Job, ModelError> {
        self.fetch(Call::post(&["fine_tuning", "jobs", id, "pause"], Body::None)).await
    }

    /// Puts a paused job back into the queue.
    pub async fn resume_job(&self, id: &str) -> Result<Job, ModelError> {
        self.fetch(Call::post(&["fine_tuning", "jobs", id, "resume"], Body::None)).await
    }

    pub async fn models(&self) -> Result<Vec<ModelCard>, ModelError> {
        let list: List<ModelCard> = self.fetch(Call::get(&["models"])).await?;
        Ok(list.data)
    }

    pub async fn model(&self, id: &str) -> Result<ModelCard, ModelError> {
        self.fetch(Call::get(&["models", id])).await
    }

    pub async fn delete_model(&self, id: &str) -> Result<Deleted, ModelError> {
        self.fetch(Call { method: Method::DELETE, ..Call::get(&["models", id]) }).await
    }

    /// Follows a list page by page until `limit`, its end, or the first item that `stop` names (not included).
    async fn pages<T>(
        &self,
        path: &[&str],
        limit: usize,
        stop: impl Fn(&T) -> bool,
    ) -> Result<Vec<T>, ModelError>
    where
        T: DeserializeOwned + Identified,
    {
        let mut items: Vec<T> = Vec::new();
        loop {
            let size = (limit - items.len()).min(100).to_string();
            let after = items.last().map(|item| item.id().to_owned());
            let call = Call::get(path).query("limit", Some(size)).query("after", after);
            let page: Page<T> = self.fetch(call).await?;
            // Some gateways send the same page for every `after`.
            let again = page.data.first().is_some_and(|first| items.iter().any(|i| i.id() == first.id()));
            if again {
                return Ok(items);
            }
            let last = page.data.is_empty() || !page.has_more;
            for item in page.data {
                if stop(&item) {
                    return Ok(items);
                }
                items.push(item);
            }
            if last || items.len() >= limit {
                return Ok(items);
            }
        }
    }

    fn json(&self, body: &impl Serialize) -> Result<Value, ModelError> {
        serde_json::to_value(body)
            .map_err(|e| ModelError::Endpoint(format!("the request cannot be written: {e}")))
    }

    /// One call whose answer is JSON.
    async fn fetch<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ModelError> {
        let bytes = self.bytes(&call).await?;
        serde_json::from_slice(&bytes).map_err(|e| self.garbled(describe(&bytes, &e)))
    }

    /// Tries a call until it succeeds or the rules say stop.
    async fn bytes(&self, call: &Call<'_>) -> Result<Bytes, ModelError> {
        let (mut done, mut waited) = (0, Duration::ZERO);
        loop {
            let tried = tokio::select! {
                () = self.cancel.cancelled() => return Err(ModelError::Cancelled),
                tried = self.attempt(call) => tried,
            };
            let Failed { error, failure } = match tried {
                Ok(bytes) => return Ok(bytes),
                Err(failed) => failed,
            };
            match self.endpoint.retry.next(&failure, done, waited, rand::random()) {
                Next::GiveUp => return Err(error),
                Next::TooLong(wait) => {
                    return Err(ModelError::WaitTooLong { provider: self.endpoint.name.clone(), wait });
                }
                Next::Wait(wait) => {
                    tracing::debug!(%error, ?wait, "trying again");
                    self.sleep(wait).await?;
                    (done, waited) = (done + 1, waited + wait);
                }
            }
        }
    }

    async fn sleep(&self, wait: Duration) -> Result<(), ModelError> {
        tokio::select! {
            () = self.cancel.cancelled() => Err(ModelError::Cancelled),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    async fn attempt(&self, call: &Call<'_>) -> Result<Bytes, Failed> {
        let request = self.request(call).await.map_err(Failed::for_good)?;
        let response = request.send().await.map_err(|e| self.broken(&e))?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let bytes = response.bytes().await.map_err(|e| self.broken(&e))?;
        if was_cut_short(&bytes, call) {
            return Err(Failed { error: self.garbled("its JSON breaks off"), failure: Failure::default() });
        }
        Ok(bytes)
    }

    async fn request(&self, call: &Call<'_>) -> Result<reqwest::RequestBuilder, ModelError> {
        let mut request = self.http.request(call.method.clone(), self.url(call.path)).query(&call.query);
        if let Some(key) = &self.endpoint.api_key {
            request = request.bearer_auth(key.expose());
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        Ok(match &call.body {
            Body::None if call.method == Method::POST => request.body(""),
            Body::None => request,
            Body::Json(value) => request.json(value),
            Body::Upload { path, purpose } => request.multipart(form(path, purpose).await?),
        })
    }

    /// The address of a path below the base; ids are escaped as path segments.
    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if path.is_empty() {
            return url;
        }
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    fn broken(&self, error: &reqwest::Error) -> Failed {
        let why = if error.is_timeout() { "no answer in time".into() } else { with_sources(error) };
        let error = ModelError::Unreachable {
            provider: self.endpoint.name.clone(),
            url: self.endpoint.base_url.clone(),
            why: self.redacted(&why),
            local: is_loopback(&self.base),
        };
        Failed { error, failure: Failure::default() }
    }

    async fn refused(&self, response: Response) -> Failed {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let request_id = headers.get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        let bytes = response.bytes().await.unwrap_or_default();
        let (code, message) = match serde_json::from_slice::<ErrorEnvelope>(&bytes) {
            Ok(ErrorEnvelope { error }) => (error.code, error.message),
            Err(_) => (None, excerpt(&bytes)),
        };
        let failure = Failure {
            status: Some(status),
            code: code.clone(),
            should_retry: retry::should_retry(&headers),
            retry_after: retry::retry_after(&headers, jiff::Timestamp::now()),
        };
        let provider = self.endpoint.name.clone();
        let message = self.redacted(&message);
        let code = code.or_else(|| Some(headers.get("x-error-code")?.to_str().ok()?.to_owned()));
        Failed { error: ModelError::Refused { provider, status, code, message, request_id }, failure }
    }

    fn garbled(&self, why: impl Into<String>) -> ModelError {
        ModelError::Garbled { provider: self.endpoint.name.clone(), why: self.redacted(&why.into()) }
    }

    fn redacted(&self, text: &str) -> String {
        self.endpoint.api_key.as_ref().map_or_else(|| text.to_owned(), |key| key.redact(text))
    }
}

impl Failed {
    fn for_good(error: ModelError) -> Self {
        Self { error, failure: Failure { should_retry: Some(false), ..Failure::default() } }
    }
}

/// The TLS library wants one provider of cryptography per process; a program may have chosen another already.
fn provide_tls() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Losing a race here means that somebody else provided one.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn form(path: &Path, purpose: &str) -> Result<multipart::Form, ModelError> {
    let failed = |e| StoreError::new("read", path, e);
    let part = multipart::Part::file(path).await.map_err(failed)?;
    let name = path.file_name().map(PathBuf::from).unwrap_or_default();
    let part = part.file_name(name.to_string_lossy().into_owned());
    Ok(multipart::Form::new().text("purpose", purpose.to_owned()).part("file", part))
}

fn random_key() -> String {
    format!("hone-{:032x}", rand::random::<u128>())
}

/// JSON that simply ends is what a dying connection leaves behind, and worth another try. File contents are not ours
/// to judge.
fn was_cut_short(bytes: &[u8], call: &Call<'_>) -> bool {
    let is_content = call.path.last() == Some(&"content");
    let starts = bytes.trim_ascii_start().first().is_some_and(|byte| matches!(byte, b'{' | b'['));
    !is_content && starts && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_err_and(|e| e.is_eof())
}

fn describe(bytes: &[u8], error: &serde_json::Error) -> String {
    if bytes.trim_ascii().is_empty() {
        "it is empty".into()
    } else if bytes.trim_ascii_start().starts_with(b"<") {
        format!("it is a web page, not JSON: {}", excerpt(bytes))
    } else {
        format!("{error}: {}", excerpt(bytes))
    }
}

/// The first words of an answer, on one line.
fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &words[..end]),
        None if words.is_empty() => "no reason given".into(),
        None => words,
    }
}

/// An error with its causes: reqwest's own text leaves out what happened.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if causes.last().is_none_or(|last| !last.contains(&text)) {
            causes.push(text);
        }
        next = error.source();
    }
    causes.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(base: &str) -> Client {
        Client::new(Endpoint::new("test", base)).unwrap()
    }

    fn check_url(base: &str, path: &[&str], expected: &str) {
        assert_eq!(client(base).url(path).as_str(), expected);
    }

    #[test]
    fn ids_are_one_segment_of_the_path() {
        check_url("http://h/v1", &["models", "ft:a:b::c"], "http://h/v1/models/ft:a:b::c");
        check_url("http://h/v1/", &["models", "org/name"], "http://h/v1/models/org%2Fname");
        check_url("http://h", &["files", "a?b"], "http://h/files/a%3Fb");
        check_url("http://h/find/", &[], "http://h/find/");
    }

    #[test]
    fn an_address_that_is_none_is_the_users_error() {
        for bad in ["", "127.0.0.1:80", "ftp://x/v1", "localhost:8642/v1"] {
            let error = Client::new(Endpoint::new("test", bad)).unwrap_err();
            assert!(matches!(error, ModelError::Endpoint(_)), "{bad}: {error}");
        }
    }

    #[test]
    fn loopback_is_recognised() {
        for (url, expected) in [
            ("http://127.0.0.1:1/v1", true),
            ("http://localhost/v1", true),
            ("http://[::1]:3/v1", true),
            ("http://127.0.0.1.example.com", false),
            ("https://api.openai.com/v1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt(b"<html>\n  <b>no</b>"), "<html> <b>no</b>");
        assert_eq!(excerpt(b""), "no reason given");
        assert_eq!(excerpt("\u{e9}".repeat(300).as_bytes()).chars().count(), 203);
    }

    #[test]
    fn debug_shows_no_key() {
        let endpoint = Endpoint::new("test", "http://h/v1").with_key(Some(Secret::new("sk-abc")));
        assert!(!format!("{:?}", Client::new(endpoint).unwrap()).contains("sk-abc"));
    }
}
