//! Log probabilities in the protocol's words.

use hone_engine::{generate::Token, tokenizer::Tokenizer};
use serde::Serialize;
use serde_json::{Value, json};

/// What stands for the logarithm of zero, which JSON has no number for.
const NEVER: f64 = -9999.0;

/// A token with its log probability. `bytes` because a token may hold a part of a character.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Likelihood {
    token: String,
    logprob: f64,
    bytes: Vec<u8>,
}

/// A token of the answer, beside the likeliest ones in its place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenLikelihood {
    #[serde(flatten)]
    own: Likelihood,
    top_logprobs: Vec<Likelihood>,
}

impl Likelihood {
    fn new(tokenizer: &Tokenizer, id: u32, logprob: f32) -> Self {
        let name = tokenizer.control_name(id);
        let bytes = name.map_or_else(|| tokenizer.bytes(id), str::as_bytes).to_vec();
        Self {
            token: String::from_utf8_lossy(&bytes).into_owned(),
            logprob: f64::from(logprob).max(NEVER),
            bytes,
        }
    }
}

/// Those of the tokens whose log probabilities were asked for.
pub fn likelihoods(tokenizer: &Tokenizer, tokens: Vec<Token>) -> Vec<TokenLikelihood> {
    let one = |Token { id, logprobs }: Token| {
        let logprobs = logprobs?;
        let top = logprobs.top.iter().map(|&(id, logprob)| Likelihood::new(tokenizer, id, logprob));
        let own = Likelihood::new(tokenizer, id, logprobs.chosen);
        Some(TokenLikelihood { own, top_logprobs: top.collect() })
    };
    tokens.into_iter().filter_map(one).collect()
}

/// As chat completions put it.
pub fn content(likelihoods: &[TokenLikelihood]) -> Value {
    json!({"content": likelihoods, "refusal": null})
}

#[cfg(test)]
mod tests {
    use hone_engine::{sample::LogProbs, tokenizer::Vocabulary};

    use super::*;

    #[test]
    fn tokens_have_text_bytes_and_alternatives() {
        let tokenizer = Tokenizer::new(Vocabulary::bytes()).unwrap();
        let half = tokenizer.encode("é")[0];
        let logprobs = LogProbs { chosen: -0.5, top: vec![(half, -0.5), (2, f32::NEG_INFINITY)] };
        let likelihoods = likelihoods(
            &tokenizer,
            vec![Token { id: half, logprobs: Some(logprobs) }, Token { id: 5, logprobs: None }],
        );
        assert_eq!(
            content(&likelihoods),
            json!({"refusal": null, "content": [{
                "token": "\u{fffd}", "logprob": -0.5, "bytes": [0xc3],
                "top_logprobs": [
                    {"token": "\u{fffd}", "logprob": -0.5, "bytes": [0xc3]},
                    {"token": "<|im_end|>", "logprob": -9999.0, "bytes": b"<|im_end|>".to_vec()},
                ],
            }]})
        );
    }
}
