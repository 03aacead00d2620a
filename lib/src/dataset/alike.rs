//! Copies of code: exact ones, and those in which little differs.
//!
//! **Copies** have one syntax tree: comments, layout, quotes, redundant brackets, trailing commas and docstrings do not
//! count. **Near-copies** are told by Jaccard's similarity over runs of five tokens, without comments and layout. Which
//! pairs are worth computing is found with a prefix filter over the rarest of each app's runs (Chaudhuri, Ganti, Kaushik
//! 2006; Bayardo, Ma, Srikant 2007): sets that are similar by t share one of the first n - ceil(t n) + 1 of their n runs in
//! any order that both are sorted by. Unlike MinHash in bands it passes over nothing, and because the rarest come first, it
//! looks at few pairs (docs/design/dataset.md has figures of both).

use std::{
    hash::{Hash, Hasher},
    io,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

use ruff_python_ast::{
    Expr, ModModule, Stmt,
    comparable::ComparableModModule,
    token::TokenKind,
    visitor::transformer::{self, Transformer},
};
use ruff_python_parser::{Mode, ParseOptions, parse_unchecked};
use ruff_text_size::Ranged;
use rustc_hash::{FxHashMap, FxHasher};

use super::workers;
use crate::{agent::SourceFile, brief::near::count_common, critic::SOURCE_CAP};

/// Tokens of a run.
const RUN: usize = 5;
/// Cells in which the runs of a code are counted: two runs in one cell count as more frequent than they are, which costs time
/// only. A power of two.
const CELLS: std::ops::RangeInclusive<usize> = 1 << 10..=1 << 24;
/// Cells for each run.
const ROOM: usize = 4;

/// A candidate's code, prepared for being compared.
#[derive(Clone, Debug)]
pub(super) struct CodePrint {
    /// Of the syntax trees of all files; of the tokens of what has none.
    pub exact: u64,
    /// Sorted, without repetition.
    runs: Vec<u64>,
}

impl CodePrint {
    /// Of all files. Parsing recurses: to be called on a deep stack ([`super::workers`]).
    pub fn of(files: &[SourceFile]) -> Self {
        let (mut tokens, mut exact) = (Vec::new(), FxHasher::default());
        for file in files {
            read(file, &mut tokens, &mut exact);
        }
        let width = RUN.min(tokens.len().max(1));
        let mut runs: Vec<u64> = tokens.windows(width).map(hash_of).collect();
        runs.sort_unstable();
        runs.dedup();
        Self { exact: mixed(exact.finish()), runs }
    }

    /// Jaccard similarity, 0 to 1.
    pub fn similarity(&self, other: &Self) -> f64 {
        let common = count_common(&self.runs, &other.runs);
        let union = self.runs.len() + other.runs.len() - common;
        if union == 0 { 1.0 } else { common as f64 / union as f64 }
    }
}

/// Tokens and tree of Python; words of anything else, and of Python that the critic does not read either.
fn read(file: &SourceFile, tokens: &mut Vec<u64>, exact: &mut FxHasher) {
    let before = tokens.len();
    if !file.path.ends_with(".py") || file.content.len() > SOURCE_CAP {
        tokens.extend(file.content.split_whitespace().map(|word| hash_of(word.as_bytes())));
        tokens[before..].hash(exact);
        return;
    }
    let parsed = parse_unchecked(&file.content, ParseOptions::from(Mode::Module));
    let mut depth = Depth::default();
    for token in parsed.tokens() {
        depth.see(token.kind());
        match token.kind() {
            TokenKind::Comment | TokenKind::Newline | TokenKind::NonLogicalNewline | TokenKind::EndOfFile => {
            }
            // How far a block is indented is layout; that it is one is code.
            TokenKind::Indent => tokens.push(1),
            TokenKind::Dedent => tokens.push(2),
            _ => tokens.push(hash_of(file.content[token.range()].as_bytes())),
        }
    }
    let plain = parsed.has_valid_syntax() && depth.most <= MOST_DEPTH;
    match parsed.into_syntax() {
        ruff_python_ast::Mod::Module(mut module) if plain => {
            strip_docstrings(&mut module);
            ComparableModModule::from(&module).hash(exact);
        }
        _ => tokens[before..].hash(exact),
    }
}

/// Trees that may be deeper than this are not walked: their tokens tell copies well enough, and no stack is deep enough for
/// everything that fits into a file.
const MOST_DEPTH: usize = 2000;

/// A bound on how deep the tree of a statement is, from its tokens: brackets inside each other, and one level for each
/// operator or keyword.
#[derive(Default)]
struct Depth {
    nested: usize,
    operators: usize,
    most: usize,
}

impl Depth {
    fn see(&mut self, kind: TokenKind) {
        match kind {
            TokenKind::Lpar | TokenKind::Lsqb | TokenKind::Lbrace => self.nested += 1,
            TokenKind::Rpar | TokenKind::Rsqb | TokenKind::Rbrace => {
                self.nested = self.nested.saturating_sub(1)
            }
            TokenKind::Newline => self.operators = 0,
            TokenKind::Comma | TokenKind::Colon | TokenKind::Name | TokenKind::String => {}
            TokenKind::Int | TokenKind::Float | TokenKind::NonLogicalNewline | TokenKind::Comment => {}
            _ => self.operators += 1,
        }
        self.most = self.most.max(self.nested + self.operators);
    }
}

/// What a module, class or function says about itself is a comment.
fn strip_docstrings(module: &mut ModModule) {
    struct Strip;
    impl Transformer for Strip {
        fn visit_stmt(&self, stmt: &mut Stmt) {
            match stmt {
                Stmt::FunctionDef(function) => strip(&mut function.body),
                Stmt::ClassDef(class) => strip(&mut class.body),
                _ => {}
            }
            transformer::walk_stmt(self, stmt);
        }

        // Documented things are statements.
        fn visit_expr(&self, _: &mut Expr) {}
    }
    fn strip(body: &mut ruff_python_ast::Suite) {
        let documented =
            matches!(body.first(), Some(Stmt::Expr(first)) if first.value.is_string_literal_expr());
        if documented {
            body.remove(0);
        }
    }
    strip(&mut module.body);
    Strip.visit_body(&mut module.body);
}

fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = FxHasher::default();
    value.hash(&mut hasher);
    mixed(hasher.finish())
}

