//! `ui-agent` under load while what it means changes: by the registry's file, as `hone deploy` and `hone rollback` write it.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use hone::{
    model::wire::ChatRequest,
    registry::{Current, Deployment, Registry, Share},
};
use hone_server::{Answer, ServerConfig};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{BASE, World, question};

const CLIENTS: usize = 32;
const SWITCHES: usize = 50;

/// A server that reads a registry, the registry's file, and the folder that holds it.
async fn world(answered: Arc<dyn Fn(Answer) + Send + Sync>) -> (World, PathBuf, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.jsonl");
    let current = Current::new(path.clone());
    let route = Arc::new(move || current.office());
    (World::with(|config| ServerConfig { route, answered, ..config }).await, path, folder)
}

fn forced(model: &str) -> Deployment {
    Deployment { model: Some(model.into()), force: true, ..Deployment::default() }
}

async fn tuned(world: &World) -> String {
    let job = world.job(10, 1).await;
    world.end(&job.id).await.fine_tuned_model.unwrap()
}

/// One question to the alias; the model that answered.
async fn ask(world: &World) -> String {
    let request = ChatRequest { max_tokens: Some(2), ..question("ui-agent") };
    world.client.chat(&request).await.unwrap().model
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_over_fifty_switches_and_none_sees_what_was_before() {
    let (world, path, _folder) = world(Arc::new(drop)).await;
    let model = tuned(&world).await;
    let world = Arc::new(world);
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (world, stop, answers, model) =
                (Arc::clone(&world), Arc::clone(&stop), Arc::clone(&answers), model.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let answered = ask(&world).await;
                    assert!([BASE, &model].contains(&answered.as_str()), "{answered}");
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut registry = Registry::open(&path).unwrap();
    for switch in 0..SWITCHES {
        let now = jiff::Timestamp::now();
        let meant = if switch % 2 == 0 {
            registry.deploy(forced(&model), now).unwrap();
            model.as_str()
        } else {
            registry.rollback("", now).unwrap();
            BASE
        };
        assert_eq!(ask(&world).await, meant, "switch {switch} counts from the moment that it is written");
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("every request was answered");
    }
    let answers = answers.load(Ordering::SeqCst);
    assert!(answers >= CLIENTS, "{answers} answers");
    println!("{answers} requests over {SWITCHES} switches, none failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_began_before_a_switch_ends_as_it_began() {
    let (world, path, _folder) = world(Arc::new(drop)).await;
    let model = tuned(&world).await;
    let url = format!("{}/chat/completions", world.server.base_url);
    let body = json!({"model": "ui-agent", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 60, "stream": true});
    let response = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
    Registry::open(&path).unwrap().deploy(forced(&model), jiff::Timestamp::now()).unwrap();
    assert_eq!(ask(&world).await, model);
    let text = response.text().await.unwrap();
    let chunks: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert!(text.trim_end().ends_with("[DONE]") && chunks.iter().all(|chunk| chunk["model"] == BASE));
}

#[tokio::test]
async fn a_registry_that_cannot_be_read_keeps_the_last_known_champion() {
    let (world, path, _folder) = world(Arc::new(drop)).await;
    let model = tuned(&world).await;
    Registry::open(&path).unwrap().deploy(forced(&model), jiff::Timestamp::now()).unwrap();
    assert_eq!(ask(&world).await, model);
    std::fs::write(&path, "{\"format\":\"hone.registry\",\"version\":99}\n").unwrap();
    assert_eq!(ask(&world).await, model);
}

#[tokio::test]
async fn a_canary_gets_its_share_and_its_answers_are_told() {
    let told: Arc<Mutex<Vec<Answer>>> = Arc::default();
    let heard = Arc::clone(&told);
    let (world, path, _folder) = world(Arc::new(move |answer| heard.lock().unwrap().push(answer))).await;
    let model = tuned(&world).await;
    let url = format!("{}/chat/completions", world.server.base_url);
    let post = async |user: &str, stream: bool| {
        let body = json!({
            "model": "ui-agent", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a form"}],
            "max_tokens": 3, "user": user, "stream": stream,
        });
        let response = reqwest::Client::new().post(&url).json(&body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let arm = response.headers().get("x-hone-arm").map(|arm| arm.to_str().unwrap().to_owned());
        (arm, response.text().await.unwrap())
    };
    assert_eq!(post("user-0", false).await.0, None, "without a canary there are no sides");
    assert!(told.lock().unwrap().is_empty(), "and nothing is told");
    let mut registry = Registry::open(&path).unwrap();
    let entry = registry.try_out(forced(&model), 0.5, jiff::Timestamp::now()).unwrap();
    let mut sides = [0, 0];
    for number in 0..20 {
        let user = format!("user-{number}");
        let (arm, text) = post(&user, number % 2 == 1).await;
        let (again, _) = post(&user, false).await;
        assert_eq!(arm, again, "the same caller is always on the same side");
        let is_canary = arm.as_deref() == Some("canary");
        assert!(text.contains(if is_canary { &model } else { BASE }), "{text}");
        sides[usize::from(is_canary)] += 1;
    }
    assert!(sides.iter().all(|side| *side >= 3), "{sides:?}");
    // Responses are on the same side, and are told too.
    for (number, stream) in [(0, false), (1, true), (2, false)] {
        let user = format!("user-{number}");
        let (arm, _) = post(&user, false).await;
        let body = json!({
            "model": "ui-agent", "instructions": "s", "input": "a form", "max_output_tokens": 16,
            "safety_identifier": user, "stream": stream,
        });
        let url = format!("{}/responses", world.server.base_url);
        let response = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
        assert_eq!(response.headers()["x-hone-arm"].to_str().unwrap(), arm.unwrap());
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, 200, "{text}");
    }
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(told.len(), 46);
    assert!(told.iter().all(|answer| answer.since == entry.at && answer.asked == "a form"));
    assert!(told.iter().any(|answer| answer.share == Share::Canary && !answer.text.is_empty()));
    registry.rollback("it breaks", jiff::Timestamp::now()).unwrap();
    assert_eq!(post("user-0", false).await.0, None);
}
