mod money;
mod providers;

use clap::Args;
use hone::{
    critic,
    error::Explain,
    runtime::{self, Check, Report},
};

use crate::{
    commands::evolve,
    context::Context,
    error::{Exit, Result},
};

/// Check everything that a run needs, and say how to mend each fault
///
/// No call costs anything and no key is shown. With `--offline` nobody is asked, and what was skipped is said.
#[derive(Debug, Args)]
pub struct Doctor {}

pub async fn run(_: &Doctor, context: &Context) -> Result {
    let settings = context.settings(&[]).map_err(|e| e.message);
    let settings = settings.as_ref().map_err(Clone::clone);
    let subject = runtime::Doctor {
        machine: &context.machine,
        workspace: &context.workspace,
        settings: settings.clone(),
    };
    let mut report = runtime::doctor(&subject).await;
    report.push(app_check(context).await);
    if let Ok(settings) = settings {
        let money = money::checks(context, settings);
        for check in money.into_iter().chain(providers::checks(context, settings).await) {
            report.push(check);
        }
    }
    context.answer(&report, || text(&report))?;
    Ok(if report.ok { Exit::Ok } else { Exit::Environment })
}

/// The whole way of a candidate: a trivial app, run as every candidate is.
async fn app_check(context: &Context) -> Check {
    match critic::probe(&evolve::critic_runtime(context)).await {
        Ok(found) => {
            let streamlit = found.versions.get("streamlit").map_or("unknown", String::as_str);
            let seconds = (found.start_ms + found.first_ms) as f64 / 1000.0;
            let looked = match (found.versions.get("chromium"), found.look_ms) {
                (Some(version), Some(ms)) => {
                    format!(", Chromium {version} shows it in {:.1} s", ms as f64 / 1000.0)
                }
                _ => String::new(),
            };
            Check::well(
                "app in the sandbox",
                format!("Streamlit {streamlit} answers after {seconds:.1} s{looked}"),
            )
        }
        Err(e) => Check::fault("app in the sandbox", e.to_string(), e.hint().unwrap_or_default()),
    }
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
