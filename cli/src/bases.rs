//! Base models: the shipped one and those that were added.

use hone::{
    config::Settings,
    runtime::{Added, BASE_MODEL},
};
use hone_server::BaseModel;

use crate::{context::Context, error::Result};

/// Every base model that can be served, the one that the settings train first. The shipped one is among them once its
/// weights are there, or when nothing else was chosen.
pub fn all(context: &Context, settings: &Settings) -> Result<Vec<BaseModel>> {
    let shipped = BaseModel { id: BASE_MODEL.into(), path: context.machine.runtime().gguf };
    let added = context.machine.catalog().list()?.into_iter().map(served);
    let mut models: Vec<BaseModel> = std::iter::once(shipped).chain(added).collect();
    models.retain(|model| model.path.exists() || model.id == settings.finetune.base_model);
    models.sort_by_key(|model| model.id != settings.finetune.base_model);
    Ok(models)
}

/// An added model as the server is told of it.
pub fn served(added: Added) -> BaseModel {
    BaseModel { id: added.name.to_string(), path: added.path }
}

/// The added model that the settings train, if it is one of those.
///
/// # Errors
/// When it was added but is gone.
pub fn chosen(context: &Context, settings: &Settings) -> Result<Option<Added>> {
    Ok(context.machine.catalog().get(&settings.finetune.base_model)?)
}
