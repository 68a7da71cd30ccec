//! Object Lock under every order of calls: whatever is asked, a protected version stays, for its time.
//!
//! The model is one sentence and repeats none of the rules' code: compare what there was before a call with what there is
//! after it. A version that was under compliance, governance (unless the call bypasses it) or hold (unless the call takes
//! it off) is still there, and its date is no earlier. The rest of the test is to reach every state: all sequences of
//! three calls after each kind of protected write, then long random ones over two keys and RocksDB. What a project demands
//! (a minimum, holds on project, bucket and prefix) and extends is among the calls, in buckets with Object Lock and
//! in one without versions. DeleteObjects is not among the
//! calls, because it is a series of DeleteObject; that nothing at the edge goes another way is tested end to end.

use crate::MetadataConfig;
use crate::retention::Lowering;
use crate::store::{MetaStore, RocksConfig, RocksMetaStore, Start};
use crate::testing::{Fixture, MemoryStore, block_on};
use std::collections::BTreeSet;
use std::sync::Arc;
use valv_lifecycle::{
    Configuration, Expiration, Filter, FilterForm, MinimumSize, NoncurrentExpiration, Rule, SizeBounds, Status,
};
use valv_metadata_api::*;
use valv_types::{BlobId, BucketId, CommitId, HoldId, TimestampMicros, VersionId};

const SECS: u64 = 1_000;
const KEYS: [&[u8]; 2] = [b"k", b"k\0"];

/// What a write asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// The bucket's default.
    Default,
    Governance,
    Compliance,
    Hold,
}

/// Which of a key's versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Oldest,
    Newest,
}

/// One call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Put(Lock),
    Copy,
    Complete,
    Extend(Which),
    Shorten(Which, bool),
    /// Takes the retention away.
    Lift(Which, bool),
    /// Governance becomes compliance, compliance governance, later.
    Change(Which, bool),
    Hold(Which, bool),
    Delete,
    Remove(Which, bool),
    RemoveNull,
    DeleteBucket,
    Suspend,
    /// Sets the bucket's default retention, or takes it away.
    Default(Option<RetentionMode>),
    /// Brings back what was removed last.
    Undelete,
    Purge,
    /// The project demands a minimum from now on.
    Minimum,
    /// A legal hold on the project, the bucket or what the keys begin with.
    HoldScope(Scope),
    /// All of those are released.
    Release,
    /// The controller extends everything in the bucket.
    ExtendAll,
    /// What may be disposed of is listed, approved and disposed of.
    Dispose,
    /// A lifecycle pass under rules by which every version is due.
    Lifecycle,
    /// Time passes, beyond every date that was set.
    Forward,
    /// The service ends and another starts, whose clock is where it was when it was last persisted.
    Back,
}

/// What a legal hold keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Project,
    Bucket,
    Prefix,
}

const CALLS: [Call; 37] = {
    use Call::*;
    use RetentionMode::{Compliance, Governance};
    use Which::{Newest, Oldest};
    [
        Put(Lock::Default),
        Put(Lock::Governance),
        Put(Lock::Compliance),
        Put(Lock::Hold),
        Copy,
        Complete,
        Extend(Oldest),
        Shorten(Oldest, false),
        Shorten(Oldest, true),
        Lift(Oldest, false),
        Lift(Oldest, true),
        Change(Oldest, false),
        Change(Oldest, true),
        Hold(Oldest, true),
        Hold(Oldest, false),
        Delete,
        Remove(Oldest, false),
        Remove(Oldest, true),
        Remove(Newest, false),
        Remove(Newest, true),
        RemoveNull,
        DeleteBucket,
        Suspend,
        Default(Some(Compliance)),
        Default(Some(Governance)),
        Undelete,
        Purge,
        Minimum,
        HoldScope(Scope::Project),
        HoldScope(Scope::Bucket),
        HoldScope(Scope::Prefix),
        Release,
        ExtendAll,
        Dispose,
        Lifecycle,
        Forward,
        Back,
    ]
};

