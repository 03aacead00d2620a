//! Speed of reading prompts and of writing answers, beside what this machine can do.
//!
//!     HONE_TEST_GGUF=model.gguf cargo bench -p hone-engine --bench decode
//!
//! Every figure is the best of a few runs of a second or so: a busy machine makes them lower, never higher. Without
//! HONE_TEST_GGUF the weights are random numbers in SmolLM2-135M's shape; speed does not depend on their values.

use std::{env, error::Error, hint::black_box, sync::Arc, time::Instant};

use gemm::Parallelism;
use hone_engine::{
    infer::{Decoder, Precision, Sequence, step},
    model::Model,
    weights::{Config, RopeLayout, Weights},
};
use rayon::prelude::*;

const RUNS: usize = 3;
const PROMPT: usize = 512;
const STEPS: usize = 24;

fn main() -> Result<(), Box<dyn Error>> {
    let weights = weights()?;
    let threads = rayon::current_num_threads();
    let sgemm = sgemm(threads);
    let bandwidth = bandwidth(&weights);
    let flops = flops_per_token(&weights.config);
    print(format!(
        "threads {threads}, sgemm {:.0} GFLOP/s, reading weights {:.1} GB/s",
        sgemm / 1e9,
        bandwidth / 1e9
    ));
    let decoder = Decoder::new(&weights, Precision::Fast);
    let prompt = best(|| prompt_rate(&decoder));
    print(format!("prompt of {PROMPT}: {prompt:.0} tok/s, {:.0}% of sgemm", 100.0 * prompt * flops / sgemm));
    let bytes = (flops / 2.0) * size_of::<f32>() as f64;
    for batch in [1, 8, 32] {
        let rate = best(|| decode_rate(&decoder, batch));
        // A step reads all weights once and computes `batch` tokens; the two may overlap, so the slower one binds.
        let limit = batch as f64 / (bytes / bandwidth).max(batch as f64 * flops / sgemm);
        print(format!(
            "decode, batch {batch}: {rate:.0} tok/s, {:.0}% of the limit {limit:.0}",
            100.0 * rate / limit
        ));
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark's output")]
fn print(line: String) {
    println!("{line}");
}

fn weights() -> Result<Arc<Weights>, Box<dyn Error>> {
    if let Some(path) = env::var_os("HONE_TEST_GGUF") {
        return Ok(Model::load(path.as_ref())?.weights);
    }
    let config = Config {
        hidden: 576,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        ffn: 1536,
        vocab: 49152,
        context: 8192,
        rope_theta: 100_000.0,
        rope: RopeLayout::Interleaved,
        rope_scaling: None,
        norm_eps: 1e-5,
    };
    Ok(Weights::random(config, 1).into())
}

fn best(mut run: impl FnMut() -> f64) -> f64 {
    (0..RUNS).map(|_| run()).fold(0.0, f64::max)
}

/// Multiplications and additions of all weights for one token, attention not counted.
fn flops_per_token(config: &Config) -> f64 {
    let layer = config.hidden * (config.qkv_dim() + config.q_dim() + 3 * config.ffn);
    2.0 * (config.layers * layer + config.vocab * config.hidden) as f64
}

/// FLOP/s of `gemm` on a product of the model's shape.
fn sgemm(threads: usize) -> f64 {
    let (m, n, k) = (512, 1536, 576);
    let (a, b, mut c) = (vec![1.0_f32; m * k], vec![1.0_f32; n * k], vec![0.0_f32; m * n]);
    best(|| {
        let (start, count) = (Instant::now(), 100);
        for _ in 0..count {
            // SAFETY: row-major a [m, k], b [n, k] read transposed, c [m, n]: strides stay inside.
            unsafe {
                gemm::gemm(
                    m,
                    n,
                    k,
                    c.as_mut_ptr(),
                    1,
                    n as isize,
                    false,
                    a.as_ptr(),
                    1,
                    k as isize,
                    b.as_ptr(),
                    k as isize,
                    1,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    Parallelism::Rayon(threads),
                );
            }
        }
        black_box(&c);
        count as f64 * 2.0 * (m * n * k) as f64 / start.elapsed().as_secs_f64()
    })
}

/// Bytes/s at which all threads together read the model's matrices.
fn bandwidth(weights: &Weights) -> f64 {
    let layers = weights.layers.iter().flat_map(|l| [&l.qkv, &l.out, &l.gate_up, &l.down]);
    let matrices: Vec<&[f32]> = layers.chain([&weights.embedding]).map(|m| &m.data[..]).collect();
    let bytes: usize = matrices.iter().map(|m| size_of_val(*m)).sum();
    let highest = |part: &[f32]| part.iter().fold(0, |a, b| a | b.to_bits());
    best(|| {
        let start = Instant::now();
        for _ in 0..3 {
            matrices.iter().for_each(|m| {
                black_box(m.par_chunks(1 << 14).map(highest).reduce(|| 0, |a, b| a | b));
            });
        }
        3.0 * bytes as f64 / start.elapsed().as_secs_f64()
    })
}

fn ids(len: usize, seed: usize) -> Vec<u32> {
    (0..len).map(|i| (100 + (i * 7919 + seed * 104_729) % 40_000) as u32).collect()
}

fn prompt_rate(decoder: &Decoder) -> f64 {
    let mut sequence = Sequence::new(decoder, &ids(PROMPT, 1));
    let start = Instant::now();
    black_box(step(decoder, &mut [&mut sequence]));
    PROMPT as f64 / start.elapsed().as_secs_f64()
}

/// Tokens/s of all `batch` sequences together, each with a context of about 128 tokens.
fn decode_rate(decoder: &Decoder, batch: usize) -> f64 {
    let new = |seed| Sequence::new(decoder, &ids(128, seed));
    let mut sequences: Vec<Sequence> = (0..batch).map(new).collect();
    let mut all: Vec<&mut Sequence> = sequences.iter_mut().collect();
    step(decoder, &mut all);
    let start = Instant::now();
    for i in 0..STEPS {
        all.iter_mut().for_each(|sequence| sequence.push(i as u32 + 100));
        black_box(step(decoder, &mut all));
    }
    (batch * STEPS) as f64 / start.elapsed().as_secs_f64()
}
