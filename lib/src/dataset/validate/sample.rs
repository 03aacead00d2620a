//! Rows drawn from a file: answers to be run, examples to be trained on.

use std::io::{self, BufRead};

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{
    lines::{self, Ended},
    local,
    row::{self, Format, Part, Place},
    rules, without_mark,
};
use crate::{
    agent::{Candidate, parse_reply},
    critic::{Nature, glance, on_deep_stack},
};

/// An answer that holds an app, with what it answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    pub line: u64,
    /// The last thing that the user said before it.
    pub asked: String,
    pub candidate: Candidate,
}

/// Draws `n` lines, each as likely as any other, and gives the last trained answer of each that holds an app, by line.
///
/// # Errors
/// The file cannot be read.
pub fn sample(source: impl BufRead, n: usize, seed: u64) -> io::Result<Vec<Sampled>> {
    let drawn = drawn(source, n, seed)?;
    // Source text may be nested as deep as it likes.
    on_deep_stack(|| drawn.iter().filter_map(|(number, line)| answer(*number, line)).collect())
}

/// Draws `n` lines likewise, and gives those that the trainer of this machine learns from as examples of a format.
///
/// # Errors
/// The file cannot be read.
pub fn examples(source: impl BufRead, format: Format, n: usize, seed: u64) -> io::Result<Vec<String>> {
    let texts = drawn(source, n, seed)?.into_iter().filter_map(|(_, line)| {
        let text = std::str::from_utf8(without_mark(&line)).ok()?.trim();
        local::example(text, format).is_ok().then(|| text.to_owned())
    });
    Ok(texts.collect())
}

/// Lines with their numbers, in their order.
fn drawn(mut source: impl BufRead, n: usize, seed: u64) -> io::Result<Vec<(u64, Vec<u8>)>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn: Vec<(u64, Vec<u8>)> = Vec::new();
    let (mut line, mut number) = (Vec::new(), 0);
    while let Some(ended) = lines::read_line(&mut source, &mut line)? {
        number += 1;
        if ended == Ended::TooLong {
            lines::pass_on(&mut source, |_| Ok(()))?;
            continue;
        }
        // Of `number` lines each is among the `n` with the same chance.
        if drawn.len() < n {
            drawn.push((number, std::mem::take(&mut line)));
        } else if let Some(place) = drawn.get_mut(random.random_range(0..number) as usize) {
            *place = (number, std::mem::take(&mut line));
        }
    }
    drawn.sort_unstable();
    Ok(drawn)
}

fn answer(number: u64, line: &[u8]) -> Option<Sampled> {
    let text = std::str::from_utf8(without_mark(line)).ok()?.trim();
    let row = row::read(text, rules::Shown::of_row(text)?.format, Place::Hosted);
    let at = row.said.iter().rposition(|said| said.part == Part::Answer)?;
    let asked = row.said[..at].iter().rfind(|said| said.role == "user")?.text.to_string();
    let candidate = parse_reply(&row.said[at].text);
    // Other programs, and pages, are none that would be run here.
    let is_app = glance(&candidate.files).natures.contains(&Nature::Ui);
    is_app.then_some(Sampled { line: number, asked, candidate })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(rows: usize) -> String {
        let row = |n: usize| {
            let answer =
                if n.is_multiple_of(10) { "prose" } else { "```python\\n# app.py\\nimport streamlit\\n```" };
            format!(
                r#"{{"messages":[{{"role":"user","content":"form {n}"}},{{"role":"assistant","content":"{answer}"}}]}}"#
            )
        };
        (0..rows).map(|n| row(n) + "\n").collect()
    }

    #[test]
    fn a_sample_is_drawn_by_its_seed_and_from_everywhere() {
        let lines = |seed| -> Vec<u64> {
            let sampled = sample(file(100).as_bytes(), 20, seed).unwrap();
            assert!(sampled.iter().all(|one| one.asked == format!("form {}", one.line - 1)));
            sampled.iter().map(|one| one.line).collect()
        };
        assert_eq!(lines(1), lines(1));
        assert_ne!(lines(1), lines(2));
        // Answers without files are drawn, and left out.
        assert!((10..=20).contains(&lines(1).len()), "{:?}", lines(1));
        let drawn: std::collections::BTreeSet<u64> = (0..60).flat_map(lines).collect();
        assert_eq!(drawn.len(), 90);
        assert_eq!(sample(file(5).as_bytes(), 20, 1).unwrap().len(), 4);
        assert_eq!(sample(&b"{\n\xff\n[]\n{}\n"[..], 9, 1).unwrap(), []);
    }

    #[test]
    fn examples_are_rows_without_a_fault() {
        let examples = |text: &[u8], format| examples(text, format, 9, 1).unwrap();
        let text = file(5);
        assert_eq!(examples(text.as_bytes(), Format::Chat), text.lines().collect::<Vec<_>>());
        assert_eq!(examples(text.as_bytes(), Format::Dpo), [""; 0]);
        assert_eq!(examples(b"{\n\xff\n[]\n\n{\"messages\":[]}\n", Format::Chat), [""; 0]);
    }
}
