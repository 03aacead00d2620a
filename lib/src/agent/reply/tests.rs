//! Replies as models of all sizes write them, and properties over replies that none has written yet.

use proptest::prelude::*;

use super::{super::reply_of, *};
use crate::agent::SourceFile;

const APP: &str = "import streamlit as st\n\nst.title(\"Hi\")";

/// Checks the files of a reply; contents without their final newline.
#[track_caller]
fn check(reply: &str, expected: &[(&str, &str)]) {
    let files = parse_reply(reply).files;
    let read: Vec<(&str, &str)> = files
        .iter()
        .map(|f| (f.path.as_str(), f.content.strip_suffix('\n').unwrap_or("no newline")))
        .collect();
    assert_eq!(read, expected, "reply:\n{reply}");
}

/// Checks that a reply is the app alone, under a name.
#[track_caller]
fn check_app(reply: &str, path: &str) {
    check(reply, &[(path, APP)]);
}

#[test]
fn one_fenced_block_with_any_tag() {
    for tag in [
        "",
        "python",
        "py",
        "Python",
        "python3",
        "streamlit",
        "{python}",
        "{.python .numberLines}",
        "text",
        "rust",
    ] {
        check_app(&format!("```{tag}\n{APP}\n```"), "app.py");
        check_app(&format!("~~~{tag}\n{APP}\n~~~\n"), "app.py");
        check_app(&format!("Here is the app:\n\n```{tag}\n{APP}\n```\n\nEnjoy it!"), "app.py");
    }
}

#[test]
fn prose_is_known_without_being_taken_apart() {
    for prose in [
        "",
        "The capital of France is Paris.",
        "Import tariffs rose. e.g. import duties, from there to here",
        "Run app.py now; then it holds that x = 3, or\n  x equals = 4",
        "1. First\n2. Second\n\n- a point: more",
    ] {
        assert!(!may_hold_files(prose), "{prose}");
        check(prose, &[]);
    }
    for files in
        ["# requirements.txt\nstreamlit", "requirements.txt:\nstreamlit", "\u{feff}import os\rx", "```\n"]
    {
        assert!(may_hold_files(files), "{files}");
    }
}

#[test]
fn names_in_the_info_string() {
    for info in [
        "python title=\"ui.py\"",
        "python filename=\"ui.py\"",
        "python file=ui.py",
        "python ui.py",
        "python:ui.py",
        "ui.py",
        "py path=\"ui.py\"",
        "python (ui.py)",
        "python # ui.py",
        "python {filename: ui.py}",
        "1:20:ui.py",
        "python -- ui.py",
    ] {
        check_app(&format!("```{info}\n{APP}\n```"), "ui.py");
    }
    check_app(&format!("```python:src/pages/ui.py\n{APP}\n```"), "src/pages/ui.py");
}

#[test]
fn names_in_the_first_line() {
    for line in [
        "# ui.py",
        "#ui.py",
        "# FILE: ui.py",
        "# file: ui.py",
        "# File: ui.py",
        "# Filename: ui.py",
        "// ui.py",
        "ui.py",
        "<!-- ui.py -->",
        "# ui.py - the page",
        "# ui.py: the page",
        "# === ui.py ===",
        "# path: ui.py",
        "## ui.py",
        "# `ui.py`",
    ] {
        check_app(&format!("```python\n{line}\n{APP}\n```"), "ui.py");
        check_app(&format!("```python\n\n{line}\n\n{APP}\n\n```"), "ui.py");
    }
}

#[test]
fn names_on_the_line_before() {
    for line in [
        "ui.py",
        "**ui.py**",
        "**ui.py:**",
        "### ui.py",
        "`ui.py`:",
        "`ui.py`",
        "1. **ui.py**",
        "### 2. `ui.py` - the page",
        "File: ui.py",
        "# FILE: ui.py",
        "// ui.py",
        "<!-- ui.py -->",
        "Save this as `ui.py`:",
        "Create a file called ui.py with this:",
        "**File: `ui.py`**",
        "- `ui.py`",
        "Here is the code for **ui.py**:",
        "<file path=\"ui.py\">",
        "ui.py:\n",
        "### ui.py\n\nThe page itself, with its title:\n",
    ] {
        check_app(&format!("Sure!\n\n{line}\n```python\n{APP}\n```\nDone."), "ui.py");
        check_app(&format!("{line}\n\n```\n{APP}\n```"), "ui.py");
    }
}

