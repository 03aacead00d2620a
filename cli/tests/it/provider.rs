//! The agent behind somebody else's endpoint: what it answers, refuses and breaks.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hone_fake::{Fake, Options};
use serde_json::{Value, json};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::any};

use crate::harness::{Ran, World, cache};

const APP: &str = "import streamlit as st\n\nst.title(\"Contact us\")\nst.write(\"We answer within a day.\")\n\
    with st.form(\"contact\"):\n    name = st.text_input(\"Name\")\n    email = st.text_input(\"Email\")\n    \
    sent = st.form_submit_button(\"Send\")\nif sent:\n    st.success(f\"Thank you, {name or email}\")\n";

fn answer(text: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 90, "completion_tokens": 120, "total_tokens": 210}
    }))
}

fn refusal(status: u16, code: &str) -> ResponseTemplate {
    let error = json!({"message": format!("no: {code}"), "type": "t", "param": null, "code": code});
    ResponseTemplate::new(status)
        .set_body_json(json!({ "error": error }))
        .insert_header("x-should-retry", "false")
}

async fn provider(template: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(template).mount(&server).await;
    server
}

fn point(world: &World, base_url: &str) {
    let row = format!(
        "[models.fake]\nprovider = \"openai-compatible\"\nbase_url = \"{base_url}/v1\"\nmodel = \"m\"\napi_key_env = \"FAKE_KEY\"\n"
    );
    world.write("hone.toml", row);
}

fn ask(world: &World) -> Ran {
    let mut command = world.command(&["generate", "a contact form", "--agent", "fake", "--json"]);
    command.env("FAKE_KEY", "sk-canary");
    Ran::from(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn code_6_is_a_provider_that_refuses() {
    let world = World::bare();
    let check = async |template: ResponseTemplate, message: &str, hint: &str| {
        let server = provider(template).await;
        point(&world, &server.uri());
        let ran = ask(&world);
        ran.failed(6, message, hint);
        assert!(!ran.stderr.contains("sk-canary"), "the key is said: {}", ran.stderr);
    };
    check(refusal(401, "invalid_api_key"), "invalid_api_key", "key").await;
    check(refusal(429, "insufficient_quota"), "insufficient_quota", "").await;
    check(refusal(403, "training_not_available"), "training_not_available", "").await;
    check(ResponseTemplate::new(200).set_body_string("<html>hello</html>"), "", "").await;
    point(&world, "http://127.0.0.1:9");
    ask(&world).failed(6, "", "");
    world.fails(&["generate", "a form", "--agent", "fake"], 6, "`FAKE_KEY` is not set", ".env");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_stand_in_the_env_file() {
    let server = provider(answer(&format!("Here it is:\n\n```python\n{APP}```\n"))).await;
    let world = World::bare();
    point(&world, &server.uri());
    world.write(".env", "export FAKE_KEY=\"sk-canary\"\n");
    let out = world.path("out");
    let made = world.json(&["generate", "a contact form", "--agent", "fake", "--out", out.to_str().unwrap()]);
    assert_eq!((&made["model"], &made["usage"]["completion_tokens"]), (&json!("m"), &json!(120)));
    let written = std::fs::read_to_string(out.join(made["files"][0]["path"].as_str().unwrap())).unwrap();
    assert_eq!(written.trim(), APP.trim());
    let request = &server.received_requests().await.unwrap()[0];
    assert_eq!(request.headers["authorization"], "Bearer sk-canary");
}

/// A paid answer is on disk before it counts: what was answered once is never asked again.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_paid_once() {
    let Some(cache) = cache("an_answer_is_paid_once") else { return };
    let server = provider(answer(&format!("```python\n{APP}```"))).await;
    let world = World::with_runtime(cache);
    world.briefs(2, 1);
    point(&world, &server.uri());
    let evolve = || {
        let mut command = world.command(&["evolve", "--agent", "fake", "--drafts", "1", "--json"]);
        command.env("FAKE_KEY", "sk-canary");
        let ran = Ran::from(command);
        assert_eq!(ran.code, 0, "{ran:?}");
        let last = ran.stdout.lines().last().unwrap().to_owned();
        serde_json::from_str::<Value>(&last).unwrap()
    };
    let first = evolve();
    assert_eq!((&first["evolutions"], &first["calls"]), (&json!(2), &json!(2)), "{first}");
    let calls = server.received_requests().await.unwrap().len();
    assert_eq!(calls, 2);
    let logs = world.logs();
    assert!(logs.iter().all(|(_, log)| log["initial_score"].as_f64().unwrap() > 5.0), "{logs:?}");
    std::fs::remove_dir_all(world.path("data/evolutionary_logs")).unwrap();
    let again = evolve();
    assert_eq!(
        (&again["calls"], &again["usd"]),
        (&json!(0), &json!(0.0)),
        "what is replayed is not paid: {again}"
    );
    assert_eq!(server.received_requests().await.unwrap().len(), calls, "the journal answers");
    let ledger = world.json(&["calls"]);
    let sum = |key: &str| {
        ledger["rows"].as_array().unwrap().iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((sum("calls"), sum("replayed"), sum("input_tokens")), (2, 2, 180), "{ledger}");
    let found =
        std::process::Command::new("grep").args(["-r", "sk-canary"]).arg(world.root()).output().unwrap();
    assert!(found.stdout.is_empty(), "the key is on disk");
}

/// What a model makes of one brief ends neither the others nor what they have paid for.
#[tokio::test(flavor = "multi_thread")]
async fn a_brief_that_fails_does_not_end_the_others() {
    let Some(cache) = cache("a_brief_that_fails_does_not_end_the_others") else { return };
    let world = World::with_runtime(cache);
    world.briefs(4, 1);
    let first: Value =
        serde_json::from_str(world.read("briefs/train.jsonl").lines().next().unwrap()).unwrap();
    let bad = first["description"].as_str().unwrap().to_owned();
    let healed = Arc::new(AtomicBool::new(false));
    let is_healed = healed.clone();
    let respond = move |request: &wiremock::Request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let asks_for_it = body["messages"][1]["content"].as_str().unwrap().contains(&bad);
        match asks_for_it && !is_healed.load(Ordering::SeqCst) {
            true => ResponseTemplate::new(200).set_body_json(json!({"choices": []})),
            false => answer(&format!("```python\n{APP}```")),
        }
    };
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(respond).mount(&server).await;
    point(&world, &server.uri());
    let evolve = || {
        let mut command =
            world.command(&["evolve", "--static-only", "--agent", "fake", "--drafts", "1", "--json"]);
        command.env("FAKE_KEY", "sk-canary");
        Ran::from(command)
    };
    let ran = evolve();
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(
        ran.stderr.contains("1 of 4 briefs are not finished") && ran.stderr.contains("hint: "),
        "{ran:?}"
    );
    assert_eq!(world.logs().len(), 3);
    healed.store(true, Ordering::SeqCst);
    let ran = evolve();
    assert_eq!(ran.code, 0, "{ran:?}");
    let summary: Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["reused"], &summary["calls"]), (&json!(3), &json!(1)), "{summary}");
}

