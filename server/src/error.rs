//! Refusals in the protocol's words, and what keeps a server from starting.

use axum::{
    Json,
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use hone::{
    error::{Explain, Kind},
    model::wire::{ErrorBody, ErrorEnvelope},
    store::{LockError, StoreError},
};

/// A request that is refused. Bad input is 400, never 422; 409 is not used, because clients repeat it.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorBody,
    /// Seconds after which a full queue may have room.
    retry_after: Option<u32>,
    /// False where a status that clients repeat by themselves will not get better.
    retry: bool,
}

impl ApiError {
    fn new(status: StatusCode, kind: &str, message: impl Into<String>) -> Self {
        let body = ErrorBody { message: message.into(), r#type: kind.into(), param: None, code: None };
        Self { status, body, retry_after: None, retry: true }
    }

    /// 400: the request cannot be served as it is.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 400 that names the parameter.
    pub fn bad_param(param: &str, message: impl Into<String>) -> Self {
        Self::bad(message).param(param).code("invalid_value")
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    pub fn unknown_model(id: &str) -> Self {
        Self::not_found(format!("the model `{id}` does not exist on this server"))
            .param("model")
            .code("model_not_found")
    }

    pub fn unauthorized() -> Self {
        let message =
            "the API key is missing or wrong: send `Authorization: Bearer KEY` with the server's key";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message).code("invalid_api_key")
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", message)
    }

    /// 403 for what one could have elsewhere, and never here.
    pub fn not_offered(message: impl Into<String>) -> Self {
        Self::forbidden(message).code("not_supported")
    }

    pub fn missing(field: &str) -> Self {
        Self::bad(format!("`{field}` is missing")).param(field).code("missing_required_parameter")
    }

    /// 408: the body does not come, or comes too slowly.
    pub fn too_slow() -> Self {
        let message = "the body of the request comes too slowly, or has stopped coming";
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message).code("request_timeout")
    }

    /// 507: nothing can be written, and asking again changes nothing.
    pub fn disk_full(why: &StoreError) -> Self {
        tracing::error!(%why, "the disk is full");
        let message = format!("the server's disk is full ({why}): free some space, then try again");
        let error = Self::new(StatusCode::INSUFFICIENT_STORAGE, "server_error", message);
        Self { retry: false, ..error.code("insufficient_storage") }
    }

    pub fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "this path has no such method")
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    pub fn unsupported_media(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message)
    }

    /// 429: as many requests wait as are allowed to.
    pub fn busy() -> Self {
        let error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "requests",
            "too many requests are waiting, try again soon",
        );
        Self { retry_after: Some(2), ..error.code("rate_limit_exceeded") }
    }

    /// 500: our fault. The reason goes to the log and to the client, which is usually the same person.
    pub fn internal(why: impl std::fmt::Display) -> Self {
        tracing::error!(%why, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", why.to_string()).code("server_error")
    }

    /// 503: the server is going down.
    pub fn stopping() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            "the engine does not run: the server is stopping, or has failed",
        )
        .code("server_error")
    }

    pub fn param(mut self, param: &str) -> Self {
        self.body.param = Some(param.into());
        self
    }

    pub fn code(mut self, code: &str) -> Self {
        self.body.code = Some(code.into());
        self
    }

    /// A refusal that a library worded.
    pub fn worded(status: StatusCode, message: impl Into<String>) -> Self {
        let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
        Self::new(status, kind, message)
    }

    /// True when the request is at fault, and nothing was done.
    pub fn is_refusal(&self) -> bool {
        self.status.is_client_error()
    }

    /// The same about a parameter that has another name where the request came in.
    pub fn rename(mut self, from: &str, to: &str) -> Self {
        if self.body.param.as_deref() == Some(from) {
            self.body.param = Some(to.into());
        }
        self
    }

    /// The body, for an error in the middle of a stream.
    pub fn envelope(self) -> ErrorEnvelope {
        ErrorEnvelope { error: self.body }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        use std::io::ErrorKind as E;
        match error.source.kind() {
            E::StorageFull | E::QuotaExceeded => Self::disk_full(&error),
            _ => Self::internal(error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (retry_after, retry) = (self.retry_after, self.retry);
        let mut response = (self.status, Json(ErrorEnvelope { error: self.body })).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert("retry-after", HeaderValue::from(seconds));
        }
        if !retry {
            response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("another server runs on this workspace{}", at(address))]
    Running { address: Option<String> },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error("the server stopped: {0}")]
    Io(#[from] std::io::Error),
    #[error("no base model is configured")]
    NoModels,
    #[error(transparent)]
    Lock(LockError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn at(address: &Option<String>) -> String {
    address.as_ref().map(|address| format!(" at {address}")).unwrap_or_default()
}

impl Explain for ServeError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoModels => Kind::Internal,
            Self::Store(e) => e.kind(),
            _ => Kind::Environment,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Running { .. } => Some("use that one, or stop it first".into()),
            Self::Listen { .. } => {
                Some("choose another port with `--port`, or stop what listens there".into())
            }
            Self::NoModels => None,
            Self::Io(_) => None,
            Self::Lock(e) => e.hint(),
            Self::Store(e) => e.hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_reason_to_try_again() {
        let full = std::io::ErrorKind::StorageFull.into();
        let response = ApiError::from(StoreError::new("write", "files/a", full)).into_response();
        assert_eq!(response.status(), StatusCode::INSUFFICIENT_STORAGE);
        assert_eq!(response.headers()["x-should-retry"], "false");
        let denied = std::io::ErrorKind::PermissionDenied.into();
        let response = ApiError::from(StoreError::new("write", "files/a", denied)).into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
