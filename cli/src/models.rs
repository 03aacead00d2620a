//! From a model's name to something that can be asked: rows of the settings, the champion, models of the local server.

mod trainers;

use std::time::Duration;

use hone::{
    agent::Agent,
    config::{self, ConfigError, ModelRow, Settings},
    critic::{Judge, JudgeOptions},
    error::Kind,
    model::{
        client::{Client, Endpoint, Secret},
        journal::Journal,
    },
    runtime::BASE_MODEL,
};
use hone_server::{ALIAS, LocalServer};
use tokio::task::JoinHandle;

use crate::{
    commands::serve,
    context::Context,
    error::{CommandError, Result},
};

/// In the id of every model that the local server tuned.
const LOCAL_MARK: &str = ":local:";

/// Of the settings: scores come from evidence alone.
pub const NO_JUDGE: &str = "none";

/// Models by name. The local server is started when the first name needs it, unless one runs on this workspace already.
pub struct Models<'a> {
    context: &'a Context,
    settings: &'a Settings,
    local: Option<Local>,
}

struct Local {
    client: Client,
    server: Serving,
}

/// Who serves the workspace.
enum Serving {
    Ours(LocalServer),
    /// Another process; should it end before we do, this task serves on at the same address.
    Theirs(JoinHandle<Option<LocalServer>>),
}

impl<'a> Models<'a> {
    pub fn new(context: &'a Context, settings: &'a Settings) -> Self {
        Self { context, settings, local: None }
    }

    /// The chat model behind a name, with the agent's decoding.
    pub async fn agent(&mut self, name: &str) -> Result<Agent> {
        let (client, model) = match self.settings.models.get(name) {
            Some(row) => (self.row(name, row)?, row.model.clone()),
            None => self.model(name).await?,
        };
        Ok(Agent {
            client,
            model,
            temperature: self.settings.agent.temperature,
            max_tokens: self.settings.agent.max_tokens,
            journal: Journal::open(self.context.workspace.journal()),
        })
    }

    /// The judge of the settings, if there is one.
    pub async fn judge(&mut self) -> Result<Option<Judge>> {
        let name = self.settings.judge.model.clone();
        if name == NO_JUDGE {
            return Ok(None);
        }
        let row = self.settings.models.get(&name);
        let options = JudgeOptions {
            vision: row.is_some_and(|row| row.vision),
            json_schema: row.is_some_and(ModelRow::takes_schema),
            agent: self.agent(&name).await?,
            row: name,
            samples: self.settings.judge.samples,
            folder: self.context.workspace.judge(),
        };
        Ok(Some(Judge::new(options)))
    }

    /// Where fine-tuning jobs go, and the base model that they start from.
    pub async fn trainer(&mut self) -> Result<(Client, String)> {
        match self.settings.finetune.model.as_str() {
            "local" => Ok((self.local().await?, self.settings.finetune.base_model.clone())),
            name => match self.settings.models.get(name) {
                Some(row) => Ok((self.row(name, row)?, row.model.clone())),
                None => Err(self.unknown(name).into()),
            },
        }
    }

    /// The local server's client; starts the server in this process when none runs.
    pub async fn local(&mut self) -> Result<Client> {
        if let Some(local) = &self.local {
            return Ok(local.client.clone());
        }
        let (base_url, server) = match serve::find_or_start(self.context).await? {
            (base_url, Some(server)) => (base_url, Serving::Ours(server)),
            (base_url, None) => {
                let watch = serve::take_over(serve::config(self.context)?, base_url.clone());
                (base_url, Serving::Theirs(tokio::spawn(watch)))
            }
        };
        let key = self.context.secret(serve::API_KEY).map(Secret::new);
        let endpoint = Endpoint::local(base_url).with_key(key);
        let client = Client::new(endpoint)?.cancelled_by(self.context.cancel.clone());
        self.local = Some(Local { client: client.clone(), server });
        Ok(client)
    }

    /// Stops the server if it is ours. Training goes on in its own process.
    pub async fn close(self) {
        let server = match self.local.map(|local| local.server) {
            Some(Serving::Ours(server)) => Some(server),
            Some(Serving::Theirs(watch)) => {
                watch.abort();
                watch.await.ok().flatten()
            }
            None => None,
        };
        if let Some(server) = server {
            // A server that fails while it closes has nothing left to lose.
            let _ = server.stop().await;
        }
    }

    /// The champion, or the base model until one is deployed.
    pub fn champion(&self) -> Result<String> {
        let registry = self.context.registry()?;
        Ok(registry.champion().map_or_else(|| self.base(), str::to_owned))
    }

    /// The model that training starts from.
    pub fn base(&self) -> String {
        match self.settings.models.get(&self.settings.finetune.model) {
            Some(row) => row.model.clone(),
            None => self.settings.finetune.base_model.clone(),
        }
    }

