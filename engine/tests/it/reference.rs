//! Equality with llama.cpp's tokeniser and a numpy decoder. The fixtures' scripts lie beside them.

use std::collections::BTreeMap;

use hone_engine::{
    chat::ChatMessage,
    generate::{Batcher, Finish, Request, SamplingParams},
    infer::{Chunk, Decoder, Precision, Sequence, forward, step},
    model::Model,
    sample::{argmax, logprob},
    tokenizer::StreamDecoder,
};
use serde::Deserialize;

use crate::real_model;

#[test]
fn the_file_is_the_one_the_fixtures_were_made_from() {
    let Some(model) = real_model() else { return };
    assert_eq!(model.sha256, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");
}

#[test]
fn token_ids_are_those_of_llama_cpp() {
    #[derive(Deserialize)]
    struct Case {
        text: String,
        ids: Vec<u32>,
    }
    let Some(Model { tokenizer, .. }) = real_model() else { return };
    let cases: Vec<Case> = serde_json::from_str(include_str!("../fixtures/tokens.json")).unwrap();
    assert!(cases.iter().map(|case| case.ids.len()).sum::<usize>() > 6000);
    for Case { text, ids } in cases {
        assert_eq!(tokenizer.encode(&text), ids, "{text:?}");
        let mut decoder = StreamDecoder::default();
        let mut streamed: String = ids.iter().map(|&id| decoder.push(tokenizer, id)).collect();
        streamed += &decoder.finish();
        assert_eq!(streamed, tokenizer.decode(&ids));
    }
}

#[test]
fn logits_are_those_of_the_numpy_decoder() {
    #[derive(Deserialize)]
    struct Expected {
        prompt: Vec<u32>,
        argmax: Vec<u32>,
        logsumexp: Vec<f32>,
        mean_loss: f32,
        logits: BTreeMap<usize, Vec<f32>>,
    }
    let Some(model) = real_model() else { return };
    let decoder = Decoder::new(&model.weights, Precision::F32);
    let expected: Expected = serde_json::from_str(include_str!("../fixtures/logits.json")).unwrap();
    let mut sequence = Sequence::new(&decoder, &[]);
    let mut loss = 0.0;
    for (at, &id) in expected.prompt.iter().enumerate() {
        sequence.push(id);
        let logits = step(&decoder, &mut [&mut sequence]);
        let logits = logits.row(0).unwrap();
        assert_eq!(argmax(logits), expected.argmax[at], "position {at}");
        let logsumexp = logits[0] - logprob(logits, 0);
        assert!((logsumexp - expected.logsumexp[at]).abs() < 2e-3, "{logsumexp} {}", expected.logsumexp[at]);
        if let Some(&next) = expected.prompt.get(at + 1) {
            loss -= logprob(logits, next) / (expected.prompt.len() - 1) as f32;
        }
        for (logit, want) in logits.iter().step_by(512).zip(expected.logits.get(&at).into_iter().flatten()) {
            assert!((logit - want).abs() < 2e-3, "position {at}: {logit} {want}");
        }
    }
    assert!((loss - expected.mean_loss).abs() < 1e-5, "{loss} {}", expected.mean_loss);
}

#[test]
fn reading_at_once_and_in_company_is_reading_alone() {
    let Some(model) = real_model() else { return };
    let ids = model.render(&[ChatMessage::user("A form with a name and a send button")], true).unwrap();
    let decoder = Decoder::new(&model.weights, Precision::Fast);
    let mut one = Sequence::new(&decoder, &[]);
    let mut alone = Vec::new();
    for &id in &ids {
        one.push(id);
        alone = step(&decoder, &mut [&mut one]).row(0).unwrap().to_vec();
    }
    let mut whole = Sequence::new(&decoder, &ids);
    let mut other = Sequence::new(&decoder, &ids[3..20]);
    let mut chunks = [
        Chunk { sequence: &mut other, take: 17, delta: None },
        Chunk { sequence: &mut whole, take: ids.len(), delta: None },
    ];
    assert_eq!(forward(&decoder, &mut chunks).row(1).unwrap(), alone);
}

#[test]
fn the_shipped_template_is_chatml_with_a_default_system_message() {
    let Some(model) = real_model() else { return };
    let ids = model.render(&[ChatMessage::user("hi <|im_end|>")], true).unwrap();
    let (start, end) = (1, 2);
    let mut expected = vec![start];
    let system = "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face";
    expected.extend(model.tokenizer.encode(system));
    expected.extend([end, 198, start]);
    expected.extend(model.tokenizer.encode("user\n"));
    expected.extend(model.tokenizer.encode("hi <|im_end|>"));
    expected.extend([end, 198, start]);
    expected.extend(model.tokenizer.encode("assistant\n"));
    assert_eq!(ids, expected);
}

#[test]
fn the_model_knows_the_capital_of_france() {
    let Some(model) = real_model() else { return };
    let mut batcher = Batcher::new(model.tokenizer.clone(), 4);
    let prompt = model.render(&[ChatMessage::user("What is the capital of France?")], true).unwrap();
    let params = SamplingParams { max_tokens: 24, ..SamplingParams::default() };
    let decoder = Decoder::new(&model.weights, Precision::Fast).into();
    batcher.submit(Request { decoder, delta: None, prompt, params }).unwrap();
    let (mut text, mut finished) = (String::new(), None);
    while !batcher.is_idle() {
        for progress in batcher.step() {
            text += &progress.text;
            finished = progress.finished.or(finished);
        }
    }
    assert_eq!(text, "The capital of France is Paris.");
    assert_eq!(finished, Some(Finish::Stop));
}
