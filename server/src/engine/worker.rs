//! The engine's thread: takes requests between two tokens, gives every token to whoever waits for it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError},
    },
};

use hone::cancel::Cancel;
use hone_engine::{
    generate::{Batcher, Progress, Request, RequestId, SamplingParams, SubmitError},
    infer::{Decoder, Delta, Precision},
    lora::{Adapter, merge},
    model::Model,
    weights::Weights,
};
use tokio::sync::mpsc::UnboundedSender;

use super::{Ask, Update};
use crate::error::ApiError;

pub enum Command {
    Ask(Ask, UnboundedSender<Update>),
    Forget(String),
}

/// A loaded base model and the answers being written on its tokenizer.
struct Base {
    model: Model<Decoder>,
    batcher: Batcher,
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
    tuned_in_memory: usize,
    bases: HashMap<String, Base>,
    /// What tuned models add to their bases, the one used last at the end.
    tuned: Vec<(String, Arc<Delta>)>,
    flights: Vec<Flight>,
}

impl Worker {
    pub fn new(inbox: Receiver<Command>, stop: Cancel, max_batch: usize, tuned_in_memory: usize) -> Self {
        let tuned_in_memory = tuned_in_memory.max(1);
        Self {
            inbox,
            stop,
            max_batch,
            tuned_in_memory,
            bases: HashMap::new(),
            tuned: Vec::new(),
            flights: Vec::new(),
        }
    }

    /// Works until every handle is gone or it is told to stop; whoever waits then sees its channel close.
    pub fn run(mut self) {
        while self.take_commands() && !self.stop.is_cancelled() {
            self.drop_the_abandoned();
            let bases = self.bases.iter_mut().filter(|(_, base)| !base.batcher.is_idle());
            let progress: Vec<_> = bases
                .flat_map(|(id, base)| base.batcher.step().into_iter().map(|p| (id.clone(), p)))
                .collect();
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

    fn take(&mut self, command: Command) {
        match command {
            Command::Forget(id) => self.tuned.retain(|(known, _)| *known != id),
            Command::Ask(ask, waiter) => {
                if let Err(error) = self.start(ask, &waiter) {
                    // Whoever has gone does not need to know.
                    let _ = waiter.send(Update::Failed(error));
                }
            }
        }
    }

    fn start(&mut self, ask: Ask, waiter: &UnboundedSender<Update>) -> Result<(), ApiError> {
        self.load_base(&ask)?;
        let delta = self.delta(&ask)?;
        let base_id = &ask.model.base.id;
        let base =
            self.bases.get_mut(base_id).ok_or_else(|| ApiError::internal("the model is not loaded"))?;
        let refused =
            |e| ApiError::bad_param("messages", format!("the model's chat template cannot take them: {e}"));
        let prompt = base.model.render(&ask.messages, true).map_err(refused)?;
        for (index, params) in ask.params.into_iter().enumerate() {
            let request = submit(base, delta.clone(), &prompt, params)?;
            self.flights.push(Flight { base: base_id.clone(), request, index, waiter: waiter.clone() });
        }
        // Nothing is written before the next step, so this is the first that the waiter hears.
        let _ = waiter.send(Update::Started { prompt_tokens: prompt.len() });
        Ok(())
    }

    fn load_base(&mut self, ask: &Ask) -> Result<(), ApiError> {
        let base = &ask.model.base;
        if self.bases.contains_key(&base.id) {
            return Ok(());
        }
        tracing::info!(model = base.id, path = %base.path.display(), "loading");
        let model = Model::open(&base.path, Precision::Fast)
            .map_err(|e| ApiError::internal(format!("model `{}` cannot be loaded: {e}", base.id)))?;
        let batcher = Batcher::new(model.tokenizer.clone(), self.max_batch);
        self.bases.insert(base.id.clone(), Base { model, batcher });
        Ok(())
    }

    /// What a tuned model adds to its base, loaded when it is not in memory; none for the base model.
    fn delta(&mut self, ask: &Ask) -> Result<Option<Arc<Delta>>, ApiError> {
        if ask.adapters.is_empty() {
            return Ok(None);
        }
        let id = &ask.model.id;
        if let Some(at) = self.tuned.iter().position(|(known, _)| known == id) {
            let entry = self.tuned.remove(at);
            self.tuned.push(entry.clone());
            return Ok(Some(entry.1));
        }
        let base = self
            .bases
            .get(&ask.model.base.id)
            .ok_or_else(|| ApiError::internal("the model is not loaded"))?;
        // Make room first: memory is what this limit is about.
        let keep = self.tuned_in_memory - 1;
        self.tuned.drain(..self.tuned.len().saturating_sub(keep));
        let config = &base.model.weights.config;
        let chain: Result<Vec<Adapter>, _> =
            ask.adapters.iter().map(|folder| Adapter::load(folder, config)).collect();
        let chain = chain.map_err(|e| ApiError::internal(e.to_string()))?;
        let delta = Arc::new(Delta::new(config, &chain));
        self.tuned.push((id.clone(), delta.clone()));
        Ok(Some(delta))
    }

    fn drop_the_abandoned(&mut self) {
        let (gone, here): (Vec<_>, Vec<_>) =
            self.flights.drain(..).partition(|flight| flight.waiter.is_closed());
        self.flights = here;
        for flight in gone {
            if let Some(base) = self.bases.get_mut(&flight.base) {
                tracing::debug!("a client has gone, its answer is dropped");
                base.batcher.cancel(flight.request);
            }
        }
    }

    fn deliver(&mut self, base: &str, progress: Progress) {
        let is_it = |flight: &Flight| flight.request == progress.id && flight.base == base;
        let Some(at) = self.flights.iter().position(is_it) else { return };
        let Flight { index, waiter, .. } = &self.flights[at];
        let index = *index;
        if !progress.text.is_empty() {
            let _ = waiter.send(Update::Text { index, text: progress.text });
        }
        if let Some(finish) = progress.finished {
            let _ = waiter.send(Update::Done { index, finish, tokens: progress.completion_tokens });
            self.flights.swap_remove(at);
        }
    }
}

fn submit(
    base: &mut Base,
    delta: Option<Arc<Delta>>,
    prompt: &[u32],
    params: SamplingParams,
) -> Result<RequestId, ApiError> {
    let request = Request { decoder: base.model.weights.clone(), delta, prompt: prompt.to_vec(), params };
    base.batcher.submit(request).map_err(|e| match e {
        SubmitError::PromptTooLong { tokens, context } => {
            let message = format!("the messages have {tokens} tokens, the model's context is {context}");
            ApiError::bad(message).param("messages").code("context_length_exceeded")
        }
        other => ApiError::bad(other.to_string()),
    })
}

/// The weights with adapters merged in, one after the other: what further training starts from.
pub fn merge_chain(base: Arc<Weights>, adapters: &[std::path::PathBuf]) -> Result<Arc<Weights>, String> {
    let mut weights = base;
    for folder in adapters {
        let adapter = Adapter::load(folder, &weights.config).map_err(|e| e.to_string())?;
        weights = Arc::new(merge(&weights, &adapter));
    }
    Ok(weights)
}
