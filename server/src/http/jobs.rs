//! `/fine_tuning/jobs`: checks what can be checked of a request; its data is looked at when the job runs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
};
use hone::auto::Auto;
use hone::model::wire::{Checkpoint, Hyperparameters, Job, JobEvent, JobRequest, JobStatus, Method, Page};
use rand::RngExt;
use serde_json::Value;

use super::{
    extract::{Body, Pairs},
    idempotency::NewId,
    page,
};
use crate::{
    app::App,
    disk::{JobFolder, JobRecord},
    error::ApiError,
    ids, training,
};

/// How long a cancel or a pause waits for the step in progress.
const STEP_WAIT: Duration = Duration::from_secs(10);

pub async fn create(
    State(app): State<Arc<App>>,
    id: NewId,
    Body(request): Body<JobRequest>,
) -> Result<Json<Job>, ApiError> {
    let id = id.with("ftjob-");
    if let Some(made) = app.jobs.get(&id) {
        return Ok(Json(made.read()?.job));
    }
    check(&request)?;
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

fn check(request: &JobRequest) -> Result<(), ApiError> {
    if let Some(method) = &request.method
        && !(method.is_supervised() || method.is_dpo())
    {
        let message =
            format!("method `{}` is not supported by this server: `supervised` and `dpo` are", method.r#type);
        return Err(ApiError::bad_param("method", message));
    }
    let in_method = request.method.as_ref().and_then(Method::hyperparameters);
    let beta = request.method.as_ref().map(Method::beta).unwrap_or_default();
    for hyperparameters in in_method.into_iter().chain(&request.hyperparameters) {
        check_hyperparameters(hyperparameters, beta)?;
    }
    if let Some(suffix) = &request.suffix {
        check_suffix(suffix)?;
    }
    if request.seed.is_some_and(|seed| !(0..=i64::from(i32::MAX)).contains(&seed)) {
        return Err(ApiError::bad_param("seed", "`seed` must be from 0 to 2147483647"));
    }
    check_metadata(request.metadata.as_ref())?;
    match request.extra.get("integrations") {
        None | Some(Value::Null) => {}
        Some(Value::Array(none)) if none.is_empty() => {}
        Some(_) => return Err(ApiError::bad_param("integrations", "this server has no integrations")),
    }
    for name in request.extra.keys().filter(|name| *name != "integrations") {
        tracing::info!(name, "ignoring an unknown parameter of a fine-tuning job");
    }
    Ok(())
}

fn check_hyperparameters(values: &Hyperparameters, beta: Auto<f64>) -> Result<(), ApiError> {
    match training::fault(values, beta) {
        Some((key, range)) => Err(ApiError::bad_param("hyperparameters", format!("`{key}` must be {range}"))),
        None => Ok(()),
    }
}

/// A suffix becomes part of a model id, which has colons for separators.
fn check_suffix(suffix: &str) -> Result<(), ApiError> {
    let plain = suffix.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    match suffix.len() {
        1..=64 if plain => Ok(()),
        1..=64 => Err(ApiError::bad_param("suffix", "`suffix` may hold letters, digits, `-`, `_` and `.`")),
        _ => Err(ApiError::bad_param("suffix", "`suffix` must have 1 to 64 characters")),
    }
}

pub fn check_metadata(metadata: Option<&BTreeMap<String, String>>) -> Result<(), ApiError> {
    let too_long = |(key, value): (&String, &String)| key.chars().count() > 64 || value.chars().count() > 512;
    match metadata {
        Some(pairs) if pairs.len() > 16 => {
            Err(ApiError::bad_param("metadata", "`metadata` may hold 16 pairs"))
        }
        Some(pairs) if pairs.iter().any(too_long) => {
            Err(ApiError::bad_param("metadata", "keys of `metadata` may have 64 characters, values 512"))
        }
        _ => Ok(()),
    }
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
    // The child saves what it has and stops at the next step; most clients ask only once.
    app.supervisor.cancel(&folder, STEP_WAIT).await?;
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
    use serde_json::json;

    use super::*;

    fn check_request(change: Value, expected: Option<&str>) {
        let mut request = json!({"model": "m", "training_file": "file-1"});
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let request: JobRequest = serde_json::from_value(request).unwrap();
        let param = check(&request).err().map(|error| error.envelope().error.param.unwrap_or_default());
        assert_eq!(param.as_deref(), expected, "{change}");
    }

    #[test]
    fn requests_are_checked_before_a_job_exists() {
        check_request(json!({}), None);
        check_request(json!({"suffix": "ui-agent-v1", "seed": 0, "integrations": null}), None);
        check_request(json!({"hyperparameters": {"n_epochs": 50, "batch_size": 256}}), None);
        check_request(json!({"hyperparameters": {"n_epochs": 0}}), Some("hyperparameters"));
        check_request(json!({"hyperparameters": {"n_epochs": 51}}), Some("hyperparameters"));
        let method =
            json!({"type": "supervised", "supervised": {"hyperparameters": {"learning_rate_multiplier": 0}}});
        check_request(json!({ "method": method }), Some("hyperparameters"));
        check_request(json!({"method": {"type": "dpo"}}), None);
        let dpo = |values: Value| json!({"method": {"type": "dpo", "dpo": {"hyperparameters": values}}});
        check_request(dpo(json!({"beta": "auto", "n_epochs": 1})), None);
        check_request(dpo(json!({"beta": 2.5})), Some("hyperparameters"));
        check_request(dpo(json!({"batch_size": 0})), Some("hyperparameters"));
        check_request(json!({"hyperparameters": {"lora_targets": ["x"]}}), Some("hyperparameters"));
        check_request(json!({"method": {"type": "reinforcement"}}), Some("method"));
        check_request(json!({"suffix": "x".repeat(65)}), Some("suffix"));
        check_request(json!({"suffix": "a:b"}), Some("suffix"));
        check_request(json!({"seed": -1}), Some("seed"));
        check_request(json!({"seed": 2_147_483_648_i64}), Some("seed"));
        let many: Value = (0..17).map(|i| (i.to_string(), json!("x"))).collect();
        check_request(json!({ "metadata": many }), Some("metadata"));
        check_request(json!({"metadata": {"k": "x".repeat(513)}}), Some("metadata"));
        check_request(json!({"integrations": [{"type": "wandb"}]}), Some("integrations"));
    }

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
