//! Byte budgets: gateways draw from them before they send, and give back what they did not.
//!
//! The row holds what was drawn and not given back, and never exceeds the budget: so no number of gateways sends more, and
//! what a gateway held when it died is lost to the recipient. A grant is therefore at most 1/128 of the budget beyond what
//! is wanted at the moment.

use super::records::{BudgetRecord, OpeningRecord};
use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle};
use crate::service::Core;
use crate::store::Versioned;
use std::sync::Arc;
use valv_metadata_api::{DrawOpeningBudget, DrawnBudget, MetadataError, OpeningRefusal, OpeningState};
use valv_types::CommitId;

/// A grant is this share of the budget unless more is wanted: under 1 % is ever held unsent by one gateway.
const SHARES: u64 = 128;

pub(super) fn drawn(row: Option<&Versioned>) -> Result<u64, MetadataError> {
    match row {
        None => Ok(0),
        Some(row) => Ok(crate::records::decode::<BudgetRecord>("opening budget", &row.value)?.drawn_bytes),
    }
}

impl Core {
    pub(crate) async fn draw_budget(
        self: &Arc<Self>,
        request: DrawOpeningBudget,
    ) -> Result<DrawnBudget, MetadataError> {
        let commit = CommitId::random();
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, request.opening.as_bytes()).await;
            let plan = self.plan_draw(&request).await;
            if let Settled::Done(drawn) = settle(self.store.as_ref(), commit, number, plan).await? {
                return Ok(drawn);
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_draw(&self, request: &DrawOpeningBudget) -> Result<Plan<DrawnBudget>, MetadataError> {
        let key = self.rows.opening_budget(request.opening);
        let [opening, row] = self.get_rows(&[self.rows.opening(request.project, request.opening), key.clone()]).await?;
        let record: OpeningRecord =
            crate::records::decode("opening", &opening.ok_or(OpeningRefusal::NoSuchOpening)?.value)?;
        let budget = record.budget_bytes.unwrap_or(u64::MAX);
        let drawn = drawn(row.as_ref())?;
        let kept = drawn.saturating_sub(request.give_back_bytes);
        let left = budget.saturating_sub(kept);
        let granted_bytes = match record.state(self.now()) {
            OpeningState::Active if request.want_bytes > 0 => request.want_bytes.max(budget / SHARES).min(left),
            _ => 0,
        };
        let answer = DrawnBudget { granted_bytes, left_bytes: left - granted_bytes };
        if kept + granted_bytes == drawn {
            return Ok(Plan::Nothing(answer));
        }
        let mut attempt = Attempt::default();
        attempt.expect(key.clone(), row.as_ref());
        attempt.put(key, crate::records::encode(&BudgetRecord { drawn_bytes: kept + granted_bytes }));
        Ok(Plan::Commit(attempt, answer))
    }
}
