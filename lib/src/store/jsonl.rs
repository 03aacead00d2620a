//! JSON lines with the number of each line, so that an error can name the place.

use serde::de::DeserializeOwned;

/// A value and the line (1-based) it stood on.
#[derive(Clone, Debug, PartialEq)]
pub struct Line<T> {
    pub number: usize,
    pub value: T,
}

/// A line that is not the JSON that was expected.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("line {number}: {why}")]
pub struct LineError {
    pub number: usize,
    pub why: String,
}

/// Reads every non-empty line; a bad line is reported and the rest go on. A byte-order mark is ignored.
pub fn parse_lines<T: DeserializeOwned>(text: &str) -> (Vec<Line<T>>, Vec<LineError>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut lines, mut errors) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(line) {
            Ok(value) => lines.push(Line { number, value }),
            Err(e) => errors.push(LineError { number, why: e.to_string() }),
        }
    }
    (lines, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_named_and_the_rest_are_read() {
        let (lines, errors) = parse_lines::<u32>("\u{feff}1\n\nx\n4");
        assert_eq!(lines, [Line { number: 1, value: 1 }, Line { number: 4, value: 4 }]);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].number, 3);
    }
}
