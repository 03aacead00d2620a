//! The weights of a folder: one safetensors file, or several with an index.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Component, Path},
};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::read_json_if;
use crate::{
    model::{LoadError, malformed},
    tensors::{Format, Tensor, Tensors},
};

pub(crate) const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Endings of files that Python would unpickle.
const PICKLES: [&str; 5] = ["bin", "pt", "pth", "ckpt", "pkl"];

/// Mapped files of weights, by name.
pub(super) struct Shards {
    files: BTreeMap<String, Mmap>,
    /// For each tensor the file that the index says it is in; none without an index.
    index: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    pub(super) fn open(folder: &Path) -> Result<Self, LoadError> {
        let single = folder.join(SINGLE);
        if single.exists() {
            let files = BTreeMap::from([(SINGLE.to_owned(), map(folder, SINGLE)?)]);
            return Ok(Self { files, index: None });
        }
        let Some(Index { weight_map }) = read_json_if(folder, INDEX)? else {
            return Err(pickle_in(folder).map_or(LoadError::NoWeights, LoadError::Pickle));
        };
        let mut files = BTreeMap::new();
        for name in weight_map.values() {
            check_name(name)?;
            if !files.contains_key(name) {
                files.insert(name.clone(), map(folder, name)?);
            }
        }
        Ok(Self { files, index: Some(weight_map) })
    }

    /// Every tensor of every file. The library has checked that each lies inside its file and that none overlap.
    pub(super) fn tensors(&self) -> Result<Tensors<'_>, LoadError> {
        let mut tensors = Tensors::new();
        for (file, bytes) in &self.files {
            let parsed = SafeTensors::deserialize(bytes);
            let parsed =
                parsed.map_err(|error| malformed(format!("`{file}` is not whole safetensors: {error}")))?;
            for (name, view) in parsed.iter() {
                let said = self.index.as_ref().map(|index| index.get(name).map(String::as_str));
                if said.is_some_and(|said| said != Some(file.as_str())) {
                    return Err(malformed(format!(
                        "`{file}` holds tensor `{name}`, which the index puts elsewhere"
                    )));
                }
                let format = format(view.dtype()).ok_or_else(|| LoadError::TensorType {
                    name: name.to_owned(),
                    kind: format!("{:?}", view.dtype()),
                })?;
                let shape = view.shape().iter().rev().copied().collect();
                tensors.insert(name.to_owned(), Tensor { shape, format, data: view.data() });
            }
        }
        let listed = self.index.iter().flat_map(BTreeMap::keys);
        match listed.into_iter().find(|name| !tensors.contains_key(*name)) {
            Some(name) => Err(LoadError::MissingTensor(name.clone())),
            None => Ok(tensors),
        }
    }

    pub(super) fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.files.values().map(|map| &map[..])
    }
}

fn format(dtype: Dtype) -> Option<Format> {
    match dtype {
        Dtype::F32 => Some(Format::F32),
        Dtype::F16 => Some(Format::F16),
        Dtype::BF16 => Some(Format::BF16),
        _ => None,
    }
}

/// A name in an index is the name of a file beside it, nothing else.
fn check_name(name: &str) -> Result<(), LoadError> {
    let mut components = Path::new(name).components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    if is_pickle(name) {
        return Err(LoadError::Pickle(name.to_owned()));
    }
    if !plain || name.contains(['/', '\\', '\0']) || !name.ends_with(".safetensors") {
        return Err(malformed(format!(
            "the index names `{name}`, which is not a safetensors file of the folder"
        )));
    }
    Ok(())
}

fn map(folder: &Path, name: &str) -> Result<Mmap, LoadError> {
    let path = folder.join(name);
    let fail = |source| LoadError::File { file: path.display().to_string(), source };
    // Opening a pipe would wait for somebody to write.
    if !std::fs::metadata(&path).map_err(fail)?.is_file() {
        return Err(malformed(format!("`{name}` is not a file")));
    }
    let file = File::open(&path).map_err(fail)?;
    // SAFETY: read-only map; whoever truncates the file meanwhile gets a SIGBUS, as with every mapped model.
    unsafe { Mmap::map(&file) }.map_err(fail)
}

/// Whether the name says that Python would have to unpickle it.
pub(crate) fn is_pickle(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| PICKLES.contains(&ending))
}

fn pickle_in(folder: &Path) -> Option<String> {
    let names = std::fs::read_dir(folder).ok()?.flatten();
    let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.find(|name| is_pickle(name))
}
