//! The endpoints, and what holds for all of them: authorisation, request ids, refusals as JSON.

mod chat;
mod extract;
mod fields;
mod files;
mod jobs;
mod logprobs;
mod models;
mod page;
mod responses;
mod sampling;
mod sse;

pub use responses::Responses;

use std::{net::IpAddr, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderValue, Uri, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};

use crate::{app::App, error::ApiError, ids};

/// Most bytes of a JSON body: long conversations fit, accidents do not.
const JSON_LIMIT: usize = 32 << 20;

/// The whole API.
pub fn router(app: Arc<App>) -> Router {
    let v1 = Router::new()
        .route("/files", get(files::list).post(files::create).layer(DefaultBodyLimit::disable()))
        .route("/files/{id}", get(files::get).delete(files::delete))
        .route("/files/{id}/content", get(files::content))
        .route("/fine_tuning/jobs", get(jobs::list).post(jobs::create))
        .route("/fine_tuning/jobs/{id}", get(jobs::get))
        .route("/fine_tuning/jobs/{id}/cancel", post(jobs::cancel))
        .route("/fine_tuning/jobs/{id}/pause", post(jobs::pause))
        .route("/fine_tuning/jobs/{id}/resume", post(jobs::pause))
        .route("/fine_tuning/jobs/{id}/events", get(jobs::events))
        .route("/fine_tuning/jobs/{id}/checkpoints", get(jobs::checkpoints))
        .route("/models", get(models::list))
        .route("/models/{*id}", get(models::get).delete(models::delete))
        .route("/chat/completions", post(chat::create))
        .route("/responses", post(responses::create))
        .route("/responses/{id}", get(responses::get).delete(responses::delete))
        .layer(middleware::from_fn_with_state(app.clone(), authorise));
    Router::new()
        .nest("/v1", v1)
        .fallback(no_route)
        .method_not_allowed_fallback(async || ApiError::wrong_method())
        .layer(DefaultBodyLimit::max(JSON_LIMIT))
        .layer(middleware::from_fn(request_id))
        .with_state(app)
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is no `{}` on this server: the API is below `/v1`", uri.path()))
        .code("unknown_url")
}

async fn request_id(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let id = ids::random("req_");
    let mut response = next.run(request).await;
    tracing::debug!(%method, path, status = response.status().as_u16(), id, "answered");
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
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
