//! `/files`: uploads are streamed to disk; a training file that is not JSON lines is refused at once.

use std::{io::BufRead, path::Path, sync::Arc};

use axum::{
    Json,
    body::Body as HttpBody,
    extract::{FromRequest, Multipart, Path as PathParam, Request, State, multipart::Field},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use hone::{
    model::wire::{Deleted, File, PURPOSES, Page},
    store::StoreError,
};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use super::{extract::Pairs, page};
use crate::{app::App, error::ApiError, ids};

/// Most bytes of a file.
const FILE_LIMIT: u64 = 512 << 20;
/// Most bytes of a part that is not the file.
const SHORT_LIMIT: usize = 1024;
/// Most bytes of one line of a training file.
const LINE_LIMIT: u64 = 32 << 20;

/// What a multipart upload consists of; its parts come in any order.
#[derive(Default)]
struct Upload {
    content: Option<(NamedTempFile, String, u64)>,
    purpose: Option<String>,
    expires_after: Option<i64>,
}

pub async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<File>, ApiError> {
    let key = idempotency_key(&headers);
    let multipart = Multipart::from_request(request, &()).await;
    let multipart =
        multipart.map_err(|_| ApiError::unsupported_media("send the file as `multipart/form-data`"))?;
    let upload = receive(&app, multipart).await?;
    if let Some(made) = key.as_deref().map(|key| app.files.made_by(key)).transpose()?.flatten() {
        return Ok(Json(made));
    }
    let purpose = upload.purpose.ok_or_else(|| missing("purpose"))?;
    if !PURPOSES.contains(&purpose.as_str()) {
        let known = PURPOSES.join("`, `");
        return Err(ApiError::bad_param(
            "purpose",
            format!("`{purpose}` is not a purpose: use one of `{known}`"),
        ));
    }
    let (content, name, bytes) = upload.content.ok_or_else(|| missing("file"))?;
    let content =
        if matches!(purpose.as_str(), "fine-tune" | "batch") { checked(content).await? } else { content };
    let created = ids::now();
    let mut file = File::new(ids::random("file-"), &name, &purpose, bytes, created);
    file.expires_at = upload.expires_after.map(|seconds| created + seconds);
    app.files.add(content, &file, key)?;
    Ok(Json(file))
}

/// The key under which a repeated request is known.
pub fn idempotency_key(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("idempotency-key")?.to_str().ok()?.to_owned())
}

fn missing(field: &str) -> ApiError {
    ApiError::bad(format!("`{field}` is missing")).param(field).code("missing_required_parameter")
}

async fn receive(app: &App, mut multipart: Multipart) -> Result<Upload, ApiError> {
    let broken =
        |e: axum::extract::multipart::MultipartError| ApiError::bad(format!("the upload breaks off: {e}"));
    let mut upload = Upload::default();
    while let Some(field) = multipart.next_field().await.map_err(broken)? {
        match field.name().unwrap_or_default() {
            "file" => upload.content = Some(receive_file(app, field).await?),
            "purpose" => upload.purpose = Some(short(field, "purpose").await?),
            "expires_after[anchor]" => anchor(&short(field, "expires_after").await?)?,
            "expires_after[seconds]" => {
                upload.expires_after = Some(seconds(&short(field, "expires_after").await?)?);
            }
            other => tracing::debug!(field = other, "ignoring an unknown part of an upload"),
        }
    }
    Ok(upload)
}

/// A part that holds a word, not a file.
async fn short(mut field: Field<'_>, param: &str) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) =
        field.chunk().await.map_err(|e| ApiError::bad(format!("the upload breaks off: {e}")))?
    {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > SHORT_LIMIT {
            return Err(ApiError::bad_param(param, format!("`{param}` is longer than {SHORT_LIMIT} bytes")));
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::bad_param(param, format!("`{param}` is not UTF-8")))
}

fn anchor(text: &str) -> Result<(), ApiError> {
    match text {
        "created_at" => Ok(()),
        _ => Err(ApiError::bad_param("expires_after", "`expires_after[anchor]` must be `created_at`")),
    }
}

fn seconds(text: &str) -> Result<i64, ApiError> {
    let wrong =
        || ApiError::bad_param("expires_after", "`expires_after[seconds]` must be from 3600 to 2592000");
    text.parse().ok().filter(|seconds| (3600..=2_592_000).contains(seconds)).ok_or_else(wrong)
}

/// Streams a part to disk: content, base name, size.
async fn receive_file(app: &App, mut field: Field<'_>) -> Result<(NamedTempFile, String, u64), ApiError> {
    let name = base_name(field.file_name().unwrap_or("upload"));
    let file = app.files.incoming()?;
    let failed = |e| ApiError::from(StoreError::new("write", file.path(), e));
    let mut target = tokio::fs::File::from_std(file.reopen().map_err(failed)?);
    let mut bytes = 0;
    while let Some(chunk) =
        field.chunk().await.map_err(|e| ApiError::bad(format!("the upload breaks off: {e}")))?
    {
        bytes += chunk.len() as u64;
        if bytes > FILE_LIMIT {
            return Err(ApiError::too_large("the file is larger than 512 MB").param("file"));
        }
        target.write_all(&chunk).await.map_err(failed)?;
    }
    target.flush().await.map_err(failed)?;
    Ok((file, name, bytes))
}

/// Clients send whole paths, of either kind.
fn base_name(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let base: String = base.chars().filter(|c| !c.is_control()).take(255).collect();
    if base.is_empty() { "upload".into() } else { base }
}

async fn checked(content: NamedTempFile) -> Result<NamedTempFile, ApiError> {
    let path = content.path().to_owned();
    let fault =
        tokio::task::spawn_blocking(move || first_bad_line(&path)).await.map_err(ApiError::internal)?;
    match fault.map_err(ApiError::internal)? {
        None => Ok(content),
        Some(fault) => Err(ApiError::bad(fault).param("file").code("invalid_file_format")),
    }
}

/// What keeps a file from being JSON lines, if anything does. Reads a line at a time.
fn first_bad_line(path: &Path) -> std::io::Result<Option<String>> {
    let mut reader = std::io::BufReader::new(std::fs::File::open(path)?);
    let (mut line, mut number, mut objects) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        let read = std::io::Read::take(&mut reader, LINE_LIMIT).read_until(b'\n', &mut line)?;
        if read == 0 {
            let empty = "the file is empty: it needs one JSON object per line";
            return Ok((objects == 0).then(|| empty.into()));
        }
        number += 1;
        if read as u64 == LINE_LIMIT {
            return Ok(Some(format!("line {number} is longer than 32 MB")));
        }
        let text = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line).trim_ascii();
        if text.is_empty() {
            continue;
        }
        if let Err(why) = check_object(text) {
            return Ok(Some(format!(
                "line {number} is not a JSON object ({why}); it starts with `{}`",
                start(text)
            )));
        }
        objects += 1;
    }
}

