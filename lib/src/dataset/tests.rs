//! Datasets from small logs built here: what is taken, what is left out and why, and what must never happen.

use std::collections::{BTreeMap, HashSet};

use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::{
    agent::{self, SourceFile},
    brief::Brief,
    critic::{Critique, Evidence, Issue, Level, Severity, SubScores},
    error::Explain,
    event::Events,
    evolve::{EvolutionLog, FORMAT, FORMAT_VERSION, LogEntry, LogUsage},
    model::wire::Message,
    store::Workspace,
};

fn critique(score: f64) -> Critique {
    Critique {
        overall_score: score,
        accessibility_score: None,
        visual_design_score: None,
        code_quality_score: None,
        scores: SubScores::default(),
        caps: vec![],
        habits: vec![],
        strengths: vec![],
        issues: vec![Issue {
            severity: Severity::Major,
            message: format!("nothing happens on submit at {score}"),
            at: Some("app.py:3:1".into()),
            guideline: None,
        }],
        improvements: vec![],
        citations: vec![],
        citations_dropped: 0,
        critic: "1".into(),
        level: Level::Run,
        judge: None,
    }
}

/// An app whose code differs from that of any other tag in most tokens.
fn app(tag: &str) -> Vec<SourceFile> {
    let words: Vec<String> = (0..12).map(|i| format!("st.write(\"{tag} {i}\")")).collect();
    let content = format!("import streamlit as st\n\n{}\n", words.join("\n"));
    vec![SourceFile { path: "app.py".into(), content }]
}

pub(super) fn entry(iteration: u32, score: f64, tag: &str) -> LogEntry {
    let files = app(tag);
    LogEntry {
        fresh: true,
        iteration,
        operator: if iteration == 1 { "draft" } else { "revise" }.into(),
        parents: if iteration == 1 { vec![] } else { vec![iteration - 1] },
        model: if iteration == 1 { "base" } else { "composer" }.into(),
        ui_code: files[0].content.clone(),
        files,
        critique: critique(score),
        evidence: Evidence::sample(),
        usage: LogUsage::default(),
        guidelines: vec![],
        guidelines_unknown: 0,
        finish_reason: None,
        took_ms: 1,
    }
}

/// A log as it lies on disk.
#[derive(Clone, Debug)]
pub(super) struct OnDisk {
    pub file: String,
    pub log: EvolutionLog,
}

pub(super) fn log(id: &str, entries: Vec<LogEntry>) -> OnDisk {
    // Fourteen words that no other log has.
    let description = (0..14).map(|i| format!("{id}word{i}")).collect::<Vec<_>>().join(" ");
    let log = EvolutionLog {
        format: FORMAT.into(),
        version: FORMAT_VERSION,
        id: id.into(),
        kind: "form".into(),
        family: format!("{id}-family"),
        description,
        requirements: vec!["it works".into()],
        framework: "Streamlit".into(),
        target_score: 8.0,
        max_iterations: 4,
        seed: 1,
        critic: "1".into(),
        agent: "base".into(),
        teacher: "composer".into(),
        round: 1,
        initial_score: entries.first().map_or(0.0, |e| e.critique.overall_score),
        final_score: 0.0,
        best_iteration: 1,
        improvement: 0.0,
        target_reached: true,
        total_iterations: entries.len() as u32,
        prompts: None,
        pairs: vec![],
        evolution_history: entries,
    };
    OnDisk { file: format!("{id}.json"), log }
}

/// A log whose draft is bad and whose second app is good.
fn usual(id: &str) -> OnDisk {
    log(id, vec![entry(1, 3.0, &format!("{id} draft")), entry(2, 8.0, &format!("{id} good"))])
}

pub(super) fn logs(logs: impl IntoIterator<Item = OnDisk>) -> Logs {
    let read = |source: OnDisk| SourceLog::new(&source.file, source.log);
    Logs { logs: logs.into_iter().map(read).collect(), ..Logs::default() }
}

pub(super) fn many(count: usize) -> Vec<OnDisk> {
    (0..count).map(|i| usual(&format!("b{i:03}"))).collect()
}

/// A dataset with rows of every kind: of each of 120 briefs two bad apps and a good one.
pub(super) fn of_every_kind() -> Prepared {
    let source = |id: &str| {
        let tags = ["draft", "other", "good"].map(|tag| format!("{id} {tag}"));
        log(id, vec![entry(1, 2.0, &tags[0]), entry(2, 3.0, &tags[1]), entry(3, 8.0, &tags[2])])
    };
    let all = logs((0..120).map(|i| source(&format!("b{i:03}"))));
    build(&all, &[], &PrepareOptions::default()).unwrap()
}

