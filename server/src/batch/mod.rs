//! Batches: requests in a file, answered when there is time for them.
//!
//! New batches are checked one after the other, then run one after the other, oldest first. Each request goes through the
//! same handler as one that comes over HTTP. While somebody waits for an answer, a batch has one request in the engine;
//! otherwise most of its places. Every answer is on disk before it counts, so a server that takes over repeats nothing
//! that was finished.

pub(crate) mod input;

use std::{
    io::{BufRead, BufReader, BufWriter, Write},
    panic::AssertUnwindSafe,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use futures::FutureExt;
use hone::{
    cancel::Cancel,
    model::wire::{
        Batch, BatchErrors, BatchLine, BatchLineError, BatchResponse, BatchStatus, BatchUsage, File,
        RequestCounts,
    },
    store::StoreError,
};
use serde_json::Value;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tower::ServiceExt;

use crate::{
    app::App,
    disk::{BatchFolder, BatchRecord, Done, Files},
    error::ApiError,
    ids,
    load::batch_places,
};
use input::Line;

/// Before a request is tried again that found the queue full.
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// Before looking again at a disk or an engine that failed.
const TROUBLE_WAIT: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const LARGEST_ANSWER: usize = 64 << 20;
/// Requests that are read ahead.
const READ_AHEAD: usize = 4;

/// Keeps the batches going.
#[derive(Default)]
pub struct Clerk {
    /// Something may be there to check.
    check: Notify,
    /// Something may be there to run.
    run: Notify,
    /// Held while a batch's record changes.
    writing: tokio::sync::Mutex<()>,
    running: Mutex<Option<Running>>,
}

/// The batch that is being run.
struct Running {
    id: String,
    cancel: Cancel,
    counts: RequestCounts,
    usage: BatchUsage,
}

/// How the work on a batch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Completed,
    Cancelled,
    Expired,
    /// The server goes; the next one goes on.
    Interrupted,
}

