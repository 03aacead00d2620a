use proptest::prelude::*;

use super::*;
use crate::critic::{
    Action, BriefMatch, Call, Exception, Fault, FileFacts, Heading, Lint, Run, SandboxFacts, Severity,
    Statics,
};

fn sample(change: impl FnOnce(&mut Evidence)) -> Evidence {
    let mut evidence = Evidence::sample();
    change(&mut evidence);
    evidence
}

fn run(evidence: &mut Evidence) -> &mut Run {
    evidence.run.as_mut().unwrap()
}

#[track_caller]
fn check(change: impl FnOnce(&mut Evidence), expected: f64) {
    let critique = score(&sample(change));
    assert!((critique.overall_score - expected).abs() < 0.005, "{critique:#?}");
}

#[track_caller]
fn check_cap(change: impl FnOnce(&mut Evidence), expected: f64) {
    let critique = score(&sample(change));
    let lowest = critique.caps.iter().map(|cap| cap.value).fold(f64::INFINITY, f64::min);
    assert!((lowest - expected).abs() < 1e-9, "{:?}", critique.caps);
    assert!(critique.overall_score <= expected);
    assert!(critique.issues.iter().any(|issue| issue.severity != Severity::Minor), "{:#?}", critique.issues);
    assert!(critique.issues.iter().all(|issue| issue.guideline.is_some()), "{:#?}", critique.issues);
}

fn element(kind: &str, label: &str) -> Element {
    Element { kind: kind.into(), label: label.into(), ..Element::default() }
}

fn inputs(evidence: &mut Evidence) -> impl Iterator<Item = &mut Element> {
    run(evidence).elements.iter_mut().filter(|element| element.control)
}

fn call(dead: bool) -> Call {
    Call { path: "st.metric".into(), dead, ..Call::default() }
}

fn acted(kind: &str) -> Action {
    Action { effect: true, ..quiet(kind) }
}

fn quiet(kind: &str) -> Action {
    Action { kind: kind.into(), label: "x".into(), ok: true, ..Action::default() }
}

#[test]
fn a_form_that_works_scores_by_the_formula() {
    // U = 8, K = 7, I = 1: behaviour .35 * .8 + .15 + .35 + .15 = .93; all else 1; weights .30 + .56 of .86.
    check(|_| {}, 10.0 * (0.30 * 0.93 + 0.56) / 0.86);
    let critique = score(&Evidence::sample());
    assert_eq!(critique.caps, []);
    assert_eq!(critique.issues, []);
    assert_eq!(critique.visual_design_score, None);
    assert_eq!(critique.scores.behaviour, Some(9.3));
}

#[test]
fn caps_are_what_the_design_says() {
    check_cap(|e| run(e).elements.clear(), 0.5);
    check_cap(|e| e.statics.errors.push(Fault::new("app.py:1:1", "does not compile: x")), 1.0);
    check_cap(|e| e.statics.tamper.push(Fault::new("app.py:1:1", "x")), 1.0);
    check_cap(|e| run(e).elements.truncate(2), 2.0);
    check_cap(|e| e.statics.files[0].config_lines = 7, 2.5);
    check_cap(
        |e| {
            run(e).total = 300;
            run(e).tucked = 290;
            e.brief.found.clear();
        },
        3.0,
    );
    check_cap(|e| e.actions = ["button", "toggle", "radio", "slider"].map(quiet).to_vec(), 4.0);
    check_cap(
        |e| {
            run(e).status = RunStatus::Error;
            run(e).exceptions.push(Exception::default());
        },
        4.4,
    );
    check_cap(|e| e.brief.found.clear(), 5.0);
    check_cap(|e| run(e).hiding = true, 5.0);
    check_cap(
        |e| {
            run(e).total = 41;
            run(e).most_repeated = 31;
        },
        3.0,
    );
    check_cap(|e| run(e).elements.iter_mut().filter(|x| x.control).for_each(|x| x.unseen = true), 5.0);
    check_cap(
        |e| {
            e.statics.calls = vec![call(false), call(true)];
            e.statics.dead.push(Fault::new("app.py:9:1", "can never run"));
        },
        6.5,
    );
    check_cap(|e| e.actions = vec![quiet("button"), acted("toggle")], 6.5);
    check_cap(|e| e.actions = vec![quiet("button"), acted("button")], 8.0);
    check_cap(|e| inputs(e).for_each(|x| x.unlabelled = true), 6.5);
    check_cap(
        |e| {
            inputs(e).skip(1).for_each(|x| x.kind = "button".into());
            inputs(e).take(1).for_each(|x| x.unlabelled = true);
        },
        8.0,
    );
    check_cap(|e| e.actions[0].ok = false, 6.5);
    check_cap(|e| e.brief.found.truncate(1), 6.5);
    for status in [RunStatus::Died, RunStatus::TimedOut, RunStatus::TooLarge] {
        check_cap(|e| e.run = Some(Run { status, ..Run::default() }), 0.5);
    }
    check_cap(|e| *e = Evidence { level: Level::Run, run: Some(Run::default()), ..Evidence::default() }, 0.5);
}