pub(super) fn options() -> PrepareOptions {
    PrepareOptions { improvement_share: 0.0, ..PrepareOptions::default() }
}

/// A dataset of logs and what is held out.
pub(super) fn build(
    logs: &Logs,
    heldout: &[Brief],
    options: &PrepareOptions,
) -> Result<Prepared, DatasetError> {
    super::build(logs, &Inputs { heldout, votes: Votes::default() }, options)
}

fn prepare(
    workspace: &Workspace,
    heldout: &[Brief],
    options: &PrepareOptions,
    events: &Events,
) -> Result<Prepared, DatasetError> {
    let inputs = Inputs { heldout, votes: Votes::default() };
    super::prepare(workspace, &read_logs(&workspace.logs())?, &inputs, options, events)
}

pub(super) fn made(logs: &Logs) -> Prepared {
    build(logs, &[], &options()).unwrap()
}

/// Checks why the second app of a usual log is left out after a change; another log, which comes first, keeps the dataset from being empty.
#[track_caller]
fn check_dropped(change: impl FnOnce(&mut LogEntry), reason: &str) {
    let mut changed = usual("c");
    change(&mut changed.log.evolution_history[1]);
    let prepared = made(&logs(vec![changed, usual("b")]));
    let dropped = prepared.manifest.dropped.iter().find(|d| d.log == "c.json" && d.iteration == 2);
    assert_eq!(dropped.map(|d| d.reason.name()), Some(reason));
    assert_eq!(prepared.summary.examples.positive, 1);
}

