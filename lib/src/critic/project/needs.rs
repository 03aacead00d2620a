//! Which files of its folder a source may need, by its words: modules that it imports, and texts that could name a file.
//!
//! A name too many costs nothing, because only files that are there are taken. So words are enough, and no source is too
//! deep or too broken for them.

use std::{collections::BTreeSet, sync::LazyLock};

use regex::Regex;

/// Compiled once; the patterns are constants that tests run.
fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap_or_else(|error| unreachable!("a constant pattern: {error}"))
}

static IMPORT: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?m)^[ \t]*import[ \t]+([^#;\n]+)"));
static FROM: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?m)^[ \t]*from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]+(\([\w\s,]*|[\w \t,]*)"));
static TEXT: LazyLock<Regex> = LazyLock::new(|| pattern(r#""([^"\n]{1,200})"|'([^'\n]{1,200})'"#));

/// Paths relative to the folder of the app that the file at `path` may need.
pub(super) fn names(path: &str, source: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for import in IMPORT.captures_iter(source) {
        for module in import[1].split(',') {
            add_module(&mut names, module.split_whitespace().next().unwrap_or_default());
        }
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).replace('/', ".");
    for import in FROM.captures_iter(source) {
        let Some(base) = base(&folder, import[1].len()) else { continue };
        let module = joined(base, &import[2]);
        add_module(&mut names, &module);
        for name in import[3].trim_start_matches('(').split(',') {
            add_module(&mut names, &joined(&module, name.split_whitespace().next().unwrap_or_default()));
        }
    }
    let texts = TEXT.captures_iter(source).filter_map(|found| found.get(1).or_else(|| found.get(2)));
    let within = |text: &&str| !text.starts_with('/') && text.split('/').all(|part| part != "..");
    names.extend(texts.map(|text| text.as_str()).filter(within).map(plain));
    names.remove("");
    names
}

/// A path without its empty parts and those that say "here": `.//a` is no path from the root.
fn plain(path: &str) -> String {
    path.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/")
}

/// The package that an import with so many dots starts from, in a file of package `folder`.
fn base(folder: &str, dots: usize) -> Option<&str> {
    match dots {
        0 => Some(""),
        1 => Some(folder),
        _ => base(folder.rsplit_once('.').map_or("", |(above, _)| above), dots - 1),
    }
}

fn joined(package: &str, name: &str) -> String {
    [package, name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

/// The files that a module can be, and the packages that it is in.
fn add_module(names: &mut BTreeSet<String>, module: &str) {
    let parts: Vec<&str> = module.split('.').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return;
    }
    for depth in 1..=parts.len() {
        names.insert(format!("{}/__init__.py", parts[..depth].join("/")));
    }
    names.insert(format!("{}.py", parts.join("/")));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(path: &str, source: &str, expected: &[&str]) {
        let names = names(path, source);
        for name in expected {
            assert!(names.contains(*name), "{name} in {names:?}");
        }
    }

    #[test]
    fn imports_name_files() {
        check("app.py", "import a, b.c as d", &["a.py", "b/c.py", "b/__init__.py"]);
        check("app.py", "  from a.b import (c,\n   d as e)", &["a/b.py", "a/b/c.py", "a/b/d.py"]);
        check("app.py", "from a import b\nfrom c.d import e\n", &["a/b.py", "c/d.py"]);
        check("p/q/x.py", "from . import y", &["p/q/y.py", "p/q/__init__.py"]);
        check("p/q/x.py", "from ..z import w", &["p/z.py", "p/z/w.py"]);
        check("p/x.py", "from .y import z", &["p/y.py"]);
    }

    #[test]
    fn texts_name_files_within() {
        check("app.py", "open('./data/a.csv'); st.Page(\"pages/one.py\")", &["data/a.csv", "pages/one.py"]);
        check("app.py", "open('.//data/a.csv'), open('b/./c.csv')", &["data/a.csv", "b/c.csv"]);
        let names = names("app.py", "open('/etc/passwd'); open('../x'); open('a/../../x')");
        assert!(names.is_empty(), "{names:?}");
    }

    proptest! {
        #[test]
        fn nothing_leads_out(path in "[a-z/]{0,9}", source in any::<String>(), dots in "[.]{0,5}", name in "[a-z.]{0,9}") {
            let source = format!("{source}\nfrom {dots}{name} import x\nopen('{source}')");
            for name in names(&path, &source) {
                prop_assert!(!name.starts_with('/') && name.split('/').all(|part| part != ".."), "{name}");
            }
        }
    }
}
