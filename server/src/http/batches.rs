//! `/batches`: many requests in a file, answered when there is time.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use hone::model::wire::{Batch, BatchRequest, Page};

use super::{
    extract::{Body, Pairs},
    files,
    idempotency::NewId,
    jobs::check_metadata,
    page,
};
use crate::{
    app::App,
    disk::{BatchFolder, BatchRecord},
    error::ApiError,
    ids,
};

/// What batches can ask; the handlers are those of `super::answers`.
const ENDPOINTS: [&str; 2] = ["/v1/chat/completions", "/v1/responses"];
/// Seconds that a batch has.
const WINDOW: i64 = 24 * 3600;

pub async fn create(
    State(app): State<Arc<App>>,
    id: NewId,
    Body(request): Body<BatchRequest>,
) -> Result<Json<Batch>, ApiError> {
    if !ENDPOINTS.contains(&request.endpoint.as_str()) {
        let known = ENDPOINTS.join("` and `");
        let message = format!("`{}` takes no batches here, only `{known}` do", request.endpoint);
        return Err(ApiError::bad_param("endpoint", message));
    }
    if request.completion_window != "24h" {
        return Err(ApiError::bad_param("completion_window", "`completion_window` must be `24h`"));
    }
    check_metadata(request.metadata.as_ref())?;
    let output = request.output_expires_after.as_ref();
    let output = output.map(|after| files::lifetime(after, "output_expires_after")).transpose()?;
    let id = id.with("batch_");
    if let Some(made) = app.batches.get(&id) {
        return Ok(Json(made.read()?.batch));
    }
    let wrong = |message: String| ApiError::bad_param("input_file_id", message);
    let input = &request.input_file_id;
    let file = app.files.get(input)?.ok_or_else(|| wrong(format!("there is no file `{input}`")))?;
    if file.purpose != "batch" {
        return Err(wrong(format!("file `{input}` has the purpose `{}`, not `batch`", file.purpose)));
    }
    let batch = Batch::new(id, &request, ids::now(), WINDOW);
    app.batches.create(&BatchRecord::new(batch.clone(), output), &app.files.content(input))?;
    app.clerk.look();
    Ok(Json(batch))
}

fn find(app: &App, id: &str) -> Result<BatchFolder, ApiError> {
    let unknown = || ApiError::not_found(format!("there is no batch `{id}`")).param("id");
    app.batches.get(id).ok_or_else(unknown)
}

pub async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Batch>, ApiError> {
    let batch = find(&app, &id)?.read()?.batch;
    Ok(Json(app.clerk.current(batch)))
}

pub async fn list(State(app): State<Arc<App>>, query: Pairs) -> Result<Json<Page<Batch>>, ApiError> {
    let batches = app.batches.list()?.into_iter().map(|record| app.clerk.current(record.batch));
    page::cut(batches.collect(), &query, 20, 100).map(Json)
}

pub async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Batch>, ApiError> {
    let folder = find(&app, &id)?;
    app.clerk.cancel(&app, &folder).await.map(Json)
}