/// A version as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    id: VersionId,
    is_marker: bool,
    retention: Option<Retention>,
    hold: bool,
    /// A hold on the project, the bucket or a prefix keeps it.
    scope_hold: bool,
    blobs: Vec<BlobId>,
}

struct Run<S> {
    fixture: Fixture<S>,
    bucket: BucketId,
    /// The key that calls are for; the other is the source of copies.
    key: usize,
    /// Versions whose removal was told, the last at the end.
    removed: Vec<VersionId>,
    /// How often each kind of call was done and refused, so that a test that only ever refuses is noticed.
    tally: Vec<(Call, u32, u32)>,
    buckets: u32,
    /// Holds that stand.
    holds: Vec<HoldId>,
    /// The project's minimum, in days.
    minimum_days: u32,
}

impl<S: MetaStore + 'static> Run<S> {
    async fn over(store: Arc<S>) -> Self {
        // Trash is kept, so that undelete has something to bring back, and purge something to leave alone.
        let config = MetadataConfig { trash_secs: SECS / 10, ..MetadataConfig::default() };
        let fixture = Fixture::over(store, config).await;
        let core = &fixture.service.0;
        core.clock.persist(core.store.as_ref(), &core.rows).await.unwrap();
        let bucket = fixture.bucket("first", true).await;
        fixture.set_document(bucket, everything_goes()).await;
        Self {
            fixture,
            bucket,
            key: 0,
            removed: Vec::new(),
            tally: Vec::new(),
            buckets: 0,
            holds: Vec::new(),
            minimum_days: 0,
        }
    }

    async fn fresh_bucket(&mut self) {
        self.buckets += 1;
        self.release().await;
        let none = ProjectRetention::default();
        self.fixture.service.0.set_project_retention(self.class(none), Lowering::Approved).await.unwrap();
        self.minimum_days = 0;
        self.bucket = self.fixture.bucket(&format!("bucket-{}", self.buckets), true).await;
        self.fixture.set_document(self.bucket, everything_goes()).await;
        self.removed.clear();
        self.key = 0;
    }

    fn class(&self, retention: ProjectRetention) -> SetProjectRetention {
        let actor = self.fixture.actor.clone();
        let project = actor.project;
        SetProjectRetention { actor, project, retention, reason: "r".to_owned(), commit: CommitId::random() }
    }

    /// Releases every hold. Whether there was any.
    async fn release(&mut self) -> bool {
        let holds = std::mem::take(&mut self.holds);
        for hold in &holds {
            let actor = self.fixture.actor.clone();
            let project = actor.project;
            let reason = "r".to_owned();
            let release = ReleaseHold { actor, project, hold: *hold, reason, commit: CommitId::random() };
            self.fixture.service.release_hold(release).await.unwrap();
        }
        !holds.is_empty()
    }

    /// What is in the trash and would have to stay there.
    async fn held_trash(&self) -> Vec<VersionId> {
        if self.holds.is_empty() {
            return Vec::new();
        }
        let project = self.fixture.actor.project;
        let list = ListTrash { project, bucket: Some(self.bucket), prefix: b"k".to_vec(), after: None, limit: 1_000 };
        let page = self.fixture.service.list_trash(list).await.unwrap();
        let mut ids: Vec<_> = page.entries.iter().map(|entry| entry.place.version).collect();
        ids.sort_unstable();
        ids
    }

    fn now(&self) -> TimestampMicros {
        self.fixture.service.0.clock.now()
    }

    fn later(&self, secs: u64) -> TimestampMicros {
        self.now().plus_secs(secs)
    }

    /// Every version of every key, by key.
    async fn look(&self) -> Vec<Vec<Seen>> {
        let list =
            self.fixture.service.list_versions(crate::testing::list_versions(self.bucket, b"", b"", 1_000)).await;
        let entries = match list {
            Ok(list) => list.entries,
            Err(MetadataError::NoSuchBucket) => Vec::new(),
            Err(error) => panic!("{error}"),
        };
        let mut seen = vec![Vec::new(); KEYS.len()];
        for entry in entries {
            let selector = VersionSelector::Id(entry.id);
            let request = self.fixture.get(self.bucket, entry.key.as_bytes(), selector);
            let found = self.fixture.service.get_object(request).await.expect("what is listed can be read").version;
            let key = KEYS.iter().position(|key| *key == entry.key.as_bytes()).expect("one of the keys");
            let blobs = match found.body {
                Body::Blob(blob) => vec![blob.blob],
                Body::Empty | Body::Parts(_) => Vec::new(),
            };
            seen[key].push(Seen {
                id: found.id,
                is_marker: found.is_delete_marker,
                retention: found.retention,
                hold: found.legal_hold,
                // Every scope that the calls use covers both keys.
                scope_hold: !self.holds.is_empty(),
                blobs,
            });
        }
        seen
    }

    /// Makes a call and holds what there is after it against what there was before. Whether it was done is told, too.
    async fn step(&mut self, call: Call, before: Vec<Vec<Seen>>) -> (bool, Vec<Vec<Seen>>) {
        let now = self.now();
        let mine = before[self.key].clone();
        let held_trash = self.held_trash().await;
        let done = self.call(call, &mine).await;
        if matches!(call, Call::Purge | Call::Lifecycle | Call::DeleteBucket) {
            assert_eq!(held_trash, self.held_trash().await, "{call:?} purged what is held");
        }
        self.count(call, done);
        // What ended while the call ran may have been judged after its end.
        let ended = self.now();
        let after = self.look().await;
        for (before, after) in before.iter().zip(&after) {
            check(before, after, call, ended);
            self.check_new(before, after, call, now);
            if !done {
                assert_eq!(before, after, "{call:?} was refused and had an effect");
            }
        }
        for gone in mine.iter().filter(|old| !old.is_marker && after[self.key].iter().all(|new| new.id != old.id)) {
            self.removed.push(gone.id);
        }
        (done, after)
    }

    /// A version that is new has the project's minimum.
    fn check_new(&self, before: &[Seen], after: &[Seen], call: Call, now: TimestampMicros) {
        // What is brought back keeps what it had.
        if self.minimum_days == 0 || call == Call::Undelete {
            return;
        }
        let least = now.plus_secs(u64::from(self.minimum_days) * 24 * 60 * 60);
        for new in after.iter().filter(|new| !new.is_marker && before.iter().all(|old| old.id != new.id)) {
            let kept = new.retention.unwrap_or_else(|| panic!("{call:?} made {new:?} without retention"));
            assert_eq!(kept.mode, RetentionMode::Compliance, "{call:?}");
            assert!(kept.until >= least, "{call:?} made {new:?}, which is kept for less than the minimum");
        }
    }

    fn count(&mut self, call: Call, done: bool) {
        let at = self.tally.iter().position(|entry| entry.0 == call).unwrap_or_else(|| {
            self.tally.push((call, 0, 0));
            self.tally.len() - 1
        });
        let (_, was_done, was_refused) = &mut self.tally[at];
        *(if done { was_done } else { was_refused }) += 1;
    }

    async fn call(&mut self, call: Call, mine: &[Seen]) -> bool {
        let (bucket, key) = (self.bucket, KEYS[self.key]);
        let pick = |which: Which| {
            let mut versions = mine.iter().filter(|seen| !seen.is_marker);
            match which {
                Which::Newest => versions.next(),
                Which::Oldest => versions.next_back(),
            }
        };
        let service = Arc::clone(&self.fixture.service);
        match call {
            Call::Put(lock) => {
                let request = PutObject { lock: self.lock(lock), ..self.fixture.put(bucket, key) };
                service.put_object(request).await.is_ok()
            }
            Call::Copy => self.copy().await,
            Call::Complete => self.complete().await,
            Call::Extend(which) => {
                let Some(seen) = pick(which) else { return false };
                let mode = seen.retention.map_or(RetentionMode::Compliance, |old| old.mode);
                self.retain(seen.id, Some(Retention { mode, until: self.later(2 * SECS) }), false).await
            }
            Call::Shorten(which, bypass) => {
                let Some(seen) = pick(which) else { return false };
                let mode = seen.retention.map_or(RetentionMode::Governance, |old| old.mode);
                self.retain(seen.id, Some(Retention { mode, until: self.later(SECS / 2) }), bypass).await
            }
            Call::Lift(which, bypass) => {
                let Some(seen) = pick(which) else { return false };
                self.retain(seen.id, None, bypass).await
            }
            Call::Change(which, bypass) => {
                let Some(seen) = pick(which) else { return false };
                let mode = match seen.retention.map(|old| old.mode) {
                    Some(RetentionMode::Compliance) => RetentionMode::Governance,
                    Some(RetentionMode::Governance) | None => RetentionMode::Compliance,
                };
                self.retain(seen.id, Some(Retention { mode, until: self.later(3 * SECS) }), bypass).await
            }
            Call::Hold(which, on) => {
                let Some(seen) = pick(which) else { return false };
                self.change(seen.id, VersionChange::LegalHold(on)).await
            }
            Call::Delete => self.remove(VersionSelector::Current, true).await,
            Call::Remove(which, bypass) => {
                let version = match which {
                    Which::Newest => mine.first(),
                    Which::Oldest => mine.last(),
                };
                let Some(seen) = version else { return false };
                self.remove(VersionSelector::Id(seen.id), bypass).await
            }
            Call::RemoveNull => self.remove(VersionSelector::Null, true).await,
            Call::DeleteBucket => {
                let request = DeleteBucket { actor: self.fixture.actor.clone(), bucket, commit: CommitId::random() };
                service.delete_bucket(request).await.is_ok()
            }
            Call::Suspend => self.fixture.versioning(bucket, Versioning::Suspended).await.is_ok(),
            Call::Default(mode) => {
                let default = mode.map(|mode| DefaultRetention { mode, period: RetentionPeriod::Days(1) });
                let change = BucketChange::ObjectLock(ObjectLock { default });
                let actor = self.fixture.actor.clone();
                service.update_bucket(UpdateBucket { actor, bucket, change, commit: CommitId::random() }).await.is_ok()
            }
            Call::Undelete => {
                let Some(version) = self.removed.last() else { return false };
                service.undelete(&self.fixture.actor, *version).await.is_ok()
            }
            Call::Purge => service.purge_trash().await.is_ok(),
            Call::Minimum => {
                let retention = ProjectRetention { default_days: 2, minimum_days: 1, ..ProjectRetention::default() };
                service.set_project_retention(self.class(retention)).await.unwrap();
                let was = std::mem::replace(&mut self.minimum_days, 1);
                was == 0
            }
            Call::HoldScope(scope) => {
                let scope = match scope {
                    Scope::Project => RetentionScope { bucket: None, prefix: Vec::new() },
                    Scope::Bucket => RetentionScope { bucket: Some(bucket), prefix: Vec::new() },
                    Scope::Prefix => RetentionScope { bucket: Some(bucket), prefix: b"k".to_vec() },
                };
                let actor = self.fixture.actor.clone();
                let project = actor.project;
                let text = || "r".to_owned();
                let commit = CommitId::random();
                let request = SetHold { actor, project, scope, reason: text(), reference: text(), commit };
                match service.set_hold(request).await {
                    Ok(hold) => self.holds.push(hold.id),
                    Err(MetadataError::NoSuchBucket) => return false,
                    Err(error) => panic!("{error}"),
                }
                true
            }
            Call::Release => self.release().await,
            Call::ExtendAll => {
                let request = ExtendRetention {
                    actor: self.fixture.actor.clone(),
                    bucket,
                    which: ExtendWhich::Prefix(Vec::new()),
                    until: self.later(2 * SECS),
                    reason: "r".to_owned(),
                    after: None,
                };
                service.extend_retention(request).await.is_ok_and(|extended| extended.extended > 0)
            }
            Call::Dispose => {
                let disposed = crate::tests::retention::dispose(&self.fixture, bucket).await;
                disposed.is_some_and(|disposal| disposal.removed > 0)
            }
            Call::Lifecycle => {
                let later = TimestampMicros::now().plus_secs(10 * 24 * 60 * 60);
                let counts = service.run_lifecycle(later).await.unwrap();
                assert_eq!((counts.left, counts.failed), (0, 0));
                counts.expired + counts.covered + counts.noncurrent + counts.markers + counts.uploads > 0
            }
            Call::Forward => {
                service.0.clock.advance_secs(2 * 24 * 60 * 60);
                true
            }
            Call::Back => {
                let was = self.now();
                self.fixture.restart().await;
                assert!(self.now() <= was.plus_secs(1), "a restart is no way forward");
                true
            }
        }
    }

    fn lock(&self, lock: Lock) -> LockRequest {
        let until = self.later(SECS);
        let retention = match lock {
            Lock::Default | Lock::Hold => None,
            Lock::Governance => Some(Retention { mode: RetentionMode::Governance, until }),
            Lock::Compliance => Some(Retention { mode: RetentionMode::Compliance, until }),
        };
        LockRequest { retention, legal_hold: lock == Lock::Hold }
    }

    /// The other key's newest version over this key.
    async fn copy(&self) -> bool {
        let other = KEYS[1 - self.key];
        let source = self.fixture.get(self.bucket, other, VersionSelector::Current);
        let (version, is_made) = match self.fixture.service.get_object(source).await {
            Ok(found) if !found.version.is_delete_marker => (found.version.id, false),
            _ => {
                let put = self.fixture.put(self.bucket, other);
                match self.fixture.service.put_object(put).await {
                    Ok(written) => (written.version, true),
                    Err(_) => return false,
                }
            }
        };
        let request = self.fixture.copy(self.bucket, (other, version), KEYS[self.key]);
        // A source that had to be made is an effect, even if the copy is refused.
        self.fixture.service.copy_object(request).await.is_ok() || is_made
    }

    async fn complete(&self) -> bool {
        let (service, actor, bucket) = (&self.fixture.service, &self.fixture.actor, self.bucket);
        let key = ObjectKey::new(KEYS[self.key]).unwrap();
        let create = CreateUpload {
            actor: actor.clone(),
            bucket,
            key: key.clone(),
            attributes: Attributes::default(),
            lock: LockRequest::default(),
            checksum: None,
            commit: CommitId::random(),
        };
        let Ok(upload) = service.create_upload(create).await else { return false };
        let part = PutPart {
            actor: actor.clone(),
            bucket,
            key: key.clone(),
            upload: upload.id,
            number: 1,
            body: NewBody::Blob(self.fixture.blob(1, BlobPlace::Shards)),
            md5: [1; 16],
            checksums: Vec::new(),
            proof: self.fixture.proof(),
            commit: CommitId::random(),
        };
        service.put_part(part).await.unwrap();
        let complete = CompleteUpload {
            actor: actor.clone(),
            bucket,
            key,
            upload: upload.id,
            parts: vec![CompletedPart { number: 1, md5: [1; 16] }],
            etag: "e-1".to_owned(),
            checksums: Vec::new(),
            condition: WriteCondition::default(),
            commit: CommitId::random(),
        };
        service.complete_upload(complete).await.is_ok()
    }

    async fn retain(&self, version: VersionId, retention: Option<Retention>, bypass_governance: bool) -> bool {
        self.change(version, VersionChange::Retention { retention, bypass_governance }).await
    }

    async fn change(&self, version: VersionId, change: VersionChange) -> bool {
        let request = UpdateVersion {
            actor: self.fixture.actor.clone(),
            bucket: self.bucket,
            key: ObjectKey::new(KEYS[self.key]).unwrap(),
            version: VersionSelector::Id(version),
            change,
            commit: CommitId::random(),
        };
        self.fixture.service.update_version(request).await.is_ok()
    }

    async fn remove(&self, version: VersionSelector, bypass_governance: bool) -> bool {
        let request = DeleteObject { bypass_governance, ..self.fixture.delete(self.bucket, KEYS[self.key], version) };
        self.fixture.service.delete_object(request).await.is_ok()
    }

    /// Every kind of call was done at least once, and those that a lock can stand in the way of were refused, too.
    fn assert_both_ways(&self) {
        for call in CALLS {
            let counted = self.tally.iter().find(|entry| entry.0 == call);
            let (done, refused) = counted.map_or((0, 0), |&(_, done, refused)| (done, refused));
            assert!(done > 0 || call == Call::Suspend, "{call:?} was never done");
            let can_be_refused = matches!(
                call,
                Call::Shorten(..)
                    | Call::Lift(..)
                    | Call::Change(..)
                    | Call::Remove(..)
                    | Call::DeleteBucket
                    | Call::Suspend
            );
            assert!(refused > 0 || !can_be_refused, "{call:?} was never refused");
        }
    }
}