#[test]
fn what_is_no_name() {
    check_app(&format!("Run it with `streamlit run main.py`:\n```python\n{APP}\n```"), "app.py");
    check_app(&format!("Move things from a.py to b.py:\n```python\n{APP}\n```"), "app.py");
    check_app(&format!("Files:\n- ui.py\n- config.py\n\n```python\n{APP}\n```"), "app.py");
    check_app(&format!("It reads `data.csv`:\n```python\n{APP}\n```"), "app.py");
    check(
        "```python\nimport streamlit as st\n# see config.py\nst.write(1)\n```",
        &[("app.py", "import streamlit as st\n# see config.py\nst.write(1)")],
    );
}

#[test]
fn configuration_first() {
    let reply = "```python\n# config.py\nCOLORS = {\"primary\": \"#1976D2\"}\n\n# requirements.txt\nstreamlit>=1.28.0\n```";
    check(
        reply,
        &[("config.py", "COLORS = {\"primary\": \"#1976D2\"}"), ("requirements.txt", "streamlit>=1.28.0")],
    );
}

#[test]
fn several_files_in_one_block() {
    check(
        "```python\n# config.py\nA = 1\n# app.py\nimport streamlit as st\nst.write(A)\n# .streamlit/config.toml\n[theme]\nbase = \"dark\"\n```",
        &[
            ("config.py", "A = 1"),
            ("app.py", "import streamlit as st\nst.write(A)"),
            (".streamlit/config.toml", "[theme]\nbase = \"dark\""),
        ],
    );
    check(
        "```\n# FILE: a.py\nx = 1\n# FILE: b.py\ny = '''\n# c.py\n'''\n    # d.py\n```",
        &[("a.py", "x = 1"), ("b.py", "y = '''\n# c.py\n'''\n    # d.py")],
    );
    check(
        "```python\n# -*- coding: utf-8 -*-\n# app.py\nst.write(1)\n```",
        &[("app.py", "# -*- coding: utf-8 -*-\nst.write(1)")],
    );
    check(
        "```python\nst.write(1)\n\n# ==== utils.py ====\nx = 1\n```",
        &[("app.py", "st.write(1)"), ("utils.py", "x = 1")],
    );
}

#[test]
fn several_blocks() {
    check(
        &format!(
            "**requirements.txt**\n```\nstreamlit\n```\n\n**app.py**\n```python\n{APP}\n```\n\nRun:\n```bash\nstreamlit run app.py\n```"
        ),
        &[("requirements.txt", "streamlit"), ("app.py", APP)],
    );
    check(
        &format!(
            "```python\n{APP}\n```\nand\n```python\nx = 1\n```\nand\n```python\ny = 1\n```\n```python\nst.write(1)\n```"
        ),
        &[("app.py", APP), ("script.py", "x = 1"), ("script2.py", "y = 1"), ("script3.py", "st.write(1)")],
    );
    check(
        "```toml\n[theme]\nbase = \"dark\"\n```\n```css\na { }\n```\n```json\n{\"a\": 1}\n```\n```yaml\na: 1\n```\n```html\n<p>\n```\n```sql\nselect 1\n```",
        &[
            (".streamlit/config.toml", "[theme]\nbase = \"dark\""),
            ("style.css", "a { }"),
            ("data.json", "{\"a\": 1}"),
            ("config.yaml", "a: 1"),
            ("index.html", "<p>"),
            ("query.sql", "select 1"),
        ],
    );
    check("```\nstreamlit>=1.28\npandas\n```", &[("requirements.txt", "streamlit>=1.28\npandas")]);
}

#[test]
fn the_order_is_the_replys() {
    check(
        &format!("```python\n# b.py\nx = 1\n```\n```python\n{APP}\n```\n```python\n# a.py\ny = 1\n```"),
        &[("b.py", "x = 1"), ("app.py", APP), ("a.py", "y = 1")],
    );
}

