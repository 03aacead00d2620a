use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::*;
use crate::tokenizer::Vocabulary;

fn tokenizer() -> Tokenizer {
    Tokenizer::new(Vocabulary::bytes()).unwrap()
}

/// A vocabulary with tokens of several characters, some of which cross the borders of JSON's parts.
fn merged() -> Tokenizer {
    let mut vocabulary = Vocabulary::bytes();
    for (left, right) in
        [("\"", ":"), ("t", "r"), ("u", "e"), ("tr", "ue"), ("\"", ","), ("}", "}"), ("Ġ", "\""), ("1", "2")]
    {
        vocabulary.merges.push(format!("{left} {right}"));
        vocabulary.tokens.push(format!("{left}{right}"));
        vocabulary.kinds.push(Vocabulary::NORMAL);
    }
    Tokenizer::new(vocabulary).unwrap()
}

/// The document that a model without any sense writes; none when it does not come to an end.
fn write(tokenizer: &Tokenizer, mut constraint: Constraint, seed: u64) -> Option<String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut ids = Vec::new();
    while !constraint.is_whole() && ids.len() < 4000 {
        let allowed = constraint.allowed().expect("a token is allowed");
        let choices: Vec<u32> = (0..tokenizer.len() as u32).filter(|id| allowed.contains(*id)).collect();
        let id = choices[rng.random_range(0..choices.len())];
        assert!(allowed.first() == choices[0]);
        if tokenizer.is_end(id) {
            return Some(tokenizer.decode(&ids));
        }
        assert!(constraint.push(tokenizer, id), "an allowed token is taken");
        ids.push(id);
    }
    constraint.is_whole().then(|| tokenizer.decode(&ids))
}

/// A whole number, however it is written: `-0` is one, and is read as a double.
fn whole(value: &Value) -> Option<i64> {
    let double = || value.as_f64().filter(|number| number.fract() == 0.0).map(|number| number as i64);
    value.as_i64().or_else(double)
}

/// Whether a value is of a schema, by the few keywords that the tests use.
fn holds(schema: &Value, value: &Value) -> bool {
    let number = |key: &str| schema[key].as_u64().map(|n| n as usize);
    let within = |len: usize, least: &str, most: &str| {
        number(least).is_none_or(|least| len >= least) && number(most).is_none_or(|most| len <= most)
    };
    if let Some(options) = schema["anyOf"].as_array() {
        return options.iter().any(|option| holds(option, value));
    }
    if let Some(options) = schema["enum"].as_array() {
        return options.contains(value);
    }
    match schema["type"].as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => whole(value).is_some_and(|n| {
            schema["minimum"].as_i64().is_none_or(|least| n >= least)
                && schema["maximum"].as_i64().is_none_or(|most| n <= most)
        }),
        "string" => value.as_str().is_some_and(|text| within(text.chars().count(), "minLength", "maxLength")),
        "array" => value.as_array().is_some_and(|items| {
            within(items.len(), "minItems", "maxItems")
                && items.iter().all(|item| holds(&schema["items"], item))
        }),
        "object" => value.as_object().is_some_and(|fields| {
            let properties = schema["properties"].as_object().unwrap();
            let required = schema["required"].as_array().unwrap();
            required.iter().all(|name| fields.contains_key(name.as_str().unwrap()))
                && fields
                    .iter()
                    .all(|(name, value)| properties.get(name).is_some_and(|schema| holds(schema, value)))
        }),
        other => panic!("no schema of the tests has type {other}"),
    }
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"type": "null"})),
        Just(json!({"type": "boolean"})),
        (-50..50_i64, 0..200_i64)
            .prop_map(|(least, more)| json!({"type": "integer", "minimum": least, "maximum": least + more})),
        (0..3_u64, 0..6_u64).prop_map(
            |(least, more)| json!({"type": "string", "minLength": least, "maxLength": least + more})
        ),
        prop::collection::vec("[a-zé\"\\\\ ]{0,4}", 1..4).prop_map(|names| json!({"enum": names})),
    ]
}

fn object(fields: Vec<(String, Value, bool)>) -> Value {
    let required: Vec<&String> = fields.iter().filter(|field| field.2).map(|field| &field.0).collect();
    let mut schema = json!({"type": "object", "required": required, "additionalProperties": false});
    schema["properties"] = fields.iter().map(|(name, schema, _)| (name.clone(), schema.clone())).collect();
    schema
}

fn schema() -> impl Strategy<Value = Value> {
    let nested = leaf().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), 0..2_u64, 0..3_u64).prop_map(|(items, least, more)| {
                json!({"type": "array", "items": items, "minItems": least, "maxItems": least + more})
            }),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|options| json!({"anyOf": options})),
            fields(inner).prop_map(object),
        ]
    });
    fields(nested).prop_map(object)
}

