//! The published scores: apps written by hand, with the table of docs/design/critic.md.

use std::{fmt::Write, path::Path};

use hone::{
    cancel::Cancel,
    critic::{Critic, CriticError, CriticOptions, Critique, Evidence, Level, RunStatus, probe},
    error::{Explain, Kind},
};
use serde::Deserialize;

use super::{app, brief, files, open, runtime};

#[derive(Deserialize)]
struct Entry {
    name: String,
    brief: String,
    files: Vec<String>,
}

fn entries() -> Vec<Entry> {
    serde_json::from_str(&std::fs::read_to_string(folder().join("apps.json")).unwrap()).unwrap()
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/design/critic-apps")
}

fn row(name: &str, evidence: &Evidence, critique: &Critique) -> String {
    let part = |score: Option<f64>| score.map_or("-".to_owned(), |score| format!("{score:.1}"));
    let s = &critique.scores;
    let ok = evidence.tried().filter(|a| a.ok).count();
    let effect = evidence.tried().filter(|a| a.effect).count();
    let cap = critique.caps.iter().map(|cap| cap.value).fold(f64::INFINITY, f64::min);
    let yes = |b: bool| if b { "yes" } else { "no" };
    format!(
        "| {name} | {:.1} | {} | {} | {} | {} | {} | {} | {} | {} | {}/{ok}/{effect} | {} | {} |\n",
        critique.overall_score,
        part(s.behaviour),
        part(s.executes),
        part(s.accessibility),
        part(s.visual),
        part(s.match_),
        part(s.code),
        if cap.is_finite() { cap.to_string() } else { "-".to_owned() },
        evidence.run.as_ref().map_or("-".to_owned(), |run| run.visible().to_string()),
        evidence.tried().count(),
        yes(evidence.ui_first()),
        yes(evidence.runs()),
    )
}

