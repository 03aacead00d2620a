//! Jobs that learn from pairs, and the numbers that only this trainer knows.

use base64::{Engine, prelude::BASE64_STANDARD};
use hone::auto::Auto;
use hone::model::wire::{Hyperparameters, JobRequest, JobStatus, Level, Method};
use serde_json::json;

use crate::harness::{BASE, World, data, pairs, preference, request, row};

#[tokio::test]
async fn a_preference_job_learns_to_tell_answers_apart() {
    let world = World::new().await;
    let (train, valid) = (world.upload(&pairs(10)).await, world.upload(&pairs(2)).await);
    let asked = JobRequest { validation_file: Some(valid), ..preference(&train, 6) };
    let job = world.client.create_job(&asked, "k").await.unwrap();
    let job = world.end(&job.id).await;
    assert_eq!((&job.status, &job.error), (&JobStatus::Succeeded, &None));
    let method = job.method.as_ref().unwrap();
    assert_eq!((method.is_dpo(), method.beta()), (true, Auto::Fixed(0.1)));
    assert_eq!(method.hyperparameters(), Some(&job.hyperparameters));

    let events = world.client.events(&job.id, None).await.unwrap();
    let steps: Vec<_> = events.iter().filter(|event| event.number("step").is_some()).collect();
    let (first, last) = (steps[0], steps[steps.len() - 1]);
    assert!((first.number("train_loss").unwrap() - 2f64.ln()).abs() < 1e-3, "a fresh model prefers nothing");
    assert!(last.number("train_loss").unwrap() < 0.5);
    for key in ["train_reward_accuracy", "full_valid_reward_accuracy"] {
        assert_eq!(last.number(key), Some(1.0), "{key}");
    }
    assert!(last.number("full_valid_loss").unwrap() < 0.5);
    assert!(last.number("full_valid_reward_margin").unwrap() > 0.3);
    let checkpoints = world.client.checkpoints(&job.id).await.unwrap();
    assert_eq!(checkpoints.len(), 3);
    assert_eq!(checkpoints[0].metrics.train_reward_accuracy, Some(1.0));
    assert_ne!(world.ask(&job.fine_tuned_model.unwrap()).await, world.ask(BASE).await);
    let csv = world.client.file_content(&job.result_files[0]).await.unwrap();
    let csv = String::from_utf8(BASE64_STANDARD.decode(csv).unwrap()).unwrap();
    assert_eq!(csv.lines().count(), 31);
}

