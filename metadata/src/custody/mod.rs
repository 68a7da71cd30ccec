//! Custody: who runs which disk, until when each is guaranteed, and what that leaves uncovered.
//!
//! Consistency: every change writes one row of the cluster ([`Rows::custody_state`](crate::rows::Rows)) and expects it as it
//! was before the change read anything. So of two changes at once one is made again, and a custodian's organisation stays
//! its own, and no disk is left with a custodian that is gone.
//!
//! A change is recorded in the cluster's ledger and in no project's: a pool spreads every project over all of its disks, so
//! one disk's new date would be a record in each project of the cell. What it means for a project, its horizon tells.

mod horizon;
pub(crate) mod records;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod transfer;
mod watch;

pub use horizon::{FoundHorizon, HorizonProgress};
pub(crate) use watch::{HorizonMetrics, Watch};

use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::records::{EventKind, decode, encode};
use crate::rows::{Tag, last_id};
use crate::seal::Place;
use crate::service::{Core, corrupt};
use crate::store::{Snapshot, Versioned};
use records::{CustodianRecord, CustodyState, DiskCustodyRecord};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{CommitId, CustodianId, DiskId, PoolMap, ProjectId, TimestampMicros};

/// A custodian with its row.
struct FoundCustodian {
    id: CustodianId,
    record: CustodianRecord,
    details: CustodianDetails,
}

/// All of custody, of one moment.
struct Custody {
    state_row: Option<Versioned>,
    changes: u64,
    custodians: Vec<FoundCustodian>,
    disks: BTreeMap<DiskId, DiskCustodyRecord>,
    in_pools: BTreeSet<DiskId>,
}

impl Custody {
    fn find(&self, id: CustodianId) -> Result<&FoundCustodian, CustodyRefusal> {
        self.custodians.iter().find(|found| found.id == id).ok_or(CustodyRefusal::NoSuchCustodian)
    }

    fn disks_of(&self, id: CustodianId) -> usize {
        self.disks.values().filter(|disk| disk.custodian == Some(id)).count()
    }

    fn check_organisation(&self, organisation: &str, own: Option<CustodianId>) -> Result<(), CustodyRefusal> {
        let wanted = organisation.to_lowercase();
        let taken =
            |found: &FoundCustodian| Some(found.id) != own && found.details.organisation.to_lowercase() == wanted;
        if self.custodians.iter().any(taken) { Err(CustodyRefusal::OrganisationTaken) } else { Ok(()) }
    }

    fn view(&self, found: &FoundCustodian) -> Custodian {
        Custodian {
            id: found.id,
            details: found.details.clone(),
            created: found.record.created,
            disks: u32::try_from(self.disks_of(found.id)).unwrap_or(u32::MAX),
        }
    }

    fn disk_view(&self, disk: DiskId) -> DiskCustody {
        let record = self.disks.get(&disk);
        DiskCustody {
            disk,
            custodian: record.and_then(|record| record.custodian),
            guaranteed_until: record.and_then(|record| record.guaranteed_until),
            changed: record.map(|record| record.changed),
            is_in_pool: self.in_pools.contains(&disk),
        }
    }

    fn organisation_of(&self, id: Option<CustodianId>) -> Option<&str> {
        self.custodians.iter().find(|found| Some(found.id) == id).map(|found| found.details.organisation.as_str())
    }
}

/// A change that an operator asks for.
enum Change {
    Create(CreateCustodian),
    Update(UpdateCustodian),
    Remove(RemoveCustodian),
    Disk(SetDiskCustody),
}

impl Change {
    fn commit(&self) -> CommitId {
        match self {
            Self::Create(request) => request.commit,
            Self::Update(request) => request.commit,
            Self::Remove(request) => request.commit,
            Self::Disk(request) => request.commit,
        }
    }

