use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    infer::Precision,
    lora::{Adapter, LoraConfig},
    train::testing::with_random_b,
    weights::Weights,
};

type Model = crate::model::Model<Decoder>;

fn tiny(seed: u64) -> Model {
    with_weights(seed, |_| ())
}

fn with_weights(seed: u64, change: impl FnOnce(&mut Weights)) -> Model {
    let crate::model::Model { name, weights, tokenizer, template, sha256 } =
        crate::model::Model::random_tiny(seed);
    let mut weights = (*weights).clone();
    change(&mut weights);
    Model { name, weights: Decoder::new(&weights, Precision::Fast).into(), tokenizer, template, sha256 }
}

fn request(model: &Model, prompt: &str, params: SamplingParams) -> Request {
    let prompt = model.tokenizer.encode(prompt);
    Request { decoder: model.weights.clone(), delta: None, prompt, params }
}

fn sampled(seed: u64, max_tokens: usize) -> SamplingParams {
    SamplingParams { temperature: 1.0, seed, max_tokens, ..SamplingParams::default() }
}

#[derive(Debug, Default, PartialEq)]
struct Answer {
    text: String,
    ids: Vec<u32>,
    finished: Option<Finish>,
}

fn collect(answers: &mut BTreeMap<RequestId, Answer>, progress: Vec<Progress>) {
    for Progress { id, text, token, completion_tokens, finished } in progress {
        let answer = answers.entry(id).or_default();
        assert_eq!(answer.finished, None, "progress after the end");
        answer.text += &text;
        answer.ids.extend(token.map(|token| token.id));
        assert_eq!(answer.ids.len(), completion_tokens);
        answer.finished = finished;
    }
}

fn drain(batcher: &mut Batcher) -> BTreeMap<RequestId, Answer> {
    let mut answers = BTreeMap::new();
    while !batcher.is_idle() {
        collect(&mut answers, batcher.step());
    }
    answers
}

fn alone(model: &Model, request: Request) -> Answer {
    let mut batcher = Batcher::new(model.tokenizer.clone(), 1);
    let id = batcher.submit(request).unwrap();
    drain(&mut batcher).remove(&id).unwrap()
}

fn delta(model: &Model, seed: u64) -> Arc<Delta> {
    let config = &model.weights.config;
    let adapter = with_random_b(Adapter::new(config, &LoraConfig { seed, ..Default::default() }), seed);
    Delta::new(config, &[adapter]).into()
}

#[test]
fn company_does_not_change_an_answer() {
    let models = [tiny(1), tiny(2)];
    let deltas = [None, Some(3), Some(4)].map(|seed| seed.map(|seed| delta(&models[0], seed)));
    let long = "a long prompt ".repeat(40);
    let request = |i: usize| {
        let prompt = ["x", "some words", &long][i % 3];
        let params = if i.is_multiple_of(2) {
            sampled(i as u64, 20 + i)
        } else {
            SamplingParams { max_tokens: 30, ..sampled(0, 0) }
        };
        let params = SamplingParams { temperature: (i % 2) as f32, ..params };
        // The first decoder also serves two tuned models.
        let delta = if i.is_multiple_of(2) { deltas[i / 2 % 3].clone() } else { None };
        Request { delta, ..request(&models[i % 2], prompt, params) }
    };
    let mut batcher = Batcher::new(models[0].tokenizer.clone(), 4);
    let mut answers = BTreeMap::new();
    let mut ids = Vec::new();
    for i in 0..10 {
        ids.push(batcher.submit(request(i)).unwrap());
        collect(&mut answers, batcher.step());
        assert!(batcher.active() <= 4);
    }
    while !batcher.is_idle() {
        collect(&mut answers, batcher.step());
    }
    for (i, id) in ids.iter().enumerate() {
        assert_eq!(answers[id], alone(&models[0], request(i)), "request {i}");
    }
}

#[test]
fn the_seed_decides() {
    let model = tiny(1);
    let run = |seed| alone(&model, request(&model, "hello", sampled(seed, 40)));
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).ids, run(2).ids);
}

#[test]
fn text_is_the_decoded_tokens_and_length_ends_it() {
    let model = tiny(3);
    let answer = alone(&model, request(&model, "hello", sampled(5, 50)));
    assert_eq!(answer.text, model.tokenizer.decode(&answer.ids));
    let ends = if answer.ids.len() == 50 { Finish::Length } else { Finish::Stop };
    assert_eq!(answer.finished, Some(ends));
    let none = alone(&model, request(&model, "hello", sampled(5, 0)));
    assert_eq!(none, Answer { finished: Some(Finish::Length), ..Answer::default() });
}

#[test]
fn a_stop_string_across_tokens_is_cut_off() {
    let model = tiny(3);
    let full = alone(&model, request(&model, "hello", sampled(5, 50))).text;
    let (at, _) = full.char_indices().nth(4).unwrap();
    let (end, _) = full.char_indices().nth(7).unwrap();
    let stop = full[at..end].to_owned();
    let stopped = alone(
        &model,
        request(&model, "hello", SamplingParams { stop: vec![stop.clone()], ..sampled(5, 50) }),
    );
    assert_eq!(stopped.text, full[..full.find(&stop).unwrap()]);
    assert_eq!(stopped.finished, Some(Finish::Stop));
}

