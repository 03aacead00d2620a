//! The one thread of a process that writes its journal.
//!
//! Whatever has come in while a commit was on its way to the disk goes into the next one: a commit costs some milliseconds
//! whether it carries one call or two hundred. What cannot be answered yet is parked here: a call that somebody asks for
//! already, and one for which the money is held by others just now.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    Asked, Label, Options, batch,
    db::{Db, Kept, Kind, Owner, Spent, Totals},
    legacy::Legacy,
    ticket::Ticket,
};
use crate::{
    model::{
        client::ModelError,
        price::{Tariff, Usd},
    },
    store::StoreError,
};

/// Messages in one commit at most: a bound on how much one failure takes back.
const MOST: usize = 1024;
/// How soon and how rarely others' claims and holds are looked at again.
const SOON: Duration = Duration::from_millis(25);
const RARELY: Duration = Duration::from_millis(250);

pub(super) type Inbox = mpsc::Receiver<Message>;
pub(super) type Outbox = mpsc::Sender<Message>;

/// What the thread is asked to do.
pub(super) enum Message {
    /// Find an answer, or the right to ask for it: the ticket comes back with a hold.
    Ask { asked: Arc<Asked>, ticket: Ticket, reply: oneshot::Sender<Result<Found, ModelError>> },
    /// Money for one more try. `lost` tries since the last hold may have been billed.
    Again { asked: Arc<Asked>, hold: i64, lost: u32, reply: oneshot::Sender<Result<i64, ModelError>> },
    /// The call is over. Without a reply: it was given up.
    End { asked: Arc<Asked>, hold: i64, end: End, reply: Option<oneshot::Sender<Result<(), ModelError>>> },
    /// Makes calls, by key and hold, a batch's own.
    HandOver { calls: Vec<(String, i64)>, to: String, reply: oneshot::Sender<Result<(), ModelError>> },
    /// Everything that was sent before is on disk when this is answered.
    Flush(oneshot::Sender<()>),
    /// The journal is dropped.
    Close,
}

/// How a call ended.
pub(super) struct End {
    pub paid: Option<(Kept, Spent)>,
    /// Tries that may have been billed and are not in the ledger yet.
    pub lost: u32,
}

/// What there is for a call.
pub(super) enum Found {
    Kept(Kept),
    Ours(Ticket),
}

/// What became of a message within a transaction.
enum Applied {
    Found(Kept),
    Granted(i64),
    Refused(ModelError),
    Parked(Wait),
    Ended,
}

/// What a parked message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The same call, under way in this process.
    Ours,
    /// The same call, under way in another.
    Theirs,
    /// Money that others hold.
    Money,
}

/// Runs until the journal is dropped. What cannot be opened answers every message.
pub(super) fn run(folder: PathBuf, options: Arc<Options>, inbox: Inbox) {
    match Keeper::open(folder.clone(), options) {
        Ok(keeper) => keeper.serve(&inbox),
        Err(error) => {
            let open = inbox.into_iter().take_while(|message| !matches!(message, Message::Close));
            open.for_each(|message| refuse(message, &error));
        }
    }
}

struct Keeper {
    db: Db,
    folder: PathBuf,
    owner: Owner,
    options: Arc<Options>,
    legacy: Legacy,
    parked: Vec<(Message, Wait)>,
    /// Answers from the journal that the ledger does not have yet.
    replays: HashMap<Label, i64>,
    /// Somebody waits for money: whoever comes later waits behind.
    short: bool,
}

impl Keeper {
    fn open(folder: PathBuf, options: Arc<Options>) -> Result<Self, StoreError> {
        let (db, owner) = (Db::open(&folder)?, Owner::new(&folder)?);
        let legacy = Legacy::find(&folder);
        sweep(&db, &folder, &owner.id)?;
        let (parked, replays) = Default::default();
        Ok(Self { db, folder, owner, options, legacy, parked, replays, short: false })
    }

