use clap::Args;
use hone::runtime::{self, Report};

use crate::{
    context::Context,
    error::{Exit, Result},
};

/// Check everything that a run needs, and say how to mend each fault
#[derive(Debug, Args)]
pub struct Doctor {}

pub async fn run(_: &Doctor, context: &Context) -> Result {
    let settings = context.settings(&[]).map_err(|e| e.message);
    let settings = settings.as_ref().map_err(Clone::clone);
    let subject = runtime::Doctor { machine: &context.machine, workspace: &context.workspace, settings };
    let report = runtime::doctor(&subject).await;
    context.answer(&report, || text(&report))?;
    Ok(if report.ok { Exit::Ok } else { Exit::Environment })
}

fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    for check in &report.checks {
        let mark = if check.ok { "ok   " } else { "FAULT" };
        lines.push(format!("{mark}  {:<22} {}", check.name, check.detail));
        if let Some(fix) = &check.fix {
            lines.push(format!("       {:<22} -> {fix}", ""));
        }
    }
    lines.join("\n")
}
