//! What chat completions and responses have in common: messages, sampling options, formats.

use hone::model::wire::Message;
use hone_engine::{
    chat::{ChatMessage, Role},
    generate::SamplingParams,
    sample::Choice,
};
use rand::RngExt;
use serde_json::{Map, Value};

use super::fields::Fields;
use crate::{engine::Format, error::ApiError};

/// Most alternatives that are reported beside a token.
pub const MOST_LOGPROBS: u32 = 20;

/// `temperature`, `top_p`, penalties and `logit_bias`; the seed is drawn.
pub fn choice(fields: &mut Fields) -> Result<Choice, ApiError> {
    let top_p = fields.number("top_p", 0.0, 1.0)?.unwrap_or(1.0) as f32;
    Ok(Choice {
        temperature: fields.number("temperature", 0.0, 2.0)?.unwrap_or(1.0) as f32,
        // Nothing but the likeliest token is what a share of nothing can only mean.
        top_p: top_p.max(f32::MIN_POSITIVE),
        seed: rand::rng().random(),
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0) as f32,
        frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0) as f32,
        bias: bias(fields)?,
    })
}

fn bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let bias = fields.take::<Map<String, Value>>("logit_bias")?.unwrap_or_default();
    let wrong = |message: String| ApiError::bad_param("logit_bias", format!("`logit_bias`: {message}"));
    let one = |(id, value): (&String, &Value)| -> Result<(u32, f32), ApiError> {
        let token = id.parse().map_err(|_| wrong(format!("`{id}` is not the id of a token")))?;
        let bias = value.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
        let bias = bias.ok_or_else(|| wrong(format!("{value} is not a number from -100 to 100")))?;
        Ok((token, bias as f32))
    };
    bias.iter().map(one).collect()
}

/// One set of options per answer; each has a seed of its own.
pub fn answers(params: &SamplingParams, n: u32) -> Vec<SamplingParams> {
    let one = |index: u32| {
        let seed = params.choice.seed.wrapping_add(u64::from(index));
        SamplingParams { choice: Choice { seed, ..params.choice.clone() }, ..params.clone() }
    };
    (0..n).map(one).collect()
}

/// A format by its type; `schema` says where that one's schema is.
pub fn format(param: &str, format: &Value, schema: impl Fn(&Value) -> &Value) -> Result<Format, ApiError> {
    match format["type"].as_str() {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::Object),
        Some("json_schema") if schema(format).is_object() => Ok(Format::Schema(schema(format).clone())),
        Some("json_schema") => {
            Err(ApiError::bad(format!("`{param}` of type `json_schema` needs a `schema`, a JSON object"))
                .param(param)
                .code("missing_required_parameter"))
        }
        _ => {
            let message = format!("`{param}.type` must be `text`, `json_object` or `json_schema`");
            Err(ApiError::bad_param(param, message))
        }
    }
}

/// Message number `index` of the conversation `param`, as the engine takes it.
pub fn message(param: &str, index: usize, value: Value) -> Result<ChatMessage, ApiError> {
    let wrong = |message: String| ApiError::bad_param(param, format!("`{param}[{index}]`: {message}"));
    for calls in ["tool_calls", "function_call"] {
        if !value[calls].is_null() && value[calls] != Value::Array(Vec::new()) {
            return Err(wrong(format!(
                "`{calls}` is not supported by this server: its models cannot call tools"
            )));
        }
    }
    let is_silent = value["content"].is_null();
    let message: Message = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
    let role = role(&message.role).ok_or_else(|| {
        wrong(format!("the role `{}` is not known: use system, user or assistant", message.role))
    })?;
    // An assistant's may have been a call of a tool, or a refusal.
    if is_silent && !matches!(message.role.as_str(), "assistant" | "function") {
        let path = format!("{param}[{index}].content");
        let message = format!("`{path}` is missing: a message of the role `{}` has a text", message.role);
        return Err(ApiError::bad(message).param(&path).code("missing_required_parameter"));
    }
    Ok(ChatMessage::new(role, message.content))
}

fn role(name: &str) -> Option<Role> {
    Some(match name {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" | "function" => Role::Tool,
        _ => return None,
    })
}