fn fields(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<(String, Value, bool)>> {
    prop::collection::btree_map("[a-z \"é]{1,5}", (inner, any::<bool>()), 0..4).prop_map(|fields| {
        fields.into_iter().map(|(name, (schema, needed))| (name, schema, needed)).collect::<Vec<_>>()
    })
}

#[test]
fn minus_zero_is_a_whole_number() {
    let schema = json!({"type": "integer", "minimum": -1, "maximum": 6});
    assert!(holds(&schema, &serde_json::from_str("-0").unwrap()));
    assert!(!holds(&schema, &json!(0.5)) && !holds(&schema, &json!(7)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever the model wants: what it writes under a schema is of that schema.
    #[test]
    fn noise_becomes_a_document(schema in schema(), seed in any::<u64>(), merge in any::<bool>()) {
        let tokenizer = if merge { merged() } else { tokenizer() };
        let constraint = Grammars::new(&tokenizer).unwrap().json_schema(&schema).unwrap();
        let text = write(&tokenizer, constraint, seed).expect("the schema bounds every document");
        let value: Value = serde_json::from_str(&text).expect("it is JSON");
        prop_assert!(holds(&schema, &value), "{text} is not of {schema}");
    }

    /// No schema brings the compiler down, or what follows what it made.
    #[test]
    fn any_json_is_a_schema_or_refused(schema in any_json(), seed in any::<u64>()) {
        let tokenizer = tokenizer();
        let grammars = Grammars::new(&tokenizer).unwrap();
        if let Ok(constraint) = grammars.json_schema(&schema) && let Some(text) = write(&tokenizer, constraint, seed) {
            prop_assert!(is_json(&text), "{text}");
        }
    }
}

/// JSON by its grammar, which allows numbers that no double can hold.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// JSON made of the words that mean something in schemas.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "type",
        "object",
        "string",
        "integer",
        "array",
        "properties",
        "items",
        "required",
        "anyOf",
        "oneOf",
        "allOf",
        "not",
        "$ref",
        "#",
        "#/properties/a",
        "#/$defs/a",
        "$defs",
        "a",
        "pattern",
        "^[a-c]{1,3}$",
        "((((",
        "format",
        "date-time",
        "email",
        "minLength",
        "maxItems",
        "maximum",
        "multipleOf",
        "additionalProperties",
        "const",
        "enum",
        "x-guidance",
        "é",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-5..40_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    let node = leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..5)
                .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Value>()),
        ]
    });
    prop::collection::vec(
        (prop::sample::select(vec!["type", "properties", "anyOf", "$ref", "allOf", "items"]), node),
        0..4,
    )
    .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Value>())
}

fn refusal(schema: Value) -> String {
    Grammars::new(&tokenizer()).unwrap().json_schema(&schema).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_enforced_is_refused_with_the_reason() {
    assert_eq!(refusal(json!([])), "a schema is a JSON object");
    let check = |schema: Value, reason: &str| {
        let refusal = refusal(schema);
        assert!(
            refusal.starts_with("the schema cannot be followed: ") && refusal.contains(reason),
            "{refusal}"
        );
        assert!(!refusal.contains('\n') && refusal.len() < 400, "{refusal}");
    };
    check(json!({"type": "object", "not": {}}), "not");
    check(json!({"type": "banana"}), "banana");
    check(json!({"$ref": "#/$defs/gone"}), "gone");
    check(json!({"type": "string", "pattern": "(["}), "");
    check(json!({"type": "integer", "minimum": 3, "maximum": 2}), "");
    check(json!({"type": "string", "format": "nonsense"}), "nonsense");
    // A way around exactness that the compiler has.
    check(json!({"x-guidance": {"lenient": true}, "type": "object", "not": {}}), "not");
}

#[test]
fn a_long_text_where_none_belongs_is_refused_not_a_panic() {
    let text = format!("{}é", "x".repeat(99));
    let refusal = refusal(json!({"$ref": [text]}));
    assert!(!refusal.contains("backtrace"), "{refusal}");
}

#[test]
fn deep_schemas_are_followed_or_refused() {
    let mut schema = json!({"type": "integer", "maximum": 9, "minimum": 0});
    for _ in 0..100 {
        schema = json!({"type": "array", "items": schema, "minItems": 1, "maxItems": 1});
    }
    let tokenizer = tokenizer();
    if let Ok(constraint) = Grammars::new(&tokenizer).unwrap().json_schema(&schema) {
        let text = write(&tokenizer, constraint, 1).expect("it ends");
        assert!(text.trim().starts_with('[') && serde_json::from_str::<Value>(&text).is_ok(), "{text}");
    }
}

#[test]
fn any_object_is_an_object() {
    let tokenizer = tokenizer();
    for seed in 0..20 {
        let constraint = Grammars::new(&tokenizer).unwrap().json_object().unwrap();
        if let Some(text) = write(&tokenizer, constraint, seed) {
            assert!(text.trim_start().starts_with('{') && is_json(&text), "{text}");
        }
    }
}

#[test]
fn copies_go_their_own_ways() {
    let tokenizer = tokenizer();
    let schema = json!({"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]});
    let constraint = Grammars::new(&tokenizer).unwrap().json_schema(&schema).unwrap();
    let texts: Vec<Option<String>> = (0..8).map(|seed| write(&tokenizer, constraint.clone(), seed)).collect();
    assert!(texts.iter().any(|text| text.as_ref().is_some_and(|text| text.contains("\"x\""))), "{texts:?}");
    assert!(texts.iter().any(|text| text.as_ref().is_some_and(|text| text.contains("\"y\""))), "{texts:?}");
}

#[test]
fn a_model_that_cannot_end_an_answer_is_refused() {
    let mut vocabulary = Vocabulary::bytes();
    vocabulary.eos = None;
    vocabulary.kinds.fill(Vocabulary::NORMAL);
    let tokenizer = Tokenizer::new(vocabulary).unwrap();
    assert_eq!(Grammars::new(&tokenizer).unwrap_err(), ConstraintError::Endless);
}

#[test]
fn a_hostile_vocabulary_is_no_danger() {
    let mut vocabulary = Vocabulary::bytes();
    for token in ["x".repeat(200_000), String::new(), "ÿabc".to_owned(), "a".to_owned()] {
        vocabulary.tokens.push(token);
        vocabulary.kinds.push(5);
    }
    let tokenizer = Tokenizer::new(vocabulary).unwrap();
    let constraint = Grammars::new(&tokenizer).unwrap().json_schema(&json!({"enum": ["abc"]})).unwrap();
    assert_eq!(write(&tokenizer, constraint, 3).unwrap(), "\"abc\"");
}
