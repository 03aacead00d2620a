//! `--dry-run`: what a command will take. Nothing is sent, started or written.

use std::collections::BTreeSet;

use hone::{
    brief::{self, Brief},
    config::Settings,
    dataset::{ChatRow, tokens},
    evolve::Options,
    finetune::Shape,
    model::{
        journal::{Journal, Measured},
        price::{Payer, Prices, Tariff, Training},
        provider,
    },
    plan::{self, Cast, Known, Passes, Plan, PlannedPhase, Rows, Seen},
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
    let planner = Planner { context, settings, batch: args.batch };
    print(vec![planner.searches(&briefs, args.round(context)?)?], context)
}

pub fn test(args: &Test, context: &Context, settings: &Settings) -> Result {
    let seen = test::seen_kinds(context)?;
    let briefs = test::asked_for(args, context, &seen)?;
    let planner = Planner { context, settings, batch: args.batch };
    let briefs = if args.release { test::release::with_sealed(briefs, context)? } else { briefs };
    let samples = args.samples.unwrap_or(settings.test.samples);
    let samples = if args.release { test::release::samples(samples, briefs.len()) } else { samples };
    let more = u64::from(!args.no_prompt_arm) + args.arms.len() as u64;
    print(vec![planner.trial(&briefs, Some(samples), more)?], context)
}

pub fn finetune(context: &Context, settings: &Settings) -> Result {
    let path = context.workspace.dataset();
    hone::finetune::require_examples(&path)?;
    let (rows, _) = store::parse_lines::<ChatRow>(&store::read_text(&path)?);
    let tokens = rows.iter().map(|row| tokens::chat_tokens(&row.value.messages) as u64).sum();
    let epochs = settings.finetune.n_epochs.fixed();
    let planner = Planner { context, settings, batch: false };
    let rows = Rows::Counted { rows: rows.len() as u64, tokens };
    print(vec![planner.training(rows, epochs)?], context)
}

/// The whole loop; a workspace that is not begun is planned with the shipped briefs.
pub fn turns(wanted: u32, size: &Size, batch: bool, context: &Context, settings: &Settings) -> Result {
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
    let planner = Planner { context, settings, batch };
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
            planner.searches(&briefs, round)?,
            plan::prepare(),
            planner.training(Rows::expected(&used, most, &options)?, epochs)?,
            planner.trial(&held, size.samples, 0)?,
            plan::deploy(),
        ]);
    }
    print(phases, context)
}

fn print(phases: Vec<PlannedPhase>, context: &Context) -> Result {
    let plan = Plan::of(phases);
    context.answer(&plan, || plan.text())
}

/// What phases are planned with.
struct Planner<'a> {
    context: &'a Context,
    settings: &'a Settings,
    /// Models are asked through batches where there are any.
    batch: bool,
}

