//! `/models`: base models, tuned ones, and the alias of the champion.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use hone::model::wire::{Deleted, List, ModelCard};

use crate::{
    app::{ALIAS, App},
    disk::{JobRecord, TunedModel},
    error::ApiError,
};

pub async fn list(State(app): State<Arc<App>>) -> Result<Json<List<ModelCard>>, ApiError> {
    let models = app.config.base_models();
    let base = models.iter().map(|model| base_card(&app, &model.id));
    let alias = std::iter::once(base_card(&app, ALIAS));
    let tuned = app.tuned.list()?;
    Ok(Json(List::new(base.chain(alias).chain(tuned.iter().map(tuned_card)).collect())))
}

fn base_card(app: &App, id: &str) -> ModelCard {
    ModelCard::new(id, app.started, "hone")
}

fn tuned_card(model: &TunedModel) -> ModelCard {
    ModelCard::new(&model.id, model.created, "org-local")
}

pub async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<ModelCard>, ApiError> {
    if id == ALIAS || app.base(&id).is_some() {
        return Ok(Json(base_card(&app, &id)));
    }
    let model = app.tuned.get(&id)?.ok_or_else(|| ApiError::unknown_model(&id))?;
    Ok(Json(tuned_card(&model)))
}

pub async fn delete(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    if id == ALIAS || app.base(&id).is_some() {
        return Err(
            ApiError::bad(format!("`{id}` is not a tuned model: only those can be deleted")).param("model")
        );
    }
    let model = app.tuned.get(&id)?.ok_or_else(|| ApiError::unknown_model(&id))?;
    if let Some(child) = app.tuned.list()?.iter().find(|other| other.parent.as_ref() == Some(&model.id)) {
        let message = format!("`{}` was trained from `{id}` and needs it: delete that first", child.id);
        return Err(ApiError::bad(message).param("model"));
    }
    let goes_on =
        |record: &&JobRecord| !record.job.status.is_terminal() && record.parent.as_ref() == Some(&model.id);
    if let Some(record) = app.jobs.list()?.iter().find(goes_on) {
        let message =
            format!("`{id}` is being trained further by job `{}`: cancel that first", record.job.id);
        return Err(ApiError::bad(message).param("model"));
    }
    app.tuned.delete(&id)?;
    app.engine.forget(&id);
    Ok(Json(Deleted { id, object: "model".into(), deleted: true }))
}
