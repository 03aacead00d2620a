//! What a judge said of base and tuned, beside the executed scores: no gate looks at it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Arm, Row, TrialSpec,
    stats::{self, Diff, Estimate, Precision},
    verdict::family,
};
use crate::critic::Judged;

/// Shares (0-1) of a judge's questions that hold, by arm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JudgeFigures {
    /// Its name in the settings.
    pub judge: String,
    /// Mean over briefs of the mean over samples; null without answers.
    pub base: Option<f64>,
    pub tuned: Option<f64>,
    /// Tuned minus base, over the briefs that have both.
    pub delta: Estimate,
    /// Answers of all arms on which it gave no usable answer.
    pub absent: usize,
}

/// The figures, when a judge was asked at all.
pub(super) fn figures(spec: &TrialSpec, rows: &[&Row]) -> Option<JudgeFigures> {
    let judge = rows.iter().find_map(|row| row.judge.as_ref())?.row.clone();
    let (base, tuned) = (of_arm(rows, Arm::BASE), of_arm(rows, Arm::TUNED));
    let both: BTreeSet<&str> = base.keys().filter(|brief| tuned.contains_key(*brief)).copied().collect();
    let family_of = |brief: &str| {
        let row = rows.iter().find(|row| row.brief == brief);
        row.map_or_else(|| brief.to_owned(), |row| family(row).to_owned())
    };
    let diffs: Vec<Diff> =
        both.iter().map(|brief| Diff::new(family_of(brief), tuned[brief] - base[brief])).collect();
    let absent =
        rows.iter().filter_map(|row| row.judge.as_ref()).filter(|said| said.absent.is_some()).count();
    Some(JudgeFigures {
        judge,
        base: stats::mean(base.values().copied()),
        tuned: stats::mean(tuned.values().copied()),
        delta: stats::score_difference(&diffs, &Precision::usual(spec.seed)),
        absent,
    })
}

/// The share of each brief that has one.
fn of_arm<'a>(rows: &[&'a Row], arm: &str) -> BTreeMap<&'a str, f64> {
    let mut shares: BTreeMap<&str, Vec<(u32, f64)>> = BTreeMap::new();
    for row in rows.iter().copied().filter(|row| row.arm == arm) {
        if let Some(share) = row.judge.as_ref().and_then(share) {
            shares.entry(&row.brief).or_default().push((row.sample, share));
        }
    }
    // In one order, or the last digit of a sum depends on that of the rows.
    shares.values_mut().for_each(|shares| shares.sort_by_key(|(sample, _)| *sample));
    let mean = |shares: Vec<(u32, f64)>| stats::mean(shares.into_iter().map(|(_, share)| share));
    shares.into_iter().filter_map(|(brief, shares)| Some((brief, mean(shares)?))).collect()
}

/// Of an app about which there was nothing to ask, nothing holds.
fn share(said: &Judged) -> Option<f64> {
    if said.spared { Some(0.0) } else { said.share }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Judgement,
            fixtures::{BASE_TUNED, GOOD, POOR, spec, uniform},
            table,
        },
        *,
    };
    use crate::critic::{Critique, Evidence, VERSION, score};

    fn said(share: Option<f64>, spared: bool) -> Judged {
        Judged {
            row: "j".into(),
            model: "m".into(),
            checklist: String::new(),
            samples: 2,
            answered: 2,
            items: vec![],
            share,
            executed_score: 7.0,
            lowered_by: 0.0,
            cap: None,
            absent: (share.is_none() && !spared).then(|| "garbage".to_owned()),
            spared,
        }
    }

    #[test]
    fn shares_are_compared_by_brief() {
        let spec = spec(4, 1, &BASE_TUNED);
        let mut rows = uniform(&spec, POOR, GOOD);
        let all = |rows: &[Row]| figures(&spec, &rows.iter().collect::<Vec<_>>());
        assert_eq!(all(&rows), None);
        for (index, row) in rows.iter_mut().enumerate() {
            row.judge = Some(match row.arm.as_str() {
                Arm::BASE if index < 2 => said(None, true),
                Arm::BASE => said(Some(0.5), false),
                _ if index < 2 => said(Some(1.0), false),
                _ if index < 4 => said(None, false),
                _ => said(Some(0.75), false),
            });
        }
        let figures = all(&rows).unwrap();
        assert_eq!((figures.judge.as_str(), figures.absent, figures.delta.n), ("j", 1, 3));
        assert_eq!((figures.base, figures.delta.mean), (Some(0.375), Some(0.5)));
        assert!((figures.tuned.unwrap() - 2.5 / 3.0).abs() < 1e-12);
        let text = table(&super::super::summarise(&spec, &rows));
        let line = text.lines().find(|line| line.starts_with("judge (not part of the scores) j: "));
        assert!(
            line.unwrap().contains("base 38%, tuned 83% of what it asked; tuned minus base +50 pts"),
            "{text}"
        );
    }

    #[test]
    fn the_scores_of_a_trial_are_those_of_execution() {
        let critique = Critique {
            overall_score: 5.0,
            critic: format!("{VERSION}+judge:j.x"),
            ..score(&Evidence::sample())
        };
        let critique = Critique { judge: Some(said(Some(0.4), false)), ..critique };
        let judgement = Judgement::from((Evidence::sample(), critique));
        assert_eq!((judgement.critique.overall_score, judgement.critique.critic.as_str()), (7.0, VERSION));
        assert_eq!(judgement.critique.judge.unwrap().share, Some(0.4));
    }
}