/// Rules by which everything goes after a day.
fn everything_goes() -> BucketDocument {
    let filter = Filter::new(FilterForm::Single, None, Vec::new(), SizeBounds::default()).unwrap();
    let rule = Rule::new(
        "all".to_owned(),
        Status::Enabled,
        valv_lifecycle::Scope::Filter(filter),
        Some(Expiration::days(1).unwrap()),
        Some(NoncurrentExpiration::new(1, None).unwrap()),
        Some(Rule::abort_days(1).unwrap()),
    );
    let body = Configuration::new(vec![rule.unwrap()], MinimumSize::default()).unwrap().encode();
    BucketDocument { kind: BucketDocumentKind::Lifecycle, body }
}

/// The one sentence. `now` is cluster time right after the call.
fn check(before: &[Seen], after: &[Seen], call: Call, now: TimestampMicros) {
    for old in before {
        let new = after.iter().find(|new| new.id == old.id);
        if old.scope_hold && !old.is_marker {
            assert!(new.is_some(), "{call:?} removed {old:?}, which a hold on its project, bucket or prefix keeps");
        }
        if old.hold {
            let new = new.unwrap_or_else(|| panic!("{call:?} removed {old:?}, which was held"));
            assert!(new.hold || matches!(call, Call::Hold(_, false)), "{call:?} took the hold off {old:?}");
        }
        let Some(retention) = old.retention.filter(|retention| retention.until > now) else { continue };
        let bypasses = matches!(
            call,
            Call::Shorten(_, true) | Call::Lift(_, true) | Call::Change(_, true) | Call::Remove(_, true)
        );
        if retention.mode == RetentionMode::Governance && bypasses {
            continue;
        }
        let new = new.unwrap_or_else(|| panic!("{call:?} removed {old:?} at {now:?}"));
        let kept = new.retention.unwrap_or_else(|| panic!("{call:?} took the retention off {old:?} at {now:?}"));
        let is_stronger = call == Call::ExtendAll && kept.mode == RetentionMode::Compliance;
        assert!(kept.mode == retention.mode || is_stronger, "{call:?} changed {old:?} at {now:?}");
        assert!(kept.until >= retention.until, "{call:?} shortened {old:?} to {kept:?} at {now:?}");
    }
}

