//! The state of a run on disk: enough to go on after a kill as if nothing had happened.
//!
//! One safetensors file: adapter, both moments, and a header entry with the counters and a fingerprint of the run. The
//! order of examples is a function of seed and epoch, so no generator state is needed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::batch::Units;
use super::frozen::Frozen;
use super::optim::Moments;
use super::run::Best;
use super::{Example, Options, TrainError};
use crate::lora::{Adapter, bytes, read_floats};

const FORMAT: &str = "hone.train-state";
const VERSION: u32 = 2;
const HEADER: &str = "hone";
/// Name of the state file in a run's folder.
pub const FILE: &str = "state.safetensors";

/// A run between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub adapter: Adapter,
    pub moments: Moments,
    /// Steps done.
    pub step: usize,
    /// Tokens of all examples seen so far.
    pub tokens_trained: u64,
    pub validation: Validation,
}

/// How the validation loss has gone so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// The epoch's end with the lowest loss.
    pub best: Option<Best>,
    /// Epochs since then.
    pub stale: usize,
    /// The run ended early.
    pub ended: bool,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    run: String,
    step: usize,
    tokens_trained: u64,
    validation: Validation,
}

impl State {
    pub fn new(adapter: Adapter) -> Self {
        let moments = Moments::new(&adapter);
        Self { moments, adapter, step: 0, tokens_trained: 0, validation: Validation::default() }
    }

    fn parts(&self) -> [(&'static str, &Adapter); 3] {
        [("adapter", &self.adapter), ("first", &self.moments.first), ("second", &self.moments.second)]
    }

    /// Writes the state of the run `run` (see [`fingerprint`]) into the folder `dir`, whole or not at all.
    pub fn save(&self, dir: &Path, run: &str) -> Result<(), TrainError> {
        let path = dir.join(FILE);
        let io = |source| TrainError::Io { path: path.clone(), source };
        let file = self.to_safetensors(run).map_err(io)?;
        atomic_write(&path, &file).map_err(io)
    }

    fn to_safetensors(&self, run: &str) -> io::Result<Vec<u8>> {
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            run: run.to_owned(),
            step: self.step,
            tokens_trained: self.tokens_trained,
            validation: self.validation,
        };
        let header = serde_json::to_string(&header)?;
        let parts: Vec<(&str, Vec<u8>)> =
            self.parts().map(|(name, values)| (name, values.tensors().flat_map(bytes).collect())).into();
        let views: Vec<(&str, TensorView)> = parts
            .iter()
            .map(|(name, data)| {
                TensorView::new(Dtype::F32, vec![data.len() / 4], data).map(|view| (*name, view))
            })
            .collect::<Result<_, _>>()
            .map_err(io::Error::other)?;
        let metadata = HashMap::from([(HEADER.to_owned(), header)]);
        safetensors::serialize(views, Some(metadata)).map_err(io::Error::other)
    }

    /// Reads the state that a killed or stopped run left in `dir`; `None` when there is none. `fresh` gives the shapes.
    ///
    /// # Errors
    /// [`TrainError::OtherRun`] when it belongs to a run with other options, data or weights; [`TrainError::State`] when
    /// the file is damaged.
    pub fn load(dir: &Path, run: &str, fresh: &Adapter) -> Result<Option<Self>, TrainError> {
        let path = dir.join(FILE);
        let buffer = match std::fs::read(&path) {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(TrainError::Io { path, source }),
        };
        let header = read_header(&buffer).map_err(|why| TrainError::State { path: path.clone(), why })?;
        if header.format != FORMAT || header.version != VERSION {
            let why = format!(
                "its format is `{} {}`, this engine reads `{FORMAT} {VERSION}`",
                header.format, header.version
            );
            return Err(TrainError::State { path, why });
        }
        if header.run != run {
            return Err(TrainError::OtherRun { path });
        }
        let mut state = Self::new(fresh.clone());
        state.step = header.step;
        state.tokens_trained = header.tokens_trained;
        state.validation = header.validation;
        state.moments.updates = header.step;
        state.fill(&buffer).map_err(|why| TrainError::State { path, why })?;
        Ok(Some(state))
    }

