//! The one client of chat and fine-tuning providers, hosted ones and the local server alike.
//!
//! Each method is one exchange, repeated as [`Retry`] allows; the answer is checked before it is handed out, so that
//! whoever gets a [`ChatReply`](super::wire::ChatReply) knows that there is one. What differs between providers is a row of
//! [`super::provider`]. Whatever a provider sends passes one point (`call.rs`) at which keys are taken out of it, before
//! anything reads, logs or keeps it.

mod answer;
mod batch;
mod call;
mod chat;
mod download;
mod error;
mod gate;
mod retry;
mod secret;
mod tuning;

pub(in crate::model) use batch::Unanswered;
pub use chat::{Admit, Exchange};
pub use download::Download;
pub use error::ModelError;
pub use gate::Outage;
pub use retry::Retry;
pub use secret::{Scrubber, Secret};
pub use tuning::Pointed;

use std::{fmt, path::Path, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};

use self::{
    answer::{is_loopback, shown, with_sources},
    call::{Body, Call, random_key},
    gate::Gate,
};
use super::{
    provider::{self, Access, Auth},
    wire::{Checkpoint, Deleted, File, Identified, Job, JobEvent, JobRequest, List, ModelCard, Page},
};
use crate::{cancel::Cancel, event::Events};

/// The identity of the server that is part of Hone.
const EMBEDDED: &str = "local";

/// Where a provider is and how patient to be with it.
#[derive(Clone)]
pub struct Endpoint {
    /// What errors call it.
    pub name: String,
    /// What the journal knows it by: the provider and its address, without the port where it is this machine, because ports
    /// change. Rows of two names for one place share their answers.
    pub identity: String,
    /// Usually ends in `/v1`.
    pub base_url: String,
    pub api_key: Option<Secret>,
    /// What the provider wants to hear.
    pub access: Access,
    /// Sent with every call.
    pub headers: Vec<Header>,
    /// Longest wait for the first byte of an answer.
    pub timeout: Duration,
    pub connect_timeout: Duration,
    /// Longest silence in the middle of an answer.
    pub silence: Duration,
    /// Longest time for one try of a chat call.
    pub total: Duration,
    pub retry: Retry,
    /// How long a tuned model may stay unknown after its job succeeded: hosted providers take minutes to show it.
    pub model_patience: Duration,
    /// Chat calls at once, where the provider's usual number is not wanted.
    pub most_in_flight: Option<usize>,
    /// How long a provider that is down is waited for.
    pub outage: Outage,
}

/// A header of a row's own.
#[derive(Clone, Debug)]
pub struct Header {
    pub name: String,
    /// Never printed, whatever it is.
    pub value: Secret,
    /// It says who asks, not what is asked.
    pub is_key: bool,
}

impl Endpoint {
    /// Whether its address is this machine's own; one that cannot be used is nobody's.
    pub fn is_local(&self) -> bool {
        Url::parse(&self.base_url)
            .is_ok_and(|base| matches!(base.scheme(), "http" | "https") && is_loopback(&base))
    }

    /// Something that speaks OpenAI's protocol, with the usual patience: 600 s for an answer, 5 s for a connection.
    pub fn new(name: impl Into<String>, base_url: impl Into<String>) -> Self {
        let (base_url, access) = (base_url.into(), Access::default());
        Self {
            name: name.into(),
            identity: identity(&access, &base_url),
            base_url,
            api_key: None,
            access,
            headers: Vec::new(),
            timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(5),
            silence: Duration::from_secs(120),
            total: Duration::from_secs(900),
            retry: Retry::default(),
            model_patience: Duration::from_secs(180),
            most_in_flight: None,
            outage: Outage::default(),
        }
    }

    /// The server that is part of Hone: what it does not know, it will not know later; and a long queue on a small machine
    /// is no reason to ask again.
    pub fn local(base_url: impl Into<String>) -> Self {
        let hour = Duration::from_secs(3600);
        Self {
            identity: EMBEDDED.into(),
            access: Access::to(&provider::HONE),
            model_patience: Duration::ZERO,
            timeout: hour,
            silence: hour,
            total: 2 * hour,
            ..Self::new(EMBEDDED, base_url)
        }
    }

    pub fn with_key(self, key: Option<Secret>) -> Self {
        Self { api_key: key, ..self }
    }

