//! The arrows of ARCHITECTURE.md: crates and folders import downwards only.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Folders and files of `lib/src` in the order in which they may know each other: each only what stands before it.
const ORDER: [&[&str]; 16] = [
    &["auto", "cancel", "error", "event", "text"],
    &["store"],
    &["config"],
    &["runtime"],
    &["brief"],
    &["model"],
    &["agent"],
    &["critic"],
    &["evolve"],
    &["rating"],
    &["dataset"],
    &["finetune", "trial"],
    &["registry", "calibrate"],
    &["rounds"],
    &["monitor"],
    &["plan"],
];

/// Crates in the same order.
const CRATES: [(&str, &str); 4] =
    [("engine", "hone_engine"), ("lib", "hone"), ("server", "hone_server"), ("cli", "hone_cli")];

/// What a crate may not name, although it stands before it: the product does not know the engine.
const FORBIDDEN: [(&str, &str); 1] = [("lib", "hone_engine")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// Code without line comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// First segments of every `crate::...` path, those of a grouped `use crate::{a, b::c}` included.
fn rooms_named(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            rooms.extend(group_heads(group));
        } else {
            rooms.insert(head(rest));
        }
    }
    rooms
}

fn head(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut start) = (1, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => start = true,
            c if start && depth == 1 && !c.is_whitespace() => {
                heads.push(head(&group[at..]));
                start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn level(room: &str) -> Option<usize> {
    ORDER.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn folders_of_the_library_know_only_what_stands_before_them() {
    let src = root().join("lib/src");
    let mut wrong = Vec::new();
    for path in sources(&src) {
        let inside = path.strip_prefix(&src).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if room == "lib" {
            continue;
        }
        let Some(own) = level(&room) else {
            wrong.push(format!("`{room}` has no place in the order"));
            continue;
        };
        for other in rooms_named(&code(&path)) {
            match level(&other) {
                Some(theirs) if other == room || theirs < own => {}
                Some(_) => wrong.push(format!("`{}` imports `{other}`", inside.display())),
                None => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Packages that a manifest depends on, for whatever purpose and target, by their own names.
fn packages(manifest: &str) -> BTreeSet<String> {
    fn collect(table: &toml::Table, found: &mut BTreeSet<String>) {
        for (key, value) in table {
            let Some(below) = value.as_table() else { continue };
            if key.ends_with("dependencies") {
                let own = |(name, spec): (&String, &toml::Value)| {
                    spec.get("package").and_then(toml::Value::as_str).unwrap_or(name).to_owned()
                };
                found.extend(below.iter().map(own));
            } else if key != "package" {
                collect(below, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    collect(&manifest.parse().unwrap(), &mut found);
    found
}

#[test]
fn crates_know_only_what_stands_before_them() {
    let mut wrong = Vec::new();
    for (index, (folder, _)) in CRATES.iter().enumerate() {
        let known = packages(&fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap());
        let banned = FORBIDDEN.iter().filter(|(whose, _)| whose == folder).map(|(_, name)| name);
        for name in CRATES[index + 1..].iter().map(|(_, name)| name).chain(banned) {
            if known.contains(&name.replace('_', "-")) {
                wrong.push(format!("`{folder}` depends on `{name}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_manifests_sees_every_form() {
    let manifest = r#"
        [package]
        name = "hone"
        [package.metadata.dependencies-of-nothing]
        ignored = "1"
        [dependencies]
        dotted.workspace = true
        inline = { path = "x" }
        version = "1"
        other = { package = "renamed", version = "1" }
        [dependencies.own-table]
        path = "y"
        [dev-dependencies]
        dev = "1"
        [build-dependencies]
        build = "1"
        [target.'cfg(unix)'.dependencies]
        unix = { workspace = true }
    "#;
    let names = ["dotted", "inline", "version", "renamed", "own-table", "dev", "build", "unix"];
    assert_eq!(packages(manifest), BTreeSet::from(names.map(String::from)));
}

/// The library is handed everything: it prints nothing and reads neither environment nor home.
#[test]
fn the_library_leaves_terminal_and_environment_alone() {
    let banned = ["println!", "eprintln!", "print!(", "std::env::", "env::var", "std::io::stdin", "home_dir"];
    let mut wrong = Vec::new();
    for path in sources(&root().join("lib/src")) {
        let code = code(&path);
        // Tests inside the modules may read where the runtime is.
        let product = code.split("#[cfg(test)]").next().unwrap();
        if path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests")) {
            continue;
        }
        for word in banned {
            if product.contains(word) {
                wrong.push(format!("`{}` uses `{word}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_groups_and_paths() {
    let code = "use crate::{\n agent::{Candidate, x::{y}},\n store,\n};\nfn f() { crate::model::g() }";
    let want: BTreeSet<String> = ["agent", "store", "model"].map(String::from).into();
    assert_eq!(rooms_named(code), want);
}
