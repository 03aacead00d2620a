//! Money that is held for what outlives every process: a fine-tuning job runs, and costs, whoever looks.
//!
//! Such a hold has an owner of its own, whose name whoever made it knows again. No sweep ends it; it is settled once, by the
//! first who hears how the job ended, and whoever comes later finds it gone.

use super::{
    Journal, Label,
    db::{Db, Kind, Spent},
    file,
};
use crate::{
    model::{
        client::{Client, ModelError},
        price::{Training, Usd},
    },
    store::StoreError,
};

/// What the owner of such a hold is called begins with.
pub(super) const OWNER: &str = "job-";

/// Whether an owner is something that outlives its process.
pub(super) fn is_owner(owner: &str) -> bool {
    owner.starts_with(OWNER)
}

/// How what money was held for has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It cost nothing.
    Nothing,
    /// It cost this; none where no price is known.
    Paid { usd: Option<Usd>, tokens: u64 },
    /// It cost what was held for it.
    AsHeld { tokens: u64 },
    /// Nobody knows: what was held may have been billed.
    Lost,
}

impl Journal {
    /// What training a model costs the one who pays here.
    pub fn training(&self, client: &Client, model: &str) -> Training {
        self.shared.options.prices.training(&self.payer, model, client.is_local())
    }

    /// What everything may cost together; none is no limit.
    pub fn cap(&self) -> Option<Usd> {
        self.shared.options.cap
    }

    /// Refuses what costs more than is left beside what is spent and held.
    ///
    /// # Errors
    /// [`ModelError::Budget`], and [`ModelError::Store`] when the journal cannot be read.
    pub fn has_room_for(&self, worst: Usd) -> Result<(), ModelError> {
        match self.cap() {
            Some(_) => self.write(|db| self.room(db, worst))?,
            None => Ok(()),
        }
    }

    /// Holds what something may cost, under a name of its own; none is a price that is not known. What is held under that
    /// name already is left as it is.
    ///
    /// # Errors
    /// [`ModelError::Budget`] where it does not fit beside what is spent and held: a job is not waited for as a call is, it may
    /// take days. [`ModelError::Store`] when the journal cannot be written.
    pub fn hold(
        &self,
        client: &Client,
        name: &str,
        model: &str,
        worst: Option<Usd>,
    ) -> Result<(), ModelError> {
        let owner = format!("{OWNER}{name}");
        let label = Label {
            run: self.shared.options.run.clone(),
            row: self.row(client),
            model: model.to_owned(),
            role: self.role.to_owned(),
            phase: self.phase.to_owned(),
        };
        self.write(|db| {
            if db.held_by(&owner)?.is_some() {
                return Ok(Ok(()));
            }
            if let Err(refused) = self.room(db, worst.unwrap_or_default())? {
                return Ok(Err(refused));
            }
            db.hold(&owner, worst, &label).map(|_| Ok(()))
        })?
    }

    /// Ends a hold with what came of it; false when it was ended before, and nothing is booked.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn settle(&self, name: &str, settled: Settled) -> Result<bool, StoreError> {
        let owner = format!("{OWNER}{name}");
        self.write(|db| {
            let Some((hold, label, held)) = db.held_by(&owner)? else { return Ok(false) };
            db.let_go(hold)?;
            let paid = |usd, tokens| {
                let input = i64::try_from(tokens).unwrap_or(i64::MAX);
                db.spend(&label, Kind::Paid, Spent { calls: 1, input, output: 0, usd })
            };
            match settled {
                Settled::Nothing => {}
                Settled::Paid { usd, tokens } => paid(usd, tokens)?,
                Settled::AsHeld { tokens } => paid(held, tokens)?,
                Settled::Lost => {
                    db.spend(&label, Kind::Lost, Spent { calls: 1, usd: held, ..Spent::default() })?;
                }
            }
            Ok(true)
        })
    }

    /// Names under which something is held.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn held(&self) -> Result<Vec<String>, StoreError> {
        if !file(&self.shared.folder).exists() {
            return Ok(Vec::new());
        }
        let db = Db::open(&self.shared.folder)?;
        let owners = db.owners().map_err(|e| db.broken("read", &e))?;
        Ok(owners.iter().filter_map(|owner| owner.strip_prefix(OWNER)).map(str::to_owned).collect())
    }

    fn room(&self, db: &Db, worst: Usd) -> rusqlite::Result<Result<(), ModelError>> {
        let Some(cap) = self.cap() else { return Ok(Ok(())) };
        let totals = db.totals()?;
        let (spent, held) = (totals.spent, totals.held);
        let fits = worst == Usd::ZERO || spent + held + worst <= cap;
        Ok(if fits { Ok(()) } else { Err(ModelError::Budget { spent, held, next: worst, cap }) })
    }

    /// One transaction, beside those of the writer's thread: jobs are few.
    fn write<T>(&self, work: impl FnOnce(&Db) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let db = Db::open(&self.shared.folder)?;
        let done = db.begin().and_then(|()| work(&db));
        db.end(done).map_err(|e| db.broken("write", &e))
    }
}
