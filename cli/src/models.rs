//! From a model's name to something that can be asked: rows of the settings, the champion, models of the local server.

mod trainers;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hone::{
    agent::{Agent, Writer},
    config::{self, ConfigError, ModelRow, Settings},
    critic::{Judge, JudgeOptions},
    error::Kind,
    model::{
        client::{Client, Endpoint, Secret},
        journal::Journal,
        price::Payer,
        provider::{self, Tuning},
        wire::{ChatRequest, Message},
    },
    runtime::BASE_MODEL,
};
use hone_server::{ALIAS, LocalServer};
use tokio::task::JoinHandle;

use crate::{
    commands::serve,
    context::Context,
    error::{CommandError, Result},
    own, rows,
};

/// In the id of every model that the local server tuned.
const LOCAL_MARK: &str = ":local:";

/// Of the settings: scores come from evidence alone.
pub const NO_JUDGE: &str = "none";

/// Models by name. The local server is started when the first name needs it, unless one runs on this workspace already.
pub struct Models<'a> {
    context: &'a Context,
    settings: &'a Settings,
    /// Through which all calls go; opened by the first.
    journal: Option<Journal>,
    phase: &'static str,
    /// Rows are asked through batches, not those alone that say so.
    batches: bool,
    /// Rows of which it was said that they are asked live.
    live: BTreeSet<String>,
    local: Option<Local>,
    /// Of rows, by name: whoever asks for a row again shares its connections and its limits.
    clients: BTreeMap<String, Client>,
}

/// Where a row's fine-tuning jobs go.
pub struct Trains {
    pub client: Client,
    /// The model that training starts from.
    pub model: String,
    pub tuning: Tuning,
}

