//! Names and times that the server gives.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::RngExt;
use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// `prefix` and 24 random letters and digits.
pub fn random(prefix: &str) -> String {
    let mut rng = rand::rng();
    let tail = (0..24).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    prefix.chars().chain(tail).collect()
}

/// `len` letters and digits that depend on `parts` alone: what a training child makes keeps its name when the child is
/// killed and makes it again.
pub fn derived(parts: &[&str], len: usize) -> String {
    let digest = Sha256::digest(parts.join("\n"));
    digest
        .iter()
        .cycle()
        .take(len)
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

/// Unix seconds.
pub fn now() -> i64 {
    i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX)
}

/// Nanoseconds since 1970: the order in which things were made, where seconds tie.
pub fn order() -> u64 {
    u64::try_from(since_epoch().as_nanos()).unwrap_or(u64::MAX)
}

fn since_epoch() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// True for an id that is safe as a file name.
pub fn is_plain(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 128
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_or_derived() {
        let id = random("file-");
        assert_eq!(id.len(), 29);
        assert!(is_plain(&id));
        assert_ne!(id, random("file-"));
        assert_eq!(derived(&["job", "1"], 8), derived(&["job", "1"], 8));
        assert_ne!(derived(&["job", "1"], 8), derived(&["job", "2"], 8));
        assert_eq!(derived(&["a"], 40).len(), 40);
    }

    #[test]
    fn what_leaves_the_folder_is_no_id() {
        for bad in ["", ".", "..", "a/b", "../x", "a.b", "a\0"] {
            assert!(!is_plain(bad), "{bad:?}");
        }
    }
}
