//! What using a page finds out: effects, and what only looks like one.

use hone::critic::{Critic, Evidence};

use super::{app, brief, open, runtime};

async fn observe(critic: &Critic, code: &str) -> Evidence {
    let source = format!("import random, time\nimport streamlit as st\nst.title('x')\n{code}\n");
    critic.observe(&brief("x"), &app(&source), hone::critic::Level::Run).await.unwrap()
}

/// Label of each control tried, with `+` for an effect, `-` for none, `!` for an exception.
async fn check(critic: &Critic, code: &str, expected: &[&str]) {
    let evidence = observe(critic, code).await;
    let of = |a: &hone::critic::Action| {
        format!(
            "{}{}",
            a.label,
            if !a.ok {
                '!'
            } else if a.effect {
                '+'
            } else {
                '-'
            }
        )
    };
    let told = evidence.actions.iter().filter(|a| !a.hostile || !a.ok);
    let actions: Vec<String> = told.map(of).collect();
    assert_eq!(actions, expected, "{code}\n{:#?}", evidence.actions);
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_are_told_from_what_only_looks_like_them() {
    let Some(runtime) = runtime("effects") else { return };
    let _alone = super::ALONE.lock().await;
    let critic = open(runtime).await;
    let c = &critic;
    tokio::join!(inputs(c), buttons(c), forms(c), faults(c), revealed(c), pages(c), unexpected(c));
    critic.close().await;
}

/// Controls that are there only after another was used.
async fn revealed(c: &Critic) {
    check(
        c,
        "if st.button('Start'): st.session_state.on = True\nif 'on' in st.session_state:\n    if st.button('Go'): raise ValueError('x')",
        &["Start+", "Go!"],
    )
    .await;
    check(
        c,
        "@st.dialog('Sure?')\ndef ask():\n    if st.button('Yes'): raise ValueError('x')\n    st.button('No')\nif st.button('Delete'): ask()",
        &["Delete+", "Yes!", "No-"],
    )
    .await;
    // A wizard, step by step.
    check(
        c,
        "s = st.session_state.setdefault('s', 0)\nst.text(f'step {s}')\nif s < 3 and st.button(f'Next {s}'): st.session_state.s += 1; st.rerun()\nif s == 2: 1 / len(st.text_input('Amount'))",
        &["Next 0+", "Next 1!"],
    )
    .await;
}

/// Every page is used.
async fn pages(c: &Critic) {
    let evidence = observe(
        c,
        "def home(): st.toggle('A')\ndef more():\n    if st.button('Break'): raise ValueError('x')\nst.navigation([st.Page(home), st.Page(more)]).run()",
    )
    .await;
    let told: Vec<(&str, Option<&str>, bool)> =
        evidence.tried().map(|a| (a.label.as_str(), a.page.as_deref(), a.ok)).collect();
    assert_eq!(told, [("A", None, true), ("Break", Some("more"), false)], "{evidence:#?}");
}

/// What comes of values that nobody expects is noted, whatever it is.
async fn unexpected(c: &Critic) {
    let evidence = observe(
        c,
        "d = st.date_input('Day', value='2026-01-15')\nc = st.color_picker('Colour')\np = st.pills('Size', ['S', 'M'])\nst.text(f'{d} {c} {p}')\nif d.year < 2020: raise ValueError('early')",
    )
    .await;
    let hostile: Vec<_> = evidence.actions.iter().filter(|a| a.hostile).collect();
    assert!(hostile.iter().any(|a| !a.ok) && hostile.iter().any(|a| a.ok && a.effect), "{hostile:#?}");
}

async fn inputs(c: &Critic) {
    check(c, "a = st.selectbox('A', ['x', 'y'])\nst.write(a)\nst.toggle('B')", &["A+", "B-"]).await;
    // A value that a button brings to the page, and one that it computes with.
    check(
        c,
        "n = st.text_input('Name')\nif st.button('Greet'): st.write('Hello ' + n)",
        &["Greet+", "Name+"],
    )
    .await;
    check(
        c,
        "n = st.number_input('N', value=2)\nif st.button('Square'): st.write(n * n)",
        &["Square+", "N+"],
    )
    .await;
    check(c, "n = st.number_input('N', value=2)\nif st.button('Roll'): st.write('ok')", &["Roll+", "N-"])
        .await;
    // What changes by itself is no effect.
    check(c, "st.metric('R', random.random())\nst.text(time.strftime('%H:%M:%S'))\nst.toggle('B')", &["B-"])
        .await;
}

async fn buttons(c: &Critic) {
    // A message of one run goes away with the next, whatever is used next.
    check(c, "if st.button('Save'): st.success('saved')\nst.toggle('B')", &["Save+", "B-"]).await;
    check(c, "if st.button('Save'): st.success('saved')\nst.button('Idle')", &["Save+", "Idle-"]).await;
    check(
        c,
        "st.session_state.setdefault('n', 0)\nif st.button('Reset'): st.session_state.n = 0; st.rerun()\nif st.button('Add'): st.session_state.n += 1\nst.write(st.session_state.n)",
        &["Reset+", "Add+"],
    )
    .await;
    check(c, "st.download_button('Get', 'x')", &["Get+"]).await;
}

async fn forms(c: &Critic) {
    let form = "with st.form('f'):\n  n = st.text_input('Email')\n  s = st.form_submit_button('Send')\n";
    check(c, &format!("{form}if s: st.success(n)"), &["Send+"]).await;
    check(c, form, &["Send-"]).await;
    check(c, "with st.form('f'):\n  st.text_input('Email')", &["!"]).await;
}

async fn faults(c: &Critic) {
    let late = "n = st.text_input('Who', 'Bo')\nif st.button('Age'): st.write({'Bo': 4}[n])";
    check(c, late, &["Age!", "Who-"]).await;
    // A number in a text stays one for a person; only what nobody expects breaks this.
    let strict = "n = st.text_input('N', '1')\nif st.button('Double'): st.write(int(n) * 2)";
    check(c, strict, &["Double+", "N+", "Double!"]).await;
    let code = "if st.button('Bang'):\n  boom()\na = st.radio('A', ['x', 'y'])\nst.write(a)";
    let evidence = observe(c, code).await;
    assert_eq!(evidence.actions[0].at.as_deref(), Some("app.py:5:1"), "{:?}", evidence.actions);
    assert!(evidence.actions[1].ok && evidence.actions[1].effect, "the page goes on after a fault");
    assert!(evidence.runs() && evidence.statics.lint.iter().any(|lint| lint.code == "F821"));
}
