//! One answer in the making: from logits to tokens, from tokens to text.

use std::collections::VecDeque;

use super::{Finish, Progress, Request, RequestId, Token, prefix::Source};
use crate::{
    constrain::Constraint,
    infer::{Chunk, Sequence},
    sample::{LogProbs, Sampler},
    stop::{Passed, StopFilter},
    tokenizer::{StreamDecoder, Tokenizer},
};

/// A request that holds a slot.
pub(super) struct Answer {
    pub id: RequestId,
    pub source: Source,
    pub sequence: Sequence,
    pub prompt_tokens: usize,
    /// Of the prompt, those taken over from others.
    pub cached_tokens: usize,
    pub generated: usize,
    sampler: Sampler,
    constraint: Option<Constraint>,
    speech: Speech,
    max_tokens: usize,
    logprobs: Option<usize>,
}

impl Answer {
    pub fn new(id: RequestId, Request { decoder, delta, prompt, params }: Request) -> Self {
        Self {
            id,
            sequence: Sequence::new(&decoder, &prompt),
            prompt_tokens: prompt.len(),
            cached_tokens: 0,
            generated: 0,
            sampler: Sampler::new(params.choice),
            constraint: params.constraint,
            speech: Speech::new(&params.stop),
            max_tokens: params.max_tokens,
            logprobs: params.logprobs,
            source: Source { decoder, delta },
        }
    }

    /// Whether the prompt is still being read.
    pub fn is_reading(&self) -> bool {
        self.generated == 0
    }

    /// Goes on with a sequence of the same tokens of which more has been computed.
    pub fn take_over(&mut self, sequence: Sequence) {
        self.cached_tokens += sequence.cached() - self.sequence.cached();
        self.sequence = sequence;
    }

    /// Its next `take` tokens, for a forward pass.
    pub fn chunk(&mut self, take: usize) -> Chunk<'_> {
        Chunk { sequence: &mut self.sequence, take, delta: self.source.delta.as_deref() }
    }

    /// How much of the prompt others may have computed: the last token's logits have to be its own.
    pub fn shareable(&self) -> usize {
        self.prompt_tokens - 1
    }

    /// Chooses the next token and says what it means for the answer.
    pub fn take(&mut self, tokenizer: &Tokenizer, logits: &[f32]) -> Progress {
        let allowed = self.constraint.as_mut().map(Constraint::allowed);
        if matches!(allowed, Some(None)) {
            return self.end(Finish::GaveUp);
        }
        let id = self.sampler.sample(logits, allowed.flatten().as_ref());
        if tokenizer.is_end(id) {
            return self.end(Finish::Stop);
        }
        let logprobs = self.logprobs.map(|top| LogProbs::new(logits, id, top));
        self.sequence.push(id);
        self.generated += 1;
        let stopped = self.speech.say(tokenizer, Token { id, logprobs });
        if stopped {
            return self.progress(Some(Finish::Stop));
        }
        if let Some(constraint) = &mut self.constraint {
            if !constraint.push(tokenizer, id) {
                return self.end(Finish::GaveUp);
            }
            if constraint.is_whole() {
                return self.end(Finish::Stop);
            }
        }
        let context = self.source.decoder.config.context;
        if self.generated >= self.max_tokens || self.sequence.ids().len() >= context {
            return self.end(Finish::Length);
        }
        self.progress(None)
    }

    /// Ends with all that is still held back; a stop string in that is the better reason.
    fn end(&mut self, finish: Finish) -> Progress {
        let stopped = self.speech.fall_silent();
        self.progress(Some(if stopped { Finish::Stop } else { finish }))
    }

    /// Progress with what has been said since the last one.
    pub fn progress(&mut self, finished: Option<Finish>) -> Progress {
        let (text, tokens) = self.speech.flush();
        Progress {
            id: self.id,
            text,
            tokens,
            completion_tokens: self.generated,
            cached_tokens: self.cached_tokens,
            finished,
        }
    }
}

/// Text in the making. Tokens come out with the text that they are part of.
struct Speech {
    decoder: StreamDecoder,
    filter: StopFilter,
    /// Bytes of text that the tokens so far make.
    decoded: usize,
    /// Bytes of it that passed the filter.
    passed: usize,
    text: String,
    /// With where their text starts and ends.
    held: VecDeque<(usize, usize, Token)>,
    tokens: Vec<Token>,
}

impl Speech {
    fn new(stop: &[String]) -> Self {
        Self {
            decoder: StreamDecoder::default(),
            filter: StopFilter::new(stop),
            decoded: 0,
            passed: 0,
            text: String::new(),
            held: VecDeque::new(),
            tokens: Vec::new(),
        }
    }

    /// Whether a stop string is complete with this token.
    fn say(&mut self, tokenizer: &Tokenizer, token: Token) -> bool {
        let start = self.decoded;
        let piece = self.decoder.push(tokenizer, token.id);
        self.decoded += piece.len();
        self.held.push_back((start, self.decoded, token));
        let passed = self.filter.push(&piece);
        self.pass(passed)
    }

    /// Lets out what is held back when no more tokens come; whether there is a stop string in it.
    fn fall_silent(&mut self) -> bool {
        let rest = self.decoder.finish();
        self.decoded += rest.len();
        let passed = self.filter.push(&rest);
        if self.pass(passed) {
            return true;
        }
        let text = self.filter.finish();
        self.pass(Passed { text, stopped: false })
    }

    fn pass(&mut self, Passed { text, stopped }: Passed) -> bool {
        self.passed += text.len();
        self.text += &text;
        // A token that begins before the stop string has its share in the text.
        let out = |&(start, end, _): &(usize, usize, Token)| {
            if stopped { start < self.passed } else { end <= self.passed }
        };
        let count = self.held.iter().take_while(|held| out(held)).count();
        self.tokens.extend(self.held.drain(..count).map(|(_, _, token)| token));
        stopped
    }

    fn flush(&mut self) -> (String, Vec<Token>) {
        (std::mem::take(&mut self.text), std::mem::take(&mut self.tokens))
    }
}
