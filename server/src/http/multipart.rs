//! Multipart bodies: parts come in any order; files go to disk as they come, with flat memory.

use axum::extract::{FromRequest, Multipart, Request, multipart::Field, multipart::MultipartError};
use hone::store::StoreError;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

use super::limits::is_too_slow;
use crate::error::ApiError;

/// Most bytes of a part that is not a file.
const SHORT_LIMIT: usize = 1024;
/// Most characters of a file's name.
const LONGEST_NAME: usize = 255;

/// A file that came whole.
pub struct Received {
    pub content: NamedTempFile,
    /// Base name only.
    pub name: String,
    pub bytes: u64,
    pub sha256: [u8; 32],
}

pub async fn open(request: Request) -> Result<Multipart, ApiError> {
    let multipart = Multipart::from_request(request, &()).await;
    multipart.map_err(|_| ApiError::unsupported_media("send the file as `multipart/form-data`"))
}

/// What an error of reading means for the client.
pub fn broken(error: MultipartError) -> ApiError {
    if is_too_slow(&error) {
        return ApiError::too_slow();
    }
    ApiError::bad(format!("the upload cannot be read, or breaks off: {}", error.body_text()))
}

/// A part that holds a word, not a file.
pub async fn short(mut field: Field<'_>, param: &str) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(broken)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > SHORT_LIMIT {
            return Err(ApiError::bad_param(param, format!("`{param}` is longer than {SHORT_LIMIT} bytes")));
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::bad_param(param, format!("`{param}` is not UTF-8")))
}

/// Streams a part into `content`, `limit` bytes at most.
pub async fn file(mut field: Field<'_>, content: NamedTempFile, limit: u64) -> Result<Received, ApiError> {
    let name = base_name(field.file_name().unwrap_or_default());
    let failed = |e| ApiError::from(StoreError::new("write", content.path(), e));
    let mut target = tokio::fs::File::from_std(content.reopen().map_err(failed)?);
    let (mut bytes, mut hash) = (0, Sha256::new());
    while let Some(chunk) = field.chunk().await.map_err(broken)? {
        bytes += chunk.len() as u64;
        if bytes > limit {
            let param = field.name().unwrap_or("file").to_owned();
            return Err(
                ApiError::too_large(format!("`{param}` is larger than {} MB", limit >> 20)).param(&param)
            );
        }
        hash.update(&chunk);
        target.write_all(&chunk).await.map_err(failed)?;
    }
    target.flush().await.map_err(failed)?;
    Ok(Received { content, name, bytes, sha256: hash.finalize().into() })
}

/// Clients send whole paths, of either kind. What is kept is a name that is safe as one.
pub fn base_name(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let base: String = base.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
    match base.trim() {
        "" | "." | ".." => "upload".into(),
        _ => base,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_base_name_is_kept() {
        for (name, expected) in [
            ("train.jsonl", "train.jsonl"),
            ("/home/me/train.jsonl", "train.jsonl"),
            ("..\\..\\train.jsonl", "train.jsonl"),
            ("C:\\data\\train 1.jsonl", "train 1.jsonl"),
            ("../..", "upload"),
            (".", "upload"),
            ("a/", "upload"),
            ("", "upload"),
            ("a\nb\0", "ab"),
            ("données.jsonl", "données.jsonl"),
        ] {
            assert_eq!(base_name(name), expected);
        }
    }

    proptest! {
        #[test]
        fn every_name_becomes_a_safe_one(name in any::<String>()) {
            let base = base_name(&name);
            prop_assert!(!base.is_empty() && base.chars().count() <= LONGEST_NAME);
            prop_assert!(!base.contains(['/', '\\', '\0']) && base != "." && base != "..");
        }
    }
}
