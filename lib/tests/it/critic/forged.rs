//! Candidates that attack the second witness: the browser, the page, the proxy, and those that come later.
//!
//! Each is run as it is; what must hold is that nothing of it is believed, nothing leaves, and the next app scores as
//! ever.

use futures::StreamExt;
use hone::critic::{Critic, Evidence, Level, score};

use super::{ALONE, app, brief, open, runtime};

/// A page with enough on it that nothing but the attack lowers the score.
fn page(attack: &str) -> String {
    format!(
        "import streamlit as st\nst.set_page_config(page_title='Page')\nst.title('Orders')\nname = st.text_input('Name')\n\
         size = st.selectbox('Size', ['small', 'large'])\nif st.button('Send'):\n    st.success(f'Sent {{name}} {{size}}')\n\
         st.metric('Open', 3)\nst.dataframe({{'order': [1, 2], 'state': ['new', 'sent']}})\n{attack}\n"
    )
}

async fn observe(critic: &Critic, attack: &str) -> Evidence {
    critic.observe(&brief("an order form"), &app(&page(attack)), Level::Browser).await.unwrap()
}

/// A script in an iframe of the app's own origin, as Streamlit gives it to every component.
fn script(code: &str) -> String {
    format!("import streamlit.components.v1 as c\nc.html('''<script>{code}</script>''')")
}

const EVERYWHERE: &str = "const d = parent.document;";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_is_not_believed() {
    let Some(runtime) = runtime("forgeries") else { return };
    let _alone = ALONE.lock().await;
    let critic = open(runtime).await;
    let honest = observe(&critic, "").await;
    assert!(honest.agreement.agrees() && honest.trusted(), "{:?}", honest.agreement);
    let clean = score(&honest).overall_score;
    assert!(clean >= 8.0, "{:?}", score(&honest));

    let raise = "raise ValueError('no')";
    let hide = script(&format!(
        "{EVERYWHERE} setInterval(() => d.querySelectorAll('[data-testid=stException]').forEach((e) => e.remove()), 5)"
    ));
    // The page hides the exception that the snapshot tells of.
    check_contradicts(&critic, &format!("{hide}\n{raise}")).await;
    // The snapshot leaves out what the page shows.
    let lie = "import json, sys\nreal = json.dumps\ndef forged(value, *a, **k):\n    text = real(value, *a, **k)\n    return text.replace('\"exception\"', '\"text\"').replace('\"error\"', '\"ready\"')\njson.dumps = forged";
    check_lowered(&critic, &format!("{lie}\n{raise}")).await;
    // Both at once.
    check_lowered(&critic, &format!("{lie}\n{hide}\n{raise}")).await;
    // Elements that are on the page alone do not count.
    let plant = script(&format!(
        "{EVERYWHERE} for (let i = 0; i < 30; i++) {{ const e = d.createElement('button'); e.dataset.testid = 'stButton'; e.innerText = 'b' + i; d.querySelector('[data-testid=stMain]').append(e) }}"
    ));
    let planted = observe(&critic, &plant).await;
    let run = planted.run.as_ref().unwrap();
    assert!(run.elements.iter().filter(|e| e.kind == "button").count() == 1, "{run:?}");
    assert!(score(&planted).overall_score <= clean + 0.01);
    // Elements that styles hide do not count either.
    let gone = "st.markdown('<style>[data-testid=stMetric]{position:absolute;left:-9999px}</style>', unsafe_allow_html=True)";
    let hidden = observe(&critic, gone).await;
    let unseen: Vec<&str> =
        hidden.run.iter().flat_map(|r| &r.elements).filter(|e| e.unseen).map(|e| e.kind.as_str()).collect();
    assert!(unseen.contains(&"metric"), "{unseen:?}");

    assert_eq!(score(&observe(&critic, "").await).overall_score, clean, "the next app is judged as ever");
    critic.close().await;
}

async fn check_contradicts(critic: &Critic, attack: &str) {
    let evidence = observe(critic, attack).await;
    assert!(!evidence.agreement.agrees(), "{attack}: {:?}", evidence.browser);
    assert!(!evidence.trusted() && score(&evidence).overall_score <= 1.0, "{attack}");
}

/// However it is noticed: by its source, or by what the witnesses tell.
async fn check_lowered(critic: &Critic, attack: &str) {
    let evidence = observe(critic, attack).await;
    assert!(score(&evidence).overall_score <= 4.5, "{attack}: {:?}", score(&evidence));
    assert!(!evidence.runs() || !evidence.trusted(), "{attack}");
}

