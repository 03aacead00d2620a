//! `/fine_tuning/alpha/graders`: run and check the graders that need no model and no program.

use axum::Json;
use hone::model::wire::{GraderRun, GraderRunRequest, GraderValidation};

use super::extract::{Body, blocking};
use crate::{error::ApiError, grader};

pub async fn run(Body(request): Body<GraderRunRequest>) -> Result<Json<GraderRun>, ApiError> {
    let grader = parse(&request.grader)?;
    blocking(move || Ok(grader.run(request.model_sample, request.item))).await.map(Json)
}

pub async fn validate(Body(request): Body<GraderValidation>) -> Result<Json<GraderValidation>, ApiError> {
    parse(&request.grader)?;
    Ok(Json(request))
}

fn parse(grader: &serde_json::Value) -> Result<grader::Grader, ApiError> {
    grader::parse(grader).map_err(|why| ApiError::bad_param("grader", why))
}
