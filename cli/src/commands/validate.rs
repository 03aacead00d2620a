use std::{
    fs::File,
    io::{BufReader, BufWriter, stdin},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, ValueEnum};
use futures::{StreamExt, stream};
use hone::{
    brief::Brief,
    config::Settings,
    critic::{Critic, Evidence, Level, RunStatus},
    dataset::{
        tokens::{self, Local},
        validate::{self, Code, Fixed, Format, Options, Place, Problem, Report, RunTally, Sampled, Target},
    },
    error::Kind,
    finetune::OWN,
    runtime::BASE_MODEL,
    store::StoreError,
    text::thousands,
};
use hone_engine::{model::Model, train};
use serde::Serialize;

use crate::{
    bases,
    commands::evolve,
    context::Context,
    error::{CommandError, Exit, Result},
};

/// Look at a fine-tuning file, ours or not: would it be accepted, and what would it teach
///
/// Every problem at once, with its line and what mends it. The code inside the answers is parsed: a file that teaches a model
/// to begin with configuration, or to write code that does not parse, is refused.
#[derive(Clone, Debug, Args)]
pub struct Validate {
    /// JSON lines; `-` reads them from stdin
    pub file: PathBuf,
    /// What the file is for; told by its first rows when left out
    #[arg(long)]
    pub method: Option<Method>,
    /// The model to be tuned: whose tokens count and how many it reads [default: that of `[finetune]`]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Run the answers of N rows, drawn by `--seed`, and say which do not run
    #[arg(long, value_name = "N")]
    pub run: Option<usize>,
    /// Write a corrected copy and a diff of what was changed; what cannot be mended without new text is left out
    #[arg(long)]
    pub fix: bool,
    /// Where `--fix` writes the copy [default: FILE with `.fixed` before its ending]
    #[arg(long, value_name = "FILE", requires = "fix")]
    pub out: Option<PathBuf>,
    /// Problems of each kind that are listed
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub most: usize,
}

/// How a model is tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    Supervised,
    Dpo,
    Reinforcement,
}

impl Method {
    fn format(self) -> Format {
        match self {
            Self::Supervised => Format::Chat,
            Self::Dpo => Format::Dpo,
            Self::Reinforcement => Format::Rft,
        }
    }
}

/// What is printed.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<Copied>,
}

/// A corrected copy.
#[derive(Serialize)]
struct Copied {
    path: PathBuf,
    diff: PathBuf,
    #[serde(flatten)]
    fixed: Fixed,
    /// Whether a job would take the copy.
    ok: bool,
}

pub async fn run(args: &Validate, context: &Context) -> Result {
    let settings = context.settings(&[])?;
    let options = Options {
        format: args.method.map(Method::format),
        most: args.most,
        ..options(args.model.as_deref(), context, &settings)?
    };
    if is_read_once(&args.file) && (args.fix || args.run.is_some()) {
        return Err(reads_twice("`--fix` and `--run` read"));
    }
    let target = if args.fix { Some(CopyTo::new(args)?) } else { None };
    let mut report = read(&args.file, &options, context)?;
    if let Some(n) = args.run {
        try_out(&args.file, n, &mut report, context, &settings).await?;
    }
    let fixed = match target {
        Some(target) => Some(copy(&args.file, target, report.format, &options, context)?),
        None => None,
    };
    let ok = fixed.as_ref().map_or(report.ok, |copied| copied.ok);
    let text = fixed.as_ref().map(copied_text).unwrap_or_default();
    let answer = Answer { report: &report, fixed };
    context.answer(&answer, || report.text(&args.file.display().to_string()) + &text)?;
    Ok(if ok { Exit::Ok } else { Exit::Input })
}

/// Whether what is named ends with being read, as stdin and pipes do.
pub fn is_read_once(file: &Path) -> bool {
    file == Path::new("-") || file.metadata().is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
}

/// What those are not good for.
pub fn reads_twice(what: &str) -> CommandError {
    CommandError::usage(format!("{what} the file a second time, which stdin or a pipe cannot be"))
        .hint("write it to a file first, and name that")
}

