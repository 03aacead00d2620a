//! Continuous batching: many requests share the forward passes, each coming and going when it likes.
//!
//! The batcher is synchronous and owns no thread: whoever drives it calls [`Batcher::step`] in a loop while there is
//! work. Answers do not depend on what else is in flight (see `kernel`), only on the request; what prompts have in common
//! is computed once (`prefix`), those of several answers to one question included.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    constrain::Constraint,
    infer::{self, Chunk, Decoder, Delta},
    sample::{Choice, LogProbs},
    tokenizer::Tokenizer,
};
use answer::Answer;
use plan::Need;
use prefix::PrefixCache;

mod answer;
mod plan;
mod prefix;

/// Fewer shared tokens are read faster than they are waited for.
const WORTH_WAITING: usize = 16;

/// How to choose tokens and when to end.
#[derive(Clone, Debug)]
pub struct SamplingParams {
    pub choice: Choice,
    /// Most tokens to generate; the context limit ends an answer too.
    pub max_tokens: usize,
    /// Texts that end the answer, themselves left out.
    pub stop: Vec<String>,
    /// Report the log probability of every token chosen, and of this many likeliest ones beside it.
    pub logprobs: Option<usize>,
    /// What the answer has to be. It ends when it is that, or with [`Finish::Length`].
    pub constraint: Option<Constraint>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            choice: Choice::default(),
            max_tokens: 1024,
            stop: Vec::new(),
            logprobs: None,
            constraint: None,
        }
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

impl Request {
    /// Whether it can be answered.
    ///
    /// # Errors
    /// Says why not.
    pub fn check(&self) -> Result<(), SubmitError> {
        let Self { decoder, prompt, params, .. } = self;
        let (tokens, context, vocab) = (prompt.len(), decoder.config.context, decoder.config.vocab);
        let choice = &params.choice;
        if tokens == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        if tokens >= context {
            return Err(SubmitError::PromptTooLong { tokens, context });
        }
        if let Some(&id) =
            prompt.iter().chain(choice.bias.iter().map(|(id, _)| id)).find(|id| **id as usize >= vocab)
        {
            return Err(SubmitError::UnknownToken(id));
        }
        if !(choice.temperature.is_finite() && choice.temperature >= 0.0) {
            return Err(SubmitError::Temperature(choice.temperature));
        }
        if !(choice.top_p > 0.0 && choice.top_p <= 1.0) {
            return Err(SubmitError::TopP(choice.top_p));
        }
        if let Some(penalty) = [choice.presence_penalty, choice.frequency_penalty]
            .into_iter()
            .find(|penalty| !penalty.is_finite())
        {
            return Err(SubmitError::Penalty(penalty));
        }
        match choice.bias.iter().find(|(_, bias)| !bias.is_finite()) {
            Some((id, _)) => Err(SubmitError::Bias(*id)),
            None => Ok(()),
        }
    }
}

/// Names a request for as long as its batcher lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn, a stop string was complete, or what the constraint asks for was.
    Stop,
    /// `max_tokens` or the model's context was reached.
    Length,
    /// The constraint became more work than its limits allow.
    GaveUp,
}

/// A generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub id: u32,
    /// When the request asked for them.
    pub logprobs: Option<LogProbs>,
}

/// What one step brought one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    pub id: RequestId,
    /// New text; may be empty while a character or a possible stop string is incomplete.
    pub text: String,
    /// The tokens whose text has come out by now, each reported once. Those that only belong to the stop string are not
    /// reported, nor is the one that ended the answer.
    pub tokens: Vec<Token>,
    /// Tokens generated so far, without the one that ended the answer.
    pub completion_tokens: usize,
    /// Tokens of the prompt that did not have to go through the model, because they had before.
    pub cached_tokens: usize,
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
    #[error("penalty {0} is not a number")]
    Penalty(f32),
    #[error("the bias of token {0} is not a number")]
    Bias(u32),
}

/// Runs requests together. See the module's description.
pub struct Batcher {
    tokenizer: Tokenizer,
    slots: usize,
    next_id: u64,
    queue: VecDeque<(RequestId, Request)>,
    /// In the order in which they came.
    active: Vec<Answer>,
    prefixes: PrefixCache,
}

impl Batcher {
    /// At most `slots` requests (at least 1) are in the model at once, the others wait in the order they came.
    pub fn new(tokenizer: Tokenizer, slots: usize) -> Self {
        Self {
            tokenizer,
            slots: slots.max(1),
            next_id: 0,
            queue: VecDeque::new(),
            active: Vec::new(),
            prefixes: PrefixCache::new(0),
        }
    }

    /// Keeps up to `bytes` of keys and values for later requests that start like earlier ones.
    pub fn keeping(self, bytes: usize) -> Self {
        Self { prefixes: PrefixCache::new(bytes), ..self }
    }

