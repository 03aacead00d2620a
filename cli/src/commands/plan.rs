//! `--dry-run`: what a command will take. Nothing is sent, started or written.

use std::collections::BTreeSet;

use hone::{
    brief::{self, Brief},
    config::Settings,
    dataset::{ChatRow, tokens},
    evolve::Options,
    model::{
        client::{Client, Endpoint},
        journal::Journal,
        price::{Payer, Prices, Tariff},
        provider,
    },
    plan::{self, Cast, Known, Plan, PlannedPhase, Rows, Seen},
    rounds::{self, State},
    store,
};

use crate::{
    commands::{
        evolve::{self, Evolve},
        round::Size,
        test::{self, Test},
    },
    context::Context,
    error::Result,
    models::{Models, NO_JUDGE},
    own, rows,
};

const COMPOSER: &str = "composer";

pub fn evolve(args: &Evolve, context: &Context, settings: &Settings) -> Result {
    let briefs = args.read_briefs(context)?;
    let phase = searches(&briefs, args.round(context)?, context, settings)?;
    print(vec![phase], context)
}

pub fn test(args: &Test, context: &Context, settings: &Settings) -> Result {
    let seen = test::seen_kinds(context)?;
    let briefs = test::heldout(args.briefs.as_deref(), args.limit, context, &seen)?;
    print(vec![trial(&briefs, args.samples, context, settings)?], context)
}

pub fn finetune(context: &Context, settings: &Settings) -> Result {
    let path = context.workspace.dataset();
    hone::finetune::require_examples(&path)?;
    let (rows, _) = store::parse_lines::<ChatRow>(&store::read_text(&path)?);
    let tokens = rows.iter().map(|row| tokens::chat_tokens(&row.value.messages) as u64).sum();
    let epochs = settings.finetune.n_epochs.fixed();
    print(vec![training(Rows::Counted { tokens }, epochs, context, settings)?], context)
}

/// The whole loop; a workspace that is not begun is planned with the shipped briefs.
pub fn turns(wanted: u32, size: &Size, context: &Context, settings: &Settings) -> Result {
    let seed = context.global.seed;
    let all = match context.workspace.train_briefs() {
        path if path.exists() => brief::load(&path)?,
        _ => brief::shipped_train(),
    };
    let held = match context.workspace.heldout_briefs() {
        path if path.exists() => brief::load(&path)?,
        _ => brief::shipped_heldout(),
    };
    let seen: BTreeSet<String> = all.iter().map(|brief| brief.kind.clone()).collect();
    let held = size.heldout.map_or(held.clone(), |n| brief::heldout_sample(&held, &seen, n, n / 3, seed));
    let drafts = size.drafts.unwrap_or(settings.evolve.drafts);
    let settings =
        &Settings { evolve: hone::config::Evolve { drafts, ..settings.evolve.clone() }, ..settings.clone() };
    let options = evolve::options_of(settings, context)?;
    let epochs = size.n_epochs.or(settings.finetune.n_epochs.fixed());
    let state = State::read(&context.workspace)?;
    let mut phases = Vec::new();
    // Briefs of all rounds so far: each trains on the rows of them all.
    let mut used: Vec<Brief> = Vec::new();
    for round in 1..=wanted {
        let begun = state.rounds.iter().find(|begun| begun.round == round);
        let briefs = match begun.filter(|begun| !begun.briefs.is_empty()) {
            Some(begun) => {
                all.iter().filter(|b| begun.briefs.iter().any(|id| b.id.as_str() == id)).cloned().collect()
            }
            None => {
                let before = rounds::drawn_before(&context.workspace, &state.rounds, round);
                let is_used = |brief: &Brief| before(brief) || used.iter().any(|other| other.id == brief.id);
                rounds::fresh(&all, is_used, size.limit, wanted - round + 1, seed)
            }
        };
        if briefs.is_empty() {
            break;
        }
        used.extend(briefs.iter().cloned());
        let most = size.max_rows.map(|rows| rows * round as usize);
        phases.extend([
            searches(&briefs, round, context, settings)?,
            plan::prepare(),
            training(Rows::expected(&used, most, &options)?, epochs, context, settings)?,
            trial(&held, size.samples, context, settings)?,
            plan::deploy(),
        ]);
    }
    print(phases, context)
}

fn print(phases: Vec<PlannedPhase>, context: &Context) -> Result {
    let plan = Plan::of(phases);
    context.answer(&plan, || plan.text())
}

