use std::path::{Path, PathBuf};

use clap::Args;
use hone::{
    agent::{Candidate, SourceFile},
    brief::Brief,
    critic::{CriticOptions, Critique as Judgement, Judged},
    error::Kind,
    store,
};
use serde_json::{Value, json};

use crate::{
    commands::evolve,
    context::Context,
    error::{CommandError, Exit, Result},
    models::{Models, NO_JUDGE},
};

/// Score your own Streamlit apps, and say what is wrong with them
#[derive(Debug, Args)]
pub struct Critique {
    /// Python files, or folders that are one app each
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// What the app was asked to be; its words are looked for in what it shows
    #[arg(long, value_name = "TEXT")]
    brief: Option<String>,
    /// Model that answers a checklist about the brief, which can only lower the score: `none`, or a name under `[models]`
    #[arg(long, value_name = "ROW", requires = "brief")]
    judge: Option<String>,
    /// Exit with 4 when a score is below this
    #[arg(long, value_name = "SCORE")]
    threshold: Option<f64>,
    /// Score without running anything
    #[arg(long)]
    static_only: bool,
    /// Keep pictures of each app there, at 1280 and 375 pixels
    #[arg(long, value_name = "DIR")]
    screenshots: Option<PathBuf>,
}

/// Says nothing that an app could fail to show.
const NO_BRIEF: &str = "a Streamlit app";

pub async fn run(args: &Critique, context: &Context) -> Result {
    let brief = match &args.brief {
        Some(text) => Brief::from_description(text)?,
        None => Brief::from_description(NO_BRIEF)?,
    };
    let apps: Vec<(PathBuf, Candidate)> =
        args.paths.iter().map(|path| Ok((path.clone(), read(path)?))).collect::<Result<_>>()?;
    let settings = context.settings(evolve::judge_flag(&args.judge).as_slice())?;
    let mut models = Models::new(context, &settings);
    let judge_model = if args.brief.is_some() { models.judge().await? } else { None };
    if args.brief.is_none() && settings.judge.model != NO_JUDGE {
        context.events.note("without `--brief` there is nothing that a judge could ask about");
    }
    let options = CriticOptions {
        static_only: args.static_only,
        screenshots: args.screenshots.clone(),
        judge: judge_model,
        ..evolve::critic_options(context, &settings)?
    };
    let critic = evolve::open_critic(context, options).await?;
    let judged = judge(&critic, &brief, &apps).await;
    critic.close().await;
    models.close().await;
    let judged = judged?;
    let value: Vec<Value> = judged.iter().map(|(_, value, _)| value.clone()).collect();
    context.answer(&value, || {
        judged.iter().map(|(path, _, c)| text(path, c)).collect::<Vec<_>>().join("\n\n")
    })?;
    let below = args.threshold.is_some_and(|least| judged.iter().any(|(_, _, c)| c.overall_score < least));
    Ok(if below { Exit::Verdict } else { Exit::Ok })
}

async fn judge(
    critic: &hone::critic::Critic,
    brief: &Brief,
    apps: &[(PathBuf, Candidate)],
) -> Result<Vec<(PathBuf, Value, Judgement)>> {
    let mut judged = Vec::new();
    for (path, candidate) in apps {
        let started = std::time::Instant::now();
        let (evidence, critique) = critic.critique(brief, candidate).await?;
        let mut value = json!({
            "path": path, "score": critique.overall_score, "sub_scores": critique.scores, "caps": critique.caps,
            "issues": critique.issues, "citations": critique.citations,
            "citations_dropped": critique.citations_dropped, "sandbox_level": evidence.sandbox.kind, "level": critique.level,
            "critic": critique.critic, "took_ms": started.elapsed().as_millis() as u64,
        });
        if let Some(said) = &critique.judge {
            value["judge"] = json!(said);
        }
        judged.push((path.clone(), value, critique));
    }
    Ok(judged)
}

/// One file, or every Python and configuration file of a folder with the app's entry first.
fn read(path: &Path) -> Result<Candidate> {
    if !path.is_dir() {
        let name = path.file_name().map_or_else(|| "app.py".into(), |n| n.to_string_lossy().into_owned());
        return Ok(Candidate::single(name, store::read_text(path)?));
    }
    let mut files = Vec::new();
    let entries = std::fs::read_dir(path).map_err(|e| store::StoreError::new("read", path, e))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if [".py", ".txt", ".toml"].iter().any(|end| name.ends_with(end)) {
            files.push(SourceFile { content: store::read_text(&entry.path())?, path: name });
        }
    }
    if files.is_empty() {
        let message = format!("`{}` has no Python file", path.display());
        return Err(CommandError::new(Kind::Input, message).hint("name the app's file or its folder"));
    }
    files.sort_by_key(|file| {
        (!file.content.contains("streamlit"), !file.path.ends_with(".py"), file.path.clone())
    });
    Ok(Candidate { files })
}

fn text(path: &Path, critique: &Judgement) -> String {
    let mut lines = vec![format!("{}  {:.1} of 10", path.display(), critique.overall_score)];
    lines.extend(critique.caps.iter().map(|cap| format!("  at most {:.1}: {}", cap.value, cap.why)));
    lines.extend(critique.judge.iter().flat_map(judge_lines));
    for issue in &critique.issues {
        let at = issue.at.as_deref().map(|at| format!("{at}: ")).unwrap_or_default();
        let guideline = issue.guideline.as_deref().map(|g| format!(" [{g}]")).unwrap_or_default();
        let severity = format!("{:?}", issue.severity).to_lowercase();
        lines.push(format!("  {severity}: {at}{}{guideline}", issue.message));
    }
    lines.extend(critique.citations.iter().map(|cited| format!("  [{}] {}", cited.id, cited.source)));
    lines.join("\n")
}

/// What a judge took away and what it does not find, or why it said nothing.
fn judge_lines(said: &Judged) -> Vec<String> {
    if let Some(why) = &said.absent {
        return vec![format!("  judge `{}` gave no usable answer: {why}", said.row)];
    }
    let Some(share) = said.share else { return Vec::new() };
    let head =
        format!("  judge `{}`: {:.0}% of what it asked, -{:.1}", said.row, 100.0 * share, said.lowered_by);
    let open = said.items.iter().filter(|item| item.answer.is_some_and(|answer| answer < 1.0));
    let line = |item: &hone::critic::JudgedItem| {
        let word = if item.answer.is_some_and(|answer| answer > 0.0) { "in part" } else { "no" };
        format!("    {word}: {}", item.question)
    };
    std::iter::once(head).chain(open.map(line)).collect()
}
