//! An agent that is a service of the user's own: evolved like a model, through every way in which a service fails.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::any};

use crate::harness::{World, cache};

const BRIEFS: usize = 3;

/// How often each brief has come, by its id.
type Asked = Arc<Mutex<BTreeMap<String, usize>>>;

/// A service that gives answers by the brief and how often it came for it, from 0.
async fn service(
    answer: impl Fn(&Value, usize) -> ResponseTemplate + Send + Sync + 'static,
) -> (MockServer, Asked) {
    let server = MockServer::start().await;
    let asked = Asked::default();
    let count = Arc::clone(&asked);
    let respond = move |request: &Request| {
        let question: Value = serde_json::from_slice(&request.body).unwrap();
        for key in ["brief", "messages", "seed"] {
            assert!(!question[key].is_null(), "{question}");
        }
        let mut count = count.lock().unwrap();
        let times = count.entry(question["brief"]["id"].as_str().unwrap().to_owned()).or_default();
        *times += 1;
        answer(&question, *times - 1)
    };
    Mock::given(any()).respond_with(respond).mount(&server).await;
    (server, asked)
}

fn world(cache: std::path::PathBuf, server: &MockServer, more: &str) -> World {
    let world = World::with_runtime(cache);
    world.briefs(BRIEFS, 1);
    let uri = server.uri();
    let row = format!("[models.mine]\nprovider = \"http\"\nbase_url = \"{uri}/agent\"\n{more}\n");
    world.write("hone.toml", format!("[agent]\nmodel = \"mine\"\n[evolve]\nconcurrency = 1\n{row}"));
    world
}

const EVOLVE: [&str; 5] = ["evolve", "--drafts", "1", "--static-only", "--json"];

fn app(question: &Value) -> ResponseTemplate {
    let title = question["brief"]["id"].as_str().unwrap();
    let code = format!(
        "import streamlit as st\n\nst.title({title:?})\nname = st.text_input('Name')\nst.write('Hello', name)\n"
    );
    ResponseTemplate::new(200).set_body_json(json!({"files": [{"path": "app.py", "content": code}]}))
}

