//! Calls that go through a provider's batches: collected, sent as one file, answered within a day.
//!
//! A batch is an owner in the journal as processes are: the claims of its calls and what is held for them become its own
//! before anything is sent, and stay its own when the process that made it ends. Its record on disk says how far it has come
//! (`record.rs`). Whoever opens the journal next and knows its provider follows it to its end (`follow.rs`), and everyone
//! who asks for one of its calls meanwhile waits for it, as for a call of another process.

mod follow;
mod record;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use self::record::{Item, Open};
pub(super) use self::record::{files_of, is_owner};
use super::{Answer, Asked, Shared, keeper::Message, ticket::Ticket};
use crate::model::{
    client::{Client, ModelError},
    wire::ChatRequest,
};

/// How long things take with batches, and how large they may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// A batch is sent when no further call has come for so long.
    pub idle: Duration,
    /// The wait before the first look at a batch. It doubles with each further one.
    pub first_look: Duration,
    /// What the waits grow to.
    pub longest_look: Duration,
    pub most_calls: usize,
    /// Of a batch's input.
    pub most_bytes: usize,
}

impl Default for Pace {
    /// OpenAI's limits: 50,000 calls and 200 MB.
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(3),
            first_look: Duration::from_secs(5),
            longest_look: Duration::from_secs(60),
            most_calls: 50_000,
            most_bytes: 190 << 20,
        }
    }
}

/// Calls that trickle in for ever are sent after so many times the idle wait.
const PATIENCE: u32 = 10;

/// What a process does with batches.
#[derive(Default)]
pub(super) struct Batcher {
    /// Calls that are in no batch yet, by the provider's identity and the model: a batch has one of each.
    queues: Mutex<HashMap<(String, String), Queue>>,
    /// Who waits in this process for which call.
    waiting: Mutex<HashMap<String, Waiter>>,
    /// Identities whose open batches are looked for.
    watched: Mutex<HashSet<String>>,
}

type Waiter = oneshot::Sender<Outcome>;

/// What became of a call in a batch.
enum Outcome {
    Answered(Box<Answer>),
    /// It was not carried out: ask for it alone.
    Live,
    Failed(ModelError),
}

struct Queue {
    calls: Vec<Call>,
    bytes: usize,
    first: Instant,
    last: Instant,
}

/// A call that waits for its batch.
struct Call {
    line: String,
    asked: Asked,
    ticket: Ticket,
    waiter: Waiter,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks through a batch; none when the call has to be asked for alone. When the client is cancelled the batch goes on without
/// us.
pub(super) async fn ask(
    shared: &Arc<Shared>,
    client: &Client,
    request: &ChatRequest,
    asked: Asked,
    ticket: Ticket,
) -> Result<Option<Answer>, ModelError> {
    let line = client.batch_line(request, &asked.key)?;
    let (waiter, outcome) = oneshot::channel();
    put(shared, client, Call { line, asked, ticket, waiter });
    tokio::select! {
        () = client.cancel().cancelled() => Err(ModelError::Cancelled),
        outcome = outcome => match outcome {
            Ok(Outcome::Answered(answer)) => Ok(Some(*answer)),
            Ok(Outcome::Live) => Ok(None),
            Ok(Outcome::Failed(error)) => Err(error),
            Err(_) => Err(ModelError::Cancelled),
        },
    }
}

fn put(shared: &Arc<Shared>, client: &Client, call: Call) {
    let pace = shared.options.pace;
    let at = (call.asked.identity.clone(), call.asked.label.model.clone());
    let now = Instant::now();
    let mut queues = locked(&shared.batcher.queues);
    let has_no_room = queues.get(&at).is_some_and(|queue| {
        queue.calls.len() >= pace.most_calls || queue.bytes + call.line.len() >= pace.most_bytes
    });
    if has_no_room && let Some(full) = queues.remove(&at) {
        tokio::spawn(launch(shared.clone(), client.clone(), full.calls));
    }
    let is_new = !queues.contains_key(&at);
    let queue = queues.entry(at.clone()).or_insert_with(|| Queue {
        calls: Vec::new(),
        bytes: 0,
        first: now,
        last: now,
    });
    queue.bytes += call.line.len() + 1;
    queue.last = now;
    queue.calls.push(call);
    if is_new {
        tokio::spawn(launch_when_idle(shared.clone(), client.clone(), at));
    }
}

/// Waits until no more calls come, and sends them.
async fn launch_when_idle(shared: Arc<Shared>, client: Client, at: (String, String)) {
    let idle = shared.options.pace.idle;
    let calls = loop {
        let due = {
            let mut queues = locked(&shared.batcher.queues);
            let Some(queue) = queues.get(&at) else { return };
            let due = (queue.last + idle).min(queue.first + idle * PATIENCE);
            if due <= Instant::now() {
                break queues.remove(&at).map(|queue| queue.calls).unwrap_or_default();
            }
            due
        };
        tokio::time::sleep_until(due).await;
    };
    launch(shared, client, calls).await;
}

/// Makes a batch of calls and follows it. A call that nobody waits for any more is left out: its ticket gives its hold back.
async fn launch(shared: Arc<Shared>, client: Client, calls: Vec<Call>) {
    let calls: Vec<Call> = calls.into_iter().filter(|call| !call.waiter.is_closed()).collect();
    if calls.is_empty() || client.cancel().is_cancelled() {
        return;
    }
    match open(&shared, &client, &calls).await {
        Err(error) => {
            let refused = calls.into_iter().map(|call| call.waiter.send(Outcome::Failed(again(&error))));
            // Whoever does not wait any more need not be told.
            refused.for_each(drop);
        }
        Ok(batch) => {
            wait_for(&shared.batcher, calls);
            let journal = Arc::downgrade(&shared);
            // Whoever waits for an answer keeps the journal open.
            drop(shared);
            follow::follow(&journal, &client, batch).await;
        }
    }
}

/// Notes who waits for the calls of a batch, to which their claims and holds belong now.
fn wait_for(batcher: &Batcher, calls: Vec<Call>) {
    let mut waiting = locked(&batcher.waiting);
    for call in calls {
        call.ticket.hand_over();
        waiting.insert(call.asked.key, call.waiter);
    }
}

/// Puts a batch on disk, in this order: its calls; who owns them; its record. Before the record is there nothing is sent, and
/// a batch without one is none.
async fn open(shared: &Shared, client: &Client, calls: &[Call]) -> Result<Open, ModelError> {
    let model = &calls.first().map(|call| call.asked.label.model.clone()).unwrap_or_default();
    let batch = Open::new(&shared.folder, client, model, calls.len())?;
    let owner = batch.owner();
    let item = |call: &Call| Item {
        hold: call.ticket.hold(),
        asked: Asked { batch: Some(owner.clone()), ..call.asked.clone() },
    };
    let items = calls.iter().map(item).collect();
    let lines = calls.iter().map(|call| call.line.clone()).collect();
    let batch = blocking(move || batch.with_calls(items, lines)).await?;
    let (reply, handed_over) = oneshot::channel();
    let calls = calls.iter().map(|call| (call.asked.key.clone(), call.ticket.hold())).collect();
    let _ = shared.keeper()?.send(Message::HandOver { calls, to: owner, reply });
    handed_over.await.map_err(|_| ModelError::Cancelled)??;
    batch.save()?;
    Ok(batch)
}

/// Work on large files, off the threads that answer.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::store::StoreError> + Send + 'static,
) -> Result<T, ModelError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ModelError::Cancelled),
        },
    }
}

