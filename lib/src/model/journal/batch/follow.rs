//! A batch from its record to its last answer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Weak,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    super::{Asked, Kept, Shared, Spent, bill, keeper::End, keeper::Message},
    Item, Open, Outcome, again, blocking, locked,
    record::Stage,
};
use crate::model::{
    client::{Client, ModelError, Unanswered},
    provider::{Batches, Dialect},
    wire::{Batch, BatchLine, BatchRequest, BatchStatus, ChatReply},
};

/// Where a batch carries its own name, to be found by.
const MARK: &str = "hone_batch";
/// How often a batch is created that is not found after a creation in doubt.
const CREATIONS: u32 = 3;
/// By how much clocks may differ.
const CLOCKS: i64 = 3600;
/// Ends that are on their way to the disk at once.
const AT_ONCE: usize = 512;

/// Why a batch is not followed to its end.
enum Stop {
    /// It stays on disk, for the next run.
    Kept(ModelError),
    /// It does not exist at the provider.
    Undone(ModelError),
    /// The journal is not used any more.
    Closed,
}

/// What is to be done with a call of a batch.
struct Ending {
    item: Item,
    end: End,
    told: Told,
}

enum Told {
    Answered(ChatReply, Kept),
    Live,
    Failed(ModelError),
}

/// Sends what was not sent yet, waits for the end, and hands out what came of it.
pub(super) async fn follow(shared: &Weak<Shared>, client: &Client, mut open: Open) {
    let reached = match begin(client, shared, &mut open).await {
        Ok(id) => until_settled(shared, client, &open, &id).await,
        Err(stop) => Err(stop),
    };
    let Some(shared) = shared.upgrade() else { return };
    match reached {
        Ok(()) => open.finish(),
        Err(Stop::Closed) => {}
        Err(Stop::Kept(error)) => {
            if !matches!(error, ModelError::Cancelled) {
                let text = format!("a batch at {} cannot be followed", open.record.provider);
                client.display().warn(format!("{text}: {error}"), Some("it is kept for the next run".into()));
            }
            let (folder, id) = open.place();
            let calls = blocking(move || Open::calls(&folder, &id)).await.unwrap_or_default();
            for key in calls.keys() {
                tell(&shared, key, || Outcome::Failed(again(&error)));
            }
        }
        Err(Stop::Undone(error)) => {
            let is_unwanted = matches!(error.status(), Some(400 | 404 | 405 | 501));
            if is_unwanted {
                let text = format!(
                    "{} takes no such batch, its calls are asked for one by one",
                    client.endpoint().name
                );
                client.display().warn(format!("{text}: {error}"), None);
            }
            let told = |_: &Asked| match is_unwanted {
                true => Told::Live,
                false => Told::Failed(again(&error)),
            };
            if end_rest(&shared, &open, 0, told).await.is_ok() {
                open.finish();
            }
        }
    }
}

/// Waits, unless the client is cancelled or the journal is gone.
async fn pause(client: &Client, wait: Duration) -> Result<(), Stop> {
    tokio::select! {
        () = client.cancel().cancelled() => Err(Stop::Kept(ModelError::Cancelled)),
        () = tokio::time::sleep(wait) => Ok(()),
    }
}

fn first_look(shared: &Weak<Shared>) -> Result<(Duration, Duration), Stop> {
    let shared = shared.upgrade().ok_or(Stop::Closed)?;
    Ok((shared.options.pace.first_look, shared.options.pace.longest_look))
}

