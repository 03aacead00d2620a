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
    assert!(!ran.stderr.contains("hone init"), "{ran:?}");
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
    let faulty = run(&world, &["critique", "app.py", "gone.py", STATIC, "--sarif", "out.sarif"]);
    assert_eq!(faulty.code, 3);
    let found: Value = serde_json::from_str(&world.read("out.sarif")).unwrap();
    let invocation = &found["runs"][0]["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], false, "a reader would close what was not looked at");
    assert!(
        invocation["toolExecutionNotifications"][0]["message"]["text"].as_str().unwrap().contains("gone.py")
    );
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
fn fixes_leave_files_what_they_are() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let Some(cache) = cache("fixes_leave_files_what_they_are") else { return };
    let world = World::with_runtime(cache);
    world.write(
        "shop/app.py",
        "import os\nimport streamlit as st\nfrom parts import total\n\nst.title(total)\n",
    );
    world.write("shop/parts/__init__.py", "from parts.sums import total\n");
    world.write("shop/parts/sums.py", "import sys\ntotal = 'x'\n");
    let (app, link) = (world.path("shop/app.py"), world.path("shop/main.py"));
    std::fs::set_permissions(&app, PermissionsExt::from_mode(0o750)).unwrap();
    symlink("parts/sums.py", &link).unwrap();
    let said = ok(&world, &["critique", "shop", STATIC, "--fix", "--entry", "app.py", "--json"]);
    let value: Value = serde_json::from_str(&said).unwrap();
    assert!(value[0]["diff"].as_str().unwrap().contains("-import os\n"), "{said}");
    assert_eq!(
        world.read("shop/parts/__init__.py"),
        "from parts.sums import total\n",
        "others import from it"
    );
    assert_eq!(world.read("shop/parts/sums.py"), "total = 'x'\n");
    assert!(link.is_symlink(), "a link stays one");
    assert_eq!(std::fs::metadata(&app).unwrap().permissions().mode() & 0o777, 0o750);
}

#[test]
fn a_lone_file_finds_its_modules_and_data() {
    let Some(cache) = cache("a_lone_file_finds_its_modules_and_data") else { return };
    let world = World::with_runtime(cache);
    world.write("app.py", "import pandas as pd\nimport streamlit as st\nfrom helpers import total\nfrom parts.gone import x\nst.title('Orders')\n");
    world.write("helpers.py", "total = 1\n");
    world.write("parts/__init__.py", "");
    let value: Value = serde_json::from_str(&ok(&world, &["critique", "app.py", "--json"])).unwrap();
    let raised = value[0]["issues"].to_string();
    assert!(
        raised.contains("the app's own files do not have it") && !raised.contains("not installed"),
        "{raised}"
    );
    assert!(value[0]["sandbox_level"].as_str().unwrap().ends_with("+seccomp"), "{value}");
}

#[test]
fn what_goes_along_with_a_lone_file_has_its_own_place_and_is_not_written() {
    let Some(cache) = cache("what_goes_along_with_a_lone_file_has_its_own_place") else { return };
    let world = World::with_runtime(cache);
    let helpers = "import sys\ntotal = 1\n";
    world.write(
        "shop/app.py",
        "import os\nimport streamlit as st\nfrom helpers import total\nst.title(total)\n",
    );
    world.write("shop/helpers.py", helpers);
    ok(&world, &["critique", "shop/app.py", STATIC, "--fix", "--sarif", "out.sarif"]);
    assert!(!world.read("shop/app.py").contains("import os"));
    assert_eq!(world.read("shop/helpers.py"), helpers, "nobody named it");
    let found: Value = serde_json::from_str(&world.read("out.sarif")).unwrap();
    let unused =
        found["runs"][0]["results"].as_array().unwrap().iter().find(|r| r["ruleId"] == "g139").unwrap();
    let place = &unused["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "shop/helpers.py");
    assert_eq!(place["region"]["startLine"], 1);
}

#[test]
fn every_file_is_linted() {
    let Some(cache) = cache("every_file_is_linted") else { return };
    let world = World::with_runtime(cache);
    for n in 0..12 {
        world.write(&format!("shop/m{n:02}.py"), "def f():\n    return nowhere\n");
    }
    world.write("shop/app.py", "import streamlit as st\nst.title('x')\n");
    let said = ok(&world, &["critique", "shop", STATIC, "--json"]);
    assert!(said.contains("m11.py:2:12"), "{said}");
}

#[test]
fn an_environment_of_ones_own_is_checked_first() {
    let Some(cache) = cache("an_environment_of_ones_own_is_checked_first") else { return };
    let world = World::with_runtime(cache);
    world.write("app.py", APP);
    let ran = run(&world, &["critique", "app.py", "--python", "/usr/bin/python3"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(
        ran.stderr.contains("has no Streamlit, and 1.67 is needed") && !ran.stderr.contains("Chromium"),
        "{ran:?}"
    );
    let python = std::env::var("HONE_TEST_PYTHON").unwrap();
    ok(&world, &["critique", "app.py", "--python", &python, "--screenshots", "shots"]);
    assert_eq!(std::fs::read_dir(world.path("shots")).unwrap().count(), 2, "one of each width");
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