#[test]
fn blocks_that_are_no_files() {
    check("```bash\npip install streamlit\nstreamlit run app.py\n```", &[]);
    check("```\nproject/\n├── app.py\n└── config.py\n```", &[]);
    check("```\nThis is an app that shows a title.\n```", &[]);
    check("```python\n```", &[]);
    check("```", &[]);
    check("### install.sh\n```bash\npip install streamlit\n```", &[("install.sh", "pip install streamlit")]);
    check(
        &format!("### app.py\n```python\n{APP}\n```\n### app.py\n```bash\nstreamlit run app.py\n```"),
        &[("app.py", APP)],
    );
}

#[test]
fn prose_alone_is_no_file() {
    check("", &[]);
    check("   \n\n", &[]);
    check("I cannot help with that.", &[]);
    check("Create a Streamlit UI: a contact form with name and email. The form should have two fields.", &[]);
    check(
        "To build a dashboard:\n\n1. import the data\n2. from the data, draw charts\n3. define the layout: two columns",
        &[],
    );
    check("- app.py: the app\n- config.py: the settings\n", &[]);
    check("### app.py\nThis file holds the page.\n### requirements.txt\nThis lists the packages.", &[]);
}

#[test]
fn code_without_fences() {
    check_app(APP, "app.py");
    check_app(&format!("\n\n{APP}\n\n\n"), "app.py");
    check_app(
        &format!("Here is the app:\n\n{APP}\n\nThis app shows a title. You can run it with Streamlit.\n"),
        "app.py",
    );
    check_app(&format!("# ui.py\n{APP}"), "ui.py");
    check_app(&format!("ui.py\n\n{APP}"), "ui.py");
    check_app(&format!("**ui.py**\n{APP}\n\nI hope this helps!"), "ui.py");
    check_app(&format!("{APP}\n```"), "app.py");
    check_app(&format!("{APP}\n```\n\nThis shows a title."), "app.py");
    check_app(&format!("<file path=\"ui.py\">\n{APP}\n</file>"), "ui.py");
    let indented = APP.replace("import", "    import").replace("\nst", "\n    st");
    check_app(&format!("The code:\n\n{indented}\n\nThat is all there is to it."), "app.py");
    check("print(\"Hello\")", &[("script.py", "print(\"Hello\")")]);
    check(
        "# FILE: config.py\nTITLE = \"x\"\n\n# FILE: app.py\nimport streamlit as st\nst.title(TITLE)\n\n# FILE: requirements.txt\nstreamlit==1.28.0\n",
        &[
            ("config.py", "TITLE = \"x\""),
            ("app.py", "import streamlit as st\nst.title(TITLE)"),
            ("requirements.txt", "streamlit==1.28.0"),
        ],
    );
    check(
        "The plan:\n\n# Shows a form.\nimport streamlit as st\nwith st.form('f'):\n    st.text_input('Name')\n\nif st.button('Go'):\n    st.write('ok')\n",
        &[(
            "app.py",
            "# Shows a form.\nimport streamlit as st\nwith st.form('f'):\n    st.text_input('Name')\n\nif st.button('Go'):\n    st.write('ok')",
        )],
    );
    check(
        "import streamlit as st\nst.markdown(\"\"\"\n\nThis is a long story about apps.\n\n# other.py\n\"\"\")\nst.write(1)",
        &[(
            "app.py",
            "import streamlit as st\nst.markdown(\"\"\"\n\nThis is a long story about apps.\n\n# other.py\n\"\"\")\nst.write(1)",
        )],
    );
}

#[test]
fn fences_that_are_never_closed() {
    check_app(&format!("```python\n{APP}"), "app.py");
    check("```python\nimport streamlit as st\nst.wri", &[("app.py", "import streamlit as st\nst.wri")]);
    check("```python\nx = \"\"\"\nnever", &[("script.py", "x = \"\"\"\nnever")]);
    check_app(&format!("Here:\n````python\n{APP}\n```\nThat is it, have fun with this one."), "app.py");
    check(
        &format!("**app.py**\n```python\n{APP}\n\n**config.toml**\n```toml\na = 1\n```"),
        &[("app.py", APP), ("config.toml", "a = 1")],
    );
    check(&format!("```python\n{APP}\n```python\n# b.py\nx = 1\n```"), &[("app.py", APP), ("b.py", "x = 1")]);
    check_app(&format!("```python\n{APP}```\nDone."), "app.py");
    check_app(&format!("```python\n{APP}\n```This shows a title for everyone to see."), "app.py");
    check(
        "```python\nx = \"\"\"open\n```\n\n```python\n# b.py\ny = \"\"\"shut\"\"\"\n```",
        &[("script.py", "x = \"\"\"open"), ("b.py", "y = \"\"\"shut\"\"\"")],
    );
}