    fn actor(&self) -> &Actor {
        match self {
            Self::Create(request) => &request.actor,
            Self::Update(request) => &request.actor,
            Self::Remove(request) => &request.actor,
            Self::Disk(request) => &request.actor,
        }
    }
}

/// What a change leaves in the ledger.
struct Told {
    kind: EventKind,
    subject: String,
    detail: Value,
}

impl Core {
    pub(crate) async fn make_custodian(self: &Arc<Self>, request: CreateCustodian) -> Result<Custodian, MetadataError> {
        check_details(&request.details)?;
        let id = CustodianId::from_bytes(*request.commit.as_bytes());
        self.change_custody(Change::Create(request)).await?;
        self.custodian(id).await
    }

    pub(crate) async fn change_custodian(
        self: &Arc<Self>,
        request: UpdateCustodian,
    ) -> Result<Custodian, MetadataError> {
        let id = request.custodian;
        self.change_custody(Change::Update(request)).await?;
        self.custodian(id).await
    }

    pub(crate) async fn drop_custodian(self: &Arc<Self>, request: RemoveCustodian) -> Result<Empty, MetadataError> {
        self.change_custody(Change::Remove(request)).await?;
        Ok(Empty {})
    }

    pub(crate) async fn all_custodians(self: &Arc<Self>, _: Empty) -> Result<Vec<Custodian>, MetadataError> {
        let custody = self.custody().await?;
        let mut all: Vec<Custodian> = custody.custodians.iter().map(|found| custody.view(found)).collect();
        all.sort_by(|a, b| (&a.details.organisation, a.id).cmp(&(&b.details.organisation, b.id)));
        Ok(all)
    }

    pub(crate) async fn change_disk_custody(
        self: &Arc<Self>,
        request: SetDiskCustody,
    ) -> Result<DiskCustody, MetadataError> {
        check_text(&request.reason)?;
        if request.custodian.is_none() && request.guaranteed_until.is_none() {
            return Err(CustodyRefusal::NothingToChange.into());
        }
        let disk = request.disk;
        self.change_custody(Change::Disk(request)).await?;
        Ok(self.custody().await?.disk_view(disk))
    }

    pub(crate) async fn all_disk_custody(self: &Arc<Self>, _: Empty) -> Result<Vec<DiskCustody>, MetadataError> {
        Ok(self.custody().await?.all_disks())
    }

    async fn custodian(self: &Arc<Self>, id: CustodianId) -> Result<Custodian, MetadataError> {
        let custody = self.custody().await?;
        Ok(custody.view(custody.find(id)?))
    }

    async fn custody(self: &Arc<Self>) -> Result<Custody, MetadataError> {
        self.scan(|core, snapshot| core.custody_in(snapshot)).await
    }

    fn custody_in(&self, snapshot: &dyn Snapshot) -> Result<Custody, MetadataError> {
        let state_row = snapshot.get(&self.rows.custody_state()).map_err(store_error)?;
        let state: CustodyState = match &state_row {
            Some(row) => decode("state of custody", &row.value)?,
            None => CustodyState::default(),
        };
        let mut custodians = Vec::new();
        let range = self.rows.range(Tag::Custodian, &[]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            let id = last_id(&key).map(CustodianId::from_bytes).ok_or_else(|| corrupt("custodian row"))?;
            let record: CustodianRecord = decode("custodian", &row.value)?;
            let details = self.seals.open(Place::Custodian(id), record.key_version, &record.sealed)?;
            custodians.push(FoundCustodian { id, record, details });
        }
        let disks = self.disk_custody_in(snapshot)?;
        let pools = self.pools_in(snapshot)?;
        let in_pools =
            pools.iter().flat_map(|pool| &pool.groups).flat_map(|group| group.disks.iter().copied()).collect();
        Ok(Custody { state_row, changes: state.changes, custodians, disks, in_pools })
    }

