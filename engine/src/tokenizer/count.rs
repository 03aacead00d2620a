//! Counting tokens without listing them, for files of many megabytes.
//!
//! Text is cut where no way of splitting that we know joins what lies on both sides: between an ASCII letter or digit and
//! the white space after it. What is between two cuts is short and comes again and again, so its count is remembered.

use std::{
    collections::HashMap,
    hash::BuildHasher,
    sync::{Mutex, PoisonError},
};

use foldhash::fast::FixedState;

/// Maps that threads seldom wait for each other at.
const SHELVES: usize = 64;
/// Pieces on a shelf; what comes later is counted each time.
const MOST: usize = 2048;
/// Longer pieces do not come again.
const LONGEST: usize = 64;

type Shelf = HashMap<Box<str>, u32, FixedState>;

/// Counts of pieces.
pub(super) struct Remembered {
    shelves: Vec<Mutex<Shelf>>,
}

impl Remembered {
    pub fn new() -> Self {
        Self { shelves: (0..SHELVES).map(|_| Mutex::default()).collect() }
    }

    /// The count of a text of which `count` knows every piece's.
    pub fn count(&self, text: &str, count: impl Fn(&str) -> usize) -> usize {
        pieces(text).map(|piece| self.piece(piece, &count)).sum()
    }

    fn piece(&self, piece: &str, count: impl Fn(&str) -> usize) -> usize {
        if piece.len() > LONGEST {
            return count(piece);
        }
        let shelf = &self.shelves[FixedState::default().hash_one(piece) as usize % SHELVES];
        if let Some(known) = shelf.lock().unwrap_or_else(PoisonError::into_inner).get(piece) {
            return *known as usize;
        }
        let counted = count(piece);
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.len() < MOST
            && let Ok(counted) = u32::try_from(counted)
        {
            shelf.insert(piece.into(), counted);
        }
        counted
    }
}

/// The text, cut.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == text.len() {
            return None;
        }
        let cut = (start + 1..bytes.len())
            .find(|&at| bytes[at].is_ascii_whitespace() && bytes[at - 1].is_ascii_alphanumeric());
        let piece = &text[start..cut.unwrap_or(text.len())];
        start += piece.len();
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_between_words_and_what_follows_them() {
        let cut: Vec<&str> = pieces("def f(x):\n    return x1  é \n").collect();
        assert_eq!(cut, ["def", " f(x):\n    return", " x1", "  é \n"]);
        assert_eq!(pieces("").count(), 0);
    }

    #[test]
    fn what_is_remembered_is_not_counted_again() {
        let asked = std::cell::Cell::new(0);
        let count = |piece: &str| {
            asked.set(asked.get() + 1);
            piece.len()
        };
        let remembered = Remembered::new();
        assert_eq!(remembered.count("a b b b", count), 7);
        assert_eq!(remembered.count("a b", count), 3);
        assert_eq!(asked.get(), 2);
    }
}
