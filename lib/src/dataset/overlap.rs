//! Whether a brief that is to be held out was trained on.

use std::collections::BTreeSet;

use super::Manifest;
use crate::{
    brief::Brief,
    store::{self, StoreError, Workspace},
};

/// Those of `briefs` that the workspace's dataset was made from: by id or family as its manifest says, or by their very
/// words in a row. Without a dataset there are none.
///
/// # Errors
/// When the dataset is there and cannot be read.
pub fn trained_on<'a>(workspace: &Workspace, briefs: &'a [Brief]) -> Result<Vec<&'a Brief>, StoreError> {
    let rows = match workspace.dataset() {
        path if path.exists() => store::read_text(&path)?,
        _ => return Ok(Vec::new()),
    };
    // A manifest that cannot be read vouches for nothing; the words are still there.
    let manifest: Option<Manifest> =
        store::read_text(&workspace.manifest()).ok().and_then(|text| serde_json::from_str(&text).ok());
    let records = manifest.iter().flat_map(|manifest| &manifest.rows);
    let names: BTreeSet<&str> = records.flat_map(|row| [row.brief.as_str(), row.family.as_str()]).collect();
    let trained = |brief: &&Brief| {
        let named = names.contains(brief.id.as_str()) || names.contains(brief.family.as_str());
        named || rows.contains(&escaped(&brief.description))
    };
    Ok(briefs.iter().filter(trained).collect())
}

/// A text as it stands inside a JSON string.
fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::PrepareOptions;

    fn brief(id: &str, family: &str, description: &str) -> Brief {
        let value = serde_json::json!({"id": id, "family": family, "description": description});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn ids_families_and_words_tell() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(folder.path());
        let briefs = [
            brief("a-1", "a", "nothing alike"),
            brief("b-1", "b", "nothing alike either"),
            brief("c-1", "c", "the \"very\" words"),
            brief("d-1", "d", "free"),
        ];
        assert!(trained_on(&workspace, &briefs).unwrap().is_empty(), "there is no dataset yet");
        let row = serde_json::json!({"messages": [{"role": "user", "content": "Make: the \"very\" words"}]});
        store::write_atomic(&workspace.dataset(), row.to_string().as_bytes()).unwrap();
        let ids = |found: Vec<&Brief>| found.iter().map(|b| b.id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(trained_on(&workspace, &briefs).unwrap()), ["c-1"]);
        let record = |brief: &str, family: &str| {
            serde_json::json!({"split": "train", "line": 1, "row": "positive", "brief": brief, "family": family,
                "log": "x.json", "iteration": 1, "score": 9.0, "model": "m", "tokens": 1})
        };
        let manifest = serde_json::json!({"format": "hone.dataset", "version": 1, "critic": "1", "level": "run",
            "options": PrepareOptions::default(), "prompt_sha256": "", "dataset_sha256": "",
            "examples": {"positive": 2, "improvement": 0, "preference": 0}, "tokens": 2,
            "rows": [record("a-1", "x"), record("b-9", "b")], "dropped": [], "bad_logs": []});
        store::write_json(&workspace.manifest(), &manifest).unwrap();
        assert_eq!(ids(trained_on(&workspace, &briefs).unwrap()), ["a-1", "b-1", "c-1"]);
    }
}
