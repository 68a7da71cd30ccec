//! Openings: who may come in that is no member, and the name by which they find the bucket.
//!
//! Consistency: an opening, its name in the recipient's namespace, its places in the indexes and its ledger record are one
//! commit, which expects the name's row as it was read. So of two that want one name, one loses. A name stands as long as
//! one of its openings is not over: time ends it without a write, and whoever wants the name next takes it. A bucket that
//! is made under the name takes it at once, because nobody outside a project decides what its buckets are called.
//!
//! Indexes list what is not over; what has expired is swept out by the commit that makes the project's next opening.

mod budget;
mod configured;
pub(crate) mod records;
mod two_people;
mod zones;

pub use configured::ConfiguredOpening;

use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::principals::{check_name, id_of_row};
use crate::records::EventKind;
use crate::rows::{Tag, last_id};
use crate::seal::Place;
use crate::service::{Core, corrupt, is_text};
use crate::store::{Snapshot, Versioned};
use records::{AliasRecord, NamedBucket, OpeningRecord, OpeningWords};
use serde_json::json;
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{BucketId, NamespaceId, OpeningId, ProjectId, TimestampMicros, UserId};

/// Expired openings that one commit sweeps out of the indexes: with three rows each, far below what a commit may hold.
const SWEPT_PER_COMMIT_MAX: usize = 100;
/// Openings of a project that a list shows: some years of them. Older ones are in the ledger.
const LIST_MAX: usize = 10_000;
/// Openings to one recipient that a listing of buckets looks at.
const OPENED_TO_MAX: usize = 10_000;
/// How long a gateway may rely on what it was told of a bucket's openings: revocation takes effect within this and the
/// second between two looks of a running transfer.
const OPENINGS_LEASE_MS: u32 = 3_000;

/// Whom an opening is for, and where the bucket needs a name.
struct Found {
    recipient: OpeningRecipient,
    namespace: Option<NamespaceId>,
}

impl Core {
    pub(crate) async fn make_opening(self: &Arc<Self>, request: CreateOpening) -> Result<Opening, MetadataError> {
        let id = OpeningId::from_bytes(*request.commit.as_bytes());
        let deciders: Vec<UserId> = request.actor.user.into_iter().collect();
        self.open_by(&request, id, &deciders).await
    }