/// The provider's name for the batch, which is created if it is certain that it is not there yet.
async fn begin(client: &Client, shared: &Weak<Shared>, open: &mut Open) -> Result<String, Stop> {
    let (file, known) = match open.record.stage.clone() {
        Stage::Created { batch } => return Ok(batch),
        Stage::Creating { file, known } => match find(client, shared, open, &file, &known).await? {
            Some(batch) => return created(client, open, batch),
            None => (file, known),
        },
        Stage::Written if is_of_messages(client) => {
            let before =
                client.message_batches_since(open.record.made_at - CLOCKS).await.map_err(not_made)?;
            let known: Vec<String> = before.into_iter().map(|batch| batch.id).collect();
            reach(open, Stage::Creating { file: String::new(), known: known.clone() })?;
            (String::new(), known)
        }
        Stage::Written => {
            // A file that is uploaded twice costs nothing.
            let file = client.upload_file(&open.input(), "batch").await.map_err(not_made)?;
            if client.endpoint().access.provider.dialect == Dialect::Azure {
                until_processed(client, shared, &file.id).await?;
            }
            reach(open, Stage::Creating { file: file.id.clone(), known: Vec::new() })?;
            (file.id, Vec::new())
        }
    };
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match create(client, open, &file).await {
            Ok(batch) => return created(client, open, batch.id),
            Err(error) => error,
        };
        if !error.is_in_doubt() {
            return Err(not_made(error));
        }
        pause(client, first_look(shared)?.0).await?;
        match find(client, shared, open, &file, &known).await? {
            Some(batch) => return created(client, open, batch),
            None if tries >= CREATIONS => return Err(not_made(error)),
            None => {}
        }
    }
}

/// Whether batches have Anthropic's shape.
fn is_of_messages(client: &Client) -> bool {
    client.endpoint().access.provider.batch == Some(Batches::Messages)
}

async fn create(client: &Client, open: &Open, file: &str) -> Result<Batch, ModelError> {
    if is_of_messages(client) {
        return client.create_message_batch(&open.input()).await;
    }
    let request = BatchRequest {
        input_file_id: file.to_owned(),
        endpoint: client.batch_endpoint().into(),
        completion_window: "24h".into(),
        metadata: Some(BTreeMap::from([(MARK.to_owned(), open.record.id.clone())])),
        output_expires_after: None,
    };
    client.create_batch(&request, &open.owner()).await
}

/// A creation that was given up may have been carried out.
fn not_made(error: ModelError) -> Stop {
    match error {
        ModelError::Cancelled => Stop::Kept(error),
        error => Stop::Undone(error),
    }
}

fn reach(open: &mut Open, stage: Stage) -> Result<(), Stop> {
    open.reach(stage).map_err(|e| Stop::Kept(e.into()))
}

fn created(client: &Client, open: &mut Open, batch: String) -> Result<String, Stop> {
    reach(open, Stage::Created { batch: batch.clone() })?;
    let record = &open.record;
    client.display().note(format!(
        "batch `{batch}` of {} calls of `{}` is under way at {}; this command may be closed, and run again to go on",
        record.calls, record.model, record.provider
    ));
    Ok(batch)
}

/// Our batch among those that the provider has.
async fn find(
    client: &Client,
    shared: &Weak<Shared>,
    open: &Open,
    file: &str,
    known: &[String],
) -> Result<Option<String>, Stop> {
    if is_of_messages(client) {
        return find_messages(client, shared, open, known).await;
    }
    let batches = client.batches_since(open.record.made_at - CLOCKS).await.map_err(Stop::Kept)?;
    let is_ours = |batch: &Batch| {
        let mark = batch.metadata.as_ref().and_then(|metadata| metadata.get(MARK));
        batch.input_file_id == file || mark == Some(&open.record.id)
    };
    Ok(batches.into_iter().find(is_ours).map(|batch| batch.id))
}

/// A batch of messages does not say whose it is until it has ended: then its lines bear the names of our calls. One of as
/// many calls that came after ours was begun is waited for, which costs no time where it is ours.
async fn find_messages(
    client: &Client,
    shared: &Weak<Shared>,
    open: &Open,
    known: &[String],
) -> Result<Option<String>, Stop> {
    let (mut wait, longest) = first_look(shared)?;
    let mut others: Vec<String> = known.to_vec();
    loop {
        let batches = client.message_batches_since(open.record.made_at - CLOCKS).await.map_err(Stop::Kept)?;
        let may_be = |batch: &Batch| {
            !others.contains(&batch.id) && batch.request_counts.total == open.record.calls as u64
        };
        let candidates: Vec<Batch> = batches.into_iter().filter(may_be).collect();
        let ended = candidates.iter().filter(|batch| batch.status.is_terminal());
        for batch in ended {
            if holds_ours(client, open, &batch.id).await.map_err(Stop::Kept)? {
                return Ok(Some(batch.id.clone()));
            }
            others.push(batch.id.clone());
        }
        if candidates.iter().all(|batch| batch.status.is_terminal()) {
            return Ok(None);
        }
        pause(client, wait).await?;
        wait = (wait * 2).min(longest);
    }
}

