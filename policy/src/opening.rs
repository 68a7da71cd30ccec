//! Openings: a controller's explicit, dated, revocable decisions to let somebody in who is not a member of the bucket's
//! project. Nobody else gets in at all: what policies and ACLs say of strangers counts only where an opening says so.
//!
//! An opening gives actions by coarse words, because a controller decides about reading and writing and not about the sixty
//! actions of S3 ([`OpenedAction`] says which each one stands for). None of them gives the settings of a bucket, ACLs,
//! retention, or the removal of a version.

use crate::condition::Network;
use std::net::IpAddr;

/// An opening's id: opaque here.
pub type OpeningRef = [u8; 16];

/// A block of addresses, such as `10.20.0.0/16` or `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr(Network);

impl Cidr {
    /// Reads a block; an address alone is the block of itself.
    pub fn parse(text: &str) -> Option<Self> {
        Network::parse(text).map(Self)
    }

    /// Whether the address lies in it. An IPv4 address in IPv6's clothes (`::ffff:10.0.0.1`) is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(address.to_canonical())
    }
}

/// What an opening may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum OpenedAction {
    /// Objects and their versions, attributes and tags: GetObject, HeadObject, GetObjectAttributes, GetObjectTagging, and
    /// being the source of a copy. A byte budget counts what this sends.
    Read = 1,
    /// Keys, versions and open uploads under the prefix; and whether a key under it exists.
    List = 2,
    /// New objects, with their tags, in one piece or in parts; one's own uploads may be listed and given up.
    Write = 4,
    /// Objects by key. In a bucket with versioning this adds a delete marker; versions stay.
    Delete = 8,
}

impl OpenedAction {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::List, Self::Write, Self::Delete];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Write => "write",
            Self::Delete => "delete",
        }
    }

    /// The word that covers an action of S3, given in lower case without `s3:`. `None`: no opening gives it.
    pub(crate) fn covering(action: &str) -> Option<Self> {
        Some(match action {
            "getobject"
            | "getobjectversion"
            | "getobjectattributes"
            | "getobjectversionattributes"
            | "getobjecttagging"
            | "getobjectversiontagging" => Self::Read,
            "listbucket" | "listbucketversions" | "listbucketmultipartuploads" => Self::List,
            "putobject" | "abortmultipartupload" | "listmultipartuploadparts" => Self::Write,
            "deleteobject" => Self::Delete,
            _ => return None,
        })
    }
}

/// A set of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenedActions(u8);

impl OpenedActions {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Adds one.
    #[must_use]
    pub const fn with(self, action: OpenedAction) -> Self {
        Self(self.0 | action as u8)
    }

    /// Whether it is among them.
    pub const fn has(self, action: OpenedAction) -> bool {
        self.0 & action as u8 != 0
    }
}

impl FromIterator<OpenedAction> for OpenedActions {
    fn from_iter<I: IntoIterator<Item = OpenedAction>>(actions: I) -> Self {
        actions.into_iter().fold(Self::NONE, Self::with)
    }
}

/// Who is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A user, by id, whatever project the access key acts in.
    User(String),
    /// A project, by id: every access key that acts in it.
    Project(String),
    /// Everybody, unsigned requests too.
    Public,
}

/// What an opening lets its recipient do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// These actions.
    Actions(OpenedActions),
    /// Whatever the bucket's policy and ACLs allow, as S3 decides among accounts. Only what carries this lets documents of
    /// S3 give rights to anybody outside the project.
    WhatPoliciesSay,
}

/// From where it may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Zones {
    /// From everywhere.
    Anywhere,
    /// From within one of these blocks. Empty, or of an asker whose address is not known: from nowhere.
    Within(Vec<Cidr>),
}

/// One opening, as a decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// Which one.
    pub id: OpeningRef,
    /// Who is let in.
    pub recipient: Recipient,
    /// To which keys: those that start with this.
    pub prefix: Vec<u8>,
    /// What for.
    pub opens: Opens,
    /// From when on, in microseconds since 1970 (UTC).
    pub start_micros: u64,
    /// Until when, excluded; `None`: until it is revoked.
    pub expiry_micros: Option<u64>,
    /// From where.
    pub zones: Zones,
}

