//! Destroying keys on purpose: a project's, or one object version's.
//!
//! Two people decide, and the act cools off (`approvals.rs`); what is here is carried out then, step by step, each step
//! found again after a crash by the row that the one before wrote.
//!
//! A project: (1) in one commit its buckets and its guard row stop every write, new bucket, hold and extension; (2) a scan of
//! that state finds nothing under retention or hold, or everything opens again and the act fails; (3) the record of the act,
//! then the key store's purge; (4) what is left goes to the trash, due at once, and every gateway's lease of the key runs out, and each incarnation is heard of after that or
//! fenced; (5) the certificate. An object version: (1) the record of the act with the list of its blobs; (2) the blobs are on
//! the key store's list of destroyed ones; (3) its rows, wraps and references go at once, without trash; (4) the names in
//! ledger records of it are erased; (5) the certificate.
//!
//! Where older metadata is put back, the key store still has neither the project's keys nor forgets the blobs.

use crate::approvals::Carried;
use crate::attempt::{self, ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::lock::Leaving;
use crate::records::{
    self, BlobRefRecord, BucketRecord, EventKind, FenceRecord, HeadRecord, IncarnationRecord, LedgerRecord,
    NoncurrentRecord, PageRecord, TrashRecord, TrashedVersion, VersionRecord,
};
use crate::retention::project_guard;
use crate::rows::{Tag, blob_ref_parts, bucket_of_row, split_object_row};
use crate::seal::Place;
use crate::service::{Core, MetadataService, bucket_of, corrupt};
use crate::store::Snapshot;
use crate::versions::KeyPlace;
use minicbor::{Decode, Encode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use valv_ledger::{Accesses, StatementKind};
use valv_metadata_api::*;
use valv_types::{BlobId, CommitId, IncarnationId, ProjectId, ProposalId, TimestampMicros, UserId};

/// In the place of a closing's time: the project's keys are being destroyed. No clock gets there, so it never ends by itself.
const SHREDDING: TimestampMicros = TimestampMicros(u64::MAX);
/// A gateway's lease is held to be over this long after its end.
const LEASE_SLACK_SECS: u64 = 5;
/// Versions that one commit sweeps out of a project without keys, and commits of one call.
const SWEPT_PER_COMMIT: usize = 512;
const SWEEPS_PER_CALL: usize = 64;
/// Ledger records whose names one commit erases.
const ERASED_PER_COMMIT: usize = 512;

impl BucketRecord {
    /// Refuses a change of a bucket whose project's keys are being destroyed.
    pub(crate) fn check_not_shredding(&self) -> Result<(), MetadataError> {
        if self.closing == Some(SHREDDING) { Err(MetadataError::InvalidBucketState) } else { Ok(()) }
    }
}

/// Why a key was destroyed and who decided: what the certificate says, and the project's own key can't keep.
#[derive(Debug, Clone, Encode, Decode)]
struct Words {
    #[n(0)]
    reference: String,
    #[n(1)]
    reason: String,
    #[n(2)]
    deciders: Vec<UserId>,
    #[n(3)]
    proposed: TimestampMicros,
}

/// Something sealed under the cluster's key.
#[derive(Debug, Clone, Encode, Decode)]
struct ClusterSealed {
    #[n(0)]
    key_version: u32,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    bytes: Vec<u8>,
}

/// How far the destruction of a key is, at rest.
#[derive(Debug, Clone, Encode, Decode)]
struct ShreddingRecord {
    #[n(0)]
    begun: TimestampMicros,
    #[n(1)]
    versions: u64,
    #[n(2)]
    bytes: u64,
    /// The blobs of an object version; of a project none are named.
    #[n(3)]
    blobs: Vec<BlobId>,
    /// Since when no key can be lent any more.
    #[n(4)]
    purged: Option<TimestampMicros>,
    /// The openings by which it was read.
    #[n(5)]
    openings: Vec<String>,
    /// The certificate, a line of JSON, sealed.
    #[n(6)]
    certificate: Option<ClusterSealed>,
    /// [`Words`], sealed.
    #[n(7)]
    words: ClusterSealed,
}

/// What there is in a project, or in a version.
#[derive(Debug, Default)]
struct Holdings {
    versions: u64,
    bytes: u64,
}

impl MetadataService {
    /// The certificate of a destroyed key, once it was issued: a line of JSON that [`valv_ledger::SignedStatement`] reads.
    pub async fn shred_certificate(
        &self,
        project: ProjectId,
        proposal: ProposalId,
    ) -> Result<Option<String>, MetadataError> {
        let Some((_, record)) = self.0.shredding(project, proposal).await? else { return Ok(None) };
        let Some(sealed) = record.certificate else { return Ok(None) };
        let place = Place::Proposal(ProjectId::CLUSTER, proposal);
        let line = self.0.seals.open_bytes(place, sealed.key_version, &sealed.bytes)?;
        Ok(Some(String::from_utf8(line).map_err(|_| corrupt("certificate"))?))
    }
}

impl Core {
    async fn shredding(
        &self,
        project: ProjectId,
        proposal: ProposalId,
    ) -> Result<Option<(crate::store::Versioned, ShreddingRecord)>, MetadataError> {
        let row = self.get(&self.rows.shredding(project, proposal)).await?;
        row.map(|row| Ok((row.clone(), records::decode("shredding", &row.value)?))).transpose()
    }

    /// Writes the row of a shredding in place of what was read.
    async fn put_shredding(
        &self,
        project: ProjectId,
        proposal: ProposalId,
        read: &crate::store::Versioned,
        record: &ShreddingRecord,
    ) -> Result<(), MetadataError> {
        let mut attempt = Attempt::default();
        let key = self.rows.shredding(project, proposal);
        attempt.expect(key.clone(), Some(read));
        attempt.put(key, records::encode(record));
        match attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await? {
            true => Ok(()),
            false => Err(MetadataError::Conflict),
        }
    }

    /// Refuses early what would be refused late.
    pub(crate) async fn check_shred_project(self: &Arc<Self>, act: &ShredProject) -> Result<(), MetadataError> {
        let project = act.project;
        if self.seals.keys().newest_version(project).is_none() || project == ProjectId::CLUSTER {
            return Err(ApprovalRefusal::Unfit.into());
        }
        self.scan(move |core, snapshot| core.holdings(snapshot, project).map(|_| ())).await
    }

    /// What the project holds. Refused if anything of it is under retention or hold.
    fn holdings(&self, snapshot: &dyn Snapshot, project: ProjectId) -> Result<Holdings, MetadataError> {
        let guard = snapshot.get(&self.rows.project_guard(project)).map_err(store_error)?;
        if project_guard(guard.as_ref())?.hold_count > 0 {
            return Err(MetadataError::Locked { reason: LockReason::LegalHold });
        }
        let mut found = Holdings::default();
        let now = self.clock.now();
        for id in self.buckets_of(snapshot, project)? {
            let bucket = bucket_of(snapshot.get(&self.rows.bucket(id)).map_err(store_error)?.as_ref())?;
            for tag in [Tag::Head, Tag::Noncurrent] {
                let range = self.rows.range(tag, &[id.as_bytes()]);
                let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
                while let Some((key, row)) = cursor.next().map_err(store_error)? {
                    let version = version_of(tag, &row.value)?;
                    if version.is_delete_marker() {
                        continue;
                    }
                    debug_assert_eq!(bucket_of_row(&key), Some(id));
                    let (name, _) = split_object_row(&key).ok_or_else(|| corrupt("object row"))?;
                    Leaving::new(&bucket, &name, &version).check(false, now)?;
                    found.versions += 1;
                    found.bytes += version.len_bytes;
                }
            }
        }
        Ok(found)
    }

    pub(crate) async fn carry_out_shred_project(
        self: &Arc<Self>,
        act: &ShredProject,
        proposal: &Proposal,
    ) -> Result<Carried, MetadataError> {
        let project = act.project;
        let Some((row, mut record)) = self.shredding(project, proposal.id).await? else {
            self.guard_project(project, true).await?;
            return match self.begin_project(project, proposal).await {
                Ok(()) => Ok(Carried::More),
                Err(error @ (MetadataError::Unavailable { .. } | MetadataError::Conflict)) => Err(error),
                Err(refusal) => {
                    self.guard_project(project, false).await?;
                    Err(refusal)
                }
            };
        };
        if record.certificate.is_some() {
            return Ok(Carried::Done(done(&record)));
        }
        let Some(purged) = record.purged else {
            let keys = Arc::clone(self.seals.keys());
            let shredded = tokio::task::spawn_blocking(move || keys.shred(project)).await;
            let shredded = shredded.map_err(|error| MetadataError::Unavailable { what: error.to_string() })?;
            shredded.map_err(|error| MetadataError::Unavailable { what: error.to_string() })?;
            self.seals.forget(project);
            record.purged = Some(self.now());
            self.put_shredding(project, proposal.id, &row, &record).await?;
            return Ok(Carried::More);
        };
        // Disks get their space back: what is there is noise now.
        if !self.sweep_project(project).await? || !self.leases_are_over(purged).await? {
            return Ok(Carried::More);
        }
        let keys = self.seals.keys().shredded(project).map(|shredded| shredded.keys).unwrap_or_default();
        let keys: Vec<Value> =
            keys.iter().map(|key| json!({ "version": key.version, "fingerprint": key.fingerprint })).collect();
        let what = json!({ "destroyed": "project", "project_keys": keys });
        record.certificate = Some(self.certify(project, proposal, &record, purged, what).await?);
        self.put_shredding(project, proposal.id, &row, &record).await?;
        Ok(Carried::Done(done(&record)))
    }

    /// Stops every change of what the project holds, or allows it again. One commit.
    async fn guard_project(self: &Arc<Self>, project: ProjectId, is_on: bool) -> Result<(), MetadataError> {
        let commit = CommitId::random();
        for number in 0..ATTEMPTS_MAX {
            let plan = self.scan(move |core, snapshot| core.plan_guard(snapshot, project, is_on)).await;
            if let Settled::Done(()) = settle(self.store.as_ref(), commit, number, plan).await? {
                return Ok(());
            }
        }
        Err(MetadataError::Conflict)
    }

    fn plan_guard(&self, snapshot: &dyn Snapshot, project: ProjectId, is_on: bool) -> Result<Plan<()>, MetadataError> {
        let mut attempt = Attempt::default();
        let key = self.rows.project_guard(project);
        let row = snapshot.get(&key).map_err(store_error)?;
        let mut guard = project_guard(row.as_ref())?;
        guard.shredding = is_on.then(|| self.now());
        attempt.expect(key.clone(), row.as_ref());
        attempt.put(key, records::encode(&guard));
        for id in self.buckets_of(snapshot, project)? {
            let key = self.rows.bucket(id);
            let row = snapshot.get(&key).map_err(store_error)?;
            let mut bucket = bucket_of(row.as_ref())?;
            if is_on && bucket.closing.is_some_and(|since| since != SHREDDING) {
                // Being deleted at this moment: it is gone, or open again, in a moment.
                return Ok(Plan::Wait);
            }
            bucket.closing = is_on.then_some(SHREDDING);
            attempt.expect(key.clone(), row.as_ref());
            attempt.put(key, records::encode(&bucket));
        }
        Ok(Plan::Commit(attempt, ()))
    }

    /// Nothing changes any more: what is there decides, and is counted. The act's record and its row are one commit.
    async fn begin_project(self: &Arc<Self>, project: ProjectId, proposal: &Proposal) -> Result<(), MetadataError> {
        let (holdings, openings) = self
            .scan(move |core, snapshot| {
                Ok((core.holdings(snapshot, project)?, core.openings_that_read(snapshot, project, None)?))
            })
            .await?;
        let record = ShreddingRecord {
            begun: self.now(),
            versions: holdings.versions,
            bytes: holdings.bytes,
            blobs: Vec::new(),
            purged: None,
            openings,
            certificate: None,
            words: self.seal_words(proposal)?,
        };
        let event = Event {
            kind: EventKind::ProjectShredded,
            project,
            time: self.now(),
            bucket: None,
            version: None,
            other_version: None,
            bytes: holdings.bytes,
            subject: b"project key",
        };
        self.begin(project, proposal, &record, event).await
    }

    fn seal_words(&self, proposal: &Proposal) -> Result<ClusterSealed, MetadataError> {
        let words = Words {
            reference: proposal.reference.clone(),
            reason: proposal.reason.clone(),
            deciders: proposal.deciders(),
            proposed: proposal.proposed,
        };
        let sealed = self.seals.seal(Place::Proposal(ProjectId::CLUSTER, proposal.id), &words)?;
        Ok(ClusterSealed { key_version: sealed.key_version, bytes: sealed.bytes })
    }

    async fn begin(
        &self,
        project: ProjectId,
        proposal: &Proposal,
        record: &ShreddingRecord,
        event: Event<'_>,
    ) -> Result<(), MetadataError> {
        let commit = proposal.commit("shredding begins");
        let mut attempt = Attempt::default();
        let key = self.rows.shredding(project, proposal.id);
        attempt.expect_absent(key.clone());
        attempt.put(key, records::encode(record));
        let detail = json!({ "proposal": proposal.id.to_string(), "versions": record.versions });
        self.record_act_of(&mut attempt, commit, None, &detail, event)?;
        match attempt::commit(self.store.as_ref(), commit, attempt).await? {
            true => Ok(()),
            false => Err(MetadataError::Conflict),
        }
    }

    /// Moves what a project without keys still has to the trash, due at once. Returns whether nothing is left.
    async fn sweep_project(self: &Arc<Self>, project: ProjectId) -> Result<bool, MetadataError> {
        for _ in 0..SWEEPS_PER_CALL {
            let attempt = self.scan(move |core, snapshot| core.plan_sweep_of(snapshot, project)).await?;
            let Some(attempt) = attempt else { return Ok(true) };
            attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await?;
        }
        Ok(false)
    }

    fn plan_sweep_of(&self, snapshot: &dyn Snapshot, project: ProjectId) -> Result<Option<Attempt>, MetadataError> {
        let (mut attempt, mut count, now) = (Attempt::default(), 0, self.now());
        for bucket in self.buckets_of(snapshot, project)? {
            // A head goes after its noncurrent versions: a key with such versions has a head.
            for tag in [Tag::Noncurrent, Tag::Head] {
                let range = self.rows.range(tag, &[bucket.as_bytes()]);
                let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
                while let Some((key, row)) = cursor.next().map_err(store_error)? {
                    if count == SWEPT_PER_COMMIT {
                        return Ok(Some(attempt));
                    }
                    count += 1;
                    let version = version_of(tag, &row.value)?;
                    let (name, _) = split_object_row(&key).ok_or_else(|| corrupt("object row"))?;
                    attempt.expect(key.clone(), Some(&row));
                    attempt.remove(key);
                    if tag == Tag::Noncurrent {
                        attempt.remove(self.rows.version_index(bucket, version.id));
                    }
                    if version.is_delete_marker() {
                        continue;
                    }
                    let trashed = TrashedVersion {
                        project,
                        bucket,
                        key: name,
                        removed: now,
                        by: None,
                        purging: true,
                        version: version.clone(),
                    };
                    let trashed = TrashRecord::Version(Box::new(trashed));
                    attempt.put(self.rows.trash(now, version.id), records::encode(&trashed));
                }
            }
        }
        Ok((count > 0).then_some(attempt))
    }

    /// Whether no gateway can hold a key any more that was lent before `purged`: leases have run out, and every incarnation
    /// was heard of since, or is fenced.
    async fn leases_are_over(self: &Arc<Self>, purged: TimestampMicros) -> Result<bool, MetadataError> {
        let over = purged.plus_secs(u64::from(self.config.key_lease_ms).div_ceil(1000) + LEASE_SLACK_SECS);
        if self.now() < over {
            return Ok(false);
        }
        self.scan(move |core, snapshot| {
            let range = core.rows.range(Tag::Incarnation, &[]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            while let Some((key, row)) = cursor.next().map_err(store_error)? {
                let record: IncarnationRecord = records::decode("incarnation", &row.value)?;
                if record.last_seen >= over || record.registered >= purged {
                    continue;
                }
                let id = key.get(3..).and_then(|id| id.try_into().ok()).map(u32::from_be_bytes);
                let id = IncarnationId(id.ok_or_else(|| corrupt("incarnation"))?);
                let fence = snapshot.get(&core.rows.fence(id)).map_err(store_error)?;
                let fence = fence.map(|row| records::decode::<FenceRecord>("fence", &row.value)).transpose()?;
                // A fenced gateway learns of it at its next call at the latest, and its lease has run out by then.
                if fence.is_none() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    async fn certify(
        self: &Arc<Self>,
        project: ProjectId,
        proposal: &Proposal,
        record: &ShreddingRecord,
        purged: TimestampMicros,
        what: Value,
    ) -> Result<ClusterSealed, MetadataError> {
        let place = Place::Proposal(ProjectId::CLUSTER, proposal.id);
        let words: Words = self.seals.open(place, record.words.key_version, &record.words.bytes)?;
        let mut deciders = Vec::new();
        for user in words.deciders {
            let name = match self.find_user(GetUser::Id(user)).await {
                Ok(user) => Some(user.name),
                Err(MetadataError::NoSuchUser) => None,
                Err(error) => return Err(error),
            };
            deciders.push(json!({ "user": user.to_string(), "name": name }));
        }
        let mut facts = json!({
            "proposal": proposal.id.to_string(),
            "decided_by": deciders,
            "reference": words.reference,
            "reason": words.reason,
            "proposed_micros": words.proposed.0,
            "purged_micros": purged.0,
            "last_backup_dies_micros": purged.plus_secs(self.config.key_backup_secs).0,
            "versions": record.versions,
            "bytes": record.bytes,
            "read_by_openings": record.openings,
        });
        if let (Value::Object(facts), Value::Object(what)) = (&mut facts, what) {
            facts.extend(what);
        }
        let line = self.statement(StatementKind::ShredCertificate, project, facts).await?.to_line();
        let sealed = self.seals.seal_bytes(place, line.as_bytes())?;
        Ok(ClusterSealed { key_version: sealed.key_version, bytes: sealed.bytes })
    }

    /// The openings by which anything of the project, or one version of it, was read.
    fn openings_that_read(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
        version: Option<valv_types::VersionId>,
    ) -> Result<Vec<String>, MetadataError> {
        let range = self.rows.range(Tag::Ledger, &[project.as_bytes()]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let mut openings = BTreeSet::new();
        while let Some((_, row)) = cursor.next().map_err(store_error)? {
            let record: LedgerRecord = records::decode("ledger record", &row.value)?;
            let Some(entries) = record.entries else { continue };
            let accesses: Accesses = minicbor::decode(&entries).map_err(|_| corrupt("accesses"))?;
            let concerned = accesses.accesses.iter().filter(|access| version.is_none() || access.version == version);
            openings.extend(concerned.filter_map(|access| access.opening).map(|opening| opening.to_string()));
        }
        Ok(openings.into_iter().collect())
    }

    /// The version with its blobs, if it may go.
    fn shreddable(
        &self,
        snapshot: &dyn Snapshot,
        act: &ShredObject,
    ) -> Result<Option<(VersionRecord, Vec<BlobId>)>, MetadataError> {
        let bucket = bucket_of(snapshot.get(&self.rows.bucket(act.bucket)).map_err(store_error)?.as_ref())?;
        if bucket.project != act.project {
            return Err(MetadataError::NoSuchVersion);
        }
        let found = self.find_in(snapshot, act.bucket, &act.key, VersionSelector::Id(act.version))?;
        let Some(found) = found.filter(|found| !found.version.is_delete_marker()) else { return Ok(None) };
        Leaving::new(&bucket, act.key.as_bytes(), &found.version).check(false, self.clock.now())?;
        let blobs = self.blobs_of(snapshot, &found.version)?;
        for blob in &blobs {
            let range = self.rows.range(Tag::BlobRef, &[blob.as_bytes()]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            while let Some((key, row)) = cursor.next().map_err(store_error)? {
                let _: BlobRefRecord = records::decode("blob reference", &row.value)?;
                let (_, owner) = blob_ref_parts(&key).ok_or_else(|| corrupt("blob reference"))?;
                if owner != act.version {
                    // A copy shares the data, and its owner decides for it.
                    return Err(ApprovalRefusal::Unfit.into());
                }
            }
        }
        Ok(Some((found.version, blobs)))
    }

    fn blobs_of(&self, snapshot: &dyn Snapshot, version: &VersionRecord) -> Result<Vec<BlobId>, MetadataError> {
        match &version.body {
            Body::Empty => Ok(Vec::new()),
            Body::Blob(blob) => Ok(vec![blob.blob]),
            Body::Parts(index) => {
                let mut blobs = Vec::with_capacity(index.count as usize);
                for page in 0..u32::try_from(index.page_offsets.len()).unwrap_or(u32::MAX) {
                    let row = snapshot.get(&self.rows.part_page(index.pages_of, page)).map_err(store_error)?;
                    let record: PageRecord = records::decode("page", &row.ok_or_else(|| corrupt("page"))?.value)?;
                    blobs.extend(record.parts.iter().filter(|part| part.blob.len_bytes > 0).map(|part| part.blob.blob));
                }
                Ok(blobs)
            }
        }
    }

    /// Refuses early what would be refused late.
    pub(crate) async fn check_shred_object(self: &Arc<Self>, act: &ShredObject) -> Result<(), MetadataError> {
        let act = act.clone();
        let found = self.scan(move |core, snapshot| core.shreddable(snapshot, &act)).await?;
        found.map(|_| ()).ok_or(MetadataError::NoSuchVersion)
    }

    pub(crate) async fn carry_out_shred_object(
        self: &Arc<Self>,
        act: &ShredObject,
        proposal: &Proposal,
    ) -> Result<Carried, MetadataError> {
        let project = act.project;
        let Some((row, mut record)) = self.shredding(project, proposal.id).await? else {
            let asked = act.clone();
            let found = self
                .scan(move |core, snapshot| {
                    let openings = core.openings_that_read(snapshot, asked.project, Some(asked.version))?;
                    Ok(core.shreddable(snapshot, &asked)?.map(|(version, blobs)| (version, blobs, openings)))
                })
                .await?;
            let (version, blobs, openings) = found.ok_or(MetadataError::NoSuchVersion)?;
            let record = ShreddingRecord {
                begun: self.now(),
                versions: 1,
                bytes: version.len_bytes,
                blobs,
                purged: None,
                openings,
                certificate: None,
                words: self.seal_words(proposal)?,
            };
            let event = Event {
                kind: EventKind::VersionShredded,
                project,
                time: self.now(),
                bucket: Some(act.bucket),
                version: Some(act.version),
                other_version: None,
                bytes: version.len_bytes,
                subject: act.key.as_bytes(),
            };
            self.begin(project, proposal, &record, event).await?;
            return Ok(Carried::More);
        };
        if record.certificate.is_some() {
            return Ok(Carried::Done(done(&record)));
        }
        let Some(purged) = record.purged else {
            // The rows go first, judged again: what came under retention since, or was copied, stays.
            self.remove_shredded(act, proposal).await?;
            let (keys, blobs) = (Arc::clone(self.seals.keys()), record.blobs.clone());
            let listed = tokio::task::spawn_blocking(move || keys.shred_blobs(&blobs)).await;
            let listed = listed.map_err(|error| MetadataError::Unavailable { what: error.to_string() })?;
            listed.map_err(|error| MetadataError::Unavailable { what: error.to_string() })?;
            self.purge_at_once(act.version).await?;
            self.erase_names(act).await?;
            record.purged = Some(self.now());
            self.put_shredding(project, proposal.id, &row, &record).await?;
            return Ok(Carried::More);
        };
        let what = json!({
            "destroyed": "object version",
            "bucket": act.bucket.to_string(),
            "version": act.version.to_string(),
            "blobs": record.blobs.len(),
        });
        record.certificate = Some(self.certify(project, proposal, &record, purged, what).await?);
        self.put_shredding(project, proposal.id, &row, &record).await?;
        Ok(Carried::Done(done(&record)))
    }

    /// Takes the version from its key. Done already if it is not there.
    async fn remove_shredded(self: &Arc<Self>, act: &ShredObject, proposal: &Proposal) -> Result<(), MetadataError> {
        let commit = proposal.commit("version removed");
        for number in 0..ATTEMPTS_MAX {
            let plan = self.plan_shredded_removal(act, commit).await;
            match settle(self.store.as_ref(), commit, number, plan).await? {
                Settled::Done(()) | Settled::Before(_) => return Ok(()),
                Settled::Again => {}
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_shredded_removal(&self, act: &ShredObject, commit: CommitId) -> Result<Plan<()>, MetadataError> {
        let snapshot = self.snapshot().await?;
        let snapshot = snapshot.as_ref();
        if self.shreddable(snapshot, act)?.is_none() {
            return Ok(Plan::Nothing(()));
        }
        let bucket_row = snapshot.get(&self.rows.bucket(act.bucket)).map_err(store_error)?;
        let bucket = bucket_of(bucket_row.as_ref())?;
        let found = self.find_in(snapshot, act.bucket, &act.key, VersionSelector::Id(act.version))?;
        let found = found.ok_or(MetadataError::NoSuchVersion)?;
        let version = found.version.clone();
        let mut attempt = Attempt::default();
        // A copy that is being made expects the version's row, and so does this.
        attempt.expect(self.rows.bucket(act.bucket), bucket_row.as_ref());
        let at = KeyPlace { state: &bucket, bucket: act.bucket, key: &act.key };
        self.take_version(&mut attempt, snapshot, at, found, None)?;
        let event = Event {
            kind: EventKind::VersionRemoved,
            project: act.project,
            time: self.now(),
            bucket: Some(act.bucket),
            version: Some(version.id),
            other_version: None,
            bytes: version.len_bytes,
            subject: b"",
        };
        self.record_event(&mut attempt, commit, None, event)?;
        Ok(Plan::Commit(attempt, ()))
    }

    /// Erases the sealed part of every ledger record of the version: the tree keeps its hash, nobody reads the names again.
    async fn erase_names(self: &Arc<Self>, act: &ShredObject) -> Result<(), MetadataError> {
        let (project, version) = (act.project, act.version);
        loop {
            let attempt = self
                .scan(move |core, snapshot| {
                    let range = core.rows.range(Tag::Ledger, &[project.as_bytes()]);
                    let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
                    let (mut attempt, mut count) = (Attempt::default(), 0);
                    while let Some((key, row)) = cursor.next().map_err(store_error)? {
                        let mut record: LedgerRecord = records::decode("ledger record", &row.value)?;
                        if record.version != Some(version) || record.sealed.is_empty() {
                            continue;
                        }
                        (record.key_version, record.sealed) = (0, Vec::new());
                        attempt.expect(key.clone(), Some(&row));
                        attempt.put(key, records::encode(&record));
                        count += 1;
                        if count == ERASED_PER_COMMIT {
                            break;
                        }
                    }
                    Ok((count > 0).then_some((attempt, count)))
                })
                .await?;
            let Some((attempt, count)) = attempt else { return Ok(()) };
            let is_done = attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await?;
            if is_done && count < ERASED_PER_COMMIT {
                return Ok(());
            }
        }
    }
}

fn version_of(tag: Tag, value: &[u8]) -> Result<VersionRecord, MetadataError> {
    Ok(match tag {
        Tag::Noncurrent => records::decode::<NoncurrentRecord>("noncurrent version", value)?.version,
        _ => records::decode::<HeadRecord>("head", value)?.version,
    })
}

fn done(record: &ShreddingRecord) -> Value {
    json!({ "versions": record.versions, "bytes": record.bytes, "purged_micros": record.purged.map(|at| at.0) })
}
