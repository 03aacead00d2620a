//! Answers as server-sent events.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use futures::stream;
use serde::Serialize;

use crate::engine::{Answer, Update};

/// A silent stream says this often that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What a stream says next.
#[derive(Debug, Default)]
pub struct Events {
    ready: VecDeque<Bytes>,
    over: bool,
}

impl Events {
    /// An event without a name.
    pub fn data(&mut self, value: &impl Serialize) {
        let json = serde_json::to_string(value).unwrap_or_default();
        self.ready.push_back(Bytes::from(format!("data: {json}\n\n")));
    }

    /// An event with a name.
    pub fn named(&mut self, name: &str, value: &impl Serialize) {
        let json = serde_json::to_string(value).unwrap_or_default();
        self.ready.push_back(Bytes::from(format!("event: {name}\ndata: {json}\n\n")));
    }

    /// The end mark of chat streams.
    pub fn done(&mut self) {
        self.ready.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
    }

    /// Nothing more will be said.
    pub fn close(&mut self) {
        self.over = true;
    }
}

/// Streams what `say` makes of the answer's updates, after what is in `opening`. The client's going away drops the answer.
pub fn respond(
    answer: Answer,
    opening: Events,
    say: impl FnMut(Update, &mut Events) + Send + 'static,
) -> Response {
    let body = stream::unfold((answer, opening, say), async |(mut answer, mut events, mut say)| {
        while events.ready.is_empty() && !events.over {
            match tokio::time::timeout(KEEP_ALIVE, answer.next()).await {
                Err(_) => events.ready.push_back(Bytes::from_static(b": keepalive\n\n")),
                Ok(update) => say(update, &mut events),
            }
        }
        let bytes = events.ready.pop_front()?;
        Some((Ok::<_, Infallible>(bytes), (answer, events, say)))
    });
    let headers = [("content-type", "text/event-stream"), ("cache-control", "no-cache")];
    (headers, Body::from_stream(Box::pin(body))).into_response()
}
