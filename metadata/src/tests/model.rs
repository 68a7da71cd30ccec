//! Random orders of calls on a bucket's versions, against a model that is nothing but lists.

use crate::MetadataConfig;
use crate::testing::{Fixture, block_on};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;
use valv_lifecycle::{
    Configuration, DayLength, Expiration, Filter, FilterForm, MinimumSize, NoncurrentExpiration, Rule, Scope,
    SizeBounds, Status,
};
use valv_metadata_api::*;
use valv_types::{BlobId, BucketId, TimestampMicros, VersionId};

const KEYS: [&[u8]; 3] = [b"a", b"a\0", b"b"];
const RETENTION_SECS: u64 = 1_000;
/// Rules count in hours, so that a pass now finds nothing due and one in [`LATER_SECS`] everything.
const DAY_SECS: u64 = 3_600;
const LATER_SECS: u64 = 100 * DAY_SECS;

#[derive(Debug, Clone)]
enum Op {
    Put { key: usize, inline: bool, lock: Option<RetentionMode>, hold: bool },
    Delete { key: usize },
    DeleteNull { key: usize },
    DeleteVersion { key: usize, at: usize, bypass: bool },
    Copy { key: usize, at: usize, to: usize },
    Versioning(Versioning),
    Retention { key: usize, at: usize, mode: Option<RetentionMode>, shorter: bool, bypass: bool },
    Hold { key: usize, at: usize, on: bool },
    Tags { key: usize, at: usize },
    Time { secs: u64 },
    Purge,
    Lifecycle { later: bool },
}

fn mode() -> impl Strategy<Value = RetentionMode> {
    prop_oneof![Just(RetentionMode::Governance), Just(RetentionMode::Compliance)]
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..KEYS.len();
    prop_oneof![
        5 => (key.clone(), any::<bool>(), prop::option::weighted(0.3, mode()), prop::bool::weighted(0.1))
            .prop_map(|(key, inline, lock, hold)| Op::Put { key, inline, lock, hold }),
        3 => key.clone().prop_map(|key| Op::Delete { key }),
        1 => key.clone().prop_map(|key| Op::DeleteNull { key }),
        3 => (key.clone(), 0..6usize, any::<bool>())
            .prop_map(|(key, at, bypass)| Op::DeleteVersion { key, at, bypass }),
        2 => (key.clone(), 0..6usize, key.clone()).prop_map(|(key, at, to)| Op::Copy { key, at, to }),
        1 => prop_oneof![Just(Versioning::Enabled), Just(Versioning::Suspended)].prop_map(Op::Versioning),
        1 => (key.clone(), 0..6usize, prop::option::of(mode()), any::<bool>(), any::<bool>())
            .prop_map(|(key, at, mode, shorter, bypass)| Op::Retention { key, at, mode, shorter, bypass }),
        1 => (key.clone(), 0..6usize, any::<bool>()).prop_map(|(key, at, on)| Op::Hold { key, at, on }),
        1 => (key, 0..6usize).prop_map(|(key, at)| Op::Tags { key, at }),
        1 => prop_oneof![Just(1u64), Just(RETENTION_SECS)].prop_map(|secs| Op::Time { secs }),
        1 => Just(Op::Purge),
        2 => prop::bool::weighted(0.8).prop_map(|later| Op::Lifecycle { later }),
    ]
}

/// The rules of a run: keys that begin with `a` expire; of noncurrent versions so many newer ones are kept; delete
/// markers with nothing under them go.
#[derive(Debug, Clone, Copy)]
struct Rules {
    expires: bool,
    noncurrent: Option<Option<i64>>,
    markers: bool,
}

fn rules() -> impl Strategy<Value = Rules> {
    (any::<bool>(), prop::option::of(prop::option::of(1..3i64)), any::<bool>())
        .prop_map(|(expires, noncurrent, markers)| Rules { expires, noncurrent, markers })
}

