//! The `async-openai` crate as the judge: it refuses an answer that lacks a field, as OpenAI's SDK does in strict mode.

use std::time::Duration;

use async_openai::{
    Client,
    config::OpenAIConfig,
    error::OpenAIError,
    traits::RequestOptionsBuilder,
    types::{
        InputSource,
        batches::{BatchCompletionWindow, BatchEndpoint, BatchRequest, BatchStatus},
        chat::{
            ChatCompletionRequestMessage, ChatCompletionRequestUserMessage, CreateChatCompletionRequest,
            FinishReason,
        },
        files::{CreateFileRequest, FileInput, FilePurpose},
        finetuning::{
            BatchSize, CreateFineTuningJobRequest, FineTuneDPOMethod, FineTuneMethod,
            FineTuneSupervisedHyperparameters, FineTuneSupervisedMethod, FineTuningJob,
            FineTuningJobStatus as Status, LearningRateMultiplier, Level, NEpochs,
        },
        responses::{CreateResponse, InputParam, ResponseStreamEvent},
        uploads::{
            AddUploadPartRequest, CompleteUploadRequest, CreateUploadRequest, UploadPurpose, UploadStatus,
        },
    },
};
use futures::StreamExt as _;
use serde_json::json;

use crate::harness::{BASE, Settings, World, data};

struct Session {
    api: Client<OpenAIConfig>,
}

fn source(content: String) -> InputSource {
    InputSource::VecU8 { filename: "/home/me/train.jsonl".into(), vec: content.into_bytes() }
}

fn question(model: &str) -> CreateChatCompletionRequest {
    let message: ChatCompletionRequestUserMessage = "Make a form with a name and an email.".into();
    CreateChatCompletionRequest {
        model: model.into(),
        messages: vec![ChatCompletionRequestMessage::User(message)],
        max_completion_tokens: Some(24),
        temperature: Some(0.0),
        ..Default::default()
    }
}

/// The refusal behind an error of the crate: status and code.
fn refusal<T: std::fmt::Debug>(answer: Result<T, OpenAIError>) -> (u16, Option<String>) {
    match answer.unwrap_err() {
        OpenAIError::ApiError(refusal) => (refusal.status_code.as_u16(), refusal.api_error.code),
        other => panic!("{other}"),
    }
}

impl Session {
    async fn upload(&self, content: String, purpose: FilePurpose) -> String {
        let file = FileInput { source: source(content) };
        let request = CreateFileRequest { file, purpose, expires_after: None };
        self.api.files().create(request).await.unwrap().id
    }

    async fn create(&self, request: CreateFineTuningJobRequest) -> FineTuningJob {
        self.api.fine_tuning().create(request).await.unwrap()
    }