#[test]
fn an_end_token_stops() {
    let base = crate::model::Model::random_tiny(1);
    let (prompt, end) = (7, base.tokenizer.special("<|im_end|>").unwrap());
    let decoder = Decoder::new(&base.weights, Precision::Fast);
    let mut sequence = Sequence::new(&decoder, &[prompt]);
    let own_logit = infer::step(&decoder, &mut [&mut sequence]).row(0).unwrap()[prompt as usize];
    // Of all embeddings only the prompt's and, along it, the end token's stay: of two logits that are not zero the
    // latter is the greater and positive.
    let model = with_weights(1, |weights| {
        let hidden = weights.config.hidden;
        let own = weights.embedding.row(prompt as usize).to_vec();
        weights.embedding.data.fill(0.0);
        for (id, factor) in [(prompt, 1.0), (end, 2.0 * own_logit.signum())] {
            let row = &mut weights.embedding.data[id as usize * hidden..][..hidden];
            row.iter_mut().zip(&own).for_each(|(x, own)| *x = factor * own);
        }
    });
    let request = Request { prompt: vec![prompt], ..request(&model, "", SamplingParams::default()) };
    assert_eq!(alone(&model, request), Answer { finished: Some(Finish::Stop), ..Answer::default() });
}

#[test]
fn the_context_ends_an_answer() {
    let model = with_weights(1, |weights| weights.config.context = 12);
    let answer = alone(&model, request(&model, "hello", sampled(3, 100)));
    assert!(answer.finished == Some(Finish::Length) && answer.ids.len() == 12 - 5, "{answer:?}");
}

#[test]
fn cancelled_requests_fall_silent_and_free_their_slot() {
    let model = tiny(1);
    let mut batcher = Batcher::new(model.tokenizer.clone(), 1);
    let ids: Vec<RequestId> =
        (0..3).map(|i| batcher.submit(request(&model, "hello", sampled(i, 30))).unwrap()).collect();
    batcher.step();
    assert_eq!((batcher.active(), batcher.queued()), (1, 2));
    assert!(batcher.cancel(ids[0]) && batcher.cancel(ids[1]) && !batcher.cancel(ids[1]));
    let answers = drain(&mut batcher);
    assert_eq!(answers.keys().collect::<Vec<_>>(), [&ids[2]]);
}

#[test]
fn impossible_requests_are_refused() {
    let model = tiny(1);
    let check = |change: fn(&mut Request), want: &str| {
        let mut request = request(&model, "hello", SamplingParams::default());
        change(&mut request);
        let error = Batcher::new(model.tokenizer.clone(), 1).submit(request).unwrap_err();
        assert_eq!(error.to_string(), want);
    };
    check(|r| r.prompt.clear(), "the prompt is empty");
    check(|r| r.prompt = vec![5; 8192], "the prompt has 8192 tokens, the model's context is 8192");
    check(|r| r.prompt.push(259), "token 259 is not in the model's vocabulary");
    check(|r| r.params.temperature = f32::NAN, "temperature NaN is not a number from 0 up");
    check(|r| r.params.top_p = 0.0, "top_p 0 is not above 0 and at most 1");
}

#[test]
fn logprobs_come_when_asked_for() {
    let model = tiny(1);
    let first = |logprobs| {
        let mut batcher = Batcher::new(model.tokenizer.clone(), 1);
        batcher.submit(request(&model, "hello", SamplingParams { logprobs, ..sampled(1, 3) })).unwrap();
        batcher.step()[0].token.unwrap()
    };
    let (with, without) = (first(true), first(false));
    assert_eq!((with.id, without.logprob), (without.id, None));
    assert!(with.logprob.is_some_and(|l| l < 0.0 && l > -20.0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// However many slots and whatever arrives when: every request ends exactly once, within its limit.
    #[test]
    fn every_request_ends_once(
        slots in 1..5_usize,
        requests in prop::collection::vec((1..300_usize, 0..12_usize, 0..4_usize), 1..12),
    ) {
        let model = tiny(9);
        let mut batcher = Batcher::new(model.tokenizer.clone(), slots);
        let mut answers = BTreeMap::new();
        let mut limits = BTreeMap::new();
        for (length, max_tokens, steps) in requests {
            let id = batcher.submit(request(&model, &"y".repeat(length), sampled(length as u64, max_tokens))).unwrap();
            limits.insert(id, max_tokens);
            (0..steps).for_each(|_| collect(&mut answers, batcher.step()));
        }
        while !batcher.is_idle() {
            collect(&mut answers, batcher.step());
        }
        prop_assert_eq!(answers.keys().collect::<Vec<_>>(), limits.keys().collect::<Vec<_>>());
        for (id, answer) in &answers {
            prop_assert!(answer.finished.is_some() && answer.ids.len() <= limits[id]);
        }
    }
}
