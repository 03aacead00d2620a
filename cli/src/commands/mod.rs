//! One file per command: its arguments, and `run`.

pub mod calibrate;
pub mod calls;
pub mod cancel;
pub mod compare;
pub mod config;
pub mod cost;
pub mod critique;
pub mod deploy;
pub mod doctor;
pub mod evolve;
pub mod finetune;
pub mod generate;
pub mod import;
pub mod init;
pub mod models;
pub mod monitor;
pub mod pause;
pub mod plan;
pub mod prepare;
pub mod rate;
pub mod resume;
pub mod rollback;
pub mod round;
pub mod serve;
pub mod setup;
pub mod status;
pub mod test;
pub mod train_child;
pub mod validate;

use hone::{cancel::Cancel, error::Kind, event::Events};

use crate::{
    args::{Args, Command},
    context::Context,
    display,
    error::{CommandError, Exit, Result},
};

/// Runs the command to its exit code. Errors go to stderr.
pub fn main(args: Args) -> Exit {
    match started(args) {
        Ok(exit) => exit,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "{error}");
            Exit::from(error.kind)
        }
    }
}

fn started(args: Args) -> Result {
    if let Command::TrainChild(child) = args.command {
        return train_child::run(&child);
    }
    start_logging();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CommandError::new(Kind::Environment, format!("cannot start: {e}")))?;
    let exit = runtime.block_on(run(args));
    // Blocking work that is still under way (a model that is being loaded) must not hold the exit.
    runtime.shutdown_background();
    exit
}

async fn run(args: Args) -> Result {
    let cancel = Cancel::new();
    stop_on_signals(cancel.clone());
    let (events, received) = Events::channel();
    let shown = display::show(received, args.global.quiet);
    let context = Context::new(args.global, events, cancel);
    let result = dispatch(args.command, &context).await;
    drop(context);
    // The display ends when the last sender is gone; a server that is still closing must not hold it.
    let _ = tokio::time::timeout(std::time::Duration::from_millis(500), shown).await;
    result
}

async fn dispatch(command: Command, context: &Context) -> Result {
    match command {
        Command::Setup(c) => setup::run(&c, context).await,
        Command::Doctor(c) => doctor::run(&c, context).await,
        Command::Init(c) => init::run(&c, context),
        Command::Evolve(c) => evolve::run(&c, context).await,
        Command::Import(c) => import::run(&c, context),
        Command::Critique(c) => critique::run(&c, context).await,
        Command::Calibrate(c) => calibrate::run(&c, context).await,
        Command::Prepare(c) => prepare::run(&c, context).await,
        Command::Cost(c) => cost::run(&c, context).await,
        Command::Validate(c) => validate::run(&c, context).await,
        Command::Finetune(c) => finetune::run(&c, context).await,
        Command::Status(c) => status::run(&c, context).await,
        Command::Cancel(c) => cancel::run(&c, context).await,
        Command::Pause(c) => pause::run(&c, context).await,
        Command::Resume(c) => resume::run(&c, context).await,
        Command::Test(c) => test::run(&c, context).await,
        Command::Deploy(c) => deploy::run(&c, context).await,
        Command::Rollback(c) => rollback::run(&c, context),
        Command::Models(c) => models::run(&c, context).await,
        Command::Generate(c) => generate::run(&c, context).await,
        Command::Monitor(c) => monitor::run(&c, context),
        Command::Rate(c) => rate::run(&c, context).await,
        Command::Loop(c) => round::run(&c, context).await,
        Command::Calls(c) => calls::run(&c, context),
        Command::Config(c) => config::run(&c, context),
        Command::Serve(c) => serve::run(&c, context).await,
        Command::TrainChild(c) => train_child::run(&c),
    }
}

/// The first signal stops cleanly, the second kills.
fn stop_on_signals(cancel: Cancel) {
    use tokio::signal::unix::{SignalKind, signal};
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        for first in [true, false] {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            if !first {
                std::process::exit(Exit::Cancelled as i32);
            }
            cancel.cancel();
        }
    });
}

/// Diagnostics for developers: silent unless `HONE_LOG` asks.
fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HONE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