    fn fill(&mut self, buffer: &[u8]) -> Result<(), String> {
        let tensors = SafeTensors::deserialize(buffer).map_err(|e| e.to_string())?;
        let Moments { first, second, .. } = &mut self.moments;
        for (name, target) in [("adapter", &mut self.adapter), ("first", first), ("second", second)] {
            let tensor = tensors.tensor(name).map_err(|e| e.to_string())?;
            let (found, expected) = (tensor.data().len(), 4 * target.parameters());
            if found != expected {
                return Err(format!("`{name}` has {found} bytes, expected {expected}"));
            }
            let mut rest = tensor.data();
            for values in target.tensors_mut() {
                let (these, after) = rest.split_at(4 * values.len());
                read_floats(values, these);
                rest = after;
            }
        }
        Ok(())
    }
}

fn read_header(buffer: &[u8]) -> Result<Header, String> {
    let (_, metadata) = SafeTensors::read_metadata(buffer).map_err(|e| e.to_string())?;
    let entry = metadata.metadata().as_ref().and_then(|entries| entries.get(HEADER));
    let entry = entry.ok_or("it has no header entry of this engine")?;
    serde_json::from_str(entry).map_err(|e| e.to_string())
}

/// Identifies a run: what must be equal for a state to be continued with the same result. Options that only say when
/// things are written are left out, and validation data where nothing depends on it.
pub fn fingerprint(
    frozen: &Frozen,
    train: &Units,
    valid: &Units,
    options: &Options,
) -> Result<String, TrainError> {
    let mut hash = Sha256::new();
    let settings = (&frozen.config, frozen.precision(), options.identity());
    let settings = serde_json::to_vec(&settings)
        .map_err(|error| TrainError::Options(format!("they cannot be written down: {error}")))?;
    hash.update(&settings);
    hash.update(frozen.digest());
    let decisive = if options.early_stop.is_some() { valid.sequences() } else { &[] };
    for sequences in [train.sequences(), decisive] {
        hash.update((sequences.len() as u64).to_le_bytes());
        sequences.iter().for_each(|example| hash_example(&mut hash, example));
    }
    Ok(crate::gguf::hex(&hash.finalize()))
}

fn hash_example(hash: &mut Sha256, example: &Example) {
    hash.update((example.ids.len() as u64).to_le_bytes());
    example.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
    example.trained.iter().for_each(|flag| hash.update([u8::from(*flag)]));
}

/// Writes a file whole or not at all: to a sibling first, flushed to disk, then renamed.
pub fn atomic_write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut sibling = path.as_os_str().to_owned();
    sibling.push(".partial");
    let sibling = PathBuf::from(sibling);
    let written = write_and_flush(&sibling, contents).and_then(|()| std::fs::rename(&sibling, path));
    if written.is_err() {
        // Best effort: on a full disk the half of a file would only be in the way.
        let _ = std::fs::remove_file(&sibling);
    }
    written
}

fn write_and_flush(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lora::LoraConfig;
    use crate::train::testing::{tiny_config, with_random_b};
    use crate::weights::RopeLayout;

    fn adapter(seed: u64) -> Adapter {
        with_random_b(Adapter::new(&tiny_config(RopeLayout::Halves), &LoraConfig::default()), seed)
    }

    #[test]
    fn a_state_survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::new(adapter(1));
        state.moments = Moments { first: adapter(2), second: adapter(3), updates: 9 };
        state.step = 9;
        state.tokens_trained = 1234;
        state.validation = Validation { best: Some(Best { step: 6, loss: 0.5 }), stale: 1, ended: true };
        assert_eq!(State::load(dir.path(), "run", &adapter(0)).unwrap(), None);
        state.save(dir.path(), "run").unwrap();
        assert_eq!(State::load(dir.path(), "run", &adapter(0)).unwrap(), Some(state));
    }

    #[test]
    fn a_state_of_another_run_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        State::new(adapter(1)).save(dir.path(), "run").unwrap();
        let error = State::load(dir.path(), "other", &adapter(0)).unwrap_err();
        assert!(matches!(error, TrainError::OtherRun { .. }));
        assert!(error.to_string().contains("other options, data or base model"), "{error}");
    }

    proptest! {
        #[test]
        fn a_damaged_state_ends_in_an_error(cut in 0usize..2000, noise in any::<[u8; 4]>()) {
            let dir = tempfile::tempdir().unwrap();
            State::new(adapter(1)).save(dir.path(), "run").unwrap();
            let path = dir.path().join(FILE);
            let mut file = std::fs::read(&path).unwrap();
            file.truncate(cut);
            file.extend_from_slice(&noise);
            std::fs::write(&path, file).unwrap();
            prop_assert!(State::load(dir.path(), "run", &adapter(0)).is_err());
        }
    }
}
