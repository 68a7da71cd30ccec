//! Disposal: what may go is listed, a second person approves the list, and each removal is judged again within its commit.
//!
//! The list lies in pages of its own: delete markers first, then versions, each in the order of listings. It is carried out
//! from its end, so that data go before the markers that cover them, and the oldest versions of a key before newer ones.
//! The row of the disposal says how many pages are left: a page goes in the commit that counts what became of it.
//!
//! Crash consistency: a removal's commit id follows from disposal and version, so a page that was half done when a process
//! died is done again, and what had been removed is counted as removed. A list whose making was cut short, and one that
//! nobody approved in time, is cleared away by [`Core::tidy_disposals`].

use super::records::{DisposalPageRecord, DisposalRecord, HoldTexts};
use crate::approvals::Carried;
use crate::attempt::{self, ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::lock::Leaving;
use crate::records::{self, EventKind};
use crate::rows::last_id;
use crate::seal::Place;
use crate::service::{Core, MetadataService, bucket_of, corrupt};
use crate::store::{Snapshot, Versioned};
use crate::versions::KeyPlace;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{BucketId, CommitId, DisposalId, ProjectId, ProposalId, TimestampMicros, VersionId};

/// Entries in a page of a list: with the longest keys a row is a quarter of the store's largest.
const ENTRIES_PER_PAGE: usize = 256;
/// Keys worked on at once: their commits share the store's syncs.
const KEYS_IN_FLIGHT: usize = 16;
/// Pages carried out in one go, so that other background work has its turn: some 2,000 removals, a few seconds.
const PAGES_PER_TURN: usize = 8;
/// A list takes seconds to make; one that is older than this was left by a crash.
const LISTING_SECS_MAX: u64 = 60 * 60;

impl MetadataService {
    /// Lists what may be disposed of in a bucket or under a prefix: versions that are under no retention and no hold.
    /// Nothing is removed before another person approves the list ([`Act::Dispose`]).
    pub async fn propose_disposal(&self, request: ProposeDisposal) -> Result<Disposal, MetadataError> {
        self.0.propose_disposal(request).await
    }

    /// A disposal and how far it is.
    pub async fn disposal(&self, project: ProjectId, disposal: DisposalId) -> Result<Disposal, MetadataError> {
        let row = self.0.disposal_row(project, disposal).await?;
        self.0.disposal_view(project, disposal, &records::decode("disposal", &row.value)?)
    }

    /// A project's disposals, the newest first.
    pub async fn disposals(&self, project: ProjectId) -> Result<Vec<Disposal>, MetadataError> {
        self.0.scan(move |core, snapshot| core.disposals_of(snapshot, project)).await
    }

    /// A page of a disposal's list, from 0; `None` after the last. A page that was carried out is no longer there, and
    /// empty here.
    pub async fn disposal_list(
        &self,
        project: ProjectId,
        disposal: DisposalId,
        page: u64,
    ) -> Result<Option<Vec<DisposalEntry>>, MetadataError> {
        let row = self.0.disposal_row(project, disposal).await?;
        let record: DisposalRecord = records::decode("disposal", &row.value)?;
        // Markers come first in the list, and are no data.
        let page = record.marker_pages + page;
        if page >= record.pages {
            return Ok(None);
        }
        let row = self.0.get(&self.0.rows.disposal_page(disposal, page)).await?;
        let page: Option<DisposalPageRecord> =
            row.map(|row| records::decode("disposal page", &row.value)).transpose()?;
        Ok(Some(page.map(|page| page.entries).unwrap_or_default()))
    }
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Removed {
        bytes: u64,
    },
    Marker,
    Refused,
    Gone,
    /// A marker that still covers something.
    Left,
}

/// What stands in a list so far.
struct Listing {
    project: ProjectId,
    record: DisposalRecord,
    digest: Sha256,
    page: Vec<DisposalEntry>,
}

impl Core {
    async fn disposal_row(&self, project: ProjectId, disposal: DisposalId) -> Result<Versioned, MetadataError> {
        let row = self.get(&self.rows.disposal(project, disposal)).await?;
        Ok(row.ok_or(RetentionRefusal::NoSuchDisposal)?)
    }

    fn disposal_view(
        &self,
        project: ProjectId,
        id: DisposalId,
        record: &DisposalRecord,
    ) -> Result<Disposal, MetadataError> {
        let texts: HoldTexts = self.seals.open(Place::Disposal(project, id), record.key_version, &record.sealed)?;
        Ok(Disposal {
            id,
            project,
            bucket: record.bucket,
            prefix: record.prefix.clone(),
            state: record.state,
            proposer: record.proposer,
            proposed: record.proposed,
            reason: texts.reason,
            reference: texts.reference,
            listed: record.listed,
            deciders: record.deciders.clone(),
            removed: record.removed,
            removed_bytes: record.removed_bytes,
            refused: record.refused,
            gone: record.gone,
            ended: record.ended,
            markers: record.markers,
        })
    }

    fn disposals_of(&self, snapshot: &dyn Snapshot, project: ProjectId) -> Result<Vec<Disposal>, MetadataError> {
        let range = self.rows.disposals(Some(project));
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let mut found = Vec::new();
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            let id = last_id(&key).map(DisposalId::from_bytes).ok_or_else(|| corrupt("disposal"))?;
            found.push(self.disposal_view(project, id, &records::decode("disposal", &row.value)?)?);
        }
        found.sort_by_key(|disposal| std::cmp::Reverse(disposal.proposed));
        Ok(found)
    }

    async fn propose_disposal(self: &Arc<Self>, request: ProposeDisposal) -> Result<Disposal, MetadataError> {
        for text in [&request.reason, &request.reference] {
            check_retention_text(text)?;
            if text.trim().is_empty() {
                return Err(RetentionRefusal::TextMissing.into());
            }
        }
        RetentionScope { bucket: Some(request.bucket), prefix: request.prefix.clone() }.check()?;
        if self.bucket_record(request.bucket).await?.project != request.project {
            return Err(RetentionRefusal::OtherProject.into());
        }
        let (project, id) = (request.project, request.disposal);
        let texts = HoldTexts { reason: request.reason.clone(), reference: request.reference.clone() };
        let sealed = self.seals.seal(Place::Disposal(project, id), &texts)?;
        let record = DisposalRecord {
            bucket: request.bucket,
            prefix: request.prefix.clone(),
            state: DisposalState::Listing,
            proposer: request.actor.user,
            proposed: self.now(),
            listed: DisposalList::default(),
            deciders: Vec::new(),
            pages: 0,
            removed: 0,
            removed_bytes: 0,
            refused: 0,
            gone: 0,
            markers: 0,
            ended: None,
            key_version: sealed.key_version,
            sealed: sealed.bytes,
            marker_pages: 0,
        };
        let mut attempt = Attempt::default();
        attempt.expect_absent(self.rows.disposal(project, id));
        attempt.put(self.rows.disposal(project, id), records::encode(&record));
        if !attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await? {
            return Err(MetadataError::Conflict);
        }
        match self.list_disposal(&request, record).await {
            Ok(disposal) => Ok(disposal),
            Err(error) => {
                // What stays behind, should this fail too, is cleared away later.
                let _ = self.drop_disposal(project, id).await;
                Err(error)
            }
        }
    }

    /// Makes the list, and then the proposal of it.
    async fn list_disposal(
        self: &Arc<Self>,
        request: &ProposeDisposal,
        record: DisposalRecord,
    ) -> Result<Disposal, MetadataError> {
        let (project, id) = (request.project, request.disposal);
        let row = self.disposal_row(project, id).await?;
        let mut listing = Listing { project, record, digest: Sha256::new(), page: Vec::new() };
        self.list_entries(request, &row, &mut listing, true).await?;
        listing.record.marker_pages = listing.record.pages;
        self.list_entries(request, &row, &mut listing, false).await?;
        let Listing { mut record, digest, .. } = listing;
        record.listed.digest = digest.finalize().into();
        if record.listed.versions == 0 {
            return Err(RetentionRefusal::NothingToDispose.into());
        }
        record.state = DisposalState::Proposed;
        let (mut attempt, commit) = (Attempt::default(), CommitId::random());
        attempt.expect(self.rows.disposal(project, id), Some(&row));
        attempt.put(self.rows.disposal(project, id), records::encode(&record));
        let view = self.disposal_view(project, id, &record)?;
        let event = self.disposal_event(EventKind::DisposalProposed, project, &record, record.listed.bytes);
        self.record_act(&mut attempt, commit, &request.actor, &disposal_facts(&view), event)?;
        if !attempt::commit(self.store.as_ref(), commit, attempt).await? {
            return Err(MetadataError::Conflict);
        }
        Ok(view)
    }

    /// Adds the delete markers of the scope to the list, or the versions that may go.
    async fn list_entries(
        self: &Arc<Self>,
        request: &ProposeDisposal,
        row: &Versioned,
        listing: &mut Listing,
        markers: bool,
    ) -> Result<(), MetadataError> {
        let mut after: Option<(Vec<u8>, VersionId)> = None;
        loop {
            let (key, version) = match after.take() {
                Some((key, version)) => (key, Some(VersionSelector::Id(version))),
                None => (Vec::new(), None),
            };
            let page = ListVersions {
                bucket: request.bucket,
                prefix: request.prefix.clone(),
                delimiter: Vec::new(),
                after: key,
                after_version: version,
                limit: RETENTION_PAGE_MAX,
            };
            let page = self.page_of_versions(page).await?;
            let last = page.entries.last().map(|entry| (entry.key.as_bytes().to_vec(), entry.id));
            let wanted: Vec<_> = page.entries.into_iter().filter(|entry| entry.is_delete_marker == markers).collect();
            if markers {
                for entry in wanted {
                    self.add_entry(request.disposal, row, listing, of_listed(entry)).await?;
                }
            } else {
                let bucket = request.bucket;
                let judged = self.scan(move |core, snapshot| core.judge_entries(snapshot, bucket, wanted)).await?;
                for (entry, judged) in judged {
                    match judged {
                        Judged::MayGo { until } => {
                            let listed = &mut listing.record.listed;
                            listed.versions += 1;
                            listed.bytes = listed.bytes.saturating_add(entry.len_bytes);
                            listed.retention_ended = listed.retention_ended.max(until);
                            listing.digest.update((entry.key.as_bytes().len() as u32).to_be_bytes());
                            listing.digest.update(entry.key.as_bytes());
                            listing.digest.update(entry.version.as_bytes());
                            self.add_entry(request.disposal, row, listing, entry).await?;
                        }
                        Judged::Kept => listing.record.listed.kept += 1,
                        Judged::Gone => {}
                    }
                }
            }
            match (page.next_after, last) {
                (Some(_), Some(last)) => after = Some(last),
                _ => break,
            }
        }
        self.write_page(request.disposal, row, listing).await
    }

    async fn add_entry(
        &self,
        id: DisposalId,
        row: &Versioned,
        listing: &mut Listing,
        entry: DisposalEntry,
    ) -> Result<(), MetadataError> {
        listing.page.push(entry);
        if listing.page.len() == ENTRIES_PER_PAGE { self.write_page(id, row, listing).await } else { Ok(()) }
    }

    async fn write_page(&self, id: DisposalId, row: &Versioned, listing: &mut Listing) -> Result<(), MetadataError> {
        if listing.page.is_empty() {
            return Ok(());
        }
        let page = DisposalPageRecord { entries: std::mem::take(&mut listing.page) };
        let mut attempt = Attempt::default();
        // Nobody has cleared it away meanwhile.
        attempt.expect(self.rows.disposal(listing.project, id), Some(row));
        attempt.put(self.rows.disposal_page(id, listing.record.pages), records::encode(&page));
        listing.record.pages += 1;
        match attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await? {
            true => Ok(()),
            false => Err(MetadataError::Conflict),
        }
    }

    fn judge_entries(
        &self,
        snapshot: &dyn Snapshot,
        bucket_id: BucketId,
        entries: Vec<ListEntry>,
    ) -> Result<Vec<(DisposalEntry, Judged)>, MetadataError> {
        let bucket_row = snapshot.get(&self.rows.bucket(bucket_id)).map_err(store_error)?;
        let bucket = bucket_of(bucket_row.as_ref())?;
        let mut judged = Vec::with_capacity(entries.len());
        for entry in entries {
            let found = self.find_in(snapshot, bucket_id, &entry.key, VersionSelector::Id(entry.id))?;
            let judgement = match found {
                None => Judged::Gone,
                Some(found) => {
                    let leaving = Leaving::new(&bucket, entry.key.as_bytes(), &found.version);
                    match leaving.check(false, self.clock.now()) {
                        Ok(()) => Judged::MayGo { until: found.version.retention.map(|retention| retention.until) },
                        Err(_) => Judged::Kept,
                    }
                }
            };
            judged.push((of_listed(entry), judgement));
        }
        Ok(judged)
    }

    fn disposal_event<'a>(
        &self,
        kind: EventKind,
        project: ProjectId,
        record: &'a DisposalRecord,
        bytes: u64,
    ) -> Event<'a> {
        Event {
            kind,
            project,
            time: self.now(),
            bucket: Some(record.bucket),
            version: None,
            other_version: None,
            bytes,
            subject: &record.prefix,
        }
    }

    /// Whether a disposal can be proposed to others, or carried out.
    pub(crate) async fn check_disposal(&self, act: &Dispose) -> Result<(), MetadataError> {
        let row = self.disposal_row(act.project, act.disposal).await?;
        let record: DisposalRecord = records::decode("disposal", &row.value)?;
        match record.state {
            DisposalState::Proposed => Ok(()),
            _ => Err(RetentionRefusal::DisposalState.into()),
        }
    }

    /// Carries an approved disposal on, by some pages.
    pub(crate) async fn carry_out_disposal(
        self: &Arc<Self>,
        act: &Dispose,
        proposal: &Proposal,
    ) -> Result<Carried, MetadataError> {
        let (project, id) = (act.project, act.disposal);
        for _ in 0..PAGES_PER_TURN {
            let row = self.disposal_row(project, id).await?;
            let record: DisposalRecord = records::decode("disposal", &row.value)?;
            match record.state {
                DisposalState::Done => {
                    return Ok(Carried::Done(disposal_facts(&self.disposal_view(project, id, &record)?)));
                }
                DisposalState::Proposed => self.approve_disposal(project, id, &row, record, proposal).await?,
                DisposalState::Approved if record.pages == 0 => self.end_disposal(project, id, &row, record).await?,
                DisposalState::Approved => self.dispose_page(project, id, &row, record).await?,
                DisposalState::Listing | DisposalState::Rejected => {
                    return Err(RetentionRefusal::DisposalState.into());
                }
            }
        }
        Ok(Carried::More)
    }

    async fn approve_disposal(
        &self,
        project: ProjectId,
        id: DisposalId,
        row: &Versioned,
        mut record: DisposalRecord,
        proposal: &Proposal,
    ) -> Result<(), MetadataError> {
        record.state = DisposalState::Approved;
        record.deciders = proposal.deciders();
        if record.deciders.len() < 2 {
            return Err(RetentionRefusal::NotApproved.into());
        }
        let commit = CommitId::random();
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.disposal(project, id), Some(row));
        attempt.put(self.rows.disposal(project, id), records::encode(&record));
        let facts = disposal_facts(&self.disposal_view(project, id, &record)?);
        let event = self.disposal_event(EventKind::DisposalApproved, project, &record, record.listed.bytes);
        self.record_act_of(&mut attempt, commit, None, &facts, event)?;
        // If somebody else was at it, the next look says how far.
        attempt::commit(self.store.as_ref(), commit, attempt).await.map(|_| ())
    }

    async fn end_disposal(
        &self,
        project: ProjectId,
        id: DisposalId,
        row: &Versioned,
        mut record: DisposalRecord,
    ) -> Result<(), MetadataError> {
        record.state = DisposalState::Done;
        record.ended = Some(self.now());
        let commit = CommitId::random();
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.disposal(project, id), Some(row));
        attempt.put(self.rows.disposal(project, id), records::encode(&record));
        let facts = disposal_facts(&self.disposal_view(project, id, &record)?);
        let event = self.disposal_event(EventKind::DisposalEnded, project, &record, record.removed_bytes);
        self.record_act_of(&mut attempt, commit, None, &facts, event)?;
        attempt::commit(self.store.as_ref(), commit, attempt).await.map(|_| ())
    }

    /// Carries out the last page that is left, and takes it off the list.
    async fn dispose_page(
        self: &Arc<Self>,
        project: ProjectId,
        id: DisposalId,
        row: &Versioned,
        mut record: DisposalRecord,
    ) -> Result<(), MetadataError> {
        let number = record.pages - 1;
        let page_key = self.rows.disposal_page(id, number);
        let page_row = self.get(&page_key).await?;
        let Some(page_row) = page_row else {
            // Taken off by another at this moment; the row of the disposal will say so.
            return Err(MetadataError::Conflict);
        };
        let page: DisposalPageRecord = records::decode("disposal page", &page_row.value)?;
        let facts = json!({
            "disposal": id.to_string(),
            "reference": self.disposal_view(project, id, &record)?.reference,
        });
        // From the end, one key after the other and each key's entries in turn.
        let mut keys: Vec<Vec<DisposalEntry>> = Vec::new();
        for entry in page.entries.into_iter().rev() {
            match keys.last_mut() {
                Some(entries) if entries.first().is_some_and(|first| first.key == entry.key) => entries.push(entry),
                _ => keys.push(vec![entry]),
            }
        }
        let (bucket, proposer, facts) = (record.bucket, record.proposer, &facts);
        let outcomes: Vec<Vec<Outcome>> = futures_util::stream::iter(keys)
            .map(|entries| async move {
                let mut outcomes = Vec::with_capacity(entries.len());
                for entry in entries {
                    outcomes.push(self.dispose_of((id, bucket, proposer), &entry, facts).await?);
                }
                Ok::<_, MetadataError>(outcomes)
            })
            .buffer_unordered(KEYS_IN_FLIGHT)
            .try_collect()
            .await?;
        for outcome in outcomes.into_iter().flatten() {
            match outcome {
                Outcome::Removed { bytes } => {
                    record.removed += 1;
                    record.removed_bytes = record.removed_bytes.saturating_add(bytes);
                }
                Outcome::Marker => record.markers += 1,
                Outcome::Refused => record.refused += 1,
                Outcome::Gone => record.gone += 1,
                Outcome::Left => {}
            }
        }
        record.pages = number;
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.disposal(project, id), Some(row));
        attempt.put(self.rows.disposal(project, id), records::encode(&record));
        attempt.expect(page_key.clone(), Some(&page_row));
        attempt.remove(page_key);
        attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await.map(|_| ())
    }

    async fn dispose_of(
        &self,
        disposal: (DisposalId, BucketId, Option<valv_types::UserId>),
        entry: &DisposalEntry,
        facts: &serde_json::Value,
    ) -> Result<Outcome, MetadataError> {
        let commit = removal_commit(disposal.0, entry.version);
        let removed = match entry.is_delete_marker {
            true => Outcome::Marker,
            false => Outcome::Removed { bytes: entry.len_bytes },
        };
        let head = self.rows.head(disposal.1, &entry.key);
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, &head).await;
            let plan = self.plan_disposal(disposal, entry, facts, commit).await;
            match settle(self.store.as_ref(), commit, number, plan).await? {
                // Gone may mean: by this very commit, before a crash.
                Settled::Done(Outcome::Gone) => {
                    let before = self.store.outcome(commit).await.map_err(store_error)?;
                    return Ok(if before.is_some() { removed } else { Outcome::Gone });
                }
                Settled::Done(outcome) => return Ok(outcome),
                Settled::Again => {}
                Settled::Before(_) => return Ok(removed),
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_disposal(
        &self,
        (_, bucket_id, proposer): (DisposalId, BucketId, Option<valv_types::UserId>),
        entry: &DisposalEntry,
        facts: &serde_json::Value,
        commit: CommitId,
    ) -> Result<Plan<Outcome>, MetadataError> {
        let snapshot = self.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let bucket_row = snapshot.get(&self.rows.bucket(bucket_id)).map_err(store_error)?;
        let Some(bucket_row) = bucket_row else { return Ok(Plan::Nothing(Outcome::Gone)) };
        let bucket = bucket_of(Some(&bucket_row))?;
        let found = self.find_in(snapshot, bucket_id, &entry.key, VersionSelector::Id(entry.version))?;
        let Some(found) = found else { return Ok(Plan::Nothing(Outcome::Gone)) };
        if Leaving::new(&bucket, entry.key.as_bytes(), &found.version).check(false, self.clock.now()).is_err() {
            return Ok(Plan::Nothing(Outcome::Refused));
        }
        let version = found.version.clone();
        let outcome = match version.is_delete_marker() {
            // A marker goes only if nothing comes to light by that.
            true if found.is_current() && self.newest_noncurrent(snapshot, bucket_id, &entry.key)?.is_some() => {
                return Ok(Plan::Nothing(Outcome::Left));
            }
            true => Outcome::Marker,
            false => Outcome::Removed { bytes: version.len_bytes },
        };
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.bucket(bucket_id), Some(&bucket_row));
        let at = KeyPlace { state: &bucket, bucket: bucket_id, key: &entry.key };
        self.take_version(&mut attempt, snapshot, at, found, proposer)?;
        let event = Event {
            kind: EventKind::VersionDisposed,
            project: bucket.project,
            time: self.now(),
            bucket: Some(bucket_id),
            version: Some(version.id),
            other_version: None,
            bytes: version.len_bytes,
            subject: entry.key.as_bytes(),
        };
        self.record_act_of(&mut attempt, commit, None, facts, event)?;
        Ok(Plan::Commit(attempt, outcome))
    }

    /// Clears away lists whose making was cut short, and those that were rejected or that nobody approved in time.
    pub(crate) async fn tidy_disposals(self: &Arc<Self>) -> Result<(), MetadataError> {
        let range = self.rows.disposals(None);
        let open = self
            .scan(move |_, snapshot| {
                let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
                let mut open = Vec::new();
                while let Some((key, row)) = cursor.next().map_err(store_error)? {
                    let record: DisposalRecord = records::decode("disposal", &row.value)?;
                    if matches!(record.state, DisposalState::Listing | DisposalState::Proposed) {
                        let ids = key.get(4..).and_then(|ids| ids.as_chunks::<16>().0.first_chunk::<2>().copied());
                        let [project, id] = ids.ok_or_else(|| corrupt("disposal"))?;
                        open.push((ProjectId::from_bytes(project), DisposalId::from_bytes(id), record));
                    }
                }
                Ok(open)
            })
            .await?;
        for (project, id, record) in open {
            // One that can't be read (a shredded key) holds up no other work.
            if let Err(error) = self.tidy_disposal(project, id, &record).await {
                tracing::warn!(disposal = %id, %error, "a disposal could not be cleared away");
            }
        }
        Ok(())
    }

    async fn tidy_disposal(
        self: &Arc<Self>,
        project: ProjectId,
        id: DisposalId,
        record: &DisposalRecord,
    ) -> Result<(), MetadataError> {
        let is_old = record.proposed.plus_secs(LISTING_SECS_MAX) < self.now();
        let proposal = GetProposal { proposal: ProposalId::from_bytes(*id.as_bytes()), project: Some(project) };
        let is_dead = match (record.state, self.find_proposal(proposal).await) {
            (DisposalState::Listing, _) => is_old,
            (_, Ok(proposal)) => proposal.state.is_settled(),
            (_, Err(MetadataError::Approval { reason: ApprovalRefusal::NoSuchProposal })) => is_old,
            (_, Err(error)) => return Err(error),
        };
        if is_dead { self.drop_disposal(project, id).await } else { Ok(()) }
    }

    /// Gives a disposal up that was not approved: its list goes.
    async fn drop_disposal(self: &Arc<Self>, project: ProjectId, id: DisposalId) -> Result<(), MetadataError> {
        let row = self.disposal_row(project, id).await?;
        let mut record: DisposalRecord = records::decode("disposal", &row.value)?;
        let was_proposed = match record.state {
            DisposalState::Listing => false,
            DisposalState::Proposed => true,
            DisposalState::Approved | DisposalState::Done | DisposalState::Rejected => return Ok(()),
        };
        record.state = DisposalState::Rejected;
        record.pages = 0;
        record.marker_pages = 0;
        record.ended = Some(self.now());
        let (mut attempt, commit) = (Attempt::default(), CommitId::random());
        attempt.expect(self.rows.disposal(project, id), Some(&row));
        if was_proposed {
            attempt.put(self.rows.disposal(project, id), records::encode(&record));
            let facts = disposal_facts(&self.disposal_view(project, id, &record)?);
            let event = self.disposal_event(EventKind::DisposalRejected, project, &record, 0);
            self.record_act_of(&mut attempt, commit, None, &facts, event)?;
        } else {
            // Nobody was told of it.
            attempt.remove(self.rows.disposal(project, id));
        }
        if !attempt::commit(self.store.as_ref(), commit, attempt).await? {
            return Err(MetadataError::Conflict);
        }
        self.drop_pages(id).await
    }

    async fn drop_pages(self: &Arc<Self>, id: DisposalId) -> Result<(), MetadataError> {
        loop {
            let range = self.rows.disposal_pages(id);
            let keys = self
                .scan(move |_, snapshot| {
                    let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
                    let mut keys = Vec::new();
                    while let Some((key, _)) = cursor.next().map_err(store_error)? {
                        keys.push(key);
                        if keys.len() == ENTRIES_PER_PAGE {
                            break;
                        }
                    }
                    Ok(keys)
                })
                .await?;
            if keys.is_empty() {
                return Ok(());
            }
            let mut attempt = Attempt::default();
            keys.into_iter().for_each(|key| attempt.remove(key));
            attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await?;
        }
    }
}

