//! Lifecycle over the embedded store: what goes, what stays, and what a change between scan and commit does.

use super::*;
use crate::MetadataConfig;
use crate::records::{self, EventKind, LedgerRecord};
use crate::rows::Tag;
use crate::seal::Place;
use crate::store::{MetaStore as _, RocksConfig, RocksMetaStore, Start};
use crate::testing::Fixture;
use valv_lifecycle::{
    Configuration, DayLength, Days, Expiration, Filter, FilterForm, MinimumSize, NoncurrentExpiration, Rule, Scope,
    SizeBounds, Status,
};
use valv_metadata_api::*;
use valv_types::CommitId;

const DAY_SECS: u64 = 3_600;

fn config() -> MetadataConfig {
    let lifecycle_day = DayLength::new(Duration::from_secs(DAY_SECS)).unwrap();
    MetadataConfig { trash_secs: 0, lifecycle_day, ..MetadataConfig::default() }
}

/// A service over RocksDB, without a mirror.
async fn on_disk(config: MetadataConfig) -> OnDisk {
    let folder = tempfile::tempdir().unwrap();
    let store = RocksMetaStore::open(RocksConfig::new(folder.path().join("rows"), Start::First), None).await.unwrap();
    OnDisk { fixture: Fixture::over(store, config).await, _folder: folder }
}

/// A fixture with the folder of its store.
struct OnDisk {
    fixture: Fixture<RocksMetaStore>,
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for OnDisk {
    type Target = Fixture<RocksMetaStore>;

    fn deref(&self) -> &Self::Target {
        &self.fixture
    }
}

fn prefix(prefix: &str) -> Scope {
    Scope::Filter(Filter::new(FilterForm::Single, Some(prefix.to_owned()), vec![], SizeBounds::default()).unwrap())
}

fn rule(
    id: &str,
    scope: Scope,
    expiration: Option<Expiration>,
    noncurrent: Option<NoncurrentExpiration>,
    abort: Option<Days>,
) -> Rule {
    Rule::new(id.to_owned(), Status::Enabled, scope, expiration, noncurrent, abort).unwrap()
}

fn days(days: i64) -> Option<Expiration> {
    Some(Expiration::days(days).unwrap())
}

fn noncurrent(days: i64, newer: Option<i64>) -> Option<NoncurrentExpiration> {
    Some(NoncurrentExpiration::new(days, newer).unwrap())
}

fn document(rules: Vec<Rule>) -> BucketDocument {
    let body = Configuration::new(rules, MinimumSize::default()).unwrap().encode();
    BucketDocument { kind: BucketDocumentKind::Lifecycle, body }
}

fn in_days(days: u64) -> TimestampMicros {
    TimestampMicros::now().plus_secs(days * DAY_SECS + 60)
}

impl Fixture<RocksMetaStore> {
    async fn keys(&self, bucket: BucketId) -> Vec<String> {
        let entries = self.versions(bucket).await;
        let shown = entries.iter().map(|entry| {
            let mark = if entry.is_delete_marker { "!" } else { "" };
            format!("{}{mark}", String::from_utf8_lossy(entry.key.as_bytes()))
        });
        shown.collect()
    }

    async fn pass(&self, days: u64) -> LifecycleCounts {
        self.service.run_lifecycle(in_days(days)).await.unwrap()
    }

