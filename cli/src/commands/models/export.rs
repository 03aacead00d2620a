use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hone::runtime::{BASE_MODEL, BASE_MODEL_HUB_ID};
use hone_engine::tensors::Encoding;
use hone_server::{ALIAS, Form};

use super::size;
use crate::{
    bases,
    context::Context,
    error::{CommandError, Result},
    models,
};

/// Write a model in a form that other programs load
///
/// `adapter`: PEFT's folder, for vLLM and transformers over the base model. `safetensors`: a folder as the hub stores it,
/// merged. `gguf`: one file for llama.cpp, merged.
#[derive(Debug, Args)]
pub struct Export {
    /// Id of a tuned or a base model, or `ui-agent`
    model: String,
    #[arg(long, value_enum)]
    format: Format,
    /// Folder to write; it must not exist yet, or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How numbers are stored; adapters are always f32
    #[arg(long, value_enum, default_value_t = Type::F16)]
    r#type: Type,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Adapter,
    Safetensors,
    Gguf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Type {
    F32,
    F16,
    Bf16,
    /// Half the size of f16, in GGUF alone
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<Type> for Encoding {
    fn from(kind: Type) -> Self {
        match kind {
            Type::F32 => Self::F32,
            Type::F16 => Self::F16,
            Type::Bf16 => Self::Bf16,
            Type::Q8_0 => Self::Q8_0,
        }
    }
}

pub fn run(args: &Export, context: &Context) -> Result {
    let settings = context.settings(&[])?;
    let model = match args.model.as_str() {
        ALIAS => models::Models::new(context, &settings).champion()?,
        name => name.to_owned(),
    };
    let form = match (args.format, args.r#type) {
        (Format::Adapter, _) => Form::Adapter,
        (Format::Safetensors, Type::Q8_0) => {
            return Err(CommandError::usage("safetensors are not quantised")
                .hint("choose `--type f16`, `bf16` or `f32`, or `--format gguf`"));
        }
        (Format::Safetensors, kind) => Form::Safetensors(kind.into()),
        (Format::Gguf, kind) => Form::Gguf(kind.into()),
    };
    let models = bases::all(context, &settings)?;
    let base_name = base_name(context, &model)?;
    let written = hone_server::export(&hone_server::Export {
        root: &context.workspace.server(),
        models: &models,
        model: &model,
        form,
        out: &args.out,
        base_name: &base_name,
    })?;
    context.answer(&written, || {
        format!("`{}` is in `{}` ({})", written.model, written.path.display(), size(written.bytes))
    })
}

/// What an adapter of this model names as its base: the hub's id where it is known, for others to find it.
fn base_name(context: &Context, model: &str) -> Result<String> {
    let base = model.strip_prefix("ft:").and_then(|rest| rest.split(':').next()).unwrap_or(model);
    if base == BASE_MODEL && context.machine.weights.is_none() {
        return Ok(BASE_MODEL_HUB_ID.to_owned());
    }
    let added = context.machine.catalog().list()?.into_iter().find(|added| added.name.as_str() == base);
    Ok(added.map_or_else(|| base.to_owned(), |added| added.source))
}
