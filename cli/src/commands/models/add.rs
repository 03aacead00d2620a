use std::path::{Path, PathBuf};

use clap::Args;
use hone::{
    config::{Loaded, Origin},
    error::Kind,
    model::{
        client::{Endpoint, Secret},
        hub::{Contents, Found, Hub, HubId},
    },
    runtime::{Added, BASE_MODEL, BASE_MODEL_HUB_ID, ModelName},
};
use hone_engine::{
    lora::{AdapterCard, AdapterError},
    model::{Card, LoadError, Model},
};
use hone_server::BaseModel;

use super::size;
use crate::{
    bases,
    context::Context,
    error::{CommandError, Result},
};

/// Add a model: a GGUF file, a folder of safetensors, a PEFT adapter, or an id of the hub
///
/// Base models can be served, trained (`base_model` under `[finetune]`) and tested. An adapter becomes a tuned model of this
/// workspace over its base. From the hub come `owner/name` and `owner/name:FILE.gguf`; a download that was stopped goes on.
#[derive(Debug, Args)]
pub struct Add {
    /// Path, or `owner/name[:file.gguf]`
    source: String,
    /// Name of the model here; by default from the source
    #[arg(long)]
    name: Option<String>,
    /// For an adapter: the base model that it was trained on; by default the one that it names
    #[arg(long, value_name = "MODEL")]
    base: Option<String>,
}

/// Variable with the address of the hub, as its own tools read it.
const ENDPOINT: &str = "HF_ENDPOINT";
/// Variable with the key to gated and private repositories.
const TOKEN: &str = "HF_TOKEN";

pub async fn run(args: &Add, context: &Context) -> Result {
    let path = Path::new(&args.source);
    if path.exists() {
        let path = std::fs::canonicalize(path)
            .map_err(|e| CommandError::new(Kind::Input, format!("cannot read `{}`: {e}", args.source)))?;
        return add_path(args, context, path, None);
    }
    match HubId::parse(&args.source) {
        Some(id) => from_hub(args, context, &id).await,
        None => Err(CommandError::new(
            Kind::Input,
            format!("`{}` is neither a path nor an id of the hub", args.source),
        )
        .hint("give a `.gguf` file, a folder with safetensors or an adapter, or `owner/name[:file.gguf]`")),
    }
}

async fn from_hub(args: &Add, context: &Context, id: &HubId) -> Result {
    let name = name(args, id.suggestion())?;
    let catalog = context.machine.catalog();
    catalog.check_free(&name, &id.to_string())?;
    let endpoint = Endpoint::new("the hub", hub_address(&context.load_settings(&[])?, context));
    let token = context.secret(TOKEN).map(Secret::new);
    let hub = Hub::new(endpoint, token, context.cancel.clone())?;
    let found = hub.find(id).await?;
    let path = hub.fetch(&found, &catalog.downloads(&name), &context.events).await?;
    let added = add_path(args, context, path, Some(&found))?;
    if found.contents == Contents::Adapter {
        // The workspace has a copy of its own; what stays behind costs room and nothing else.
        let _ = std::fs::remove_dir_all(catalog.downloads(&name));
    }
    Ok(added)
}

/// The settings' address, or the one that the hub's own tools are told.
fn hub_address(loaded: &Loaded, context: &Context) -> String {
    let is_default =
        |(key, _, origin): &(String, String, Origin)| key == "hub.url" && *origin == Origin::Default;
    let elsewhere = context.secret(ENDPOINT).filter(|_| loaded.origins.iter().any(is_default));
    elsewhere.unwrap_or_else(|| loaded.settings.hub.url.clone())
}

fn name(args: &Add, suggestion: &str) -> Result<ModelName> {
    Ok(match &args.name {
        Some(name) => ModelName::new(name)?,
        None => ModelName::suggested(suggestion)?,
    })
}

