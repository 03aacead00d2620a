//! How text is split into words before merging: the ways that models of our families were trained with.

use tokenizers::{
    NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior,
    normalizers::unicode::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::TokenizerError;

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Longer patterns than any tokeniser has.
const LONGEST_PATTERN: usize = 4096;

/// One way of cutting a text into words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Each digit is a word.
    Digits,
    /// GPT-2's pattern.
    Gpt2,
    /// What this regular expression matches is a word, and so is what lies between.
    Pattern(String),
}

/// What happens to text before merging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreTokenizer {
    /// Text is brought into Unicode's composed form first.
    pub nfc: bool,
    /// Applied one after the other; [`Cut::Gpt2`] only at the end.
    pub cuts: Vec<Cut>,
    /// A word that is a token is that token, whatever the merges say.
    pub ignore_merges: bool,
}

impl PreTokenizer {
    /// Every way that llama.cpp has a name for and we know.
    fn known() -> [(&'static [&'static str], Self); 4] {
        let plain = |cuts| Self { nfc: false, cuts, ignore_merges: false };
        let pattern = |pattern: &str| plain(vec![Cut::Pattern(pattern.to_owned())]);
        [
            (&["gpt-2", "gpt2", "default"], plain(vec![Cut::Gpt2])),
            (
                &["smollm", "starcoder", "refact", "command-r", "codeshell"],
                plain(vec![Cut::Digits, Cut::Gpt2]),
            ),
            (&["llama-bpe", "llama3", "llama-v3"], Self { ignore_merges: true, ..pattern(LLAMA3) }),
            (&["qwen2", "deepseek-r1-qwen"], Self { nfc: true, ..pattern(QWEN2) }),
        ]
    }

    /// By llama.cpp's name.
    ///
    /// # Errors
    /// When it is none that we know.
    pub fn named(name: &str) -> Result<Self, TokenizerError> {
        let known = Self::known().into_iter().find(|(names, _)| names.contains(&name));
        known.map(|(_, pre)| pre).ok_or_else(|| TokenizerError::Pre(name.to_owned()))
    }

    /// llama.cpp's name for it, if it has one.
    pub fn name(&self) -> Option<&'static str> {
        Self::known().iter().find(|(_, pre)| pre == self).map(|(names, _)| names[0])
    }

    pub(super) fn normalizer(&self) -> Option<NormalizerWrapper> {
        self.nfc.then(|| NFC.into())
    }

    /// The cuts, and bytes as GPT-2's printable characters after them.
    pub(super) fn build(&self) -> Result<PreTokenizerWrapper, TokenizerError> {
        let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
        let ends_with_gpt2 = self.cuts.last() == Some(&Cut::Gpt2);
        let before = &self.cuts[..self.cuts.len() - usize::from(ends_with_gpt2)];
        for cut in before {
            steps.push(match cut {
                Cut::Digits => Digits::new(true).into(),
                Cut::Gpt2 => return Err(TokenizerError::Pre("GPT-2's pattern before another".into())),
                Cut::Pattern(pattern) if pattern.len() > LONGEST_PATTERN => {
                    return Err(TokenizerError::Pre("a pattern of absurd length".into()));
                }
                Cut::Pattern(pattern) => {
                    let pattern = SplitPattern::Regex(pattern.clone());
                    Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
                        .map_err(|error| TokenizerError::Pre(error.to_string()))?
                        .into()
                }
            });
        }
        steps.push(ByteLevel::new(false, true, ends_with_gpt2).into());
        Ok(Sequence::new(steps).into())
    }
}
