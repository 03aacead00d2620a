//! As much of HTTP/1.1 as it takes to break it in every way.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Largest head of a request.
const MAX_HEAD: usize = 64 << 10;

/// A request that has come whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    /// As it came, without `?`.
    pub query: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The parts of the path below the version.
    pub(crate) fn parts(&self) -> Vec<&str> {
        self.path.trim_start_matches("/v1").split('/').filter(|part| !part.is_empty()).collect()
    }

    /// The key, in whichever header it came.
    pub fn key(&self) -> &str {
        let bearer = self.header("authorization").map(|value| value.trim_start_matches("Bearer "));
        bearer.or(self.header("api-key")).or(self.header("x-api-key")).unwrap_or_default()
    }
}

/// How an exchange ends.
#[derive(Debug)]
pub(crate) enum Outcome {
    Whole(Answer),
    /// Half of the body, and then what is said.
    Half(Answer, End),
    /// Server-sent events.
    Events(Vec<String>, End),
    /// No byte at all.
    Nothing(End),
}

/// After the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should be.
    Proper,
    Close,
    Reset,
    /// Silence until the client goes.
    Stall,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        let body = value.to_string().into_bytes();
        Self { status, headers: Vec::new(), content_type: "application/json", body }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn head(&self) -> String {
        let mut head =
            format!("HTTP/1.1 {} {}\r\n", self.status, if self.status < 400 { "OK" } else { "No" });
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!(
            "content-type: {}\r\ncontent-length: {}\r\nx-request-id: req_fake\r\n\r\n",
            self.content_type,
            self.body.len()
        ));
        head
    }
}

/// A connection, with what has come of the next request.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        // Small answers should not wait for each other.
        let _ = stream.set_nodelay(true);
        Self { stream, buffer: Vec::new() }
    }

    /// The next request; none when the client has gone or says nothing that can be read.
    pub async fn request(&mut self) -> Option<Request> {
        let (mut request, end) = loop {
            if let Some(found) = head(&self.buffer) {
                break found;
            }
            if self.buffer.len() > MAX_HEAD || !self.read().await {
                return None;
            }
        };
        self.buffer.drain(..end);
        if request.header("expect").is_some() {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
        }
        if request.header("transfer-encoding").is_some_and(|how| how.contains("chunked")) {
            request.body = self.chunks().await?;
        } else {
            let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            request.body = self.take(length).await?;
        }
        Some(request)
    }

    async fn read(&mut self) -> bool {
        self.stream.read_buf(&mut self.buffer).await.is_ok_and(|read| read > 0)
    }

    async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.read().await {
                return None;
            }
        }
        let rest = self.buffer.split_off(length);
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                    Some(end) => break end,
                    None if self.read().await => {}
                    None => return None,
                }
            };
            let line = self.take(end + 2).await?;
            let size = std::str::from_utf8(&line).ok()?.trim().split(';').next()?.to_owned();
            let size = usize::from_str_radix(&size, 16).ok()?;
            body.extend(self.take(size).await?);
            self.take(2).await?;
            if size == 0 {
                return Some(body);
            }
        }
    }

    /// Sends an outcome; whether the connection can take another request.
    pub async fn send(&mut self, outcome: Outcome) -> bool {
        let (sent, end) = match outcome {
            Outcome::Whole(answer) => {
                let mut bytes = answer.head().into_bytes();
                bytes.extend(answer.body);
                (self.stream.write_all(&bytes).await, End::Proper)
            }
            Outcome::Half(answer, end) => {
                let mut bytes = answer.head().into_bytes();
                bytes.extend(&answer.body[..answer.body.len() / 2]);
                (self.stream.write_all(&bytes).await, end)
            }
            Outcome::Events(events, end) => (self.events(&events, end).await, end),
            Outcome::Nothing(end) => (Ok(()), end),
        };
        if sent.is_err() {
            return false;
        }
        match end {
            End::Proper => return true,
            End::Close => {}
            End::Reset => {
                // What was written has to arrive first: a reset throws away what waits.
                tokio::time::sleep(Duration::from_millis(5)).await;
                let _ = self.stream.set_zero_linger();
            }
            End::Stall => while self.read().await {},
        }
        false
    }

    async fn events(&mut self, events: &[String], end: End) -> std::io::Result<()> {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        self.stream.write_all(head.as_bytes()).await?;
        for event in events {
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            self.stream.write_all(chunk.as_bytes()).await?;
        }
        if end == End::Proper {
            self.stream.write_all(b"0\r\n\r\n").await?;
        }
        Ok(())
    }
}

/// Reads a head; none while it is not all there.
fn head(bytes: &[u8]) -> Option<(Request, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(end)) = parsed.parse(bytes) else { return None };
    let target = parsed.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = parsed
        .headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned()));
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: headers.collect(),
        body: Vec::new(),
    };
    Some((request, end))
}
