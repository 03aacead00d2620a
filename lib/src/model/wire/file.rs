//! Uploaded files.

use serde::{Deserialize, Serialize};

/// What a file may be uploaded for.
pub const PURPOSES: [&str; 6] = ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"];

/// An uploaded file, or one that a job wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub id: String,
    #[serde(default = "file_object")]
    pub object: String,
    #[serde(default)]
    pub bytes: u64,
    /// Unix seconds.
    #[serde(default)]
    pub created_at: i64,
    #[serde(default)]
    pub expires_at: Option<i64>,
    #[serde(default)]
    pub filename: String,
    #[serde(default)]
    pub purpose: String,
    /// `uploaded`, `processed` or `error`.
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub status_details: Option<String>,
}

fn file_object() -> String {
    "file".into()
}

impl File {
    /// A file that is ready to use.
    pub fn new(id: impl Into<String>, filename: &str, purpose: &str, bytes: u64, created_at: i64) -> Self {
        Self {
            id: id.into(),
            object: file_object(),
            bytes,
            created_at,
            expires_at: None,
            filename: filename.into(),
            purpose: purpose.into(),
            status: "processed".into(),
            status_details: None,
        }
    }
}
