//! Seeded subsets of briefs.
//!
//! A draw orders briefs by SHA-256 of seed and id. So it depends on neither the order of the file nor the version of
//! a random number generator, and adding a brief leaves the order of the others as it was.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use sha2::{Digest, Sha256};

use super::Brief;

/// `n` briefs spread over kinds, in the order drawn: kinds in a seeded order, one brief of each in turn.
///
/// A smaller draw of the same seed is the start of a larger one, so work done for `--limit 20` counts for
/// `--limit 40`. All briefs when there are no more than `n`.
pub fn sample(briefs: &[Brief], n: usize, seed: u64) -> Vec<Brief> {
    spread(briefs.iter(), seed).into_iter().take(n).cloned().collect()
}

/// `n` held-out briefs, of which at least `min_unseen` are of kinds outside `seen_kinds`, in the order of `briefs`.
///
/// Both groups are spread over their kinds and keep the proportion that they have in `briefs` unless `min_unseen` asks
/// for more unseen ones. Where a group has too few briefs the other fills up; there are fewer than `n` only when `briefs`
/// has fewer.
pub fn heldout_sample(
    briefs: &[Brief],
    seen_kinds: &BTreeSet<String>,
    n: usize,
    min_unseen: usize,
    seed: u64,
) -> Vec<Brief> {
    let (seen, unseen): (Vec<_>, Vec<_>) = briefs.iter().partition(|brief| is_seen(brief, seen_kinds));
    let n = n.min(briefs.len());
    let take_unseen = unseen_share(seen.len(), unseen.len(), n, min_unseen);
    let drawn_unseen = spread(unseen.into_iter(), seed).into_iter().take(take_unseen);
    let drawn_seen = spread(seen.into_iter(), seed).into_iter().take(n - take_unseen);
    let drawn: HashSet<_> = drawn_unseen.chain(drawn_seen).map(|brief| &brief.id).collect();
    briefs.iter().filter(|brief| drawn.contains(&brief.id)).cloned().collect()
}

/// Whether training saw a brief's kind. An unknown kind counts as seen, since nobody can claim the opposite.
pub fn is_seen(brief: &Brief, seen_kinds: &BTreeSet<String>) -> bool {
    brief.kind.is_empty() || seen_kinds.contains(&brief.kind)
}

/// How many of `n` (at most all) are unseen: in proportion, at least `min_unseen`, and what both groups can give.
fn unseen_share(seen: usize, unseen: usize, n: usize, min_unseen: usize) -> usize {
    let total = (seen + unseen).max(1);
    let proportional = (n * unseen + total / 2) / total;
    proportional.max(min_unseen).max(n.saturating_sub(seen)).min(unseen).min(n)
}

/// All briefs, kinds taking turns in a seeded order.
fn spread<'a>(briefs: impl Iterator<Item = &'a Brief>, seed: u64) -> Vec<&'a Brief> {
    let mut by_kind: BTreeMap<&str, Vec<&Brief>> = BTreeMap::new();
    for brief in briefs {
        by_kind.entry(&brief.kind).or_default().push(brief);
    }
    let mut kinds: Vec<_> = by_kind.into_iter().collect();
    kinds.sort_by_cached_key(|(kind, _)| rank(seed, "kind", kind));
    for (_, members) in &mut kinds {
        // Popped from the end, so the first to be drawn comes last.
        members.sort_by_cached_key(|brief| Reverse(rank(seed, "brief", brief.id.as_str())));
    }
    let mut drawn = Vec::new();
    while !kinds.is_empty() {
        drawn.extend(kinds.iter_mut().filter_map(|(_, members)| members.pop()));
        kinds.retain(|(_, members)| !members.is_empty());
    }
    drawn
}