/// The first Ctrl-C lets calls come in that are on their way: they are paid for.
#[test]
fn a_stopped_run_keeps_what_it_has_paid_for() {
    let Some(cache) = cache("a_stopped_run_keeps_what_it_has_paid_for") else { return };
    let options = Options { latency: Duration::from_millis(1500), ..Options::default() };
    let fake = Fake::start(options).unwrap();
    let world = World::with_runtime(cache);
    world.briefs(4, 1);
    point(&world, fake.url.trim_end_matches("/v1"));
    let evolve = || {
        let mut command = world.command(&["evolve", "--static-only", "--agent", "fake", "--drafts", "1"]);
        command.env("FAKE_KEY", "sk-canary").stderr(Stdio::piped());
        command
    };
    let mut child = evolve().spawn().unwrap();
    while fake.meter().in_flight == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert!(ran.code == 130 && ran.stderr.contains("paid for are under way"), "{ran:?}");
    let ran = Ran::from(evolve());
    assert_eq!(ran.code, 0, "{ran:?}");
    let meter = fake.meter();
    assert_eq!((meter.repeated(), meter.requests), (0, 4), "{meter:?}");
}

/// A run can be made again elsewhere from its calls alone.
#[tokio::test(flavor = "multi_thread")]
async fn exported_calls_replay_without_a_provider() {
    let Some(cache) = cache("exported_calls_replay_without_a_provider") else { return };
    let server = provider(answer(&format!("```python\n{APP}```"))).await;
    let [here, there] = [(); 2].map(|()| World::with_runtime(cache.clone()));
    for world in [&here, &there] {
        world.briefs(2, 1);
        point(world, &server.uri());
    }
    let evolve = |world: &World, more: &[&str]| {
        let mut command =
            world.command(&[&["evolve", "--static-only", "--agent", "fake", "--json"], more].concat());
        command.env("FAKE_KEY", "sk-canary");
        Ran::from(command)
    };
    assert_eq!(evolve(&here, &[]).code, 0);
    let calls = server.received_requests().await.unwrap().len();
    let file = here.path("calls.jsonl");
    let file = file.to_str().unwrap();
    assert_eq!(here.json(&["calls", "export", file])["calls"], calls);
    evolve(&there, &["--offline"]).failed(6, "the journal has no answer", "hone calls import");
    assert_eq!(there.json(&["calls", "import", file])["imported"], calls);
    assert_eq!(evolve(&there, &["--offline"]).code, 0);
    assert_eq!(server.received_requests().await.unwrap().len(), calls);
    let scores = |world: &World| {
        world.logs().into_iter().map(|(name, log)| (name, log["final_score"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(scores(&here), scores(&there));
    let text = here.read("calls.jsonl");
    there.write("calls.jsonl", text.replacen("\"seed\":", "\"sead\":", 1));
    let spoilt = there.path("calls.jsonl");
    there.fails(
        &["calls", "import", spoilt.to_str().unwrap()],
        3,
        "its key is not that of its request",
        "nothing was taken in",
    );
}

/// A provider that writes the same app every time, and judges apps in the same way.
async fn judging_provider(verdict: &'static str) -> MockServer {
    let respond = move |request: &wiremock::Request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let system = body["messages"][0]["content"].as_str().unwrap();
        let each = |one: &dyn Fn(usize) -> Value| (1..=8).map(one).collect::<Vec<_>>();
        if system.starts_with("You write checklists") {
            let items = each(&|i| json!({ "question": format!("Is point {i} met?") }));
            answer(&json!({ "items": items }).to_string())
        } else if system.starts_with("You check an app") {
            let answers = each(&|i| json!({"id": format!("q{i}"), "answer": verdict}));
            answer(&json!({ "answers": answers }).to_string())
        } else if system.starts_with("You compare") {
            answer("{\"better\": \"1\"}")
        } else {
            answer(&format!("```python\n{APP}```"))
        }
    };
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(respond).mount(&server).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judge_lowers_what_it_does_not_find() {
    let Some(cache) = cache("a_judge_lowers_what_it_does_not_find") else { return };
    let server = judging_provider("no").await;
    let world = World::with_runtime(cache);
    world.briefs(1, 1);
    point(&world, &server.uri());
    let run = |arguments: &[&str]| {
        let mut command = world.command(&[arguments, &["--json"]].concat());
        command.env("FAKE_KEY", "sk-canary");
        let ran = Ran::from(command);
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str::<Value>(ran.stdout.lines().last().unwrap()).unwrap()
    };
    let app = world.write("app.py", APP);
    let critique = |more: &[&str]| {
        run(&[&["critique", app.to_str().unwrap(), "--brief", "a contact form"], more].concat())[0].clone()
    };
    let (plain, judged) = (critique(&[]), critique(&["--judge", "fake"]));
    assert!(plain["judge"].is_null() && plain["critic"] == hone::critic::VERSION, "{plain}");
    assert_eq!(judged["judge"]["executed_score"], plain["score"]);
    assert!(
        judged["score"].as_f64() <= Some(5.0) && judged["score"].as_f64() < plain["score"].as_f64(),
        "{judged}"
    );
    assert!(
        judged["critic"].as_str().unwrap().starts_with(&format!("{}+judge:fake.", hone::critic::VERSION)),
        "{judged}"
    );

    let server = judging_provider("yes").await;
    point(&world, &server.uri());
    std::fs::remove_dir_all(world.path(".hone/journal")).unwrap();
    let summary = run(&["evolve", "--agent", "fake", "--judge", "fake", "--drafts", "1"]);
    // Whoever stands first is better, in both orders: no choice.
    assert!(summary["judge"]["pairs"].as_u64() >= Some(1), "{summary}");
    assert_eq!(summary["judge"]["position_bias"], 1.0);
    assert!(summary["judge"]["judged"].as_u64() >= Some(1), "{summary}");
    assert!(summary["judge"]["absent"] == 0 && summary["calls"].as_u64() > Some(2), "{summary}");
    let (_, log) = &world.logs()[0];
    assert_eq!(log["critic"], judged["critic"]);
    assert_eq!(log["pairs"][0]["decided"], "inconsistent", "{log}");
    let entries = log["evolution_history"].as_array().unwrap();
    assert!(entries.iter().all(|entry| entry["critique"]["critic"] == log["critic"]), "{log}");
    let kept = std::fs::read_dir(world.path("data/judge")).unwrap().count();
    assert_eq!(kept, 2, "a checklist for each of the two briefs");
    let calls = server.received_requests().await.unwrap().len();
    assert_eq!(run(&["evolve", "--agent", "fake", "--judge", "fake", "--drafts", "1"])["reused"], 1);
    assert_eq!(server.received_requests().await.unwrap().len(), calls);
}
