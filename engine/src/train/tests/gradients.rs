//! Hand-written derivatives against differences of the loss.

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::lora::{Adapter, LoraConfig, Projection};
use crate::train::batch::Packed;
use crate::train::pass::{Pass, Scales, Start};
use crate::train::testing::{random_examples, tiny_config, with_random_b};
use crate::train::{Frozen, Precision};
use crate::weights::{Config, RopeLayout, RopeScaling, Weights};

/// A model whose norm weights are not all 1, as those of a real model.
fn weights(config: &Config) -> Weights {
    let mut weights = Weights::random(config.clone(), 1);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let norms = weights.layers.iter_mut().flat_map(|l| [&mut l.attn_norm, &mut l.ffn_norm]);
    for norm in norms.chain([&mut weights.norm]) {
        norm.fill_with(|| rng.random_range(0.5..1.5));
    }
    weights
}

fn loss(pass: &mut Pass, adapter: Option<&Adapter>, batch: &Packed) -> f64 {
    pass.losses(adapter, batch, &Start::default()).iter().map(|row| f64::from(row.loss)).sum()
}

struct Check {
    weights: Frozen,
    adapter: Adapter,
    batch: Packed,
    scale: f32,
}

impl Check {
    fn new(config: &Config, lora: &LoraConfig, lengths: &[usize]) -> Self {
        Self::of(weights(config), lora, lengths)
    }

    fn of(weights: Weights, lora: &LoraConfig, lengths: &[usize]) -> Self {
        let config = &weights.config;
        let examples = random_examples(lengths, config.vocab, 3);
        let batch = Packed::new(&examples);
        Self {
            adapter: with_random_b(Adapter::new(config, lora), 4),
            scale: 1.0 / batch.targets.len() as f32,
            batch,
            weights: Frozen::new(weights, Precision::F32),
        }
    }

    fn gradients(&self) -> Adapter {
        let mut gradients = self.adapter.zeros_like();
        let mut pass = Pass::new(&self.weights, 0);
        pass.losses_and_gradients(
            &self.adapter,
            &self.batch,
            &Start::default(),
            Scales::All(self.scale),
            &mut gradients,
        );
        gradients
    }

    /// Mean loss when `direction`, times `step`, is added to tensor `index`.
    fn loss_at(&self, pass: &mut Pass, index: usize, direction: &[f32], step: f64) -> f64 {
        let mut moved = self.adapter.clone();
        let tensor = moved.tensors_mut().nth(index).unwrap();
        tensor.iter_mut().zip(direction).for_each(|(v, d)| *v += (step * f64::from(*d)) as f32);
        loss(pass, Some(&moved), &self.batch) * f64::from(self.scale)
    }

    /// Derivative along `direction` by the five-point rule. Its error falls with the fourth power of the step, so that the
    /// step can be large, and the rounding of the f32 forward pass (about 1e-7) stays small against the difference.
    fn difference(&self, pass: &mut Pass, index: usize, direction: &[f32]) -> f64 {
        const STEP: f64 = 0.005;
        let mut at = |steps: f64| self.loss_at(pass, index, direction, steps * STEP);
        (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * STEP)
    }

    /// Every tensor: along its gradient, along a random direction, and along single elements. `tensors` is the number of
    /// tensors expected to have a gradient.
    fn run(&self, tensors: usize) {
        let gradients = self.gradients();
        assert_eq!(gradients.tensors().count(), tensors);
        let mut pass = Pass::new(&self.weights, 0);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for (index, gradient) in gradients.tensors().enumerate() {
            let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            assert!(norm > 1e-4, "tensor {index} has no gradient to speak of: {norm}");
            let along: Vec<f32> = gradient.iter().map(|g| (f64::from(*g) / norm) as f32).collect();
            let random: Vec<f32> = gradient.iter().map(|_| rng.random_range(-0.2..0.2)).collect();
            let mut directions = vec![along, random];
            for _ in 0..6 {
                let mut single = vec![0.0; gradient.len()];
                single[rng.random_range(0..gradient.len())] = 1.0;
                directions.push(single);
            }
            for direction in directions {
                let exact: f64 =
                    gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
                let measured = self.difference(&mut pass, index, &direction);
                assert!(
                    (exact - measured).abs() < 1e-3 * norm + 1e-5,
                    "tensor {index}: gradient {exact}, difference {measured}, norm {norm}"
                );
            }
        }
    }
}

