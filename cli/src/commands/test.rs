mod budget;
pub mod release;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use clap::{Args, builder::RangedU64ValueParser};
use hone::{
    agent::{self, Agent, Prompts},
    brief::{self, Brief},
    calibrate,
    config::Settings,
    critic::{Critic, CriticOptions, Judge},
    dataset::{self, validate},
    error::Kind,
    finetune::{self, Learnt},
    model::wire::{JobEvent, Message},
    rating::{self, Rating},
    store,
    trial::{
        self, Arm, Extras, Generation, Judgement, LossPoint, Pair, Row, Summary, Training, Trial, TrialError,
        TrialSpec, Verdict,
    },
};

use crate::{
    commands::{evolve, plan},
    context::Context,
    error::{CommandError, Exit, Result},
    models::Models,
};

/// Compare the tuned model with the base on held-out briefs, and say whether it should be deployed
///
/// Beside the base takes part what a better system message alone gives. Ends with exit code 0 when the verdict is
/// "promote", 4 otherwise. Replaces test_finetuned_model.py.
#[derive(Clone, Debug, Default, Args)]
pub struct Test {
    /// The tuned model; the last one of this workspace when left out
    pub model: Option<String>,
    /// Held-out briefs, instead of the workspace's
    #[arg(long, value_name = "FILE")]
    pub briefs: Option<PathBuf>,
    /// Use this many of them, drawn by seed, a third of kinds that training never saw
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub limit: Option<usize>,
    /// Answers per model and brief
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: Option<u32>,
    /// Model that answers a checklist about each app; its figures stand beside the executed scores: `none`, or a name under
    /// `[models]`
    #[arg(long, value_name = "ROW")]
    pub judge: Option<String>,
    /// Compare another model too, under a name of your own; may be given several times
    #[arg(long = "arm", value_name = "NAME=MODEL", value_parser = arm)]
    pub arms: Vec<Arm>,
    /// Leave out the base model with a better system message
    #[arg(long)]
    pub no_prompt_arm: bool,
    /// Look after every six briefs, from the thirtieth on, and stop as soon as the evidence is enough
    #[arg(long)]
    pub sequential: bool,
    /// Ask the sealed briefs too, at least 150 answers of each model: once, before a release
    #[arg(long, conflicts_with_all = ["briefs", "limit", "sequential"])]
    pub release: bool,
    /// What people prefer: pairs of this trial's apps, as `hone rate` writes them or `hone calibrate` reads them;
    /// the workspace's own ratings count without it
    #[arg(long, value_name = "FILE")]
    pub pairs: Option<PathBuf>,
    /// Share of the error budget; the usual one when left out, or that of an earlier trial of the model
    #[arg(long, hide = true)]
    pub alpha: Option<f64>,
    /// Held-out briefs that were drawn earlier
    #[arg(skip)]
    pub drawn: Option<Vec<String>>,
    /// The champion to compare with; today's when left out
    #[arg(skip)]
    pub champion: Option<String>,
    /// Score without running anything
    #[arg(long)]
    pub static_only: bool,
    /// Ask models through their providers' batches: at half the price, within a day
    #[arg(long)]
    pub batch: bool,
    /// Print what it will take (calls, tokens, dollars, hours) and on what assumptions; nothing is sent
    #[arg(long)]
    pub dry_run: bool,
}

/// Answers at once where they come in batches: a batch takes no more.
const MOST: usize = 50_000;

/// Answers shown side by side before the table.
const SHOWN: usize = 3;
const WIDTH: usize = 110;

pub async fn run(args: &Test, context: &Context) -> Result {
    let settings = context.settings(evolve::judge_flag(&args.judge).as_slice())?;
    if args.dry_run {
        told(args)?;
        return plan::test(args, context, &settings);
    }
    let mut models = Models::new(context, &settings);
    models.in_batches(args.batch);
    let outcome = execute(args, context, &settings, &mut models).await;
    models.close().await;
    let outcome = outcome?;
    context.answer(&outcome.summary, || outcome.text())?;
    Ok(outcome.exit())
}

/// What a trial ended with.
pub struct Outcome {
    pub trial: String,
    pub summary: Summary,
    pub side_by_side: String,
}

impl Outcome {
    pub fn text(&self) -> String {
        format!("{}\n{}", self.side_by_side, trial::table(&self.summary))
    }