#[test]
fn a_quarter_of_configuration_is_the_most() {
    assert_eq!(score(&sample(|e| e.statics.files[0].config_lines = 6)).caps, []);
    assert!(sample(|e| e.statics.files[0].config_lines = 6).ui_first());
    assert!(!sample(|e| e.statics.files[0].config_lines = 7).ui_first());
}

#[test]
fn a_report_needs_no_controls_unless_the_brief_asks_for_them() {
    let report = |interactive| {
        score(&sample(|e| {
            e.actions.clear();
            e.brief.interactive = interactive;
            run(e).elements = ["title", "caption", "metric", "dataframe", "line_chart", "bar_chart"]
                .map(|kind| element(kind, kind))
                .to_vec();
        }))
    };
    assert!(report(false).overall_score >= 8.5, "{:?}", report(false));
    assert!(report(true).overall_score <= 6.5, "{:?}", report(true));
    assert!(report(true).issues.iter().any(|issue| issue.message.contains("operate")));
}

#[test]
fn repetition_does_not_add_up() {
    let many = |kind: &str, n: usize| {
        score(&sample(|e| {
            run(e).elements = (0..n).map(|i| element(kind, &i.to_string())).collect();
        }))
    };
    assert_eq!(many("metric", 5).scores.behaviour, many("metric", 500).scores.behaviour);
    let prose = ["title", "header", "markdown", "caption", "text"].map(|kind| (0..5).map(move |i| (kind, i)));
    let prose = score(&sample(|e| {
        run(e).elements = prose.into_iter().flatten().map(|(k, i)| element(k, &i.to_string())).collect();
    }));
    assert!(prose.scores.behaviour < many("metric", 5).scores.behaviour.map(|b| b + 2.0));
}

#[test]
fn ui_first_is_the_first_files_matter() {
    assert!(Evidence::sample().ui_first() && Evidence::sample().runs());
    let config =
        FileFacts { path: "config.py".into(), lines: 1, python: true, parses: true, ..FileFacts::default() };
    assert!(!sample(|e| e.statics.files.insert(0, config.clone())).ui_first());
    assert!(sample(|e| e.statics.files.push(config)).ui_first());
    assert!(!sample(|e| e.statics.files[0].parses = false).ui_first());
    assert!(!sample(|e| run(e).elements.clear()).ui_first());
    let crashed = sample(|e| {
        run(e).status = RunStatus::Error;
        run(e).elements.truncate(1);
    });
    assert!(crashed.ui_first() && !crashed.runs());
    assert!(!sample(|e| run(e).elements.truncate(2)).runs());
    assert!(!Evidence::default().ui_first());
}

#[test]
fn evidence_survives_its_own_json_and_misses_nothing_it_does_not_need() {
    let evidence = Evidence::sample();
    let json = serde_json::to_string(&evidence).unwrap();
    assert_eq!(serde_json::from_str::<Evidence>(&json).unwrap(), evidence);
    assert!(json.contains("\"level\":\"run\"") && json.contains("\"static\":{"));
    assert_eq!(serde_json::from_str::<Evidence>("{}").unwrap(), Evidence::default());
}