#[test]
fn fences_inside_fences() {
    let app = "import streamlit as st\nst.markdown(\"\"\"\n```python\nx = 1\n```\n\"\"\")\nst.write(2)";
    check(&format!("```python\n{app}\n```\nBye."), &[("app.py", app)]);
    let bare = app.replace("```python", "```");
    check(&format!("```python\n{bare}\n```\nBye."), &[("app.py", &bare)]);
    check(&format!("````python\n{app}\n````"), &[("app.py", app)]);
    check(&format!("~~~python\n{app}\n~~~"), &[("app.py", app)]);
    let readme = "# The app\n\n```bash\nstreamlit run app.py\n```\n\nIt shows a title.";
    check(
        &format!("```markdown\n# README.md\n{readme}\n```\n```python\n{APP}\n```"),
        &[("README.md", readme), ("app.py", APP)],
    );
}

#[test]
fn fences_where_they_should_not_be() {
    check_app(&format!("Here is the code: ```python\n{APP}\n```"), "app.py");
    check_app("```python import streamlit as st\n\nst.title(\"Hi\")\n```", "app.py");
    let in_list = APP.replace('\n', "\n   ");
    check_app(&format!("1. The app:\n   ```python\n   {in_list}\n   ```\n2. Run it."), "app.py");
    check_app(&format!("Use ```streamlit``` for it:\n```python\n{APP}\n```"), "app.py");
}

#[test]
fn what_transport_adds() {
    check_app(&format!("\u{feff}```python\r\n{}\r\n```\r\n", APP.replace('\n', "\r\n")), "app.py");
    check_app(&format!("```python\n{APP}\n```<|im_end|>"), "app.py");
    check_app(&format!("{APP}</s>"), "app.py");
    check_app(
        &format!("<think>\nFirst config.py\n```python\nx = 1\n```\n</think>\n```python\n{APP}\n```"),
        "app.py",
    );
    check(
        "```python\nimport streamlit as st\nif 1 &lt; 2:\n    st.title(&quot;Hi&quot;)\n```",
        &[("app.py", "import streamlit as st\nif 1 < 2:\n    st.title(\"Hi\")")],
    );
    check_app("```python\nimport streamlit as st\n\nst.title(&quot;Hi&quot;)\n```", "app.py");
    check("```python\nst.write(\"a &lt; b\")\n```", &[("app.py", "st.write(\"a &lt; b\")")]);
}

#[test]
fn json_lists_of_files() {
    let list =
        serde_json::json!([{"path": "config.py", "content": "A = 1"}, {"path": "app.py", "content": APP}]);
    let expected = [("config.py", "A = 1"), ("app.py", APP)];
    check(&list.to_string(), &expected);
    check(&format!("```json\n{list:#}\n```"), &expected);
    check(&format!("Here are the files:\n{list}\nEnjoy!"), &expected);
    check(&serde_json::json!({"files": list}).to_string(), &expected);
    check(&serde_json::json!({"config.py": "A = 1", "app.py": APP}).to_string(), &expected);
    check(&serde_json::json!({"filename": "app.py", "code": APP}).to_string(), &[("app.py", APP)]);
    check(
        &serde_json::json!([{"path": "../../etc/app.py", "content": APP}]).to_string(),
        &[("etc/app.py", APP)],
    );
    check("```json\n{\"theme\": \"dark\"}\n```", &[("data.json", "{\"theme\": \"dark\"}")]);
    check(&"[".repeat(100_000), &[]);
}

#[test]
fn paths_are_safe_and_unique() {
    let one = |path: &str| format!("```python title=\"{path}\"\nx = 1\n```\n");
    check(&one("/etc/cron.d/app.py"), &[("etc/cron.d/app.py", "x = 1")]);
    check(&one("../../app.py"), &[("app.py", "x = 1")]);
    check(&one("src\\app.py"), &[("src/app.py", "x = 1")]);
    check(&one(".."), &[("script.py", "x = 1")]);
    check(&one("a b.py"), &[("a b.py", "x = 1")]);
    check("```python\n# ../x.py\nx = 1\n```\n```python\n# /x.py\nx = 2\n```", &[("x.py", "x = 2")]);
    check(
        &(one("a.py") + &one("a.py/b.py") + &one("A.py")),
        &[("a.py", "x = 1"), ("a.py_b.py", "x = 1"), ("A.py", "x = 1")],
    );
}