/// Scripts of a page that is up to no good.
const ATTACKS: &[&str] = &[
    "alert('a'); confirm('b'); prompt('c')",
    "parent.location = 'http://example.org/'",
    "parent.location = '/elsewhere'",
    "parent.document.open(); parent.document.write('<h1>mine</h1>'); parent.document.close()",
    "while (true) {}",
    "const w = new Worker(URL.createObjectURL(new Blob(['while(true){}'])))",
    "navigator.serviceWorker && navigator.serviceWorker.register('/media/x.js').catch(() => 0)",
    "for (;;) window.open('about:blank')",
    "const all = []; setInterval(() => all.push(new Array(1e6).fill('x'.repeat(99))), 1)",
    "for (let i = 0; i < 1e5; i++) console.error('flood ' + i + 'y'.repeat(9999))",
    "const d = parent.document; for (let i = 0; i < 3e5; i++) d.body.append(d.createElement('div'))",
    "localStorage.setItem('mark', 'left'); document.cookie = 'mark=left; path=/'; caches.open('m').then((c) => c.put('/static/js/x.js', new Response('x')))",
    "Object.prototype.toJSON = () => 'forged'; parent.Array.prototype.map = () => []; parent.hone = { items: () => [] }",
    "parent.document.querySelector('[data-testid=stApp]').setAttribute('data-test-script-state', 'running')",
    "parent.print(); history.pushState({}, '', '/x'.repeat(5000))",
];

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_attack_the_browser_are_contained() {
    let Some(runtime) = runtime("browser attacks") else { return };
    let _alone = ALONE.lock().await;
    let critic = open(runtime).await;
    let clean = score(&observe(&critic, "").await).overall_score;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let knocked = tokio::spawn(async move { listener.accept().await.map(|_| ()) });

    let reach = format!(
        "const t = ['http://127.0.0.1:{port}/', 'http://127.0.0.1:9222/json', 'http://169.254.169.254/', 'http://example.org/', 'file:///etc/passwd', '/_stcore/agent/openapi.json', '/_stcore/agent/interact', '/../../etc/passwd'];
         t.forEach((u) => fetch(u, {{ mode: 'no-cors', method: u.endsWith('interact') ? 'POST' : 'GET' }}).then((r) => r.text()).then((x) => console.error('GOT ' + u + ' ' + x.length + ' ' + x.slice(0, 30))).catch(() => 0));
         new WebSocket('ws://127.0.0.1:{port}/');
         new Image().src = 'http://127.0.0.1:{port}/i.png';
         navigator.sendBeacon('http://127.0.0.1:{port}/b', 'x');"
    );
    let evidence = observe(&critic, &script(&reach)).await;
    let rendered = evidence.browser.unwrap();
    let asked = format!("{:?}", rendered.external_requests);
    assert!(asked.contains(&port.to_string()) && asked.contains("example.org"), "{asked}");
    let got: Vec<&String> = rendered.console_errors.iter().filter(|e| e.starts_with("GOT")).collect();
    // The agent's paths are not there: what answers is an empty 404. Every other path is Streamlit's own page.
    let known =
        |line: &str| line.contains("agent") && line.trim_end().ends_with(" 0") || line.contains("<!--");
    assert!(got.iter().all(|line| known(line)), "{got:?}");

    futures::stream::iter(ATTACKS)
        .for_each_concurrent(4, async |attack| {
            let evidence = observe(&critic, &script(attack)).await;
            assert!(evidence.browser.is_some(), "{attack}");
            assert!(score(&evidence).overall_score <= clean + 0.01, "{attack}");
        })
        .await;

    let mark = "const l = [localStorage.getItem('mark'), document.cookie.includes('mark')]; caches.keys().then((k) => { if (l[0] || l[1] || k.length) console.error('GOT ' + l + k) })";
    let later = observe(&critic, &script(mark)).await.browser.unwrap();
    assert!(!later.console_errors.iter().any(|e| e.starts_with("GOT")), "{:?}", later.console_errors);
    assert_eq!(score(&observe(&critic, "").await).overall_score, clean, "the next app is judged as ever");
    assert!(!knocked.is_finished(), "a page reached this machine");
    knocked.abort();
    critic.close().await;
}
