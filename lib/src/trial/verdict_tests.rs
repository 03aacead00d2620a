use expect_test::{Expect, expect};

use super::*;
use crate::trial::{
    Training,
    fixtures::{BASE_TUNED, GOOD, POOR, Quality, THREE_ARMS, rows, spec, uniform},
    gates::Status,
};

fn status(summary: &Summary, gate: &str) -> Status {
    summary.gates.iter().find(|g| g.name == gate).unwrap_or_else(|| panic!("no gate `{gate}`")).status
}

/// Verdict, cause and next step.
fn check(summary: &Summary, expected: Expect) {
    let text = format!(
        "{}\n{}\n{}\n",
        summary.verdict.as_str(),
        summary.cause.as_deref().unwrap_or("-"),
        summary.next.as_deref().unwrap_or("-")
    );
    expected.assert_eq(&text);
}

#[test]
fn an_arm_that_improves_is_promoted() {
    let spec = spec(20, 2, &BASE_TUNED);
    let summary = summarise(&spec, &uniform(&spec, POOR, GOOD));
    assert_eq!((summary.n, summary.families, summary.compared_with.as_str()), (40, 20, "base"));
    assert_eq!((summary.arms.base.ui_first, summary.arms.tuned.ui_first), (Some(0.0), Some(1.0)));
    assert!(summary.delta.score.low > Some(5.0), "{:?}", summary.delta.score);
    assert_eq!((summary.groups.seen_kinds.n, summary.groups.unseen_kinds.n), (24, 16));
    assert_eq!(status(&summary, "length"), Status::NotApplied);
    check(
        &summary,
        expect![[r#"
        promote
        -
        -
    "#]],
    );
}

#[test]
fn an_equal_arm_is_held() {
    let spec = spec(20, 1, &BASE_TUNED);
    let summary = summarise(&spec, &uniform(&spec, GOOD, GOOD));
    assert_eq!(status(&summary, "runs"), Status::Unclear);
    check(
        &summary,
        expect![[r#"
        hold
        no gain over the base; most often (20 answers): nothing <rendered>
        run `hone loop --rounds 2`: another round adds new drafts and rows and trains on more data
    "#]],
    );
}

#[test]
fn a_worse_arm_is_held_when_it_is_not_deployed() {
    let spec = spec(20, 1, &BASE_TUNED);
    let summary = summarise(&spec, &uniform(&spec, GOOD, POOR));
    assert_eq!(
        (status(&summary, "score"), status(&summary, "runs"), status(&summary, "ui-first")),
        (Status::Fail, Status::Fail, Status::Fail)
    );
    check(
        &summary,
        expect![[r#"
        hold
        the habit was not learnt: more examples or epochs are needed
        run `hone loop --rounds 2`: another round adds new drafts and rows and trains on more data
    "#]],
    );
}

#[test]
fn a_worse_arm_that_is_deployed_is_rolled_back() {
    let mut spec = spec(20, 1, &BASE_TUNED);
    spec.deployed = Some("ft:tuned-1".into());
    let summary = summarise(&spec, &uniform(&spec, GOOD, POOR));
    assert_eq!(summary.verdict, Verdict::RollBack);
    assert_eq!(summary.next.as_deref(), Some("run `hone rollback` to take the champion back"));
}

#[test]
fn a_champion_below_the_base_is_rolled_back_unless_the_tuned_model_is_promoted() {
    let spec = spec(60, 1, &THREE_ARMS);
    let of = |tuned: Quality| {
        summarise(
            &spec,
            &rows(&spec, |_, arm| match arm {
                "base" => Quality { score: 5.0, ..GOOD },
                "tuned" => tuned,
                _ => Quality { score: 2.0, ..GOOD },
            }),
        )
    };
    let worse = of(Quality { score: 2.0, ..GOOD });
    assert_eq!((worse.verdict, worse.compared_with.as_str()), (Verdict::RollBack, "champion"));
    // Better than the champion, still below the base.
    let between = of(Quality { score: 3.5, ..GOOD });
    assert_eq!((between.verdict, status(&between, "base")), (Verdict::RollBack, Status::Fail));
    let better = of(Quality { score: 7.0, ..GOOD });
    assert_eq!(better.verdict, Verdict::Promote, "{:#?}", better.reasons);
    assert!(better.delta_champion.unwrap().score.mean > better.delta.score.mean);
}

#[test]
fn a_small_gain_on_few_briefs_is_inconclusive_and_says_how_many_are_needed() {
    let spec = spec(12, 1, &BASE_TUNED);
    let summary = summarise(&spec, &uniform(&spec, GOOD, Quality { score: 7.6, ..GOOD }));
    assert_eq!(status(&summary, "runs"), Status::Unclear);
    check(
        &summary,
        expect![[r#"
        hold
        inconclusive: 12 held-out briefs are too few to tell
        add held-out briefs and run `hone test --limit 378`: about 378 are needed for 4 of 5 such trials to tell
    "#]],
    );
    let next = |heldout| {
        let spec = TrialSpec { heldout: Some(heldout), ..spec.clone() };
        summarise(&spec, &uniform(&spec, GOOD, Quality { score: 7.6, ..GOOD })).next.unwrap()
    };
    let add =
        "add 318 briefs to `briefs/heldout.jsonl`, which has 60, and run `hone test --limit 378`: about 378";
    assert!(next(60).starts_with(add), "{}", next(60));
    assert!(next(400).starts_with("run `hone test --limit 378`: about 378 are needed"), "there are enough");
}

/// As in a third round: far better than the base, a little better than a champion that fails as often on other briefs.
#[test]
fn what_a_trial_could_show_is_said_of_the_arm_that_decides() {
    let spec = spec(60, 1, &THREE_ARMS);
    let fails = |family: &str, of: [&str; 2]| of.iter().any(|end| family.ends_with(end));
    let rows = rows(&spec, |brief, arm| match arm {
        "base" => POOR,
        "tuned" if fails(&brief.family, ["3", "4"]) => Quality { score: 1.0, runs: false, ..GOOD },
        "champion" if fails(&brief.family, ["5", "6"]) => Quality { score: 1.0, runs: false, ..GOOD },
        _ => GOOD,
    });
    let summary = summarise(&spec, &rows);
    assert_eq!((summary.compared_with.as_str(), summary.mde.against.as_str()), ("champion", "champion"));
    let against = |arm: &str| {
        let diffs = Results::of(rows.iter()).diffs(Arm::TUNED, arm, Metric::Score);
        stats::detectable_score(&diffs)
    };
    assert_eq!(summary.mde.score, against(Arm::CHAMPION));
    assert!(summary.mde.score > against(Arm::BASE).map(|of_base| 1.1 * of_base), "the spread is another");
    assert!(summary.mde.runs > Some(0.2), "{:?}", summary.mde);
    let shown = crate::trial::table(&summary);
    assert!(shown.contains("smallest difference from the champion that it would show"), "{shown}");
    // Summaries of older versions were all of the base.
    let mut old = serde_json::to_value(&summary).unwrap();
    old["mde"].as_object_mut().unwrap().remove("against");
    assert_eq!(serde_json::from_value::<Summary>(old).unwrap().mde.against, "base");
}

#[test]
fn two_briefs_prove_nothing_however_large_the_gain() {
    let spec = spec(2, 1, &BASE_TUNED);
    let summary = summarise(&spec, &uniform(&spec, POOR, GOOD));
    assert_eq!((summary.verdict, status(&summary, "size")), (Verdict::Hold, Status::Unclear));
}

#[test]
fn a_missing_answer_is_no_zero_and_holds_the_verdict() {
    let spec = spec(20, 1, &BASE_TUNED);
    let mut rows = uniform(&spec, POOR, GOOD);
    rows.remove(0);
    let summary = summarise(&spec, &rows);
    assert_eq!((summary.n, status(&summary, "size")), (19, Status::Unclear));
    assert_eq!(summary.verdict, Verdict::Hold);
}

#[test]
fn cut_off_answers_are_named_as_the_cause() {
    let spec = spec(20, 1, &BASE_TUNED);
    let mut rows = uniform(&spec, GOOD, POOR);
    rows.iter_mut().filter(|r| r.arm == "tuned").for_each(|r| r.finish_reason = Some("length".into()));
    let summary = summarise(&spec, &rows);
    assert_eq!(summary.arms.tuned.truncated, Some(1.0));
    check(
        &summary,
        expect![[r#"
        hold
        100% of the tuned answers were cut off at 512 tokens
        set `max_tokens = 1024` under `[agent]` and test again
    "#]],
    );
}

#[test]
fn a_gain_on_seen_kinds_alone_is_named() {
    let spec = spec(40, 1, &BASE_TUNED);
    let rows = rows(&spec, |brief, arm| match (arm, spec.seen_kinds.contains(&brief.kind)) {
        ("base", _) => Quality { score: 4.0, ..GOOD },
        (_, true) => Quality { score: 5.2, ..GOOD },
        (_, false) => Quality { score: 2.4, ..GOOD },
    });
    let summary = summarise(&spec, &rows);
    assert_eq!(
        summary.cause.as_deref(),
        Some("better on kinds that training saw, not on others: train on briefs of more kinds")
    );
}

#[test]
fn a_kind_that_gets_much_worse_blocks_the_promotion() {
    let spec = spec(100, 1, &BASE_TUNED);
    let rows = rows(&spec, |brief, arm| match (arm, brief.kind.as_str()) {
        ("base", _) => Quality { score: 4.0, ..GOOD },
        (_, "quiz") => Quality { score: 1.0, ..GOOD },
        _ => GOOD,
    });
    let summary = summarise(&spec, &rows);
    assert_eq!((status(&summary, "score"), status(&summary, "kinds")), (Status::Pass, Status::Fail));
    assert!(
        summary.reasons.iter().any(|r| r.starts_with("fail: kinds: worse on `quiz` -")),
        "{:?}",
        summary.reasons
    );
    assert_eq!(summary.verdict, Verdict::Hold);
}

#[test]
fn length_and_diversity_are_compared_with_the_champion() {
    let spec = spec(60, 1, &THREE_ARMS);
    let mut rows = uniform(&spec, POOR, GOOD);
    for row in rows.iter_mut().filter(|r| r.arm == "tuned") {
        row.tokens *= 2;
        row.files[0].content = "import streamlit as st\nst.title(\"always the same\")\n".into();
    }
    let summary = summarise(&spec, &rows);
    assert_eq!(
        (status(&summary, "length"), status(&summary, "diversity"), status(&summary, "latency")),
        (Status::Fail, Status::Fail, Status::Pass)
    );
    assert_eq!(summary.verdict, Verdict::Hold);
}

#[test]
fn samples_of_a_brief_are_averaged_first() {
    let mut spec = spec(20, 1, &BASE_TUNED);
    spec.samples = 2;
    let mut rows = uniform(&spec, POOR, GOOD);
    rows.iter_mut().filter(|r| r.arm == "tuned" && r.sample == 1).for_each(|r| r.runs = false);
    let summary = summarise(&spec, &rows);
    assert_eq!((summary.n, summary.arms.tuned.answers, summary.arms.tuned.runs), (20, 40, Some(0.5)));
    assert_eq!(summary.delta.runs.n, 20);
}

#[test]
fn the_order_of_rows_does_not_show() {
    let spec = spec(11, 2, &BASE_TUNED);
    let mut rows = uniform(&spec, POOR, GOOD);
    let summary = summarise(&spec, &rows);
    rows.reverse();
    rows.swap(3, 17);
    assert_eq!(summarise(&spec, &rows), summary);
}

#[test]
fn no_rows_make_a_summary_without_figures() {
    let spec = spec(3, 1, &BASE_TUNED);
    let summary = summarise(&spec, &[]);
    assert_eq!((summary.verdict, summary.n), (Verdict::Hold, 0));
    assert_eq!(summary.cause.as_deref(), Some("no brief has an answer of both arms"));
    let text = serde_json::to_string(&summary).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
}

#[test]
fn json_has_the_keys_that_tools_rely_on() {
    let spec = spec(10, 1, &[("base", "b"), ("tuned", "t"), ("prompted", "b"), ("champion", "c")]);
    let summary = summarise(&spec, &uniform(&spec, POOR, GOOD));
    let json = serde_json::to_value(&summary).unwrap();
    let keys = |path: &str| -> String {
        let object =
            json.pointer(path).and_then(|v| v.as_object()).unwrap_or_else(|| panic!("no object {path}"));
        object.keys().map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    let text = [
        "",
        "/arms",
        "/arms/base",
        "/prompted",
        "/champion",
        "/delta",
        "/delta/score",
        "/mde",
        "/groups",
        "/groups/unseen_kinds",
    ]
    .map(|path| format!("{path}: {}\n", keys(path)))
    .concat();
    expect![[r#"
        : trial n families samples arms prompted champion delta delta_prompted delta_champion mde verdict compared_with reasons gates groups by_kind by_family alpha critic level seed report
        /arms: base tuned
        /arms/base: model answers ui_first ui_first_interval runs runs_interval score tokens took_ms took_ms_p90 truncated
        /prompted: model answers ui_first ui_first_interval runs runs_interval score tokens took_ms took_ms_p90 truncated
        /champion: model answers ui_first ui_first_interval runs runs_interval score tokens took_ms took_ms_p90 truncated
        /delta: score ui_first runs
        /delta/score: mean low high p p_holm lower upper p_above n clusters
        /mde: score ui_first runs against
        /groups: seen_kinds unseen_kinds
        /groups/unseen_kinds: n families arms prompted champion delta
    "#]].assert_eq(&text);
}

#[test]
fn a_brief_of_unknown_kind_counts_as_seen() {
    let mut spec = spec(5, 1, &BASE_TUNED);
    spec.briefs[4].kind = String::new();
    let seen: Vec<bool> = uniform(&spec, POOR, GOOD).iter().step_by(2).map(|row| row.seen).collect();
    assert_eq!(seen, [true, true, true, false, true]);
}

#[test]
fn what_a_model_learned_from_explains_a_hold() {
    let trained = Training {
        rows: Some(240),
        prompt_sha256: Some("aa".into()),
        epochs: Some(3),
        config_first_share: Some(0.01),
        ..Training::default()
    };
    let spec = TrialSpec { asked_sha256: Some("aa".into()), ..spec(20, 1, &BASE_TUNED) };
    let habit_missed = Quality { ui_first: false, ..GOOD };
    let cause = |training: Training, tuned: Quality| {
        let spec = TrialSpec { training: Some(training), ..spec.clone() };
        let summary = summarise(&spec, &uniform(&spec, GOOD, tuned));
        assert_eq!(summary.verdict, Verdict::Hold);
        format!("{}\n  {}\n", summary.cause.unwrap(), summary.next.unwrap())
    };
    let text = [
        cause(Training { prompt_sha256: Some("bb".into()), rows: Some(11), ..trained.clone() }, POOR),
        cause(Training { config_first_share: Some(3.0 / 11.0), rows: Some(11), ..trained.clone() }, POOR),
        cause(Training { rows: Some(42), ..trained.clone() }, POOR),
        cause(trained.clone(), habit_missed),
        cause(Training { epochs: Some(5), ..trained.clone() }, habit_missed),
        cause(Training { epochs: None, ..trained.clone() }, habit_missed),
        cause(trained, GOOD),
    ]
    .concat();
    expect![[r#"
        the tuned model is asked with another prompt than it was trained with
          run `hone prepare` and `hone finetune` to train with today's prompt, or put back the templates in `prompts/`
        27% of the answers that it learned from begin with configuration
          run `hone validate data/ui_agent_openai_finetuning.jsonl --fix` and `hone finetune` with the corrected file
        the tuned model learned from 42 rows, which is little: 100 to 200 show
          run `hone evolve --limit 100`, `hone prepare` and `hone finetune` for more data
        the habit was not learnt in 3 epochs
          run `hone finetune --n-epochs 5` and test again
        the habit was not learnt: more examples or epochs are needed
          run `hone loop --rounds 2`: another round adds new drafts and rows and trains on more data
        the habit was not learnt: more examples or epochs are needed
          run `hone loop --rounds 2`: another round adds new drafts and rows and trains on more data
        no gain over the base; most often (20 answers): nothing <rendered>
          run `hone loop --rounds 2`: another round adds new drafts and rows and trains on more data
    "#]].assert_eq(&text);
}

#[test]
fn few_rows_are_no_cause_when_only_briefs_are_missing() {
    let spec = spec(12, 1, &BASE_TUNED);
    let spec = TrialSpec { training: Some(Training { rows: Some(42), ..Training::default() }), ..spec };
    let summary = summarise(&spec, &uniform(&spec, GOOD, Quality { score: 7.6, ..GOOD }));
    assert_eq!(summary.cause.as_deref(), Some("inconclusive: 12 held-out briefs are too few to tell"));
}

/// The same trial with the names of base and tuned exchanged.
fn turned(rows: &[Row]) -> Vec<Row> {
    let name = |row: &Row| if row.arm == Arm::TUNED { Arm::BASE } else { Arm::TUNED };
    rows.iter().map(|row| Row { arm: name(row).into(), ..row.clone() }).collect()
}

#[test]
fn turning_the_labels_turns_the_verdict() {
    let spec = TrialSpec { deployed: Some("ft:tuned-1".into()), ..spec(60, 1, &BASE_TUNED) };
    for (other, tuned) in
        [(POOR, GOOD), (GOOD, GOOD), (Quality { score: 5.0, ..GOOD }, Quality { score: 5.6, ..GOOD })]
    {
        let rows = uniform(&spec, other, tuned);
        let (one, back) = (summarise(&spec, &rows), summarise(&spec, &turned(&turned(&rows))));
        assert_eq!(one, back);
        let mirrored = summarise(&spec, &turned(&rows));
        for (a, b) in [
            (&one.delta.score, &mirrored.delta.score),
            (&one.delta.runs, &mirrored.delta.runs),
            (&one.delta.ui_first, &mirrored.delta.ui_first),
        ] {
            let near = |a: Option<f64>, b: Option<f64>| (a.unwrap() - b.unwrap()).abs() < 1e-9;
            assert!(near(a.mean, b.mean.map(|b| -b)) && near(a.low, b.high.map(|b| -b)), "{a:?} {b:?}");
            assert!(near(a.lower, b.upper.map(|b| -b)) && near(a.p, b.p), "{a:?} {b:?}");
        }
        // Whoever promotes one finds the other surely worse.
        assert_eq!(one.verdict == Verdict::Promote, mirrored.verdict == Verdict::RollBack);
    }
}

#[test]
fn a_champion_below_the_one_before_it_is_taken_back() {
    let arms = [("base", "base-1"), ("tuned", "ft:tuned-2"), ("previous", "ft:tuned-1"), ("rival", "gpt-x")];
    let spec = TrialSpec { deployed: Some("ft:tuned-2".into()), ..spec(60, 1, &arms) };
    let of = |previous: f64| {
        let quality = |arm: &str| match arm {
            "base" => POOR,
            "tuned" => Quality { score: 5.0, ..GOOD },
            "previous" => Quality { score: previous, ..GOOD },
            _ => GOOD,
        };
        summarise(&spec, &rows(&spec, |_, arm| quality(arm)))
    };
    let worse = of(7.0);
    // It beats the base by far, and yet the one before was better: a promotion is not asked for, it is in office.
    assert_eq!(worse.verdict, Verdict::RollBack, "{:#?}", worse.reasons);
    assert!(worse.cause.as_ref().unwrap().contains("against the champion before it"), "{:?}", worse.cause);
    assert_eq!(of(5.0).verdict, Verdict::Promote);
    assert_eq!(worse.others.keys().collect::<Vec<_>>(), ["previous", "rival"]);
    assert!(worse.others["rival"].delta.score.mean < Some(-1.0));
    assert_eq!(worse.others["previous"].arm.model, "ft:tuned-1");
}

#[test]
fn figures_are_cut_finer() {
    let spec = spec(5, 2, &BASE_TUNED);
    let mut rows = uniform(&spec, POOR, GOOD);
    for row in &mut rows {
        row.sub_scores.code = Some(if row.arm == Arm::TUNED { 9.0 } else { 4.0 });
        row.sub_scores.visual = (row.arm == Arm::TUNED).then_some(8.0);
        row.took_ms = if row.brief.ends_with('1') { 3_000 } else { 1_000 };
    }
    let summary = summarise(&spec, &rows);
    assert_eq!((summary.by_family.len(), summary.by_kind.len()), (5, 5));
    let quiz = summary.by_kind.iter().find(|part| part.name == "quiz").unwrap();
    assert_eq!((quiz.n, quiz.seen, quiz.kind.as_str()), (2, false, "quiz"));
    assert!(quiz.delta > Some(3.0) && (quiz.tuned.unwrap() - quiz.base.unwrap()) == quiz.delta.unwrap());
    let tuned = &summary.arms.tuned;
    assert_eq!(tuned.sub_scores, [("code".to_owned(), 9.0), ("visual".to_owned(), 8.0)].into());
    assert_eq!(summary.delta_sub_scores.keys().collect::<Vec<_>>(), ["code"], "visual lacks the base's");
    assert_eq!(summary.delta_sub_scores["code"].mean, Some(5.0));
    assert_eq!((tuned.took_ms, tuned.took_ms_p90), (Some(2_000.0), Some(3_000.0)));
    // What was asked for in an earlier trial took its time then.
    rows.iter_mut().filter(|row| row.took_ms == 3_000).for_each(|row| row.replayed = true);
    assert_eq!(summarise(&spec, &rows).arms.tuned.took_ms, Some(1_000.0));
    rows.iter_mut().for_each(|row| row.replayed = true);
    assert_eq!(summarise(&spec, &rows).arms.tuned.took_ms, None);
}
