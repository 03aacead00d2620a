//! Which apps rows teach beside which: improvements, pairs, and what people said.

use super::{
    By, Inputs, Policy, PrepareOptions, Prepared, Roles, Step, Votes,
    manifest::RowKind,
    tests::{build, entry, log, logs, made, many, options},
};
use crate::{brief::Brief, rating};

/// The rows of one kind: which candidate each teaches, beside which other.
fn taught(prepared: &Prepared, kind: RowKind) -> Vec<(u32, Option<u32>)> {
    let rows = prepared.manifest.rows.iter().filter(|record| record.row == kind);
    let mut rows: Vec<_> =
        rows.map(|row| (row.source.iteration, row.other.as_ref().map(|other| other.iteration))).collect();
    rows.sort_unstable();
    rows
}

#[test]
fn without_a_parent_an_improvement_starts_from_the_best_that_was_there_before() {
    let parents = |parents: &[u32]| {
        let mut source = log(
            "a",
            vec![entry(1, 0.5, "one"), entry(2, 3.0, "two"), entry(3, 9.0, "three"), entry(4, 7.5, "four")],
        );
        source.log.evolution_history[2].parents = parents.to_vec();
        source.log.evolution_history[3].parents = vec![3];
        let options = PrepareOptions { improvement_share: 0.5, ..options() };
        let prepared = build(&logs([source]), &[], &options).unwrap();
        let rows = prepared.manifest.rows.iter().filter(|row| row.row == RowKind::Improvement);
        let mut rows: Vec<_> = rows
            .map(|row| (row.source.iteration, row.other.as_ref().unwrap().iteration, row.step.unwrap()))
            .collect();
        rows.sort_unstable_by_key(|row| row.0);
        rows
    };
    // The fourth came from the third, which is better: what it improves on is older.
    assert_eq!(parents(&[]), [(3, 2, Step::Trajectory), (4, 2, Step::Trajectory)]);
    assert_eq!(parents(&[1]), [(3, 1, Step::Parent), (4, 2, Step::Trajectory)]);
}

#[test]
fn a_step_that_makes_no_row_leaves_its_place_to_another() {
    for long in 0..=12 {
        let mut all = many(12);
        for source in &mut all[..long] {
            source.log.evolution_history[0].files[0].content.push_str(&"# talk\n".repeat(3_000));
        }
        let options = PrepareOptions { improvement_share: 0.25, max_improvement_tokens: 3_000, ..options() };
        let examples = build(&logs(all), &[], &options).unwrap().summary.examples;
        assert_eq!((examples.positive, examples.improvement), (12, 4.min(12 - long)), "{long} are too long");
    }
}

#[test]
fn two_answers_at_most_are_rejected_for_one_and_never_two_of_a_kind() {
    let mut source = log(
        "a",
        vec![
            entry(1, 1.0, "one"),
            entry(2, 2.0, "one"),
            entry(3, 3.0, "two"),
            entry(4, 4.0, "three"),
            entry(5, 9.0, "good"),
        ],
    );
    source.log.evolution_history[2].model = "composer".into();
    source.log.evolution_history[4].operator = "restyle".into();
    source.log.evolution_history[0].operator = "draft".into();
    for entry in &mut source.log.evolution_history[..2] {
        entry.model = "base".into();
    }
    source.log.evolution_history[3].model = "base".into();
    let prepared = made(&logs([source]));
    // Its own writer's first, then in the order of the log, without the copy of the first.
    assert_eq!(taught(&prepared, RowKind::Preference), [(5, Some(1)), (5, Some(3))]);
    let pairs: Vec<_> = prepared.manifest.rows.iter().filter(|row| row.policy.is_some()).collect();
    let of =
        |rejected: u32| pairs.iter().find(|row| row.other.as_ref().unwrap().iteration == rejected).unwrap();
    assert_eq!((of(1).policy, of(3).policy), (Some(Policy::Off), Some(Policy::On)));
    let roles =
        |chosen: &str, rejected: &str| Some(Roles { chosen: chosen.into(), rejected: rejected.into() });
    assert_eq!((&of(1).roles, of(1).by), (&roles("composer restyle", "agent draft"), Some(By::Critic)));
    assert_eq!(of(3).roles, roles("composer restyle", "composer revise"));
}

fn rating(source: rating::Source, a: (&str, u32), b: (&str, u32), prefers: rating::Choice) -> rating::Rating {
    let side = |(log, iteration): (&str, u32)| rating::Side {
        model: "m".into(),
        arm: None,
        sample: None,
        log: Some(log.into()),
        iteration: Some(iteration),
        score: None,
        files: vec![],
    };
    rating::Rating {
        format: rating::FORMAT.into(),
        version: rating::FORMAT_VERSION,
        at: "2026-11-26T12:00:00Z".into(),
        rater: "r1".into(),
        source,
        brief: Brief::from_description("A map").unwrap(),
        a: side(a),
        b: side(b),
        prefers,
        shown_first: rating::Which::A,
    }
}

#[test]
fn what_people_prefer_comes_before_what_the_critic_does() {
    use rating::{Choice, Source};
    let source = || {
        log(
            "a",
            vec![entry(1, 8.9, "one"), entry(2, 8.5, "two"), entry(3, 8.0, "three"), entry(4, 3.0, "bad")],
        )
    };
    let options = PrepareOptions { max_per_brief: 1, ..options() };
    let with = |ratings: &[rating::Rating]| {
        let inputs = Inputs { heldout: &[], votes: Votes::of(ratings) };
        super::build(&logs([source()]), &inputs, &options).unwrap()
    };
    let pairs = |prepared: &Prepared| {
        let rows = prepared.manifest.rows.iter().filter(|row| row.row == RowKind::Preference);
        let mut rows: Vec<_> = rows
            .map(|row| (row.source.iteration, row.other.as_ref().unwrap().iteration, row.by.unwrap()))
            .collect();
        rows.sort_unstable();
        rows
    };
    assert_eq!(pairs(&with(&[])), [(1, 4, By::Critic)]);
    let third = rating(Source::Logs, ("a.json", 1), ("a.json", 3), Choice::B);
    // The critic put the first above the third by less than pairs need; the person is believed.
    assert_eq!(pairs(&with(std::slice::from_ref(&third))), [(3, 1, By::Human), (3, 4, By::Critic)]);
    let undecided = rating(Source::Logs, ("a.json", 3), ("a.json", 4), Choice::Tie);
    assert_eq!(pairs(&with(&[third.clone(), undecided])), [(3, 1, By::Human)]);
    // Answers about held-out briefs teach nothing.
    let of_trial = rating::Rating { source: Source::Trial("t".into()), ..third };
    assert_eq!(pairs(&with(&[of_trial])), pairs(&with(&[])));
}