    pub fn exit(&self) -> Exit {
        if self.summary.verdict == Verdict::Promote { Exit::Ok } else { Exit::Verdict }
    }
}

/// Runs what is missing of the trial and sums it up.
pub async fn execute(
    args: &Test,
    context: &Context,
    settings: &Settings,
    models: &mut Models<'_>,
) -> Result<Outcome> {
    let told = told(args)?;
    let tuned = tuned_model(args, context)?;
    let judge_model = models.at("test").judge().await?;
    let prompts = Prompts::load(&context.workspace.prompts())?;
    let spec = TrialSpec {
        judge: judge_model.as_ref().map(|judge| judge.version(hone::critic::VERSION)),
        prompts: prompts.name().map(str::to_owned),
        asked_sha256: Some(prompts.asked_sha256()?),
        ..spec(args, context, settings, models, tuned)?
    };
    spec.check()?;
    refuse_trained(&spec.briefs, context)?;
    let asked = asked(&spec.briefs, &prompts)?;
    let agents = agents(&spec, settings, models).await?;
    let generate = async |arm: &Arm, brief: &Brief, sample: u32| {
        let index = spec.arms.iter().position(|a| a.name == arm.name).unwrap_or_default();
        let messages = with_system(asked.get(brief.id.as_str()).cloned().unwrap_or_default(), arm);
        agents[index].reply(&messages, spec.sampling_seed(brief, sample)).await.map(generation)
    };
    let (opened, openings) = if args.release {
        release::open(&spec, &generate, context).await?
    } else {
        (Trial::open(&context.workspace.trials(), &spec)?, Vec::new())
    };
    let judge_batches = judge_model.as_ref().is_some_and(Judge::batches);
    let screenshots = Some(opened.trial.screenshots());
    let standards = evolve::critic_options(context, settings)?;
    let options =
        CriticOptions { static_only: args.static_only, screenshots, judge: judge_model, ..standards };
    let critic = evolve::open_critic(context, options).await?;
    let limits = limits(&agents, judge_batches, &critic);
    let judge = async |brief: &Brief, candidate: &agent::Candidate| {
        critic.critique(brief, candidate).await.map(Judgement::from)
    };
    let run = trial::run(opened, limits, generate, judge, &context.events, &context.cancel).await;
    let compared = compare(&run, &critic, limits.judge, context).await;
    if let Some(text) = critic.judge().and_then(|judge| judge.tally().complaint()) {
        context.events.warn(text, Some("the executed scores, which decide, are complete".into()));
    }
    critic.close().await;
    let ((trial, rows), mut pairs) = (run?, compared?);
    pairs.extend(people(told, &trial, &rows, context)?);
    let mut summary = trial::summarise_with(trial.spec(), &rows, &pairs);
    let extras = Extras {
        loss: loss_curve(&spec, models).await,
        facts: openings,
        made_at: jiff::Zoned::now().strftime("%Y-%m-%d %H:%M %Z").to_string(),
    };
    trial::write_report(&trial, &rows, &mut summary, &extras)?;
    Ok(Outcome {
        trial: trial.id().to_owned(),
        side_by_side: trial::side_by_side(&rows, SHOWN, WIDTH),
        summary,
    })
}

/// A batch of a few calls takes as long as one of all; the critic limits its own work.
fn limits(agents: &[Agent], judge_batches: bool, critic: &Critic) -> trial::Limits {
    trial::Limits {
        generate: if agents.iter().any(|agent| agent.journal.batches(&agent.client)) { MOST } else { 32 },
        judge: if judge_batches { MOST } else { critic.workers() },
    }
}

/// Who answers for each arm. All are asked where the tuned model was trained: the base, too, is the one that training
/// started from.
async fn agents(spec: &TrialSpec, settings: &Settings, models: &mut Models<'_>) -> Result<Vec<Agent>> {
    let mut agents = Vec::new();
    for arm in &spec.arms {
        agents.push(Agent { model: arm.model.clone(), ..models.agent(&settings.finetune.model).await? });
    }
    Ok(agents)
}

fn generation(reply: agent::Reply) -> Generation {
    Generation {
        reply: reply.text,
        usage: reply.usage,
        took_ms: reply.took_ms,
        replayed: reply.replayed,
        finish_reason: Some(reply.finish.as_str().to_owned()),
    }
}