#[test]
fn the_good_app_is_taken_and_the_draft_is_not() {
    let prepared = made(&logs(vec![usual("a")]));
    assert_eq!(prepared.summary.examples, Examples { positive: 1, improvement: 0, preference: 1 });
    assert_eq!(prepared.summary.dropped, BTreeMap::from([("below min score".to_owned(), 1)]));
    let messages = &prepared.train[0].messages;
    let roles: Vec<&str> = messages.iter().map(|m| m.role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
    assert_eq!(agent::parse_reply(&messages[2].content).files, app("a good"));
    let record = &prepared.manifest.rows[0];
    assert_eq!((record.line, record.source.log.as_str(), record.source.iteration), (1, "a.json", 2));
    assert_eq!((record.source.score, record.source.model.as_str()), (8.0, "composer"));
}

#[test]
fn the_prompt_is_the_one_of_production() {
    let prepared = made(&logs(vec![usual("a")]));
    let log = usual("a").log;
    let brief = Brief {
        requirements: log.requirements.clone(),
        ..Brief::from_description(&log.description).unwrap()
    };
    assert_eq!(prepared.train[0].messages[..2], agent::Prompts::default().ask(&brief).unwrap());
}

#[test]
fn reasons_for_leaving_out() {
    check_dropped(|e| e.critique.overall_score = 6.9, "below min score");
    check_dropped(|e| e.critique.overall_score = f64::NAN, "below min score");
    check_dropped(|e| e.evidence.run = None, "not ui-first");
    check_dropped(|e| e.evidence.statics.files[0].ui = false, "not ui-first");
    check_dropped(|e| e.evidence.run.as_mut().unwrap().elements.truncate(2), "does not run");
    check_dropped(|e| e.fresh = false, "not evaluated afresh");
    check_dropped(|e| e.files.clear(), "does not read back");
    check_dropped(|e| e.files[0].path = "../app.py".into(), "does not read back");
    check_dropped(|e| e.critique.level = Level::Static, "other evidence level");
    check_dropped(|e| e.critique.critic = "0.9".into(), "other critic version");
    check_dropped(|e| e.files = app("b good"), "duplicate");
    check_dropped(|e| e.finish_reason = Some("length".into()), "truncated");
    check_dropped(|e| e.finish_reason = Some("refusal".into()), "refused");
    check_dropped(|e| e.finish_reason = Some("content_filter".into()), "refused");
}

#[test]
fn of_judges_and_standards_the_one_that_most_logs_have_counts() {
    let held_to = |id: &str, critic: &str| {
        let mut source = usual(id);
        source.log.evolution_history.iter_mut().for_each(|e| e.critique.critic = critic.into());
        source
    };
    for (critics, expected) in [
        (["1", "1", "1+judge:a.12"], "1"),
        (["1", "1+judge:a.12", "1+judge:a.12"], "1+judge:a.12"),
        (["1", "1", "2+judge:a.12"], "2+judge:a.12"),
    ] {
        let all: Vec<_> =
            critics.iter().enumerate().map(|(i, critic)| held_to(&format!("b{i}"), critic)).collect();
        assert_eq!(made(&logs(all)).manifest.critic, expected, "{critics:?}");
    }
}

#[test]
fn scores_of_different_critics_are_never_mixed() {
    let mut newer = usual("a");
    newer.log.evolution_history.iter_mut().for_each(|e| e.critique.critic = "10".into());
    let mut old = usual("b");
    old.log.evolution_history.iter_mut().for_each(|e| e.critique.critic = "9".into());
    let mut old2 = usual("c");
    old2.log.evolution_history.iter_mut().for_each(|e| e.critique.critic = "9".into());
    let prepared = made(&logs(vec![newer, old, old2]));
    assert_eq!(prepared.manifest.critic, "10");
    assert_eq!(prepared.summary.dropped["other critic version"], 4);
    assert_eq!(prepared.summary.examples.positive, 1);
}

#[test]
fn two_of_a_brief_at_most_and_different_ones() {
    let near = |tag: &str| {
        let mut files = app(tag);
        files[0].content.push_str("st.write(1)\n");
        files
    };
    let mut a = log(
        "a",
        vec![
            entry(1, 9.0, "one"),
            entry(2, 8.9, "one"),
            entry(3, 8.8, "one"),
            entry(4, 8.0, "two"),
            entry(5, 7.5, "three"),
        ],
    );
    a.log.evolution_history[2].files = near("one");
    let prepared = made(&logs(vec![a]));
    let taken: Vec<u32> =
        prepared.manifest.rows.iter().filter(|r| r.other.is_none()).map(|r| r.source.iteration).collect();
    assert_eq!(taken.iter().copied().collect::<HashSet<_>>(), HashSet::from([1, 4]));
    let why: BTreeMap<u32, &str> =
        prepared.manifest.dropped.iter().map(|d| (d.iteration, d.reason.name())).collect();
    assert_eq!(why, BTreeMap::from([(2, "duplicate"), (3, "near-duplicate"), (5, "enough of this brief")]));
}

#[test]
fn held_out_briefs_are_left_out_by_id_family_and_text() {
    let all = || logs(vec![usual("a"), usual("b"), usual("c"), usual("d")]);
    let words = |id: &str| usual(id).log.description;
    let mut by_id = Brief::from_description("something else entirely, far from any log").unwrap();
    by_id.id = crate::brief::BriefId::new("a").unwrap();
    let mut by_family = Brief::from_description("another thing that no log is about").unwrap();
    by_family.family = "b-family".into();
    let by_text = Brief::from_description(&format!("Please: {}!", words("c").to_uppercase())).unwrap();
    let prepared = build(&all(), &[by_id, by_family, by_text], &options()).unwrap();
    let held: HashSet<&str> = prepared
        .manifest
        .dropped
        .iter()
        .filter(|d| d.reason == DropReason::HeldOut)
        .map(|d| d.log.as_str())
        .collect();
    assert_eq!(held, HashSet::from(["a.json", "b.json", "c.json"]));
    assert!(prepared.manifest.rows.iter().all(|r| r.brief == "d"));
}

#[test]
fn sealed_briefs_are_left_out_whatever_is_held_out() {
    let sealed = crate::brief::shipped_sealed();
    let sources = sealed.iter().zip(0..).map(|(brief, n)| {
        let mut source = usual(&format!("own-{n}"));
        source.log.description = format!("Hello! {}", brief.description);
        source
    });
    let prepared = build(&logs(sources.chain([usual("b")])), &[], &options()).unwrap();
    assert_eq!(prepared.summary.examples.positive, 1);
    let held = prepared.manifest.dropped.iter().filter(|d| d.reason == DropReason::HeldOut);
    assert_eq!(held.map(|d| d.log.as_str()).collect::<HashSet<_>>().len(), sealed.len());
}

#[test]
fn a_held_out_text_inside_an_app_is_found() {
    let held = Brief::from_description("a very special held out dashboard for lighthouse keepers").unwrap();
    let mut leaky = usual("a");
    leaky.log.evolution_history[1].files[0]
        .content
        .push_str(&format!("st.caption(\"{}\")\n", held.description));
    let prepared = build(&logs(vec![leaky, usual("b")]), &[held], &options()).unwrap();
    assert_eq!(prepared.summary.dropped["held-out"], 1);
}

fn held(description: &str, requirements: &[&str]) -> Vec<Brief> {
    let requirements = requirements.iter().map(|text| (*text).to_owned()).collect();
    vec![Brief { requirements, ..Brief::from_description(description).unwrap() }]
}

/// Whether a log is left out whole because of what is held out.
fn check_held_out(change: impl FnOnce(&mut EvolutionLog), heldout: &[Brief], expected: bool) {
    let mut changed = usual("c");
    change(&mut changed.log);
    let prepared = build(&logs(vec![changed, usual("b")]), heldout, &options()).unwrap();
    let held = prepared.manifest.dropped.iter().filter(|d| d.reason == DropReason::HeldOut);
    assert_eq!(held.filter(|d| d.log == "c.json").count(), if expected { 2 } else { 0 });
    for message in texts(&prepared).iter().filter(|_| expected) {
        assert!(!message.content.contains(&heldout[0].description), "{message:?}");
    }
}

#[test]
fn requirements_give_away_as_much_as_descriptions() {
    let text = "Booking sheet for the rowing club: boats, hours and who is out on the water";
    let wishes = |wishes: &[&str]| wishes.iter().map(|wish| (*wish).to_owned()).collect::<Vec<_>>();
    // A held-out description as a requirement, whole, changed, and cut in two.
    check_held_out(|log| log.requirements = wishes(&[text]), &held(text, &[]), true);
    let near = "Booking sheet for the sailing club: boats, hours and who is out";
    check_held_out(|log| log.requirements = wishes(&[near]), &held(text, &[]), true);
    check_held_out(
        |log| {
            log.description = "Booking sheet for the rowing club".into();
            log.requirements = wishes(&["boats, hours and who is out on the water"]);
        },
        &held(text, &[]),
        true,
    );
    // A held-out requirement, as a description and as a requirement.
    let heldout = held(text, &["the boat that is due next stands first"]);
    check_held_out(|log| log.description = "The boat that is due next stands first".into(), &heldout, true);
    check_held_out(
        |log| log.requirements = wishes(&["the boat that is due next stands first!"]),
        &heldout,
        true,
    );
    // What everybody wishes for gives nothing away.
    let heldout = held(text, &["works on a phone", "No personal data beyond the postcode"]);
    check_held_out(|log| log.requirements = wishes(&["works on a phone"]), &heldout, false);
    check_held_out(|log| log.requirements = wishes(&["No personal data beyond the name"]), &heldout, false);
}

#[test]
fn no_row_of_any_sort_quotes_what_is_held_out() {
    let secret = "a very special held out dashboard for lighthouse keepers";
    // Issues are quoted in improvement rows, the framework in all.
    let mut issue = usual("a");
    issue.log.evolution_history[0].critique.issues[0].message = format!("It is not {secret}");
    let mut framework = usual("b");
    framework.log.framework = format!("Streamlit, {secret}");
    let all = logs(vec![issue, framework, usual("c"), usual("d"), usual("e")]);
    let options = PrepareOptions { improvement_share: 0.5, ..options() };
    let prepared = build(&all, &held(secret, &[]), &options).unwrap();
    assert_eq!(prepared.summary.examples, Examples { positive: 4, improvement: 3, preference: 4 });
    assert!(texts(&prepared).iter().all(|message| !message.content.contains(secret)));
    let withheld: Vec<_> =
        prepared.manifest.withheld.iter().map(|w| (format!("{:?}", w.row), w.source.log.as_str())).collect();
    // What a prompt gives away is no row's fault, so its app is not even compared.
    assert_eq!(withheld, [("Improvement".to_owned(), "a.json")]);
    assert!(prepared.manifest.withheld.iter().all(|w| w.why.contains("lighthouse")));
    let positive = prepared.manifest.dropped.iter().find(|d| d.log == "b.json" && d.iteration == 2).unwrap();
    assert_eq!(positive.reason, DropReason::HeldOut);
}

#[test]
fn apps_that_nest_without_end_are_compared_all_the_same() {
    let deep = |tag: &str, operators: usize| {
        let mut source = usual(tag);
        let file = &mut source.log.evolution_history[1].files[0];
        file.content.push_str(&format!("x = {}1\n", "-".repeat(operators)));
        source
    };
    let prepared = made(&logs(vec![deep("a", 50_000), deep("b", 200_000), usual("c")]));
    assert!(prepared.summary.examples.positive >= 1);
}

#[test]
fn what_was_never_run_is_refused_with_the_reason() {
    let mut unrun = usual("a");
    for entry in &mut unrun.log.evolution_history {
        entry.evidence = Evidence { level: Level::Static, run: None, ..entry.evidence.clone() };
        (entry.critique.level, entry.critique.overall_score) = (Level::Static, 5.0);
    }
    let error = build(&logs(vec![unrun.clone()]), &[], &options()).unwrap_err();
    expect!["none of 2 candidates was run: scores of level `static` are capped at 5 and cannot become training rows"]
        .assert_eq(&error.to_string());
    expect![
        "run `hone evolve` again without `--static-only`, on a machine with a sandbox (`hone doctor` tells)"
    ]
    .assert_eq(&error.hint().unwrap());
    // Beside any log that was run, they are left out, however many they are.
    let mut other = unrun.clone();
    other.file = "a2.json".into();
    let prepared = made(&logs(vec![unrun, other, usual("b")]));
    assert_eq!((prepared.summary.level, prepared.summary.examples.positive), (Level::Run, 1));
    assert_eq!(prepared.summary.dropped["other evidence level"], 4);
}

#[test]
fn the_shipped_briefs_keep_all_of_training_apart_from_what_is_held_out() {
    let sources = crate::brief::shipped_train().into_iter().map(|brief| {
        let mut source = usual(brief.id.as_str());
        (source.log.kind, source.log.family) = (brief.kind, brief.family);
        (source.log.description, source.log.requirements) = (brief.description, brief.requirements);
        source
    });
    let prepared = build(&logs(sources), &crate::brief::shipped_heldout(), &options()).unwrap();
    assert_eq!(prepared.summary.dropped.get("held-out"), None);
    assert_eq!(prepared.summary.examples.positive, 120);
}

#[test]
fn improvements_show_the_app_and_its_faults() {
    let options = PrepareOptions { improvement_share: 0.5, ..options() };
    let prepared = build(&logs(many(4)), &[], &options).unwrap();
    assert_eq!(prepared.summary.examples, Examples { positive: 4, improvement: 4, preference: 4 });
    let rows = prepared.train.iter().zip(&prepared.manifest.rows);
    let (row, record) = rows.into_iter().find(|(_, record)| record.other.is_some()).unwrap();
    let other = record.other.as_ref().unwrap();
    assert_eq!((other.iteration, other.score, record.source.iteration), (1, 3.0, 2));
    let [_, user, assistant] = row.messages.as_slice() else { panic!("{:?}", row.messages) };
    assert!(
        user.content.contains("draft 0")
            && user.content.contains("nothing happens on submit at 3 (app.py:3:1)")
    );
    assert!(assistant.content.contains("good 0") && !assistant.content.contains("draft"));
}

#[test]
fn a_cut_reply_is_neither_taught_nor_shown() {
    let mut all = many(4);
    all[0].log.evolution_history[0].finish_reason = Some("length".into());
    let options = PrepareOptions { improvement_share: 0.5, ..options() };
    let prepared = build(&logs(all), &[], &options).unwrap();
    // Its app is no app to improve on and none to avoid; what a teacher made of it is as good as any.
    assert_eq!(prepared.summary.examples, Examples { positive: 4, improvement: 3, preference: 3 });
}

#[test]
fn improvements_are_capped_by_share_gain_and_length() {
    let count = |change: &dyn Fn(&mut PrepareOptions)| {
        let mut options = PrepareOptions { improvement_share: 0.5, ..options() };
        change(&mut options);
        build(&logs(many(12)), &[], &options).unwrap().summary.examples.improvement
    };
    assert_eq!(count(&|_| {}), 12);
    assert_eq!(count(&|o| o.improvement_share = 0.25), 4);
    assert_eq!(count(&|o| o.min_gain = 5.1), 0);
    assert_eq!(count(&|o| o.max_improvement_tokens = 100), 0);
    assert_eq!(count(&|o| o.max_rows = Some(8)), 4);
}

#[test]
fn pairs_need_a_gap_like_lengths_and_on_request_one_writer() {
    let pairs = |change: &dyn Fn(&mut OnDisk, &mut PrepareOptions)| {
        let (mut log, mut options) = (usual("a"), options());
        change(&mut log, &mut options);
        build(&logs(vec![log]), &[], &options).unwrap().preferences.len()
    };
    assert_eq!(pairs(&|_, _| {}), 1);
    assert_eq!(pairs(&|l, _| l.log.evolution_history[0].critique.overall_score = 6.6), 0);
    assert_eq!(pairs(&|l, _| l.log.evolution_history[0].files[0].content = "import x\n".into()), 0);
    assert_eq!(pairs(&|l, _| l.log.evolution_history[0].files.clear()), 0);
    assert_eq!(pairs(&|_, o| o.on_policy = true), 0);
    assert_eq!(
        pairs(&|l, o| {
            o.on_policy = true;
            l.log.evolution_history[1].model = "base".into();
        }),
        1
    );
}

#[test]
fn rows_are_trimmed_evenly_over_briefs_and_kinds() {
    let mut all = many(10);
    for source in all.iter_mut().skip(8) {
        source.log.kind = "rare".into();
    }
    for source in &mut all {
        let extra = entry(3, 7.5, &format!("{} extra", source.log.id));
        source.log.evolution_history.push(extra);
    }
    let all = logs(all);
    let options = PrepareOptions { max_rows: Some(10), ..options() };
    let prepared = build(&all, &[], &options).unwrap();
    let briefs: HashSet<&str> =
        prepared.manifest.rows.iter().filter(|r| r.other.is_none()).map(|r| r.brief.as_str()).collect();
    assert_eq!((prepared.train.len(), briefs.len()), (10, 10));
    assert_eq!(prepared.summary.dropped["over max rows"], 10);
    let four = build(&all, &[], &PrepareOptions { max_rows: Some(4), ..options }).unwrap();
    let rare = four.manifest.rows.iter().filter(|r| r.other.is_none() && r.brief.as_str() >= "b008").count();
    assert_eq!((four.train.len(), rare), (4, 2));
}

#[test]
fn validation_takes_whole_families() {
    let mut all = many(120);
    for (index, source) in all.iter_mut().enumerate() {
        source.log.family = format!("family{}", index / 3);
    }
    let prepared = made(&logs(all));
    let families = |split: &str| -> HashSet<String> {
        let rows = prepared.manifest.rows.iter();
        rows.filter(|r| format!("{:?}", r.split) == split).map(|r| r.family.clone()).collect()
    };
    assert_eq!(prepared.validation.len(), 6);
    assert!(families("Train").is_disjoint(&families("Validation")));
    assert!(families("Preference").is_disjoint(&families("Validation")));
    assert!(made(&logs(many(99))).validation.is_empty());
}

#[test]
fn nothing_that_qualifies_is_an_error_that_says_what_would() {
    let low = logs(vec![log("a", vec![entry(1, 5.7, "x"), entry(2, 6.2, "y"), entry(3, 6.1, "z")])]);
    let error = build(&low, &[], &options()).unwrap_err();
    expect!["none of 3 candidates qualifies; the best that runs and puts the UI first scored 6.2"]
        .assert_eq(&error.to_string());
    expect!["`--min-score 6.0` would take 2; or run `hone evolve` with a higher target"]
        .assert_eq(&error.hint().unwrap());
    assert!(build(&low, &[], &PrepareOptions { min_score: 6.0, ..options() }).is_ok());

    let mut crashed = usual("a");
    crashed.log.evolution_history.iter_mut().for_each(|e| e.evidence.run = None);
    let error = build(&logs(vec![crashed]), &[], &options()).unwrap_err();
    expect!["none of 2 candidates qualifies"].assert_eq(&error.to_string());
    expect![
        "most were left out for: not ui-first; run `hone evolve` on more briefs or with a better teacher"
    ]
    .assert_eq(&error.hint().unwrap());
}

const ORIGINAL: &str = r##"{"description": "a form", "evolution_history": [
    {"iteration": 1, "ui_code": "# config.py\nA = 1", "critique": {"score": 2.5}},
    {"ui_code": {"app.py": "import streamlit as st"}, "critique": {"overall_score": 8}}]}"##;

