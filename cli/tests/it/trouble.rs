//! Every page of `docs/troubleshooting`: what it says happens, and the hint is what mends it.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};

use hone_fake::{Fake, Fault, Faults, Options, Tuning};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{method, path},
};

use crate::harness::{DATASET, Ran, World, cache, dataset};

fn provider(tuning: Tuning) -> Fake {
    Fake::start(Options { tuning, record: true, ..Options::default() }).unwrap()
}

/// A workspace with a dataset whose trainer is the row `far`.
fn world(base_url: &str, model: &str) -> World {
    let world = World::bare();
    world.write(DATASET, dataset(12));
    let row = format!(
        "[finetune]\nmodel = \"far\"\n[models.far]\nprovider = \"openai-compatible\"\nbase_url = \"{base_url}\"\n\
         model = \"{model}\"\napi_key_env = \"FAR_KEY\"\n"
    );
    world.write("hone.toml", row);
    world
}

fn run(world: &World, arguments: &[&str]) -> Ran {
    let mut command = world.command(arguments);
    command.env("FAR_KEY", "sk-right");
    Ran::from(command)
}

fn json(world: &World, arguments: &[&str]) -> Value {
    let ran = run(world, &[arguments, &["--json"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn api_key_not_found() {
    let fake = provider(Tuning::Succeeds);
    let world = world(&fake.url, "m");
    world.fails(&["finetune"], 6, "`FAR_KEY` is not set", "api-key-not-found.md");
    assert_eq!(fake.requests(), []);
    world.write(".env", "FAR_KEY=sk-right\n");
    world.ok(&["finetune", "--detach"]);
}

#[test]
fn invalid_key() {
    let fake = Fake::start(Options { key: Some("sk-other".into()), ..Options::default() }).unwrap();
    let world = world(&fake.url, "m");
    let ran = run(&world, &["finetune"]);
    ran.failed(6, "invalid_api_key", "invalid-key.md");
    assert!(!ran.stderr.contains("sk-right"), "{}", ran.stderr);
    assert_eq!(fake.meter().uploads, 0);
    let doctor = run(&world, &["doctor"]);
    assert!(doctor.stdout.contains("FAULT  endpoint of `far`"), "{doctor:?}");
}

#[test]
fn insufficient_quota() {
    let fake = provider(Tuning::NoQuota);
    let world = world(&fake.url, "m");
    run(&world, &["finetune"]).failed(6, "insufficient_quota", "insufficient-quota.md");
    fake.set_tuning(Tuning::Succeeds);
    assert_eq!(json(&world, &["finetune"])["status"], "succeeded");
    assert_eq!((fake.meter().jobs, fake.meter().uploads), (1, 1));
}

#[test]
fn invalid_format() {
    let fake = provider(Tuning::Succeeds);
    let world = world(&fake.url, "m");
    world.write(DATASET, dataset(9) + "{\"messages\": [{\"role\": \"wizard\", \"content\": \"hm\"}]}\n");
    run(&world, &["finetune"]).failed(3, "line 10: ", "invalid-format.md");
    assert_eq!(fake.requests(), [], "nobody has seen the file");
    let doctor = run(&world, &["doctor"]);
    assert!(doctor.stdout.contains("FAULT  dataset for training"), "{doctor:?}");
}

#[test]
fn stuck_in_validating() {
    let fake = provider(Tuning::Stuck { minutes: 31 });
    let world = world(&fake.url, "m");
    run(&world, &["finetune"]).failed(6, "in `validating_files` for 31 minutes", "--restart-stuck");
    let stuck = json(&world, &["status"])["data"][0].clone();
    assert_eq!((&stuck["row"], &stuck["status"]), (&json!("far"), &json!("validating_files")));
    let doctor = run(&world, &["doctor"]);
    assert!(doctor.stdout.contains("FAULT  last job"), "{doctor:?}");
    fake.set_tuning(Tuning::Succeeds);
    let again = json(&world, &["finetune", "--restart-stuck"]);
    assert_eq!(again["status"], "succeeded");
    assert_ne!(again["id"], stuck["id"]);
    assert_eq!(json(&world, &["status", stuck["id"].as_str().unwrap()])["status"], "cancelled");
    assert_eq!((fake.meter().jobs, fake.meter().uploads), (2, 1));
}

#[test]
fn still_config_first() {
    let Some(cache) = cache("still_config_first") else { return };
    let world = World::with_runtime(cache);
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/design/critic-apps/config-first");
    let ran = world.run(&["critique", app.to_str().unwrap(), "--static-only"]);
    for said in ["64% of the lines are configuration, 25% is the most", "the habit `ui-first` is not kept"] {
        assert!(ran.stdout.contains(said), "{ran:?}");
    }
}

#[test]
fn training_not_available() {
    let fake = provider(Tuning::Forbidden);
    let world = world(&fake.url, "m");
    let ran = run(&world, &["finetune"]);
    ran.failed(6, "training_not_available", "training-not-available.md");
    assert!(
        ran.stderr.contains("model = \"local\"") && ran.stderr.contains("hone models add"),
        "{}",
        ran.stderr
    );
    assert_eq!(fake.meter().jobs, 0);
}

/// The day is one of this world: before it a warning, from it on an error.
#[test]
fn model_shuts_down() {
    let fake = provider(Tuning::Succeeds);
    let world = world(&fake.url, "gpt-4o-2024-08-06");
    let ran = run(&world, &["finetune", "--detach"]);
    assert!(ran.stderr.contains("2027-01-14") && ran.stderr.contains("model-shuts-down.md"), "{ran:?}");
    match ran.code {
        0 => assert!(ran.stderr.contains("are taken away on") && fake.meter().jobs == 1, "{ran:?}"),
        code => assert!(code == 6 && fake.meter().uploads == 0, "{ran:?}"),
    }
}

#[test]
fn unknown_model() {
    let fake = provider(Tuning::Succeeds);
    let world = world(&fake.url, "gpt-5-nano");
    run(&world, &["finetune"]).failed(6, "`far` has no model `gpt-5-nano` to train", "unknown-model.md");
    assert_eq!(fake.meter().uploads, 0);
}

fn asked(model: &str) -> Ran {
    let fake = provider(Tuning::Succeeds);
    run(&world(&fake.url, model), &["generate", "a contact form", "--agent", "far"])
}

#[test]
fn not_an_api() {
    asked("fault-html").failed(6, "it is a web page, not JSON", "`base_url`");
}

#[test]
fn asked_to_wait() {
    asked("fault-limit-long").failed(6, "asks to wait 121 s", "asked-to-wait.md");
}

#[test]
fn rate_limited() {
    asked("fault-limit-final").failed(6, "rate_limit_exceeded", "rate-limited.md");
}

#[test]
fn out_of_reach() {
    let world = world("http://127.0.0.1:9/v1", "m");
    run(&world, &["finetune"]).failed(6, "cannot reach far", "out-of-reach.md");
    asked("fault-reset-mid").failed(6, "cannot reach far", "");
    let ran = run(&world, &["status"]);
    assert_eq!((ran.code, ran.stdout.trim()), (0, "no jobs"), "{ran:?}");
    assert!(ran.stderr.contains("`far` does not tell its jobs"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unanswered_creation() {
    let server = MockServer::start().await;
    let answer = async |verb: &str, at: &str, status: u16, body: Value| {
        let template = ResponseTemplate::new(status).set_body_json(body);
        Mock::given(method(verb)).and(path(at)).respond_with(template).mount(&server).await;
    };
    answer("GET", "/v1/models/m", 200, json!({"id": "m"})).await;
    answer("POST", "/v1/files", 200, json!({"id": "file-1"})).await;
    answer("GET", "/v1/files/file-1", 200, json!({"id": "file-1"})).await;
    answer("POST", "/v1/fine_tuning/jobs", 502, json!({})).await;
    let world = world(&format!("{}/v1", server.uri()), "m");
    for _ in 0..2 {
        run(&world, &["finetune"]).failed(
            6,
            "not known whether `far` created a job",
            "unanswered-creation.md",
        );
    }
    let created = |request: &&wiremock::Request| {
        request.method.as_str() == "POST" && request.url.path() == "/v1/fine_tuning/jobs"
    };
    assert_eq!(
        server.received_requests().await.unwrap().iter().filter(created).count(),
        1,
        "it is asked for once"
    );
}

#[test]
fn job_failed() {
    let fake = provider(Tuning::Fails("server_error".into()));
    let world = world(&fake.url, "m");
    run(&world, &["finetune"]).failed(6, "the job failed: server_error", "again later");
    let doctor = run(&world, &["doctor"]);
    assert!(doctor.stdout.contains("FAULT  last job"), "{doctor:?}");
    fake.set_tuning(Tuning::Succeeds);
    assert_eq!(json(&world, &["finetune"])["status"], "succeeded");
}

#[test]
fn workspace_busy() {
    let fake = provider(Tuning::Slow);
    let world = world(&fake.url, "m");
    json(&world, &["finetune", "--detach"]);
    let _held = hone::store::Lock::take(&world.path(".hone/finetune.lock")).unwrap();
    run(&world, &["finetune"]).failed(7, "in use", "");
    assert_eq!(json(&world, &["status"])["data"].as_array().unwrap().len(), 1);
}

#[test]
fn budget_reached() {
    let world = world("http://192.0.2.1/v1", "m");
    let settings = world.read("hone.toml");
    world.write("hone.toml", format!("[budget]\nusd = 0\n{settings}"));
    run(&world, &["finetune"]).failed(5, "the budget is 0", "budget-reached.md");
    let price = "price = { input = 3.0, output = 12.0, as_of = \"2026-01-31\" }\n";
    world.write("hone.toml", format!("[budget]\nusd = 0.001\n{settings}{price}"));
    let ask = ["generate", "a form", "--agent", "far"];
    run(&world, &ask).failed(5, "the budget of $0.0010 is reached", "budget-reached.md");
}

#[test]
fn unknown_price() {
    let world = world("http://192.0.2.1/v1", "m");
    let ask = ["generate", "a form", "--agent", "far"];
    run(&world, &ask).failed(5, "what `models.far` costs is not known", "unknown-price.md");
    let doctor = |said: &str| {
        let doctor = run(&world, &["doctor", "--offline"]);
        assert!(doctor.stdout.lines().any(|line| line.starts_with(said)), "{doctor:?}");
    };
    doctor("FAULT  price of `far`         not known");
    let settings = world.read("hone.toml");
    world.write(
        "hone.toml",
        format!("{settings}price = {{ input = 3.0, output = 12.0, as_of = \"2024-01-31\" }}\n"),
    );
    doctor("ok     price of `far`         as of 2024-01-31, ");
}

#[test]
fn trains_nothing() {
    let world = world("http://127.0.0.1:9/v1", "m");
    let settings = world.read("hone.toml").replace("openai-compatible", "groq");
    world.write("hone.toml", settings);
    let ran = run(&world, &["finetune"]);
    ran.failed(3, "`groq` trains no models", "trains-nothing.md");
    assert!(ran.stderr.contains("model = \"local\""), "{ran:?}");
}

#[test]
fn no_account() {
    let world = world("http://127.0.0.1:9/v1", "m");
    let settings = world.read("hone.toml").replace("openai-compatible", "fireworks");
    world.write("hone.toml", settings);
    run(&world, &["finetune"]).failed(3, "does not say whose account its jobs belong to", "no-account.md");
}

#[test]
fn no_dataset() {
    let fake = provider(Tuning::Succeeds);
    let world = world(&fake.url, "m");
    std::fs::remove_file(world.path(DATASET)).unwrap();
    run(&world, &["finetune"]).failed(3, "there is no dataset", "no-dataset.md");
    assert_eq!(fake.requests(), []);
}

#[test]
fn too_few_examples() {
    let fake = provider(Tuning::Succeeds);
    let world = world(&fake.url, "m");
    world.write(DATASET, dataset(9));
    run(&world, &["finetune"]).failed(3, "dataset has 9 examples, at least 10", "too-few-examples.md");
    assert_eq!(fake.requests(), []);
    fake.set_tuning(Tuning::Fails("invalid_n_examples".into()));
    world.write(DATASET, dataset(12));
    run(&world, &["finetune"]).failed(3, "(invalid_n_examples)", "too-few-examples.md");
}

#[test]
fn unknown_job() {
    let fake = provider(Tuning::Succeeds);
    let world = world(&fake.url, "m");
    run(&world, &["status", "ftjob-none"]).failed(3, "knows a job `ftjob-none`", "unknown-job.md");
}

#[test]
fn job_cancelled() {
    let fake = provider(Tuning::Slow);
    let world = world(&fake.url, "m");
    let job = json(&world, &["finetune", "--detach"])["id"].clone();
    assert_eq!(json(&world, &["cancel"])["status"], "cancelled");
    run(&world, &["status", "--follow"]).failed(130, "was cancelled", "job-cancelled.md");
    fake.set_tuning(Tuning::Succeeds);
    let again = json(&world, &["finetune"]);
    assert_ne!(again["id"], job);
    assert_eq!((fake.meter().jobs, fake.meter().uploads), (2, 1));
}

#[test]
fn no_permission() {
    asked("fault-forbidden").failed(6, "unsupported_country_region_territory", "no-permission.md");
}

#[test]
fn server_error() {
    asked("fault-500").failed(6, "(HTTP 500, server_error)", "server-error.md");
}

/// One row for models that may be asked for an app, without a dataset or a trainer.
fn asks(fake: &Fake, model: &str, more: &str) -> String {
    let url = &fake.url;
    format!(
        "[models.far]\nprovider = \"openai-compatible\"\nbase_url = \"{url}\"\nmodel = \"{model}\"\n{more}\n"
    )
}

#[test]
fn too_slow() {
    let fake = provider(Tuning::Succeeds);
    let world = World::bare();
    for (fault, said) in [("stall", "no answer in time"), ("stall-mid", "too slow: ")] {
        world.write("hone.toml", asks(&fake, &format!("fault-{fault}"), "timeout_s = 1"));
        let ran = world.run(&["generate", "a form", "--agent", "far"]);
        ran.failed(6, said, "too-slow.md");
        assert!(ran.stderr.contains("`timeout_s`"), "{ran:?}");
    }
    // What is slow once is asked again.
    world.write("hone.toml", asks(&fake, "fault-stall-1", "timeout_s = 1"));
    world.ok(&["generate", "a form", "--agent", "far"]);
}

#[test]
fn unusable_answer() {
    let fake = provider(Tuning::Succeeds);
    let world = World::bare();
    let check = |fault: &str, more: &str, said: &str| {
        world.write("hone.toml", asks(&fake, &format!("fault-{fault}"), more));
        let ran = world.run(&["generate", "a form", "--agent", "far"]);
        ran.failed(6, &format!("far gave an answer that cannot be used: {said}"), "unusable-answer.md");
    };
    check("empty", "", "it is empty");
    check("cut-json", "", "its JSON breaks off");
    check("no-choices", "", "");
    check("null-content", "", "");
    check("stream-cut", "stream = true", "the stream ends before the answer does");
    world.write("hone.toml", asks(&fake, "fault-null-content-2", ""));
    world.ok(&["generate", "a form", "--agent", "far"]);
}

/// What `hone evolve --json` says at its end.
fn evolved(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap()
}

const EVOLVE: [&str; 5] = ["evolve", "--static-only", "--agent", "far", "--json"];

#[test]
fn declined_by_the_model() {
    let fake = provider(Tuning::Succeeds);
    for (fault, said) in
        [("refusal", "declines to answer: I cannot help"), ("filtered", "holds its answer back")]
    {
        let world = World::bare();
        world.write("hone.toml", asks(&fake, &format!("fault-{fault}"), ""));
        let ask = ["generate", "a form", "--agent", "far"];
        world.fails(&ask, 6, said, "declined-by-the-model.md");
        let asked = fake.meter().requests;
        world.fails(&ask, 6, said, "declined-by-the-model.md");
        assert_eq!(fake.meter().requests, asked, "it was paid for and is kept");
    }
    let Some(cache) = cache("declined_by_the_model") else { return };
    let world = World::with_runtime(cache);
    world.briefs(1, 1);
    world.write("hone.toml", asks(&fake, "fault-refusal", ""));
    // The composer teaches: the drafts alone are refused.
    let ran = world.run(&EVOLVE);
    assert_eq!((&evolved(&ran)["declined"], &evolved(&ran)["cut"]), (&json!(2), &json!(0)));
    let warned = "replies refused by the model or held back by its provider: 2";
    assert!(ran.stderr.contains(warned) && ran.stderr.contains("declined-by-the-model.md"), "{ran:?}");
    // Refused by a teacher, a reply leaves no entry in a log; it is counted all the same.
    let declines = asks(&fake, "fault-refusal", "").replace("models.far", "models.no");
    world.write("hone.toml", asks(&fake, "m", "") + &declines);
    let ran = world.run(&[&EVOLVE[..], &["--teacher", "no"]].concat());
    assert!(evolved(&ran)["declined"].as_u64().unwrap() >= 2, "{ran:?}");
}

#[test]
fn cut_off() {
    let fake = provider(Tuning::Succeeds);
    let Some(cache) = cache("cut_off") else { return };
    let world = World::with_runtime(cache);
    world.briefs(1, 1);
    world.write("hone.toml", asks(&fake, "fault-length", ""));
    let ran = world.run(&["generate", "a form", "--agent", "far"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for said in ["warning: the answer is cut", "hint: raise `max_tokens`", "cut-off.md"] {
        assert!(ran.stderr.contains(said), "no `{said}` in {ran:?}");
    }
    let ran = world.run(&EVOLVE);
    assert_eq!((&evolved(&ran)["cut"], &evolved(&ran)["declined"]), (&json!(4), &json!(0)));
    assert!(
        ran.stderr.contains("replies cut by the limit on their length: 4")
            && ran.stderr.contains("cut-off.md"),
        "{ran:?}"
    );
    // They are finished, so nothing is new in another run.
    assert_eq!(evolved(&world.run(&EVOLVE))["cut"], 0);
}

#[test]
fn not_in_the_journal() {
    let fake = provider(Tuning::Succeeds);
    let world = World::bare();
    world.write("hone.toml", asks(&fake, "m", ""));
    let ask = ["generate", "a form", "--agent", "far"];
    let offline = [&ask[..], &["--offline"]].concat();
    world.fails(&offline, 6, "the journal has no answer of far to a call of `m`", "not-in-the-journal.md");
    assert_eq!(fake.meter().requests, 0);
    let said = world.ok(&ask);
    assert_eq!(world.ok(&offline), said);
}

#[test]
fn damaged_journal() {
    let fake = provider(Tuning::Succeeds);
    let world = World::bare();
    world.write("hone.toml", asks(&fake, "m", ""));
    world.write(".hone/journal/calls.db", "no database at all, however long it is looked at");
    let ask = ["generate", "a form", "--agent", "far"];
    for command in [&ask[..], &["calls"]] {
        world.fails(command, 7, "calls.db`: ", "damaged-journal.md");
    }
    assert_eq!(fake.meter().requests, 0);
    let doctor = world.run(&["doctor", "--offline"]);
    assert!(
        doctor.stdout.contains("FAULT  journal of calls") && doctor.stdout.contains("move the file away"),
        "{doctor:?}"
    );
    std::fs::remove_file(world.path(".hone/journal/calls.db")).unwrap();
    world.ok(&ask);
    let doctor = world.run(&["doctor", "--offline"]).stdout;
    assert!(doctor.contains("ok     journal of calls       whole, version 1, 1 calls in "), "{doctor}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_long() {
    let server = MockServer::start().await;
    let error = json!({"message": "this model's maximum context length is 4096 tokens", "type": "t", "param": null,
        "code": "context_length_exceeded"});
    let template = ResponseTemplate::new(400).set_body_json(json!({ "error": error }));
    Mock::given(method("POST")).respond_with(template).mount(&server).await;
    let world = world(&format!("{}/v1", server.uri()), "m");
    let ran = run(&world, &["generate", "a form", "--agent", "far"]);
    ran.failed(3, "context_length_exceeded", "too-long.md");
}

#[test]
fn own_agent_fails() {
    let world = World::bare();
    let check = |command: &str, said: &str| {
        world.write(
            "hone.toml",
            format!("[models.mine]\nprovider = \"command\"\ntimeout_s = 3\ncommand = {command}\n"),
        );
        world.fails(&["generate", "a form", "--agent", "mine"], 3, said, "correct the row under `[models]`");
    };
    check(
        r#"["sh", "-c", "echo no model today >&2; exit 3"]"#,
        "`models.mine` ended with exit status: 3: no model today",
    );
    check(r#"["sleep", "60"]"#, "gave no answer within 3 s (`timeout_s`)");
    check(r#"["no-such-program"]"#, "cannot start `no-such-program`");
}

#[test]
fn key_in_settings() {
    let world = world("http://127.0.0.1:9/v1", "m");
    let settings = world.read("hone.toml");
    world.write("hone.toml", format!("{settings}api_key = \"sk-in-the-open-0123456789\"\n"));
    let ran = run(&world, &["generate", "a form", "--agent", "far"]);
    ran.failed(3, "`models.far` holds a key", "key-in-settings.md");
    assert!(!ran.stderr.contains("sk-in-the-open"), "{ran:?}");
}

/// The first answers are good, and from then on the provider is in trouble.
fn goes_down(fake: &Fake, good: u32) {
    let asked = AtomicU32::new(0);
    fake.set_faults(Faults::by(move |_| match asked.fetch_add(1, Ordering::SeqCst) < good {
        true => Fault::None,
        false => Fault::Status(503),
    }));
}

#[test]
fn provider_down() {
    let Some(cache) = cache("provider_down") else { return };
    let fake = provider(Tuning::Succeeds);
    let world = World::with_runtime(cache);
    world.briefs(4, 1);
    world.write("hone.toml", asks(&fake, "m", ""));
    let evolve = ["evolve", "--static-only", "--agent", "far"];

    // It pauses with a line, and Ctrl-C says how to go on.
    goes_down(&fake, 2);
    let mut paused = world.command(&evolve).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(paused.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("far is down since") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "it ended by itself: {said}");
    }
    kill_process(Pid::from_raw(paused.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(paused.wait().unwrap().code(), Some(130), "{said}");
    for part in [
        "(HTTP 503, server_error); trying again in 30 s",
        "nothing is sent meanwhile",
        "hint: run the same command again to go on",
    ] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }

    // Where nobody waits any longer it is an error that says the same.
    world.write("hone.toml", asks(&fake, "m", "patience_s = 1"));
    goes_down(&fake, 2);
    world.run(&evolve).failed(6, "far is down since", "provider-down.md");

    fake.set_faults(Faults::none());
    world.ok(&evolve);
    assert_eq!(world.logs().len(), 4);
}

/// Left with Ctrl-C, killed in the middle of the creation, and found again from anywhere.
#[test]
fn closing_the_terminal_loses_nothing() {
    let fake = provider(Tuning::AnswerStalls(1));
    let world = world(&fake.url, "m");
    let mut command = world.command(&["finetune"]);
    let mut child = command.env("FAR_KEY", "sk-right").spawn().unwrap();
    while fake.meter().jobs == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let listed = json(&world, &["status"]);
    let keys = ["object", "data", "has_more"].map(|key| listed.get(key).is_some());
    assert_eq!((keys, listed["data"][0]["object"].as_str()), ([true; 3], Some("fine_tuning.job")));
    let id = listed["data"][0]["id"].as_str().unwrap().to_owned();
    let text = run(&world, &["status"]).stdout;
    assert!(text.lines().count() == 1 && text.contains("  far  ") && text.contains(&id), "{text}");
    assert_eq!(json(&world, &["status", &id])["id"], id.as_str(), "found without a record");
    let ended = json(&world, &["finetune"]);
    assert_eq!((&ended["id"], &ended["status"]), (&json!(id), &json!("succeeded")));
    assert_eq!((fake.meter().jobs, fake.meter().uploads), (1, 1));
    assert_eq!(json(&world, &["status", "--follow"])["fine_tuned_model"], ended["fine_tuned_model"]);
    assert_eq!(world.read("data/finetuned_model_id.txt").trim(), ended["fine_tuned_model"].as_str().unwrap());
    run(&world, &["status", "ftjob-none"]).failed(3, "`ftjob-none`", "`hone status` without an id");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Texts below a folder.
fn texts(folder: &Path, end: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(texts(&entry, end));
        } else if entry.extension().is_some_and(|extension| extension == end) {
            let text = std::fs::read_to_string(&entry).unwrap();
            found.push((entry, text));
        }
    }
    found
}

#[test]
fn every_page_is_reproduced_and_every_hint_has_its_page() {
    let folder = root().join("docs/troubleshooting");
    let tests = std::fs::read_to_string(root().join("cli/tests/it/trouble.rs")).unwrap();
    let index = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let mut names = Vec::new();
    for (path, text) in texts(&folder, "md") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "README.md" {
            continue;
        }
        let test =
            text.lines().find_map(|line| line.strip_prefix("Test: `cli::trouble::")?.strip_suffix('`'));
        let test = test.unwrap_or_else(|| panic!("{name} names no test"));
        assert!(tests.contains(&format!("fn {test}(")), "{name}: there is no test `{test}`");
        assert!(index.contains(&format!("({name})")), "{name} is not in the index");
        for part in ["**Cause.**", "**Remedy.**", "xit code"] {
            assert!(text.contains(part), "{name} has no {part}");
        }
        names.push(name);
    }
    for source in ["lib/src", "cli/src", "server/src"] {
        for (path, text) in texts(&root().join(source), "rs") {
            for (at, start) in text.match_indices("docs/troubleshooting/") {
                let rest = &text[at + start.len()..];
                let name: String =
                    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).collect();
                assert!(names.contains(&name), "{}: `{name}` is no page", path.display());
            }
        }
    }
}
