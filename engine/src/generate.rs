//! Continuous batching: many requests share the forward passes, each coming and going when it likes.
//!
//! The batcher is synchronous and owns no thread: whoever drives it calls [`Batcher::step`] in a loop while there is
//! work. Answers do not depend on what else is in flight (see `kernel`), only on the request.

use std::{collections::VecDeque, sync::Arc};

use rayon::prelude::*;

use crate::{
    infer::{self, Chunk, Decoder, Delta, PREFILL_ROWS, Sequence},
    sample::{self, Sampler},
    stop::{Passed, StopFilter},
    tokenizer::{StreamDecoder, Tokenizer},
};

/// How to choose tokens and when to end.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy; must be finite and not negative.
    pub temperature: f32,
    /// In (0, 1].
    pub top_p: f32,
    pub seed: u64,
    /// Most tokens to generate; the context limit ends an answer too.
    pub max_tokens: usize,
    /// Texts that end the answer, themselves left out.
    pub stop: Vec<String>,
    /// Report the log probability of every token chosen.
    pub logprobs: bool,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, seed: 0, max_tokens: 1024, stop: Vec::new(), logprobs: false }
    }
}

/// A prompt to continue. Requests on different models of one tokeniser may be in flight together; those on one decoder
/// share its forward passes, whatever their deltas.
#[derive(Clone, Debug)]
pub struct Request {
    pub decoder: Arc<Decoder>,
    /// What a tuned model adds; none for the base model.
    pub delta: Option<Arc<Delta>>,
    pub prompt: Vec<u32>,
    pub params: SamplingParams,
}

/// Names a request for as long as its batcher lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn, or a stop string was complete.
    Stop,
    /// `max_tokens` or the model's context was reached.
    Length,
}

/// A generated token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    pub id: u32,
    /// Natural logarithm at temperature 1, when the request asked for it.
    pub logprob: Option<f32>,
}

/// What one step brought one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    pub id: RequestId,
    /// New text; may be empty while a character or a possible stop string is incomplete.
    pub text: String,
    /// The token generated in this step; none for the one that ended the answer.
    pub token: Option<Token>,
    /// Tokens generated so far, without the one that ended the answer.
    pub completion_tokens: usize,
    /// Set on the last progress of a request.
    pub finished: Option<Finish>,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    #[error("the prompt is empty")]
    EmptyPrompt,
    #[error("the prompt has {tokens} tokens, the model's context is {context}")]
    PromptTooLong { tokens: usize, context: usize },
    #[error("token {0} is not in the model's vocabulary")]
    UnknownToken(u32),
    #[error("temperature {0} is not a number from 0 up")]
    Temperature(f32),
    #[error("top_p {0} is not above 0 and at most 1")]
    TopP(f32),
}

/// A request that holds a slot.
struct Active {
    id: RequestId,
    decoder: Arc<Decoder>,
    delta: Option<Arc<Delta>>,
    sequence: Sequence,
    sampler: Sampler,
    stream: StreamDecoder,
    filter: StopFilter,
    max_tokens: usize,
    logprobs: bool,
    generated: usize,
}

/// Runs requests together. See the module's description.
pub struct Batcher {
    tokenizer: Tokenizer,
    slots: usize,
    next_id: u64,
    queue: VecDeque<(RequestId, Request)>,
    active: Vec<Active>,
}

impl Batcher {
    /// At most `slots` requests (at least 1) are in the model at once, the others wait in the order they came.
    pub fn new(tokenizer: Tokenizer, slots: usize) -> Self {
        Self { tokenizer, slots: slots.max(1), next_id: 0, queue: VecDeque::new(), active: Vec::new() }
    }

    /// Queues a request.
    ///
    /// # Errors
    /// When it can never be answered.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, SubmitError> {
        check(&request)?;
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.queue.push_back((id, request));
        Ok(id)
    }

    /// Forgets a request; whether it was there. Nothing more is reported about it.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let before = self.active.len() + self.queue.len();
        self.active.retain(|active| active.id != id);
        self.queue.retain(|(queued, _)| *queued != id);
        self.active.len() + self.queue.len() < before
    }

    /// Requests that hold a slot.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// Requests that wait for a slot.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.active.is_empty() && self.queue.is_empty()
    }

    /// One round: every answer in progress grows by one token, prompts advance by a shared budget of
    /// [`PREFILL_ROWS`] tokens. Reports the requests that got a token or ended, in the order they were submitted.
    pub fn step(&mut self) -> Vec<Progress> {
        let mut progress = self.admit();
        let tokenizer = &self.tokenizer;
        for mut group in groups(&mut self.active) {
            progress.extend(advance(tokenizer, &mut group));
        }
        let ended = |id: RequestId| progress.iter().any(|p| p.id == id && p.finished.is_some());
        self.active.retain(|active| !ended(active.id));
        progress.sort_by_key(|progress| progress.id);
        progress
    }

    /// Fills free slots. Requests for no tokens end here.
    fn admit(&mut self) -> Vec<Progress> {
        let mut ended = Vec::new();
        while self.active.len() < self.slots
            && let Some((id, request)) = self.queue.pop_front()
        {
            if request.params.max_tokens == 0 {
                let finished = Some(Finish::Length);
                ended.push(Progress { id, text: String::new(), token: None, completion_tokens: 0, finished });
            } else {
                self.active.push(Active::new(id, request));
            }
        }
        ended
    }
}