    /// Queues a request.
    ///
    /// # Errors
    /// When it can never be answered.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, SubmitError> {
        request.check()?;
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

    /// One round: every answer in progress grows by one token, prompts advance by a shared budget. Reports the requests
    /// that got a token or ended, in the order they were submitted.
    pub fn step(&mut self) -> Vec<Progress> {
        let mut progress = self.admit();
        share(&mut self.active);
        let needs: Vec<Need> = (0..self.active.len()).map(|at| need(&self.active, at)).collect();
        let takes = plan::takes(&needs);
        let tokenizer = &self.tokenizer;
        for mut group in groups(&mut self.active, &takes) {
            progress.extend(advance(tokenizer, &mut group));
        }
        self.keep_prefixes(&progress);
        // Some of those that know what others wait for end here.
        share(&mut self.active);
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
            let nothing_wanted = request.params.max_tokens == 0;
            let mut answer = Answer::new(id, request);
            if nothing_wanted {
                ended.push(answer.progress(Some(Finish::Length)));
                continue;
            }
            let most = answer.shareable();
            answer.take_over(self.prefixes.start(&answer.source, answer.sequence.ids(), most));
            self.active.push(answer);
        }
        ended
    }

    /// Keeps prompts when they have been read, and conversations when their answers are complete.
    fn keep_prefixes(&mut self, progress: &[Progress]) {
        for progress in progress.iter().filter(|p| p.completion_tokens == 1 || p.finished.is_some()) {
            if let Some(answer) = self.active.iter().find(|answer| answer.id == progress.id) {
                self.prefixes.keep(&answer.source, &answer.sequence);
            }
        }
    }
}

/// Gives every prompt that is being read what others in flight have computed of it.
fn share(active: &mut [Answer]) {
    for at in 0..active.len() {
        let known = |(other, tokens): (usize, usize)| (other, tokens.min(active[other].sequence.cached()));
        let best = shared_with_others(active, at).map(known).max_by_key(|(_, tokens)| *tokens);
        let own = &active[at].sequence;
        if let Some((other, tokens)) = best.filter(|(_, tokens)| *tokens > own.cached()) {
            let sequence = prefix::resume(&active[other].sequence, tokens, own.ids());
            active[at].take_over(sequence);
        }
    }
}

/// What request `at` wants of the next pass.
fn need(active: &[Answer], at: usize) -> Need {
    let pending = active[at].sequence.pending();
    if !active[at].is_reading() {
        return Need::Write(pending);
    }
    // Whoever came first reads for both.
    let first = shared_with_others(active, at).any(|(other, _)| other < at && active[other].is_reading());
    if first { Need::Wait } else { Need::Read(pending) }
}

/// The other requests of the same source that have more of this one's prompt in their own than it has read: their place
/// and how many tokens that is.
fn shared_with_others(active: &[Answer], at: usize) -> impl Iterator<Item = (usize, usize)> {
    let own = &active[at];
    let others = active.iter().enumerate().filter(move |(other, _)| own.is_reading() && *other != at);
    others.filter(|(_, other)| other.source == own.source).filter_map(|(place, other)| {
        let tokens = prefix::common(own.sequence.ids(), other.sequence.ids()).min(own.shareable());
        (tokens >= own.sequence.cached() + WORTH_WAITING).then_some((place, tokens))
    })
}

/// The requests on the same decoder, for each decoder in flight, with the tokens that they may take.
fn groups<'a>(active: &'a mut [Answer], takes: &[usize]) -> Vec<Vec<(&'a mut Answer, usize)>> {
    let mut groups: Vec<Vec<(&mut Answer, usize)>> = Vec::new();
    for (answer, &take) in active.iter_mut().zip(takes).filter(|(_, take)| **take > 0) {
        let same = |group: &&mut Vec<(&mut Answer, usize)>| {
            Arc::ptr_eq(&group[0].0.source.decoder, &answer.source.decoder)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push((answer, take)),
            None => groups.push(vec![(answer, take)]),
        }
    }
    groups
}

/// One forward pass over requests that share their decoder.
fn advance(tokenizer: &Tokenizer, group: &mut [(&mut Answer, usize)]) -> Vec<Progress> {
    let decoder = group[0].0.source.decoder.clone();
    let chunks = group.iter_mut().map(|(answer, take)| answer.chunk(*take));
    let mut chunks: Vec<Chunk> = chunks.collect();
    let logits = infer::forward(&decoder, &mut chunks);
    let take = |index: usize, (answer, _): &mut (&mut Answer, usize)| {
        Some(answer.take(tokenizer, logits.row(index)?))
    };
    decoder.map(group, take).into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
