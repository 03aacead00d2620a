//! Graders: numbers for a model's answer. Pure functions; the ones that would run a program or ask a model are not here.

mod formula;
mod similarity;
mod template;

use std::{collections::BTreeMap, time::Instant};

use hone::model::wire::{GraderErrors, GraderMetadata, GraderRun};
use serde::Deserialize;
use serde_json::{Map, Value};

use formula::Formula;
use similarity::Metric;
use template::Scope;

/// Graders that this server knows; the others of the protocol would need more than it has.
const KNOWN: &str = "`string_check`, `text_similarity` and `multi`";
/// Most graders in a `multi`.
const MOST_GRADERS: usize = 64;
/// Most characters of a text that is compared: some metrics take the product of both lengths.
const LONGEST: usize = 100_000;

/// A grader that was understood.
#[derive(Debug)]
pub struct Grader {
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    StringCheck { input: String, reference: String, operation: Operation },
    TextSimilarity { input: String, reference: String, metric: Metric },
    Multi { graders: BTreeMap<String, Grader>, formula: Formula },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Operation {
    Eq,
    Ne,
    Like,
    Ilike,
}

impl Operation {
    fn holds(self, input: &str, reference: &str) -> bool {
        match self {
            Self::Eq => input == reference,
            Self::Ne => input != reference,
            Self::Like => input.contains(reference),
            Self::Ilike => input.to_lowercase().contains(&reference.to_lowercase()),
        }
    }
}

/// Why a grader gives no number for a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A name in a template or formula that stands for nothing.
    Variable(String),
    /// `output_json` of a sample that is not JSON.
    SampleNotJson,
    /// A text that is too long to be compared.
    TooLong,
    /// A formula without a finite value.
    NotANumber,
}

/// Reads a grader, or says what is wrong with it.
pub fn parse(grader: &Value) -> Result<Grader, String> {
    read(grader, true)
}

fn read(grader: &Value, multi_allowed: bool) -> Result<Grader, String> {
    let grader = grader.as_object().ok_or("a grader is a JSON object")?;
    let name = text(grader, "name")?;
    let kind = match text(grader, "type")?.as_str() {
        "string_check" => Kind::StringCheck {
            input: template(grader, "input")?,
            reference: template(grader, "reference")?,
            operation: word(grader, "operation")?,
        },
        "text_similarity" => text_similarity(grader)?,
        "multi" if multi_allowed => multi(grader)?,
        "multi" => return Err("a `multi` grader may not hold another".into()),
        other @ ("python" | "score_model" | "label_model" | "endpoint") => {
            return Err(format!("graders of type `{other}` are not supported by this server, only {KNOWN}"));
        }
        other => return Err(format!("`{other}` is not a type of grader: use {KNOWN}")),
    };
    Ok(Grader { name, kind })
}

