//! The engine's thread: takes requests between two tokens, gives every token to whoever waits for it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError},
    },
};

use hone::cancel::Cancel;
use hone_engine::generate::{Batcher, Finish, Progress, Request, RequestId};
use tokio::sync::mpsc::UnboundedSender;

use super::{Update, models::Loaded, too_much_work};
use crate::error::ApiError;

/// Answers to write.
pub struct Command {
    pub base: Arc<Loaded>,
    pub requests: Vec<Request>,
    pub waiter: UnboundedSender<Update>,
}

/// An answer that somebody waits for.
struct Flight {
    base: String,
    request: RequestId,
    index: usize,
    waiter: UnboundedSender<Update>,
}

pub struct Worker {
    inbox: Receiver<Command>,
    stop: Cancel,
    max_batch: usize,
    prefix_bytes: usize,
    /// By base model: one tokenizer, one set of weights, its tuned models included.
    batchers: HashMap<String, Batcher>,
    flights: Vec<Flight>,
}

impl Worker {
    pub fn new(inbox: Receiver<Command>, stop: Cancel, max_batch: usize, prefix_bytes: usize) -> Self {
        Self { inbox, stop, max_batch, prefix_bytes, batchers: HashMap::new(), flights: Vec::new() }
    }

    /// Works until every handle is gone or it is told to stop; whoever waits then sees its channel close.
    pub fn run(mut self) {
        while self.take_commands() && !self.stop.is_cancelled() {
            self.drop_the_abandoned();
            let busy = self.batchers.iter_mut().filter(|(_, batcher)| !batcher.is_idle());
            let progress: Vec<_> =
                busy.flat_map(|(id, batcher)| batcher.step().into_iter().map(|p| (id.clone(), p))).collect();
            for (base, progress) in progress {
                self.deliver(&base, progress);
            }
        }
    }

    /// Takes what has come in; waits when there is nothing else to do. False when nobody is left to ask.
    fn take_commands(&mut self) -> bool {
        if self.flights.is_empty() {
            match self.inbox.recv() {
                Ok(command) => self.take(command),
                Err(_) => return false,
            }
        }
        loop {
            match self.inbox.try_recv() {
                Ok(command) => self.take(command),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn take(&mut self, Command { base, requests, waiter }: Command) {
        let batcher = self.batchers.entry(base.id.clone()).or_insert_with(|| {
            Batcher::new(base.model.tokenizer.clone(), self.max_batch).keeping(self.prefix_bytes)
        });
        for (index, request) in requests.into_iter().enumerate() {
            match batcher.submit(request) {
                Ok(request) => {
                    let (base, waiter) = (base.id.clone(), waiter.clone());
                    self.flights.push(Flight { base, request, index, waiter });
                }
                // They were checked before, so this is a fault of ours. Whoever has gone does not need to know.
                Err(e) => drop(waiter.send(Update::Failed(ApiError::internal(e)))),
            }
        }
    }

    fn drop_the_abandoned(&mut self) {
        let (gone, here): (Vec<_>, Vec<_>) =
            self.flights.drain(..).partition(|flight| flight.waiter.is_closed());
        self.flights = here;
        for flight in gone {
            if let Some(batcher) = self.batchers.get_mut(&flight.base) {
                tracing::debug!("a client has gone, its answer is dropped");
                batcher.cancel(flight.request);
            }
        }
    }

    fn deliver(&mut self, base: &str, progress: Progress) {
        let is_it = |flight: &Flight| flight.request == progress.id && flight.base == base;
        let Some(at) = self.flights.iter().position(is_it) else { return };
        let Flight { index, waiter, .. } = &self.flights[at];
        let index = *index;
        let Progress { text, tokens, completion_tokens, cached_tokens, finished, .. } = progress;
        if !text.is_empty() || tokens.iter().any(|token| token.logprobs.is_some()) {
            let _ = waiter.send(Update::Text { index, text, tokens });
        }
        if let Some(finish) = finished {
            let done = |cut| Update::Done { index, cut, tokens: completion_tokens, cached: cached_tokens };
            let _ = waiter.send(match finish {
                Finish::Stop => done(false),
                Finish::Length => done(true),
                Finish::GaveUp => Update::Failed(too_much_work()),
            });
            self.flights.swap_remove(at);
        }
    }
}