    /// The ledger's records of a kind, with key and rule.
    async fn ledger(&self, kind: EventKind) -> Vec<(String, Option<String>)> {
        let core = &self.service.0;
        let range = core.rows.range(Tag::Ledger, &[]);
        let snapshot = self.store.snapshot().await.unwrap();
        let mut cursor = snapshot.scan(&range.start, &range.end).unwrap();
        let mut found = Vec::new();
        while let Some((key, row)) = cursor.next().unwrap() {
            let record: LedgerRecord = records::decode("ledger", &row.value).unwrap();
            if record.kind != kind {
                continue;
            }
            assert_eq!(record.user, None);
            let commit = CommitId::from_bytes(crate::rows::last_id(&key).unwrap());
            let place = Place::Ledger(self.actor.project, commit);
            let names: valv_ledger::Names = core.seals.open(place, record.key_version, &record.sealed).unwrap();
            found.push((String::from_utf8(names.subject).unwrap(), names.rule));
        }
        found.sort();
        found
    }
}

#[tokio::test]
async fn current_versions_go_by_prefix_tag_size_and_all_of_them_when_their_days_are_over() {
    let fixture = on_disk(config()).await;
    let bucket = fixture.bucket("b", false).await;
    let tag = |key: &str| (key.to_owned(), "v".to_owned());
    let filter = |form, prefix: Option<&str>, tags, sizes| {
        Scope::Filter(Filter::new(form, prefix.map(str::to_owned), tags, sizes).unwrap())
    };
    let none = SizeBounds::default;
    let small = SizeBounds::new(None, Some(10)).unwrap();
    let rules = vec![
        rule("prefix", prefix("logs/"), days(1), None, None),
        rule("tag", filter(FilterForm::Single, None, vec![tag("t")], none()), days(2), None, None),
        rule("size", filter(FilterForm::Single, None, vec![], small), days(3), None, None),
        rule("and", filter(FilterForm::And, Some("x/"), vec![tag("a"), tag("b")], none()), days(1), None, None),
    ];
    fixture.set_document(bucket, document(rules)).await;
    let put = async |key: &str, tags: &[&str], len_bytes: u64| {
        let mut request = fixture.put(bucket, key.as_bytes());
        request.attributes.tags = tags.iter().map(|key| tag(key)).collect();
        request.body = NewBody::Blob(fixture.blob(len_bytes, BlobPlace::Shards));
        fixture.service.put_object(request).await.unwrap();
    };
    put("logs/1", &[], 99).await;
    put("k", &[], 99).await;
    put("small", &[], 9).await;
    put("tagged", &["t"], 99).await;
    put("x/all", &["a", "b"], 99).await;
    put("x/some", &["a"], 99).await;
    assert_eq!(fixture.pass(0).await, LifecycleCounts::default());
    assert_eq!(fixture.pass(1).await, LifecycleCounts { expired: 2, ..Default::default() });
    assert_eq!(fixture.keys(bucket).await, ["k", "small", "tagged", "x/some"]);
    assert_eq!(fixture.pass(2).await, LifecycleCounts { expired: 1, ..Default::default() });
    assert_eq!(fixture.pass(3).await, LifecycleCounts { expired: 1, ..Default::default() });
    assert_eq!(fixture.keys(bucket).await, ["k", "x/some"]);
    let by = |key: &str, rule: &str| (key.to_owned(), Some(rule.to_owned()));
    let ledger = fixture.ledger(EventKind::VersionExpired).await;
    assert_eq!(ledger, [by("logs/1", "prefix"), by("small", "size"), by("tagged", "tag"), by("x/all", "and")]);
    fixture.service.purge_trash().await.unwrap();
    assert_eq!(fixture.doomed_blobs().await.len(), 4);
}

#[tokio::test]
async fn a_version_is_covered_then_removed_and_its_marker_goes_last() {
    let fixture = on_disk(config()).await;
    let bucket = fixture.bucket("b", false).await;
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    fixture.put_now(bucket, b"k").await;
    fixture.put_now(bucket, b"other").await;
    fixture.set_document(bucket, document(vec![rule("r", prefix("k"), days(1), noncurrent(1, None), None)])).await;
    assert_eq!(fixture.pass(1).await, LifecycleCounts { covered: 1, ..Default::default() });
    assert_eq!(fixture.keys(bucket).await, ["k!", "k", "other"]);
    assert_eq!(fixture.ledger(EventKind::DeleteMarkerByRule).await.len(), 1);
    let owner = fixture.versions(bucket).await[0].owner;
    assert_eq!(owner, fixture.actor.user, "the bucket's owner owns the marker");
    // The marker is new, and so is the version's being noncurrent.
    assert_eq!(fixture.pass(0).await, LifecycleCounts::default());
    assert_eq!(fixture.pass(1).await, LifecycleCounts { noncurrent: 1, ..Default::default() });
    assert_eq!(fixture.pass(1).await, LifecycleCounts { markers: 1, ..Default::default() });
    assert_eq!(fixture.keys(bucket).await, ["other"]);
    assert_eq!(fixture.ledger(EventKind::VersionExpired).await.len(), 2);
}

#[tokio::test]
async fn null_versions_of_a_suspended_bucket_are_replaced_by_null_markers() {
    let fixture = on_disk(config()).await;
    let bucket = fixture.bucket("b", false).await;
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    let kept = fixture.put_now(bucket, b"k").await;
    fixture.versioning(bucket, Versioning::Suspended).await.unwrap();
    fixture.put_now(bucket, b"k").await;
    fixture.set_document(bucket, document(vec![rule("r", prefix(""), days(1), None, None)])).await;
    assert_eq!(fixture.pass(1).await, LifecycleCounts { covered: 1, ..Default::default() });
    let versions = fixture.versions(bucket).await;
    assert_eq!(versions.len(), 2);
    assert!(versions[0].is_null && versions[0].is_delete_marker);
    assert_eq!(versions[1].id, kept.version);
}

#[tokio::test]
async fn thousands_of_noncurrent_versions_go_over_several_pages_but_for_the_newest_ones() {
    let fixture = on_disk(config()).await;
    let bucket = fixture.bucket("b", false).await;
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    for at in 0..2_600u32 {
        let key: &[u8] = if at % 2_000 == 0 { b"a" } else { b"k" };
        let mut request = fixture.put(bucket, key);
        request.body = NewBody::Empty;
        fixture.service.put_object(request).await.unwrap();
    }
    fixture.set_document(bucket, document(vec![rule("r", prefix(""), None, noncurrent(1, Some(3)), None)])).await;
    let first = fixture.pass(1).await;
    // The first version of a page loses its successor to the page before, and waits for the next pass.
    assert_eq!(first.noncurrent + first.left, 2_598 - 1 - 3);
    assert!(first.left <= 2, "{first:?}");
    let second = fixture.pass(1).await;
    assert_eq!((second.noncurrent, second.left), (first.left, 0));
    assert_eq!(fixture.keys(bucket).await, ["a", "a", "k", "k", "k", "k"]);
}

#[tokio::test]
async fn what_is_locked_stays_while_its_neighbours_go() {
    let fixture = on_disk(config()).await;
    let bucket = fixture.bucket("b", true).await;
    let until = fixture.service.0.clock.now().plus_secs(1_000_000);
    for (key, mode, hold) in [
        ("c", Some(RetentionMode::Compliance), false),
        ("g", Some(RetentionMode::Governance), false),
        ("h", None, true),
        ("n", None, false),
    ] {
        let mut request = fixture.put(bucket, key.as_bytes());
        request.lock = LockRequest { retention: mode.map(|mode| Retention { mode, until }), legal_hold: hold };
        fixture.service.put_object(request).await.unwrap();
        fixture.put_now(bucket, key.as_bytes()).await;
    }
    fixture.set_document(bucket, document(vec![rule("r", prefix(""), days(1), noncurrent(1, None), None)])).await;
    let first = fixture.pass(1).await;
    assert_eq!((first.noncurrent, first.covered), (1, 4));
    fixture.pass(2).await;
    assert_eq!(fixture.keys(bucket).await, ["c!", "c", "g!", "g", "h!", "h", "n!"]);
    // Retention is over; the hold has no end. The marker that was left alone by then goes, too.
    fixture.service.0.clock.advance_secs(1_000_001);
    fixture.pass(2).await;
    assert_eq!(fixture.keys(bucket).await, ["c!", "g!", "h!", "h"]);
}

#[tokio::test]
async fn a_lock_that_came_after_the_scan_holds() {
    let fixture = on_disk(config()).await;
    let bucket = fixture.bucket("b", true).await;
    let version = fixture.put_now(bucket, b"k").await.version;
    fixture.put_now(bucket, b"k").await;
    fixture.set_document(bucket, document(vec![rule("r", prefix(""), None, noncurrent(1, None), None)])).await;
    let scanned = scan(&fixture, bucket, in_days(1)).await;
    assert_eq!(scanned.work.len(), 1);
    let hold = UpdateVersion {
        actor: fixture.actor.clone(),
        bucket,
        key: ObjectKey::new(b"k").unwrap(),
        version: VersionSelector::Id(version),
        change: VersionChange::LegalHold(true),
        commit: CommitId::random(),
    };
    fixture.service.update_version(hold).await.unwrap();
    let counts = carry_out(&fixture, bucket, scanned, in_days(1)).await;
    assert_eq!(counts, LifecycleCounts { locked: 1, ..Default::default() });
    assert_eq!(fixture.keys(bucket).await, ["k", "k"]);
}

async fn scan(fixture: &Fixture<RocksMetaStore>, bucket: BucketId, now: TimestampMicros) -> Page {
    let core = &fixture.service.0;
    let page = core.scan(move |core, snapshot| core.scan_lifecycle(snapshot, bucket, Stage::default(), now)).await;
    page.unwrap().unwrap()
}

async fn carry_out(
    fixture: &Fixture<RocksMetaStore>,
    bucket: BucketId,
    page: Page,
    now: TimestampMicros,
) -> LifecycleCounts {
    let mut pass = Pass::default();
    fixture.service.0.carry_out_page(&mut pass, bucket, page, now).await.unwrap();
    pass.counts
}

#[tokio::test]
async fn what_changed_after_the_scan_is_left_alone() {
    let left = |left| LifecycleCounts { left, ..Default::default() };
    let fixture = on_disk(config()).await;
    let rules = || document(vec![rule("r", prefix(""), days(1), noncurrent(1, Some(1)), None)]);

    // Overwritten: the new version is not the one that was due.
    let bucket = fixture.bucket("overwritten", false).await;
    fixture.put_now(bucket, b"k").await;
    fixture.set_document(bucket, rules()).await;
    let scanned = scan(&fixture, bucket, in_days(1)).await;
    fixture.put_now(bucket, b"k").await;
    assert_eq!(carry_out(&fixture, bucket, scanned, in_days(1)).await, left(1));
    assert_eq!(fixture.keys(bucket).await, ["k"]);

    // The rules were taken back.
    let scanned = scan(&fixture, bucket, in_days(1)).await;
    let change = BucketChange::RemoveDocument(BucketDocumentKind::Lifecycle);
    let request = UpdateBucket { actor: fixture.actor.clone(), bucket, change, commit: CommitId::random() };
    fixture.service.update_bucket(request).await.unwrap();
    assert_eq!(carry_out(&fixture, bucket, scanned, in_days(1)).await, left(1));
    assert_eq!(fixture.pass(1).await, LifecycleCounts::default());

    // A newer noncurrent version was removed, so the one that was due is among those kept.
    let bucket = fixture.bucket("fewer", false).await;
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(fixture.put_now(bucket, b"k").await.version);
    }
    fixture.set_document(bucket, document(vec![rule("r", prefix(""), None, noncurrent(1, Some(1)), None)])).await;
    let scanned = scan(&fixture, bucket, in_days(1)).await;
    assert_eq!(scanned.work.len(), 1);
    fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Id(made[1]))).await.unwrap();
    assert_eq!(carry_out(&fixture, bucket, scanned, in_days(1)).await, left(1));
    assert_eq!(fixture.keys(bucket).await, ["k", "k"]);

    // The current version was removed, so the noncurrent one is current again.
    let bucket = fixture.bucket("current-again", false).await;
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    fixture.put_now(bucket, b"k").await;
    let newest = fixture.put_now(bucket, b"k").await.version;
    fixture.set_document(bucket, document(vec![rule("r", prefix(""), None, noncurrent(1, None), None)])).await;
    let scanned = scan(&fixture, bucket, in_days(1)).await;
    fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Id(newest))).await.unwrap();
    assert_eq!(carry_out(&fixture, bucket, scanned, in_days(1)).await, left(1));
    assert_eq!(fixture.keys(bucket).await, ["k"]);

    // Something was written over a lone delete marker.
    let bucket = fixture.bucket("no-longer-alone", false).await;
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Current)).await.unwrap();
    let markers = rule("r", prefix(""), Some(Expiration::DeleteMarker(true)), None, None);
    fixture.set_document(bucket, document(vec![markers])).await;
    let scanned = scan(&fixture, bucket, in_days(0)).await;
    fixture.put_now(bucket, b"k").await;
    assert_eq!(carry_out(&fixture, bucket, scanned, in_days(0)).await, left(1));
    assert_eq!(fixture.keys(bucket).await, ["k", "k!"]);
}

