//! What a leaf says: ids and hashes, no names. Names may have to be erased one day; the tree must not be.

use minicbor::{Decode, Encode};
use valv_types::{AccessKeyId, BucketId, CommitId, ProjectId, TimestampMicros, UserId, VersionId};

/// The layout of leaves that this code writes.
pub const LEAF_FORMAT: u8 = 1;

/// One custody event. Its bytes, CBOR with the fields in this order, are what the tree hashes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Leaf {
    /// [`LEAF_FORMAT`].
    #[n(0)]
    pub format: u8,
    /// Whose ledger.
    #[n(1)]
    pub project: ProjectId,
    /// The event's id: the id of the commit that had its effect.
    #[n(2)]
    pub event: CommitId,
    /// When, in cluster time.
    #[n(3)]
    pub time: TimestampMicros,
    /// What happened: see [`kind_name`].
    #[n(4)]
    pub kind: u32,
    /// Who did it; `None` for nobody who signed, and for Valv's own work.
    #[n(5)]
    pub user: Option<UserId>,
    /// In which bucket.
    #[n(6)]
    pub bucket: Option<BucketId>,
    /// To which object version.
    #[n(7)]
    pub version: Option<VersionId>,
    /// Plaintext bytes concerned.
    #[n(8)]
    pub bytes: u64,
    /// BLAKE3 of the event's names with their salt: see [`crate::Names::hash`].
    #[n(9)]
    #[cbor(with = "minicbor::bytes")]
    pub names_hash: [u8; 32],
    /// For accesses: BLAKE3 of them ([`crate::Accesses::to_bytes`]).
    #[n(10)]
    #[cbor(with = "minicbor::bytes")]
    pub entries_hash: Option<[u8; 32]>,
}

impl Leaf {
    /// The bytes that are hashed.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(160);
        match minicbor::encode(self, &mut bytes) {
            Ok(()) => bytes,
            // Writing to a Vec is infallible, and no field has an encoder of its own that refuses a value.
            Err(_) => unreachable!("leaves encode into memory"),
        }
    }

    /// Reads [`Self::to_bytes`]: exactly those bytes, so that one event has one leaf.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let leaf: Self = minicbor::decode(bytes).ok()?;
        (leaf.format == LEAF_FORMAT && leaf.to_bytes() == bytes).then_some(leaf)
    }
}

/// The name of a kind of event; PREMIS's where it has one.
pub fn kind_name(kind: u32) -> &'static str {
    match kind {
        1 => "principal ensured",
        2 => "access key created",
        3 => "access key disabled",
        4 => "access key enabled",
        5 => "access key deleted",
        6 => "user changed",
        7 => "user deleted",
        8 => "token created",
        9 => "token revoked",
        10 => "bucket created",
        11 => "bucket deleted",
        12 => "bucket changed",
        20 => "ingestion",
        21 => "replication",
        22 => "delete marker created",
        23 => "deaccession",
        24 => "restoration from trash",
        25 => "deletion",
        26 => "metadata modification",
        27 => "deaccession by lifecycle rule",
        28 => "delete marker created by lifecycle rule",
        30 => "upload created",
        31 => "part committed",
        32 => "upload completed",
        33 => "upload aborted",
        34 => "upload aborted by lifecycle rule",
        50 => "project created",
        51 => "project governed",
        52 => "project changed",
        53 => "member set",
        54 => "member removed",
        70 => "opening created",
        71 => "opening revoked",
        72 => "zone set",
        73 => "zone removed",
        85 => "act proposed",
        86 => "act approved",
        87 => "act rejected",
        88 => "act carried out",
        89 => "act failed",
        100 => "accesses",
        101 => "access completions",
        90 => "retention class set",
        91 => "retention extended",
        92 => "legal hold set",
        93 => "legal hold released",
        94 => "disposal proposed",
        95 => "disposal approved",
        96 => "disposal rejected",
        97 => "deaccession by disposal",
        98 => "disposal ended",
        120 => "root key replaced",
        121 => "project key replacement started",
        122 => "project key replaced",
        123 => "project key destroyed",
        124 => "object key destroyed",
        130 => "custodian created",
        131 => "custodian changed",
        132 => "custodian removed",
        133 => "disk custody changed",
        110 => "repair",
        111 => "migration",
        134 => "transfer offered",
        135 => "transfer accepted",
        136 => "transfer withdrawn",
        137 => "transfer declined",
        _ => "other",
    }
}

/// The names that belong to an event. They are kept sealed apart from the tree and may be erased; the leaf has their hash.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Names {
    /// Random, so that the hash in the leaf can't be guessed back.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub salt: [u8; 16],
    /// The object key, or the bucket's name for events of buckets, or the user's for events of principals.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub subject: Vec<u8>,
    /// The access key used.
    #[n(2)]
    pub access_key: Option<AccessKeyId>,
    /// The request id that the client was given; empty for Valv's own work.
    #[n(3)]
    pub request_id: String,
    /// The client's address; empty for Valv's own work.
    #[n(4)]
    pub remote: String,
    /// The version that an event supersedes or copies from.
    #[n(5)]
    pub other_version: Option<VersionId>,
    /// The id of the lifecycle rule that did it.
    #[n(6)]
    pub rule: Option<String>,
    /// Through what the admin service was reached, for acts of administration.
    #[n(7)]
    pub caller: Option<String>,
    /// What an act of administration says besides: a JSON object (purposes, references, old and new values).
    #[n(8)]
    pub detail: Option<String>,
}

impl Names {
    /// BLAKE3 of the names' CBOR.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.to_bytes()).as_bytes()
    }

    /// The names' CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(160);
        match minicbor::encode(self, &mut bytes) {
            Ok(()) => bytes,
            Err(_) => unreachable!("names encode into memory"),
        }
    }
}
