//! `/fine_tuning/checkpoints/{id}/permissions`: there are no projects here to share a checkpoint with.

use std::sync::Arc;

use axum::extract::{Path, State};

use crate::{app::App, error::ApiError};

pub async fn refuse(State(app): State<Arc<App>>, Path(checkpoint): Path<String>) -> Result<(), ApiError> {
    Err(refusal(&app, &checkpoint)?)
}

pub async fn refuse_one(
    State(app): State<Arc<App>>,
    Path((checkpoint, _permission)): Path<(String, String)>,
) -> Result<(), ApiError> {
    Err(refusal(&app, &checkpoint)?)
}

/// 404 for a checkpoint that is not there, 403 for one that is.
fn refusal(app: &App, checkpoint: &str) -> Result<ApiError, ApiError> {
    if app.tuned.get(checkpoint)?.is_none() {
        return Err(ApiError::unknown_model(checkpoint));
    }
    Ok(ApiError::not_offered(
        "this server has no projects: whoever may use it may use every checkpoint, so there are no permissions to give",
    ))
}
