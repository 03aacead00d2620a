use std::path::Path;

use clap::Args;
use hone::{
    auto::Auto,
    config::Settings,
    dataset::check::{self, Severity},
    error::Kind,
    finetune::{self, Options},
    model::wire::{Hyperparameters, Job},
    store,
};

use crate::{
    commands::{plan, status},
    context::Context,
    error::{CommandError, Result},
    models::Models,
};

/// Upload the dataset, train, and follow the job to its end
///
/// It can be closed: the job goes on, and `hone status --follow` or the same command picks it up. Replaces
/// finetune_openai.py.
#[derive(Clone, Debug, Default, Args)]
pub struct Finetune {
    /// Passes over the data
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub n_epochs: Option<u32>,
    /// Rows per optimiser step; chosen by the provider when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub batch_size: Option<u32>,
    /// Factor on the provider's learning rate
    #[arg(long, value_name = "X", value_parser = positive)]
    pub learning_rate_multiplier: Option<f64>,
    /// Width of the low-rank update; of the local trainer alone
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub lora_rank: Option<u32>,
    /// Scale of the low-rank update, twice its rank when left out; of the local trainer alone
    #[arg(long, value_name = "X", value_parser = positive)]
    pub lora_alpha: Option<f64>,
    /// Stop when so many epochs in a row have not lowered the validation loss; of the local trainer alone
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub early_stopping_patience: Option<u32>,
    /// End of the tuned model's name
    #[arg(long)]
    pub suffix: Option<String>,
    /// Start the job and leave
    #[arg(long)]
    pub detach: bool,
    /// Print what it will take (calls, tokens, dollars, hours) and on what assumptions; nothing is sent
    #[arg(long)]
    pub dry_run: bool,
}

impl Finetune {
    fn flags(&self) -> Vec<(&'static str, String)> {
        let mut flags = Vec::new();
        flags.extend(self.n_epochs.map(|n| ("finetune.n_epochs", n.to_string())));
        flags.extend(self.lora_rank.map(|n| ("finetune.lora_rank", n.to_string())));
        let patience = self.early_stopping_patience;
        flags.extend(patience.map(|n| ("finetune.early_stopping_patience", n.to_string())));
        flags.extend(self.suffix.clone().map(|suffix| ("finetune.suffix", suffix)));
        flags
    }
}

pub async fn run(args: &Finetune, context: &Context) -> Result {
    let settings = context.settings(&args.flags())?;
    if args.dry_run {
        return plan::finetune(context, &settings);
    }
    let mut models = Models::new(context, &settings);
    let job = execute(args, context, &settings, &mut models).await;
    models.close().await;
    let job = job?;
    context.answer(&job, || status::text(&job))
}

/// Starts or picks up the job; follows it unless it is to be left alone.
pub async fn execute(
    args: &Finetune,
    context: &Context,
    settings: &Settings,
    models: &mut Models<'_>,
) -> Result<Job> {
    let dataset = context.workspace.dataset();
    check(&dataset)?;
    let (client, model) = models.trainer().await?;
    let options = Options {
        model,
        suffix: Some(args.suffix.clone().unwrap_or_else(|| settings.finetune.suffix.clone())),
        hyperparameters: Hyperparameters {
            n_epochs: args.n_epochs.map_or(settings.finetune.n_epochs, Auto::Fixed),
            batch_size: args.batch_size.into(),
            learning_rate_multiplier: args.learning_rate_multiplier.into(),
            lora_rank: args.lora_rank.map_or(settings.finetune.lora_rank, Auto::Fixed),
            lora_alpha: args.lora_alpha.into(),
            early_stopping_patience: args
                .early_stopping_patience
                .map_or(settings.finetune.early_stopping_patience, Auto::Fixed),
            ..Hyperparameters::default()
        },
        seed: i64::try_from(context.global.seed).ok(),
        validation: Some(context.workspace.validation()).filter(|path| path.exists()),
    };
    // Two at once would both find no job and start one each.
    let lock = store::Lock::take(&context.workspace.lock("finetune"))?;
    let started = finetune::start(&client, &context.workspace, &dataset, &options, &context.events).await?;
    drop(lock);
    if args.detach {
        return Ok(started.job);
    }
    Ok(finetune::follow(&client, &context.workspace, &started.job.id, &context.events, &context.cancel)
        .await?)
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && f64::is_finite(value) => Ok(value),
        _ => Err("it has to be a number above 0".into()),
    }
}

/// Problems that are listed; the rest is counted.
const LISTED: usize = 10;

/// What a provider would refuse is said before anything is set up or uploaded, with its line.
fn check(path: &Path) -> Result<()> {
    let text = match store::read_text(path) {
        // Said next, with what makes one.
        Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    finetune::require_examples(path)?;
    let report = check::check(&text);
    let faults: Vec<_> =
        report.problems.iter().filter(|p| p.severity == Severity::Error && p.line.is_some()).collect();
    if faults.is_empty() {
        return Ok(());
    }
    let mut message = format!("`{}` would be refused:", path.display());
    for fault in faults.iter().take(LISTED) {
        message.push_str(&format!("\n  {fault}"));
    }
    if faults.len() > LISTED {
        message.push_str(&format!("\n  and {} more", faults.len() - LISTED));
    }
    Err(CommandError::new(Kind::Input, message)
        .hint("mend these lines; `hone prepare` writes a file without such faults"))
}
