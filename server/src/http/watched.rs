//! Answers of the alias while a canary takes a share of its requests: they say whose they are, and are judged afterwards.

use std::sync::Arc;

use axum::{http::HeaderValue, response::Response};
use hone::registry::Share;
use hone_engine::chat::{ChatMessage, Role};

use crate::{
    app::{App, Sided},
    config::{self, Answered},
};

/// An answer that is judged when it is complete.
pub(super) struct Watched {
    side: Sided,
    asked: String,
    answered: Answered,
}

impl Watched {
    /// None without a canary.
    pub fn of(app: &App, side: Option<Sided>, messages: &[ChatMessage]) -> Option<Self> {
        let asked = messages.iter().rev().find(|message| message.role == Role::User);
        let asked = asked.map(|message| message.content.clone()).unwrap_or_default();
        side.map(|side| Self { side, asked, answered: Arc::clone(&app.config.answered) })
    }

    pub fn share(&self) -> Share {
        self.side.share
    }

    pub fn tell(self, text: &str) {
        let Sided { share, since } = self.side;
        (self.answered)(config::Answer { since, share, asked: self.asked, text: text.to_owned() });
    }
}

/// The response, which says who answered.
pub(super) fn sided(mut response: Response, share: Option<Share>) -> Response {
    if let Some(share) = share {
        response.headers_mut().insert("x-hone-arm", HeaderValue::from_static(share.as_str()));
    }
    response
}
