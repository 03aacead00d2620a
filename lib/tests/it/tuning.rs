//! Jobs at providers of three shapes: never two of one, whatever is lost on the way; and what they send beside what the
//! providers' own SDKs send.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hone::{
    auto::Auto,
    cancel::Cancel,
    config::{ModelRow, Price},
    error::{Explain, Kind},
    event::Events,
    finetune::{self, Following, Options, Shape, Started, Trainer},
    model::{
        client::{Client, Endpoint, Retry, Secret},
        journal::{self, Journal, Ledger},
        price::{Payer, Usd},
        provider::{Access, provider},
        wire::{Hyperparameters, Job, JobRequest, JobStatus, Method},
    },
    store::Workspace,
};
use hone_fake::{Fake, Tuning};
use serde_json::{Value, json};

const SHAPES: [Shape; 3] = [Shape::OpenAi, Shape::Together, Shape::Fireworks];
const FIREWORKS_BASE: &str = "accounts/fireworks/models/llama-v3p1-8b-instruct";

struct World {
    shape: Shape,
    fake: Fake,
    folder: tempfile::TempDir,
    trainer: Trainer,
}

impl World {
    fn new(shape: Shape, tuning: Tuning) -> Self {
        let fake = Fake::start(hone_fake::Options { tuning, record: true, ..Default::default() }).unwrap();
        let trainer = trainer(shape, "far", &fake.url);
        Self { shape, fake, folder: tempfile::tempdir().unwrap(), trainer }
    }

    fn workspace(&self) -> Workspace {
        Workspace::new(self.folder.path())
    }

    fn dataset(&self) -> PathBuf {
        crate::finetune::ten_rows(&self.workspace())
    }

    fn options(&self) -> Options {
        let model = if self.shape == Shape::Fireworks { FIREWORKS_BASE } else { "m" };
        Options { model: model.into(), suffix: Some("ui".into()), ..Options::default() }
    }

