//! A project's key replaced in the background.
//!
//! A new version seals and wraps everything that is written from the moment it exists: what gateways still wrap with an
//! older one is wrapped anew as it is committed. A pass over all rows then moves what older versions hold, some hundred rows
//! a commit, the cursor in the same commit: whatever ends in the middle, the next turn goes on there. Passes repeat until
//! one found nothing to move; after `key_retire_secs`, in which reads and commits that began under an old version end, one
//! more pass has to find nothing, and only then the old versions leave the key store. No blob is touched.

use super::moves::{Move, Mover};
use crate::attempt::{self, ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::keystore::KeyVersion;
use crate::ledger::Event;
use crate::records::{self, EventKind};
use crate::rows::{Tag, last_id};
use crate::service::{Core, MetadataService, corrupt};
use crate::store::Snapshot;
use minicbor::{Decode, Encode};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use valv_metadata_api::{Actor, MetadataError};
use valv_types::{BucketId, CommitId, ProjectId, TimestampMicros};

/// Rows looked at for one commit. Moving one costs some 20 us and 500 bytes, so a commit has at most some MiB, pages of 256
/// parts (64 KiB) included.
const ROWS_PER_STEP: usize = 256;
/// How long one turn may take: other background work waits meanwhile.
const TURN: Duration = Duration::from_secs(1);

/// How far a rotation is, at rest.
#[derive(Debug, Clone, Encode, Decode)]
struct RotationRecord {
    /// The version that everything moves to.
    #[n(0)]
    version: u32,
    #[n(1)]
    started: TimestampMicros,
    /// The last row that the current pass has done.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    cursor: Vec<u8>,
    /// Passes ended.
    #[n(3)]
    passes: u32,
    /// Rows that the current pass has looked at, and moved.
    #[n(4)]
    seen: u64,
    #[n(5)]
    moved_in_pass: u64,
    /// Rows moved by all passes.
    #[n(6)]
    moved: u64,
    /// When the first pass that found nothing ended.
    #[n(7)]
    clean_since: Option<TimestampMicros>,
    /// The current pass has met rows of a kind that it does not know.
    #[n(8)]
    unknown: bool,
    #[n(9)]
    ended: Option<TimestampMicros>,
    /// The old versions could not be destroyed.
    #[n(10)]
    kept: bool,
}

/// How far a rotation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The version that everything moves to.
    pub version: u32,
    /// When it began.
    pub started: TimestampMicros,
    /// Passes over all rows that ended.
    pub passes: u32,
    /// Rows that the current pass has looked at.
    pub seen: u64,
    /// Rows moved so far.
    pub moved: u64,
    /// From when on the last pass may begin, once nothing is left to move.
    pub settles: Option<TimestampMicros>,
    /// When it ended.
    pub ended: Option<TimestampMicros>,
    /// It ended without destroying the old versions, because rows of an unknown kind may need them.
    pub kept: bool,
}

/// A project's keys, for people.
#[derive(Debug, Clone)]
pub struct ProjectKeys {
    /// The project.
    pub project: ProjectId,
    /// Its versions, oldest first.
    pub versions: Vec<KeyVersion>,
    /// The last rotation.
    pub rotation: Option<Rotation>,
}

impl MetadataService {
    /// Makes a new version of the key of the project of this name, and begins to move everything to it. While a rotation of
    /// the project is under way, that one goes on instead. Background work finishes it.
    pub async fn rotate_project_key(&self, actor: &Actor) -> Result<Rotation, MetadataError> {
        self.0.start_rotation(actor).await
    }

    /// The versions of a project's key, and how far its rotation is.
    pub async fn project_keys(&self, project: ProjectId) -> Result<ProjectKeys, MetadataError> {
        let versions = self.keys().versions(project).map_err(crate::seal::no_key)?;
        let rotation = self.0.rotation(project).await?.map(|(_, record)| self.0.rotation_view(&record));
        Ok(ProjectKeys { project, versions, rotation })
    }

    /// The project of this name.
    pub async fn project_of_name(&self, name: &str) -> Result<ProjectId, MetadataError> {
        self.0.project_named(name).await
    }

    /// Takes every rotation as far as one turn goes. The background pass does this too. Returns whether one goes on.
    pub async fn advance_rotations(&self) -> Result<bool, MetadataError> {
        self.0.advance_rotations().await
    }
}

impl Core {
    fn rotation_view(&self, record: &RotationRecord) -> Rotation {
        Rotation {
            version: record.version,
            started: record.started,
            passes: record.passes,
            seen: record.seen,
            moved: record.moved,
            settles: record.clean_since.map(|since| since.plus_secs(self.config.key_retire_secs)),
            ended: record.ended,
            kept: record.kept,
        }
    }

