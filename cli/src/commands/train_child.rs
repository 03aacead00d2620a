use std::path::PathBuf;

use clap::Args;

use hone::error::Kind;
use hone_engine::infer;

use crate::error::{CommandError, Exit, Result};

/// Trains the job of one folder; started by the server
#[derive(Debug, Args)]
pub struct TrainChild {
    folder: PathBuf,
    /// As the server's `--kernels`
    #[arg(long, default_value = "auto")]
    kernels: String,
}

pub fn run(args: &TrainChild) -> Result {
    let kernels = infer::Options::named(&args.kernels)
        .map_err(|e| CommandError::new(Kind::Environment, e.to_string()).hint(super::serve::OTHER_KERNELS))?;
    // The code is between server and child: 0 is done, anything else may be tried again.
    Ok(if hone_server::run_training_child(&args.folder, kernels) == 0 { Exit::Ok } else { Exit::Internal })
}
