//! Reading files of briefs: JSON lines, or plain text with one description a line.
//!
//! All problems of a file are found in one pass and reported together, since mending a file one complaint at a time is
//! tedious. Nothing of a file is used when a line is wrong.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{Brief, BriefError, BriefId, Fault, Problem, RawBrief, shipped_heldout, shipped_sealed};
use crate::store::Workspace;

/// How many problems of a file are listed; the others are counted.
pub const MAX_PROBLEMS: usize = 20;

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Loads the briefs of a file, in file order.
///
/// # Errors
/// [`BriefError`] when the file cannot be read, holds no brief, or any line of it is wrong.
pub fn load(path: &Path) -> Result<Vec<Brief>, BriefError> {
    parse(path, &read(path)?)
}

/// The held-out briefs of a workspace: its own, or the shipped ones where it has no file of them.
///
/// # Errors
/// As [`load`].
pub fn load_heldout(workspace: &Workspace) -> Result<Vec<Brief>, BriefError> {
    own_or(&workspace.heldout_briefs(), shipped_heldout)
}

/// The sealed briefs of a workspace: its own, or the shipped ones where it has no file of them.
///
/// # Errors
/// As [`load`].
pub fn load_sealed(workspace: &Workspace) -> Result<Vec<Brief>, BriefError> {
    own_or(&workspace.sealed_briefs(), shipped_sealed)
}

/// All that nothing of a workspace may be trained on: its held-out briefs, then its sealed ones.
///
/// # Errors
/// As [`load`].
pub fn kept_apart(workspace: &Workspace) -> Result<Vec<Brief>, BriefError> {
    Ok([load_heldout(workspace)?, load_sealed(workspace)?].concat())
}

fn own_or(path: &Path, shipped: fn() -> Vec<Brief>) -> Result<Vec<Brief>, BriefError> {
    if path.exists() { load(path) } else { Ok(shipped()) }
}

/// Reads at most [`MAX_FILE_BYTES`]. The size is not asked for beforehand: a pipe does not know its own.
fn read(path: &Path) -> Result<Vec<u8>, BriefError> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => BriefError::Missing { path: path.to_owned() },
        io::ErrorKind::IsADirectory => BriefError::Directory { path: path.to_owned() },
        _ => BriefError::Unreadable { path: path.to_owned(), cause: error.to_string() },
    };
    if path.is_dir() {
        return Err(BriefError::Directory { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(BriefError::FileTooLarge { path: path.to_owned(), limit: MAX_FILE_BYTES });
    }
    Ok(bytes)
}

/// Parses the content of a file of briefs; `path` decides the format by its ending and names the file in errors.
///
/// Endings `.jsonl`, `.ndjson` and `.json` mean JSON lines; otherwise a first line that starts with `{` does. A byte
/// order mark and blank lines are skipped.
///
/// # Errors
/// As [`load`], without those of reading.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Brief>, BriefError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let first = bytes.trim_ascii_start().first().copied();
    let format = format_of(path, first);
    if format == Format::JsonLines && first == Some(b'[') {
        return Err(BriefError::JsonArray { path: path.to_owned() });
    }
    let (briefs, mut problems) = parse_lines(format, bytes);
    if problems.is_empty() {
        return if briefs.is_empty() { Err(BriefError::Empty { path: path.to_owned() }) } else { Ok(briefs) };
    }
    let more = problems.len().saturating_sub(MAX_PROBLEMS);
    problems.truncate(MAX_PROBLEMS);
    Err(BriefError::Invalid { path: path.to_owned(), problems, more })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    JsonLines,
    Text,
}

fn format_of(path: &Path, first: Option<u8>) -> Format {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let says_json = ["jsonl", "ndjson", "json"].iter().any(|json| ending.eq_ignore_ascii_case(json));
    if says_json || first == Some(b'{') { Format::JsonLines } else { Format::Text }
}

