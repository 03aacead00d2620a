//! What was spent on what: by run, row, model, role and phase.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use super::{Label, db::Db, file, keeper};
use crate::{
    model::{price::Usd, wire::ChatReply},
    store::StoreError,
};

/// The ledger of a journal. Amounts in US dollars, null where a price is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Everything that counts against a budget but what is held, losses included. Unknown prices count nothing here: see the
    /// rows.
    pub spent_usd: f64,
    /// The worst case of calls under way.
    pub held_usd: f64,
    /// Of what is spent: calls of which nobody knows whether they were billed, at their worst.
    pub lost_usd: f64,
    /// The budget, where there is one.
    pub cap_usd: Option<f64>,
    pub rows: Vec<LedgerRow>,
}

/// The calls of one run, row, model, role and phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LedgerRow {
    pub run: String,
    pub row: String,
    pub model: String,
    pub role: String,
    pub phase: String,
    /// Answered and billed.
    pub calls: u64,
    /// Of them those that came through the provider's batches.
    #[serde(default)]
    pub batched: u64,
    /// Answered from the journal.
    pub replayed: u64,
    /// That may have been billed without an answer.
    pub lost: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Null when the price is not known.
    pub usd: Option<f64>,
}

/// How fast a model has answered, over its last calls in a journal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    pub calls: usize,
    /// The median; what it takes until the first token is in it.
    pub ms_per_token: f64,
}

/// Calls over which a speed is taken, at most.
const LAST: usize = 100;
/// Fewer tokens than these tell of the network, not of the model.
const TELLING_TOKENS: u64 = 8;
/// What took longer came through a batch, or waited.
const LONGEST_CALL_MS: i64 = 600_000;

impl Measured {
    /// Of a model's calls in a journal's folder, at whichever provider; none where there are none that tell anything.
    pub fn of(folder: &Path, model: &str) -> Option<Self> {
        if !file(folder).exists() {
            return None;
        }
        let calls = Db::open(folder).ok()?.last_calls(model, LAST).ok()?;
        let per_token = |(took_ms, reply): (i64, String)| {
            let reply: ChatReply = serde_json::from_str(&reply).ok()?;
            let written = reply.usage?.completion_tokens;
            let tells = written >= TELLING_TOKENS && (1..LONGEST_CALL_MS).contains(&took_ms);
            tells.then(|| took_ms as f64 / written as f64)
        };
        let mut speeds: Vec<f64> = calls.into_iter().filter_map(per_token).collect();
        speeds.sort_by(f64::total_cmp);
        Some(Self { calls: speeds.len(), ms_per_token: *speeds.get(speeds.len() / 2)? })
    }
}

impl Ledger {
    /// What to add to an amount in words where calls have no known price.
    pub fn unknown(&self) -> &'static str {
        if self.rows.iter().any(|row| row.usd.is_none()) { ", and what has no known price" } else { "" }
    }

    /// Reads the ledger of a journal's folder. Where nothing was asked yet it is empty.
    pub fn read(folder: &Path, cap: Option<Usd>) -> Result<Self, StoreError> {
        let mut ledger = Self { cap_usd: cap.map(Usd::dollars), ..Self::default() };
        if !file(folder).exists() {
            return Ok(ledger);
        }
        let db = Db::open(folder)?;
        // What the dead held is lost; where that cannot be written it is shown as held.
        let _ = keeper::sweep(&db, folder, "");
        let mut rows: BTreeMap<Label, (LedgerRow, i64)> = BTreeMap::new();
        let mut nanos: BTreeMap<String, i64> = BTreeMap::new();
        let take = |label: Label, kind: &str, [calls, unpriced, input, output, amount]: [i64; 5]| {
            *nanos.entry(kind.to_owned()).or_default() += amount;
            let (row, total) = rows
                .entry(label)
                .or_insert_with(|| (LedgerRow { usd: Some(0.0), ..LedgerRow::default() }, 0));
            match kind {
                "paid" => row.calls += calls.unsigned_abs(),
                "batch" => {
                    row.calls += calls.unsigned_abs();
                    row.batched += calls.unsigned_abs();
                }
                "replayed" => row.replayed += calls.unsigned_abs(),
                "lost" => row.lost += calls.unsigned_abs(),
                _ => return,
            }
            row.input_tokens += input.unsigned_abs();
            row.output_tokens += output.unsigned_abs();
            *total += amount;
            if unpriced > 0 {
                row.usd = None;
            }
        };
        db.ledger(take).map_err(|e| db.broken("read", &e))?;
        let sum = |kind: &str| Usd::from_nanos(nanos.get(kind).copied().unwrap_or_default()).dollars();
        ledger.lost_usd = sum("lost");
        ledger.spent_usd = sum("paid") + sum("batch") + ledger.lost_usd;
        ledger.held_usd = sum("held");
        ledger.rows = rows.into_iter().map(|(label, (row, total))| named(label, row, total)).collect();
        Ok(ledger)
    }
}

fn named(label: Label, row: LedgerRow, nanos: i64) -> LedgerRow {
    let Label { run, row: name, model, role, phase } = label;
    let usd = row.usd.map(|_| Usd::from_nanos(nanos).dollars());
    LedgerRow { run, row: name, model, role, phase, usd, ..row }
}