#[test]
fn logs_of_the_original_load_and_lack_evidence() {
    let mut all = logs(vec![usual("a")]);
    all.add("old.json", ORIGINAL).unwrap();
    assert_eq!(
        all.originals[0].entries[0],
        OriginalEntry {
            iteration: 1,
            score: Some(2.5),
            files: vec![SourceFile { path: "config.py".into(), content: "A = 1\n".into() }]
        }
    );
    assert_eq!((all.originals[0].entries[1].iteration, all.originals[0].entries[1].score), (2, Some(8.0)));
    let prepared = made(&all);
    assert_eq!((prepared.summary.logs, prepared.summary.dropped["no evidence"]), (2, 2));
    let mut only = Logs::default();
    only.add("old.json", ORIGINAL).unwrap();
    let error = build(&only, &[], &options()).unwrap_err();
    assert!(error.hint().unwrap().contains("no evidence"), "{error}");
}

#[test]
fn broken_logs_are_named_and_newer_ones_refused() {
    let mut all = Logs::default();
    for (file, text) in [
        ("a.json", "{\"format\":"),
        ("b.json", "[]"),
        ("c.json", "{\"format\":\"other\"}"),
        ("d.json", "{\"format\":\"hone.evolution\",\"version\":1}"),
    ] {
        all.add(file, text).unwrap();
    }
    let bad: Vec<&str> = all.bad.iter().map(|b| b.file.as_str()).collect();
    assert_eq!(bad, ["a.json", "b.json", "c.json", "d.json"]);
    let error = all.add("e.json", "{\"format\":\"hone.evolution\",\"version\":2}").unwrap_err();
    expect!["`e.json` is an evolution log of version 2; this program reads up to version 1"]
        .assert_eq(&error.to_string());
}

