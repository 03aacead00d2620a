//! `{{item.x}}` and `{{sample.output_text}}` in a grader's texts.

use serde_json::{Map, Value};

use super::Fault;

/// Most bytes of a text with everything filled in.
const LARGEST: usize = 1 << 20;

/// What templates can name.
pub struct Scope {
    item: Value,
    text: Value,
    /// Absent when the sample is not JSON.
    json: Option<Value>,
}

impl Scope {
    pub fn new(item: Option<Map<String, Value>>, sample: String) -> Self {
        let json = serde_json::from_str(&sample).ok();
        Self { item: Value::Object(item.unwrap_or_default()), text: Value::String(sample), json }
    }

    fn find(&self, path: &str) -> Result<&Value, Fault> {
        let unknown = || Fault::Variable(path.to_owned());
        let mut names = path.split('.').map(str::trim);
        let root = match (names.next(), names.next()) {
            (Some("item"), Some(first)) => self.item.get(first).ok_or_else(unknown)?,
            (Some("sample"), Some("output_text")) => &self.text,
            (Some("sample"), Some("output_json")) => self.json.as_ref().ok_or(Fault::SampleNotJson)?,
            _ => return Err(unknown()),
        };
        names
            .try_fold(root, |value, name| match value {
                Value::Array(items) => name.parse::<usize>().ok().and_then(|at| items.get(at)),
                other => other.get(name),
            })
            .ok_or_else(unknown)
    }
}

/// A text in pieces.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

fn pieces(template: &str) -> Result<Vec<Piece<'_>>, String> {
    let (mut pieces, mut rest) = (Vec::new(), template);
    while let Some((text, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            return Err(format!("`{template}` opens a `{{{{` that it does not close"));
        };
        pieces.extend([Piece::Text(text), Piece::Name(name.trim())]);
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

/// What is wrong with a template, whatever the sample will be.
pub fn check(template: &str) -> Result<(), String> {
    for piece in pieces(template)? {
        let Piece::Name(name) = piece else { continue };
        let known = name.strip_prefix("item.").is_some_and(|rest| !rest.is_empty())
            || name == "sample.output_text"
            || name == "sample.output_json"
            || name.starts_with("sample.output_json.");
        if !known {
            return Err(format!(
                "`{{{{{name}}}}}` is not known: use `{{{{item.KEY}}}}`, `{{{{sample.output_text}}}}` or `{{{{sample.output_json.KEY}}}}`"
            ));
        }
    }
    Ok(())
}

/// Fills a template in. Values that are not text are written as JSON.
pub fn fill(template: &str, scope: &Scope) -> Result<String, Fault> {
    let mut filled = String::new();
    for piece in pieces(template).map_err(Fault::Variable)? {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Name(name) => match scope.find(name)? {
                Value::String(text) => filled.push_str(text),
                other => filled.push_str(&other.to_string()),
            },
        }
        if filled.len() > LARGEST {
            return Err(Fault::TooLong);
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn scope(sample: &str) -> Scope {
        let item = json!({"x": "X", "n": 3, "deep": {"list": ["a", {"k": true}]}, "a b": "spaced"});
        Scope::new(item.as_object().cloned(), sample.into())
    }

    fn check_fill(template: &str, sample: &str, expected: Result<&str, Fault>) {
        assert_eq!(fill(template, &scope(sample)), expected.map(str::to_owned), "{template}");
    }

    #[test]
    fn names_are_filled_in() {
        let sample = r#"{"y": {"z": 1.5}}"#;
        check_fill("plain", sample, Ok("plain"));
        check_fill("{{item.x}}-{{ item.n }}-{{item.deep.list.1.k}}", sample, Ok("X-3-true"));
        check_fill("{{item.a b}}", sample, Ok("spaced"));
        check_fill("<{{sample.output_text}}>", "t", Ok("<t>"));
        check_fill("{{sample.output_json.y.z}}", sample, Ok("1.5"));
        check_fill("{{sample.output_json}}", "[1, 2]", Ok("[1,2]"));
        check_fill("{{sample.output_json.y}}", "no json", Err(Fault::SampleNotJson));
        check_fill("{{item.nobody}}", sample, Err(Fault::Variable("item.nobody".into())));
        check_fill("{{sample.output_json.w}}", sample, Err(Fault::Variable("sample.output_json.w".into())));
        check_fill("{{item}}", sample, Err(Fault::Variable("item".into())));
        // What is filled in is not a template.
        check_fill("{{sample.output_text}}", "{{item.x}}", Ok("{{item.x}}"));
    }

    #[test]
    fn a_text_does_not_grow_without_end() {
        let long = "x".repeat(LARGEST / 2 + 1);
        assert_eq!(fill("{{sample.output_text}}{{sample.output_text}}", &scope(&long)), Err(Fault::TooLong));
    }

    #[test]
    fn templates_are_checked_without_a_sample() {
        for good in ["", "a", "{{item.x}}", "{{ sample.output_json.a.b }}", "{{sample.output_text}}"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["{{", "{{x}}", "{{item}}", "{{sample.text}}", "{{item.}}", "{{}}"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_template_breaks_it(template in "[a-z{}. ]{0,30}", sample in any::<String>()) {
            let _ = (check(&template), fill(&template, &scope(&sample)));
        }
    }
}
