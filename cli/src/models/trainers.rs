//! Trainers by row, and the one that has a job.

use hone::{
    config::ModelRow,
    error::Kind,
    finetune::{self, FinetuneError, OWN, Shape, Trainer},
};

use super::Models;
use crate::error::{CommandError, Result};

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
        match self.settings.models.get(&name) {
            Some(row) => Ok((self.tuner_of(&name).await?, row.model.clone())),
            None => Err(self.unknown(&name).into()),
        }
    }

    /// The trainer of a row; [`OWN`] is the workspace's.
    pub async fn tuner_of(&mut self, name: &str) -> Result<Trainer> {
        match self.settings.models.get(name) {
            _ if name == OWN => Ok(self.local().await?.into()),
            Some(row) => {
                self.afford(name, &self.client_of(name, row)?)?;
                self.hosted(name, row)
            }
            None => Err(self.unknown(name).into()),
        }
    }

    fn hosted(&self, name: &str, row: &ModelRow) -> Result<Trainer> {
        let Some(shape) = Shape::of(&row.provider) else {
            let message = format!("`models.{name}` cannot be tuned: `{}` trains no models", row.provider);
            return Err(CommandError::new(Kind::Input, message)
                .hint("train with the local engine, `[finetune] model = \"local\"`, or name a row whose provider trains"));
        };
        let account = row.account.clone().or_else(|| self.context.secret(FIREWORKS_ACCOUNT));
        Ok(Trainer::new(shape, self.client_of(name, row)?, account)?)
    }

    /// Trainers of all rows that train and have what it takes to ask them; one for each account.
    pub fn trainers(&self) -> Trainers {
        let mut found = Trainers::default();
        let mut accounts = Vec::new();
        for (name, row) in &self.settings.models {
            if Shape::of(&row.provider).is_none() {
                continue;
            }
            let account = (&row.provider, &row.base_url, &row.api_key_env, &row.account);
            if accounts.contains(&account) {
                continue;
            }
            match self.hosted(name, row) {
                Ok(trainer) => {
                    accounts.push(account);
                    found.reachable.push(trainer);
                }
                Err(e) => found.silent.push((name.clone(), e.message)),
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