#[tokio::test]
async fn preference_goes_on_from_a_tuned_model() {
    let world = World::new().await;
    let first = world.job(10, 30).await;
    let first = world.end(&first.id).await.fine_tuned_model.unwrap();
    let file = world.upload(&pairs(10)).await;
    let asked = JobRequest { model: first.clone(), ..preference(&file, 2) };
    let job = world.client.create_job(&asked, "k").await.unwrap();
    let job = world.end(&job.id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    // What the first job taught is still there.
    assert_eq!(world.ask(&job.fine_tuned_model.unwrap()).await, "import streamlit");
}

async fn check_failure(content: &str, asked: impl FnOnce(&str) -> JobRequest, words: &[&str]) {
    let world = World::new().await;
    let file = world.upload(content).await;
    let job = world.client.create_job(&asked(&file), "k").await.unwrap();
    let job = world.end(&job.id).await;
    let error = job.error.unwrap();
    assert_eq!((job.status, error.code.as_deref()), (JobStatus::Failed, Some("invalid_training_file")));
    for word in words {
        assert!(error.message.as_ref().unwrap().contains(word), "{error:?}");
    }
}

#[tokio::test]
async fn formats_and_methods_are_not_mixed() {
    check_failure(&data(10), |file| preference(file, 1), &["line 1", "a chat row", "`dpo`"]).await;
    check_failure(&pairs(10), |file| request(file, 1), &["line 1", "preference pairs", "`dpo`"]).await;
    let mixed = format!("{}{}\n", pairs(10), row("a"));
    check_failure(&mixed, |file| preference(file, 1), &["line 11", "a chat row"]).await;
}

#[tokio::test]
async fn what_the_length_limit_does_is_said_before_the_first_step() {
    let world = World::new().await;
    let long = row(&"import streamlit ".repeat(200));
    let file = world.upload(&format!("{}{long}\n{}{long}\n", data(4), data(6))).await;
    let job = world.client.create_job(&request(&file, 1), "k").await.unwrap();
    let job = world.end(&job.id).await;
    assert_eq!(job.status, JobStatus::Succeeded);
    let events = world.client.events(&job.id, None).await.unwrap();
    let warned = events.iter().position(|event| event.message.contains("lines 5, 12")).unwrap();
    let stepped = events.iter().position(|event| event.number("step").is_some()).unwrap();
    assert!(events[warned].level == Level::Warn && warned < stepped);
    assert!(events[warned].message.starts_with("2 examples are longer"), "{}", events[warned].message);
}

fn asking(file: &str, epochs: u32, change: impl FnOnce(&mut Hyperparameters)) -> JobRequest {
    let mut asked = request(file, epochs);
    change(asked.hyperparameters.get_or_insert_default());
    asked
}

#[tokio::test]
async fn a_job_may_ask_for_the_shape_of_its_adapter() {
    let world = World::new().await;
    let file = world.upload(&data(10)).await;
    let asked = asking(&file, 1, |values| {
        values.lora_rank = Auto::Fixed(4);
        values.lora_targets = Some(vec!["v_proj".into(), "q_proj".into()]);
        values.lora_layers = Auto::Fixed(1);
        values.precision = Some("f32".into());
    });
    let job = world.client.create_job(&asked, "k").await.unwrap();
    let job = world.end(&job.id).await;
    let shown = serde_json::to_value(&job.hyperparameters).unwrap();
    assert_eq!((&shown["lora_rank"], &shown["precision"]), (&json!(4), &json!("f32")));
    let model = job.fine_tuned_model.unwrap().replace(':', "+");
    let path = world.folder.path().join("server/models").join(model).join("adapter_config.json");
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(4), &json!(8)));
    assert_eq!(config["target_modules"], json!(["q_proj", "v_proj"]));
    assert_eq!(config["layers_to_transform"], json!([1]));
    let wrong = asking(&file, 1, |values| values.lora_rank = Auto::Fixed(0));
    let error = world.client.create_job(&wrong, "w").await.unwrap_err();
    assert_eq!(error.status(), Some(400));
    assert!(error.to_string().contains("`lora_rank` must be from 1 to 256"), "{error}");
}

#[tokio::test]
async fn a_job_that_no_longer_improves_ends_with_its_best_epoch() {
    let world = World::new().await;
    let train = world.upload(&data(10)).await;
    let other = format!("{}\n", row("Once upon a time there was a form without any code at all."));
    let valid = world.upload(&other).await;
    let asked = asking(&train, 30, |values| values.early_stopping_patience = Auto::Fixed(1));
    let asked = JobRequest { validation_file: Some(valid), ..asked };
    let job = world.client.create_job(&asked, "k").await.unwrap();
    let job = world.end(&job.id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    let events = world.client.events(&job.id, None).await.unwrap();
    let stop = events.iter().find(|event| event.message.starts_with("Stopped early")).expect("it says so");
    let steps = world.metrics(&job.id).await;
    assert!(steps.len() < 150, "{} steps", steps.len());
    let checkpoints = world.client.checkpoints(&job.id).await.unwrap();
    assert_eq!(Some(&checkpoints[0].fine_tuned_model_checkpoint), job.fine_tuned_model.as_ref());
    let best = checkpoints[0].step_number;
    assert!(stop.message.contains(&format!("lowest at step {best} ")), "{}", stop.message);
    assert_eq!(best + 5, steps.len() as u64, "one epoch of patience");
    assert!(checkpoints[0].metrics.full_valid_loss.is_some());
    assert_eq!(Method::supervised(job.hyperparameters.clone()), job.method.unwrap());
}
