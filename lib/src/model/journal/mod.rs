//! Every answer of a model, on disk before anyone uses it, so that nothing is paid for twice; and the money that calls cost.
//!
//! An entry's name is a hash of what was asked: the provider's identity with the options of the row that change what is sent,
//! the request in canonical JSON, and what else tells two askings apart (the number of a sample). Any number of tasks and processes may share a journal: whoever asks first
//! claims the call, and the others wait for its answer. Before a try is sent the most that it can cost is held, so that
//! what is spent and what is under way together never exceed the cap, whoever is killed when (docs/calls.md).

mod batch;
mod db;
mod export;
mod health;
mod keeper;
mod ledger;
mod legacy;
mod standing;
#[cfg(test)]
mod tests;
mod ticket;

use std::{
    fmt,
    ops::Add,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use self::{
    batch::Batcher,
    db::{Kept, Spent},
    keeper::{Found, Message, Outbox},
    ticket::Ticket,
};
pub use self::{
    batch::Pace,
    export::{ExportError, Imported, export, import},
    health::Health,
    ledger::{Ledger, LedgerRow, Measured},
    standing::Settled,
};
use super::{
    client::{Client, Exchange, ModelError},
    price::{self, Payer, Prices, Tariff, Usd},
    wire::{ChatReply, ChatRequest},
};
use crate::store::StoreError;

/// Answers, claims and money of a workspace, with the label under which this handle's calls stand in the ledger. Cheap to
/// clone; clones share one writer.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    payer: Arc<Payer>,
    role: &'static str,
    phase: &'static str,
    /// Whether calls go through batches where the provider takes them.
    batches: bool,
}

/// How a journal is used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// What everything in it may cost together; none is no limit.
    pub cap: Option<Usd>,
    /// Nothing is sent: a call that is not there is an error.
    pub offline: bool,
    /// Names the run in the ledger.
    pub run: String,
    pub prices: Prices,
    /// Of calls that go through batches.
    pub pace: Pace,
}

/// An answer and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub reply: ChatReply,
    /// True when it was read from the journal: nothing was sent, nothing was paid.
    pub replayed: bool,
    /// What it cost in US dollars, now or when it was first asked for; none when no price is known.
    pub usd: Option<f64>,
    /// How long the provider took, now or when it was first asked.
    pub took_ms: u64,
}

/// What a process has sent through a journal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sent {
    pub calls: u64,
    /// US dollars, what may have been billed included; none when the price of a call is not known.
    pub usd: Option<f64>,
}

impl Add for Sent {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { calls: self.calls + other.calls, usd: self.usd.zip(other.usd).map(|(a, b)| a + b) }
    }
}

impl Sent {
    /// What was sent since an earlier count.
    pub fn since(self, earlier: Self) -> Self {
        let usd = self.usd.zip(earlier.usd).map(|(now, then)| now - then);
        Self { calls: self.calls - earlier.calls, usd }
    }
}

struct Shared {
    folder: PathBuf,
    options: Arc<Options>,
    keeper: OnceLock<Result<Outbox, String>>,
    under_way: TaskTracker,
    sent: Mutex<(u64, Option<Usd>)>,
    batcher: Batcher,
}

/// Under what a call stands in the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
struct Label {
    run: String,
    row: String,
    model: String,
    role: String,
    phase: String,
}

/// Who is asked.
struct Called<'a> {
    identity: &'a str,
    /// In errors.
    provider: &'a str,
    row: &'a str,
    model: &'a str,
}

/// What there is for a call.
enum Ready {
    Known(Box<Answer>),
    Ours(Ticket),
}

/// What is asked, ready to be looked up.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Asked {
    key: String,
    identity: String,
    /// The endpoint's name in errors; it stood for the identity in the journal's first form.
    provider: String,
    sample: String,
    /// Canonical JSON.
    request: String,
    label: Label,
    tariff: Tariff,
    /// The most that one try can cost; none when that is not known.
    worst: Option<Usd>,
    /// The entry that is there cannot be read: ask again and replace it.
    spoilt: bool,
    /// The batch that it is in, as the owner of its claim and of what is held for it.
    batch: Option<String>,
    /// Its row says more about how it is asked than the journal's first form knew.
    #[serde(default)]
    own_options: bool,
}

impl Journal {
    /// A journal in a folder, without a cap. The folder is made when the first call comes.
    pub fn open(folder: impl Into<PathBuf>) -> Self {
        Self::with(folder, Options::default())
    }

