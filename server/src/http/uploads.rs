//! `/uploads`: files in parts, which may come side by side; whole only when all bytes are there.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    sync::Arc,
};

use axum::{
    Json,
    extract::{Path as PathParam, Request, State},
    response::Response,
};
use hone::{
    model::wire::{self, CompleteRequest, Upload, UploadPart, UploadRequest, UploadStatus},
    store::StoreError,
};
use md5::{Digest, Md5};
use tempfile::NamedTempFile;

use super::{
    extract::{Body, blocking},
    files,
    idempotency::{self, NewId},
    multipart::{self, Received, base_name},
};
use crate::{app::App, disk::UploadRecord, error::ApiError, ids};

/// Most bytes of a file in parts, and of one part.
const UPLOAD_LIMIT: u64 = 8 << 30;
const PART_LIMIT: u64 = 64 << 20;
/// Most parts that have come; at 64 MB a part, 128 make up the largest file.
const MOST_PARTS: usize = 10_000;
/// Bytes that are copied at a time.
const CHUNK: usize = 256 << 10;
/// Seconds that an upload waits for its parts.
const LIFETIME: i64 = 3600;

pub async fn create(
    State(app): State<Arc<App>>,
    id: NewId,
    Body(request): Body<UploadRequest>,
) -> Result<Json<Upload>, ApiError> {
    files::check_purpose(&request.purpose)?;
    let limit = if request.purpose == "batch" { files::BATCH_LIMIT } else { UPLOAD_LIMIT };
    if request.bytes == 0 || request.bytes > limit {
        let message = format!("`bytes` must be from 1 to {limit} for the purpose `{}`", request.purpose);
        return Err(ApiError::bad_param("bytes", message));
    }
    let expires_after =
        request.expires_after.as_ref().map(|after| files::lifetime(after, "expires_after")).transpose()?;
    let id = id.with("upload_");
    if let Some(made) = app.uploads.get(&id)? {
        return Ok(Json(made.upload));
    }
    let request = UploadRequest { filename: base_name(&request.filename), ..request };
    let upload = Upload::new(id, &request, ids::now(), LIFETIME);
    app.uploads.write(&UploadRecord { upload: upload.clone(), expires_after })?;
    Ok(Json(upload))
}

/// An upload, or the 404 that says there is none.
fn find(app: &App, id: &str) -> Result<UploadRecord, ApiError> {
    app.uploads.get(id)?.ok_or_else(|| ApiError::not_found(format!("there is no upload `{id}`")).param("id"))
}

/// An upload that still takes parts.
fn pending(app: &App, id: &str) -> Result<UploadRecord, ApiError> {
    let record = find(app, id)?;
    let over = match record.upload.status {
        UploadStatus::Pending => return Ok(record),
        UploadStatus::Completed => "is complete",
        UploadStatus::Cancelled => "was cancelled",
        UploadStatus::Expired => "has expired: it has to be complete within an hour",
    };
    Err(ApiError::bad(format!("upload `{id}` {over}")).param("id"))
}

pub async fn add_part(
    State(app): State<Arc<App>>,
    PathParam(upload): PathParam<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let declared = pending(&app, &upload)?.upload.bytes;
    let key = idempotency::key(request.headers())?;
    let data = receive(&app, &upload, request).await?;
    let (path, fingerprint) = (format!("/uploads/{upload}/parts"), idempotency::fingerprint(&[&data.sha256]));
    let keep = |id: NewId| keep_part(&app, &upload, declared, id.with("part_"), data);
    idempotency::make(&app, &path, key, fingerprint, keep).await
}

async fn receive(app: &App, upload: &str, request: Request) -> Result<Received, ApiError> {
    let mut parts = multipart::open(request).await?;
    let mut data = None;
    while let Some(field) = parts.next_field().await.map_err(multipart::broken)? {
        if field.name() == Some("data") && data.is_none() {
            data = Some(multipart::file(field, app.uploads.incoming(upload)?, PART_LIMIT).await?);
        }
    }
    data.filter(|data| data.bytes > 0).ok_or_else(|| ApiError::missing("data"))
}

