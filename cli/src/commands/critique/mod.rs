mod report;
mod sarif;

use std::{
    collections::HashSet,
    io::IsTerminal,
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use futures::{StreamExt, stream};
use hone::{
    brief::Brief,
    config::Settings,
    critic::{Critic, CriticOptions, Critique as Judgement, Evidence, Judge, Project},
    error::Kind,
    store,
};
use serde_json::{Value, json};

use crate::{
    commands::evolve,
    context::{Context, print_line, to_json},
    error::{CommandError, Exit, Result},
    models::{Models, NO_JUDGE},
};

/// Score your own Streamlit apps, and say what is wrong with them
///
/// A folder is one app: its modules, pages and data go along. docs/critique.md shows how to use it in CI and editors.
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
    /// The file of a folder that is run [default: streamlit_app.py, app.py, main.py, or the only one that imports Streamlit]
    #[arg(long, value_name = "FILE")]
    entry: Option<String>,
    /// Run the apps with the Python of your own environment
    #[arg(long, value_name = "PYTHON")]
    python: Option<PathBuf>,
    /// Score without running anything
    #[arg(long)]
    static_only: bool,
    /// Keep pictures of each app there, at 1280 and 375 pixels
    #[arg(long, value_name = "DIR")]
    screenshots: Option<PathBuf>,
    /// Write SARIF 2.1.0 there, for editors and code scanning
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,
    /// Mend what can be mended mechanically, and show what changed
    #[arg(long)]
    fix: bool,
    /// Show what --fix would change, and change nothing
    #[arg(long)]
    diff: bool,
}

/// Says nothing that an app could fail to show.
const NO_BRIEF: &str = "a Streamlit app";

/// An app that was judged.
struct Judged {
    path: PathBuf,
    project: Project,
    evidence: Evidence,
    critique: Judgement,
    took_ms: u64,
    /// What mending changes, as a unified diff; none when it was not asked for.
    diff: Option<String>,
}

pub async fn run(args: &Critique, context: &Context) -> Result {
    let brief = Brief::from_description(args.brief.as_deref().unwrap_or(NO_BRIEF))?;
    let settings = context.settings(evolve::judge_flag(&args.judge).as_slice())?;
    let (apps, mut faults) = read_all(args, context);
    let mut judged = Vec::new();
    if !apps.is_empty() {
        let mut models = Models::new(context, &settings);
        let options = CriticOptions {
            static_only: args.static_only,
            screenshots: args.screenshots.clone(),
            judge: judge_of(args, context, &settings, &mut models).await?,
            ..evolve::critic_options(context, &settings)?
        };
        let critic = evolve::open_critic_with(context, options, args.python.clone()).await?;
        let outcome = judge_all(args, context, &critic, &brief, apps).await;
        critic.close().await;
        models.close().await;
        for one in outcome {
            match one {
                Ok(one) => judged.push(one),
                Err(fault) => faults.push(fault),
            }
        }
    }
    if let Some(path) = &args.sarif {
        store::write_atomic(path, format!("{:#}\n", sarif_of(&judged, &faults)).as_bytes())?;
    }
    show(context, &judged);
    let below = args.threshold.is_some_and(|least| judged.iter().any(|j| j.critique.overall_score < least));
    match faults.len() {
        0 => Ok(if below { Exit::Verdict } else { Exit::Ok }),
        // What could be judged was shown; the last fault ends the command, those before it are said.
        _ => {
            let last = faults.remove(faults.len() - 1);
            for fault in faults {
                context.events.warn(fault.message, fault.hints.into_iter().next());
            }
            Err(last)
        }
    }
}

/// The judge, where there is a brief that it could ask about.
async fn judge_of(
    args: &Critique,
    context: &Context,
    settings: &Settings,
    models: &mut Models<'_>,
) -> Result<Option<Judge>> {
    if args.brief.is_some() {
        return models.at("critique").judge().await;
    }
    if settings.judge.model != NO_JUDGE {
        context.events.note("without `--brief` there is nothing that a judge could ask about");
    }
    Ok(None)
}

/// Every app that can be read, and why the others cannot.
fn read_all(args: &Critique, context: &Context) -> (Vec<(PathBuf, Project)>, Vec<CommandError>) {
    let (mut apps, mut faults) = (Vec::new(), Vec::new());
    for path in &args.paths {
        match Project::read(path, args.entry.as_deref()) {
            Ok(project) => {
                for note in &project.notes {
                    context.events.warn(format!("{}: {note}", path.display()), None);
                }
                apps.push((path.clone(), project));
            }
            Err(fault) => faults.push(fault.into()),
        }
    }
    (apps, faults)
}

