//! What people said about candidates of the logs.

use std::collections::HashMap;

use crate::rating::{Choice, Rating, Side, Source};

/// File name of a log, and a candidate in it.
type Place = (String, u32);

/// Votes between pairs of candidates. Those of trials are left out: they are about held-out briefs, which nothing may be
/// trained on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Votes {
    /// Of a pair in the order of its places: how many preferred the first, less how many preferred the second.
    between: HashMap<(Place, Place), i32>,
    /// Of a candidate: how often it was preferred, less how often another was.
    liking: HashMap<Place, i32>,
}

impl Votes {
    /// Counts answers; one about two apps that are not both in logs says nothing about candidates.
    pub fn of(ratings: &[Rating]) -> Self {
        let mut votes = Self::default();
        for rating in ratings.iter().filter(|rating| rating.source == Source::Logs) {
            if let (Some(a), Some(b)) = (place(&rating.a), place(&rating.b)) {
                let vote = match rating.prefers {
                    Choice::A => 1,
                    Choice::B => -1,
                    Choice::Tie => 0,
                };
                votes.count(a, b, vote);
            }
        }
        votes
    }

    fn count(&mut self, a: Place, b: Place, vote: i32) {
        *self.liking.entry(a.clone()).or_default() += vote;
        *self.liking.entry(b.clone()).or_default() -= vote;
        let (pair, vote) = if a <= b { ((a, b), vote) } else { ((b, a), -vote) };
        *self.between.entry(pair).or_default() += vote;
    }

    /// How many more people preferred the first than the second.
    pub(super) fn between(&self, a: (&str, u32), b: (&str, u32)) -> i32 {
        if self.between.is_empty() {
            return 0;
        }
        let (pair, sign) = key(a, b);
        sign * self.between.get(&pair).copied().unwrap_or(0)
    }

    /// Whether anybody was asked to choose between the two.
    pub(super) fn were_asked(&self, a: (&str, u32), b: (&str, u32)) -> bool {
        !self.between.is_empty() && self.between.contains_key(&key(a, b).0)
    }

    pub(super) fn liking(&self, of: (&str, u32)) -> i32 {
        if self.liking.is_empty() {
            return 0;
        }
        self.liking.get(&owned(of)).copied().unwrap_or(0)
    }
}

fn place(side: &Side) -> Option<Place> {
    Some((side.log.clone()?, side.iteration?))
}

fn owned((log, iteration): (&str, u32)) -> Place {
    (log.to_owned(), iteration)
}

fn key(a: (&str, u32), b: (&str, u32)) -> ((Place, Place), i32) {
    if a <= b { ((owned(a), owned(b)), 1) } else { ((owned(b), owned(a)), -1) }
}
