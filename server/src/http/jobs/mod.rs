//! `/fine_tuning/jobs`: checks what can be checked of a request; its data is looked at when the job runs.

mod request;

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
};
use hone::model::wire::{Checkpoint, Job, JobEvent, JobStatus, Page};
use rand::RngExt;
use serde_json::{Map, Value};

pub use self::request::check_metadata;
use super::{
    extract::{Body, Pairs},
    idempotency::NewId,
    page,
};
use crate::{
    app::App,
    disk::{JobFolder, JobRecord},
    error::ApiError,
    ids,
};

/// How long a pause waits for the step in progress.
const STEP_WAIT: Duration = Duration::from_secs(10);

pub async fn create(
    State(app): State<Arc<App>>,
    id: NewId,
    Body(body): Body<Map<String, Value>>,
) -> Result<Json<Job>, ApiError> {
    let request = request::read(body)?;
    let id = id.with("ftjob-");
    if let Some(made) = app.jobs.get(&id) {
        return Ok(Json(made.read()?.job));
    }
    check_file(&app, "training_file", &request.training_file)?;
    if let Some(id) = &request.validation_file {
        check_file(&app, "validation_file", id)?;
    }
    let (base, parent) = app.trainable(&request.model)?;
    let seed = request.seed.unwrap_or_else(|| rand::rng().random_range(0..=i64::from(i32::MAX)));
    let job = Job::new(id, &request, ids::now(), seed);
    app.jobs.create(&JobRecord::new(job.clone(), base, parent))?;
    app.supervisor.look();
    Ok(Json(job))
}

fn check_file(app: &App, param: &str, id: &str) -> Result<(), ApiError> {
    match app.files.get(id)? {
        None => Err(ApiError::bad_param(param, format!("there is no file `{id}`"))),
        Some(file) if file.purpose != "fine-tune" => {
            let message = format!("file `{id}` has the purpose `{}`, not `fine-tune`", file.purpose);
            Err(ApiError::bad_param(param, message))
        }
        Some(_) => Ok(()),
    }
}

pub async fn list(State(app): State<Arc<App>>, query: Pairs) -> Result<Json<Page<Job>>, ApiError> {
    let jobs = app.jobs.list()?.into_iter().map(|record| record.job);
    let jobs = jobs.filter(|job| has_metadata(job, &query)).collect();
    let mut page = page::cut(jobs, &query, 20, 100)?;
    for job in &mut page.data {
        *job = app.jobs.get(&job.id).map_or_else(|| Ok(job.clone()), |folder| folder.job())?;
    }
    Ok(Json(page))
}

/// `metadata[key]=value` filters add up; `metadata=null` asks for jobs without any.
fn has_metadata(job: &Job, query: &Pairs) -> bool {
    query.0.iter().all(|(name, value)| {
        if name == "metadata" {
            return value != "null" || job.metadata.as_ref().is_none_or(|pairs| pairs.is_empty());
        }
        match name.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']')) {
            None => true,
            Some(key) => job.metadata.as_ref().and_then(|pairs| pairs.get(key)) == Some(value),
        }
    })
}

fn find(app: &App, id: &str) -> Result<JobFolder, ApiError> {
    let unknown =
        || ApiError::not_found(format!("there is no fine-tuning job `{id}`")).code("fine_tune_not_found");
    app.jobs.get(id).ok_or_else(unknown)
}

pub async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Job>, ApiError> {
    Ok(Json(find(&app, &id)?.job()?))
}

pub async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Job>, ApiError> {
    let folder = find(&app, &id)?;
    let job = folder.read()?.job;
    if job.status.is_terminal() {
        return Err(ApiError::bad(format!("job `{id}` is over: it {}", past(&job))).param("id"));
    }
    // Most clients ask only once.
    app.supervisor.cancel(&folder).await?;
    Ok(Json(folder.job()?))
}

fn past(job: &Job) -> String {
    match job.status.to_string().as_str() {
        "cancelled" => "was cancelled".into(),
        other => other.into(),
    }
}

pub async fn pause(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Job>, ApiError> {
    let folder = find(&app, &id)?;
    let job = folder.job()?;
    if job.status != JobStatus::Running {
        return Err(ApiError::bad(format!("job `{id}` is not running: {}", now(&job))).param("id"));
    }
    app.supervisor.pause(&folder, STEP_WAIT).await?;
    Ok(Json(folder.job()?))
}

pub async fn resume(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Job>, ApiError> {
    let folder = find(&app, &id)?;
    if !app.supervisor.resume(&folder).await? {
        let job = folder.job()?;
        return Err(ApiError::bad(format!("job `{id}` is not paused: {}", now(&job))).param("id"));
    }
    Ok(Json(folder.job()?))
}

fn now(job: &Job) -> String {
    if job.status.is_terminal() { format!("it {}", past(job)) } else { format!("it is `{}`", job.status) }
}

pub async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Pairs,
) -> Result<Json<Page<JobEvent>>, ApiError> {
    let mut events = find(&app, &id)?.events()?;
    events.reverse();
    page::cut(events, &query, 20, 1000).map(Json)
}

pub async fn checkpoints(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Pairs,
) -> Result<Json<Page<Checkpoint>>, ApiError> {
    let mut checkpoints = find(&app, &id)?.checkpoints()?;
    checkpoints.reverse();
    page::cut(checkpoints, &query, 10, 100).map(Json)
}

#[cfg(test)]
mod tests {
    use hone::model::wire::JobRequest;

    use super::*;

    #[test]
    fn metadata_filters_add_up() {
        let request =
            JobRequest { metadata: Some([("a".into(), "1".into())].into()), ..JobRequest::default() };
        let job = Job::new("j", &request, 1, 1);
        let matches = |pairs: &[(&str, &str)]| {
            has_metadata(
                &job,
                &Pairs(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
            )
        };
        assert!(matches(&[]) && matches(&[("metadata[a]", "1"), ("limit", "3")]));
        assert!(!matches(&[("metadata[a]", "2")]));
        assert!(!matches(&[("metadata[a]", "1"), ("metadata[b]", "")]));
        assert!(!matches(&[("metadata", "null")]));
    }
}