/// Which of two answers the judge prefers, once there are all; nothing without a judge.
async fn compare(
    run: &std::result::Result<(Trial, Vec<Row>), TrialError>,
    critic: &Critic,
    at_once: usize,
    context: &Context,
) -> std::result::Result<Vec<Pair>, TrialError> {
    match (run, critic.judge()) {
        (Ok((trial, rows)), Some(judge)) => {
            trial::pairs::ask(trial, rows, judge, at_once, &context.cancel).await
        }
        _ => Ok(Vec::new()),
    }
}

/// `NAME=MODEL`.
fn arm(text: &str) -> std::result::Result<Arm, String> {
    let (name, model) = text.split_once('=').ok_or("write NAME=MODEL")?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || !name.chars().all(plain) || model.is_empty() {
        return Err("a name has small letters, digits and `-`, and a model follows the `=`".into());
    }
    if Arm::KNOWN.contains(&name) {
        return Err(format!("`{name}` is an arm with a meaning of its own: choose another name"));
    }
    Ok(Arm::new(name, model))
}

/// The conversation with the arm's own system message, if it has one.
fn with_system(mut messages: Vec<Message>, arm: &Arm) -> Vec<Message> {
    let Some(system) = &arm.system else { return messages };
    messages.retain(|message| message.role != "system");
    messages.insert(0, Message::system(system.clone()));
    messages
}

/// What a file of `--pairs` holds.
enum Told {
    Ratings(PathBuf, Vec<Rating>),
    Pairs(Vec<calibrate::Pair>),
}

/// Read before anything is asked, so that a wrong name costs nothing.
fn told(args: &Test) -> Result<Option<Told>> {
    args.pairs.as_deref().map(read_told).transpose()
}

/// A file of ratings, or of pairs as `hone calibrate` reads them.
fn read_told(path: &Path) -> Result<Told> {
    if !path.exists() {
        let message = format!("`--pairs` names `{}`, and there is no such file", path.display());
        return Err(CommandError::new(Kind::Input, message).hint(
            "it takes ratings as `hone rate` writes them, or pairs as `hone calibrate` reads them; the workspace's own ratings count \
             without it",
        ));
    }
    let ratings = rating::read(path)?;
    if ratings.is_empty() {
        return Ok(Told::Pairs(calibrate::read_pairs(path)?));
    }
    Ok(Told::Ratings(path.to_owned(), ratings))
}

impl Told {
    /// Why none of it counts in a trial, if so.
    fn is_elsewhere(&self, trial: &str) -> Option<String> {
        let Self::Ratings(path, ratings) = self else { return None };
        let ours = |rating: &Rating| rating.source == rating::Source::Trial(trial.to_owned());
        (!ratings.iter().any(ours)).then(|| {
            let (count, path) = (ratings.len(), path.display());
            format!(
                "none of the {count} ratings of `{path}` is about this trial, `{trial}`: they are left out"
            )
        })
    }

    /// As ratings; pairs are about whichever trial asks.
    fn into_ratings(self, trial: &str) -> Vec<Rating> {
        match self {
            Self::Ratings(_, ratings) => ratings,
            Self::Pairs(pairs) => pairs.into_iter().map(|pair| rating_of(pair, trial)).collect(),
        }
    }
}

fn rating_of(pair: calibrate::Pair, trial: &str) -> Rating {
    let side = |app: agent::Candidate| rating::Side {
        model: String::new(),
        arm: None,
        sample: None,
        log: None,
        iteration: None,
        score: None,
        files: app.files,
    };
    Rating {
        format: rating::FORMAT.into(),
        version: rating::FORMAT_VERSION,
        at: String::new(),
        rater: pair.rater,
        source: rating::Source::Trial(trial.to_owned()),
        brief: pair.brief,
        a: side(pair.a),
        b: side(pair.b),
        prefers: pair.prefers,
        shown_first: rating::Which::A,
    }
}