#[test]
fn the_later_version_replaces_the_earlier_unless_it_is_an_excerpt() {
    let block = |code: &str| format!("```python\n# app.py\n{code}\n```\n");
    let better = APP.replace("Hi", "Hello");
    check(&(block(APP) + "Better:\n" + &block(&better)), &[("app.py", &better)]);
    check(&(block(APP) + "The title is:\n" + &block("st.title(1)")), &[("app.py", APP)]);
}

#[test]
fn a_huge_reply_is_cut() {
    let reply = format!("```python\n{APP}\n{}", "x = 1\n".repeat(400_000));
    let files = parse_reply(&reply).files;
    assert_eq!(files.len(), 1);
    assert!(files[0].content.len() <= MAX_REPLY);
}

/// A quarter of a megabyte of repetition each; a quadratic reader would take minutes and be seen.
#[test]
fn repetition_is_read_in_one_pass() {
    for unit in [
        "```\n",
        "```python\n",
        "~~~\n```\n",
        "\"\"\"\n```\n",
        "```python\nx = \"\"\"\n",
        "'''\n```py\n\"\"\"\n",
        "# a.py\n",
        "`",
        "~",
        "app.py\n",
        "# a.py\nx = 1\n",
        "```a.py\nx\n```\n",
        "[",
        "{\"a.py\":",
        "<think>",
        "</s>",
        "&lt;",
        "x = 1 &lt; 2\n",
        "- a.py\n\n",
        "````\n```\n",
        "st.x(\n\nwords and words\n",
        "```py\n# a.py\n",
        "```\nx = \"\"\"\n```\n```\n",
        "import a\n```",
        "\\",
        "'\"",
        "#",
        "\n",
        " ",
        "**a.py**\n```md\n```x\n",
    ] {
        let reply = unit.repeat(MAX_REPLY / 4 / unit.len());
        let files = parse_reply(&reply).files;
        assert!(files.len() <= 64, "{unit:?}");
    }
}

/// Cases per property: `HONE_PROPTEST_CASES` stands in for a fuzzer where there is no nightly compiler.
fn cases() -> ProptestConfig {
    let asked = std::env::var("HONE_PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(256), failure_persistence: None, ..ProptestConfig::default() }
}

/// Replies from the pieces that matter to the reader, in any order.
fn odd_reply() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "```",
        "````",
        "~~~",
        "\n",
        "\n\n",
        "python",
        "toml",
        "markdown",
        " title=\"a.py\"",
        ":b.py",
        "# c.py",
        "# FILE: d.toml",
        "// e.js",
        "**f.py**",
        "g.py",
        "\"\"\"",
        "'''",
        "'",
        "\"",
        "#",
        "    ",
        "import streamlit as st",
        "st.title(1)",
        "x = 1",
        "Here is the app:",
        "&lt;",
        "&quot;",
        "<",
        "[",
        "{\"h.py\": \"x = 1\"}",
        "\\",
        "\r\n",
        "\u{feff}",
        "é",
        "../",
        "/",
        "<think>",
        "</think>",
        "</s>",
        "requirements.txt",
        "streamlit>=1",
        "[theme]",
        "- ",
        "1. ",
        "\t",
        "\0",
        "\u{a0}",
        "\u{2028}",
        "i.py/j.py",
        "i.py",
        "README.md",
        "json",
        "bash",
    ]);
    prop::collection::vec(prop_oneof![6 => pieces.prop_map(str::to_owned), 1 => any::<String>()], 0..40)
        .prop_map(|p| p.concat())
}

