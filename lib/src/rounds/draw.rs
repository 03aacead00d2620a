//! Which briefs a round evolves.

use std::collections::BTreeSet;

use super::Round;
use crate::{
    brief::{self, Brief},
    store::Workspace,
};

/// The next briefs that no earlier round had, in the order drawn by seed: at most `limit`, and no more than an equal share of
/// what is left for this round and those that follow it. Empty when all are used up.
pub fn fresh(
    briefs: &[Brief],
    used: impl Fn(&Brief) -> bool,
    limit: Option<usize>,
    rounds_left: u32,
    seed: u64,
) -> Vec<Brief> {
    let mut left = brief::sample(briefs, briefs.len(), seed);
    left.retain(|brief| !used(brief));
    let share = left.len().div_ceil(rounds_left.max(1) as usize);
    left.truncate(limit.unwrap_or(share).min(share));
    left
}

/// Whether a brief was drawn by a round before this one, or evolved in one: rounds of older versions did not say what
/// they drew.
pub fn drawn_before<'a>(
    workspace: &'a Workspace,
    rounds: &'a [Round],
    round: u32,
) -> impl Fn(&Brief) -> bool + use<'a> {
    let earlier = rounds.iter().filter(move |earlier| earlier.round < round);
    let drawn: BTreeSet<&str> = earlier.flat_map(|round| &round.briefs).map(String::as_str).collect();
    move |brief| {
        let id = brief.id.as_str();
        drawn.contains(id) || (1..round).any(|earlier| workspace.log(id, earlier).exists())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn briefs(n: usize) -> Vec<Brief> {
        brief::shipped_train().into_iter().take(n).collect()
    }

    #[test]
    fn rounds_share_what_is_there_and_no_brief_comes_twice() {
        let all = briefs(20);
        let mut used = BTreeSet::new();
        let mut sizes = Vec::new();
        for left in [3, 2, 1] {
            let drawn = fresh(&all, |brief| used.contains(&brief.id), None, left, 1);
            sizes.push(drawn.len());
            for brief in drawn {
                assert!(used.insert(brief.id.clone()), "`{}` twice", brief.id);
            }
        }
        assert_eq!((sizes, used.len()), (vec![7, 7, 6], 20));
        assert_eq!(fresh(&all, |brief| used.contains(&brief.id), None, 1, 1), []);
    }

    #[test]
    fn the_first_round_alone_draws_what_a_limit_always_drew() {
        let all = briefs(14);
        assert_eq!(fresh(&all, |_| false, Some(12), 1, 1), brief::sample(&all, 12, 1));
        assert_eq!(fresh(&all, |_| false, None, 1, 1).len(), 14);
        // A limit is a most: three rounds of 14 briefs have five at the start.
        assert_eq!(fresh(&all, |_| false, Some(12), 3, 1).len(), 5);
        assert_eq!(fresh(&all, |_| false, Some(2), 3, 1).len(), 2);
    }

    #[test]
    fn what_earlier_rounds_drew_or_evolved_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(folder.path());
        let all = briefs(4);
        let round = |number, drawn: &[&Brief]| Round {
            briefs: drawn.iter().map(|brief| brief.id.to_string()).collect(),
            ..Round::sample(number)
        };
        let rounds = [round(1, &[&all[0]]), round(2, &[&all[1]])];
        std::fs::create_dir_all(workspace.logs()).unwrap();
        std::fs::write(workspace.log(all[2].id.as_str(), 1), "{}").unwrap();
        std::fs::write(workspace.log(all[3].id.as_str(), 2), "{}").unwrap();
        let used = |round| all.iter().map(drawn_before(&workspace, &rounds, round)).collect::<Vec<bool>>();
        assert_eq!(used(1), [false; 4]);
        assert_eq!(used(2), [true, false, true, false]);
        assert_eq!(used(3), [true; 4]);
    }
}
