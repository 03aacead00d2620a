//! What a score cannot exceed, however good the rest is.

use super::{Content, compiles, shown_of_brief};
use crate::critic::{Action, Cap, Evidence, Kept, Level, RunStatus, Statics, rubric::Caps};

/// Every cap that holds, with its reason.
pub(super) fn caps(evidence: &Evidence, content: &Content, habits: &[Kept], at_most: &Caps) -> Vec<Cap> {
    let all = [
        of_source(evidence, at_most),
        of_page(evidence, content, at_most),
        of_use(evidence, content, at_most),
        of_habits(habits, at_most),
    ];
    let holding = all.into_iter().flatten().filter(|(holds, ..)| *holds);
    holding.map(|(_, value, why)| Cap { value, why }).collect()
}

/// Whether it holds, the most that it leaves, and why.
type Limit = (bool, f64, String);

fn of_source(evidence: &Evidence, at_most: &Caps) -> Vec<Limit> {
    let statics = &evidence.statics;
    let share = statics.config_share();
    let dead = statics.calls.iter().filter(|call| call.dead).count();
    vec![
        (!compiles(evidence), at_most.does_not_compile, "the code does not compile".into()),
        (!statics.tamper.is_empty(), at_most.tampers, "it reaches for the machinery that observes it".into()),
        (
            share > 0.25,
            at_most.configuration,
            format!("{:.0}% of the lines are configuration, 25% is the most", 100.0 * share),
        ),
        (
            unreachable(statics),
            at_most.unreachable,
            format!("{dead} of {} elements in the source can never appear", statics.calls.len()),
        ),
    ]
}

fn of_page(evidence: &Evidence, content: &Content, at_most: &Caps) -> Vec<Limit> {
    let run = evidence.run.as_ref();
    let torn = evidence.agreement.contradictions.first();
    let rendered = evidence.browser.as_ref();
    let unsettled = rendered.filter(|seen| !seen.ready).and_then(|seen| seen.detail.clone());
    let wider = rendered.is_some_and(|seen| seen.wide.overflow().min(seen.narrow.overflow()) > 4.0);
    let hiding = run.is_some_and(|run| run.hiding || hides_controls(evidence));
    let raised = run.is_some_and(|run| run.status == RunStatus::Error);
    let shown = shown_of_brief(evidence).filter(|_| run.is_some()).unwrap_or(1.0);
    vec![
        (content.unique < 1.0, at_most.nothing_rendered, "nothing rendered".into()),
        (
            torn.is_some(),
            at_most.contradicts,
            format!("what it tells of itself is not what it shows: {}", torn.cloned().unwrap_or_default()),
        ),
        (content.unique < 3.0, at_most.almost_nothing, "fewer than 3 different elements".into()),
        (
            flooded(evidence),
            at_most.flood,
            "more than 40 elements, most of them out of sight or the same again and again".into(),
        ),
        (raised, at_most.exception, "the first run ends in an exception".into()),
        (
            evidence.pages.iter().any(|page| page.status != RunStatus::Ready),
            at_most.exception,
            "another page of it ends in an exception".into(),
        ),
        (evidence.level == Level::Static, at_most.not_executed, "the code was not executed".into()),
        (shown < 0.25, at_most.off_topic, "it shows almost nothing of what the brief asks for".into()),
        (unsettled.is_some(), at_most.unsettled, unsettled.unwrap_or_default()),
        (wider, at_most.too_wide, "the page is wider than the window at 1280 and at 375 pixels".into()),
        (hiding, at_most.hides, "styles hide content".into()),
        (content.unique < 5.0, at_most.few_elements, "fewer than 5 different elements".into()),
        (shown < 0.5, at_most.half_off_topic, "it shows less than half of what the brief asks for".into()),
    ]
}

fn of_use(evidence: &Evidence, content: &Content, at_most: &Caps) -> Vec<Limit> {
    let tried: Vec<&Action> = evidence.tried().collect();
    let failing = tried.iter().filter(|action| !action.ok).count();
    let triggers = tried.iter().filter(|action| action.is_trigger()).count();
    let idle = tried.iter().filter(|action| action.is_trigger() && action.ok && !action.effect).count();
    let nothing_to_operate = evidence.run.is_some() && evidence.brief.interactive && content.controls == 0;
    let (inputs, unnamed) = named(evidence);
    vec![
        (
            tried.len() >= 4 && tried.iter().all(|action| !action.effect),
            at_most.no_effect,
            "no control has an effect".into(),
        ),
        (
            nothing_to_operate,
            at_most.nothing_to_operate,
            "the brief asks for something to operate and there is no control".into(),
        ),
        (
            failing > 0,
            at_most.control_fails,
            format!("{failing} of {} controls tried end in an exception", tried.len()),
        ),
        (triggers > 0 && idle == triggers, at_most.all_idle, "no button does anything".into()),
        (idle > 0, at_most.some_idle, format!("{idle} of {triggers} buttons do nothing")),
        (
            inputs >= 2 && 2 * unnamed > inputs,
            at_most.most_unnamed,
            format!("{unnamed} of {inputs} inputs have no visible label"),
        ),
        (inputs == 1 && unnamed == 1, at_most.one_unnamed, "its only input has no visible label".into()),
    ]
}

fn of_habits(habits: &[Kept], at_most: &Caps) -> Vec<Limit> {
    let missed = habits.iter().filter(|habit| !habit.holds);
    let limit =
        |habit: &Kept| (true, at_most.habit_missed, format!("the habit `{}` is not kept", habit.name));
    missed.map(limit).collect()
}

/// A fifth of Streamlit's calls or more can never run.
pub(in crate::critic) fn unreachable(statics: &Statics) -> bool {
    let dead = statics.calls.iter().filter(|call| call.dead).count();
    dead > 0 && 5 * dead >= statics.calls.len()
}

/// Inputs, and those of them without a visible label; what a button has on it is its label.
fn named(evidence: &Evidence) -> (usize, usize) {
    let inputs = evidence.run.iter().flat_map(|run| &run.elements).filter(|e| e.control && !e.unseen);
    let inputs = inputs.filter(|e| !e.kind.contains("button"));
    inputs.fold((0, 0), |(all, unnamed), e| (all + 1, unnamed + usize::from(e.unlabelled)))
}

/// At least three controls, and a third of all, are on the page and cannot be seen.
pub(in crate::critic) fn hides_controls(evidence: &Evidence) -> bool {
    let controls = evidence.run.iter().flat_map(|run| &run.elements).filter(|e| e.control && !e.tucked);
    let (all, unseen) = controls.fold((0, 0), |(all, unseen), e| (all + 1, unseen + usize::from(e.unseen)));
    unseen >= 3 && 3 * unseen >= all
}

/// More than 40 elements of which fewer than 20% are in sight, or one of which is there more than 30 times.
pub(in crate::critic) fn flooded(evidence: &Evidence) -> bool {
    let Some(run) = &evidence.run else { return false };
    let unseen = run.elements.iter().filter(|e| e.unseen && !e.tucked).count() as f64;
    let seen = f64::from(run.total.saturating_sub(run.tucked)) - unseen;
    run.total > 40 && (seen < 0.2 * f64::from(run.total) || run.most_repeated > 30)
}
