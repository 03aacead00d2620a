//! Jobs of all rows at once: what every provider tells, and what was seen last of those that cannot be asked.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use serde::Serialize;

use super::{
    FinetuneError, Trainer,
    record::{self, records},
    trainer::or_not_there,
};
use crate::{model::wire::Job, store::Workspace};

/// A row that does not answer within this is left out.
const PATIENCE: Duration = Duration::from_secs(10);
/// Jobs of one row that are listed.
const EACH: usize = 20;

/// A job and the row whose provider has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listed {
    pub row: String,
    #[serde(flatten)]
    pub job: Job,
}

/// Jobs of all rows, newest first, and why some rows said nothing: theirs are as they were seen last.
#[derive(Debug, Default)]
pub struct Everywhere {
    pub jobs: Vec<Listed>,
    pub silent: Vec<(String, String)>,
}

/// Asks all trainers at once. `local` are the jobs of this workspace's own trainer, which need no server to be read.
pub async fn jobs_everywhere(trainers: &[Trainer], local: Vec<Job>, workspace: &Workspace) -> Everywhere {
    let asked = trainers.iter().map(async |trainer| {
        let answer = tokio::time::timeout(PATIENCE, trainer.jobs(EACH)).await;
        let jobs = match answer {
            Ok(Ok(jobs)) => Ok(jobs),
            // Servers that only answer have no jobs to tell of.
            Ok(Err(e)) if matches!(e.status(), Some(404 | 405 | 501)) => Ok(Vec::new()),
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        (trainer, jobs)
    });
    let mut found = BTreeMap::new();
    let mut silent = Vec::new();
    for job in local {
        found.insert(job.id.clone(), Listed { row: super::OWN.into(), job });
    }
    for (trainer, answer) in join_all(asked).await {
        match answer {
            Ok(jobs) => {
                for job in jobs {
                    // Notes are for when the provider cannot be asked; a full disk must not hide the list.
                    let _ = record::seen(workspace, trainer, &job);
                    let row = trainer.row().to_owned();
                    // Two rows of one account have the same jobs.
                    found.entry(job.id.clone()).or_insert(Listed { row, job });
                }
            }
            Err(why) => silent.push((trainer.row().to_owned(), why)),
        }
    }
    for record in records(workspace) {
        let listed = found.entry(record.job.clone());
        let row = record.row.clone();
        listed.and_modify(|listed| listed.row = row).or_insert(Listed { row: record.row, job: record.last });
    }
    let mut jobs: Vec<Listed> = found.into_values().collect();
    jobs.sort_by(|a, b| (b.job.created_at, &b.job.id).cmp(&(a.job.created_at, &a.job.id)));
    Everywhere { jobs, silent }
}

/// The trainer that knows a job, of those that can be asked.
///
/// # Errors
/// When none knows it.
pub async fn find(trainers: &[Trainer], job: &str) -> Result<(Trainer, Job), FinetuneError> {
    let asked = trainers.iter().map(async |trainer| {
        let answer = tokio::time::timeout(PATIENCE, trainer.job(job)).await.ok()?;
        Some((trainer.clone(), or_not_there(answer).ok()??))
    });
    let found = join_all(asked).await.into_iter().flatten().next();
    found.ok_or_else(|| FinetuneError::NoJob { job: job.to_owned() })
}
