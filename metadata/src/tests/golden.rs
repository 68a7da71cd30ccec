//! Bytes at rest of format 1. They are never regenerated: a change that breaks them needs a format of its own, and these
//! have to be read on.

use crate::records::{self, *};
use crate::rows::{NoncurrentPlace, Rows, UserIndexKind};
use valv_metadata_api::*;
use valv_types::*;

fn id(byte: u8) -> [u8; 16] {
    [byte; 16]
}

fn blob() -> BlobRecord {
    BlobRecord {
        blob: BlobId::from_bytes(id(0xb1)),
        len_bytes: 300_000,
        layout: Layout::current(PoolId(1), 4, 2).unwrap(),
        place: BlobPlace::Shards,
        wrapped_key: vec![0xee; 4],
    }
}

fn version(body: Body) -> VersionRecord {
    VersionRecord {
        id: VersionId::from_bytes(id(0x11)),
        order: TimestampMicros(1_800_000_000_000_000),
        flags: FLAG_NULL | FLAG_LEGAL_HOLD,
        len_bytes: 300_000,
        body,
        owner: Some(UserId::from_bytes(id(0x22))),
        retention: Some(Retention { mode: RetentionMode::Compliance, until: TimestampMicros(7) }),
        key_version: 3,
        sealed: vec![0xaa, 0xbb],
    }
}

#[test]
fn row_keys_of_format_1() {
    let rows = Rows::new(CellId(1));
    let (bucket, key) = (BucketId::from_bytes(id(0x33)), ObjectKey::new(*b"a\0/").unwrap());
    let place = NoncurrentPlace { order: TimestampMicros(2), id: VersionId::from_bytes(id(0x11)) };
    let cases = [
        (rows.head(bucket, &key), format!("000130{}6100ff2f0001", "33".repeat(16))),
        (
            rows.noncurrent(bucket, &key, place),
            format!("000131{}6100ff2f0001fffffffffffffffd{}", "33".repeat(16), "11".repeat(16)),
        ),
        (
            rows.blob_ref(BlobId::from_bytes(id(0xb1)), place.id),
            format!("000140{}{}", "b1".repeat(16), "11".repeat(16)),
        ),
        (
            rows.ledger(ProjectId::from_bytes(id(0x44)), CommitId::from_bytes(id(0x5e))),
            format!("000170{}05{}", "44".repeat(16), "5e".repeat(16)),
        ),
        (rows.user_index(UserIndexKind::Email, &id(0x66)), format!("00011503{}", "66".repeat(16))),
    ];
    for (row, expected) in cases {
        assert_eq!(hex::encode(row), expected);
    }
}

#[test]
fn records_of_format_1() {
    let null = Some(NullRef { order: TimestampMicros(1), id: VersionId::from_bytes(id(0x12)) });
    let head = HeadRecord { version: version(Body::Blob(blob())), null };
    let index = PartsIndex { count: 2, pages_of: VersionId::from_bytes(id(0x11)), page_offsets: vec![0] };
    let noncurrent = NoncurrentRecord { version: version(Body::Parts(index)) };
    let part = PagePart { number: 1, offset: 0, blob: blob(), modified: TimestampMicros(9) };
    let page = PageRecord { parts: vec![part], key_version: 3, sealed: vec![0xcc] };
    let trash = TrashRecord::Version(Box::new(TrashedVersion {
        version: version(Body::Empty),
        project: ProjectId::from_bytes(id(0x44)),
        bucket: BucketId::from_bytes(id(0x33)),
        key: b"k".to_vec(),
        removed: TimestampMicros(5),
        by: None,
        purging: false,
    }));
    let cases = [
        ("head", records::encode(&head), HEAD),
        ("noncurrent", records::encode(&noncurrent), NONCURRENT),
        ("page", records::encode(&page), PAGE),
        ("trash", records::encode(&trash), TRASH),
        ("reference", records::encode(&BlobRefRecord::from(&blob())), REFERENCE),
    ];
    for (what, record, expected) in cases {
        assert_eq!(hex::encode(record), expected, "{what}");
    }
    let read: HeadRecord = records::decode("head", &hex::decode(HEAD).unwrap()).unwrap();
    assert_eq!(read, head);
    let read: NoncurrentRecord = records::decode("noncurrent", &hex::decode(NONCURRENT).unwrap()).unwrap();
    assert_eq!(read, noncurrent);
}

#[test]
fn a_record_of_an_unknown_format_is_refused_and_an_unknown_field_skipped() {
    let future = [&[2u8], &hex::decode(HEAD).unwrap()[1..]].concat();
    assert!(records::decode::<HeadRecord>("head", &future).is_err());
    assert!(records::decode::<HeadRecord>("head", &[]).is_err());
    // [order, a field of a later version]
    let longer = [1, 0x82, 0x07, 0x63, b'n', b'e', b'w'];
    assert_eq!(records::decode::<VersionIndexRecord>("index", &longer).unwrap().order, TimestampMicros(7));
}

const HEAD: &str = concat!(
    "01828950111111111111111111111111111111111b0006651728988000051a000493e08201818550b1b1b1b1b1b1b1b1b1b1",
    "b1b1b1b1b1b11a000493e08a0104021a0001000018801a000200001940000101010144eeeeeeee5022222222222222222222",
    "2222222222228202070342aabb82015012121212121212121212121212121212",
);

const NONCURRENT: &str = concat!(
    "01818950111111111111111111111111111111111b0006651728988000051a000493e0820281830250111111111111111111",
    "11111111111111810050222222222222222222222222222222228202070342aabb",
);

const PAGE: &str = concat!(
    "0183818401008550b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b11a000493e08a0104021a0001000018801a000200001940000101",
    "010144eeeeeeee090341cc",
);

const TRASH: &str = concat!(
    "01820081878950111111111111111111111111111111111b0006651728988000051a000493e0820080502222222222222222",
    "22222222222222228202070342aabb5044444444444444444444444444444444503333333333333333333333333333333341",
    "6b05f6f4",
);

const REFERENCE: &str = "01831a000493e08a0104021a0001000018801a0002000019400001010101";
