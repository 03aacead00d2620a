//! Graders: a formula that turns a model's answer into a number.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Body of `POST /fine_tuning/alpha/graders/run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraderRunRequest {
    pub grader: Value,
    /// What the model said: `{{sample.output_text}}` of the grader's templates.
    pub model_sample: String,
    /// The row that it was asked with: `{{item.KEY}}` of the grader's templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<Map<String, Value>>,
}

/// Body of `POST /fine_tuning/alpha/graders/validate`, and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraderValidation {
    pub grader: Value,
}

/// A grader's verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraderRun {
    pub reward: f64,
    pub metadata: GraderMetadata,
    /// By the name of the grader within a `multi`.
    pub sub_rewards: BTreeMap<String, f64>,
    pub model_grader_token_usage_per_model: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraderMetadata {
    pub name: String,
    pub r#type: String,
    pub errors: GraderErrors,
    /// Seconds.
    pub execution_time: f64,
    pub scores: BTreeMap<String, f64>,
    pub token_usage: Option<u64>,
    pub sampled_model_name: Option<String>,
}

/// Everything that can go wrong, each said by a key of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraderErrors {
    pub formula_parse_error: bool,
    pub sample_parse_error: bool,
    pub truncated_observation_error: bool,
    pub unresponsive_reward_error: bool,
    pub invalid_variable_error: bool,
    pub other_error: bool,
    pub python_grader_server_error: bool,
    pub python_grader_server_error_type: Option<String>,
    pub python_grader_runtime_error: bool,
    pub python_grader_runtime_error_details: Option<String>,
    pub model_grader_server_error: bool,
    pub model_grader_refusal_error: bool,
    pub model_grader_parse_error: bool,
    pub model_grader_server_error_details: Option<String>,
}
