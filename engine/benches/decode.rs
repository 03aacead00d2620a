//! Speed of reading prompts and of writing answers, for each set of kernels that this machine has.
//!
//!     HONE_TEST_GGUF=model.gguf cargo bench -p hone-engine --bench decode [-- LEVEL...]
//!
//! `LEVEL` is `avx512`, `avx-vnni`, `avx2`, ..., or one of those that take minutes and run only when named:
//! `scalar`, and `f32` for the exact path. Every figure is the best of a few runs of a second or so: a busy machine
//! makes them lower, never higher. Without HONE_TEST_GGUF the weights are random numbers in SmolLM2-135M's shape,
//! rounded to 8 bits.

use std::{env, error::Error, hint::black_box, sync::Arc, time::Instant};

use hone_engine::{
    infer::{Decoder, Level, Options, Precision, Sequence, step},
    model::Model,
    weights::{Config, RopeLayout, Weights},
};
use rayon::prelude::*;

const RUNS: usize = 3;
const PROMPT: usize = 512;
/// Tokens before the first that is decoded.
const CONTEXT: usize = 128;
const STEPS: usize = 32;
const BATCHES: [usize; 3] = [1, 8, 16];

fn main() -> Result<(), Box<dyn Error>> {
    let named: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut levels = Level::available();
    levels.reverse();
    let options = |level| Options { level, ..Options::default() };
    let mut all: Vec<(String, Options)> =
        levels.into_iter().map(|level| (level.name().to_owned(), options(level))).collect();
    all.push(("f32".to_owned(), Precision::F32.into()));
    let quick = |name: &str| !["scalar", "f32"].contains(&name);
    all.retain(|(name, _)| if named.is_empty() { quick(name) } else { named.contains(name) });
    print(format!(
        "{} threads, reading {:.1} GB/s; prompt of {PROMPT}; decode after {CONTEXT}, all sequences together",
        Options::default().threads,
        bandwidth() / 1e9
    ));
    for (name, options) in all {
        let decoder = decoder(options)?;
        let prompt = best(|| prompt_rate(&decoder));
        let decode = BATCHES.map(|batch| (batch, best(|| decode_rate(&decoder, batch))));
        let decode = decode.map(|(batch, rate)| format!("batch {batch}: {rate:.0} tok/s"));
        print(format!("{name:9} prompt {prompt:.0} tok/s; {}; peak RSS {}", decode.join(", "), peak()));
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark's output")]
fn print(line: String) {
    println!("{line}");
}

fn decoder(options: Options) -> Result<Arc<Decoder>, Box<dyn Error>> {
    if let Some(path) = env::var_os("HONE_TEST_GGUF") {
        return Ok(Model::<Decoder>::open(path.as_ref(), options)?.weights);
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
    Ok(Decoder::new(&Weights::random(config, 1), options).into())
}

fn best(mut run: impl FnMut() -> f64) -> f64 {
    (0..RUNS).map(|_| run()).fold(0.0, f64::max)
}

/// Bytes/s at which all threads together read as much memory as a model takes.
fn bandwidth() -> f64 {
    let data = vec![1_u64; 12 << 20];
    let union = |part: &[u64]| part.iter().fold(0, |a, b| a | b);
    best(|| {
        let start = Instant::now();
        black_box(data.par_chunks(1 << 14).map(union).reduce(|| 0, |a, b| a | b));
        size_of_val(&data[..]) as f64 / start.elapsed().as_secs_f64()
    })
}

/// Most memory that this process has had so far.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.map_or("unknown".to_owned(), |line| line.trim_start_matches("VmHWM:").trim().to_owned())
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

/// Tokens/s of all `batch` sequences together.
fn decode_rate(decoder: &Decoder, batch: usize) -> f64 {
    let new = |seed| Sequence::new(decoder, &ids(CONTEXT, seed));
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
