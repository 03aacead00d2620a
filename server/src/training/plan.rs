//! Hyperparameters: what "auto" means here, and what is more than this trainer can do.

use hone::{
    auto::Auto,
    model::{
        provider::Tuning,
        wire::{Hyperparameters, Job, Method},
    },
};
use hone_engine::{
    infer,
    lora::Projection,
    train::{EarlyStop, Options, Precision},
};

/// What a `learning_rate_multiplier` multiplies: of the rates tried, the one that taught a 135M model the most from a
/// hundred examples with LoRA of rank 8 (docs/design/training.md).
pub const BASE_LEARNING_RATE: f64 = 2e-3;
/// The same for preference pairs, whose loss moves a model much further per step.
pub const DPO_LEARNING_RATE: f64 = 2e-4;
const BETA: f64 = 0.1;
/// Alpha per rank, where only the rank is asked for: the update keeps its size.
const ALPHA_PER_RANK: f64 = 2.0;
const MAX_RANK: u32 = 256;

/// A job's hyperparameters settled, for a file of `examples` rows, in all the places that show them.
pub fn settle(job: &mut Job, examples: usize) {
    let settled = settled(&job.hyperparameters, examples);
    job.method = Some(match &job.method {
        Some(asked) if asked.is_dpo() => Method::dpo(settled.clone(), Auto::Fixed(asked.beta().or(BETA))),
        _ => Method::supervised(settled.clone()),
    });
    job.hyperparameters = settled;
}

/// Epochs and batch follow OpenAI's published rules; the multiplier is 1. Our own numbers stay as they were asked for.
fn settled(asked: &Hyperparameters, examples: usize) -> Hyperparameters {
    Hyperparameters {
        n_epochs: Auto::Fixed(asked.n_epochs.or(Tuning::OpenAi.auto_epochs(examples))),
        batch_size: Auto::Fixed(asked.batch_size.or(auto_batch(examples))),
        learning_rate_multiplier: Auto::Fixed(asked.learning_rate_multiplier.or(1.0)),
        ..asked.clone()
    }
}

/// What is wrong with asked hyperparameters: the key, and what it has to be.
pub fn fault(values: &Hyperparameters, beta: Auto<f64>) -> Option<(&'static str, String)> {
    let whole = |value: Auto<u32>, most: u32| value.fixed().is_some_and(|value| value == 0 || value > most);
    let positive = |value: Auto<f64>| value.fixed().is_none_or(|value| value.is_finite() && value > 0.0);
    let faults = [
        (whole(values.n_epochs, 50), "n_epochs", "from 1 to 50"),
        (whole(values.batch_size, 256), "batch_size", "from 1 to 256"),
        (!positive(values.learning_rate_multiplier), "learning_rate_multiplier", "above 0"),
        (!positive(beta) || beta.or(BETA) > 2.0, "beta", "above 0 and at most 2"),
        (whole(values.lora_rank, MAX_RANK), "lora_rank", "from 1 to 256"),
        (!positive(values.lora_alpha), "lora_alpha", "above 0"),
        (whole(values.lora_layers, u32::MAX), "lora_layers", "1 or more"),
        (whole(values.early_stopping_patience, 50), "early_stopping_patience", "from 1 to 50"),
    ];
    if let Some((_, key, range)) = faults.into_iter().find(|(wrong, ..)| *wrong) {
        return Some((key, range.to_owned()));
    }
    let known = || Projection::ALL.map(Projection::peft_name).join("`, `");
    match &values.lora_targets {
        Some(names) if names.is_empty() || names.iter().any(|name| Projection::from_peft(name).is_none()) => {
            Some(("lora_targets", format!("a list of `{}`", known())))
        }
        _ => match &values.precision {
            Some(name) if Precision::from_name(name).is_none() => {
                Some(("precision", "`auto`, `f32` or `bf16`".to_owned()))
            }
            _ => None,
        },
    }
}

/// 0.2% of the examples, so one at a time for small files: more steps teach more, at the same speed
/// (docs/design/training.md).
fn auto_batch(examples: usize) -> u32 {
    u32::try_from((examples / 500).clamp(1, 256)).unwrap_or(1)
}

/// What a job computes in: as it asks for, or as the server's kernels do.
pub fn precision(job: &Job, kernels: infer::Precision) -> Precision {
    let asked = job.hyperparameters.precision.as_deref().and_then(Precision::from_name);
    match (asked.unwrap_or_default(), kernels) {
        (Precision::Auto, infer::Precision::F32) => Precision::F32,
        (asked, _) => asked,
    }
}