fn workspace(logs: &[OnDisk]) -> (tempfile::TempDir, Workspace) {
    let folder = tempfile::tempdir().unwrap();
    let workspace = Workspace::new(folder.path());
    for source in logs {
        crate::store::write_json(&workspace.logs().join(&source.file), &source.log).unwrap();
    }
    (folder, workspace)
}

#[test]
fn the_files_are_what_the_manifest_says() {
    let (_folder, workspace) = workspace(&many(120));
    let prepared = prepare(&workspace, &[], &options(), &Events::none()).unwrap();
    let text = std::fs::read_to_string(workspace.dataset()).unwrap();
    assert_eq!(text.lines().count(), 114);
    assert_eq!(text.len(), prepared.summary.bytes);
    let manifest: Manifest = serde_json::from_slice(&std::fs::read(workspace.manifest()).unwrap()).unwrap();
    assert_eq!(manifest, prepared.manifest);
    for (path, format) in
        [(workspace.dataset(), validate::Format::Chat), (workspace.preferences(), validate::Format::Dpo)]
    {
        let report =
            validate::validate(&path, &validate::Options::default(), &crate::cancel::Cancel::new()).unwrap();
        assert_eq!((report.format, report.problems), (format, vec![]));
    }
    assert!(workspace.validation().exists());

    // A smaller dataset leaves nothing of the larger one behind.
    prepare(&workspace, &[], &PrepareOptions { max_rows: Some(20), ..options() }, &Events::none()).unwrap();
    assert!(!workspace.validation().exists());
}

