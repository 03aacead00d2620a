use proptest::prelude::*;

use super::*;

fn run(files: &[(&str, &str)]) -> Statics {
    let files: Vec<SourceFile> = files
        .iter()
        .map(|(path, content)| SourceFile { path: (*path).to_owned(), content: (*content).to_owned() })
        .collect();
    std::thread::Builder::new().stack_size(STACK).spawn(move || read(&files)).unwrap().join().unwrap()
}

fn app(content: &str) -> Statics {
    run(&[("app.py", content)])
}

fn calls(content: &str) -> Vec<String> {
    let show = |call: Call| {
        format!("{}({}){}", call.path, call.label.unwrap_or_default(), if call.dead { " dead" } else { "" })
    };
    app(content).calls.into_iter().map(show).collect()
}

#[test]
fn calls_are_seen_by_any_name() {
    assert_eq!(calls("import streamlit as ui\nui.title('A')"), ["st.title(A)"]);
    assert_eq!(calls("from streamlit import button as b\nb('A')"), ["st.button(A)"]);
    assert_eq!(calls("import streamlit as st\nst.sidebar.radio('A', [])"), ["st.radio(A)"]);
    assert_eq!(calls("import streamlit as st\nwith st.sidebar:\n  st.radio('A', [])"), ["st.radio(A)"]);
    assert_eq!(calls("import streamlit as st\na, b = st.columns(2)\na.button('A')"), ["st.button(A)"]);
    assert_eq!(calls("import streamlit as st\nc = st.columns(2)\nc[0].button('A')"), ["st.button(A)"]);
    assert_eq!(
        calls("import streamlit as st\nfor c, n in zip(st.columns(2), 'ab'):\n  c.metric('A', n)"),
        ["st.metric(A)"]
    );
    assert_eq!(
        calls("import streamlit as st\nwith st.form('f') as f:\n  f.text_input(label='A')"),
        ["st.text_input(A)"]
    );
    assert_eq!(calls("import other as st\nst.title('A')"), [""; 0]);
}