impl Opening {
    /// Whether it holds at this time.
    pub fn is_active(&self, now_micros: u64) -> bool {
        self.start_micros <= now_micros && self.expiry_micros.is_none_or(|expiry| now_micros < expiry)
    }

    fn admits_from(&self, address: Option<IpAddr>) -> bool {
        match (&self.zones, address) {
            (Zones::Anywhere, _) => true,
            (Zones::Within(blocks), Some(address)) => blocks.iter().any(|block| block.contains(address)),
            (Zones::Within(_), None) => false,
        }
    }
}

/// What a request lists, if it asks for names at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing<'a> {
    /// Nothing: the action is about one key, or the bucket itself (HeadBucket).
    Nothing,
    /// Every key that starts with this. Also a single key, of which the answer would tell whether it exists.
    Under(&'a [u8]),
}

/// What of a request openings look at, besides its action and key.
#[derive(Debug, Clone, Copy)]
pub struct Use<'a> {
    /// The openings of the bucket and of its whole project.
    pub openings: &'a [Opening],
    /// Those among them whose byte budget is used up: nothing is read by them any more.
    pub exhausted: &'a [OpeningRef],
    /// The only one that counts, for a transfer that began by it.
    pub only: Option<OpeningRef>,
    /// The asker's address, if it is known.
    pub address: Option<IpAddr>,
    /// When the decision is made.
    pub now_micros: u64,
    /// What is listed.
    pub listing: Listing<'a>,
}

impl Use<'_> {
    /// Nothing is open.
    pub const CLOSED: Use<'static> =
        Use { openings: &[], exhausted: &[], only: None, address: None, now_micros: 0, listing: Listing::Nothing };

    /// Openings for this asker that hold here and now, whatever they are for. `user` has the asker's user id and project
    /// id; `None` for an unsigned request.
    pub(crate) fn for_asker<'b>(&'b self, user: Option<(&'b str, &'b str)>) -> impl Iterator<Item = &'b Opening> {
        self.openings.iter().filter(move |opening| {
            let is_for_asker = match (&opening.recipient, user) {
                (Recipient::Public, _) => true,
                (Recipient::User(id), Some((user, _))) => id == user,
                (Recipient::Project(id), Some((_, project))) => id == project,
                (_, None) => false,
            };
            is_for_asker
                && self.only.is_none_or(|only| only == opening.id)
                && opening.is_active(self.now_micros)
                && opening.admits_from(self.address)
        })
    }

    /// Whether an opening by actions covers this action on this key.
    pub(crate) fn covers(&self, opening: &Opening, action: &str, key: Option<&[u8]>) -> bool {
        let Opens::Actions(actions) = opening.opens else { return false };
        if action == "getbucketlocation" || action == "listbucket" && self.listing == Listing::Nothing {
            return true;
        }
        let Some(needed) = OpenedAction::covering(action) else { return false };
        let is_within = match (key, self.listing) {
            (Some(key), _) => key.starts_with(&opening.prefix),
            (None, Listing::Under(prefix)) => prefix.starts_with(&opening.prefix),
            (None, Listing::Nothing) => false,
        };
        let has_budget = needed != OpenedAction::Read || !self.exhausted.contains(&opening.id);
        actions.has(needed) && is_within && has_budget
    }

    /// Whether an opening leaves this key, or what is listed, to policies and ACLs.
    pub(crate) fn leaves_to_policies(&self, opening: &Opening, key: Option<&[u8]>) -> bool {
        let is_within = match (key, self.listing) {
            (Some(key), _) => key.starts_with(&opening.prefix),
            (None, Listing::Under(prefix)) => prefix.starts_with(&opening.prefix),
            (None, Listing::Nothing) => opening.prefix.is_empty(),
        };
        opening.opens == Opens::WhatPoliciesSay && is_within
    }
}