    /// Ends between the request that creates and its answer, which never comes.
    async fn start_and_stop(&self, options: &Options) {
        tokio::select! {
            _ = self.start(options) => panic!("no answer ever comes"),
            () = async { while self.made() == 0 { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
        }
    }

    async fn start(&self, options: &Options) -> Result<Started, finetune::FinetuneError> {
        let (workspace, dataset) = (self.workspace(), self.dataset());
        let journal = Journal::open(workspace.journal());
        finetune::start(&self.trainer, &workspace, &dataset, options, &journal, &Events::none()).await
    }

    async fn follow(&self, job: &str, clock: fn() -> i64) -> Result<Job, finetune::FinetuneError> {
        let following = Following { clock, patient: false };
        finetune::follow(&self.trainer, &self.workspace(), job, following, &Events::none(), &Cancel::new())
            .await
    }

    /// Jobs that the provider has made.
    fn made(&self) -> u64 {
        self.fake.meter().jobs
    }
}

fn trainer(shape: Shape, row: &str, url: &str) -> Trainer {
    let retry = Retry { first_wait: Duration::from_millis(1), ..Retry::default() };
    let endpoint = Endpoint { retry, ..Endpoint::new(row, url) }.with_key(Some(Secret::new("sk-stub")));
    Trainer::new(shape, Client::new(endpoint).unwrap(), Some("acme".into())).unwrap()
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs() as i64
}

/// An answer to the creation that never comes, comes as an error, or is an error twice before anything is done.
#[tokio::test]
async fn a_lost_answer_never_makes_a_second_job() {
    for shape in SHAPES {
        for tuning in [
            Tuning::Succeeds,
            Tuning::AnswerLost(1),
            Tuning::AnswerFails(1),
            Tuning::NotCreated(1),
            Tuning::NotCreated(2),
        ] {
            let world = World::new(shape, tuning.clone());
            let started =
                world.start(&world.options()).await.unwrap_or_else(|e| panic!("{shape:?} {tuning:?}: {e}"));
            assert_eq!(world.made(), 1, "{shape:?} {tuning:?}");
            let again = world.start(&world.options()).await.unwrap();
            assert!(again.picked_up && again.job.id == started.job.id, "{shape:?} {tuning:?}");
            assert_eq!((world.made(), world.fake.meter().uploads), (1, 1), "{shape:?} {tuning:?}");
            let record = finetune::record_of(&world.workspace(), &started.job.id).unwrap();
            assert_eq!((record.row.as_str(), record.dataset_sha256.is_some()), ("far", true));
        }
    }
}

/// Between the request that creates and the line that records: the next run finds the job, for the same or for other wishes.
#[tokio::test]
async fn a_run_that_ends_in_a_creation_is_picked_up() {
    for shape in SHAPES {
        let world = World::new(shape, Tuning::AnswerStalls(1));
        let options = world.options();
        world.start_and_stop(&options).await;
        assert_eq!(finetune::last_job(&world.workspace()), None);
        let picked = world.start(&options).await.unwrap();
        assert!(picked.picked_up, "{shape:?}");
        assert_eq!((world.made(), world.fake.meter().uploads), (1, 1), "{shape:?}");
    }
}

/// Azure is OpenAI's shape below other addresses, with the key in another header.
#[tokio::test]
async fn azures_jobs_are_below_its_addresses() {
    let mut world = World::new(Shape::OpenAi, Tuning::AnswerLost(1));
    let azure =
        Access { api_version: Some("2025-04-01-preview".into()), ..Access::to(provider("azure").unwrap()) };
    let retry = Retry { first_wait: Duration::from_millis(1), ..Retry::default() };
    let base = world.fake.url.trim_end_matches("/v1").to_owned();
    let endpoint = Endpoint { retry, ..Endpoint::new("far", base) };
    let endpoint = endpoint.with_access(azure).with_key(Some(Secret::new("sk-stub")));
    world.trainer = Trainer::new(Shape::OpenAi, Client::new(endpoint).unwrap(), None).unwrap();
    let options = Options { training_type: Some("developerTier".into()), ..world.options() };
    let job = world.start(&options).await.unwrap().job;
    world.follow(&job.id, now).await.unwrap();
    assert_eq!(world.made(), 1);
    assert!(world.trainer.before_use().unwrap().contains("deploy"));
    let requests = world.fake.requests();
    let created = requests.iter().find(|request| request.method == "POST" && request.path.ends_with("/jobs"));
    let body: Value = serde_json::from_slice(&created.unwrap().body).unwrap();
    assert_eq!((&body["trainingType"], &body["model"]), (&json!("developerTier"), &json!("m")));
    for end in ["/openai/files", "/openai/fine_tuning/jobs"] {
        assert!(requests.iter().any(|request| request.method == "POST" && request.path == end), "{end}");
    }
    for request in requests {
        assert!(request.query.contains("api-version=2025-04-01-preview"), "{request:?}");
        assert_eq!((request.header("api-key"), request.header("authorization")), (Some("sk-stub"), None));
    }
}

#[tokio::test]
async fn a_type_of_training_is_a_word_of_azures() {
    let world = World::new(Shape::OpenAi, Tuning::Succeeds);
    let options = Options { training_type: Some("developerTier".into()), ..world.options() };
    let error = world.start(&options).await.unwrap_err();
    assert_eq!((error.kind(), world.fake.meter().uploads), (Kind::Input, 0), "{error}");
}

#[tokio::test]
async fn a_job_that_nobody_saw_start_is_told_before_another() {
    for shape in SHAPES {
        let world = World::new(shape, Tuning::AnswerStalls(1));
        let options = world.options();
        world.start_and_stop(&options).await;
        let other = Options { suffix: Some("other".into()), ..world.options() };
        let started = world.start(&other).await.unwrap();
        assert!(!started.picked_up);
        assert_eq!(world.made(), 2, "{shape:?}");
        let records = finetune::records(&world.workspace());
        assert_eq!(records.len(), 2, "{shape:?}: the first is known too");
    }
}

#[tokio::test]
async fn a_refused_creation_is_no_job_and_says_what_to_do() {
    for shape in SHAPES {
        let world = World::new(shape, Tuning::Forbidden);
        let error = world.start(&world.options()).await.unwrap_err();
        let hint = error.hint().unwrap();
        assert_eq!(error.kind(), Kind::Provider, "{error}");
        assert!(hint.contains("local engine") && hint.contains("hone models add"), "{hint}");
        let quota = World::new(shape, Tuning::NoQuota);
        let error = quota.start(&quota.options()).await.unwrap_err();
        assert!(error.hint().unwrap().contains("billing"), "{shape:?}: {error}");
        assert_eq!((world.made(), quota.made()), (0, 0));
        // It is allowed again: no trace of the refusal stands in the way.
        quota.fake.set_tuning(Tuning::Succeeds);
        assert!(!quota.start(&quota.options()).await.unwrap().picked_up);
        assert_eq!(quota.fake.meter().uploads, 1);
    }
}

#[tokio::test]
async fn a_job_is_followed_to_its_model() {
    for shape in SHAPES {
        for tuning in [Tuning::Succeeds, Tuning::Odd] {
            let world = World::new(shape, tuning);
            let id = world.start(&world.options()).await.unwrap().job.id;
            let job = world.follow(&id, now).await.unwrap();
            let model = job.fine_tuned_model.unwrap();
            let written = std::fs::read_to_string(world.workspace().tuned_model_id()).unwrap();
            assert_eq!(written.trim(), model, "{shape:?}");
            assert_eq!(finetune::row_of_model(&world.workspace(), &model).as_deref(), Some("far"));
            assert_eq!(finetune::origin(&world.workspace(), &model).unwrap().0, id);
            assert!(world.start(&world.options()).await.unwrap().picked_up, "{shape:?}: its model is there");
        }
    }
}

#[tokio::test]
async fn a_failed_job_says_why() {
    for shape in SHAPES {
        for (code, kind, hint) in [
            ("exceeded_quota", Kind::Provider, "billing"),
            ("invalid_training_file", Kind::Input, "hone prepare"),
        ] {
            let world = World::new(shape, Tuning::Fails(code.into()));
            let id = world.start(&world.options()).await.unwrap().job.id;
            let error = world.follow(&id, now).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{shape:?}: {error}");
            assert!(error.to_string().contains(&format!("the job failed: {code}")), "{shape:?}: {error}");
            assert!(error.hint().unwrap().contains(hint), "{shape:?}: {error}");
            // It came to nothing: the next run starts another.
            world.fake.set_tuning(Tuning::Succeeds);
            assert!(!world.start(&world.options()).await.unwrap().picked_up, "{shape:?}");
        }
    }
}

#[tokio::test]
async fn a_stuck_job_is_told_by_the_clock_and_started_again() {
    fn half_an_hour_later() -> i64 {
        now() + 31 * 60
    }
    for shape in SHAPES {
        let world = World::new(shape, Tuning::Stuck { minutes: 0 });
        let id = world.start(&world.options()).await.unwrap().job.id;
        let error = world.follow(&id, half_an_hour_later).await.unwrap_err();
        assert!(matches!(error, finetune::FinetuneError::Stuck { minutes: 31, .. }), "{shape:?}: {error}");
        assert!(error.hint().unwrap().contains("--restart-stuck"));
        assert_eq!(world.made(), 1);
        world.fake.set_tuning(Tuning::Succeeds);
        finetune::give_up(&world.trainer, &world.workspace(), &id).await.unwrap();
        let again = world.start(&world.options()).await.unwrap();
        assert!(!again.picked_up && again.job.id != id, "{shape:?}");
        world.follow(&again.job.id, now).await.unwrap();
        assert_eq!(world.trainer.job(&id).await.unwrap().status, JobStatus::Cancelled, "{shape:?}");
        assert_eq!((world.made(), world.fake.meter().uploads), (2, 1), "{shape:?}");
    }
}

#[tokio::test]
async fn jobs_of_all_rows_are_listed_and_those_of_silent_rows_remembered() {
    let worlds = SHAPES.map(|shape| World::new(shape, Tuning::Slow));
    let workspace = worlds[0].workspace();
    let rows = ["one", "two", "three"];
    let trainers: Vec<Trainer> =
        worlds.iter().zip(rows).map(|(world, row)| trainer(world.shape, row, &world.fake.url)).collect();
    let mut started = Vec::new();
    for (world, trainer) in worlds.iter().zip(&trainers) {
        let dataset = worlds[0].dataset();
        let journal = Journal::open(workspace.journal());
        let job = finetune::start(trainer, &workspace, &dataset, &world.options(), &journal, &Events::none())
            .await
            .unwrap()
            .job;
        started.push((trainer.row().to_owned(), job.id));
    }
    let listed = async |trainers: &[Trainer]| {
        let found = finetune::jobs_everywhere(trainers, Vec::new(), &workspace).await;
        let mut jobs: Vec<_> = found.jobs.iter().map(|job| (job.row.clone(), job.job.id.clone())).collect();
        jobs.sort();
        (jobs, found.silent)
    };
    started.sort();
    assert_eq!(listed(&trainers).await, (started.clone(), Vec::new()));
    for (row, id) in &started {
        let (found, job) = finetune::find(&trainers, id).await.unwrap();
        assert_eq!((found.row(), &job.id), (row.as_str(), id));
    }
    assert!(matches!(
        finetune::find(&trainers, "ftjob-none").await,
        Err(finetune::FinetuneError::NoJob { .. })
    ));
    // One row is gone, with its jobs' last words; another one's port answers nothing.
    let dead = trainer(Shape::OpenAi, "one", "http://127.0.0.1:9/v1");
    let (jobs, silent) = listed(&[dead, trainers[1].clone()]).await;
    assert_eq!(jobs, started);
    assert_eq!(silent.iter().map(|(row, _)| row.as_str()).collect::<Vec<_>>(), ["one"]);
}

#[tokio::test]
async fn what_a_shape_cannot_do_names_what_it_can() {
    let check = async |shape, expected: [bool; 3]| {
        let world = World::new(shape, Tuning::Slow);
        let id = world.start(&world.options()).await.unwrap().job.id;
        let did = [
            world.trainer.pause(&id).await.map(drop),
            world.trainer.resume(&id).await.map(drop),
            world.trainer.checkpoints(&id).await.map(drop),
        ];
        for (outcome, expected) in did.into_iter().zip(expected) {
            match outcome {
                Ok(()) => assert!(expected, "{shape:?}"),
                Err(e) => {
                    assert!(!expected && e.kind() == Kind::Input && e.hint().is_some(), "{shape:?}: {e}")
                }
            }
        }
        assert_eq!(world.trainer.cancel(&id).await.unwrap().status, JobStatus::Cancelled, "{shape:?}");
    };
    check(Shape::OpenAi, [true, true, true]).await;
    check(Shape::Together, [false, false, true]).await;
    check(Shape::Fireworks, [false, true, false]).await;
}

fn sdk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk")
}

/// What the SDK sent, recorded by `lib/tests/sdk/record.py`.
fn fixture(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(sdk().join(format!("{name}.json"))).unwrap();
    let recorded: Value = serde_json::from_str(&text).unwrap();
    recorded["requests"].as_array().unwrap().clone()
}

/// The dataset of the records.
fn recorded_dataset(folder: &Path) -> PathBuf {
    let path = folder.join("dataset.jsonl");
    let row = |n: u32| {
        format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":\"form {n}\"}},{{\"role\":\"assistant\",\"content\":\"ok\"}}]}}\n"
        )
    };
    std::fs::write(&path, (1..=3).map(row).collect::<String>()).unwrap();
    path
}

