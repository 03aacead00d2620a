use std::path::PathBuf;

use clap::{Args, Subcommand};
use hone::{
    finetune,
    model::{
        journal::{self, Ledger, LedgerRow},
        price::{self, Usd},
    },
};

use crate::{context::Context, error::Result};

/// Show what calls of models cost, by run, row, model, role and phase; or carry them elsewhere
#[derive(Debug, Args)]
pub struct Calls {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write every call with its answer into a file, as JSON lines
    Export { file: PathBuf },
    /// Take in the calls of such a file: they are replayed and cost nothing
    Import { file: PathBuf },
}

pub fn run(args: &Calls, context: &Context) -> Result {
    let folder = context.workspace.journal();
    match &args.what {
        None => {
            let settings = context.settings(&[])?;
            finetune::book(&context.workspace, &context.journal(&settings)?)?;
            let cap = Usd::cap(settings.budget.usd);
            let ledger = Ledger::read(&folder, cap)?;
            context.answer(&ledger, || table(&ledger))
        }
        Some(What::Export { file }) => {
            let calls = journal::export(&folder, file)?;
            let value = serde_json::json!({ "calls": calls, "file": file });
            context.answer(&value, || format!("wrote {calls} calls to `{}`", file.display()))
        }
        Some(What::Import { file }) => {
            let done = journal::import(&folder, file)?;
            context.answer(&done, || {
                format!("took in {} calls, {} were there already", done.imported, done.known)
            })
        }
    }
}

const HEAD: [&str; 12] = [
    "run", "row", "model", "role", "phase", "calls", "batched", "replayed", "lost", "input", "output", "cost",
];
/// Columns of words, which stand left; numbers stand right.
const WORDS: usize = 5;

fn table(ledger: &Ledger) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(ledger.rows.iter().map(cells));
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |cells: &[String; 12]| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < WORDS { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut text: Vec<String> = lines.iter().map(line).collect();
    text.push(sentence(ledger));
    text.join("\n")
}

fn cells(row: &LedgerRow) -> [String; 12] {
    let count = |n: u64| n.to_string();
    [
        row.run.clone(),
        row.row.clone(),
        row.model.clone(),
        row.role.clone(),
        row.phase.clone(),
        count(row.calls),
        count(row.batched),
        count(row.replayed),
        count(row.lost),
        count(row.input_tokens),
        count(row.output_tokens),
        price::said(row.usd),
    ]
}

fn sentence(ledger: &Ledger) -> String {
    let [spent, held, lost] = [ledger.spent_usd, ledger.held_usd, ledger.lost_usd].map(Usd::of);
    let unknown = ledger.unknown();
    let cap =
        ledger.cap_usd.map_or_else(|| "no budget".into(), |cap| format!("the budget is {}", Usd::of(cap)));
    format!(
        "spent {spent}{unknown}; of it {lost} for calls whose end nobody knows, at their worst; {held} may still be billed; {cap}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_price_is_said() {
        let row = |model: &str, usd| LedgerRow {
            run: "r".into(),
            row: "mine".into(),
            model: model.into(),
            role: "agent".into(),
            phase: "evolve".into(),
            calls: 12,
            usd,
            ..LedgerRow::default()
        };
        let rows = vec![row("m", Some(0.25)), row("longer", None)];
        let ledger = Ledger { spent_usd: 0.25, held_usd: 0.0, lost_usd: 0.0, cap_usd: Some(5.0), rows };
        let text = table(&ledger);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "run  row   model   role   phase   calls  batched  replayed  lost  input  output     cost"
        );
        assert_eq!(
            lines[1],
            "r    mine  m       agent  evolve     12        0         0     0      0       0    $0.25"
        );
        assert_eq!(
            lines[2],
            "r    mine  longer  agent  evolve     12        0         0     0      0       0  unknown"
        );
        assert_eq!(
            lines[3],
            "spent $0.25, and what has no known price; of it $0.00 for calls whose end nobody knows, at their worst; \
             $0.00 may still be billed; the budget is $5.00"
        );
    }
}