fn copied_text(copied: &Copied) -> String {
    let Fixed { rows, changed, left_out, .. } = &copied.fixed;
    format!(
        "\n`{}` has {} rows, {} of them changed; {} are left out; `{}` shows how",
        copied.path.display(),
        thousands(*rows),
        thousands(*changed),
        thousands(*left_out),
        copied.diff.display()
    )
}

/// Where the copy goes, and its diff.
struct CopyTo {
    path: PathBuf,
    diff: PathBuf,
}

impl CopyTo {
    /// # Errors
    /// One of the two would take the place of the file itself, or of the other.
    fn new(args: &Validate) -> Result<Self> {
        let ending = args.file.extension().unwrap_or("jsonl".as_ref()).to_owned();
        let beside = || args.file.with_extension("fixed").with_added_extension(&ending);
        let path = args.out.clone().unwrap_or_else(beside);
        let diff = path.with_extension("diff");
        let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let taken = [&path, &diff].into_iter().find(|to| whole(to) == whole(&args.file));
        if let Some(taken) = taken {
            let message = format!("`{}` is the file itself, which stays as it is", taken.display());
            return Err(CommandError::usage(message).hint("name another file with `--out`"));
        }
        if path == diff {
            let message = format!("`{}` would be both the copy and its diff", path.display());
            return Err(CommandError::usage(message).hint("end the name of the copy with `.jsonl`"));
        }
        Ok(Self { path, diff })
    }
}

/// Writes the corrected copy of a file that was found to have this format, and its diff, each whole or not at all.
fn copy(file: &Path, to: CopyTo, found: Format, options: &Options, context: &Context) -> Result<Copied> {
    let CopyTo { path, diff } = to;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fail = |e| StoreError::new("write", &path, e);
    // Temporary files are private by themselves; these become as readable as any other file.
    let readable = std::fs::Permissions::from_mode(0o644);
    let begin = || tempfile::Builder::new().permissions(readable.clone()).tempfile_in(folder);
    let (new, changes) = (begin().map_err(fail)?, begin().map_err(fail)?);
    let source = File::open(file).map_err(|e| StoreError::new("read", file, e))?;
    let (to, shown) = (BufWriter::new(new.as_file()), BufWriter::new(changes.as_file()));
    let as_found = Options { format: Some(found), ..options.clone() };
    let fixed = validate::fix(BufReader::new(source), to, shown, &as_found, &context.cancel).map_err(fail)?;
    new.persist(&path).map_err(|e| fail(e.error))?;
    changes.persist(&diff).map_err(|e| fail(e.error))?;
    let ok = read(&path, options, context)?.ok;
    Ok(Copied { path, diff, fixed, ok })
}

/// Runs the answers of some rows and adds what comes of it to the report.
async fn try_out(
    file: &Path,
    n: usize,
    report: &mut Report,
    context: &Context,
    settings: &Settings,
) -> Result<()> {
    let failed = |e| StoreError::new("read", file, e);
    let source = BufReader::new(File::open(file).map_err(failed)?);
    let drawn = validate::sample(source, n, context.global.seed).map_err(failed)?;
    let critic = evolve::open_critic(context, evolve::critic_options(context, settings)?).await?;
    let at_once = critic.workers();
    let seen: Vec<_> =
        stream::iter(&drawn).map(|one| look_at(&critic, one)).buffered(at_once).collect().await;
    critic.close().await;
    let mut tally = RunTally::default();
    for (sampled, seen) in drawn.iter().zip(seen) {
        let (fails, ui_first, score) = seen?;
        tally.answers += 1;
        tally.runs += u64::from(fails.is_none());
        tally.ui_first += u64::from(ui_first);
        tally.score += (score - tally.score) / tally.answers as f64;
        if let Some(why) = fails {
            report.add(Problem::new(Code::DoesNotRun, why).on(sampled.line));
        }
    }
    report.run = Some(tally);
    Ok(())
}

