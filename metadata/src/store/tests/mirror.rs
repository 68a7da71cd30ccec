//! What the mirror gives back after losses, and that it refuses when it can't give back everything.

use super::disks::{Disks, Mood};
use crate::store::{
    Commit, CommitOutcome, MetaStore, MirrorConfig, MirrorError, OnLoss, RocksConfig, RocksError, RocksMetaStore,
    Start, StoreError, Write,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use valv_codec::SystemKey;
use valv_shard_api::ShardCodec;
use valv_types::{CommitId, Revision};

const BATCH: ShardCodec = ShardCodec::MetadataBatch;
const CHECKPOINT: ShardCodec = ShardCodec::MetadataCheckpoint;

struct Bed {
    folder: TempDir,
    disks: Arc<Disks>,
    root: SystemKey,
    store: Option<Arc<RocksMetaStore>>,
    /// What was acknowledged.
    model: BTreeMap<String, (Revision, String)>,
    ids: Vec<(CommitId, Revision)>,
}

impl Bed {
    async fn new() -> Self {
        let root = SystemKey::generate(1).unwrap();
        let (folder, disks) = (TempDir::new().unwrap(), Disks::new(6));
        let mut bed = Self { folder, disks, root, store: None, model: BTreeMap::new(), ids: Vec::new() };
        bed.open(Start::First).await.unwrap();
        bed
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("metadata")
    }

    fn store(&self) -> &RocksMetaStore {
        self.store.as_ref().unwrap()
    }

    async fn open_with(&mut self, config: RocksConfig) -> Result<(), RocksError> {
        let key = self.root.system_record_key(crate::store::MIRROR_KEY_PURPOSE);
        let mirror = MirrorConfig {
            put_deadline: Duration::from_secs(5),
            remirror_after: Duration::ZERO,
            ..MirrorConfig::new(self.disks.clone(), key)
        };
        self.store = Some(RocksMetaStore::open(config, Some(mirror)).await?);
        Ok(())
    }

    async fn open(&mut self, start: Start) -> Result<(), RocksError> {
        self.open_with(RocksConfig::new(self.path(), start)).await
    }

    async fn close(&mut self) {
        if let Some(store) = self.store.take() {
            store.shutdown().await.unwrap();
        }
    }

    async fn reopen(&mut self) -> Result<(), RocksError> {
        self.close().await;
        self.open(Start::Again).await
    }

    /// Ends the store and removes its folder.
    async fn lose_folder(&mut self) {
        self.close().await;
        std::fs::remove_dir_all(self.path()).unwrap();
    }

    async fn try_put(&mut self, key: &str, value: &str) -> Result<Revision, StoreError> {
        let write = Write { key: Bytes::from(key.to_owned()), value: Some(Bytes::from(value.to_owned())) };
        let commit = Commit { id: CommitId::random(), expected: vec![], writes: vec![write] };
        let id = commit.id;
        match self.store().commit(commit).await? {
            CommitOutcome::Committed(revision) => {
                self.model.insert(key.to_owned(), (revision, value.to_owned()));
                self.ids.push((id, revision));
                Ok(revision)
            }
            CommitOutcome::Conflict { .. } => panic!("nothing was expected"),
        }
    }

    async fn put(&mut self, key: &str, value: &str) -> Revision {
        self.try_put(key, value).await.unwrap()
    }

    async fn remove(&mut self, key: &str) {
        let write = Write { key: Bytes::from(key.to_owned()), value: None };
        let commit = Commit { id: CommitId::random(), expected: vec![], writes: vec![write] };
        self.store().commit(commit).await.unwrap();
        self.model.remove(key);
    }

    async fn fill(&mut self, count: usize) {
        for n in 0..count {
            self.put(&format!("key{}", n % 40), &format!("value {n}")).await;
        }
        self.remove("key7").await;
    }

    async fn check(&self) {
        let snapshot = self.store().snapshot().await.unwrap();
        let mut cursor = snapshot.scan(b"", &[0xff; 8]).unwrap();
        let mut found = BTreeMap::new();
        while let Some((key, row)) = cursor.next().unwrap() {
            let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            found.insert(text(key), (row.revision, text(row.value)));
        }
        assert_eq!(found, self.model);
        for (id, revision) in &self.ids {
            assert_eq!(self.store().outcome(*id).await.unwrap(), Some(*revision));
        }
    }

    fn holders(&self, codec: ShardCodec) -> Vec<u8> {
        (0..6).filter(|n| self.disks.count(*n, codec) > 0).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lost_folder_comes_back_from_batches_and_checkpoint() {
    let mut bed = Bed::new().await;
    bed.fill(60).await;
    assert_eq!(bed.holders(BATCH).len(), 3);
    bed.lose_folder().await;
    bed.open(Start::Again).await.unwrap();
    bed.check().await;

    bed.store().checkpoint().await.unwrap();
    assert!(bed.holders(BATCH).is_empty(), "older batches are deleted");
    bed.fill(20).await;
    bed.lose_folder().await;
    bed.open(Start::Again).await.unwrap();
    bed.check().await;
    let latest = bed.store().latest_revision().await.unwrap();
    assert_eq!(bed.put("next", "x").await, Revision(latest.0 + 1), "revisions go on");
    bed.store().checkpoint().await.unwrap();
    assert_eq!(bed.holders(CHECKPOINT).len(), 3, "the older checkpoint is deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lost_folder_comes_back_with_any_two_disks_lost_as_well() {
    let mut bed = Bed::new().await;
    bed.fill(10).await;
    bed.store().checkpoint().await.unwrap();
    bed.fill(10).await;
    bed.lose_folder().await;
    for (a, b) in (0..6).flat_map(|a| (a + 1..6).map(move |b| (a, b))) {
        for mood in [Mood::Away, Mood::Well] {
            let kept = [bed.disks.image(a), bed.disks.image(b)];
            for n in [a, b] {
                bed.disks.set(n, mood);
                if mood == Mood::Well {
                    // Present, and every byte of it is wrong.
                    bed.disks.edit(n, |_, _, payload| Some(payload.iter().map(|byte| !byte).collect()));
                }
            }
            bed.open(Start::Again).await.unwrap();
            bed.check().await;
            bed.lose_folder().await;
            for (n, image) in [a, b].into_iter().zip(kept) {
                bed.disks.restore(n, image);
                bed.disks.set(n, Mood::Well);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_refuses_when_disks_may_hide_something() {
    let mut bed = Bed::new().await;
    bed.fill(10).await;
    bed.lose_folder().await;
    for n in 0..3 {
        bed.disks.set(n, Mood::Away);
    }
    let refused = bed.open(Start::Again).await;
    let hidden = matches!(refused, Err(RocksError::Mirror(MirrorError::Hidden { away: 3, copies: 3 })));
    assert!(hidden, "{refused:?}");
    assert!(!bed.path().exists(), "and it leaves nothing in place");
    for n in 0..3 {
        bed.disks.set(n, Mood::Well);
    }
    bed.open(Start::Again).await.unwrap();
    bed.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_refuses_gaps_unless_told_to_go_on() {
    let mut bed = Bed::new().await;
    for n in 1..=9 {
        bed.put(&format!("k{n}"), "v").await;
    }
    bed.lose_folder().await;
    for n in 0..6 {
        bed.disks.edit(n, |key, _, payload| (key.placement != 5).then(|| payload.to_vec()));
    }
    let refused = bed.open(Start::Again).await;
    assert!(matches!(refused, Err(RocksError::Mirror(MirrorError::Gap { end: 4, beyond: 6 }))), "{refused:?}");
    let config = RocksConfig { on_loss: OnLoss::StartWithWhatIsLeft, ..RocksConfig::new(bed.path(), Start::Again) };
    bed.open_with(config).await.unwrap();
    bed.model.retain(|_, (revision, _)| revision.0 <= 4);
    bed.ids.retain(|(_, revision)| revision.0 <= 4);
    bed.check().await;
    assert_eq!(bed.put("k", "after the loss").await, Revision(5));
    bed.store().checkpoint().await.unwrap();
    bed.lose_folder().await;
    bed.open(Start::Again).await.unwrap();
    bed.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_refuses_when_every_copy_of_a_piece_is_corrupt() {
    for (codec, checkpointed) in [(BATCH, false), (CHECKPOINT, true)] {
        let mut bed = Bed::new().await;
        bed.fill(5).await;
        if checkpointed {
            bed.store().checkpoint().await.unwrap();
        }
        bed.lose_folder().await;
        for n in 0..6 {
            bed.disks.edit(n, |_, of, payload| {
                let mut payload = payload.to_vec();
                payload[20] ^= u8::from(of == codec);
                Some(payload)
            });
        }
        let refused = bed.open(Start::Again).await;
        let unreadable = matches!(refused, Err(RocksError::Mirror(MirrorError::Unreadable { .. })));
        assert!(unreadable, "{codec:?}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_store_is_made_at_the_first_start_only() {
    let mut bed = Bed::new().await;
    bed.lose_folder().await;
    bed.open(Start::Again).await.expect("the mirror says that nothing was committed");
    bed.lose_folder().await;
    (0..6).for_each(|n| bed.disks.replace(n));
    let refused = bed.open(Start::Again).await;
    assert!(matches!(refused, Err(RocksError::Lost { .. })), "{refused:?}");
    bed.open(Start::First).await.unwrap();
    bed.fill(3).await;
    bed.lose_folder().await;
    bed.open(Start::First).await.unwrap();
    bed.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_folder_is_put_aside_and_rebuilt() {
    let mut bed = Bed::new().await;
    bed.fill(30).await;
    bed.close().await;
    std::fs::remove_file(bed.path().join("CURRENT")).unwrap();
    bed.open(Start::Again).await.unwrap();
    bed.check().await;
    let aside = std::fs::read_dir(bed.folder.path()).unwrap();
    let names: Vec<_> = aside.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("metadata.corrupt-")), "{names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_from_a_backup_catches_up_or_is_exchanged() {
    for checkpointed in [false, true] {
        let mut bed = Bed::new().await;
        bed.fill(10).await;
        bed.close().await;
        let backup = bed.folder.path().join("backup");
        copy_folder(&bed.path(), &backup);
        bed.open(Start::Again).await.unwrap();
        bed.fill(10).await;
        if checkpointed {
            bed.store().checkpoint().await.unwrap();
            bed.fill(5).await;
        }
        bed.lose_folder().await;
        std::fs::rename(&backup, bed.path()).unwrap();
        bed.open(Start::Again).await.unwrap();
        bed.check().await;
        bed.put("and", "on").await;
        bed.reopen().await.unwrap();
        bed.check().await;
    }
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_disk_is_replaced_by_another_at_once() {
    let mut bed = Bed::new().await;
    bed.fill(5).await;
    let used = bed.holders(BATCH);
    bed.disks.set(used[0], Mood::FailsPuts);
    bed.fill(5).await;
    assert_eq!(bed.holders(BATCH).len(), 4);
    assert!(!bed.store().mirror_status().unwrap().short_of_copies);
    bed.lose_folder().await;
    bed.open(Start::Again).await.unwrap();
    bed.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_few_disks_left_commits_go_on_and_copies_are_made_up_later() {
    let mut bed = Bed::new().await;
    bed.fill(5).await;
    for n in 0..5 {
        bed.disks.set(n, Mood::Away);
    }
    bed.fill(5).await;
    assert!(bed.store().mirror_status().unwrap().short_of_copies);
    for n in 0..5 {
        bed.disks.set(n, Mood::Well);
    }
    until(|| !bed.store().mirror_status().unwrap().short_of_copies).await;
    assert!(bed.store().mirror_status().unwrap().checkpoint > Revision(0));
    bed.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_on_an_exchanged_disk_are_made_anew() {
    let mut bed = Bed::new().await;
    bed.fill(5).await;
    let used = bed.holders(BATCH);
    bed.disks.replace(used[0]);
    until(|| bed.store().mirror_status().unwrap().checkpoint > Revision(0)).await;
    bed.lose_folder().await;
    bed.open(Start::Again).await.unwrap();
    bed.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_disk_commits_are_refused_reads_go_on_and_nothing_is_lost() {
    let mut bed = Bed::new().await;
    bed.fill(5).await;
    for n in 0..6 {
        bed.disks.set(n, Mood::FailsPuts);
    }
    let write = Write { key: Bytes::from_static(b"undecided"), value: Some(Bytes::from_static(b"x")) };
    let undecided = Commit { id: CommitId::random(), expected: vec![], writes: vec![write] };
    let failed = bed.store().commit(undecided.clone()).await;
    assert!(matches!(failed, Err(StoreError::Unknown { id }) if id == undecided.id), "{failed:?}");
    let outcome = bed.store().outcome(undecided.id).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable { .. })), "{outcome:?}");
    let refused = bed.try_put("refused", "x").await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert!(bed.store().get(b"key1").await.unwrap().is_some());

    for n in 0..6 {
        bed.disks.set(n, Mood::Well);
    }
    let revision = bed.store().outcome(undecided.id).await.unwrap().expect("it was in the WAL");
    bed.model.insert("undecided".to_owned(), (revision, "x".to_owned()));
    bed.put("after", "x").await;
    bed.lose_folder().await;
    bed.open(Start::Again).await.unwrap();
    bed.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_disks_opens_for_reads_and_takes_commits_when_they_are_back() {
    let mut bed = Bed::new().await;
    bed.fill(5).await;
    bed.close().await;
    for n in 0..6 {
        bed.disks.set(n, Mood::Away);
    }
    bed.open(Start::Again).await.unwrap();
    bed.check_rows_only().await;
    assert!(matches!(bed.try_put("k", "v").await, Err(StoreError::Unavailable { .. })));
    for n in 0..6 {
        bed.disks.set(n, Mood::Well);
    }
    until(|| bed.store().mirror_status().unwrap().ready).await;
    bed.put("k", "v").await;
    bed.lose_folder().await;
    bed.open(Start::Again).await.unwrap();
    bed.check().await;
}

impl Bed {
    async fn check_rows_only(&self) {
        for (key, (revision, _)) in &self.model {
            assert_eq!(self.store().get(key.as_bytes()).await.unwrap().unwrap().revision, *revision);
        }
    }
}

/// A crash between the two: the group is in one of WAL and mirror, or torn between disks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_wal_and_mirror_loses_no_acknowledged_commit() {
    // In the WAL and not in the mirror: mirrored again from its rows.
    let mut bed = Bed::new().await;
    bed.fill(6).await;
    bed.put("last", "x").await;
    let last = bed.store().latest_revision().await.unwrap().0;
    bed.close().await;
    for n in 0..6 {
        bed.disks.edit(n, |key, _, payload| (key.placement != last).then(|| payload.to_vec()));
    }
    bed.open(Start::Again).await.unwrap();
    assert_eq!(bed.store().mirror_status().unwrap().checkpoint, Revision(0), "without another checkpoint");
    bed.lose_folder().await;
    bed.open(Start::Again).await.unwrap();
    bed.check().await;

    // In the mirror and not in the WAL: rolled forward.
    bed.close().await;
    let backup = bed.folder.path().join("backup");
    copy_folder(&bed.path(), &backup);
    bed.open(Start::Again).await.unwrap();
    bed.put("unsynced", "x").await;
    bed.lose_folder().await;
    copy_folder(&backup, &bed.path());
    bed.open(Start::Again).await.unwrap();
    bed.check().await;

    // On one disk that was away when the store was opened again, and its revision is taken by another commit.
    bed.lose_folder().await;
    let holders = bed.holders(BATCH);
    copy_folder(&backup, &bed.path());
    let unsynced = last + 1;
    for n in holders.iter().skip(1) {
        bed.disks.edit(*n, |key, _, payload| (key.placement < unsynced).then(|| payload.to_vec()));
    }
    bed.disks.set(holders[0], Mood::Away);
    bed.open(Start::Again).await.unwrap();
    bed.model.remove("unsynced");
    bed.ids.pop();
    assert_eq!(bed.put("other", "y").await, Revision(unsynced));
    bed.disks.set(holders[0], Mood::Well);
    bed.lose_folder().await;
    bed.open(Start::Again).await.unwrap();
    bed.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_groups_are_cut_and_come_back() {
    let mut bed = Bed::new().await;
    let value = "x".repeat(1 << 20);
    let writes = (0..20)
        .map(|n| Write { key: Bytes::from(format!("large{n:02}")), value: Some(Bytes::from(value.clone())) })
        .collect();
    let commit = Commit { id: CommitId::random(), expected: vec![], writes };
    assert_eq!(bed.store().commit(commit).await.unwrap(), CommitOutcome::Committed(Revision(1)));
    for n in 0..20 {
        bed.model.insert(format!("large{n:02}"), (Revision(1), value.clone()));
    }
    bed.lose_folder().await;
    bed.open(Start::Again).await.unwrap();
    bed.check().await;
    bed.store().checkpoint().await.unwrap();
    bed.lose_folder().await;
    bed.open(Start::Again).await.unwrap();
    bed.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_are_made_by_themselves() {
    let mut bed = Bed::new().await;
    bed.close().await;
    let key = bed.root.system_record_key(crate::store::MIRROR_KEY_PURPOSE);
    let mirror = MirrorConfig { checkpoint_batches: 20, ..MirrorConfig::new(bed.disks.clone(), key) };
    let config = RocksConfig::new(bed.path(), Start::Again);
    bed.store = Some(RocksMetaStore::open(config, Some(mirror)).await.unwrap());
    bed.fill(50).await;
    until(|| bed.store().mirror_status().unwrap().checkpoint > Revision(0)).await;
    bed.lose_folder().await;
    bed.open(Start::Again).await.unwrap();
    bed.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_are_asked_last_and_still_asked() {
    let mut bed = Bed::new().await;
    for n in 0..5 {
        bed.disks.set(n, Mood::Full);
    }
    bed.reopen().await.unwrap();
    bed.fill(5).await;
    assert!(bed.disks.count(5, BATCH) > 0, "the one that is not full is among them");
    assert_eq!(bed.holders(BATCH).len(), 3);
    bed.lose_folder().await;
    bed.open(Start::Again).await.unwrap();
    bed.check().await;
}

/// Waits for a condition that a background task brings about; fails after a minute.
async fn until(mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), met).await.expect("the condition is met in the end");
}