#[test]
fn a_dataset_that_was_not_finished_is_none() {
    let (_folder, workspace) = workspace(&many(120));
    prepare(&workspace, &[], &options(), &Events::none()).unwrap();
    // A folder in the place of a file: writing stops there, as a kill would stop it.
    std::fs::remove_file(workspace.validation()).unwrap();
    std::fs::create_dir(workspace.validation()).unwrap();
    prepare(&workspace, &[], &options(), &Events::none()).unwrap_err();
    assert!(!workspace.dataset().exists(), "the old rows lie beside new files");
    std::fs::remove_dir(workspace.validation()).unwrap();
    std::fs::remove_file(workspace.manifest()).unwrap();
    std::fs::create_dir(workspace.manifest()).unwrap();
    prepare(&workspace, &[], &options(), &Events::none()).unwrap_err();
    assert!(!workspace.dataset().exists(), "rows without their account");
}

#[test]
fn the_same_logs_give_the_same_bytes() {
    let (_folder, workspace) = workspace(&many(30));
    let bytes = || {
        let options = PrepareOptions { improvement_share: 0.25, max_rows: Some(25), ..options() };
        prepare(&workspace, &[], &options, &Events::none()).unwrap();
        [workspace.dataset(), workspace.preferences(), workspace.manifest()]
            .map(|path| std::fs::read(path).unwrap())
    };
    assert_eq!(bytes(), bytes());
    let mut shuffled = many(30);
    shuffled.reverse();
    assert_eq!(made(&logs(shuffled)).train, made(&logs(many(30))).train);
    let other = build(&logs(many(30)), &[], &PrepareOptions { seed: 2, ..options() }).unwrap();
    assert_ne!(other.train, made(&logs(many(30))).train);
}