    fn serve(mut self, inbox: &Inbox) {
        let mut pause = SOON;
        let mut closed = false;
        while !closed {
            let waits_for_others = self.parked.iter().any(|(_, wait)| *wait != Wait::Ours);
            let first = match waits_for_others {
                false => match inbox.recv() {
                    Ok(message) => Some(message),
                    Err(mpsc::RecvError) => break,
                },
                true => match inbox.recv_timeout(pause) {
                    Ok(message) => Some(message),
                    Err(mpsc::RecvTimeoutError::Timeout) => None,
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                },
            };
            pause = match first {
                Some(_) => SOON,
                None => (pause * 2).min(RARELY),
            };
            let others_due = first.is_none();
            let mut batch: Vec<Message> = first.into_iter().chain(inbox.try_iter().take(MOST)).collect();
            closed = batch.iter().any(|message| matches!(message, Message::Close));
            let flushed =
                batch.extract_if(.., |message| matches!(message, Message::Flush(_) | Message::Close));
            let flushed: Vec<Message> = flushed.collect();
            self.turn(batch, others_due);
            if !flushed.is_empty() {
                self.note_replays();
                flushed.into_iter().for_each(flush);
            }
        }
    }

    /// Answers what is known; the rest, and what was parked for its sake, goes through one transaction.
    fn turn(&mut self, batch: Vec<Message>, others_due: bool) {
        if others_due {
            // A sweep that fails is tried again with the next.
            let _ = sweep(&self.db, &self.folder, &self.owner.id);
        }
        let new = self.answer(batch);
        let ends: HashSet<String> = new.iter().filter_map(ended).map(str::to_owned).collect();
        let due = |(message, wait): &(Message, Wait)| match wait {
            Wait::Ours => asked(message).is_some_and(|asked| ends.contains(&asked.key)),
            Wait::Theirs => others_due || asked(message).is_some_and(|asked| ends.contains(&asked.key)),
            Wait::Money => others_due || !ends.is_empty(),
        };
        let parked =
            std::mem::take(&mut self.parked).into_iter().filter(|(message, _)| !is_given_up(message));
        let (woken, parked): (Vec<_>, Vec<_>) = parked.partition(due);
        self.parked = parked;
        // Ends first: what they give back is what others wait for. Who was parked comes before who is new.
        let woken = woken.into_iter().map(|(message, _)| message);
        let (ends, new): (Vec<Message>, Vec<Message>) = new.into_iter().partition(|m| ended(m).is_some());
        let work: Vec<Message> =
            ends.into_iter().chain(woken).chain(new).filter(|m| !is_given_up(m)).collect();
        if !work.is_empty() {
            self.write(work);
        }
    }

    /// Answers what is kept without a transaction; returns the rest.
    fn answer(&mut self, batch: Vec<Message>) -> Vec<Message> {
        let mut rest = Vec::new();
        for message in batch {
            match message {
                Message::Ask { asked, ticket, reply } => match self.db.find(&asked.key) {
                    Ok(Some(kept)) if !asked.spoilt => {
                        self.count_replay(&asked);
                        let _ = reply.send(Ok(Found::Kept(kept)));
                    }
                    // The transaction meets the same error and tells it.
                    _ => rest.push(Message::Ask { asked, ticket, reply }),
                },
                other => rest.push(other),
            }
        }
        rest
    }

    fn write(&mut self, work: Vec<Message>) {
        self.short = self.parked.iter().any(|(_, wait)| *wait == Wait::Money);
        let mut applied = Vec::new();
        let done = self.db.begin().and_then(|()| {
            for message in &work {
                applied.push(self.apply(message)?);
            }
            self.write_replays()
        });
        match self.db.end(done) {
            Ok(()) => {
                self.replays.clear();
                for (message, applied) in work.into_iter().zip(applied) {
                    self.tell(message, applied);
                }
            }
            Err(error) => {
                let error = self.db.broken("write", &error);
                work.into_iter().for_each(|message| refuse(message, &error));
            }
        }
    }

    fn apply(&mut self, message: &Message) -> rusqlite::Result<Applied> {
        match message {
            Message::Ask { asked, .. } => self.ask(asked),
            Message::Again { asked, hold, lost, .. } => {
                self.db.let_go(*hold)?;
                self.lose(asked, *lost)?;
                self.grant(asked)
            }
            Message::End { asked, hold, end, .. } => {
                let owner = asked.batch.as_deref().unwrap_or(&self.owner.id);
                if !self.db.let_go_of(*hold, owner)? && asked.batch.is_some() {
                    // It is in the ledger already: whoever followed the batch before was killed on the way.
                    return Ok(Applied::Ended);
                }
                self.db.release(&asked.key, owner)?;
                self.lose(asked, end.lost)?;
                if let Some((kept, spent)) = &end.paid {
                    let kind = if asked.batch.is_some() { Kind::Batch } else { Kind::Paid };
                    self.db.keep(asked, &asked.label.run, kept)?;
                    self.db.spend(&asked.label, kind, *spent)?;
                }
                Ok(Applied::Ended)
            }
            Message::HandOver { calls, to, .. } => {
                calls.iter().try_for_each(|(key, hold)| self.db.hand_over(key, *hold, to))?;
                Ok(Applied::Ended)
            }
            Message::Flush(_) | Message::Close => Ok(Applied::Ended),
        }
    }

