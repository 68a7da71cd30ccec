//! Accesses: who read what, by which opening, how many bytes of it, and how it ended.
//!
//! One leaf stands for all accesses of a project that were committed together. The leaf has a hash of them; they themselves
//! hold ids, ranges and times, and no name. What has a name (access keys, addresses, request ids, prefixes of listings, keys
//! of objects that no version id stands for) is sealed apart, as the names of other events are.
//!
//! An access that sends an object's bytes is recorded before the first of them is sent, and counts with all that were asked
//! for until a [`Completion`] of the same recorder and number says how many were. Every other access is recorded with its
//! outcome, before its answer.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use valv_types::{AccessKeyId, BucketId, OpeningId, RecorderId, TimestampMicros, UserId, VersionId};

/// Most accesses of one leaf: in an export, where each takes some 400 bytes, the line stays below 256 KiB beside its names.
pub const ACCESSES_PER_LEAF_MAX: usize = 512;
/// Most completions of one leaf: 100 bytes of an export's line each.
pub const COMPLETIONS_PER_LEAF_MAX: usize = 2_048;
/// Most bytes of subjects and request ids in one leaf's names. JSON writes a byte in at most six, so the names take less than
/// 512 KiB of an export's line.
pub const NAMES_LEN_BYTES_MAX: usize = 64 * 1024;

/// What one leaf says of accesses. Its bytes, CBOR with the fields in this order, are what [`crate::Leaf::entries_hash`] is of.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accesses {
    /// The gateway's run that recorded them. Numbers count within it.
    #[n(0)]
    pub recorder: RecorderId,
    /// Accesses that began, or that were over with their answer.
    #[n(1)]
    pub accesses: Vec<Access>,
    /// Ends of accesses that began here or in an earlier leaf.
    #[n(2)]
    pub completions: Vec<Completion>,
}

/// An access, or several of one kind next to each other: the same client, version and opening, ranges that touch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Its number within the recorder.
    #[n(0)]
    pub number: u64,
    /// When the (first) request came, by the gateway's clock.
    #[n(1)]
    #[serde(rename = "time_micros")]
    pub time: TimestampMicros,
    /// What was asked: the name of the S3 operation.
    #[n(2)]
    pub action: String,
    /// Who asked; `None` for nobody who signed.
    #[n(3)]
    pub user: Option<UserId>,
    /// In which bucket; `None` for the list of buckets.
    #[n(4)]
    pub bucket: Option<BucketId>,
    /// Of which object version, if there is one.
    #[n(5)]
    pub version: Option<VersionId>,
    /// By which opening, for who is no member of the project.
    #[n(6)]
    pub opening: Option<OpeningId>,
    /// The range's first byte. 0 where no object is read.
    #[n(7)]
    pub start: u64,
    /// Behind the range's last byte. 0 where no object is read.
    #[n(8)]
    pub end: u64,
    /// Bytes asked for: of the object, or of the answer's document. More than the range has if it was read more than once.
    #[n(9)]
    pub bytes: u64,
    /// How many requests.
    #[n(10)]
    pub count: u64,
    /// What they were answered: the status of HTTP.
    #[n(11)]
    pub status: u16,
    /// How far it has come.
    #[n(12)]
    pub state: AccessState,
}

/// Whether an access was over when it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum AccessState {
    /// Bytes follow, and a [`Completion`]. Without one all of them count.
    #[n(0)]
    Begun,
    /// With its answer, which was given after the record was durable.
    #[n(1)]
    Answered,
}

/// How accesses that had begun ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Completion {
    /// [`Access::number`].
    #[n(0)]
    pub number: u64,
    /// Of how many of its requests.
    #[n(1)]
    pub count: u64,
    /// Bytes that they asked for.
    #[n(2)]
    pub of_bytes: u64,
    /// Bytes that were handed to the connection, or written to a copy.
    #[n(3)]
    pub sent_bytes: u64,
    /// Why they ended.
    #[n(4)]
    pub end: AccessEnd,
}

/// Why an access ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum AccessEnd {
    /// Everything was sent.
    #[n(0)]
    Whole,
    /// The client went away.
    #[n(1)]
    BrokenOff,
    /// The right to it ended.
    #[n(2)]
    RightEnded,
    /// It could not be read on.
    #[n(3)]
    Failed,
}

impl Accesses {
    /// The bytes that are hashed.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + 128 * self.accesses.len() + 24 * self.completions.len());
        match minicbor::encode(self, &mut bytes) {
            Ok(()) => bytes,
            Err(_) => unreachable!("accesses encode into memory"),
        }
    }

    /// Reads [`Self::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        minicbor::decode(bytes).ok()
    }

    /// BLAKE3 of [`Self::to_bytes`].
    pub fn hash_of(bytes: &[u8]) -> [u8; 32] {
        *blake3::hash(bytes).as_bytes()
    }
}

/// The names that belong to a leaf's accesses, in their order. Sealed apart from the tree, and erased with the project's key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AccessNames {
    /// Random, so that the hash in the leaf can't be guessed back.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub salt: [u8; 16],
    /// Who asked from where, each once.
    #[n(1)]
    pub clients: Vec<Client>,
    /// As many as there are accesses.
    #[n(2)]
    pub accesses: Vec<AccessName>,
}

/// An access key and an address.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// The access key used; `None` for requests that nobody signed.
    #[n(0)]
    pub access_key: Option<AccessKeyId>,
    /// The client's address.
    #[n(1)]
    pub remote: String,
}

/// The names of one access.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AccessName {
    /// Which of [`AccessNames::clients`].
    #[n(0)]
    pub client: u32,
    /// The ids that its requests were given.
    #[n(1)]
    pub requests: Vec<String>,
    /// The object key where no version stands for it; the prefix of a listing. Mostly empty.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub subject: Vec<u8>,
}

impl AccessName {
    /// What it counts against [`NAMES_LEN_BYTES_MAX`].
    pub fn len_bytes(&self) -> usize {
        self.subject.len() + self.requests.iter().map(|request| request.len() + 8).sum::<usize>()
    }
}

impl AccessNames {
    /// In [`crate::Leaf::names_hash`] of a leaf that has only completions, and so no names.
    pub const NONE: [u8; 32] = [0; 32];

    /// BLAKE3 of the names' CBOR.
    pub fn hash(&self) -> [u8; 32] {
        let mut bytes = Vec::with_capacity(64 + 32 * self.accesses.len());
        match minicbor::encode(self, &mut bytes) {
            Ok(()) => *blake3::hash(&bytes).as_bytes(),
            Err(_) => unreachable!("names encode into memory"),
        }
    }
}