fn rank(seed: u64, what: &str, name: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(what);
    hash.update(name);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{BriefId, kinds, shipped_heldout, shipped_train};
    use super::*;

    fn unseen(briefs: &[Brief], seen: &BTreeSet<String>) -> usize {
        briefs.iter().filter(|brief| !seen.contains(&brief.kind)).count()
    }

    fn ids(briefs: &[Brief]) -> Vec<BriefId> {
        briefs.iter().map(|brief| brief.id.clone()).collect()
    }

    #[test]
    fn the_quick_loop_draws_24_with_10_of_unseen_kinds() {
        let seen = kinds(&shipped_train());
        let drawn = heldout_sample(&shipped_heldout(), &seen, 24, 8, 1);
        assert_eq!((drawn.len(), unseen(&drawn, &seen)), (24, 10));
        let unseen_kinds: BTreeSet<_> = kinds(&drawn).difference(&seen).cloned().collect();
        assert_eq!(unseen_kinds.len(), 4);
    }

    /// The figures of README.md are of these 24: the ids of briefs that were added later come behind them in the draw.
    #[test]
    fn the_quick_loop_draws_what_it_drew_when_its_figures_were_measured() {
        let drawn = heldout_sample(&shipped_heldout(), &kinds(&shipped_train()), 24, 8, 1);
        let ids =
            drawn.iter().map(|brief| brief.id.as_str().trim_end_matches("-1")).collect::<Vec<_>>().join(" ");
        assert_eq!(
            ids,
            "form-library-card dashboard-refinery table-football-league monitoring-gas-compressors \
             settings-classroom-screen chat-bank-helper board-newsroom calculator-wall-paint \
             quiz-music-theory survey-commuting calendar-vet-diary tracker-thesis planner-exams \
             gallery-film-posters converter-baking converter-oilfield-units converter-time-zones \
             editor-markdown-notes editor-mail-templates log-viewer-application log-viewer-door-access \
             profile-ward-round profile-gamer profile-supplier"
        );
    }

    #[test]
    fn seeds_draw_differently_and_repeatably() {
        let train = shipped_train();
        assert_eq!(sample(&train, 60, 1), sample(&train, 60, 1));
        assert_ne!(ids(&sample(&train, 60, 1)), ids(&sample(&train, 60, 2)));
        let seen = kinds(&train);
        let heldout = shipped_heldout();
        let draw = |seed| ids(&heldout_sample(&heldout, &seen, 24, 8, seed));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn sixty_briefs_are_three_of_each_kind() {
        let drawn = sample(&shipped_train(), 60, 7);
        for kind in kinds(&shipped_train()) {
            assert_eq!(drawn.iter().filter(|brief| brief.kind == kind).count(), 3, "{kind}");
        }
    }

    #[test]
    fn shares_of_unseen_kinds() {
        // seen, unseen, n, min_unseen -> unseen
        for (seen, unseen, n, min, expected) in [
            (24, 16, 24, 8, 10),
            (24, 16, 24, 12, 12),
            (24, 16, 40, 8, 16),
            (24, 0, 24, 8, 0),
            (0, 16, 10, 0, 10),
            (4, 16, 18, 0, 14),
            (24, 16, 0, 8, 0),
            (24, 16, 4, 8, 4),
            (0, 0, 0, 8, 0),
        ] {
            assert_eq!(unseen_share(seen, unseen, n, min), expected, "{seen} {unseen} {n} {min}");
        }
    }

    proptest! {
        #[test]
        fn draws_have_the_asked_size_without_repetition(n in 0usize..80, min in 0usize..40, seed in any::<u64>()) {
            let (seen, heldout) = (kinds(&shipped_train()), shipped_heldout());
            let drawn = heldout_sample(&heldout, &seen, n, min, seed);
            prop_assert_eq!(drawn.len(), n.min(60));
            prop_assert!(unseen(&drawn, &seen) >= min.min(24).min(n));
            prop_assert_eq!(ids(&drawn).into_iter().collect::<BTreeSet<_>>().len(), drawn.len());
        }

        #[test]
        fn a_smaller_sample_is_the_start_of_a_larger_one(a in 0usize..130, b in 0usize..130, seed in any::<u64>()) {
            let train = shipped_train();
            let (small, large) = (sample(&train, a.min(b), seed), sample(&train, a.max(b), seed));
            prop_assert_eq!(&large[..small.len()], &small[..]);
        }

        #[test]
        fn the_order_of_the_file_does_not_matter(seed in any::<u64>(), turn in 0usize..120) {
            let mut turned = shipped_train();
            turned.rotate_left(turn);
            prop_assert_eq!(sample(&turned, 30, seed), sample(&shipped_train(), 30, seed));
        }
    }
}
