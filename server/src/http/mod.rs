//! The endpoints, and what holds for all of them: authorisation, request ids, refusals as JSON.

mod batches;
mod chat;
mod extract;
mod fields;
mod files;
mod graders;
mod idempotency;
mod jobs;
mod limits;
mod logprobs;
mod models;
mod multipart;
mod page;
mod permissions;
mod responses;
mod sampling;
mod sse;
mod uploads;
mod watched;

pub use extract::blocking;
pub use idempotency::Keyed;
pub use responses::Responses;

use std::{net::IpAddr, sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{DefaultBodyLimit, OriginalUri, Request, State},
    http::{HeaderMap, HeaderValue, Uri, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, delete, get, post},
};

use crate::{app::App, error::ApiError, ids};

/// Most bytes of a JSON body: long conversations fit, accidents do not.
const JSON_LIMIT: usize = 32 << 20;

/// The whole API.
pub fn router(app: Arc<App>) -> Router {
    let answers = answers().layer(middleware::from_fn_with_state(app.clone(), limits::tell_the_queue));
    let created = created_from_json().layer(middleware::from_fn_with_state(app.clone(), idempotency::once));
    let v1 = the_rest()
        .merge(answers)
        .merge(created)
        .layer(middleware::from_fn_with_state(app.clone(), authorise))
        .layer(middleware::from_fn_with_state(app.clone(), limits::pace));
    Router::new()
        .nest("/v1", v1)
        .fallback(no_route)
        .method_not_allowed_fallback(async || ApiError::wrong_method())
        .layer(DefaultBodyLimit::max(JSON_LIMIT))
        .layer(middleware::from_fn(label))
        .with_state(app)
}

/// What answers come from: what batches can ask too.
fn answers() -> Router<Arc<App>> {
    Router::new().route("/chat/completions", post(chat::create)).route("/responses", post(responses::create))
}

/// The same handlers for this process's own requests: without keys, and not counted among those that somebody waits for.
pub fn answers_alone(app: Arc<App>) -> Router {
    Router::new().nest("/v1", answers()).layer(DefaultBodyLimit::max(JSON_LIMIT)).with_state(app)
}

/// What makes something out of a JSON body, once per `Idempotency-Key`; the lists of the same paths with it.
fn created_from_json() -> Router<Arc<App>> {
    Router::new()
        .route("/fine_tuning/jobs", get(jobs::list).post(jobs::create))
        .route("/uploads", post(uploads::create))
        .route("/uploads/{id}/complete", post(uploads::complete))
        .route("/batches", get(batches::list).post(batches::create))
}

fn the_rest() -> Router<Arc<App>> {
    let streamed = Router::new()
        .route("/files", get(files::list).post(files::create))
        .route("/uploads/{id}/parts", post(uploads::add_part))
        .layer(DefaultBodyLimit::disable());
    Router::new()
        .merge(streamed)
        // Of OpenAI's, and no responses of these names: another method would not help.
        .route("/responses/input_tokens", any(no_route))
        .route("/responses/compact", any(no_route))
        .route("/responses/{id}", get(responses::get).delete(responses::delete))
        .route("/files/{id}", get(files::get).delete(files::delete))
        .route("/files/{id}/content", get(files::content))
        .route("/uploads/{id}/cancel", post(uploads::cancel))
        .route("/fine_tuning/jobs/{id}", get(jobs::get))
        .route("/fine_tuning/jobs/{id}/cancel", post(jobs::cancel))
        .route("/fine_tuning/jobs/{id}/pause", post(jobs::pause))
        .route("/fine_tuning/jobs/{id}/resume", post(jobs::resume))
        .route("/fine_tuning/jobs/{id}/events", get(jobs::events))
        .route("/fine_tuning/jobs/{id}/checkpoints", get(jobs::checkpoints))
        .route(
            "/fine_tuning/checkpoints/{id}/permissions",
            get(permissions::refuse).post(permissions::refuse),
        )
        .route("/fine_tuning/checkpoints/{id}/permissions/{permission}", delete(permissions::refuse_one))
        .route("/fine_tuning/alpha/graders/run", post(graders::run))
        .route("/fine_tuning/alpha/graders/validate", post(graders::validate))
        .route("/batches/{id}", get(batches::get))
        .route("/batches/{id}/cancel", post(batches::cancel))
        .route("/models", get(models::list))
        .route("/models/{*id}", get(models::get).delete(models::delete))
        .route("/completions", post(no_completions))
        .route("/embeddings", post(no_embeddings))
}