    fn lose(&self, asked: &Asked, tries: u32) -> rusqlite::Result<()> {
        if tries == 0 || asked.tariff == Tariff::Free {
            return Ok(());
        }
        let usd = asked.worst.map(|worst| worst.times(tries));
        self.db.spend(&asked.label, Kind::Lost, Spent { calls: tries.into(), usd, ..Spent::default() })
    }

    /// The answer if it came meanwhile, or the right to ask.
    fn ask(&mut self, asked: &Asked) -> rusqlite::Result<Applied> {
        if let Some(kept) = self.db.find(&asked.key)?.filter(|_| !asked.spoilt) {
            return Ok(Applied::Found(kept));
        }
        if let Some(kept) = self.legacy.take(asked) {
            self.db.keep(asked, "", &kept)?;
            return Ok(Applied::Found(kept));
        }
        match self.db.claimed_by(&asked.key)? {
            Some(owner) if owner == self.owner.id => return Ok(Applied::Parked(Wait::Ours)),
            Some(owner) => match Owner::of_the_dead(&self.folder, &owner) {
                // Its lock is given back before the commit; should another process find it, too, it waits for us to commit.
                Some(_dead) => self.db.bury(&owner)?,
                // Without a word to its provider no batch ends.
                None if self.options.offline && batch::is_owner(&owner) => {}
                None => return Ok(Applied::Parked(Wait::Theirs)),
            },
            None => {}
        }
        if self.options.offline {
            let (provider, model) = (asked.provider.clone(), asked.label.model.clone());
            return Ok(Applied::Refused(ModelError::NotInJournal { provider, model }));
        }
        let granted = self.grant(asked)?;
        if matches!(granted, Applied::Granted(_)) {
            self.db.claim(&asked.key, &self.owner.id)?;
        }
        Ok(granted)
    }

    /// Holds the worst case of one try, if what is spent and held leaves room for it.
    fn grant(&mut self, asked: &Asked) -> rusqlite::Result<Applied> {
        if let Some(cap) = self.options.cap {
            let worst = match (asked.worst, asked.tariff) {
                (Some(worst), _) => worst,
                (None, Tariff::Unknown) => {
                    return Ok(Applied::Refused(ModelError::NoPrice { row: asked.label.row.clone() }));
                }
                (None, _) => return Ok(Applied::Refused(unlimited(asked))),
            };
            let Totals { spent, held, standing } = self.db.totals()?;
            if worst > Usd::ZERO && spent + standing + worst > cap {
                return Ok(Applied::Refused(ModelError::Budget { spent, held, next: worst, cap }));
            }
            if worst > Usd::ZERO && (self.short || spent + held + worst > cap) {
                self.short = true;
                return Ok(Applied::Parked(Wait::Money));
            }
        }
        Ok(Applied::Granted(self.db.hold(&self.owner.id, asked.worst, &asked.label)?))
    }

    fn tell(&mut self, message: Message, applied: Applied) {
        match (message, applied) {
            (Message::Again { asked, reply, .. }, Applied::Parked(wait)) => {
                // The hold is gone and what it stood for is in the ledger.
                self.parked.push((Message::Again { asked, hold: 0, lost: 0, reply }, wait));
            }
            (message, Applied::Parked(wait)) => self.parked.push((message, wait)),
            (Message::Ask { asked, ticket, reply }, applied) => {
                let answer = match applied {
                    Applied::Granted(hold) => {
                        ticket.open(hold);
                        Ok(Found::Ours(ticket))
                    }
                    Applied::Found(kept) => {
                        self.count_replay(&asked);
                        Ok(Found::Kept(kept))
                    }
                    Applied::Refused(error) => Err(error),
                    Applied::Parked(_) | Applied::Ended => return,
                };
                // A ticket that nobody takes gives its hold back when it is dropped.
                let _ = reply.send(answer);
            }
            (Message::Again { reply, .. }, Applied::Granted(hold)) => self.hand_over(hold, reply),
            (Message::Again { reply, .. }, Applied::Refused(error)) => drop(reply.send(Err(error))),
            (Message::End { reply: Some(reply), .. } | Message::HandOver { reply, .. }, _) => {
                drop(reply.send(Ok(())));
            }
            _ => {}
        }
    }

