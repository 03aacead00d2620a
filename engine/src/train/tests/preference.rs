//! Preference training: against torch (`tests/fixtures/dpo/make.py` made the numbers), against differences of the loss, and
//! interrupted.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::peft::{LAYOUTS, base, close, distance, fixture as peft, load_gradients};
use crate::lora::{Adapter, LoraConfig};
use crate::train::batch::{Rows, prepare};
use crate::train::objective::Lesson;
use crate::train::optim::{Moments, clip};
use crate::train::pass::Pass;
use crate::train::testing::{random_examples, tiny_config, with_random_b};
use crate::train::{Control, Data, Example, Frozen, Options, Outcome, Pair, Precision, Step, run};
use crate::weights::{RopeLayout, Weights};

#[derive(Deserialize)]
struct Expected {
    settings: Settings,
    batches: Vec<Vec<Row>>,
    steps: Vec<Wanted>,
}

#[derive(Deserialize)]
struct Settings {
    beta: f64,
    rate: f64,
    clip: f32,
}

#[derive(Deserialize)]
struct Row {
    prompt: Vec<u32>,
    preferred: Vec<u32>,
    non_preferred: Vec<u32>,
}

#[derive(Deserialize)]
struct Wanted {
    loss: f64,
    preferred: f64,
    non_preferred: f64,
    accuracy: f64,
    norm: f64,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dpo").join(name)
}

fn expected() -> Expected {
    serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap()
}

fn answer(prompt: &[u32], answer: &[u32]) -> Example {
    let trained = (0..prompt.len() + answer.len()).map(|at| at >= prompt.len());
    Example { ids: [prompt, answer].concat(), trained: trained.collect() }
}

fn lesson(pairs: &[Pair], beta: f64, pass_tokens: usize) -> Lesson {
    Lesson::prefer(prepare(Rows::Pairs(pairs), 256, 37).unwrap().units, beta, pass_tokens)
}

fn lesson_of(rows: &[Row], beta: f64) -> Lesson {
    let pair = |row: &Row| Pair {
        preferred: answer(&row.prompt, &row.preferred),
        non_preferred: answer(&row.prompt, &row.non_preferred),
    };
    lesson(&rows.iter().map(pair).collect::<Vec<_>>(), beta, 1000)
}

#[test]
fn losses_gradients_and_steps_are_those_of_torch() {
    let Expected { settings, batches, steps } = expected();
    for rope in LAYOUTS {
        let config = tiny_config(rope);
        let frozen = base(&config);
        let mut adapter = Adapter::load(&peft("start"), &config).unwrap();
        let (mut pass, mut moments) = (Pass::new(&frozen, 0), Moments::new(&adapter));
        let mut lessons: Vec<Lesson> = batches.iter().map(|rows| lesson_of(rows, settings.beta)).collect();
        for (step, wanted) in steps.iter().enumerate() {
            let lesson = &mut lessons[step % batches.len()];
            let all: Vec<usize> = (0..lesson.units.len()).collect();
            let mut gradients = adapter.zeros_like();
            let metrics = lesson.gradients(&mut pass, &adapter, &all, &mut gradients).metrics();
            let rewards = metrics.rewards.unwrap();
            assert_eq!(metrics, lesson.measure(&mut pass, Some(&adapter), &all).metrics());
            assert!(close(metrics.loss, wanted.loss, 1e-5), "{rope:?} step {step}: {}", metrics.loss);
            assert!(close(rewards.preferred, wanted.preferred, 1e-4), "{rope:?} step {step}: {rewards:?}");
            assert!(close(rewards.non_preferred, wanted.non_preferred, 1e-4), "{rope:?}: {rewards:?}");
            assert_eq!(rewards.accuracy, wanted.accuracy);
            if step == 0 {
                let distance =
                    distance(&gradients, &load_gradients(&fixture("gradients.safetensors"), &config));
                assert!(distance < 2e-5, "{rope:?}: {distance}");
            }
            let norm = clip(&mut gradients, settings.clip);
            assert!(close(f64::from(norm), wanted.norm, 1e-4), "{rope:?} step {step}: {norm}");
            moments.update(&mut adapter, &gradients, settings.rate);
        }
        let end = Adapter::load(&fixture("end"), &config).unwrap();
        let start = Adapter::load(&peft("start"), &config).unwrap();
        let (moved, left) = (distance(&start, &end), distance(&adapter, &end));
        assert!(left < 1e-4 && moved > 0.02, "{rope:?}: {left} of {moved}");
    }
}

/// Pairs of random answers to random prompts.
fn pairs(lengths: &[(usize, usize)], seed: u64) -> Vec<Pair> {
    let lengths: Vec<usize> = lengths.iter().flat_map(|(a, b)| [6, *a, *b]).collect();
    let parts = random_examples(&lengths, 37, seed);
    let parts = parts.as_chunks::<3>().0.iter();
    parts
        .map(|[prompt, a, b]| Pair {
            preferred: answer(&prompt.ids, &a.ids),
            non_preferred: answer(&prompt.ids, &b.ids),
        })
        .collect()
}

