//! Counting tokens without listing them, for files of many megabytes.
//!
//! Text is cut where no way of splitting that we know joins what lies on both sides: between an ASCII letter or digit and what
//! is neither, but for the apostrophe, with which "don't" goes on. What is between two cuts is short and comes again and again,
//! so its count is remembered: short pieces by each thread for itself, where a look takes nanoseconds, and all by all together.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::BuildHasher,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::fast::FixedState;

/// Maps that threads seldom wait for each other at.
const SHELVES: usize = 64;
/// Pieces on a shelf; what comes later is counted each time.
const MOST: usize = 4096;
/// Longer pieces do not come again.
const LONGEST: usize = 64;

type Shelf = HashMap<Box<str>, u32, FixedState>;

/// Counts of pieces.
pub(super) struct Remembered {
    /// Tells it from others in a thread's own memory; never 0.
    id: usize,
    shelves: Vec<Mutex<Shelf>>,
}

impl Remembered {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, shelves: (0..SHELVES).map(|_| Mutex::default()).collect() }
    }

    /// The count of a text of which `count` knows every piece's.
    pub fn count(&self, text: &str, count: impl Fn(&str) -> usize) -> usize {
        NEAR.with_borrow_mut(|near| {
            near.belong_to(self.id);
            let (mut start, mut sum) = (0, 0);
            while start < text.len() {
                let end = end_of_piece(text.as_bytes(), start);
                let afar = || self.piece(&text[start..end], &count);
                sum += match Packed::of(&text.as_bytes()[start..], end - start) {
                    Some(packed) => near.count(packed, afar),
                    None => afar(),
                };
                start = end;
            }
            sum
        })
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

/// A piece of up to 15 bytes, and how many they are; never 0.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Packed(u128);

impl Packed {
    /// The first bytes of a text.
    fn of(text: &[u8], length: usize) -> Option<Self> {
        if length > 15 {
            return None;
        }
        let bytes = match text.first_chunk() {
            Some(chunk) => *chunk,
            None => {
                let mut padded = [0; 16];
                padded[..text.len()].copy_from_slice(text);
                padded
            }
        };
        let kept = u128::from_le_bytes(bytes) & ((1 << (8 * length)) - 1);
        Some(Self(kept | (length as u128) << 120))
    }

    fn place(self) -> usize {
        let folded = (self.0 as u64) ^ ((self.0 >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (folded.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> (64 - PLACES_BITS)) as usize
    }
}

const PLACES_BITS: u32 = 16;

/// What a thread remembers for itself: each short piece has one place, which the last that came there holds.
struct Near {
    /// Whose counts they are.
    of: usize,
    places: Vec<(Packed, u32)>,
}

const NOTHING: (Packed, u32) = (Packed(0), 0);

thread_local! {
    static NEAR: RefCell<Near> = const { RefCell::new(Near { of: 0, places: Vec::new() }) };
}

impl Near {
    fn belong_to(&mut self, id: usize) {
        if self.of != id {
            self.of = id;
            self.places.clear();
            self.places.resize(1 << PLACES_BITS, NOTHING);
        }
    }

    fn count(&mut self, piece: Packed, count: impl FnOnce() -> usize) -> usize {
        let place = &mut self.places[piece.place()];
        if place.0 != piece {
            // A piece of 15 bytes has no more tokens than fit.
            *place = (piece, count() as u32);
        }
        place.1 as usize
    }
}

/// What a byte is to a cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// A cut may follow it.
    Before,
    /// A cut may come before it.
    After,
    Neither,
}

static SIDES: [Side; 256] = {
    let mut sides = [Side::Neither; 256];
    let mut byte = 0;
    while byte < 128 {
        let ascii = byte as u8;
        sides[byte] = match ascii {
            b'\'' => Side::Neither,
            _ if ascii.is_ascii_alphanumeric() => Side::Before,
            _ => Side::After,
        };
        byte += 1;
    }
    sides
};

/// Where the piece that begins at `start` ends.
fn end_of_piece(bytes: &[u8], start: usize) -> usize {
    let mut before = Side::Neither;
    for (offset, byte) in bytes[start..].iter().enumerate() {
        let side = SIDES[usize::from(*byte)];
        if before == Side::Before && side == Side::After {
            return start + offset;
        }
        before = side;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<&str> {
        let mut start = 0;
        let piece = || {
            let rest = (start < text.len()).then(|| start..end_of_piece(text.as_bytes(), start))?;
            start = rest.end;
            Some(&text[rest])
        };
        std::iter::from_fn(piece).collect()
    }

    #[test]
    fn cuts_are_between_words_and_what_follows_them() {
        assert_eq!(
            pieces("def f(x):\n    return x1  é \n"),
            ["def", " f", "(x", "):\n    return", " x1", "  é \n"]
        );
        assert_eq!(pieces("a_b='don't'"), ["a", "_b", "='don't'"]);
        assert_eq!(pieces(""), [""; 0]);
    }

    #[test]
    fn what_is_remembered_is_not_counted_again() {
        let asked = std::cell::Cell::new(0);
        let count = |piece: &str| {
            asked.set(asked.get() + 1);
            piece.len()
        };
        let remembered = Remembered::new();
        let long = "a".repeat(40);
        assert_eq!(remembered.count(&format!("a b b b {long} {long}"), count), 89);
        assert_eq!(remembered.count(&format!("a b {long}"), count), 44);
        assert_eq!(asked.get(), 3);
        // Another vocabulary counts otherwise.
        assert_eq!(Remembered::new().count("a b", |_| 7), 14);
        assert_eq!(remembered.count("a b", count), 3);
    }

    #[test]
    fn pieces_that_share_a_place_keep_their_counts() {
        let remembered = Remembered::new();
        let words: Vec<String> = (0..200_000).map(|n| format!(" w{n}")).collect();
        let text = words.concat();
        assert_eq!(remembered.count(&text, str::len), text.len());
        assert_eq!(remembered.count(&text, str::len), text.len());
    }
}
