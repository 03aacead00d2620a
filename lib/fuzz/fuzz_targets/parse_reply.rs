//! Any reply is read to files with safe and unique paths, and what was read reads back the same.

#![no_main]

use std::collections::HashSet;

use hone::agent::{MAX_REPLY, parse_reply, reply_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|reply: &str| {
    let candidate = parse_reply(reply);
    let mut seen = HashSet::new();
    for file in &candidate.files {
        assert!(seen.insert(&file.path), "{:?} comes twice", file.path);
        assert!(
            file.path.split('/').all(|part| !matches!(part, "" | "." | "..")),
            "{:?} is unsafe",
            file.path
        );
        assert!(
            !file.path.contains('\\') && !file.path.chars().any(char::is_control),
            "{:?} is unsafe",
            file.path
        );
        assert!(file.content.ends_with('\n'));
    }
    let taught = reply_of(&candidate);
    if taught.len() <= MAX_REPLY {
        assert_eq!(parse_reply(&taught), candidate, "from {taught:?}");
    }
});
