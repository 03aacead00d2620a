//! Hone's side of `bench/compare inference`: orders as lines of JSON on stdin, answers as lines of JSON on stdout.
//!
//!     compare_inference MODEL.gguf [LEVEL | f32]

use std::{
    env,
    error::Error,
    io::{BufRead, Write},
    path::Path,
    sync::Arc,
    time::Instant,
};

use hone_engine::{
    infer::{Decoder, Level, Limits, Options, Precision, Sequence, step},
    model::Model,
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Order {
    About,
    /// What the machine could do at most, and what a token costs.
    Limits,
    Prompt {
        ids: Vec<u32>,
    },
    /// Reads the prompts, then takes the time of feeding every sequence its next tokens, one a step.
    Decode {
        prompts: Vec<Vec<u32>>,
        then: Vec<Vec<u32>>,
    },
    Peak,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().ok_or("usage: compare_inference MODEL.gguf [LEVEL | f32]")?;
    let options = options(arguments.next().as_deref())?;
    let decoder = Model::<Decoder>::open(Path::new(&path), options)?.weights;
    for line in std::io::stdin().lock().lines() {
        let answer = answer(&decoder, serde_json::from_str(&line?)?);
        writeln!(std::io::stdout(), "{answer}")?;
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn options(level: Option<&str>) -> Result<Options, Box<dyn Error>> {
    match level {
        None => Ok(Options::default()),
        Some("f32") => Ok(Precision::F32.into()),
        Some(name) => Ok(Options { level: Level::named(name)?, ..Options::default() }),
    }
}

fn answer(decoder: &Arc<Decoder>, order: Order) -> Value {
    match order {
        Order::About => {
            let options = decoder.options();
            json!({ "system": options.level.name(), "threads": options.threads })
        }
        Order::Limits => {
            let (options, costs) = (decoder.options(), decoder.costs());
            let limits = Limits::measure(options.level, options.threads.get(), costs.bytes);
            json!({
                "reading": limits.reading, "bytes": limits.bytes,
                "token_bytes": costs.bytes, "operations": costs.operations, "head_operations": costs.head_operations,
            })
        }
        Order::Prompt { ids } => {
            let mut sequence = Sequence::new(decoder, &ids);
            let start = Instant::now();
            let logits = step(decoder, &mut [&mut sequence]);
            let seconds = start.elapsed().as_secs_f64();
            json!({ "seconds": seconds, "top": logits.row(0).map(top) })
        }
        Order::Decode { prompts, then } => json!({ "seconds": decode(decoder, &prompts, &then) }),
        Order::Peak => json!({ "mb": peak_mb() }),
    }
}

fn decode(decoder: &Arc<Decoder>, prompts: &[Vec<u32>], then: &[Vec<u32>]) -> f64 {
    let mut sequences: Vec<Sequence> = prompts.iter().map(|ids| Sequence::new(decoder, ids)).collect();
    let mut all: Vec<&mut Sequence> = sequences.iter_mut().collect();
    step(decoder, &mut all);
    let steps = then.iter().map(Vec::len).min().unwrap_or_default();
    let start = Instant::now();
    for at in 0..steps {
        all.iter_mut().zip(then).for_each(|(sequence, ids)| sequence.push(ids[at]));
        std::hint::black_box(step(decoder, &mut all));
    }
    start.elapsed().as_secs_f64()
}

/// The likeliest token.
fn top(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or_default()
}

/// Most memory that this process has had so far.
fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1000.0)
}