/// Our requests in the form of the records, with the records' names for what the fake called otherwise.
fn ours(world: &World, names: &[(&str, &str)]) -> Vec<Value> {
    let told = world.fake.requests().into_iter().map(|request| {
        let kind = request.header("content-type").unwrap_or_default().to_owned();
        let body = match kind.split(';').next() {
            _ if request.body.is_empty() => Value::Null,
            Some("application/json") => serde_json::from_slice(&request.body).unwrap(),
            Some("multipart/form-data") => form(&request.body),
            _ => json!({"bytes": request.body.len()}),
        };
        let query = request.query.split('&').filter_map(|pair| pair.split_once('='));
        let query = query.map(|(key, value)| (key.to_owned(), json!(value.replace("%2F", "/"))));
        let range = request.header("x-goog-content-length-range").map(|range| json!({"x-goog-content-length-range": range}));
        let value = json!({
            "method": request.method, "path": request.path, "query": query.collect::<serde_json::Map<_, _>>(),
            "with_key": request.header("authorization") == Some("Bearer sk-stub"),
            "content_type": if request.body.is_empty() { "" } else { kind.split(';').next().unwrap_or_default() },
            "headers": range.unwrap_or_else(|| json!({})), "body": body,
        });
        let named = names.iter().fold(value.to_string(), |text, (ours, theirs)| text.replace(ours, theirs));
        serde_json::from_str(&named).unwrap()
    });
    told.collect()
}