    async fn until(&self, id: &str, done: impl Fn(&Status) -> bool) -> FineTuningJob {
        loop {
            let job = self.api.fine_tuning().retrieve(id).await.unwrap();
            if done(&job.status)
                || matches!(job.status, Status::Succeeded | Status::Failed | Status::Cancelled)
            {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(&self, id: &str) -> FineTuningJob {
        self.until(id, |_| false).await
    }

    async fn ask(&self, model: &str) -> String {
        let reply = self.api.chat().create(question(model)).await.unwrap();
        reply.choices[0].message.content.clone().unwrap()
    }

    async fn models_and_files(&self) {
        let listed = self.api.models().list().await.unwrap();
        assert!(listed.data.iter().any(|model| model.id == BASE));
        assert_eq!(self.api.models().retrieve(BASE).await.unwrap().id, BASE);
        let unknown = self.api.models().retrieve("ft:x:y::z").await;
        assert_eq!(refusal(unknown), (404, Some("model_not_found".into())));
        assert_eq!(refusal(self.api.models().delete(BASE).await).0, 400);

        let id = self.upload(data(3), FilePurpose::FineTune).await;
        let file = self.api.files().retrieve(&id).await.unwrap();
        assert_eq!((file.filename.as_str(), file.bytes), ("train.jsonl", Some(data(3).len() as u32)));
        assert_eq!(self.api.files().content(&id).await.unwrap(), data(3));
        let page = self.api.files().query(&[("limit", "1")]).unwrap().list().await.unwrap();
        assert_eq!(page.data[0].id, id);
        assert!(self.api.files().delete(&id).await.unwrap().deleted);
        assert_eq!(refusal(self.api.files().retrieve(&id).await).0, 404);
    }

    async fn uploads(&self) {
        let content = data(10);
        let request = CreateUploadRequest {
            filename: "parts.jsonl".into(),
            purpose: UploadPurpose::FineTune,
            bytes: content.len() as u64,
            mime_type: "text/jsonl".into(),
            expires_after: None,
        };
        let uploads = self.api.uploads();
        let upload = uploads.create(request.clone()).await.unwrap();
        let mut part_ids = Vec::new();
        for half in [&content[..70], &content[70..]] {
            let part = AddUploadPartRequest { data: source(half.to_owned()) };
            part_ids.push(uploads.add_part(&upload.id, part).await.unwrap().id);
        }
        let whole =
            uploads.complete(&upload.id, CompleteUploadRequest { part_ids, md5: None }).await.unwrap();
        let file = whole.file.unwrap().id;
        assert_eq!(self.api.files().content(&file).await.unwrap(), content);
        let other = uploads.create(request).await.unwrap();
        assert!(matches!(uploads.cancel(&other.id).await.unwrap().status, UploadStatus::Cancelled));
    }

    /// A job to its model, events and checkpoints.
    async fn job(&self) -> FineTuningJob {
        let hyperparameters = FineTuneSupervisedHyperparameters {
            batch_size: BatchSize::BatchSize(1),
            learning_rate_multiplier: LearningRateMultiplier::LearningRateMultiplier(10.0),
            n_epochs: NEpochs::NEpochs(4),
        };
        let request = CreateFineTuningJobRequest {
            model: BASE.into(),
            training_file: self.upload(data(10), FilePurpose::FineTune).await,
            // The crate wants the figures of a validation in every checkpoint.
            validation_file: Some(self.upload(data(2), FilePurpose::FineTune).await),
            suffix: Some("crate".into()),
            seed: Some(3),
            method: Some(FineTuneMethod::Supervised {
                supervised: FineTuneSupervisedMethod { hyperparameters },
            }),
            ..Default::default()
        };
        let bad = CreateFineTuningJobRequest { model: "gpt-9".into(), ..request.clone() };
        assert_eq!(refusal(self.api.fine_tuning().create(bad).await).0, 400);
        let created = self.create(request).await;
        let job = self.end(&created.id).await;
        assert_eq!((&job.status, &job.error), (&Status::Succeeded, &None));
        assert!(job.trained_tokens.unwrap() > 0);
        let listed = self.api.fine_tuning().list_paginated().await.unwrap();
        assert_eq!(listed.data[0].id, job.id);
        let events = self.api.fine_tuning().query(&[("limit", "99")]).unwrap();
        let events = events.list_events(&job.id).await.unwrap().data;
        assert!(events[0].message.contains("completed"), "{events:?}");
        assert_eq!(
            events
                .iter()
                .filter(|event| event.data.as_ref().is_some_and(|d| d.get("step").is_some()))
                .count(),
            40
        );
        let checkpoints = self.api.fine_tuning().list_checkpoints(&job.id).await.unwrap().data;
        let steps: Vec<u32> = checkpoints.iter().map(|checkpoint| checkpoint.step_number).collect();
        assert_eq!(steps, [40, 30, 20]);
        job
    }

    async fn other_endings(&self) {
        let few = self.upload(data(9), FilePurpose::FineTune).await;
        let few = CreateFineTuningJobRequest { model: BASE.into(), training_file: few, ..Default::default() };
        let failed = self.end(&self.create(few.clone()).await.id).await;
        assert_eq!(failed.error.unwrap().code, "invalid_n_examples");
        let events = self.api.fine_tuning().list_events(&failed.id).await.unwrap().data;
        assert!(events.iter().any(|event| event.level == Level::Error));

        let training_file = self.upload(data(100), FilePurpose::FineTune).await;
        let jobs = self.api.fine_tuning();
        let job = self.create(CreateFineTuningJobRequest { training_file, ..few }).await;
        self.until(&job.id, |status| *status == Status::Running).await;
        assert!(matches!(jobs.pause(&job.id).await.unwrap().status, Status::Pausing | Status::Paused));
        assert_eq!(self.until(&job.id, |status| *status == Status::Paused).await.status, Status::Paused);
        assert!(matches!(jobs.resume(&job.id).await.unwrap().status, Status::Queued | Status::Running));
        assert_eq!(jobs.cancel(&job.id).await.unwrap().status, Status::Cancelled);
        assert_eq!(refusal(jobs.cancel(&job.id).await).0, 400);
    }

    async fn preferences(&self) {
        let answer = |text: &str| json!([{ "role": "assistant", "content": text }]);
        let row = json!({
            "input": { "messages": [{ "role": "user", "content": "Make a form." }] },
            "preferred_output": answer("import streamlit"),
            "non_preferred_output": answer("print()"),
        });
        let training_file = self.upload(format!("{row}\n").repeat(10), FilePurpose::FineTune).await;
        let method = FineTuneMethod::DPO { dpo: FineTuneDPOMethod::default() };
        let request = CreateFineTuningJobRequest {
            model: BASE.into(),
            training_file,
            method: Some(method),
            ..Default::default()
        };
        let job = self.end(&self.create(request).await.id).await;
        assert_eq!((job.status, job.error), (Status::Succeeded, None));
    }

    async fn chat(&self, tuned: &str) {
        let (before, after) = (self.ask(BASE).await, self.ask(tuned).await);
        assert_ne!(before, after);
        assert_eq!(self.ask(tuned).await, after);
        let request = CreateChatCompletionRequest {
            logprobs: Some(true),
            top_logprobs: Some(2),
            n: Some(2),
            max_completion_tokens: Some(3),
            ..question(BASE)
        };
        let reply = self.api.chat().create(request).await.unwrap();
        assert_eq!(reply.choices.len(), 2);
        assert_eq!(reply.choices[0].finish_reason, Some(FinishReason::Length));
        let logprobs = reply.choices[0].logprobs.as_ref().unwrap().content.as_ref().unwrap();
        assert_eq!((logprobs.len(), logprobs[0].top_logprobs.len()), (3, 2));
        let usage = reply.usage.unwrap();
        assert_eq!(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);

        let mut stream = self.api.chat().create_stream(question(tuned)).await.unwrap();
        let mut text = String::new();
        while let Some(chunk) = stream.next().await {
            for choice in chunk.unwrap().choices {
                text += &choice.delta.content.unwrap_or_default();
            }
        }
        assert_eq!(text, after);
        let unknown = self.api.chat().create(question("nobody")).await;
        assert_eq!(refusal(unknown), (404, Some("model_not_found".into())));
    }

    async fn responses(&self) {
        let request = CreateResponse {
            model: Some(BASE.into()),
            input: InputParam::Text("Make a form with a name and an email.".into()),
            max_output_tokens: Some(24),
            temperature: Some(0.0),
            ..Default::default()
        };
        let reply = self.api.responses().create(request.clone()).await.unwrap();
        let text = reply.output_text().unwrap_or_default();
        assert_eq!(text, self.ask(BASE).await);
        let mut stream = self.api.responses().create_stream(request).await.unwrap();
        let mut streamed = String::new();
        while let Some(event) = stream.next().await {
            if let ResponseStreamEvent::ResponseOutputTextDelta(delta) = event.unwrap() {
                streamed += &delta.delta;
            }
        }
        assert_eq!(streamed, text);
    }

    async fn batch(&self) {
        let line = |id: &str| {
            let messages = json!([{ "role": "user", "content": "Make a form." }]);
            let body = json!({ "model": BASE, "messages": messages, "max_tokens": 4 });
            json!({ "custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body })
        };
        let content = format!("{}\n{}\n", line("a"), line("b"));
        let request = BatchRequest {
            input_file_id: self.upload(content, FilePurpose::Batch).await,
            endpoint: BatchEndpoint::V1ChatCompletions,
            completion_window: BatchCompletionWindow::W24H,
            metadata: None,
            output_expires_after: None,
        };
        let mut batch = self.api.batches().create(request).await.unwrap();
        while !matches!(batch.status, BatchStatus::Completed | BatchStatus::Failed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            batch = self.api.batches().retrieve(&batch.id).await.unwrap();
        }
        assert_eq!(batch.request_counts.unwrap().completed, 2);
        let output = self.api.files().content(&batch.output_file_id.unwrap()).await.unwrap();
        assert_eq!(output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(), 2);
    }
}

#[tokio::test]
async fn async_openai_finds_nothing_wrong() {
    let world = World::spawn(Settings::default()).await;
    let config = OpenAIConfig::new().with_api_base(&world.server.base_url).with_api_key("sk-local");
    let session = Session { api: Client::build(reqwest::Client::new(), config) };
    session.models_and_files().await;
    session.uploads().await;
    let job = session.job().await;
    let tuned = job.fine_tuned_model.unwrap();
    session.chat(&tuned).await;
    session.responses().await;
    session.batch().await;
    session.preferences().await;
    session.other_endings().await;
    assert!(session.api.models().delete(&tuned).await.unwrap().deleted);
    assert_eq!(refusal(session.api.models().retrieve(&tuned).await).0, 404);
}
