//! How digests and large numbers are written, and how many tokens a text has.

use std::sync::OnceLock;

use toktok::Tokenizer;

static O200K: OnceLock<Tokenizer> = OnceLock::new();

fn o200k() -> &'static Tokenizer {
    O200K.get_or_init(|| match Tokenizer::builtin("o200k_base") {
        Ok(tokenizer) => tokenizer,
        // The table is part of the program and tested; a build that has another one is no build of ours.
        Err(why) => unreachable!("o200k_base: {why}"),
    })
}

/// Tokens by OpenAI's o200k_base; special tokens in the text count as plain text. The table is loaded at the first count.
pub fn tokens(text: &str) -> usize {
    o200k().count(text.as_bytes())
}

/// Loads the table of [`tokens`] beside what goes on; without a thread to spare the first count loads it.
pub fn load_tokens() {
    let _ = std::thread::Builder::new().name("tokens".to_owned()).spawn(o200k);
}

/// Whether that has come to its end.
pub fn tokens_are_loaded() -> bool {
    O200K.get().is_some()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 1234567 as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([thousands(0), thousands(999), thousands(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!(hex(&[0, 255, 16]), "00ff10");
    }

    /// Texts of every sort that pre-tokenisers tell apart: code, prose of many scripts, runs of spaces and newlines,
    /// digits, emoji with joiners, marks, controls, special tokens.
    fn texts() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            3 => "[a-zA-Z]{1,12}",
            2 => "[ \t\r\n]{1,9}",
            2 => "[0-9]{1,7}",
            2 => r#"[!-/:-@\[-`{-~]{1,5}"#,
            2 => r"\PC{1,6}",
            1 => any::<String>().prop_map(|text| text.chars().take(8).collect()),
            1 => "[\u{300}-\u{36f}\u{200b}-\u{200f}\u{a0}\u{85}\u{2028}\u{3000}\u{fe0f}]{1,3}",
            1 => "[一-龯ぁ-んァ-ヶ가-힣а-яА-Яα-ωא-תا-يअ-ह]{1,8}",
            1 => prop::sample::select(vec![
                "👩‍👩‍👧‍👦", "<|endoftext|>", "<|im_start|>", "don't", "I'LL", "'ſ", "ǅ", "İ", "ﬁ", "st.button(\"A\")\n",
                "    def f(self):\n        return x ** 2\n", "\u{0}", "\u{7f}", "\r\n\r\n", "ʼn", "𝒳", "e\u{301}",
            ]).prop_map(str::to_owned),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn counts_are_those_of_the_reference(text in texts()) {
            prop_assert_eq!(tokens(&text), tiktoken_rs::o200k_base_singleton().count_ordinary(&text), "{:?}", text);
        }
    }
}