    /// Gives a hold to whoever waits for it. Where nobody does and it cannot be let go, it counts as lost when we end.
    fn hand_over(&self, hold: i64, to: oneshot::Sender<Result<i64, ModelError>>) {
        if to.send(Ok(hold)).is_err() {
            let _ = self.db.let_go(hold);
        }
    }

    fn count_replay(&mut self, asked: &Asked) {
        *self.replays.entry(asked.label.clone()).or_default() += 1;
    }

    fn write_replays(&self) -> rusqlite::Result<()> {
        self.replays.iter().try_for_each(|(label, calls)| {
            let spent = Spent { calls: *calls, usd: Some(Usd::ZERO), ..Spent::default() };
            self.db.spend(label, Kind::Replayed, spent)
        })
    }

    /// At the end. A count that cannot be written is no reason to fail.
    fn note_replays(&mut self) {
        if !self.replays.is_empty() {
            let written = self.db.begin().and_then(|()| self.write_replays());
            match self.db.end(written) {
                Ok(()) => self.replays.clear(),
                Err(error) => tracing::warn!(%error, "replayed calls are not counted"),
            }
        }
    }
}

/// Ends the affairs of every owner that has died.
pub(super) fn sweep(db: &Db, folder: &Path, own: &str) -> Result<(), StoreError> {
    let swept = db.owners().and_then(|owners| {
        let others = owners.iter().filter(|owner| *owner != own);
        let dead: Vec<Owner> = others.filter_map(|owner| Owner::of_the_dead(folder, owner)).collect();
        if dead.is_empty() {
            return Ok(());
        }
        let buried = db.begin().and_then(|()| dead.iter().try_for_each(|dead| db.bury(&dead.id)));
        db.end(buried)
    });
    swept.map_err(|e| db.broken("write", &e))
}

fn asked(message: &Message) -> Option<&Asked> {
    match message {
        Message::Ask { asked, .. } | Message::Again { asked, .. } | Message::End { asked, .. } => Some(asked),
        Message::HandOver { .. } | Message::Flush(_) | Message::Close => None,
    }
}

fn flush(message: Message) {
    if let Message::Flush(reply) = message {
        let _ = reply.send(());
    }
}

/// The key of a call that is over.
fn ended(message: &Message) -> Option<&str> {
    match message {
        Message::End { asked, .. } => Some(&asked.key),
        _ => None,
    }
}

/// Whoever asked does not wait for the answer any more.
fn is_given_up(message: &Message) -> bool {
    match message {
        Message::Ask { reply, .. } => reply.is_closed(),
        Message::Again { reply, .. } => reply.is_closed(),
        _ => false,
    }
}

/// Tells a message that the journal cannot be written.
fn refuse(message: Message, error: &StoreError) {
    let again = || ModelError::Store(error.again());
    match message {
        Message::Ask { reply, .. } => drop(reply.send(Err(again()))),
        Message::Again { reply, .. } => drop(reply.send(Err(again()))),
        Message::HandOver { reply, .. } => drop(reply.send(Err(again()))),
        Message::End { reply, .. } => {
            if let Some(reply) = reply {
                let _ = reply.send(Err(again()));
            }
        }
        Message::Flush(reply) => drop(reply.send(())),
        Message::Close => {}
    }
}