/// `cargo test -p hone --test it published -- --nocapture` prints the table of docs/design/critic.md.
#[tokio::test(flavor = "multi_thread")]
async fn published_scores_are_what_the_critic_gives() {
    let Some(runtime) = runtime("published scores") else { return };
    let _alone = super::ALONE.lock().await;
    let critic = open(runtime).await;
    let mut table = "| app | score | behaviour | executes | accessibility | visual | match | code | cap | visible | tried/ok/effect | ui-first | runs |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n".to_owned();
    for entry in entries() {
        let candidate = files(&folder().join(&entry.name), &entry.files);
        let (evidence, critique) = critic.critique(&brief(&entry.brief), &candidate).await.unwrap();
        if std::env::var_os("HONE_TEST_VERBOSE").is_some() {
            eprintln!("{}: {}", entry.name, serde_json::to_string_pretty(&(&evidence, &critique)).unwrap());
        }
        table.write_str(&row(&entry.name, &evidence, &critique)).unwrap();
    }
    critic.close().await;
    eprintln!("{table}");
    let document = std::fs::read_to_string(folder().join("../critic.md")).unwrap();
    assert!(document.contains(&table), "docs/design/critic.md has other scores: put in\n{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_reports_the_sandbox() {
    let Some(runtime) = runtime("probe") else { return };
    let _alone = super::ALONE.lock().await;
    let report = probe(&runtime).await.unwrap();
    assert_eq!(report.versions["streamlit"], "1.67.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_sandbox_only_static_scores_are_given_and_only_when_asked_for() {
    let Some(runtime) = runtime("static only") else { return };
    let none = hone::critic::CriticRuntime { bwrap: None, ..runtime.clone() };
    let error = Critic::open(none.clone(), CriticOptions::default(), &Cancel::new()).await.err().unwrap();
    assert!(matches!(error, CriticError::NoSandbox(_)) && error.kind() == Kind::Environment);
    assert!(error.hint().unwrap().contains("--static-only"));
    let options = CriticOptions { static_only: true, ..CriticOptions::default() };
    let critic = Critic::open(none, options, &Cancel::new()).await.unwrap();
    let candidate = files(&folder().join("good-form"), &["app.py".to_owned()]);
    let (evidence, critique) = critic.critique(&brief("a contact form"), &candidate).await.unwrap();
    assert_eq!((evidence.level, evidence.sandbox.kind.as_str()), (Level::Static, "none"));
    assert!(evidence.run.is_none() && evidence.ui_first() && !evidence.runs());
    assert!(critique.overall_score <= 5.0 && critique.scores.behaviour.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_environment_is_an_error_and_not_a_low_score() {
    let Some(mut runtime) = runtime("broken environment") else { return };
    let _alone = super::ALONE.lock().await;
    runtime.python = "/usr/bin/python3".into();
    if !runtime.python.exists() {
        return;
    }
    let error = Critic::open(runtime, CriticOptions::default(), &Cancel::new()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Environment, "{error}");
    assert!(error.hint().unwrap().contains("streamlit~=1.67.0"), "{error}");
}

/// Two looks at one candidate give the same evidence but for `timing`.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_repeats_but_for_timing() {
    let Some(runtime) = runtime("repeated evidence") else { return };
    let _alone = super::ALONE.lock().await;
    let critic = open(runtime).await;
    for name in ["good-dashboard", "crash-behind-click", "calculator"] {
        let candidate = files(&folder().join(name), &["app.py".to_owned()]);
        let brief = brief("a page with filters");
        let look = async || {
            let mut evidence = critic.observe(&brief, &candidate, Level::Browser).await.unwrap();
            evidence.timing = Default::default();
            evidence
        };
        let (one, two) = (look().await, look().await);
        assert_eq!(one.run.as_ref().unwrap().status, RunStatus::Ready);
        assert!(one == two, "{name}: the looks differ (- first, + second):\n{}", differences(&one, &two));
    }
    critic.close().await;
}

/// The lines that two looks do not share: whole evidence is too long to find one number in.
fn differences(one: &Evidence, two: &Evidence) -> String {
    let [one, two] = [one, two].map(|evidence| serde_json::to_string_pretty(evidence).unwrap());
    similar::TextDiff::from_lines(&one, &two).unified_diff().context_radius(3).to_string()
}

/// What is in the evidence does not depend on what was looked at before.
#[tokio::test(flavor = "multi_thread")]
async fn versions_are_in_all_evidence() {
    let Some(runtime) = runtime("versions") else { return };
    let _alone = super::ALONE.lock().await;
    let critic = open(runtime).await;
    let skipped = critic.observe(&brief("x"), &app("A = 1\n"), Level::Browser).await.unwrap();
    assert_eq!(skipped.run.as_ref().unwrap().status, RunStatus::Skipped);
    assert_eq!(
        skipped.versions.keys().collect::<Vec<_>>(),
        ["axe", "chromium", "python", "ruff", "streamlit"]
    );
    assert_eq!(skipped.versions["streamlit"], "1.67.0");
    let ran = critic
        .observe(&brief("x"), &app("import streamlit as st\nst.title('x')\n"), Level::Browser)
        .await
        .unwrap();
    assert_eq!(ran.versions, skipped.versions);
    assert_eq!(
        critic.observe(&brief("x"), &app("A = 1\n"), Level::Browser).await.unwrap().versions,
        skipped.versions
    );
    critic.close().await;
}

/// `taskset -c 0,1 cargo test -p hone --test it throughput -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn throughput() {
    let Some(runtime) = runtime("throughput") else { return };
    let _alone = super::ALONE.lock().await;
    let critic = Critic::open(runtime, CriticOptions::default(), &Cancel::new()).await.unwrap();
    let entries = entries();
    let start = std::time::Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    let count = 60;
    for entry in entries.iter().filter(|entry| entry.name != "empty").cycle().take(count) {
        let candidate = files(&folder().join(&entry.name), &entry.files);
        let (critic, brief) = (critic.clone(), brief(&entry.brief));
        tasks.spawn(async move { critic.critique(&brief, &candidate).await.unwrap().0.timing });
    }
    let timings = tasks.join_all().await;
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{count} candidates in {seconds:.1} s: {:.2} candidates/s", count as f64 / seconds);
    let ran: Vec<_> = timings.iter().filter(|t| t.first_ms > 0).collect();
    let mean =
        |of: fn(&hone::critic::Timing) -> u64| ran.iter().map(|t| of(t)).sum::<u64>() / ran.len() as u64;
    eprintln!("{} ran; mean ms: first {}", ran.len(), mean(|t| t.first_ms));
    critic.close().await;
}
