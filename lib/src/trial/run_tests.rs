use std::{path::Path, sync::atomic::AtomicUsize};

use super::*;
use crate::{
    critic::Level,
    error::Kind,
    trial::{
        Verdict,
        fixtures::{BASE_TUNED, GOOD, POOR, critique, generation, judgement, spec, wobble},
        summarise,
    },
};

#[derive(Debug, thiserror::Error)]
#[error("the provider is down")]
struct Down;

impl Explain for Down {
    fn kind(&self) -> Kind {
        Kind::Provider
    }
}

/// A world whose tuned arm is good and whose base is poor, and that counts its calls.
#[derive(Default)]
struct World {
    generated: AtomicUsize,
    judged: AtomicUsize,
    most_at_once: AtomicUsize,
    at_once: AtomicUsize,
}

impl World {
    async fn generate(&self, arm: &Arm, brief: &Brief) -> Result<Generation, Down> {
        self.generated.fetch_add(1, Ordering::SeqCst);
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        Ok(generation(brief, &arm.name))
    }

    async fn judge(&self, brief: &Brief, candidate: &Candidate) -> Result<Judgement, Down> {
        self.judged.fetch_add(1, Ordering::SeqCst);
        let tuned = candidate.files.iter().any(|f| f.content.contains("by tuned"));
        Ok(judgement(if tuned { GOOD } else { POOR }, wobble(brief.id.as_str(), "x", 0)))
    }

    fn generated(&self) -> usize {
        self.generated.load(Ordering::SeqCst)
    }
}

async fn run_in(world: &World, folder: &Path, spec: &TrialSpec) -> Result<(Trial, Vec<Row>), TrialError> {
    let opened = Trial::open(folder, spec)?;
    let limits = Limits { generate: 3, judge: 1 };
    run(
        opened,
        limits,
        async |arm: &Arm, brief: &Brief, _| world.generate(arm, brief).await,
        async |brief: &Brief, candidate: &Candidate| world.judge(brief, candidate).await,
        &Events::none(),
        &Cancel::new(),
    )
    .await
}

#[tokio::test]
async fn a_trial_runs_from_briefs_to_a_verdict() {
    let (folder, world, mut spec) =
        (tempfile::tempdir().unwrap(), World::default(), spec(10, 1, &BASE_TUNED));
    spec.samples = 2;
    let (trial, rows) = run_in(&world, folder.path(), &spec).await.unwrap();
    assert_eq!((rows.len(), world.generated()), (40, 40));
    assert_eq!(world.most_at_once.load(Ordering::SeqCst), 3);
    assert_eq!(summarise(trial.spec(), &rows).verdict, Verdict::Promote);
    let row = &rows[0];
    assert_eq!(
        (row.format.as_str(), row.version, row.critic.as_str(), row.level),
        ("hone.trial", 1, "1", Level::Run)
    );
    assert_eq!(row.issues[0].message, "nothing <rendered>", "the gravest issue stands first");
    assert!(row.tokens > 10);
}

#[tokio::test]
async fn finished_answers_are_not_redone_and_the_file_is_the_same_whatever_happened_in_between() {
    let spec = spec(8, 1, &BASE_TUNED);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (trial, rows) = run_in(&World::default(), one.path(), &spec).await.unwrap();
    let whole = std::fs::read_to_string(trial.results()).unwrap();

    // Killed while the sixth line was written.
    let (trial, _) = run_in(&World::default(), two.path(), &spec).await.unwrap();
    let five: String = whole.lines().take(5).map(|line| format!("{line}\n")).collect();
    std::fs::write(trial.results(), format!("{five}{{\"format\":\"hone.tri")).unwrap();
    let opened = Trial::open(two.path(), &spec).unwrap();
    assert_eq!((opened.rows.len(), opened.unreadable.len()), (5, 1));
    let world = World::default();
    let (trial, again) = run_in(&world, two.path(), &spec).await.unwrap();
    assert_eq!((world.generated(), again == rows), (11, true));
    assert_eq!(std::fs::read_to_string(trial.results()).unwrap(), whole);

    let world = World::default();
    run_in(&world, two.path(), &spec).await.unwrap();
    assert_eq!(world.generated(), 0);
}

