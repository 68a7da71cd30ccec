//! Exports come back as they were, or not at all.

use crate::store::{
    Commit, EXPORT_KEY_PURPOSE, MetaStore, RocksConfig, RocksMetaStore, RowsError, Start, Write, export_rows,
    import_rows, verify_rows,
};
use bytes::Bytes;
use std::sync::Arc;
use tempfile::TempDir;
use valv_codec::{RecordKey, SystemKey};
use valv_types::CommitId;

async fn store(folder: &TempDir, name: &str) -> Arc<RocksMetaStore> {
    RocksMetaStore::open(RocksConfig::new(folder.path().join(name), Start::First), None).await.unwrap()
}

async fn rows(store: &RocksMetaStore) -> Vec<(Bytes, Bytes)> {
    let snapshot = store.snapshot().await.unwrap();
    let mut cursor = snapshot.scan(b"", &[0xff; 4000]).unwrap();
    std::iter::from_fn(|| cursor.next().unwrap()).map(|(key, row)| (key, row.value)).collect()
}

fn key() -> RecordKey {
    SystemKey::from_bytes(1, &[7; 32]).unwrap().system_record_key(EXPORT_KEY_PURPOSE)
}

async fn exported(folder: &TempDir) -> (Vec<(Bytes, Bytes)>, Vec<u8>) {
    let source = store(folder, "source").await;
    let value = |n: usize| Bytes::from(vec![n as u8; [0, 10, 70_000, 1 << 20][n % 4]]);
    let mut writes: Vec<_> =
        (0..60).map(|n| Write { key: Bytes::from(format!("key{n:03}")), value: Some(value(n)) }).collect();
    writes.push(Write { key: Bytes::from(vec![0xff; 2200]), value: Some(value(3)) });
    source.commit(Commit { id: CommitId::random(), expected: vec![], writes }).await.unwrap();
    let mut out = Vec::new();
    let done = export_rows(source.snapshot().await.unwrap().as_ref(), &key(), &mut out).unwrap();
    assert_eq!(done.rows, 61);
    assert_eq!(done.digest, verify_rows(&mut &out[..], &key()).unwrap().digest);
    (rows(&source).await, out)
}

#[tokio::test]
async fn an_export_fills_an_empty_store_and_no_other() {
    let folder = TempDir::new().unwrap();
    let (expected, export) = exported(&folder).await;
    let target = store(&folder, "target").await;
    import_rows(&mut &export[..], &key(), &*target).await.unwrap();
    assert_eq!(rows(&target).await, expected);
    let again = import_rows(&mut &export[..], &key(), &*target).await;
    assert!(matches!(again, Err(RowsError::NotEmpty)), "{again:?}");
}

#[tokio::test]
async fn a_damaged_export_is_refused() {
    let folder = TempDir::new().unwrap();
    let (_, export) = exported(&folder).await;
    let other_key = SystemKey::generate(1).unwrap().system_record_key(EXPORT_KEY_PURPOSE);
    assert!(matches!(verify_rows(&mut &export[..], &other_key), Err(RowsError::Key(_))));
    for at in (0..40).chain((40..export.len()).step_by(export.len() / 50)) {
        let mut damaged = export.clone();
        damaged[at] ^= 4;
        assert!(verify_rows(&mut &damaged[..], &key()).is_err(), "byte {at}");
        assert!(verify_rows(&mut &export[..at], &key()).is_err(), "cut to {at}");
    }
    assert!(verify_rows(&mut &export[..export.len() - 1], &key()).is_err());
}