fn parse_lines(format: Format, bytes: &[u8]) -> (Vec<Brief>, Vec<Problem>) {
    let mut briefs = Vec::new();
    let mut problems = Vec::new();
    let mut seen = Seen::default();
    for (line, content) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
        let parsed = parse_line(format, content).and_then(|parsed| seen.check(line, parsed));
        match parsed {
            Ok(brief) => briefs.extend(brief),
            Err(fault) => problems.push(Problem { line, fault }),
        }
    }
    (briefs, problems)
}

/// A line's brief and whether it named its id itself; `None` for a blank line.
type Parsed = Option<(Brief, bool)>;

fn parse_line(format: Format, line: &[u8]) -> Result<Parsed, Fault> {
    let text = std::str::from_utf8(line).map_err(|error| Fault::NotUtf8 { byte: error.valid_up_to() + 1 })?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let raw = match format {
        Format::JsonLines => raw_from_json(text)?,
        Format::Text => RawBrief { description: Some(text.to_owned()), ..RawBrief::default() },
    };
    let named = raw.id.is_some();
    Ok(Some((Brief::try_from(raw)?, named)))
}

fn raw_from_json(text: &str) -> Result<RawBrief, Fault> {
    // Checked here, since the derived reader takes an array for a struct too.
    if !text.trim_start().starts_with('{') {
        return Err(Fault::NotAnObject);
    }
    serde_json::from_str(text)
        .map_err(|error| Fault::Json { column: error.column(), cause: without_position(&error) })
}

/// The message without serde_json's "at line 1 column 5": its line is not the file's.
fn without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    message.strip_suffix(&position).unwrap_or(&message).to_owned()
}

/// The lines on which ids were met.
#[derive(Default)]
struct Seen(HashMap<BriefId, usize>);

