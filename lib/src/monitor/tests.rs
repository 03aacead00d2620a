use super::*;
use crate::{
    rounds::{Reason, Stop},
    trial::Verdict,
};

fn round(number: u32, verdict: Verdict, tuned: f64) -> RoundView {
    let figures =
        |score, ui_first, runs| Figures { score: Some(score), ui_first: Some(ui_first), runs: Some(runs) };
    RoundView {
        round: number,
        logs: 40,
        initial: Some(0.05 + f64::from(number)),
        best: Some(8.5),
        new_rows: Some(80 + number as usize),
        trial: Some(TrialView {
            trial: format!("t-{number}"),
            model: format!("ft:{number}"),
            verdict,
            n: 24,
            base: figures(0.05, 0.0, 0.0),
            tuned: figures(tuned, 0.9, 0.75),
            gain: Some(tuned - 0.05),
            low: Some(tuned - 1.0),
            high: Some(tuned + 0.5),
        }),
        alpha: Some(0.03),
        drift: Some(0.0),
        taught: Some(Diversity { apps: 40, distinct: 1.0, entropy: 4.2 }),
        answered: None,
    }
}

fn monitor() -> Monitor {
    Monitor {
        rounds: vec![
            round(1, Verdict::Promote, 5.2),
            round(2, Verdict::Hold, 5.5),
            RoundView { round: 3, logs: 4, ..RoundView::default() },
        ],
        issues: vec![Remaining {
            message: "the label `..` is too short".into(),
            guideline: Some("g012".into()),
            n: 12,
            share: 0.15,
            trend: Some(-0.05),
        }],
        champion: Some("ft:1".into()),
        steps: vec![Taken {
            at: "2026-01-31T12:00:00Z".into(),
            action: Action::Promote,
            model: Some("ft:1".into()),
            reason: "trial `t-1` says promote".into(),
        }],
        stopped: Some(Stop { round: 3, reason: Reason::NoNewRows, detail: String::new() }),
    }
}

#[test]
fn people_read_a_table() {
    expect_test::expect![[r#"
        round  logs  drafts  best  new rows  verdict    tuned - base [95%]  ui-first  runs  drift
            1    40    1.05  8.50        81  promote  +5.15 [+4.20, +5.70]       90%   75%  +0.00
            2    40    2.05  8.50        82     hold  +5.45 [+4.50, +6.00]       90%   75%  +0.00
            3     4       -     -         -        -                     -         -     -      -

        variety in round 1: best apps 100% of 40 differ, entropy 4.20 bits
        variety in round 2: best apps 100% of 40 differ, entropy 4.20 bits
        champion: `ft:1`
        stopped in round 3: no new rows

        still wrong with the best apps:
          in 12 apps (15%, -5 points since the first round): the label `..` is too short [g012]"#]]
    .assert_eq(&monitor().text());
}

#[test]
fn the_learnings_are_a_document() {
    let text = monitor().markdown(Some("monitor.svg"));
    for part in [
        "| round | logs | drafts |",
        "| 1 | 40 | 1.05 | 8.50 | 81 | promote | +5.15 [+4.20, +5.70] | 90% | 75% | +0.00 |",
        "](monitor.svg)",
        "The agent uses `ft:1`. The loop stopped in round 3: no new rows.",
        "- in 12 apps (15%,",
        "- 2026-01-31T12:00:00Z promote: `ft:1`: trial `t-1` says promote",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
}

#[test]
fn the_picture_has_every_round_and_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("monitor.svg");
    monitor().draw(&path).unwrap();
    let svg = std::fs::read_to_string(&path).unwrap();
    assert!(svg.contains("aria-label") && svg.contains("tuned model") && svg.contains("95% interval"));
    let empty = Monitor { rounds: Vec::new(), ..monitor() };
    empty.draw(&path).unwrap();
}

#[test]
fn the_same_issue_of_another_field_is_one_issue() {
    let issue = |message: &str| Issue {
        severity: crate::critic::Severity::Minor,
        message: message.into(),
        at: None,
        guideline: None,
    };
    let check = |message: &str, expected: &str| assert_eq!(kind(&issue(message)).0, expected);
    check("the button `Send` does nothing", "the button `..` does nothing");
    check("contrast 3.21 is below 4.5", "contrast N.N is below N.N");
    check("`a` and `b`", "`..` and `..`");
    check(
        "the brief asks for what the page does not show: a, b",
        "the brief asks for what the page does not show",
    );
}
