//! Base models that the user added, beside the shipped one: a file each in the cache, next to what was downloaded for it.
//!
//! A model that was on this machine already stays where it is; only its place is written down.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::BASE_MODEL;
use crate::{
    config::nearest,
    error::{Explain, Kind},
    store::{self, StoreError},
};

/// Names that mean something else.
const TAKEN: [&str; 5] = [BASE_MODEL, "ui-agent", "local", "composer", "none"];
const LONGEST_NAME: usize = 64;
const FORMAT: &str = "hone.model";

/// What a base model is called on this machine and on the local server: small letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelName(String);

impl ModelName {
    /// # Errors
    /// When the text is no such name, or means something else already.
    pub fn new(text: &str) -> Result<Self, CatalogError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts || !text.chars().all(plain) || text.len() > LONGEST_NAME {
            return Err(CatalogError::Name(text.to_owned()));
        }
        if TAKEN.contains(&text) {
            return Err(CatalogError::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name that a file's or a hub's own name suggests.
    ///
    /// # Errors
    /// When nothing of it is left.
    pub fn suggested(text: &str) -> Result<Self, CatalogError> {
        let text = text.strip_suffix(".gguf").unwrap_or(text).to_ascii_lowercase();
        let plain = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' });
        let plain: String = plain.take(LONGEST_NAME).collect();
        let trimmed = plain.trim_matches(['-', '.']);
        Self::new(trimmed).map_err(|error| match error {
            CatalogError::Name(_) => CatalogError::Name(text.clone()),
            other => other,
        })
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ModelName {
    type Error = CatalogError;

    fn try_from(text: String) -> Result<Self, CatalogError> {
        Self::new(&text)
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A base model that was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    pub name: ModelName,
    /// What it was added from: a path, or a hub id.
    pub source: String,
    /// A GGUF file, or a folder as the hub stores it.
    pub path: PathBuf,
    /// Of its weights.
    pub sha256: String,
    /// Of its weights.
    pub bytes: u64,
    pub parameters: u64,
    /// `llama` or `qwen2`.
    pub architecture: String,
    /// `Q4_1`, `BF16`.
    pub stored_as: String,
    #[serde(default)]
    pub licence: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: String,
    version: u32,
    #[serde(flatten)]
    model: Added,
}

/// Why the catalog refuses.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("`{0}` cannot be the name of a model")]
    Name(String),
    #[error("the name `{0}` means something else already")]
    Reserved(String),
    #[error("there is a model `{name}` already, from `{from}`")]
    Exists { name: ModelName, from: String },
    #[error("no model `{name}` was added{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    Unknown { name: String, nearest: Option<String> },
    #[error("model `{name}` is not at `{}` any more", path.display())]
    Gone { name: ModelName, path: PathBuf },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for CatalogError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            _ => Kind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Name(_) => {
                "give it one with `--name NAME`: small letters, digits, `-`, `_` and `.`, 64 at most".into()
            }
            Self::Reserved(_) => "give it another with `--name NAME`".into(),
            Self::Exists { name, .. } => {
                format!(
                    "give it another name with `--name NAME`, or take the old one out: `hone models remove {name}`"
                )
            }
            Self::Unknown { .. } => "`hone models` lists those that are known".into(),
            Self::Gone { name, .. } => {
                format!("put it back, or take it out with `hone models remove {name}` and add it again")
            }
            Self::Store(error) => return error.hint(),
        })
    }
}

/// The added models of one user.
#[derive(Clone, Debug)]
pub struct Catalog {
    folder: PathBuf,
}

impl Catalog {
    /// Of the user whose cache this is.
    pub fn new(cache: &Path) -> Self {
        Self { folder: cache.join("models") }
    }

    /// Where what is downloaded for a model goes.
    pub fn downloads(&self, name: &ModelName) -> PathBuf {
        self.folder.join(name.as_str())
    }

