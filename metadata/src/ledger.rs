//! Ledger records: one custody event in the same commit as its effect.
//!
//! Every commit that changes what a project holds writes exactly one. Commits of Valv's own bookkeeping (leases, clock,
//! heartbeats, queues, parts that no version took) change nothing of a project's and write none. A pending row beside the
//! record has it sequenced into the project's tree later (`sequencer.rs`).

use crate::attempt::Attempt;
use crate::records::{self, EventKind, LedgerRecord};
use crate::seal::Place;
use crate::service::Core;
use bytes::Bytes;
use valv_ledger::Names;
use valv_metadata_api::{Actor, MetadataError};
use valv_types::{BucketId, CommitId, ProjectId, TimestampMicros, VersionId};

/// What happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event<'a> {
    pub(crate) kind: EventKind,
    /// Whose ledger: the project that the thing belongs to, whoever acted.
    pub(crate) project: ProjectId,
    pub(crate) time: TimestampMicros,
    pub(crate) bucket: Option<BucketId>,
    pub(crate) version: Option<VersionId>,
    pub(crate) other_version: Option<VersionId>,
    pub(crate) bytes: u64,
    /// The object key; or a bucket's or a user's name.
    pub(crate) subject: &'a [u8],
}

impl<'a> Event<'a> {
    /// About a whole project (or the cluster), or somebody or something that is not a bucket or a version; `subject` is the
    /// name of whichever.
    pub(crate) fn of_project<S: AsRef<[u8]> + ?Sized>(
        kind: EventKind,
        project: ProjectId,
        time: TimestampMicros,
        subject: &'a S,
    ) -> Self {
        let subject = subject.as_ref();
        Self { kind, project, time, bucket: None, version: None, other_version: None, bytes: 0, subject }
    }
}

/// Why a record has more to say than its event.
#[derive(Debug, Clone, Copy, Default)]
struct Besides<'a> {
    /// The lifecycle rule that did it.
    rule: Option<&'a str>,
    /// What an act of administration says: a JSON object.
    detail: Option<&'a str>,
}

impl Core {
    /// Adds the event to the attempt. `commit` names the record; `actor` is `None` for background work.
    pub(crate) fn record_event(
        &self,
        attempt: &mut Attempt,
        commit: CommitId,
        actor: Option<&Actor>,
        event: Event<'_>,
    ) -> Result<(), MetadataError> {
        self.add_record(attempt, commit, actor, Besides::default(), event)
    }

    /// The same for what a lifecycle rule did: nobody asked for it, so the record names the rule instead.
    pub(crate) fn record_rule_event(
        &self,
        attempt: &mut Attempt,
        commit: CommitId,
        rule: &str,
        event: Event<'_>,
    ) -> Result<(), MetadataError> {
        self.add_record(attempt, commit, None, Besides { rule: Some(rule), ..Besides::default() }, event)
    }

    /// The same for an act of administration. `detail` is a JSON object that tells what a controller or an auditor will ask
    /// years later: purposes, references, old and new values. It is sealed as the names are.
    pub(crate) fn record_act(
        &self,
        attempt: &mut Attempt,
        commit: CommitId,
        actor: &Actor,
        detail: &serde_json::Value,
        event: Event<'_>,
    ) -> Result<(), MetadataError> {
        self.record_act_of(attempt, commit, Some(actor), detail, event)
    }

    /// The same; without an actor for what an approved act does by itself.
    pub(crate) fn record_act_of(
        &self,
        attempt: &mut Attempt,
        commit: CommitId,
        actor: Option<&Actor>,
        detail: &serde_json::Value,
        event: Event<'_>,
    ) -> Result<(), MetadataError> {
        let detail = detail.to_string();
        self.add_record(attempt, commit, actor, Besides { detail: Some(&detail), ..Besides::default() }, event)
    }

    /// The same for what Valv did by itself and an auditor will ask about: there is no actor.
    pub(crate) fn record_work(
        &self,
        attempt: &mut Attempt,
        commit: CommitId,
        detail: &serde_json::Value,
        event: Event<'_>,
    ) -> Result<(), MetadataError> {
        let detail = detail.to_string();
        self.add_record(attempt, commit, None, Besides { detail: Some(&detail), ..Besides::default() }, event)
    }

    fn add_record(
        &self,
        attempt: &mut Attempt,
        commit: CommitId,
        actor: Option<&Actor>,
        besides: Besides<'_>,
        event: Event<'_>,
    ) -> Result<(), MetadataError> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt)
            .map_err(|_| MetadataError::Unavailable { what: "no randomness available".to_owned() })?;
        let names = Names {
            salt,
            subject: event.subject.to_vec(),
            access_key: actor.and_then(|actor| actor.access_key.clone()),
            request_id: actor.map(|actor| actor.request_id.clone()).unwrap_or_default(),
            remote: actor.map(|actor| actor.remote.clone()).unwrap_or_default(),
            other_version: event.other_version,
            rule: besides.rule.map(str::to_owned),
            caller: actor.and_then(|actor| actor.caller.clone()),
            detail: besides.detail.map(str::to_owned),
        };
        let names_hash = names.hash();
        let sealed = self.seals.seal(Place::Ledger(event.project, commit), &names);
        let sealed = match sealed {
            // What goes on after a project's key was destroyed is recorded without names.
            Err(MetadataError::KeyDestroyed) => crate::seal::Sealed { key_version: 0, bytes: Vec::new() },
            // So do purging and repair where a key is gone in another way.
            Err(MetadataError::KeyUnavailable)
                if matches!(event.kind, EventKind::VersionPurged | EventKind::ShardsRepaired) =>
            {
                crate::seal::Sealed { key_version: 0, bytes: Vec::new() }
            }
            other => other?,
        };
        let record = LedgerRecord {
            time: event.time,
            kind: event.kind,
            user: actor.and_then(|actor| actor.user),
            bucket: event.bucket,
            version: event.version,
            bytes: event.bytes,
            names_hash,
            key_version: sealed.key_version,
            sealed: sealed.bytes,
            entries: None,
        };
        attempt.put(self.rows.ledger(event.project, commit), records::encode(&record));
        attempt.put(self.rows.ledger_pending(event.project, commit), Bytes::new());
        Ok(())
    }
}