impl Rules {
    fn document(self) -> BucketDocument {
        let rule = |id: &str, prefix: &str, expiration, noncurrent| {
            let filter = Filter::new(FilterForm::Single, Some(prefix.to_owned()), vec![], SizeBounds::default());
            Rule::new(id.to_owned(), Status::Enabled, Scope::Filter(filter.unwrap()), expiration, noncurrent, None)
        };
        let noncurrent = self.noncurrent.map(|newer| NoncurrentExpiration::new(10, newer).unwrap());
        let made = [
            rule("expires", "a", self.expires.then(|| Expiration::days(10).unwrap()), None),
            rule("noncurrent", "", None, noncurrent),
            rule("markers", "", Some(Expiration::DeleteMarker(self.markers)), None),
        ];
        let rules = made.into_iter().flatten().collect();
        let body = Configuration::new(rules, MinimumSize::default()).unwrap().encode();
        BucketDocument { kind: BucketDocumentKind::Lifecycle, body }
    }
}

#[derive(Debug, Clone)]
struct Version {
    id: VersionId,
    null: bool,
    marker: bool,
    etag: String,
    blob: Option<BlobId>,
    retention: Option<Retention>,
    hold: bool,
}

/// What the architecture and AWS's documentation say, as lists: each key's versions, newest first.
struct Model {
    versioning: Versioning,
    lock: bool,
    keys: [Vec<Version>; KEYS.len()],
    shards: BTreeSet<BlobId>,
}

fn locked(version: &Version, bypass: bool, now: TimestampMicros) -> bool {
    let kept = version
        .retention
        .is_some_and(|retention| retention.until > now && (retention.mode == RetentionMode::Compliance || !bypass));
    version.hold || kept
}

impl Model {
    /// Adds a version on top, as a write does in the bucket's state.
    fn add(&mut self, key: usize, mut version: Version) {
        version.null = self.versioning != Versioning::Enabled;
        if version.null {
            self.keys[key].retain(|other| !other.null);
        }
        self.keys[key].insert(0, version);
    }

    /// Whether a null version in the way is locked.
    fn null_is_locked(&self, key: usize, now: TimestampMicros) -> bool {
        self.versioning != Versioning::Enabled && self.keys[key].iter().any(|v| v.null && locked(v, false, now))
    }

    fn live_shards(&self) -> BTreeSet<BlobId> {
        let blobs = self.keys.iter().flatten().filter_map(|version| version.blob);
        blobs.filter(|blob| self.shards.contains(blob)).collect()
    }
}

struct Run {
    fixture: Fixture,
    bucket: BucketId,
    model: Model,
    rules: Rules,
}

