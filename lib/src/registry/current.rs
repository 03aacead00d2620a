//! Whom the alias means right now, for whoever asks at every request.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use super::{Canary, Registry, named};

/// What the registry says of the alias.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Office {
    /// None is the base model.
    pub champion: Option<String>,
    pub canary: Option<Canary>,
}

impl Office {
    /// Who answers, in a sentence.
    pub fn sentence(&self) -> String {
        let champion = named(self.champion.as_deref());
        match &self.canary {
            Some(canary) => {
                format!("`ui-agent` is {champion} now, with `{}` as its canary", canary.model)
            }
            None => format!("`ui-agent` is {champion} now, without a canary"),
        }
    }
}

/// The registry as it is read at every request: again only when the file has changed.
#[derive(Debug)]
pub struct Current {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Of the file when it was read: when it changed, and its length. Lines are only ever added.
    seen: Option<(SystemTime, u64)>,
    office: Office,
    /// Why it could not be read the last time.
    trouble: Option<String>,
}

impl Current {
    pub fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::default() }
    }

    /// Whom the alias means. A registry that cannot be read, or is gone, changes nothing: what it said last goes on to hold.
    pub fn office(&self) -> Office {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.path.metadata().ok().and_then(|meta| Some((meta.modified().ok()?, meta.len())));
        if seen.is_some() && (seen != known.seen || known.trouble.is_some()) {
            match Registry::open(&self.path) {
                Ok(registry) => {
                    *known = Known { seen, office: registry.office(), trouble: None };
                }
                Err(error) => {
                    let trouble = error.to_string();
                    if known.trouble.as_ref() != Some(&trouble) {
                        tracing::warn!(%trouble, "the registry cannot be read: the last known champion stays");
                    }
                    known.trouble = Some(trouble);
                }
            }
        }
        known.office.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Deployment, tests::at};

    #[test]
    fn what_was_known_last_holds_while_the_file_is_spoilt_or_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.jsonl");
        let current = Current::new(path.clone());
        assert_eq!(current.office(), Office::default());
        let mut registry = Registry::open(&path).unwrap();
        let forced =
            |model: &str| Deployment { model: Some(model.into()), force: true, ..Deployment::default() };
        registry.deploy(forced("ft:a"), at(0)).unwrap();
        let champion = || current.office().champion;
        assert_eq!(champion().as_deref(), Some("ft:a"));
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, "{\"format\":\"another\"}\n").unwrap();
        assert_eq!(champion().as_deref(), Some("ft:a"), "no guess, and not the base either");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(champion().as_deref(), Some("ft:a"));
        std::fs::write(&path, &good).unwrap();
        registry.deploy(forced("ft:b"), at(1)).unwrap();
        assert_eq!(champion().as_deref(), Some("ft:b"));
        registry.rollback("", at(2)).unwrap();
        registry.rollback("", at(3)).unwrap();
        assert_eq!(champion(), None);
    }
}
