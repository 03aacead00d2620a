use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    constrain::Grammars,
    infer::{Precision, Sequence},
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
    let choice = Choice { temperature: 1.0, seed, ..Choice::default() };
    SamplingParams { choice, max_tokens, ..SamplingParams::default() }
}

#[derive(Debug, Default, PartialEq)]
struct Answer {
    text: String,
    ids: Vec<u32>,
    cached: usize,
    finished: Option<Finish>,
}

impl Answer {
    /// Without what depends on the company.
    fn said(self) -> (String, Vec<u32>, Option<Finish>) {
        (self.text, self.ids, self.finished)
    }
}

fn collect(answers: &mut BTreeMap<RequestId, Answer>, progress: Vec<Progress>) {
    for Progress { id, text, tokens, completion_tokens, cached_tokens, finished } in progress {
        let answer = answers.entry(id).or_default();
        assert_eq!(answer.finished, None, "progress after the end");
        answer.text += &text;
        answer.ids.extend(tokens.into_iter().map(|token| token.id));
        assert!(answer.ids.len() <= completion_tokens);
        answer.cached = cached_tokens;
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
        let temperature = (i % 2) as f32;
        let params = sampled(i as u64, 20 + i);
        let params = SamplingParams { choice: Choice { temperature, ..params.choice }, ..params };
        // The first decoder also serves two tuned models.
        let delta = if i.is_multiple_of(2) { deltas[i / 2 % 3].clone() } else { None };
        Request { delta, ..request(&models[i % 2], prompt, params) }
    };
    let mut batcher = Batcher::new(models[0].tokenizer.clone(), 4).keeping(1 << 20);
    let mut answers = BTreeMap::new();
    let mut ids = Vec::new();
    for i in 0..20 {
        ids.push(batcher.submit(request(i)).unwrap());
        collect(&mut answers, batcher.step());
        assert!(batcher.active() <= 4);
    }
    while !batcher.is_idle() {
        collect(&mut answers, batcher.step());
    }
    for (i, id) in ids.iter().enumerate() {
        let answer = answers.remove(id).unwrap();
        assert_eq!(answer.said(), alone(&models[0], request(i)).said(), "request {i}");
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
    check(|r| r.params.choice.temperature = f32::NAN, "temperature NaN is not a number from 0 up");
    check(|r| r.params.choice.top_p = 0.0, "top_p 0 is not above 0 and at most 1");
    check(|r| r.params.choice.presence_penalty = f32::INFINITY, "penalty inf is not a number");
    check(|r| r.params.choice.bias = vec![(259, 0.0)], "token 259 is not in the model's vocabulary");
    check(|r| r.params.choice.bias = vec![(7, f32::NAN)], "the bias of token 7 is not a number");
}

#[test]
fn logprobs_come_when_asked_for() {
    let model = tiny(1);
    let tokens = |logprobs| {
        let mut batcher = Batcher::new(model.tokenizer.clone(), 1);
        batcher.submit(request(&model, "hello", SamplingParams { logprobs, ..sampled(1, 30) })).unwrap();
        let mut tokens = Vec::new();
        while !batcher.is_idle() {
            tokens.extend(batcher.step().into_iter().flat_map(|progress| progress.tokens));
        }
        tokens
    };
    let without = tokens(None);
    assert!(without.iter().all(|token| token.logprobs.is_none()));
    for top in [0, 1, 5, 259, 1000] {
        let with = tokens(Some(top));
        assert!(with.iter().map(|token| token.id).eq(without.iter().map(|token| token.id)));
        for Token { id, logprobs } in with {
            let LogProbs { chosen, top: likeliest } = logprobs.unwrap();
            assert_eq!(likeliest.len(), top.min(259));
            assert!(likeliest.is_sorted_by(|a, b| a.1 >= b.1));
            assert!(likeliest.iter().all(|(other, logprob)| *other != id || *logprob == chosen));
            let total: f32 = likeliest.iter().map(|(_, logprob)| logprob.exp()).sum();
            assert!(total < 1.0001 && (top < 259 || total > 0.9999), "{total}");
        }
    }
}

#[test]
fn tokens_come_out_with_their_text_and_not_with_a_stop_string() {
    let model = tiny(3);
    let full = alone(&model, request(&model, "hello", sampled(5, 50)));
    let (at, _) = full.text.char_indices().nth(6).unwrap();
    let stop = full.text[at..].chars().take(3).collect::<String>();
    let at = full.text.find(&stop).unwrap();
    let params = SamplingParams { stop: vec![stop], ..sampled(5, 50) };
    let mut batcher = Batcher::new(model.tokenizer.clone(), 1);
    batcher.submit(request(&model, "hello", params)).unwrap();
    let (mut text, mut ids) = (String::new(), Vec::new());
    while !batcher.is_idle() {
        for progress in batcher.step() {
            text += &progress.text;
            ids.extend(progress.tokens.iter().map(|token| token.id));
            // Never more text than the tokens that are out can have made.
            assert!(model.tokenizer.decode(&ids).starts_with(&text), "{text:?} {ids:?}");
        }
    }
    assert_eq!(text, full.text[..at]);
    assert_eq!(model.tokenizer.decode(&ids).len(), at);
}

#[test]
fn several_answers_read_their_prompt_once() {
    let model = tiny(1);
    let prompt = "the same question ".repeat(30);
    let rows = |answers: u64| {
        let mut batcher = Batcher::new(model.tokenizer.clone(), 16);
        for seed in 0..answers {
            batcher.submit(request(&model, &prompt, sampled(seed, 1))).unwrap();
        }
        drain(&mut batcher).into_values().map(|answer| prompt.len() - answer.cached).sum::<usize>()
    };
    assert_eq!(rows(1), prompt.len());
    assert_eq!(rows(16), prompt.len() + 15);
}

#[test]
fn later_requests_start_from_what_earlier_ones_have_read() {
    let model = tiny(1);
    let system = "you are a model that repeats itself ".repeat(10);
    let ask = |batcher: &mut Batcher, prompt: &str| {
        let id = batcher.submit(request(&model, prompt, sampled(3, 20))).unwrap();
        drain(batcher).remove(&id).unwrap()
    };
    let mut batcher = Batcher::new(model.tokenizer.clone(), 2).keeping(1 << 20);
    let first = ask(&mut batcher, &(system.clone() + "one"));
    assert_eq!(first.cached, 0);
    let second = ask(&mut batcher, &(system.clone() + "two"));
    assert_eq!(second.cached, system.len());
    let alone = alone(&model, request(&model, &(system.clone() + "two"), sampled(3, 20)));
    assert_eq!(second.said(), alone.said());
    // The next turn of a conversation starts after the answer before.
    let turn = system.clone() + "one";
    let mut ids = model.tokenizer.encode(&turn);
    ids.extend(&first.ids);
    ids.extend(model.tokenizer.encode("and then"));
    let next = Request { prompt: ids, ..request(&model, "", sampled(4, 5)) };
    let id = batcher.submit(next).unwrap();
    assert_eq!(drain(&mut batcher)[&id].cached, turn.len() + first.ids.len() - 1);
}

#[test]
fn a_reader_that_leaves_does_not_take_the_others_along() {
    let model = tiny(1);
    let prompt = "x".repeat(600);
    let mut batcher = Batcher::new(model.tokenizer.clone(), 4);
    let ids: Vec<RequestId> =
        (0..3).map(|seed| batcher.submit(request(&model, &prompt, sampled(seed, 4))).unwrap()).collect();
    assert!(batcher.step().is_empty());
    assert!(batcher.cancel(ids[0]));
    let answers = drain(&mut batcher);
    assert_eq!(answers.len(), 2);
    for (seed, id) in [(1, ids[1]), (2, ids[2])] {
        let alone = alone(&model, request(&model, &prompt, sampled(seed, 4)));
        assert_eq!((&answers[&id].text, &answers[&id].ids), (&alone.text, &alone.ids));
    }
}

#[test]
fn a_short_prompt_does_not_wait_for_a_long_one() {
    let model = tiny(1);
    let mut batcher = Batcher::new(model.tokenizer.clone(), 4);
    batcher.submit(request(&model, &"long ".repeat(300), sampled(1, 1))).unwrap();
    let short = batcher.submit(request(&model, "short", sampled(1, 1))).unwrap();
    let progress = batcher.step();
    assert_eq!(progress.iter().map(|progress| progress.id).collect::<Vec<_>>(), [short]);
}

#[test]
fn a_constraint_decides_what_is_said() {
    let model = tiny(1);
    let grammars = Grammars::new(&model.tokenizer).unwrap();
    let schema = serde_json::json!({
        "type": "object", "required": ["name", "age"], "additionalProperties": false,
        "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    });
    for seed in 0..10 {
        let constraint = Some(grammars.json_schema(&schema).unwrap());
        let params = SamplingParams { constraint, logprobs: Some(2), ..sampled(seed, 500) };
        let answer = alone(&model, request(&model, "hello", params));
        assert_eq!(answer.finished, Some(Finish::Stop));
        let value: serde_json::Value = serde_json::from_str(&answer.text).expect("it is JSON");
        assert!(value["name"].is_string() && value["age"].as_u64().is_some_and(|age| age < 100), "{value}");
        let constraint = Some(grammars.json_schema(&schema).unwrap());
        let cut = alone(&model, request(&model, "hello", SamplingParams { constraint, ..sampled(seed, 4) }));
        assert_eq!(cut.finished, Some(Finish::Length));
        assert!(answer.text.starts_with(&cut.text));
    }
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
        let mut batcher = Batcher::new(model.tokenizer.clone(), slots).keeping(1 << 16);
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
