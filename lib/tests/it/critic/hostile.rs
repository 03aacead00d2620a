//! Candidates that attack: each is contained, is evidence rather than an error, and leaves nothing behind.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use hone::{
    agent::{Candidate, SourceFile},
    critic::{Critic, Evidence, RunStatus, score},
};

use super::{app, brief, open, runtime};

/// A name in this process's environment that no candidate may see.
const CANARY: &str = "HONE_TEST_PYTHON";

async fn observe(critic: &Critic, candidate: &Candidate) -> Evidence {
    critic.observe(&brief("anything at all"), candidate, hone::critic::Level::Browser).await.unwrap()
}

/// Runs Python that sets `out`, and returns what the page then says.
async fn said(critic: &Critic, code: &str) -> String {
    let source = format!(
        "import streamlit as st\nout = ''\n{code}\nst.text_input('out', value=str(out))\nst.text(out)\n"
    );
    let evidence = observe(critic, &app(&source)).await;
    let run = evidence.run.unwrap();
    assert_eq!(run.status, RunStatus::Ready, "{run:?}");
    run.elements.iter().filter(|e| e.kind == "text").map(|e| e.label.clone()).collect()
}

/// What this process's sandboxes are called.
fn name() -> String {
    format!("hone-sandbox-{}-", std::process::id())
}

/// Command lines of this process's sandboxes and all that they started.
fn processes() -> Vec<String> {
    let of = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&name()).then(|| line.chars().take(80).collect())
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect()
}

fn folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten().map(|entry| entry.path());
    entries
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&name())))
        .collect()
}