fn form(body: &[u8]) -> Value {
    let text = String::from_utf8_lossy(body);
    let parts = text.split("name=\"").skip(1).filter_map(|part| {
        let (name, rest) = part.split_once('"')?;
        Some((name.to_owned(), json!(rest.split_once("\r\n\r\n")?.1.split("\r\n").next()?)))
    });
    Value::Object(parts.collect())
}

/// Every request of theirs is one of ours, in their order; ours may look at more.
fn check_requests(ours: &[Value], theirs: &[Value]) {
    let mut rest = ours.iter();
    for wanted in theirs {
        let alike = |ours: &&Value| ours["method"] == wanted["method"] && ours["path"] == wanted["path"];
        let nearest = || ours.iter().find(alike).map_or("none".into(), ToString::to_string);
        assert!(rest.any(|ours| ours == wanted), "theirs: {wanted}\nours: {}", nearest());
    }
}

fn recorded_request(model: &str, file: String) -> JobRequest {
    let hyperparameters = Hyperparameters {
        n_epochs: Auto::Fixed(3),
        batch_size: Auto::Fixed(8),
        lora_rank: Auto::Fixed(16),
        ..Hyperparameters::default()
    };
    JobRequest {
        model: model.into(),
        training_file: file,
        suffix: Some("ui-agent-v1".into()),
        seed: Some(7),
        method: Some(Method::supervised(hyperparameters)),
        ..JobRequest::default()
    }
}