impl Run {
    fn now(&self) -> TimestampMicros {
        self.fixture.service.0.clock.now()
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Put { key, inline, lock, hold } => self.put(key, inline, lock, hold).await,
            Op::Delete { key } => self.delete(key).await,
            Op::DeleteNull { key } => {
                let at = self.model.keys[key].iter().position(|version| version.null);
                self.remove(key, VersionSelector::Null, at, false).await;
            }
            Op::DeleteVersion { key, at, bypass } => match self.model.keys[key].get(at) {
                Some(version) => self.remove(key, VersionSelector::Id(version.id), Some(at), bypass).await,
                None => self.remove(key, VersionSelector::Id(VersionId::random()), None, bypass).await,
            },
            Op::Copy { key, at, to } => self.copy(key, at, to).await,
            Op::Versioning(versioning) => {
                let refused = versioning == Versioning::Suspended && self.model.lock;
                let changed = self.fixture.versioning(self.bucket, versioning).await;
                assert_eq!(changed.is_err(), refused);
                if !refused {
                    self.model.versioning = versioning;
                }
            }
            Op::Retention { key, at, mode, shorter, bypass } => self.retention(key, at, mode, shorter, bypass).await,
            Op::Hold { key, at, on } => {
                let Some(version) = self.model.keys[key].get_mut(at).filter(|version| !version.marker) else { return };
                let change = VersionChange::LegalHold(on);
                let changed = update(&self.fixture, self.bucket, key, version.id, change).await;
                assert_eq!(changed.is_ok(), self.model.lock, "{changed:?}");
                if changed.is_ok() {
                    version.hold = on;
                }
            }
            Op::Tags { key, at } => {
                let Some(version) = self.model.keys[key].get(at).filter(|version| !version.marker) else { return };
                let tags = vec![("t".to_owned(), version.etag.clone())];
                let change = VersionChange::Tags(tags.clone());
                let changed = update(&self.fixture, self.bucket, key, version.id, change).await.unwrap();
                assert_eq!((changed.version.attributes.tags, changed.is_current), (tags, at == 0));
            }
            Op::Time { secs } => self.fixture.service.0.clock.advance_secs(secs),
            Op::Purge => {
                self.fixture.service.purge_trash().await.unwrap();
            }
            Op::Lifecycle { later } => self.lifecycle(later).await,
        }
    }

    async fn put(&mut self, key: usize, inline: bool, lock: Option<RetentionMode>, hold: bool) {
        let mut request = self.fixture.put(self.bucket, KEYS[key]);
        if inline {
            let blob = self.fixture.blob(5, BlobPlace::Inline);
            request.attributes.etag = blob.blob.to_string();
            request.body = NewBody::Inline(blob, vec![9; 21]);
        }
        let retention = lock.map(|mode| Retention { mode, until: self.now().plus_secs(RETENTION_SECS) });
        request.lock = LockRequest { retention, legal_hold: hold };
        let (NewBody::Inline(blob, _) | NewBody::Blob(blob)) = request.body.clone() else { unreachable!() };
        let version = Version {
            id: VersionId::from_bytes(*request.commit.as_bytes()),
            null: false,
            marker: false,
            etag: request.attributes.etag.clone(),
            blob: Some(blob.blob),
            retention,
            hold,
        };
        let (again, now) = (request.clone(), self.now());
        let refused = (!self.model.lock && (retention.is_some() || hold)) || self.model.null_is_locked(key, now);
        let written = self.fixture.service.put_object(request).await;
        assert_eq!(written.is_err(), refused, "{written:?}");
        if let Ok(written) = written {
            assert_eq!(self.fixture.service.put_object(again).await.unwrap(), written, "repeated");
            if !inline {
                self.model.shards.insert(blob.blob);
            }
            self.model.add(key, version);
        }
    }

    async fn delete(&mut self, key: usize) {
        let request = self.fixture.delete(self.bucket, KEYS[key], VersionSelector::Current);
        let id = VersionId::from_bytes(*request.commit.as_bytes());
        let (existed, now) = (self.model.keys[key].first().is_some_and(|version| !version.marker), self.now());
        let refused = self.model.null_is_locked(key, now);
        let deleted = self.fixture.service.delete_object(request).await;
        assert_eq!(deleted.is_err(), refused, "{deleted:?}");
        let Ok(deleted) = deleted else { return };
        assert_eq!(deleted.existed, existed);
        if self.model.versioning == Versioning::Unversioned {
            assert!(!deleted.delete_marker);
            self.model.keys[key].clear();
        } else {
            assert!(deleted.delete_marker);
            let marker = Version {
                id,
                null: false,
                marker: true,
                etag: String::new(),
                blob: None,
                retention: None,
                hold: false,
            };
            self.model.add(key, marker);
        }
    }

    async fn remove(&mut self, key: usize, selector: VersionSelector, at: Option<usize>, bypass: bool) {
        let mut request = self.fixture.delete(self.bucket, KEYS[key], selector);
        request.bypass_governance = bypass;
        let (model, now) = (at.map(|at| &self.model.keys[key][at]), self.now());
        let refused = model.is_some_and(|version| locked(version, bypass, now));
        let deleted = self.fixture.service.delete_object(request).await;
        assert_eq!(deleted.is_err(), refused, "{deleted:?}");
        let Ok(deleted) = deleted else { return };
        assert_eq!(deleted.existed, at.is_some());
        assert_eq!(deleted.delete_marker, model.is_some_and(|version| version.marker));
        if let Some(at) = at {
            self.model.keys[key].remove(at);
        }
    }

    async fn copy(&mut self, key: usize, at: usize, to: usize) {
        let Some(source) = self.model.keys[key].get(at).cloned() else { return };
        let request = self.fixture.copy(self.bucket, (KEYS[key], source.id), KEYS[to]);
        let id = VersionId::from_bytes(*request.commit.as_bytes());
        let refused = source.marker || self.model.null_is_locked(to, self.now());
        let copied = self.fixture.service.copy_object(request).await;
        assert_eq!(copied.is_err(), refused, "{copied:?}");
        if !refused {
            let copy = Version { id, etag: "copied".to_owned(), retention: None, hold: false, ..source };
            self.model.add(to, copy);
        }
    }

    async fn retention(&mut self, key: usize, at: usize, mode: Option<RetentionMode>, shorter: bool, bypass: bool) {
        let now = self.now();
        let Some(version) = self.model.keys[key].get_mut(at).filter(|version| !version.marker) else { return };
        let secs = if shorter { RETENTION_SECS / 2 } else { RETENTION_SECS * 2 };
        let new = mode.map(|mode| Retention { mode, until: now.plus_secs(secs) });
        let in_force = version.retention.filter(|old| old.until > now);
        let allowed = match in_force {
            None => true,
            Some(old) => {
                let extends = new.is_some_and(|new| new.mode == old.mode && new.until >= old.until);
                extends || (old.mode == RetentionMode::Governance && bypass)
            }
        };
        let change = VersionChange::Retention { retention: new, bypass_governance: bypass };
        let changed = update(&self.fixture, self.bucket, key, version.id, change).await;
        assert_eq!(changed.is_ok(), allowed && self.model.lock, "{changed:?}");
        if changed.is_ok() {
            version.retention = new;
        }
    }

    async fn lifecycle(&mut self, later: bool) {
        let now = TimestampMicros::now().plus_secs(if later { LATER_SECS } else { 0 });
        let counts = self.fixture.service.run_lifecycle(now).await.unwrap();
        assert_eq!((counts.left, counts.failed), (0, 0));
        let listed = self.fixture.versions(self.bucket).await;
        let cluster_time = self.now();
        for (at, name) in KEYS.iter().enumerate() {
            let versions = self.model.keys[at].clone();
            let Some(current) = versions.first().cloned() else { continue };
            if let (true, Some(kept)) = (later, self.rules.noncurrent) {
                let kept = kept.unwrap_or(0) as usize;
                let mut place = 0;
                self.model.keys[at].retain(|version| {
                    // The current version stands at 0, so noncurrent version n has n - 1 newer noncurrent ones.
                    place += 1;
                    place == 1 || place - 2 < kept || locked(version, false, cluster_time)
                });
            }
            if current.marker {
                // Rules look at a key as the scan saw it: a marker whose versions went in this pass goes in the next.
                let goes = self.rules.markers || (later && self.rules.expires && name.starts_with(b"a"));
                if goes && versions.len() == 1 {
                    self.model.keys[at].clear();
                }
                continue;
            }
            if !(later && self.rules.expires && name.starts_with(b"a")) {
                continue;
            }
            if self.model.versioning == Versioning::Unversioned {
                if !locked(&current, false, cluster_time) {
                    self.model.keys[at].clear();
                }
                continue;
            }
            // The marker's id is the commit's, which nobody else knows.
            let top = listed.iter().find(|entry| entry.key.as_bytes() == *name).unwrap();
            let marker = Version {
                id: top.id,
                null: false,
                marker: true,
                etag: String::new(),
                blob: None,
                retention: None,
                hold: false,
            };
            self.model.add(at, marker);
        }
    }

    /// The bucket as listed and read equals the model.
    async fn compare(&self) {
        let listed = self.fixture.versions(self.bucket).await;
        let mut entries = listed.iter();
        for (key, versions) in KEYS.iter().zip(&self.model.keys) {
            for (at, version) in versions.iter().enumerate() {
                let entry = entries.next().expect("a version is missing from the listing");
                assert_eq!(entry.key.as_bytes(), *key);
                assert_eq!(
                    (entry.id, entry.is_null, entry.is_delete_marker),
                    (version.id, version.null, version.marker)
                );
                assert_eq!((entry.is_current, &entry.etag), (at == 0, &version.etag));
                let selector = if version.null { VersionSelector::Null } else { VersionSelector::Id(version.id) };
                let found =
                    self.fixture.service.get_object(self.fixture.get(self.bucket, key, selector)).await.unwrap();
                assert_eq!(found.version.id, version.id);
                assert_eq!((found.is_current, found.version.retention), (at == 0, version.retention));
                assert_eq!(found.version.legal_hold, version.hold);
                assert_eq!(found.version.attributes.etag, version.etag);
                let is_inline = version.blob.is_some_and(|blob| !self.model.shards.contains(&blob));
                assert_eq!(found.inline.is_some(), is_inline);
            }
            let orders: Vec<_> =
                listed.iter().filter(|entry| entry.key.as_bytes() == *key).map(|entry| entry.modified).collect();
            assert!(orders.windows(2).all(|pair| pair[0] > pair[1]), "{orders:?}");
            let current = self.fixture.get(self.bucket, key, VersionSelector::Current);
            let current = self.fixture.service.get_object(current).await.map(|found| found.version.id);
            assert_eq!(current.ok(), versions.first().map(|version| version.id));
        }
        assert!(entries.next().is_none(), "the listing has a version too many");
    }
}