    /// A name that is no row: the alias, the local base, or the id of a tuned model, which lives where it was trained.
    async fn model(&mut self, name: &str) -> Result<(Client, String)> {
        match name {
            ALIAS => {
                let champion = self.champion()?;
                Ok((self.home(&champion).await?, champion))
            }
            "local" => Ok((self.local().await?, self.settings.finetune.base_model.clone())),
            name if self.is_base(name) || name.starts_with("ft:") || self.tuned_at(name).is_some() => {
                Ok((self.home(name).await?, name.to_owned()))
            }
            name => Err(self.unknown(name).into()),
        }
    }

    /// Checks that a model that is to be deployed answers to its name.
    ///
    /// # Errors
    /// With the nearest name when nobody knows it.
    pub async fn known(&mut self, model: &str) -> Result<()> {
        let client = self.home(model).await?;
        match client.model(model).await {
            Err(e) if e.status() == Some(404) => {}
            Err(e) => return Err(e.into()),
            Ok(_) => return Ok(()),
        }
        let models = client.models().await?;
        let nearest = config::nearest(model, models.iter().map(|model| model.id.as_str()));
        let near = nearest.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
        Err(CommandError::new(Kind::Input, format!("there is no model `{model}`"))
            .hint(format!("{near}`hone models` lists them")))
    }

    /// Where a model answers: the local server for its own, the trainer for the rest.
    async fn home(&mut self, model: &str) -> Result<Client> {
        if self.is_base(model) || model.contains(LOCAL_MARK) {
            return self.local().await;
        }
        // Not every provider's ids show where a model was made; the job's record does.
        match self.tuned_at(model).and_then(|name| Some((self.settings.models.get(&name)?, name))) {
            Some((row, name)) => self.row(&name, row),
            None => Ok(self.trainer().await?.0),
        }
    }

    /// The row whose job made a model.
    fn tuned_at(&self, model: &str) -> Option<String> {
        hone::finetune::row_of_model(&self.context.workspace, model)
    }

    /// Whether a name is that of a base model on this machine.
    fn is_base(&self, name: &str) -> bool {
        // One whose file is gone is still meant; the server says what is wrong with it.
        name == BASE_MODEL || !matches!(self.context.machine.catalog().get(name), Ok(None))
    }

    fn unknown(&self, name: &str) -> ConfigError {
        let added = self.context.machine.catalog().list().unwrap_or_default();
        let added = added.iter().map(|model| model.name.as_str());
        let rows = self.settings.models.keys().map(String::as_str);
        let known = rows.chain(added).chain([ALIAS, BASE_MODEL, "local"]);
        ConfigError::NoModel { name: name.into(), nearest: config::nearest(name, known) }
    }

    fn row(&self, name: &str, row: &ModelRow) -> Result<Client> {
        let client = self.client_of(name, row)?;
        self.afford(name, &client)?;
        Ok(client)
    }

    /// The client of a row, for calls that cost nothing too.
    pub fn client_of(&self, name: &str, row: &ModelRow) -> Result<Client> {
        let Some(base_url) = row.base_url.clone().or_else(|| default_base_url(&row.provider)) else {
            let message = format!("`models.{name}` does not say where it is");
            return Err(
                CommandError::new(Kind::Input, message).hint("add `base_url = \"http://...\"` to the row")
            );
        };
        let key = match &row.api_key_env {
            Some(variable) => Some(self.context.secret(variable).ok_or_else(|| {
                CommandError::new(
                    Kind::Provider,
                    format!("`models.{name}` has no key: `{variable}` is not set"),
                )
                .hint(format!(
                    "set `{variable}` in the environment or in `.env`; see docs/troubleshooting/api-key-not-found.md"
                ))
            })?),
            None => None,
        };
        let endpoint = Endpoint { timeout: Duration::from_secs(600), ..Endpoint::new(name, base_url) };
        Ok(Client::new(endpoint.with_key(key.map(Secret::new)))?.cancelled_by(self.context.cancel.clone()))
    }

    /// Calls on this machine are free. Others are not counted yet, so a budget of 0 forbids them and any other is warned of.
    fn afford(&self, name: &str, client: &Client) -> Result<()> {
        if client.is_local() {
            return Ok(());
        }
        if self.settings.budget.usd == 0.0 {
            let message = format!("`models.{name}` is not on this machine, and the budget is 0");
            return Err(CommandError::new(Kind::Budget, message)
                .hint("set `usd` under `[budget]`, or use the local model"));
        }
        let hint = "set a limit at the provider; with `usd = 0` under `[budget]` no such call is made";
        self.context.events.warn(format!("what `models.{name}` costs is not counted"), Some(hint.into()));
        Ok(())
    }
}

/// Providers whose address everyone knows.
fn default_base_url(provider: &str) -> Option<String> {
    (provider == "openai").then(|| "https://api.openai.com/v1".to_owned())
}
