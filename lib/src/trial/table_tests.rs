use expect_test::expect;

use super::*;
use crate::trial::{
    fixtures::{BASE_TUNED, GOOD, POOR, spec, uniform},
    summarise,
};

#[test]
fn the_table_reads_without_colour() {
    let spec = spec(20, 1, &[("base", "base-1"), ("tuned", "ft:tuned-1"), ("prompted", "base-1")]);
    let mut summary = summarise(&spec, &uniform(&spec, POOR, GOOD));
    summary.report = Some("data/trials/t-1/report.html".into());
    expect![[r#"
        base   base-1
        tuned  ft:tuned-1
        n = 20 briefs of 20 families, 1 sample each
        smallest difference from the base that it would show (80% power): score 0.38, runs 42 points
          pass     size: 20 paired briefs of 20 families (needed: 10 of 8)
          pass     score: tuned minus base +5.68, one-sided 95% lower bound +5.45, sign-flip p 0.0001 (needed: mean >= +0.30, bound > 0, p <= 0.05)
          pass     runs: tuned minus base +100 points, one-sided 95% lower bound +76 (needed: > -5)
          pass     ui-first: tuned minus base +100 points (needed: >= -5)
          note     prompt: a better system message alone gives -0.31 over the base, the tuned model +5.99 over that
          not applied: kinds, latency, length, diversity, second judge (the report says why)

        all held-out briefs (n = 20)  base  tuned  difference [95% interval]        p
          ui-first                      0%   100%       +100 pts [+73, +100]  < 0.001
          runs without exception        0%   100%       +100 pts [+73, +100]  < 0.001
          mean score (0-10)           1.48   7.16       +5.68 [+5.41, +5.95]  < 0.001
          tokens per answer             21     21                         +0

        seen kinds (n = 12)           base  tuned  difference [95% interval]        p
          ui-first                      0%   100%       +100 pts [+58, +100]  < 0.001
          runs without exception        0%   100%       +100 pts [+58, +100]  < 0.001
          mean score (0-10)           1.58   7.06       +5.48 [+5.17, +5.79]  < 0.001
          tokens per answer             21     21                         +0

        unseen kinds (n = 8)          base  tuned  difference [95% interval]        p
          ui-first                      0%   100%       +100 pts [+41, +100]    0.004
          runs without exception        0%   100%       +100 pts [+41, +100]    0.004
          mean score (0-10)           1.33   7.31       +5.98 [+5.43, +6.41]    0.008
          tokens per answer             21     21                         +0

        prompted: ui-first 0%, runs 0%, score 1.17; tuned minus prompted: score +5.99 [+5.69, +6.30]

        verdict: promote (the tuned model is better than the base)
        report: data/trials/t-1/report.html
    "#]].assert_eq(&table(&summary));
}

#[test]
fn a_trial_without_answers_has_a_table_too() {
    let spec = spec(2, 1, &BASE_TUNED);
    expect![[r#"
        base   base-1
        tuned  ft:tuned-1
        n = 0 briefs of 0 families, 1 sample each
        smallest difference from the base that it would show (80% power): score unknown, runs unknown
          unclear  size: 0 paired briefs of 0 families (needed: 10 of 8), 2 briefs lack an answer
          unclear  score: tuned minus base +0.00, one-sided 95% lower bound unknown, sign-flip p unknown (needed: mean >= +0.30, bound > 0, p <= 0.05)
          unclear  runs: tuned minus base +0 points, one-sided 95% lower bound unknown (needed: > -5)
          unclear  ui-first: tuned minus base +0 points (needed: >= -5)
          not applied: kinds, latency, length, diversity, second judge (the report says why)

        all held-out briefs: no brief of these has answers of both

        seen kinds: no brief of these has answers of both

        unseen kinds: no brief of these has answers of both

        verdict: hold (the trial does not show that the tuned model is better than the base)
        cause: no brief has an answer of both arms
        next: run `hone test` again
    "#]].assert_eq(&table(&summarise(&spec, &[])));
}

#[test]
fn answers_stand_side_by_side() {
    let spec = spec(4, 1, &BASE_TUNED);
    let mut rows = uniform(&spec, POOR, GOOD);
    rows[0].reply = "\u{1b}[31mred\tand a line that is far too long for the column".into();
    rows[1].reply = (1..=20).map(|i| format!("line {i}\n")).collect();
    expect![[r#"
        brief board-03-0 (board)
        base: 1.5, not ui-first, does not run  | tuned: 8.1, ui-first, runs
        -------------------------------------- | --------------------------------------
        # app.py                               | # app.py
        import streamlit as st                 | import streamlit as st
        st.title("board-03-0 by base")         | st.title("board-03-0 by tuned")

        brief form-00-0 (form)
        base: 1.9, not ui-first, does not run  | tuned: 7.0, ui-first, runs
        -------------------------------------- | --------------------------------------
        �[31mred    and a line that is far to… | line 1
                                               | line 2
                                               | line 3
                                               | line 4
                                               | line 5
                                               | line 6
                                               | line 7
                                               | line 8
                                               | line 9
                                               | line 10
                                               | line 11
                                               | line 12
                                               | line 13
                                               | line 14
                                               | ... 6 more lines

    "#]]
    .assert_eq(&side_by_side(&rows, 2, 80));
    assert_eq!(side_by_side(&rows, 0, 80), "");
    assert_eq!(side_by_side(&[], 3, 80), "");
    assert_eq!(side_by_side(&rows, 99, 10).matches("brief ").count(), 4);
}

#[test]
fn habits_of_the_user_have_a_line_each() {
    let spec = spec(4, 1, &BASE_TUNED);
    let mut rows = uniform(&spec, POOR, GOOD);
    for row in &mut rows {
        row.habits.insert(
            "inputs-in-forms".into(),
            row.arm == "tuned" || row.brief == spec.briefs[0].id.to_string(),
        );
    }
    let summary = summarise(&spec, &rows);
    let lines = table(&summary);
    let line = lines.lines().find(|line| line.contains("inputs-in-forms")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["inputs-in-forms", "25%", "100%", "+75", "pts"]);
}