/// Judges as many at once as the critic takes, in the order in which they were named.
async fn judge_all(
    args: &Critique,
    context: &Context,
    critic: &Critic,
    brief: &Brief,
    apps: Vec<(PathBuf, Project)>,
) -> Vec<Result<Judged>> {
    let all = stream::iter(apps).map(|(path, project)| async move {
        let mut judged = judge(critic, brief, path, project).await?;
        if args.fix || args.diff {
            let diff = mend(args, context, critic, brief, &mut judged).await?;
            if !context.global.json && !diff.is_empty() {
                print_line(&diff);
            }
            judged.diff = Some(diff);
        }
        Ok(judged)
    });
    let all = all.buffered(critic.workers()).collect();
    tokio::select! {
        judged = all => judged,
        () = context.cancel.cancelled() => vec![Err(CommandError::new(Kind::Cancelled, "cancelled"))],
    }
}

async fn judge(critic: &Critic, brief: &Brief, path: PathBuf, project: Project) -> Result<Judged> {
    let started = Instant::now();
    let (evidence, critique) = critic.critique_project(brief, &project).await?;
    let took_ms = started.elapsed().as_millis() as u64;
    Ok(Judged { path, project, evidence, critique, took_ms, diff: None })
}

/// Mends the app's sources where the score does not fall by it; the differences as text.
async fn mend(
    args: &Critique,
    context: &Context,
    critic: &Critic,
    brief: &Brief,
    judged: &mut Judged,
) -> Result<String> {
    let mut project = judged.project.clone();
    // What went along with a lone file was not named: it is judged, and not written.
    let named = if judged.path.is_dir() { usize::MAX } else { 1 };
    for file in project.candidate.files.iter_mut().take(named).filter(|file| file.path.ends_with(".py")) {
        if let Some(mended) = critic.fix(file).await? {
            file.content = mended;
        }
    }
    if project == judged.project {
        return Ok(String::new());
    }
    let better = judge(critic, brief, judged.path.clone(), project).await?;
    if better.critique.overall_score < judged.critique.overall_score {
        let text = format!("{}: left as it is, because mending lowers the score", judged.path.display());
        context.events.warn(text, None);
        return Ok(String::new());
    }
    let mut text = String::new();
    let mut written = HashSet::new();
    let files = judged.project.candidate.files.iter().zip(&better.project.candidate.files);
    for (old, new) in files.filter(|(old, new)| old != new) {
        let path = if judged.path.is_dir() { judged.path.join(&old.path) } else { judged.path.clone() };
        let name = path.display().to_string();
        let diff = similar::TextDiff::from_lines(&old.content, &new.content);
        text.push_str(&diff.unified_diff().header(&name, &name).to_string());
        // Two names may lead to one file.
        if args.fix && written.insert(std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone())) {
            // Somebody may have edited it meanwhile: their text is worth more than ours.
            if store::read_text(&path)? != old.content {
                let message = format!("`{name}` changed while it was judged, and is left as it is");
                return Err(CommandError::new(Kind::Input, message).hint("run the command again"));
            }
            store::rewrite(&path, new.content.as_bytes())?;
        }
    }
    if args.fix {
        *judged = better;
    }
    Ok(text)
}

fn show(context: &Context, judged: &[Judged]) {
    if context.global.json {
        let values: Vec<Value> = judged.iter().map(value).collect();
        return print_line(&to_json(&values));
    }
    let colour =
        std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let text = |one: &Judged| {
        report::report(&one.path.display().to_string(), &one.project.candidate, &one.critique, colour)
    };
    let reports: Vec<String> = judged.iter().map(text).collect();
    if !reports.is_empty() {
        print_line(&reports.join("\n\n\n"));
    }
    for one in judged.iter().filter(|one| one.evidence.untried > 0) {
        let count = one.evidence.untried;
        let text = format!(
            "{}: {count} more controls were not tried, for lack of time or means",
            one.path.display()
        );
        context.events.note(text);
    }
}

fn value(one: &Judged) -> Value {
    let Judged { path, evidence, critique, took_ms, .. } = one;
    let mut value = json!({
        "path": path, "score": critique.overall_score, "sub_scores": critique.scores, "caps": critique.caps,
        "issues": critique.issues, "citations": critique.citations,
        "citations_dropped": critique.citations_dropped, "habits": critique.habits,
        "pages": evidence.pages, "sandbox_level": evidence.sandbox.level(), "level": critique.level,
        "critic": critique.critic, "untried": evidence.untried, "took_ms": took_ms,
    });
    if let Some(said) = &critique.judge {
        value["judge"] = json!(said);
    }
    if let Some(diff) = &one.diff {
        value["diff"] = json!(diff);
    }
    value
}

fn sarif_of(judged: &[Judged], faults: &[CommandError]) -> Value {
    let sources: Vec<_> = judged
        .iter()
        .map(|one| {
            move |path: &str| {
                let file = one.project.candidate.files.iter().find(|file| file.path == path);
                file.map(|file| file.content.clone())
            }
        })
        .collect();
    let apps: Vec<sarif::Judged<'_>> = judged
        .iter()
        .zip(&sources)
        .map(|(one, source)| sarif::Judged { path: Path::new(&one.path), critique: &one.critique, source })
        .collect();
    let faults: Vec<String> = faults.iter().map(|fault| fault.message.clone()).collect();
    sarif::sarif(&apps, &faults)
}