    /// Makes an opening that these people decided on: the one who asks, or all whom a proposal names.
    async fn open_by(
        self: &Arc<Self>,
        request: &CreateOpening,
        id: OpeningId,
        deciders: &[UserId],
    ) -> Result<Opening, MetadataError> {
        let project = request.opening.project;
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, project.as_bytes()).await;
            let plan = self.plan_opening(request, id, deciders).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(opening) => return Ok(opening),
                Settled::Again => {}
                Settled::Before(refusal) => {
                    return self.find_opening(GetOpening { project, opening: id }).await.map_err(|_| refusal);
                }
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_opening(
        self: &Arc<Self>,
        request: &CreateOpening,
        id: OpeningId,
        deciders: &[UserId],
    ) -> Result<Plan<Opening>, MetadataError> {
        let asked = &request.opening;
        let (project, now) = (asked.project, self.now());
        // Whoever approved was asked for the role already.
        let is_approved = deciders.len() > 1;
        if !is_approved {
            self.check_may_open(project, &request.actor, request.is_operator).await?;
        }
        let start = asked.start.unwrap_or(now);
        check_asked(asked, start, now)?;
        for zone in &asked.zones {
            self.zone(zone).await?.ok_or(OpeningRefusal::NoSuchZone)?;
        }
        let mut attempt = Attempt::default();
        let project_row = self.get(&self.rows.project(project)).await?.ok_or(OpeningRefusal::NoSuchProject)?;
        let own: crate::records::ProjectRecord = crate::records::decode("project", &project_row.value)?;
        if own.two_person_openings && !is_approved && !asked.is_configured {
            return Err(OpeningRefusal::NeedsSecondPerson.into());
        }
        // A change of members rewrites this row.
        attempt.expect(self.rows.project(project), Some(&project_row));
        let found = self.recipient_of(&asked.to, project, own.namespace).await?;
        let bucket = match &asked.bucket_name {
            None => None,
            Some(name) => {
                let row = self.get(&self.bucket_name_row(own.namespace, name)?).await?;
                let Some(NamedBucket::Own(bucket)) = row.as_ref().map(NamedBucket::read).transpose()? else {
                    return Err(MetadataError::NoSuchBucket);
                };
                let row = self.get(&self.rows.bucket(bucket)).await?;
                if crate::service::bucket_of(row.as_ref())?.project != project {
                    return Err(MetadataError::NoSuchBucket);
                }
                Some(bucket)
            }
        };
        let alias = asked.alias.clone().or_else(|| asked.bucket_name.clone());
        let alias = alias.filter(|_| bucket.is_some() && found.namespace.is_some());
        if asked.alias.is_some() && alias.is_none() {
            return Err(OpeningRefusal::AliasWithoutBucket.into());
        }
        if let (Some(bucket), Some(namespace), Some(alias)) = (bucket, found.namespace, &alias) {
            self.plan_alias(&mut attempt, id, project, bucket, namespace, alias, now).await?;
        }
        let current = self.sweep(&mut attempt, project, now).await?;
        if current >= OPENINGS_PER_PROJECT_MAX {
            return Err(OpeningRefusal::TooMany.into());
        }
        let words =
            OpeningWords { asked: asked.clone(), alias, deciders: deciders.to_vec(), revoked_because: String::new() };
        let sealed = self.seals.seal(Place::Opening(project, id), &words)?;
        let record = OpeningRecord {
            bucket,
            recipient: found.recipient,
            scope: asked.scope,
            start,
            expiry: asked.expiry,
            budget_bytes: asked.budget_bytes,
            alias_namespace: found.namespace.filter(|_| words.alias.is_some()),
            created: now,
            revoked: None,
            is_configured: asked.is_configured,
            key_version: sealed.key_version,
            sealed: sealed.bytes,
        };
        attempt.expect_absent(self.rows.opening(project, id));
        attempt.put(self.rows.opening(project, id), crate::records::encode(&record));
        attempt.put(self.rows.opening_place(&place_of(project, &record), id), crate::records::encode(&project));
        if let Some(recipient) = recipient_place(&record) {
            attempt.put(self.rows.opening_recipient(&recipient, id), crate::records::encode(&project));
        }
        let mut detail = self.opening_detail(id, &record, &words);
        detail["deciders"] = json!(deciders.iter().map(ToString::to_string).collect::<Vec<_>>());
        let event = self.opening_event(EventKind::OpeningCreated, project, bucket, &words);
        self.record_act(&mut attempt, request.commit, &request.actor, &detail, event)?;
        Ok(Plan::Commit(attempt, self.opening_view(id, &record, words, 0)))
    }

    /// Openings are the controller's to decide. Projects without members are looked after by operators.
    async fn check_may_open(&self, project: ProjectId, actor: &Actor, is_operator: bool) -> Result<(), MetadataError> {
        let by = Person { actor: actor.clone(), is_operator };
        match self.require_role(&by, project, &[Role::Controller]).await {
            Err(MetadataError::Project { reason: ProjectRefusal::RoleMissing | ProjectRefusal::OperatorsOnly }) => {
                Err(OpeningRefusal::NotAllowed.into())
            }
            checked => checked,
        }
    }

    async fn recipient_of(
        &self,
        to: &OpeningTo,
        project: ProjectId,
        own_namespace: NamespaceId,
    ) -> Result<Found, MetadataError> {
        let namespace_of = async |project: ProjectId| {
            let row = self.get(&self.rows.project(project)).await?.ok_or_else(|| corrupt("project"))?;
            let record: crate::records::ProjectRecord = crate::records::decode("project", &row.value)?;
            Ok::<_, MetadataError>(record.namespace)
        };
        match to {
            OpeningTo::User(name) => {
                let user = match self.find_user(GetUser::Name(name.clone())).await {
                    Ok(user) => user,
                    Err(MetadataError::NoSuchUser) => return Err(OpeningRefusal::NoSuchRecipient.into()),
                    Err(error) => return Err(error),
                };
                let namespace = namespace_of(user.project).await?;
                Ok(Found { recipient: OpeningRecipient::User(user.id), namespace: Some(namespace) })
            }
            OpeningTo::Project(name) => {
                let row = self.get(&self.rows.project_name(&self.name_hash("project", name)?)).await?;
                let id = id_of_row(&row.ok_or(OpeningRefusal::NoSuchRecipient)?, ProjectId::from_bytes)?;
                if id == project {
                    return Err(OpeningRefusal::OwnProject.into());
                }
                Ok(Found { recipient: OpeningRecipient::Project(id), namespace: Some(namespace_of(id).await?) })
            }
            OpeningTo::Public(name) => {
                let namespace = match name.as_str() {
                    "" => own_namespace,
                    name => self.find_namespace(GetNamespace { name: name.to_owned() }).await?.id,
                };
                Ok(Found { recipient: OpeningRecipient::Public(namespace), namespace: Some(namespace) })
            }
        }
    }