fn searches(briefs: &[Brief], round: u32, context: &Context, settings: &Settings) -> Result<PlannedPhase> {
    let options = Options { round, ..evolve::options_of(settings, context)? };
    let (agent, agent_model) = known(&settings.agent.model, context, settings)?;
    let teacher = match settings.teacher.model.as_str() {
        COMPOSER => None,
        name => Some(known(name, context, settings)?),
    };
    let teacher_model = teacher.as_ref().map_or(COMPOSER, |(_, model)| model);
    let finished = plan::finished(&context.workspace, briefs, &agent_model, teacher_model, &options);
    let judge = judge(context, settings)?;
    let cast = Cast { agent, teacher: teacher.map(|(known, _)| known), judge };
    let concurrency = settings.evolve.concurrency.fixed().unwrap_or(evolve::BRIEFS_AT_ONCE);
    Ok(plan::evolve(briefs, finished, &cast, &options, concurrency)?)
}

fn trial(
    heldout: &[Brief],
    samples: Option<u32>,
    context: &Context,
    settings: &Settings,
) -> Result<PlannedPhase> {
    let models = Models::new(context, settings);
    // A champion that is not the base is an arm of its own.
    let arms = if models.champion()? == models.base() { 2 } else { 3 };
    let (tuned, _) = known(&settings.finetune.model, context, settings)?;
    let samples = samples.unwrap_or(settings.test.samples);
    let (judge, options) = (judge(context, settings)?, evolve::options_of(settings, context)?);
    Ok(plan::test(heldout, arms, samples, &tuned, judge.as_ref(), &options)?)
}

fn training(rows: Rows, epochs: Option<u32>, context: &Context, settings: &Settings) -> Result<PlannedPhase> {
    let name = &settings.finetune.model;
    let row = settings.models.get(name);
    let missing = row.and_then(rows::key_variable).filter(|key| context.secret(key).is_none());
    let missing = missing.map(|key| format!("to set `{key}` in the environment or in `.env`"));
    let model = row.map_or(&settings.finetune.base_model, |row| &row.model);
    let (tariff, training) = prices(name, model, context, settings)?;
    let trainer = Known { name: name.clone(), tariff, training, max_tokens: 0, seen: None };
    Ok(plan::finetune(&trainer, rows, epochs, missing))
}

fn judge(context: &Context, settings: &Settings) -> Result<Option<(Known, u32)>> {
    match settings.judge.model.as_str() {
        NO_JUDGE => Ok(None),
        name => Ok(Some((known(name, context, settings)?.0, settings.judge.samples))),
    }
}

/// What is known of whom a name stands for, and what logs call it.
fn known(name: &str, context: &Context, settings: &Settings) -> Result<(Known, String)> {
    let row = settings.models.get(name);
    let model = match row {
        Some(row) if own::is_own(row) && row.provider != own::SERVICE => {
            own::program(name, row, context, Journal::open(context.workspace.journal()))?.model().to_owned()
        }
        Some(row) if row.model.is_empty() => name.to_owned(),
        Some(row) => row.model.clone(),
        None => Models::new(context, settings).called(name)?,
    };
    let max_tokens = row.and_then(|row| row.max_tokens).unwrap_or(settings.agent.max_tokens);
    let seen = Seen::of(&context.workspace, &model);
    let (tariff, training) = prices(name, &model, context, settings)?;
    Ok((Known { name: name.into(), tariff, training, max_tokens, seen }, model))
}

/// What a model costs: calls of it, and a million tokens trained.
fn prices(name: &str, model: &str, context: &Context, settings: &Settings) -> Result<(Tariff, Option<f64>)> {
    let prices = Prices::load(&context.workspace.prices())?;
    // The alias, the base and tuned models answer where the settings train.
    let trainer = &settings.finetune.model;
    let row = settings.models.get_key_value(name).or_else(|| settings.models.get_key_value(trainer));
    let Some((name, row)) = row else { return Ok((Tariff::Free, Some(0.0))) };
    let payer = Payer::new(name, row);
    let home = || provider::provider(&row.provider)?.base_url.map(str::to_owned);
    let address = row.base_url.clone().or_else(home).filter(|_| !own::is_own(row));
    let local = address.is_some_and(|url| Client::new(Endpoint::new(name, url)).is_ok_and(|c| c.is_local()));
    Ok((prices.tariff(&payer, model, local), prices.training(&payer, model)))
}
