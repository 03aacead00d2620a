//! A candidate's files as a job for a worker: names made safe, sizes capped.

use std::collections::BTreeSet;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Serialize;

use crate::{
    agent::{Candidate, SourceFile},
    critic::{Asset, Project, statics::SOURCE_CAP},
};

/// Longest name of one part of a path, in bytes.
const LONGEST: usize = 100;
/// Deepest folder.
const DEEPEST: usize = 8;
/// Files beyond this number do not go into the sandbox.
const MOST_FILES: usize = 200;

/// What a worker is told: one JSON line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Job {
    pub main: String,
    pub files: Vec<JobFile>,
    /// What the app may read beside its sources.
    pub assets: Vec<JobAsset>,
    #[serde(flatten)]
    pub limits: Limits,
}

/// One file, its path relative and without tricks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct JobFile {
    pub path: String,
    pub content: String,
}

/// A file of any content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct JobAsset {
    pub path: String,
    pub base64: String,
}

/// Limits of the process that runs a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Limits {
    pub memory_bytes: u64,
    pub cpu_seconds: u64,
    pub file_bytes: u64,
    pub open_files: u64,
    /// Processes and threads together.
    pub processes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 4 << 30, cpu_seconds: 15, file_bytes: 32 << 20, open_files: 512, processes: 64 }
    }
}

impl Job {
    /// The job that runs a candidate's main file; none when there is nothing to run.
    pub fn of(candidate: &Candidate) -> Option<Self> {
        Self::running(candidate, candidate.main()?, &[])
    }

    /// The job that runs an app's first file.
    pub fn of_project(project: &Project) -> Option<Self> {
        Self::running(&project.candidate, project.candidate.files.first()?, &project.assets)
    }

    fn running(candidate: &Candidate, main: &SourceFile, beside: &[Asset]) -> Option<Self> {
        let mut taken = BTreeSet::new();
        let mut main_path = None;
        let mut files = Vec::new();
        for file in candidate.files.iter().take(MOST_FILES) {
            let path = unique(safe_path(&file.path), &mut taken);
            if std::ptr::eq(file, main) {
                main_path = Some(path.clone());
            }
            if file.content.len() <= SOURCE_CAP {
                files.push(JobFile { path, content: file.content.clone() });
            }
        }
        let main = main_path.filter(|main| files.iter().any(|file| file.path == *main))?;
        let asset = |asset: &Asset| JobAsset {
            path: unique(safe_path(&asset.path), &mut taken),
            base64: BASE64_STANDARD.encode(&asset.bytes),
        };
        let assets = beside.iter().map(asset).collect();
        Some(Self { main, files, assets, limits: Limits::default() })
    }

    /// The path that the candidate gave to a file of the job, for what the app reports about it.
    pub fn original<'a>(candidate: &'a Candidate, path: &str) -> Option<&'a str> {
        let same = |file: &&SourceFile| safe_path(&file.path) == path;
        candidate.files.iter().find(same).map(|file| file.path.as_str())
    }
}

/// A relative path of plain names: no `..`, no root, no NUL, nothing longer than a file system takes.
fn safe_path(path: &str) -> String {
    let parts: Vec<String> = path.split(['/', '\\']).map(safe_name).filter(|part| !part.is_empty()).collect();
    let start = parts.len().saturating_sub(DEEPEST);
    if parts.is_empty() { "file".to_owned() } else { parts[start..].join("/") }
}

fn safe_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "._- ".contains(c) { c } else { '_' };
    let name: String = name.trim().chars().map(plain).collect();
    if name.chars().all(|c| c == '.') {
        return String::new();
    }
    // The end is kept, because it carries the extension.
    let cut = name.char_indices().rev().map(|(i, _)| i).take_while(|i| name.len() - i <= LONGEST).last();
    name[cut.unwrap_or(0)..].to_owned()
}

/// Two files of one name would overwrite each other, and a file cannot be a folder too.
fn unique(path: String, taken: &mut BTreeSet<String>) -> String {
    let clashes = |path: &str, taken: &BTreeSet<String>| {
        taken.iter().any(|other| {
            other == path || other.starts_with(&format!("{path}/")) || path.starts_with(&format!("{other}/"))
        })
    };
    let mut name = path.clone();
    let mut number = 1;
    while clashes(&name, taken) {
        number += 1;
        name = format!("{number}_{}", path.replace('/', "_"));
    }
    taken.insert(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        assert_eq!(safe_path(path), expected);
    }

    #[test]
    fn paths_are_made_safe() {
        check("app.py", "app.py");
        check("src/pages/1_Home.py", "src/pages/1_Home.py");
        check("../../etc/passwd", "etc/passwd");
        check("/etc/passwd", "etc/passwd");
        check("a\0b.py", "a_b.py");
        check("..\\..\\x.py", "x.py");
        check("", "file");
        check("./.", "file");
        check(".streamlit/config.toml", ".streamlit/config.toml");
        check(&format!("{}.py", "x".repeat(5000)), &format!("{}.py", "x".repeat(97)));
    }

    #[test]
    fn files_do_not_overwrite_each_other() {
        let file = |path: &str, content: &str| SourceFile { path: path.into(), content: content.into() };
        let candidate =
            Candidate { files: vec![file("a", "x"), file("../a", "import streamlit"), file("a/b.py", "y")] };
        let job = Job::of(&candidate).unwrap();
        let paths: Vec<&str> = job.files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["a", "2_a", "2_a_b.py"]);
        assert_eq!(job.main, "2_a_b.py");
    }

    proptest! {
        #[test]
        fn any_path_is_relative_and_short(path in any::<String>()) {
            let safe = safe_path(&path);
            prop_assert!(!safe.starts_with('/') && !safe.contains('\0') && safe.len() <= (LONGEST + 1) * DEEPEST);
            prop_assert!(safe.split('/').all(|part| !part.is_empty() && part != ".." && part != "."));
        }
    }
}