/// splitmix64: a permutation of the 64-bit numbers.
fn mixed(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// How often a run occurs in all code that may be compared: the order of prefixes.
pub(super) struct Rarity {
    similarity: f64,
    /// 255 for all that are more frequent.
    counts: Vec<AtomicU8>,
}

impl Rarity {
    /// For code of which any two that are at least so similar (above 0, up to 1) are twins.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn new(similarity: f64, all: &[&CodePrint], workers: usize) -> io::Result<Self> {
        let runs: usize = all.iter().map(|print| print.runs.len()).sum();
        let cells = (runs * ROOM).next_power_of_two().clamp(*CELLS.start(), *CELLS.end());
        let counts = (0..cells).map(|_| AtomicU8::new(0)).collect();
        let rarity = Self { similarity, counts };
        workers::map(workers, all, |print| {
            for run in &print.runs {
                // Full cells stay as they are.
                let _ = rarity.cell(*run).fetch_update(Relaxed, Relaxed, |count| count.checked_add(1));
            }
        })?;
        Ok(rarity)
    }

    fn cell(&self, run: u64) -> &AtomicU8 {
        &self.counts[run as usize % self.counts.len()]
    }

    fn count(&self, run: u64) -> u8 {
        self.cell(run).load(Relaxed)
    }

    /// For code that is filed here.
    pub fn shelf<'a>(&self) -> Shelf<'a> {
        Shelf {
            similarity: self.similarity,
            prints: Vec::new(),
            rarest: FxHashMap::default(),
            exact: FxHashMap::default(),
            seen: Vec::new(),
            questions: 0,
        }
    }

    /// Code with its rarest runs: as many as must hold one that any twin has among its own, but for those that no other code
    /// has.
    pub fn file<'a>(&self, print: &'a CodePrint) -> Filed<'a> {
        let mut rarest = print.runs.clone();
        // A hair less, so that no rounding leaves one out.
        let shared = (self.similarity * rarest.len() as f64 - 1e-6).ceil() as usize;
        let length = (rarest.len() + 1).saturating_sub(shared.max(1)).min(rarest.len());
        if length < rarest.len() {
            rarest.select_nth_unstable_by_key(length, |run| (self.count(*run), *run));
            rarest.truncate(length);
        }
        rarest.retain(|run| self.count(*run) > 1);
        Filed { print, rarest }
    }
}

/// Code, and the runs by which it is found on a shelf.
pub(super) struct Filed<'a> {
    pub print: &'a CodePrint,
    rarest: Vec<u64>,
}

/// Code that was taken, by its number.
pub(super) struct Shelf<'a> {
    similarity: f64,
    prints: Vec<&'a CodePrint>,
    /// Which prints have a run among their rarest.
    rarest: FxHashMap<u64, Vec<u32>>,
    exact: FxHashMap<u64, u32>,
    /// The last question that looked at a print.
    seen: Vec<u32>,
    questions: u32,
}

/// What is on the shelf already.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Twin {
    /// Its place: 0 for the first that was put there.
    pub index: usize,
    /// 1 for a copy.
    pub similarity: f64,
}

impl<'a> Shelf<'a> {
    /// The same code, where it was taken.
    pub fn copy(&self, print: &CodePrint) -> Option<usize> {
        self.exact.get(&print.exact).map(|index| *index as usize)
    }