#[test]
fn every_gradient_agrees_with_differences_in_both_rope_layouts() {
    for rope in [RopeLayout::Interleaved, RopeLayout::Halves] {
        let lora = LoraConfig { rank: 3, alpha: 4.5, ..Default::default() };
        // Per layer: four stacked A and seven B.
        Check::new(&tiny_config(rope), &lora, &[9, 1, 14, 5]).run(22);
    }
}

#[test]
fn biases_an_untied_head_and_scaled_rope_have_the_right_gradients() {
    let scaling = RopeScaling::Llama3 { factor: 4.0, low: 1.0, high: 4.0, original_context: 64.0 };
    let config = Config { rope_scaling: Some(scaling), ..tiny_config(RopeLayout::Halves) };
    let weights = weights(&config).with_random_biases(6).with_random_head(7);
    let lora = LoraConfig { rank: 3, alpha: 4.5, ..Default::default() };
    Check::of(weights, &lora, &[9, 1, 14, 5]).run(22);
}

#[test]
fn sequences_longer_than_one_attention_block_have_the_right_gradients() {
    let lora = LoraConfig { rank: 2, alpha: 3.0, ..Default::default() };
    Check::new(&tiny_config(RopeLayout::Interleaved), &lora, &[150, 70]).run(22);
}

#[test]
fn every_head_with_its_own_key_has_the_right_gradients() {
    let config = Config { kv_heads: 4, ..tiny_config(RopeLayout::Halves) };
    Check::new(&config, &LoraConfig { rank: 2, alpha: 3.0, ..Default::default() }, &[9, 14]).run(22);
}

#[test]
fn adapting_some_matrices_of_the_top_layer_has_the_right_gradients() {
    let targets = vec![Projection::Key, Projection::Value, Projection::Up];
    let lora = LoraConfig { rank: 2, alpha: 3.0, targets, top_layers: Some(1), ..Default::default() };
    Check::new(&tiny_config(RopeLayout::Halves), &lora, &[9, 14]).run(5);
}

#[test]
fn more_targets_than_one_chunk_of_the_head_have_the_right_gradients() {
    let lora = LoraConfig { rank: 2, alpha: 3.0, top_layers: Some(1), ..Default::default() };
    Check::new(&tiny_config(RopeLayout::Halves), &lora, &[200, 250]).run(11);
}

#[test]
fn a_packed_sequence_sees_nothing_of_its_neighbours() {
    let config = tiny_config(RopeLayout::Interleaved);
    let weights = Frozen::new(weights(&config), Precision::F32);
    let examples = random_examples(&[8, 90, 30], config.vocab, 6);
    let mut pass = Pass::new(&weights, 0);
    let together = loss(&mut pass, None, &Packed::new(&examples));
    let apart: f64 = examples.iter().map(|e| loss(&mut pass, None, &Packed::new([e]))).sum();
    assert!((together - apart).abs() < 1e-5 * apart, "{together} {apart}");
}

#[test]
fn gradients_do_not_depend_on_earlier_passes_or_on_threads() {
    let config = tiny_config(RopeLayout::Interleaved);
    let check = Check::new(&config, &LoraConfig::default(), &[100, 40, 130]);
    let expected = check.gradients();
    let larger = Packed::new(&random_examples(&[140, 150, 160], config.vocab, 9));
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut gradients = check.adapter.zeros_like();
        pool.install(|| {
            let mut pass = Pass::new(&check.weights, 0);
            let mut other = check.adapter.zeros_like();
            pass.losses_and_gradients(
                &check.adapter,
                &larger,
                &Start::default(),
                Scales::All(1.0),
                &mut other,
            );
            let scales = Scales::All(check.scale);
            pass.losses_and_gradients(
                &check.adapter,
                &check.batch,
                &Start::default(),
                scales,
                &mut gradients,
            );
        });
        assert_eq!(gradients, expected, "{threads} threads");
    }
}

#[test]
fn starting_before_the_first_adapted_layer_gives_the_same_gradients() {
    let config = tiny_config(RopeLayout::Halves);
    let lora = LoraConfig { rank: 2, alpha: 3.0, top_layers: Some(1), ..Default::default() };
    let check = Check::new(&config, &lora, &[9, 14]);
    let mut pass = Pass::new(&check.weights, 0);
    let start = Start { layer: 1, stream: pass.stream_before(1, &check.batch).to_vec() };
    let mut gradients = check.adapter.zeros_like();
    let scales = Scales::All(check.scale);
    pass.losses_and_gradients(&check.adapter, &check.batch, &start, scales, &mut gradients);
    assert_eq!(gradients, check.gradients());
}
