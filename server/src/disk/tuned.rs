//! Tuned models: `models/<id>/`, a PEFT adapter with `model.json` beside it.
//!
//! The folder is what PEFT writes, so other servers can load it. A model that continued another one's training applies
//! on top of it: `parent` names it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hone::store::{StoreError, write_json};
use serde::{Deserialize, Serialize};

use super::{clean, folder_names, read_json, remove_folder};
use crate::ids;

/// What is known about a tuned model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunedModel {
    /// `ft:<base>:local:<suffix>:<8 letters>[:ckpt-step-<n>]`
    pub id: String,
    /// Id of the base model.
    pub base: String,
    #[serde(default)]
    pub parent: Option<String>,
    pub job: String,
    /// Unix seconds.
    pub created: i64,
}

/// How the names of folders start that are still being written.
const PARTIAL: &str = ".partial-";

/// The folder of tuned models.
#[derive(Clone, Debug)]
pub struct Tuned {
    folder: PathBuf,
}

impl Tuned {
    pub fn new(root: &Path) -> Self {
        Self { folder: root.join("models") }
    }

    /// Where the adapter of a model is. Colons are no good in paths.
    pub fn folder(&self, id: &str) -> PathBuf {
        self.folder.join(id.replace(':', "+"))
    }

    pub fn get(&self, id: &str) -> Result<Option<TunedModel>, StoreError> {
        if !id.starts_with("ft:") || id.len() > 200 || id.contains(['/', '+', '\0']) {
            return Ok(None);
        }
        read_json(&self.folder(id).join("model.json"))
    }

    /// All tuned models, oldest first.
    pub fn list(&self) -> Result<Vec<TunedModel>, StoreError> {
        let mut models: Vec<TunedModel> = Vec::new();
        for name in folder_names(&self.folder)? {
            models.extend(read_json::<TunedModel>(&self.folder.join(name).join("model.json"))?);
        }
        models.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(models)
    }

    /// The adapters from the one on the base model to the model's own, or none when a link is missing.
    pub fn chain(&self, id: &str) -> Result<Option<Vec<TunedModel>>, StoreError> {
        let mut chain: Vec<TunedModel> = Vec::new();
        let mut next = Some(id.to_owned());
        while let Some(id) = next {
            let Some(model) = self.get(&id)? else { return Ok(None) };
            if chain.contains(&model) {
                return Ok(None);
            }
            next = model.parent.clone();
            chain.push(model);
        }
        chain.reverse();
        Ok(Some(chain))
    }

    /// Removes models that a killed child left half written. Nobody else may be adding one.
    pub fn clean(&self) {
        clean(&self.folder, PARTIAL);
    }

    /// Takes a copy of the adapter in folder `from`; the model appears whole or not at all.
    pub fn add(&self, model: &TunedModel, from: &Path) -> Result<(), StoreError> {
        let target = self.folder(&model.id);
        if target.join("model.json").exists() {
            return Ok(());
        }
        let failed = |e| StoreError::new("write", &target, e);
        let partial = self.folder.join(format!("{PARTIAL}{}", ids::random("")));
        fs::create_dir_all(&partial).map_err(failed)?;
        for entry in fs::read_dir(from).map_err(|e| StoreError::new("list", from, e))? {
            let entry = entry.map_err(failed)?;
            fs::copy(entry.path(), partial.join(entry.file_name())).map_err(failed)?;
        }
        write_json(&partial.join("model.json"), model)?;
        remove_folder(&target)?;
        fs::rename(&partial, &target).map_err(failed)
    }

    pub fn delete(&self, id: &str) -> Result<(), StoreError> {
        remove_folder(&self.folder(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(id: &str, parent: Option<&str>) -> TunedModel {
        TunedModel {
            id: id.into(),
            base: "m".into(),
            parent: parent.map(str::to_owned),
            job: "ftjob-1".into(),
            created: 1,
        }
    }

    #[test]
    fn a_chain_starts_at_the_base() {
        let root = tempfile::tempdir().unwrap();
        let adapter = tempfile::tempdir().unwrap();
        fs::write(adapter.path().join("adapter_config.json"), "{}").unwrap();
        let tuned = Tuned::new(root.path());
        let first = model("ft:m:local::aaaaaaaa", None);
        let second = model("ft:m:local:x:bbbbbbbb", Some(&first.id));
        tuned.add(&second, adapter.path()).unwrap();
        assert_eq!(tuned.chain(&second.id).unwrap(), None);
        tuned.add(&first, adapter.path()).unwrap();
        assert_eq!(tuned.chain(&second.id).unwrap(), Some(vec![first.clone(), second.clone()]));
        assert!(tuned.folder(&first.id).join("adapter_config.json").exists());
        tuned.delete(&second.id).unwrap();
        assert_eq!(tuned.list().unwrap(), [first]);
    }

    #[test]
    fn strange_ids_are_nobodys() {
        let root = tempfile::tempdir().unwrap();
        let tuned = Tuned::new(root.path());
        for id in ["ft:../../etc", "m", "", "ft:a+b"] {
            assert_eq!(tuned.get(id).unwrap(), None, "{id}");
        }
    }
}
