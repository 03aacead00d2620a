//! What the doctor looks at beyond this machine: keys, endpoints, the dataset and the last job. No call costs anything, and
//! with `--offline` none is made.

use std::{borrow::Cow, time::Duration};

use futures::future::join_all;
use hone::{
    config::{ModelRow, Settings},
    dataset::validate::Format,
    error::Explain,
    finetune::{self, OWN},
    model::{
        client::{Client, Endpoint, ModelError, Retry},
        wire::{Job, JobStatus},
    },
    runtime::Check,
};

use crate::{
    commands::finetune::{faults, look},
    context::Context,
    error::CommandError,
    models::Models,
    own, rows,
};

/// A row that does not answer within this is out of reach for the doctor.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn checks(context: &Context, settings: &Settings) -> Vec<Check> {
    let models = Models::new(context, settings);
    let (own, rows): (Vec<_>, Vec<_>) = settings.models.iter().partition(|(_, row)| own::is_own(row));
    let asked =
        rows.into_iter().map(async |(name, row)| row_checks(&models, context, settings, name, row).await);
    let mut checks: Vec<Check> = join_all(asked).await.into_iter().flatten().collect();
    checks.extend(own.into_iter().map(|(name, row)| own_check(context, name, row)));
    checks.extend(dataset_check(context, settings));
    checks.extend(job_check(context, &models).await);
    models.close().await;
    checks
}

/// The key, the endpoint, and for the trainer of the settings its base model.
async fn row_checks(
    models: &Models<'_>,
    context: &Context,
    settings: &Settings,
    name: &str,
    row: &ModelRow,
) -> Vec<Check> {
    let key = format!("key of `{name}`");
    let client = match rows::client(name, row, context) {
        Ok(client) => client,
        Err(e) => return vec![Check::fault(key, e.message, e.hints.join("; "))],
    };
    let mut checks = vec![Check::well(key, key_is(row, &client))];
    if context.global.offline {
        checks.push(skipped(format!("endpoint of `{name}`")));
        return checks;
    }
    let trained = settings.finetune.model == name;
    match models.trainers().reachable.into_iter().find(|trainer| trained && trainer.row() == name) {
        Some(trainer) => {
            let looked = finetune::looked_at(&trainer, &row.model, jiff::Zoned::now().date());
            match tokio::time::timeout(PATIENCE, looked).await {
                Ok(found) => checks.extend(found),
                Err(_) => checks.push(silent(name)),
            }
        }
        None => checks.push(endpoint_check(name, &client).await),
    }
    checks
}

/// Which variable a key was found in; never what it is.
fn key_is(row: &ModelRow, client: &Client) -> String {
    match rows::key_variable(row).filter(|_| client.endpoint().api_key.is_some()) {
        Some(variable) => format!("`{variable}` is set"),
        None => "none is needed".into(),
    }
}

/// What the settings promise an agent of the user's own: its key, or the variables that it is passed. It is not asked
/// anything: only it knows what that costs.
fn own_check(context: &Context, name: &str, row: &ModelRow) -> Check {
    let title = format!("key of `{name}`");
    if row.provider == own::SERVICE {
        return match own::client(name, row, context) {
            Ok(client) => Check::well(title, key_is(row, &client)),
            Err(e) => Check::fault(title, e.message, e.hints.join("; ")),
        };
    }
    let missing: Vec<String> = row
        .pass_env
        .iter()
        .filter(|variable| context.secret(variable).is_none())
        .map(|variable| format!("`{variable}`"))
        .collect();
    match (missing.is_empty(), row.pass_env.is_empty()) {
        (false, _) => Check::fault(
            title,
            format!("not set: {}", missing.join(", ")),
            "set them in the environment or in `.env`, or take them out of `pass_env`; see \
             docs/troubleshooting/api-key-not-found.md",
        ),
        (true, true) => Check::well(title, "none is passed on"),
        (true, false) => Check::well(title, format!("set: `{}`", row.pass_env.join("`, `"))),
    }
}