    fn record(&self, name: &ModelName) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// All of them, by name. Files that are no records are passed over.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Added>, StoreError> {
        let fail = |e| StoreError::new("list", &self.folder, e);
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(fail(e)),
        };
        let mut models = Vec::new();
        for entry in entries {
            let path = entry.map_err(fail)?.path();
            if path.extension().is_some_and(|ending| ending == "json") {
                models.extend(read(&path));
            }
        }
        models.sort_by(|a: &Added, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// A model by its name, if it was added.
    ///
    /// # Errors
    /// When its file or folder is gone.
    pub fn get(&self, name: &str) -> Result<Option<Added>, CatalogError> {
        let Ok(name) = ModelName::new(name) else { return Ok(None) };
        match read(&self.record(&name)) {
            Some(model) if !model.path.exists() => Err(CatalogError::Gone { name, path: model.path }),
            found => Ok(found),
        }
    }

    /// Fails when another model has the name.
    ///
    /// # Errors
    /// [`CatalogError::Exists`], unless it came from the same source.
    pub fn check_free(&self, name: &ModelName, source: &str) -> Result<(), CatalogError> {
        match read(&self.record(name)) {
            Some(other) if other.source != source => {
                Err(CatalogError::Exists { name: name.clone(), from: other.source })
            }
            _ => Ok(()),
        }
    }

    /// Writes a model down.
    ///
    /// # Errors
    /// When the name is another model's, or the folder cannot be written.
    pub fn add(&self, model: Added) -> Result<(), CatalogError> {
        self.check_free(&model.name, &model.source)?;
        let path = self.record(&model.name);
        Ok(store::write_json(&path, &Record { format: FORMAT.into(), version: 1, model })?)
    }

    /// Takes a model out, and removes what was downloaded for it. What lies elsewhere stays.
    ///
    /// # Errors
    /// When there is none of that name, or something cannot be removed.
    pub fn remove(&self, name: &str) -> Result<Added, CatalogError> {
        let found = ModelName::new(name).ok().and_then(|name| read(&self.record(&name)));
        let Some(model) = found else {
            let known = self.list()?;
            let nearest = nearest(name, known.iter().map(|model| model.name.as_str()));
            return Err(CatalogError::Unknown { name: name.to_owned(), nearest });
        };
        let record = self.record(&model.name);
        fs::remove_file(&record).map_err(|e| StoreError::new("remove", &record, e))?;
        let downloads = self.downloads(&model.name);
        match fs::remove_dir_all(&downloads) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::new("remove", &downloads, e).into())
            }
            _ => Ok(model),
        }
    }
}

fn read(path: &Path) -> Option<Added> {
    let record: Record = serde_json::from_str(&store::read_text(path).ok()?).ok()?;
    (record.format == FORMAT && record.version == 1).then_some(record.model)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(name: &str, source: &str, path: &Path) -> Added {
        Added {
            name: ModelName::new(name).unwrap(),
            source: source.into(),
            path: path.into(),
            sha256: "00".into(),
            bytes: 1,
            parameters: 2,
            architecture: "llama".into(),
            stored_as: "F32".into(),
            licence: None,
        }
    }

    #[test]
    fn names_are_safe_and_their_own() {
        for good in ["qwen2.5-0.5b-instruct", "a", "my_model"] {
            assert_eq!(ModelName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".a", "..", "A", "a/b", "a:b", "ft:x", "a b", "\u{e9}", &"a".repeat(65)] {
            assert!(matches!(ModelName::new(bad), Err(CatalogError::Name(_))), "{bad}");
        }
        for taken in TAKEN {
            assert!(matches!(ModelName::new(taken), Err(CatalogError::Reserved(_))), "{taken}");
        }
        let suggested = |text: &str| ModelName::suggested(text).map(|name| name.to_string()).ok();
        assert_eq!(suggested("Qwen2.5-0.5B-Instruct-Q8_0.gguf").unwrap(), "qwen2.5-0.5b-instruct-q8-0");
        assert_eq!(suggested("../x y").unwrap(), "x-y");
        assert_eq!(suggested("..."), None);
    }

    #[test]
    fn what_was_added_is_found_until_it_is_removed() {
        let cache = tempfile::tempdir().unwrap();
        let catalog = Catalog::new(cache.path());
        assert_eq!(catalog.list().unwrap(), []);
        let weights = cache.path().join("w.gguf");
        fs::write(&weights, "w").unwrap();
        let model = added("mine", "w.gguf", &weights);
        catalog.add(model.clone()).unwrap();
        catalog.add(model.clone()).unwrap();
        assert_eq!(catalog.get("mine").unwrap(), Some(model.clone()));
        assert_eq!(catalog.get("../mine").unwrap(), None);
        let other = catalog.add(added("mine", "x/y", &weights)).unwrap_err();
        assert!(other.hint().unwrap().contains("hone models remove mine"), "{other}");
        fs::create_dir_all(catalog.downloads(&model.name)).unwrap();
        fs::write(cache.path().join("models/notes.json"), "{}").unwrap();
        assert_eq!(catalog.list().unwrap(), std::slice::from_ref(&model));
        fs::rename(&weights, cache.path().join("moved")).unwrap();
        assert!(catalog.get("mine").unwrap_err().to_string().contains("any more"));
        let near = catalog.remove("mime").unwrap_err().to_string();
        assert_eq!(near, "no model `mime` was added; did you mean `mine`?");
        catalog.remove("mine").unwrap();
        assert!(!catalog.downloads(&model.name).exists() && catalog.list().unwrap().is_empty());
        assert!(cache.path().join("moved").exists(), "what lies elsewhere stays");
    }
}
