//! The only thing that a page can reach: Streamlit's own files from its package, and, of the candidate's server, what an
//! app needs to work.
//!
//! Files come from the package and never from the candidate, so a candidate cannot change what draws it or what draws the
//! next one. Of its answers only what a browser needs to show them is passed on, nothing of them may be stored, and the
//! agent API, which belongs to the other witness, is out of reach.
//!
//! All pages shown at once share a loopback, so that a page can reach the ports of others. What answers there is a
//! [`Gate`]: it lets through what the look's own page asks, which alone has the look's secret, and nothing else.

use std::{
    collections::HashMap,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client,
    header::{self, HeaderMap, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, UnixStream},
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::wire::Ledger;

/// Largest body passed on in either direction, in bytes.
const MOST_BODY: usize = 32 << 20;
/// Largest message of the page's connection, in bytes.
const MOST_MESSAGE: usize = 16 << 20;

type Body = Full<Bytes>;

/// Streamlit's package files, read once.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    read: Mutex<HashMap<String, Option<Bytes>>>,
}

impl Files {
    /// The files below `root`, the `static` folder of the package.
    pub fn new(root: PathBuf) -> Self {
        Self { root, read: Mutex::new(HashMap::new()) }
    }

    /// A file by its URL's path; only plain names lead to one.
    fn get(&self, path: &str) -> Option<Bytes> {
        let plain =
            |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', '%', '\0']);
        if !path.split('/').all(plain) {
            return None;
        }
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = read.get(path) {
            return known.clone();
        }
        let found = std::fs::read(self.root.join(path)).ok().map(Bytes::from);
        // The package has some hundreds of files; names that are none come from the page and are not kept.
        if found.is_some() {
            read.insert(path.to_owned(), found.clone());
        }
        found
    }
}

/// Who may ask: the page that one look opened, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gate {
    port: u16,
    secret: String,
}

impl Gate {
    /// Name of the cookie that holds the secret. It is set in the context of the look's own page, where no script can read
    /// it, and no other context has it.
    pub const COOKIE: &str = "hone-look";

    /// A gate with a secret of its own.
    pub fn new(port: u16) -> Self {
        Self { port, secret: format!("{:032x}", rand::random::<u128>()) }
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.host())
    }

    pub fn secret(&self) -> &str {
        &self.secret
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whether a request comes from the look's own page.
    ///
    /// The secret decides; the headers that a browser writes by itself say the same once more, and keep out what another
    /// page could make this one's own frames ask.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let text = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        text(&header::HOST) == Some(self.host().as_bytes())
            && text(&header::ORIGIN).is_none_or(|origin| origin == self.origin().as_bytes())
            && site.is_none_or(|site| site == b"same-origin" || site == b"none")
            && headers.get_all(header::COOKIE).iter().any(|cookies| self.is_held(cookies))
    }

    fn is_held(&self, cookies: &HeaderValue) -> bool {
        let pairs = cookies.to_str().unwrap_or_default().split(';');
        pairs.filter_map(|pair| pair.trim().split_once('=')).any(|pair| pair == (Self::COOKIE, &self.secret))
    }
}

/// What serves one candidate's page.
#[derive(Clone)]
pub(super) struct Upstream {
    pub gate: Gate,
    pub files: Arc<Files>,
    /// The candidate's server.
    pub socket: PathBuf,
    pub ledger: Arc<Mutex<Ledger>>,
}