async fn holds_ours(client: &Client, open: &Open, id: &str) -> Result<bool, ModelError> {
    let (folder, name) = open.place();
    let calls = blocking(move || Open::calls(&folder, &name)).await?;
    let results = client.batch_results(id).await?;
    Ok(lines(client, &results).any(|line| calls.contains_key(&line.custom_id)))
}

/// Azure reads a file before it can be used.
async fn until_processed(client: &Client, shared: &Weak<Shared>, file: &str) -> Result<(), Stop> {
    loop {
        let status = client.file(file).await.map_err(not_made)?.status;
        if !matches!(status.as_str(), "pending" | "running" | "uploaded" | "notRunning") {
            return Ok(());
        }
        pause(client, first_look(shared)?.0).await?;
    }
}

/// Looks at a batch until it is over and its answers are in the journal.
async fn until_settled(shared: &Weak<Shared>, client: &Client, open: &Open, id: &str) -> Result<(), Stop> {
    let (mut wait, longest) = first_look(shared)?;
    loop {
        let looked = match client.batch(id).await {
            Ok(batch) if batch.status.is_terminal() => {
                let shared = shared.upgrade().ok_or(Stop::Closed)?;
                settle(&shared, client, open, &batch).await
            }
            Ok(batch) => {
                tracing::debug!(id, status = %batch.status, counts = ?batch.request_counts, "a batch is under way");
                pause(client, wait).await?;
                Ok(false)
            }
            Err(error) => Err(error),
        };
        match looked {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if error.status() == Some(404) => return lost(shared, client, open, &error).await,
            Err(error) if error.is_in_doubt() || is_patient(&error) => {
                tracing::warn!(id, %error, "a batch cannot be looked at, trying again");
                pause(client, wait).await?;
            }
            Err(error) => return Err(Stop::Kept(error)),
        }
        wait = (wait * 2).min(longest);
        first_look(shared)?;
    }
}

fn is_patient(error: &ModelError) -> bool {
    matches!(error, ModelError::WaitTooLong { .. }) || error.status() == Some(429)
}

/// The provider does not know the batch, or what it wrote, any more: what it has answered was paid for.
async fn lost(shared: &Weak<Shared>, client: &Client, open: &Open, error: &ModelError) -> Result<(), Stop> {
    let shared = shared.upgrade().ok_or(Stop::Closed)?;
    let text = "a batch is gone: its calls may have been billed, and are asked for again";
    client.display().warn(format!("{text}: {error}"), None);
    end_rest(&shared, open, 1, |_| Told::Live).await.map_err(Stop::Kept)
}

/// Puts the answers of a batch that is over into the journal.
async fn settle(shared: &Shared, client: &Client, open: &Open, batch: &Batch) -> Result<bool, ModelError> {
    let (folder, id) = open.place();
    let mut calls = blocking(move || Open::calls(&folder, &id)).await?;
    let took = batch.completed_at.map_or(0, |at| at.saturating_sub(batch.created_at)).max(0);
    let took = Duration::from_secs(took.unsigned_abs());
    let mut answered = 0;
    for file in [&batch.output_file_id, &batch.error_file_id].into_iter().flatten() {
        let content = client.batch_results(file).await?;
        let mut endings = Vec::new();
        for line in lines(client, &content) {
            let Some(item) = calls.remove(&line.custom_id) else { continue };
            let ending = ending(client, item, line, took)?;
            answered += usize::from(matches!(ending.told, Told::Answered(..)));
            endings.push(ending);
            if endings.len() >= AT_ONCE {
                end(shared, std::mem::take(&mut endings)).await?;
            }
        }
        end(shared, endings).await?;
    }
    complain(client, open, batch, answered);
    // A batch that says it is complete and has no line for a call may have carried it out.
    let lost = u32::from(batch.status == BatchStatus::Completed);
    end_all(shared, calls, lost, |_| Told::Live).await?;
    Ok(true)
}

