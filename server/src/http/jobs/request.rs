//! What a client asks of `POST /fine_tuning/jobs`.
//!
//! Whoever sets a hyperparameter means it. One that would have no effect, by its name or by its place, is therefore refused
//! with the place where it has one; the rest of a body that nobody knows is ignored, as everywhere.

use std::collections::BTreeMap;

use hone::{
    auto::{AUTO, Auto},
    model::wire::{DpoHyperparameters, Hyperparameters, JobRequest, Method},
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{error::ApiError, http::fields::Fields, training};

/// Hyperparameters of every method.
const COMMON: [&str; 9] = [
    "n_epochs",
    "batch_size",
    "learning_rate_multiplier",
    "lora_rank",
    "lora_alpha",
    "lora_targets",
    "lora_layers",
    "early_stopping_patience",
    "precision",
];
/// The one that only `dpo` has.
const BETA: &str = "beta";

/// A request that is sound in itself; whether its files and its model exist is another question.
pub fn read(body: Map<String, Value>) -> Result<JobRequest, ApiError> {
    let mut fields = Fields::new(body);
    let method = method(&mut fields)?;
    let request = JobRequest {
        model: fields.need("model")?,
        training_file: fields.need("training_file")?,
        validation_file: fields.take("validation_file")?,
        suffix: suffix(&mut fields)?,
        seed: seed(&mut fields)?,
        hyperparameters: outside(&mut fields, method.as_ref())?,
        method,
        metadata: fields.take("metadata")?,
        extra: Map::new(),
    };
    check_metadata(request.metadata.as_ref())?;
    match fields.take::<Value>("integrations")? {
        None => {}
        Some(Value::Array(none)) if none.is_empty() => {}
        Some(_) => return Err(ApiError::bad_param("integrations", "this server has no integrations")),
    }
    let place = "hyperparameters belong into `method.TYPE.hyperparameters`";
    fields.refuse_left(|name| name == BETA || COMMON.contains(&name), place)?;
    fields.ignore_the_rest();
    Ok(request)
}

fn method(fields: &mut Fields) -> Result<Option<Method>, ApiError> {
    let Some(mut method) = fields.object("method")? else { return Ok(None) };
    let kind: String = method.need("type")?;
    let is_dpo = match kind.as_str() {
        "supervised" => false,
        "dpo" => true,
        _ => {
            let message =
                format!("method `{kind}` is not supported by this server: `supervised` and `dpo` are");
            return Err(ApiError::bad_param("method", message));
        }
    };
    let mut values = DpoHyperparameters::default();
    if let Some(mut own) = method.object(&kind)? {
        values = hyperparameters(&mut own, is_dpo)?.unwrap_or_default();
        own.refuse_left(|_| true, &format!("known here is `hyperparameters`, for `{}`", known(is_dpo)))?;
    }
    let place = format!("the type of this method is `{kind}`, whose numbers belong into `method.{kind}`");
    method.refuse_left(|_| true, &place)?;
    Ok(Some(match is_dpo {
        true => Method::dpo(values.common, values.beta),
        false => Method::supervised(values.common),
    }))
}

/// The names that mean something, for a message.
fn known(is_dpo: bool) -> String {
    let beta = is_dpo.then_some(BETA);
    COMMON.into_iter().chain(beta).collect::<Vec<_>>().join("`, `")
}

/// The object `hyperparameters` within `parent`.
fn hyperparameters(parent: &mut Fields, is_dpo: bool) -> Result<Option<DpoHyperparameters>, ApiError> {
    let Some(mut fields) = parent.object("hyperparameters")? else { return Ok(None) };
    let beta = if is_dpo { fields.take(BETA)?.unwrap_or_default() } else { Auto::Auto };
    let common = Hyperparameters {
        n_epochs: fields.take("n_epochs")?.unwrap_or_default(),
        batch_size: fields.take("batch_size")?.unwrap_or_default(),
        learning_rate_multiplier: fields.take("learning_rate_multiplier")?.unwrap_or_default(),
        lora_rank: fields.take("lora_rank")?.unwrap_or_default(),
        lora_alpha: fields.take("lora_alpha")?.unwrap_or_default(),
        lora_targets: fields.take("lora_targets")?,
        lora_layers: fields.take("lora_layers")?.unwrap_or_default(),
        early_stopping_patience: fields.take("early_stopping_patience")?.unwrap_or_default(),
        precision: fields.take("precision")?,
    };
    if let Some((key, range)) = training::fault(&common, beta) {
        return Err(ApiError::bad_param(&fields.path(key), format!("`{key}` must be {range}")));
    }
    fields.refuse_left(|name| name == BETA, "`beta` belongs into `method.dpo.hyperparameters`")?;
    fields.refuse_left(|_| true, &format!("known here are `{}`", known(is_dpo)))?;
    Ok(Some(DpoHyperparameters { beta, common }))
}

/// `hyperparameters` where they were before there were methods. Beside a method they do not count, so they may say nothing
/// that the method does not say.
fn outside(fields: &mut Fields, method: Option<&Method>) -> Result<Option<Hyperparameters>, ApiError> {
    let Some(DpoHyperparameters { common, .. }) = hyperparameters(fields, false)? else { return Ok(None) };
    let Some(method) = method else { return Ok(Some(common)) };
    let (said, heeded) = (written(&common)?, written(method.hyperparameters())?);
    let lost = |(key, value): &(&String, &Value)| **value != AUTO && heeded.get(*key) != Some(*value);
    match said.iter().find(lost) {
        None => Ok(None),
        Some((key, _)) => {
            let path = format!("hyperparameters.{key}");
            let place = format!("method.{0}.hyperparameters.{key}", method.r#type);
            let message = format!("`{path}` has no effect beside `method`: send it as `{place}`");
            Err(ApiError::bad_param(&path, message))
        }
    }
}

/// Hyperparameters by name.
fn written(values: impl Serialize) -> Result<Map<String, Value>, ApiError> {
    match serde_json::to_value(values).map_err(ApiError::internal)? {
        Value::Object(values) => Ok(values),
        _ => Ok(Map::new()),
    }
}

fn seed(fields: &mut Fields) -> Result<Option<i64>, ApiError> {
    match fields.take::<i64>("seed")? {
        Some(seed) if !(0..=i64::from(i32::MAX)).contains(&seed) => {
            Err(ApiError::bad_param("seed", "`seed` must be from 0 to 2147483647"))
        }
        seed => Ok(seed),
    }
}

/// A suffix becomes part of a model id, which has colons for separators.
fn suffix(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let Some(suffix) = fields.take::<String>("suffix")? else { return Ok(None) };
    let plain = suffix.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    match suffix.len() {
        1..=64 if plain => Ok(Some(suffix)),
        1..=64 => Err(ApiError::bad_param("suffix", "`suffix` may hold letters, digits, `-`, `_` and `.`")),
        _ => Err(ApiError::bad_param("suffix", "`suffix` must have 1 to 64 characters")),
    }
}

pub fn check_metadata(metadata: Option<&BTreeMap<String, String>>) -> Result<(), ApiError> {
    let too_long = |(key, value): (&String, &String)| key.chars().count() > 64 || value.chars().count() > 512;
    match metadata {
        Some(pairs) if pairs.len() > 16 => {
            Err(ApiError::bad_param("metadata", "`metadata` may hold 16 pairs"))
        }
        Some(pairs) if pairs.iter().any(too_long) => {
            Err(ApiError::bad_param("metadata", "keys of `metadata` may have 64 characters, values 512"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read_with(change: &Value) -> Result<JobRequest, ApiError> {
        let mut body = json!({"model": "m", "training_file": "file-1"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        read(body.as_object().unwrap().clone())
    }

    fn check(change: Value, expected: Option<&str>) {
        let param = read_with(&change).err().map(|error| error.envelope().error.param.unwrap_or_default());
        assert_eq!(param.as_deref(), expected, "{change}");
    }

    fn supervised(values: Value) -> Value {
        json!({"method": {"type": "supervised", "supervised": {"hyperparameters": values}}})
    }

    fn dpo(values: Value) -> Value {
        json!({"method": {"type": "dpo", "dpo": {"hyperparameters": values}}})
    }

    #[test]
    fn requests_are_checked_before_a_job_exists() {
        check(json!({}), None);
        check(json!({"suffix": "ui-agent-v1", "seed": 0, "integrations": null, "nonsense": 3}), None);
        check(json!({"hyperparameters": {"n_epochs": 50, "batch_size": 256}}), None);
        check(json!({"hyperparameters": {"n_epochs": 0}}), Some("hyperparameters.n_epochs"));
        check(json!({"hyperparameters": {"n_epochs": 51}}), Some("hyperparameters.n_epochs"));
        let rate = json!({"learning_rate_multiplier": 0});
        check(supervised(rate), Some("method.supervised.hyperparameters.learning_rate_multiplier"));
        check(json!({"method": {"type": "dpo"}}), None);
        check(dpo(json!({"beta": "auto", "n_epochs": 1})), None);
        check(dpo(json!({"beta": 2.5})), Some("method.dpo.hyperparameters.beta"));
        check(dpo(json!({"batch_size": 0})), Some("method.dpo.hyperparameters.batch_size"));
        check(json!({"hyperparameters": {"lora_targets": ["x"]}}), Some("hyperparameters.lora_targets"));
        check(json!({"method": {"type": "reinforcement", "reinforcement": {}}}), Some("method"));
        check(json!({"suffix": "x".repeat(65)}), Some("suffix"));
        check(json!({"suffix": "a:b"}), Some("suffix"));
        check(json!({"seed": -1}), Some("seed"));
        check(json!({"seed": 2_147_483_648_i64}), Some("seed"));
        let many: Value = (0..17).map(|i| (i.to_string(), json!("x"))).collect();
        check(json!({ "metadata": many }), Some("metadata"));
        check(json!({"metadata": {"k": "x".repeat(513)}}), Some("metadata"));
        check(json!({"integrations": [{"type": "wandb"}]}), Some("integrations"));
        check(json!({"model": null}), Some("model"));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named() {
        check(json!({"hyperparameters": {"n_epochs": "3"}}), Some("hyperparameters.n_epochs"));
        check(dpo(json!({"beta": [1]})), Some("method.dpo.hyperparameters.beta"));
        check(json!({"hyperparameters": []}), Some("hyperparameters"));
        check(json!({"hyperparameters": "auto"}), Some("hyperparameters"));
        check(supervised(json!([])), Some("method.supervised.hyperparameters"));
        check(json!({"method": []}), Some("method"));
        check(json!({"method": {"type": "supervised", "supervised": []}}), Some("method.supervised"));
        check(json!({"method": {}}), Some("method.type"));
        check(json!({"method": {"type": 3}}), Some("method.type"));
        check(json!({"seed": "1"}), Some("seed"));
        check(json!({"suffix": 5}), Some("suffix"));
        check(json!({"metadata": {"a": 1}}), Some("metadata"));
        check(json!({"training_file": 5}), Some("training_file"));
        check(json!({"validation_file": {}}), Some("validation_file"));
    }

    #[test]
    fn a_hyperparameter_without_effect_is_refused() {
        check(json!({"hyperparameters": {"n_epoch": 3}}), Some("hyperparameters.n_epoch"));
        check(json!({"hyperparameters": {"n_epoch": "auto"}}), Some("hyperparameters.n_epoch"));
        check(supervised(json!({"epochs": 3})), Some("method.supervised.hyperparameters.epochs"));
        check(dpo(json!({"Beta": 0.2})), Some("method.dpo.hyperparameters.Beta"));
        check(supervised(json!({"beta": 0.2})), Some("method.supervised.hyperparameters.beta"));
        check(json!({"hyperparameters": {"beta": 0.2}}), Some("hyperparameters.beta"));
        let both = json!({"type": "supervised", "dpo": {"hyperparameters": {"n_epochs": 2}}});
        check(json!({ "method": both }), Some("method.dpo"));
        let flat = json!({"type": "supervised", "supervised": {"n_epochs": 2}});
        check(json!({ "method": flat }), Some("method.supervised.n_epochs"));
        check(
            json!({"method": {"type": "dpo", "hyperparameters": {"beta": 1}}}),
            Some("method.hyperparameters"),
        );
        check(json!({"n_epochs": 3}), Some("n_epochs"));
        check(json!({"beta": 0.1}), Some("beta"));
    }

    #[test]
    fn hyperparameters_beside_a_method_say_what_it_says_or_nothing() {
        let beside = |values: Value, method: Value| {
            let mut change = method;
            change["hyperparameters"] = values;
            change
        };
        let method = supervised(json!({"n_epochs": 2}));
        check(beside(json!({"n_epochs": 3}), method.clone()), Some("hyperparameters.n_epochs"));
        check(beside(json!({"lora_rank": 4}), method.clone()), Some("hyperparameters.lora_rank"));
        check(
            beside(json!({"n_epochs": 3}), json!({"method": {"type": "dpo"}})),
            Some("hyperparameters.n_epochs"),
        );
        let nothing = json!({"n_epochs": "auto", "batch_size": null, "precision": "auto"});
        check(beside(nothing, method.clone()), None);
        let same = beside(json!({"n_epochs": 2}), method);
        assert_eq!(
            read_with(&same).unwrap().method.unwrap().hyperparameters().unwrap().n_epochs,
            Auto::Fixed(2)
        );
    }

    #[test]
    fn what_says_nothing_is_no_fault() {
        let nulls: Value =
            COMMON.into_iter().chain(["beta", "n_epoch"]).map(|name| (name, Value::Null)).collect();
        let autos = json!({"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"});
        for values in [json!(null), json!({}), nulls, autos] {
            let supervised =
                json!({"type": "supervised", "supervised": {"hyperparameters": values}, "dpo": null});
            check(json!({ "method": supervised, "hyperparameters": null }), None);
            let dpo = json!({"type": "dpo", "dpo": {"hyperparameters": values}, "reinforcement": null});
            check(json!({ "method": dpo, "hyperparameters": {} }), None);
            check(json!({ "method": null, "hyperparameters": values }), None);
        }
    }

    #[test]
    fn a_refusal_says_what_is_known_and_where() {
        let message = |change: Value| read_with(&change).unwrap_err().envelope().error.message;
        let unknown = message(supervised(json!({"n_epoch": 3})));
        assert!(unknown.contains("`n_epochs`") && !unknown.contains("beta"), "{unknown}");
        assert!(message(dpo(json!({"n_epoch": 3}))).contains("`beta`"));
        let both = message(json!({"method": {"type": "supervised", "dpo": {}}}));
        assert!(both.contains("`method.supervised`"), "{both}");
        let flat = message(json!({"method": {"type": "dpo", "dpo": {"beta": 1}}}));
        assert!(flat.contains("`hyperparameters`") && flat.contains("`beta`"), "{flat}");
    }

    proptest! {
        /// Whatever stands in the place of a hyperparameter, or of its name, has an effect or is refused by its path.
        #[test]
        fn no_hyperparameter_is_dropped(name in "[a-z_]{1,9}|n_epochs|beta|lora_rank", value in 1u32..4) {
            let mut values = Map::new();
            values.insert(name.clone(), json!(value));
            match read_with(&dpo(Value::Object(values))) {
                Ok(request) => {
                    let written = serde_json::to_value(request.method.unwrap()).unwrap();
                    let heeded = &written["dpo"]["hyperparameters"][&name];
                    prop_assert_eq!(heeded.as_f64(), Some(f64::from(value)));
                }
                Err(error) => {
                    let param = error.envelope().error.param;
                    prop_assert_eq!(param, Some(format!("method.dpo.hyperparameters.{name}")));
                }
            }
        }
    }
}