/// Serves until it is dropped, and every connection with it.
pub(super) async fn serve(listener: &TcpListener, upstream: Upstream) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let upstream = upstream.clone();
        connections.spawn(async move {
            let answer = |request| {
                let upstream = upstream.clone();
                async move { Ok::<_, Infallible>(respond(request, &upstream).await) }
            };
            let connection = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .with_upgrades();
            // A page that hangs up is no fault.
            let _ = connection.await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn respond(request: Request<Incoming>, upstream: &Upstream) -> Response<Body> {
    if !upstream.gate.admits(request.headers()) {
        return plain(StatusCode::FORBIDDEN);
    }
    let path = request.uri().path().to_owned();
    match route(request.method(), &path) {
        Route::File(name) => file(&upstream.files, name),
        Route::Stream => stream(request, upstream).await.unwrap_or_else(|| plain(StatusCode::BAD_GATEWAY)),
        Route::Pass => pass(request, upstream).await.unwrap_or_else(|| plain(StatusCode::BAD_GATEWAY)),
        Route::Refuse => plain(StatusCode::NOT_FOUND),
    }
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route<'a> {
    /// A file of Streamlit's package.
    File(&'a str),
    /// The connection over which the app is drawn.
    Stream,
    /// The candidate's server.
    Pass,
    Refuse,
}

fn route<'a>(method: &Method, path: &'a str) -> Route<'a> {
    let name = path.trim_start_matches('/');
    let below = |folder: &str| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    if name == "_stcore/stream" {
        return Route::Stream;
    }
    // A path that is normalised on the way could leave its folder.
    if name.contains("..") || name.contains('%') && below("_stcore") || below("_stcore/agent") {
        return Route::Refuse;
    }
    if ["_stcore", "media", "component"].iter().any(|folder| below(folder)) {
        return Route::Pass;
    }
    if method == Method::GET { Route::File(name) } else { Route::Refuse }
}

/// A file of the package; the page itself for every other name, as Streamlit does for the names of pages.
fn file(files: &Files, name: &str) -> Response<Body> {
    let (name, bytes) = match files.get(name) {
        Some(bytes) => (name, bytes),
        None if name.starts_with("static/") => return plain(StatusCode::NOT_FOUND),
        None => ("index.html", files.get("index.html").unwrap_or_default()),
    };
    let cache = if name.starts_with("static/") { "public, max-age=31536000, immutable" } else { "no-store" };
    let mut response = Response::new(Full::new(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(name)));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

fn content_type(name: &str) -> &'static str {
    match Path::new(name).extension().and_then(|end| end.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "gif" => "image/gif",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// Headers of a candidate's answer that a page needs. Cookies, storage, workers and policies are not among them.
const PASSED: &[HeaderName] =
    &[header::CONTENT_TYPE, header::CONTENT_DISPOSITION, header::CONTENT_RANGE, header::ACCEPT_RANGES];

/// Asks the candidate's server and passes its answer on.
async fn pass(request: Request<Incoming>, upstream: &Upstream) -> Option<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MOST_BODY).collect().await.ok()?.to_bytes();
    let stream = UnixStream::connect(&upstream.socket).await.ok()?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let target = parts.uri.path_and_query()?.as_str();
    let mut asked = Request::builder().method(parts.method).uri(target).header(header::HOST, "localhost");
    for name in [header::CONTENT_TYPE, header::RANGE, header::ACCEPT] {
        if let Some(value) = parts.headers.get(&name) {
            asked = asked.header(name, value);
        }
    }
    let answer = sender.send_request(asked.body(Full::new(body)).ok()?).await.ok()?;
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, MOST_BODY).collect().await.ok()?.to_bytes();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = parts.status;
    for name in PASSED {
        if let Some(value) = parts.headers.get(name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

/// Joins the page's connection to the candidate's server and reads along.
async fn stream(mut request: Request<Incoming>, upstream: &Upstream) -> Option<Response<Body>> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY)?.clone();
    let protocol = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL).cloned();
    let mut asked = "ws://localhost/_stcore/stream".into_client_request().ok()?;
    if let Some(protocol) = &protocol {
        asked.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.clone());
    }
    let limits =
        WebSocketConfig::default().max_message_size(Some(MOST_MESSAGE)).max_frame_size(Some(MOST_MESSAGE));
    let socket = UnixStream::connect(&upstream.socket).await.ok()?;
    let (server, agreed) = client_async_with_config(asked, socket, Some(limits)).await.ok()?;
    let mut response = plain(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(
        header::SEC_WEBSOCKET_ACCEPT,
        HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()?,
    );
    if let Some(chosen) = agreed.headers().get(header::SEC_WEBSOCKET_PROTOCOL) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, chosen.clone());
    }
    // Every page names its origin here; what does not is no page.
    request.headers().get(header::ORIGIN)?;
    let ledger = Arc::clone(&upstream.ledger);
    let account = lock(&ledger).open()?;
    let upgraded = hyper::upgrade::on(&mut request);
    // The task ends with either side: the candidate's server is killed after the look, if not before.
    tokio::spawn(async move {
        if let Ok(page) = upgraded.await {
            let page = WebSocketStream::from_raw_socket(TokioIo::new(page), Role::Server, Some(limits)).await;
            join(page, server, &ledger, account).await;
        }
    });
    Some(response)
}

