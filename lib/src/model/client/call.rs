//! One exchange over the network: the request that can be sent again, the loop that does, and the point at which keys are
//! taken out of whatever came back.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use eventsource_stream::{EventStreamError, Eventsource as _};
use futures::StreamExt as _;
use reqwest::{Method, Response, Url, header::CONTENT_TYPE, multipart};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Client, ModelError, Replay,
    answer::{self, describe, shown, with_sources},
    chat::Admit,
    gate::{Health, Outcome, Permit, Shut},
    retry::{self, Failure, Next},
};
use crate::{
    model::{
        provider::{Step, Unusable},
        wire::ChatReply,
    },
    store::StoreError,
};

/// Longest wait for the answer to a question that costs a provider nothing.
const LOOK_UP: Duration = Duration::from_secs(60);
/// Longest wait until an upload is answered: a large file on a slow line.
const UPLOAD: Duration = Duration::from_secs(3600);
/// How long a call under way may still come in after a cancel.
const GRACE: Duration = Duration::from_secs(30);
/// More than this is no answer.
const LARGEST: usize = 1 << 30;
/// Further tries after answers that cannot be used: they may have been billed.
const GARBLED_RETRIES: u32 = 2;

/// One request, in a form that can be sent again.
pub(super) struct Call<'a> {
    pub method: Method,
    pub path: &'a [&'a str],
    pub query: Vec<(&'a str, String)>,
    pub body: Body<'a>,
    /// Sent on creation, so that a retried POST creates one thing.
    pub idempotency_key: Option<String>,
    pub replay: Replay,
}

pub(super) enum Body<'a> {
    None,
    Json(Value),
    /// JSON that is written already.
    Written(Bytes),
    Upload {
        path: &'a Path,
        purpose: &'a str,
    },
}

impl<'a> Call<'a> {
    pub fn get(path: &'a [&'a str]) -> Self {
        let (body, replay) = (Body::None, Replay::Always);
        Self { method: Method::GET, path, query: Vec::new(), body, idempotency_key: None, replay }
    }

    pub fn post(path: &'a [&'a str], body: Body<'a>) -> Self {
        Self { method: Method::POST, body, ..Self::get(path) }
    }

    pub fn query(mut self, key: &'a str, value: Option<String>) -> Self {
        self.query.extend(value.map(|value| (key, value)));
        self
    }
}

/// What came back, without any key in it.
pub(super) enum Got {
    Bytes(Bytes),
    /// A streamed answer, put together.
    Reply(Box<ChatReply>),
}

/// A failed try: what the caller is told, and what the rules look at.
pub(super) struct Failed {
    pub error: ModelError,
    pub failure: Failure,
    /// The request may have been carried out, and billed.
    pub in_doubt: bool,
    /// An answer came, and it is none.
    pub garbled: bool,
}

impl Failed {
    pub fn for_good(error: ModelError) -> Self {
        let failure = Failure { should_retry: Some(false), ..Failure::default() };
        Self { error, failure, in_doubt: false, garbled: false }
    }

    /// Whether a provider that is down fails in this way.
    fn is_outage(&self) -> bool {
        match self.failure.status {
            Some(status) => status >= 500,
            // Who sends nonsense is not down.
            None => !self.garbled && self.failure.should_retry != Some(false),
        }
    }

    fn outcome(&self) -> Outcome {
        match self.failure.status {
            Some(429) => Outcome::Limited(self.failure.retry_after),
            Some(503 | 529) => Outcome::Overloaded,
            _ => Outcome::Neutral,
        }
    }
}

/// What a call has gone through so far.
#[derive(Default)]
pub(super) struct Tries {
    done: u32,
    waited: Duration,
    garbled: u32,
}

impl Client {
    /// One call whose answer is JSON.
    pub(super) async fn fetch<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ModelError> {
        let read = |got| match got {
            Got::Bytes(bytes) => serde_json::from_slice(&bytes).map_err(|e| describe(&bytes, &e)),
            Got::Reply(_) => Err("it is a stream".into()),
        };
        self.run(&call, None, &mut 0, &read).await
    }

    /// One call whose answer is what it is.
    pub(super) async fn bytes(&self, call: &Call<'_>) -> Result<Bytes, ModelError> {
        let read = |got| match got {
            Got::Bytes(bytes) => Ok(bytes),
            Got::Reply(_) => Err("it is a stream".into()),
        };
        self.run(call, None, &mut 0, &read).await
    }