#[test]
fn who_reads_its_audience_is_known() {
    let reads = |code: &str| app(code).audience.iter().map(|f| f.at.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!(reads("import streamlit as st\nif st.context.url is None:\n  pass"), ["app.py:2:4"]);
    assert_eq!(reads("from streamlit import context as c"), ["app.py:1:23"]);
    assert_eq!(reads("import streamlit as st\nst.title(context.url)"), [""; 0]);
}

#[test]
fn a_state_that_is_shown_as_a_whole_is_known() {
    let shows = |code: &str| !app(&format!("import streamlit as st\n{code}")).whole_state.is_empty();
    for code in [
        "st.metric('State', len(repr(st.session_state)))",
        "st.caption(f'{st.session_state}')",
        "st.write(st.session_state)",
        "st.json(st.session_state.to_dict())",
        "all = st.session_state\nst.text(hash(str(dict(all))))",
        "from streamlit import session_state as s\nst.caption(str(s))",
        "import hashlib\nx = hashlib.md5(repr(st.session_state).encode())",
    ] {
        assert!(shows(code), "{code}");
    }
    for code in [
        "st.metric('Total', st.session_state.total)",
        "st.metric('Total', st.session_state['total'])",
        "st.write(st.session_state.get('total', 0))",
        "st.write('yes' if 'total' in st.session_state else 'no')",
        "for key in list(st.session_state): del st.session_state[key]",
        "state = st.session_state\nst.write(state.total)",
    ] {
        assert!(!shows(code), "{code}");
    }
}

#[test]
fn what_can_never_run_is_dead() {
    let st = "import streamlit as st\n";
    assert_eq!(
        calls(&format!("{st}if False:\n  st.title('A')\nelse:\n  st.title('B')")),
        ["st.title(A) dead", "st.title(B)"]
    );
    assert_eq!(calls(&format!("{st}while 0:\n  st.title('A')")), ["st.title(A) dead"]);
    assert_eq!(calls(&format!("{st}st.stop()\nst.title('A')")), ["st.title(A) dead"]);
    assert_eq!(calls(&format!("{st}def f():\n  st.title('A')")), ["st.title(A) dead"]);
    assert_eq!(calls(&format!("{st}def f():\n  st.title('A')\nf()")), ["st.title(A)"]);
    assert_eq!(
        calls(&format!("{st}def f():\n  return 1\n  st.title('A')\nf()\nst.title('B')")),
        ["st.title(A) dead", "st.title(B)"]
    );
    assert_eq!(app(&format!("{st}def f():\n  return 1\nf()")).dead, []);
    let used_elsewhere = run(&[
        ("app.py", "from part import show\nshow()"),
        ("part.py", "import streamlit as st\ndef show():\n  st.title('A')"),
    ]);
    assert!(used_elsewhere.calls.iter().all(|call| !call.dead));
}

#[test]
fn syntax_errors_have_a_place() {
    let statics = app("import streamlit as st\nst.title('A'\n");
    assert!(!statics.files[0].parses);
    assert_eq!(statics.errors[0].at.as_deref(), Some("app.py:3:1"), "{:?}", statics.errors);
    assert_eq!(app("x = f'{a['b']}'").errors, []);
}

#[track_caller]
fn check_share(files: &[(&str, &str)], expected: f64) {
    let share = run(files).config_share();
    assert!((share - expected).abs() < 0.005, "{share}");
}

#[test]
fn configuration_is_counted_by_lines() {
    let ui = "import streamlit as st\nst.title('A')\nst.write('b')\nst.button('c')\n";
    check_share(&[("app.py", ui)], 0.0);
    check_share(&[("app.py", ui), ("requirements.txt", "streamlit\n\npandas\n")], 2.0 / 6.0);
    check_share(
        &[
            ("config.py", "import os\nDEBUG = True\nURL = os.getenv('URL', 'x')\nclass C:\n    A = 1\n"),
            ("app.py", ui),
        ],
        5.0 / 9.0,
    );
    check_share(&[(".env", "A=1"), ("app.py", ui)], 0.2);
    check_share(&[("app.py", &format!("TITLE = 'x'\nCONFIG = {{\n 'a': 1,\n}}\n{ui}"))], 0.5);
    // Rows to show are not configuration, on top of an app or beside it.
    check_share(&[("app.py", &format!("ROWS = [\n {{'a': 1}},\n]\n{ui}"))], 0.0);
    check_share(&[("data.py", "ROWS = [\n {'a': 1},\n]\n"), ("app.py", ui)], 0.0);
    check_share(&[], 0.0);
}

#[track_caller]
fn check_tamper(code: &str, flagged: bool) {
    assert_eq!(!app(code).tamper.is_empty(), flagged, "{code}: {:?}", app(code).tamper);
}

#[test]
fn tampering_is_flagged_and_ordinary_code_is_not() {
    for code in [
        "import streamlit.testing.v1",
        "from streamlit import runtime",
        "from streamlit.proto import x",
        "import ctypes",
        "import os\nos._exit(0)",
        "from os import fork",
        "import json\njson.dumps = print",
        "import sys\nsys.modules['x'] = 1",
        "eval('1')",
        "import streamlit as st\nst.html('x', unsafe_allow_javascript=True)",
    ] {
        check_tamper(code, true);
    }
    for code in [
        "import streamlit as st\nst.session_state.x = 1",
        "import pandas as pd\npd.options.mode.copy_on_write = True",
        "import re\nre.compile('a')",
        "import os\nos.getenv('A')",
        "import streamlit.components.v1 as c",
        "import matplotlib.pyplot as plt\nplt.rcParams['a'] = 1",
    ] {
        check_tamper(code, false);
    }
}

#[test]
fn labels_titles_and_removed_calls_are_found() {
    let statics = app(
        "import streamlit as st\nst.set_page_config(page_title='A')\nst.text_input('')\nst.cache()\n@st.cache\ndef f(): pass\nf()",
    );
    assert!(statics.page_title);
    assert_eq!(statics.empty_labels[0].at.as_deref(), Some("app.py:3:1"));
    assert!(statics.removed.len() >= 2, "{:?}", statics.removed);
    assert_eq!(app("from streamlit import experimental_rerun").removed.len(), 1);
}

#[test]
fn deep_nesting_does_not_overflow() {
    let most = SOURCE_CAP - 1;
    for source in [
        "-".repeat(most) + "1",
        format!("x{}", ".b".repeat(most / 2)),
        "(".repeat(most),
        format!("1{}", "+1".repeat(most / 2)),
        format!("{}1{}", "(".repeat(most / 2), ")".repeat(most / 2)),
        format!("f{}", "()".repeat(most / 2)),
        "[".repeat(most),
        format!("x = {}", "lambda: ".repeat(most / 9)),
        (0..300).map(|n| format!("{}if x:\n", " ".repeat(n))).collect(),
    ] {
        app(&source);
    }
    let large = app(&"x = 1\n".repeat(SOURCE_CAP));
    assert!(large.errors[0].message.contains("64 KiB"));
}

proptest! {
    #[test]
    fn any_text_is_read(content in any::<String>(), path in "[a-z./]{0,12}") {
        run(&[(path.as_str(), content.as_str()), ("app.py", content.as_str())]);
    }

    #[test]
    fn any_tokens_are_read(tokens in prop::collection::vec(prop::sample::select(vec![
        "st", ".", "import", "streamlit", "as", "from", "(", ")", "[", "]", "{", "}", "f'", "'", "\"\"\"", "\n", "    ",
        "if", "False", ":", "def", "class", "return", "=", "lambda", "with", "for", "in", "columns", "title", ",", "*", "é",
    ]), 0..80)) {
        let statics = app(&tokens.join(" "));
        prop_assert!((0.0..=1.0).contains(&statics.config_share()));
    }
}

#[test]
fn secrets_are_found_wherever_they_stand() {
    let key = format!("AKIA{}", "Q".repeat(16));
    let places =
        |statics: Statics| -> Vec<String> { statics.secrets.into_iter().filter_map(|f| f.at).collect() };
    assert_eq!(places(app(&format!("import streamlit as st\nst.connect(key='{key}')"))), ["app.py:2:16"]);
    assert_eq!(places(app(&format!("KEY = '{key}'"))), ["app.py:1:7"]);
    assert_eq!(places(app("import streamlit as st\nst.title(st.secrets['key'])")), [""; 0]);
    let beside = run(&[("app.py", "x = 1"), ("secrets.toml", &format!("a = 1\nkey = '{key}'"))]);
    assert!(beside.secrets.iter().all(|fault| !fault.message.contains(&key)), "the value is not repeated");
    assert_eq!(places(beside), ["secrets.toml:2:8"]);
}