fn summary(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn times(asked: &Asked) -> Vec<usize> {
    asked.lock().unwrap().values().copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_evolved_like_a_model_and_what_passes_is_tried_again() {
    let Some(cache) = cache("a_service_is_evolved_like_a_model_and_what_passes_is_tried_again") else {
        return;
    };
    // Each brief meets one fault on its first question: in trouble, no JSON, too many requests.
    let order = Mutex::new(Vec::<String>::new());
    let (server, asked) = service(move |question, times| {
        let id = question["brief"]["id"].as_str().unwrap().to_owned();
        let mut order = order.lock().unwrap();
        if !order.contains(&id) {
            order.push(id.clone());
        }
        match (times, order.iter().position(|known| *known == id)) {
            (0, Some(0)) => ResponseTemplate::new(500).set_body_json(json!({"error": "in trouble"})),
            (0, Some(1)) => ResponseTemplate::new(200).set_body_string("Here is your app!"),
            (0, _) => ResponseTemplate::new(429).insert_header("retry-after-ms", "5"),
            _ => app(question),
        }
    })
    .await;
    let world = world(cache, &server, "");
    let first = summary(&world.ok(&EVOLVE));
    assert_eq!((&first["evolutions"], &first["reused"]), (&json!(BRIEFS), &json!(0)), "{first}");
    assert_eq!(times(&asked), [2; BRIEFS]);
    let logs = world.logs();
    for (_, log) in &logs {
        let draft = &log["evolution_history"][0];
        assert_eq!(
            (&log["agent"], &draft["model"], &draft["usage"]["usd"]),
            (&json!("mine"), &json!("mine"), &json!(null))
        );
        assert!(draft["ui_code"].as_str().unwrap().contains(log["id"].as_str().unwrap()), "{draft}");
        assert_eq!(draft["finish_reason"], json!(null));
    }
    // What was answered once is read again.
    std::fs::remove_dir_all(world.path("data/evolutionary_logs")).unwrap();
    world.ok(&[&EVOLVE[..], &["--offline"]].concat());
    assert_eq!(times(&asked), [2; BRIEFS]);
    assert_eq!(world.logs().len(), logs.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_answers_for_one_brief_does_not_end_the_others() {
    let Some(cache) = cache("what_a_service_answers_for_one_brief_does_not_end_the_others") else { return };
    let first = Mutex::new(None::<String>);
    let good = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mended = Arc::clone(&good);
    let (server, asked) = service(move |question, _| {
        let id = question["brief"]["id"].as_str().unwrap().to_owned();
        let is_first = *first.lock().unwrap().get_or_insert_with(|| id.clone()) == id;
        match is_first && !good.load(std::sync::atomic::Ordering::SeqCst) {
            true => ResponseTemplate::new(200).set_body_string("<html>Sign in</html>"),
            false => app(question),
        }
    })
    .await;
    let world = world(cache, &server, "");
    let ran = world.run(&EVOLVE);
    assert_eq!((ran.code, world.logs().len()), (6, BRIEFS - 1), "{ran:?}");
    assert!(
        ran.stderr.contains("1 of 3 briefs are not finished") && ran.stderr.contains("web page"),
        "{ran:?}"
    );
    let mut counted = times(&asked);
    counted.sort_unstable();
    assert_eq!(counted, [1, 1, 3], "an answer that is none is asked for twice more");
    mended.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(summary(&world.ok(&EVOLVE))["reused"], BRIEFS - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_without_end_is_cut_and_told() {
    let Some(cache) = cache("a_reply_without_end_is_cut_and_told") else { return };
    let (server, _) = service(|_, _| {
        let code = "st.write('again')\n".repeat(100_000);
        ResponseTemplate::new(200)
            .set_body_json(json!({"reply": format!("```python\nimport streamlit as st\n{code}```")}))
    })
    .await;
    let world = world(cache, &server, "");
    let ran = world.run(&[&EVOLVE[..], &["--limit", "1"]].concat());
    // For a draft that was cut another is drawn.
    assert_eq!((ran.code, &summary(&ran.stdout)["cut"]), (0, &json!(2)), "{}", ran.stderr);
    assert!(ran.stderr.contains("replies cut by the limit on their length: 2"), "{}", ran.stderr);
    let draft = &world.logs()[0].1["evolution_history"][0];
    assert_eq!(draft["finish_reason"], "length");
    assert!(draft["ui_code"].as_str().unwrap().len() <= 1 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_silent_or_says_no_ends_the_run_with_a_hint() {
    let Some(cache) = cache("a_service_that_is_silent_or_says_no_ends_the_run_with_a_hint") else { return };
    let (slow, _) = service(|question, _| app(question).set_delay(Duration::from_secs(30))).await;
    let world = world(cache, &slow, "timeout_s = 1");
    let silent = world.run(&EVOLVE);
    assert_eq!(silent.code, 6, "{silent:?}");
    assert!(
        silent.stderr.contains("mine is too slow: no answer in time")
            && silent.stderr.contains("`timeout_s`"),
        "{silent:?}"
    );
    let (refusing, asked) =
        service(|_, _| ResponseTemplate::new(401).set_body_json(json!({"error": "who are you"}))).await;
    let settings = world.read("hone.toml").replace(&slow.uri(), &refusing.uri());
    world.write("hone.toml", settings);
    let refused = world.run(&EVOLVE);
    assert_eq!(refused.code, 6, "{refused:?}");
    assert!(
        refused.stderr.contains("mine refused: who are you (HTTP 401)")
            && refused.stderr.contains("`api_key_env`"),
        "{refused:?}"
    );
    assert_eq!(times(&asked), [1], "nothing is asked of a service that knows nobody");
}