async fn check_status(critic: &Critic, code: &str, expected: &[RunStatus]) {
    let evidence = observe(critic, &app(&format!("import streamlit as st\nst.title('x')\n{code}\n"))).await;
    let run = evidence.run.clone().unwrap();
    assert!(expected.contains(&run.status), "{code}: {:?} {:?}", run.status, run.detail);
    assert!(score(&evidence).overall_score <= 4.5, "{code}");
    assert!(!evidence.runs(), "{code}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_candidates_are_contained() {
    let Some(runtime) = runtime("hostile candidates") else { return };
    let _alone = super::ALONE.lock().await;
    let secret = tempfile::tempfile().unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let critic = open(runtime).await;
    let c = &critic;
    let honest = app(include_str!("../../../../docs/design/critic-apps/good-form/app.py"));
    let wanted = brief("a contact form with name and email");
    let (evidence, before) = critic.critique(&wanted, &honest).await.unwrap();
    assert!(evidence.runs() && before.overall_score >= 8.0, "{evidence:?}");
    tokio::join!(
        descriptors(c),
        endless(c),
        memory_and_processes(c),
        files(c),
        secrets(c),
        sockets(c),
        calls(c),
        sudden_ends(c),
        paths(c),
        nesting(c)
    );
    forgeries(c).await;
    let (evidence, after) = critic.critique(&wanted, &honest).await.unwrap();
    assert_eq!(after, before, "the next app is judged as ever");
    assert!(evidence.sandbox.seccomp);
    critic.close().await;
    check_nothing_left().await;
}

/// The kernel may take a moment for what was killed.
pub async fn check_nothing_left() {
    for _ in 0..100 {
        if processes().is_empty() && folders().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("left: {:?} {:?}", processes(), folders());
}

/// A sandbox may be given up at any moment of its start, by whoever drops what waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_sandboxes_leave_nothing() {
    let Some(runtime) = runtime("dropped sandboxes") else { return };
    let _alone = super::ALONE.lock().await;
    for delay in [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 100, 400, 2000] {
        let critic = open(runtime.clone()).await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        drop(critic);
    }
    let critic = open(runtime).await;
    let looking =
        tokio::spawn(async move { observe(&critic, &app("import streamlit\nwhile True: pass")).await });
    tokio::time::sleep(Duration::from_secs(3)).await;
    looking.abort();
    check_nothing_left().await;
}

async fn endless(critic: &Critic) {
    use RunStatus::{TimedOut, TooLarge};
    check_status(critic, "while True: pass", &[TimedOut]).await;
    check_status(critic, "while True: print('x' * 1_000_000)", &[TimedOut]).await;
    check_status(critic, "for n in range(300): st.write(str(n) + 'x' * 1_000_000)", &[TooLarge, TimedOut])
        .await;
    check_status(critic, "import threading, time\nwhile True: time.sleep(1)", &[TimedOut]).await;
}

/// What this process has open, or inherited itself, does not reach a candidate.
async fn descriptors(critic: &Critic) {
    // Python may be reading its own modules at that moment.
    let code = "import glob, os, sys\nout = []\nown = ('/proc/', sys.prefix, sys.base_prefix)\nfor p in glob.glob('/proc/*/fd/*'):\n  try: to = os.readlink(p)\n  except OSError: continue\n  if to != '/dev/null' and to.split(':')[0] not in ('pipe', 'socket', 'anon_inode') and not to.startswith(own): out.append(to)";
    assert_eq!(said(critic, code).await, "[]");
}

async fn memory_and_processes(critic: &Critic) {
    let out = said(critic, "try:\n  bytearray(50 << 30)\nexcept MemoryError: out = 'refused'").await;
    assert_eq!(out, "refused");
    let bomb = "import os, time\nout = 0\ntry:\n  for _ in range(300):\n    if os.fork() == 0:\n      time.sleep(60)\n      os._exit(0)\n    out += 1\nexcept OSError: pass";
    let forks: u32 = said(critic, bomb).await.parse().unwrap();
    assert!(forks < 64, "{forks} forks");
    let many = "import os, time\nfor _ in range(6):\n  if os.fork() == 0:\n    kept = b'x' * (800 << 20)\n    time.sleep(60)\ntime.sleep(5)";
    check_status(critic, many, &[RunStatus::Died]).await;
}

async fn files(critic: &Critic) {
    let python = std::env::var("HONE_TEST_PYTHON").unwrap();
    let write = format!(
        "import os\nout = []\nfor p in ['/x', '/usr/x', '/etc/x', '/root/x', '/home/x', '/dev/shm/x', '/dev/x', '/proc/x', '/sys/x', os.path.dirname('{python}') + '/x']:\n  try:\n    open(p, 'w').close()\n    out.append(p)\n  except OSError: pass"
    );
    assert_eq!(said(critic, &write).await, "[]");
    let fill = "out = 0\ntry:\n  for n in range(100):\n    with open(f'/app/{n}', 'wb') as f: f.write(bytes(10 << 20))\n    out += 10\nexcept OSError: pass";
    let written: u32 = said(critic, fill).await.parse().unwrap();
    assert!(written <= 64, "{written} MiB");
    let own = "open('note.txt', 'w').write('kept')\nout = open('note.txt').read()";
    assert_eq!(said(critic, own).await, "kept", "an app may write beside itself");
}

async fn secrets(critic: &Critic) {
    let project = env!("CARGO_MANIFEST_DIR");
    let read = format!(
        "import glob, os\nout = []\nfor p in ['/etc/passwd', '/etc/shadow', '/etc/hostname', '/root/.bashrc', '/root/.ssh', '/var', '{project}']:\n  if os.path.exists(p): out.append(p)"
    );
    assert_eq!(said(critic, &read).await, "[]");
    // Of the folders above the environment nothing is there but the ways to it and to its base interpreter.
    let python = std::env::var("HONE_TEST_PYTHON").unwrap();
    let beside = format!(
        "import os, sys\nout, at = [], os.path.dirname(os.path.dirname('{python}'))\nways = [at + '/', sys.base_prefix + '/']\nwhile len(at) > 1 and not at.startswith('/usr'):\n  at = os.path.dirname(at)\n  beside = [os.path.join(at, n) + '/' for n in os.listdir(at)] if at != '/' else []\n  out += [p for p in beside if not any(way.startswith(p) for way in ways)]"
    );
    assert_eq!(said(critic, &beside).await, "[]");
    let environment = format!(
        "import glob, os\nout = []\nseen = str(dict(os.environ))\nfor p in glob.glob('/proc/*/environ') + glob.glob('/proc/*/task/*/environ') + glob.glob('/proc/*/cmdline'):\n  try: seen += open(p).read()\n  except OSError: pass\nout = '{}' in seen, 'CARGO' in seen, len(glob.glob('/proc/[0-9]*')) < 10",
        CANARY
    );
    assert_eq!(said(critic, &environment).await, "(False, False, True)");
    let power = "import os\nout = []\nif os.getuid() == 0: out.append('root')\nfor line in open('/proc/self/status'):\n  if line.startswith(('CapPrm', 'CapEff', 'CapAmb', 'CapInh')) and int(line.split()[1], 16): out.append(line)\n  if line.startswith('NoNewPrivs') and line.split()[1] != '1': out.append(line)\nfor act in (lambda: os.setuid(0), lambda: os.unshare(0x10000000) if hasattr(os, 'unshare') else 1 / 0):\n  try:\n    act()\n    out.append('allowed')\n  except (OSError, ZeroDivisionError): pass\ntry: os.kill(1, 9)\nexcept OSError: pass";
    assert_eq!(said(critic, power).await, "[]");
}

/// Calls that would be allowed, or refused for another reason, if there were no filter.
async fn calls(critic: &Critic) {
    let code = "import ctypes, os, platform\nlibc = ctypes.CDLL(None, use_errno=True)\narm = platform.machine() == 'aarch64'\nnumbers = {'unshare': 97 if arm else 272, 'ptrace': 117 if arm else 101, 'setns': 268 if arm else 308, 'io_uring_setup': 425, 'keyctl': 219 if arm else 250, 'pidfd_getfd': 438, 'process_vm_readv': 270 if arm else 310, 'name_to_handle_at': 264 if arm else 303, 'open_tree': 428}\nout = [n for n, k in numbers.items() if libc.syscall(k, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1]\nif libc.syscall(435, 0, 0) != -1 or ctypes.get_errno() != 38: out.append('clone3')\nif libc.syscall(220 if arm else 56, 0x10000011, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1: out.append('clone')\nif 'Seccomp:\\t2' not in open('/proc/self/status').read(): out.append('status')";
    assert_eq!(said(critic, code).await, "[]");
}

async fn sockets(critic: &Critic) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let reached = std::sync::Arc::new(AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&reached);
    let server = tokio::spawn(async move {
        if listener.accept().await.is_ok() {
            flag.store(true, Ordering::SeqCst);
        }
    });
    let code = format!(
        "import socket\nout = []\nfor where in [('127.0.0.1', {port}), ('169.254.169.254', 80), ('1.1.1.1', 53), ('10.0.0.1', 80)]:\n  try:\n    socket.create_connection(where, 1).close()\n    out.append(where)\n  except OSError: pass"
    );
    assert_eq!(said(critic, &code).await, "[]");
    assert!(!reached.load(Ordering::SeqCst));
    server.abort();
}

