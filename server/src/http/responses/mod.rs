//! `/responses`: one message in answer to a conversation, whole or streamed, kept for the next turn.

mod object;
mod request;
mod store;
mod stream;

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use hone::model::wire::Deleted;
use hone_engine::chat::ChatMessage;
use serde_json::{Map, Value};

pub use self::store::Responses;
use self::{
    object::{OutputMessage, OutputText, ResponseObject, Usage},
    request::ResponseRequest,
    store::Stored,
};
use super::{
    extract::{Body, Pairs},
    logprobs::{TokenLikelihood, likelihoods},
    watched::{Watched, sided},
};
use crate::{
    app::App,
    engine::{Answer, Ask, Update},
    error::ApiError,
};

pub async fn create(
    State(app): State<Arc<App>>,
    Body(body): Body<Map<String, Value>>,
) -> Result<Response, ApiError> {
    let request = ResponseRequest::read(body)?;
    let stream = request.stream;
    let (answer, draft) = begin(&app, request).await?;
    let share = draft.watched.as_ref().map(Watched::share);
    let response = match stream {
        true => stream::respond(app, answer, draft),
        false => Json(whole(&app, answer, draft).await?).into_response(),
    };
    Ok(sided(response, share))
}

pub async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Pairs,
) -> Result<Json<ResponseObject>, ApiError> {
    if query.get("stream") == Some("true") {
        return Err(ApiError::bad_param("stream", "a response that is complete is not streamed again"));
    }
    let stored = app.responses.get(&id).ok_or_else(|| unknown(&id))?;
    Ok(Json(stored.response.clone()))
}

pub async fn delete(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    if !app.responses.forget(&id) {
        return Err(unknown(&id));
    }
    Ok(Json(Deleted { id, object: "response".into(), deleted: true }))
}

fn unknown(id: &str) -> ApiError {
    let message =
        format!("there is no response `{id}`: this server keeps the latest ones in memory, until it stops");
    ApiError::not_found(message)
}

/// A response in the making.
struct Draft {
    response: ResponseObject,
    message: OutputMessage,
    /// What came before the answer, without instructions.
    conversation: Vec<ChatMessage>,
    store: bool,
    prompt_tokens: usize,
    text: String,
    likelihoods: Vec<TokenLikelihood>,
    /// While a canary takes a share of the requests.
    watched: Option<Watched>,
}

/// Hands the request to the engine.
async fn begin(app: &App, request: ResponseRequest) -> Result<(Answer, Draft), ApiError> {
    let mut conversation = match &request.previous {
        None => Vec::new(),
        Some(id) => {
            let stored = app.responses.get(id);
            let stored = stored.ok_or_else(|| {
                unknown(id).param("previous_response_id").code("previous_response_not_found")
            })?;
            stored.conversation.clone()
        }
    };
    conversation.extend(request.input.iter().cloned());
    let instructions = request.instructions.as_ref().map(ChatMessage::system);
    let messages: Vec<ChatMessage> = instructions.into_iter().chain(conversation.iter().cloned()).collect();
    let caller = request.safety_identifier.as_deref().or(request.user.as_deref());
    let (model, side) = app.route(&request.model, caller)?;
    let watched = Watched::of(app, side, &messages);
    let response = ResponseObject::opening(&request, &model.id);
    let adapters = model.chain.iter().map(|id| app.tuned.folder(id)).collect();
    let ask = Ask { model, adapters, messages, params: vec![request.params], format: request.format };
    let answer = app.engine.ask(ask).await.map_err(renamed)?;
    let draft = Draft {
        response,
        message: OutputMessage::opening(),
        conversation,
        store: request.store,
        prompt_tokens: answer.prompt_tokens,
        text: String::new(),
        likelihoods: Vec::new(),
        watched,
    };
    Ok((answer, draft))
}

/// What the engine calls by the names of chat completions.
fn renamed(error: ApiError) -> ApiError {
    error.rename("messages", "input").rename("response_format", "text.format")
}

impl Draft {
    /// The response is complete: its message, as it is in there.
    fn finish(&mut self, app: &App, cut: bool, tokens: usize, cached: usize) -> OutputMessage {
        let usage = Usage { input: self.prompt_tokens, cached, output: tokens };
        let mut message = self.message.clone();
        message.content.push(OutputText::new(self.text.clone(), std::mem::take(&mut self.likelihoods)));
        let message = self.response.complete(message, cut, usage);
        if let Some(watched) = self.watched.take() {
            watched.tell(&self.text);
        }
        if self.store {
            let mut conversation = std::mem::take(&mut self.conversation);
            conversation.push(ChatMessage::assistant(&self.text));
            app.responses.keep(Stored { response: self.response.clone(), conversation });
        }
        message
    }
}

async fn whole(app: &App, mut answer: Answer, mut draft: Draft) -> Result<ResponseObject, ApiError> {
    loop {
        match answer.next().await {
            Update::Text { text, tokens, .. } => {
                draft.text.push_str(&text);
                draft.likelihoods.extend(likelihoods(&answer.tokenizer, tokens));
            }
            Update::Done { cut, tokens, cached, .. } => {
                draft.finish(app, cut, tokens, cached);
                return Ok(draft.response);
            }
            Update::Failed(error) => return Err(renamed(error)),
        }
    }
}
