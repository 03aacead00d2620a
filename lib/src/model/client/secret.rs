//! Keys that no log, error or debug print shows, and the one place where they are taken out of what a provider sends.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose};
use bytes::Bytes;
use memchr::memmem;

/// A key. Only [`Secret::expose`] gives it away.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// The key itself, for the header that carries it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([key])")
    }
}

/// What stands where a key was.
const MARK: &str = "[key]";

/// From this length on a key is a secret wherever it stands. Shorter ones are names that servers on one's own machine want to
/// hear (`ollama`, `EMPTY`): they are taken out of errors alone, for an answer may well have such a word.
const LEAST_SECRET: usize = 12;

/// Takes keys out of bytes and texts, in every form in which providers are seen to repeat them.
#[derive(Clone)]
pub struct Scrubber {
    long: Vec<memmem::Finder<'static>>,
    short: Vec<memmem::Finder<'static>>,
    /// What stands in a key's place.
    mark: String,
}

impl Default for Scrubber {
    fn default() -> Self {
        Self { long: Vec::new(), short: Vec::new(), mark: MARK.into() }
    }
}

impl Scrubber {
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut scrubber = Self::default();
        for secret in secrets {
            let into = if secret.0.len() >= LEAST_SECRET { &mut scrubber.long } else { &mut scrubber.short };
            into.extend(
                forms(&secret.0).iter().map(|form| memmem::Finder::new(form.as_bytes()).into_owned()),
            );
        }
        scrubber
    }

    /// The same, which leaves these words where a key was.
    pub fn marking(self, mark: &str) -> Self {
        Self { mark: mark.into(), ..self }
    }

    /// An answer's bytes without secrets.
    pub fn bytes(&self, bytes: Bytes) -> Bytes {
        match self.without(&bytes, &self.long) {
            Cow::Borrowed(_) => bytes,
            Cow::Owned(scrubbed) => scrubbed.into(),
        }
    }

    /// A text of an answer without secrets.
    pub fn answer(&self, text: &mut String) {
        if let Cow::Owned(scrubbed) = self.without(text.as_bytes(), &self.long) {
            *text = String::from_utf8_lossy(&scrubbed).into_owned();
        }
    }

    /// Words for an error or a log, without any key.
    pub fn words(&self, text: &str) -> String {
        let scrubbed = self.without(text.as_bytes(), &self.long);
        String::from_utf8_lossy(&self.without(&scrubbed, &self.short)).into_owned()
    }

    fn without<'a>(&self, bytes: &'a [u8], finders: &[memmem::Finder<'_>]) -> Cow<'a, [u8]> {
        let mut result = Cow::Borrowed(bytes);
        for finder in finders {
            let found: Vec<usize> = finder.find_iter(&result).collect();
            if found.is_empty() {
                continue;
            }
            let (mut kept, mut from) = (Vec::with_capacity(result.len()), 0);
            for at in found {
                kept.extend_from_slice(&result[from..at]);
                kept.extend_from_slice(self.mark.as_bytes());
                from = at + finder.needle().len();
            }
            kept.extend_from_slice(&result[from..]);
            result = Cow::Owned(kept);
        }
        result
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrubber")
    }
}

/// A key as it is, in JSON, in an address and in base64.
fn forms(key: &str) -> Vec<String> {
    if key.is_empty() {
        return Vec::new();
    }
    let json = serde_json::Value::from(key).to_string();
    let mut forms = vec![
        key.to_owned(),
        json[1..json.len() - 1].to_owned(),
        percent(key),
        general_purpose::STANDARD.encode(key),
        general_purpose::URL_SAFE_NO_PAD.encode(key),
    ];
    if key.len() >= LEAST_SECRET {
        forms.extend((0..3).flat_map(|before| inside_base64(key, before)));
    }
    // Longer forms first: one that contains another must not lose its middle alone.
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    forms.dedup();
    forms
}

/// A key in the base64 of something longer, with a user's name before it say: what of the text depends on the key alone, for
/// 0 to 2 bytes before it beyond whole groups.
fn inside_base64(key: &str, before: usize) -> [String; 2] {
    let bytes = [vec![0; before], key.as_bytes().to_vec()].concat();
    let whole = bytes.len() / 3 * 4;
    let of = |text: String| text[[0, 2, 3][before]..whole].to_owned();
    [of(general_purpose::STANDARD.encode(&bytes)), of(general_purpose::URL_SAFE.encode(&bytes))]
}

fn percent(key: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    key.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scrubber(key: &str) -> Scrubber {
        Scrubber::new(&[Secret::new(key)])
    }

    #[test]
    fn a_key_is_not_printed() {
        let key = Secret::new("sk-very-secret");
        assert!(!format!("{key:?} {:?}", Scrubber::new([&key])).contains("very"));
        assert_eq!(scrubber("sk-very-secret").words("wrong key sk-very-secret!"), "wrong key [key]!");
        assert_eq!(scrubber("").words("abc"), "abc");
    }

    #[test]
    fn a_key_is_found_in_the_base64_of_something_longer() {
        const KEY: &str = "sk-canary/K3y+7Qx9Zr2Wv5Tn8";
        for before in ["", "u", "us", "user:", "a longer name:"] {
            for after in ["", ":", "\n", " and so on"] {
                let text = general_purpose::STANDARD.encode(format!("{before}{KEY}{after}"));
                let scrubbed = scrubber(KEY).words(&text);
                let left = scrubbed.replace("[key]", "").len();
                // Nothing of the key but what shares a group with its neighbours: three letters at each edge.
                let around = general_purpose::STANDARD.encode(format!("{before}{after}")).len();
                assert!(scrubbed.contains("[key]") && left <= around + 12, "{text}: {scrubbed}");
            }
        }
    }

    #[test]
    fn every_form_is_taken_out() {
        let key = "sk/\"quoted\"+é-0123456789";
        for form in forms(key) {
            let scrubbed = scrubber(key).bytes(format!("a {form} b {form}").into());
            assert_eq!(scrubbed, "a [key] b [key]", "{form}");
        }
    }

    #[test]
    fn a_placeholder_stays_in_answers() {
        let scrubber = scrubber("ollama");
        assert_eq!(scrubber.bytes("run ollama".into()), "run ollama");
        assert_eq!(scrubber.words("bad key ollama"), "bad key [key]");
    }

    proptest! {
        #[test]
        fn no_key_is_left(key in "[a-zA-Z0-9_-]{12,40}", before in ".{0,20}", after in ".{0,20}") {
            let text = format!("{before}{key}{after}{key}");
            let scrubbed = scrubber(&key).bytes(text.into_bytes().into());
            prop_assert!(memmem::find(&scrubbed, key.as_bytes()).is_none());
        }
    }
}
