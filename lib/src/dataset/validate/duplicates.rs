//! Rows that say the same, found with 16 bytes a row.

use super::problem::{Code, Problem};

const SHELVES: usize = 256;

/// Hashes of rows with their lines, on shelves that grow apart: one that grows moves a small part of the whole.
pub(super) struct Prints {
    shelves: Vec<Vec<(u64, u64)>>,
}

impl Prints {
    pub fn new() -> Self {
        Self { shelves: vec![Vec::new(); SHELVES] }
    }

    pub fn add(&mut self, print: u64, line: u64) {
        self.shelves[print as usize % SHELVES].push((print, line));
    }

    /// Every line that says what a line before it says, with the first that says it.
    pub fn repeated(mut self, mut take: impl FnMut(Problem)) -> u64 {
        let mut found: Vec<(u64, u64)> = Vec::new();
        for shelf in &mut self.shelves {
            shelf.sort_unstable();
            for same in shelf.chunk_by(|a, b| a.0 == b.0) {
                found.extend(same[1..].iter().map(|(_, line)| (*line, same[0].1)));
            }
            *shelf = Vec::new();
        }
        found.sort_unstable();
        for (line, first) in &found {
            take(Problem::new(Code::Duplicate, format!("it says what line {first} says")).on(*line));
        }
        found.len() as u64
    }
}
