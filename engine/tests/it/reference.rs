//! Equality with llama.cpp's tokeniser and a numpy decoder. The fixtures' scripts lie beside them.

use std::collections::BTreeMap;

use hone_engine::{
    chat::ChatMessage,
    generate::{Batcher, Finish, Request, SamplingParams},
    infer::{Chunk, Decoder, Sequence, forward, step},
    model::Model,
    sample::{argmax, logprob},
    tokenizer::StreamDecoder,
};
use serde::Deserialize;

use crate::{exact_model, real_model};

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

/// What the numpy decoder says to a prompt, from the file's weights in f64.
#[derive(Deserialize)]
struct Expected {
    prompt: Vec<u32>,
    argmax: Vec<u32>,
    logsumexp: Vec<f32>,
    mean_loss: f32,
    /// Every 512th logit at some positions.
    logits: BTreeMap<usize, Vec<f32>>,
}

/// How far a decoder is from it.
#[derive(Debug, Default)]
struct Distance {
    logit: f32,
    logsumexp: f32,
    loss: f32,
    /// Positions at which another token is the likeliest.
    others: usize,
}

#[expect(clippy::unwrap_used, reason = "part of the tests")]
impl Distance {
    fn of(decoder: &Decoder) -> Self {
        let expected: Expected = serde_json::from_str(include_str!("../fixtures/logits.json")).unwrap();
        let mut sequence = Sequence::new(decoder, &[]);
        let (mut distance, mut loss) = (Self::default(), 0.0);
        for (at, &id) in expected.prompt.iter().enumerate() {
            sequence.push(id);
            let logits = step(decoder, &mut [&mut sequence]);
            let logits = logits.row(0).unwrap();
            distance.others += usize::from(argmax(logits) != expected.argmax[at]);
            let logsumexp = logits[0] - logprob(logits, 0);
            distance.logsumexp = distance.logsumexp.max((logsumexp - expected.logsumexp[at]).abs());
            if let Some(&next) = expected.prompt.get(at + 1) {
                loss -= logprob(logits, next) / (expected.prompt.len() - 1) as f32;
            }
            let wanted = expected.logits.get(&at).into_iter().flatten();
            for (logit, want) in logits.iter().step_by(512).zip(wanted) {
                distance.logit = distance.logit.max((logit - want).abs());
            }
        }
        distance.loss = (loss - expected.mean_loss).abs();
        distance
    }
}

#[test]
fn exact_logits_are_those_of_the_numpy_decoder() {
    let Some(model) = exact_model() else { return };
    let distance = Distance::of(&model.weights);
    assert!(distance.logit < 2e-3 && distance.logsumexp < 2e-3 && distance.loss < 1e-5, "{distance:?}");
    assert_eq!(distance.others, 0);
}

/// Weights are the file's own in both; what differs is that inputs are rounded to 8 bits, keys and values to 16.
/// That is noise of half a percent at every product, in other programs as here: tokens that are nearly as likely
/// change places.
#[test]
fn fast_logits_stay_close_to_them() {
    let Some(model) = real_model() else { return };
    let distance = Distance::of(&model.weights);
    assert!(distance.logit < 0.8 && distance.logsumexp < 0.9 && distance.loss < 0.03, "{distance:?}");
    assert!(distance.others <= 3, "{distance:?}");
}

#[test]
fn reading_at_once_and_in_company_is_reading_alone() {
    let Some(model) = real_model() else { return };
    let ids = model.render(&[ChatMessage::user("A form with a name and a send button")], true).unwrap();
    let decoder = &model.weights;
    let mut one = Sequence::new(decoder, &[]);
    let mut alone = Vec::new();
    for &id in &ids {
        one.push(id);
        alone = step(decoder, &mut [&mut one]).row(0).unwrap().to_vec();
    }
    let mut whole = Sequence::new(decoder, &ids);
    let mut other = Sequence::new(decoder, &ids[3..20]);
    let mut chunks = [
        Chunk { sequence: &mut other, take: 17, delta: None },
        Chunk { sequence: &mut whole, take: ids.len(), delta: None },
    ];
    assert_eq!(forward(decoder, &mut chunks).row(1).unwrap(), alone);
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
    let Some(model) = exact_model() else { return };
    let want = ("The capital of France is Paris.".to_owned(), Some(Finish::Stop));
    assert_eq!(answer(model, "What is the capital of France?"), want);
}

/// Questions whose answers are no close calls.
#[test]
fn the_fast_model_answers_as_the_exact_one() {
    let Some(model) = real_model() else { return };
    for (question, want) in [
        ("What is the capital of Germany?", "The capital of Germany is Berlin."),
        ("What is 2 + 2?", "The answer to this classic math problem is 4."),
        ("How many days are in a week?", "A week is approximately 7 days."),
    ] {
        assert_eq!(answer(model, question), (want.to_owned(), Some(Finish::Stop)));
    }
}

/// The greedy answer to a question.
#[expect(clippy::unwrap_used, reason = "part of the tests")]
fn answer(model: &Model<Decoder>, question: &str) -> (String, Option<Finish>) {
    let mut batcher = Batcher::new(model.tokenizer.clone(), 4);
    let prompt = model.render(&[ChatMessage::user(question)], true).unwrap();
    let params = SamplingParams { max_tokens: 24, ..SamplingParams::default() };
    let decoder = model.weights.clone();
    batcher.submit(Request { decoder, delta: None, prompt, params }).unwrap();
    let (mut text, mut finished) = (String::new(), None);
    while !batcher.is_idle() {
        for progress in batcher.step() {
            text += &progress.text;
            finished = progress.finished.or(finished);
        }
    }
    (text, finished)
}
