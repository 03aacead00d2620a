use clap::Args;
use hone::{
    error::Kind,
    finetune::{self, Everywhere, Following, Listed, Trainer},
    model::wire::Job,
    text::thousands,
};
use serde::Serialize;

use crate::{
    context::Context,
    error::{CommandError, Result},
    models::Models,
};

/// Show a fine-tuning job, or all jobs everywhere; replaces check_finetuning_status.py
#[derive(Debug, Args)]
pub struct Status {
    /// The job; all jobs of this workspace and of every row that trains when left out
    job: Option<String>,
    /// Follow it to its end; the last one of this workspace when none is named
    #[arg(long, short)]
    follow: bool,
}

pub async fn run(args: &Status, context: &Context) -> Result {
    if args.job.is_none() && !args.follow {
        return list(context).await;
    }
    with_job(args.job.as_deref(), context, async |trainer, id| {
        if args.follow {
            let (events, cancel) = (&context.events, &context.cancel);
            return Ok(finetune::follow(
                &trainer,
                &context.workspace,
                &id,
                Following::default(),
                events,
                cancel,
            )
            .await?);
        }
        let job = trainer.job(&id).await?;
        finetune::seen(&context.workspace, &trainer, &job)?;
        finetune::keep_model(&job, &context.workspace)?;
        Ok(job)
    })
    .await
}

/// A list as OpenAI writes one.
#[derive(Serialize)]
struct Page<'a> {
    object: &'static str,
    data: &'a [Listed],
    has_more: bool,
}

/// Lists the jobs of all rows. Nothing is started or set up for it.
async fn list(context: &Context) -> Result {
    let settings = context.settings(&[])?;
    let models = Models::new(context, &settings);
    let trainers = models.trainers();
    let own = hone_server::jobs(&context.workspace.server());
    let found = finetune::jobs_everywhere(&trainers.reachable, own, &context.workspace).await;
    models.close().await;
    finetune::book(&context.workspace, &context.journal(&settings)?)?;
    for (row, why) in found.silent.iter().chain(&trainers.silent) {
        let hint = "jobs that were started there are shown as they were seen last".to_owned();
        context.events.warn(format!("`{row}` does not tell its jobs: {why}"), Some(hint));
    }
    let page = Page { object: "list", data: &found.jobs, has_more: false };
    context.answer(&page, || table(&found))
}

/// One line for each job.
fn table(found: &Everywhere) -> String {
    if found.jobs.is_empty() {
        return "no jobs".into();
    }
    let width = |of: fn(&Listed) -> usize| found.jobs.iter().map(of).max().unwrap_or_default();
    let (row, id) = (width(|listed| listed.row.len()), width(|listed| listed.job.id.len()));
    let status = width(|listed| listed.job.status.to_string().len());
    let line = |Listed { row: name, job }: &Listed| {
        let made = job.fine_tuned_model.as_deref().unwrap_or(&job.model);
        let word = job.status.to_string();
        format!("{}  {name:<row$}  {:<id$}  {word:<status$}  {made}", time(job.created_at), job.id)
    };
    found.jobs.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Does something with the job that was named, or with the last one of the workspace, and shows what has become of it.
pub async fn with_job(
    named: Option<&str>,
    context: &Context,
    act: impl AsyncFnOnce(Trainer, String) -> Result<Job>,
) -> Result {
    let settings = context.settings(&[])?;
    let mut models = Models::new(context, &settings);
    let job = async {
        let id = job_id(named, context)?;
        let trainer = models.trainer_with(&id).await?;
        act(trainer, id).await
    };
    let job = job.await;
    models.close().await;
    finetune::book(&context.workspace, &context.journal(&settings)?)?;
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
