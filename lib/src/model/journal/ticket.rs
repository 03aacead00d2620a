//! The right to ask a provider for one answer: what is held for it, and what is told when it ends.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering},
};

use tokio::sync::oneshot;

use super::{
    Asked,
    keeper::{End, Message, Outbox},
};
use crate::model::client::ModelError;

/// Until it ends, nobody else asks. One that is dropped ends by itself.
#[derive(Clone)]
pub(super) struct Ticket(Arc<State>);

struct State {
    asked: Arc<Asked>,
    keeper: Outbox,
    /// Whether there is anything to give back.
    open: AtomicBool,
    /// Number of the hold; 0 when there is none just now.
    hold: AtomicI64,
    /// Tries that began.
    tries: AtomicU32,
    /// Of those the ones that are in the ledger as lost.
    lost: AtomicU32,
}

impl Ticket {
    /// A ticket that stands for nothing yet.
    pub fn new(asked: Arc<Asked>, keeper: Outbox) -> Self {
        let (hold, tries, lost) = Default::default();
        Self(Arc::new(State { asked, keeper, open: AtomicBool::new(false), hold, tries, lost }))
    }

    pub fn open(&self, hold: i64) {
        self.0.hold.store(hold, Ordering::SeqCst);
        self.0.open.store(true, Ordering::SeqCst);
    }

    /// The number of what is held for it.
    #[cfg(test)]
    pub fn hold(&self) -> i64 {
        self.0.hold.load(Ordering::SeqCst)
    }

    /// Before each try, with the number of earlier ones that may have been billed: waits until there is money for it.
    ///
    /// # Errors
    /// When there will be none, or the journal cannot be written.
    pub async fn admit(self, unknown: u32) -> Result<(), ModelError> {
        let state = &self.0;
        let lost = unknown.saturating_sub(state.lost.swap(unknown, Ordering::SeqCst));
        if lost > 0 {
            let (reply, answer) = oneshot::channel();
            let hold = state.hold.swap(0, Ordering::SeqCst);
            // The keeper ends with the journal alone, which nobody can drop while it is waited for.
            let _ = state.keeper.send(Message::Again { asked: state.asked.clone(), hold, lost, reply });
            let hold = answer.await.map_err(|_| ModelError::Cancelled)??;
            state.hold.store(hold, Ordering::SeqCst);
        }
        state.tries.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Ends it: what was paid, and how many tries may have been billed besides.
    ///
    /// # Errors
    /// When the journal cannot be written: the answer must not be used then.
    pub async fn end(
        self,
        paid: Option<(super::db::Kept, super::db::Spent)>,
        unknown: u32,
    ) -> Result<(), ModelError> {
        let state = &self.0;
        state.open.store(false, Ordering::SeqCst);
        let lost = unknown.saturating_sub(state.lost.load(Ordering::SeqCst));
        let hold = state.hold.load(Ordering::SeqCst);
        let (reply, answer) = oneshot::channel();
        let end = End { paid, lost };
        let _ = state.keeper.send(Message::End { asked: state.asked.clone(), hold, end, reply: Some(reply) });
        answer.await.map_err(|_| ModelError::Cancelled)?
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if *self.open.get_mut() {
            // A try that began and was dropped may have been billed.
            let lost = (*self.tries.get_mut()).min(1);
            let (asked, hold) = (self.asked.clone(), *self.hold.get_mut());
            let end = End { paid: None, lost };
            let _ = self.keeper.send(Message::End { asked, hold, end, reply: None });
        }
    }
}