    /// Gives the bucket a name in the recipient's namespace, unless it has it there anyway.
    #[allow(clippy::too_many_arguments, reason = "the parts of one name")]
    async fn plan_alias(
        &self,
        attempt: &mut Attempt,
        id: OpeningId,
        project: ProjectId,
        bucket: BucketId,
        namespace: NamespaceId,
        alias: &str,
        now: TimestampMicros,
    ) -> Result<(), MetadataError> {
        check_name(alias)?;
        let key = self.bucket_name_row(namespace, alias)?;
        let row = self.get(&key).await?;
        attempt.expect(key.clone(), row.as_ref());
        let mut openings = Vec::new();
        match row.as_ref().map(NamedBucket::read).transpose()? {
            None => {}
            Some(NamedBucket::Own(own)) if own == bucket => return Ok(()),
            Some(NamedBucket::Own(_)) => return Err(OpeningRefusal::AliasTaken.into()),
            Some(NamedBucket::Alias(record)) => {
                let standing = self.standing_openings(&record, now).await?;
                if !standing.is_empty() && record.bucket != bucket {
                    return Err(OpeningRefusal::AliasTaken.into());
                }
                openings = standing.into_iter().map(|(id, _)| id).collect();
            }
        }
        openings.push(id);
        attempt.put(key, crate::records::encode(&AliasRecord { project, openings, bucket }));
        Ok(())
    }

    /// The openings of a name that are not over.
    async fn standing_openings(
        &self,
        alias: &AliasRecord,
        now: TimestampMicros,
    ) -> Result<Vec<(OpeningId, OpeningRecord)>, MetadataError> {
        let mut standing = Vec::new();
        for &id in &alias.openings {
            let Some(row) = self.get(&self.rows.opening(alias.project, id)).await? else { continue };
            let record: OpeningRecord = crate::records::decode("opening", &row.value)?;
            if !record.state(now).is_over() {
                standing.push((id, record));
            }
        }
        Ok(standing)
    }

    /// Finds a bucket by a name that openings give it. While none of them holds, the name is nobody's.
    pub(crate) async fn bucket_by_alias(
        &self,
        alias: &AliasRecord,
        namespace: NamespaceId,
        name: String,
    ) -> Result<Bucket, MetadataError> {
        let now = self.now();
        let standing = self.standing_openings(alias, now).await?;
        if !standing.iter().any(|(_, record)| record.state(now) == OpeningState::Active) {
            return Err(MetadataError::NoSuchBucket);
        }
        let bucket = self.bucket_view(alias.bucket, &self.bucket_record(alias.bucket).await?)?;
        Ok(under_alias(bucket, namespace, name))
    }

