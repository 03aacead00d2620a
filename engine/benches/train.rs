//! Training speed on this machine: `cargo bench -p hone-engine --bench train`.
//!
//! Trains a random model of SmolLM2-135M's shape and compares with the rate that `gemm` alone reaches on the same shapes
//! in the same run, in both precisions. `taskset -c 0,1` limits it to two cores; `HONE_BENCH_STEPS` sets the steps measured
//! (default 5), `HONE_BENCH_PRECISION` (`f32`, `bf16`) measures one precision alone.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark has no caller to report errors to")]

use std::time::{Duration, Instant};

use hone_engine::lora::LoraConfig;
use hone_engine::train::{Control, Data, Example, Frozen, Options, Precision, run};
use hone_engine::weights::{Config, RopeLayout, Weights};

/// Tokens of one batch: four sequences of about 300.
const LENGTHS: [usize; 4] = [260, 290, 310, 340];
/// Leading tokens of each sequence that are not trained, as a prompt.
const PROMPT: usize = 60;

fn smollm2_135m() -> Config {
    Config {
        hidden: 576,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        ffn: 1536,
        vocab: 49_152,
        context: 8192,
        rope_theta: 100_000.0,
        rope: RopeLayout::Interleaved,
        rope_scaling: None,
        norm_eps: 1e-5,
    }
}

fn example(len: usize, vocab: usize) -> Example {
    Example {
        ids: (0..len).map(|i| ((i * 7919 + len * 31) % vocab) as u32).collect(),
        trained: (0..len).map(|i| i >= PROMPT).collect(),
    }
}

/// GFLOP/s of `[rows, inner] x [inner, cols]`; `weight_t` as a layer applies its weights forward, otherwise as it does
/// backward.
fn sgemm_rate(rows: usize, inner: usize, cols: usize, weight_t: bool) -> f64 {
    let (lhs, rhs) = (vec![0.5f32; rows * inner], vec![0.25f32; inner * cols]);
    let mut dst = vec![0.0f32; rows * cols];
    let (rhs_col, rhs_row) = if weight_t { (inner, 1) } else { (1, cols) };
    let mut once = || {
        // SAFETY: all three slices have exactly the elements that shapes and strides reach.
        unsafe {
            gemm::gemm(
                rows,
                cols,
                inner,
                dst.as_mut_ptr(),
                1,
                cols as isize,
                false,
                lhs.as_ptr(),
                1,
                inner as isize,
                rhs.as_ptr(),
                rhs_col as isize,
                rhs_row as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(0),
            );
        }
    };
    once();
    let (start, mut count) = (Instant::now(), 0);
    while count < 3 || start.elapsed() < Duration::from_millis(200) {
        once();
        count += 1;
    }
    2.0 * (rows * inner * cols * count) as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// Time-weighted mean rate over the products of one block, forward and backward.
fn block_rate(config: &Config, rows: usize) -> f64 {
    let (h, q) = (config.hidden, config.q_dim());
    let (mut work, mut time) = (0.0, 0.0);
    for (outputs, inputs) in [(config.qkv_dim(), h), (h, q), (2 * config.ffn, h), (h, config.ffn)] {
        let flop = (2 * rows * outputs * inputs) as f64;
        for rate in [sgemm_rate(rows, inputs, outputs, true), sgemm_rate(rows, outputs, inputs, false)] {
            work += flop;
            time += flop / rate;
        }
    }
    work / time
}

/// Floating-point operations of a step in the frozen matrices: forward and the gradient of the input; attention, pairs and
/// element-wise work not counted.
fn useful_flop(config: &Config, tokens: usize, targets: usize) -> f64 {
    let h = config.hidden;
    let block = h * config.qkv_dim() + h * config.q_dim() + 3 * h * config.ffn;
    4.0 * (config.layers * block * tokens + h * config.vocab * targets) as f64
}

/// Seconds per token of each step but the first, ascending.
fn train(frozen: &Frozen, lora: LoraConfig, batch: usize, steps: usize) -> Vec<f64> {
    let examples: Vec<Example> =
        (0..batch * (steps + 2)).map(|i| example(LENGTHS[i % LENGTHS.len()], frozen.config.vocab)).collect();
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        epochs: 1,
        batch_size: batch,
        lora,
        save_every: Duration::from_secs(3600),
        ..Default::default()
    };
    let (mut times, mut last, mut seen) = (Vec::new(), Instant::now(), 0);
    run(frozen, &Data::Supervised { train: &examples, valid: &[] }, &options, dir.path(), &mut |step| {
        times.push(last.elapsed().as_secs_f64() / (step.tokens_trained - seen) as f64);
        (last, seen) = (Instant::now(), step.tokens_trained);
        Control::Continue
    })
    .expect("the run finishes");
    times.remove(0);
    // The last step also writes the checkpoint, which is part of no other step.
    times.pop();
    times.sort_by(f64::total_cmp);
    times
}

/// Forgets the highest memory use so far, where the system can.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown");
    let kilobytes: Option<f64> = line.trim().trim_end_matches(" kB").parse().ok();
    kilobytes.map_or("unknown".into(), |kb| format!("{:.0} MB", kb / 1e3))
}

fn main() {
    let config = smollm2_135m();
    let tokens: usize = LENGTHS.iter().sum();
    let targets = tokens - LENGTHS.len() * PROMPT;
    let steps = std::env::var("HONE_BENCH_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let only = std::env::var("HONE_BENCH_PRECISION").ok();
    println!("threads              {}", rayon::current_num_threads());
    let rate = block_rate(&config, tokens);
    println!("sgemm, block shapes  {rate:.0} GFLOP/s");
    println!("sgemm, head          {:.0} GFLOP/s", sgemm_rate(256, config.hidden, config.vocab, true));
    for precision in [Precision::F32, Precision::Bf16] {
        if only.as_ref().is_some_and(|only| *only != precision.to_string()) {
            continue;
        }
        reset_peak();
        let frozen = Frozen::new(Weights::random(config.clone(), 1), precision);
        for (batch, top_layers) in [(4, None), (1, None), (4, Some(15))] {
            let layers = top_layers.map_or("all layers".to_owned(), |layers| format!("top {layers} layers"));
            let times = train(&frozen, LoraConfig { top_layers, ..Default::default() }, batch, steps);
            let (best, median) = (1.0 / times[0], 1.0 / times[times.len() / 2]);
            let useful = useful_flop(&config, tokens, targets) / tokens as f64 * median / 1e9;
            let share = match top_layers {
                None => format!(", {useful:.0} GFLOP/s = {:.0}% of sgemm", 100.0 * useful / rate),
                Some(_) => String::new(),
            };
            println!(
                "{precision}, {layers}, batch {batch}: {median:.0} tok/s (median of {}), {best:.0} best{share}",
                times.len()
            );
        }
        println!("{precision}, peak memory: {}", peak());
    }
}
