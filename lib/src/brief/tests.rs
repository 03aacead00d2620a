//! What the shipped briefs promise.

use std::collections::{BTreeMap, BTreeSet};

use super::near::{self, Fingerprint, Reason};
use super::*;

fn all() -> Vec<Brief> {
    [shipped_train(), shipped_heldout(), shipped_sealed()].concat()
}

fn families(briefs: &[Brief]) -> BTreeSet<&str> {
    briefs.iter().map(|brief| brief.family.as_str()).collect()
}

fn count_by<'a>(briefs: &'a [Brief], key: impl Fn(&'a Brief) -> &'a str) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for brief in briefs {
        *counts.entry(key(brief)).or_default() += 1;
    }
    counts
}

#[test]
fn counts() {
    assert_eq!((shipped_train().len(), shipped_heldout().len(), shipped_sealed().len()), (120, 60, 60));
    assert!(kinds(&all()).len() >= 28);
    assert!(families(&all()).len() >= 210);
}

#[test]
fn training_covers_its_kinds_evenly() {
    let train = shipped_train();
    let counts = count_by(&train, |brief| &brief.kind);
    assert!(counts.len() >= 18);
    assert!(counts.values().all(|&n| n >= 4), "{counts:?}");
}

#[test]
fn two_fifths_of_what_is_kept_apart_are_of_kinds_that_training_never_sees() {
    let train = kinds(&shipped_train());
    let unseen = |briefs: Vec<Brief>| -> Vec<Brief> {
        briefs.into_iter().filter(|brief| !train.contains(&brief.kind)).collect()
    };
    let four = ["converter", "editor", "log-viewer", "profile"];
    let others = ["annotator", "approval", "generator", "simulator"];
    let heldout = unseen(shipped_heldout());
    assert_eq!(count_by(&heldout, |brief| &brief.kind), four.map(|kind| (kind, 6)).into());
    let sealed = unseen(shipped_sealed());
    let expected = [four, others].concat().into_iter().map(|kind| (kind, 3)).collect();
    assert_eq!(count_by(&sealed, |brief| &brief.kind), expected);
}

#[test]
fn what_is_kept_apart_has_every_kind_of_training() {
    let train = kinds(&shipped_train());
    assert!(train.is_subset(&kinds(&shipped_heldout())) && train.is_subset(&kinds(&shipped_sealed())));
}

#[test]
fn ids_are_unique_across_all_sets_and_tell_the_kind() {
    let all = all();
    assert!(count_by(&all, |brief| brief.id.as_str()).values().all(|&n| n == 1));
    for brief in &all {
        assert!(brief.id.as_str().starts_with(&format!("{}-", brief.kind)), "{}", brief.id);
    }
}

#[test]
fn families_are_small_of_one_kind_and_in_one_set() {
    let (sets, all) = ([shipped_train(), shipped_heldout(), shipped_sealed()], all());
    assert_eq!(sets.iter().map(|set| families(set).len()).sum::<usize>(), families(&all).len());
    // Outside training each brief is a family, or a trial would have fewer things to draw than it has briefs.
    assert_eq!(sets[1..].iter().map(|set| families(set).len()).sum::<usize>(), 120);
    assert!(count_by(&all, |brief| &brief.family).values().all(|&n| n <= 3));
    let with_kind: BTreeSet<_> = all.iter().map(|brief| (&brief.family, &brief.kind)).collect();
    assert_eq!(with_kind.len(), families(&all).len());
}

/// The pairs of briefs for which `alike` gives a reason.
fn alike(
    a: &[Brief],
    b: &[Brief],
    alike: impl Fn(&Fingerprint, &Fingerprint) -> Option<Reason>,
) -> Vec<String> {
    let prepared = |briefs: &[Brief]| -> Vec<(BriefId, Fingerprint)> {
        briefs.iter().map(|brief| (brief.id.clone(), Fingerprint::of(&brief.description))).collect()
    };
    let (a, b) = (prepared(a), prepared(b));
    let pairs = a.iter().flat_map(|left| b.iter().map(move |right| (left, right)));
    pairs
        .filter(|(left, right)| left.0 < right.0)
        .filter_map(|(left, right)| Some(format!("{} {}: {}", left.0, right.0, alike(&left.1, &right.1)?)))
        .collect()
}

#[test]
fn no_brief_gives_another_away() {
    // Stricter than near-duplicates need: not even variants within a family overlap.
    let all = all();
    assert_eq!(alike(&all, &all, Fingerprint::overlaps), Vec::<String>::new());
}

#[test]
fn no_two_briefs_share_a_skeleton() {
    // Unrelated briefs measure up to 0.10; a template filled in with other nouns measures 0.36 and more.
    let all = all();
    let similar =
        |a: &Fingerprint, b: &Fingerprint| Some(a.similarity(b)).filter(|&s| s >= 0.2).map(Reason::Similar);
    assert_eq!(alike(&all, &all, similar), Vec::<String>::new());
    let filled = |noun: &str| {
        format!("Create a {noun} dashboard with key metrics, a trend chart and a filter for {noun} data")
    };
    assert!(near::similarity(&filled("sales"), &filled("energy")) >= 0.3);
}

#[test]
fn lengths_are_spread() {
    let mut words: Vec<usize> =
        all().iter().map(|brief| brief.description.split_whitespace().count()).collect();
    words.sort_unstable();
    assert!(words[0] <= 6 && words[24] <= 16, "short ones: {:?}", &words[..30]);
    assert!(words[215] >= 50 && (95..=130).contains(&words[239]), "long ones: {:?}", &words[210..]);
    let bands = [0..12, 12..24, 24..36, 36..48, 48..72, 72..131];
    for band in bands {
        let n = words.iter().filter(|&n| band.contains(n)).count();
        assert!(n >= 12, "{n} briefs of {band:?} words");
    }
}

#[test]
fn tones_and_forms_vary() {
    let all = all();
    let share = |is: &dyn Fn(&Brief) -> bool| all.iter().filter(|brief| is(brief)).count();
    assert!(share(&|brief| brief.description.contains("\n- ") || brief.description.contains(":\n")) >= 2);
    assert!(share(&|brief| brief.description.contains('\n')) >= 5);
    assert!(share(&|brief| brief.description.starts_with(char::is_lowercase)) >= 50);
    assert!(share(&|brief| !brief.description.is_ascii()) >= 12);
    assert!((40..120).contains(&share(&|brief| !brief.requirements.is_empty())));
    let first_words = |brief: &Brief| {
        brief.description.split_whitespace().take(2).collect::<Vec<_>>().join(" ").to_lowercase()
    };
    let openings: BTreeSet<_> = all.iter().map(first_words).collect();
    assert!(openings.len() >= 225, "{} different openings", openings.len());
}

#[test]
fn every_shipped_brief_is_for_streamlit_and_complete() {
    for brief in all() {
        assert_eq!(brief.framework.as_deref(), Some("Streamlit"), "{}", brief.id);
        assert!(!brief.kind.is_empty() && !brief.family.is_empty(), "{}", brief.id);
    }
}

#[test]
fn shipped_text_comes_back_byte_for_byte() {
    for (briefs, text) in
        [(shipped_train(), TRAIN_JSONL), (shipped_heldout(), HELDOUT_JSONL), (shipped_sealed(), SEALED_JSONL)]
    {
        let written: String =
            briefs.iter().map(|brief| serde_json::to_string(brief).unwrap() + "\n").collect();
        assert_eq!(written, text);
    }
}