fn check_object(text: &[u8]) -> Result<(), String> {
    if !text.starts_with(b"{") {
        return Err("it does not start with a brace".into());
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(text).map(drop).map_err(|e| e.to_string())
}

fn start(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(40).collect()
}

pub async fn list(State(app): State<Arc<App>>, query: Pairs) -> Result<Json<Page<File>>, ApiError> {
    let mut files = app.files.list()?;
    if let Some(purpose) = query.get("purpose") {
        files.retain(|file| file.purpose == purpose);
    }
    page::cut(page::ordered(files, &query)?, &query, 10_000, 10_000).map(Json)
}

/// A file, or the 404 that says there is none.
pub fn find(app: &App, id: &str) -> Result<File, ApiError> {
    app.files.get(id)?.ok_or_else(|| ApiError::not_found(format!("there is no file `{id}`")).param("id"))
}

pub async fn get(
    State(app): State<Arc<App>>,
    PathParam(id): PathParam<String>,
) -> Result<Json<File>, ApiError> {
    find(&app, &id).map(Json)
}

pub async fn delete(
    State(app): State<Arc<App>>,
    PathParam(id): PathParam<String>,
) -> Result<Json<Deleted>, ApiError> {
    find(&app, &id)?;
    if let Some(job) = app.jobs.list()?.iter().find(|record| uses(&record.job, &id)) {
        return Err(ApiError::bad(format!(
            "file `{id}` is in use by job `{}`: cancel that first",
            job.job.id
        )));
    }
    app.files.delete(&id)?;
    Ok(Json(Deleted { id, object: "file".into(), deleted: true }))
}

fn uses(job: &hone::model::wire::Job, file: &str) -> bool {
    !job.status.is_terminal() && (job.training_file == file || job.validation_file.as_deref() == Some(file))
}

pub async fn content(
    State(app): State<Arc<App>>,
    PathParam(id): PathParam<String>,
) -> Result<Response, ApiError> {
    let file = find(&app, &id)?;
    let source = tokio::fs::File::open(app.files.content(&id)).await.map_err(ApiError::internal)?;
    let headers =
        [("content-type", "application/octet-stream".to_owned()), ("content-length", file.bytes.to_string())];
    Ok((headers, HttpBody::from_stream(ReaderStream::new(source))).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_base_name_is_kept() {
        for (name, expected) in [
            ("train.jsonl", "train.jsonl"),
            ("/home/me/train.jsonl", "train.jsonl"),
            ("..\\..\\train.jsonl", "train.jsonl"),
            ("../..", ".."),
            ("a/", "upload"),
            ("", "upload"),
            ("a\nb", "ab"),
        ] {
            assert_eq!(base_name(name), expected);
        }
    }

    fn check(content: &[u8], expected: Option<&str>) {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let fault = first_bad_line(file.path()).unwrap();
        match expected {
            None => assert_eq!(fault, None),
            Some(words) => {
                let fault = fault.unwrap_or_default();
                assert!(fault.contains(words), "{fault}");
            }
        }
    }

    #[test]
    fn files_that_are_not_json_lines_are_named_by_line() {
        check(b"{\"a\":1}\n{}\n", None);
        check("\u{feff}{}\r\n\r\n{}".as_bytes(), None);
        check(b"", Some("the file is empty"));
        check(b"\n\n", Some("the file is empty"));
        check(b"{}\nhello, world\n", Some("line 2"));
        check(b"{}\nhello, world\n", Some("`hello, world`"));
        check(b"{}\n{\"a\":\n", Some("line 2"));
        check(b"[1]\n", Some("line 1"));
        check(b"{} {}\n", Some("line 1"));
        check(b"\xff\xfe\n", Some("line 1"));
    }
}