/// Something that only somebody else could tell.
fn skipped(name: impl Into<Cow<'static, str>>) -> Check {
    Check::well(name, "skipped: with `--offline` nobody is asked")
}

/// Asks for the list of models: free everywhere, and refused without a good key.
async fn endpoint_check(name: &str, client: &Client) -> Check {
    let retry = Retry { retries: 0, ..Retry::default() };
    let answer = async {
        let client = client.at(Endpoint { retry, ..client.endpoint().clone() })?;
        client.models().await
    };
    let title = format!("endpoint of `{name}`");
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(_)) => Check::well(title, "it answers"),
        // It answers, if not to this.
        Ok(Err(e)) if matches!(e.status(), Some(404 | 405 | 501)) => {
            Check::well(title, "it answers, and lists no models")
        }
        Ok(Err(e)) => Check::fault(title, e.to_string(), remedy(name, &e)),
        Err(_) => silent(name),
    }
}

fn remedy(name: &str, error: &ModelError) -> String {
    match error.status() {
        Some(401 | 403) => format!(
            "check the variable that `api_key_env` under `[models.{name}]` names; see docs/troubleshooting/invalid-key.md"
        ),
        _ => error.hint().unwrap_or_else(|| format!("check the row `[models.{name}]`")),
    }
}

fn silent(name: &str) -> Check {
    let title = format!("endpoint of `{name}`");
    let detail = format!("no answer within {} s", PATIENCE.as_secs());
    Check::fault(title, detail, format!("check the network and `base_url` under `[models.{name}]`"))
}

/// What a provider would refuse in the dataset.
fn dataset_check(context: &Context, settings: &Settings) -> Option<Check> {
    const NAME: &str = "dataset for training";
    // One that is not there is told of beside this.
    let report = look(&context.workspace.dataset(), Format::Chat, context, settings).ok()?;
    Some(match faults(&report) {
        None => Check::well(NAME, "a provider would take it"),
        Some(listed) => Check::fault(
            NAME,
            format!("a provider would refuse it:{listed}"),
            "mend these lines, or run `hone prepare` again; see docs/troubleshooting/invalid-format.md",
        ),
    })
}

/// What has become of the job that this workspace started last.
async fn job_check(context: &Context, models: &Models<'_>) -> Option<Check> {
    let id = finetune::last_job(&context.workspace)?;
    let recorded = finetune::record_of(&context.workspace, &id);
    let own = hone_server::jobs(&context.workspace.server()).into_iter().find(|job| job.id == id);
    let row = recorded.as_ref().map_or(OWN, |record| &record.row);
    let trainer = models.trainers().reachable.into_iter().find(|trainer| trainer.row() == row);
    let asked = match (own, trainer) {
        (Some(job), _) => Some(job),
        (None, Some(_)) if context.global.offline => return Some(skipped("last job")),
        (None, Some(trainer)) => {
            tokio::time::timeout(PATIENCE, trainer.job(&id)).await.ok().and_then(Result::ok)
        }
        (None, None) => None,
    };
    let job = asked.or(recorded.map(|record| record.last))?;
    Some(judged(&job, jiff::Timestamp::now().as_second()))
}

fn judged(job: &Job, now: i64) -> Check {
    const NAME: &str = "last job";
    if let Some(stuck) = finetune::stuck(job, now) {
        let error = CommandError::from(stuck);
        return Check::fault(NAME, error.message, error.hints.join("; "));
    }
    if job.status == JobStatus::Failed {
        let why = job.error.as_ref().and_then(|error| error.message.as_deref()).unwrap_or("no reason given");
        let detail = format!("job `{}` failed: {why}", job.id);
        return Check::fault(NAME, detail, "mend what the message names, and run `hone finetune` again");
    }
    Check::well(NAME, format!("`{}` is {}", job.id, job.status))
}
