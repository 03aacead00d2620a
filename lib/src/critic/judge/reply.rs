//! JSON in what a model says: alone, in a fenced block, or between sentences.

use serde_json::Value;

/// More of a reply is not read, in bytes.
const MOST: usize = 64 * 1024;
/// Places at which JSON may begin that are tried.
const TRIES: usize = 200;

/// What `read` makes of every piece of JSON that it can use, in order; at least one.
///
/// # Errors
/// Why there is none, in a sentence: of the first piece, within which the others lie as a rule.
pub(super) fn pieces<T>(text: &str, read: impl Fn(&Value) -> Result<T, String>) -> Result<Vec<T>, String> {
    let end = (0..=text.len().min(MOST)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let text = &text[..end];
    let (mut at, mut found, mut why) = (0, Vec::new(), None);
    for _ in 0..TRIES {
        let Some(start) = text[at..].find(['{', '[']).map(|offset| at + offset) else { break };
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        at = start + 1;
        if let Some(Ok(value)) = values.next() {
            match read(&value) {
                Ok(answer) => {
                    found.push(answer);
                    at = start + values.byte_offset();
                }
                Err(e) => why = why.or(Some(e)),
            }
        }
    }
    if found.is_empty() { Err(why.unwrap_or_else(|| "it holds no JSON".to_owned())) } else { Ok(found) }
}

/// The last of these pieces: models that think aloud end with the answer.
pub(super) fn last<T>(text: &str, read: impl Fn(&Value) -> Result<T, String>) -> Result<T, String> {
    pieces(text, read)?.pop().ok_or_else(String::new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<i64, &str>) {
        let read = |value: &Value| value["n"].as_i64().ok_or_else(|| "no `n`".to_owned());
        assert_eq!(last(text, read), expected.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn json_is_found_where_models_put_it() {
        check(r#"{"n": 1}"#, Ok(1));
        check("Here you are:\n```json\n{\"n\": 2}\n```\nAnything else?", Ok(2));
        check(r#"<think>perhaps {"n": 1}, or {"n"</think> {"n": 3}"#, Ok(3));
        check(r#"{"answer": {"n": 4}}"#, Ok(4));
        check("{'n': 1}", Err("it holds no JSON"));
        check("[1] {\"m\": 1}", Err("no `n`"));
        check("", Err("it holds no JSON"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "(?s)[\\[\\]{}\",:a1\u{e9} \n]{0,300}") {
            let _ = last(&text, |value| if value.is_object() { Ok(()) } else { Err(String::new()) });
        }
    }
}
