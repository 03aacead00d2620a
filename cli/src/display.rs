//! Events on a terminal: a bar when there is one, a line every few seconds otherwise. All of it on stderr.

use std::{
    io::{IsTerminal, Write, stderr},
    time::{Duration, Instant},
};

use hone::{
    event::{Event, Phase},
    text::thousands,
};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinHandle};

/// Pause between progress lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows events until their senders are gone.
pub fn show(mut events: UnboundedReceiver<Event>, quiet: bool) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut display = Display::new(quiet);
        while let Some(event) = events.recv().await {
            display.on(&event);
        }
        display.finish();
    })
}

struct Display {
    quiet: bool,
    bar: Option<ProgressBar>,
    terminal: bool,
    last_line: Option<Instant>,
}

impl Display {
    fn new(quiet: bool) -> Self {
        Self { quiet, bar: None, terminal: stderr().is_terminal(), last_line: None }
    }

    fn on(&mut self, event: &Event) {
        match event {
            Event::Warning { text, hint } => {
                self.line(&format!("warning: {text}"));
                if let Some(hint) = hint {
                    self.line(&format!("hint: {hint}"));
                }
            }
            _ if self.quiet => {}
            Event::Begin { phase, total } => self.begin(*phase, *total),
            Event::Progress { phase, done, total, note } => self.progress(*phase, *done, *total, note),
            Event::End { phase, summary } => {
                self.finish();
                self.line(&format!("{:>9}  {summary}", name(*phase)));
            }
            Event::Note { text } => self.line(text),
            Event::Job { job, status, text } => self.stamped(&format!("{job} {status}: {text}")),
            Event::Step { step, total_steps, loss, tokens, seconds_left, .. } => {
                let tokens = tokens.map(|n| format!("  tokens trained {}", thousands(n))).unwrap_or_default();
                let left = seconds_left.map(|s| format!("  {} left", duration(s))).unwrap_or_default();
                self.progress(
                    Phase::Finetune,
                    *step,
                    Some(*total_steps),
                    &format!("loss {loss:.3}{tokens}{left}"),
                );
            }
            _ => {}
        }
    }

    fn begin(&mut self, phase: Phase, total: Option<u64>) {
        self.finish();
        self.last_line = None;
        if self.terminal {
            let bar = ProgressBar::new(total.unwrap_or(0));
            bar.set_style(style(total.is_some()));
            bar.set_prefix(name(phase));
            bar.enable_steady_tick(Duration::from_millis(120));
            self.bar = Some(bar);
        } else {
            let of = total.map(|n| format!(" ({n})")).unwrap_or_default();
            self.stamped(&format!("{}{of}", name(phase)));
        }
    }

    fn progress(&mut self, phase: Phase, done: u64, total: Option<u64>, note: &str) {
        if self.terminal {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::new(0);
                bar.set_prefix(name(phase));
                bar
            });
            if let Some(total) = total {
                bar.set_style(style(true));
                bar.set_length(total);
            }
            bar.set_position(done);
            bar.set_message(note.to_owned());
        } else if total == Some(done) || self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            let of = total.map(|n| format!("{done}/{n}  ")).unwrap_or_default();
            self.stamped(&format!("{:>9}  {of}{note}", name(phase)));
        }
    }

    fn stamped(&self, text: &str) {
        self.line(&format!("[{}] {text}", jiff::Zoned::now().strftime("%H:%M:%S")));
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| write_line(text)),
            None => write_line(text),
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// A closed stderr is no reason to stop the work.
fn write_line(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

fn style(known: bool) -> ProgressStyle {
    let template = if known {
        "{prefix:>9} {bar:28} {pos}/{len}  {elapsed}  {wide_msg}"
    } else {
        "{prefix:>9} {spinner}  {elapsed}  {wide_msg}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Setup => "setup",
        Phase::Evolve => "evolve",
        Phase::Prepare => "prepare",
        Phase::Finetune => "finetune",
        Phase::Test => "test",
        Phase::Deploy => "deploy",
        Phase::Calibrate => "calibrate",
        Phase::Models => "models",
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        assert_eq!([duration(5), duration(65), duration(7265)], ["5 s", "1 min 05 s", "2 h 01 min"]);
    }
}
