//! Models in and out: adapters that another trainer made become tuned models, and models become files that other programs
//! load. Works on the server's folder, whether or not a server runs on it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use hone::{
    error::{Explain, Kind},
    store::StoreError,
};
use hone_engine::{
    gguf, hub,
    lora::{Adapter, AdapterError},
    model::{LoadError, Model},
    tensors::Encoding,
};
use serde::Serialize;

use crate::{
    config::BaseModel,
    disk::{Tuned, TunedModel},
    ids,
};

/// What a model is given out as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// PEFT's folder: the low-rank update alone.
    Adapter,
    /// A folder as the hub stores it, the update merged in.
    Safetensors(Encoding),
    /// One file for llama.cpp, the update merged in.
    Gguf(Encoding),
}

/// A model to be given out.
#[derive(Clone, Debug)]
pub struct Export<'a> {
    /// The server's folder.
    pub root: &'a Path,
    /// Base models that tuned ones may stand on.
    pub models: &'a [BaseModel],
    /// Id of a tuned or a base model.
    pub model: &'a str,
    pub form: Form,
    /// A folder that does not exist yet, or is empty.
    pub out: &'a Path,
    /// What an adapter names as its base: the hub id, where there is one.
    pub base_name: &'a str,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    pub model: String,
    pub base: String,
    /// What to point other programs at.
    pub path: PathBuf,
    pub bytes: u64,
}

/// What is known about a tuned model without loading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TunedCard {
    pub id: String,
    pub base: String,
    pub parent: Option<String>,
    /// Of the adapter's tensors.
    pub bytes: u64,
}

/// Why a model cannot be taken in or given out.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("there is no model `{0}` in this workspace")]
    NoModel(String),
    #[error("the base model `{base}` of `{model}` is not here")]
    NoBase { model: String, base: String },
    #[error("`{0}` is a base model: it has no adapter")]
    NotTuned(String),
    #[error("`{}` is there already and not empty", .0.display())]
    Taken(PathBuf),
    #[error("`{}` cannot be loaded: {source}", path.display())]
    Load { path: PathBuf, source: LoadError },
    #[error("{why}")]
    Form { why: String },
    #[error("the export needs {} MB, `{}` has {} MB free", needed / 1_000_000, folder.display(), free / 1_000_000)]
    Room { needed: u64, free: u64, folder: PathBuf },
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for ExchangeError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Adapter(AdapterError::Io { source, .. }) => match source.kind() {
                io::ErrorKind::NotFound => Kind::Input,
                _ => Kind::Environment,
            },
            Self::Room { .. } => Kind::Environment,
            _ => Kind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoModel(_) => "`hone models` lists those that are known".into(),
            Self::NoBase { base, .. } => format!("add it with `hone models add SOURCE --name {base}`"),
            Self::NotTuned(_) => "choose `--format safetensors` or `--format gguf`".into(),
            Self::Taken(_) => "choose another folder with `--out DIR`".into(),
            Self::Load { source, .. } => return source.hint().map(Into::into),
            Self::Form { .. } => "choose another `--format` or `--type`".into(),
            Self::Room { .. } => "free some space, or choose another disk with `--out DIR`".into(),
            Self::Adapter(error) => error.hint().into(),
            Self::Store(error) => return error.hint(),
        })
    }
}

/// Makes the adapter in `folder`, which another trainer made for `base`, a tuned model; adding it twice adds it once.
/// Returns its id.
///
/// # Errors
/// When it is no plain LoRA adapter, or not one of this base model.
pub fn add_adapter(
    root: &Path,
    base: &BaseModel,
    folder: &Path,
    suffix: &str,
) -> Result<String, ExchangeError> {
    let load = |source| ExchangeError::Load { path: base.path.clone(), source };
    let config = Model::shape(&base.path).map_err(load)?;
    let adapter = Adapter::load(folder, &config)?;
    // Written anew: other trainers leave much beside an adapter that nobody needs here.
    let fail = |e| StoreError::new("write to", root, e);
    fs::create_dir_all(root).map_err(fail)?;
    let own = tempfile::Builder::new().prefix(".adapter-").tempdir_in(root).map_err(fail)?;
    adapter.save(own.path(), &config, &base.id)?;
    let tensors = own.path().join("adapter_model.safetensors");
    let sum = hone::runtime::sha256_of(&tensors)?;
    let id = format!("ft:{}:local:{suffix}:{}", base.id, ids::derived(&["adapter", &sum, suffix], 8));
    let model = TunedModel {
        id: id.clone(),
        base: base.id.clone(),
        parent: None,
        job: String::new(),
        created: ids::now(),
    };
    Tuned::new(root).add(&model, own.path())?;
    Ok(id)
}

/// The tuned models of a server's folder, oldest first.
///
/// # Errors
/// When the folder cannot be read.
pub fn tuned_cards(root: &Path) -> Result<Vec<TunedCard>, StoreError> {
    let tuned = Tuned::new(root);
    let card = |model: TunedModel| {
        let tensors = tuned.folder(&model.id).join("adapter_model.safetensors");
        let bytes = fs::metadata(tensors).map_or(0, |meta| meta.len());
        TunedCard { id: model.id, base: model.base, parent: model.parent, bytes }
    };
    Ok(tuned.list()?.into_iter().map(card).collect())
}

