//! Stop strings in text that arrives in pieces.

/// Passes text on, except what may turn out to be the start of a stop string, until one is complete.
///
/// What comes out does not depend on how the text was cut into pieces.
#[derive(Clone, Debug, Default)]
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
}

/// What [`StopFilter::push`] lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    pub text: String,
    /// A stop string is complete. It is not part of `text`, nor is anything after it.
    pub stopped: bool,
}

impl StopFilter {
    /// Empty stop strings are ignored.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    pub fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        // The stop that was complete first; of several, the longest.
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop)?, stop.len())));
        if let Some((at, _)) = found.min_by_key(|&(at, len)| (at + len, at)) {
            self.held.truncate(at);
            return Passed { text: std::mem::take(&mut self.held), stopped: true };
        }
        let kept = self.held.split_off(self.undecided());
        Passed { text: std::mem::replace(&mut self.held, kept), stopped: false }
    }

    /// The rest, when no more text comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the longest ending of the held text begins that starts a stop string.
    fn undecided(&self) -> usize {
        let starts_stop = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        self.held.char_indices().map(|(at, _)| at).find(starts_stop).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut filter = StopFilter::new(&stops.iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut out = Vec::new();
        for piece in pieces {
            let Passed { text, stopped } = filter.push(piece);
            out.push(text);
            if stopped {
                return (out, true);
            }
        }
        out.push(filter.finish());
        (out, false)
    }

    fn check(stops: &[&str], pieces: &[&str], want: &[&str], stopped: bool) {
        assert_eq!(run(stops, pieces), (want.iter().map(ToString::to_string).collect(), stopped));
    }

    #[test]
    fn stops_across_pieces() {
        check(&["END"], &["a E", "N", "D b"], &["a ", "", ""], true);
        check(&["END"], &["a E", "N", "O"], &["a ", "", "ENO", ""], false);
        check(&["END"], &["EN"], &["", "EN"], false);
        check(&["aab"], &["aa", "ab"], &["", "a"], true);
        check(&["", "é!"], &["xé", "é!"], &["x", "é"], true);
        check(&["\n\n", "```"], &["``", "`x"], &["", ""], true);
        check(&[], &["a", "b"], &["a", "b", ""], false);
    }

    #[test]
    fn the_first_to_be_complete_wins() {
        check(&["abcd", "bc"], &["abcd"], &["a"], true);
        check(&["c", "bc"], &["abc"], &["a"], true);
    }

    proptest! {
        #[test]
        fn cutting_does_not_matter(text in "[ab🙂]{0,20}", stops in prop::collection::vec("[ab🙂]{0,4}", 0..3)) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            let (whole, cut) = (run(&stops, &[&text]), run(&stops, &letters));
            prop_assert_eq!((whole.0.concat(), whole.1), (cut.0.concat(), cut.1));
        }
    }
}