fn check(Request { decoder, prompt, params, .. }: &Request) -> Result<(), SubmitError> {
    let (tokens, context) = (prompt.len(), decoder.config.context);
    if tokens == 0 {
        return Err(SubmitError::EmptyPrompt);
    }
    if tokens >= context {
        return Err(SubmitError::PromptTooLong { tokens, context });
    }
    if let Some(&id) = prompt.iter().find(|id| **id as usize >= decoder.config.vocab) {
        return Err(SubmitError::UnknownToken(id));
    }
    if !(params.temperature.is_finite() && params.temperature >= 0.0) {
        return Err(SubmitError::Temperature(params.temperature));
    }
    if !(params.top_p > 0.0 && params.top_p <= 1.0) {
        return Err(SubmitError::TopP(params.top_p));
    }
    Ok(())
}

impl Active {
    fn new(id: RequestId, Request { decoder, delta, prompt, params }: Request) -> Self {
        Self {
            id,
            sequence: Sequence::new(&decoder, &prompt),
            sampler: Sampler::new(params.temperature, params.top_p, params.seed),
            stream: StreamDecoder::default(),
            filter: StopFilter::new(&params.stop),
            max_tokens: params.max_tokens,
            logprobs: params.logprobs,
            generated: 0,
            decoder,
            delta,
        }
    }

    /// Samples the next token and says what it means for the answer.
    fn take(&mut self, tokenizer: &Tokenizer, logits: &[f32]) -> Progress {
        let id = self.sampler.sample(logits);
        if tokenizer.is_end(id) {
            let text = self.rest();
            return self.progress(text, None, Some(Finish::Stop));
        }
        let token = Token { id, logprob: self.logprobs.then(|| sample::logprob(logits, id)) };
        self.sequence.push(id);
        self.generated += 1;
        let piece = self.stream.push(tokenizer, id);
        let Passed { mut text, stopped } = self.filter.push(&piece);
        if stopped {
            return self.progress(text, Some(token), Some(Finish::Stop));
        }
        let full =
            self.generated >= self.max_tokens || self.sequence.ids().len() >= self.decoder.config.context;
        if full {
            text += &self.rest();
        }
        self.progress(text, Some(token), full.then_some(Finish::Length))
    }

    /// What decoder and filter still hold back.
    fn rest(&mut self) -> String {
        let Passed { text, stopped } = self.filter.push(&self.stream.finish());
        if stopped { text } else { text + &self.filter.finish() }
    }

    fn progress(&self, text: String, token: Option<Token>, finished: Option<Finish>) -> Progress {
        Progress { id: self.id, text, token, completion_tokens: self.generated, finished }
    }
}

/// The requests on the same decoder, for each decoder in flight.
fn groups(active: &mut [Active]) -> Vec<Vec<&mut Active>> {
    let mut groups: Vec<Vec<&mut Active>> = Vec::new();
    for active in active {
        match groups.iter_mut().find(|group| Arc::ptr_eq(&group[0].decoder, &active.decoder)) {
            Some(group) => group.push(active),
            None => groups.push(vec![active]),
        }
    }
    groups
}

/// One forward pass over requests that share their decoder.
fn advance(tokenizer: &Tokenizer, group: &mut [&mut Active]) -> Vec<Progress> {
    let decoder = group[0].decoder.clone();
    let mut budget = PREFILL_ROWS;
    let chunk = |active: &mut &mut Active| {
        let pending = active.sequence.pending();
        // An answer in progress always moves, so that long prompts only slow it down.
        let take = if active.generated > 0 { pending } else { pending.min(budget) };
        budget = budget.saturating_sub(take);
        take
    };
    let takes: Vec<usize> = group.iter_mut().map(chunk).collect();
    let chunks = group.iter_mut().zip(takes);
    let mut chunks: Vec<Chunk> = chunks
        .map(|(active, take)| {
            let Active { sequence, delta, .. } = &mut **active;
            Chunk { sequence, take, delta: delta.as_deref() }
        })
        .collect();
    let logits = infer::forward(&decoder, &mut chunks);
    let take = |(index, active): (usize, &mut &mut Active)| Some(active.take(tokenizer, logits.row(index)?));
    group.par_iter_mut().enumerate().filter_map(take).collect()
}

#[cfg(test)]
mod tests;