    /// The buckets that are open to a project or user, by the names that they have in the namespace.
    pub(crate) fn opened_buckets(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
        opened_to: OpenedTo,
    ) -> Result<Vec<Bucket>, MetadataError> {
        let now = self.now();
        let mut found: Vec<Bucket> = Vec::new();
        for recipient in [project.as_bytes(), opened_to.user.as_bytes()] {
            let range = self.rows.range(Tag::OpeningRecipient, &[recipient]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            for _ in 0..OPENED_TO_MAX {
                let Some((key, row)) = cursor.next().map_err(store_error)? else { break };
                let id = last_id(&key).map(OpeningId::from_bytes).ok_or_else(|| corrupt("opening index"))?;
                let of = id_of_row(&row, ProjectId::from_bytes)?;
                let Some(row) = snapshot.get(&self.rows.opening(of, id)).map_err(store_error)? else { continue };
                let record: OpeningRecord = crate::records::decode("opening", &row.value)?;
                let holds = record.state(now) == OpeningState::Active;
                let (true, Some(bucket), Some(namespace)) = (holds, record.bucket, record.alias_namespace) else {
                    continue;
                };
                if namespace != opened_to.namespace {
                    continue;
                }
                let Some(alias) = self.opening_words(of, id, &record)?.alias else { continue };
                // Somebody made a bucket of that name since, which took it.
                let named = snapshot.get(&self.bucket_name_row(namespace, &alias)?).map_err(store_error)?;
                let stands = match named.as_ref().map(NamedBucket::read).transpose()? {
                    Some(NamedBucket::Own(own)) => own == bucket,
                    Some(NamedBucket::Alias(record)) => record.bucket == bucket,
                    None => false,
                };
                let Some(row) = snapshot.get(&self.rows.bucket(bucket)).map_err(store_error)?.filter(|_| stands) else {
                    continue;
                };
                let view = self.bucket_view(bucket, &crate::records::decode("bucket", &row.value)?)?;
                if !found.iter().any(|other| other.name == alias) {
                    found.push(under_alias(view, namespace, alias));
                }
            }
        }
        Ok(found)
    }

    /// Counts the project's openings that are not over, and takes those that are out of the indexes and names.
    async fn sweep(
        self: &Arc<Self>,
        attempt: &mut Attempt,
        project: ProjectId,
        now: TimestampMicros,
    ) -> Result<usize, MetadataError> {
        let (current, over) = self
            .scan(move |core, snapshot| {
                let (mut current, mut over) = (0, Vec::new());
                core.each_opening(snapshot, project, |id, _, record| {
                    if !record.state(now).is_over() {
                        current += 1;
                    } else if record.revoked.is_none() && over.len() < SWEPT_PER_COMMIT_MAX {
                        let place = core.rows.opening_place(&place_of(project, &record), id);
                        if snapshot.get(&place).map_err(store_error)?.is_some() {
                            over.push((id, record));
                        }
                    }
                    Ok(())
                })?;
                Ok((current, over))
            })
            .await?;
        for (id, record) in over {
            self.leave_indexes(attempt, project, id, &record);
        }
        Ok(current)
    }

    fn leave_indexes(&self, attempt: &mut Attempt, project: ProjectId, id: OpeningId, record: &OpeningRecord) {
        attempt.remove(self.rows.opening_place(&place_of(project, record), id));
        if let Some(recipient) = recipient_place(record) {
            attempt.remove(self.rows.opening_recipient(&recipient, id));
        }
    }

    fn each_opening(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
        mut visit: impl FnMut(OpeningId, Versioned, OpeningRecord) -> Result<(), MetadataError>,
    ) -> Result<(), MetadataError> {
        let range = self.rows.range(Tag::Opening, &[project.as_bytes()]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            let id = last_id(&key).map(OpeningId::from_bytes).ok_or_else(|| corrupt("opening row"))?;
            let record = crate::records::decode("opening", &row.value)?;
            visit(id, row, record)?;
        }
        Ok(())
    }

    pub(crate) async fn end_opening(self: &Arc<Self>, request: RevokeOpening) -> Result<Opening, MetadataError> {
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, request.opening.as_bytes()).await;
            let plan = self.plan_end(&request).await;
            if let Settled::Done(()) = settle(self.store.as_ref(), request.commit, number, plan).await? {
                return self.find_opening(GetOpening { project: request.project, opening: request.opening }).await;
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_end(&self, request: &RevokeOpening) -> Result<Plan<()>, MetadataError> {
        let (project, id, now) = (request.project, request.opening, self.now());
        self.check_may_open(project, &request.actor, request.is_operator).await?;
        check_text(&request.reason)?;
        let key = self.rows.opening(project, id);
        let row = self.get(&key).await?.ok_or(OpeningRefusal::NoSuchOpening)?;
        let mut record: OpeningRecord = crate::records::decode("opening", &row.value)?;
        if record.state(now).is_over() {
            return Ok(Plan::Nothing(()));
        }
        let mut attempt = Attempt::default();
        attempt.expect(key.clone(), Some(&row));
        let mut words = self.opening_words(project, id, &record)?;
        words.revoked_because = request.reason.clone();
        let sealed = self.seals.seal(Place::Opening(project, id), &words)?;
        (record.revoked, record.key_version, record.sealed) = (Some(now), sealed.key_version, sealed.bytes);
        self.leave_indexes(&mut attempt, project, id, &record);
        if let (Some(namespace), Some(alias)) = (record.alias_namespace, &words.alias) {
            self.plan_alias_end(&mut attempt, id, namespace, alias).await?;
        }
        attempt.put(key, crate::records::encode(&record));
        let detail = json!({ "opening": id.to_string(), "reason": request.reason });
        let event = self.opening_event(EventKind::OpeningRevoked, project, record.bucket, &words);
        self.record_act(&mut attempt, request.commit, &request.actor, &detail, event)?;
        Ok(Plan::Commit(attempt, ()))
    }

    /// Frees the name if no other opening needs it.
    async fn plan_alias_end(
        &self,
        attempt: &mut Attempt,
        id: OpeningId,
        namespace: NamespaceId,
        alias: &str,
    ) -> Result<(), MetadataError> {
        let key = self.bucket_name_row(namespace, alias)?;
        let row = self.get(&key).await?;
        let Some(NamedBucket::Alias(mut record)) = row.as_ref().map(NamedBucket::read).transpose()? else {
            return Ok(());
        };
        if !record.openings.contains(&id) {
            return Ok(());
        }
        record.openings.retain(|other| *other != id);
        attempt.expect(key.clone(), row.as_ref());
        match record.openings.is_empty() {
            true => attempt.remove(key),
            false => attempt.put(key, crate::records::encode(&record)),
        }
        Ok(())
    }

    pub(crate) async fn find_opening(&self, request: GetOpening) -> Result<Opening, MetadataError> {
        let (project, id) = (request.project, request.opening);
        let [row, budget] = self.get_rows(&[self.rows.opening(project, id), self.rows.opening_budget(id)]).await?;
        let record: OpeningRecord =
            crate::records::decode("opening", &row.ok_or(OpeningRefusal::NoSuchOpening)?.value)?;
        let words = self.opening_words(project, id, &record)?;
        Ok(self.opening_view(id, &record, words, budget::drawn(budget.as_ref())?))
    }

    pub(crate) async fn all_openings(self: &Arc<Self>, request: ListOpenings) -> Result<Vec<Opening>, MetadataError> {
        self.scan(move |core, snapshot| {
            let (now, mut found) = (core.now(), Vec::new());
            core.each_opening(snapshot, request.project, |id, _, record| {
                if request.with_ended || !record.state(now).is_over() {
                    let words = core.opening_words(request.project, id, &record)?;
                    let budget = snapshot.get(&core.rows.opening_budget(id)).map_err(store_error)?;
                    found.push(core.opening_view(id, &record, words, budget::drawn(budget.as_ref())?));
                }
                Ok(())
            })?;
            found.sort_by_key(|opening| (std::cmp::Reverse(opening.created), opening.id));
            found.truncate(LIST_MAX);
            Ok(found)
        })
        .await
    }

    pub(crate) async fn openings_of_bucket(
        self: &Arc<Self>,
        request: GetBucketOpenings,
    ) -> Result<BucketOpenings, MetadataError> {
        self.scan(move |core, snapshot| {
            let (now, mut found) = (core.now(), Vec::new());
            for place in [request.bucket.as_bytes(), request.project.as_bytes()] {
                let range = core.rows.range(Tag::OpeningPlace, &[place]);
                let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
                while let Some((key, _)) = cursor.next().map_err(store_error)? {
                    let id = last_id(&key).map(OpeningId::from_bytes).ok_or_else(|| corrupt("opening index"))?;
                    let row = snapshot.get(&core.rows.opening(request.project, id)).map_err(store_error)?;
                    let Some(row) = row else { continue };
                    let record: OpeningRecord = crate::records::decode("opening", &row.value)?;
                    if !record.state(now).is_over() {
                        found.push((record.created, core.opening_facts(snapshot, request.project, id, &record)?));
                    }
                }
            }
            found.sort_by_key(|(created, facts)| (*created, facts.id));
            let openings = found.into_iter().map(|(_, facts)| facts).collect();
            Ok(BucketOpenings { openings, lease_ms: OPENINGS_LEASE_MS })
        })
        .await
    }

    fn opening_facts(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
        id: OpeningId,
        record: &OpeningRecord,
    ) -> Result<OpeningFacts, MetadataError> {
        let words = self.opening_words(project, id, record)?;
        let blocks = match words.asked.zones.as_slice() {
            [] => None,
            names => Some(self.blocks_of(snapshot, names)?),
        };
        let budget_left_bytes = match record.budget_bytes {
            None => None,
            Some(budget) => {
                let row = snapshot.get(&self.rows.opening_budget(id)).map_err(store_error)?;
                Some(budget.saturating_sub(budget::drawn(row.as_ref())?))
            }
        };
        Ok(OpeningFacts {
            id,
            recipient: record.recipient,
            prefix: words.asked.prefix,
            scope: record.scope,
            start: record.start,
            expiry: record.expiry,
            blocks,
            budget_left_bytes,
        })
    }

    fn opening_words(
        &self,
        project: ProjectId,
        id: OpeningId,
        record: &OpeningRecord,
    ) -> Result<OpeningWords, MetadataError> {
        self.seals.open(Place::Opening(project, id), record.key_version, &record.sealed)
    }

    fn opening_view(&self, id: OpeningId, record: &OpeningRecord, words: OpeningWords, drawn_bytes: u64) -> Opening {
        let asked = NewOpening { alias: words.alias, ..words.asked };
        Opening {
            id,
            asked,
            recipient: record.recipient,
            bucket: record.bucket,
            start: record.start,
            state: record.state(self.now()),
            created: record.created,
            deciders: words.deciders,
            revoked: record.revoked.map(|time| (time, words.revoked_because)),
            drawn_bytes,
        }
    }

    fn opening_detail(&self, id: OpeningId, record: &OpeningRecord, words: &OpeningWords) -> serde_json::Value {
        let asked = &words.asked;
        let to = match &asked.to {
            OpeningTo::User(name) => json!({ "user": name }),
            OpeningTo::Project(name) => json!({ "project": name }),
            OpeningTo::Public(namespace) => json!({ "public": namespace }),
        };
        let scope = match asked.scope {
            OpeningScope::Actions(bits) => json!({ "actions": bits }),
            OpeningScope::WhatPoliciesSay => json!("what policies say"),
        };
        json!({
            "opening": id.to_string(),
            "to": to,
            "prefix": String::from_utf8_lossy(&asked.prefix),
            "scope": scope,
            "purpose": asked.purpose,
            "reference": asked.reference,
            "start_micros": record.start.0,
            "expiry_micros": record.expiry.map(|expiry| expiry.0),
            "zones": asked.zones,
            "budget_bytes": asked.budget_bytes,
            "alias": words.alias,
        })
    }

    fn opening_event<'a>(
        &self,
        kind: EventKind,
        project: ProjectId,
        bucket: Option<BucketId>,
        words: &'a OpeningWords,
    ) -> Event<'a> {
        Event {
            kind,
            project,
            time: self.now(),
            bucket,
            version: None,
            other_version: None,
            bytes: 0,
            subject: words.asked.bucket_name.as_deref().unwrap_or_default().as_bytes(),
        }
    }
}

