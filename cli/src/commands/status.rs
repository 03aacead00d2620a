use clap::Args;
use hone::{
    error::Kind,
    finetune,
    model::{client::Client, wire::Job},
    text::thousands,
};

use crate::{
    context::Context,
    error::{CommandError, Result},
    models::Models,
};

/// Show a fine-tuning job; replaces check_finetuning_status.py
#[derive(Debug, Args)]
pub struct Status {
    /// The job; the last one of this workspace when left out
    job: Option<String>,
    /// Follow it to its end
    #[arg(long, short)]
    follow: bool,
}

pub async fn run(args: &Status, context: &Context) -> Result {
    with_job(args.job.as_deref(), context, async |client, id| {
        if args.follow {
            return Ok(
                finetune::follow(&client, &context.workspace, &id, &context.events, &context.cancel).await?
            );
        }
        let job = client.job(&id).await?;
        finetune::keep_model(&job, &context.workspace)?;
        Ok(job)
    })
    .await
}

/// Does something with the job that was named, or with the last one of the workspace, and shows what has become of it.
pub async fn with_job(
    named: Option<&str>,
    context: &Context,
    act: impl AsyncFnOnce(Client, String) -> Result<Job>,
) -> Result {
    let settings = context.settings(&[])?;
    let mut models = Models::new(context, &settings);
    let job = async {
        let id = job_id(named, context)?;
        let (client, _) = models.trainer().await?;
        act(client, id).await
    };
    let job = job.await;
    models.close().await;
    let job = job?;
    context.answer(&job, || text(&job))
}

/// The job that was named, or the last one of the workspace.
fn job_id(named: Option<&str>, context: &Context) -> Result<String> {
    match named {
        Some(id) => Ok(id.to_owned()),
        None => finetune::last_job(&context.workspace).ok_or_else(|| {
            CommandError::new(Kind::Input, "this workspace has started no job")
                .hint("`hone finetune` starts one")
        }),
    }
}

/// A job as people read it.
pub fn text(job: &Job) -> String {
    let mut lines = vec![
        format!("job      {}", job.id),
        format!("status   {}", job.status),
        format!("model    {}", job.model),
        format!("file     {}", job.training_file),
        format!("created  {}", time(job.created_at)),
    ];
    lines.extend(job.finished_at.map(|at| format!("finished {}", time(at))));
    lines.extend(job.trained_tokens.map(|n| format!("tokens   {}", thousands(n))));
    lines.extend(job.fine_tuned_model.iter().map(|model| format!("tuned    {model}")));
    if let Some(error) = &job.error {
        lines.push(format!("error    {}", error.message.as_deref().unwrap_or("no reason given")));
    }
    lines.join("\n")
}

fn time(unix: i64) -> String {
    let at = jiff::Timestamp::from_second(unix).unwrap_or_default();
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}
