//! Made-up trials for the tests of this folder.

use super::{ALPHA, Arm, Generation, Judgement, Row, TrialSpec};
use crate::{
    agent::{Candidate, SourceFile},
    brief::{Brief, BriefId},
    critic::{Critique, Issue, Level, Severity, SubScores},
    model::wire::Usage,
};

/// Briefs of `families` families with `variants` each, over five kinds, of which training saw the first three.
pub(super) fn spec(families: usize, variants: usize, arms: &[(&str, &str)]) -> TrialSpec {
    let kinds = ["form", "dashboard", "wizard", "board", "quiz"];
    let brief = |family: usize, variant: usize| Brief {
        id: BriefId::new(format!("{}-{family:02}-{variant}", kinds[family % 5])).unwrap(),
        kind: kinds[family % 5].into(),
        family: format!("family-{family:02}"),
        description: format!("A {} with <b>{variant}</b> sections & filters", kinds[family % 5]),
        framework: None,
        requirements: Vec::new(),
    };
    TrialSpec {
        id: "t-1".into(),
        briefs: (0..families).flat_map(|f| (0..variants).map(move |v| brief(f, v))).collect(),
        arms: arms.iter().map(|(name, model)| Arm::new(*name, *model)).collect(),
        samples: 1,
        seed: 7,
        temperature: 0.7,
        max_tokens: 512,
        seen_kinds: ["form", "dashboard", "wizard"].map(str::to_owned).into(),
        deployed: None,
        judge: None,
        prompts: None,
        asked_sha256: None,
        sequential: false,
        alpha: ALPHA,
        alpha_from: None,
        heldout: None,
        training: None,
    }
}

pub(super) const BASE_TUNED: [(&str, &str); 2] = [("base", "base-1"), ("tuned", "ft:tuned-1")];
pub(super) const THREE_ARMS: [(&str, &str); 3] =
    [("base", "base-1"), ("tuned", "ft:tuned-2"), ("champion", "ft:tuned-1")];

/// What an arm is like: score around a mean with a deterministic wobble of a point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quality {
    pub(super) score: f64,
    pub(super) ui_first: bool,
    pub(super) runs: bool,
}

pub(super) const POOR: Quality = Quality { score: 1.2, ui_first: false, runs: false };
pub(super) const GOOD: Quality = Quality { score: 7.1, ui_first: true, runs: true };

pub(super) fn critique(score: f64, critic: &str, level: Level) -> Critique {
    Critique {
        overall_score: score,
        accessibility_score: None,
        visual_design_score: None,
        code_quality_score: None,
        scores: SubScores::default(),
        caps: Vec::new(),
        habits: Vec::new(),
        strengths: Vec::new(),
        issues: vec![
            Issue { severity: Severity::Minor, message: "no caption".into(), at: None, guideline: None },
            Issue {
                severity: Severity::Critical,
                message: "nothing <rendered>".into(),
                at: Some("app.py:3:1".into()),
                guideline: Some("g012".into()),
            },
        ],
        improvements: Vec::new(),
        citations: Vec::new(),
        citations_dropped: 0,
        critic: critic.into(),
        level,
        judge: None,
    }
}

pub(super) fn judgement(quality: Quality, wobble: f64) -> Judgement {
    Judgement {
        ui_first: quality.ui_first,
        runs: quality.runs,
        critique: critique((quality.score + wobble).clamp(0.0, 10.0), "1", Level::Run),
        evidence: serde_json::json!({"level": "run"}),
    }
}

/// Between -1 and 1, the same for the same brief, arm and sample.
pub(super) fn wobble(brief: &str, arm: &str, sample: u32) -> f64 {
    let text = format!("{brief}/{arm}/{sample}");
    let hash =
        text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (hash >> 40) as f64 / (1u64 << 23) as f64 - 1.0
}

pub(super) fn generation(brief: &Brief, arm: &str) -> Generation {
    let reply = format!("# app.py\nimport streamlit as st\nst.title(\"{} by {arm}\")\n", brief.id);
    let usage = Usage::new(20, 30);
    Generation { reply, usage, took_ms: 1200, replayed: false, finish_reason: Some("stop".into()) }
}

/// All rows of a trial whose arms are of the qualities that `quality` gives for (brief, arm).
pub(super) fn rows(spec: &TrialSpec, quality: impl Fn(&Brief, &str) -> Quality) -> Vec<Row> {
    let mut rows = Vec::new();
    for brief in &spec.briefs {
        for sample in 0..spec.samples {
            for arm in &spec.arms {
                let generation = generation(brief, &arm.name);
                let content = generation.reply.clone();
                let candidate = Candidate { files: vec![SourceFile { path: "app.py".into(), content }] };
                let judgement =
                    judgement(quality(brief, &arm.name), wobble(brief.id.as_str(), &arm.name, sample));
                rows.push(Row::new(spec, (brief, arm, sample), generation, candidate, judgement));
            }
        }
    }
    rows
}

/// Tuned is as `tuned`, every other arm as `other`.
pub(super) fn uniform(spec: &TrialSpec, other: Quality, tuned: Quality) -> Vec<Row> {
    rows(spec, |_, arm| if arm == Arm::TUNED { tuned } else { other })
}