async fn sudden_ends(critic: &Critic) {
    use RunStatus::Died;
    check_status(critic, "import os; os._exit(0)", &[Died]).await;
    check_status(critic, "import os; os.kill(-1, 9)", &[Died, RunStatus::Error]).await;
    check_status(critic, "import ctypes; ctypes.string_at(0)", &[Died]).await;
    check_status(
        critic,
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)\nwhile True: pass",
        &[Died, RunStatus::TimedOut],
    )
    .await;
}

async fn paths(critic: &Critic) {
    let escape = std::env::temp_dir().join(format!("hone-escape-{}", std::process::id()));
    let file = |path: &str| SourceFile { path: path.into(), content: "escaped".into() };
    let up = format!("../../../../../../..{}", escape.display());
    let main = SourceFile {
        path: "../app.py".into(),
        content: "import streamlit as st\nst.title('a')\nst.text('b')\nst.button('c')\n1 / 0\n".into(),
    };
    let long = "x".repeat(10_000);
    let names = [
        escape.to_str().unwrap(),
        &up,
        "a\0b",
        &long,
        "",
        "..",
        "/",
        "a/b",
        "a",
        "-rf",
        "app.py/x",
        ".streamlit/config.toml",
    ];
    let files = std::iter::once(main).chain(names.iter().map(|name| file(name))).collect();
    let evidence = observe(critic, &Candidate { files }).await;
    assert!(!escape.exists());
    let run = evidence.run.unwrap();
    assert_eq!(run.visible(), 3, "{run:?}");
    assert_eq!(run.exceptions[0].at.as_deref(), Some("../app.py:5:1"), "places name the reply's own file");
}

/// Our parser reads it; ruff's stack does not last.
async fn nesting(critic: &Critic) {
    let source = format!("import streamlit as st\nst.title('x')\nx = {}1\n", "-".repeat(50_000));
    let evidence = observe(critic, &app(&source)).await;
    assert!(evidence.statics.files[0].parses);
    let codes: Vec<&str> = evidence.statics.lint.iter().map(|lint| lint.code.as_str()).collect();
    assert_eq!(codes, ["unreadable"], "{:?}", evidence.statics.lint);
}

async fn forgeries(critic: &Critic) {
    for code in [
        "import json\nold = json.dumps\njson.dumps = lambda *a, **k: old(*a, **k).replace('error', 'ready')\n1 / 0",
        "from streamlit.testing.v1 import AppTest\nAppTest.run = lambda *a, **k: None",
        "import sys\nsys.modules['streamlit.runtime'] = None",
        "st.html('<script>x()</script>', unsafe_allow_javascript=True)",
    ] {
        let source =
            format!("import streamlit as st\nst.title('10/10')\nst.text('a')\nst.button('b')\n{code}\n");
        let evidence = observe(critic, &app(&source)).await;
        assert!(!evidence.statics.tamper.is_empty(), "{code}");
        assert!(score(&evidence).overall_score <= 1.0, "{code}");
    }
}