/// Looks for batches of a client's provider that nobody follows, now and then, as long as the journal is used.
pub(super) fn watch(shared: &Arc<Shared>, client: &Client) {
    let identity = &client.endpoint().identity;
    if client.endpoint().is_embedded() || shared.options.offline {
        return;
    }
    if locked(&shared.batcher.watched).insert(identity.clone()) {
        tokio::spawn(adopt(Arc::downgrade(shared), client.clone()));
    }
}

async fn adopt(shared: std::sync::Weak<Shared>, client: Client) {
    let mut wait = Duration::ZERO;
    while let Some(journal) = shared.upgrade() {
        let (folder, pace) = (journal.folder.clone(), journal.options.pace);
        drop(journal);
        wait = (wait * 2).clamp(pace.first_look, pace.longest_look);
        let identity = client.endpoint().identity.clone();
        let orphans = blocking(move || Ok(Open::orphans(&folder, &identity))).await.unwrap_or_default();
        for batch in orphans {
            let record = &batch.record;
            client.display().note(format!(
                "picked up a batch of {} calls of `{}` at {}, which an earlier run left",
                record.calls, record.model, record.provider
            ));
            let (shared, client) = (shared.clone(), client.clone());
            tokio::spawn(async move { follow::follow(&shared, &client, batch).await });
        }
        tokio::select! {
            () = client.cancel().cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// The same error for one more call.
fn again(error: &ModelError) -> ModelError {
    match error {
        ModelError::Refused { provider, status, code, message, request_id } => ModelError::Refused {
            provider: provider.clone(),
            status: *status,
            code: code.clone(),
            message: message.clone(),
            request_id: request_id.clone(),
        },
        ModelError::Unreachable { provider, url, why, local } => ModelError::Unreachable {
            provider: provider.clone(),
            url: url.clone(),
            why: why.clone(),
            local: *local,
        },
        ModelError::TooSlow { provider, why } => {
            ModelError::TooSlow { provider: provider.clone(), why: why.clone() }
        }
        ModelError::Garbled { provider, why } => {
            ModelError::Garbled { provider: provider.clone(), why: why.clone() }
        }
        ModelError::WaitTooLong { provider, wait } => {
            ModelError::WaitTooLong { provider: provider.clone(), wait: *wait }
        }
        ModelError::Store(e) => ModelError::Store(e.again()),
        ModelError::Cancelled => ModelError::Cancelled,
        other => ModelError::Endpoint(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