/// Whether an entry may stand on a list.
enum Judged {
    MayGo { until: Option<TimestampMicros> },
    Kept,
    Gone,
}

fn of_listed(entry: ListEntry) -> DisposalEntry {
    DisposalEntry {
        key: entry.key,
        version: entry.id,
        len_bytes: entry.len_bytes,
        is_delete_marker: entry.is_delete_marker,
    }
}

/// The id of the commit that removes a version: the same each time, so that a second attempt finds the first.
fn removal_commit(disposal: DisposalId, version: VersionId) -> CommitId {
    let mut hasher = blake3::Hasher::new_derive_key("valv disposal commit v1");
    hasher.update(disposal.as_bytes()).update(version.as_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    CommitId::from_bytes(id)
}

/// What is told of a disposal: in its ledger records, its result and its receipt.
pub fn disposal_facts(disposal: &Disposal) -> serde_json::Value {
    let deciders: Vec<String> = disposal.deciders.iter().map(ToString::to_string).collect();
    json!({
        "disposal": disposal.id.to_string(),
        "bucket": disposal.bucket.to_string(),
        "prefix": String::from_utf8_lossy(&disposal.prefix),
        "reason": disposal.reason,
        "reference": disposal.reference,
        "state": disposal.state.name(),
        "listed": {
            "versions": disposal.listed.versions,
            "bytes": disposal.listed.bytes,
            "kept": disposal.listed.kept,
            "sha256": hex::encode(disposal.listed.digest),
            "retention_ended_micros": disposal.listed.retention_ended.map(|time| time.0),
        },
        "deciders": deciders,
        "removed": disposal.removed,
        "removed_bytes": disposal.removed_bytes,
        "refused": disposal.refused,
        "gone": disposal.gone,
        "delete_markers": disposal.markers,
        "ended_micros": disposal.ended.map(|time| time.0),
    })
}
