//! `Idempotency-Key`: a request that creates something is served once per key, path and day.
//!
//! The random part of the new thing's id is on disk before anything is made. A request that is repeated after a kill
//! therefore makes, or finds, the same thing; after an answer it gets that answer again. Requests with one key are served
//! one after the other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedMutexGuard;

use crate::{
    app::App,
    disk::{Answers, Kept},
    error::ApiError,
    ids,
};

/// Most characters of a key.
const LONGEST_KEY: usize = 255;
/// Most bytes of an answer that is kept; what is created here is described in less.
const LARGEST_ANSWER: usize = 1 << 20;

/// Locks that there is one of for each key.
#[derive(Default)]
pub struct Keyed {
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Keyed {
    /// Waits until nobody else has the key.
    pub async fn lock(&self, key: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(key.to_owned()).or_default().clone()
        };
        lock.lock_owned().await
    }
}

/// The random part of the id of what a request makes.
#[derive(Clone, Debug)]
pub struct NewId(String);

impl NewId {
    fn random() -> Self {
        Self(ids::random(""))
    }

    pub fn with(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.0)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NewId {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(Self::random))
    }
}

/// Hash of what is asked: of `parts`, each by itself.
pub fn fingerprint(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key of a request, if it has one.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let wrong = || {
        ApiError::bad(format!("`Idempotency-Key` must have 1 to {LONGEST_KEY} visible characters"))
            .param("Idempotency-Key")
    };
    let visible = |key: &&str| key.bytes().all(|byte| byte.is_ascii_graphic());
    let key = value.to_str().ok().filter(|key| (1..=LONGEST_KEY).contains(&key.len())).filter(visible);
    key.map(|key| Some(key.to_owned())).ok_or_else(wrong)
}

/// A request that is served under its key.
struct Begun {
    app: Arc<App>,
    name: String,
    kept: Kept,
    _turn: OwnedMutexGuard<()>,
}

/// What a key stands for.
enum Claim {
    /// Nothing yet, or nothing that was answered.
    Begun(Begun),
    /// It was answered, so.
    Answered(Value),
}

impl Claim {
    /// Waits for the key's turn and looks it up.
    async fn take(app: &Arc<App>, path: &str, key: &str, fingerprint: String) -> Result<Self, ApiError> {
        let name = Answers::name(path, key);
        let turn = app.keys.lock(&name).await;
        let kept = match app.answers.get(&name)? {
            Some(kept) if kept.fingerprint != fingerprint => {
                let message =
                    "this `Idempotency-Key` was used for another request: use a new key for a new one";
                return Err(ApiError::bad(message).param("Idempotency-Key").code("idempotency_key_reused"));
            }
            Some(Kept { answer: Some(answer), .. }) => return Ok(Self::Answered(answer)),
            Some(kept) => kept,
            None => Kept { fingerprint, tail: ids::random(""), at: ids::now(), answer: None },
        };
        app.answers.put(&name, &kept)?;
        Ok(Self::Begun(Begun { app: app.clone(), name, kept, _turn: turn }))
    }
}

impl Begun {
    fn id(&self) -> NewId {
        NewId(self.kept.tail.clone())
    }

    /// Keeps the answer for whoever asks again.
    fn answer(self, answer: Value) -> Result<(), ApiError> {
        Ok(self.app.answers.put(&self.name, &Kept { answer: Some(answer), ..self.kept })?)
    }

    /// Nothing was made: the key is free again.
    fn refused(self) {
        self.app.answers.remove(&self.name);
    }
}

/// The answer that was given before.
fn replayed(answer: Value) -> Response {
    let mut response = Json(answer).into_response();
    response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    response
}

/// Makes something under a key, if there is one: for routes whose body is not JSON. `fingerprint` tells what is asked.
pub async fn make<T, F>(
    app: &Arc<App>,
    path: &str,
    key: Option<String>,
    fingerprint: String,
    make: impl FnOnce(NewId) -> F,
) -> Result<Response, ApiError>
where
    T: Serialize,
    F: Future<Output = Result<T, ApiError>>,
{
    let Some(key) = key else { return Ok(Json(make(NewId::random()).await?).into_response()) };
    let begun = match Claim::take(app, path, &key, fingerprint).await? {
        Claim::Answered(answer) => return Ok(replayed(answer)),
        Claim::Begun(begun) => begun,
    };
    match make(begun.id()).await {
        Ok(made) => {
            let answer = serde_json::to_value(made).map_err(ApiError::internal)?;
            begun.answer(answer.clone())?;
            Ok(Json(answer).into_response())
        }
        Err(error) => {
            if error.is_refusal() {
                begun.refused();
            }
            Err(error)
        }
    }
}

/// For routes whose POST has a JSON body.
pub async fn once(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, ApiError> {
    let key = if request.method() == Method::POST { key(request.headers())? } else { None };
    let Some(key) = key else { return Ok(next.run(request).await) };
    let path = request.uri().path().to_owned();
    let (mut parts, body) = request.into_parts();
    let whole = Request::from_parts(parts.clone(), body);
    let body = super::extract::whole(whole, &()).await?;
    match Claim::take(&app, &path, &key, fingerprint(&[&body])).await? {
        Claim::Answered(answer) => Ok(replayed(answer)),
        Claim::Begun(begun) => {
            parts.extensions.insert(begun.id());
            settle(begun, next.run(Request::from_parts(parts, Body::from(body))).await).await
        }
    }
}

async fn settle(begun: Begun, response: Response) -> Result<Response, ApiError> {
    if !response.status().is_success() {
        // A fault of ours may have left something behind: whoever tries again finds it by its id.
        if response.status().is_client_error() {
            begun.refused();
        }
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, LARGEST_ANSWER).await.map_err(ApiError::internal)?;
    begun.answer(serde_json::from_slice(&bytes).map_err(ApiError::internal)?)?;
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_parts_apart() {
        assert_eq!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"ab", b"c"]));
        assert_ne!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"a", b"bc"]));
        assert_eq!(fingerprint(&[]).len(), 64);
    }

    #[test]
    fn keys_have_a_form() {
        let with = |value: &str| {
            let headers =
                HeaderMap::from_iter([("idempotency-key".parse().unwrap(), value.parse().unwrap())]);
            key(&headers).ok().flatten()
        };
        assert_eq!(with("a-1"), Some("a-1".into()));
        assert_eq!(with("!~"), Some("!~".into()));
        for wrong in ["", "a b", "a\tb", &"x".repeat(256)] {
            assert_eq!(with(wrong), None, "{wrong:?}");
        }
        assert_eq!(key(&HeaderMap::new()).unwrap(), None);
    }

    #[tokio::test]
    async fn one_key_is_one_at_a_time() {
        let keyed = Keyed::default();
        let first = keyed.lock("a").await;
        let _other = keyed.lock("b").await;
        let second = tokio::time::timeout(std::time::Duration::from_millis(20), keyed.lock("a")).await;
        assert!(second.is_err());
        drop(first);
        drop(keyed.lock("a").await);
        assert!(keyed.locks.lock().unwrap().len() <= 2);
    }
}