#[tokio::test]
async fn a_provider_error_is_no_zero() {
    let (folder, spec) = (tempfile::tempdir().unwrap(), spec(6, 1, &BASE_TUNED));
    let world = World::default();
    let calls = AtomicUsize::new(0);
    let error = run(
        Trial::open(folder.path(), &spec).unwrap(),
        Limits { generate: 2, judge: 1 },
        async |arm: &Arm, brief: &Brief, _| match calls.fetch_add(1, Ordering::SeqCst) {
            4 => Err(Down),
            _ => world.generate(arm, brief).await,
        },
        async |brief: &Brief, candidate: &Candidate| world.judge(brief, candidate).await,
        &Events::none(),
        &Cancel::new(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Provider);
    assert!(error.to_string().ends_with("the provider is down"), "{error}");
    let kept = Trial::open(folder.path(), &spec).unwrap().rows.len();
    assert!((4..=6).contains(&kept), "what was in flight is kept: {kept}");
    assert!(calls.load(Ordering::SeqCst) < 12, "nothing new was started");
    let (_, rows) = run_in(&world, folder.path(), &spec).await.unwrap();
    assert_eq!(rows.len(), 12);
}

#[tokio::test]
async fn a_judge_that_fails_is_no_zero() {
    let (folder, spec) = (tempfile::tempdir().unwrap(), spec(2, 1, &BASE_TUNED));
    let error = run(
        Trial::open(folder.path(), &spec).unwrap(),
        Limits::default(),
        async |arm: &Arm, brief: &Brief, _| Ok::<_, Down>(generation(brief, &arm.name)),
        async |_: &Brief, _: &Candidate| Err::<Judgement, _>(Down),
        &Events::none(),
        &Cancel::new(),
    )
    .await
    .unwrap_err();
    assert!(matches!(error, TrialError::Judge { .. }), "{error}");
    assert_eq!(Trial::open(folder.path(), &spec).unwrap().rows, []);
}

#[tokio::test]
async fn a_cancel_keeps_what_is_finished() {
    let (folder, spec) = (tempfile::tempdir().unwrap(), spec(6, 1, &BASE_TUNED));
    let (world, cancel) = (World::default(), Cancel::new());
    let error = run(
        Trial::open(folder.path(), &spec).unwrap(),
        Limits { generate: 1, judge: 1 },
        async |arm: &Arm, brief: &Brief, _| {
            if world.generated() == 3 {
                cancel.cancel();
            }
            world.generate(arm, brief).await
        },
        async |brief: &Brief, candidate: &Candidate| world.judge(brief, candidate).await,
        &Events::none(),
        &cancel,
    )
    .await
    .unwrap_err();
    let TrialError::Cancelled { done, total: 12 } = error else { panic!("{error}") };
    assert!((2..=3).contains(&done), "{done}");
    assert_eq!(Trial::open(folder.path(), &spec).unwrap().rows.len(), done);
}

#[tokio::test]
async fn critics_are_not_mixed() {
    let (folder, spec) = (tempfile::tempdir().unwrap(), spec(4, 1, &BASE_TUNED));
    for (critic, level) in [("2", Level::Run), ("1", Level::Static)] {
        let calls = AtomicUsize::new(0);
        let error = run(
            Trial::open(folder.path(), &spec).unwrap(),
            Limits { generate: 1, judge: 1 },
            async |arm: &Arm, brief: &Brief, _| Ok::<_, Down>(generation(brief, &arm.name)),
            async |_: &Brief, _: &Candidate| {
                let other = calls.fetch_add(1, Ordering::SeqCst) == 3;
                let critique =
                    if other { critique(1.0, critic, level) } else { critique(1.0, "1", Level::Run) };
                Ok::<_, Down>(Judgement { critique, ..judgement(POOR, 0.0) })
            },
            &Events::none(),
            &Cancel::new(),
        )
        .await
        .unwrap_err();
        assert!(matches!(error, TrialError::Mixed { .. }), "{error}");
        std::fs::remove_file(Trial::open(folder.path(), &spec).unwrap().trial.results()).unwrap();
    }
}

#[test]
fn another_spec_gets_another_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = spec(4, 1, &BASE_TUNED);
    let id = |spec: &TrialSpec| Trial::open(folder.path(), spec).unwrap().trial.id().to_owned();
    assert_eq!(id(&first), "t-1");
    assert_eq!(id(&first), "t-1");
    assert_eq!(id(&TrialSpec { seed: 8, ..first.clone() }), "t-1-2");
    assert_eq!(id(&TrialSpec { max_tokens: 9, ..first.clone() }), "t-1-3");
    assert_eq!(id(&TrialSpec { seed: 8, ..first.clone() }), "t-1-2");
    assert_eq!(id(&TrialSpec { deployed: Some("x".into()), ..first.clone() }), "t-1");
    let unnamed = TrialSpec { id: String::new(), ..first };
    assert_eq!(id(&unnamed), format!("t-{}", &unnamed.sha256()[..8]));
}

#[test]
fn results_of_a_later_version_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(2, 1, &BASE_TUNED);
    let mut row = crate::trial::fixtures::uniform(&spec, POOR, GOOD).remove(0);
    row.version = 2;
    let trial = Trial::open(folder.path(), &spec).unwrap().trial;
    append_line(&trial.results(), &row).unwrap();
    let error = Trial::open(folder.path(), &spec).unwrap_err();
    assert!(error.to_string().contains("`hone.trial 2`, this version reads `hone.trial 1`"), "{error}");
}

