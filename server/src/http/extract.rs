//! Bodies and queries, with every fault a 400 in the protocol's words.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use crate::error::ApiError;

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
        let bytes = Bytes::from_request(request, state).await.map_err(|e| {
            let too_large = e.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE;
            if too_large {
                ApiError::too_large("the body is larger than 32 MB")
            } else {
                ApiError::bad(e.to_string())
            }
        })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|e| refusal(&e))
    }
}

/// Says what is wrong with a body; a missing field is named as the parameter.
fn refusal(error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    if !error.is_data() {
        return ApiError::bad(format!("the body is not JSON: {text}"));
    }
    let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
    match missing {
        Some((field, _)) => {
            ApiError::bad(format!("`{field}` is missing")).param(field).code("missing_required_parameter")
        }
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