    pub fn with(folder: impl Into<PathBuf>, options: Options) -> Self {
        let shared = Shared {
            folder: folder.into(),
            options: Arc::new(options),
            keeper: OnceLock::new(),
            under_way: TaskTracker::new(),
            sent: Mutex::new((0, Some(Usd::ZERO))),
            batcher: Batcher::default(),
        };
        Self { shared: Arc::new(shared), payer: Arc::default(), role: "agent", phase: "", batches: false }
    }

    /// The same journal for calls of a row.
    pub fn for_row(&self, payer: Payer) -> Self {
        Self { payer: Arc::new(payer), ..self.clone() }
    }

    /// The same journal for calls by the agent, the teacher or the judge.
    pub fn by(&self, role: &'static str) -> Self {
        Self { role, ..self.clone() }
    }

    /// The same journal for calls of a phase.
    pub fn at(&self, phase: &'static str) -> Self {
        Self { phase, ..self.clone() }
    }

    /// The same journal, whose calls go through batches where the provider takes them: cheaper, and answered within a day.
    pub fn in_batches(&self, batches: bool) -> Self {
        Self { batches, ..self.clone() }
    }

    /// Whether calls through a client go through batches, where many are better than few.
    pub fn batches(&self, client: &Client) -> bool {
        let provider = client.endpoint().access.provider;
        self.batches && provider.batch.is_some() && !self.shared.options.offline
    }

    /// What this process has sent so far, through all handles.
    pub fn sent(&self) -> Sent {
        let (calls, usd) = *self.shared.sent.lock().unwrap_or_else(PoisonError::into_inner);
        Sent { calls, usd: usd.map(Usd::dollars) }
    }

    /// Whether two handles count together.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Refuses a model whose price is not known, where there is a cap to keep.
    ///
    /// # Errors
    /// [`ModelError::NoPrice`], before anything is sent.
    pub fn afford(&self, client: &Client, model: &str) -> Result<(), ModelError> {
        match self.tariff(client, model) {
            Tariff::Unknown if self.shared.options.cap.is_some() => {
                Err(ModelError::NoPrice { row: self.row(client) })
            }
            _ => Ok(()),
        }
    }

