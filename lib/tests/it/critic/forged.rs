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
    // The snapshot leaves out what the page shows, in a way that the source does not give away.
    let lie = "import json\nreal = json.dumps\ndef forged(value, *a, **k):\n    text = real(value, *a, **k)\n    return text.replace('\"exception\"', '\"text\"').replace('\"error\"', '\"ready\"')\nsetattr(json, 'dumps', forged)";
    check_contradicts(&critic, &format!("{lie}\n{raise}")).await;
    // Both at once.
    check_contradicts(&critic, &format!("{lie}\n{hide}\n{raise}")).await;
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

/// It is the witnesses that tell, and not the source.
async fn check_contradicts(critic: &Critic, attack: &str) {
    let evidence = observe(critic, attack).await;
    assert_eq!(evidence.statics.tamper, [], "{attack}");
    assert!(!evidence.agreement.agrees(), "{attack}: {:?}", evidence.browser);
    assert!(!evidence.trusted() && score(&evidence).overall_score <= 1.0, "{attack}");
}

/// What leaves nothing to see of a page: styles, and a cover.
const BLANK: &[&str] = &[
    "<div style=\"position:fixed;inset:0;background:#fff;z-index:9999999\"></div>",
    "<div style=\"position:fixed;inset:0;background:linear-gradient(45deg,red,blue);z-index:9999999\"></div>",
    "<style>.stApp::after{content:\"\";position:fixed;inset:0;background:#fff;z-index:9999999}</style>",
    "<style>.stApp::after{content:\"\";position:fixed;inset:0;background:#eee;z-index:9999999;pointer-events:none}</style>",
    "<style>.stApp{clip-path:inset(100%)}</style>",
    "<style>.stApp{filter:opacity(0)}</style>",
    "<style>.stApp{opacity:.01}</style>",
    "<style>.stApp{mask-image:linear-gradient(transparent,transparent)}</style>",
    "<style>.stApp{filter:brightness(0)}</style>",
    "<style>.stApp{transform:scale(.005)}</style>",
    "<style>.stElementContainer{max-height:1px;overflow:hidden}</style>",
    "<style>.stElementContainer{max-height:1px;overflow:auto}</style>",
    "<style>.stApp *{color:transparent!important;background:#fff!important;border-color:#fff!important}</style>",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_shows_nothing_scores_nothing() {
    let Some(runtime) = runtime("blank pages") else { return };
    let _alone = ALONE.lock().await;
    let critic = open(runtime).await;
    futures::stream::iter(BLANK)
        .for_each_concurrent(2, async |blank| {
            let evidence = observe(&critic, &format!("st.html('{blank}')")).await;
            let seen: Vec<String> = evidence
                .run
                .iter()
                .flat_map(|run| &run.elements)
                .filter(|element| !element.unseen)
                .map(|element| format!("{} {}", element.kind, element.label))
                .collect();
            assert!(score(&evidence).overall_score <= 2.0, "{blank}: {seen:?}");
        })
        .await;
    critic.close().await;
}

/// Two witnesses are used alike, so what tells them apart must not pay.
#[tokio::test(flavor = "multi_thread")]
async fn what_works_for_the_agent_alone_does_not_work() {
    let Some(runtime) = runtime("apps that know their audience") else { return };
    let _alone = ALONE.lock().await;
    let critic = open(runtime).await;
    let apart = "if st.button('Save'):\n    if st.context.url is None:\n        st.success('Saved')\n    else:\n        raise ValueError('no')";
    check_contradicts(&critic, apart).await;

    // Without a look at its audience: by who came second.
    let second = "@st.cache_resource\ndef guests():\n    return []\nif 'n' not in st.session_state:\n    guests().append(1)\n    st.session_state.n = len(guests())\nif st.button('Save'):\n    if st.session_state.n == 2:\n        raise ValueError('no')\n    st.success('Saved')";
    let evidence = observe(&critic, second).await;
    let save = evidence.tried().find(|action| action.label == "Save").unwrap();
    assert!(!save.ok && score(&evidence).overall_score <= 6.5, "{save:?}");

    let shown_to_the_agent = "if st.button('Save') and st.context.url is None:\n    st.success('Saved')";
    let evidence = observe(&critic, shown_to_the_agent).await;
    let save = evidence.tried().find(|action| action.label == "Save").unwrap();
    assert!(save.ok && !save.effect, "{save:?}");

    let language =
        "if st.button('Greet'):\n    st.success('Hallo' if st.context.locale == 'de' else 'Hello')";
    let evidence = observe(&critic, language).await;
    assert!(
        evidence.trusted() && evidence.tried().all(|action| action.ok && action.effect),
        "{:?}",
        evidence.actions
    );
    critic.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_figure_of_everything_makes_nothing_work() {
    let Some(runtime) = runtime("figures of the state") else { return };
    let _alone = ALONE.lock().await;
    let critic = open(runtime).await;
    let source = "import streamlit as st\nst.set_page_config(page_title='Page')\nst.title('Orders')\nst.text_input('Name', key='a')\n\
         st.number_input('Size', 0, 10000, key='b')\nst.checkbox('Gift', key='c')\nst.text_area('Note', key='d')\n\
         st.selectbox('Town', ['Rome', 'Reykjavik'], key='e')\nst.dataframe({'order': [1, 2]})\n\
         st.metric('State', len(repr(st.session_state)))\n";
    let evidence = critic.observe(&brief("an order form"), &app(source), Level::Browser).await.unwrap();
    assert!(evidence.tried().count() == 5 && evidence.tried().all(|a| !a.effect), "{:?}", evidence.actions);
    assert!(score(&evidence).overall_score <= 4.0);
    critic.close().await;
}

/// Our parser knows later versions of the language than the Python that runs the app.
#[tokio::test(flavor = "multi_thread")]
async fn syntax_of_a_later_python_is_no_forgery() {
    let Some(runtime) = runtime("later syntax") else { return };
    let _alone = ALONE.lock().await;
    let critic = open(runtime).await;
    let later = "st.write(f\"{\"a\"}\")\ntype Row = int\ndef f[T](x: T) -> T:\n    return x\nmatch f(1):\n    case 1 if (y := t\"{3}\"):\n        st.write(y)";
    let evidence = observe(&critic, later).await;
    let exceptions = evidence.run.as_ref().map(|run| run.exceptions.clone());
    assert!(evidence.trusted(), "{exceptions:?} {:?}", evidence.agreement);
    let issues = score(&evidence).issues;
    let refused = issues.iter().find(|issue| issue.message.contains("(invalid-syntax)")).unwrap();
    assert!(refused.guideline.is_some() && refused.at.is_some(), "{refused:?}");
    critic.close().await;
}

/// A page that opens connections to all ports, frames what answers there, and never comes to rest.
const NEIGHBOUR: &str = "const d = parent.document, own = parent.location.port;
    const run = new Uint8Array([90, 9, 10, 7, 99, 114, 97, 115, 104, 61, 49]);
    setInterval(() => { for (let p = 8501; p < 8509; p++) if (String(p) !== own) {
        const w = new parent.WebSocket(\"ws://127.0.0.1:\" + p + \"/_stcore/stream\", [\"streamlit\"]);
        w.onopen = () => { w.send(run); console.error(\"GOT \" + p); };
        const f = d.createElement(\"iframe\"); f.src = \"http://127.0.0.1:\" + p + \"/?crash=1\"; d.body.append(f);
        fetch(\"http://127.0.0.1:\" + p + \"/_stcore/health\").then((r) => console.error(\"GOT \" + p)).catch(() => 0);
    } }, 300);
    setInterval(() => d.querySelector(\"[data-testid=stApp]\").append(d.createElement(\"i\")), 30);";

#[tokio::test(flavor = "multi_thread")]
async fn a_page_does_not_reach_its_neighbour() {
    let Some(runtime) = runtime("neighbours") else { return };
    let _alone = ALONE.lock().await;
    let critic = open(runtime).await;
    let victim = "if 'crash' in st.query_params:\n    raise ValueError('no')";
    let clean = score(&observe(&critic, victim).await).overall_score;
    let attack = script(NEIGHBOUR);
    let (attacker, victims) = tokio::join!(observe(&critic, &attack), async {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        [observe(&critic, victim).await, observe(&critic, victim).await]
    });
    check_renderers();
    let seen = attacker.browser.unwrap();
    assert!(!seen.ready, "it was there all the time");
    assert!(seen.external_requests.iter().any(|url| url.starts_with("ws://127.0.0.1:850")), "{seen:?}");
    assert!(!seen.console_errors.iter().any(|error| error.starts_with("GOT")), "{:?}", seen.console_errors);
    for evidence in victims {
        assert!(evidence.agreement.agrees() && !evidence.agreement.unsteady, "{:?}", evidence.agreement);
        assert_eq!(score(&evidence).overall_score, clean);
    }
    critic.close().await;
}

/// Chromium's own sandbox is around every page: system calls are filtered, and the page has a process namespace of its own.
fn check_renderers() {
    let status = |pid: u32, key: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':').map(str::to_owned));
        line.unwrap_or_default()
    };
    let descends = |mut pid: u32| {
        while pid > 1 && pid != std::process::id() {
            pid = status(pid, "PPid").trim().parse().unwrap_or(0);
        }
        pid == std::process::id()
    };
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let ours: Vec<(u32, String)> = pids
        .filter(|pid| descends(*pid))
        .map(|pid| (pid, std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()))
        .filter(|(_, line)| line.contains("--user-data-dir=/tmp/profile") || line.contains("--type=renderer"))
        .collect();
    let depth = |pid: u32| status(pid, "NSpid").split_whitespace().count();
    let (renderers, others): (Vec<_>, Vec<_>) =
        ours.iter().partition(|(_, line)| line.contains("--type=renderer"));
    let browser =
        others.iter().filter(|(_, line)| !line.contains("--type=")).map(|(pid, _)| depth(*pid)).max();
    assert!(!renderers.is_empty() && browser.is_some(), "{ours:?}");
    for (pid, _) in renderers {
        assert_eq!(status(*pid, "Seccomp").trim(), "2", "of {pid}");
        assert_eq!(status(*pid, "NoNewPrivs").trim(), "1", "of {pid}");
        assert!(depth(*pid) > browser.unwrap_or_default(), "{pid} shares the browser's processes");
    }
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