/// Replies without any mark of files: neither fences nor what JSON and HTML begin with.
fn unmarked_reply() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\u{feff}",
        "\0",
        "# requirements.txt",
        "requirements.txt:",
        "streamlit==1.38",
        "pandas>=2",
        "**config.toml**",
        "- .env",
        "KEY = 1",
        "a = \"b\"",
        "config.yaml",
        "a: b",
        "data.csv",
        "a,b",
        "# config.py",
        "DEBUG = True",
        "import streamlit as st",
        "from a import b",
        "    st.title(1)",
        "def f():",
        "class A:",
        "print(1)",
        "with st.form(1):",
        "@st.cache_data",
        "if __name__ == \"__main__\":",
        "Some words, and more of them.",
        "'",
        "\"\"\"",
        "\u{a0}",
        "\u{2028}",
        " ",
    ]);
    prop::collection::vec(prop_oneof![2 => pieces, 1 => Just("\n")], 0..20).prop_map(|pieces| pieces.concat())
}

fn is_safe(path: &str) -> bool {
    path.len() <= 300
        && !path.contains(['\\', '\0', '\n', '"', '`', ':'])
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part != "~")
}

fn sane_file() -> impl Strategy<Value = SourceFile> {
    let line = prop::sample::select(vec![
        "import streamlit as st",
        "",
        "st.title(\"A & B\")",
        "if a > b:",
        "    st.write('x')",
        "x = \"\"\"",
        "text in it",
        "\"\"\"",
        "# a comment",
        "# see utils.py",
        "d = {'a': [1, 2]}",
        "```",
        "```python",
        "~~~",
        "[theme]",
        "a = 1",
        "é = 'ü'",
        "# utils.py",
        "s = '```'",
        "`",
        "x = 'a &lt; b'",
        "**bold.py**",
        "Some words, and more of them.",
        "## Title",
        "\tindented",
    ]);
    let path = prop::sample::select(vec![
        "app.py",
        "src/app.py",
        "config.py",
        "requirements.txt",
        ".streamlit/config.toml",
        "data/x.json",
        "style.css",
        "README.md",
        "pages/1_Home.py",
        "index.html",
        "my file.py",
        "Makefile",
        "notes",
        "run.sh",
        "ünï.py",
    ]);
    (path, prop::collection::vec(line, 1..12)).prop_filter_map("empty file", |(path, lines)| {
        let content = lines.join("\n");
        let content = content.trim_end().trim_start_matches('\n');
        (!content.is_empty()).then(|| SourceFile { path: path.to_owned(), content: format!("{content}\n") })
    })
}

fn sane_candidate() -> impl Strategy<Value = Candidate> {
    prop::collection::vec(sane_file(), 1..5).prop_map(|mut files| {
        let mut seen = std::collections::HashSet::new();
        files.retain(|f| seen.insert(f.path.clone()));
        Candidate { files }
    })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_reply_is_read_to_safe_and_unique_paths(reply in prop_oneof![odd_reply(), any::<String>()]) {
        let files = parse_reply(&reply).files;
        let paths: std::collections::HashSet<&str> = files.iter().map(|f| f.path.as_str()).collect();
        prop_assert_eq!(paths.len(), files.len());
        for file in &files {
            prop_assert!(is_safe(&file.path), "{:?}", file.path);
            prop_assert!(file.content.ends_with('\n') && !file.content.ends_with("\n\n"));
            let below = file.path.clone() + "/";
            prop_assert!(!files.iter().any(|f| f.path.starts_with(&below)));
        }
    }

    #[test]
    fn a_quick_look_misses_no_file(reply in prop_oneof![2 => unmarked_reply(), 1 => odd_reply(), 1 => any::<String>()]) {
        let files = parse_reply(&reply).files;
        prop_assert!(may_hold_files(&reply) || files.is_empty(), "{:?}", files);
    }

    #[test]
    fn what_was_read_once_reads_back_the_same(reply in odd_reply()) {
        let once = parse_reply(&reply);
        prop_assert_eq!(parse_reply(&reply_of(&once)), once);
    }

    #[test]
    fn a_candidate_survives_being_taught(candidate in sane_candidate()) {
        prop_assert_eq!(parse_reply(&reply_of(&candidate)), candidate);
    }

    #[test]
    fn prose_around_the_canonical_form_changes_nothing(candidate in sane_candidate(), before in "[A-Za-z ,!]{0,40}", after in "[A-Za-z ,!]{0,40}") {
        let reply = format!("{before}\n\n{}\n\n{after}", reply_of(&candidate));
        prop_assert_eq!(parse_reply(&reply), candidate);
    }
}