async fn no_completions() -> ApiError {
    ApiError::not_found(
        "this server has no `/v1/completions`: send the text as a message to `/v1/chat/completions`",
    )
    .code("unsupported_endpoint")
}

async fn no_embeddings() -> ApiError {
    ApiError::not_found("this server has no `/v1/embeddings`: its models write text and give no vectors")
        .code("unsupported_endpoint")
}

async fn no_route(OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::not_found(format!("there is no `{}` on this server: the API is below `/v1`", uri.path()))
        .code("unknown_url")
}

/// What every answer carries.
async fn label(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (id, begun) = (ids::random("req_"), Instant::now());
    let mut response = in_json(next.run(request).await).await;
    tracing::debug!(%method, path, status = response.status().as_u16(), id, "answered");
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    headers.insert("openai-processing-ms", limits::processing_ms(begun));
    headers.insert("openai-version", HeaderValue::from_static("2020-10-01"));
    headers.insert("openai-organization", HeaderValue::from_static("org-local"));
    response
}

/// Refusals of the libraries beneath are plain text; clients read JSON.
async fn in_json(response: Response) -> Response {
    let status = response.status();
    let is_json = response.headers().get("content-type").is_some_and(|kind| kind == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), JSON_LIMIT).await.unwrap_or_default();
    ApiError::worded(status, String::from_utf8_lossy(&text)).into_response()
}

async fn authorise(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if let Err(error) =
        check_host(&app, headers).and_then(|()| check_origin(headers)).and_then(|()| check_key(&app, headers))
    {
        return error.into_response();
    }
    next.run(request).await
}

/// A site whose name is made to mean this machine (DNS rebinding) calls from its own pages by its own name.
fn check_host(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get("host").map(|host| host.to_str().unwrap_or_default()) {
        Some(host) if app.loopback && !names_loopback(host) => {
            let message = format!("`{host}` is not a name of this server: call it 127.0.0.1 or localhost");
            Err(ApiError::forbidden(message))
        }
        _ => Ok(()),
    }
}

fn names_loopback(host: &str) -> bool {
    let Some(authority) = host.parse::<Authority>().ok() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Pages of other sites, open in a browser on this machine, may not use the server behind the user's back.
fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get("origin") else { return Ok(()) };
    let authority =
        |value: &HeaderValue| Some(value.to_str().ok()?.parse::<Uri>().ok()?.authority()?.clone());
    let host = headers.get("host").and_then(|host| host.to_str().ok());
    let own = authority(origin).is_some_and(|authority| {
        Some(authority.as_str()) == host && matches!(authority.host(), "127.0.0.1" | "localhost" | "[::1]")
    });
    if own { Ok(()) } else { Err(ApiError::forbidden("requests from web pages of other sites are refused")) }
}

fn check_key(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(key) = &app.config.api_key else { return Ok(()) };
    let sent = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let sent = sent.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    if sent.is_some_and(|(_, sent)| same(sent.trim(), key.expose())) {
        Ok(())
    } else {
        Err(ApiError::unauthorized())
    }
}

/// Compares in a time that does not tell how much is right.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_from(origin: Option<&str>, allowed: bool) {
        let mut headers =
            HeaderMap::from_iter([("host".parse().unwrap(), "127.0.0.1:8642".parse().unwrap())]);
        if let Some(origin) = origin {
            headers.insert("origin", origin.parse().unwrap());
        }
        assert_eq!(check_origin(&headers).is_ok(), allowed, "{origin:?}");
    }

    #[test]
    fn only_our_own_pages_may_call() {
        check_from(None, true);
        check_from(Some("http://127.0.0.1:8642"), true);
        for other in
            ["https://evil.example", "null", "http://127.0.0.1:3000", "http://127.0.0.1.evil.example"]
        {
            check_from(Some(other), false);
        }
    }

    #[test]
    fn names_of_this_machine() {
        for own in ["127.0.0.1:8642", "127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:8642", "127.8.8.8"] {
            assert!(names_loopback(own), "{own}");
        }
        for other in ["evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "", "a b", "localhost.evil"] {
            assert!(!names_loopback(other), "{other}");
        }
    }

    #[test]
    fn keys_are_compared_whole() {
        assert!(same("abc", "abc"));
        for (a, b) in [("abc", "abd"), ("abc", "ab"), ("", "a")] {
            assert!(!same(a, b));
        }
    }
}