/// Adds what is at `path`, which came from the hub when `found` says what.
fn add_path(args: &Add, context: &Context, path: PathBuf, found: Option<&Found>) -> Result {
    let is_adapter = AdapterCard::is_in(&path) && !path.join("config.json").exists();
    if is_adapter || found.is_some_and(|found| found.contents == Contents::Adapter) {
        return add_adapter(args, context, &path);
    }
    let card = Model::card(&path).map_err(|error| unloadable(&path, &error))?;
    // The texts are what a model can fail on after its head was read; better now than when it is first asked.
    let (tokenizer, _) = Model::texts(&path).map_err(|error| unloadable(&path, &error))?;
    let source = match found {
        Some(found) => found.id.to_string(),
        None => path.display().to_string(),
    };
    let suggestion = found.map_or_else(|| file_name(&path), |found| found.id.suggestion().to_owned());
    let added = Added {
        name: name(args, &suggestion)?,
        source,
        sha256: Model::checksum(&path).map_err(|error| unloadable(&path, &error))?,
        bytes: card.bytes,
        parameters: card.parameters,
        architecture: card.architecture.to_owned(),
        stored_as: card.stored_as.to_owned(),
        licence: found.and_then(|found| found.licence.clone()).or_else(|| card.licence.clone()),
        path,
    };
    context.machine.catalog().add(added.clone())?;
    context.answer(&added, || told(&added, &card, tokenizer.len()))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn told(added: &Added, card: &Card, tokens: usize) -> String {
    let licence = added.licence.as_deref().unwrap_or("not stated");
    format!(
        "added `{}`: {}, {} parameters in {} ({}), {tokens} tokens\nsha256 {}\nlicence {licence}\ntrain it with \
         `base_model = \"{}\"` under `[finetune]` in `hone.toml`",
        added.name,
        card.name,
        hone::text::thousands(card.parameters),
        card.stored_as,
        size(card.bytes),
        added.sha256,
        added.name,
    )
}

fn unloadable(path: &Path, error: &LoadError) -> CommandError {
    let command = CommandError::new(Kind::Input, format!("`{}` cannot be added: {error}", path.display()));
    match error.hint() {
        Some(hint) => command.hint(hint),
        None => command.hint("fetch the file again, or use another"),
    }
}

fn add_adapter(args: &Add, context: &Context, path: &Path) -> Result {
    let card = AdapterCard::read(path).map_err(bad_adapter)?;
    let base = base_of(args, context, &card)?;
    let suggestion =
        HubId::parse(&args.source).map_or_else(|| file_name(path), |id| id.suggestion().to_owned());
    let suffix = name(args, &suggestion)?;
    let id = hone_server::add_adapter(&context.workspace.server(), &base, path, suffix.as_str())?;
    let value = serde_json::json!({
        "id": id, "base": base.id, "rank": card.rank, "bytes": card.bytes, "source": args.source,
    });
    context.answer(&value, || {
        format!("added `{id}`: an adapter of rank {} over `{}`\ndeploy it with `hone test` and `hone deploy {id}`", card.rank, base.id)
    })
}

fn bad_adapter(error: AdapterError) -> CommandError {
    CommandError::new(Kind::Input, error.to_string()).hint(error.hint())
}

/// The base model that was named on the command line, or that the adapter names: by name here, by source, or by the last part
/// of either.
fn base_of(args: &Add, context: &Context, card: &AdapterCard) -> Result<BaseModel> {
    let settings = context.settings(&[])?;
    let models = bases::all(context, &settings)?;
    let wanted = args.base.clone().or_else(|| card.base_model.clone()).unwrap_or_default();
    let added = context.machine.catalog().list()?;
    let by_source = added.iter().find(|model| model.source == wanted).map(|model| model.name.to_string());
    let shipped = (wanted == BASE_MODEL_HUB_ID).then(|| BASE_MODEL.to_owned());
    let last = wanted.rsplit('/').next().unwrap_or_default().to_lowercase();
    let names = [Some(wanted.clone()), by_source, shipped, Some(last)];
    let found = names.iter().flatten().find_map(|name| models.iter().find(|model| model.id == *name));
    found.cloned().ok_or_else(|| {
        let known: Vec<&str> = models.iter().map(|model| model.id.as_str()).collect();
        let said = match wanted.is_empty() {
            true => "the adapter does not name its base model".to_owned(),
            false => format!("the base model `{wanted}` of the adapter is not here"),
        };
        CommandError::new(Kind::Input, said).hint(format!(
            "add it first with `hone models add`, or name it with `--base MODEL`: `{}`",
            known.join("`, `")
        ))
    })
}
