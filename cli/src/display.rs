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
/// Pause after which a line is said again, so that a phase in which nothing is finished yet shows that it is alive.
const AGAIN_EVERY: Duration = Duration::from_secs(20);

/// Shows events until their senders are gone.
pub fn show(mut events: UnboundedReceiver<Event>, quiet: bool) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut display = Display::new(quiet);
        let mut clock = tokio::time::interval(LINE_EVERY);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => display.on(&event),
                    None => break,
                },
                _ = clock.tick() => display.tick(),
            }
        }
        display.finish();
    })
}

struct Display {
    quiet: bool,
    terminal: bool,
    bar: Option<ProgressBar>,
    /// How far the phase is, where there is no terminal; none between phases.
    lines: Option<Lines>,
}

/// The progress lines of a phase: few, but never silence.
struct Lines {
    text: String,
    said: Option<(String, Instant)>,
}

impl Lines {
    fn new(text: String) -> Self {
        Self { text, said: None }
    }

    /// The line that is due by now: something new after a pause, the end at once, anything again after a longer one.
    fn due(&mut self, end: bool, now: Instant) -> Option<&str> {
        if let Some((text, at)) = &self.said {
            let passed = now.duration_since(*at);
            let new = *text != self.text && (end || passed >= LINE_EVERY);
            if !new && passed < AGAIN_EVERY {
                return None;
            }
        }
        self.said = Some((self.text.clone(), now));
        Some(&self.text)
    }
}

impl Display {
    fn new(quiet: bool) -> Self {
        Self { quiet, terminal: stderr().is_terminal(), bar: None, lines: None }
    }

    /// Time has passed without news.
    fn tick(&mut self) {
        self.say(false);
    }

    fn say(&mut self, end: bool) {
        if let Some(text) = self.lines.as_mut().and_then(|lines| lines.due(end, Instant::now())) {
            write_line(&stamp(text));
        }
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
        if self.terminal {
            let bar = ProgressBar::new(total.unwrap_or(0));
            bar.set_style(style(total.is_some()));
            bar.set_prefix(name(phase));
            bar.enable_steady_tick(Duration::from_millis(120));
            self.bar = Some(bar);
        } else {
            let of = total.map(|n| format!("0/{n}  ")).unwrap_or_default();
            self.lines = Some(Lines::new(format!("{:>9}  {of}at work", name(phase))));
            self.say(false);
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
        } else {
            let of = total.map(|n| format!("{done}/{n}  ")).unwrap_or_default();
            let text = format!("{:>9}  {of}{note}", name(phase));
            self.lines.get_or_insert_with(|| Lines::new(String::new())).text = text;
            self.say(total == Some(done));
        }
    }

    fn stamped(&self, text: &str) {
        self.line(&stamp(text));
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| write_line(text)),
            None => write_line(text),
        }
    }

    fn finish(&mut self) {
        self.lines = None;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn stamp(text: &str) -> String {
    format!("[{}] {text}", jiff::Zoned::now().strftime("%H:%M:%S"))
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

    #[test]
    fn lines_are_few_and_never_stop() {
        let start = Instant::now();
        let mut lines = Lines::new("0/3  at work".into());
        let mut check = |second: u64, text: &str, end: bool, said: bool| {
            lines.text = text.to_owned();
            let due = lines.due(end, start + Duration::from_secs(second));
            assert_eq!(due, said.then_some(text), "at {second} s");
        };
        check(0, "0/3  at work", false, true);
        check(10, "0/3  at work", false, false);
        check(20, "0/3  at work", false, true);
        check(22, "1/3  a", false, false);
        check(25, "2/3  b", false, true);
        check(26, "3/3  c", true, true);
        // What is at its end may go on saying so.
        check(27, "3/3  c", true, false);
        check(40, "3/3  c", true, false);
        check(46, "3/3  c", true, true);
    }
}
