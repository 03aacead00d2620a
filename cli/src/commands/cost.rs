mod measure;

use std::path::PathBuf;

use clap::Args;
use hone::{
    config::Settings,
    dataset::{
        cost::{self, Around, Measured, Speed},
        tokens,
        validate::Options,
    },
    error::Kind,
    finetune::OWN,
    model::{price::Prices, wire::JobStatus},
};

use crate::{
    commands::validate,
    context::Context,
    error::{CommandError, Result},
};

/// What training on a file costs: tokens, epochs, prices at each provider, time on this machine; nothing is sent
///
/// Prices are data with the day on which they were read; `prices.toml` in the workspace comes before those that are shipped.
#[derive(Clone, Debug, Args)]
pub struct Cost {
    /// JSON lines; `-` reads them from stdin
    pub file: PathBuf,
    /// Passes over the data; by the published rule when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub n_epochs: Option<u32>,
    /// Prices of this model alone
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Train on a few rows for some seconds to see how fast this machine is; nothing of it is kept
    #[arg(long)]
    pub measure: bool,
}

pub async fn run(args: &Cost, context: &Context) -> Result {
    if args.measure && validate::is_read_once(&args.file) {
        return Err(validate::reads_twice("`--measure` reads"));
    }
    let settings = context.settings(&[])?;
    let looking = validate::options(args.model.as_deref(), context, &settings)?;
    let report = validate::read(&args.file, &Options { code: false, ..looking }, context)?;
    if report.examples == 0 {
        let message = format!("`{}` has no usable example", args.file.display());
        let hint = format!("`hone validate {}` says what is wrong with its lines", args.file.display());
        return Err(CommandError::new(Kind::Input, message).hint(hint));
    }
    let base = &settings.finetune.base_model;
    let speed = match args.measure {
        true => Some(Speed {
            tokens_per_second: measure::training(&args.file, report.format, base, context).await?,
            measured: Measured::Now,
        }),
        false => last_speed(context, base),
    };
    let around = Around {
        file: args.file.display().to_string(),
        epochs: args.n_epochs.or(settings.finetune.n_epochs.fixed()),
        only: args.model.as_deref().and_then(|name| only(name, &settings)),
        speed,
        local_model: base.clone(),
    };
    let cost = cost::cost(&report, &Prices::load(&context.workspace.prices())?, around);
    context.answer(&cost, || cost.text())
}

/// The provider and the model that a name stands for; none for models of this machine.
fn only(name: &str, settings: &Settings) -> Option<(Option<String>, String)> {
    if name == OWN || name == settings.finetune.base_model {
        return None;
    }
    Some(match settings.models.get(name) {
        Some(row) => (Some(row.provider.clone()), row.model.clone()),
        None => (None, tokens::base_of(name).to_owned()),
    })
}

/// Of the last job that this workspace has trained from a base model.
fn last_speed(context: &Context, base: &str) -> Option<Speed> {
    let jobs = hone_server::jobs(&context.workspace.server()).into_iter();
    let ended = jobs.filter(|job| job.status == JobStatus::Succeeded && job.model == base);
    let last = ended.max_by_key(|job| job.finished_at)?;
    let seconds = last.finished_at? - last.created_at;
    let tokens_per_second = last.trained_tokens? as f64 / seconds.max(1) as f64;
    Some(Speed { tokens_per_second, measured: Measured::LastJob })
}
