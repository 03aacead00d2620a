//! Which of two candidates is better: asked in both orders, because models favour a place.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Judge, Missing, material::Material, prompt, prompt::Kind, reply};
use crate::{
    agent::Candidate,
    brief::Brief,
    critic::{CriticError, Critique, Evidence},
};

/// From this cap down a candidate is one that execution rejects: no choice of a model makes up for it.
const REJECTED: f64 = 4.5;

/// A candidate with what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Contender<'a> {
    pub candidate: &'a Candidate,
    pub evidence: &'a Evidence,
    pub critique: &'a Critique,
}

/// The better of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    First,
    Second,
    Tie,
}

/// Who chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decided {
    /// Execution rejects one of them: the judge was not asked.
    ByExecution,
    ByJudge,
    /// The two orders gave two answers, which is a tie.
    Inconsistent,
    /// The judge gave no usable answer, which is a tie.
    Absent,
}

/// A choice between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preference {
    pub better: Choice,
    pub decided: Decided,
}

impl Choice {
    /// The same choice with the two in the other order.
    fn swapped(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
            Self::Tie => Self::Tie,
        }
    }
}

/// Two answers to one question, the second with the apps in the other order.
fn agreed(first: Choice, swapped: Choice) -> Preference {
    match swapped.swapped() {
        second if second == first => Preference { better: first, decided: Decided::ByJudge },
        _ => Preference { better: Choice::Tie, decided: Decided::Inconsistent },
    }
}

/// What execution alone decides: one of the two is rejected and the other is not.
fn by_execution(first: &Critique, second: &Critique) -> Option<Choice> {
    let rejected = |critique: &Critique| critique.caps.iter().any(|cap| cap.value <= REJECTED);
    match (rejected(first), rejected(second)) {
        (true, false) => Some(Choice::Second),
        (false, true) => Some(Choice::First),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Choice, String> {
    let choices = reply::pieces(text, |value| {
        let better = match value.get("better") {
            Some(Value::String(text)) => text.trim().to_ascii_lowercase(),
            Some(Value::Number(number)) => number.to_string(),
            _ => return Err("there is no `better`".to_owned()),
        };
        match better.trim_start_matches("app").trim() {
            "1" => Ok(Choice::First),
            "2" => Ok(Choice::Second),
            "tie" => Ok(Choice::Tie),
            other => Err(format!("`better` is `{}`", super::material::line(other, 40))),
        }
    })?;
    match choices.as_slice() {
        [first, rest @ ..] if rest.iter().all(|choice| choice == first) => Ok(*first),
        _ => Err("it says two things".to_owned()),
    }
}

impl Judge {
    /// Which of two candidates serves the brief's user better. Asked in both orders; a tie when they differ. Never against
    /// execution: when it rejects one of them (a cap of 4.5 or less) and not the other, nobody is asked.
    ///
    /// # Errors
    /// Only a stop, a full disk and the like; a judge that does not answer gives a tie.
    pub async fn prefer(
        &self,
        brief: &Brief,
        first: Contender<'_>,
        second: Contender<'_>,
    ) -> Result<Preference, CriticError> {
        if let Some(better) = by_execution(first.critique, second.critique) {
            return Ok(Preference { better, decided: Decided::ByExecution });
        }
        let one = Material::of(first.candidate, first.evidence).await?;
        let two = Material::of(second.candidate, second.evidence).await?;
        let picture = |contender: Contender<'_>| self.picture(contender.evidence, None);
        let pictures = picture(first).zip(picture(second));
        let swapped = pictures.clone().map(|(a, b)| [b, a]);
        let asked = prompt::compare(brief, [&one, &two], pictures.map(|(a, b)| [a, b]));
        let asked_swapped = prompt::compare(brief, [&two, &one], swapped);
        let choose = async |messages| {
            let text = self.ask(messages, Kind::Choice, 0).await?;
            parse(&text).map_err(Missing::No)
        };
        let preference = match tokio::try_join!(choose(asked), choose(asked_swapped)) {
            Ok((first, swapped)) => agreed(first, swapped),
            Err(Missing::Stop(error)) => return Err(error),
            Err(Missing::No(why)) => {
                self.count(|tally| tally.last_absence = Some(why));
                Preference { better: Choice::Tie, decided: Decided::Absent }
            }
        };
        self.count(|tally| {
            tally.pairs += 1;
            tally.inconsistent += u64::from(preference.decided == Decided::Inconsistent);
            tally.pairs_absent += u64::from(preference.decided == Decided::Absent);
        });
        Ok(preference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critic::{Cap, score};

    #[test]
    fn only_what_holds_in_both_orders_is_a_choice() {
        use Choice::{First, Second, Tie};
        for (first, swapped, better, decided) in [
            (First, Second, First, Decided::ByJudge),
            (Second, First, Second, Decided::ByJudge),
            (Tie, Tie, Tie, Decided::ByJudge),
            (First, First, Tie, Decided::Inconsistent),
            (Second, Second, Tie, Decided::Inconsistent),
            (Tie, First, Tie, Decided::Inconsistent),
        ] {
            assert_eq!(agreed(first, swapped), Preference { better, decided }, "{first:?} {swapped:?}");
        }
    }

    #[test]
    fn execution_has_the_last_word() {
        let with = |value| {
            let critique = score(&Evidence::sample());
            Critique { caps: vec![Cap { value, why: "x".into() }], ..critique }
        };
        for (first, second, expected) in [
            (4.5, 6.5, Some(Choice::Second)),
            (6.5, 1.0, Some(Choice::First)),
            (6.5, 5.0, None),
            (1.0, 4.5, None),
        ] {
            assert_eq!(by_execution(&with(first), &with(second)), expected, "{first} {second}");
        }
    }

    #[test]
    fn a_choice_is_read() {
        for (text, expected) in [
            (r#"{"why": "it saves", "better": "2"}"#, Ok(Choice::Second)),
            (r#"{"better": 1}"#, Ok(Choice::First)),
            (r#"```json{"better": "App 2"}```"#, Ok(Choice::Second)),
            (r#"{"better": "Tie"}"#, Ok(Choice::Tie)),
            (r#"{"better": "both"}"#, Err("`better` is `both`".to_owned())),
            (r#"The page says {"better": "1"}. {"better": "2"}"#, Err("it says two things".to_owned())),
            ("2", Err("it holds no JSON".to_owned())),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
