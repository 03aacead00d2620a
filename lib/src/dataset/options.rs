//! What is asked of a dataset.

use serde::{Deserialize, Serialize};

use crate::agent::Prompts;

/// How logs become rows. The defaults are those of docs/design; the command line changes a few.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrepareOptions {
    /// Lowest score (0-10) of a positive example.
    pub min_score: f64,
    /// Rows at most, training and validation together; none = all.
    pub max_rows: Option<usize>,
    /// Positive examples of one brief at most, chosen for their difference.
    pub max_per_brief: usize,
    /// Lowest gain in score of an improvement row over the app it starts from.
    pub min_gain: f64,
    /// Share (0-1) of improvement rows in the mix at most; 0 = none.
    pub improvement_share: f64,
    /// Tokens (o200k_base) of an improvement row at most: it holds two apps, and a small local model has 2,048 tokens.
    pub max_improvement_tokens: usize,
    /// Tokens (o200k_base) of any row at most.
    pub max_row_tokens: usize,
    /// Lowest difference in score of a preference pair.
    pub pair_gap: f64,
    /// The longer answer of a pair is at most this many times the shorter, so that length is not what is learnt.
    pub pair_length_ratio: f64,
    /// Pairs only of two answers by the same writer.
    pub on_policy: bool,
    /// Similarity (Jaccard over runs of five tokens, above 0 up to 1) from which two apps are too alike for both to be taught.
    #[serde(default = "similarity")]
    pub similarity: f64,
    /// Share (0-1) of rows set aside for validation, whole families at a time; none below [`Self::MIN_SPLIT_ROWS`] rows.
    pub validation_share: f64,
    /// Orders rows, and draws families for validation.
    pub seed: u64,
    /// What rows ask with: the prompts of production. The manifest has their hash.
    #[serde(skip)]
    pub prompts: Prompts,
}

impl PrepareOptions {
    /// With fewer rows every one is needed for training.
    pub const MIN_SPLIT_ROWS: usize = 100;
}

fn similarity() -> f64 {
    0.75
}

impl Default for PrepareOptions {
    fn default() -> Self {
        Self {
            min_score: 7.0,
            max_rows: None,
            max_per_brief: 2,
            min_gain: 1.0,
            improvement_share: 0.3,
            max_improvement_tokens: 900,
            // The smallest training context among hosted models; what is longer would be cut at its end.
            max_row_tokens: 16_384,
            pair_gap: 1.5,
            pair_length_ratio: 2.0,
            on_policy: false,
            similarity: similarity(),
            validation_share: 0.05,
            seed: 1,
            prompts: Prompts::default(),
        }
    }
}