impl Run<MemoryStore> {
    /// Tries every sequence of `calls_left` calls from here on. A call that is refused changed nothing, so what would
    /// follow it is a shorter sequence, which is tried elsewhere.
    async fn every_way_on(&mut self, seen: &[Vec<Seen>], calls_left: u32) {
        let (rows, removed) = (self.fixture.store.rows(), self.removed.clone());
        let (holds, minimum_days) = (self.holds.clone(), self.minimum_days);
        for call in CALLS {
            let time = self.now();
            let (done, after) = self.step(call, seen.to_vec()).await;
            if done && calls_left > 1 {
                Box::pin(self.every_way_on(&after, calls_left - 1)).await;
            }
            self.fixture.store.go_back_to(Arc::clone(&rows));
            self.fixture.service.0.clock.go_back_to(time);
            self.removed.clone_from(&removed);
            self.holds.clone_from(&holds);
            self.minimum_days = minimum_days;
        }
    }
}

/// A bucket without versions, made before its project demanded anything: overwriting and deleting remove.
#[test]
fn no_three_calls_remove_what_a_project_keeps_without_versions() {
    block_on(async {
        for first in [Call::Minimum, Call::HoldScope(Scope::Prefix)] {
            let mut run = Run::over(Arc::new(MemoryStore::default())).await;
            run.bucket = run.fixture.bucket("without-versions", false).await;
            run.fixture.set_document(run.bucket, everything_goes()).await;
            let seen = run.look().await;
            let (_, seen) = run.step(first, seen).await;
            let (done, seen) = run.step(Call::Put(Lock::Default), seen).await;
            assert!(done);
            run.every_way_on(&seen, 3).await;
            let refused = |call| run.tally.iter().any(|entry| entry.0 == call && entry.2 > 0);
            assert!(refused(Call::Put(Lock::Default)) && refused(Call::Delete) && refused(Call::Copy));
            assert!(refused(Call::Complete) && refused(Call::RemoveNull) && refused(Call::Lifecycle));
        }
    });
}

