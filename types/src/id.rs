//! Ids of one kind per thing. All are opaque to everyone but their maker, and none holds a name.

use std::fmt;
use std::str::FromStr;

/// An id's text form could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: expected {expected}")]
pub struct IdError {
    /// The kind of id that was asked for.
    pub kind: &'static str,
    /// What the text should have looked like.
    pub expected: &'static str,
}

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The id's bytes, in the order in which they stand in keys and on disk.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Reads an id from a slice of exactly 16 bytes.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
                let bytes = bytes.try_into().map_err(|_| IdError { kind: stringify!($name), expected: "16 bytes" })?;
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| IdError { kind: stringify!($name), expected: "32 hexadecimal digits" })?;
                Ok(Self(bytes))
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::from_slice(d.bytes()?).map_err(|_| minicbor::decode::Error::message("id is not 16 bytes"))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! random_id128 {
    ($($name:ident),*) => {$(
        impl $name {
            /// A fresh random id (122 random bits, in the shape of a UUID version 4).
            ///
            /// # Panics
            /// If the operating system has no randomness to give, which Linux does not do after boot.
            pub fn random() -> Self {
                let mut bytes = [0; 16];
                fill_random(&mut bytes);
                bytes[6] = (bytes[6] & 0x0f) | 0x40;
                bytes[8] = (bytes[8] & 0x3f) | 0x80;
                Self(bytes)
            }
        }
    )*};
}

/// Fills `bytes` from the operating system's generator.
fn fill_random(bytes: &mut [u8]) {
    // An id that is not random could collide and overwrite data, so no fallback is acceptable here.
    if let Err(error) = getrandom::fill(bytes) {
        panic!("the operating system gave no randomness: {error}");
    }
}

id128!(
    /// One Valv cluster: every disk and every process of it carries this id.
    ClusterId
);
id128!(
    /// A project: the tenant, with one controller and one key lineage.
    ProjectId
);
id128!(
    /// A namespace: the set in which bucket names are unique.
    NamespaceId
);
id128!(
    /// A bucket. Never reused, so a bucket made anew under an old name is another bucket.
    BucketId
);
id128!(
    /// A user: a person or program that owns access keys.
    UserId
);
id128!(
    /// An object version: what one PUT or one completed multipart upload made.
    VersionId
);
id128!(
    /// A multipart upload. When it completes, its object version gets the same 16 bytes as its id,
    /// so the parts' blob references need no rewriting.
    UploadId
);
id128!(
    /// An opening: a controller's dated, revocable decision to let somebody in who is not a member.
    OpeningId
);
id128!(
    /// An act that waits for a second person's approval.
    ProposalId
);
id128!(
    /// A token with which a user talks to the admin service.
    TokenId
);
id128!(
    /// A custodian: an organisation that runs hardware.
    CustodianId
);
id128!(
    /// A legal hold on a project, bucket or prefix.
    HoldId
);
id128!(
    /// A disposal: a list of versions whose retention has ended, and what was decided about them.
    DisposalId
);
id128!(
    /// One attempt to commit to a MetaStore; its outcome can be asked for afterwards.
    CommitId
);
id128!(
    /// One directory with its own extents and index: the unit of placement.
    DiskId
);
id128!(
    /// One storage process on one host.
    NodeId
);
id128!(
    /// A data centre.
    SiteId
);
id128!(
    /// One run of a gateway, as what it recorded of accesses names it.
    RecorderId
);
id128!(
    /// What one attempt to upload one body or part wrote. Never reused.
    ///
    /// Bytes 0..4 are the gateway's incarnation (big-endian), 4..10 its sequence number within that
    /// incarnation (48 bits, big-endian), 10..16 are random. The first two make orphans provable: a blob
    /// that no row references is an orphan only when its incarnation was fenced or has published a higher
    /// low-water mark.
    BlobId
);

