//! Bodies and queries, with every fault a 400 in the protocol's words.

use axum::{
    body::{Body as HttpBody, Bytes},
    extract::{FromRequest, FromRequestParts, Query, Request, rejection::BytesRejection},
    http::{StatusCode, request::Parts},
};
use futures::StreamExt;
use serde::de::DeserializeOwned;

use super::{JSON_LIMIT, limits::is_too_slow};
use crate::error::ApiError;

/// Most bytes that are taken of a body after it was refused.
const MOST_IN_VAIN: usize = 256 << 20;

/// A JSON body. The content type has to say so: a web page cannot send that without asking first.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind =
            request.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !kind.to_ascii_lowercase().starts_with("application/json") {
            return Err(ApiError::unsupported_media("send the body as `Content-Type: application/json`"));
        }
        let bytes = whole(request, state).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|e| refusal(&e))
    }
}

/// A body whole. One that says beforehand that it is too large is not waited for.
pub async fn whole<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    let declared =
        request.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
    if declared.is_some_and(|bytes: u64| bytes > JSON_LIMIT as u64) {
        // A client that sends first and listens then would find a closed connection in place of the answer.
        tokio::spawn(swallow(request.into_body()));
        return Err(too_large());
    }
    Bytes::from_request(request, state).await.map_err(|e| unreadable(&e))
}

/// Takes what a client sends in vain, for a while.
async fn swallow(body: HttpBody) {
    let (mut chunks, mut bytes) = (body.into_data_stream(), 0);
    while let Some(Ok(chunk)) = chunks.next().await {
        bytes += chunk.len();
        if bytes > MOST_IN_VAIN {
            return;
        }
    }
}

fn too_large() -> ApiError {
    ApiError::too_large("the body is larger than 32 MB")
}

/// Why a body did not come whole.
fn unreadable(error: &BytesRejection) -> ApiError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        too_large()
    } else if is_too_slow(error) {
        ApiError::too_slow()
    } else {
        ApiError::bad(format!("the body cannot be read: {error}"))
    }
}

/// Runs what waits for the disk or computes for long where it holds nobody up.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)?
}

/// Says what is wrong with a body; a missing field is named as the parameter.
fn refusal(error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    if !error.is_data() {
        return ApiError::bad(format!("the body is not JSON: {text}"));
    }
    let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
    match missing {
        Some((field, _)) => ApiError::missing(field),
        None => {
            ApiError::bad(format!("the body does not have the expected form: {text}")).code("invalid_value")
        }
    }
}

/// The query as pairs, decoded.
pub struct Pairs(pub Vec<(String, String)>);

impl Pairs {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Pairs {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        query
            .map(|Query(pairs)| Self(pairs))
            .map_err(|e| ApiError::bad(format!("the query cannot be read: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expected: &[(&str, &str)]) {
        let uri = format!("/v1/fine_tuning/jobs?{query}").parse().unwrap();
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&uri).unwrap();
        let expected: Vec<_> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(pairs, expected, "{query}");
    }

    #[test]
    fn queries_are_read_as_every_client_writes_them() {
        check("metadata%5Ba+b%5D=c", &[("metadata[a b]", "c")]);
        check("metadata[a%20b]=c+d", &[("metadata[a b]", "c d")]);
        check("metadata[k]=&limit=2", &[("metadata[k]", ""), ("limit", "2")]);
        check("metadata=null", &[("metadata", "null")]);
        check("metadata%5Bk%5D=%F0%9F%A6%80", &[("metadata[k]", "\u{1f980}")]);
    }
}
