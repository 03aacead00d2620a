//! Ids of briefs: names that are safe as file names on every system.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Fault;

const MAX_LEN: usize = 80;
const MAX_SLUG_LEN: usize = 40;
const HASH_BYTES: usize = 4;

/// A brief's id: `[a-z0-9][a-z0-9._-]{0,79}`, without `..` and without an ending like `.r2`.
///
/// Logs are named after it. Upper case is refused, because `Form-1` and `form-1` are one file where names ignore
/// case; `.r2` at the end is refused, because round 2 of brief `x` is logged as `x.r2.json`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BriefId(String);

impl BriefId {
    /// Takes `id` if it is safe.
    ///
    /// # Errors
    /// [`Fault::UnsafeId`] with the reason.
    pub fn new(id: impl Into<String>) -> Result<Self, Fault> {
        let id = id.into();
        match unsafe_because(&id) {
            Some(why) => Err(Fault::UnsafeId { id, why }),
            None => Ok(Self(id)),
        }
    }

    /// An id from the first words of a description and a hash of all of it: the same text gets the same id.
    pub fn from_description(description: &str) -> Self {
        let hash = crate::text::hex(&Sha256::digest(description)[..HASH_BYTES]);
        Self(format!("{}-{hash}", slug(description)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The nearest safe id to `id`, for hints.
pub(super) fn suggestion(id: &str) -> String {
    slug(id)
}

fn unsafe_because(id: &str) -> Option<&'static str> {
    let first_is_safe =
        id.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if id.is_empty() {
        Some("it is empty")
    } else if id.len() > MAX_LEN {
        Some("it is longer than 80 characters")
    } else if !id.bytes().all(is_safe) {
        Some("only a-z, 0-9, `.`, `_` and `-` are allowed")
    } else if !first_is_safe {
        Some("it must start with a letter or a digit")
    } else if id.contains("..") {
        Some("it contains `..`")
    } else if names_a_round(id) {
        Some("an ending like `.r2` is kept for the logs of later rounds")
    } else {
        None
    }
}

fn is_safe(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)
}

fn names_a_round(id: &str) -> bool {
    let round = id.rsplit_once(".r").map(|(_, round)| round);
    round.is_some_and(|round| !round.is_empty() && round.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Words of lower-case ASCII letters and digits joined by `-`, cut after a whole word where possible.
fn slug(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut slug = String::new();
    for word in lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        if slug.is_empty() {
            slug.extend(word.chars().take(MAX_SLUG_LEN));
        } else if slug.len() + 1 + word.len() <= MAX_SLUG_LEN {
            slug.push('-');
            slug.push_str(word);
        } else {
            break;
        }
    }
    if slug.is_empty() { "brief".to_owned() } else { slug }
}

impl fmt::Display for BriefId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for BriefId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BriefId {
    type Error = Fault;

    fn try_from(id: String) -> Result<Self, Fault> {
        Self::new(id)
    }
}

impl std::str::FromStr for BriefId {
    type Err = Fault;

    fn from_str(id: &str) -> Result<Self, Fault> {
        Self::new(id)
    }
}

impl From<BriefId> for String {
    fn from(id: BriefId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(id: &str, safe: bool) {
        assert_eq!(BriefId::new(id).is_ok(), safe, "{id:?}");
    }

    #[test]
    fn safe_ids() {
        for id in ["a", "0", "form-gym-signup-1", "a.b", "a_b", "v1.0", "x.r", "x.r2.b", "x.rb2", "r2"] {
            check(id, true);
        }
        check(&"a".repeat(80), true);
    }

    #[test]
    fn unsafe_ids() {
        for id in
            ["", ".", "..", ".hidden", "-rf", "_x", "a/b", "a\\b", "../x", "a..b", "Form", "é", "a b", "a\0"]
        {
            check(id, false);
        }
        for id in ["x.r2", "x.r10", "a\n", "a:b", "con*"] {
            check(id, false);
        }
        check(&"a".repeat(81), false);
    }

    #[test]
    fn ids_from_descriptions() {
        let id = BriefId::from_description("Contact form: name & email, please!");
        assert_eq!(id.as_str(), "contact-form-name-email-please-856317ff");
        assert!(BriefId::from_description("写一个表单").as_str().starts_with("brief-"));
        assert_ne!(BriefId::from_description("a b"), BriefId::from_description("a  b"));
    }

    #[test]
    fn a_json_id_is_checked() {
        assert!(serde_json::from_str::<BriefId>("\"../etc/passwd\"").is_err());
        let id: BriefId = serde_json::from_str("\"a-1\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"a-1\"");
    }

    proptest! {
        #[test]
        fn made_ids_and_suggestions_are_safe(text in any::<String>()) {
            prop_assert!(BriefId::new(BriefId::from_description(&text).as_str()).is_ok());
            prop_assert!(BriefId::new(suggestion(&text)).is_ok());
        }

        #[test]
        fn a_safe_id_is_one_plain_path_component(id in any::<String>()) {
            if let Ok(id) = BriefId::new(id) {
                let path = std::path::Path::new(id.as_str());
                let parts: Vec<_> = path.components().collect();
                prop_assert!(matches!(parts[..], [std::path::Component::Normal(name)] if name == id.as_str()));
            }
        }
    }
}