    fn disk_custody_in(&self, snapshot: &dyn Snapshot) -> Result<BTreeMap<DiskId, DiskCustodyRecord>, MetadataError> {
        let mut disks = BTreeMap::new();
        let range = self.rows.range(Tag::DiskCustody, &[]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            let disk = last_id(&key).map(DiskId::from_bytes).ok_or_else(|| corrupt("custody of a disk"))?;
            disks.insert(disk, decode("custody of a disk", &row.value)?);
        }
        Ok(disks)
    }

    fn pools_in(&self, snapshot: &dyn Snapshot) -> Result<Vec<PoolMap>, MetadataError> {
        let mut pools = Vec::new();
        let range = self.rows.range(Tag::Pool, &[]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        while let Some((_, row)) = cursor.next().map_err(store_error)? {
            pools.push(decode("pool", &row.value)?);
        }
        Ok(pools)
    }

    /// Carries out a change. A refusal that this very commit has caused itself, by having happened before, is none.
    async fn change_custody(self: &Arc<Self>, change: Change) -> Result<(), MetadataError> {
        let commit = change.commit();
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, b"custody").await;
            let custody = self.custody().await?;
            let plan = self.plan_custody(&custody, &change);
            match settle(self.store.as_ref(), commit, number, plan).await? {
                Settled::Done(()) | Settled::Before(_) => return Ok(()),
                Settled::Again => {}
            }
        }
        Err(MetadataError::Conflict)
    }

    fn plan_custody(&self, custody: &Custody, change: &Change) -> Result<Plan<()>, MetadataError> {
        let mut attempt = Attempt::default();
        let now = self.clock.now();
        let told = match change {
            Change::Create(request) => self.plan_creation(&mut attempt, custody, request, now)?,
            Change::Update(request) => match self.plan_update(&mut attempt, custody, request)? {
                Some(told) => told,
                None => return Ok(Plan::Nothing(())),
            },
            Change::Remove(request) => self.plan_custodian_removal(&mut attempt, custody, request)?,
            Change::Disk(request) => match self.plan_disk(&mut attempt, custody, request, now)? {
                Some(told) => told,
                None => return Ok(Plan::Nothing(())),
            },
        };
        attempt.expect(self.rows.custody_state(), custody.state_row.as_ref());
        attempt.put(self.rows.custody_state(), encode(&CustodyState { changes: custody.changes + 1 }));
        let event = Event::of_project(told.kind, ProjectId::CLUSTER, now, &told.subject);
        self.record_act(&mut attempt, change.commit(), change.actor(), &told.detail, event)?;
        Ok(Plan::Commit(attempt, ()))
    }

    fn put_custodian(
        &self,
        attempt: &mut Attempt,
        id: CustodianId,
        created: TimestampMicros,
        details: &CustodianDetails,
    ) -> Result<(), MetadataError> {
        let sealed = self.seals.seal(Place::Custodian(id), details)?;
        let record = CustodianRecord { created, key_version: sealed.key_version, sealed: sealed.bytes };
        attempt.put(self.rows.custodian(id), encode(&record));
        Ok(())
    }

    fn plan_creation(
        &self,
        attempt: &mut Attempt,
        custody: &Custody,
        request: &CreateCustodian,
        now: TimestampMicros,
    ) -> Result<Told, MetadataError> {
        custody.check_organisation(&request.details.organisation, None)?;
        if custody.custodians.len() >= CUSTODIANS_MAX {
            return Err(CustodyRefusal::TooMany.into());
        }
        let id = CustodianId::from_bytes(*request.commit.as_bytes());
        attempt.expect_absent(self.rows.custodian(id));
        self.put_custodian(attempt, id, now, &request.details)?;
        Ok(Told {
            kind: EventKind::CustodianCreated,
            subject: request.details.organisation.clone(),
            detail: json!({ "custodian": id, "after": details_json(&request.details) }),
        })
    }

    fn plan_update(
        &self,
        attempt: &mut Attempt,
        custody: &Custody,
        request: &UpdateCustodian,
    ) -> Result<Option<Told>, MetadataError> {
        let found = custody.find(request.custodian)?;
        let or_kept = |wanted: &Option<String>, kept: &String| wanted.clone().unwrap_or_else(|| kept.clone());
        let details = CustodianDetails {
            organisation: or_kept(&request.organisation, &found.details.organisation),
            contact: or_kept(&request.contact, &found.details.contact),
            contract: or_kept(&request.contract, &found.details.contract),
        };
        if details == found.details {
            return Ok(None);
        }
        check_details(&details)?;
        custody.check_organisation(&details.organisation, Some(found.id))?;
        self.put_custodian(attempt, found.id, found.record.created, &details)?;
        Ok(Some(Told {
            kind: EventKind::CustodianChanged,
            subject: details.organisation.clone(),
            detail: json!({
                "custodian": found.id, "before": details_json(&found.details), "after": details_json(&details),
            }),
        }))
    }

    fn plan_custodian_removal(
        &self,
        attempt: &mut Attempt,
        custody: &Custody,
        request: &RemoveCustodian,
    ) -> Result<Told, MetadataError> {
        let found = custody.find(request.custodian)?;
        if custody.disks_of(found.id) > 0 {
            return Err(CustodyRefusal::HasDisks.into());
        }
        attempt.remove(self.rows.custodian(found.id));
        Ok(Told {
            kind: EventKind::CustodianRemoved,
            subject: found.details.organisation.clone(),
            detail: json!({ "custodian": found.id, "before": details_json(&found.details) }),
        })
    }

    fn plan_disk(
        &self,
        attempt: &mut Attempt,
        custody: &Custody,
        request: &SetDiskCustody,
        now: TimestampMicros,
    ) -> Result<Option<Told>, MetadataError> {
        if let Some(custodian) = request.custodian {
            custody.find(custodian)?;
        }
        let before = custody.disks.get(&request.disk);
        if before.is_none() && custody.disks.len() >= CUSTODY_DISKS_MAX {
            return Err(CustodyRefusal::TooMany.into());
        }
        let record = DiskCustodyRecord {
            custodian: request.custodian.or(before.and_then(|before| before.custodian)),
            guaranteed_until: request.guaranteed_until.or(before.and_then(|before| before.guaranteed_until)),
            changed: now,
        };
        let same = |before: &DiskCustodyRecord| {
            (before.custodian, before.guaranteed_until) == (record.custodian, record.guaranteed_until)
        };
        if before.is_some_and(same) {
            return Ok(None);
        }
        attempt.put(self.rows.disk_custody(request.disk), encode(&record));
        let told = |record: &DiskCustodyRecord| {
            json!({
                "custodian": record.custodian,
                "organisation": custody.organisation_of(record.custodian),
                "guaranteed_until_micros": record.guaranteed_until,
            })
        };
        Ok(Some(Told {
            kind: EventKind::DiskCustodyChanged,
            subject: request.disk.to_string(),
            detail: json!({
                "disk": request.disk, "before": before.map(told), "after": told(&record), "reason": request.reason,
            }),
        }))
    }
}

fn details_json(details: &CustodianDetails) -> Value {
    json!({
        "organisation": details.organisation, "contact": details.contact, "contract": details.contract,
    })
}

fn check_details(details: &CustodianDetails) -> Result<(), CustodyRefusal> {
    if details.organisation.trim().is_empty() {
        return Err(CustodyRefusal::TextMalformed);
    }
    [&details.organisation, &details.contact, &details.contract].into_iter().try_for_each(|text| check_text(text))
}

fn check_text(text: &str) -> Result<(), CustodyRefusal> {
    let is_fine = text.len() <= CUSTODY_TEXT_BYTES_MAX && !text.chars().any(char::is_control);
    if is_fine { Ok(()) } else { Err(CustodyRefusal::TextMalformed) }
}
