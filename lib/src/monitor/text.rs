//! The monitor as a table, and as a document.

use super::{Monitor, Remaining, RoundView, TrialView};

const COLUMNS: [&str; 10] = [
    "round",
    "logs",
    "drafts",
    "best",
    "new rows",
    "verdict",
    "tuned - base [95%]",
    "ui-first",
    "runs",
    "drift",
];

impl Monitor {
    /// As a table for a terminal.
    pub fn text(&self) -> String {
        let rows: Vec<[String; 10]> = self.rounds.iter().map(cells).collect();
        let width =
            |at: usize| rows.iter().map(|row| row[at].len()).chain([COLUMNS[at].len()]).max().unwrap_or(0);
        let line = |row: &[String; 10]| {
            let cells = row.iter().enumerate().map(|(at, cell)| format!("{cell:>width$}", width = width(at)));
            cells.collect::<Vec<_>>().join("  ")
        };
        let mut lines = vec![line(&COLUMNS.map(str::to_owned))];
        lines.extend(rows.iter().map(line));
        lines.push(String::new());
        lines.extend(self.variety());
        lines.push(format!("champion: {}", self.named()));
        lines.extend(self.stopped.iter().map(|stop| stop.sentence()));
        lines.push("\nstill wrong with the best apps:".into());
        lines.extend(self.issues.iter().map(|issue| format!("  {}", issue.line())));
        if self.issues.is_empty() {
            lines.push("  nothing that the critic sees".into());
        }
        lines.join("\n")
    }

    /// The learnings as a document in Markdown; `picture` is a link to what [`Monitor::draw`] drew.
    pub fn markdown(&self, picture: Option<&str>) -> String {
        let mut text = String::from("# What the rounds came to\n\n");
        text.push_str(&format!("| {} |\n|{}\n", COLUMNS.join(" | "), " ---: |".repeat(COLUMNS.len())));
        for round in &self.rounds {
            text.push_str(&format!("| {} |\n", cells(round).join(" | ")));
        }
        if let Some(picture) = picture {
            text.push_str(&format!("\n![Scores over the rounds, with intervals]({picture})\n"));
        }
        text.push_str(&format!("\nThe agent uses {}.", self.named()));
        if let Some(stop) = &self.stopped {
            text.push_str(&format!(" The loop {}.", stop.sentence()));
        }
        text.push_str("\n\n## What is still wrong\n\n");
        for issue in &self.issues {
            text.push_str(&format!("- {}\n", issue.line()));
        }
        if self.issues.is_empty() {
            text.push_str("Nothing that the critic sees in the best apps.\n");
        }
        let variety = self.variety();
        if !variety.is_empty() {
            text.push_str("\n## Variety\n\n");
            variety.iter().for_each(|line| text.push_str(&format!("- {line}\n")));
        }
        if !self.steps.is_empty() {
            text.push_str("\n## Deployments\n\n");
        }
        for step in &self.steps {
            let model =
                step.model.as_deref().map_or_else(|| "the base model".to_owned(), |id| format!("`{id}`"));
            let action = format!("{:?}", step.action).to_lowercase();
            text.push_str(&format!("- {} {action}: {model}: {}\n", step.at, step.reason));
        }
        text
    }

    fn named(&self) -> String {
        self.champion.as_ref().map_or_else(|| "the base model".to_owned(), |model| format!("`{model}`"))
    }

    /// How much apps differ, round by round.
    fn variety(&self) -> Vec<String> {
        let line = |round: &RoundView| {
            let of = |what: &str, diversity: Option<crate::rounds::Diversity>| {
                let d = diversity?;
                let percent = 100.0 * d.distinct;
                Some(format!("{what} {percent:.0}% of {} differ, entropy {:.2} bits", d.apps, d.entropy))
            };
            let parts: Vec<String> = [of("best apps", round.taught), of("answers", round.answered)]
                .into_iter()
                .flatten()
                .collect();
            (!parts.is_empty()).then(|| format!("variety in round {}: {}", round.round, parts.join("; ")))
        };
        self.rounds.iter().filter_map(line).collect()
    }
}

fn cells(round: &RoundView) -> [String; 10] {
    let none = || "-".to_owned();
    let number = |value: Option<f64>| value.map_or_else(none, |value| format!("{value:.2}"));
    let rate = |value: Option<f64>| value.map_or_else(none, |value| format!("{:.0}%", 100.0 * value));
    let trial = round.trial.as_ref();
    [
        round.round.to_string(),
        round.logs.to_string(),
        number(round.initial),
        number(round.best),
        round.new_rows.map_or_else(none, |rows| rows.to_string()),
        trial.map_or_else(none, |trial| trial.verdict.as_str().to_owned()),
        trial.and_then(gain).unwrap_or_else(none),
        rate(trial.and_then(|trial| trial.tuned.ui_first)),
        rate(trial.and_then(|trial| trial.tuned.runs)),
        round.drift.map_or_else(none, |drift| format!("{drift:+.2}")),
    ]
}

/// Tuned minus base with its interval, as far as there is one.
fn gain(trial: &TrialView) -> Option<String> {
    let gain = trial.gain?;
    Some(match (trial.low, trial.high) {
        (Some(low), Some(high)) => format!("{gain:+.2} [{low:+.2}, {high:+.2}]"),
        _ => format!("{gain:+.2}"),
    })
}

impl Remaining {
    /// `in 12 apps (20%, +5 points since round 1): message [g012]`.
    fn line(&self) -> String {
        let trend = self.trend.map(|trend| format!(", {:+.0} points since the first round", 100.0 * trend));
        let guideline = self.guideline.as_ref().map(|id| format!(" [{id}]")).unwrap_or_default();
        let (n, share) = (self.n, 100.0 * self.share);
        format!("in {n} apps ({share:.0}%{}): {}{guideline}", trend.unwrap_or_default(), self.message)
    }
}
