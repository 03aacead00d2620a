//! The real model, when its file is named: a short training and answers of base and tuned.

use std::path::PathBuf;

use hone::model::wire::{ChatRequest, JobRequest, JobStatus};
use hone_server::{BaseModel, ServerConfig};

use crate::harness::{World, data, question, request};

#[tokio::test]
async fn real_weights_learn_and_answer() {
    let Some(path) = std::env::var_os("HONE_TEST_GGUF").map(PathBuf::from) else { return };
    let id = "smollm2-135m-instruct";
    let base = BaseModel { id: id.into(), path };
    let world = World::with(|config| ServerConfig { models: vec![base], ..config }).await;
    let ask = async |model: &str| {
        let request = ChatRequest { temperature: Some(0.0), max_tokens: Some(16), ..question(model) };
        world.client.chat(&request).await.unwrap().text().to_owned()
    };
    let before = ask(id).await;
    let file = world.upload(&data(10)).await;
    let mut short = JobRequest { model: id.into(), ..request(&file, 2) };
    short.hyperparameters = None;
    let job = world.client.create_job(&short, "real").await.unwrap();
    let job = world.end(&job.id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    let after = ask(&job.fine_tuned_model.unwrap()).await;
    assert!(!before.contains("import streamlit"), "{before}");
    assert!(after.contains("import streamlit"), "{after}");
}