/// How long calls that are paid for may take to come in when everything ends.
const GRACE: Duration = Duration::from_secs(30);

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
        Self {
            context,
            settings,
            journal: None,
            phase: "",
            batches: false,
            live: BTreeSet::new(),
            local: None,
            clients: BTreeMap::new(),
        }
    }

    /// Models that are asked through their providers' batches where there are any.
    pub fn in_batches(&mut self, batches: bool) -> &mut Self {
        self.batches |= batches;
        self
    }

    /// Whether a row is asked through batches. What was asked for and cannot be is said once.
    fn batches(&mut self, name: &str, client: &Client) -> bool {
        let wanted = self.batches || self.settings.models.get(name).is_some_and(|row| row.batch);
        let provider = client.endpoint().access.provider;
        if wanted && provider.batch.is_none() && self.live.insert(name.to_owned()) {
            let place = if name == "local" { "the local model".into() } else { format!("`models.{name}`") };
            self.context.events.warn(
                format!("{place} is asked live: Hone knows no batches of `{}`", provider.name),
                Some("docs/calls.md names the providers whose batches it uses".into()),
            );
        }
        wanted && provider.batch.is_some()
    }

    /// Models whose calls stand under a phase in the ledger.
    pub fn at(&mut self, phase: &'static str) -> &mut Self {
        self.phase = phase;
        self
    }

    fn journal(&mut self) -> Result<Journal> {
        let journal = match self.journal.take() {
            Some(journal) => journal,
            None => self.context.journal(self.settings)?,
        };
        Ok(self.journal.insert(journal).at(self.phase))
    }

    /// Where what jobs of a row cost is held and booked.
    pub fn books(&mut self, row: &str) -> Result<Journal> {
        let payer = match self.settings.models.get(row) {
            Some(settings) => Payer::new(row, settings),
            None => Payer::named(row),
        };
        Ok(self.journal()?.for_row(payer).by("trainer").at("finetune"))
    }

    /// The journal for the calls of an agent that is no chat model: what it costs nobody knows.
    fn journal_of(&mut self, row: &str) -> Result<Journal> {
        Ok(self.journal()?.for_row(Payer::named(row)))
    }

    /// Whoever answers briefs under a name: a chat model, or the user's own agent.
    pub async fn writer(&mut self, name: &str) -> Result<Writer> {
        match self.settings.models.get(name).filter(|row| own::is_own(row)) {
            Some(row) if row.provider == own::SERVICE => {
                let client = own::client(name, row, self.context)?;
                self.afford(name, &client)?;
                Ok(own::service(name, client, self.journal_of(name)?))
            }
            Some(row) => own::program(name, row, self.context, self.journal_of(name)?),
            None => Ok(self.agent(name).await?.into()),
        }
    }

    /// The chat model behind a name, with the agent's decoding.
    pub async fn agent(&mut self, name: &str) -> Result<Agent> {
        let journal = self.journal()?;
        let row = self.settings.models.get(name);
        let (client, model) = match row {
            Some(row) => (self.row(name, row)?, row.model.clone()),
            None => self.model(name).await?,
        };
        // An endpoint is named for its row; the local server has none.
        let payer = client.endpoint().name.as_str();
        let journal = journal.for_row(match self.settings.models.get(payer) {
            Some(row) => Payer::new(payer, row),
            None => Payer::named(payer),
        });
        let payer = payer.to_owned();
        let journal = journal.in_batches(self.batches(&payer, &client));
        journal.afford(&client, &model)?;
        let usual = &self.settings.agent;
        Ok(Agent {
            client,
            model,
            temperature: row.and_then(|row| row.temperature).unwrap_or(usual.temperature),
            max_tokens: row.and_then(|row| row.max_tokens).unwrap_or(usual.max_tokens),
            journal,
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
            json_schema: row.is_some_and(takes_schema),
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
            name => {
                let Trains { client, model, tuning } = self.trainer_of(name)?;
                if tuning == Tuning::OpenAi {
                    return Ok((client, model));
                }
                let message = format!("the jobs of `models.{name}` have a shape that is not known here");
                Err(CommandError::new(Kind::Input, message)
                    .hint("upload the dataset at the provider, and name the model that comes of it in a row"))
            }
        }
    }

    /// Where the jobs of one row go.
    ///
    /// # Errors
    /// When the row is none, or its provider trains nothing.
    pub fn trainer_of(&mut self, name: &str) -> Result<Trains> {
        let Some(row) = self.settings.models.get(name) else { return Err(self.unknown(name).into()) };
        let Some(tuning) = rows::provider_of(name, row)?.tuning else {
            let message =
                format!("`{}` trains no models, so `models.{name}` cannot be fine-tuned", row.provider);
            let others = self.tunable_rows();
            let others: Vec<String> = others.iter().map(|name| format!("`{name}`")).collect();
            let or =
                if others.is_empty() { String::new() } else { format!("; or with {}", others.join(", ")) };
            return Err(CommandError::new(Kind::Input, message).hint(format!(
                "train with the local engine, `[finetune] model = \"local\"`, and export what comes of it{or}; see \
                 docs/troubleshooting/trains-nothing.md"
            )));
        };
        Ok(Trains { client: self.row(name, row)?, model: row.model.clone(), tuning })
    }

    /// Rows whose providers train, in the order of their names.
    pub fn tunable_rows(&self) -> Vec<String> {
        let trains =
            |row: &ModelRow| provider::provider(&row.provider).is_some_and(|known| known.tuning.is_some());
        let rows = self.settings.models.iter().filter(|(_, row)| trains(row));
        rows.map(|(name, _)| name.clone()).collect()
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

    /// Lets calls that are paid for come in, and stops the server if it is ours. Training goes on in its own process.
    pub async fn close(self) {
        if let Some(journal) = &self.journal {
            let open = journal.open_calls();
            if open > 0 {
                let text = format!("{open} calls that are paid for are under way: waiting for their answers");
                self.context.events.note(format!("{text}; Ctrl-C again ends at once"));
            }
            journal.drain(GRACE).await;
        }
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
        let model = self.called(name)?;
        let client = if name == "local" { self.local().await? } else { self.home(&model).await? };
        Ok((client, model))
    }

    /// The model that a name that is no row stands for; nobody is asked and nothing is started.
    ///
    /// # Errors
    /// Nobody can be meant by the name.
    pub fn called(&self, name: &str) -> Result<String> {
        match name {
            ALIAS => self.champion(),
            "local" => Ok(self.settings.finetune.base_model.clone()),
            name if self.is_base(name) || name.starts_with("ft:") || self.tuned_at(name).is_some() => {
                Ok(name.to_owned())
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

    /// Lets a server that runs elsewhere load a model before it is deployed, so that nobody waits for that. It is a courtesy:
    /// what goes wrong will show when the model is asked.
    pub async fn warm(&mut self, model: &str) {
        if hone_server::running(&self.context.workspace.server()).is_none() || !model.contains(LOCAL_MARK) {
            return;
        }
        let Ok(client) = self.local().await else { return };
        let request =
            ChatRequest { max_tokens: Some(1), ..ChatRequest::new(model, vec![Message::user("a form")]) };
        let _ = client.chat(&request).await;
    }

    /// Where a model answers: the local server for its own, the trainer for the rest.
    async fn home(&mut self, model: &str) -> Result<Client> {
        if self.is_base(model) || model.contains(LOCAL_MARK) {
            return self.local().await;
        }
        // Not every provider's ids show where a model was made; the job's record does.
        let settings = self.settings;
        match self.tuned_at(model).and_then(|name| settings.models.get_key_value(&name)) {
            Some((name, row)) => self.row(name, row),
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

    /// A row's client, which the budget allows to be used.
    fn row(&mut self, name: &str, row: &ModelRow) -> Result<Client> {
        if let Some(client) = self.clients.get(name) {
            return Ok(client.clone());
        }
        if own::is_own(row) {
            return Err(own::no_chat_model(name));
        }
        let mut client = rows::client(name, row, self.context)?;
        let is_same = |other: &&Client| other.endpoint().identity == client.endpoint().identity;
        if let Some(other) = self.clients.values().find(is_same) {
            client = client.beside(other);
        }
        self.afford(name, &client)?;
        self.clients.insert(name.to_owned(), client.clone());
        Ok(client)
    }

    /// Calls on this machine are free; a budget of 0 forbids all others.
    fn afford(&self, name: &str, client: &Client) -> Result<()> {
        if client.is_local() || self.settings.budget.usd != 0.0 {
            return Ok(());
        }
        let message = format!("`models.{name}` is not on this machine, and the budget is 0");
        Err(CommandError::new(Kind::Budget, message).hint(
            "set `usd` under `[budget]` or give `--budget USD`, or use the local model; see \
                 docs/troubleshooting/budget-reached.md",
        ))
    }
}

/// Whether a row's answers can be held to a JSON schema.
fn takes_schema(row: &ModelRow) -> bool {
    row.json_schema.unwrap_or_else(|| provider::provider(&row.provider).is_some_and(|known| known.schema))
}
