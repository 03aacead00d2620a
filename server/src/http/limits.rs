//! What holds back a client: the pace at which bodies have to come, and headers that say how full the queue is.

use std::{
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::HeaderValue,
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::BodyExt;

use crate::{app::App, load::Interactive};

/// Bytes that every window of time has to bring, or the end: a client that sends a byte now and then to keep its
/// connection is not waited for.
const LEAST_PER_WINDOW: usize = 1024;

/// A body that came too slowly.
#[derive(Debug)]
pub struct TooSlow;

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body comes too slowly")
    }
}

impl Error for TooSlow {}

/// True when a body's pace is behind an error of reading it.
pub fn is_too_slow(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Cuts off bodies that come too slowly.
pub async fn pace(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let window = app.config.limits.body_window;
    next.run(request.map(|body| paced(body, window))).await
}

fn paced(body: Body, window: Duration) -> Body {
    // Only time that we wait counts: whoever reads the body may take its own.
    let state = (body.into_data_stream(), Duration::ZERO, 0);
    Body::from_stream(stream::unfold(Some(state), move |state| async move {
        let (mut chunks, mut waited, mut got) = state?;
        let asked = Instant::now();
        match tokio::time::timeout(window.saturating_sub(waited), chunks.next()).await {
            Ok(None) => None,
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(Some(Ok(chunk))) => {
                (waited, got) = (waited + asked.elapsed(), got + chunk.len());
                if got >= LEAST_PER_WINDOW {
                    (waited, got) = (Duration::ZERO, 0);
                }
                Some((Ok::<Bytes, axum::Error>(chunk), Some((chunks, waited, got))))
            }
            Err(_) => Some((Err(axum::Error::new(TooSlow)), None)),
        }
    }))
}

/// Counts requests for answers while they are served, and tells how much room the queue has.
///
/// There is no limit on tokens, so there are no headers for them.
pub async fn tell_the_queue(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let interactive = app.load.begin();
    let mut response = next.run(request).await;
    let (limit, free) = (app.config.max_queue, app.engine.free());
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit-requests", HeaderValue::from(limit));
    headers.insert("x-ratelimit-remaining-requests", HeaderValue::from(free));
    let reset = app.load.until_empty(limit - free.min(limit), app.config.max_batch);
    if let Ok(reset) = HeaderValue::from_str(&go_duration(reset)) {
        headers.insert("x-ratelimit-reset-requests", reset);
    }
    response.map(|body| until_read(body, interactive))
}

/// A streamed answer is being served until its last byte is read or its reader is gone.
fn until_read(body: Body, interactive: Interactive) -> Body {
    Body::new(body.map_frame(move |frame| {
        let _served = &interactive;
        frame
    }))
}

/// Time taken, as OpenAI's servers tell it.
pub fn processing_ms(since: Instant) -> HeaderValue {
    HeaderValue::from(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// `17ms`, `1s`, `6m0s`: how Go writes durations, and OpenAI's servers with it.
fn go_duration(duration: Duration) -> String {
    let (seconds, ms) = (duration.as_secs(), duration.subsec_millis());
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(40);

    /// A body of chunks, each after a pause; whether it was read to its end.
    async fn read(chunks: Vec<(u64, usize)>) -> Result<usize, bool> {
        let chunks = stream::iter(chunks).then(|(pause, size)| async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![0; size]))
        });
        let body = paced(Body::from_stream(chunks), WINDOW);
        let bytes = axum::body::to_bytes(body, usize::MAX).await;
        bytes.map(|bytes| bytes.len()).map_err(|error| is_too_slow(&error))
    }

    #[tokio::test]
    async fn a_body_has_to_keep_coming() {
        assert_eq!(read(vec![]).await, Ok(0));
        assert_eq!(read(vec![(0, 10), (0, 20)]).await, Ok(30));
        assert_eq!(read(vec![(0, 10), (1000, 10)]).await, Err(true), "a client that has stopped");
        assert_eq!(read((0..100).map(|_| (10, 1)).collect()).await, Err(true), "a byte now and then");
    }

    #[test]
    fn durations_are_written_as_go_does() {
        for (ms, expected) in
            [(0, "0ms"), (17, "17ms"), (1900, "1s"), (360_000, "6m0s"), (3_661_000, "1h1m1s")]
        {
            assert_eq!(go_duration(Duration::from_millis(ms)), expected);
        }
    }
}