#[tokio::test]
async fn a_version_that_was_noncurrent_under_a_new_successor_is_judged_by_that_one() {
    let fixture = on_disk(config()).await;
    let bucket = fixture.bucket("b", false).await;
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    fixture.put_now(bucket, b"k").await;
    fixture.put_now(bucket, b"k").await;
    fixture.set_document(bucket, document(vec![rule("r", prefix(""), None, noncurrent(1, None), None)])).await;
    let scanned = scan(&fixture, bucket, in_days(1)).await;
    // The successor became noncurrent meanwhile. It still is the successor.
    fixture.put_now(bucket, b"k").await;
    let counts = carry_out(&fixture, bucket, scanned, in_days(1)).await;
    assert_eq!(counts, LifecycleCounts { noncurrent: 1, ..Default::default() });
    assert_eq!(fixture.keys(bucket).await.len(), 2);
}

#[tokio::test]
async fn uploads_that_nobody_finishes_are_aborted_by_prefix() {
    let fixture = on_disk(config()).await;
    let bucket = fixture.bucket("b", false).await;
    let open = async |key: &str| {
        let request = CreateUpload {
            actor: fixture.actor.clone(),
            bucket,
            key: ObjectKey::new(key.as_bytes()).unwrap(),
            attributes: Attributes::default(),
            lock: LockRequest::default(),
            checksum: None,
            commit: CommitId::random(),
        };
        fixture.service.create_upload(request).await.unwrap().id
    };
    let doomed = open("tmp/1").await;
    let kept = open("keep/1").await;
    let part = PutPart {
        actor: fixture.actor.clone(),
        bucket,
        key: ObjectKey::new(b"tmp/1").unwrap(),
        upload: doomed,
        number: 1,
        body: NewBody::Blob(fixture.blob(9, BlobPlace::Shards)),
        md5: [0; 16],
        checksums: Vec::new(),
        proof: fixture.proof(),
        commit: CommitId::random(),
    };
    fixture.service.put_part(part).await.unwrap();
    let abort = Some(Rule::abort_days(2).unwrap());
    fixture.set_document(bucket, document(vec![rule("r", prefix("tmp/"), None, None, abort)])).await;
    assert_eq!(fixture.pass(1).await, LifecycleCounts::default());
    assert_eq!(fixture.pass(2).await, LifecycleCounts { uploads: 1, ..Default::default() });
    let request = ListUploads {
        bucket,
        prefix: Vec::new(),
        delimiter: Vec::new(),
        after: Vec::new(),
        after_upload: None,
        limit: 10,
    };
    let left = fixture.service.list_uploads(request).await.unwrap().uploads;
    assert_eq!(left.iter().map(|upload| upload.id).collect::<Vec<_>>(), [kept]);
    assert_eq!(fixture.ledger(EventKind::UploadExpired).await, [("tmp/1".to_owned(), Some("r".to_owned()))]);
    fixture.service.purge_trash().await.unwrap();
    assert_eq!(fixture.doomed_blobs().await.len(), 1, "its part goes too");
}

