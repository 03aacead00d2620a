//! Files that are uploaded in parts.

use serde::{Deserialize, Serialize};

use super::File;

/// Body of `POST /uploads`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRequest {
    /// Size of the whole file; what its parts must add up to.
    pub bytes: u64,
    pub filename: String,
    pub mime_type: String,
    pub purpose: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_after: Option<ExpiresAfter>,
}

/// When a file goes by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiresAfter {
    /// `created_at` is the only one there is.
    pub anchor: String,
    /// 3600 to 2592000.
    pub seconds: i64,
}

/// Body of `POST /uploads/{id}/complete`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompleteRequest {
    /// In the order in which they make up the file.
    pub part_ids: Vec<String>,
    /// Of the whole file, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<String>,
}

/// Where an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadStatus {
    Pending,
    Completed,
    Cancelled,
    Expired,
}

/// A file in the making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    pub id: String,
    pub object: String,
    pub bytes: u64,
    /// Unix seconds, as all times here.
    pub created_at: i64,
    pub filename: String,
    pub purpose: String,
    pub status: UploadStatus,
    /// After this an upload that is not complete is given up.
    pub expires_at: i64,
    /// The file, when it is complete.
    #[serde(default)]
    pub file: Option<File>,
}

impl Upload {
    /// An upload that waits for its parts for `lifetime` seconds.
    pub fn new(id: impl Into<String>, request: &UploadRequest, created_at: i64, lifetime: i64) -> Self {
        Self {
            id: id.into(),
            object: "upload".into(),
            bytes: request.bytes,
            created_at,
            filename: request.filename.clone(),
            purpose: request.purpose.clone(),
            status: UploadStatus::Pending,
            expires_at: created_at + lifetime,
            file: None,
        }
    }
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadPart {
    pub id: String,
    pub object: String,
    pub created_at: i64,
    pub upload_id: String,
}

impl UploadPart {
    pub fn new(id: impl Into<String>, upload: &str, created_at: i64) -> Self {
        Self { id: id.into(), object: "upload.part".into(), created_at, upload_id: upload.into() }
    }
}