#[tokio::test]
async fn together_is_spoken_as_its_sdk_does() {
    const BASE: &str = "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference";
    let world = World::new(Shape::Together, Tuning::Slow);
    let trainer = &world.trainer;
    let file = trainer.upload(&recorded_dataset(world.folder.path())).await.unwrap();
    assert!(trainer.has_file(&file).await.unwrap());
    assert!(trainer.base(BASE).await.unwrap().is_some());
    let request = recorded_request(BASE, file.clone());
    assert_eq!(trainer.estimate(&request).await.unwrap().unwrap().usd, 4.25);
    let job = trainer.create(&request, "hone-1").await.unwrap();
    trainer.jobs(20).await.unwrap();
    let job = trainer.job(&job.id).await.unwrap();
    trainer.events(&job, None).await.unwrap();
    trainer.checkpoints(&job.id).await.unwrap();
    trainer.cancel(&job.id).await.unwrap();
    let names = [(format!("/together-storage/{file}"), "/storage/1"), (file, "file-1"), (job.id, "ft-1")];
    let names: Vec<(&str, &str)> = names.iter().map(|(ours, theirs)| (ours.as_str(), *theirs)).collect();
    check_requests(&ours(&world, &names), &fixture("together"));
}

#[tokio::test]
async fn fireworks_is_spoken_as_its_sdk_does() {
    let world = World::new(Shape::Fireworks, Tuning::Slow);
    let trainer = &world.trainer;
    let file = trainer.upload(&recorded_dataset(world.folder.path())).await.unwrap();
    let dataset = file.rsplit('/').next().unwrap().to_owned();
    let job =
        trainer.create(&recorded_request(FIREWORKS_BASE, file), "hone-0123456789abcdef99").await.unwrap();
    trainer.job(&job.id).await.unwrap();
    trainer.jobs(20).await.unwrap();
    trainer.cancel(&job.id).await.unwrap();
    trainer.resume(&job.id).await.unwrap();
    let names = [
        ("ui-agent-v1-0123456789abcdef", "ui-agent-v1-1"),
        (&job.id, "job-1"),
        (&format!("/fireworks-storage/{dataset}"), "/dataset.jsonl"),
        (&dataset, "data-1"),
    ];
    check_requests(&ours(&world, &names), &fixture("fireworks"));
}

