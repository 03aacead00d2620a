//! Keys that one object has twice: JSON allows it, and readers take the first or the last of them as they please.

use std::{collections::HashSet, fmt};

use foldhash::fast::FixedState;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The places of such keys in a text that is JSON, as in `messages[0].role`.
pub(super) fn repeated(text: &str) -> Vec<String> {
    let (mut at, mut found) = (String::new(), Vec::new());
    let mut json = serde_json::Deserializer::from_str(text);
    // What is no JSON is told of by whoever reads it.
    let read = Walk { at: &mut at, found: &mut found }.deserialize(&mut json);
    if read.is_ok() { found } else { Vec::new() }
}

struct Walk<'w> {
    at: &'w mut String,
    found: &'w mut Vec<String>,
}

impl Walk<'_> {
    /// What is to walk through the value at a place below.
    fn below(&mut self, place: &str) -> Walk<'_> {
        self.at.push_str(place);
        Walk { at: self.at, found: self.found }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let length = self.at.len();
        for index in 0.. {
            let item = items.next_element_seed(self.below(&format!("[{index}]")))?;
            self.at.truncate(length);
            if item.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        let length = self.at.len();
        let mut seen: HashSet<String, FixedState> = HashSet::default();
        while let Some(key) = fields.next_key::<String>()? {
            let place = if length == 0 { key.clone() } else { format!(".{key}") };
            if seen.contains(&key) {
                self.found.push(format!("{}{place}", self.at));
                fields.next_value::<IgnoredAny>()?;
                continue;
            }
            fields.next_value_seed(self.below(&place))?;
            self.at.truncate(length);
            seen.insert(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(repeated(text), expected, "{text}");
    }

    #[test]
    fn keys_are_told_with_their_places() {
        check(r#"{"a":1,"b":[{"a":1.5},{"a":-1}],"c":null}"#, &[]);
        check(r#"{"a":1,"b":{"a":true},"a":[{"b":1,"b":2}]}"#, &["a"]);
        check(r#"{"m":["x",{"r":"u","c":{"d":1,"d":2},"\u0072":"s"}]}"#, &["m[1].c.d", "m[1].r"]);
        check(r#"[[{"a":1,"a":1}]]"#, &["[0][0].a"]);
        check(r#"{"a":1,"a":"#, &[]);
        check("7", &[]);
        check(&"[".repeat(100_000), &[]);
    }
}