async fn keep_part(
    app: &App,
    upload: &str,
    declared: u64,
    part: String,
    data: Received,
) -> Result<UploadPart, ApiError> {
    let _turn = app.keys.lock(upload).await;
    // It may have ended while the part came.
    pending(app, upload)?;
    let stored = app.uploads.stored(upload)?;
    // A part that is sent again after a lost answer is there twice; more than that is no upload.
    if stored.parts >= MOST_PARTS || stored.bytes + data.bytes > 2 * declared.max(PART_LIMIT) {
        let message = format!("the parts of `{upload}` have many more bytes than the {declared} it declared");
        return Err(ApiError::bad_param("data", message));
    }
    app.uploads.add_part(upload, &part, data.content)?;
    Ok(UploadPart::new(part, upload, ids::now()))
}

pub async fn complete(
    State(app): State<Arc<App>>,
    PathParam(id): PathParam<String>,
    Body(request): Body<CompleteRequest>,
) -> Result<Json<Upload>, ApiError> {
    // A client that hangs up does not stop what has begun.
    let work = tokio::spawn(async move {
        let _turn = app.keys.lock(&id).await;
        finish(&app, &id, request).await
    });
    work.await.map_err(ApiError::internal)?.map(Json)
}

async fn finish(app: &Arc<App>, id: &str, request: CompleteRequest) -> Result<Upload, ApiError> {
    let mut record = pending(app, id)?;
    // The same upload makes the same file, also when the server dies before it says so.
    let file_id = format!("file-{}", ids::derived(&["upload", id], 24));
    let file = match app.files.get(&file_id)? {
        Some(made) => made,
        None => {
            let content = joined(app, &record.upload, request).await?;
            let Upload { filename, purpose, bytes, .. } = &record.upload;
            let file = wire::File::new(file_id, filename, purpose, *bytes, ids::now());
            files::keep(app, content, file, record.expires_after).await?
        }
    };
    record.upload.status = UploadStatus::Completed;
    record.upload.file = Some(file);
    app.uploads.write(&record)?;
    app.uploads.drop_parts(id)?;
    Ok(record.upload)
}

/// The parts as one file, with the size and the hash that were declared.
async fn joined(
    app: &Arc<App>,
    upload: &Upload,
    request: CompleteRequest,
) -> Result<NamedTempFile, ApiError> {
    let wrong = |message: String| ApiError::bad_param("part_ids", message);
    let mut total = 0;
    for (at, part) in request.part_ids.iter().enumerate() {
        let size = ids::is_plain(part).then(|| app.uploads.part(&upload.id, part).metadata().ok()).flatten();
        let size = size.ok_or_else(|| wrong(format!("upload `{}` has no part `{part}`", upload.id)))?;
        if request.part_ids[..at].contains(part) {
            return Err(wrong(format!("part `{part}` is named twice")));
        }
        total += size.len();
    }
    if total != upload.bytes {
        return Err(wrong(format!("the parts have {total} bytes, the upload declared {}", upload.bytes)));
    }
    let (app, id) = (app.clone(), upload.id.clone());
    blocking(move || {
        let whole = app.files.incoming()?;
        let mut hash = request.md5.is_some().then(Md5::new);
        for part in &request.part_ids {
            let path = app.uploads.part(&id, part);
            append(&path, whole.as_file(), hash.as_mut())?;
        }
        check_md5(request.md5.as_deref(), hash)?;
        Ok(whole)
    })
    .await
}

fn append(from: &Path, mut whole: &File, mut hash: Option<&mut Md5>) -> Result<(), StoreError> {
    let read = |e| StoreError::new("read", from, e);
    let mut source = File::open(from).map_err(read)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let size = source.read(&mut chunk).map_err(read)?;
        if size == 0 {
            return Ok(());
        }
        if let Some(hash) = &mut hash {
            hash.update(&chunk[..size]);
        }
        whole.write_all(&chunk[..size]).map_err(|e| StoreError::new("write a part of", from, e))?;
    }
}

fn check_md5(expected: Option<&str>, hash: Option<Md5>) -> Result<(), ApiError> {
    let (Some(expected), Some(hash)) = (expected, hash) else { return Ok(()) };
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(ApiError::bad_param("md5", format!("the parts have the MD5 `{found}`, not `{expected}`")))
}

pub async fn cancel(
    State(app): State<Arc<App>>,
    PathParam(id): PathParam<String>,
) -> Result<Json<Upload>, ApiError> {
    let _turn = app.keys.lock(&id).await;
    let mut record = pending(&app, &id)?;
    record.upload.status = UploadStatus::Cancelled;
    app.uploads.write(&record)?;
    app.uploads.drop_parts(&id)?;
    Ok(Json(record.upload))
}