#[test]
fn issues_cite_guidelines_that_exist() {
    let critique = score(&sample(|e| {
        run(e).headings.clear();
        run(e).elements[2].unlabelled = true;
        e.statics.page_title = false;
        e.actions = vec![quiet("button")];
        e.statics.lint.push(Lint {
            code: "F821".into(),
            at: "app.py:9:3".into(),
            message: "Undefined name `x`".into(),
        });
    }));
    let cited = |issue: &&crate::critic::Issue| issue.guideline.is_some();
    assert!(critique.issues.iter().filter(cited).count() >= 4, "{:#?}", critique.issues);
    for issue in critique.issues.iter().filter(cited) {
        assert!(critique.citations.iter().any(|c| Some(&c.id) == issue.guideline.as_ref()), "{issue:?}");
    }
    assert_eq!(critique.issues[0].at.as_deref(), Some("app.py:9:3"));
    assert!(critique.issues.is_sorted_by(|a, b| a.severity >= b.severity));
}

prop_compose! {
    fn elements()(kinds in prop::collection::vec((0..8usize, 0..12u8, any::<bool>(), any::<bool>()), 0..30)) -> Vec<Element> {
        const KINDS: [&str; 8] = ["title", "markdown", "metric", "dataframe", "button", "text_input", "line_chart", "radio"];
        kinds.into_iter().map(|(kind, label, tucked, unlabelled)| Element {
            kind: KINDS[kind].into(), label: label.to_string(), control: kind > 3, unlabelled: unlabelled && kind > 3, tucked, ..Element::default()
        }).collect()
    }
}

prop_compose! {
    fn actions()(flags in prop::collection::vec((any::<bool>(), any::<bool>()), 0..10)) -> Vec<Action> {
        flags.into_iter().map(|(ok, effect)| Action { ok, effect: ok && effect, ..quiet("button") }).collect()
    }
}

prop_compose! {
    fn statics()(
        lines in 0..300u32, config in 0.0..1.0f64, functions in 0..9u32, lint in 0..9usize, tamper in 0..2usize,
        errors in 0..2usize, page_title in any::<bool>(), calls in 0..9usize,
    ) -> Statics {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of few lines")]
        let config_lines = (f64::from(lines) * config) as u32;
        let fault = || Fault::new("app.py:1:1", "x");
        Statics {
            files: vec![FileFacts { path: "app.py".into(), lines, config_lines, python: true, parses: errors == 0, ui: true }],
            tamper: (0..tamper).map(|_| fault()).collect(),
            errors: (0..errors).map(|_| fault()).collect(),
            lint: (0..lint).map(|n| Lint { code: if n % 3 == 0 { "F821" } else { "F401" }.into(), ..Lint::default() }).collect(),
            calls: (0..calls).map(|n| Call { path: format!("st.x{n}"), ..Call::default() }).collect(),
            functions, page_title, ..Statics::default()
        }
    }
}

prop_compose! {
    fn evidence()(
        elements in elements(), actions in actions(), statics in statics(), ran in 0..9u8, total in 0..500u32,
        tucked in 0..500u32, wanted in 0..12usize, found in 0..12usize, interactive in any::<bool>(), levels in
        prop::collection::vec(1..4u8, 0..4), hiding in any::<bool>(),
    ) -> Evidence {
        let status = match ran { 0 => RunStatus::Error, 1 => RunStatus::Died, _ => RunStatus::Ready };
        let words: Vec<String> = (0..wanted).map(|n| n.to_string()).collect();
        let headings = levels.into_iter().map(|level| Heading { level, text: String::new() }).collect();
        Evidence {
            level: if ran == 8 { Level::Static } else { Level::Run },
            sandbox: SandboxFacts::default(),
            run: (ran < 8).then(|| Run { status, elements, total, tucked, headings, hiding, ..Run::default() }),
            brief: BriefMatch { found: words.iter().take(found).cloned().collect(), wanted: words, interactive },
            statics, actions, ..Evidence::default()
        }
    }
}

/// Small differences of rounding are no decrease.
fn not_less(better: &Evidence, worse: &Evidence) -> bool {
    score(better).overall_score >= score(worse).overall_score - 1e-9
}

