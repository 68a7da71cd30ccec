//! A project changes hands: offered by a controller, accepted by the other side.
//!
//! Consistency: every step expects and rewrites the project's row, where all changes of members and properties meet; so an
//! offer is accepted on the project as it was judged, and who offered is a controller at that very moment.
//!
//! Openings stay: the new controller takes over knowingly, sees them and may revoke each. Members who are no controllers
//! stay as well.

use super::check_text;
use super::records::{TransferRecord, TransferTexts};
use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle};
use crate::ledger::Event;
use crate::members::MemberRecord;
use crate::records::{EventKind, decode, encode};
use crate::seal::Place;
use crate::service::Core;
use crate::store::Versioned;
use serde_json::json;
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{CommitId, ProjectId, UserId};

/// Who may look at an offer besides whom it is made to.
const READERS: [Role; 3] = [Role::Controller, Role::Steward, Role::Auditor];

/// A step of a transfer.
enum Step<'a> {
    Offer(&'a OfferTransfer),
    Accept(&'a AcceptTransfer),
    Withdraw(&'a WithdrawTransfer),
}

impl Core {
    pub(crate) async fn offer_transfer(self: &Arc<Self>, request: OfferTransfer) -> Result<Transfer, MetadataError> {
        let terms = &request.terms;
        let texts = [&terms.organisation, &terms.contact, &terms.legal_basis, &terms.ethics_approval, &terms.reason];
        texts.into_iter().chain([&terms.reference]).try_for_each(|text| check_text(text))?;
        if [&terms.organisation, &terms.contact, &terms.reason].into_iter().any(|text| text.trim().is_empty()) {
            return Err(CustodyRefusal::TermsMissing.into());
        }
        if request.valid_secs == 0 || request.valid_secs > TRANSFER_OFFER_SECS_MAX {
            return Err(CustodyRefusal::ValidityOutOfRange.into());
        }
        self.step_transfer(request.project, request.commit, Step::Offer(&request)).await
    }

    pub(crate) async fn accept_transfer(self: &Arc<Self>, request: AcceptTransfer) -> Result<Transfer, MetadataError> {
        self.step_transfer(request.project, request.commit, Step::Accept(&request)).await
    }

    pub(crate) async fn withdraw_transfer(
        self: &Arc<Self>,
        request: WithdrawTransfer,
    ) -> Result<Transfer, MetadataError> {
        check_text(&request.reason)?;
        self.step_transfer(request.project, request.commit, Step::Withdraw(&request)).await
    }

    pub(crate) async fn find_transfer(&self, request: GetTransfer) -> Result<Transfer, MetadataError> {
        let found = self.transfer_row(request.project).await?;
        let is_party = found.as_ref().is_some_and(|(_, record)| request.by.actor.user == Some(record.to));
        if !is_party {
            self.require_role(&request.by, request.project, &READERS).await?;
        }
        let (_, record) = found.ok_or(CustodyRefusal::NoSuchOffer)?;
        self.transfer_view(request.project, &record)
    }

    async fn transfer_row(&self, project: ProjectId) -> Result<Option<(Versioned, TransferRecord)>, MetadataError> {
        let Some(row) = self.get(&self.rows.transfer(project)).await? else { return Ok(None) };
        let record = decode("transfer", &row.value)?;
        Ok(Some((row, record)))
    }

    fn transfer_texts(&self, project: ProjectId, record: &TransferRecord) -> Result<TransferTexts, MetadataError> {
        self.seals.open(Place::Transfer(project, record.offer), record.key_version, &record.sealed)
    }

    fn seal_transfer(
        &self,
        project: ProjectId,
        record: &mut TransferRecord,
        texts: &TransferTexts,
    ) -> Result<(), MetadataError> {
        let sealed = self.seals.seal(Place::Transfer(project, record.offer), texts)?;
        (record.key_version, record.sealed) = (sealed.key_version, sealed.bytes);
        Ok(())
    }

    fn transfer_view(&self, project: ProjectId, record: &TransferRecord) -> Result<Transfer, MetadataError> {
        let texts = self.transfer_texts(project, record)?;
        let is_over = record.state == TransferState::Offered && self.now() >= record.expires;
        Ok(Transfer {
            offer: record.offer,
            project,
            state: if is_over { TransferState::Expired } else { record.state },
            offered_by: record.offered_by,
            offered_by_name: texts.offered_by,
            offered: record.offered,
            expires: record.expires,
            to: record.to,
            to_name: texts.to,
            keeps_controllers: record.keeps_controllers,
            terms: texts.terms,
            from_organisation: texts.from_organisation,
            settled: record.settled,
            removed: texts.removed,
        })
    }

    async fn step_transfer(
        self: &Arc<Self>,
        project: ProjectId,
        commit: CommitId,
        step: Step<'_>,
    ) -> Result<Transfer, MetadataError> {
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, b"principals").await;
            let plan = match &step {
                Step::Offer(request) => self.plan_offer(request).await,
                Step::Accept(request) => self.plan_acceptance(request).await,
                Step::Withdraw(request) => self.plan_withdrawal(request).await,
            };
            match settle(self.store.as_ref(), commit, number, plan).await? {
                Settled::Done(()) | Settled::Before(_) => {
                    let (_, record) = self.transfer_row(project).await?.ok_or(CustodyRefusal::NoSuchOffer)?;
                    return self.transfer_view(project, &record);
                }
                Settled::Again => {}
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_offer(self: &Arc<Self>, request: &OfferTransfer) -> Result<Plan<()>, MetadataError> {
        let (project, mut attempt) = self.governed_project(request.project).await?;
        self.require_role(&request.by, project.id, &[Role::Controller]).await?;
        let by = request.by.actor.user.ok_or(ProjectRefusal::RoleMissing)?;
        let to = self.user_named(&request.to).await?;
        if to.id == by {
            return Err(CustodyRefusal::OfferedToYourself.into());
        }
        let now = self.now();
        let found = self.transfer_row(project.id).await?;
        let is_open = |record: &TransferRecord| record.state == TransferState::Offered && now < record.expires;
        if found.as_ref().is_some_and(|(_, record)| is_open(record)) {
            return Err(CustodyRefusal::OfferOpen.into());
        }
        let key = self.rows.transfer(project.id);
        attempt.expect(key.clone(), found.as_ref().map(|(row, _)| row));
        let details = self.find_project(GetProject::Id(project.id)).await?.details.unwrap_or_default();
        let texts = TransferTexts {
            terms: request.terms.clone(),
            offered_by: self.user_with(by).await?.names.name,
            to: to.names.name.clone(),
            from_organisation: details.organisation,
            removed: Vec::new(),
        };
        let mut record = TransferRecord {
            offer: request.commit,
            state: TransferState::Offered,
            offered_by: by,
            offered: now,
            expires: now.plus_secs(request.valid_secs),
            to: to.id,
            keeps_controllers: request.keeps_controllers,
            settled: None,
            key_version: 0,
            sealed: Vec::new(),
        };
        self.seal_transfer(project.id, &mut record, &texts)?;
        attempt.put(key, encode(&record));
        let detail = json!({
            "offer": record.offer, "to": texts.to, "from_organisation": texts.from_organisation,
            "terms": terms_json(&texts.terms), "keeps_controllers": record.keeps_controllers,
            "expires_micros": record.expires,
        });
        let event = Event::of_project(EventKind::TransferOffered, project.id, now, &texts.to);
        self.record_act(&mut attempt, request.commit, &request.by.actor, &detail, event)?;
        Ok(Plan::Commit(attempt, ()))
    }

    /// The offer that stands, for who wants to settle it.
    async fn open_offer(
        &self,
        project: ProjectId,
        attempt: &mut Attempt,
    ) -> Result<(TransferRecord, TransferTexts), MetadataError> {
        let (row, record) = self.transfer_row(project).await?.ok_or(CustodyRefusal::NoSuchOffer)?;
        if record.state != TransferState::Offered {
            return Err(CustodyRefusal::NoSuchOffer.into());
        }
        attempt.expect(self.rows.transfer(project), Some(&row));
        let texts = self.transfer_texts(project, &record)?;
        Ok((record, texts))
    }

    async fn plan_acceptance(self: &Arc<Self>, request: &AcceptTransfer) -> Result<Plan<()>, MetadataError> {
        let found = self.found_project(request.project).await?;
        if found.record.governed.is_none() {
            return Err(ProjectRefusal::Ungoverned.into());
        }
        let (id, now) = (found.id, self.now());
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.project(id), Some(&found.row));
        let (mut record, mut texts) = self.open_offer(id, &mut attempt).await?;
        if request.by.actor.user != Some(record.to) {
            return Err(CustodyRefusal::NotYourOffer.into());
        }
        if request.offer != record.offer {
            return Err(CustodyRefusal::OfferChanged.into());
        }
        if now >= record.expires {
            return Err(CustodyRefusal::OfferExpired.into());
        }
        if !self.roles_of(id, record.offered_by).await?.has(Role::Controller) {
            return Err(CustodyRefusal::OfferLapsed.into());
        }
        let mut detail = json!({
            "offer": record.offer, "from_organisation": texts.from_organisation, "offered_by": texts.offered_by,
            "terms": terms_json(&texts.terms), "keeps_controllers": record.keeps_controllers,
        });
        let removed = self.plan_new_controller(&mut attempt, id, &record).await?;
        for user in removed {
            texts.removed.push(self.user_with(user).await?.names.name);
        }
        detail["removed"] = json!(texts.removed);

        let terms = &texts.terms;
        let or_kept = |text: &String| (!text.is_empty()).then(|| text.clone());
        let changes = ProjectChanges {
            organisation: Some(terms.organisation.clone()),
            contact: Some(terms.contact.clone()),
            legal_basis: or_kept(&terms.legal_basis),
            ethics_approval: or_kept(&terms.ethics_approval),
            ..ProjectChanges::default()
        };
        let mut project = found.record;
        let mut changed = json!({});
        self.apply_changes(id, &mut project, &changes, &mut changed).await?;
        detail["changed"] = changed;
        attempt.put(self.rows.project(id), encode(&project));

        record.state = TransferState::Accepted;
        record.settled = Some(now);
        self.seal_transfer(id, &mut record, &texts)?;
        attempt.put(self.rows.transfer(id), encode(&record));
        let event = Event::of_project(EventKind::TransferAccepted, id, now, &texts.to);
        self.record_act(&mut attempt, request.commit, &request.by.actor, &detail, event)?;
        Ok(Plan::Commit(attempt, ()))
    }

    /// Makes whom the offer is made to a controller, and ends the memberships of the others unless they stay. Returns whose.
    async fn plan_new_controller(
        self: &Arc<Self>,
        attempt: &mut Attempt,
        project: ProjectId,
        record: &TransferRecord,
    ) -> Result<Vec<UserId>, MetadataError> {
        let to = record.to;
        let members = self.scan(move |core, snapshot| core.members_in(snapshot, project)).await?;
        let own = self.get(&self.rows.member(project, to)).await?;
        let member = match &own {
            Some(row) => {
                let member: MemberRecord = decode("member", &row.value)?;
                MemberRecord { roles: member.roles.with(Role::Controller), ..member }
            }
            None => {
                if members.len() >= MEMBERS_MAX {
                    return Err(ProjectRefusal::TooManyMembers.into());
                }
                let has_key = self.has_key_in(to, project).await?;
                MemberRecord { roles: Roles::NONE.with(Role::Controller), since: self.now(), has_key }
            }
        };
        self.plan_membership(attempt, project, to, own.as_ref(), &member).await?;
        if record.keeps_controllers {
            return Ok(Vec::new());
        }
        let others = members.into_iter().filter(|(user, member)| *user != to && member.roles.has(Role::Controller));
        let removed: Vec<UserId> = others.map(|(user, _)| user).collect();
        for user in &removed {
            attempt.remove(self.rows.member(project, *user));
            attempt.remove(self.rows.membership(*user, project));
        }
        Ok(removed)
    }

    async fn plan_withdrawal(self: &Arc<Self>, request: &WithdrawTransfer) -> Result<Plan<()>, MetadataError> {
        let (project, mut attempt) = self.governed_project(request.project).await?;
        let (mut record, texts) = self.open_offer(project.id, &mut attempt).await?;
        let (state, kind) = match request.by.actor.user == Some(record.to) {
            true => (TransferState::Declined, EventKind::TransferDeclined),
            false => {
                self.require_role(&request.by, project.id, &[Role::Controller]).await?;
                (TransferState::Withdrawn, EventKind::TransferWithdrawn)
            }
        };
        let now = self.now();
        record.state = state;
        record.settled = Some(now);
        attempt.put(self.rows.transfer(project.id), encode(&record));
        let detail = json!({ "offer": record.offer, "reason": request.reason });
        let event = Event::of_project(kind, project.id, now, &texts.to);
        self.record_act(&mut attempt, request.commit, &request.by.actor, &detail, event)?;
        Ok(Plan::Commit(attempt, ()))
    }
}

fn terms_json(terms: &TransferTerms) -> serde_json::Value {
    json!({
        "organisation": terms.organisation, "contact": terms.contact, "legal_basis": terms.legal_basis,
        "ethics_approval": terms.ethics_approval, "reason": terms.reason, "reference": terms.reference,
    })
}
