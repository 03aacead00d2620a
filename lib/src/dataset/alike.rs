//! Copies of code: exact ones, and those in which hardly anything differs.
//!
//! Code is compared as tokens without comments and blank lines, in shingles of five. Similarity is Jaccard's, computed
//! exactly between pairs; which pairs are worth computing in a large set is found with MinHash in bands (Broder 1997; Leskovec,
//! Rajaraman, Ullman, Mining of Massive Datasets, ch. 3), so that the work grows with the number of files, not its square.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use ruff_python_ast::token::TokenKind;
use ruff_python_parser::{Mode, ParseOptions, parse_unchecked};
use ruff_text_size::Ranged;

use crate::{agent::SourceFile, critic::SOURCE_CAP};

/// Two examples of the same brief must differ by more than this: the second is there to show another way.
pub(super) const SAME_BRIEF: f64 = 0.9;
/// Examples of different briefs may speak one idiom; only one that is all but a copy is left out.
pub(super) const OTHER_BRIEF: f64 = 0.95;

const SHINGLE: usize = 5;
/// 16 bands of 8 rows: a pair at 0.95 is missed once in 10 million, one at 0.5 is looked at in 6 of 100 cases.
const BANDS: usize = 16;
const ROWS: usize = 8;

/// A candidate's code, prepared for being compared.
#[derive(Clone, Debug)]
pub(super) struct CodePrint {
    /// Of all tokens in order.
    pub exact: u64,
    /// Sorted, without repetition.
    shingles: Vec<u64>,
}

impl CodePrint {
    /// Of all files. Parsing recurses: to be called on the deep stack of [`crate::critic::on_deep_stack`].
    pub fn of(files: &[SourceFile]) -> Self {
        let tokens: Vec<u64> = files.iter().flat_map(tokens).collect();
        let width = SHINGLE.min(tokens.len().max(1));
        let mut shingles: Vec<u64> = tokens.windows(width).map(hash_of).collect();
        shingles.sort_unstable();
        shingles.dedup();
        Self { exact: hash_of(&tokens), shingles }
    }

    /// Jaccard similarity, 0 to 1.
    pub fn similarity(&self, other: &Self) -> f64 {
        let common = self.shingles.iter().filter(|s| other.shingles.binary_search(s).is_ok()).count();
        let union = self.shingles.len() + other.shingles.len() - common;
        if union == 0 { 1.0 } else { common as f64 / union as f64 }
    }

    fn bands(&self) -> impl Iterator<Item = (usize, u64)> {
        (0..BANDS).map(|band| {
            let rows: Vec<u64> = (0..ROWS).map(|row| self.minimum((band * ROWS + row) as u64)).collect();
            (band, hash_of(&rows))
        })
    }

    fn minimum(&self, permutation: u64) -> u64 {
        self.shingles.iter().map(|s| mixed(s ^ mixed(permutation + 1))).min().unwrap_or(0)
    }
}

/// Tokens of Python; words of anything else, and of Python that the critic does not read either.
fn tokens(file: &SourceFile) -> Vec<u64> {
    if !file.path.ends_with(".py") || file.content.len() > SOURCE_CAP {
        return file.content.split_whitespace().map(|word| hash_of(&word)).collect();
    }
    let parsed = parse_unchecked(&file.content, ParseOptions::from(Mode::Module));
    let matters = |kind: TokenKind| {
        !matches!(
            kind,
            TokenKind::Comment | TokenKind::Newline | TokenKind::NonLogicalNewline | TokenKind::EndOfFile
        )
    };
    let token = |kind: TokenKind, text: &str| {
        // How far a block is indented is layout; that it is one is code.
        if matches!(kind, TokenKind::Indent | TokenKind::Dedent) {
            hash_of(&format!("{kind:?}"))
        } else {
            hash_of(&text)
        }
    };
    parsed
        .tokens()
        .iter()
        .filter(|t| matters(t.kind()))
        .map(|t| token(t.kind(), &file.content[t.range()]))
        .collect()
}

fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// splitmix64: a permutation of the 64-bit numbers.
fn mixed(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The code that was taken so far.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    prints: Vec<CodePrint>,
    bands: HashMap<(usize, u64), Vec<usize>>,
    exact: HashMap<u64, usize>,
}

impl Shelf {
    /// Whether the same code was taken already.
    pub fn has(&self, print: &CodePrint) -> bool {
        self.exact.contains_key(&print.exact)
    }

    /// Whether something at least this similar was taken already.
    pub fn has_like(&self, print: &CodePrint, similarity: f64) -> bool {
        print.bands().any(|band| {
            let alike = self.bands.get(&band).into_iter().flatten();
            alike.into_iter().any(|&index| self.prints[index].similarity(print) >= similarity)
        })
    }

    pub fn add(&mut self, print: CodePrint) {
        let index = self.prints.len();
        for band in print.bands() {
            self.bands.entry(band).or_default().push(index);
        }
        self.exact.insert(print.exact, index);
        self.prints.push(print);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn print(code: &str) -> CodePrint {
        CodePrint::of(&[SourceFile { path: "app.py".into(), content: code.into() }])
    }

    #[test]
    fn layout_and_comments_are_no_difference() {
        let a = print("import streamlit as st\nif x:\n    st.title('a')  # big\n");
        let b = print("# My app\nimport streamlit as st\n\n\nif x:\n  st.title( 'a' )\n");
        assert_eq!(a.exact, b.exact);
        assert_eq!(a.similarity(&b), 1.0);
        assert_ne!(a.exact, print("import streamlit as st\nif x:\n    st.title('b')").exact);
        assert_ne!(print("if x:\n    a\nb").exact, print("if x:\n    a\n    b").exact);
    }

    #[test]
    fn short_and_empty_code() {
        assert_eq!(print("").similarity(&print("")), 1.0);
        assert_eq!(print("a").similarity(&print("b")), 0.0);
        assert_eq!(print("a").similarity(&print("a")), 1.0);
    }

    fn app(words: &[u8]) -> String {
        words.iter().map(|w| format!("st.write({w})\n")).collect()
    }

    proptest! {
        #[test]
        fn the_shelf_finds_what_comparing_all_finds(
            a in prop::collection::vec(any::<u8>(), 60..80), change in 0usize..60, extra in any::<u8>(),
        ) {
            let mut b = a.clone();
            b[change] = extra;
            let (a, b) = (print(&app(&a)), print(&app(&b)));
            let mut shelf = Shelf::default();
            shelf.add(a.clone());
            prop_assert!(shelf.has_like(&a, 1.0));
            prop_assert_eq!(shelf.has_like(&b, 0.9), a.similarity(&b) >= 0.9);
        }
    }
}
