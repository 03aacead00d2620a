//! `/chat/completions`, whole or streamed.

mod stream;

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use hone::model::wire::{ChatChoice, ChatReply, PromptDetails, StreamOptions, Usage};
use hone_engine::{chat::ChatMessage, generate::SamplingParams, sample::Choice};
use serde_json::{Map, Value};

use super::{
    extract::Body,
    fields::Fields,
    logprobs::{TokenLikelihood, content, likelihoods},
    sampling::{self, MOST_LOGPROBS},
    watched::{Watched, sided},
};
use crate::{
    app::App,
    engine::{Answer, Ask, Format, Update},
    error::ApiError,
    ids,
};

/// Most answers per request.
const MOST_ANSWERS: u32 = 16;
/// Most texts that may end an answer.
const MOST_STOPS: usize = 4;

pub async fn create(
    State(app): State<Arc<App>>,
    Body(body): Body<Map<String, Value>>,
) -> Result<Response, ApiError> {
    let request = ChatRequest::read(body)?;
    let (stream, usage) = (request.stream, request.stream_usage);
    let (answer, collected) = begin(&app, request).await?;
    let share = collected.watched.as_ref().map(Watched::share);
    let response = match stream {
        true => stream::respond(answer, collected, usage),
        false => Json(whole(answer, collected).await?).into_response(),
    };
    Ok(sided(response, share))
}

/// A checked request.
#[derive(Debug)]
struct ChatRequest {
    model: String,
    messages: Vec<ChatMessage>,
    n: u32,
    params: SamplingParams,
    format: Format,
    stream: bool,
    stream_usage: bool,
    /// Whoever asks, by the name that the application gave them.
    caller: Option<String>,
}

impl ChatRequest {
    fn read(body: Map<String, Value>) -> Result<Self, ApiError> {
        let mut fields = Fields::new(body);
        let request = Self {
            caller: fields.caller()?,
            model: fields.need("model")?,
            messages: messages(&mut fields)?,
            n: fields.count("n", 1, MOST_ANSWERS)?.unwrap_or(1),
            params: params(&mut fields)?,
            format: match fields.take::<Value>("response_format")? {
                Some(format) => {
                    sampling::format("response_format", &format, |format| &format["json_schema"]["schema"])?
                }
                None => Format::Text,
            },
            stream: fields.take("stream")?.unwrap_or(false),
            stream_usage: fields
                .take::<StreamOptions>("stream_options")?
                .is_some_and(|options| options.include_usage == Some(true)),
        };
        fields.refuse_tools()?;
        fields.refuse("modalities", |value| *value == Value::from(vec!["text"]))?;
        fields.refuse("audio", |_| false)?;
        fields.ignore_the_rest();
        Ok(request)
    }
}

fn messages(fields: &mut Fields) -> Result<Vec<ChatMessage>, ApiError> {
    let messages: Vec<Value> = fields.need("messages")?;
    if messages.is_empty() {
        return Err(ApiError::bad_param("messages", "`messages` must hold at least one message"));
    }
    let messages = messages.into_iter().enumerate();
    messages.map(|(index, value)| sampling::message("messages", index, value)).collect()
}

fn params(fields: &mut Fields) -> Result<SamplingParams, ApiError> {
    let drawn = sampling::choice(fields)?;
    let seed = fields.take::<i64>("seed")?.map_or(drawn.seed, i64::cast_unsigned);
    // The older name is still the only one that many clients know.
    let limits =
        [fields.count("max_completion_tokens", 1, u32::MAX)?, fields.count("max_tokens", 1, u32::MAX)?];
    let max_tokens = limits.into_iter().flatten().next().map_or(usize::MAX, |limit| limit as usize);
    Ok(SamplingParams {
        choice: Choice { seed, ..drawn },
        max_tokens,
        stop: stop(fields)?,
        logprobs: logprobs(fields)?,
        constraint: None,
    })
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let stops = match fields.take::<Value>("stop")? {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one],
        Some(many) => serde_json::from_value(many)
            .map_err(|_| ApiError::bad_param("stop", "`stop` is a text or a list of texts"))?,
    };
    if stops.len() > MOST_STOPS || stops.iter().any(String::is_empty) {
        return Err(ApiError::bad_param("stop", "`stop` may hold up to 4 texts, none of them empty"));
    }
    Ok(stops)
}

