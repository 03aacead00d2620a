//! Programs of the user as agents: what they are given, what becomes of what they leave behind.

use std::{path::Path, time::Duration};

use hone::{
    agent::{MAX_REPLY, Own, Program, Writer},
    brief::Brief,
    cancel::Cancel,
    error::{Explain, Kind},
    model::{client::ModelError, journal::Journal, wire::Finish, wire::Message},
};
use serde_json::{Value, json};

fn shell(folder: &Path, script: &str) -> Program {
    Program {
        command: vec!["sh".into(), "-c".into(), script.into()],
        search_path: "/usr/local/bin:/usr/bin:/bin".into(),
        ..Program::new("mine", folder)
    }
}

async fn answer(program: &Program) -> Result<(String, Finish), ModelError> {
    let reply = program.answer(&json!({"brief": {"id": "b"}})).await?;
    Ok((reply.text().to_owned(), reply.finish()))
}

/// Whether a process is there and not only waiting to be told of.
fn lives(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let state = status.rsplit(") ").next().unwrap_or_default().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

/// Waits for a file that a program writes, and for the process in it to end.
async fn ends(pid_file: &Path) {
    for _ in 0..2_000 {
        if std::fs::read_to_string(pid_file).is_ok_and(|pid| !pid.trim().is_empty() && !lives(&pid)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the process in `{}` lives on", pid_file.display());
}

#[tokio::test]
async fn the_question_comes_on_stdin_and_the_reply_is_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let (text, finish) = answer(&shell(folder.path(), "cat")).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({"brief": {"id": "b"}}));
    assert_eq!(finish, Finish::Complete);
    // One that does not listen answers too.
    let large = json!({"brief": "x".repeat(1 << 20)});
    assert_eq!(shell(folder.path(), "echo hello").answer(&large).await.unwrap().text(), "hello\n");
}

#[tokio::test]
async fn its_environment_is_what_its_row_says_and_its_home_is_gone_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program {
        settings: vec![("MODE".into(), "fast".into())],
        passed: vec![("MY_KEY".into(), "sk-canary-0123456789".into())],
        ..shell(folder.path(), "env; pwd; touch \"$HOME/x\"; echo \"sk-canary-0123456789\"")
    };
    let (text, _) = answer(&program).await.unwrap();
    let known = ["PATH", "HOME", "LANG", "MODE", "MY_KEY", "PWD", "OLDPWD", "SHLVL", "_"];
    let names = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
    let strange: Vec<&str> = names.filter(|name| !known.contains(name)).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert!(text.contains("MODE=fast") && text.contains(&*folder.path().to_string_lossy()), "{text}");
    assert!(text.contains("MY_KEY=[MY_KEY]") && !text.contains("canary"), "{text}");
    let home = text.lines().find_map(|line| line.strip_prefix("HOME=")).unwrap();
    assert!(!Path::new(home).exists());
}

#[tokio::test]
async fn a_time_limit_ends_it_and_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program {
        limit: Duration::from_secs(3),
        ..shell(folder.path(), "sh -c 'sleep 300 & echo $! > pid; wait' & wait")
    };
    let error = answer(&program).await.unwrap_err();
    assert!(error.to_string().contains("`models.mine` gave no answer within"), "{error}");
    assert_eq!(error.kind(), Kind::Input);
    ends(&folder.path().join("pid")).await;
}

#[tokio::test]
async fn what_it_leaves_running_ends_with_it_and_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let (text, _) = answer(&shell(folder.path(), "sleep 300 & echo $! > pid; echo done")).await.unwrap();
    assert_eq!(text, "done\n");
    ends(&folder.path().join("pid")).await;
}

#[tokio::test]
async fn a_stop_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let program = Program { cancel: cancel.clone(), ..shell(folder.path(), "echo $$ > pid; exec sleep 300") };
    let pid = folder.path().join("pid");
    let stop = async {
        while !std::fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let (error, ()) = tokio::join!(answer(&program), stop);
    assert!(matches!(error, Err(ModelError::Cancelled)), "{error:?}");
    ends(&pid).await;
}

#[tokio::test]
async fn a_reply_without_end_is_cut_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (text, finish) = answer(&shell(folder.path(), "yes")).await.unwrap();
    assert_eq!((text.len(), finish), (MAX_REPLY, Finish::Length));
}

#[tokio::test]
async fn a_failure_quotes_what_it_said_last_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program {
        passed: vec![("MY_KEY".into(), "sk-canary-0123456789".into())],
        ..shell(folder.path(), "yes x | head -c 9000 >&2; echo \"bad key $MY_KEY\" >&2; exit 3")
    };
    let error = answer(&program).await.unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.ends_with("bad key [MY_KEY]"), "{error}");
    assert!(error.len() < 800, "{error}");
    let missing = Program { command: vec!["no-such-program".into()], ..shell(folder.path(), "") };
    let error = answer(&missing).await.unwrap_err().to_string();
    assert!(error.contains("cannot start `no-such-program`"), "{error}");
}

#[tokio::test]
async fn an_answer_is_kept_and_not_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let writer = |script: &str| {
        let journal = Journal::open(folder.path().join("journal"));
        Writer::Own(Box::new(Own::program("mine", shell(folder.path(), script), journal)))
    };
    let brief = Brief::from_description("a form").unwrap();
    let messages = [Message::user("draw a form")];
    let count = "cat > asked; echo x >> count; wc -l < count";
    let ask = async |script: &str, seed| {
        let reply = writer(script).reply(&brief, &messages, seed).await.unwrap();
        (reply.text.trim().to_owned(), reply.replayed)
    };
    assert_eq!(ask(count, 1).await, ("1".into(), false));
    assert_eq!(ask(count, 1).await, ("1".into(), true));
    assert_eq!(ask(count, 2).await, ("2".into(), false));
    // Another program is another agent, whatever its row is called.
    let other = "cat > asked; echo x >> count;  wc -l < count";
    assert_eq!(ask(other, 1).await, ("3".into(), false));
    let asked: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("asked")).unwrap()).unwrap();
    assert_eq!(asked["brief"]["description"], "a form");
    assert_eq!(asked["messages"], json!([{"role": "user", "content": "draw a form"}]));
    assert_eq!(asked["seed"], 1);
}