    /// A provider of the table, as a row of the settings uses it.
    pub fn with_access(self, access: Access) -> Self {
        Self { identity: identity(&access, &self.base_url), access, ..self }
    }

    /// The server that is part of Hone.
    pub(in crate::model) fn is_embedded(&self) -> bool {
        self.identity == EMBEDDED
    }

    fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.api_key.iter().chain(self.headers.iter().map(|header| &header.value))
    }

    /// What calls are kept under: the identity, and what the row says of its own that changes what is truly sent. Of a header's
    /// value a digest: it may be a secret.
    pub(in crate::model) fn asked_as(&self) -> String {
        let headers = self.headers.iter().filter(|header| !header.is_key);
        let headers = headers.map(|Header { name, value, .. }| {
            let digest = crate::text::hex(&Sha256::digest(value.expose()));
            format!("{}={}", name.to_ascii_lowercase(), &digest[..16])
        });
        let mut own: Vec<String> = self.access.own_options().into_iter().chain(headers).collect();
        own.sort();
        own.iter().fold(self.identity.clone(), |all, option| format!("{all}|{option}"))
    }
}

/// The address may hold a password, so it is not printed here.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Provider, address and, where it decides which model answers, the deployment.
fn identity(access: &Access, base_url: &str) -> String {
    let place = match Url::parse(base_url) {
        Ok(mut url) => {
            if is_loopback(&url) {
                // An address without a host has no port either, which is as well.
                let _ = url.set_port(None);
            }
            shown(&url)
        }
        Err(_) => base_url.to_owned(),
    };
    let deployment = access.deployment.as_ref().map(|name| format!("#{name}")).unwrap_or_default();
    format!("{}|{}{deployment}", access.provider.name, place.trim_end_matches('/'))
}

/// A client of one endpoint. Cheap to clone; clones share their connections and their gate.
#[derive(Clone)]
pub struct Client {
    endpoint: Endpoint,
    base: Url,
    http: reqwest::Client,
    /// The key and the row's own headers.
    headers: HeaderMap,
    scrubber: Scrubber,
    gate: Gate,
    cancel: Cancel,
    events: Events,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.endpoint).finish()
    }
}