#[test]
fn no_three_calls_remove_or_shorten_what_is_protected() {
    block_on(async {
        for first in [Lock::Governance, Lock::Compliance, Lock::Hold] {
            let mut run = Run::over(Arc::new(MemoryStore::default())).await;
            let seen = run.look().await;
            let (done, seen) = run.step(Call::Put(first), seen).await;
            assert!(done);
            run.every_way_on(&seen, 3).await;
            run.assert_both_ways();
        }
    });
}

#[test]
fn no_long_history_removes_or_shortens_what_is_protected() {
    const HISTORIES: u64 = 60;
    const CALLS_IN_ONE: usize = 60;
    let first: u64 = match std::env::var("VALV_LOCK_SEED") {
        Ok(text) => text.parse().expect("VALV_LOCK_SEED is a number"),
        Err(_) => 1,
    };
    block_on(async {
        // In memory if there is such a folder: the commits are those of RocksDB, and nothing here is about the disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let config = RocksConfig::new(folder.path().join("rocks"), Start::First);
        let mut run = Run::over(RocksMetaStore::open(config, None).await.unwrap()).await;
        for seed in first..first + HISTORIES {
            println!("VALV_LOCK_SEED={seed}");
            // SplitMix64 over the seed: the same history everywhere.
            let mut state = seed;
            let mut below = |end: usize| {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                ((mixed ^ (mixed >> 31)) % end as u64) as usize
            };
            run.fresh_bucket().await;
            let mut seen = run.look().await;
            for _ in 0..CALLS_IN_ONE {
                run.key = below(KEYS.len());
                let call = match (CALLS[below(CALLS.len())], below(2)) {
                    (Call::Extend(_), 0) => Call::Extend(Which::Newest),
                    (Call::Shorten(_, bypass), 0) => Call::Shorten(Which::Newest, bypass),
                    (Call::Lift(_, bypass), 0) => Call::Lift(Which::Newest, bypass),
                    (Call::Change(_, bypass), 0) => Call::Change(Which::Newest, bypass),
                    (Call::Hold(_, on), 0) => Call::Hold(Which::Newest, on),
                    (Call::Default(_), 0) => Call::Default(None),
                    // Each ends many protections at once, so they are rarer than by chance.
                    (Call::HoldScope(_) | Call::Minimum, _) if below(4) > 0 => Call::Release,
                    (Call::Forward | Call::Back, _) if below(3) > 0 => Call::Put(Lock::Compliance),
                    (call, _) => call,
                };
                seen = run.step(call, seen).await.1;
            }
            // What is protected is referenced, and nothing of it is queued for deletion.
            run.fixture.service.purge_trash().await.unwrap();
            let doomed: BTreeSet<BlobId> = run.fixture.doomed_blobs().await.into_iter().collect();
            let kept = seen.iter().flatten().flat_map(|seen| &seen.blobs);
            assert!(kept.clone().all(|blob| !doomed.contains(blob)), "a blob that is referenced is to be deleted");
        }
        run.assert_both_ways();
    });
}
