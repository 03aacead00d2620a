use std::collections::BTreeMap;

use clap::Args;

use crate::{context::Context, error::Result};

/// Show each setting, its value and where it came from
#[derive(Debug, Args)]
pub struct Config {}

pub fn run(_: &Config, context: &Context) -> Result {
    let loaded = context.load_settings(&[])?;
    let value: BTreeMap<_, _> = loaded
        .origins
        .iter()
        .map(|(key, value, origin)| {
            let value: serde_json::Value = value.parse().unwrap_or_else(|_| value.trim_matches('"').into());
            (key, serde_json::json!({ "value": value, "origin": origin.to_string() }))
        })
        .collect();
    context.answer(&value, || {
        let lines =
            loaded.origins.iter().map(|(key, value, origin)| format!("{key:<24} {value:<26} {origin}"));
        let rows = loaded.settings.models.iter().map(|(name, row)| {
            let what = format!("{} {}", row.provider, row.model);
            format!("{:<24} {what:<26} hone.toml", format!("models.{name}"))
        });
        lines.chain(rows).collect::<Vec<_>>().join("\n")
    })
}
