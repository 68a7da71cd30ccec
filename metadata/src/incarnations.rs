//! Gateway incarnations: numbered at registration, alive while they are heard of, fenced when silent for too long.

use crate::attempt::{self, ATTEMPTS_MAX, Attempt, Plan, Settled, settle};
use crate::records::{self, FenceRecord, IncarnationCounter, IncarnationRecord};
use crate::rows::Tag;
use crate::service::Core;
use std::sync::Arc;
use valv_metadata_api::{Empty, Heartbeat, MetadataError};
use valv_types::{CommitId, IncarnationId};

impl Core {
    pub(crate) async fn new_incarnation(&self, _: Empty) -> Result<IncarnationId, MetadataError> {
        let commit = CommitId::random();
        for number in 0..ATTEMPTS_MAX {
            let plan = self.plan_incarnation().await;
            if let Settled::Done(id) = settle(self.store.as_ref(), commit, number, plan).await? {
                return Ok(id);
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_incarnation(&self) -> Result<Plan<IncarnationId>, MetadataError> {
        let row = self.get(&self.rows.incarnation_counter()).await?;
        let last = match &row {
            Some(row) => records::decode::<IncarnationCounter>("incarnation counter", &row.value)?.last,
            None => 0,
        };
        // Numbers start at 1, so that an id of zeros belongs to nobody.
        let Some(next) = last.checked_add(1) else {
            return Err(MetadataError::Unavailable { what: "all incarnation numbers are used up".to_owned() });
        };
        let (id, now) = (IncarnationId(next), self.now());
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.incarnation_counter(), row.as_ref());
        attempt.put(self.rows.incarnation_counter(), records::encode(&IncarnationCounter { last: next }));
        let record = IncarnationRecord { registered: now, last_seen: now, low_water: 0 };
        attempt.expect_absent(self.rows.incarnation(id));
        attempt.put(self.rows.incarnation(id), records::encode(&record));
        Ok(Plan::Commit(attempt, id))
    }

    pub(crate) async fn renew_incarnation(&self, request: Heartbeat) -> Result<Empty, MetadataError> {
        let commit = CommitId::random();
        for number in 0..ATTEMPTS_MAX {
            let plan = self.plan_heartbeat(request).await;
            if let Settled::Done(answer) = settle(self.store.as_ref(), commit, number, plan).await? {
                return Ok(answer);
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_heartbeat(&self, request: Heartbeat) -> Result<Plan<Empty>, MetadataError> {
        let keys = [self.rows.incarnation(request.incarnation), self.rows.fence(request.incarnation)];
        let [row, fence] = self.get_rows(&keys).await?;
        let [key, fence_key] = keys;
        let (Some(row), None) = (row, fence) else { return Err(MetadataError::Fenced) };
        let old: IncarnationRecord = records::decode("incarnation", &row.value)?;
        let mut attempt = Attempt::default();
        attempt.expect(key.clone(), Some(&row));
        attempt.expect_absent(fence_key);
        let record = IncarnationRecord {
            last_seen: self.now().max(old.last_seen),
            // The mark only rises: what was once given up stays given up.
            low_water: request.low_water.max(old.low_water),
            ..old
        };
        attempt.put(key, records::encode(&record));
        Ok(Plan::Commit(attempt, Empty {}))
    }

    /// Fences every incarnation that has been silent for too long. Returns how many.
    pub(crate) async fn fence_silent(self: &Arc<Self>) -> Result<usize, MetadataError> {
        let now = self.now();
        let silent = self
            .scan(move |core, snapshot| {
                let range = core.rows.range(Tag::Incarnation, &[]);
                let mut silent = Vec::new();
                let mut cursor = snapshot.scan(&range.start, &range.end).map_err(attempt::store_error)?;
                while let Some((key, row)) = cursor.next().map_err(attempt::store_error)? {
                    let record: IncarnationRecord = records::decode("incarnation", &row.value)?;
                    if record.last_seen.plus_secs(core.config.fence_after_secs) >= now {
                        continue;
                    }
                    let Some(id) = incarnation_of(&key) else { continue };
                    let fence = snapshot.get(&core.rows.fence(id)).map_err(attempt::store_error)?;
                    if fence.is_none() {
                        silent.push((id, row));
                    }
                }
                Ok(silent)
            })
            .await?;
        let mut fenced = 0;
        for (id, row) in silent {
            let mut attempt = Attempt::default();
            // A heartbeat in between changes the row, and the fence does not come about.
            attempt.expect(self.rows.incarnation(id), Some(&row));
            attempt.expect_absent(self.rows.fence(id));
            attempt.put(self.rows.fence(id), records::encode(&FenceRecord { since: now }));
            if attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await? {
                tracing::info!(incarnation = id.0, "fenced a gateway incarnation that was silent");
                fenced += 1;
            }
        }
        Ok(fenced)
    }
}

fn incarnation_of(key: &[u8]) -> Option<IncarnationId> {
    Some(IncarnationId(u32::from_be_bytes(key.get(3..)?.try_into().ok()?)))
}
