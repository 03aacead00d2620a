//! The bf16 path against the f32 path, which `gradients` and `peft` check.
//!
//! bf16 keeps 8 bits: each rounding is off by up to 2^-9 = 0.2% of the value. The logits of a random model are large, so that
//! such errors of theirs move probabilities, and with them gradients, by about 2% (measured: 2.0% to 2.4% as a whole, 3% in a
//! single tensor). The tolerances (loss 0.2%, whole gradient 4%, each tensor 8%) leave room for that and nothing else: a missing
//! term or a wrong scale is off by tens of percent.

use super::peft::distance;
use crate::lora::{Adapter, LoraConfig, Projection};
use crate::train::batch::{Packed, Rows, prepare};
use crate::train::objective::Lesson;
use crate::train::pass::{Pass, Scales, Start};
use crate::train::testing::{random_examples, tiny_config, with_random_b};
use crate::train::tile::Unit;
use crate::train::{Control, Data, Example, Frozen, Options, Pair, Precision, Step, TrainError, run};
use crate::weights::{Config, RopeLayout, Weights};

fn frozen(config: &Config, precision: Precision) -> Frozen {
    Frozen::new(Weights::random(config.clone(), 1), precision)
}

fn gradients(pass: &mut Pass, adapter: &Adapter, batch: &Packed) -> (f64, Adapter) {
    let mut gradients = adapter.zeros_like();
    let scales = Scales::All(1.0 / batch.targets.len() as f32);
    let rows = pass.losses_and_gradients(adapter, batch, &Start::default(), scales, &mut gradients);
    let measured = pass.losses(Some(adapter), batch, &Start::default());
    assert_eq!(rows, measured, "both ways to the loss are one");
    (rows.iter().map(|row| f64::from(row.loss)).sum::<f64>() / rows.len() as f64, gradients)
}

/// Distance of all values, as a share of the norm of the second's.
fn whole_distance(ours: &Adapter, theirs: &Adapter) -> f64 {
    let pairs = || ours.tensors().flatten().zip(theirs.tensors().flatten());
    let squares =
        |part: fn((&f32, &f32)) -> f32| pairs().map(|pair| f64::from(part(pair)).powi(2)).sum::<f64>();
    (squares(|(a, b)| a - b) / squares(|(_, b)| *b)).sqrt()
}

fn check(config: &Config, lora: &LoraConfig, lengths: &[usize]) {
    let batch = Packed::new(&random_examples(lengths, config.vocab, 3));
    let adapter = with_random_b(Adapter::new(config, lora), 4);
    // Biases and a head of their own take the way of other families through the same code.
    let weights = Weights::random(config.clone(), 1).with_random_biases(6).with_random_head(7);
    let frozen = |precision, unit| Frozen::on(weights.clone(), precision, unit);
    let of = |precision, unit| gradients(&mut Pass::new(&frozen(precision, unit), 0), &adapter, &batch);
    let (exact, expected) = of(Precision::F32, Unit::Portable);
    for unit in Unit::tested() {
        let (loss, found) = of(Precision::Bf16, unit);
        assert!((loss - exact).abs() < 2e-3 * exact, "{unit:?}: {loss} {exact}");
        let (whole, worst) = (whole_distance(&found, &expected), distance(&found, &expected));
        println!("{unit:?}: off by {whole:.4} as a whole, by {worst:.4} in a tensor");
        assert!(whole < 4e-2 && worst < 8e-2 && whole > 0.0, "{unit:?}: off by {whole}, {worst} in a tensor");
    }
}

#[test]
fn losses_and_gradients_are_those_of_f32_to_the_precision_of_bf16() {
    for rope in [RopeLayout::Interleaved, RopeLayout::Halves] {
        check(&tiny_config(rope), &LoraConfig { rank: 3, alpha: 4.5, ..Default::default() }, &[9, 1, 14, 5]);
    }
    check(&tiny_config(RopeLayout::Halves), &LoraConfig::default(), &[150, 70]);
}

#[test]
fn a_part_of_the_matrices_and_widths_beyond_one_panel_have_the_right_gradients() {
    let targets = vec![Projection::Key, Projection::Value, Projection::Up];
    let lora = LoraConfig { rank: 2, alpha: 3.0, targets, top_layers: Some(1), ..Default::default() };
    check(&tiny_config(RopeLayout::Halves), &lora, &[9, 14]);
    let odd = Config { hidden: 35, ffn: 67, vocab: 101, ..tiny_config(RopeLayout::Halves) };
    check(&odd, &LoraConfig { rank: 20, alpha: 20.0, ..Default::default() }, &[30, 14]);
}

