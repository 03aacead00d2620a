//! What the client and the journal cost: calls a second with as many in flight as allowed, seconds of CPU, memory.
//!
//!     cargo bench -p hone --bench calls -- [--calls 20000] [--in-flight 256] [--latency-ms 200] [--python PYTHON]
//!
//! The provider is this program once more, in a process of its own, so that its work is not counted. With `--python`, whose
//! environment has the `openai` package, `bench/calls.py` then makes the same calls of the same provider through `AsyncOpenAI`.
//! The rate is that of the middle of the run, between a tenth and nine tenths of the calls; the ideal is `in-flight / latency`.

use std::{
    error::Error,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hone::{
    config::{ModelRow, Price},
    model::{
        client::{Client, Endpoint},
        journal::{Journal, Options},
        price::{Payer, Usd},
        wire::{ChatRequest, Message},
    },
};
use tokio::sync::Mutex;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// How a run is made.
struct Plan {
    calls: usize,
    in_flight: usize,
    latency_ms: u64,
    python: Option<String>,
}

impl Plan {
    fn read() -> Result<Self> {
        let mut plan = Self { calls: 20_000, in_flight: 256, latency_ms: 200, python: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("`{name}` wants a value"));
            match name.as_str() {
                "--calls" => plan.calls = value()?.parse()?,
                "--in-flight" => plan.in_flight = value()?.parse()?,
                "--latency-ms" => plan.latency_ms = value()?.parse()?,
                "--python" => plan.python = Some(value()?),
                // Cargo's own.
                "--bench" => {}
                other => return Err(format!("unknown argument `{other}`").into()),
            }
        }
        Ok(plan)
    }

    fn ideal(&self) -> f64 {
        1000.0 * self.in_flight as f64 / self.latency_ms as f64
    }
}

fn main() -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(latency) = std::env::var_os("HONE_BENCH_PROVIDER") {
        let latency = latency.to_str().unwrap_or_default().parse()?;
        return provider(Duration::from_millis(latency));
    }
    let plan = Plan::read()?;
    let mut child = Command::new(std::env::current_exe()?)
        .env("HONE_BENCH_PROVIDER", plan.latency_ms.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let measured = address(&mut child).and_then(|url| {
        runtime.block_on(ours(&plan, &url))?;
        plan.python.as_deref().map_or(Ok(()), |python| theirs(&plan, python, &url))
    });
    child.kill()?;
    child.wait()?;
    measured
}

/// Serves until its parent ends it.
fn provider(latency: Duration) -> Result {
    let fake = hone_fake::Fake::start(hone_fake::Options { latency, ..Default::default() })?;
    println!("{}", fake.url);
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn address(child: &mut Child) -> Result<String> {
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

async fn ours(plan: &Plan, url: &str) -> Result {
    let folder = tempfile::tempdir_in(std::env::current_dir()?)?;
    let price = Price { input: 3.75, output: 15.0, training: None, as_of: "2026-01-31".into() };
    let row = ModelRow { model: "m".into(), price: Some(price), ..ModelRow::default() };
    let options = Options { cap: Usd::cap(1e6), ..Options::default() };
    let journal = Journal::with(folder.path().join("journal"), options).for_row(Payer::new("fake", &row));
    let client = client(plan, url)?;
    let (next, times) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::with_capacity(plan.calls))));
    let (cpu, started) = (cpu_seconds()?, Instant::now());
    // Some more than may be in flight: those whose answers are on their way to the disk make room.
    let workers = (0..plan.in_flight * 3 / 2).map(|_| {
        let (journal, client, next, times) = (journal.clone(), client.clone(), next.clone(), times.clone());
        let calls = plan.calls;
        tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= calls {
                    return Ok::<(), hone::model::client::ModelError>(());
                }
                journal.chat(&client, &request(n), "").await?;
                times.lock().await.push(started.elapsed());
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    let mut memory = Vec::new();
    for tenths in 1..=9 {
        while times.lock().await.len() < plan.calls * tenths / 10 && workers.iter().any(|w| !w.is_finished())
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        memory.push(format!("{:.0}", resident_mb()?));
    }
    for worker in workers {
        worker.await??;
    }
    let (cpu, times) = (cpu_seconds()? - cpu, times.lock().await);
    let (tenth, nine) = (times.len() / 10, times.len() * 9 / 10);
    let rate = (nine - tenth) as f64 / (times[nine - 1] - times[tenth]).as_secs_f64();
    println!(
        "hone    {:6} calls  {rate:7.0}/s of {:.0} ({:.1}%)  {cpu:6.2} s CPU  MB after each tenth: {}",
        times.len(),
        plan.ideal(),
        100.0 * rate / plan.ideal(),
        memory.join(" "),
    );
    Ok(())
}

fn theirs(plan: &Plan, python: &str, url: &str) -> Result {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/calls.py");
    let numbers = [plan.calls, plan.in_flight, plan.latency_ms as usize].map(|n| n.to_string());
    let status = Command::new(python).arg(script).arg(url).args(numbers).status()?;
    if status.success() { Ok(()) } else { Err(format!("{script} failed").into()) }
}

fn client(_plan: &Plan, url: &str) -> Result<Client> {
    Ok(Client::new(Endpoint::new("fake", url))?)
}

/// As long as what a search asks: a system message, a brief, and an app of which half is to be improved.
fn request(n: usize) -> ChatRequest {
    let app = "st.write(\"A line of an app that is shown to the teacher\")\n".repeat(20);
    let messages = vec![
        Message::system("You are an expert UI developer."),
        Message::user(format!("Brief {n}: improve\n{app}")),
    ];
    ChatRequest { max_tokens: Some(640), seed: Some(n as i64), ..ChatRequest::new("m", messages) }
}

/// User and system time of this process so far.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(") ").ok_or("an odd stat")?.1;
    let ticks: u64 = after_name.split(' ').skip(11).take(2).map(|n| n.parse().unwrap_or(0u64)).sum();
    // The kernel's unit for this file on every Linux of today.
    Ok(ticks as f64 / 100.0)
}

fn resident_mb() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