/// What people said of this trial's apps: of the workspace's ratings, and of a file.
fn people(told: Option<Told>, trial: &Trial, rows: &[Row], context: &Context) -> Result<Vec<Pair>> {
    let mut ratings = rating::read(&context.workspace.ratings())?;
    if let Some(told) = told {
        if let Some(text) = told.is_elsewhere(trial.id()) {
            let hint = "a rating names its trial as `source`; `hone rate --trial ID` makes them for another";
            context.events.warn(text, Some(hint.into()));
        }
        ratings.extend(told.into_ratings(trial.id()));
    }
    let (pairs, strange) = trial::pairs::of_people(trial.spec(), rows, &ratings);
    if strange > 0 {
        let text =
            format!("{strange} rating(s) are about apps that this trial does not compare, and are left out");
        context.events.warn(text, None);
    }
    Ok(pairs)
}

/// Says which trials nobody can take into account: the last of those that can be read may not be the last.
pub fn warn_of_unreadable_summaries(context: &Context) {
    for path in trial::unreadable_summaries(&context.workspace.trials()) {
        let text = format!("`{}` cannot be read, and its trial is passed over", path.display());
        context.events.warn(text, Some("`hone test` with the same flags writes it again".into()));
    }
}

fn tuned_model(args: &Test, context: &Context) -> Result<String> {
    if let Some(model) = &args.model {
        return Ok(model.clone());
    }
    let path = context.workspace.tuned_model_id();
    let text = store::read_text(&path).map_err(|_| {
        CommandError::new(Kind::Input, format!("there is no tuned model: `{}` is missing", path.display()))
            .hint("`hone finetune` makes one, or name one: `hone test MODEL`")
    })?;
    Ok(text.trim().to_owned())
}

fn spec(
    args: &Test,
    context: &Context,
    settings: &Settings,
    models: &Models<'_>,
    tuned: String,
) -> Result<TrialSpec> {
    let seen_kinds = seen_kinds(context)?;
    let base = models.base();
    let champion = match &args.champion {
        Some(model) => model.clone(),
        None => models.champion()?,
    };
    let training = training(&tuned, context)?;
    let budget = budget::of(args.alpha, &tuned, context)?;
    let arms = arms(args, context, [&base, &tuned, &champion])?;
    let briefs = match &args.drawn {
        Some(ids) => drawn(ids, context)?,
        None => asked_for(args, context, &seen_kinds)?,
    };
    let there = match args.briefs {
        None => Some(brief::load(&context.workspace.heldout_briefs())?.len()),
        Some(_) => None,
    };
    let briefs = if args.release { release::with_sealed(briefs, context)? } else { briefs };
    let samples = args.samples.unwrap_or(settings.test.samples);
    Ok(TrialSpec {
        id: String::new(),
        samples: if args.release { release::samples(samples, briefs.len()) } else { samples },
        briefs,
        arms,
        seed: context.global.seed,
        temperature: settings.agent.temperature,
        max_tokens: settings.agent.max_tokens,
        seen_kinds,
        deployed: (champion != base).then_some(champion),
        judge: None,
        prompts: None,
        asked_sha256: None,
        sequential: args.sequential,
        alpha: budget.alpha,
        alpha_from: budget.from,
        heldout: there,
        training,
    })
}

/// Base and tuned; the champion where it is a third model, or the one before it where the tuned model is in office; what a
/// better system message gives; and whatever the user named.
fn arms(args: &Test, context: &Context, [base, tuned, champion]: [&str; 3]) -> Result<Vec<Arm>> {
    let mut arms = vec![Arm::new(Arm::BASE, base), Arm::new(Arm::TUNED, tuned)];
    if champion != base && champion != tuned {
        arms.push(Arm::new(Arm::CHAMPION, champion));
    }
    if champion == tuned {
        let registry = context.registry()?;
        let before = registry.before(champion).filter(|model| *model != base && *model != tuned);
        arms.extend(before.map(|model| Arm::new(Arm::PREVIOUS, model)));
    }
    if !args.no_prompt_arm {
        arms.push(Arm::prompted(base));
    }
    arms.extend(args.arms.iter().cloned());
    Ok(arms)
}