async fn update(
    fixture: &Fixture,
    bucket: BucketId,
    key: usize,
    id: VersionId,
    change: VersionChange,
) -> Result<FoundObject, MetadataError> {
    let request = UpdateVersion {
        actor: fixture.actor.clone(),
        bucket,
        key: ObjectKey::new(KEYS[key]).unwrap(),
        version: VersionSelector::Id(id),
        change,
        commit: valv_types::CommitId::random(),
    };
    fixture.service.update_version(request).await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn any_order_of_calls_agrees_with_the_model_and_leaks_no_blob(
        lock in any::<bool>(),
        rules in rules(),
        ops in prop::collection::vec(op(), 1..40),
    ) {
        block_on(async {
            let lifecycle_day = DayLength::new(Duration::from_secs(DAY_SECS)).unwrap();
            let config = MetadataConfig { trash_secs: 0, lifecycle_day, ..MetadataConfig::default() };
            let fixture = Fixture::with_config(config).await;
            let bucket = fixture.bucket("model", lock).await;
            fixture.set_document(bucket, rules.document()).await;
            let versioning = if lock { Versioning::Enabled } else { Versioning::Unversioned };
            let model = Model { versioning, lock, keys: Default::default(), shards: BTreeSet::new() };
            let mut run = Run { fixture, bucket, model, rules };
            for op in ops {
                run.apply(op).await;
                run.compare().await;
            }
            // What is referenced is exactly what the model holds, and everything else is queued for deletion once.
            run.fixture.service.purge_trash().await.unwrap();
            let live = run.model.live_shards();
            assert_eq!(run.fixture.live_blobs().await, live.iter().copied().collect::<Vec<_>>());
            let doomed: Vec<_> = run.model.shards.difference(&live).copied().collect();
            assert_eq!(run.fixture.doomed_blobs().await, doomed);
            let inline: BTreeSet<_> = run.model.keys.iter().flatten().filter_map(|version| version.blob).collect();
            let inline = inline.difference(&live).count();
            assert_eq!(run.fixture.store.count(crate::rows::Tag::Inline), inline);
        });
    }
}
