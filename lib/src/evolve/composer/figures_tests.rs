//! The composer's apps under the critic, and the figures that docs/design/composer.md holds.
//!
//! What judges needs `HONE_TEST_PYTHON`, the Python of an environment with Streamlit and ruff. A sample is judged by
//! default. The figures are printed by what is ignored, one after the other:
//!
//!     cargo test -p hone composer::figures -- --ignored --nocapture --test-threads 1

use std::{collections::BTreeMap, path::PathBuf};

use futures::{StreamExt, stream};

use super::{
    tests::{Shingles, jaccard, near_duplicates, shingled, training},
    *,
};
use crate::{
    agent, brief,
    cancel::Cancel,
    critic::{Critic, CriticOptions, CriticRuntime, Critique, VERSION},
};

/// The columns of the document's table.
const COLUMNS: [(&str, Operator, u32); 3] = [
    ("first proposal", Operator::Restart, 0),
    ("restyle 1", Operator::Restyle, 1),
    ("restyle 2", Operator::Restyle, 2),
];

fn app(brief: &Brief, operator: Operator, attempt: u32) -> Candidate {
    Composer::new(1).propose(brief, operator, attempt, &[])
}

fn shingles(candidate: &Candidate) -> Shingles {
    shingled(&candidate.files[0].content)
}

/// The runtime under test, or a loud skip.
fn runtime(test: &str) -> Option<CriticRuntime> {
    let Some(python) = std::env::var_os("HONE_TEST_PYTHON").map(PathBuf::from) else {
        eprintln!("SKIPPED {test}: set HONE_TEST_PYTHON to the Python that `hone setup` made");
        return None;
    };
    let bwrap = ["/usr/bin/bwrap", "/usr/local/bin/bwrap"].map(PathBuf::from);
    Some(CriticRuntime {
        ruff: python.with_file_name("ruff"),
        python,
        bwrap: bwrap.into_iter().find(|path| path.exists()),
        chromium: crate::runtime::find_chromium(),
    })
}

/// Whether a brief's app runs, and what the critic says of it.
async fn judge(critic: &Critic, brief: &Brief, operator: Operator, attempt: u32) -> (bool, Critique) {
    let (evidence, critique) = critic.critique(brief, &app(brief, operator, attempt)).await.unwrap();
    if critique.overall_score < 8.0 {
        println!("{} {} {:?}", brief.id, critique.overall_score, critique.issues);
    }
    (evidence.runs(), critique)
}

/// The same for all briefs, in their order.
async fn judged(
    critic: &Critic,
    briefs: &[Brief],
    operator: Operator,
    attempt: u32,
) -> Vec<(bool, Critique)> {
    let one = |brief| judge(critic, brief, operator, attempt);
    stream::iter(briefs).map(one).buffered(critic.workers()).collect().await
}

/// How many score 8.0 or better.
fn good(judged: &[(bool, Critique)]) -> usize {
    judged.iter().filter(|(_, critique)| critique.overall_score >= 8.0).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_training_apps_scores_well() {
    let Some(runtime) = runtime("a_sample_of_training_apps_scores_well") else { return };
    let runtime = CriticRuntime { chromium: None, ..runtime };
    let critic = Critic::open(runtime, CriticOptions::default(), &Cancel::new()).await.unwrap();
    let briefs = brief::sample(&training(), 16, 1);
    let seen = judged(&critic, &briefs, Operator::Restart, 0).await;
    critic.close().await;
    assert!(seen.iter().all(|(runs, _)| *runs), "an app raises");
    assert!(good(&seen) * 10 >= seen.len() * 9, "{} of {} at 8.0 or better", good(&seen), seen.len());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs 360 apps in sandboxes to print figures; needs HONE_TEST_PYTHON"]
async fn scores() {
    let Some(runtime) = runtime("scores") else { return };
    let critic = Critic::open(runtime, CriticOptions::default(), &Cancel::new()).await.unwrap();
    println!("critic version {VERSION}, level {:?}", critic.level());
    let briefs = training();
    let mut all = Vec::new();
    for (name, operator, attempt) in COLUMNS {
        let seen = judged(&critic, &briefs, operator, attempt).await;
        let percent = |n: usize| 100.0 * n as f64 / seen.len() as f64;
        let runs = seen.iter().filter(|(runs, _)| *runs).count();
        let mut scores: Vec<f64> = seen.iter().map(|(_, critique)| critique.overall_score).collect();
        println!("{name}: 8.0 or better {:.1}%, runs {:.1}%", percent(good(&seen)), percent(runs));
        let mut by_kind: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (brief, score) in briefs.iter().zip(&scores) {
            by_kind.entry(&brief.kind).or_default().push(*score);
        }
        println!(
            "  {}",
            by_kind.iter().map(|(kind, s)| format!("{kind} {:.2}", mean(s))).collect::<Vec<_>>().join(", ")
        );
        scores.sort_by(f64::total_cmp);
        println!("  scores: {}", spread(&scores, 2));
        assert!(good(&seen) * 10 >= seen.len() * 9, "{name}: {} of {}", good(&seen), seen.len());
        all.extend(scores);
    }
    critic.close().await;
    println!("mean over all {}: {:.2}", all.len(), mean(&all));
}

#[test]
#[ignore = "prints figures"]
fn texts() {
    let bpe = tiktoken_rs::o200k_base().unwrap();
    let briefs = training();
    let mut columns: Vec<Vec<Shingles>> = Vec::new();
    for (name, operator, attempt) in COLUMNS {
        let apps: Vec<Candidate> = briefs.iter().map(|brief| app(brief, operator, attempt)).collect();
        let count = |app: &Candidate| bpe.encode_ordinary(&agent::reply_of(app)).len() as f64;
        let mut tokens: Vec<f64> = apps.iter().map(count).collect();
        tokens.sort_by(f64::total_cmp);
        let shingles: Vec<Shingles> = apps.iter().map(shingles).collect();
        println!(
            "{name}: {} near-duplicates, tokens (o200k): {}",
            near_duplicates(&shingles),
            spread(&tokens, 0)
        );
        columns.push(shingles);
    }
    let pairs = [(0, 1), (0, 2), (1, 2)];
    let mut shared: Vec<f64> = (0..briefs.len())
        .flat_map(|i| pairs.map(|(a, b)| 100.0 * jaccard(&columns[a][i], &columns[b][i])))
        .collect();
    shared.sort_by(f64::total_cmp);
    println!("shingles shared by variants of one brief, %: {}", spread(&shared, 0));
    let unsaid = |brief: &&Brief| {
        let without = Brief { kind: String::new(), ..(*brief).clone() };
        app(brief, Operator::Restart, 0) != app(&without, Operator::Restart, 0)
    };
    println!(
        "without the kind, {} of {} briefs give another app",
        briefs.iter().filter(unsaid).count(),
        briefs.len()
    );
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Median, tenths and ends of sorted values.
fn spread(sorted: &[f64], digits: usize) -> String {
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    let [least, low, median, high, most] = [0.0, 0.1, 0.5, 0.9, 1.0].map(at);
    format!(
        "median {median:.digits$} (10% {low:.digits$}, 90% {high:.digits$}; from {least:.digits$} to {most:.digits$})"
    )
}
