//! Apps that never change, scored again and again: whatever moves is the critic.

use std::{collections::BTreeMap, path::Path};

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{App, degraded};
use crate::{
    agent::{Candidate, SourceFile},
    brief::{self, Brief},
    critic::{Critic, CriticError, Level, on_deep_stack},
    evolve::composer::{Composer, Operator},
    store::{self, parse_lines, write_atomic},
};

const FORMAT: &str = "hone.anchor";
const VERSION: u32 = 1;
/// Good apps among the anchors; each is there with a fault too, so that both ends of the scale are held.
const GOOD: usize = 10;
const SEED: u64 = 1;

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anchor {
    format: String,
    version: u32,
    pub name: String,
    pub brief: Brief,
    pub files: Vec<SourceFile>,
}

/// What a critic said of all anchors at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Looks {
    pub critic: String,
    pub level: Level,
    /// By the anchor's name, 0-10.
    pub scores: BTreeMap<String, f64>,
}

/// The anchors of a workspace; written when they are not there yet, and never again: a later version composes other apps.
///
/// # Errors
/// The file cannot be read or written.
pub fn anchors(path: &Path) -> Result<Vec<Anchor>, CriticError> {
    if path.exists() {
        let (lines, _) = parse_lines::<Anchor>(&store::read_text(path)?);
        let known = |anchor: &Anchor| anchor.format == FORMAT && anchor.version == VERSION;
        return Ok(lines.into_iter().map(|line| line.value).filter(known).collect());
    }
    let made =
        on_deep_stack(made).map_err(|e| CriticError::Internal(format!("cannot start a thread: {e}")))?;
    let lines: Vec<String> = made.iter().filter_map(|anchor| serde_json::to_string(anchor).ok()).collect();
    write_atomic(path, format!("{}\n", lines.join("\n")).as_bytes())?;
    Ok(made)
}

/// Composed apps for shipped briefs, spread over the kinds, each as it is and with one fault.
fn made() -> Vec<Anchor> {
    let composer = Composer::new(SEED);
    let apps: Vec<App> = brief::sample(&brief::shipped_train(), GOOD, SEED)
        .into_iter()
        .map(|brief| App {
            name: brief.id.to_string(),
            candidate: composer.propose(&brief, Operator::Restart, 0, &[]),
            brief,
        })
        .collect();
    let mut anchors = Vec::new();
    for (at, app) in apps.iter().enumerate() {
        let anchor = |name: String, files: Vec<SourceFile>| Anchor {
            format: FORMAT.into(),
            version: VERSION,
            name,
            brief: app.brief.clone(),
            files,
        };
        anchors.push(anchor(app.name.clone(), app.candidate.files.clone()));
        let spoilt = degraded(&apps, at, SEED);
        // Another fault for each app.
        if let Some((class, candidate)) = spoilt.get(at % spoilt.len().max(1)) {
            let name = format!("{}: {}", app.name, super::degrade::CLASSES[*class].name);
            anchors.push(anchor(name, candidate.files.clone()));
        }
    }
    anchors
}

impl Looks {
    /// Scores all anchors.
    ///
    /// # Errors
    /// The critic cannot look, or was told to stop.
    pub async fn of(critic: &Critic, anchors: &[Anchor]) -> Result<Self, CriticError> {
        let scores = stream::iter(anchors)
            .map(|anchor| async move {
                let candidate = Candidate { files: anchor.files.clone() };
                let (_, critique) = critic.critique(&anchor.brief, &candidate).await?;
                Ok::<_, CriticError>((anchor.name.clone(), critique.overall_score))
            })
            .buffer_unordered(critic.workers())
            .try_collect()
            .await?;
        Ok(Self { critic: critic.version().to_owned(), level: critic.level(), scores })
    }

    /// Mean change since an earlier look at the same anchors.
    ///
    /// # Errors
    /// In words, why the two do not compare.
    pub fn change(&self, since: &Self) -> Result<f64, String> {
        if self.critic != since.critic {
            return Err(format!("critic `{}` is not `{}`", self.critic, since.critic));
        }
        if self.level != since.level {
            return Err(format!("evidence is {:?}, not {:?}", self.level, since.level).to_lowercase());
        }
        if !self.scores.keys().eq(since.scores.keys()) || self.scores.is_empty() {
            return Err("the anchors are others".into());
        }
        let changes = self.scores.iter().map(|(name, score)| score - since.scores[name]);
        Ok(changes.sum::<f64>() / self.scores.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(scores: &[(&str, f64)]) -> Looks {
        let scores = scores.iter().map(|(name, score)| ((*name).to_owned(), *score)).collect();
        Looks { critic: "3".into(), level: Level::Run, scores }
    }

    #[test]
    fn anchors_are_written_once_and_read_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/anchors.jsonl");
        let made = anchors(&path).unwrap();
        assert_eq!(made.len(), 2 * GOOD, "each app with a fault and without");
        let names: std::collections::BTreeSet<_> = made.iter().map(|anchor| &anchor.name).collect();
        assert_eq!(names.len(), made.len());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(anchors(&path).unwrap(), made);
        std::fs::write(&path, text.lines().take(3).map(|line| format!("{line}\n")).collect::<String>())
            .unwrap();
        assert_eq!(anchors(&path).unwrap(), made[..3], "nothing is added to what was begun with");
    }

    #[test]
    fn only_the_same_apps_under_the_same_critic_compare() {
        let first = looks(&[("a", 8.0), ("b", 2.0)]);
        assert_eq!(looks(&[("a", 7.5), ("b", 2.0)]).change(&first), Ok(-0.25));
        assert_eq!(first.change(&first), Ok(0.0));
        let refused = |now: Looks, why: &str| assert!(now.change(&first).unwrap_err().contains(why));
        refused(looks(&[("a", 8.0)]), "others");
        refused(Looks { critic: "4".into(), ..first.clone() }, "critic `4` is not `3`");
        refused(Looks { level: Level::Browser, ..first.clone() }, "browser, not run");
    }
}