impl ProjectId {
    /// Stands for the cluster itself where a project is named: its ledger has the events that belong to no project, and its
    /// key in the key store seals what the cluster keeps under seal. No project has this id, and no request can name it.
    pub const CLUSTER: Self = Self([0; 16]);
}

random_id128!(
    ClusterId,
    ProjectId,
    NamespaceId,
    BucketId,
    UserId,
    VersionId,
    UploadId,
    CommitId,
    DiskId,
    NodeId,
    SiteId,
    OpeningId,
    ProposalId,
    TokenId,
    CustodianId,
    RecorderId,
    HoldId,
    DisposalId
);

impl BlobId {
    /// The largest sequence number that fits.
    pub const SEQUENCE_MAX: u64 = (1 << 48) - 1;

    /// A new blob id of `incarnation`; `sequence` must be at most [`Self::SEQUENCE_MAX`].
    ///
    /// # Panics
    /// If `sequence` is larger: at a million blobs a second that takes nine years within one run.
    pub fn new(incarnation: IncarnationId, sequence: u64) -> Self {
        assert!(sequence <= Self::SEQUENCE_MAX, "an incarnation has used up its blob ids");
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&incarnation.0.to_be_bytes());
        bytes[4..10].copy_from_slice(&sequence.to_be_bytes()[2..]);
        fill_random(&mut bytes[10..]);
        Self(bytes)
    }

    /// The incarnation that wrote this blob.
    pub fn incarnation(&self) -> IncarnationId {
        IncarnationId(u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]))
    }

    /// The blob's sequence number within its incarnation.
    pub fn sequence(&self) -> u64 {
        let b = &self.0;
        u64::from_be_bytes([0, 0, b[4], b[5], b[6], b[7], b[8], b[9]])
    }
}

impl From<UploadId> for VersionId {
    fn from(upload: UploadId) -> Self {
        Self(upload.0)
    }
}

/// One run of a gateway process, registered in metadata; it can be fenced. Numbers are never reused.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    minicbor::Encode,
    minicbor::Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct IncarnationId(#[n(0)] pub u32);

/// An erasure profile with its sites and placement groups. Pool 0 is the system's own (see [`crate::SYSTEM_POOL`]).
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    minicbor::Encode,
    minicbor::Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct PoolId(#[n(0)] pub u32);

/// A MetaStore with the projects, pools and disks that live in it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    minicbor::Encode,
    minicbor::Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct CellId(#[n(0)] pub u16);

/// The public half of an access key, as it stands in a request's Credential (16 to 128 letters, digits or `_`).
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    minicbor::Encode,
    minicbor::Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct AccessKeyId(#[n(0)] String);

impl AccessKeyId {
    /// Checks and takes an access key id (AWS: 16 to 128 characters of `\w`; we allow 3 and up, and `-` and `.`,
    /// so that keys carried over from other stores keep working).
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if !(3..=128).contains(&text.len()) || !text.bytes().all(allowed) {
            return Err(IdError { kind: "access key id", expected: "3 to 128 letters, digits, '_', '-' or '.'" });
        }
        Ok(Self(text))
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccessKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blob_id_gives_back_its_incarnation_and_sequence() {
        let id = BlobId::new(IncarnationId(0xdead_beef), BlobId::SEQUENCE_MAX);
        assert_eq!(id.incarnation(), IncarnationId(0xdead_beef));
        assert_eq!(id.sequence(), BlobId::SEQUENCE_MAX);
        assert_ne!(id, BlobId::new(IncarnationId(0xdead_beef), BlobId::SEQUENCE_MAX));
    }

    #[test]
    fn ids_read_back_from_their_text() {
        let id = BucketId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("xyz".parse::<BucketId>().is_err());
    }

    #[test]
    fn access_key_ids_are_checked() {
        assert!(AccessKeyId::new("VALV0123456789ABCDEF").is_ok());
        for bad in ["", "ab", "with space", "slash/es", "ctrl\n123"] {
            assert!(AccessKeyId::new(bad).is_err(), "{bad:?}");
        }
    }
}