/// What the model learned from, as far as the workspace knows; nothing of a model that was trained elsewhere.
fn training(tuned: &str, context: &Context) -> Result<Option<Training>> {
    let workspace = &context.workspace;
    let Some((job, dataset_sha256)) = finetune::origin(workspace, tuned) else { return Ok(None) };
    let epochs =
        finetune::record_of(workspace, &job).and_then(|record| record.last.hyperparameters.n_epochs.fixed());
    let Learnt { logs_sha256, prompt_sha256, rows } = Learnt::of(workspace, &dataset_sha256);
    // As it was when the job began: the dataset of the workspace may be that of a later round.
    let kept = workspace.kept_dataset(&dataset_sha256);
    let config_first_share = if kept.exists() { config_first_share(&kept, context)? } else { None };
    Ok(Some(Training {
        job: Some(job),
        dataset_sha256: Some(dataset_sha256),
        logs_sha256,
        prompt_sha256,
        rows,
        epochs,
        config_first_share,
    }))
}

/// Share of a dataset's answers that begin with configuration, which is what they teach; none when no answer holds code.
fn config_first_share(dataset: &Path, context: &Context) -> Result<Option<f64>> {
    let report = validate::validate(dataset, &validate::Options::default(), &context.cancel)?;
    let code = report.code;
    Ok((code.answers > 0).then(|| code.config_first as f64 / code.answers as f64))
}

/// The conversation that each brief is asked with.
fn asked(briefs: &[Brief], prompts: &Prompts) -> Result<BTreeMap<String, Vec<Message>>> {
    briefs.iter().map(|brief| Ok((brief.id.to_string(), prompts.ask(brief)?))).collect()
}

pub fn seen_kinds(context: &Context) -> Result<BTreeSet<String>> {
    let path = context.workspace.train_briefs();
    let briefs = if path.exists() { brief::load(&path)? } else { brief::shipped_train() };
    Ok(briefs.into_iter().map(|brief| brief.kind).collect())
}

/// A model that is asked what it was taught proves nothing. Sealed briefs count whether they are asked or not: a model that
/// was taught them could not be released.
fn refuse_trained(briefs: &[Brief], context: &Context) -> Result<()> {
    let sealed =
        brief::load_sealed(&context.workspace)?.into_iter().filter(|sealed| !briefs.contains(sealed));
    let apart: Vec<Brief> = briefs.iter().cloned().chain(sealed).collect();
    let trained = dataset::trained_on(&context.workspace, &apart)?;
    let Some(first) = trained.first() else { return Ok(()) };
    let message = format!(
        "{} of {} held-out and sealed briefs were trained on, `{}` among them",
        trained.len(),
        apart.len(),
        first.id
    );
    Err(CommandError::new(Kind::Input, message).hint(
        "test on briefs of other families than those of the dataset, or run `hone prepare` to drop its rows",
    ))
}

/// The held-out briefs that the flags ask for. That there are fewer is said, with how to have more.
pub fn asked_for(args: &Test, context: &Context, seen_kinds: &BTreeSet<String>) -> Result<Vec<Brief>> {
    let briefs = heldout(args.briefs.as_deref(), args.limit, context, seen_kinds)?;
    if let Some(n) = args.limit.filter(|n| *n > briefs.len()) {
        let path = args.briefs.clone().unwrap_or_else(|| context.workspace.heldout_briefs());
        let (there, missing) = (briefs.len(), n - briefs.len());
        let text =
            format!("`{}` has {there} held-out briefs, not {n}: all of them are asked", path.display());
        let hint = format!(
            "add {missing} of families that are not trained on to it, a line each: {{\"id\": .., \"kind\": .., \"family\": .., \
             \"description\": ..}}"
        );
        context.events.warn(text, Some(hint));
    }
    Ok(briefs)
}

/// The held-out briefs, or a draw of them of which a third is of unseen kinds.
pub fn heldout(
    file: Option<&Path>,
    limit: Option<usize>,
    context: &Context,
    seen_kinds: &BTreeSet<String>,
) -> Result<Vec<Brief>> {
    let path = file.map_or_else(|| context.workspace.heldout_briefs(), Path::to_owned);
    let briefs = brief::load(&path)?;
    Ok(match limit {
        Some(n) => brief::heldout_sample(&briefs, seen_kinds, n, n / 3, context.global.seed),
        None => briefs,
    })
}

/// The briefs of an earlier draw.
fn drawn(ids: &[String], context: &Context) -> Result<Vec<Brief>> {
    let path = context.workspace.heldout_briefs();
    let briefs = brief::load(&path)?;
    let find = |id: &String| briefs.iter().find(|brief| brief.id.as_str() == id).cloned();
    ids.iter()
        .map(|id| {
            find(id).ok_or_else(|| {
                let message = format!(
                    "held-out brief `{id}` was drawn for this round and is not in `{}` any more",
                    path.display()
                );
                CommandError::new(Kind::Input, message)
                    .hint("put it back, or start a new workspace with `-C DIR`")
            })
        })
        .collect()
}

