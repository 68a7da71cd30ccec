//! Listings against a sorted map.

use crate::testing::{Fixture, block_on, list_versions};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use valv_metadata_api::*;
use valv_types::{BucketId, CommitId, UploadId, VersionId};

fn bytes(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0u8), Just(1), Just(0xff), Just(b'/'), Just(b'a'), Just(b'b')];
    prop::collection::vec(byte, len)
}

/// A listing's answer: keys and common prefixes in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Key(Vec<u8>),
    Prefix(Vec<u8>),
}

impl Item {
    fn text(&self) -> &[u8] {
        match self {
            Self::Key(text) | Self::Prefix(text) => text,
        }
    }
}

/// What S3's documentation says, directly: fold, drop what is not after, in order.
fn expected(keys: &BTreeSet<Vec<u8>>, prefix: &[u8], delimiter: &[u8], after: &[u8]) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    for key in keys.iter().filter(|key| key.starts_with(prefix)) {
        let rest = &key[prefix.len()..];
        let cut = (0..rest.len()).find(|&at| !delimiter.is_empty() && rest[at..].starts_with(delimiter));
        let item = match cut {
            Some(at) => Item::Prefix(key[..prefix.len() + at + delimiter.len()].to_vec()),
            None => Item::Key(key.clone()),
        };
        let is_after = match &item {
            Item::Key(key) => key.as_slice() > after,
            Item::Prefix(folded) => folded.as_slice() > after,
        };
        if is_after && !items.contains(&item) {
            items.push(item);
        }
    }
    items
}

fn merged(entries: &[ListEntry], prefixes: &[CommonPrefix]) -> Vec<Item> {
    let keys = entries.iter().map(|entry| Item::Key(entry.key.as_bytes().to_vec()));
    let prefixes = prefixes.iter().map(|folded| Item::Prefix(folded.0.clone()));
    let mut items: Vec<Item> = keys.chain(prefixes).collect();
    items.sort_by(|a, b| a.text().cmp(b.text()));
    items
}

