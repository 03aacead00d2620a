//! What the doctor says of money: the journal that keeps account of it, what is left of the budget, and prices.

use hone::{
    config::{ModelRow, Settings},
    error::Explain,
    model::{
        journal::{Health, Ledger},
        price::{Payer, Prices, Tariff, Usd},
    },
    runtime::Check,
};
use jiff::civil::Date;

use crate::{context::Context, own, rows};

/// From this age on a price is worth a look: providers change theirs a few times a year.
const OLD_DAYS: i32 = 180;

pub fn checks(context: &Context, settings: &Settings) -> Vec<Check> {
    let journal = journal_check(context);
    let mut checks = Vec::new();
    if journal.ok {
        // One that cannot be opened has been told of.
        checks.extend(budget_check(context, settings));
    }
    checks.insert(0, journal);
    checks.extend(price_checks(context, settings, jiff::Zoned::now().date()));
    checks
}

fn journal_check(context: &Context) -> Check {
    const NAME: &str = "journal of calls";
    match Health::of(&context.workspace.journal()) {
        Ok(None) => Check::well(NAME, "none yet; the first call makes it"),
        Ok(Some(Health { version, calls, bytes })) => {
            let megabytes = bytes as f64 / 1e6;
            Check::well(NAME, format!("whole, version {version}, {calls} calls in {megabytes:.1} MB"))
        }
        Err(e) => {
            let fix = e.hint().unwrap_or_else(|| {
                "run it with the version of Hone that made the journal, and keep it off network file systems".into()
            });
            Check::fault(NAME, e.to_string(), fix)
        }
    }
}

/// What is left of the budget. It is a fault to have used it up where there is a row that costs something.
fn budget_check(context: &Context, settings: &Settings) -> Option<Check> {
    let cap = Usd::cap(settings.budget.usd);
    let ledger = Ledger::read(&context.workspace.journal(), cap).ok()?;
    let pays = settings.models.values().any(is_paid);
    Some(left(&ledger, pays))
}

fn left(ledger: &Ledger, pays: bool) -> Check {
    const NAME: &str = "budget";
    let [spent, held, lost] = [ledger.spent_usd, ledger.held_usd, ledger.lost_usd].map(Usd::of);
    let unknown = ledger.unknown();
    let spent = format!("{spent} is spent{unknown} ({lost} of it may never have been billed)");
    let Some(cap) = ledger.cap_usd else { return Check::well(NAME, format!("none is set; {spent}")) };
    if cap == 0.0 {
        return Check::well(NAME, format!("0: no call is allowed that is not on this machine; {spent}"));
    }
    let detail = format!("{spent} of {}, {held} is held for calls under way", Usd::of(cap));
    match ledger.spent_usd + ledger.held_usd >= cap && pays {
        true => Check::fault(
            NAME,
            detail,
            "raise `usd` under `[budget]` or give `--budget USD`; see docs/troubleshooting/budget-reached.md",
        ),
        false => Check::well(NAME, detail),
    }
}

/// Own agents spend what they spend themselves.
fn is_paid(row: &ModelRow) -> bool {
    !own::is_own(row) && (row.price.is_some() || !rows::is_on_this_machine(row))
}

/// A check for each row that costs something.
fn price_checks(context: &Context, settings: &Settings, today: Date) -> Vec<Check> {
    let prices = match Prices::load(&context.workspace.prices()) {
        Ok(prices) => prices,
        Err(e) => return vec![Check::fault("prices", e.to_string(), e.hint().unwrap_or_default())],
    };
    let rows = settings.models.iter().filter(|(_, row)| is_paid(row));
    let capped = Usd::cap(settings.budget.usd).is_some();
    rows.map(|(name, row)| price_check(name, row, &prices, capped, today)).collect()
}

fn price_check(name: &str, row: &ModelRow, prices: &Prices, capped: bool, today: Date) -> Check {
    let (title, payer) = (format!("price of `{name}`"), Payer::new(name, row));
    let Tariff::Known(_) = prices.tariff(&payer, &row.model, false) else {
        let fix = format!(
            "add `price = {{ input = 0.0, output = 0.0, as_of = \"{today}\" }}` under `[models.{name}]`, in US dollars per million \
             tokens; see docs/troubleshooting/unknown-price.md"
        );
        let detail = "not known";
        return match capped {
            true => Check::fault(title, format!("{detail}, so under a budget it is not asked"), fix),
            false => Check { fix: Some(fix), ..Check::well(title, detail) },
        };
    };
    let day = prices.as_of(&payer, &row.model).unwrap_or_default();
    let renew = || Some("compare it with the provider's page, and write the day into `as_of`".to_owned());
    match day.parse::<Date>().map(|day| (today - day).get_days()) {
        Ok(age) if age > OLD_DAYS => {
            Check { fix: renew(), ..Check::well(title, format!("as of {day}, {age} days ago")) }
        }
        Ok(_) => Check::well(title, format!("as of {day}")),
        Err(_) => Check { fix: renew(), ..Check::well(title, format!("of a day that is none: `{day}`")) },
    }
}

#[cfg(test)]
mod tests {
    use hone::{config::Price, model::journal::LedgerRow};
    use jiff::civil::date;

    use super::*;

    fn row(as_of: Option<&str>) -> ModelRow {
        let price = as_of.map(|day| Price { input: 1.0, output: 2.0, training: None, as_of: day.to_owned() });
        ModelRow { provider: "openai".into(), model: "m".into(), price, ..ModelRow::default() }
    }

    #[test]
    fn a_price_is_known_and_of_this_year() {
        let check = |as_of, capped, ok: bool, said: &str, fixed: bool| {
            let found = price_check("gpt", &row(as_of), &Prices::default(), capped, date(2026, 11, 26));
            assert_eq!((found.ok, found.fix.is_some()), (ok, fixed), "{found:?}");
            assert!(found.detail.contains(said), "{found:?}");
        };
        check(Some("2026-09-01"), true, true, "as of 2026-09-01", false);
        check(Some("2026-05-30"), true, true, "as of 2026-05-30", false);
        check(Some("2026-05-29"), true, true, "as of 2026-05-29, 181 days ago", true);
        check(Some("spring"), true, true, "`spring`", true);
        check(None, true, false, "not asked", true);
        check(None, false, true, "not known", true);
    }

    #[test]
    fn what_is_left_of_a_budget_is_said() {
        let ledger =
            |spent_usd, held_usd, cap_usd| Ledger { spent_usd, held_usd, cap_usd, ..Ledger::default() };
        let check = |ledger: Ledger, pays, ok: bool, said: &str| {
            let found = left(&ledger, pays);
            assert_eq!(found.ok, ok, "{found:?}");
            assert!(found.detail.contains(said), "{found:?}");
        };
        check(
            ledger(1.25, 0.5, Some(5.0)),
            true,
            true,
            "$1.25 is spent ($0.00 of it may never have been billed) of $5.00",
        );
        check(ledger(4.75, 0.25, Some(5.0)), true, false, "$0.25 is held");
        check(ledger(4.75, 0.25, Some(5.0)), false, true, "of $5.00");
        check(ledger(0.0, 0.0, Some(0.0)), true, true, "no call is allowed");
        check(ledger(7.0, 0.0, None), true, true, "none is set; $7.00 is spent");
        let unpriced =
            Ledger { rows: vec![LedgerRow { usd: None, ..LedgerRow::default() }], ..ledger(0.0, 0.0, None) };
        check(unpriced, true, true, "and what has no known price");
    }
}
