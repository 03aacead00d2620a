use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use hone::{
    auto::Auto,
    config::Settings,
    dataset::validate::{Code, Format, Options as Looking, Report},
    error::Kind,
    finetune::{self, FinetuneError, Following, Lesson, Options},
    model::wire::{Hyperparameters, Job},
    store,
};

use crate::{
    commands::{plan, status, validate},
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
    /// What is learnt from: `supervised` from the dataset, `dpo` from its preference pairs
    #[arg(long, value_enum, default_value_t)]
    pub method: Lessons,
    /// How strongly `dpo` holds the model to the one that it starts from; chosen by the provider when left out
    #[arg(long, value_name = "X", value_parser = positive)]
    pub beta: Option<f64>,
    /// Go on from this tuned model instead of the base; the usual start of `dpo`
    #[arg(long, value_name = "MODEL")]
    pub from: Option<String>,
    /// End of the tuned model's name
    #[arg(long)]
    pub suffix: Option<String>,
    /// Start the job and leave
    #[arg(long)]
    pub detach: bool,
    /// Print what it will take (calls, tokens, dollars, hours) and on what assumptions; nothing is sent
    #[arg(long)]
    pub dry_run: bool,
    /// Cancel a job that a provider has left in `validating_files` for 30 minutes, and start it again
    #[arg(long)]
    pub restart_stuck: bool,
}

/// The methods that Hone's own datasets are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Lessons {
    #[default]
    Supervised,
    Dpo,
}

impl Lessons {
    fn format(self) -> Format {
        match self {
            Self::Supervised => Format::Chat,
            Self::Dpo => Format::Dpo,
        }
    }
}

impl Finetune {
    /// The file that the method learns from.
    fn dataset(&self, context: &Context) -> PathBuf {
        match self.method {
            Lessons::Supervised => context.workspace.dataset(),
            Lessons::Dpo => context.workspace.preferences(),
        }
    }

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
    if args.beta.is_some() && args.method != Lessons::Dpo {
        return Err(CommandError::usage("`--beta` belongs to `--method dpo`, and this job is supervised")
            .hint("leave it out, or give `--method dpo`"));
    }
    let settings = context.settings(&args.flags())?;
    if args.dry_run && args.method == Lessons::Dpo {
        return Err(CommandError::usage("`--dry-run` plans supervised jobs").hint("leave `--method dpo` out"));
    }
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
    let dataset = args.dataset(context);
    check(&dataset, args.method.format(), context, settings)?;
    let (trainer, base) = models.tuner().await?;
    let model = args.from.clone().unwrap_or(base);
    let books = models.books(trainer.row())?;
    finetune::book(&context.workspace, &books)?;
    finetune::ready(&trainer, &model, jiff::Zoned::now().date(), &context.events).await?;
    let training_type = settings.models.get(trainer.row()).and_then(|row| row.training_type.clone());
    let options = Options { training_type, ..options(args, context, settings, model) };
    let mut patient = false;
    loop {
        // Two at once would both find no job and start one each.
        let lock = store::Lock::take(&context.workspace.lock("finetune"))?;
        let (workspace, events) = (&context.workspace, &context.events);
        let started = finetune::start(&trainer, workspace, &dataset, &options, &books, events).await?;
        drop(lock);
        if args.detach {
            return Ok(started.job);
        }
        let following = Following { patient, ..Following::default() };
        let id = started.job.id;
        let ended = finetune::follow(&trainer, workspace, &id, following, events, &context.cancel).await;
        finetune::book(workspace, &books)?;
        match ended {
            Err(FinetuneError::Stuck { job, minutes }) => {
                match given_up(args, context, &job, minutes).await {
                    Some(true) => finetune::give_up(&trainer, workspace, &job).await?,
                    Some(false) => patient = true,
                    None => return Err(FinetuneError::Stuck { job, minutes }.into()),
                }
            }
            ended => return Ok(ended?),
        }
    }
}

fn options(args: &Finetune, context: &Context, settings: &Settings, model: String) -> Options {
    Options {
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
        // Its rows are no pairs.
        validation: Some(context.workspace.validation())
            .filter(|path| args.method == Lessons::Supervised && path.exists()),
        lesson: match args.method {
            Lessons::Supervised => Lesson::Supervised,
            Lessons::Dpo => Lesson::Dpo { beta: args.beta.into() },
        },
        training_type: None,
    }
}

/// Whether a stuck job is to be cancelled and started again; None when nobody can say.
async fn given_up(args: &Finetune, context: &Context, job: &str, minutes: i64) -> Option<bool> {
    if args.restart_stuck {
        return Some(true);
    }
    let asks = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !asks || context.global.json || context.global.quiet {
        return None;
    }
    let asked = format!(
        "job `{job}` is in `validating_files` for {minutes} minutes; cancel it and start again? [y/N] "
    );
    tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        let _ = write!(std::io::stderr(), "{asked}");
        std::io::stdin().read_line(&mut line).ok()?;
        Some(matches!(line.trim(), "y" | "Y" | "yes"))
    })
    .await
    .ok()?
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && f64::is_finite(value) => Ok(value),
        _ => Err("it has to be a number above 0".into()),
    }
}

/// Problems of each kind that are listed; the rest is counted.
const LISTED: usize = 5;

/// What a provider would refuse, and what would teach the wrong thing, is said before anything is set up or uploaded.
fn check(path: &Path, format: Format, context: &Context, settings: &Settings) -> Result<()> {
    finetune::require_examples(path)?;
    let report = look(path, format, context, settings)?;
    let Some(listed) = faults(&report) else { return Ok(()) };
    let message = format!("`{}` should not be trained on:{listed}", path.display());
    let error = CommandError::new(Kind::Input, message);
    Err(if report.counts.contains_key(&Code::TeachesUnwantedHabit) {
        error.hint(format!(
            "`hone validate {}` lists the rows; `hone prepare` writes a file without them; see docs/validate.md",
            path.display()
        ))
    } else {
        error.hint(
            "mend these lines; `hone prepare` writes a file without such faults; see docs/troubleshooting/invalid-format.md",
        )
    })
}

/// What `hone validate` says of a dataset for the method that is trained.
pub fn look(path: &Path, format: Format, context: &Context, settings: &Settings) -> Result<Report> {
    let own = validate::options(None, context, settings)?;
    validate::read(path, &Looking { format: Some(format), most: LISTED, ..own }, context)
}

/// What stops a job, a line each; None when there is nothing.
pub fn faults(report: &Report) -> Option<String> {
    if report.ok {
        return None;
    }
    let listed: String = report.errors().map(|fault| format!("\n  {fault}")).collect();
    let hidden: u64 = report.errors_found() - report.errors().count() as u64;
    Some(if hidden > 0 { format!("{listed}\n  and {hidden} more") } else { listed })
}