fn objects(bucket: BucketId, prefix: &[u8], delimiter: &[u8], after: &[u8], limit: u32) -> ListObjects {
    ListObjects { bucket, prefix: prefix.to_vec(), delimiter: delimiter.to_vec(), after: after.to_vec(), limit }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn pages_of_objects_agree_with_a_sorted_map(
        keys in prop::collection::btree_set(bytes(1..7), 0..40),
        deleted in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        queries in prop::collection::vec((bytes(0..3), bytes(0..3), bytes(0..5), 1u32..6), 1..8),
    ) {
        block_on(async {
            let fixture = Fixture::new().await;
            let bucket = fixture.bucket("list", false).await;
            fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
            for key in &keys {
                fixture.put_now(bucket, key).await;
            }
            let mut live = keys.clone();
            for index in deleted.iter().filter(|_| !keys.is_empty()) {
                let key = keys.iter().nth(index.index(keys.len())).unwrap();
                live.remove(key);
                fixture.service.delete_object(fixture.delete(bucket, key, VersionSelector::Current)).await.unwrap();
            }
            for (prefix, delimiter, after, limit) in queries {
                let wanted = expected(&live, &prefix, &delimiter, &after);
                let (mut got, mut after) = (Vec::new(), after);
                loop {
                    let request = objects(bucket, &prefix, &delimiter, &after, limit);
                    let page = fixture.service.list_objects(request).await.unwrap();
                    let items = merged(&page.entries, &page.common_prefixes);
                    prop_assert!(items.len() <= limit as usize);
                    got.extend(items.iter().cloned());
                    let Some(next) = page.next_after else { break };
                    // A page that says there is more is full, and ends with what it names.
                    prop_assert_eq!(items.len(), limit as usize);
                    prop_assert_eq!(items.last().unwrap().text(), &next[..]);
                    after = next;
                }
                prop_assert_eq!(got, wanted, "prefix {:?} delimiter {:?}", prefix, delimiter);
            }
            Ok(())
        })?;
    }

    #[test]
    fn pages_of_uploads_bring_every_open_upload_once_in_order(
        keys in prop::collection::vec(bytes(1..4), 0..25),
        ended in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        queries in prop::collection::vec((bytes(0..3), bytes(0..3), bytes(0..4), 1u32..5), 1..6),
    ) {
        block_on(async {
            let fixture = Fixture::new().await;
            let bucket = fixture.bucket("uploads", false).await;
            let mut model: BTreeMap<Vec<u8>, Vec<UploadId>> = BTreeMap::new();
            let mut made = Vec::new();
            for key in &keys {
                let create = CreateUpload {
                    actor: fixture.actor.clone(),
                    bucket,
                    key: ObjectKey::new(key.clone()).unwrap(),
                    attributes: Attributes::default(),
                    lock: LockRequest::default(),
                    checksum: None,
                    commit: CommitId::random(),
                };
                let upload = fixture.service.create_upload(create).await.unwrap();
                model.entry(key.clone()).or_default().push(upload.id);
                made.push((key.clone(), upload.id));
            }
            for index in ended.iter().take(made.len()) {
                let at = index.index(made.len());
                let (key, upload) = made.remove(at);
                let abort = AbortUpload {
                    actor: fixture.actor.clone(),
                    bucket,
                    key: ObjectKey::new(key.clone()).unwrap(),
                    upload,
                    commit: CommitId::random(),
                };
                fixture.service.abort_upload(abort).await.unwrap();
                model.get_mut(&key).unwrap().retain(|id| *id != upload);
            }
            model.retain(|_, uploads| !uploads.is_empty());
            let live: BTreeSet<Vec<u8>> = model.keys().cloned().collect();
            for (prefix, delimiter, after, limit) in queries {
                let wanted = expected(&live, &prefix, &delimiter, &after);
                let (mut ids, mut prefixes) = (Vec::new(), Vec::new());
                let mut request = ListUploads {
                    bucket,
                    prefix: prefix.clone(),
                    delimiter: delimiter.clone(),
                    after,
                    after_upload: None,
                    limit,
                };
                loop {
                    let page = fixture.service.list_uploads(request.clone()).await.unwrap();
                    prop_assert!(page.uploads.len() + page.common_prefixes.len() <= limit as usize);
                    ids.extend(page.uploads.iter().map(|upload| upload.id));
                    prefixes.extend(page.common_prefixes.iter().map(|folded| Item::Prefix(folded.0.clone())));
                    let Some(next) = page.next_after else { break };
                    prop_assert_eq!(page.uploads.len() + page.common_prefixes.len(), limit as usize);
                    (request.after, request.after_upload) = (next, page.next_after_upload);
                }
                let wanted_ids: Vec<UploadId> = wanted
                    .iter()
                    .flat_map(|item| match item {
                        Item::Key(key) => model[key].clone(),
                        Item::Prefix(_) => Vec::new(),
                    })
                    .collect();
                prop_assert_eq!(ids, wanted_ids);
                let wanted_prefixes: Vec<Item> =
                    wanted.into_iter().filter(|item| matches!(item, Item::Prefix(_))).collect();
                prop_assert_eq!(prefixes, wanted_prefixes);
            }
            Ok(())
        })?;
    }

    #[test]
    fn pages_of_versions_bring_every_version_once_and_newest_first(
        writes in prop::collection::vec((bytes(1..4), any::<bool>()), 0..40),
        prefix in bytes(0..2),
        delimiter in bytes(0..2),
        limit in 1u32..5,
    ) {
        block_on(async {
            let fixture = Fixture::new().await;
            let bucket = fixture.bucket("list", false).await;
            let mut model: BTreeMap<Vec<u8>, Vec<VersionId>> = BTreeMap::new();
            for (at, (key, delete)) in writes.into_iter().enumerate() {
                if at == 3 {
                    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
                }
                let versions = model.entry(key.clone()).or_default();
                if at < 3 {
                    versions.clear();
                }
                let id = if delete && at >= 3 {
                    let request = fixture.delete(bucket, &key, VersionSelector::Current);
                    let id = VersionId::from_bytes(*request.commit.as_bytes());
                    fixture.service.delete_object(request).await.unwrap();
                    id
                } else {
                    fixture.put_now(bucket, &key).await.version
                };
                versions.insert(0, id);
            }
            let keys: BTreeSet<Vec<u8>> = model.keys().cloned().collect();
            let wanted = expected(&keys, &prefix, &delimiter, b"");
            let wanted_ids: Vec<VersionId> = wanted
                .iter()
                .flat_map(|item| match item {
                    Item::Key(key) => model[key].clone(),
                    Item::Prefix(_) => Vec::new(),
                })
                .collect();
            let (mut ids, mut prefixes) = (Vec::new(), Vec::new());
            let mut request = list_versions(bucket, &prefix, &delimiter, limit);
            loop {
                let page = fixture.service.list_versions(request.clone()).await.unwrap();
                prop_assert!(page.entries.len() + page.common_prefixes.len() <= limit as usize);
                ids.extend(page.entries.iter().map(|entry| entry.id));
                prefixes.extend(page.common_prefixes.iter().map(|folded| Item::Prefix(folded.0.clone())));
                let Some(next) = page.next_after else { break };
                prop_assert_eq!(page.entries.len() + page.common_prefixes.len(), limit as usize);
                (request.after, request.after_version) = (next, page.next_after_version);
            }
            prop_assert_eq!(ids, wanted_ids);
            let wanted_prefixes: Vec<Item> =
                wanted.into_iter().filter(|item| matches!(item, Item::Prefix(_))).collect();
            prop_assert_eq!(prefixes, wanted_prefixes);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn deleting_each_page_of_2500_versions_of_one_key_reaches_the_end() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("versions", false).await;
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    for _ in 0..2_500 {
        fixture.put_now(bucket, b"k").await;
    }
    let mut request = list_versions(bucket, b"", b"", 1_000);
    let mut seen = BTreeSet::new();
    let mut pages = 0;
    loop {
        let page = fixture.service.list_versions(request.clone()).await.unwrap();
        pages += 1;
        for entry in &page.entries {
            assert!(seen.insert(entry.id), "listed twice");
            let delete = fixture.delete(bucket, b"k", VersionSelector::Id(entry.id));
            fixture.service.delete_object(delete).await.unwrap();
        }
        let Some(next) = page.next_after else { break };
        (request.after, request.after_version) = (next, page.next_after_version);
    }
    assert_eq!((pages, seen.len()), (3, 2_500));
    assert!(fixture.versions(bucket).await.is_empty());
}

#[tokio::test]
async fn a_common_prefix_costs_one_row_whatever_lies_under_it() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("folders", false).await;
    for at in 0..50 {
        fixture.put_now(bucket, format!("dir/{at:03}").as_bytes()).await;
    }
    fixture.put_now(bucket, b"zzz").await;
    let page = fixture.service.list_objects(objects(bucket, b"", b"/", b"", 1)).await.unwrap();
    assert_eq!(page.common_prefixes, [CommonPrefix(b"dir/".to_vec())]);
    assert_eq!(page.next_after.as_deref(), Some(b"dir/".as_slice()));
    let page = fixture.service.list_objects(objects(bucket, b"", b"/", b"dir/", 1)).await.unwrap();
    assert_eq!(page.entries[0].key.as_bytes(), b"zzz");
    assert_eq!(page.next_after, None);
    // Within a folder, `after` is a key.
    let page = fixture.service.list_objects(objects(bucket, b"dir/", b"/", b"dir/048", 10)).await.unwrap();
    assert_eq!(page.entries.len(), 1);
}