    async fn rotation(
        &self,
        project: ProjectId,
    ) -> Result<Option<(crate::store::Versioned, RotationRecord)>, MetadataError> {
        let row = self.get(&self.rows.key_rotation(project)).await?;
        row.map(|row| Ok((row.clone(), records::decode("key rotation", &row.value)?))).transpose()
    }

    async fn start_rotation(self: &Arc<Self>, actor: &Actor) -> Result<Rotation, MetadataError> {
        let commit = CommitId::random();
        for number in 0..ATTEMPTS_MAX {
            let plan = self.plan_rotation(actor, commit).await;
            match settle(self.store.as_ref(), commit, number, plan).await? {
                Settled::Done(record) => return Ok(self.rotation_view(&record)),
                Settled::Again | Settled::Before(_) => {}
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_rotation(&self, actor: &Actor, commit: CommitId) -> Result<Plan<RotationRecord>, MetadataError> {
        let project = actor.project;
        let found = self.rotation(project).await?;
        if let Some((_, record)) = &found
            && record.ended.is_none()
        {
            return Ok(Plan::Nothing(record.clone()));
        }
        let newest = self.seals.keys().project_key(project, None).map_err(crate::seal::no_key)?.version();
        let version = newest.checked_add(1).ok_or(MetadataError::Conflict)?;
        let record = RotationRecord {
            version,
            started: self.now(),
            cursor: Vec::new(),
            passes: 0,
            seen: 0,
            moved_in_pass: 0,
            moved: 0,
            clean_since: None,
            unknown: false,
            ended: None,
            kept: false,
        };
        let mut attempt = Attempt::default();
        let key = self.rows.key_rotation(project);
        attempt.expect(key.clone(), found.as_ref().map(|(row, _)| row));
        attempt.put(key, records::encode(&record));
        let detail = json!({ "to_version": version });
        self.record_act(
            &mut attempt,
            commit,
            actor,
            &detail,
            key_event(EventKind::ProjectKeyReplacing, project, self.now()),
        )?;
        Ok(Plan::Commit(attempt, record))
    }

    pub(crate) async fn advance_rotations(self: &Arc<Self>) -> Result<bool, MetadataError> {
        let range = self.rows.range(Tag::KeyRotation, &[]);
        let under_way = self
            .scan(move |_, snapshot| {
                let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
                let mut found = Vec::new();
                while let Some((key, row)) = cursor.next().map_err(store_error)? {
                    if records::decode::<RotationRecord>("key rotation", &row.value)?.ended.is_none() {
                        let project = last_id(&key).map(ProjectId::from_bytes);
                        found.push(project.ok_or_else(|| corrupt("key rotation"))?);
                    }
                }
                Ok(found)
            })
            .await?;
        let mut goes_on = false;
        for project in under_way {
            match self.turn(project).await {
                Ok(more) => goes_on |= more,
                // One project's trouble keeps no other waiting.
                Err(error) => tracing::warn!(%project, %error, "a key rotation waits for its next turn"),
            }
        }
        Ok(goes_on)
    }

    /// One turn of a project's rotation. Returns whether the next could go on at once.
    async fn turn(self: &Arc<Self>, project: ProjectId) -> Result<bool, MetadataError> {
        let begun = Instant::now();
        let mut rows = ROWS_PER_STEP;
        loop {
            let Some((row, record)) = self.rotation(project).await? else { return Ok(false) };
            if record.ended.is_some() {
                return Ok(false);
            }
            if self.seals.keys().shredded(project).is_some() {
                return self.end_rotation(project, row, record, true).await.map(|_| false);
            }
            self.make_version(project, record.version).await?;
            if record.cursor.is_empty()
                && let Some(since) = record.clean_since
                && self.now() < since.plus_secs(self.config.key_retire_secs)
            {
                return Ok(false);
            }
            let step = self.scan(move |core, snapshot| core.plan_moves(snapshot, project, record, rows)).await?;
            let Moved { mut attempt, record, at_end } = step;
            if at_end && record.ended.is_some() {
                return self.end_rotation(project, row, record, false).await.map(|_| false);
            }
            let key = self.rows.key_rotation(project);
            attempt.expect(key.clone(), Some(&row));
            attempt.put(key, records::encode(&record));
            match attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await? {
                true => rows = ROWS_PER_STEP,
                // Somebody else wrote one of the rows: a smaller step meets fewer of them.
                false => rows = (rows / 4).max(1),
            }
            if begun.elapsed() > TURN {
                return Ok(true);
            }
        }
    }

    /// Makes sure of the version that a rotation moves to: its row is there before its key is.
    async fn make_version(&self, project: ProjectId, version: u32) -> Result<(), MetadataError> {
        let newest = self.seals.keys().newest_version(project);
        if newest.is_some_and(|newest| newest >= version) {
            return Ok(());
        }
        let keys = Arc::clone(self.seals.keys());
        let made = tokio::task::spawn_blocking(move || keys.rotate_project_key(project)).await;
        let made = made.map_err(|error| MetadataError::Unavailable { what: error.to_string() })?;
        made.map(|_| ()).map_err(|error| MetadataError::Unavailable { what: error.to_string() })
    }

    /// The next rows from the cursor on.
    fn plan_moves(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
        mut record: RotationRecord,
        rows: usize,
    ) -> Result<Moved, MetadataError> {
        let newest = self.seals.keys().project_key(project, Some(record.version)).map_err(crate::seal::no_key)?;
        let buckets = self.buckets_of(snapshot, project)?;
        let mover = Mover { core: self, project, buckets: &buckets, newest: &newest };
        let all = self.rows.all();
        let mut start = record.cursor.clone();
        if start.is_empty() {
            start = all.start;
        } else {
            start.push(0);
        }
        let mut attempt = Attempt::default();
        let mut cursor = snapshot.scan(&start, &all.end).map_err(store_error)?;
        for _ in 0..rows {
            let Some((key, row)) = cursor.next().map_err(store_error)? else {
                return Ok(Moved { attempt, record: self.pass_ended(record), at_end: true });
            };
            record.seen += 1;
            match mover.row(&key, &row.value)? {
                Move::Stays => {}
                Move::Unknown => record.unknown = true,
                Move::To(value) => {
                    record.moved += 1;
                    record.moved_in_pass += 1;
                    attempt.expect(key.clone(), Some(&row));
                    attempt.put(key.clone(), value);
                }
            }
            record.cursor = key.to_vec();
        }
        Ok(Moved { attempt, record, at_end: false })
    }

    fn pass_ended(&self, mut record: RotationRecord) -> RotationRecord {
        record.passes += 1;
        let found_nothing = record.moved_in_pass == 0;
        match (found_nothing, record.clean_since) {
            (true, Some(_)) => {
                record.ended = Some(self.now());
                record.kept = record.unknown;
            }
            (true, None) => record.clean_since = Some(self.now()),
            (false, _) => record.clean_since = None,
        }
        if record.ended.is_none() {
            record.unknown = false;
        }
        (record.cursor, record.seen, record.moved_in_pass) = (Vec::new(), 0, 0);
        record
    }

    pub(crate) fn buckets_of(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
    ) -> Result<HashSet<BucketId>, MetadataError> {
        let range = self.rows.range(Tag::ProjectBucket, &[project.as_bytes()]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let mut buckets = HashSet::new();
        while let Some((key, _)) = cursor.next().map_err(store_error)? {
            buckets.insert(last_id(&key).map(BucketId::from_bytes).ok_or_else(|| corrupt("bucket of a project"))?);
        }
        Ok(buckets)
    }

    /// Destroys the old versions, and says so. Where the commit is lost, the next turn does it again: both are idempotent.
    async fn end_rotation(
        self: &Arc<Self>,
        project: ProjectId,
        row: crate::store::Versioned,
        mut record: RotationRecord,
        shredded: bool,
    ) -> Result<(), MetadataError> {
        let mut attempt = Attempt::default();
        let commit = CommitId::random();
        let key = self.rows.key_rotation(project);
        attempt.expect(key.clone(), Some(&row));
        if shredded {
            record.ended = Some(self.now());
        } else {
            if !record.kept {
                let (keys, version) = (Arc::clone(self.seals.keys()), record.version);
                let retired = tokio::task::spawn_blocking(move || keys.retire_before(project, version)).await;
                let retired = retired.map_err(|error| MetadataError::Unavailable { what: error.to_string() })?;
                retired.map_err(|error| MetadataError::Unavailable { what: error.to_string() })?;
                self.seals.forget(project);
            }
            let event = key_event(EventKind::ProjectKeyReplaced, project, self.now());
            self.record_event(&mut attempt, commit, None, event)?;
        }
        attempt.put(key, records::encode(&record));
        attempt::commit(self.store.as_ref(), commit, attempt).await.map(|_| ())
    }
}

/// An event of a project's key.
pub(super) fn key_event(kind: EventKind, project: ProjectId, time: TimestampMicros) -> Event<'static> {
    let subject = b"project key".as_slice();
    Event::of_project(kind, project, time, subject)
}

/// One step of a pass.
struct Moved {
    attempt: Attempt,
    record: RotationRecord,
    at_end: bool,
}
