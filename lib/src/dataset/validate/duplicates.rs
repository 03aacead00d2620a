//! Rows that say the same, found with 16 bytes a row.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::quality::FixedState;

use super::{
    problem::{Code, Problem},
    row::Said,
};

const SHELVES: usize = 256;

/// Equal for rows that training cannot tell apart; `rest` is what matters beside their texts.
pub(super) fn print(said: &[Said<'_>], rest: &str) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    for said in said {
        (said.role.as_bytes(), said.part).hash(&mut hasher);
        said.text.hash(&mut hasher);
    }
    if !rest.is_empty() {
        rest.hash(&mut hasher);
    }
    hasher.finish()
}

/// Rows that repeat one before them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Repeated {
    pub rows: u64,
    /// Of them: those that repeat an example.
    pub examples: u64,
}

/// One row: its hash, and its line with whether it is an example as the lowest bit.
type Print = (u64, u64);

fn is_example(print: &Print) -> bool {
    print.1 & 1 == 1
}

/// Hashes of rows with their lines, on shelves that grow apart: one that grows moves a small part of the whole.
pub(super) struct Prints {
    shelves: Vec<Vec<Print>>,
}

impl Prints {
    pub fn new() -> Self {
        Self { shelves: vec![Vec::new(); SHELVES] }
    }

    pub fn add(&mut self, print: u64, line: u64, is_example: bool) {
        self.shelves[print as usize % SHELVES].push((print, line << 1 | u64::from(is_example)));
    }

    /// Tells of every line that says what a line before it says, with the first that says it.
    pub fn repeated(mut self, mut take: impl FnMut(Problem)) -> Repeated {
        let mut found: Vec<(u64, u64)> = Vec::new();
        let mut examples = 0;
        for shelf in &mut self.shelves {
            shelf.sort_unstable();
            for same in shelf.chunk_by(|a, b| a.0 == b.0) {
                found.extend(same[1..].iter().map(|(_, line)| (line >> 1, same[0].1 >> 1)));
                examples += same.iter().filter(|print| is_example(print)).count().saturating_sub(1) as u64;
            }
            *shelf = Vec::new();
        }
        found.sort_unstable();
        for (line, first) in &found {
            take(Problem::new(Code::Duplicate, format!("it says what line {first} says")).on(*line));
        }
        Repeated { rows: found.len() as u64, examples }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_examples_are_counted_apart() {
        let mut prints = Prints::new();
        for (line, (print, is_example)) in
            [(7, false), (7, true), (9, true), (7, true), (7, true), (8, false), (8, false)]
                .iter()
                .enumerate()
        {
            prints.add(*print, line as u64 + 1, *is_example);
        }
        let mut told = Vec::new();
        let repeated = prints.repeated(|problem| told.push((problem.line, problem.message)));
        assert_eq!(repeated, Repeated { rows: 4, examples: 2 });
        let of = |line, first| (Some(line), format!("it says what line {first} says"));
        assert_eq!(told, [of(2, 1), of(4, 1), of(5, 1), of(7, 6)]);
    }
}