#[tokio::test]
async fn a_bucket_that_cannot_be_read_or_is_being_deleted_holds_up_no_other() {
    let fixture = on_disk(config()).await;
    let rules = || document(vec![rule("r", prefix(""), days(1), None, None)]);
    let mut buckets = Vec::new();
    for name in ["one", "two", "three"] {
        let bucket = fixture.bucket(name, false).await;
        fixture.put_now(bucket, b"k").await;
        fixture.set_document(bucket, rules()).await;
        buckets.push(bucket);
    }
    let nonsense = BucketDocument { kind: BucketDocumentKind::Lifecycle, body: b"no rules".to_vec() };
    fixture.set_document(buckets[0], nonsense).await;
    let core = &fixture.service.0;
    let key = core.rows.bucket(buckets[1]);
    let row = core.get(&key).await.unwrap();
    let mut record = core.bucket_record(buckets[1]).await.unwrap();
    record.closing = Some(TimestampMicros::now());
    let mut attempt = crate::attempt::Attempt::default();
    attempt.expect(key.clone(), row.as_ref());
    attempt.put(key, records::encode(&record));
    assert!(crate::attempt::commit(core.store.as_ref(), CommitId::random(), attempt).await.unwrap());
    assert_eq!(fixture.pass(1).await, LifecycleCounts { expired: 1, failed: 1, ..Default::default() });
    let mut left = Vec::new();
    for bucket in &buckets {
        left.push(fixture.versions(*bucket).await.len());
    }
    assert_eq!(left, [1, 1, 0]);
}