impl Seen {
    fn check(&mut self, line: usize, parsed: Parsed) -> Result<Option<Brief>, Fault> {
        let Some((brief, named)) = parsed else { return Ok(None) };
        match self.0.get(&brief.id) {
            Some(&first) if named => Err(Fault::DuplicateId { id: brief.id.to_string(), first }),
            Some(&first) => Err(Fault::DuplicateDescription { first }),
            None => {
                self.0.insert(brief.id.clone(), line);
                Ok(Some(brief))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::error::Explain;

    fn jsonl(text: impl AsRef<[u8]>) -> Result<Vec<Brief>, BriefError> {
        parse(Path::new("my.jsonl"), text.as_ref())
    }

    fn check_error(result: Result<Vec<Brief>, BriefError>, expected: Expect) {
        let error = result.expect_err("an error");
        expected.assert_eq(&format!("error: {error}\nhint: {}", error.hint().unwrap()));
    }

    fn descriptions(briefs: &[Brief]) -> Vec<&str> {
        briefs.iter().map(|brief| brief.description.as_str()).collect()
    }

    #[test]
    fn json_lines() {
        let briefs = jsonl(
            "\u{feff}{\"id\":\"a\",\"kind\":\"form\",\"family\":\"f\",\"description\":\" a form \",\"framework\":\"streamlit\",\"requirements\":[\"x\",\" \"],\"new\":1}\r\n\n{\"description\":\"two\"}",
        )
        .unwrap();
        assert_eq!(descriptions(&briefs), ["a form", "two"]);
        assert_eq!(briefs[0].framework.as_deref(), Some("Streamlit"));
        assert_eq!(briefs[0].requirements, ["x"]);
        assert_eq!((briefs[1].kind.as_str(), briefs[1].family.as_str()), ("", briefs[1].id.as_str()));
    }

    #[test]
    fn another_framework_is_refused_by_line() {
        check_error(
            jsonl("{\"description\":\"a\"}\n{\"description\":\"b\",\"framework\":\"React\"}"),
            expect![[r#"
                error: `my.jsonl` has a problem on line 2: framework `React` is not supported yet
                hint: leave it out, or say `Streamlit`; others come later"#]],
        );
    }

    #[test]
    fn plain_text_takes_a_description_a_line() {
        let briefs = parse(Path::new("my.txt"), b"a contact form\r\n\r\n  a quiz, please  \n").unwrap();
        assert_eq!(descriptions(&briefs), ["a contact form", "a quiz, please"]);
        assert!(briefs[0].id.as_str().starts_with("a-contact-form-"));
    }

    #[test]
    fn json_is_recognised_without_its_ending() {
        assert_eq!(descriptions(&parse(Path::new("-"), b"\n {\"description\":\"d\"}").unwrap()), ["d"]);
    }

    #[test]
    fn every_wrong_line_is_named_at_once() {
        let long = format!("{{\"id\":\"long\",\"description\":\"{}\"}}", "x".repeat(100_000));
        let lines = [
            r#"{"id":"a","description":"one"}"#,
            r#"{"id":"b","description":"two""#,
            r#"{"id":"a","description":"three"}"#,
            r#"{"id":"../etc/passwd","description":"four"}"#,
            r#"{"id":"c","description":"  "}"#,
            r#"{"id":"d"}"#,
            r#"["e","form","f","five",null,null]"#,
            r#"{"id":"f","description":7}"#,
            "not json",
            &long,
            r#"{"description":"same"}"#,
            r#"{"description":"same"}"#,
            "\"text\"",
        ];
        check_error(
            jsonl(lines.join("\n")),
            expect![[r#"
                error: `my.jsonl` has 11 problems
                  line 2: column 29: EOF while parsing an object
                  line 3: id `a` is used on line 1 already
                  line 4: unsafe id "../etc/passwd": only a-z, 0-9, `.`, `_` and `-` are allowed
                  line 5: the description is empty
                  line 6: no "description"
                  line 7: not a JSON object
                  line 8: column 25: invalid type: integer `7`, expected a string
                  line 9: not a JSON object
                  line 10: the brief has 100000 bytes, at most 32768 (32 kB) are allowed
                  line 12: the description of line 11 again
                  line 13: not a JSON object
                hint: each line is one whole JSON object; line breaks inside a text are written \n"#]],
        );
    }

    #[test]
    fn problems_past_the_limit_are_counted() {
        let error = jsonl("{}\n".repeat(23)).unwrap_err();
        assert!(matches!(&error, BriefError::Invalid { problems, more: 3, .. } if problems.len() == 20));
        assert!(error.to_string().starts_with("`my.jsonl` has 23 problems"));
        assert!(error.to_string().ends_with("and 3 more"));
    }

    #[test]
    fn invalid_utf8_names_line_and_byte() {
        check_error(
            parse(Path::new("my.txt"), b"fine\nna\xefve\n"),
            expect![[r#"
            error: `my.txt` has a problem on line 2: byte 3 is not valid UTF-8
            hint: save the file as UTF-8"#]],
        );
    }

    #[test]
    fn empty_files() {
        check_error(
            jsonl(""),
            expect![[r#"
            error: `my.jsonl` holds no brief
            hint: write one description a line, or JSON lines like {"id":"form-1","description":"a contact form"}"#]],
        );
        assert!(matches!(jsonl(" \n\r\n\t"), Err(BriefError::Empty { .. })));
        assert!(matches!(jsonl("\u{feff}"), Err(BriefError::Empty { .. })));
    }

    #[test]
    fn an_array_is_not_json_lines() {
        check_error(
            parse(Path::new("my.json"), b"[\n{\"id\":\"a\"}]"),
            expect![[r#"
                error: `my.json` starts like a JSON array, not like JSON lines
                hint: put one object on each line: jq -c '.[]' my.json > my.lines.jsonl"#]],
        );
    }

    #[test]
    fn a_brief_of_100_kb_is_refused_wherever_it_comes_from() {
        let text = "word ".repeat(20_000);
        check_error(
            Brief::from_description(&text).map(|brief| vec![brief]),
            expect![[r#"
            error: the brief has 99999 bytes, at most 32768 (32 kB) are allowed
            hint: describe the UI in words; data and documents do not belong in a brief"#]],
        );
        assert!(parse(Path::new("my.txt"), text.as_bytes()).is_err());
        let requirement = serde_json::json!({"description": "short", "requirements": [text]});
        assert!(jsonl(requirement.to_string()).is_err());
        assert!(Brief::from_description(&"x".repeat(super::super::MAX_BRIEF_BYTES)).is_ok());
    }

    #[test]
    fn paths_that_are_no_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(dir.path()), Err(BriefError::Directory { .. })));
        assert!(matches!(load(&dir.path().join("none.jsonl")), Err(BriefError::Missing { .. })));
        let file = dir.path().join("briefs.jsonl");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(load(&file), Err(BriefError::Empty { .. })));
        assert!(load(&file.join("below")).unwrap_err().hint().is_some());
        check_error(
            load(&PathBuf::from("no/such.jsonl")),
            expect![[r#"
            error: no such file: `no/such.jsonl`
            hint: run `hone init` for the shipped briefs, or give a file with --briefs"#]],
        );
    }

    #[test]
    fn a_workspace_keeps_apart_its_own_briefs_or_the_shipped_ones() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(dir.path());
        let apart = || kept_apart(&workspace).unwrap();
        assert_eq!(apart(), [shipped_heldout(), shipped_sealed()].concat());
        let write = |path: &Path, text: &str| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let own = |text: &str| Brief::from_description(text).unwrap();
        write(&workspace.sealed_briefs(), "{\"description\":\"a tide table\"}\n");
        assert_eq!(apart(), [shipped_heldout(), vec![own("a tide table")]].concat());
        write(&workspace.heldout_briefs(), "{\"description\":\"a moon table\"}\n");
        assert_eq!(apart(), [own("a moon table"), own("a tide table")]);
        write(&workspace.sealed_briefs(), "");
        assert!(matches!(kept_apart(&workspace), Err(BriefError::Empty { .. })));
    }

    #[test]
    fn an_endless_file_is_given_up() {
        assert!(matches!(load(Path::new("/dev/zero")), Err(BriefError::FileTooLarge { .. })));
    }

    fn round_trips(briefs: &[Brief]) -> bool {
        let text: String = briefs.iter().map(|brief| serde_json::to_string(brief).unwrap() + "\n").collect();
        jsonl(text).is_ok_and(|again| again == briefs)
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), json in any::<bool>()) {
            let path = Path::new(if json { "x.jsonl" } else { "x.txt" });
            match parse(path, &bytes) {
                Ok(briefs) => {
                    prop_assert!(!briefs.is_empty());
                    prop_assert!(round_trips(&briefs));
                }
                Err(error) => {
                    prop_assert!(error.hint().is_some());
                    prop_assert!(error.to_string().contains(path.to_str().unwrap()));
                }
            }
        }

        #[test]
        fn whatever_loads_has_a_safe_id_and_comes_back(
            fields in prop::collection::vec(("[a-zA-Z0-9./_-]{0,6}", any::<String>(), any::<Option<String>>(), any::<Vec<String>>()), 1..6)
        ) {
            let text: String = fields.iter().map(|(id, description, framework, requirements)| {
                serde_json::json!({"id": id, "description": description, "framework": framework, "requirements": requirements})
                    .to_string() + "\n"
            }).collect();
            if let Ok(briefs) = jsonl(&text) {
                prop_assert_eq!(briefs.len(), fields.len());
                prop_assert!(briefs.iter().all(|brief| BriefId::new(brief.id.as_str()).is_ok()));
                prop_assert!(briefs.iter().all(|brief| !brief.description.trim().is_empty()));
                prop_assert!(round_trips(&briefs));
            }
        }

        #[test]
        fn any_text_is_a_brief_or_says_why(text in any::<String>()) {
            match Brief::from_description(&text) {
                Ok(brief) => prop_assert_eq!(brief.description, text.trim()),
                Err(error) => prop_assert!(matches!(error, BriefError::Description(Fault::EmptyDescription))),
            }
        }
    }
}
