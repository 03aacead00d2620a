//! What the browser tells of apps, with the real Chromium.

use hone::critic::{Baseline, Level, baseline};

use super::{ALONE, app, brief, open, runtime};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints evidence"]
async fn evidence_of_an_app() {
    let Some(runtime) = runtime("browser evidence") else { return };
    let _alone = ALONE.lock().await;
    let critic = open(runtime).await;
    let path = std::env::var("APP").unwrap();
    let code = std::fs::read_to_string(&path).unwrap();
    for _ in 0..3 {
        let start = std::time::Instant::now();
        let evidence = critic.observe(&brief("x"), &app(&code), Level::Browser).await.unwrap();
        println!("{:?} {:?}", start.elapsed(), evidence.timing);
        if std::env::var("FULL").is_ok() {
            println!("{}", serde_json::to_string_pretty(&evidence.browser).unwrap());
        }
        let b = evidence.browser.unwrap();
        println!("{:?}", (b.ready, &b.detail, b.visible, evidence.agreement, &b.wide, &b.narrow));
        println!(
            "unseen {:?}",
            evidence
                .run
                .unwrap()
                .elements
                .iter()
                .filter(|e| e.unseen)
                .map(|e| (&e.kind, &e.label))
                .collect::<Vec<_>>()
        );
        println!(
            "{:?}",
            b.audit
                .iter()
                .map(|v| format!("{} {} {} {}", v.rule, v.impact, v.kind, v.nodes))
                .collect::<Vec<_>>()
        );
    }
    critic.close().await;
}

/// `HONE_TEST_PYTHON=.../bin/python cargo test -p hone --test it baseline -- --nocapture` prints the table.
#[tokio::test(flavor = "multi_thread")]
async fn the_baseline_is_what_the_gallery_gives() {
    let Some(runtime) = runtime("baseline") else { return };
    let _alone = ALONE.lock().await;
    let critic = open(runtime).await;
    let gallery = include_str!("../../../src/critic/browser/gallery.py");
    let evidence = critic.observe(&brief("a gallery"), &app(gallery), Level::Browser).await.unwrap();
    critic.close().await;
    let unseen: Vec<_> = evidence.run.iter().flat_map(|run| &run.elements).filter(|e| e.unseen).collect();
    assert!(unseen.is_empty() && evidence.agreement.agrees(), "{unseen:?} {:?}", evidence.agreement);
    let rendered = evidence.browser.unwrap();
    let mut violations: Vec<_> = rendered.audit.iter().map(|v| (v.rule.clone(), v.kind.clone())).collect();
    violations.sort();
    let (streamlit, axe) = (evidence.versions["streamlit"].clone(), evidence.versions["axe"].clone());
    let found = Baseline { streamlit, axe, violations };
    println!("{}", serde_json::to_string(&found).unwrap());
    assert_eq!(&found, baseline());
}

/// What has to be scrolled to, is pale by the framework's own choice, or lies below a dialog.
const HARD_TO_SEE: &str = r##"
import streamlit as st

st.title("Orders")
st.progress(0)
st.text_input("Name", label_visibility="collapsed")
st.button("Not now", disabled=True)
st.toast("A message from the side.", duration="infinite")
with st.container(height=150):
    for n in range(8):
        st.metric(f"Metric {n}", n)
for n in range(110):
    st.write(f"Paragraph {n} of many, to make the page longer than a window is ever made.")
st.dataframe({"order": [1, 2]})
st.line_chart({"sales": [1, 3, 2]})
st.selectbox("Town", ["Bern", "Rome"])
st.chat_input("Say something")


@st.dialog("Before you begin")
def welcome():
    st.write("Read this first.")


welcome()
with st.sidebar:
    for n in range(30):
        st.slider(f"Setting {n}", 0, 10)
"##;

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_scrolled_to_is_seen() {
    let Some(runtime) = runtime("pages that are hard to see") else { return };
    let _alone = ALONE.lock().await;
    let critic = open(runtime).await;
    let evidence = critic.observe(&brief("orders"), &app(HARD_TO_SEE), Level::Browser).await.unwrap();
    critic.close().await;
    let run = evidence.run.as_ref().unwrap();
    let unseen: Vec<_> = run.elements.iter().filter(|e| e.unseen).map(|e| (&e.kind, &e.label)).collect();
    assert!(run.elements.len() > 150 && unseen.is_empty(), "{unseen:?}");
    assert!(evidence.agreement.agrees(), "{:?}", evidence.agreement);
}
