//! Batches: many requests in a file, answered when there is time.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ExpiresAfter;

/// Body of `POST /batches`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchRequest {
    pub input_file_id: String,
    /// `/v1/chat/completions` or another that the server takes batches for.
    pub endpoint: String,
    /// `24h`
    pub completion_window: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// For the files that the batch writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_expires_after: Option<ExpiresAfter>,
}

/// Where a batch is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchStatus {
    Validating,
    Failed,
    InProgress,
    Finalizing,
    Completed,
    Expired,
    Cancelling,
    Cancelled,
    /// A word this version does not know: the batch is not over.
    #[serde(untagged)]
    Other(String),
}

impl BatchStatus {
    /// True when the batch will not change any more.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Expired | Self::Cancelled)
    }
}

impl fmt::Display for BatchStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Validating => "validating",
            Self::Failed => "failed",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
            Self::Other(word) => word,
        })
    }
}

/// A batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    pub id: String,
    #[serde(default = "batch_object")]
    pub object: String,
    pub endpoint: String,
    /// Why it failed, when it did.
    #[serde(default)]
    pub errors: Option<BatchErrors>,
    pub input_file_id: String,
    #[serde(default)]
    pub completion_window: String,
    pub status: BatchStatus,
    /// Absent when no request succeeded.
    #[serde(default)]
    pub output_file_id: Option<String>,
    /// Absent when no request failed.
    #[serde(default)]
    pub error_file_id: Option<String>,
    /// Unix seconds, as all times here.
    pub created_at: i64,
    #[serde(default)]
    pub in_progress_at: Option<i64>,
    #[serde(default)]
    pub expires_at: Option<i64>,
    #[serde(default)]
    pub finalizing_at: Option<i64>,
    #[serde(default)]
    pub completed_at: Option<i64>,
    #[serde(default)]
    pub failed_at: Option<i64>,
    #[serde(default)]
    pub expired_at: Option<i64>,
    #[serde(default)]
    pub cancelling_at: Option<i64>,
    #[serde(default)]
    pub cancelled_at: Option<i64>,
    #[serde(default)]
    pub request_counts: RequestCounts,
    #[serde(default)]
    pub metadata: Option<BTreeMap<String, String>>,
    /// The model of all its requests, once they are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<BatchUsage>,
}

fn batch_object() -> String {
    "batch".into()
}

impl Batch {
    /// A batch whose input is about to be checked, with `window` seconds to finish.
    pub fn new(id: impl Into<String>, request: &BatchRequest, created_at: i64, window: i64) -> Self {
        Self {
            id: id.into(),
            object: batch_object(),
            endpoint: request.endpoint.clone(),
            errors: None,
            input_file_id: request.input_file_id.clone(),
            completion_window: request.completion_window.clone(),
            status: BatchStatus::Validating,
            output_file_id: None,
            error_file_id: None,
            created_at,
            in_progress_at: None,
            expires_at: Some(created_at + window),
            finalizing_at: None,
            completed_at: None,
            failed_at: None,
            expired_at: None,
            cancelling_at: None,
            cancelled_at: None,
            request_counts: RequestCounts::default(),
            metadata: request.metadata.clone(),
            model: None,
            usage: None,
        }
    }
}

/// Requests of a batch: all, answered, refused or not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestCounts {
    pub total: u64,
    pub completed: u64,
    pub failed: u64,
}

/// What is wrong with a batch's input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchErrors {
    pub object: String,
    pub data: Vec<BatchError>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchError {
    pub code: String,
    pub message: String,
    #[serde(default)]
    pub param: Option<String>,
    /// 1-based line of the input file.
    #[serde(default)]
    pub line: Option<u64>,
}

/// Tokens of all answers of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchUsage {
    pub input_tokens: u64,
    pub input_tokens_details: CachedTokens,
    pub output_tokens: u64,
    pub output_tokens_details: ReasoningTokens,
    pub total_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CachedTokens {
    pub cached_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReasoningTokens {
    pub reasoning_tokens: u64,
}

/// A line of a batch's output or error file. Lines come in no order: `custom_id` tells which request it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchLine {
    pub id: String,
    pub custom_id: String,
    /// Null when the request was not run.
    pub response: Option<BatchResponse>,
    pub error: Option<BatchLineError>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchResponse {
    pub status_code: u16,
    pub request_id: String,
    pub body: Value,
}

/// Why a request was not run: `batch_expired`, `batch_cancelled`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchLineError {
    pub code: String,
    pub message: String,
}