/// Why it does not run, whether it begins with its interface, and its score.
async fn look_at(critic: &Critic, sampled: &Sampled) -> Result<(Option<String>, bool, f64)> {
    // What was asked may be nothing but a picture, or longer than any brief: the app runs or not all the same.
    let brief = Brief::from_description(&sampled.asked).or_else(|_| Brief::from_description("an app"))?;
    let (evidence, critique) = critic.critique_to(&brief, &sampled.candidate, Level::Run).await?;
    Ok((why_not(&evidence), evidence.ui_first(), critique.overall_score))
}

fn why_not(evidence: &Evidence) -> Option<String> {
    let Some(run) = &evidence.run else { return Some("the app was not run".into()) };
    let raised = run.exceptions.first().map(|raised| format!(": {}: {}", raised.kind, raised.message));
    let detail = || run.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
    match run.status {
        RunStatus::Ready if run.visible() == 0 => Some("the app shows nothing".into()),
        RunStatus::Ready => None,
        _ => Some(format!("the app does not run{}", raised.unwrap_or_else(detail))),
    }
}

/// Looks at a file, or at stdin.
pub fn read(file: &Path, options: &Options, context: &Context) -> Result<Report> {
    Ok(if file == Path::new("-") {
        validate::validate_stream(stdin().lock(), options, &context.cancel)?
    } else {
        validate::validate(file, options, &context.cancel)?
    })
}

/// How files are looked at for a model: that of the settings when none is named.
pub fn options(model: Option<&str>, context: &Context, settings: &Settings) -> Result<Options> {
    let name = model.unwrap_or(&settings.finetune.model);
    let name = if name == OWN { &settings.finetune.base_model } else { name };
    let is_base = |id: &str| id == name || id == tokens::base_of(name);
    let base = bases::all(context, settings)?.into_iter().find(|base| is_base(&base.id));
    // Whether or not its weights are here already.
    let own = base.is_some() || [BASE_MODEL, &settings.finetune.base_model].into_iter().any(is_base);
    let place = if own { Place::Local } else { Place::Hosted };
    let local = base.filter(|base| base.path.exists()).map(|base| local(&base.path)).transpose()?;
    let target = match (&local, settings.models.get(name)) {
        (Some(local), _) => Target { model: name.to_owned(), context: local.context, local: true },
        (None, Some(row)) => Target::hosted(&row.model),
        (None, None) => Target::hosted(name),
    };
    let ui_first = settings.critic.habits.iter().any(|habit| habit == "ui-first");
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Options { target, place, local, ui_first, workers, ..Options::default() })
}

/// How the embedded engine counts for one of its models.
fn local(path: &Path) -> Result<Local> {
    let (tokenizer, _) = Model::texts(path).map_err(|e| {
        CommandError::new(Kind::Input, format!("`{}`: {e}", path.display()))
            .hint("`hone models` lists the base models that can be used")
    })?;
    let context = train::Options::default().max_tokens as u64;
    Ok(Local { counter: Arc::new(move |text| tokenizer.count(text)), context })
}

#[cfg(test)]
mod tests {
    use hone::critic::{Element, Exception, Run};

    use super::*;

    #[test]
    fn an_app_that_does_not_run_is_named_with_the_reason() {
        let why = |status, shown, raised: &[(&str, &str)]| {
            let exception = |(kind, message): &(&str, &str)| Exception {
                kind: (*kind).into(),
                message: (*message).into(),
                ..Exception::default()
            };
            let exceptions = raised.iter().map(exception).collect();
            let elements = vec![Element::default(); shown];
            let run = Run { status, elements, exceptions, ..Run::default() };
            why_not(&Evidence { run: Some(run), ..Evidence::default() })
        };
        // A title and a button are an app.
        assert_eq!(why(RunStatus::Ready, 2, &[]), None);
        assert_eq!(why(RunStatus::Ready, 0, &[]).unwrap(), "the app shows nothing");
        let raised = why(RunStatus::Error, 1, &[("NameError", "name 'x' is not defined")]).unwrap();
        assert_eq!(raised, "the app does not run: NameError: name 'x' is not defined");
        assert_eq!(why(RunStatus::TimedOut, 0, &[]).unwrap(), "the app does not run");
        assert_eq!(why_not(&Evidence::default()).unwrap(), "the app was not run");
    }
}
