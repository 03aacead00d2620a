//! Candidates a second: the critic beside what else one would do, a fresh process with Streamlit's AppTest for each.
//!
//!     HONE_TEST_PYTHON=~/.cache/hone/venv-.../bin/python taskset -c 0,1 cargo bench -p hone --bench critic
//!
//! Both judge the same apps, as many at once as there are cores, in turns, so that a busy moment hits both. AppTest makes
//! the first page and no more. The critic makes it too, runs it again, uses every control and tries what nobody expects
//! (`used`); for apps without controls (`seen`) both do nearly the same.

use std::{
    error::Error,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use hone::{
    agent::{Candidate, SourceFile},
    brief::Brief,
    cancel::Cancel,
    critic::{Critic, CriticOptions, CriticRuntime, Level},
};
use serde_json::json;
use tokio::task::JoinSet;

const ROUNDS: usize = 5;
const EACH: usize = 12;
/// No controls: tables, charts and metrics.
const SEEN: &[&str] = &["report", "config-first", "trivial"];
const USED: &[&str] =
    &["good-dashboard", "good-form", "calculator", "good-budget", "mediocre-tasks", "no-effect"];
/// The first page of an app, and how many elements it has.
const APP_TEST: &str = "import sys
from streamlit.testing.v1 import AppTest
print(len(AppTest.from_file(sys.argv[1], default_timeout=30).run().main))";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let python: PathBuf = std::env::var_os("HONE_TEST_PYTHON").ok_or("set HONE_TEST_PYTHON")?.into();
    let runtime = CriticRuntime {
        ruff: python.with_file_name("ruff"),
        bwrap: Some("/usr/bin/bwrap".into()),
        chromium: hone::runtime::find_chromium(),
        python: python.clone(),
    };
    let cores = std::thread::available_parallelism()?.get();
    let options = CriticOptions { workers: cores, ahead: cores, ..CriticOptions::default() };
    let critic = Critic::open(runtime, options, &Cancel::new()).await?;
    let brief: Brief = serde_json::from_value(json!({ "id": "b", "description": "a page" }))?;
    // The first look waits for the parent of all workers.
    observe(&critic, &brief, SEEN, 1, Level::Run).await?;
    let mut rates = [(); 4].map(|()| Vec::new());
    let (mut looks, mut alone) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        rates[0].push(app_test(&python, SEEN, cores)?);
        rates[1].push(observe(&critic, &brief, SEEN, EACH, Level::Run).await?.rate);
        rates[2].push(app_test(&python, USED, cores)?);
        rates[3].push(observe(&critic, &brief, USED, EACH, Level::Run).await?.rate);
        looks.extend(observe(&critic, &brief, USED, cores * 2, Level::Browser).await?.looks);
        let one = &USED[round % USED.len()..];
        alone.extend(observe(&critic, &brief, one, 1, Level::Browser).await?.looks);
    }
    critic.close().await;
    let [test_seen, seen, test_used, used] = rates.map(Spread::of);
    print(format!("cores {cores}, {ROUNDS} rounds of {EACH} candidates; median (least to most)"));
    for (apps, test, ours) in [("seen", test_seen, seen), ("used", test_used, used)] {
        let ratio = ours.median / test.median;
        print(format!("{apps}: AppTest {test} candidates/s, critic {ours} candidates/s, ratio {ratio:.1}"));
    }
    for (company, looks) in [("alone", alone), ("as many at once as cores", looks)] {
        if !looks.is_empty() {
            print(format!("browser, {company}: {} ms a look", Spread::of(looks)));
        }
    }
    Ok(())
}

fn print(line: String) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        Self { least: at(0), median: at(values.len() / 2), most: at(values.len().saturating_sub(1)) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2} to {:.2})", self.median, self.least, self.most)
    }
}

fn app(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/design/critic-apps").join(name).join("app.py")
}

/// Candidates a second of one cold process each.
fn app_test(python: &Path, names: &[&str], at_once: usize) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    let mut names = names.iter().cycle().take(EACH);
    let mut running = Vec::new();
    loop {
        while running.len() < at_once
            && let Some(name) = names.next()
        {
            let mut command = Command::new(python);
            command.args(["-c", APP_TEST]).arg(app(name)).stdout(Stdio::null()).stderr(Stdio::null());
            running.push(command.spawn()?);
        }
        // They take about the same time, so waiting for the oldest keeps the others busy.
        if running.is_empty() {
            return Ok(EACH as f64 / start.elapsed().as_secs_f64());
        }
        if !running.remove(0).wait()?.success() {
            return Err("AppTest failed".into());
        }
    }
}

struct Observed {
    /// Candidates a second.
    rate: f64,
    /// Milliseconds of each look in the browser.
    looks: Vec<f64>,
}

async fn observe(
    critic: &Critic,
    brief: &Brief,
    names: &[&str],
    count: usize,
    level: Level,
) -> Result<Observed, Box<dyn Error>> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for name in names.iter().cycle().take(count) {
        let content = std::fs::read_to_string(app(name))?;
        let candidate = Candidate { files: vec![SourceFile { path: "app.py".into(), content }] };
        let (critic, brief) = (critic.clone(), brief.clone());
        tasks.spawn(async move { critic.observe(&brief, &candidate, level).await });
    }
    let mut looks = Vec::new();
    while let Some(evidence) = tasks.join_next().await {
        let look = evidence??.timing.browser_ms;
        looks.extend((look > 0).then_some(look as f64));
    }
    Ok(Observed { rate: count as f64 / start.elapsed().as_secs_f64(), looks })
}
