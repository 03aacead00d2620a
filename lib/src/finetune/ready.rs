//! What a job needs, looked at before anything is uploaded; and what is announced to end.
//!
//! Each finding is a [`Check`], the same in `hone finetune`, which stops at the first fault, and in `hone doctor`, which lists all.

use jiff::civil::Date;

use super::{FinetuneError, Trainer};
use crate::{
    error::Explain,
    event::Events,
    model::{client::ModelError, wire::ModelCard},
    runtime::Check,
};

/// Models that their provider has said it takes away, and the day. From OpenAI's deprecations page, read in November 2026.
const ENDS: [(&str, Date); 5] = [
    ("gpt-4o-2024-08-06", jiff::civil::date(2027, 1, 14)),
    ("gpt-4o-2024-11-20", jiff::civil::date(2027, 1, 14)),
    ("gpt-4o-mini-2024-07-18", jiff::civil::date(2027, 1, 14)),
    ("gpt-4.1-2025-04-14", jiff::civil::date(2027, 1, 14)),
    ("gpt-4.1-mini-2025-04-14", jiff::civil::date(2027, 1, 14)),
];

const PAGE: &str = "see docs/troubleshooting/model-shuts-down.md";

/// The announced end of a model or of the base of a tuned one, where it is known without asking.
pub fn ends(model: &str) -> Option<Date> {
    let base = model.strip_prefix("ft:").and_then(|rest| rest.split(':').next()).unwrap_or(model);
    ENDS.iter().find(|(name, _)| *name == base).map(|(_, day)| *day)
}

/// Looks at what a job on `model` needs of its provider. No call costs anything.
pub async fn looked_at(trainer: &Trainer, model: &str, today: Date) -> Vec<Check> {
    findings(trainer.row(), model, &trainer.base(model).await, today)
}

/// What the answer to the question for a base model means.
fn findings(
    row: &str,
    model: &str,
    answer: &Result<Option<ModelCard>, ModelError>,
    today: Date,
) -> Vec<Check> {
    let name = |what: &str| format!("{what} of `{row}`");
    let card = match answer {
        Ok(card) => card,
        Err(e) => return vec![Check::fault(name("endpoint"), e.to_string(), unreached(e, row))],
    };
    let mut checks = vec![Check::well(name("endpoint"), "it answers, and takes the key")];
    let Some(card) = card else {
        let fix = format!(
            "name one that it trains as `model` under `[models.{row}]`; see docs/troubleshooting/unknown-model.md"
        );
        checks.push(Check::fault(
            name("base model"),
            format!("`{row}` has no model `{model}` to train"),
            fix,
        ));
        return checks;
    };
    let end = card.shutdown_date.as_deref().and_then(|day| day.parse::<Date>().ok()).or_else(|| ends(model));
    checks.push(end_check(name("base model"), model, end, today));
    checks
}

fn end_check(name: String, model: &str, end: Option<Date>, today: Date) -> Check {
    let Some(end) = end else { return Check::well(name, format!("`{model}`")) };
    if end <= today {
        let fix =
            format!("choose another base model, or the local engine: `[finetune] model = \"local\"`; {PAGE}");
        return Check::fault(name, format!("`{model}` was taken away on {end}"), fix);
    }
    let left = (end - today).get_days();
    let detail = format!("`{model}` and what is tuned from it are taken away on {end}, in {left} days");
    Check { fix: Some(format!("plan for another base model; {PAGE}")), ..Check::well(name, detail) }
}

fn unreached(error: &ModelError, row: &str) -> String {
    let key = matches!(error.status(), Some(401 | 403));
    match (key, error.hint()) {
        (true, _) => format!(
            "check the variable that `api_key_env` under `[models.{row}]` names; see docs/troubleshooting/invalid-key.md"
        ),
        (false, Some(hint)) => hint,
        (false, None) => format!("check the row `[models.{row}]`"),
    }
}

/// Looks at what a job needs and says what is announced to end.
///
/// # Errors
/// With the remedy of the first thing that is missing.
pub async fn ready(
    trainer: &Trainer,
    model: &str,
    today: Date,
    events: &Events,
) -> Result<(), FinetuneError> {
    if trainer.is_own() {
        return Ok(());
    }
    let answer = trainer.base(model).await;
    if let Err(ModelError::Cancelled) = answer {
        return Err(FinetuneError::Cancelled);
    }
    for check in findings(trainer.row(), model, &answer, today) {
        match (check.ok, check.fix) {
            (false, fix) => {
                return Err(FinetuneError::NotReady { detail: check.detail, fix: fix.unwrap_or_default() });
            }
            (true, Some(fix)) => events.warn(check.detail, Some(fix)),
            (true, None) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn the_providers_own_day_comes_before_ours() {
        let card = |day: &str| ModelCard { shutdown_date: Some(day.into()), ..ModelCard::new("m", 0, "o") };
        let found = findings("gpt", "m", &Ok(Some(card("2026-12-01"))), date(2026, 11, 26));
        assert!(found[1].ok && found[1].detail.contains("2026-12-01, in 5 days"), "{found:?}");
        // A day that is none says nothing.
        let found = findings("gpt", "m", &Ok(Some(card("soon"))), date(2026, 11, 26));
        assert_eq!(found[1].fix, None);
    }

    #[test]
    fn what_is_missing_is_said_with_its_remedy() {
        let refused = |status| {
            let (provider, message) = ("gpt".into(), "no".into());
            Err(ModelError::Refused { provider, status, code: None, message, request_id: None })
        };
        let first = |answer| findings("gpt", "m", &answer, date(2026, 11, 26)).remove(0);
        let key = first(refused(401));
        assert!(!key.ok && key.fix.unwrap().contains("api_key_env"));
        assert!(first(refused(503)).fix.unwrap().contains("run the same command again"));
        let unknown = findings("gpt", "m", &Ok(None), date(2026, 11, 26));
        assert!(unknown[0].ok && !unknown[1].ok && unknown[1].detail.contains("no model `m`"), "{unknown:?}");
    }

    #[test]
    fn an_announced_end_is_said_with_its_day() {
        let check = |model: &str, today: Date, ok: bool, said: &str, warned: bool| {
            let found = end_check("base".into(), model, ends(model), today);
            assert_eq!((found.ok, found.fix.is_some()), (ok, warned), "{found:?}");
            assert!(found.detail.contains(said), "{found:?}");
        };
        let november = date(2026, 11, 26);
        check("gpt-4o-2024-08-06", november, true, "2027-01-14, in 49 days", true);
        check("ft:gpt-4o-2024-08-06:org:ui:1", november, true, "2027-01-14", true);
        check("gpt-4o-2024-08-06", date(2027, 1, 14), false, "was taken away on 2027-01-14", true);
        check("my-own", november, true, "`my-own`", false);
    }
}
