//! `hone critique` as people use it: folders, several paths, SARIF, fixes. Static where execution is not the point.

use std::process::Command;

use serde_json::Value;

use crate::harness::{Ran, World, cache};

const STATIC: &str = "--static-only";
const APP: &str = "import os\nimport streamlit as st\n\nst.title('Orders')\n@st.cache\ndef rows():\n    return [1, 2]\n\nst.write(rows(), totl)\n";

/// In the world's own folder, as people do.
fn run(world: &World, arguments: &[&str]) -> Ran {
    let mut command = world.command(arguments);
    command.current_dir(world.root());
    Ran::from(command)
}

fn ok(world: &World, arguments: &[&str]) -> String {
    let ran = run(world, arguments);
    assert_eq!(ran.code, 0, "{arguments:?}\n{ran:?}");
    ran.stdout
}

#[test]
fn a_report_shows_the_lines() {
    let Some(cache) = cache("a_report_shows_the_lines") else { return };
    let world = World::with_runtime(cache);
    world.write("app.py", APP);
    let said = ok(&world, &["critique", "app.py", STATIC]);
    for part in [
        "app.py  ",
        " of 10",
        "at most 5.0: the code was not executed",
        "critical[g138]: Undefined name `totl`",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(said.contains("9 | st.write(rows(), totl)") && said.contains("^^^^"), "{said}");
    assert!(!said.contains('\u{1b}'), "no colour where there is no terminal");
}

#[test]
fn one_fault_does_not_lose_the_others() {
    let Some(cache) = cache("one_fault_does_not_lose_the_others") else { return };
    let world = World::with_runtime(cache);
    world.write("app.py", APP);
    world.write("bad.py", [b'x', 0xff]);
    std::os::unix::fs::symlink("/dev/zero", world.path("zero.py")).unwrap();
    let ran = run(&world, &["critique", "none.py", "app.py", "bad.py", "zero.py", STATIC, "--json"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    let value: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(value.as_array().unwrap().len(), 1);
    for part in ["none.py", "byte 1 cannot be read", "neither a file nor a folder"] {
        assert!(ran.stderr.contains(part), "{part} in {}", ran.stderr);
    }
}

#[test]
fn strange_sources_are_findings() {
    let Some(cache) = cache("strange_sources_are_findings") else { return };
    let world = World::with_runtime(cache);
    let big = format!("import streamlit as st\n{}", "st.write('x')\n".repeat(360_000));
    let deep = format!("import streamlit as st\nx = {}1{}\n", "(".repeat(30_000), ")".repeat(30_000));
    let minus = format!("import streamlit as st\nx = {}1\n", "-".repeat(60_000));
    let nul = "import streamlit as st\nst.title('a\0b')\0\n".to_owned();
    let bom = format!("\u{feff}{}", APP.replace('\n', "\r\n"));
    for (name, source) in
        [("big", big), ("deep", deep), ("minus", minus), ("nul", nul), ("bom", bom), ("none", String::new())]
    {
        let path = format!("{name}.py");
        world.write(&path, &source);
        let ran = run(&world, &["critique", &path, STATIC, "--json"]);
        assert_eq!(ran.code, 0, "{name}: {}", ran.stderr);
        let value: Value = serde_json::from_str(&ran.stdout).unwrap();
        let issues = value[0]["issues"].as_array().unwrap();
        assert!(
            !issues.is_empty() && issues.iter().all(|issue| issue["guideline"].is_string()),
            "{name}: {issues:?}"
        );
        let shown = run(&world, &["critique", &path, STATIC]);
        assert_eq!(shown.code, 0, "{name}: {}", shown.stderr);
        assert!(shown.stdout.len() < 40_000, "{name}: {} bytes", shown.stdout.len());
    }
}

#[test]
fn sarif_is_what_the_standard_says() {
    let Some(cache) = cache("sarif_is_what_the_standard_says") else { return };
    let python = std::env::var("HONE_TEST_PYTHON").unwrap();
    let world = World::with_runtime(cache);
    world.write("app.py", APP);
    world.write("my app/app.py", APP.replace("totl", "caf\u{e9}"));
    ok(&world, &["critique", "app.py", "my app", STATIC, "--sarif", "out.sarif"]);
    let found: Value = serde_json::from_str(&world.read("out.sarif")).unwrap();
    let results = found["runs"][0]["results"].as_array().unwrap();
    let uris = results
        .iter()
        .map(|r| r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].as_str().unwrap());
    let uris: std::collections::BTreeSet<&str> = uris.collect();
    assert_eq!(uris.into_iter().collect::<Vec<_>>(), ["app.py", "my%20app/app.py"]);
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sarif-schema-2.1.0.json");
    let check = "import json, jsonschema, sys\nschema, found = (json.load(open(p)) for p in sys.argv[1:])\njsonschema.Draft7Validator(schema).validate(found)";
    let checked =
        Command::new(python).args(["-c", check, schema]).arg(world.path("out.sarif")).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn fixes_are_shown_before_they_are_made() {
    let Some(cache) = cache("fixes_are_shown_before_they_are_made") else { return };
    let world = World::with_runtime(cache);
    world.write("app.py", APP);
    let shown = ok(&world, &["critique", "app.py", STATIC, "--diff"]);
    assert!(shown.contains("-import os\n") && shown.contains("+@st.cache_data\n"), "{shown}");
    assert_eq!(world.read("app.py"), APP, "nothing is written");
    ok(&world, &["critique", "app.py", STATIC, "--fix"]);
    let fixed = APP.replace("import os\n", "").replace("@st.cache\n", "@st.cache_data\n");
    assert_eq!(world.read("app.py"), fixed);
    let again = ok(&world, &["critique", "app.py", STATIC, "--fix"]);
    assert!(!again.contains("@@"), "nothing is left to mend: {again}");
}

#[test]
fn a_folder_is_one_app_with_pages_and_data() {
    let Some(cache) = cache("a_folder_is_one_app_with_pages_and_data") else { return };
    let world = World::with_runtime(cache);
    let main = "import pandas as pd\nimport streamlit as st\nfrom parts.total import total\nst.title('Orders')\nst.dataframe(pd.read_csv('data/a.csv'))\nst.metric('Total', total([1, 2]))\nst.image('pixel.png')\n";
    world.write("shop/app.py", main);
    world.write("shop/parts/total.py", "def total(rows):\n    return sum(rows)\n");
    world.write("shop/data/a.csv", "a,b\n1,2\n");
    world.write("shop/requirements.txt", "streamlit\npandas\n");
    // One red pixel.
    world.write("shop/pixel.png", PIXEL);
    world.write("shop/pages/1_More.py", "import streamlit as st\nimport sklearn\n");
    let value = serde_json::from_str::<Value>(&ok(&world, &["critique", "shop", "--json"])).unwrap();
    assert_eq!(value[0]["level"], "browser", "{value}");
    assert_eq!(value[0]["pages"][0]["status"], "error", "{value}");
    let messages: Vec<&str> =
        value[0]["issues"].as_array().unwrap().iter().filter_map(|issue| issue["message"].as_str()).collect();
    assert!(
        messages.iter().any(|m| m.contains("`More` raises") && m.contains("`scikit-learn` is not installed")),
        "{messages:?}"
    );
    assert!(
        !messages.iter().any(|m| m.contains("first run raises") || m.contains("configuration")),
        "{messages:?}"
    );
}

const PIXEL: &[u8] = &[
    0x89, b'P', b'N', b'G', 13, 10, 26, 10, 0, 0, 0, 13, b'I', b'H', b'D', b'R', 0, 0, 0, 1, 0, 0, 0, 1, 8,
    2, 0, 0, 0, 0x90, 0x77, 0x53, 0xde, 0, 0, 0, 12, b'I', b'D', b'A', b'T', 8, 0xd7, 0x63, 0xf8, 0xcf, 0xc0,
    0, 0, 3, 1, 1, 0, 0x18, 0xdd, 0x8d, 0xb0, 0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82,
];