/// The engine's options for a settled job.
pub fn options(job: &Job, base_model: &str) -> Options {
    let settled = &job.hyperparameters;
    let base_rate = if job.is_dpo() { DPO_LEARNING_RATE } else { BASE_LEARNING_RATE };
    let mut options = Options {
        epochs: settled.n_epochs.or(3) as usize,
        batch_size: settled.batch_size.or(1) as usize,
        learning_rate: base_rate * settled.learning_rate_multiplier.or(1.0),
        seed: job.seed.unwrap_or_default().unsigned_abs(),
        beta: job.method.as_ref().map(Method::beta).unwrap_or_default().or(BETA),
        early_stop: settled
            .early_stopping_patience
            .fixed()
            .map(|patience| EarlyStop { patience: patience as usize }),
        base_model: base_model.to_owned(),
        ..Options::default()
    };
    let lora = &mut options.lora;
    lora.seed = options.seed;
    if let Some(rank) = settled.lora_rank.fixed() {
        lora.rank = rank as usize;
        lora.alpha = (ALPHA_PER_RANK * f64::from(rank)) as f32;
    }
    if let Some(alpha) = settled.lora_alpha.fixed() {
        lora.alpha = alpha as f32;
    }
    if let Some(names) = &settled.lora_targets {
        let asked = |projection: &Projection| names.iter().any(|name| name == projection.peft_name());
        lora.targets.retain(asked);
    }
    lora.top_layers = settled.lora_layers.fixed().map(|layers| layers as usize);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_a_share_of_the_examples() {
        for (examples, batch) in
            [(0, 1), (10, 1), (150, 1), (999, 1), (1000, 2), (5000, 10), (1_000_000, 256)]
        {
            assert_eq!(auto_batch(examples), batch, "{examples} examples");
        }
    }

    fn job(method: serde_json::Value) -> Job {
        let body = serde_json::json!({"model": "m", "training_file": "f", "method": method});
        let mut job = Job::new("ftjob-1", &serde_json::from_value(body).unwrap(), 1, 5);
        settle(&mut job, 100);
        job
    }

    #[test]
    fn what_was_asked_for_stays() {
        let job = job(
            serde_json::json!({"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 7}}}),
        );
        assert_eq!(job.hyperparameters.n_epochs, Auto::Fixed(7));
        assert_eq!(job.hyperparameters.batch_size, Auto::Fixed(1));
        assert_eq!(job.method.as_ref().unwrap().hyperparameters(), Some(&job.hyperparameters));
        let options = options(&job, "m");
        assert_eq!((options.epochs, options.batch_size, options.seed, options.lora.seed), (7, 1, 5, 5));
        assert!((options.learning_rate - BASE_LEARNING_RATE).abs() < 1e-12);
        assert_eq!(options.lora, hone_engine::lora::LoraConfig { seed: 5, ..Default::default() });
        assert_eq!(options.early_stop, None);
    }

    #[test]
    fn the_local_numbers_reach_the_engine() {
        let asked = serde_json::json!({"beta": 0.3, "lora_rank": 4, "lora_targets": ["v_proj", "q_proj"],
            "lora_layers": 2, "early_stopping_patience": 3, "learning_rate_multiplier": 0.5});
        let job = job(serde_json::json!({"type": "dpo", "dpo": {"hyperparameters": asked}}));
        let options = options(&job, "m");
        assert_eq!((options.lora.rank, options.lora.alpha, options.lora.top_layers), (4, 8.0, Some(2)));
        assert_eq!(options.lora.targets, [Projection::Query, Projection::Value]);
        assert_eq!((options.beta, options.early_stop), (0.3, Some(EarlyStop { patience: 3 })));
        assert!((options.learning_rate - DPO_LEARNING_RATE / 2.0).abs() < 1e-12);
    }

    #[test]
    fn beta_is_settled_where_it_means_something() {
        let dpo = job(serde_json::json!({"type": "dpo"}));
        assert_eq!(dpo.method.unwrap().beta(), Auto::Fixed(0.1));
        assert_eq!(job(serde_json::json!({"type": "supervised"})).method.unwrap().beta(), Auto::Auto);
    }

    #[test]
    fn exact_kernels_train_in_f32_unless_the_job_says_otherwise() {
        let check = |asked: Option<&str>, kernels: infer::Precision, expected: Precision| {
            let values = serde_json::json!({"hyperparameters": {"precision": asked}});
            let job = job(serde_json::json!({"type": "supervised", "supervised": values}));
            assert_eq!(precision(&job, kernels), expected, "{asked:?} {kernels:?}");
        };
        check(None, infer::Precision::Fast, Precision::Auto);
        check(None, infer::Precision::F32, Precision::F32);
        check(Some("auto"), infer::Precision::F32, Precision::F32);
        check(Some("bf16"), infer::Precision::F32, Precision::Bf16);
        check(Some("f32"), infer::Precision::Fast, Precision::F32);
    }

    #[test]
    fn faults_name_their_key() {
        let check = |asked: serde_json::Value, key: Option<&str>| {
            let values: Hyperparameters = serde_json::from_value(asked.clone()).unwrap();
            assert_eq!(fault(&values, Auto::Auto).map(|(key, _)| key), key, "{asked}");
        };
        check(serde_json::json!({}), None);
        check(serde_json::json!({"lora_rank": 0}), Some("lora_rank"));
        check(serde_json::json!({"lora_rank": 257}), Some("lora_rank"));
        check(serde_json::json!({"lora_alpha": -1.0}), Some("lora_alpha"));
        check(serde_json::json!({"lora_layers": 0}), Some("lora_layers"));
        check(serde_json::json!({"early_stopping_patience": 51}), Some("early_stopping_patience"));
        check(serde_json::json!({"precision": "bf16"}), None);
        check(serde_json::json!({"precision": "int4"}), Some("precision"));
        check(serde_json::json!({"lora_targets": []}), Some("lora_targets"));
        check(serde_json::json!({"lora_targets": ["q_proj", "router"]}), Some("lora_targets"));
        check(serde_json::json!({"lora_targets": ["q_proj", "down_proj"]}), None);
        for (beta, good) in [(0.0, false), (2.0, true), (2.1, false), (f64::NAN, false)] {
            assert_eq!(fault(&Hyperparameters::default(), Auto::Fixed(beta)).is_none(), good, "{beta}");
        }
    }
}
