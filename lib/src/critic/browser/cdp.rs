//! Chromium's DevTools protocol over a pipe: JSON messages, each ended by a NUL byte.
//!
//! A pipe and not a port, because pages share the browser's network and could reach a port.

use std::{
    collections::HashMap,
    os::unix::net::UnixStream as StdStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// Largest message taken, in bytes: a screenshot of a large page is a few megabytes.
const MOST: u64 = 64 << 20;

/// Why a command has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CdpError {
    /// The browser has ended.
    Gone,
    /// No answer in time: the page is busy, or the browser is.
    Silent,
    /// The browser refused the command; its words.
    Refused(String),
}

/// An event of one session.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub method: String,
    pub params: Value,
}

#[derive(Deserialize)]
struct Message {
    id: Option<u64>,
    #[serde(default)]
    result: Value,
    error: Option<Value>,
    #[serde(rename = "sessionId")]
    session: Option<String>,
    method: Option<String>,
    #[serde(default)]
    params: Value,
}

type Answer = Result<Value, CdpError>;

#[derive(Default)]
struct Shared {
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    listeners: Mutex<HashMap<String, mpsc::UnboundedSender<Event>>>,
    next: AtomicU64,
}

/// A connection to one browser. It ends when the browser does, and all that waits learns of it.
pub(super) struct Cdp {
    shared: Arc<Shared>,
    /// Messages go out by a task of their own: whoever gives up waiting must not leave half of one behind.
    outbox: mpsc::UnboundedSender<Vec<u8>>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Drop for Cdp {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

impl Cdp {
    pub fn new(stream: StdStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        let shared = Arc::new(Shared::default());
        *lock(&shared.waiting) = Some(HashMap::new());
        let reader = tokio::spawn(read_all(read, Arc::clone(&shared)));
        let (outbox, messages) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write_all(write, messages, Arc::clone(&shared)));
        Ok(Self { shared, outbox, reader, writer })
    }

    pub fn is_gone(&self) -> bool {
        lock(&self.shared.waiting).is_none()
    }

    /// Sends a command to the browser, or to a page's session, and waits for its result.
    pub async fn call(
        &self,
        session: Option<&str>,
        method: &str,
        params: Value,
        limit: Duration,
    ) -> Result<Value, CdpError> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.shared.waiting).as_mut().ok_or(CdpError::Gone)?.insert(id, sender);
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let exchange = async {
            self.outbox.send(framed(&message)).map_err(|_| CdpError::Gone)?;
            receiver.await.unwrap_or(Err(CdpError::Gone))
        };
        let answer = timeout(limit, exchange).await.unwrap_or(Err(CdpError::Silent));
        if let Some(waiting) = lock(&self.shared.waiting).as_mut() {
            waiting.remove(&id);
        }
        answer
    }

    /// Events of a session from now on, until the receiver is dropped.
    pub fn listen(&self, session: &str) -> mpsc::UnboundedReceiver<Event> {
        let (sender, receiver) = mpsc::unbounded_channel();
        lock(&self.shared.listeners).insert(session.to_owned(), sender);
        receiver
    }

    pub fn forget(&self, session: &str) {
        lock(&self.shared.listeners).remove(session);
    }
}

/// No code between lock and unlock panics, so what is inside is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A message as the pipe takes it.
fn framed(message: &Value) -> Vec<u8> {
    let mut bytes = message.to_string().into_bytes();
    bytes.push(0);
    bytes
}

async fn write_all(
    mut write: OwnedWriteHalf,
    mut messages: mpsc::UnboundedReceiver<Vec<u8>>,
    shared: Arc<Shared>,
) {
    while let Some(bytes) = messages.recv().await {
        if write.write_all(&bytes).await.is_err() {
            // Nobody takes commands any more: all that wait learn of it.
            *lock(&shared.waiting) = None;
            return;
        }
    }
}

async fn read_all(read: OwnedReadHalf, shared: Arc<Shared>) {
    let mut reader = BufReader::new(read);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = (&mut reader).take(MOST).read_until(0, &mut bytes).await;
        if !matches!(read, Ok(n) if n > 0) || bytes.pop() != Some(0) {
            break;
        }
        if let Ok(message) = serde_json::from_slice::<Message>(&bytes) {
            deliver(message, &shared);
        }
    }
    let waiting = lock(&shared.waiting).take();
    for (_, sender) in waiting.into_iter().flatten() {
        let _ = sender.send(Err(CdpError::Gone));
    }
    lock(&shared.listeners).clear();
}

fn deliver(message: Message, shared: &Shared) {
    if let Some(id) = message.id {
        let sender = lock(&shared.waiting).as_mut().and_then(|waiting| waiting.remove(&id));
        let answer = match message.error {
            Some(error) => Err(CdpError::Refused(error["message"].as_str().unwrap_or("unknown").to_owned())),
            None => Ok(message.result),
        };
        // Whoever asked may have given up.
        sender.map(|sender| sender.send(answer));
    } else if let (Some(method), Some(session)) = (message.method, message.session) {
        let listener = lock(&shared.listeners).get(&session).cloned();
        listener.map(|listener| listener.send(Event { method, params: message.params }));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    /// A browser that answers by a script: each command gets the next of the messages, `ID` replaced by its id.
    fn browser(answers: &'static [&'static str]) -> Cdp {
        let (ours, theirs) = StdStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(theirs.try_clone().unwrap());
            let mut theirs = theirs;
            for answer in answers {
                let mut command = Vec::new();
                reader.read_until(0, &mut command).unwrap();
                command.pop();
                let command: Value = serde_json::from_slice(&command).unwrap();
                for message in answer.split('\n') {
                    let message = message.replace("ID", &command["id"].to_string());
                    theirs.write_all(message.as_bytes()).unwrap();
                    theirs.write_all(&[0]).unwrap();
                }
            }
        });
        Cdp::new(ours).unwrap()
    }

    #[tokio::test]
    async fn results_refusals_and_events_find_their_way() {
        let cdp = browser(&[
            r#"{"id":ID,"result":{"a":1}}"#,
            "{\"sessionId\":\"s\",\"method\":\"Page.went\",\"params\":{\"b\":2}}\nnot json\n{\"id\":ID,\"error\":{\"message\":\"no\"}}",
        ]);
        let mut events = cdp.listen("s");
        assert_eq!(cdp.call(None, "A", json!({}), SOON).await, Ok(json!({"a":1})));
        assert_eq!(cdp.call(Some("s"), "B", json!({}), SOON).await, Err(CdpError::Refused("no".into())));
        let event = events.recv().await.unwrap();
        assert_eq!((event.method.as_str(), event.params), ("Page.went", json!({"b":2})));
        assert_eq!(cdp.call(None, "C", json!({}), SOON).await, Err(CdpError::Gone), "its script is over");
        assert!(cdp.is_gone());
        assert_eq!(cdp.call(None, "D", json!({}), SOON).await, Err(CdpError::Gone));
    }

    #[tokio::test]
    async fn what_is_not_answered_is_given_up() {
        let (ours, _theirs) = StdStream::pair().unwrap();
        let cdp = Cdp::new(ours).unwrap();
        assert_eq!(cdp.call(None, "A", json!({}), Duration::from_millis(20)).await, Err(CdpError::Silent));
        assert!(lock(&cdp.shared.waiting).as_ref().unwrap().is_empty());
    }
}
