//! What goes into one batch: accesses in the order in which they began, those of one kind next to each other folded into one.
//! Without I/O and clock, so that a property test can hold it against a model.

use crate::request_id::RequestId;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::ops::Range;
use valv_ledger::{Access, AccessName, AccessState, Client};
use valv_metadata_api::{ACCESSES_PER_CALL_MAX, ProjectAccess};
use valv_types::{AccessKeyId, BucketId, OpeningId, ProjectId, TimestampMicros, UserId, VersionId};

/// Clients that are looked through for one that is there already. Beyond it a batch names one twice, which is harmless.
const CLIENTS_LOOKED_AT: usize = 16;
/// Status of a refusal.
const FORBIDDEN: u16 = 403;

/// An access as a request knows it.
#[derive(Debug, Clone)]
pub(crate) struct NewAccess {
    /// Whose ledger.
    pub(crate) project: ProjectId,
    pub(crate) action: &'static str,
    pub(crate) user: Option<UserId>,
    pub(crate) access_key: Option<AccessKeyId>,
    pub(crate) remote: IpAddr,
    pub(crate) request: RequestId,
    pub(crate) time: TimestampMicros,
    pub(crate) bucket: Option<BucketId>,
    pub(crate) version: Option<VersionId>,
    pub(crate) opening: Option<OpeningId>,
    /// Empty where no object is read.
    pub(crate) range: Range<u64>,
    pub(crate) bytes: u64,
    pub(crate) status: u16,
    pub(crate) state: AccessState,
    /// What no id stands for: a key without a version, a listing's prefix.
    pub(crate) subject: Vec<u8>,
}

/// What accesses must have in common to be folded: everything but time, range and request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    project: ProjectId,
    client: u32,
    action: &'static str,
    user: Option<UserId>,
    bucket: Option<BucketId>,
    version: Option<VersionId>,
    opening: Option<OpeningId>,
    status: u16,
    state: AccessState,
    subject: Vec<u8>,
}

struct Gathered {
    project: ProjectId,
    access: Access,
    client: u32,
    requests: Vec<RequestId>,
    subject: Vec<u8>,
}

/// A batch in the making.
#[derive(Default)]
pub(crate) struct Gathering {
    clients: Vec<(Option<AccessKeyId>, IpAddr)>,
    accesses: Vec<Gathered>,
    /// The newest access of each kind.
    newest: HashMap<Kind, usize>,
    requests: usize,
}

impl Gathering {
    /// Whether the next access has to go into another batch. Requests count, not what they fold into: each has an id.
    pub(crate) fn is_full(&self) -> bool {
        self.requests >= ACCESSES_PER_CALL_MAX
    }

    /// Adds an access, and returns the number that it goes by: `number`, or that of the access it was folded into.
    pub(crate) fn add(&mut self, number: u64, new: NewAccess) -> u64 {
        self.requests += 1;
        let client = self.client(new.access_key, new.remote);
        // Nobody who signs nothing can make the ledger grow by as many names as he likes: of his refusals the first is named.
        let is_strangers = new.user.is_none() && new.status == FORBIDDEN;
        let kind = Kind {
            project: new.project,
            client,
            action: new.action,
            user: new.user,
            bucket: new.bucket,
            version: new.version.filter(|_| !is_strangers),
            opening: new.opening,
            status: new.status,
            state: new.state,
            subject: if is_strangers { Vec::new() } else { new.subject.clone() },
        };
        let index = self.accesses.len();
        match self.newest.entry(kind) {
            Entry::Occupied(newest) if fold(&mut self.accesses[*newest.get()], &new.range, new.bytes, new.request) => {
                return self.accesses[*newest.get()].access.number;
            }
            Entry::Occupied(mut newest) => {
                newest.insert(index);
            }
            Entry::Vacant(place) => {
                place.insert(index);
            }
        }
        let access = Access {
            number,
            time: new.time,
            action: new.action.to_owned(),
            user: new.user,
            bucket: new.bucket,
            version: new.version,
            opening: new.opening,
            start: new.range.start,
            end: new.range.end,
            bytes: new.bytes,
            count: 1,
            status: new.status,
            state: new.state,
        };
        let (project, requests, subject) = (new.project, vec![new.request], new.subject);
        self.accesses.push(Gathered { project, access, client, requests, subject });
        number
    }

    fn client(&mut self, access_key: Option<AccessKeyId>, remote: IpAddr) -> u32 {
        let first = self.clients.len().saturating_sub(CLIENTS_LOOKED_AT);
        let found = self.clients[first..].iter().position(|(key, from)| *from == remote && *key == access_key);
        let index = match found {
            Some(place) => first + place,
            None => {
                self.clients.push((access_key, remote));
                self.clients.len() - 1
            }
        };
        // At most one for each request of a batch.
        index as u32
    }

    /// The batch as it travels.
    pub(crate) fn into_parts(self) -> (Vec<Client>, Vec<ProjectAccess>) {
        let client =
            |(access_key, remote): (Option<AccessKeyId>, IpAddr)| Client { access_key, remote: remote.to_string() };
        let access = |gathered: Gathered| {
            let Gathered { project, access, client, requests, subject } = gathered;
            let requests = requests.iter().map(RequestId::to_string).collect();
            ProjectAccess { project, access, name: AccessName { client, requests, subject } }
        };
        (self.clients.into_iter().map(client).collect(), self.accesses.into_iter().map(access).collect())
    }
}

/// Folds a range into an access if they touch.
fn fold(into: &mut Gathered, range: &Range<u64>, bytes: u64, request: RequestId) -> bool {
    let access = &mut into.access;
    if range.start > access.end || range.end < access.start {
        return false;
    }
    access.start = access.start.min(range.start);
    access.end = access.end.max(range.end);
    access.bytes = access.bytes.saturating_add(bytes);
    access.count += 1;
    into.requests.push(request);
    true
}