/// Writes a model in a form that other programs load. The folder appears whole or not at all.
///
/// # Errors
/// When there is no such model, the form does not suit it, or the folder cannot be written.
pub fn export(export: &Export) -> Result<Exported, ExchangeError> {
    let tuned = Tuned::new(export.root);
    let (base, chain) = find(export, &tuned)?;
    if export.form == Form::Adapter && chain.is_empty() {
        return Err(ExchangeError::NotTuned(export.model.to_owned()));
    }
    let load = |source| ExchangeError::Load { path: base.path.clone(), source };
    let config = Model::shape(&base.path).map_err(load)?;
    let adapters = chain.iter().map(|model| Adapter::load(&tuned.folder(&model.id), &config));
    let adapters = adapters.collect::<Result<Vec<_>, _>>()?;
    let stack = Adapter::stacked(&config, &adapters);
    let place = Place::make(export.out, room(export.form, base)?)?;
    let name = match export.form {
        Form::Adapter => {
            if let Some(stack) = &stack {
                stack.save(place.path(), &config, export.base_name)?;
            }
            None
        }
        form => merged(export, base, stack.as_ref(), form, place.path())?,
    };
    let folder = place.keep(export.out)?;
    let path = name.map_or_else(|| folder.clone(), |name| folder.join(name));
    let bytes = size(&path).map_err(|e| StoreError::new("look at", &path, e))?;
    Ok(Exported { model: export.model.to_owned(), base: base.id.clone(), path, bytes })
}

/// The base model, and the tuned models from it to the one that is asked for.
fn find<'a>(export: &Export<'a>, tuned: &Tuned) -> Result<(&'a BaseModel, Vec<TunedModel>), ExchangeError> {
    let base = |id: &str| export.models.iter().find(|model| model.id == id);
    if let Some(base) = base(export.model) {
        return Ok((base, Vec::new()));
    }
    let chain = tuned.chain(export.model)?.filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| ExchangeError::NoModel(export.model.to_owned()))?;
    let id = &chain[0].base;
    let base =
        base(id).ok_or_else(|| ExchangeError::NoBase { model: export.model.to_owned(), base: id.clone() })?;
    Ok((base, chain))
}

/// Writes the model with the update merged in; the name of the file, where the form is one file.
fn merged(
    export: &Export,
    base: &BaseModel,
    stack: Option<&Adapter>,
    form: Form,
    folder: &Path,
) -> Result<Option<String>, ExchangeError> {
    let load = |source| ExchangeError::Load { path: base.path.clone(), source };
    let mut model = Model::load(&base.path).map_err(load)?;
    if let Some(stack) = stack {
        stack.merge_into(std::sync::Arc::make_mut(&mut model.weights));
        model.name = export.model.to_owned();
    }
    let fail = |e: io::Error| match e.kind() {
        io::ErrorKind::Unsupported => ExchangeError::Form { why: e.to_string() },
        _ => StoreError::new("write to", folder, e).into(),
    };
    match form {
        Form::Gguf(encoding) => {
            let name = format!("{}.gguf", export.model.replace(':', "-"));
            gguf::save(&model, &folder.join(&name), encoding).map_err(fail)?;
            Ok(Some(name))
        }
        Form::Safetensors(encoding) => {
            let texts = base.path.is_dir().then_some(base.path.as_path());
            hub::save(&model, folder, &hub::Export { encoding, texts }).map_err(fail)?;
            Ok(None)
        }
        Form::Adapter => Ok(None),
    }
}

/// Bytes that an export takes, roughly.
fn room(form: Form, base: &BaseModel) -> Result<u64, ExchangeError> {
    let load = |source| ExchangeError::Load { path: base.path.clone(), source };
    let parameters = Model::card(&base.path).map_err(load)?.parameters;
    Ok(match form {
        Form::Adapter => 0,
        Form::Safetensors(encoding) | Form::Gguf(encoding) => match encoding {
            Encoding::F32 => 4 * parameters,
            Encoding::F16 | Encoding::Bf16 => 2 * parameters,
            Encoding::Q8_0 => parameters + parameters / 8,
        },
    })
}

fn size(path: &Path) -> io::Result<u64> {
    if path.is_file() {
        return Ok(path.metadata()?.len());
    }
    fs::read_dir(path)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// A folder that is being filled, beside the one that it will be.
struct Place(tempfile::TempDir);

impl Place {
    fn make(out: &Path, needed: u64) -> Result<Self, ExchangeError> {
        if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) || out.is_file() {
            return Err(ExchangeError::Taken(out.to_owned()));
        }
        let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let fail = |e| StoreError::new("write to", parent, e);
        fs::create_dir_all(parent).map_err(fail)?;
        let stat = rustix::fs::statvfs(parent).map_err(|e| fail(e.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < needed {
            return Err(ExchangeError::Room { needed, free, folder: parent.to_owned() });
        }
        Ok(Self(tempfile::Builder::new().prefix(".export-").tempdir_in(parent).map_err(fail)?))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn keep(self, out: &Path) -> Result<PathBuf, ExchangeError> {
        use std::os::unix::fs::PermissionsExt;
        let fail = |e| StoreError::new("write", out, e);
        // Temporary folders are private; an export is as readable as any other folder.
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o755)).map_err(fail)?;
        // Renaming over an empty folder replaces it.
        fs::rename(self.path(), out).map_err(fail)?;
        let _ = self.0.keep();
        Ok(out.to_owned())
    }
}
