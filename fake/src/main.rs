//! `hone-fake`: the provider as a process of its own. Prints its address and runs until it is killed.

use std::{io, process::ExitCode, time::Duration};

use hone_fake::{Fake, Faults, Options, Price, Tuning};

const HELP: &str = "hone-fake [--port N] [--latency-ms N] [--faults SHARE] [--fault NAME] [--seed N] [--rate CALLS-A-SECOND] \
                    [--input NANO-DOLLARS] [--output NANO-DOLLARS] [--key KEY] [--stuck-minutes N]";

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut share = None;
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().ok_or_else(|| format!("{flag} wants a value\n{HELP}"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{flag}: `{value}` is no whole number"));
        let real = || value.parse::<f64>().map_err(|_| format!("{flag}: `{value}` is no number"));
        match flag.as_str() {
            "--port" => options.port = value.parse().map_err(|_| format!("`{value}` is no port"))?,
            "--latency-ms" => options.latency = Duration::from_millis(number()?),
            "--faults" => share = Some(real()?),
            "--fault" => options.faults = Faults::always(value.parse()?),
            "--seed" => options.seed = number()?,
            "--rate" => options.rate = Some(real()?),
            "--input" => options.price = Price { input: number()?, ..options.price },
            "--output" => options.price = Price { output: number()?, ..options.price },
            "--key" => options.key = Some(value),
            "--stuck-minutes" => options.tuning = Tuning::Stuck { minutes: number()? as i64 },
            _ => return Err(format!("unknown flag {flag}\n{HELP}")),
        }
    }
    if let Some(share) = share {
        options.faults = Faults::passing(share, options.seed);
    }
    Ok(options)
}

fn main() -> ExitCode {
    let started = options().and_then(|options| Fake::start(options).map_err(|e: io::Error| e.to_string()));
    match started {
        Ok(fake) => {
            println!("{}", fake.url);
            loop {
                std::thread::park();
            }
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