impl Client {
    /// A client; nothing is sent yet. Fails when the address is no URL, a header is none, or TLS cannot be set up.
    pub fn new(endpoint: Endpoint) -> Result<Self, ModelError> {
        let unusable = |why: String| {
            ModelError::Endpoint(format!("the address of `{}` is not usable: {why}", endpoint.name))
        };
        let base =
            Url::parse(&endpoint.base_url).map_err(|e| unusable(format!("`{}`: {e}", endpoint.base_url)))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(unusable(format!("`{}` must start with http:// or https://", shown(&base))));
        }
        provide_tls();
        let headers = headers(&endpoint)?;
        // The bounds of a call are kept in `call.rs`; this one is for whatever they leave out.
        let patience = endpoint.timeout + endpoint.silence;
        let mut builder = builder(&endpoint, is_loopback(&base)).read_timeout(patience);
        if headers.keys().any(|name| name != reqwest::header::AUTHORIZATION) {
            // Only `Authorization` is left out by itself when another host is sent to.
            builder = builder.redirect(redirect::Policy::custom(stay_at_home));
        }
        let http = builder.build().map_err(|e| unusable(with_sources(&e)))?;
        let hidden = hidden_parts(&base);
        let scrubber = Scrubber::new(endpoint.secrets().chain(&hidden));
        let most = endpoint.most_in_flight.unwrap_or(match endpoint.is_embedded() {
            // It queues, and whoever calls knows how many calls it bears.
            true => usize::MAX,
            false => endpoint.access.provider.most_in_flight,
        });
        let gate = Gate::new(most, endpoint.is_embedded(), endpoint.outage);
        let (cancel, events) = (Cancel::new(), Events::none());
        Ok(Self { endpoint, base, http, headers, scrubber, gate, cancel, events })
    }

    /// The same client, whose waits end with [`ModelError::Cancelled`] as soon as `cancel` is given.
    pub fn cancelled_by(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
    }

    /// The same client, which says here when its provider is down.
    pub fn telling(self, events: Events) -> Self {
        Self { events, ..self }
    }

    /// Where this client says what its user should know.
    pub(in crate::model) fn display(&self) -> &Events {
        &self.events
    }

    /// The same client, which shares the other's limits: for two rows of one provider.
    pub fn beside(self, other: &Self) -> Self {
        Self { gate: other.gate.clone(), ..self }
    }

    /// What ends this client's waits.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// True when the provider is this machine.
    pub fn is_local(&self) -> bool {
        is_loopback(&self.base)
    }

    /// Where the provider is, without user, password and query.
    pub fn address(&self) -> String {
        shown(&self.base)
    }

    /// A text without the endpoint's keys: for whatever a provider has said that goes elsewhere.
    pub fn scrubbed(&self, text: &str) -> String {
        self.scrubber.words(text)
    }

    /// Posts JSON to the address of the endpoint itself: for services that have a protocol of their own.
    pub async fn post<T: DeserializeOwned>(&self, body: &impl Serialize) -> Result<T, ModelError> {
        self.fetch(Call::post(&[], Body::Json(self.json(body)?))).await
    }

    /// Posts JSON to a path: for services that have a protocol of their own.
    pub async fn post_to<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: &impl Serialize,
        replay: Replay,
    ) -> Result<T, ModelError> {
        let query = query.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let call = Call::post(path, Body::Json(self.json(body)?));
        self.fetch(Call { query, replay, ..call }).await
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

    /// Creates a job. Where servers honour `Idempotency-Key`, the same key never creates a second one; elsewhere an answer
    /// that is lost or in doubt is not asked for again, because the job may exist: see [`ModelError::is_in_doubt`].
    pub async fn create_job(&self, request: &JobRequest, idempotency_key: &str) -> Result<Job, ModelError> {
        let call = Call::post(&["fine_tuning", "jobs"], Body::Json(self.json(request)?));
        let replay =
            if self.endpoint.access.provider.idempotent { Replay::Always } else { Replay::WhenRefused };
        self.fetch(Call { idempotency_key: Some(idempotency_key.into()), replay, ..call }).await
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
}

/// The TLS library wants one provider of cryptography per process; a program may have chosen another already.
fn provide_tls() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Losing a race here means that somebody else provided one.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// What all connections of an endpoint have in common.
fn builder(endpoint: &Endpoint, local: bool) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder()
        .connect_timeout(endpoint.connect_timeout)
        .user_agent(concat!("hone/", env!("CARGO_PKG_VERSION")));
    // A proxy cannot reach this machine's loopback, and no certificate store is needed for it.
    if local { builder.no_proxy().tls_certs_only([]) } else { builder }
}

/// Headers that go out with every call; none of their values is ever printed.
fn headers(endpoint: &Endpoint) -> Result<HeaderMap, ModelError> {
    let name = &endpoint.name;
    let value = |what: &str, text: &str| {
        let unfit =
            |_| ModelError::Endpoint(format!("{what} of `{name}` holds characters that no header can carry"));
        let mut value = HeaderValue::from_str(text).map_err(unfit)?;
        value.set_sensitive(true);
        Ok::<_, ModelError>(value)
    };
    let mut headers = HeaderMap::new();
    for (header, text) in endpoint.access.headers() {
        headers.insert(header, value("a version", &text)?);
    }
    if let Some(key) = &endpoint.api_key {
        match endpoint.access.provider.auth {
            Auth::Bearer => {
                let bearer = format!("Bearer {}", key.expose());
                headers.insert(reqwest::header::AUTHORIZATION, value("the key", &bearer)?);
            }
            Auth::Header(header) => {
                headers.insert(header, value("the key", key.expose())?);
            }
        }
    }
    for own in &endpoint.headers {
        let unfit = |_| ModelError::Endpoint(format!("`{}` of `{name}` is no name of a header", own.name));
        let header: HeaderName = own.name.parse().map_err(unfit)?;
        headers.insert(header, value("a header", own.value.expose())?);
    }
    Ok(headers)
}

/// Parts of an address that are nobody's business: a password, and values in its query.
fn hidden_parts(base: &Url) -> Vec<Secret> {
    let password = base.password().map(str::to_owned);
    password
        .into_iter()
        .chain(base.query_pairs().map(|(_, value)| value.into_owned()))
        .map(Secret::new)
        .collect()
}

