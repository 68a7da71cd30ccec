//! Settings of a bucket that decide what its policy and its ACLs may do.

use minicbor::{Decode, Encode};

/// The four switches of PublicAccessBlock. A new bucket has all of them on, as AWS makes buckets since April 2023.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct PublicAccessBlock {
    /// Refuses to set ACLs that grant to the public.
    #[n(0)]
    pub block_public_acls: bool,
    /// Grants to the public count for nothing.
    #[n(1)]
    pub ignore_public_acls: bool,
    /// Refuses to set a policy that is public.
    #[n(2)]
    pub block_public_policy: bool,
    /// A public policy lets in members only.
    #[n(3)]
    pub restrict_public_buckets: bool,
}

impl Default for PublicAccessBlock {
    fn default() -> Self {
        Self {
            block_public_acls: true,
            ignore_public_acls: true,
            block_public_policy: true,
            restrict_public_buckets: true,
        }
    }
}

/// Who owns new objects, and whether ACLs mean anything ("Controlling ownership of objects").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum ObjectOwnership {
    /// The bucket's owner owns everything; ACLs are off.
    #[default]
    #[n(0)]
    BucketOwnerEnforced,
    /// The bucket's owner owns what is written with `bucket-owner-full-control`, the writer the rest.
    #[n(1)]
    BucketOwnerPreferred,
    /// The writer owns.
    #[n(2)]
    ObjectWriter,
}

impl ObjectOwnership {
    /// The name in AWS's XML and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BucketOwnerEnforced => "BucketOwnerEnforced",
            Self::BucketOwnerPreferred => "BucketOwnerPreferred",
            Self::ObjectWriter => "ObjectWriter",
        }
    }

    /// Reads [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::BucketOwnerEnforced, Self::BucketOwnerPreferred, Self::ObjectWriter]
            .into_iter()
            .find(|ownership| ownership.as_str() == text)
    }

    /// Whether ACLs mean anything.
    pub const fn has_acls(self) -> bool {
        !matches!(self, Self::BucketOwnerEnforced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_kept_as_they_were() {
        assert_eq!(ObjectOwnership::default(), ObjectOwnership::BucketOwnerEnforced);
        for name in ["BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"] {
            assert_eq!(ObjectOwnership::parse(name).map(ObjectOwnership::as_str), Some(name));
        }
        assert_eq!(ObjectOwnership::parse("objectwriter"), None);
        let block = PublicAccessBlock { ignore_public_acls: false, ..PublicAccessBlock::default() };
        let bytes = minicbor::to_vec(block).expect("encoded");
        assert_eq!(bytes, [0x84, 0xf5, 0xf4, 0xf5, 0xf5]);
        assert_eq!(minicbor::decode::<PublicAccessBlock>(&bytes).expect("decoded"), block);
    }
}