/// No code between lock and unlock panics, so what is inside is whole.
fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn join<P, S>(
    page: WebSocketStream<P>,
    server: WebSocketStream<S>,
    ledger: &Mutex<Ledger>,
    account: usize,
) where
    P: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut to_page, mut from_page) = page.split();
    let (mut to_server, mut from_server) = server.split();
    let out = async {
        while let Some(Ok(message)) = from_page.next().await {
            if to_server.send(message).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        while let Some(Ok(message)) = from_server.next().await {
            if let Message::Binary(bytes) = &message {
                lock(ledger).read(account, bytes);
            }
            if to_page.send(message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = out => {} () = back => {} }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Route<'_>) {
        assert_eq!(route(&Method::GET, path), expected, "{path}");
    }

    #[test]
    fn only_what_an_app_needs_reaches_the_candidate() {
        check("/", Route::File(""));
        check("/static/js/index.js", Route::File("static/js/index.js"));
        check("/_stcore/stream", Route::Stream);
        check("/_stcore/health", Route::Pass);
        check("/media/abc.png", Route::Pass);
        check("/component/x.y/index.html", Route::Pass);
        check("/Second_page", Route::File("Second_page"));
        for path in [
            "/_stcore/agent/interact",
            "/_stcore/x/../agent/interact",
            "/_stcore/%61gent/interact",
            "//_stcore/agent/x",
        ] {
            check(path, Route::Refuse);
        }
        assert_eq!(route(&Method::POST, "/static/js/index.js"), Route::Refuse);
    }

    #[track_caller]
    fn check_gate(headers: &[(&str, &str)], admitted: bool) {
        let gate = Gate { port: 8502, secret: "s3".to_owned() };
        let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).unwrap();
        let value = |value: &str| HeaderValue::from_str(value).unwrap();
        let headers: HeaderMap = headers.iter().map(|(n, v)| (name(n), value(v))).collect();
        assert_eq!(gate.admits(&headers), admitted, "{headers:?}");
    }

    #[test]
    fn only_the_page_of_the_look_is_answered() {
        let host = ("host", "127.0.0.1:8502");
        let cookie = ("cookie", "mark=left; hone-look=s3");
        check_gate(&[host, cookie], true);
        check_gate(
            &[host, cookie, ("origin", "http://127.0.0.1:8502"), ("sec-fetch-site", "same-origin")],
            true,
        );
        check_gate(&[host, cookie, ("sec-fetch-site", "none")], true);
        check_gate(&[host], false);
        check_gate(&[cookie], false);
        check_gate(&[host, ("cookie", "hone-look=other")], false);
        check_gate(&[("host", "localhost:8502"), cookie], false);
        check_gate(&[host, cookie, ("origin", "http://127.0.0.1:8501")], false);
        check_gate(&[host, cookie, ("origin", "null")], false);
        check_gate(&[host, cookie, ("sec-fetch-site", "same-site")], false);
        check_gate(&[host, cookie, ("sec-fetch-site", "cross-site")], false);
    }

    #[test]
    fn secrets_differ() {
        assert_ne!(Gate::new(8501), Gate::new(8501));
    }

    #[test]
    fn names_do_not_leave_the_package() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("static")).unwrap();
        std::fs::write(folder.path().join("secret"), "s").unwrap();
        std::fs::write(folder.path().join("static/a.js"), "a").unwrap();
        let files = Files::new(folder.path().join("static"));
        assert_eq!(files.get("a.js"), Some(Bytes::from_static(b"a")));
        for name in ["../secret", "/../secret", "..%2fsecret", "a.js/../../secret", ".", ""] {
            assert_eq!(files.get(name), None, "{name}");
        }
    }
}