    /// What was taken that is the same or as similar as a twin: the most similar of all.
    pub fn twin(&mut self, filed: &Filed<'_>) -> Option<Twin> {
        let print = filed.print;
        if let Some(index) = self.copy(print) {
            return Some(Twin { index, similarity: 1.0 });
        }
        self.questions += 1;
        let mut best: Option<Twin> = None;
        for run in &filed.rarest {
            for &index in self.rarest.get(run).into_iter().flatten() {
                let index = index as usize;
                if std::mem::replace(&mut self.seen[index], self.questions) == self.questions {
                    continue;
                }
                let other = self.prints[index];
                let (few, many) = sorted(print.runs.len(), other.runs.len());
                // Sets of such sizes cannot be similar enough.
                if (few as f64) < self.similarity * many as f64 {
                    continue;
                }
                let similarity = print.similarity(other);
                if similarity >= self.similarity && best.is_none_or(|twin| similarity > twin.similarity) {
                    best = Some(Twin { index, similarity });
                }
            }
        }
        best
    }

    /// Takes code, and says where it stands.
    pub fn add(&mut self, filed: Filed<'a>) -> usize {
        let index = self.prints.len();
        for run in filed.rarest {
            self.rarest.entry(run).or_default().push(index as u32);
        }
        self.exact.entry(filed.print.exact).or_insert(index as u32);
        self.prints.push(filed.print);
        self.seen.push(0);
        index
    }
}

fn sorted(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn print(code: &str) -> CodePrint {
        CodePrint::of(&[SourceFile { path: "app.py".into(), content: code.into() }])
    }

    fn check_copy(a: &str, b: &str, expected: bool) {
        assert_eq!(print(a).exact == print(b).exact, expected, "{a}\n---\n{b}");
    }

    #[test]
    fn layout_comments_quotes_and_docstrings_are_no_difference() {
        check_copy(
            "import streamlit as st\nif x:\n    st.title('a')  # big\n",
            "# My app\nimport streamlit as st\n\n\nif x:\n  st.title( \"a\", )\n",
            true,
        );
        check_copy("def f():\n    'Says a.'\n    return (1)\n", "'An app.'\ndef f():\n    return 1\n", true);
        check_copy("class A:\n    'doc'\n    x = 1\n", "class A:\n    x = 1\n", true);
        check_copy("st.title('a')", "st.title('b')", false);
        check_copy("if x:\n    a\nb", "if x:\n    a\n    b", false);
        // A text that is not the first stands on the page.
        check_copy("x = 1\n'shown'\n", "x = 1\n", false);
        // What does not parse is its tokens.
        check_copy("def (:\n  x # a", "def (:\n    x", true);
        check_copy("def (:\n  x", "def (:\n  y", false);
    }

    #[test]
    fn similarity_counts_runs_of_tokens() {
        let a = print("import streamlit as st\nif x:\n    st.title('a')  # big\n");
        assert_eq!(a.similarity(&print("import streamlit as st\n\nif x:\n  st.title( 'a' )\n")), 1.0);
        // a b c d e f: abcde bcdef; x for f: abcde bcdex -> 1 of 3.
        assert_eq!(print("a + b + c").similarity(&print("a + b + d")), 0.0);
        assert_eq!(print("a + b + c + 1").similarity(&print("a + b + c + 2")), 2.0 / 4.0);
    }

    #[test]
    fn short_and_empty_code() {
        assert_eq!(print("").similarity(&print("")), 1.0);
        assert_eq!(print("a").similarity(&print("b")), 0.0);
        assert_eq!(print("a").similarity(&print("a")), 1.0);
    }

    /// Apps with a shared idiom, of words drawn from few, so that many pairs are about as similar as the limit.
    fn app(words: &[u8]) -> CodePrint {
        let lines: String = words.iter().map(|w| format!("st.write('{w}', key={w})\n")).collect();
        print(&format!("import streamlit as st\nst.title('An app')\n{lines}st.divider()\n"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_shelf_finds_what_comparing_all_finds(
            apps in prop::collection::vec(prop::collection::vec(0u8..12, 0..14), 1..24), limit in 0.3..1.0f64,
        ) {
            let prints: Vec<CodePrint> = apps.iter().map(|words| app(words)).collect();
            let rarity = Rarity::new(limit, &prints.iter().collect::<Vec<_>>(), 2).unwrap();
            let mut shelf = rarity.shelf();
            let mut taken: Vec<&CodePrint> = Vec::new();
            for print in &prints {
                let best = taken.iter().map(|other| other.similarity(print)).fold(0.0, f64::max);
                let twin = shelf.twin(&rarity.file(print));
                prop_assert_eq!(twin.map(|twin| twin.similarity), (best >= limit).then_some(best));
                match twin {
                    Some(twin) => prop_assert_eq!(taken[twin.index].similarity(print), best),
                    None => {
                        prop_assert_eq!(shelf.add(rarity.file(print)), taken.len());
                        taken.push(print);
                    }
                }
            }
        }
    }
}
