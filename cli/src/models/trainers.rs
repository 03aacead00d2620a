//! Trainers by row, and the one that has a job.

use hone::{
    finetune::{self, FinetuneError, OWN, Shape, Trainer},
    model::client::Client,
};

use super::{Models, Trains};
use crate::{error::Result, rows};

/// Whose jobs Fireworks' are, where the row does not say it.
const FIREWORKS_ACCOUNT: &str = "FIREWORKS_ACCOUNT_ID";

/// The trainers that can be asked, and why others cannot.
#[derive(Default)]
pub struct Trainers {
    pub reachable: Vec<Trainer>,
    pub silent: Vec<(String, String)>,
}

impl Models<'_> {
    /// The trainer of the settings, and the base model that it starts from.
    pub async fn tuner(&mut self) -> Result<(Trainer, String)> {
        let name = self.settings.finetune.model.clone();
        if name == OWN {
            return Ok((self.tuner_of(OWN).await?, self.settings.finetune.base_model.clone()));
        }
        let Trains { client, model, tuning } = self.trainer_of(&name)?;
        Ok((self.made(&name, tuning, client)?, model))
    }

    /// The trainer of a row; [`OWN`] is the workspace's.
    pub async fn tuner_of(&mut self, name: &str) -> Result<Trainer> {
        if name == OWN {
            return Ok(self.local().await?.into());
        }
        let Trains { client, tuning, .. } = self.trainer_of(name)?;
        self.made(name, tuning, client)
    }

    fn made(&self, name: &str, shape: Shape, client: Client) -> Result<Trainer> {
        let account = self.settings.models.get(name).and_then(|row| row.account.clone());
        let account = account.or_else(|| self.context.secret(FIREWORKS_ACCOUNT));
        Ok(Trainer::new(shape, client, account)?)
    }

    /// Trainers of all rows that train and have what it takes to ask them; one for each account. To ask costs nothing.
    pub fn trainers(&self) -> Trainers {
        let mut found = Trainers::default();
        let mut accounts = Vec::new();
        for name in self.tunable_rows() {
            let Some(row) = self.settings.models.get(&name) else { continue };
            let account = (&row.provider, &row.base_url, rows::key_variable(row), &row.account);
            if accounts.contains(&account) {
                continue;
            }
            let shape = rows::provider_of(&name, row).ok().and_then(|provider| provider.tuning);
            let Some(shape) = shape else { continue };
            let client = rows::client(&name, row, self.context);
            match client.and_then(|client| self.made(&name, shape, client)) {
                Ok(trainer) => {
                    accounts.push(account);
                    found.reachable.push(trainer);
                }
                Err(e) => found.silent.push((name, e.message)),
            }
        }
        found
    }

    /// Who has a job: the row that its record names, the workspace's own trainer, or whoever knows it.
    pub async fn trainer_with(&mut self, job: &str) -> Result<Trainer> {
        let workspace = &self.context.workspace;
        if let Some(record) = finetune::record_of(workspace, job) {
            return self.tuner_of(&record.row).await;
        }
        if hone_server::jobs(&workspace.server()).iter().any(|own| own.id == job) {
            return self.tuner_of(OWN).await;
        }
        match finetune::find(&self.trainers().reachable, job).await {
            // Jobs that older versions started have no record.
            Err(FinetuneError::NoJob { .. }) if finetune::last_job(workspace).as_deref() == Some(job) => {
                Ok(self.tuner().await?.0)
            }
            other => Ok(other?.0),
        }
    }
}
