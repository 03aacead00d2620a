//! Chat: the calls that cost money.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use super::{
    Client, ModelError, Replay,
    answer::describe,
    call::{Body, Call, Got},
};
use crate::model::{
    provider::Unusable,
    wire::{ChatReply, ChatRequest},
};

/// Asked before every try of a call: whether it may cost what it may cost. It is told how many tries before this one may have
/// been billed in vain, as [`Exchange::unknown`] counts them.
pub type Admit = dyn Fn(u32) -> BoxFuture<'static, Result<(), ModelError>> + Send + Sync;

/// What came of a chat call, for whoever counts the money.
#[derive(Debug)]
pub struct Exchange {
    pub result: Result<ChatReply, ModelError>,
    /// Tries that may have been billed though no usable answer came of them: the connection broke after the request was sent,
    /// or what came was none. Refusals with a status and failed connections are not among them.
    pub unknown: u32,
}

impl Client {
    /// Asks for `n` answers (1 by default). Each has a text, or says by [`ChatReply::finish`] why not.
    ///
    /// A tuned model that the provider does not show yet is asked for again until
    /// [`Endpoint::model_patience`](super::Endpoint::model_patience) is over.
    pub async fn chat(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        self.chat_with(request, &|_| Box::pin(std::future::ready(Ok(())))).await.result
    }

    /// [`Client::chat`], where `admit` is asked before every try. Its error ends the call.
    ///
    /// A cancelled client waits for no turn and sends nothing more, but what a provider is working on will be billed: it has
    /// half a minute to come in.
    pub async fn chat_with(&self, request: &ChatRequest, admit: &Admit) -> Exchange {
        let access = &self.endpoint.access;
        let body = match access.body(request) {
            Ok(body) => body,
            Err(e) => {
                let error = ModelError::Endpoint(format!("the request cannot be written: {e}"));
                return Exchange { result: Err(error), unknown: 0 };
            }
        };
        let path = access.chat_path(&request.model);
        let call = Call { replay: Replay::Always, ..Call::post(&path, Body::Json(body)) };
        let read = |got| match got {
            Got::Reply(reply) => Ok(reply),
            Got::Bytes(bytes) => access.reply(&bytes).map_err(|why| match why {
                Unusable::Json(error) => describe(&bytes, &error),
                Unusable::Content(why) => why,
            }),
        };
        let (started, mut wait, mut unknown) = (Instant::now(), Duration::from_secs(2), 0);
        loop {
            let result = self.run(&call, Some(admit), &mut unknown, &read).await;
            match result {
                Err(e) if self.may_appear(&request.model, &e, started) => {
                    if let Err(error) = self.sleep(wait).await {
                        return Exchange { result: Err(error), unknown };
                    }
                    wait = (wait * 2).min(Duration::from_secs(30));
                }
                result => return Exchange { result, unknown },
            }
        }
    }

    fn may_appear(&self, model: &str, error: &ModelError, asked_first: Instant) -> bool {
        error.is_unknown_model()
            && model.starts_with("ft:")
            && asked_first.elapsed() < self.endpoint.model_patience
    }
}