impl Clerk {
    /// Tells that there is a new batch.
    pub fn look(&self) {
        self.check.notify_one();
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch with the counts of this moment.
    pub fn current(&self, mut batch: Batch) -> Batch {
        if let Some(running) = self.running().as_ref().filter(|running| running.id == batch.id) {
            batch.request_counts = running.counts;
            batch.usage = Some(running.usage);
        }
        batch
    }

    /// Stops a batch: at once when it is not being run, soon otherwise.
    pub async fn cancel(&self, app: &Arc<App>, folder: &BatchFolder) -> Result<Batch, ApiError> {
        let _writing = self.writing.lock().await;
        let batch = folder.read()?.batch;
        if batch.status.is_terminal() {
            let message = format!("batch `{}` is over: it is {}", batch.id, batch.status);
            return Err(ApiError::bad(message).param("id"));
        }
        let now = ids::now();
        let batch = folder.update(|batch| {
            batch.status = BatchStatus::Cancelling;
            batch.cancelling_at = batch.cancelling_at.or(Some(now));
        })?;
        let is_running = self.running().as_ref().is_some_and(|running| running.id == batch.id);
        if is_running {
            if let Some(running) = self.running().as_ref() {
                running.cancel.cancel();
            }
            return Ok(self.current(batch));
        }
        let (app, folder) = (app.clone(), folder.clone());
        super::http::blocking(move || Ok(finish(&app.files, &folder, Ending::Cancelled)?)).await
    }
}

/// Works until `stop`. `answers` are the handlers that batches can ask.
pub async fn work(app: Arc<App>, answers: Router, stop: &Cancel) {
    tokio::join!(check_batches(&app, stop), run_batches(&app, &answers, stop));
}

/// The oldest batch in such a state.
fn next(app: &App, wanted: impl Fn(&BatchStatus) -> bool) -> Option<BatchRecord> {
    let batches = app.batches.list().unwrap_or_else(|error| {
        tracing::error!(%error, "batches cannot be listed");
        Vec::new()
    });
    batches.into_iter().rev().find(|record| wanted(&record.batch.status))
}

async fn check_batches(app: &Arc<App>, stop: &Cancel) {
    loop {
        match next(app, |status| *status == BatchStatus::Validating) {
            Some(record) => {
                if let Err(error) = check(app, &record).await {
                    tracing::error!(%error, batch = record.batch.id, "a batch cannot be checked");
                    pause(TROUBLE_WAIT, stop).await;
                }
                app.clerk.run.notify_one();
            }
            None => until(&app.clerk.check, stop).await,
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

async fn run_batches(app: &Arc<App>, answers: &Router, stop: &Cancel) {
    let waits = |status: &BatchStatus| !status.is_terminal() && *status != BatchStatus::Validating;
    loop {
        match next(app, waits) {
            Some(record) => {
                if let Err(error) = run(app, answers, &record, stop).await {
                    tracing::error!(%error, batch = record.batch.id, "a batch cannot be run");
                    pause(TROUBLE_WAIT, stop).await;
                }
            }
            None => until(&app.clerk.run, stop).await,
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

async fn until(notify: &Notify, stop: &Cancel) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = notify.notified() => {}
    }
}

async fn pause(wait: Duration, stop: &Cancel) {
    let _ = tokio::time::timeout(wait, stop.cancelled()).await;
}

/// Looks at a new batch's input: it is in progress, or it has failed.
async fn check(app: &Arc<App>, record: &BatchRecord) -> Result<(), StoreError> {
    let Some(folder) = app.batches.get(&record.batch.id) else { return Ok(()) };
    let (input, endpoint) = (folder.input(), record.batch.endpoint.clone());
    let found = tokio::task::spawn_blocking(move || input::check(&input, &endpoint)).await;
    let found = found.map_err(std::io::Error::other).and_then(|found| found);
    let mut found = found.map_err(|e| StoreError::new("read", folder.input(), e))?;
    if let Some(Err(error)) = found.model.as_ref().map(|model| app.resolve(model)) {
        let body = error.envelope().error;
        let code = body.code.unwrap_or_else(|| "model_not_found".into());
        found.errors.push(hone::model::wire::BatchError {
            code,
            message: body.message,
            param: Some("body.model".into()),
            line: Some(found.model_line),
        });
    }
    let _writing = app.clerk.writing.lock().await;
    if folder.read()?.batch.status != BatchStatus::Validating {
        return Ok(());
    }
    let now = Some(ids::now());
    folder.update(|batch| {
        batch.model = found.model;
        if found.errors.is_empty() {
            batch.request_counts.total = found.total;
            (batch.status, batch.in_progress_at) = (BatchStatus::InProgress, now);
        } else {
            (batch.status, batch.failed_at) = (BatchStatus::Failed, now);
            batch.errors = Some(BatchErrors { object: "list".into(), data: found.errors });
        }
    })?;
    Ok(())
}

/// Sees a batch through to its end, or leaves it to the next server.
async fn run(
    app: &Arc<App>,
    answers: &Router,
    record: &BatchRecord,
    stop: &Cancel,
) -> Result<(), StoreError> {
    let Some(folder) = app.batches.get(&record.batch.id) else { return Ok(()) };
    let cancel = Cancel::new();
    let batch = {
        let _writing = app.clerk.writing.lock().await;
        let batch = folder.read()?.batch;
        if batch.status.is_terminal() {
            return Ok(());
        }
        let (id, cancel) = (batch.id.clone(), cancel.clone());
        let (counts, usage) = (batch.request_counts, BatchUsage::default());
        *app.clerk.running() = Some(Running { id, cancel, counts, usage });
        batch
    };
    let ending = match batch.status {
        BatchStatus::Cancelling => Ok(Ending::Cancelled),
        BatchStatus::Finalizing => Ok(Ending::Completed),
        _ => answer_all(app, answers, &folder, &batch, cancel, stop).await,
    };
    let result = match ending {
        Ok(Ending::Interrupted) => Ok(()),
        Ok(ending) => end(app, &folder, ending).await,
        Err(error) => Err(error),
    };
    *app.clerk.running() = None;
    result
}

async fn end(app: &Arc<App>, folder: &BatchFolder, ending: Ending) -> Result<(), StoreError> {
    let _writing = app.clerk.writing.lock().await;
    let (files, own) = (app.files.clone(), folder.clone());
    let finished = tokio::task::spawn_blocking(move || finish(&files, &own, ending)).await;
    finished.map_err(|e| StoreError::new("finish", folder.output(), std::io::Error::other(e)))?.map(drop)
}

/// One request and what came of it.
struct Flight {
    line: BatchLine,
    weight: usize,
    /// True when it was answered with success; none when it was not answered at all.
    succeeded: Option<bool>,
}

/// Answers every request that has no answer yet.
async fn answer_all(
    app: &Arc<App>,
    answers: &Router,
    folder: &BatchFolder,
    batch: &Batch,
    cancel: Cancel,
    stop: &Cancel,
) -> Result<Ending, StoreError> {
    let mut done = on_disk(folder, BatchFolder::done).await?;
    app.clerk.progress(&done, batch.request_counts.total);
    let left = batch.expires_at.unwrap_or(i64::MAX).saturating_sub(ids::now());
    let expiry = tokio::time::sleep(Duration::from_secs(u64::try_from(left).unwrap_or_default()));
    let mut expiry = std::pin::pin!(expiry);
    let mut lines = read_ahead(folder);
    let (mut waiting, mut over) = (None::<Line>, false);
    let (mut flights, mut in_engine) = (JoinSet::new(), 0);
    let mut interactive = app.load.watch();
    while !(over && waiting.is_none() && flights.is_empty()) {
        let places = batch_places(*interactive.borrow_and_update(), app.config.max_batch);
        if let Some(line) = waiting.take_if(|line| in_engine == 0 || in_engine + line.weight() <= places) {
            in_engine += line.weight();
            flights.spawn(answer(answers.clone(), batch.id.clone(), line));
            continue;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Ending::Interrupted),
            () = cancel.cancelled() => return Ok(Ending::Cancelled),
            () = &mut expiry => return Ok(Ending::Expired),
            Some(flight) = flights.join_next() => {
                let flight: Flight = flight.map_err(|e| trouble(folder, e))?;
                in_engine -= flight.weight;
                let Some(succeeded) = flight.succeeded else {
                    return Err(trouble(folder, "the engine does not run"));
                };
                done.take(&flight.line, succeeded);
                on_disk(folder, move |folder| folder.keep(&flight.line, succeeded)).await?;
                app.clerk.progress(&done, batch.request_counts.total);
            }
            line = lines.recv(), if waiting.is_none() && !over => match line {
                Some(line) => waiting = Some(line?).filter(|line| !done.ids.contains(&line.custom_id)),
                None => over = true,
            },
            _ = interactive.changed(), if waiting.is_some() => {}
        }
    }
    Ok(Ending::Completed)
}

fn trouble(folder: &BatchFolder, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::new("go on with", folder.input(), std::io::Error::other(why))
}

/// Runs what touches the disk where it holds nobody up.
async fn on_disk<T: Send + 'static>(
    folder: &BatchFolder,
    work: impl FnOnce(&BatchFolder) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let own = folder.clone();
    tokio::task::spawn_blocking(move || work(&own)).await.map_err(|e| trouble(folder, e))?
}

/// The requests, a few at a time.
fn read_ahead(folder: &BatchFolder) -> mpsc::Receiver<Result<Line, StoreError>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let path = folder.input();
    tokio::task::spawn_blocking(move || {
        let failed = |e| StoreError::new("read", &path, e);
        let lines = match input::requests(&path) {
            Ok(lines) => lines,
            Err(error) => return drop(sender.blocking_send(Err(failed(error)))),
        };
        for line in lines {
            if sender.blocking_send(line.map_err(failed)).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Clerk {
    fn progress(&self, done: &Done, total: u64) {
        if let Some(running) = self.running().as_mut() {
            (running.counts, running.usage) = (done.counts(total), done.usage);
        }
    }
}

/// Asks the handler until it has something to say. A queue that is full of people's requests is waited for.
async fn answer(answers: Router, batch: String, line: Line) -> Flight {
    let weight = line.weight();
    let (status, body) = loop {
        let asked = AssertUnwindSafe(ask(answers.clone(), &line)).catch_unwind().await;
        match asked.unwrap_or_else(|_| failed()) {
            (StatusCode::TOO_MANY_REQUESTS, _) => tokio::time::sleep(BUSY_WAIT).await,
            answered => break answered,
        }
    };
    let succeeded = (status != StatusCode::SERVICE_UNAVAILABLE).then_some(status.is_success());
    let response = BatchResponse { status_code: status.as_u16(), request_id: ids::random("req_"), body };
    let line = BatchLine {
        id: line_id(&batch, &line.custom_id),
        custom_id: line.custom_id,
        response: Some(response),
        error: None,
    };
    Flight { line, weight, succeeded }
}

/// Stands for the answer of a handler that panicked.
fn failed() -> (StatusCode, Value) {
    let error = ApiError::internal("the request could not be served").envelope();
    (StatusCode::INTERNAL_SERVER_ERROR, serde_json::to_value(error).unwrap_or_default())
}

fn line_id(batch: &str, custom_id: &str) -> String {
    format!("batch_req_{}", ids::derived(&[batch, custom_id], 24))
}

/// What the handler of the line's endpoint answers.
async fn ask(answers: Router, line: &Line) -> (StatusCode, Value) {
    let request = Request::post(&line.url)
        .header("content-type", "application/json")
        .body(Body::from(line.body.to_string()));
    let Ok(request) = request else { return (StatusCode::BAD_REQUEST, Value::Null) };
    let response = match answers.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let status = response.status();
    match axum::body::to_bytes(response.into_body(), LARGEST_ANSWER).await {
        Ok(bytes) => (status, serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(_) => failed(),
    }
}

/// Writes a batch's files and gives it its last status. Done again after a kill it gives the same.
fn finish(files: &Files, folder: &BatchFolder, ending: Ending) -> Result<Batch, StoreError> {
    let record = folder.read()?;
    let id = record.batch.id.clone();
    if ending == Ending::Completed {
        folder.update(|batch| {
            batch.status = BatchStatus::Finalizing;
            batch.finalizing_at = batch.finalizing_at.or(Some(ids::now()));
        })?;
    }
    let done = folder.done()?;
    let output = result_file(files, &record, "output", &folder.output(), |_| Ok(()))?;
    let why = not_run(ending);
    let validated = record.batch.in_progress_at.is_some();
    let errors = result_file(files, &record, "errors", &folder.errors(), |to| match &why {
        Some(why) if validated => write_not_run(&id, &folder.input(), &done, why, to),
        _ => Ok(()),
    })?;
    let now = Some(ids::now());
    let batch = folder.update(|batch| {
        (batch.output_file_id, batch.error_file_id) = (output, errors);
        batch.request_counts = done.counts(batch.request_counts.total);
        batch.usage = Some(done.usage);
        match ending {
            Ending::Cancelled => (batch.status, batch.cancelled_at) = (BatchStatus::Cancelled, now),
            Ending::Expired => (batch.status, batch.expired_at) = (BatchStatus::Expired, now),
            Ending::Completed | Ending::Interrupted => {
                (batch.status, batch.completed_at) = (BatchStatus::Completed, now);
            }
        }
    })?;
    folder.drop_work();
    Ok(batch)
}

fn not_run(ending: Ending) -> Option<BatchLineError> {
    let (code, message) = match ending {
        Ending::Cancelled => ("batch_cancelled", "the batch was cancelled before this request was run"),
        Ending::Expired => ("batch_expired", "the batch expired before this request was run"),
        Ending::Completed | Ending::Interrupted => return None,
    };
    Some(BatchLineError { code: code.into(), message: message.into() })
}

/// Makes one of the two files that a batch leaves, unless there is nothing to put into it: the whole lines at `from`, then
/// what `more` adds.
fn result_file(
    files: &Files,
    record: &BatchRecord,
    what: &str,
    from: &Path,
    more: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<Option<String>, StoreError> {
    let batch = &record.batch;
    let id = format!("file-{}", ids::derived(&[&batch.id, what], 24));
    if files.get(&id)?.is_some() {
        return Ok(Some(id));
    }
    let content = files.incoming()?;
    let written =
        copy_whole_lines(from, content.as_file()).and_then(|mut to| more(&mut to).and_then(|()| to.flush()));
    written.map_err(|e| StoreError::new("write", content.path(), e))?;
    let bytes = content.as_file().metadata().map_err(|e| StoreError::new("write", content.path(), e))?.len();
    if bytes == 0 {
        return Ok(None);
    }
    let name = format!("{}_{what}.jsonl", batch.id);
    let created = ids::now();
    let mut file = File::new(&id, &name, "batch_output", bytes, created);
    file.expires_at = record.output_expires_after.map(|seconds| created + seconds);
    files.add(content, &file)?;
    Ok(Some(id))
}

/// Copies the lines that a killed server did not leave half written.
fn copy_whole_lines<'a>(from: &Path, to: &'a std::fs::File) -> std::io::Result<BufWriter<&'a std::fs::File>> {
    let mut to = BufWriter::new(to);
    let file = match std::fs::File::open(from) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(to),
        Err(e) => return Err(e),
    };
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        if serde_json::from_slice::<BatchLine>(&line).is_ok() {
            to.write_all(&line)?;
            to.write_all(b"\n")?;
        }
    }
    Ok(to)
}

fn write_not_run(
    batch: &str,
    input: &Path,
    done: &Done,
    why: &BatchLineError,
    to: &mut dyn Write,
) -> std::io::Result<()> {
    for line in input::requests(input)? {
        let custom_id = line?.custom_id;
        if done.ids.contains(&custom_id) {
            continue;
        }
        let id = line_id(batch, &custom_id);
        let line = BatchLine { id, custom_id, response: None, error: Some(why.clone()) };
        serde_json::to_writer(&mut *to, &line)?;
        to.write_all(b"\n")?;
    }
    Ok(())
}
