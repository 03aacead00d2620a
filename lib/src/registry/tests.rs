use proptest::prelude::*;

use super::*;

pub(super) fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn tested(model: &str, champion: Option<&str>, verdict: Verdict) -> Deployment {
    let trial = TrialResult {
        id: "t-1".into(),
        model: model.into(),
        champion: champion.map(str::to_owned),
        verdict,
        cause: (verdict != Verdict::Promote).then(|| "no gain over the base".into()),
    };
    Deployment { model: Some(model.into()), trial: Some(trial), ..Deployment::default() }
}

fn promoted(model: &str, champion: Option<&str>) -> Deployment {
    tested(model, champion, Verdict::Promote)
}

fn open() -> (tempfile::TempDir, Registry) {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(&folder.path().join("data/registry.jsonl")).unwrap();
    (folder, registry)
}

#[test]
fn a_promotion_is_one_line_and_survives_reopening() {
    let (_folder, mut registry) = open();
    assert_eq!(registry.champion(), None);
    let deployment = Deployment {
        source: Source {
            job: Some("ftjob-1".into()),
            dataset_sha256: Some("ab".into()),
            ..Source::default()
        },
        ..promoted("ft:a", None)
    };
    registry.deploy(deployment, at(0)).unwrap();
    let text = std::fs::read_to_string(&registry.path).unwrap();
    expect_test::expect![[r#"
        {"format":"hone.registry","version":2,"at":"2023-11-14T22:13:20Z","action":"promote","model":"ft:a","previous":null,"trial":"t-1","verdict":"promote","dataset_sha256":"ab","job":"ftjob-1","reason":"trial `t-1` says promote"}
    "#]]
    .assert_eq(&text);
    let again = Registry::open(&registry.path).unwrap();
    assert_eq!((again.champion(), again.entries()), (Some("ft:a"), registry.entries()));
}

#[test]
fn only_a_promote_verdict_on_this_model_against_this_champion_deploys() {
    let (_folder, mut registry) = open();
    let refused = |registry: &mut Registry, deployment: Deployment| {
        let error = registry.deploy(deployment, at(0)).unwrap_err();
        assert!(error.kind() == Kind::Verdict && error.hint().is_some());
        error.to_string()
    };
    let untested = Deployment { model: Some("ft:a".into()), ..Deployment::default() };
    assert_eq!(refused(&mut registry, untested), "no trial of `ft:a` supports its deployment");
    let other = Deployment { model: Some("ft:b".into()), ..promoted("ft:a", None) };
    assert_eq!(refused(&mut registry, other), "no trial of `ft:b` supports its deployment");
    for verdict in [Verdict::Hold, Verdict::RollBack] {
        let text = refused(&mut registry, tested("ft:a", None, verdict));
        assert!(text.ends_with(&format!("is `{}`, not `promote`", verdict.as_str())), "{text}");
    }
    registry.deploy(promoted("ft:a", None), at(1)).unwrap();
    let text = refused(&mut registry, promoted("ft:b", None));
    assert_eq!(text, "trial `t-1` did not compare with today's champion, `ft:a`");
    registry.deploy(promoted("ft:b", Some("ft:a")), at(2)).unwrap();
    assert_eq!(registry.entries().len(), 2, "what was refused left no line");
}

#[test]
fn force_deploys_and_is_recorded() {
    let (_folder, mut registry) = open();
    let forced = Deployment { force: true, ..tested("ft:a", None, Verdict::Hold) };
    let entry = registry.deploy(forced, at(0)).unwrap();
    assert_eq!((entry.action, entry.verdict), (Action::Force, Some(Verdict::Hold)));
    assert_eq!(entry.reason, "forced, the verdict was `hold`");
    // A verdict that supports it needs no force, and the record does not claim any.
    let unneeded = Deployment { force: true, ..promoted("ft:b", Some("ft:a")) };
    assert_eq!(registry.deploy(unneeded, at(1)).unwrap().action, Action::Promote);
}

#[test]
fn rollback_goes_back_one_champion_at_a_time() {
    let (_folder, mut registry) = open();
    assert!(matches!(registry.rollback("", at(0)), Err(RegistryError::NothingDeployed)));
    registry.deploy(promoted("ft:a", None), at(1)).unwrap();
    registry.deploy(promoted("ft:b", Some("ft:a")), at(2)).unwrap();
    let entry = registry.rollback("", at(3)).unwrap();
    assert_eq!((entry.model.as_deref(), entry.previous.as_deref()), (Some("ft:a"), Some("ft:b")));
    assert_eq!(entry.reason, "`ft:b` was taken back");
    registry.rollback("too slow", at(4)).unwrap();
    assert_eq!(registry.champion(), None);
    assert!(matches!(registry.rollback("", at(5)), Err(RegistryError::NothingDeployed)));
    // What was taken back may return.
    registry.deploy(promoted("ft:b", None), at(6)).unwrap();
    assert_eq!(registry.champion(), Some("ft:b"));
}

#[test]
fn the_champion_is_not_deployed_twice() {
    let (_folder, mut registry) = open();
    registry.deploy(promoted("ft:a", None), at(0)).unwrap();
    let error = registry.deploy(Deployment { force: true, ..promoted("ft:a", None) }, at(1)).unwrap_err();
    assert!(matches!(error, RegistryError::AlreadyChampion { .. }));
}

#[test]
fn the_base_is_deployed_by_force_and_ends_every_deployment() {
    let (_folder, mut registry) = open();
    registry.deploy(promoted("ft:a", None), at(0)).unwrap();
    registry.deploy(promoted("ft:b", Some("ft:a")), at(1)).unwrap();
    let error = registry.deploy(Deployment::default(), at(2)).unwrap_err();
    assert_eq!(error.to_string(), "no trial of the base model supports its deployment");
    let base = Deployment { force: true, ..Deployment::default() };
    let entry = registry.deploy(base.clone(), at(3)).unwrap();
    assert_eq!((entry.action, entry.model, entry.previous.as_deref()), (Action::Force, None, Some("ft:b")));
    let mut registry = Registry::open(&registry.path).unwrap();
    assert_eq!((registry.champion(), registry.deployments()), (None, 0));
    let error = registry.deploy(base, at(4)).unwrap_err();
    assert_eq!(error.to_string(), "the base model is the champion already");
    let back = registry.clone().rollback("", at(4)).unwrap();
    assert_eq!((back.model.as_deref(), back.previous), (Some("ft:b"), None), "it is a step like any other");
    assert_eq!(back.reason, "the base model was taken back");
    let mut registry = Registry::open(&registry.path).unwrap();
    assert_eq!((registry.champion(), registry.deployments()), (Some("ft:b"), 2));
    registry.deploy(Deployment { force: true, ..Deployment::default() }, at(4)).unwrap();
    // A trial against the base counts again.
    registry.deploy(promoted("ft:c", None), at(5)).unwrap();
    assert_eq!(registry.champion(), Some("ft:c"));
}

#[test]
fn a_half_written_line_is_reported_and_never_took_effect() {
    let (_folder, mut registry) = open();
    registry.deploy(promoted("ft:a", None), at(0)).unwrap();
    let path = registry.path.clone();
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{whole}{}", &whole[..whole.len() / 2])).unwrap();
    let mut registry = Registry::open(&path).unwrap();
    assert_eq!((registry.champion(), registry.unreadable().len()), (Some("ft:a"), 1));
    registry.rollback("", at(1)).unwrap();
    let registry = Registry::open(&path).unwrap();
    assert_eq!((registry.champion(), registry.entries().len()), (None, 2));
}

#[test]
fn lines_of_another_version_are_not_guessed_at() {
    let (folder, _) = open();
    let path = folder.path().join("registry.jsonl");
    for line in
        [r#"{"format":"hone.registry","version":3}"#, "[]", r#"{"format":"x","version":1,"action":"canary"}"#]
    {
        std::fs::write(&path, format!("{line}\n")).unwrap();
        let error = Registry::open(&path).unwrap_err();
        assert!(matches!(error, RegistryError::Format { line: 1, .. }), "{error}");
    }
}

#[test]
fn lines_of_the_first_version_are_read() {
    let (folder, _) = open();
    let path = folder.path().join("registry.jsonl");
    let line = r#"{"format":"hone.registry","version":1,"at":"2023-11-14T22:13:20Z","action":"promote","model":"ft:a",
        "previous":null,"trial":"t-1","verdict":"promote","dataset_sha256":"ab","job":"ftjob-1","reason":"r"}"#;
    std::fs::write(&path, format!("{}\n", line.replace('\n', ""))).unwrap();
    let registry = Registry::open(&path).unwrap();
    assert_eq!((registry.champion(), registry.canary()), (Some("ft:a"), None));
    assert_eq!(registry.entries()[0].source.dataset_sha256.as_deref(), Some("ab"));
}

#[test]
fn a_canary_needs_the_same_verdict_and_leaves_the_champion_in_office() {
    let (_folder, mut registry) = open();
    registry.deploy(promoted("ft:a", None), at(0)).unwrap();
    let held = registry.try_out(tested("ft:b", Some("ft:a"), Verdict::Hold), 0.1, at(1)).unwrap_err();
    assert_eq!(held.kind(), Kind::Verdict, "a canary is no way round a verdict");
    for share in [0.0, 1.0, f64::NAN] {
        let error = registry.try_out(promoted("ft:b", Some("ft:a")), share, at(1)).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
    }
    let entry = registry.try_out(promoted("ft:b", Some("ft:a")), 0.1, at(2)).unwrap();
    assert_eq!(
        (entry.action, entry.model.as_deref(), entry.subject()),
        (Action::Canary, Some("ft:a"), Some("ft:b"))
    );
    assert_eq!((registry.champion(), registry.canary().unwrap().share), (Some("ft:a"), 0.1));
    // The way back ends the trial run alone.
    registry.rollback("it crashes", at(3)).unwrap();
    assert_eq!((registry.champion(), registry.canary()), (Some("ft:a"), None));
    let forced = Deployment { force: true, ..tested("ft:b", Some("ft:a"), Verdict::Hold) };
    registry.try_out(forced, 0.5, at(4)).unwrap();
    registry.deploy(promoted("ft:b", Some("ft:a")), at(5)).unwrap();
    assert_eq!((registry.champion(), registry.canary()), (Some("ft:b"), None));
    let again = Registry::open(&registry.path).unwrap();
    assert_eq!((again.champion(), again.canary(), again.entries()), (Some("ft:b"), None, registry.entries()));
}

#[test]
fn a_canary_may_have_another_share_and_stays_the_same_try() {
    let (_folder, mut registry) = open();
    registry.deploy(promoted("ft:a", None), at(0)).unwrap();
    let first = registry.try_out(promoted("ft:b", Some("ft:a")), 0.1, at(1)).unwrap();
    let entry = registry.try_out(promoted("ft:b", Some("ft:a")), 0.5, at(2)).unwrap();
    assert_eq!((entry.action, entry.share), (Action::Canary, Some(0.5)));
    assert_eq!(entry.reason, "its share was 0.1, now 0.5; on trial, the verdict was `promote`");
    let registry = Registry::open(&registry.path).unwrap();
    let canary = registry.canary().unwrap();
    assert_eq!((registry.champion(), canary.share), (Some("ft:a"), 0.5));
    assert_eq!(canary.at, first.at, "what was judged so far counts");
    // Another model, or the same after it was taken back, begins anew.
    let mut other = registry.clone();
    other.try_out(promoted("ft:c", Some("ft:a")), 0.5, at(3)).unwrap();
    assert_eq!(other.canary().unwrap().at, at(3).to_string());
    other.rollback("", at(4)).unwrap();
    other.try_out(promoted("ft:c", Some("ft:a")), 0.5, at(5)).unwrap();
    assert_eq!(other.canary().unwrap().at, at(5).to_string());
}

#[test]
fn force_behind_a_canary_is_recorded() {
    let (_folder, mut registry) = open();
    let forced = Deployment { force: true, ..tested("ft:a", None, Verdict::Hold) };
    let entry = registry.try_out(forced, 0.1, at(0)).unwrap();
    assert!(entry.forced && registry.canary().unwrap().forced);
    assert_eq!(entry.reason, "on trial by force, the verdict was `hold`");
    let untested = Deployment {
        model: Some("ft:b".into()),
        force: true,
        reason: "for the demo".into(),
        ..Deployment::default()
    };
    let entry = registry.try_out(untested, 0.1, at(1)).unwrap();
    assert_eq!(serde_json::to_value(&entry).unwrap()["forced"], true, "whatever the reason says");
    let again = Registry::open(&registry.path).unwrap();
    assert!(again.canary().unwrap().forced);
    // Where nothing spoke against it, the record claims no force.
    let unneeded = Deployment { force: true, ..promoted("ft:c", None) };
    let entry = registry.try_out(unneeded, 0.1, at(2)).unwrap();
    assert!(serde_json::to_value(&entry).unwrap().get("forced").is_none());
}

#[test]
fn the_base_is_no_canary() {
    let (_folder, mut registry) = open();
    let base = Deployment { force: true, ..Deployment::default() };
    let text = registry.try_out(base.clone(), 0.5, at(0)).unwrap_err().to_string();
    assert_eq!(text, "the base model is the champion already");
    registry.deploy(promoted("ft:a", None), at(1)).unwrap();
    let error = registry.try_out(base, 0.5, at(2)).unwrap_err();
    assert_eq!(error.to_string(), "the base model answers all requests or none: it is no canary");
    assert!(error.kind() == Kind::Input && error.hint().is_some());
}

#[test]
fn the_champion_before_is_found_past_canaries_and_rollbacks() {
    let (_folder, mut registry) = open();
    registry.deploy(promoted("ft:a", None), at(0)).unwrap();
    assert_eq!(registry.before("ft:a"), None);
    registry.deploy(promoted("ft:b", Some("ft:a")), at(1)).unwrap();
    registry.try_out(promoted("ft:c", Some("ft:b")), 0.1, at(2)).unwrap();
    assert_eq!(registry.before("ft:b"), Some("ft:a"), "a canary's line says champion twice");
    registry.rollback("", at(3)).unwrap();
    assert_eq!(registry.before("ft:b"), Some("ft:a"));
    registry.deploy(promoted("ft:a", Some("ft:b")), at(4)).unwrap();
    assert_eq!(registry.before("ft:a"), Some("ft:b"));
    registry.rollback("", at(5)).unwrap();
    registry.rollback("", at(6)).unwrap();
    assert_eq!((registry.champion(), registry.before("ft:a")), (Some("ft:a"), None));
    assert_eq!(registry.before("ft:never"), None);
}

#[test]
fn a_verdict_is_checked_against_the_champion_of_the_moment() {
    let (_folder, mut slow) = open();
    let mut fast = slow.clone();
    fast.deploy(promoted("ft:a", None), at(0)).unwrap();
    let error = slow.deploy(promoted("ft:b", None), at(1)).unwrap_err();
    assert_eq!(error.to_string(), "trial `t-1` did not compare with today's champion, `ft:a`");
    assert_eq!(error.kind(), Kind::Verdict);
    assert_eq!(slow.entries(), fast.entries(), "the refused one has seen why");
    assert_eq!(Registry::open(&slow.path).unwrap().entries().len(), 1);
}

#[test]
fn a_step_that_knew_nothing_of_another_is_not_taken() {
    let (_folder, mut registry) = open();
    registry.deploy(promoted("ft:a", None), at(0)).unwrap();
    registry.try_out(promoted("ft:b", Some("ft:a")), 0.1, at(1)).unwrap();
    let knew = registry.clone();
    // The canary is taken back while its promotion is under way, or while someone else takes it back as well.
    registry.rollback("it breaks", at(2)).unwrap();
    let text = std::fs::read_to_string(&registry.path).unwrap();
    let said =
        "another command was faster: `ui-agent` is `ft:a` now, without a canary, and nothing was changed";
    type Late = fn(&mut Registry) -> Result<Entry, RegistryError>;
    let steps: [Late; 4] = [
        |late| late.deploy(promoted("ft:b", Some("ft:a")), at(3)),
        |late| late.deploy(Deployment { force: true, ..promoted("ft:c", None) }, at(3)),
        |late| late.try_out(promoted("ft:b", Some("ft:a")), 0.5, at(3)),
        |late| late.rollback("", at(3)),
    ];
    for step in steps {
        let error = step(&mut knew.clone()).unwrap_err();
        assert_eq!(error.to_string(), said);
        assert!(error.kind() == Kind::Environment && error.hint().is_some());
    }
    assert_eq!(std::fs::read_to_string(&registry.path).unwrap(), text);
    // Whoever has been told may go on.
    let mut late = knew;
    assert!(late.rollback("", at(4)).is_err());
    assert_eq!(late.rollback("", at(5)).unwrap().model, None);
}

#[test]
fn of_many_at_once_each_takes_over_from_the_one_before() {
    let (_folder, registry) = open();
    let (path, all) = (&registry.path, 8);
    let done: usize = std::thread::scope(|scope| {
        let one = |n: usize| {
            scope.spawn(move || {
                let model = Some(format!("ft:{n}"));
                let forced = Deployment { model, force: true, ..Deployment::default() };
                (0..20)
                    .filter(|_| Registry::open(path).unwrap().deploy(forced.clone(), at(0)).is_ok())
                    .count()
            })
        };
        let threads: Vec<_> = (0..all).map(one).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let registry = Registry::open(path).unwrap();
    assert_eq!(registry.entries().len(), done, "what was said to be written is there");
    assert!(done >= 1);
    for pair in registry.entries().windows(2) {
        assert_eq!(pair[0].model, pair[1].previous);
    }
}

#[test]
fn what_is_refused_makes_no_file() {
    let (_folder, mut registry) = open();
    assert!(registry.rollback("", at(0)).is_err());
    assert!(registry.deploy(tested("ft:a", None, Verdict::Hold), at(0)).is_err());
    assert!(!registry.path.exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any sequence of deployments, returns to the base, trial runs and rollbacks: the champion is that of a plain stack, and reopening agrees.
    #[test]
    fn the_champion_is_the_top_of_the_stack(steps in proptest::collection::vec(proptest::option::of(0u8..9), 0..16)) {
        let (_folder, mut registry) = open();
        let mut stack: Vec<Option<String>> = Vec::new();
        let mut canary: Option<String> = None;
        for (second, step) in steps.into_iter().enumerate() {
            let now = at(second as i64);
            match step {
                None => {
                    let done = canary.take().is_some() || stack.pop().is_some();
                    prop_assert_eq!(registry.rollback("", now).is_ok(), done);
                }
                Some(8) => {
                    let new = stack.last().is_some_and(Option::is_some);
                    let base = Deployment { force: true, ..Deployment::default() };
                    prop_assert_eq!(registry.deploy(base, now).is_ok(), new);
                    if new {
                        stack.push(None);
                        canary = None;
                    }
                }
                Some(n @ 4..) => {
                    let model = format!("ft:{}", n - 4);
                    let new = stack.last() != Some(&Some(model.clone()));
                    let deployment = promoted(&model, registry.champion());
                    prop_assert_eq!(registry.try_out(deployment, 0.2, now).is_ok(), new);
                    if new {
                        canary = Some(model);
                    }
                }
                Some(n) => {
                    let model = format!("ft:{n}");
                    let new = stack.last() != Some(&Some(model.clone()));
                    let deployment = promoted(&model, registry.champion());
                    prop_assert_eq!(registry.deploy(deployment, now).is_ok(), new);
                    if new {
                        stack.push(Some(model));
                        canary = None;
                    }
                }
            }
            prop_assert_eq!(registry.champion(), stack.last().and_then(Option::as_deref));
            prop_assert_eq!(registry.canary().map(|canary| &canary.model), canary.as_ref());
        }
        let again = Registry::open(&registry.path).unwrap();
        prop_assert_eq!(again.champion(), registry.champion());
        prop_assert_eq!(again.canary(), registry.canary());
        prop_assert_eq!(again.entries(), registry.entries());
        for pair in again.entries().windows(2) {
            prop_assert_eq!(&pair[0].model, &pair[1].previous, "each line takes over from the one before");
        }
    }

    #[test]
    fn no_file_makes_the_reader_panic(text in "(\\PC|\n){0,120}") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        std::fs::write(&path, text).unwrap();
        let _ = Registry::open(&path);
    }
}