/// The SDKs themselves, so that a record cannot grow old unseen.
#[test]
fn the_records_are_what_the_sdks_send() {
    let Some(clients) = std::env::var_os("HONE_TEST_SDK") else {
        assert!(std::env::var_os("HONE_TEST_REQUIRE").is_none(), "HONE_TEST_SDK is not set");
        eprintln!(
            "SKIPPED the_records_are_what_the_sdks_send: set HONE_TEST_SDK to the folder that `script/clients` prints"
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let dataset = recorded_dataset(folder.path());
    for (name, version) in [("together", "together-3.1.1"), ("fireworks", "fireworks-ai-1.2.30")] {
        let python = Path::new(&clients).join(version).join("bin/python");
        let mut command = std::process::Command::new(&python);
        command.arg(sdk().join("record.py")).arg(name).arg(&dataset).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("NO_PROXY", "127.0.0.1");
        let output = command.output().unwrap_or_else(|e| panic!("{}: {e}", python.display()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let recorded: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            recorded["requests"],
            json!(fixture(name)),
            "{name}: record it again, and mend what differs"
        );
    }
}

/// A provider whose training has a price, and its workspace's journal.
struct Priced {
    world: World,
    journal: Journal,
}

impl Priced {
    fn new(shape: Shape, tuning: Tuning, per_million: Option<f64>, cap: Option<f64>) -> Self {
        let world = World::new(shape, tuning);
        let journal = journal_of(&world, per_million, cap);
        Self { world, journal }
    }

    async fn start(&self) -> Result<Started, finetune::FinetuneError> {
        let (workspace, dataset) = (self.world.workspace(), self.dataset());
        let World { trainer, .. } = &self.world;
        let options = self.world.options();
        finetune::start(trainer, &workspace, &dataset, &options, &self.journal, &Events::none()).await
    }

    /// Ten rows of eight tokens each and what is around them.
    fn dataset(&self) -> PathBuf {
        let path = self.world.dataset();
        let said = |role: &str| json!({"role": role, "content": "a form with a name"});
        let line = json!({"messages": [said("user"), said("assistant")]}).to_string() + "\n";
        std::fs::write(&path, line.repeat(10)).unwrap();
        path
    }

    /// Follows a job to whichever end, and books it.
    async fn end(&self, job: &str) {
        let _ = self.world.follow(job, now).await;
        finetune::book(&self.world.workspace(), &self.journal).unwrap();
    }

    fn ledger(&self) -> Ledger {
        Ledger::read(&self.world.workspace().journal(), None).unwrap()
    }

    /// Spent, held and lost.
    fn money(&self) -> [Usd; 3] {
        let Ledger { spent_usd, held_usd, lost_usd, .. } = self.ledger();
        [spent_usd, held_usd, lost_usd].map(Usd::of)
    }
}

fn journal_of(world: &World, per_million: Option<f64>, cap: Option<f64>) -> Journal {
    let price = Price { input: 1.0, output: 1.0, training: per_million, as_of: "2026-01-31".into() };
    let row = ModelRow { provider: "openai".into(), price: Some(price), ..ModelRow::default() };
    let options =
        journal::Options { cap: cap.and_then(Usd::cap), run: "r".into(), ..journal::Options::default() };
    let journal = Journal::with(world.workspace().journal(), options);
    journal.for_row(Payer::new("far", &row)).by("trainer").at("finetune")
}

#[tokio::test]
async fn a_job_costs_what_was_trained_and_is_booked_once() {
    for tuning in [Tuning::Succeeds, Tuning::AnswerLost(1), Tuning::NotCreated(2)] {
        let priced = Priced::new(Shape::OpenAi, tuning.clone(), Some(25.0), Some(1.0));
        let job = priced.start().await.unwrap().job;
        let [spent, held, _] = priced.money();
        assert!(spent == Usd::ZERO && held > Usd::ZERO, "{tuning:?}: {spent} {held}");
        // Picked up, followed and booked by several, it costs once: 12,345 tokens at $25 a million.
        assert!(priced.start().await.unwrap().picked_up);
        priced.end(&job.id).await;
        priced.end(&job.id).await;
        assert!(priced.start().await.unwrap().picked_up);
        finetune::book(&priced.world.workspace(), &journal_of(&priced.world, None, None)).unwrap();
        assert_eq!(priced.money(), [Usd::from_nanos(308_625_000), Usd::ZERO, Usd::ZERO], "{tuning:?}");
        let row = priced.ledger().rows.remove(0);
        assert_eq!((row.row.as_str(), row.phase.as_str(), row.role.as_str()), ("far", "finetune", "trainer"));
        assert_eq!((row.calls, row.input_tokens, row.run.as_str()), (1, 12_345, "r"));
    }
}

#[tokio::test]
async fn a_job_that_the_budget_does_not_bear_is_not_made() {
    for shape in [Shape::OpenAi, Shape::Fireworks] {
        // Ten examples: ten epochs by the published rule.
        let priced = Priced::new(shape, Tuning::Succeeds, Some(25.0), Some(0.0001));
        let error = priced.start().await.unwrap_err();
        assert_eq!((error.kind(), priced.world.made()), (Kind::Budget, 0), "{shape:?}: {error}");
        assert_eq!(priced.world.fake.meter().uploads, 0, "{shape:?}");
        assert!(error.hint().unwrap().contains("--budget"), "{error}");
        assert_eq!(priced.money(), [Usd::ZERO; 3]);
        // With more it goes on, and what is held is no more than the budget.
        let enough = Priced { journal: journal_of(&priced.world, Some(25.0), Some(1.0)), ..priced };
        enough.start().await.unwrap();
        assert_eq!(enough.world.made(), 1);
    }
    // Together says its own price: $4.25.
    let priced = Priced::new(Shape::Together, Tuning::Succeeds, None, Some(4.0));
    assert_eq!(priced.start().await.unwrap_err().kind(), Kind::Budget);
    let enough = Priced { journal: journal_of(&priced.world, None, Some(5.0)), ..priced };
    let job = enough.start().await.unwrap().job;
    assert_eq!(enough.money()[1], Usd::of(4.25));
    enough.end(&job.id).await;
    assert_eq!((enough.money(), enough.world.made()), ([Usd::of(4.25), Usd::ZERO, Usd::ZERO], 1));
}

#[tokio::test]
async fn jobs_that_come_to_nothing_hold_nothing() {
    for tuning in [Tuning::Forbidden, Tuning::NoQuota] {
        let priced = Priced::new(Shape::OpenAi, tuning, Some(25.0), Some(1.0));
        priced.start().await.unwrap_err();
        assert_eq!(priced.money(), [Usd::ZERO; 3]);
    }
    let priced =
        Priced::new(Shape::OpenAi, Tuning::Fails("invalid_training_file".into()), Some(25.0), Some(1.0));
    let job = priced.start().await.unwrap().job;
    priced.end(&job.id).await;
    assert_eq!(priced.money(), [Usd::ZERO; 3]);
    // Cancelled before it trains it costs nothing; afterwards nobody says what it has cost.
    for trains in [false, true] {
        let priced = Priced::new(Shape::OpenAi, Tuning::Slow, Some(25.0), Some(1.0));
        let (job, workspace) = (priced.start().await.unwrap().job.id, priced.world.workspace());
        let held = priced.money()[1];
        let looks = if trains { 3 } else { 1 };
        for _ in 0..looks {
            let job = priced.world.trainer.job(&job).await.unwrap();
            finetune::seen(&workspace, &priced.world.trainer, &job).unwrap();
        }
        finetune::cancel(&priced.world.trainer, &workspace, &job).await.unwrap();
        finetune::book(&workspace, &priced.journal).unwrap();
        let lost = if trains { held } else { Usd::ZERO };
        assert_eq!(priced.money(), [lost, Usd::ZERO, lost], "{trains}");
    }
}

/// Killed between the creation and its answer, the money stays held, and the next run finds the job and books it.
#[tokio::test]
async fn a_kill_in_a_creation_loses_no_money_from_the_books() {
    let priced = Priced::new(Shape::OpenAi, Tuning::AnswerStalls(1), Some(25.0), Some(1.0));
    tokio::select! {
        _ = priced.start() => panic!("no answer ever comes"),
        () = async { while priced.world.made() == 0 { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
    }
    let [_, held, _] = priced.money();
    assert!(held > Usd::ZERO);
    finetune::book(&priced.world.workspace(), &priced.journal).unwrap();
    assert_eq!(priced.money()[1], held, "it is not known yet what came of it");
    let job = priced.start().await.unwrap().job;
    priced.end(&job.id).await;
    assert_eq!((priced.money()[0], priced.world.made()), (Usd::from_nanos(308_625_000), 1));
    // Money that nothing on disk speaks of any more may have been billed.
    let other = Priced::new(Shape::OpenAi, Tuning::Slow, Some(25.0), Some(1.0));
    other.start().await.unwrap();
    let [_, held, _] = other.money();
    std::fs::remove_dir_all(other.world.workspace().jobs()).unwrap();
    finetune::book(&other.world.workspace(), &other.journal).unwrap();
    assert_eq!(other.money(), [held, Usd::ZERO, held]);
}
