//! Calculators and converters: which of the numbers are amounts, percentages and divisors, and what comes of them.
//!
//! The formula is read from the roles of the inputs, not known per subject: amounts multiply, costs are subtracted,
//! percentages scale, counts of people or months divide. It is the shape of many everyday calculations and a wrong one of
//! others; docs/design/composer.md says so.

use super::{
    bank,
    build::Builder,
    lexicon::{self, Entry, Role},
    plan::{Calculator, Converter, Section},
    text,
};

/// What an input does to the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Amount,
    Cost,
    /// Adds to the result by a share of it.
    Plus,
    /// Takes from the result by a share of it.
    Minus,
    Divisor,
}

fn part(label: &str) -> Part {
    let words = text::words(label);
    let says = |list: &str| lexicon::says(&words, list);
    if says("people persons guests flatmates heads portions servings months term doses") {
        return Part::Divisor;
    }
    if says("royalty decline discount emergence loss losses") {
        return Part::Minus;
    }
    if says("% percent interest tip tax vat rate") {
        return Part::Plus;
    }
    if says("cost costs fee fees down debt debts paid expense expenses handling lifting") {
        return Part::Cost;
    }
    Part::Amount
}

impl Builder {
    pub(super) fn calculator_page(&mut self) -> Vec<Section> {
        let inputs = self.numbers();
        let outputs = self.outputs(&inputs);
        let warns = self.reading.says("warn warning loses negative");
        let chart = self.wants_chart().then(|| {
            let named = self.reading.of_role(Some(Role::Chart)).first().map(|item| item.label.clone());
            named.unwrap_or_else(|| "Chart".to_owned())
        });
        vec![Section::Calculator(Calculator {
            inputs,
            outputs,
            warning: warns.then(|| "The result is not above zero.".to_owned()),
            chart,
        })]
    }

    /// What is entered: label, name, value.
    fn numbers(&self) -> Vec<(String, String, i64)> {
        let results = "result results instalment per total break-even owes kg/ha bags limit chart remaining";
        let is_input = |label: &str, role: Option<Role>| {
            let words = text::words(label);
            match role {
                Some(Role::Input | Role::Column) => true,
                None => !lexicon::says(&words, results),
                _ => false,
            }
        };
        let items = self
            .reading
            .items
            .iter()
            .filter(|item| is_input(&item.label, item.role) && item.options.is_empty());
        let mut inputs: Vec<(String, String, i64)> =
            items.map(|item| (item.label.clone(), text::variable(&item.label), value(&item.label))).collect();
        let mut seen = std::collections::BTreeSet::new();
        inputs.retain(|(_, name, _)| seen.insert(name.clone()));
        inputs.truncate(5);
        for spare in ["Amount", "Rate %"] {
            if inputs.len() < 2 {
                inputs.push((spare.to_owned(), text::variable(spare), value(spare)));
            }
        }
        inputs
    }

    fn outputs(&self, inputs: &[(String, String, i64)]) -> Vec<(String, String)> {
        let of = |wanted: Part| {
            inputs.iter().filter(move |(label, ..)| part(label) == wanted).map(|(_, name, _)| name.as_str())
        };
        let amounts: Vec<&str> = of(Part::Amount).collect();
        let costs: Vec<&str> = of(Part::Cost).collect();
        // A price and a quantity multiply; several sums of the same sort add up.
        let prices = "price rate per hourly quantity qty barrels hours size weight kg plants area length width height distance";
        let multiplies =
            amounts.len() <= 2 || inputs.iter().any(|(label, ..)| lexicon::says(&text::words(label), prices));
        let base = if amounts.is_empty() {
            inputs[0].1.clone()
        } else {
            amounts.join(if multiplies { " * " } else { " + " })
        };
        let subtracted = costs.iter().filter(|cost| **cost != base).map(|cost| format!(" - {cost}"));
        let gross = format!("{base}{}", subtracted.collect::<String>());
        let mut total = gross.clone();
        for (wanted, sign) in [(Part::Plus, "+"), (Part::Minus, "-")] {
            for share in of(wanted).filter(|share| *share != gross) {
                total = format!("{} * (1 {sign} {share} / 100)", grouped(&total));
            }
        }
        let mut expressions = Vec::new();
        let divisors: Vec<&str> = of(Part::Divisor).filter(|d| *d != gross).collect();
        if let Some(first) = divisors.first() {
            let rest = divisors
                .iter()
                .skip(1)
                .fold(format!("{} / max({first}, 1)", grouped(&total)), |e, d| format!("{e} / max({d}, 1)"));
            expressions.push(rest);
        }
        if total != gross || expressions.is_empty() {
            expressions.push(total.clone());
        }
        if total != gross {
            expressions.push(format!(
                "{} - {}",
                grouped(&total),
                if gross.contains(' ') { format!("({gross})") } else { gross.clone() }
            ));
        }
        let labels = self.result_labels();
        let (share, plain): (Vec<String>, Vec<String>) = labels.into_iter().partition(|label| {
            lexicon::says(&text::words(label), "interest tip tax vat saving savings difference extra")
        });
        let differs = total != gross;
        let last = expressions.len() - 1;
        let mut plain = plain.into_iter();
        let spare = ["Result", "Total", "Difference"];
        let named = expressions.into_iter().enumerate().map(|(at, expression)| {
            let own = if differs && at == last { share.first().cloned() } else { plain.next() };
            (
                own.unwrap_or_else(|| spare[if differs && at == last { 2 } else { at.min(1) }].to_owned()),
                expression,
            )
        });
        named.collect()
    }

    fn result_labels(&self) -> Vec<String> {
        let results = "result results instalment break-even owes kg/ha bags remaining";
        let named = self.reading.items.iter().filter(|item| match item.role {
            Some(Role::Metric) => true,
            None => lexicon::says(&text::words(&item.label), results),
            _ => false,
        });
        named.map(|item| item.label.clone()).take(3).collect()
    }

    pub(super) fn converter(&mut self) -> Vec<Section> {
        let factors = bank::factors(&self.reading.words.join(" "));
        vec![Section::Converter(Converter { label: "Value".to_owned(), factors })]
    }
}

fn grouped(expression: &str) -> String {
    let sum = (expression.contains(" - ") || expression.contains(" + ")) && !expression.starts_with('(');
    if sum { format!("({expression})") } else { expression.to_owned() }
}

fn value(label: &str) -> i64 {
    match lexicon::entry(label, "") {
        Entry::Number(value) => value,
        _ => lexicon::usual(label),
    }
}