/// The bucket as a recipient sees it.
fn under_alias(bucket: Bucket, namespace: NamespaceId, name: String) -> Bucket {
    if bucket.namespace == namespace && bucket.name == name {
        return bucket;
    }
    Bucket { own_name: Some(bucket.name), name, namespace, ..bucket }
}

/// Where an opening stands in the index of what gateways ask: under its bucket, or under its project.
fn place_of(project: ProjectId, record: &OpeningRecord) -> [u8; 16] {
    record.bucket.map_or(*project.as_bytes(), |bucket| *bucket.as_bytes())
}

/// Where an opening stands in the index of what listings of buckets ask.
fn recipient_place(record: &OpeningRecord) -> Option<[u8; 16]> {
    match record.recipient {
        OpeningRecipient::User(user) => Some(*user.as_bytes()),
        OpeningRecipient::Project(project) => Some(*project.as_bytes()),
        OpeningRecipient::Public(_) => None,
    }
}

fn check_text(text: &str) -> Result<(), MetadataError> {
    let is_good = is_text(text, OPENING_TEXT_LEN_BYTES_MAX) && !text.trim().is_empty();
    if is_good { Ok(()) } else { Err(OpeningRefusal::TextMalformed.into()) }
}

fn check_asked(asked: &NewOpening, start: TimestampMicros, now: TimestampMicros) -> Result<(), MetadataError> {
    check_text(&asked.purpose)?;
    check_text(&asked.reference)?;
    if asked.scope == OpeningScope::Actions(0) {
        return Err(OpeningRefusal::NothingOpened.into());
    }
    let is_timely = match asked.expiry {
        Some(expiry) => start < expiry && now < expiry,
        None => asked.scope == OpeningScope::WhatPoliciesSay,
    };
    if !is_timely {
        return Err(OpeningRefusal::TimesMalformed.into());
    }
    if asked.zones.len() > ZONES_PER_OPENING_MAX {
        return Err(OpeningRefusal::TooMany.into());
    }
    Ok(())
}
