//! How fast this machine trains, by a short job that leaves nothing.

use std::{
    fs::File,
    io::BufReader,
    path::Path,
    time::{Duration, Instant},
};

use hone::{
    auto::Auto,
    dataset::validate::{self, Format},
    error::Kind,
    model::{
        client::{Client, Endpoint},
        wire::{Hyperparameters, Job, JobEvent, JobRequest, JobStatus, Method},
    },
    store::StoreError,
};
use hone_server::ServerConfig;

use crate::{
    commands::serve,
    context::Context,
    error::{CommandError, Result},
};

/// Rows of the job: some seconds of work.
const ROWS: usize = 24;
/// How often the job is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Tokens a second at which the local engine trains a base model on rows of a file. The job is as any other, on a server in a
/// folder of its own that goes with it.
///
/// # Errors
/// Rows that the engine does not train, or a job that fails.
pub async fn training(file: &Path, format: Format, base: &str, context: &Context) -> Result<f64> {
    let method = match format {
        Format::Chat => Method::supervised(once()),
        Format::Dpo => Method::dpo(once(), Auto::Auto),
        Format::Rft => {
            let message =
                "the local engine does not train tasks for a grader, so there is no speed to measure";
            return Err(CommandError::new(Kind::Input, message).hint("leave `--measure` out"));
        }
    };
    let unreadable = |e| StoreError::new("read", file, e);
    let source = BufReader::new(File::open(file).map_err(unreadable)?);
    let rows = validate::examples(source, format, ROWS, context.global.seed).map_err(unreadable)?.join("\n");
    serve::prepare_weights(context).await?;
    let folder = tempfile::tempdir().map_err(|e| StoreError::new("write", std::env::temp_dir(), e))?;
    let sample = folder.path().join("rows.jsonl");
    hone::store::write_atomic(&sample, rows.as_bytes())?;
    let config = ServerConfig { root: folder.path().join("server"), ..serve::config(context)? };
    let server = hone_server::spawn_local(config).await?;
    let speed = job(&server.base_url, &sample, base, method, context).await;
    let stopped = server.stop().await;
    let speed = speed?;
    stopped?;
    Ok(speed)
}

fn once() -> Hyperparameters {
    Hyperparameters { n_epochs: Auto::Fixed(1), ..Hyperparameters::default() }
}

async fn job(url: &str, rows: &Path, base: &str, method: Method, context: &Context) -> Result<f64> {
    let endpoint = Endpoint::local(url);
    let client = Client::new(endpoint.clone())?.cancelled_by(context.cancel.clone());
    let training_file = client.upload_file(rows, "fine-tune").await?.id;
    let request =
        JobRequest { model: base.to_owned(), training_file, method: Some(method), ..JobRequest::default() };
    let job = client.create_job(&request, "measure").await?;
    context.events.note("training on a few rows to see how fast this machine is");
    let watched = watch(&client, &job.id).await;
    if watched.is_err() {
        // Whoever is interrupted leaves no job behind; one that has ended refuses, which is as well.
        let _ = Client::new(endpoint)?.cancel_job(&job.id).await;
    }
    watched
}

/// The speed between the first step that is seen and the last: what comes before is loading. A job that is over at the first
/// look is timed as a whole.
async fn watch(client: &Client, id: &str) -> Result<f64> {
    let mut seen = vec![(0, Instant::now())];
    loop {
        let job = client.job(id).await?;
        let tokens = trained_tokens(&client.events(id, None).await?).unwrap_or(0);
        if seen.last().is_none_or(|(before, _)| tokens > *before) {
            seen.push((tokens, Instant::now()));
        }
        match job.status {
            JobStatus::Succeeded => break,
            ref status if status.is_terminal() => return Err(failed(job)),
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    let (few, begun) = seen[usize::from(seen.len() > 2)];
    let (many, ended) = seen[seen.len() - 1];
    Ok((many - few) as f64 / (ended - begun).as_secs_f64().max(LOOK_EVERY.as_secs_f64()))
}

/// So far, by the newest step; events come newest first.
fn trained_tokens(events: &[JobEvent]) -> Option<u64> {
    events.iter().find_map(|event| event.data.as_ref()?.get("trained_tokens")?.as_u64())
}

fn failed(job: Job) -> CommandError {
    let why = job.error.and_then(|error| error.message).unwrap_or_else(|| "it was stopped".to_owned());
    CommandError::new(Kind::Input, format!("the job that was to be measured failed: {why}"))
        .hint("`hone validate` says what is wrong with the file's rows")
}