proptest! {
    #[test]
    fn scores_are_bounded_capped_and_repeatable(evidence in evidence()) {
        let critique = score(&evidence);
        prop_assert!((0.0..=10.0).contains(&critique.overall_score));
        for cap in &critique.caps {
            prop_assert!(critique.overall_score <= cap.value);
        }
        let s = critique.scores;
        for part in [s.behaviour, s.executes, s.accessibility, s.match_, s.code].into_iter().flatten() {
            prop_assert!((0.0..=10.0).contains(&part));
        }
        prop_assert_eq!(&critique, &score(&evidence));
        prop_assert_eq!(critique.critic, evidence.critic);
    }

    #[test]
    fn better_evidence_never_scores_less(evidence in evidence(), pick in any::<prop::sample::Index>()) {
        let better = |change: &dyn Fn(&mut Evidence)| { let mut e = evidence.clone(); change(&mut e); e };
        prop_assert!(not_less(&better(&|e| e.statics.tamper.clear()), &evidence));
        prop_assert!(not_less(&better(&|e| e.statics.errors.clear()), &evidence));
        prop_assert!(not_less(&better(&|e| e.statics.lint.clear()), &evidence));
        prop_assert!(not_less(&better(&|e| e.statics.page_title = true), &evidence));
        prop_assert!(not_less(&better(&|e| e.statics.files[0].config_lines = 0), &evidence));
        prop_assert!(not_less(&better(&|e| e.brief.found = e.brief.wanted.clone()), &evidence));
        prop_assert!(not_less(&better(&|e| e.run.iter_mut().for_each(|r| r.hiding = false)), &evidence));
        let labelled = |e: &mut Evidence| e.run.iter_mut().flat_map(|r| &mut r.elements).for_each(|x| x.unlabelled = false);
        prop_assert!(not_less(&better(&labelled), &evidence));
        if evidence.run.as_ref().is_some_and(|r| r.status == RunStatus::Error) {
            prop_assert!(not_less(&better(&|e| run(e).status = RunStatus::Ready), &evidence));
        }
        if !evidence.actions.is_empty() {
            let works = |e: &mut Evidence| { let i = pick.index(e.actions.len()); e.actions[i].ok = true; e.actions[i].effect = true; };
            prop_assert!(not_less(&better(&works), &evidence));
        }
    }

    #[test]
    fn an_element_more_never_scores_less(evidence in evidence(), n in 0..99u32) {
        prop_assume!(evidence.run.is_some());
        let mut more = evidence.clone();
        run(&mut more).elements.push(element("metric", &format!("new {n}")));
        run(&mut more).total += 1;
        // One more of 40 may be the one that makes a flood of what was hidden before.
        prop_assume!(caps::flooded(&evidence) == caps::flooded(&more));
        prop_assert!(not_less(&more, &evidence));
    }

    #[test]
    fn timing_never_matters(evidence in evidence(), ms in any::<u64>()) {
        let mut other = evidence.clone();
        other.timing.total_ms = ms;
        prop_assert_eq!(score(&other), score(&evidence));
    }
}

#[test]
fn other_standards_are_another_version() {
    let rubric = Rubric::parse("[caps]\nflood = 1.0").unwrap();
    let own = Standards { rubric, ..Standards::default() };
    assert!(own.version().starts_with(&format!("{VERSION}+")), "{}", own.version());
    let none = Standards { habits: Vec::new(), ..Standards::default() };
    assert_ne!(none.version(), own.version());
    assert_eq!(Standards::default().version(), VERSION);
}

#[test]
fn a_habit_that_is_not_kept_caps_the_score() {
    let habit = Habit::parse(
        "name = 'no-metrics'\ndescription = ''\n[[check]]\nthat = \"elements | selectattr('type', 'equalto', 'metric') | list | length == 0\"\nmessage = 'leave figures out'",
    )
    .unwrap();
    let standards = Standards { habits: vec![habit], ..Standards::default() };
    let with = sample(|e| {
        let metric = Element { kind: "metric".into(), label: "Sum".into(), ..Element::default() };
        e.run.as_mut().unwrap().elements.push(metric);
    });
    let critique = score_by(&with, &standards);
    assert_eq!((critique.overall_score, critique.habits[0].holds), (6.5, false));
    assert!(critique.issues.iter().any(|i| i.message == "leave figures out (habit `no-metrics`)"));
    assert!(score(&with).overall_score > 6.5);
}
