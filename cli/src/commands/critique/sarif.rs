//! Critiques as SARIF 2.1.0, for editors and code scanning.

use std::{collections::BTreeMap, path::Path};

use hone::critic::{Critique, Guidelines, Issue, Severity};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::report::Place;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// The rule of an issue that cites no guideline.
const NO_RULE: &str = "hone";

/// One app: where its files are, what was found, and the text of a file.
pub struct Judged<'a> {
    /// The file, or the folder that the places are relative to.
    pub path: &'a Path,
    pub critique: &'a Critique,
    pub source: &'a dyn Fn(&str) -> Option<String>,
}

/// One run over all apps; `faults` say why others could not be judged. A run that judged only some must say so, or whoever
/// reads it takes the issues of the others for mended.
pub fn sarif(apps: &[Judged<'_>], faults: &[String]) -> Value {
    let mut rules: BTreeMap<&str, usize> = BTreeMap::new();
    for issue in apps.iter().flat_map(|app| &app.critique.issues) {
        rules.entry(rule(issue)).or_default();
    }
    rules.values_mut().enumerate().for_each(|(at, place)| *place = at);
    let results: Vec<Value> = apps
        .iter()
        .flat_map(|app| app.critique.issues.iter().map(|issue| result(app, issue, rules[rule(issue)])))
        .collect();
    let scores: Vec<Value> = apps
        .iter()
        .map(|app| json!({ "path": app.path, "score": app.critique.overall_score, "critic": app.critique.critic }))
        .collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "Hone",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules.keys().map(|id| described(id)).collect::<Vec<_>>(),
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
            "invocations": [invocation(faults)],
            "properties": { "scores": scores },
        }],
    })
}

fn invocation(faults: &[String]) -> Value {
    let notices: Vec<Value> =
        faults.iter().map(|fault| json!({ "level": "error", "message": { "text": fault } })).collect();
    match notices.is_empty() {
        true => json!({ "executionSuccessful": true }),
        false => json!({ "executionSuccessful": false, "toolExecutionNotifications": notices }),
    }
}

fn rule(issue: &Issue) -> &str {
    issue.guideline.as_deref().unwrap_or(NO_RULE)
}

fn described(id: &str) -> Value {
    match Guidelines::embedded().get(id) {
        Some(guideline) => json!({
            "id": id,
            "shortDescription": { "text": guideline.fact },
            "fullDescription": { "text": guideline.fact },
            "help": { "text": format!("{} Source: {}.", guideline.fact, guideline.source) },
            "properties": { "tags": [guideline.category] },
        }),
        None => json!({ "id": id, "shortDescription": { "text": "A finding of the critic." } }),
    }
}

fn result(app: &Judged<'_>, issue: &Issue, index: usize) -> Value {
    let level = match issue.severity {
        Severity::Critical => "error",
        Severity::Major => "warning",
        Severity::Minor => "note",
    };
    let place = Place::of(issue);
    let file = match place.path.as_str() {
        "" => app.path.to_owned(),
        path if app.path.is_dir() => app.path.join(path),
        // A lone file, or what went along with it.
        path => app.path.with_file_name(path),
    };
    let source = (app.source)(&place.path);
    let mut location = json!({ "artifactLocation": { "uri": uri(&file) } });
    if place.line > 0 {
        let mut region = json!({ "startLine": place.line, "startColumn": place.column.max(1) });
        let span = source.as_deref().and_then(|text| Some((text, place.span(text)?)));
        if let Some((text, span)) = span.filter(|(_, span)| !span.is_empty()) {
            let start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
            let column = |at: usize| text[start..at].chars().count() + 1;
            region["startColumn"] = column(span.start).into();
            region["endColumn"] = column(span.end).into();
        }
        location["region"] = region;
    }
    json!({
        "ruleId": rule(issue),
        "ruleIndex": index,
        "level": level,
        "message": { "text": issue.message },
        "locations": [{ "physicalLocation": location }],
        "partialFingerprints": { "honeIssue/v1": fingerprint(issue, &place, source.as_deref()) },
    })
}

/// The same for an issue whose line moved: rule, message without its figures, and the text of the line.
fn fingerprint(issue: &Issue, place: &Place, source: Option<&str>) -> String {
    let line = source.and_then(|text| text.lines().nth(place.line.checked_sub(1)?)).unwrap_or_default();
    let message: String = issue.message.chars().filter(|c| !c.is_ascii_digit()).collect();
    let hash = Sha256::digest([rule(issue), &place.path, &message, line.trim()].join("\0"));
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// A path as a URI: relative to the working folder where it is in it.
fn uri(path: &Path) -> String {
    let relative =
        std::env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    let path = relative.as_deref().unwrap_or(path);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let text = path.to_string_lossy().replace('\\', "/");
    let text = text.strip_prefix("./").unwrap_or(&text);
    let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let encoded: String = text.bytes().map(encode).collect();
    if encoded.starts_with('/') { format!("file://{encoded}") } else { encoded }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(at: &str, message: &str) -> Issue {
        Issue {
            severity: Severity::Major,
            message: message.into(),
            at: Some(at.into()),
            guideline: Some("g138".into()),
        }
    }

    #[test]
    fn an_issue_that_moved_keeps_its_fingerprint() {
        let of = |at: &str, message: &str, source: &str| {
            let issue = issue(at, message);
            fingerprint(&issue, &Place::of(&issue), Some(source))
        };
        let first = of("app.py:1:1", "3 controls", "st.x()\n");
        assert_eq!(first, of("app.py:3:5", "4 controls", "\n\n    st.x()\n"));
        assert_ne!(first, of("app.py:1:1", "3 controls", "st.y()\n"));
        assert_ne!(first, of("b.py:1:1", "3 controls", "st.x()\n"));
    }

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri(Path::new("./a b/\u{e9}.py")), "a%20b/%C3%A9.py");
        assert_eq!(uri(Path::new("/tmp/app.py")), "file:///tmp/app.py");
        assert_eq!(uri(&std::env::current_dir().unwrap().join("app.py")), "app.py");
    }

    #[test]
    fn columns_count_characters() {
        let text = "\u{1f600}\u{1f600} = totl\n";
        let issue = issue("app.py:1:6", "Undefined name");
        let critique = Critique { issues: vec![issue], ..Critique::default() };
        let source = |_: &str| Some(text.to_owned());
        let run = sarif(&[Judged { path: Path::new("app.py"), critique: &critique, source: &source }], &[]);
        let region = &run["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"];
        assert_eq!((&region["startColumn"], &region["endColumn"]), (&json!(6), &json!(10)));
        assert_eq!(run["runs"][0]["tool"]["driver"]["rules"][0]["id"], "g138");
    }
}
