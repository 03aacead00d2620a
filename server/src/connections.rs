//! Connections: how many there are, and how long they may take.
//!
//! A head has to come within its time, which also ends connections that sit idle between two requests. A client that does
//! not take what is sent to it is cut off by the kernel (`TCP_USER_TIMEOUT`), so that it does not keep an answer's place.
//! Beyond the most connections a new one is told 503 and closed; the others are not touched.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hone::cancel::Cancel;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::task::TaskTracker;

use crate::config::Limits;

/// Bytes of a head, and of what is read of a body at a time. With many connections this is what memory they can take.
const BUFFER: usize = 64 << 10;
/// Open files that are not connections: models, uploads, children.
const OTHER_FILES: u64 = 512;
/// Clients that are told at the same time that there is no room; more are closed without a word.
const REFUSALS: usize = 64;
/// For a refused client to take its answer.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// After the system has run out of something, usually open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const NO_ROOM: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 5\r\n\
    connection: close\r\ncontent-length: 134\r\n\r\n\
    {\"error\":{\"message\":\"too many connections are open, try again soon\",\"type\":\"server_error\",\"param\":null,\
    \"code\":\"too_many_connections\"}}";

/// Serves until `stop`; then requests that have come are answered and connections closed. The caller decides how long it
/// waits for that.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: &Cancel) {
    let room = Arc::new(Semaphore::new(room(limits.connections)));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let (open, late) = (TaskTracker::new(), Cancel::new());
    // Whoever stops waiting for this stops the connections that are still there.
    let _late = late.clone().drop_guard();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // One client's connection may have failed, or the system is out of files: either passes.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match room.clone().try_acquire_owned() {
            Ok(place) => {
                let connection = connection(stream, router.clone(), limits, stop.clone(), place);
                open.spawn(late.clone().run_until_cancelled_owned(connection));
            }
            Err(_) => refuse(stream, &refusals),
        }
    }
    open.close();
    open.wait().await;
}

/// Connections that the system has files for; raises what it allows as far as it goes.
fn room(wanted: usize) -> usize {
    let mut files = getrlimit(Resource::Nofile);
    if files.current != files.maximum {
        files.current = files.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, files) {
            tracing::debug!(%error, "the number of open files stays as it is");
            files = getrlimit(Resource::Nofile);
        }
    }
    let allowed = files.current.unwrap_or(u64::MAX).saturating_sub(OTHER_FILES).max(16);
    let room = wanted.min(usize::try_from(allowed).unwrap_or(usize::MAX));
    if room < wanted {
        tracing::info!(room, wanted, "fewer connections: the limit on open files (`ulimit -n`) is low");
    }
    room
}

async fn connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    stop: Cancel,
    _place: OwnedSemaphorePermit,
) {
    tune(&stream, limits);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(BUFFER);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// Options that are a courtesy: a connection works without them.
fn tune(stream: &TcpStream, limits: Limits) {
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        let ms = u32::try_from(limits.unread.as_millis()).unwrap_or(u32::MAX);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, ms);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = limits.unread;
}

fn refuse(mut stream: TcpStream, refusals: &Arc<Semaphore>) {
    let Ok(place) = refusals.clone().try_acquire_owned() else { return };
    tokio::spawn(async move {
        let _place = place;
        let answer = async {
            stream.write_all(NO_ROOM.as_bytes()).await?;
            stream.shutdown().await?;
            // Closing with unread bytes would take the answer back.
            let mut rest = [0; 4096];
            while stream.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        // Whoever does not listen is not told.
        let _ = tokio::time::timeout(REFUSAL_TIME, answer).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_has_the_length_that_it_tells() {
        let (head, body) = NO_ROOM.split_once("\r\n\r\n").unwrap();
        let error: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(error["error"]["code"], "too_many_connections");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
    }

    #[test]
    fn there_is_room_for_what_the_system_allows() {
        assert_eq!(room(10), 10);
        let files = getrlimit(Resource::Nofile);
        assert_eq!(files.current, files.maximum);
        assert!(room(usize::MAX) >= 16);
    }
}