/// Loss by step of the job that made the tuned model; empty when it cannot be had: a report without a curve is still a report.
async fn loss_curve(spec: &TrialSpec, models: &mut Models<'_>) -> Vec<LossPoint> {
    let Some(job) = spec.training.as_ref().and_then(|training| training.job.as_deref()) else {
        return Vec::new();
    };
    let Ok((client, _)) = models.trainer().await else { return Vec::new() };
    let Ok(events) = client.events(job, None).await else { return Vec::new() };
    let mut points: Vec<LossPoint> = events.iter().filter_map(loss_point).collect();
    points.sort_by_key(|point| point.step);
    points
}

fn loss_point(event: &JobEvent) -> Option<LossPoint> {
    Some(LossPoint {
        step: event.number("step")? as u64,
        train: event.number("train_loss")?,
        valid: event.number("full_valid_loss").or_else(|| event.number("valid_loss")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_is_a_name_and_a_model() {
        let check =
            |text: &str, expected: std::result::Result<(&str, &str), &str>| match (arm(text), expected) {
                (Ok(arm), Ok((name, model))) => {
                    assert_eq!((arm.name.as_str(), arm.model.as_str()), (name, model))
                }
                (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
                (found, _) => panic!("{text}: {found:?}"),
            };
        check("rival=gpt-x", Ok(("rival", "gpt-x")));
        check("v-2=ft:smollm2:local:ui=2", Ok(("v-2", "ft:smollm2:local:ui=2")));
        check("gpt-x", Err("NAME=MODEL"));
        check("=gpt-x", Err("small letters"));
        check("My Arm=gpt-x", Err("small letters"));
        check("rival=", Err("a model follows"));
        check("tuned=gpt-x", Err("choose another name"));
    }

    #[test]
    fn an_arm_with_a_system_message_is_asked_with_that_one() {
        let asked = vec![Message::system("old"), Message::user("a form")];
        let plain = Arm::new("rival", "m");
        assert_eq!(with_system(asked.clone(), &plain), asked);
        let told = Arm { system: Some("new".into()), ..plain };
        let expected = [Message::system("new"), Message::user("a form")];
        assert_eq!(with_system(asked, &told), expected);
        assert_eq!(with_system(vec![Message::user("a form")], &told), expected, "a prompt without one");
    }

    #[test]
    fn pairs_of_a_file_are_ratings_of_the_trial() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.jsonl");
        let line = r#"{"brief":"a form","a":{"app.py":"x"},"b":{"app.py":"y"},"prefers":"b","rater":"r"}"#;
        std::fs::write(&path, line).unwrap();
        let told = read_told(&path).unwrap();
        assert_eq!(told.is_elsewhere("t-1"), None);
        let ratings = told.into_ratings("t-1");
        let [rating] = &ratings[..] else { panic!("one") };
        assert_eq!((rating.prefers, rating.rater.as_str()), (rating::Choice::B, "r"));
        assert_eq!(rating.source, rating::Source::Trial("t-1".into()));
        let kept = folder.path().join("ratings.jsonl");
        rating::append(&kept, rating).unwrap();
        let told = read_told(&kept).unwrap();
        assert_eq!(told.is_elsewhere("t-1"), None);
        let warned = told.is_elsewhere("t-2").unwrap();
        assert!(warned.starts_with("none of the 1 ratings of `") && warned.contains("`t-2`"), "{warned}");
        assert_eq!(told.into_ratings("t-2"), ratings, "ratings say themselves which trial they are about");
    }

    #[test]
    fn a_file_of_pairs_that_is_not_there_has_a_hint_of_its_own() {
        let Err(error) = read_told(Path::new("/no/such.jsonl")) else { panic!("there is no file") };
        assert_eq!(error.kind, Kind::Input);
        assert!(error.message.contains("`/no/such.jsonl`"), "{error}");
        assert!(error.hints[0].contains("hone rate") && !error.hints[0].contains("hone init"), "{error}");
    }
}
