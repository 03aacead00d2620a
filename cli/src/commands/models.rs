use clap::Args;
use hone::model::wire::ModelCard;

use crate::{context::Context, error::Result, models};

/// List the models that are known: local, tuned, and the rows of the settings
#[derive(Debug, Args)]
pub struct Models {}

pub async fn run(_: &Models, context: &Context) -> Result {
    let settings = context.settings(&[])?;
    let mut known = models::Models::new(context, &settings);
    let champion = known.champion()?;
    let local = local(&mut known, context).await;
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

/// What the local server has. To list it is no reason to fetch the weights that it starts with.
async fn local(known: &mut models::Models<'_>, context: &Context) -> Result<Vec<ModelCard>> {
    let fetched = context.machine.weights.is_some() || context.machine.runtime().gguf.is_file();
    if !fetched && hone_server::running(&context.workspace.server()).is_none() {
        context.events.note("the embedded model is not fetched yet: `hone setup` does it");
        return Ok(Vec::new());
    }
    Ok(known.local().await?.models().await?)
}