#[test]
fn gradients_agree_with_differences_of_the_loss() {
    let config = tiny_config(RopeLayout::Interleaved);
    let frozen = Frozen::new(Weights::random(config.clone(), 1), Precision::F32);
    let lora = LoraConfig { rank: 2, alpha: 3.0, ..Default::default() };
    let adapter = with_random_b(Adapter::new(&config, &lora), 4);
    let mut lesson = lesson(&pairs(&[(4, 9), (12, 3)], 6), 0.4, 1000);
    let mut pass = Pass::new(&frozen, 0);
    let mut gradients = adapter.zeros_like();
    lesson.gradients(&mut pass, &adapter, &[0, 1], &mut gradients);
    for (index, gradient) in gradients.tensors().enumerate() {
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!(norm > 1e-5, "tensor {index} has no gradient to speak of: {norm}");
        // The five-point rule along the gradient, as in `gradients.rs`.
        let mut at = |step: f64| {
            let mut moved = adapter.clone();
            let tensor = moved.tensors_mut().nth(index).unwrap();
            tensor.iter_mut().zip(gradient).for_each(|(v, g)| *v += (step * f64::from(*g) / norm) as f32);
            lesson.measure(&mut pass, Some(&moved), &[0, 1]).metrics().loss
        };
        let step = 0.01;
        let measured = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step);
        assert!((norm - measured).abs() < 2e-3 * norm + 2e-5, "tensor {index}: {norm} {measured}");
    }
}

#[test]
fn a_batch_worked_through_in_parts_has_the_same_gradients() {
    let config = tiny_config(RopeLayout::Halves);
    let frozen = Frozen::new(Weights::random(config.clone(), 1), Precision::F32);
    let adapter = with_random_b(Adapter::new(&config, &LoraConfig::default()), 4);
    let pairs = pairs(&[(4, 9), (12, 3), (7, 7)], 6);
    let gradients = |pass_tokens| {
        let mut gradients = adapter.zeros_like();
        let mut lesson = lesson(&pairs, 0.1, pass_tokens);
        let totals = lesson.gradients(&mut Pass::new(&frozen, 0), &adapter, &[2, 0, 1], &mut gradients);
        assert_eq!(totals.metrics().rewards.unwrap().pairs, 3);
        gradients
    };
    let off = distance(&gradients(1), &gradients(1000));
    assert!(off < 1e-5, "{off}");
}

fn options() -> Options {
    Options { epochs: 6, batch_size: 2, learning_rate: 5e-3, beta: 0.2, ..Options::default() }
}

fn learn(dir: &Path, pairs: &[Pair], stop_at: usize) -> (Outcome, Vec<Step>) {
    let frozen = Frozen::new(Weights::random(tiny_config(RopeLayout::Halves), 1), Precision::F32);
    let data = Data::Preference { train: &pairs[1..], valid: &pairs[..1] };
    let mut steps = Vec::new();
    let outcome = run(&frozen, &data, &options(), dir, &mut |step| {
        let control = if step.step == stop_at { Control::Stop } else { Control::Continue };
        steps.push(Step { checkpoint: None, ..step });
        control
    });
    (outcome.unwrap(), steps)
}

#[test]
fn a_run_learns_to_prefer_and_resumes_to_the_same_bytes() {
    let pairs = pairs(&[(3, 4), (4, 9), (12, 3), (7, 7), (5, 8)], 6);
    let whole = tempfile::tempdir().unwrap();
    let (outcome, expected) = learn(whole.path(), &pairs, 0);
    let Outcome::Finished(trained) = outcome else { panic!("{outcome:?}") };
    let first = expected[0].train.rewards.unwrap();
    assert_eq!((first.preferred, first.non_preferred), (0.0, 0.0), "a fresh adapter is the reference");
    assert!((expected[0].train.loss - 2f64.ln()).abs() < 1e-9);
    let last = expected.last().unwrap();
    let rewards = last.train.rewards.unwrap();
    assert!(rewards.accuracy == 1.0 && rewards.margin() > 0.5, "{rewards:?}");
    assert!(last.full_valid.unwrap().rewards.is_some());
    let bytes = |dir: &Path| {
        let name = trained.checkpoint.file_name().unwrap();
        std::fs::read(dir.join(name).join("adapter_model.safetensors")).unwrap()
    };
    for stop_at in [1, 4, 9] {
        let dir = tempfile::tempdir().unwrap();
        let (stopped, mut steps) = learn(dir.path(), &pairs, stop_at);
        assert!(matches!(stopped, Outcome::Stopped { step, .. } if step == stop_at));
        steps.extend(learn(dir.path(), &pairs, 0).1);
        assert_eq!(steps, expected, "stopped at {stop_at}");
        assert_eq!(bytes(dir.path()), bytes(whole.path()), "stopped at {stop_at}");
    }
}
