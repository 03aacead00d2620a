//! The numbers of the score: data that users may replace.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

const SHIPPED: &str = include_str!("rubric.toml");

/// Weights and caps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rubric {
    pub weights: Weights,
    pub caps: Caps,
    pub judge: JudgeRubric,
}

/// What a judge's answers may take away.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeRubric {
    /// Weight of the share of its questions that hold, beside those of the sub-scores.
    pub weight: f64,
    /// Upper bounds (0-10) when less than a half, less than a quarter of them hold.
    pub half: f64,
    pub quarter: f64,
}

/// Weights of the sub-scores; only their proportions matter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    pub behaviour: f64,
    pub executes: f64,
    pub accessibility: f64,
    pub visual: f64,
    #[serde(rename = "match")]
    pub match_: f64,
    pub code: f64,
}

/// Upper bounds on the score (0-10), by what is seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "rubric.toml and docs/design/critic.md explain each")]
pub struct Caps {
    pub nothing_rendered: f64,
    pub does_not_compile: f64,
    pub tampers: f64,
    pub contradicts: f64,
    pub almost_nothing: f64,
    pub configuration: f64,
    pub flood: f64,
    pub no_effect: f64,
    pub exception: f64,
    pub not_executed: f64,
    pub off_topic: f64,
    pub unsettled: f64,
    pub too_wide: f64,
    pub hides: f64,
    pub unreachable: f64,
    pub habit_missed: f64,
    pub nothing_to_operate: f64,
    pub control_fails: f64,
    pub few_elements: f64,
    pub half_off_topic: f64,
    pub all_idle: f64,
    pub most_unnamed: f64,
    pub some_idle: f64,
    pub one_unnamed: f64,
}

static DEFAULT: LazyLock<Rubric> = LazyLock::new(|| match Rubric::parse("") {
    Ok(rubric) => rubric,
    // The shipped file is tested; a build that has another one is no build of ours.
    Err(why) => unreachable!("rubric.toml: {why}"),
});

impl Default for Rubric {
    fn default() -> Self {
        DEFAULT.clone()
    }
}

impl Rubric {
    /// The shipped numbers with those of a file instead, where it has any.
    ///
    /// # Errors
    /// What is wrong with the file, in a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut merged: toml::Table = SHIPPED.parse().map_err(|e: toml::de::Error| e.message().to_owned())?;
        let given: toml::Table = text.parse().map_err(|e: toml::de::Error| e.message().to_owned())?;
        let mut rubric: Self = merged.clone().try_into().map_err(|e| e.message().to_owned())?;
        for (section, values) in given {
            let (Some(toml::Value::Table(known)), toml::Value::Table(values)) =
                (merged.get_mut(&section), values)
            else {
                return Err(format!(
                    "unknown section `{section}`: there are `[weights]`, `[caps]` and `[judge]`"
                ));
            };
            known.extend(values.clone());
            // All of a section at once, but each value of it named by its own fault.
            rubric = merged.clone().try_into().map_err(|e| {
                let named = values.iter().find(|(key, value)| !fits(&section, key, value));
                let name =
                    named.map(|(key, value)| format!("`{section}.{key} = {value}`: ")).unwrap_or_default();
                format!("{name}{}", e.message())
            })?;
        }
        rubric.check().map(|()| rubric)
    }

    fn check(&self) -> Result<(), String> {
        let weights = self.weights.list();
        if weights.iter().any(|weight| !(0.0..=1e6).contains(weight)) || weights.iter().sum::<f64>() <= 0.0 {
            return Err("weights are 0 or more, and one of them is more".to_owned());
        }
        if !(0.0..=1e6).contains(&self.judge.weight) {
            return Err("the judge's weight is 0 or more".to_owned());
        }
        let bounds = [("half", self.judge.half), ("quarter", self.judge.quarter)];
        if let Some((name, value)) = bounds.into_iter().find(|(_, value)| !(0.0..=10.0).contains(value)) {
            return Err(format!("`judge.{name}` is {value}: caps lie between 0 and 10"));
        }
        let caps = toml::Table::try_from(self.caps).map_err(|e| e.to_string())?;
        let number = |value: &toml::Value| value.as_float().unwrap_or(f64::NAN);
        let outside = caps.iter().find(|(_, value)| !(0.0..=10.0).contains(&number(value)));
        outside.map_or(Ok(()), |(name, value)| {
            Err(format!("cap `{name}` is {value}: caps lie between 0 and 10"))
        })
    }
}

/// Whether a value alone takes the place of the shipped one.
fn fits(section: &str, key: &str, value: &toml::Value) -> bool {
    let Ok(mut shipped) = SHIPPED.parse::<toml::Table>() else { return false };
    if let Some(toml::Value::Table(known)) = shipped.get_mut(section) {
        known.insert(key.to_owned(), value.clone());
    }
    shipped.try_into::<Rubric>().is_ok()
}

impl Weights {
    /// In the order of the sub-scores.
    pub(super) fn list(&self) -> [f64; 6] {
        [self.behaviour, self.executes, self.accessibility, self.visual, self.match_, self.code]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_replaces_what_it_names() {
        let rubric = Rubric::parse("[weights]\nvisual = 0.5\n[caps]\nflood = 1.0").unwrap();
        assert_eq!((rubric.weights.visual, rubric.caps.flood), (0.5, 1.0));
        assert_eq!(rubric.weights.code, Rubric::default().weights.code);
    }

    #[track_caller]
    fn check_refused(text: &str, why: &str) {
        let said = Rubric::parse(text).unwrap_err();
        assert!(said.contains(why), "{said}");
    }

    #[test]
    fn what_is_no_rubric_is_refused() {
        check_refused("[weights]\nbeauty = 1", "beauty");
        check_refused("[weigths]\ncode = 1", "weigths");
        check_refused("[caps]\nflood = 11", "flood");
        check_refused("[caps]\nflood = \"low\"", "caps.flood");
        check_refused(
            "[weights]\nbehaviour=0\nexecutes=0\naccessibility=0\nvisual=0\nmatch=0\ncode=0",
            "weights",
        );
        check_refused("[weights]\ncode = nan", "weights");
        check_refused("[judge]\nweight = -1", "judge's weight");
        check_refused("[judge]\nhalf = 10.5", "judge.half");
        check_refused("[", "");
    }
}