/// The derivative along the gradient, by a difference that is wide enough to stand out from the rounding of bf16.
#[test]
fn gradients_agree_with_differences_of_the_rounded_loss() {
    let config = tiny_config(RopeLayout::Interleaved);
    let frozen = frozen(&config, Precision::Bf16);
    let adapter =
        with_random_b(Adapter::new(&config, &LoraConfig { rank: 3, alpha: 4.5, ..Default::default() }), 4);
    let batch = Packed::new(&random_examples(&[60, 40, 50], config.vocab, 3));
    let mut pass = Pass::new(&frozen, 0);
    let (_, whole) = gradients(&mut pass, &adapter, &batch);
    let norm = whole.tensors().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    let mut at = |step: f64| {
        let mut moved = adapter.clone();
        for (values, gradient) in moved.tensors_mut().zip(whole.tensors()) {
            values.iter_mut().zip(gradient).for_each(|(v, g)| *v += (step * f64::from(*g) / norm) as f32);
        }
        let rows = pass.losses(Some(&moved), &batch, &Start::default());
        rows.iter().map(|row| f64::from(row.loss)).sum::<f64>() / rows.len() as f64
    };
    let step = 0.1;
    let measured = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step);
    assert!((norm - measured).abs() < 3e-2 * norm, "{norm} {measured}");
}

#[test]
fn layers_that_are_run_again_give_the_same_gradients() {
    let config = tiny_config(RopeLayout::Interleaved);
    let batch = Packed::new(&random_examples(&[30, 20], config.vocab, 3));
    for top_layers in [None, Some(1)] {
        let lora = LoraConfig { top_layers, ..Default::default() };
        let adapter = with_random_b(Adapter::new(&config, &lora), 4);
        for precision in [Precision::F32, Precision::Bf16] {
            let frozen = frozen(&config, precision);
            let kept = gradients(&mut Pass::new(&frozen, 0), &adapter, &batch);
            let again = gradients(&mut Pass::new(&frozen, 0).keeping(10), &adapter, &batch);
            assert_eq!(kept, again, "{precision} {top_layers:?}");
        }
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let config = tiny_config(RopeLayout::Interleaved);
    let frozen = frozen(&config, Precision::Bf16);
    let adapter = with_random_b(Adapter::new(&config, &LoraConfig::default()), 4);
    let batch = Packed::new(&random_examples(&[140, 90, 130], config.vocab, 3));
    let of = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| gradients(&mut Pass::new(&frozen, 0), &adapter, &batch))
    };
    let one = of(1);
    assert_eq!(one, of(2));
    assert_eq!(one, of(3));
}

fn learn(precision: Precision, dir: &std::path::Path) -> Result<Vec<Step>, TrainError> {
    let config = tiny_config(RopeLayout::Halves);
    let examples: Vec<Example> = random_examples(&[12, 9, 17, 8, 11], config.vocab, 2);
    let options = Options { epochs: 6, batch_size: 2, learning_rate: 1e-2, ..Options::default() };
    let mut steps = Vec::new();
    let data = Data::Supervised { train: &examples, valid: &[] };
    run(&frozen(&config, precision), &data, &options, dir, &mut |step| {
        steps.push(step);
        Control::Continue
    })?;
    Ok(steps)
}

#[test]
fn a_run_learns_as_in_f32_and_a_state_keeps_its_precision() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let exact = learn(Precision::F32, dirs[0].path()).unwrap();
    let rounded = learn(Precision::Bf16, dirs[1].path()).unwrap();
    assert!(exact.last().unwrap().train.loss < exact[0].train.loss - 0.3);
    for (exact, rounded) in exact.iter().zip(&rounded) {
        let (exact, rounded) = (exact.train.loss, rounded.train.loss);
        assert!((exact - rounded).abs() < 0.02 * exact, "{exact} {rounded}");
    }
    let error = learn(Precision::F32, dirs[1].path()).unwrap_err();
    assert!(matches!(error, TrainError::OtherRun { .. }), "{error}");
}

#[test]
fn preference_has_the_gradients_of_f32_to_the_precision_of_bf16() {
    let config = tiny_config(RopeLayout::Halves);
    let adapter = with_random_b(Adapter::new(&config, &LoraConfig::default()), 4);
    let answers = random_examples(&[30, 40, 25, 28], config.vocab, 3);
    let pairs: Vec<Pair> = answers
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[a, b]| Pair { preferred: a.clone(), non_preferred: b.clone() })
        .collect();
    let of = |precision| {
        let units = prepare(Rows::Pairs(&pairs), 256, config.vocab).unwrap().units;
        let frozen = frozen(&config, precision);
        let mut gradients = adapter.zeros_like();
        let mut lesson = Lesson::prefer(units, 0.1, 1000);
        let totals = lesson.gradients(&mut Pass::new(&frozen, 0), &adapter, &[0, 1], &mut gradients);
        (totals.metrics().loss, gradients)
    };
    let ((exact, expected), (loss, found)) = (of(Precision::F32), of(Precision::Bf16));
    // A margin is a difference of sums over whole answers, so rounding weighs more than in a mean.
    assert!((loss - exact).abs() < 2e-2 * exact, "{loss} {exact}");
    let off = distance(&found, &expected);
    assert!(off < 6e-2, "{off}");
}