fn unlimited(asked: &Asked) -> ModelError {
    let row = &asked.label.row;
    ModelError::Endpoint(format!(
        "a call through `models.{row}` has no limit on its tokens, so no budget can be kept"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::price::Rates;

    const CAP: i64 = 1_000;

    /// A call under way in the simulation.
    struct Flight {
        asked: Arc<Asked>,
        ticket: Option<Ticket>,
        found: Option<oneshot::Receiver<Result<Found, ModelError>>>,
        hold: i64,
    }

    fn asked(n: usize, worst: i64) -> Arc<Asked> {
        Arc::new(Asked {
            key: format!("{n:064x}"),
            identity: "i".into(),
            provider: "p".into(),
            sample: String::new(),
            request: "{}".into(),
            label: Label::default(),
            tariff: Tariff::Known(Rates::per_million(1.0, 1.0)),
            worst: Some(Usd::from_nanos(worst)),
            spoilt: false,
            batch: None,
            own_options: false,
        })
    }

    fn keeper(folder: &Path) -> Keeper {
        let options = Options { cap: Some(Usd::from_nanos(CAP)), ..Options::default() };
        Keeper::open(folder.to_owned(), Arc::new(options)).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        /// Whatever is asked, tried again, answered, given up or killed in whatever order: what the provider has billed and
        /// what it may still bill for tries that were let through never exceed the cap.
        #[test]
        fn no_order_of_events_exceeds_the_cap(
            steps in prop::collection::vec((0u8..10, 0usize..12, 1i64..300, 0i64..100), 1..60),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (outbox, _inbox) = mpsc::channel();
            let mut keepers = [keeper(folder.path()), keeper(folder.path())];
            let mut flights: Vec<Vec<Flight>> = vec![Vec::new(), Vec::new()];
            let mut billed = 0;
            for (n, (what, which, worst, share)) in steps.into_iter().enumerate() {
                let at = which % 2;
                match what {
                    0..=4 => {
                        let asked = asked(n, worst);
                        let (reply, found) = oneshot::channel();
                        let ticket = Ticket::new(asked.clone(), outbox.clone());
                        keepers[at].turn(vec![Message::Ask { asked: asked.clone(), ticket, reply }], false);
                        flights[at].push(Flight { asked, ticket: None, found: Some(found), hold: 0 });
                    }
                    5 | 6 if !flights[at].is_empty() => {
                        let at_flight = which / 2 % flights[at].len();
                        let flight = &mut flights[at][at_flight];
                        if flight.ticket.is_some() && flight.hold != 0 {
                            // A try with an unknown end, which was billed in part, and one more.
                            let cost = flight.asked.worst.unwrap().nanos() * share / 100;
                            billed += cost;
                            let (reply, mut answer) = oneshot::channel();
                            let (asked, hold) = (flight.asked.clone(), flight.hold);
                            keepers[at].turn(vec![Message::Again { asked, hold, lost: 1, reply }], true);
                            flight.hold = match answer.try_recv() { Ok(Ok(hold)) => hold, _ => 0 };
                        }
                    }
                    7 | 8 if !flights[at].is_empty() => {
                        let at_flight = which / 2 % flights[at].len();
                        let flight = flights[at].swap_remove(at_flight);
                        if flight.ticket.is_some() && flight.hold != 0 {
                            let cost = flight.asked.worst.unwrap().nanos() * share / 100;
                            billed += cost;
                            let usd = Some(Usd::from_nanos(cost));
                            let kept = Kept { reply: "{}".into(), usd, took_ms: 0 };
                            let spent = Spent { calls: 1, input: 0, output: 0, usd };
                            let end = End { paid: Some((kept, spent)), lost: 0 };
                            let (asked, hold) = (flight.asked.clone(), flight.hold);
                            keepers[at].turn(vec![Message::End { asked, hold, end, reply: None }], false);
                        }
                    }
                    9 => {
                        // A kill: whatever it had under way may be billed in full.
                        let under_way = flights[at].drain(..).filter(|flight| flight.hold != 0);
                        billed += under_way.map(|flight| flight.asked.worst.unwrap().nanos()).sum::<i64>();
                        keepers[at] = keeper(folder.path());
                    }
                    _ => keepers[at].turn(Vec::new(), true),
                }
                for flight in flights.iter_mut().flatten() {
                    if let Some(Ok(Ok(Found::Ours(ticket)))) = flight.found.as_mut().map(oneshot::Receiver::try_recv) {
                        flight.hold = ticket.hold();
                        flight.ticket = Some(ticket);
                    }
                }
                let may: i64 = flights.iter().flatten().filter(|f| f.hold != 0).map(|f| f.asked.worst.unwrap().nanos()).sum();
                prop_assert!(billed + may <= CAP, "{billed} billed and {may} under way");
                let Totals { spent, held, .. } = keepers[at].db.totals().unwrap();
                prop_assert!(spent + held <= Usd::from_nanos(CAP), "{spent} and {held}");
            }
        }
    }
}