#[test]
fn no_logs_is_an_error_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let workspace = Workspace::new(folder.path());
    let error = prepare(&workspace, &[], &options(), &Events::none()).unwrap_err();
    assert!(error.to_string().starts_with("there are no evolution logs in"), "{error}");
    assert_eq!(error.hint().as_deref(), Some("run `hone evolve` first"));
    std::fs::create_dir_all(workspace.logs()).unwrap();
    std::fs::write(workspace.logs().join("a.json"), [0xff, 0xfe]).unwrap();
    let error = prepare(&workspace, &[], &options(), &Events::none()).unwrap_err();
    assert!(error.to_string().starts_with("none of 1 evolution logs can be read; `a.json`"), "{error}");
}

#[test]
fn the_summary_for_people_and_for_programs() {
    let mut prepared = made(&logs(many(3)));
    prepared.summary.files.insert("train".into(), "data/x.jsonl".into());
    prepared.summary.bad_logs.push(BadLog { file: "z.json".into(), why: "it is empty".into() });
    prepared.summary.bytes = 2_345_678;
    prepared.summary.tokens = 12_345;
    expect![[r#"
        Evolution logs found: 3
          left out `z.json`: it is empty
        Total examples: 3 (3 positive, 0 improvement)
        Preference pairs: 3
        Format: JSONL, OpenAI chat fine-tuning
        Tokens: 12,345 per epoch (o200k_base)
        Candidates left out: 3
              3  below min score

        Dataset: data/x.jsonl (2.3 MB)"#]]
    .assert_eq(&prepared.summary.text());
    let json = serde_json::to_value(&prepared.summary).unwrap();
    for key in ["logs", "examples", "dropped", "files", "tokens"] {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert_eq!(json["examples"]["preference"], 3);
    assert_eq!(prepared.summary.warnings.len(), 2);
}

/// A log as a search might have left it: any number of candidates, any scores, some broken, shared texts.
fn any_log() -> impl Strategy<Value = OnDisk> {
    let candidate = (0.0..10.0f64, 0..6usize, any::<bool>(), prop::sample::select(vec!["base", "composer"]));
    (0..30usize, prop::collection::vec(candidate, 0..5)).prop_map(|(id, candidates)| {
        let id = format!("b{id:02}");
        let entries = candidates.into_iter().zip(1..).map(|((score, tag, runs, model), iteration)| {
            let mut entry = entry(iteration, score, &format!("{id} {tag}"));
            entry.model = model.to_owned();
            if !runs {
                entry.evidence.run = None;
            }
            entry
        });
        log(&id, entries.collect())
    })
}

fn texts(prepared: &Prepared) -> Vec<&Message> {
    let chat = prepared.train.iter().chain(&prepared.validation).flat_map(|r| &r.messages);
    let pairs = prepared.preferences.iter();
    let pairs =
        pairs.flat_map(|r| r.input.messages.iter().chain(&r.preferred_output).chain(&r.non_preferred_output));
    chat.chain(pairs).collect()
}

/// No two positives are alike, no two improvements teach the same app, and no two pairs the same two.
fn check_no_two_alike(prepared: &Prepared, similarity: f64) -> Result<(), TestCaseError> {
    let print = |text: &str| alike::CodePrint::of(&agent::parse_reply(text).files);
    let chat = prepared.train.iter().chain(&prepared.validation).zip(&prepared.manifest.rows);
    for kind in [manifest::RowKind::Positive, manifest::RowKind::Improvement] {
        let of_kind = chat.clone().filter(|(_, record)| record.row == kind);
        let prints: Vec<_> = of_kind.map(|(row, _)| print(&row.messages.last().unwrap().content)).collect();
        for (index, one) in prints.iter().enumerate() {
            prop_assert!(prints[..index].iter().all(|other| one.similarity(other) < similarity));
        }
    }
    let pairs: Vec<_> = prepared
        .preferences
        .iter()
        .map(|row| (print(&row.preferred_output[0].content), print(&row.non_preferred_output[0].content)))
        .collect();
    for (index, one) in pairs.iter().enumerate() {
        let alike = |other: &&(alike::CodePrint, alike::CodePrint)| {
            one.0.similarity(&other.0) >= similarity && one.1.similarity(&other.1) >= similarity
        };
        prop_assert!(pairs[..index].iter().find(alike).is_none());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_logs(
        sources in prop::collection::vec(any_log(), 1..12), held in prop::collection::vec(0..30usize, 0..6),
        share in 0.0..0.6f64, max_rows in prop::option::of(1usize..20), seed in 0u64..4, on_policy in any::<bool>(),
    ) {
        let heldout: Vec<Brief> = held
            .iter()
            .map(|i| Brief::from_description(&usual(&format!("b{i:02}")).log.description).unwrap())
            .collect();
        let all = logs(sources);
        let options = PrepareOptions { improvement_share: share, max_rows, seed, on_policy, ..PrepareOptions::default() };
        let Ok(prepared) = build(&all, &heldout, &options) else { return Ok(()) };

        // No held-out text in any row.
        for message in texts(&prepared) {
            prop_assert!(heldout.iter().all(|brief| !message.content.contains(&brief.description)));
        }
        // Every row teaches a reply that reads back, the UI first.
        for row in prepared.train.iter().chain(&prepared.validation) {
            let files = agent::parse_reply(&row.messages.last().unwrap().content).files;
            prop_assert!(files[0].path == "app.py" && files[0].content.starts_with("import streamlit"));
        }
        // Limits hold, and every candidate is accounted for.
        let examples = prepared.summary.examples;
        prop_assert!(examples.chat() <= max_rows.unwrap_or(usize::MAX));
        prop_assert!(examples.improvement as f64 <= share * examples.chat() as f64 + 1e-9);
        let candidates: usize = all.logs.iter().map(|s| s.entries.len()).sum();
        prop_assert_eq!(examples.positive + prepared.manifest.dropped.len(), candidates);
        for record in prepared.manifest.rows.iter().filter(|r| r.row == manifest::RowKind::Preference) {
            let other = record.other.as_ref().unwrap();
            prop_assert!(record.source.score - other.score >= options.pair_gap);
            prop_assert!(!on_policy || record.source.model == other.model);
        }
        check_no_two_alike(&prepared, options.similarity)?;
        let inputs = Inputs { heldout: &heldout, votes: Votes::default() };
        for workers in [1, 5] {
            prop_assert_eq!(&super::prepare::build_with(&all, &inputs, &options, workers).unwrap().0, &prepared);
        }
    }
}