fn logprobs(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let wanted = fields.take::<bool>("logprobs")?.unwrap_or(false);
    match fields.count("top_logprobs", 0, MOST_LOGPROBS)? {
        Some(top) if top > 0 && !wanted => {
            Err(ApiError::bad_param("top_logprobs", "`top_logprobs` needs `logprobs` to be true"))
        }
        top => Ok(wanted.then_some(top.unwrap_or(0) as usize)),
    }
}

/// Hands the request to the engine.
async fn begin(app: &App, request: ChatRequest) -> Result<(Answer, Collected), ApiError> {
    let (model, side) = app.route(&request.model, request.caller.as_deref())?;
    let watched = Watched::of(app, side, &request.messages);
    let reply = ChatReply::new(ids::random("chatcmpl-"), ids::now(), &model.id);
    let adapters = model.chain.iter().map(|id| app.tuned.folder(id)).collect();
    let params = sampling::answers(&request.params, request.n);
    let ask = Ask { model, adapters, messages: request.messages, params, format: request.format };
    let answer = app.engine.ask(ask).await?;
    let collected = Collected {
        reply,
        prompt_tokens: answer.prompt_tokens,
        cached_tokens: 0,
        completion_tokens: 0,
        logprobs: request.params.logprobs.is_some(),
        watched,
        choices: (0..request.n).map(|_| Partial::default()).collect(),
    };
    Ok((answer, collected))
}

/// The answers as far as they have come.
struct Collected {
    reply: ChatReply,
    prompt_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
    /// Whether log probabilities were asked for.
    logprobs: bool,
    /// While a canary takes a share of the requests.
    watched: Option<Watched>,
    choices: Vec<Partial>,
}

/// One of the answers.
#[derive(Default)]
struct Partial {
    text: String,
    likelihoods: Vec<TokenLikelihood>,
    reason: Option<&'static str>,
}

impl Collected {
    fn finish(&mut self, index: usize, cut: bool, tokens: usize, cached: usize) {
        self.completion_tokens += tokens;
        // The others got the prompt from the first, as far as it was not in the cache.
        if index == 0 {
            self.cached_tokens = cached;
        }
        self.choices[index].reason = Some(if cut { "length" } else { "stop" });
        if self.is_complete()
            && let Some(watched) = self.watched.take()
        {
            watched.tell(&self.choices[0].text);
        }
    }

    fn is_complete(&self) -> bool {
        self.choices.iter().all(|choice| choice.reason.is_some())
    }

    fn usage(&self) -> Usage {
        let details = PromptDetails { cached_tokens: self.cached_tokens as u64, ..PromptDetails::default() };
        Usage {
            prompt_tokens_details: Some(details),
            ..Usage::new(self.prompt_tokens as u64, self.completion_tokens as u64)
        }
    }
}

async fn whole(mut answer: Answer, mut collected: Collected) -> Result<ChatReply, ApiError> {
    while !collected.is_complete() {
        match answer.next().await {
            Update::Text { index, text, tokens } => {
                let choice = &mut collected.choices[index];
                choice.text.push_str(&text);
                choice.likelihoods.extend(likelihoods(&answer.tokenizer, tokens));
            }
            Update::Done { index, cut, tokens, cached } => collected.finish(index, cut, tokens, cached),
            Update::Failed(error) => return Err(error),
        }
    }
    let (usage, logprobs) = (collected.usage(), collected.logprobs);
    let choice = |(partial, index): (Partial, u32)| ChatChoice {
        logprobs: logprobs.then(|| content(&partial.likelihoods)),
        ..ChatChoice::new(index, partial.text, partial.reason.unwrap_or("stop"))
    };
    let choices = collected.choices.into_iter().zip(0..).map(choice).collect();
    Ok(ChatReply { choices, usage: Some(usage), ..collected.reply })
}

#[cfg(test)]
mod tests;
