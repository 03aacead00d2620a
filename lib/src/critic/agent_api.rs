//! Streamlit's agent API over a worker's unix socket: plain HTTP/1.1, capped in bytes and time.
//!
//! The API is experimental in Streamlit 1.67, so the version is pinned and everything unknown in an answer is ignored.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::UnixStream, time::timeout};

use super::{browser::LOCALE, page::Snapshot};

/// Most that is read of one answer, in bytes.
pub(super) const MOST_BYTES: usize = 4 << 20;

/// Why there is no snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// The server or its connection ended.
    Died(String),
    /// It did not answer in time, or was still running.
    TimedOut(String),
    TooLarge(String),
    /// The API refused the request; its error code.
    Refused(String),
}

/// An answer and its size.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub snapshot: Snapshot,
    pub bytes: u64,
}

/// A client of one app's server.
#[derive(Clone, Debug)]
pub(super) struct AgentApi {
    socket: PathBuf,
}

impl AgentApi {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Starts a session and reads the page.
    pub async fn open(&self, limit: Duration) -> Result<Answer, Silence> {
        self.ask(&json!({ "context": context() }), limit).await
    }

    /// Starts a session on one of the app's other pages.
    pub async fn open_page(&self, page: &str, limit: Duration) -> Result<Answer, Silence> {
        self.ask(&json!({ "page": page, "context": context() }), limit).await
    }

    /// Reruns the script without a change.
    pub async fn rerun(&self, session: &str, limit: Duration) -> Result<Answer, Silence> {
        self.ask(&json!({ "session_id": session }), limit).await
    }

    /// Sets values and fires at most one trigger, in one rerun.
    pub async fn act(
        &self,
        session: &str,
        values: &serde_json::Map<String, Value>,
        trigger: Option<&Value>,
        limit: Duration,
    ) -> Result<Answer, Silence> {
        let mut body = json!({ "session_id": session });
        if !values.is_empty() {
            body["widget_state"] = Value::Object(values.clone());
        }
        if let Some(trigger) = trigger {
            body["trigger"] = trigger.clone();
        }
        self.ask(&body, limit).await
    }

    async fn ask(&self, body: &Value, limit: Duration) -> Result<Answer, Silence> {
        match timeout(limit, self.exchange(body)).await {
            Ok(answer) => answer,
            Err(_) => Err(Silence::TimedOut(format!("no answer within {} s", limit.as_secs()))),
        }
    }

    async fn exchange(&self, body: &Value) -> Result<Answer, Silence> {
        let stream = UnixStream::connect(&self.socket).await.map_err(died)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(died)?;
        // The connection ends with the sender or with the worker.
        let driver = tokio::spawn(connection);
        let request = Request::post("/_stcore/agent/interact")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(died)?;
        let response = sender.send_request(request).await.map_err(died)?;
        let status = response.status().as_u16();
        let bytes = read_capped(response.into_body()).await;
        driver.abort();
        read(status, &bytes?)
    }
}

/// What the API lets a client say of itself, as the other witness's browser says it: the less an app can tell them apart by,
/// the better.
fn context() -> Value {
    json!({ "locale": LOCALE })
}

fn died(error: impl std::fmt::Display) -> Silence {
    Silence::Died(error.to_string())
}

async fn read_capped(mut body: hyper::body::Incoming) -> Result<Vec<u8>, Silence> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(died)?.data_ref() {
            bytes.extend_from_slice(data);
        }
        if bytes.len() > MOST_BYTES {
            return Err(Silence::TooLarge(format!("more than {} MiB", MOST_BYTES >> 20)));
        }
    }
    Ok(bytes)
}

/// An answer by its HTTP status.
fn read(status: u16, bytes: &[u8]) -> Result<Answer, Silence> {
    let code = || {
        let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
        body["error"]["code"].as_str().unwrap_or("unknown").to_owned()
    };
    match status {
        200 => match serde_json::from_slice(bytes) {
            Ok(snapshot) => Ok(Answer { snapshot, bytes: bytes.len() as u64 }),
            Err(e) => Err(Silence::Died(format!("the answer cannot be read: {e}"))),
        },
        202 => Err(Silence::TimedOut("the script was still running".to_owned())),
        500.. => Err(Silence::Died(format!("HTTP {status} {}", code()))),
        _ => Err(Silence::Refused(code())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, expected: Option<Silence>) {
        assert_eq!(read(status, body.as_bytes()).err(), expected);
    }

    #[test]
    fn answers_are_read_by_their_status() {
        check(200, r#"{"session_id":"s","status":"ready","tree":{"type":"root"},"actions":[]}"#, None);
        check(202, "{}", Some(Silence::TimedOut("the script was still running".into())));
        check(409, r#"{"error":{"code":"not_on_page"}}"#, Some(Silence::Refused("not_on_page".into())));
        check(500, "", Some(Silence::Died("HTTP 500 unknown".into())));
        assert!(matches!(read(200, b"{"), Err(Silence::Died(_))));
    }
}
