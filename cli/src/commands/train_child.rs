use std::path::PathBuf;

use clap::Args;

use crate::error::{Exit, Result};

/// Trains the job of one folder; started by the server
#[derive(Debug, Args)]
pub struct TrainChild {
    folder: PathBuf,
}

pub fn run(args: &TrainChild) -> Result {
    // The code is between server and child: 0 is done, anything else may be tried again.
    Ok(if hone_server::run_training_child(&args.folder) == 0 { Exit::Ok } else { Exit::Internal })
}