#[test]
fn results_with_scores_that_no_critic_gives_are_refused_with_their_line() {
    let (folder, spec) = (tempfile::tempdir().unwrap(), spec(4, 1, &BASE_TUNED));
    let rows = crate::trial::fixtures::uniform(&spec, POOR, GOOD);
    let trial = Trial::open(folder.path(), &spec).unwrap().trial;
    for score in [90.82, -0.5] {
        let lines = rows.iter().enumerate().map(|(i, row)| {
            let row = Row { score: if i == 2 { score } else { row.score }, ..row.clone() };
            serde_json::to_string(&row).unwrap() + "\n"
        });
        std::fs::write(trial.results(), lines.collect::<String>()).unwrap();
        let error = Trial::open(folder.path(), &spec).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.to_string().starts_with("line 3 of `"), "{error}");
        assert!(error.to_string().contains(&score.to_string()), "{error}");
    }
    // What is no number in JSON is no row either, and is asked for anew.
    let text = serde_json::to_string(&rows[0]).unwrap();
    let score = format!("\"score\":{}", rows[0].score);
    assert!(text.contains(&score));
    std::fs::write(trial.results(), text.replace(&score, "\"score\":1e999")).unwrap();
    let opened = Trial::open(folder.path(), &spec).unwrap();
    assert_eq!((opened.rows.len(), opened.unreadable.len()), (0, 1));
}

#[tokio::test]
async fn a_score_beyond_the_scale_is_not_written_down() {
    let (folder, spec) = (tempfile::tempdir().unwrap(), spec(2, 1, &BASE_TUNED));
    for score in [10.5, f64::NAN] {
        let error = run(
            Trial::open(folder.path(), &spec).unwrap(),
            Limits { generate: 1, judge: 1 },
            async |arm: &Arm, brief: &Brief, _| Ok::<_, Down>(generation(brief, &arm.name)),
            async |_: &Brief, _: &Candidate| {
                let critique = critique(score, "1", Level::Run);
                Ok::<_, Down>(Judgement { critique, ..judgement(POOR, 0.0) })
            },
            &Events::none(),
            &Cancel::new(),
        )
        .await
        .unwrap_err();
        assert!(matches!(error, TrialError::NoScore { .. }), "{error}");
        assert_eq!(Trial::open(folder.path(), &spec).unwrap().rows, []);
    }
}

#[test]
fn faulty_specs_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let good = spec(2, 1, &BASE_TUNED);
    let refused = |spec: TrialSpec| Trial::open(folder.path(), &spec).unwrap_err().to_string();
    assert!(refused(TrialSpec { briefs: vec![], ..good.clone() }).contains("at least one held-out brief"));
    assert!(refused(TrialSpec { samples: 0, ..good.clone() }).contains("at least one sample"));
    assert!(
        refused(TrialSpec { arms: vec![Arm::new("base", "b")], ..good.clone() })
            .contains("`base` and `tuned`")
    );
    let twice = vec![good.briefs[0].clone(), good.briefs[0].clone()];
    assert!(refused(TrialSpec { briefs: twice, ..good.clone() }).contains("one id"));
    let arms = [&good.arms[..], &good.arms[..1]].concat();
    assert!(refused(TrialSpec { arms, ..good }).contains("one name"));
}

#[test]
fn arms_take_turns_in_random_order() {
    let spec = spec(40, 1, &BASE_TUNED);
    let units = plan(&spec);
    assert_eq!(units.len(), 80);
    let base_first = units.chunks(2).filter(|pair| pair[0].arm == 0).count();
    assert!((10..=30).contains(&base_first), "{base_first}");
    assert!(units.chunks(2).all(|pair| pair[0].brief == pair[1].brief && pair[0].arm != pair[1].arm));
    assert_eq!(units, plan(&spec));
    assert_ne!(units, plan(&TrialSpec { seed: 8, ..spec }));
}

#[test]
fn sampling_seeds_differ_by_brief_sample_and_trial_and_not_by_arm() {
    let spec = spec(2, 1, &BASE_TUNED);
    let (a, b) = (&spec.briefs[0], &spec.briefs[1]);
    let seed = spec.sampling_seed(a, 0);
    assert!(seed < 1 << 31);
    assert_ne!(seed, spec.sampling_seed(a, 1));
    assert_ne!(seed, spec.sampling_seed(b, 0));
    assert_ne!(seed, TrialSpec { seed: 8, ..spec.clone() }.sampling_seed(a, 0));
}

proptest::proptest! {
    #[test]
    fn no_results_file_makes_the_reader_panic(text in "(\\PC|\n|\\{\"format\":\"hone.trial\"){0,200}") {
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(1, 1, &BASE_TUNED);
        let trial = Trial::open(folder.path(), &spec).unwrap().trial;
        std::fs::write(trial.results(), text).unwrap();
        let _ = Trial::open(folder.path(), &spec);
    }
}
