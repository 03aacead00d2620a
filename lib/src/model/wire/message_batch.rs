//! Anthropic's batches of messages: their own shape for the same thing.

use serde::Deserialize;
use serde_json::Value;

use super::{Batch, BatchLine, BatchLineError, BatchRequest, BatchResponse, BatchStatus, RequestCounts};

/// A `message_batch`. It has neither an input file nor metadata: nothing in it says who made it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct MessageBatch {
    pub id: String,
    /// `in_progress`, `canceling`, `ended`.
    pub processing_status: String,
    #[serde(default)]
    pub request_counts: MessageCounts,
    /// RFC 3339, as all times here.
    pub created_at: String,
    #[serde(default)]
    pub ended_at: Option<String>,
}

/// Their sum is the number of requests, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MessageCounts {
    pub processing: u64,
    pub succeeded: u64,
    pub errored: u64,
    pub canceled: u64,
    pub expired: u64,
}

/// One page of a list, newest first.
#[derive(Clone, Debug, Deserialize)]
pub struct MessagePage {
    pub data: Vec<MessageBatch>,
    #[serde(default)]
    pub has_more: bool,
    #[serde(default)]
    pub last_id: Option<String>,
}

/// A batch in OpenAI's words.
impl From<MessageBatch> for Batch {
    fn from(theirs: MessageBatch) -> Self {
        let unix = |time: &str| time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
        let counts = theirs.request_counts;
        let status = match theirs.processing_status.as_str() {
            "in_progress" => BatchStatus::InProgress,
            "canceling" => BatchStatus::Cancelling,
            "ended" if counts.canceled > 0 => BatchStatus::Cancelled,
            "ended" if counts.expired > 0 => BatchStatus::Expired,
            "ended" => BatchStatus::Completed,
            other => BatchStatus::Other(other.to_owned()),
        };
        let failed = counts.errored + counts.canceled + counts.expired;
        let total = counts.processing + counts.succeeded + failed;
        let over = status.is_terminal();
        Self {
            // Its results have no name but its own.
            output_file_id: over.then(|| theirs.id.clone()),
            request_counts: RequestCounts { total, completed: counts.succeeded, failed },
            completed_at: theirs.ended_at.as_deref().map(unix),
            status,
            ..Self::new(theirs.id, &BatchRequest::default(), unix(&theirs.created_at), 24 * 3600)
        }
    }
}

/// A line of the results.
#[derive(Clone, Debug, Deserialize)]
pub struct MessageLine {
    custom_id: String,
    result: MessageResult,
}

#[derive(Clone, Debug, Deserialize)]
struct MessageResult {
    /// `succeeded`, `errored`, `canceled`, `expired`.
    r#type: String,
    #[serde(default)]
    message: Value,
    #[serde(default)]
    error: Value,
}

/// Statuses that live calls have for these errors.
const STATUSES: [(&str, u16); 9] = [
    ("invalid_request_error", 400),
    ("authentication_error", 401),
    ("billing_error", 402),
    ("permission_error", 403),
    ("not_found_error", 404),
    ("request_too_large", 413),
    ("rate_limit_error", 429),
    ("timeout_error", 504),
    ("overloaded_error", 529),
];

impl From<MessageLine> for BatchLine {
    fn from(theirs: MessageLine) -> Self {
        let MessageResult { r#type: kind, message, error } = theirs.result;
        let request_id = || error["request_id"].as_str().unwrap_or_default().to_owned();
        let response = match kind.as_str() {
            "succeeded" => Some(BatchResponse { status_code: 200, request_id: String::new(), body: message }),
            "errored" => {
                let word = &error["error"]["type"];
                let known = STATUSES.iter().find(|(name, _)| word == name);
                let status_code = known.map_or(500, |(_, status)| *status);
                Some(BatchResponse { status_code, request_id: request_id(), body: error })
            }
            _ => None,
        };
        let error = response
            .is_none()
            .then(|| BatchLineError { code: format!("batch_{kind}"), message: String::new() });
        Self { id: String::new(), custom_id: theirs.custom_id, response, error }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn their_batches_are_read_in_openais_words() {
        let check = |status: &str, counts: Value, expected: BatchStatus| {
            let theirs = json!({"id": "msgbatch_1", "type": "message_batch", "processing_status": status,
                "request_counts": counts, "created_at": "2026-11-26T10:00:00Z", "ended_at": null});
            let batch = Batch::from(serde_json::from_value::<MessageBatch>(theirs).unwrap());
            assert_eq!((batch.created_at, batch.request_counts.total), (1_795_687_200, 3), "{status}");
            assert_eq!(batch.output_file_id.is_some(), batch.status.is_terminal(), "{status}");
            assert_eq!(batch.status, expected);
        };
        check("in_progress", json!({"processing": 3}), BatchStatus::InProgress);
        check("canceling", json!({"processing": 3}), BatchStatus::Cancelling);
        check("ended", json!({"succeeded": 2, "errored": 1}), BatchStatus::Completed);
        check("ended", json!({"succeeded": 2, "canceled": 1}), BatchStatus::Cancelled);
        check("ended", json!({"succeeded": 2, "expired": 1}), BatchStatus::Expired);
        check("dreaming", json!({"processing": 3}), BatchStatus::Other("dreaming".into()));
    }

    #[test]
    fn their_lines_are_answers_refusals_or_neither() {
        let check = |result: Value, expected: Option<u16>| {
            let line = json!({"custom_id": "k", "result": result});
            let line = BatchLine::from(serde_json::from_value::<MessageLine>(line).unwrap());
            assert_eq!(line.response.map(|response| response.status_code), expected, "{result}");
        };
        let errored = |word: &str| {
            let error = json!({"type": "error", "error": {"type": word, "message": "no"}, "request_id": "r"});
            json!({"type": "errored", "error": error})
        };
        check(json!({"type": "succeeded", "message": {"type": "message"}}), Some(200));
        check(errored("invalid_request_error"), Some(400));
        check(errored("overloaded_error"), Some(529));
        check(errored("api_error"), Some(500));
        check(errored("a_new_error"), Some(500));
        check(json!({"type": "canceled"}), None);
        check(json!({"type": "expired"}), None);
    }
}
