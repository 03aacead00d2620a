//! The command line as typed.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::commands;

/// Teaches a model a UI habit: evolve, prepare, finetune, test, deploy, and round again.
#[derive(Debug, Parser)]
#[command(name = "hone", version, propagate_version = true, max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, ClapArgs)]
pub struct Global {
    /// Workspace folder
    #[arg(short = 'C', value_name = "DIR", global = true, default_value = ".")]
    pub dir: PathBuf,
    /// Print data alone on stdout: one JSON object, or JSON lines for streams
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Seed of everything that is drawn
    #[arg(long, global = true, default_value_t = 1)]
    pub seed: u64,
    /// What all calls of this workspace together may cost in US dollars, `inf` for no limit [default: 5.0]
    #[arg(long, global = true, value_name = "USD")]
    pub budget: Option<f64>,
    /// Send nothing: models answer from the journal alone
    #[arg(long, global = true)]
    pub offline: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Setup(commands::setup::Setup),
    Doctor(commands::doctor::Doctor),
    Init(commands::init::Init),
    Evolve(commands::evolve::Evolve),
    Import(commands::import::Import),
    Critique(commands::critique::Critique),
    Calibrate(commands::calibrate::Calibrate),
    Prepare(commands::prepare::Prepare),
    Validate(commands::validate::Validate),
    Cost(commands::cost::Cost),
    Finetune(commands::finetune::Finetune),
    Status(commands::status::Status),
    Cancel(commands::cancel::Cancel),
    Pause(commands::pause::Pause),
    Resume(commands::resume::Resume),
    Test(commands::test::Test),
    Deploy(commands::deploy::Deploy),
    Rollback(commands::rollback::Rollback),
    Models(commands::models::Models),
    Generate(commands::generate::Generate),
    Loop(commands::round::Loop),
    Monitor(commands::monitor::Monitor),
    Rate(commands::rate::Rate),
    Calls(commands::calls::Calls),
    Config(commands::config::Config),
    Serve(commands::serve::Serve),
    #[command(hide = true)]
    TrainChild(commands::train_child::TrainChild),
}