/// Lines that can be read; one that cannot has no answer.
fn lines(client: &Client, content: &Bytes) -> impl Iterator<Item = BatchLine> {
    let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    lines.filter_map(|line| match client.batch_result(line) {
        Ok(line) => Some(line),
        Err(error) => {
            tracing::warn!(%error, "a line of a batch cannot be read");
            None
        }
    })
}

/// What to do with a call that has a line.
fn ending(client: &Client, item: Item, line: BatchLine, took: Duration) -> Result<Ending, ModelError> {
    let (end, told) = match client.batch_answer(line) {
        Ok(reply) => {
            let (kept, spent): (Kept, Spent) = bill(&item.asked, &reply, took)?;
            (End { paid: Some((kept.clone(), spent)), lost: 0 }, Told::Answered(reply, kept))
        }
        Err(Unanswered::NotRun) => (End { paid: None, lost: 0 }, Told::Live),
        Err(Unanswered::Refused(error)) => (End { paid: None, lost: 0 }, Told::Failed(error)),
        Err(Unanswered::Garbled(why)) => {
            tracing::warn!(why, "an answer of a batch cannot be used");
            (End { paid: None, lost: 1 }, Told::Live)
        }
    };
    Ok(Ending { item, end, told })
}

/// Says what a batch did not do.
fn complain(client: &Client, open: &Open, batch: &Batch, answered: usize) {
    let word = match &batch.status {
        BatchStatus::Completed => return,
        other => other,
    };
    let errors = batch.errors.iter().flat_map(|errors| &errors.data);
    let why = errors.take(3).map(|error| format!("; {}", error.message)).collect::<String>();
    let (id, of, provider) = (&batch.id, open.record.calls, &open.record.provider);
    let text = format!("batch `{id}` at {provider} is {word}: {answered} of {of} calls are answered{why}");
    client.display().warn(client.scrubbed(&text), Some("the rest is asked for again".into()));
}

/// Ends what is left of a batch's calls without an answer.
async fn end_rest(
    shared: &Shared,
    open: &Open,
    lost: u32,
    told: impl Fn(&Asked) -> Told,
) -> Result<(), ModelError> {
    let (folder, id) = open.place();
    let calls = blocking(move || Open::calls(&folder, &id)).await?;
    end_all(shared, calls, lost, told).await
}

async fn end_all(
    shared: &Shared,
    calls: HashMap<String, Item>,
    lost: u32,
    told: impl Fn(&Asked) -> Told,
) -> Result<(), ModelError> {
    let endings = calls.into_values().map(|item| {
        let (end, told) = (End { paid: None, lost }, told(&item.asked));
        Ending { item, end, told }
    });
    let mut endings: Vec<Ending> = endings.collect();
    while !endings.is_empty() {
        let rest = endings.split_off(endings.len().min(AT_ONCE));
        end(shared, std::mem::replace(&mut endings, rest)).await?;
    }
    Ok(())
}

/// Ends calls in the journal, and tells those who wait for them.
async fn end(shared: &Shared, endings: Vec<Ending>) -> Result<(), ModelError> {
    let keeper = shared.keeper()?;
    let mut under_way = Vec::new();
    for Ending { item: Item { hold, asked }, end, told } in endings {
        let (reply, written) = oneshot::channel();
        let asked = std::sync::Arc::new(asked);
        let _ = keeper.send(Message::End { asked: asked.clone(), hold, end, reply: Some(reply) });
        under_way.push((asked, told, written));
    }
    for (asked, told, written) in under_way {
        written.await.map_err(|_| ModelError::Cancelled)??;
        tell(shared, &asked.key, || match told {
            Told::Answered(reply, kept) => {
                shared.count(1, kept.usd);
                Outcome::Answered(Box::new(kept.answer(reply, false)))
            }
            Told::Live => Outcome::Live,
            Told::Failed(error) => Outcome::Failed(error),
        });
    }
    Ok(())
}

/// Tells whoever waits for a call in this process.
fn tell(shared: &Shared, key: &str, outcome: impl FnOnce() -> Outcome) {
    let waiter = locked(&shared.batcher.waiting).remove(key);
    if let Some(waiter) = waiter {
        // Whoever does not wait any more need not be told.
        let _ = waiter.send(outcome());
    }
}
