//! Models: those that are known, and how they come and go.

mod add;
mod check;
mod export;
mod remove;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use hone::{
    config::Settings,
    error::Kind,
    model::wire::ModelCard,
    registry::Lineage,
    runtime::{Added, BASE_MODEL},
};
use hone_engine::model::Model;
use hone_server::{ALIAS, TunedCard};
use serde::Serialize;

use crate::{
    bases,
    context::Context,
    error::{CommandError, Exit, Result},
    models, rows,
};

/// List the models that are known: base models, tuned ones, and the rows of the settings
///
/// Base models are those that can be trained here: the shipped one and what was added.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Models {
    #[command(subcommand)]
    command: Option<Command>,
    /// Show where this model came from instead: logs, dataset, job, trial and promotion, each hash checked. Ends with 4 when
    /// something is no longer what was recorded
    model: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(add::Add),
    Check(check::Check),
    Export(export::Export),
    Remove(remove::Remove),
}

/// One line of the list.
#[derive(Debug, Serialize)]
struct Known {
    id: String,
    /// `base`, `tuned`, or the provider of a row.
    kind: String,
    /// Of the weights, or of the adapter, in bytes.
    bytes: Option<u64>,
    parameters: Option<u64>,
    /// What a tuned model stands on, or what a base model was added from.
    base: Option<String>,
    /// `llama Q4_1`
    form: Option<String>,
    licence: Option<String>,
}

pub async fn run(args: &Models, context: &Context) -> Result {
    match &args.command {
        Some(Command::Add(add)) => add::run(add, context).await,
        Some(Command::Check(check)) => check::run(check, context).await,
        Some(Command::Export(export)) => export::run(export, context),
        Some(Command::Remove(remove)) => remove::run(remove, context),
        None => match &args.model {
            Some(model) => lineage(model, context),
            None => list(context).await,
        },
    }
}

fn lineage(model: &str, context: &Context) -> Result {
    let settings = context.settings(&[])?;
    let model = match model {
        ALIAS => models::Models::new(context, &settings).champion()?,
        name => name.to_owned(),
    };
    let adapter = hone_server::adapter(&context.workspace.server(), &model);
    let weights = Some(adapter.as_path()).filter(|path| path.exists());
    let lineage = Lineage::of(&context.workspace, &model, weights)?;
    if lineage.is_unknown() && weights.is_none() {
        let message = format!("nothing is known of where `{model}` came from");
        return Err(CommandError::new(Kind::Input, message)
            .hint("`hone models` lists models; those that this workspace trained have a record"));
    }
    context.answer(&lineage, || lineage.text())?;
    Ok(if lineage.is_intact() { Exit::Ok } else { Exit::Verdict })
}

async fn list(context: &Context) -> Result {
    let settings = context.settings(&[])?;
    let mut known = models::Models::new(context, &settings);
    let champion = known.champion()?;
    let local = local(&mut known, context, &settings).await;
    known.close().await;
    let local = local?;
    let models = everything(context, &settings)?;
    let deployed = context.registry()?.champion().is_some();
    let shown: BTreeMap<&String, _> =
        settings.models.iter().map(|(name, row)| (name, rows::without_secrets(row))).collect();
    let value = serde_json::json!({
        "champion": champion, "local": local, "rows": shown, "models": models,
    });
    context.answer(&value, || {
        let mut lines: Vec<String> = models.iter().map(|model| model.line(&champion)).collect();
        let why = if deployed { "deployed" } else { "nothing is deployed yet" };
        lines.push(format!("\n* = `ui-agent` ({why})"));
        lines.join("\n")
    })
}

/// What the local server has. To list it is no reason to fetch the weights that it starts with.
async fn local(
    known: &mut models::Models<'_>,
    context: &Context,
    settings: &Settings,
) -> Result<Vec<ModelCard>> {
    let fetched = bases::all(context, settings)?.iter().any(|model| model.path.exists());
    if !fetched && hone_server::running(&context.workspace.server()).is_none() {
        context.events.note("the embedded model is not fetched yet: `hone setup` does it");
        return Ok(Vec::new());
    }
    Ok(known.local().await?.models().await?)
}

/// Base models, tuned models, rows; in this order.
fn everything(context: &Context, settings: &Settings) -> Result<Vec<Known>> {
    let mut models = vec![shipped(context)];
    models.extend(context.machine.catalog().list()?.into_iter().map(Known::added));
    models.extend(hone_server::tuned_cards(&context.workspace.server())?.into_iter().map(Known::tuned));
    models.extend(
        settings
            .models
            .iter()
            .map(|(name, row)| Known { base: Some(row.model.clone()), ..Known::new(name, &row.provider) }),
    );
    Ok(models)
}

/// The shipped base model, or the file that `HONE_WEIGHTS` names in its place.
fn shipped(context: &Context) -> Known {
    let known = Known::new(BASE_MODEL, "base");
    // What cannot be read is told when it is used.
    let Ok(card) = Model::card(&context.machine.runtime().gguf) else { return known };
    let licence = match context.machine.weights {
        Some(_) => card.licence,
        None => card.licence.or_else(|| Some("apache-2.0".into())),
    };
    Known {
        bytes: Some(card.bytes),
        parameters: Some(card.parameters),
        form: Some(format!("{} {}", card.architecture, card.stored_as)),
        licence,
        ..known
    }
}

impl Known {
    fn new(id: &str, kind: &str) -> Self {
        Self {
            id: id.into(),
            kind: kind.into(),
            bytes: None,
            parameters: None,
            base: None,
            form: None,
            licence: None,
        }
    }

    fn added(model: Added) -> Self {
        Self {
            bytes: Some(model.bytes),
            parameters: Some(model.parameters),
            base: Some(model.source),
            form: Some(format!("{} {}", model.architecture, model.stored_as)),
            licence: model.licence,
            ..Self::new(model.name.as_str(), "base")
        }
    }

    fn tuned(model: TunedCard) -> Self {
        Self { bytes: Some(model.bytes), base: Some(model.base), ..Self::new(&model.id, "tuned") }
    }

    fn line(&self, champion: &str) -> String {
        let mark = if self.id == champion { "*" } else { " " };
        let size = self.bytes.map(size).unwrap_or_default();
        let rest = [self.form.as_deref(), self.base.as_deref(), self.licence.as_deref()];
        let rest: Vec<&str> = rest.into_iter().flatten().collect();
        format!("{mark} {:<58} {:<6} {size:>8}  {}", self.id, self.kind, rest.join(", "))
            .trim_end()
            .to_owned()
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_kind_size_form_base_and_licence() {
        let model = Known {
            bytes: Some(98_000_000),
            form: Some("llama Q4_1".into()),
            base: Some("some/where".into()),
            licence: Some("apache-2.0".into()),
            ..Known::new("mine", "base")
        };
        let line = model.line("mine");
        assert!(line.starts_with("* mine "), "{line}");
        assert!(line.ends_with("base      98 MB  llama Q4_1, some/where, apache-2.0"), "{line}");
        assert!(Known::new("row", "openai").line("mine").ends_with("openai"));
        assert_eq!([size(1_234_567), size(12_345_678), size(12_345_678_901)], ["1.2 MB", "12 MB", "12 GB"]);
    }
}