/// Follows redirects within one host.
fn stay_at_home(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from =
        attempt.previous().first().map(|url| (url.scheme(), url.host_str(), url.port_or_known_default()));
    let to = (attempt.url().scheme(), attempt.url().host_str(), attempt.url().port_or_known_default());
    if from == Some(to) && attempt.previous().len() < 10 { attempt.follow() } else { attempt.stop() }
}

/// What to do when it is not known whether a request was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Send it again: twice is as good as once.
    Always,
    /// Send it again only when it was certainly not carried out.
    WhenRefused,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Client {
        Client::new(Endpoint::new("test", url)).unwrap()
    }

    fn check_url(base: &str, path: &[&str], expected: &str) {
        assert_eq!(client(base).url(path).as_str(), expected);
    }

    #[test]
    fn addresses_are_joined_below_the_base() {
        check_url("http://h/v1", &["chat", "completions"], "http://h/v1/chat/completions");
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
    fn a_place_is_known_by_provider_and_address() {
        let check = |base: &str, expected: &str| {
            assert_eq!(Endpoint::new("any", base).identity, expected);
        };
        check("https://api.example.com/v1/", "openai-compatible|https://api.example.com/v1");
        check("http://127.0.0.1:4100/v1", "openai-compatible|http://127.0.0.1/v1");
        check("https://me:pass@h.example/v1?token=t", "openai-compatible|https://h.example/v1");
        assert_eq!(Endpoint::local("http://127.0.0.1:1/v1").identity, "local");
        let azure =
            Access { deployment: Some("d".into()), ..Access::to(provider::provider("azure").unwrap()) };
        let endpoint = Endpoint::new("any", "https://r.openai.azure.com").with_access(azure);
        assert_eq!(endpoint.identity, "azure|https://r.openai.azure.com#d");
    }

    #[test]
    fn what_a_row_says_of_its_own_is_part_of_what_is_asked() {
        let of = |name: &str| Access::to(provider::provider(name).unwrap());
        let header =
            |value: &str, is_key| Header { name: "X-Beta".into(), value: Secret::new(value), is_key };
        let check = |access: Access, headers: Vec<Header>, own: &str| {
            let endpoint = Endpoint { headers, ..Endpoint::new("any", "https://h/v1").with_access(access) };
            assert_eq!(endpoint.asked_as(), format!("{}{own}", endpoint.identity));
        };
        check(of("openai"), vec![], "");
        check(Access { sampling: Some(true), stream: Some(true), ..of("openai") }, vec![], "");
        check(Access { sampling: Some(false), ..of("openai") }, vec![], "|sampling=false");
        check(Access { sampling: Some(false), ..of("anthropic") }, vec![], "");
        let older =
            Access { anthropic_version: Some("2023-01-01".into()), sampling: Some(true), ..of("anthropic") };
        check(older, vec![], "|anthropic-version=2023-01-01|sampling=true");
        let usual = Access { anthropic_version: Some("2023-06-01".into()), ..of("anthropic") };
        check(usual, vec![header("a-key", true)], "");
        check(of("openai"), vec![header("one", false)], "|x-beta=7692c3ad3540bb80");
    }

    #[test]
    fn no_secret_is_printed() {
        let endpoint = Endpoint {
            headers: vec![Header {
                name: "x-extra".into(),
                value: Secret::new("extra-secret"),
                is_key: false,
            }],
            ..Endpoint::new("test", "http://user:pass-word@h/v1?token=to-ken")
        };
        let client = Client::new(endpoint.with_key(Some(Secret::new("sk-abc")))).unwrap();
        let printed = format!("{client:?} {:?} {:?}", client.endpoint(), client.headers);
        for secret in ["sk-abc", "extra-secret", "pass-word", "to-ken"] {
            assert!(!printed.contains(secret), "{printed}");
            assert!(!client.scrubbed(&format!("it says {secret}")).contains(secret));
        }
    }

    #[test]
    fn a_key_that_no_header_carries_is_the_users_error() {
        let endpoint = Endpoint::new("test", "http://h/v1").with_key(Some(Secret::new("a\nb-secret")));
        let error = Client::new(endpoint).unwrap_err();
        assert!(matches!(&error, ModelError::Endpoint(why) if !why.contains("secret")), "{error}");
    }
}
