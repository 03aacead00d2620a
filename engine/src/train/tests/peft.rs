//! Loss, gradients and updates against transformers, PEFT and torch (`tests/fixtures/peft/make.py` made the numbers).
//!
//! The reference computes in float64, except for norms, softmax and rotary tables, where transformers drops to float32;
//! the engine computes in float32 throughout. Relative differences of a few 1e-7 per operation are therefore expected and
//! about ten times that after two layers; the tolerances leave another factor of ten. A mistake (a wrong scale, a missing
//! term, a swapped rotation) shows in the first or second digit.

use std::path::{Path, PathBuf};

use safetensors::tensor::SafeTensors;
use serde::Deserialize;

use crate::lora::{Adapter, read_floats};
use crate::train::batch::Packed;
use crate::train::optim::{Moments, clip, learning_rate};
use crate::train::pass::{Pass, Scales, Start};
use crate::train::testing::tiny_config;
use crate::train::{Example, Frozen, Metrics, Precision, Totals};
use crate::weights::{Config, Layer, Matrix, RopeLayout, Weights};

#[derive(Deserialize)]
struct Expected {
    settings: Settings,
    batches: Vec<Vec<Row>>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Settings {
    warmup: usize,
    peak: f64,
    clip: f32,
}

#[derive(Deserialize)]
struct Row {
    ids: Vec<u32>,
    trained: Vec<bool>,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    accuracy: f64,
    norm: f64,
    rate: f64,
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/peft").join(name)
}

fn expected() -> Expected {
    serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap()
}

fn packed(rows: &[Row]) -> Packed {
    let example = |row: &Row| Example { ids: row.ids.clone(), trained: row.trained.clone() };
    Packed::new(&rows.iter().map(example).collect::<Vec<_>>())
}

/// The base model of the fixture; for interleaved rotation with the rows moved as the conversion to GGUF does.
pub fn base(config: &Config) -> Frozen {
    let buffer = std::fs::read(fixture("base.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&buffer).unwrap();
    let values = |name: &str| {
        let tensor = tensors.tensor(name).unwrap();
        let mut data = vec![0.0; tensor.data().len() / 4];
        read_floats(&mut data, tensor.data());
        data
    };
    let matrix = |data: Vec<f32>, cols: usize| Matrix { rows: data.len() / cols, cols, data };
    let layer = |index: usize| {
        let part = |name: &str| values(&format!("model.layers.{index}.{name}.weight"));
        let rotated = |name: &str| to_gguf_rows(part(name), config);
        let qkv = [rotated("self_attn.q_proj"), rotated("self_attn.k_proj"), part("self_attn.v_proj")];
        Layer {
            attn_norm: part("input_layernorm"),
            qkv: matrix(qkv.concat(), config.hidden),
            qkv_bias: None,
            out: matrix(part("self_attn.o_proj"), config.q_dim()),
            ffn_norm: part("post_attention_layernorm"),
            gate_up: matrix([part("mlp.gate_proj"), part("mlp.up_proj")].concat(), config.hidden),
            down: matrix(part("mlp.down_proj"), config.ffn),
        }
    };
    let weights = Weights {
        config: config.clone(),
        embedding: matrix(values("model.embed_tokens.weight"), config.hidden),
        layers: (0..config.layers).map(layer).collect(),
        norm: values("model.norm.weight"),
        head: None,
    };
    Frozen::new(weights, Precision::F32)
}

/// What llama.cpp's converter does to query and key matrices: `[heads, 2, d/2, in]` becomes `[heads, d/2, 2, in]`.
fn to_gguf_rows(data: Vec<f32>, config: &Config) -> Vec<f32> {
    if config.rope == RopeLayout::Halves {
        return data;
    }
    let (dim, cols) = (config.head_dim, config.hidden);
    let mut out = Vec::new();
    for head in data.chunks_exact(dim * cols) {
        for pair in 0..dim / 2 {
            for half in 0..2 {
                out.extend_from_slice(&head[(half * dim / 2 + pair) * cols..][..cols]);
            }
        }
    }
    out
}

/// Gradients in PEFT's file format.
pub fn load_gradients(file: &Path, config: &Config) -> Adapter {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("start/adapter_config.json"), dir.path().join("adapter_config.json")).unwrap();
    let tensors = dir.path().join("adapter_model.safetensors");
    std::fs::copy(file, tensors).unwrap();
    Adapter::load(dir.path(), config).unwrap()
}

fn metrics(pass: &mut Pass, adapter: &Adapter, batch: &Packed, gradients: &mut Adapter) -> Metrics {
    let scales = Scales::All(1.0 / batch.targets.len() as f32);
    Totals::of_rows(&pass.losses_and_gradients(adapter, batch, &Start::default(), scales, gradients))
        .metrics()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

/// Largest distance of two tensors, as a share of the second's norm.
pub fn distance(ours: &Adapter, theirs: &Adapter) -> f64 {
    let shares = ours.tensors().zip(theirs.tensors()).map(|(a, b)| {
        let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        norm(&difference) / norm(b)
    });
    shares.fold(0.0, f64::max)
}

pub fn close(ours: f64, theirs: f64, tolerance: f64) -> bool {
    (ours - theirs).abs() <= tolerance * theirs.abs()
}

pub const LAYOUTS: [RopeLayout; 2] = [RopeLayout::Halves, RopeLayout::Interleaved];

#[test]
fn the_first_loss_and_every_gradient_are_those_of_torch() {
    let expected = expected();
    let batch = packed(&expected.batches[0]);
    for rope in LAYOUTS {
        let config = tiny_config(rope);
        let (weights, adapter) = (base(&config), Adapter::load(&fixture("start"), &config).unwrap());
        let mut ours = adapter.zeros_like();
        let metrics = metrics(&mut Pass::new(&weights, 0), &adapter, &batch, &mut ours);
        assert!(close(metrics.loss, expected.steps[0].loss, 2e-6), "{rope:?} {}", metrics.loss);
        assert_eq!(metrics.token_accuracy, expected.steps[0].accuracy);
        let distance = distance(&ours, &load_gradients(&fixture("gradients.safetensors"), &config));
        assert!(distance < 2e-5, "{rope:?}: {distance}");
    }
}

#[test]
fn training_steps_are_those_of_torch() {
    let expected = expected();
    for rope in LAYOUTS {
        let config = tiny_config(rope);
        let weights = base(&config);
        let mut adapter = Adapter::load(&fixture("start"), &config).unwrap();
        let (mut pass, mut moments) = (Pass::new(&weights, 0), Moments::new(&adapter));
        for (step, wanted) in expected.steps.iter().enumerate() {
            let batch = packed(&expected.batches[step % expected.batches.len()]);
            let mut gradients = adapter.zeros_like();
            let metrics = metrics(&mut pass, &adapter, &batch, &mut gradients);
            let norm = clip(&mut gradients, expected.settings.clip);
            let Settings { peak, warmup, .. } = expected.settings;
            let rate = learning_rate(peak, step, warmup, expected.steps.len());
            moments.update(&mut adapter, &gradients, rate);
            // AdamW divides by the size of a gradient, so a value whose gradient is nearly 0 may move a little otherwise.
            assert!(close(metrics.loss, wanted.loss, 1e-5), "{rope:?} step {step}: {}", metrics.loss);
            assert!(close(f64::from(norm), wanted.norm, 1e-4), "{rope:?} step {step}: {norm}");
            assert!(close(rate, wanted.rate, 1e-12));
        }
        let end = Adapter::load(&fixture("end"), &config).unwrap();
        let start = Adapter::load(&fixture("start"), &config).unwrap();
        let moved = distance(&start, &end);
        let left = distance(&adapter, &end);
        assert!(left < 1e-4 && moved > 0.05, "{rope:?}: {left} of {moved}");
    }
}

#[test]
fn an_adapter_of_peft_is_written_back_as_it_was() {
    for rope in LAYOUTS {
        let config = tiny_config(rope);
        let dir = tempfile::tempdir().unwrap();
        Adapter::load(&fixture("start"), &config).unwrap().save(dir.path(), &config, "base").unwrap();
        let read = |path: &Path| std::fs::read(path.join("adapter_model.safetensors")).unwrap();
        let (ours, theirs) = (read(dir.path()), read(&fixture("start")));
        let tensors = |buffer: &[u8]| -> Vec<(String, Vec<usize>, Vec<u8>)> {
            let tensors = SafeTensors::deserialize(buffer).unwrap();
            let mut all: Vec<_> = tensors
                .iter()
                .map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec(), tensor.data().to_vec()))
                .collect();
            all.sort();
            all
        };
        assert_eq!(tensors(&ours), tensors(&theirs), "{rope:?}");
    }
}