    /// Answers from the journal or asks the client; a new answer is on disk when this returns.
    ///
    /// `sample` tells apart askings of the same request that want answers of their own. An alias whose meaning changes
    /// must not be asked for here: resolve it to the model first, or the old model's answers come back.
    ///
    /// What is paid for comes into the journal even if nobody waits for it any more ([`Journal::drain`]).
    ///
    /// # Errors
    /// The client's; [`ModelError::Budget`] and [`ModelError::NoPrice`] before anything is sent; [`ModelError::NotInJournal`]
    /// where nothing may be sent; [`ModelError::Store`] when the journal cannot be written.
    pub async fn chat(
        &self,
        client: &Client,
        request: &ChatRequest,
        sample: &str,
    ) -> Result<Answer, ModelError> {
        batch::watch(&self.shared, client);
        if self.batches(client) {
            let percent = client.endpoint().access.provider.batch_percent;
            match self.claim(client, request, sample, percent).await? {
                (_, Ready::Known(answer)) => return Ok(*answer),
                (asked, Ready::Ours(ticket)) => {
                    if let Some(answer) = batch::ask(&self.shared, client, request, asked, ticket).await? {
                        return Ok(answer);
                    }
                }
            }
        }
        let (asked, ticket) = match self.claim(client, request, sample, 100).await? {
            (_, Ready::Known(answer)) => return Ok(*answer),
            (asked, Ready::Ours(ticket)) => (asked, ticket),
        };
        let paid = paid(self.shared.clone(), client.clone(), request.clone(), asked, ticket);
        if client.endpoint().is_embedded() {
            // Nobody pays for it, so it ends with whoever waits for it.
            return paid.await;
        }
        match self.shared.under_way.spawn(paid).await {
            Ok(answer) => answer,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(ModelError::Cancelled),
            },
        }
    }

    /// Answers from the journal or by `ask`: for agents that are no chat models. `who` identifies one and `asked` is what it is
    /// given. What it spends is its own business, so nothing is held for it.
    ///
    /// # Errors
    /// Those of `ask`; [`ModelError::NotInJournal`] and [`ModelError::Store`] as for [`Journal::chat`].
    pub async fn keep(
        &self,
        who: &str,
        asked: &Value,
        sample: &str,
        ask: impl AsyncFnOnce() -> Result<ChatReply, ModelError>,
    ) -> Result<Answer, ModelError> {
        let name = if self.payer.row.is_empty() { who } else { &self.payer.row };
        let called = Called { identity: who, provider: name, row: name, model: name };
        let mut asked = self.asked_of(&called, &canonical(asked), sample, (Tariff::Free, Some(Usd::ZERO)));
        let ticket = match self.look_up(&mut asked).await? {
            Ready::Known(answer) => return Ok(*answer),
            Ready::Ours(ticket) => ticket,
        };
        let started = Instant::now();
        let exchange = Exchange { result: ask().await, unknown: 0 };
        settle(&self.shared, &asked, ticket, exchange, started.elapsed()).await
    }

    /// Waits until everything that is paid for is answered and on disk, or the time is over; how many calls are still open.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.shared.under_way.close();
        let _ = tokio::time::timeout(grace, self.shared.under_way.wait()).await;
        self.shared.under_way.reopen();
        if let Some(Ok(keeper)) = self.shared.keeper.get() {
            let (reply, flushed) = oneshot::channel();
            let _ = keeper.send(Message::Flush(reply));
            let _ = flushed.await;
        }
        self.open_calls()
    }

    /// Calls that are paid for and not answered.
    pub fn open_calls(&self) -> usize {
        self.shared.under_way.len()
    }

    /// The answer to a call that costs so many percent of the usual price, or the right to ask for it.
    async fn claim(
        &self,
        client: &Client,
        request: &ChatRequest,
        sample: &str,
        percent: u32,
    ) -> Result<(Asked, Ready), ModelError> {
        let mut asked = self.asked(client, request, sample, percent)?;
        let ready = tokio::select! {
            () = client.cancel().cancelled() => return Err(ModelError::Cancelled),
            ready = self.look_up(&mut asked) => ready?,
        };
        Ok((asked, ready))
    }

    /// The answer, or the right to ask for it. An entry that cannot be read counts as not there.
    async fn look_up(&self, asked: &mut Asked) -> Result<Ready, ModelError> {
        loop {
            match self.ask(Arc::new(asked.clone())).await? {
                Found::Ours(ticket) => return Ok(Ready::Ours(ticket)),
                Found::Kept(kept) => match serde_json::from_str(&kept.reply) {
                    Ok(reply) => return Ok(Ready::Known(Box::new(kept.answer(reply, true)))),
                    Err(error) => {
                        tracing::warn!(asked.key, %error, "unreadable journal entry, asking again");
                        asked.spoilt = true;
                    }
                },
            }
        }
    }

    async fn ask(&self, asked: Arc<Asked>) -> Result<Found, ModelError> {
        let keeper = self.shared.keeper()?;
        let (reply, answer) = oneshot::channel();
        let ticket = Ticket::new(asked.clone(), keeper.clone());
        let _ = keeper.send(Message::Ask { asked, ticket, reply });
        answer.await.map_err(|_| ModelError::Cancelled)?
    }

    fn asked(
        &self,
        client: &Client,
        request: &ChatRequest,
        sample: &str,
        percent: u32,
    ) -> Result<Asked, ModelError> {
        let value = serde_json::to_value(request)
            .map_err(|e| ModelError::Endpoint(format!("the request cannot be written: {e}")))?;
        let value = canonical(&value);
        let (identity, endpoint) = (client.endpoint().asked_as(), client.endpoint());
        let row = self.row(client);
        let called =
            Called { identity: &identity, provider: &endpoint.name, row: &row, model: &request.model };
        let tariff = self.tariff(client, &request.model).at(percent);
        let limit = request.token_limit().map(|limit| u64::from(limit) * u64::from(request.n.unwrap_or(1)));
        let worst = match tariff {
            Tariff::Free => Some(Usd::ZERO),
            _ => limit.and_then(|limit| tariff.cost(price::most_input(&value), limit)),
        };
        let own_options = identity != endpoint.identity;
        Ok(Asked { own_options, ..self.asked_of(&called, &value, sample, (tariff, worst)) })
    }

    fn asked_of(
        &self,
        called: &Called<'_>,
        request: &Value,
        sample: &str,
        (tariff, worst): (Tariff, Option<Usd>),
    ) -> Asked {
        let request = request.to_string();
        Asked {
            key: key(called.identity, &request, sample),
            identity: called.identity.to_owned(),
            provider: called.provider.to_owned(),
            sample: sample.to_owned(),
            request,
            label: Label {
                run: self.shared.options.run.clone(),
                row: called.row.to_owned(),
                model: called.model.to_owned(),
                role: self.role.to_owned(),
                phase: self.phase.to_owned(),
            },
            tariff,
            worst,
            spoilt: false,
            batch: None,
            own_options: false,
        }
    }

    fn tariff(&self, client: &Client, model: &str) -> Tariff {
        self.shared.options.prices.tariff(&self.payer, model, client.is_local())
    }

    fn row(&self, client: &Client) -> String {
        if self.payer.row.is_empty() { client.endpoint().name.clone() } else { self.payer.row.clone() }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("folder", &self.shared.folder).finish_non_exhaustive()
    }
}

