//! Hyperparameters: what "auto" means here.

use hone::auto::Auto;
use hone::model::wire::Hyperparameters;
use hone_engine::train::Options;

/// What a `learning_rate_multiplier` multiplies: of the rates tried, the one that taught a 135M model the most from a
/// hundred examples with LoRA of rank 8 (docs/design/training.md).
pub const BASE_LEARNING_RATE: f64 = 2e-3;

/// Every "auto" settled, for a file of `examples` rows.
///
/// Epochs and batch follow OpenAI's published rules; the multiplier is 1.
pub fn settle(asked: Hyperparameters, examples: usize) -> Hyperparameters {
    Hyperparameters {
        n_epochs: Auto::Fixed(asked.n_epochs.or(auto_epochs(examples))),
        batch_size: Auto::Fixed(asked.batch_size.or(auto_batch(examples))),
        learning_rate_multiplier: Auto::Fixed(asked.learning_rate_multiplier.or(1.0)),
    }
}

/// Three epochs, more when that shows fewer than 100 examples, fewer when it shows more than 25000.
fn auto_epochs(examples: usize) -> u32 {
    let examples = examples.max(1);
    let epochs = match examples * 3 {
        ..100 => (100 / examples).min(25),
        25_001.. => (25_000 / examples).max(1),
        _ => 3,
    };
    u32::try_from(epochs).unwrap_or(1)
}

/// 0.2% of the examples, so one at a time for small files: more steps teach more, at the same speed
/// (docs/design/training.md).
fn auto_batch(examples: usize) -> u32 {
    u32::try_from((examples / 500).clamp(1, 256)).unwrap_or(1)
}

/// The engine's options for settled hyperparameters.
pub fn options(settled: &Hyperparameters, seed: u64, base_model: &str) -> Options {
    let mut options = Options {
        epochs: settled.n_epochs.or(3) as usize,
        batch_size: settled.batch_size.or(4) as usize,
        learning_rate: BASE_LEARNING_RATE * settled.learning_rate_multiplier.or(1.0),
        seed,
        base_model: base_model.to_owned(),
        ..Options::default()
    };
    options.lora.seed = seed;
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_follow_the_published_rule() {
        for (examples, epochs) in [
            (0, 25),
            (1, 25),
            (10, 10),
            (33, 3),
            (34, 3),
            (80, 3),
            (8333, 3),
            (8334, 2),
            (10_000, 2),
            (30_000, 1),
        ] {
            assert_eq!(auto_epochs(examples), epochs, "{examples} examples");
        }
    }

    #[test]
    fn batches_are_a_share_of_the_examples() {
        for (examples, batch) in
            [(0, 1), (10, 1), (150, 1), (999, 1), (1000, 2), (5000, 10), (1_000_000, 256)]
        {
            assert_eq!(auto_batch(examples), batch, "{examples} examples");
        }
    }

    #[test]
    fn what_was_asked_for_stays() {
        let asked = Hyperparameters { n_epochs: Auto::Fixed(7), ..Hyperparameters::default() };
        let settled = settle(asked, 100);
        assert_eq!(settled.n_epochs, Auto::Fixed(7));
        assert_eq!(settled.batch_size, Auto::Fixed(1));
        let options = options(&settled, 5, "m");
        assert_eq!((options.epochs, options.batch_size, options.seed, options.lora.seed), (7, 1, 5, 5));
        assert!((options.learning_rate - BASE_LEARNING_RATE).abs() < 1e-12);
    }
}
