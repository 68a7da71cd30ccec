//! Network zones: blocks of addresses under names that operators give. They belong to the cluster, and so does the record of
//! each change: every project that names a zone relies on it.

use super::records::{ZoneRecord, ZoneWords};
use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::principals::check_name;
use crate::records::EventKind;
use crate::rows::{NameHash, Tag, last_id};
use crate::service::{Core, corrupt};
use crate::store::{Snapshot, Versioned};
use serde_json::json;
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{CommitId, ProjectId};

impl Core {
    fn zone_hash(&self, name: &str) -> Result<NameHash, MetadataError> {
        self.name_hash("zone", name)
    }

    /// The row of a zone.
    pub(super) async fn zone(&self, name: &str) -> Result<Option<Versioned>, MetadataError> {
        self.get(&self.rows.zone(&self.zone_hash(name)?)).await
    }

    fn open_zone(&self, hash: &NameHash, row: &Versioned) -> Result<Zone, MetadataError> {
        let record: ZoneRecord = crate::records::decode("zone", &row.value)?;
        let words: ZoneWords = crate::records::decode("zone", &self.seals.open_principal(hash, &record.sealed)?)?;
        Ok(Zone { name: words.name, blocks: words.blocks, set: record.set })
    }

    /// The blocks of all these zones. One that is not there adds none.
    pub(super) fn blocks_of(&self, snapshot: &dyn Snapshot, names: &[String]) -> Result<Vec<String>, MetadataError> {
        let mut blocks = Vec::new();
        for name in names {
            let hash = self.zone_hash(name)?;
            if let Some(row) = snapshot.get(&self.rows.zone(&hash)).map_err(store_error)? {
                blocks.extend(self.open_zone(&hash, &row)?.blocks);
            }
        }
        Ok(blocks)
    }

    pub(crate) async fn all_zones(self: &Arc<Self>, _: ListZones) -> Result<Vec<Zone>, MetadataError> {
        self.scan(|core, snapshot| {
            let range = core.rows.range(Tag::Zone, &[]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            let mut zones = Vec::new();
            while let Some((key, row)) = cursor.next().map_err(store_error)? {
                let hash = last_id(&key).ok_or_else(|| corrupt("zone row"))?;
                zones.push(core.open_zone(&hash, &row)?);
            }
            zones.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(zones)
        })
        .await
    }

    pub(crate) async fn put_zone(self: &Arc<Self>, request: SetZone) -> Result<Zone, MetadataError> {
        check_name(&request.name)?;
        if request.blocks.len() > BLOCKS_PER_ZONE_MAX || self.all_zones(Empty {}).await?.len() >= ZONES_MAX {
            return Err(OpeningRefusal::TooMany.into());
        }
        let zone = Zone { name: request.name, blocks: request.blocks, set: self.now() };
        let words = ZoneWords { name: zone.name.clone(), blocks: zone.blocks.clone() };
        let hash = self.zone_hash(&zone.name)?;
        let sealed = self.seals.seal_principal(&hash, &crate::records::encode(&words))?;
        let record = crate::records::encode(&ZoneRecord { set: zone.set, sealed });
        let detail = json!({ "zone": zone.name, "blocks": zone.blocks });
        self.change_zone(&request.actor, &zone.name, Some(record), EventKind::ZoneSet, &detail, request.commit).await?;
        Ok(zone)
    }

    pub(crate) async fn drop_zone(self: &Arc<Self>, request: RemoveZone) -> Result<Empty, MetadataError> {
        let detail = json!({ "zone": request.name });
        let kind = EventKind::ZoneRemoved;
        self.change_zone(&request.actor, &request.name, None, kind, &detail, request.commit).await?;
        Ok(Empty {})
    }

    async fn change_zone(
        self: &Arc<Self>,
        actor: &Actor,
        name: &str,
        record: Option<bytes::Bytes>,
        kind: EventKind,
        detail: &serde_json::Value,
        commit: CommitId,
    ) -> Result<(), MetadataError> {
        let key = self.rows.zone(&self.zone_hash(name)?);
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, &key).await;
            let plan = async {
                let row = self.get(&key).await?;
                let mut attempt = Attempt::default();
                attempt.expect(key.clone(), row.as_ref());
                match &record {
                    Some(record) => attempt.put(key.clone(), record.clone()),
                    None if row.is_none() => return Err(OpeningRefusal::NoSuchZone.into()),
                    None => attempt.remove(key.clone()),
                }
                let event = Event::of_project(kind, ProjectId::CLUSTER, self.now(), &name);
                self.record_act(&mut attempt, commit, actor, detail, event)?;
                Ok(Plan::Commit(attempt, ()))
            };
            match settle(self.store.as_ref(), commit, number, plan.await).await? {
                Settled::Done(()) | Settled::Before(_) => return Ok(()),
                Settled::Again => {}
            }
        }
        Err(MetadataError::Conflict)
    }
}
