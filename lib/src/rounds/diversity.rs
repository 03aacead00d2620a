//! Whether apps still differ: models that learn from their own kind tend to one answer for everything.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Round;
use crate::{
    evolve::EvolutionLog,
    store::{Workspace, parse_lines, read_text},
    trial::Arm,
};

/// With fewer apps a share says nothing.
const ENOUGH: usize = 10;
/// What may be lost of the first round's variety.
const KEPT: f64 = 0.8;

/// How much a set of apps varies. An app is the calls of Streamlit in the order in which its source has them: texts, data and
/// layout do not count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diversity {
    pub apps: usize,
    /// Different ones among them, 0 to 1.
    pub distinct: f64,
    /// Entropy of the calls in bits: 0 when there is only one, 5 for 32 that are equally frequent.
    pub entropy: f64,
}

/// A loss of variety that is too large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fall {
    pub of: &'static str,
    pub before: f64,
    pub now: f64,
}

impl Diversity {
    /// Of the apps that call anything; none without one.
    pub fn of(apps: impl IntoIterator<Item = Vec<String>>) -> Option<Self> {
        let apps: Vec<Vec<String>> = apps.into_iter().filter(|calls| !calls.is_empty()).collect();
        let distinct = apps.iter().collect::<BTreeSet<_>>().len();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for call in apps.iter().flatten() {
            *counts.entry(call).or_default() += 1;
        }
        let all: usize = counts.values().sum();
        let share = |count: &usize| *count as f64 / all as f64;
        (!apps.is_empty()).then(|| Self {
            apps: apps.len(),
            distinct: distinct as f64 / apps.len() as f64,
            entropy: counts.values().map(share).map(|p| -p * p.log2()).sum::<f64>().max(0.0),
        })
    }

    /// Of the best app of each evolution of a round.
    pub fn taught(workspace: &Workspace, round: &Round) -> Option<Self> {
        let best = |id: &String| {
            let text = read_text(&workspace.log(id, round.round)).ok()?;
            let log: EvolutionLog = serde_json::from_str(&text).ok()?;
            let best =
                log.evolution_history.into_iter().find(|entry| entry.iteration == log.best_iteration)?;
            Some(
                best.evidence
                    .statics
                    .calls
                    .into_iter()
                    .filter(|call| !call.dead)
                    .map(|call| call.path)
                    .collect(),
            )
        };
        Self::of(round.briefs.iter().filter_map(best))
    }

    /// Of what the tuned model answered in a trial.
    pub fn answered(workspace: &Workspace, trial: &str) -> Option<Self> {
        let text = read_text(&workspace.trials().join(trial).join("results.jsonl")).ok()?;
        // The evidence of a row is another critic's where the trial is old.
        let (rows, _) = parse_lines::<Value>(&text);
        let calls = |row: &Value| -> Option<Vec<String>> {
            let calls = row["evidence"]["static"]["calls"].as_array()?;
            let live = calls.iter().filter(|call| call["dead"] != true);
            Some(live.filter_map(|call| Some(call["path"].as_str()?.to_owned())).collect())
        };
        let tuned = rows.iter().map(|line| &line.value).filter(|row| row["arm"] == Arm::TUNED);
        Self::of(tuned.filter_map(calls))
    }

    /// What fell by more than a fifth since the first round, if there were enough apps in both.
    pub fn fall(&self, first: &Self) -> Option<Fall> {
        if self.apps.min(first.apps) < ENOUGH {
            return None;
        }
        let both = [
            ("different apps among all", first.distinct, self.distinct),
            ("entropy of their calls", first.entropy, self.entropy),
        ];
        let fallen = both.into_iter().find(|(_, before, now)| *now < KEPT * before);
        fallen.map(|(of, before, now)| Fall { of, before, now })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_app_for_everything_has_no_variety() {
        let of = |apps: &[&[&str]]| {
            Diversity::of(apps.iter().map(|calls| calls.iter().map(|call| (*call).to_owned()).collect()))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[&[], &[]]), None);
        let same = of(&[&["st.title"], &["st.title"], &[]]).unwrap();
        assert_eq!((same.apps, same.distinct, same.entropy), (2, 0.5, 0.0));
        let two = of(&[&["st.title", "st.button"], &["st.button", "st.title"]]).unwrap();
        assert_eq!((two.distinct, two.entropy), (1.0, 1.0));
    }

    #[test]
    fn only_a_loss_of_more_than_a_fifth_among_enough_apps_is_a_fall() {
        let of = |apps, distinct, entropy| Diversity { apps, distinct, entropy };
        let first = of(20, 1.0, 4.0);
        assert_eq!(of(20, 0.8, 3.2).fall(&first), None);
        assert_eq!(of(20, 0.79, 4.0).fall(&first).unwrap().of, "different apps among all");
        assert_eq!(of(20, 1.0, 3.1).fall(&first).unwrap().now, 3.1);
        assert_eq!(of(9, 0.1, 0.1).fall(&first), None);
        assert_eq!(of(20, 0.1, 0.1).fall(&of(9, 1.0, 4.0)), None);
    }

    proptest! {
        #[test]
        fn the_order_of_apps_makes_no_difference(apps in prop::collection::vec(prop::collection::vec(0usize..5, 0..6), 1..12)) {
            let names = ["st.a", "st.b", "st.c", "st.d", "st.e"];
            let read = |apps: &[Vec<usize>]| {
                Diversity::of(apps.iter().map(|app| app.iter().map(|call| names[*call].to_owned()).collect()))
            };
            let turned: Vec<_> = apps.iter().rev().cloned().collect();
            match (read(&apps), read(&turned)) {
                (Some(one), Some(other)) => {
                    prop_assert_eq!((one.apps, one.distinct), (other.apps, other.distinct));
                    prop_assert!((one.entropy - other.entropy).abs() < 1e-12);
                    prop_assert!(one.entropy <= 5f64.log2() + 1e-12 && one.distinct > 0.0);
                }
                (one, other) => prop_assert_eq!(one, other),
            }
        }
    }
}