#[tokio::test]
async fn a_lost_answer_is_no_second_removal() {
    let fixture = Fixture::with_config(config()).await;
    let bucket = fixture.bucket("b", false).await;
    fixture.put_now(bucket, b"k").await;
    fixture.set_document(bucket, document(vec![rule("r", prefix(""), days(1), None, None)])).await;
    fixture.store.lose_answers.store(1, std::sync::atomic::Ordering::Relaxed);
    let counts = fixture.service.run_lifecycle(in_days(1)).await.unwrap();
    assert_eq!(counts, LifecycleCounts { expired: 1, ..Default::default() });
    assert_eq!(fixture.store.count(Tag::Trash), 1);
    assert!(fixture.versions(bucket).await.is_empty());
}

#[tokio::test]
async fn the_background_task_carries_rules_out_in_its_slices() {
    let lifecycle_day = DayLength::new(Duration::from_secs(1)).unwrap();
    let config = MetadataConfig { lifecycle_day, lifecycle_every_ms: 1, background_every_ms: 1, ..config() };
    let fixture = on_disk(config).await;
    let bucket = fixture.bucket("b", false).await;
    fixture.put_now(bucket, b"k").await;
    fixture.put_now(bucket, b"other").await;
    fixture.set_document(bucket, document(vec![rule("r", prefix("k"), days(1), None, None)])).await;
    let registry = Registry::new();
    fixture.service.register_metrics(&registry).unwrap();
    let cancel = CancellationToken::new();
    let running = fixture.service.start_background(cancel.clone());
    while fixture.versions(bucket).await.len() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cancel.cancel();
    running.await.unwrap();
    assert_eq!(fixture.keys(bucket).await, ["other"]);
    let metrics = registry.gather();
    let expired = metrics.iter().find(|family| family.name() == "valv_lifecycle_outcomes_total").unwrap();
    assert_eq!(expired.get_metric()[0].get_counter().get_value(), 1.0);
}