fn text(grader: &Map<String, Value>, key: &str) -> Result<String, String> {
    match grader.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{key}` of a grader must be text")),
        None => Err(format!("a grader has no `{key}`")),
    }
}

fn template(grader: &Map<String, Value>, key: &str) -> Result<String, String> {
    let template = text(grader, key)?;
    template::check(&template)?;
    Ok(template)
}

fn word<T: for<'de> Deserialize<'de>>(grader: &Map<String, Value>, key: &str) -> Result<T, String> {
    let word = text(grader, key)?;
    serde_json::from_value(Value::String(word)).map_err(|e| format!("`{key}`: {e}"))
}

fn text_similarity(grader: &Map<String, Value>) -> Result<Kind, String> {
    let metric = word(grader, "evaluation_metric")?;
    if metric == Metric::Cosine {
        return Err(
            "`cosine` needs an embedding model, which this server does not have: use `fuzzy_match`, `bleu`, \
                    `gleu`, `meteor`, `rouge_1` to `rouge_5` or `rouge_l`"
                .into(),
        );
    }
    let (input, reference) = (template(grader, "input")?, template(grader, "reference")?);
    Ok(Kind::TextSimilarity { input, reference, metric })
}

/// The graders come as one object or as a map from name to grader; documentation and specification differ.
fn multi(grader: &Map<String, Value>) -> Result<Kind, String> {
    let graders = grader.get("graders").and_then(Value::as_object).ok_or("`graders` must be an object")?;
    let graders: BTreeMap<_, _> = if graders.get("type").is_some_and(Value::is_string) {
        let one = read(&Value::Object(graders.clone()), false)?;
        [(one.name.clone(), one)].into()
    } else {
        let read = |(name, grader)| Ok((String::clone(name), read(grader, false)?));
        graders.iter().map(read).collect::<Result<_, String>>()?
    };
    if graders.is_empty() || graders.len() > MOST_GRADERS {
        return Err(format!("`graders` must hold 1 to {MOST_GRADERS} graders"));
    }
    let formula = Formula::parse(&text(grader, "calculate_output")?);
    let formula = formula.map_err(|e| format!("`calculate_output` is not understood: {e}"))?;
    let known = |name: &str| graders.contains_key(name).then_some(0.5);
    if let Err(name) = formula.eval(&known) {
        return Err(format!("`calculate_output` names `{name}`, which none of its graders is called"));
    }
    Ok(Kind::Multi { graders, formula })
}

impl Grader {
    fn kind(&self) -> &'static str {
        match self.kind {
            Kind::StringCheck { .. } => "string_check",
            Kind::TextSimilarity { .. } => "text_similarity",
            Kind::Multi { .. } => "multi",
        }
    }

    /// Grades a sample. Where there is no number, the reward is 0 and the errors say why.
    pub fn run(&self, sample: String, item: Option<Map<String, Value>>) -> GraderRun {
        let begun = Instant::now();
        let scope = Scope::new(item, sample);
        let (mut errors, mut sub_rewards) = (GraderErrors::default(), BTreeMap::new());
        let reward = self.reward(&scope, &mut sub_rewards, &mut errors);
        let reward = reward.unwrap_or_else(|fault| {
            errors.note(&fault);
            0.0
        });
        let metadata = GraderMetadata {
            name: self.name.clone(),
            r#type: self.kind().into(),
            errors,
            execution_time: begun.elapsed().as_secs_f64(),
            scores: sub_rewards.clone(),
            token_usage: None,
            sampled_model_name: None,
        };
        GraderRun { reward, metadata, sub_rewards, model_grader_token_usage_per_model: BTreeMap::new() }
    }

    fn reward(
        &self,
        scope: &Scope,
        sub_rewards: &mut BTreeMap<String, f64>,
        errors: &mut GraderErrors,
    ) -> Result<f64, Fault> {
        match &self.kind {
            Kind::StringCheck { input, reference, operation } => {
                let holds =
                    operation.holds(&template::fill(input, scope)?, &template::fill(reference, scope)?);
                Ok(f64::from(u8::from(holds)))
            }
            Kind::TextSimilarity { input, reference, metric } => {
                let (input, reference) = (template::fill(input, scope)?, template::fill(reference, scope)?);
                if input.len().max(reference.len()) > LONGEST {
                    return Err(Fault::TooLong);
                }
                metric.of(&input, &reference).ok_or(Fault::NotANumber)
            }
            Kind::Multi { graders, formula } => {
                for (name, grader) in graders {
                    // A grader that cannot judge counts as 0; that it could not is said.
                    let reward = grader.reward(scope, &mut BTreeMap::new(), errors);
                    let reward = reward.unwrap_or_else(|fault| {
                        errors.note(&fault);
                        0.0
                    });
                    sub_rewards.insert(name.clone(), reward);
                }
                let reward = formula.eval(&|name| sub_rewards.get(name).copied()).map_err(Fault::Variable)?;
                if reward.is_finite() { Ok(reward) } else { Err(Fault::NotANumber) }
            }
        }
    }
}

/// Sets the keys that stand for faults.
trait Note {
    fn note(&mut self, fault: &Fault);
}

impl Note for GraderErrors {
    fn note(&mut self, fault: &Fault) {
        match fault {
            Fault::Variable(_) => self.invalid_variable_error = true,
            Fault::SampleNotJson => self.sample_parse_error = true,
            Fault::TooLong => self.truncated_observation_error = true,
            Fault::NotANumber => self.other_error = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn string_check(operation: &str, reference: &str) -> Value {
        json!({"type": "string_check", "name": "check", "input": "{{sample.output_text}}",
            "reference": reference, "operation": operation})
    }

    fn run(grader: &Value, sample: &str) -> GraderRun {
        let item = json!({"answer": "Yes"}).as_object().cloned();
        parse(grader).unwrap().run(sample.into(), item)
    }

    #[test]
    fn strings_are_checked() {
        for (operation, sample, expected) in [
            ("eq", "Yes", 1.0),
            ("eq", "yes", 0.0),
            ("ne", "yes", 1.0),
            ("like", "So: Yes.", 1.0),
            ("like", "so: yes.", 0.0),
            ("ilike", "so: yes.", 1.0),
        ] {
            let run = run(&string_check(operation, "{{item.answer}}"), sample);
            assert_eq!(run.reward, expected, "{operation} {sample}");
            assert_eq!(run.metadata.errors, GraderErrors::default());
        }
    }

    #[test]
    fn many_graders_make_one_number() {
        let similar = json!({"type": "text_similarity", "name": "similar", "input": "{{sample.output_text}}",
            "reference": "abcd", "evaluation_metric": "fuzzy_match"});
        let multi = json!({"type": "multi", "name": "both", "calculate_output": "0.5 * exact + 0.5 * similar",
            "graders": {"exact": string_check("eq", "abcd"), "similar": similar}});
        let run = run(&multi, "ab");
        assert!((run.reward - 1.0 / 3.0).abs() < 1e-9, "{run:?}");
        assert_eq!(run.sub_rewards["exact"], 0.0);
        assert_eq!(run.metadata.r#type, "multi");
        let single = json!({"type": "multi", "name": "one", "calculate_output": "1 - check",
            "graders": string_check("eq", "x")});
        assert_eq!(self::run(&single, "x").reward, 0.0);
    }

    #[test]
    fn the_grader_of_datasets_likes_the_reference_best_and_configuration_least() {
        let grader = parse(&hone::dataset::grader()).unwrap();
        let best = "```python\n# app.py\nimport streamlit as st\n\nst.title(\"Bookings\")\nst.metric(\"Today\", 12)\n```";
        let reward = |sample: &str| {
            let run = grader.run(sample.into(), json!({"reference": best}).as_object().cloned());
            assert_eq!(run.metadata.errors, GraderErrors::default());
            run.reward
        };
        let other = reward("```python\n# app.py\nimport streamlit as st\n\nst.write(\"Hello\")\n```");
        let config = reward("```python\n# config.py\nNAME = \"Bookings\"\nTODAY = 12\n```");
        assert!(reward(best) == 1.0 && other < 1.0 && config < 0.5 && config < other, "{other} {config}");
    }

    #[test]
    fn what_keeps_a_grader_from_judging_is_said() {
        let errors = |grader: &Value, sample: &str| run(grader, sample).metadata.errors;
        assert!(errors(&string_check("eq", "{{item.nobody}}"), "x").invalid_variable_error);
        assert!(errors(&string_check("eq", "{{sample.output_json.a}}"), "no json").sample_parse_error);
        let infinite = json!({"type": "multi", "name": "m", "calculate_output": "1 / check",
            "graders": {"check": string_check("eq", "x")}});
        let run = run(&infinite, "y");
        assert!(run.metadata.errors.other_error && run.reward == 0.0);
        let long = json!({"type": "text_similarity", "name": "l", "input": "{{sample.output_text}}",
            "reference": "a", "evaluation_metric": "rouge_l"});
        assert!(errors(&long, &"x".repeat(LONGEST + 1)).truncated_observation_error);
    }

    #[test]
    fn graders_that_make_no_sense_are_refused() {
        let check = |grader: Value, words: &str| {
            let error = parse(&grader).unwrap_err();
            assert!(error.contains(words), "{grader}: {error}");
        };
        check(json!([]), "JSON object");
        check(json!({}), "no `name`");
        check(json!({"name": "x"}), "no `type`");
        check(json!({"name": "x", "type": "magic"}), "`magic`");
        for kind in ["python", "score_model", "label_model"] {
            check(json!({"name": "x", "type": kind}), "not supported");
        }
        check(string_check("is", "x"), "operation");
        check(string_check("eq", "{{x}}"), "`{{x}}`");
        let similar = |metric: &str| json!({"type": "text_similarity", "name": "s", "input": "a", "reference": "b", "evaluation_metric": metric});
        check(similar("cosine"), "embedding model");
        check(similar("rouge_9"), "evaluation_metric");
        for metric in ["fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_5", "rouge_l"] {
            assert!(parse(&similar(metric)).is_ok(), "{metric}");
        }
        let multi = |formula: &str, graders: Value| json!({"type": "multi", "name": "m", "calculate_output": formula, "graders": graders});
        check(multi("1 +", json!({"a": string_check("eq", "x")})), "calculate_output");
        check(multi("b", json!({"a": string_check("eq", "x")})), "`b`");
        check(multi("1", json!({})), "1 to 64");
        check(multi("a", json!({"a": multi("1", json!({"b": string_check("eq", "x")}))})), "may not hold");
    }
}
