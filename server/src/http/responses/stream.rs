//! A response as a stream of named, numbered events.

use std::sync::Arc;

use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Draft, OutputText};
use crate::{
    app::App,
    engine::{Answer, Update},
    error::ApiError,
    http::{
        logprobs::{TokenLikelihood, likelihoods},
        sse::{self, Events},
    },
};

pub fn respond(app: Arc<App>, answer: Answer, draft: Draft) -> Response {
    let mut story = Story { draft, number: 0, told: 0 };
    let mut opening = Events::default();
    story.open(&mut opening);
    let tokenizer = answer.tokenizer.clone();
    sse::respond(answer, opening, move |update, events| match update {
        Update::Text { text, tokens, .. } => {
            story.draft.likelihoods.extend(likelihoods(&tokenizer, tokens));
            // Tokens without text, as the first parts of a character are, go out with what completes them.
            if !text.is_empty() {
                story.say(events, &text);
            }
        }
        Update::Done { cut, tokens, cached, .. } => {
            let likelihoods = story.draft.likelihoods.clone();
            let message = story.draft.finish(&app, cut, tokens, cached);
            story.end(events, &likelihoods, &message);
        }
        Update::Failed(error) => story.fail(events, error),
    })
}

/// A response that is being told.
struct Story {
    draft: Draft,
    /// Of the next event.
    number: u64,
    /// Log probabilities that have gone out.
    told: usize,
}

impl Story {
    /// An event of this kind about the one message there is.
    fn event(&mut self, events: &mut Events, kind: &str, about: Value) {
        let mut event = json!({"type": kind, "sequence_number": self.number});
        if let (Value::Object(event), Value::Object(about)) = (&mut event, about) {
            event.extend(about);
        }
        self.number += 1;
        events.named(kind, &event);
    }

    fn about_response(&mut self, events: &mut Events, kind: &str) {
        let response = json!({"response": self.draft.response});
        self.event(events, kind, response);
    }

    fn about_text(
        &mut self,
        events: &mut Events,
        kind: &str,
        key: &str,
        value: impl Serialize,
        logprobs: Option<&[TokenLikelihood]>,
    ) {
        let mut about =
            json!({"item_id": self.draft.message.id, "output_index": 0, "content_index": 0, key: value});
        if let Some(logprobs) = logprobs {
            about["logprobs"] = json!(logprobs);
        }
        self.event(events, kind, about);
    }

    fn open(&mut self, events: &mut Events) {
        self.about_response(events, "response.created");
        self.about_response(events, "response.in_progress");
        let item = json!({"output_index": 0, "item": self.draft.message});
        self.event(events, "response.output_item.added", item);
        let part = OutputText::new(String::new(), Vec::new());
        self.about_text(events, "response.content_part.added", "part", part, None);
    }

    fn say(&mut self, events: &mut Events, text: &str) {
        self.draft.text.push_str(text);
        let new = self.draft.likelihoods[self.told..].to_vec();
        self.told = self.draft.likelihoods.len();
        self.about_text(events, "response.output_text.delta", "delta", text, Some(&new));
    }

    fn end(&mut self, events: &mut Events, likelihoods: &[TokenLikelihood], message: &super::OutputMessage) {
        let text = self.draft.text.clone();
        self.about_text(events, "response.output_text.done", "text", text, Some(likelihoods));
        self.about_text(events, "response.content_part.done", "part", message.content.first(), None);
        self.event(events, "response.output_item.done", json!({"output_index": 0, "item": message}));
        let kind = match self.draft.response.status {
            super::object::Status::Incomplete => "response.incomplete",
            _ => "response.completed",
        };
        self.about_response(events, kind);
        events.close();
    }

    fn fail(&mut self, events: &mut Events, error: ApiError) {
        self.draft.response.fail(error);
        self.about_response(events, "response.failed");
        events.close();
    }
}
