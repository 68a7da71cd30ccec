//! Accesses become ledger records: one for each project and call, with all that it says of the project.
//!
//! The commit expects nothing of any row. That what a reader is told was current is settled by the read itself, which sees every
//! commit that returned before it began; a removal that is committed between the read and this is simultaneous with both.
//! That the service which read is still the one that commits is what the commit shows by succeeding. To expect the row of
//! every version that is read would have one conflict send all readers of a batch round again.

use crate::attempt::{self, Attempt};
use crate::records::{self, EventKind, LedgerRecord};
use crate::seal::{Place, Sealed};
use crate::service::{Core, malformed};
use bytes::Bytes;
use std::collections::BTreeMap;
use valv_ledger::access::{ACCESSES_PER_LEAF_MAX, COMPLETIONS_PER_LEAF_MAX, NAMES_LEN_BYTES_MAX};
use valv_ledger::{Access, AccessName, AccessNames, Accesses, Client, Completion};
use valv_metadata_api::{
    ACCESSES_PER_CALL_MAX, COMPLETIONS_PER_CALL_MAX, Empty, MetadataError, ProjectAccess, ProjectCompletion,
    RecordAccesses,
};
use valv_types::{CommitId, ProjectId, RecorderId};

impl Core {
    pub(crate) async fn add_accesses(&self, request: RecordAccesses) -> Result<Empty, MetadataError> {
        if request.accesses.len() > ACCESSES_PER_CALL_MAX || request.completions.len() > COMPLETIONS_PER_CALL_MAX {
            return Err(malformed("too many accesses in one call"));
        }
        let commit = request.commit;
        let mut attempt = Attempt::default();
        for (project, leaves) in sorted(request)? {
            for leaf in leaves {
                self.add_leaf(&mut attempt, project, leaf)?;
            }
        }
        match attempt::commit(self.store.as_ref(), commit, attempt).await? {
            true => Ok(Empty {}),
            // Nothing was expected, so nothing can conflict.
            false => Err(MetadataError::Conflict),
        }
    }

    fn add_leaf(&self, attempt: &mut Attempt, project: ProjectId, leaf: LeafDraft) -> Result<(), MetadataError> {
        let event = CommitId::random();
        let LeafDraft { accesses, names, .. } = leaf;
        let (names_hash, sealed) = match names.accesses.is_empty() {
            true => (AccessNames::NONE, no_names()),
            false => (names.hash(), self.seal_names(project, event, &names)?),
        };
        let bytes = accesses.accesses.iter().fold(0u64, |sum, access| sum.saturating_add(access.bytes));
        let kind =
            if accesses.accesses.is_empty() { EventKind::AccessesCompleted } else { EventKind::AccessesRecorded };
        let record = LedgerRecord {
            time: self.now(),
            kind,
            user: None,
            bucket: None,
            version: None,
            bytes,
            names_hash,
            key_version: sealed.key_version,
            sealed: sealed.bytes,
            entries: Some(accesses.to_bytes()),
        };
        attempt.put(self.rows.ledger(project, event), records::encode(&record));
        attempt.put(self.rows.ledger_pending(project, event), Bytes::new());
        Ok(())
    }

    /// A project whose key is gone can still be asked for, and refuse: its accesses are recorded without names, and those of
    /// others that are in the same commit go on.
    fn seal_names(&self, project: ProjectId, event: CommitId, names: &AccessNames) -> Result<Sealed, MetadataError> {
        match self.seals.seal(Place::Ledger(project, event), names) {
            Err(MetadataError::KeyUnavailable | MetadataError::KeyDestroyed) => Ok(no_names()),
            sealed => sealed,
        }
    }
}

fn no_names() -> Sealed {
    Sealed { key_version: 0, bytes: Vec::new() }
}

/// A leaf in the making.
struct LeafDraft {
    accesses: Accesses,
    names: AccessNames,
    /// Where the call's clients stand among the leaf's.
    clients: BTreeMap<u32, u32>,
    names_len_bytes: usize,
}

impl LeafDraft {
    fn new(recorder: RecorderId) -> Result<Self, MetadataError> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt)
            .map_err(|_| MetadataError::Unavailable { what: "no randomness available".to_owned() })?;
        Ok(Self {
            accesses: Accesses { recorder, accesses: Vec::new(), completions: Vec::new() },
            names: AccessNames { salt, clients: Vec::new(), accesses: Vec::new() },
            clients: BTreeMap::new(),
            names_len_bytes: 0,
        })
    }

    fn has_room_for(&self, name: &AccessName) -> bool {
        let is_within = self.names_len_bytes + name.len_bytes() <= NAMES_LEN_BYTES_MAX;
        self.accesses.accesses.len() < ACCESSES_PER_LEAF_MAX && (is_within || self.accesses.accesses.is_empty())
    }

    fn add(&mut self, access: Access, mut name: AccessName, clients: &[Client]) -> Result<(), MetadataError> {
        name.client = match self.clients.get(&name.client) {
            Some(index) => *index,
            None => {
                let client =
                    clients.get(name.client as usize).ok_or_else(|| malformed("a client that is not there"))?;
                let index = self.names.clients.len() as u32;
                self.names.clients.push(client.clone());
                self.clients.insert(name.client, index);
                index
            }
        };
        self.names_len_bytes += name.len_bytes();
        self.accesses.accesses.push(access);
        self.names.accesses.push(name);
        Ok(())
    }

    fn complete(&mut self, completion: Completion) {
        self.accesses.completions.push(completion);
    }
}

/// The leaves of one call by project. An access that is too long for a leaf with others has one of its own.
fn sorted(request: RecordAccesses) -> Result<BTreeMap<ProjectId, Vec<LeafDraft>>, MetadataError> {
    let RecordAccesses { recorder, clients, accesses, completions, .. } = request;
    let mut projects: BTreeMap<ProjectId, Vec<LeafDraft>> = BTreeMap::new();
    for ProjectAccess { project, access, name } in accesses {
        let leaves = projects.entry(project).or_default();
        if leaves.last().is_none_or(|leaf| !leaf.has_room_for(&name)) {
            leaves.push(LeafDraft::new(recorder)?);
        }
        if let Some(leaf) = leaves.last_mut() {
            leaf.add(access, name, &clients)?;
        }
    }
    for ProjectCompletion { project, completion } in completions {
        let leaves = projects.entry(project).or_default();
        if leaves.last().is_none_or(|leaf| leaf.accesses.completions.len() >= COMPLETIONS_PER_LEAF_MAX) {
            leaves.push(LeafDraft::new(recorder)?);
        }
        if let Some(leaf) = leaves.last_mut() {
            leaf.complete(completion);
        }
    }
    Ok(projects)
}
