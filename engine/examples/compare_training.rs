//! Hone's side of `bench/compare training` and `loss`: orders as lines of JSON on stdin, answers as lines of JSON on stdout.
//!
//!     compare_training MODEL.gguf f32|bf16 [LEVEL]

use std::{
    env,
    error::Error,
    io::{BufRead, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hone_engine::{
    chat::{ChatMessage, ChatTemplate},
    infer::{Level, Limits},
    lora::LoraConfig,
    model::Model,
    tokenizer::Tokenizer,
    train::{Control, Data, Example, Frozen, Options, Precision, run},
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Row {
    prompt: String,
    completion: String,
}

#[derive(Deserialize)]
struct Tokens {
    ids: Vec<u32>,
    trained: Vec<bool>,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Order {
    About,
    /// What the machine could do at most.
    Limits,
    /// Tokens of conversations of a question and an answer, and which of them carry loss.
    Render {
        rows: Vec<Row>,
    },
    Train(Box<Training>),
}

#[derive(Deserialize)]
struct Training {
    examples: Vec<Tokens>,
    batch: usize,
    learning_rate: f64,
    warmup: usize,
    seed: u64,
    /// Receives the adapter.
    folder: PathBuf,
}

/// A base model, and what turns text into its tokens.
struct Worker {
    frozen: Frozen,
    level: Level,
    tokenizer: Tokenizer,
    template: ChatTemplate,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(path), Some(precision)) = (arguments.next(), arguments.next()) else {
        return Err("usage: compare_training MODEL.gguf f32|bf16 [LEVEL]".into());
    };
    let level = arguments.next().map_or(Ok(Level::best()), |name| Level::named(&name))?;
    let precision = Precision::from_name(&precision).ok_or("no such precision")?;
    let model = Model::load(Path::new(&path))?;
    let weights = std::sync::Arc::try_unwrap(model.weights).map_err(|_| "the weights are shared")?;
    let worker = Worker {
        frozen: Frozen::with(weights, precision, level),
        level,
        tokenizer: model.tokenizer,
        template: model.template,
    };
    for line in std::io::stdin().lock().lines() {
        let answer = worker.answer(serde_json::from_str(&line?)?)?;
        writeln!(std::io::stdout(), "{answer}")?;
        std::io::stdout().flush()?;
    }
    Ok(())
}

impl Worker {
    fn answer(&self, order: Order) -> Result<Value, Box<dyn Error>> {
        match order {
            Order::About => {
                Ok(json!({ "system": self.frozen.computing(), "threads": rayon::current_num_threads() }))
            }
            Order::Limits => {
                let limits = Limits::measure(self.level, rayon::current_num_threads(), 1 << 20);
                Ok(json!({ "bf16": limits.bf16, "f32": limits.f32 }))
            }
            Order::Render { rows } => {
                let rendered = rows.into_iter().map(|row| self.render(row)).collect::<Result<Vec<_>, _>>()?;
                Ok(json!({ "examples": rendered }))
            }
            Order::Train(training) => self.train(*training),
        }
    }

    /// In the frozen matrices, there and back (a product and its addition are two); those of the head at the targets alone.
    fn operations(&self, tokens: u64, targets: usize) -> u64 {
        let config = &self.frozen.config;
        let of_layer = config.hidden * (config.qkv_dim() + config.q_dim() + 3 * config.ffn);
        4 * (tokens * (config.layers * of_layer) as u64 + (targets * config.hidden * config.vocab) as u64)
    }

    fn render(&self, row: Row) -> Result<Value, Box<dyn Error>> {
        let messages = [ChatMessage::user(row.prompt), ChatMessage::assistant(row.completion)];
        let (ids, trained) = self.template.render_training(&self.tokenizer, &messages)?;
        Ok(json!({ "ids": ids, "trained": trained }))
    }

    /// One epoch; seconds, tokens and loss of each step. The first step's time has the run's start in it.
    fn train(&self, training: Training) -> Result<Value, Box<dyn Error>> {
        // Where it cannot be forgotten, the peak is that of everything so far.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let examples: Vec<Example> =
            training.examples.into_iter().map(|row| Example { ids: row.ids, trained: row.trained }).collect();
        let options = Options {
            epochs: 1,
            batch_size: training.batch,
            learning_rate: training.learning_rate,
            warmup: training.warmup,
            seed: training.seed,
            lora: LoraConfig { seed: training.seed, ..LoraConfig::default() },
            save_every: Duration::from_secs(3600),
            ..Options::default()
        };
        let (mut seconds, mut tokens, mut losses, mut rates) = (vec![], vec![], vec![], vec![]);
        let mut operations = vec![];
        let (mut last, mut seen) = (Instant::now(), 0);
        let data = Data::Supervised { train: &examples, valid: &[] };
        run(&self.frozen, &data, &options, &training.folder, &mut |step| {
            seconds.push(last.elapsed().as_secs_f64());
            tokens.push(step.tokens_trained - seen);
            operations.push(self.operations(step.tokens_trained - seen, step.train.targets));
            losses.push(step.train.loss);
            rates.push(step.learning_rate);
            (last, seen) = (Instant::now(), step.tokens_trained);
            Control::Continue
        })?;
        Ok(json!({
            "seconds": seconds, "tokens": tokens, "operations": operations, "losses": losses, "rates": rates, "peak_mb": peak_mb(),
        }))
    }
}

/// Most memory that this process has had since it was last told to forget.
fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1000.0)
}
