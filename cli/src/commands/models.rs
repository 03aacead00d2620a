use crate::{context::Context, error::Result, models};
use clap::Args;

/// List the models that are known: local, tuned, and the rows of the settings
#[derive(Debug, Args)]
pub struct Models {}

pub async fn run(_: &Models, context: &Context) -> Result {
    let settings = context.settings(&[])?;
    let mut known = models::Models::new(context, &settings);
    let champion = known.champion()?;
    let local = match known.local().await {
        Ok(client) => client.models().await.map_err(Into::into),
        Err(e) => Err(e),
    };
    known.close().await;
    let local = local?;
    let deployed = context.registry()?.champion().is_some();
    let value = serde_json::json!({ "champion": champion, "local": local, "rows": settings.models });
    context.answer(&value, || {
        let mut lines: Vec<String> = local
            .iter()
            .map(|model| {
                let mark = if model.id == champion { "* " } else { "  " };
                format!("{mark}{:<58} local", model.id)
            })
            .collect();
        let rows = settings.models.iter();
        lines.extend(rows.map(|(name, row)| format!("  {name:<58} {} {}", row.provider, row.model)));
        let why = if deployed { "deployed" } else { "nothing is deployed yet" };
        lines.push(format!("\n* = `ui-agent` ({why})"));
        lines.join("\n")
    })
}