impl Planner<'_> {
    fn searches(&self, briefs: &[Brief], round: u32) -> Result<PlannedPhase> {
        let Self { context, settings, .. } = *self;
        let options = Options { round, ..evolve::options_of(settings, context)? };
        let (agent, agent_model) = self.known(&settings.agent.model)?;
        let teacher = match settings.teacher.model.as_str() {
            COMPOSER => None,
            name => Some(self.known(name)?),
        };
        let teacher_model = teacher.as_ref().map_or(COMPOSER, |(_, model)| model);
        let finished = plan::finished(&context.workspace, briefs, &agent_model, teacher_model, &options);
        let cast = Cast { agent, teacher: teacher.map(|(known, _)| known), judge: self.judge()? };
        let concurrency = settings.evolve.concurrency.fixed().unwrap_or(evolve::BRIEFS_AT_ONCE);
        Ok(plan::evolve(briefs, finished, &cast, &options, concurrency)?)
    }

    /// Base against tuned, and whatever takes part beside them.
    fn trial(&self, heldout: &[Brief], samples: Option<u32>, more_arms: u64) -> Result<PlannedPhase> {
        let Self { context, settings, .. } = *self;
        let models = Models::new(context, settings);
        // A champion that is not the base is an arm of its own.
        let arms = more_arms + if models.champion()? == models.base() { 2 } else { 3 };
        let (tuned, _) = self.known(&settings.finetune.model)?;
        let samples = samples.unwrap_or(settings.test.samples);
        let (judge, options) = (self.judge()?, evolve::options_of(settings, context)?);
        Ok(plan::test(heldout, arms, samples, &tuned, judge.as_ref(), &options)?)
    }

    fn training(&self, rows: Rows, epochs: Option<u32>) -> Result<PlannedPhase> {
        let Self { context, settings, .. } = *self;
        let name = &settings.finetune.model;
        let row = settings.models.get(name);
        let missing = row.and_then(rows::key_variable).filter(|key| context.secret(key).is_none());
        let missing = missing.map(|key| format!("to set `{key}` in the environment or in `.env`"));
        let model = row.map_or(&settings.finetune.base_model, |row| &row.model);
        let trainer = self.priced(name, model)?;
        let speed = plan::trained(&context.workspace, name);
        let shape = row.and_then(|row| provider::provider(&row.provider)?.tuning).unwrap_or(Shape::OpenAi);
        let passes = epochs.map_or(Passes::Auto(shape), Passes::Fixed);
        Ok(plan::finetune(&trainer, rows, passes, speed, missing))
    }

    fn judge(&self) -> Result<Option<(Known, u32)>> {
        match self.settings.judge.model.as_str() {
            NO_JUDGE => Ok(None),
            name => Ok(Some((self.known(name)?.0, self.settings.judge.samples))),
        }
    }

    /// What is known of whom a name stands for, and what logs call it.
    fn known(&self, name: &str) -> Result<(Known, String)> {
        let Self { context, settings, .. } = *self;
        let row = settings.models.get(name);
        let model = match row {
            Some(row) if own::is_own(row) && row.provider != own::SERVICE => {
                let journal = Journal::open(context.workspace.journal());
                own::program(name, row, context, journal)?.model().to_owned()
            }
            Some(row) if row.model.is_empty() => name.to_owned(),
            Some(row) => row.model.clone(),
            None => Models::new(context, settings).called(name)?,
        };
        let max_tokens = row.and_then(|row| row.max_tokens).unwrap_or(settings.agent.max_tokens);
        let seen = Seen::of(&context.workspace, &model);
        let measured = Measured::of(&context.workspace.journal(), &model);
        Ok((Known { max_tokens, seen, measured, ..self.priced(name, &model)? }, model))
    }

    /// What a model costs, and where it is asked.
    fn priced(&self, name: &str, model: &str) -> Result<Known> {
        let Self { context, settings, .. } = *self;
        let free = Known {
            name: name.to_owned(),
            tariff: Tariff::Free,
            training: Training::Free,
            max_tokens: 0,
            seen: None,
            measured: None,
            in_batches: false,
            is_here: true,
        };
        // The alias, the base and tuned models answer where the settings train.
        let trainer = &settings.finetune.model;
        let row = settings.models.get_key_value(name).or_else(|| settings.models.get_key_value(trainer));
        let Some((payer, row)) = row else { return Ok(free) };
        let prices = Prices::load(&context.workspace.prices())?;
        let provider = provider::provider(&row.provider);
        let is_here = !own::is_own(row) && rows::is_on_this_machine(row);
        let batches = provider.filter(|provider| provider.batch.is_some() && (self.batch || row.batch));
        let percent = batches.map_or(100, |provider| provider.batch_percent);
        let payer = Payer::new(payer, row);
        Ok(Known {
            tariff: prices.tariff(&payer, model, is_here).at(percent),
            training: prices.training(&payer, model, is_here),
            in_batches: batches.is_some(),
            // A program of the user's own is as fast as it is.
            is_here: is_here || own::is_own(row),
            ..free
        })
    }
}
