use std::path::{Path, PathBuf};

use clap::Args;
use hone::{
    brief::{self, Brief},
    calibrate::{self, App, Options},
    critic::{Level, Project, ProjectError},
    error::Kind,
    evolve::composer::{Composer, Operator},
    store::{self, StoreError},
};
use serde_json::json;

use crate::{
    commands::evolve,
    context::Context,
    error::{CommandError, Exit, Result},
};

/// Measure the critic: spoil good apps in known ways and see whether the scores fall
///
/// Exits with 4 when it misses one of its targets. docs/design/calibration.md says what they are.
#[derive(Debug, Args)]
pub struct Calibrate {
    /// Apps to start from: a folder of `NAME.py`, or of `NAME/` with `brief.txt` beside the app [default: composed ones]
    #[arg(long, value_name = "FOLDER")]
    apps: Option<PathBuf>,
    /// Apps to spoil
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Looks at each app as it is
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Compare with people instead: JSON lines {"brief", "a": {path: content}, "b", "prefers": "a"|"b"|"tie", "rater"?}
    #[arg(long, value_name = "FILE", conflicts_with_all = ["apps", "limit", "repeats"])]
    pairs: Option<PathBuf>,
}

pub async fn run(args: &Calibrate, context: &Context) -> Result {
    let options = evolve::critic_options(context, &context.settings(&[])?)?;
    if let Some(path) = &args.pairs {
        let pairs = calibrate::read_pairs(path)?;
        let critic = evolve::open_critic(context, options).await?;
        let agreement = calibrate::compare(&critic, &pairs, &context.events, &context.cancel).await;
        let (version, level) = (critic.version().to_owned(), critic.level());
        critic.close().await;
        let agreement = agreement?;
        let value = json!({ "critic": version, "level": level, "human": agreement });
        return context.answer(&value, || agreement.text());
    }
    let apps = match &args.apps {
        Some(folder) => read(folder, args.limit as usize)?,
        None => composed(args.limit as usize, context.global.seed),
    };
    let critic = evolve::open_critic(context, options).await?;
    if critic.level() == Level::Static {
        let message = "a calibration needs a critic that runs apps";
        return Err(CommandError::new(Kind::Environment, message).hint("`hone doctor` says what is missing"));
    }
    let options = Options { seed: context.global.seed, repeats: args.repeats };
    let found = calibrate::calibrate(&critic, &apps, options, &context.events, &context.cancel).await;
    critic.close().await;
    let found = found?;
    context.answer(&found, || found.text())?;
    Ok(if found.reached() { Exit::Ok } else { Exit::Verdict })
}

/// The composer's first proposals for shipped briefs, drawn by seed and spread over the kinds.
fn composed(limit: usize, seed: u64) -> Vec<App> {
    let composer = Composer::new(seed);
    let make = |brief: Brief| App {
        name: brief.id.to_string(),
        candidate: composer.propose(&brief, Operator::Restart, 0, &[]),
        brief,
    };
    brief::sample(&brief::shipped_train(), limit, seed).into_iter().map(make).collect()
}

/// The user's apps in the order of their names.
fn read(folder: &Path, limit: usize) -> Result<Vec<App>> {
    let entries = std::fs::read_dir(folder).map_err(|e| StoreError::new("read", folder, e))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut apps = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|end| end == "py") {
            apps.push(app(name, &path, &path.with_extension("txt"))?);
        } else if path.is_dir() {
            match app(name, &path, &path.join("brief.txt")) {
                // Folders of data beside the apps.
                Err(ProjectError::NoPython(_)) => {}
                read => apps.push(read?),
            }
        }
    }
    if apps.is_empty() {
        let message = format!("`{}` has no app", folder.display());
        let hint = "put `NAME.py` there, or folders with `app.py` and `brief.txt`";
        return Err(CommandError::new(Kind::Input, message).hint(hint));
    }
    apps.truncate(limit);
    Ok(apps)
}

/// The sources of an app; its other files are nothing that a fault could be put into.
fn app(name: String, path: &Path, brief: &Path) -> std::result::Result<App, ProjectError> {
    let Project { candidate, .. } = Project::read(path, None)?;
    let text = if brief.is_file() { store::read_text(brief)? } else { "a Streamlit app".to_owned() };
    let brief = Brief::from_description(&text)
        .map_err(|e| StoreError::new("use", brief, std::io::Error::other(e)))?;
    Ok(App { name, brief, candidate })
}
