//! Chat rows with composed apps for `bench/compare data`, one a line on stdout:
//!
//!     cargo run --release -p hone --example corpus -- ROWS [SEED]
//!
//! Apps of all shipped briefs, with other numbers and other words in their texts in every row, so that no row is like
//! another and nothing can be remembered that a file of real apps would not let one remember.

use std::io::{BufWriter, Write, stdout};

use hone::{
    agent::{Prompts, reply_of},
    brief::{Brief, shipped_train},
    evolve::{Operator, composer::Composer},
};
use rand::{Rng, RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde_json::json;

/// Apps by each brief.
const ATTEMPTS: u32 = 6;
/// Bytes of the longest apps that are taken: rows have about 1,650 then, as those that Hone trains on.
const LONGEST: usize = 1_900;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let rows: usize = arguments.next().ok_or("how many rows?")?.parse()?;
    let mut random = ChaCha8Rng::seed_from_u64(arguments.next().map_or(Ok(1), |seed| seed.parse())?);
    let apps = apps();
    let words = words(&apps);
    let mut out = BufWriter::new(stdout().lock());
    for n in 0..rows {
        let (brief, app) = &apps[random.random_range(0..apps.len())];
        let mut messages = Prompts::default().ask(brief)?;
        if let Some(asked) = messages.last_mut() {
            asked.content = format!("{} ({n})", varied(&asked.content, &words, &mut random, 4));
        }
        let answer = varied(app, &words, &mut random, 2);
        let mut row: Vec<_> = messages
            .iter()
            .map(|message| json!({"role": message.role, "content": message.content}))
            .collect();
        row.push(json!({"role": "assistant", "content": answer}));
        serde_json::to_writer(&mut out, &json!({ "messages": row }))?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

fn apps() -> Vec<(Brief, String)> {
    let mut apps = Vec::new();
    for brief in shipped_train() {
        for attempt in 0..ATTEMPTS {
            let answer = reply_of(&Composer::new(1).propose(&brief, Operator::Restart, attempt, &[]));
            if answer.len() <= LONGEST {
                apps.push((brief.clone(), answer));
            }
        }
    }
    apps
}

/// The capitalised words of all apps: those of labels and titles.
fn words(apps: &[(Brief, String)]) -> Vec<String> {
    let mut words: Vec<String> = apps.iter().flat_map(|(_, app)| spans(app)).map(str::to_owned).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// Capitalised words within a line's double quotes; texts with other marks in them are left alone.
fn spans(app: &str) -> impl Iterator<Item = &str> {
    let texts = app.lines().flat_map(|line| line.split('"').skip(1).step_by(2));
    let plain = texts.filter(|text| text.chars().all(|c| c.is_ascii_alphabetic() || c == ' '));
    plain
        .flat_map(|text| text.split(' '))
        .filter(|word| word.len() > 3 && word.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// The text with other digits, and one of `every` words between quotes replaced, each by the same word throughout.
fn varied(text: &str, words: &[String], random: &mut impl Rng, every: u32) -> String {
    let mut text = text.to_owned();
    let chosen: Vec<String> =
        spans(&text).filter(|_| random.random_ratio(1, every)).map(str::to_owned).collect();
    for word in chosen {
        let other = &words[random.random_range(0..words.len())];
        text = text
            .replace(&format!("\"{word}\""), &format!("\"{other}\""))
            .replace(&format!("\"{word} "), &format!("\"{other} "));
    }
    let mut after_digit = false;
    text.chars()
        .map(|c| {
            // The first digit stays: a number may not begin with 0, nor become 0.
            let changes = after_digit && c.is_ascii_digit();
            after_digit = c.is_ascii_digit();
            if changes { char::from(b'0' + random.random_range(0..10u8)) } else { c }
        })
        .collect()
}