impl Shared {
    /// The writer; the first call starts it.
    fn keeper(&self) -> Result<&Outbox, ModelError> {
        let start = || {
            let (outbox, inbox) = mpsc::channel();
            let (folder, options) = (self.folder.clone(), self.options.clone());
            let thread = std::thread::Builder::new().name("journal".into());
            thread
                .spawn(move || keeper::run(folder, options, inbox))
                .map(|_| outbox)
                .map_err(|error| error.to_string())
        };
        self.keeper.get_or_init(start).as_ref().map_err(|why| {
            ModelError::Store(StoreError::new("write", &self.folder, std::io::Error::other(why.clone())))
        })
    }

    fn count(&self, calls: u64, usd: Option<Usd>) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        *sent = (sent.0 + calls, sent.1.zip(usd).map(|(sum, usd)| sum + usd));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(Ok(keeper)) = self.keeper.get() {
            let _ = keeper.send(Message::Close);
        }
    }
}

impl Kept {
    fn answer(&self, reply: ChatReply, replayed: bool) -> Answer {
        let took_ms = u64::try_from(self.took_ms).unwrap_or_default();
        Answer { reply, replayed, usd: self.usd.map(Usd::dollars), took_ms }
    }
}

/// The part of a call that costs money: it runs to its end, whoever stops waiting for it.
async fn paid(
    shared: Arc<Shared>,
    client: Client,
    request: ChatRequest,
    asked: Asked,
    ticket: Ticket,
) -> Result<Answer, ModelError> {
    let started = Instant::now();
    let admit = {
        let (ticket, cancel) = (ticket.clone(), client.cancel().clone());
        move |unknown: u32| -> BoxFuture<'static, Result<(), ModelError>> {
            let (ticket, cancel) = (ticket.clone(), cancel.clone());
            Box::pin(async move {
                tokio::select! {
                    () = cancel.cancelled() => Err(ModelError::Cancelled),
                    admitted = ticket.admit(unknown) => admitted,
                }
            })
        }
    };
    let exchange = client.chat_with(&request, &admit).await;
    settle(&shared, &asked, ticket, exchange, started.elapsed()).await
}

/// Puts what came of a call into the journal and the ledger; the answer may be used when this returns it.
async fn settle(
    shared: &Shared,
    asked: &Asked,
    ticket: Ticket,
    Exchange { result, unknown }: Exchange,
    took: Duration,
) -> Result<Answer, ModelError> {
    let lost = asked.worst.map(|worst| worst.times(unknown));
    let reply = match result {
        Ok(reply) => reply,
        Err(error) => {
            shared.count(u64::from(unknown), lost.or((unknown == 0).then_some(Usd::ZERO)));
            // What failed is told; that the loss could not be noted, too, would not help anyone.
            let _ = ticket.end(None, unknown).await;
            return Err(error);
        }
    };
    let (kept, spent) = bill(asked, &reply, took)?;
    shared.count(1 + u64::from(unknown), spent.usd.zip(lost).map(|(usd, lost)| usd + lost));
    ticket.end(Some((kept.clone(), spent)), unknown).await?;
    Ok(kept.answer(reply, false))
}

/// A reply as it is kept, and what it costs.
fn bill(asked: &Asked, reply: &ChatReply, took: Duration) -> Result<(Kept, Spent), ModelError> {
    let (input, output) = reply.usage.map_or((0, 0), |usage| (usage.prompt_tokens, usage.completion_tokens));
    let usd = match reply.usage {
        Some(_) => asked.tariff.cost(input, output),
        // A provider that does not count is taken at its worst.
        None => asked.worst,
    };
    let text = serde_json::to_string(reply)
        .map_err(|e| ModelError::Endpoint(format!("the reply cannot be written: {e}")))?;
    let took_ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
    let [input, output] = [input, output].map(|tokens| i64::try_from(tokens).unwrap_or(i64::MAX));
    Ok((Kept { reply: text, usd, took_ms }, Spent { calls: 1, input, output, usd }))
}

/// The name of a call: the digest of a JSON list. The request is canonical JSON already.
fn key(identity: &str, request: &str, sample: &str) -> String {
    let [identity, sample] = [identity, sample].map(|text| Value::from(text).to_string());
    crate::text::hex(&Sha256::digest(format!("[{identity},{request},{sample}]")))
}

/// The value with every object's keys in order.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().map(|(key, value)| (key.clone(), canonical(value))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

/// Where the database of a journal's folder is.
fn file(folder: &Path) -> PathBuf {
    folder.join(db::FILE)
}
