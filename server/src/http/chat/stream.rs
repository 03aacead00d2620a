//! A chat answer as a stream of chunks.

use axum::response::Response;
use hone::model::wire::{ChatChunk, ChunkChoice};

use super::Collected;
use crate::{
    engine::{Answer, Update},
    error::ApiError,
    http::{
        logprobs::{content, likelihoods},
        sse::{self, Events},
    },
};

/// Streams the answer; one last chunk carries the usage when it is asked for.
pub fn respond(answer: Answer, mut collected: Collected, usage: bool) -> Response {
    let mut opening = Events::default();
    for index in 0..collected.choices.len() {
        say(&collected, &mut opening, ChunkChoice::opening(number(index)));
    }
    let tokenizer = answer.tokenizer.clone();
    sse::respond(answer, opening, move |update, events| match update {
        Update::Text { index, text, tokens } => {
            if collected.watched.is_some() {
                collected.choices[index].text.push_str(&text);
            }
            let held = &mut collected.choices[index].likelihoods;
            held.extend(likelihoods(&tokenizer, tokens));
            // Tokens without text, as the first parts of a character are, go out with what completes them.
            if !text.is_empty() {
                let logprobs = std::mem::take(held);
                let logprobs = collected.logprobs.then(|| content(&logprobs));
                say(&collected, events, ChunkChoice { logprobs, ..ChunkChoice::text(number(index), text) });
            }
        }
        Update::Done { index, cut, tokens, cached } => {
            collected.finish(index, cut, tokens, cached);
            end(&mut collected, events, index, usage);
        }
        Update::Failed(error) => fail(events, error),
    })
}

fn say(collected: &Collected, events: &mut Events, choice: ChunkChoice) {
    events.data(&ChatChunk::of(&collected.reply, vec![choice]));
}

fn end(collected: &mut Collected, events: &mut Events, index: usize, usage: bool) {
    let left = std::mem::take(&mut collected.choices[index].likelihoods);
    let logprobs = (!left.is_empty()).then(|| content(&left));
    let end = ChunkChoice::end(number(index), collected.choices[index].reason.unwrap_or("stop"));
    say(collected, events, ChunkChoice { logprobs, ..end });
    if collected.is_complete() {
        if usage {
            let usage = Some(collected.usage());
            events.data(&ChatChunk { usage, ..ChatChunk::of(&collected.reply, Vec::new()) });
        }
        events.done();
        events.close();
    }
}

/// The client learns why; its library raises it as an error.
fn fail(events: &mut Events, error: ApiError) {
    events.data(&error.envelope());
    events.close();
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
