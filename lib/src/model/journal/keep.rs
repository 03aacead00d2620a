//! Calls of what is no chat model: the user's own program or service. They are claimed and kept like others, but nothing is
//! held for them: what they cost, they know alone.

use std::time::Instant;

use serde_json::Value;

use super::{Answer, Asked, Claim, Journal, Label, canonical, db::Kept, db::Spent, key};
use crate::model::{
    client::ModelError,
    price::{Tariff, Usd},
    wire::ChatReply,
};

impl Journal {
    /// Answers from the journal or by `ask`; `who` tells its answers from those of others.
    ///
    /// # Errors
    /// Those of `ask`; [`ModelError::NotInJournal`] where nothing may be sent; [`ModelError::Store`] when the journal cannot
    /// be written.
    pub async fn keep(
        &self,
        who: &str,
        asked: &Value,
        sample: &str,
        ask: impl AsyncFnOnce() -> Result<ChatReply, ModelError>,
    ) -> Result<Answer, ModelError> {
        let mut asked = self.asked_of(who, asked, sample);
        let ticket = match self.claim(&mut asked).await? {
            Claim::Kept(answer) => return Ok(answer),
            Claim::Ours(ticket) => ticket,
        };
        let started = Instant::now();
        // Dropped here, by a stop or by an error, the claim ends with it.
        ticket.clone().admit(0).await?;
        let reply = match ask().await {
            Ok(reply) => reply,
            Err(error) => {
                let _ = ticket.end(None, 0).await;
                return Err(error);
            }
        };
        let text = serde_json::to_string(&reply)
            .map_err(|e| ModelError::Endpoint(format!("the reply cannot be written: {e}")))?;
        let took_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let kept = Kept { reply: text, usd: None, took_ms };
        self.shared.count(1, None);
        ticket.end(Some((kept.clone(), Spent { calls: 1, ..Spent::default() })), 0).await?;
        Ok(kept.answer(reply, false))
    }

    fn asked_of(&self, who: &str, asked: &Value, sample: &str) -> Asked {
        let request = canonical(asked).to_string();
        let label = Label {
            run: self.shared.options.run.clone(),
            row: self.payer.row.clone(),
            model: String::new(),
            role: self.role.to_owned(),
            phase: self.phase.to_owned(),
        };
        Asked {
            key: key(who, &request, sample),
            identity: who.to_owned(),
            provider: self.payer.row.clone(),
            sample: sample.to_owned(),
            request,
            label,
            tariff: Tariff::Unknown,
            worst: Some(Usd::ZERO),
            spoilt: false,
        }
    }
}