    /// Tries a call until it succeeds or the rules say stop. With `admit` it is a chat call: it asks before each try, goes
    /// through the gate, and what is under way is not broken off at once, because it is paid for. Tries that may have been
    /// billed in vain are added to `in_doubt`.
    pub(super) async fn run<T>(
        &self,
        call: &Call<'_>,
        admit: Option<&Admit>,
        in_doubt: &mut u32,
        read: &(dyn Fn(Got) -> Result<T, String> + Send + Sync),
    ) -> Result<T, ModelError> {
        let (mut tries, began) = (Tries::default(), self.gate.now());
        loop {
            let mut permit = self.permitted(admit, *in_doubt).await?;
            let tried = match self.try_once(call, admit.is_some()).await {
                Ok(got) => read(got).map_err(|why| self.unusable(why)),
                Err(failed) => Err(failed),
            };
            if let Some(permit) = &mut permit {
                self.report(permit, tried.as_ref().err());
            }
            drop(permit);
            let failed = match tried {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            *in_doubt += u32::from(failed.in_doubt);
            self.wait_for_next(call, failed, &mut tries, admit.map(|_| began)).await?;
        }
    }

    /// Leave for one try.
    async fn permitted(&self, admit: Option<&Admit>, in_doubt: u32) -> Result<Option<Permit>, ModelError> {
        if self.cancel.is_cancelled() {
            return Err(ModelError::Cancelled);
        }
        let Some(admit) = admit else { return Ok(None) };
        self.unless_cancelled(admit(in_doubt)).await??;
        let entered = self.unless_cancelled(self.gate.enter()).await?;
        let provider = self.endpoint.name.clone();
        entered.map(Some).map_err(|shut| match shut {
            Shut::Down { since, why } => ModelError::Down { provider, since, why },
            Shut::TooLong(wait) => ModelError::WaitTooLong { provider, wait },
        })
    }

    async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, ModelError> {
        tokio::select! {
            () = self.cancel.cancelled() => Err(ModelError::Cancelled),
            done = work => Ok(done),
        }
    }

    async fn try_once(&self, call: &Call<'_>, is_chat: bool) -> Result<Got, Failed> {
        if !is_chat {
            return self.unless_cancelled(self.attempt(call, false)).await.map_err(Failed::for_good)?;
        }
        let attempt = tokio::time::timeout(self.endpoint.total, self.attempt(call, true));
        let out_of_patience = async {
            self.cancel.cancelled().await;
            // What our own server writes costs nothing.
            if !self.endpoint.is_embedded() {
                tokio::time::sleep(GRACE).await;
            }
        };
        tokio::select! {
            tried = attempt => match tried {
                Ok(tried) => tried,
                Err(_) => Err(self.silent("no whole answer in time")),
            },
            () = out_of_patience => Err(Failed { in_doubt: true, ..Failed::for_good(ModelError::Cancelled) }),
        }
    }

    /// Tells the gate how a try ended.
    fn report(&self, permit: &mut Permit, failed: Option<&Failed>) {
        let (name, events) = (&self.endpoint.name, &self.events);
        match failed {
            None => {
                permit.report(Outcome::Good);
                permit.health(Health::Up, name, "", events);
            }
            Some(Failed { error: ModelError::Cancelled, .. }) => {}
            Some(failed) => {
                permit.report(failed.outcome());
                let health = if failed.is_outage() { Health::Failing } else { Health::Up };
                permit.health(health, name, &failed.error.to_string(), events);
            }
        }
    }

    /// Waits until a failed call may be tried again; an error when it may not. `began` is that of a chat call.
    async fn wait_for_next(
        &self,
        call: &Call<'_>,
        failed: Failed,
        tries: &mut Tries,
        began: Option<Duration>,
    ) -> Result<(), ModelError> {
        tries.garbled += u32::from(failed.garbled);
        let may_exist =
            failed.in_doubt || failed.is_outage() || matches!(failed.failure.status, Some(408 | 409));
        let is_unwanted = call.replay == Replay::WhenRefused && may_exist;
        if is_unwanted || tries.garbled > GARBLED_RETRIES {
            return Err(failed.error);
        }
        let next = self.next(&failed, tries);
        let outage = began.filter(|_| failed.is_outage());
        if let Some(began) = outage {
            let why = failed.error.to_string();
            let waits = match next {
                Next::GiveUp => self.gate.exhausted(&self.endpoint.name, began, &why, &self.events),
                _ => self.gate.is_open(),
            };
            if waits {
                // The gate lets it through when the provider is back, with all its tries.
                (tries.done, tries.waited) = (0, Duration::ZERO);
                return Ok(());
            }
        }
        if let (Next::TooLong(wait), Some(_)) = (next, began) {
            self.gate.shut(wait);
        }
        self.follow(next, failed.error, tries).await
    }

    /// Waits as the rules say until something that failed may be tried again; an error when it may not.
    pub(super) async fn wait_to_retry(&self, failed: Failed, tries: &mut Tries) -> Result<(), ModelError> {
        let next = self.next(&failed, tries);
        self.follow(next, failed.error, tries).await
    }

    fn next(&self, failed: &Failed, tries: &Tries) -> Next {
        self.endpoint.retry.next(&failed.failure, tries.done, tries.waited, rand::random())
    }

    async fn follow(&self, next: Next, error: ModelError, tries: &mut Tries) -> Result<(), ModelError> {
        match next {
            Next::GiveUp => Err(error),
            Next::TooLong(wait) => {
                Err(ModelError::WaitTooLong { provider: self.endpoint.name.clone(), wait })
            }
            Next::Wait(wait) => {
                tracing::debug!(%error, ?wait, "trying again");
                self.sleep(wait).await?;
                (tries.done, tries.waited) = (tries.done + 1, tries.waited + wait);
                Ok(())
            }
        }
    }

    pub(super) async fn sleep(&self, wait: Duration) -> Result<(), ModelError> {
        self.unless_cancelled(tokio::time::sleep(wait)).await
    }

    /// Sends a call once. Nothing that came leaves this function with a key in it.
    async fn attempt(&self, call: &Call<'_>, is_chat: bool) -> Result<Got, Failed> {
        let request = self.request(call).await.map_err(Failed::for_good)?;
        let patience = match &call.body {
            Body::Upload { .. } => UPLOAD,
            Body::None if !self.endpoint.is_embedded() => self.endpoint.timeout.min(LOOK_UP),
            _ => self.endpoint.timeout,
        };
        let sent = tokio::time::timeout(patience, request.send()).await;
        let response = sent.map_err(|_| self.silent("no answer in time"))?.map_err(|e| self.broken(e))?;
        if is_chat && let Some(wait) = retry::until_reset(response.headers(), jiff::Timestamp::now()) {
            self.gate.pause(wait);
        }
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        if is_chat && is_event_stream(&response) {
            return self.streamed(response).await.map(|reply| Got::Reply(Box::new(reply)));
        }
        let bytes = self.read(response).await?;
        Ok(Got::Bytes(self.scrubber.bytes(bytes)))
    }

    async fn request(&self, call: &Call<'_>) -> Result<reqwest::RequestBuilder, ModelError> {
        let mut request = self.http.request(call.method.clone(), self.url(call.path));
        if !call.query.is_empty() {
            request = request.query(&call.query);
        }
        request = request.headers(self.headers.clone());
        if let Some(key) = &call.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        Ok(match &call.body {
            Body::None if call.method == Method::POST => request.body(""),
            Body::None => request,
            Body::Json(value) => request.json(value),
            Body::Written(bytes) => request.header(CONTENT_TYPE, "application/json").body(bytes.clone()),
            Body::Upload { path, purpose } => request.multipart(form(path, purpose).await?),
        })
    }

    /// The address of a path, as the provider's dialect has it.
    pub(super) fn url(&self, path: &[&str]) -> Url {
        self.endpoint.access.url(&self.base, path)
    }

    /// A body to its end.
    async fn read(&self, mut response: Response) -> Result<Bytes, Failed> {
        let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
        loop {
            let chunk = tokio::time::timeout(self.endpoint.silence, response.chunk()).await;
            let chunk = chunk.map_err(|_| self.silent("the answer stops in the middle"))?;
            match chunk.map_err(|e| self.broken(e))? {
                None if rest.is_empty() => return Ok(first),
                None => return Ok(rest.freeze()),
                // Most answers come in one piece.
                Some(chunk) if first.is_empty() => first = chunk,
                Some(chunk) => {
                    if rest.is_empty() {
                        rest.extend_from_slice(&first);
                    }
                    rest.extend_from_slice(&chunk);
                }
            }
            if rest.len() > LARGEST {
                return Err(self.unusable("it does not end".into()));
            }
        }
    }

    /// A streamed answer to its end.
    async fn streamed(&self, response: Response) -> Result<ChatReply, Failed> {
        let unusable = |why: Unusable| self.unusable(self.scrubber.words(&why.to_string()));
        let mut collector = self.endpoint.access.collector();
        let mut events = response.bytes_stream().eventsource();
        loop {
            let event = tokio::time::timeout(self.endpoint.silence, events.next()).await;
            let event = match event.map_err(|_| self.silent("the answer stops in the middle"))? {
                None => break,
                Some(Ok(event)) => event,
                Some(Err(EventStreamError::Transport(error))) => return Err(self.broken(error)),
                Some(Err(error)) => return Err(self.unusable(error.to_string())),
            };
            if collector.event(&event.data).map_err(unusable)? == Step::Over {
                // The connection can be used again once its stream has ended.
                let _ = tokio::time::timeout(Duration::from_millis(100), events.next()).await;
                break;
            }
        }
        let mut reply = collector.reply().map_err(unusable)?;
        for message in reply.choices.iter_mut().map(|choice| &mut choice.message) {
            message
                .content
                .iter_mut()
                .chain(&mut message.refusal)
                .for_each(|text| self.scrubber.answer(text));
        }
        Ok(reply)
    }

    /// A connection that could not be made, or broke.
    pub(super) fn broken(&self, error: reqwest::Error) -> Failed {
        // A request that was never sent was never billed.
        let in_doubt = !(error.is_connect() || error.is_builder());
        let why = match (error.is_timeout(), in_doubt) {
            (true, true) => return self.silent("no answer in time"),
            (true, false) => "no connection in time".into(),
            (false, _) => with_sources(&error.without_url()),
        };
        let error = ModelError::Unreachable {
            provider: self.endpoint.name.clone(),
            url: self.scrubber.words(&shown(&self.base)),
            why: self.scrubber.words(&why),
            local: self.is_local(),
        };
        Failed { error, failure: Failure::default(), in_doubt, garbled: false }
    }

    fn silent(&self, why: &str) -> Failed {
        let error = ModelError::TooSlow { provider: self.endpoint.name.clone(), why: why.into() };
        Failed { error, failure: Failure::default(), in_doubt: true, garbled: false }
    }

    pub(super) async fn refused(&self, response: Response) -> Failed {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let header = |name: &str| Some(self.scrubber.words(headers.get(name)?.to_str().ok()?));
        let bytes = self.scrubber.bytes(self.read(response).await.unwrap_or_default());
        let (code, message) = answer::refusal(&bytes, self.endpoint.access.provider.dialect);
        let code = code.map(|code| self.scrubber.words(&code));
        let now = jiff::Timestamp::now();
        let failure = Failure {
            status: Some(status),
            code: code.clone(),
            should_retry: retry::should_retry(&headers),
            retry_after: retry::retry_after(&headers, now).or_else(|| retry::until_reset(&headers, now)),
        };
        let error = ModelError::Refused {
            provider: self.endpoint.name.clone(),
            status,
            code: code.or_else(|| header("x-error-code")),
            message: self.scrubber.words(&message),
            request_id: header("x-request-id").or_else(|| header("request-id")),
        };
        Failed { error, failure, in_doubt: false, garbled: false }
    }

    /// An answer with status 200 that is none.
    fn unusable(&self, why: String) -> Failed {
        Failed { error: self.garbled(why), failure: Failure::default(), in_doubt: true, garbled: true }
    }

    pub(super) fn garbled(&self, why: impl Into<String>) -> ModelError {
        ModelError::Garbled { provider: self.endpoint.name.clone(), why: self.scrubber.words(&why.into()) }
    }
}

fn is_event_stream(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
}

async fn form(path: &Path, purpose: &str) -> Result<multipart::Form, ModelError> {
    let failed = |e| StoreError::new("read", path, e);
    let part = multipart::Part::file(path).await.map_err(failed)?;
    let name = path.file_name().map(PathBuf::from).unwrap_or_default();
    let part = part.file_name(name.to_string_lossy().into_owned());
    Ok(multipart::Form::new().text("purpose", purpose.to_owned()).part("file", part))
}

pub(super) fn random_key() -> String {
    format!("hone-{:032x}", rand::random::<u128>())
}
