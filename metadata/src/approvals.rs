//! Acts that need a second person: proposals, answers to them, and carrying out what was approved.
//!
//! Consistency: a proposal's row is what every answer expects, so of two answers at once one is refused or looks again. An
//! approval writes, with the row, a second row that says from when the act is due; whoever carries it out (the call that
//! approved, or the holder of the background lease after a crash) does so with commits whose ids follow from the proposal,
//! so doing it twice changes nothing, and only then settles the proposal and removes that row.

use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::records::{self, EventKind};
use crate::rows::Tag;
use crate::seal::Place;
use crate::service::{Core, corrupt, is_text};
use crate::store::Versioned;
use minicbor::{Decode, Encode};
use serde_json::json;
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{CommitId, ProjectId, ProposalId, TimestampMicros, UserId};

/// The project under which proposals about the cluster stand.
const CLUSTER: ProjectId = ProjectId::CLUSTER;
/// Most proposals of a list: a few people make them, so a project has tens.
const LIST_MAX: usize = 1_000;
/// Proposals carried out in one background pass; the next pass goes on.
const CARRIED_OUT_PER_PASS: usize = 64;

/// A proposal at rest.
#[derive(Debug, Clone, Encode, Decode)]
struct ProposalRecord {
    #[n(0)]
    proposed: TimestampMicros,
    #[n(1)]
    proposer: UserId,
    #[n(2)]
    state: ProposalState,
    #[n(3)]
    key_version: u32,
    /// [`ProposalWords`], sealed.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    sealed: Vec<u8>,
    /// The act, if it holds nothing but ids: what is carried out after the project's key is gone needs it.
    #[n(5)]
    open_act: Option<Act>,
}

/// What people said.
#[derive(Debug, Clone, Encode, Decode)]
struct ProposalWords {
    #[n(0)]
    act: Act,
    #[n(1)]
    reason: String,
    #[n(2)]
    reference: String,
    #[n(3)]
    decisions: Vec<Decision>,
}

/// A proposal that was read, with the row that a change expects.
struct Read {
    row: Versioned,
    proposal: Proposal,
}

/// How far an act has come.
#[derive(Debug)]
pub(crate) enum Carried {
    /// It is done. The value tells what came of it.
    Done(serde_json::Value),
    /// There is more to do: it is called again in the next background pass.
    More,
}

impl Core {
    /// Carries an approved act out. Called again after a crash, or as long as it answers [`Carried::More`]: each owner's
    /// function finds what it did before by [`Proposal::commit`].
    ///
    /// # Errors
    /// Unavailable and Conflict are tried again in the next pass; any other refusal settles the proposal as failed.
    async fn carry_out(self: &Arc<Self>, proposal: &Proposal) -> Result<Carried, MetadataError> {
        match &proposal.act {
            Act::AppointController(act) => self.carry_out_appointment(act, proposal).await,
            Act::AdvanceClock(act) => self.carry_out_clock_step(act, proposal).await,
            Act::CreateOpening(asked) => self.carry_out_opening(asked, proposal).await,
            Act::OneControllerOpens(act) => self.carry_out_one_controller(act, proposal).await,
            Act::Dispose(act) => self.carry_out_disposal(act, proposal).await,
            Act::LowerRetention(act) => self.carry_out_lowering(act, proposal).await,
            Act::ShredProject(act) => self.carry_out_shred_project(act, proposal).await,
            Act::ShredObject(act) => self.carry_out_shred_object(act, proposal).await,
        }
    }

    pub(crate) async fn make_proposal(self: &Arc<Self>, request: ProposeAct) -> Result<Proposal, MetadataError> {
        let id = ProposalId::from_bytes(*request.commit.as_bytes());
        let project = request.act.project().unwrap_or(CLUSTER);
        check_words(&request.reason)?;
        check_words(&request.reference)?;
        if request.reason.trim().is_empty() || request.reference.trim().is_empty() {
            return Err(ApprovalRefusal::ReasonMalformed.into());
        }
        for number in 0..ATTEMPTS_MAX {
            let plan = self.plan_proposal(&request, project, id).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(proposal) => return Ok(proposal),
                Settled::Again => {}
                Settled::Before(_) => return Ok(self.read_proposal(project, id).await?.proposal),
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_proposal(
        self: &Arc<Self>,
        request: &ProposeAct,
        project: ProjectId,
        id: ProposalId,
    ) -> Result<Plan<Proposal>, MetadataError> {
        let rules = request.act.rules();
        let mut attempt = Attempt::default();
        let proposer = self.right(&request.by, rules.proposer, project).await?;
        self.check_act(&request.act).await?;
        let proposal = Proposal {
            id,
            act: request.act.clone(),
            proposer,
            proposed: self.clock.now(),
            reason: request.reason.clone(),
            reference: request.reference.clone(),
            state: ProposalState::Waiting,
            decisions: Vec::new(),
        };
        attempt.expect_absent(self.rows.proposal(project, id));
        self.put_proposal(&mut attempt, project, &proposal)?;
        let said = Said { kind: EventKind::ActProposed, by: Some(&request.by.actor), reason: &request.reason };
        self.record_proposal(&mut attempt, request.commit, project, &proposal, said)?;
        Ok(Plan::Commit(attempt, proposal))
    }

    pub(crate) async fn settle_proposal(self: &Arc<Self>, request: AnswerProposal) -> Result<Proposal, MetadataError> {
        let project = request.project.unwrap_or(CLUSTER);
        check_words(&request.reason)?;
        let mut answered = None;
        for number in 0..ATTEMPTS_MAX {
            let plan = self.plan_answer(&request, project).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(proposal) => {
                    answered = Some(proposal);
                    break;
                }
                Settled::Again => {}
                Settled::Before(_) => {
                    answered = Some(self.read_proposal(project, request.proposal).await?.proposal);
                    break;
                }
            }
        }
        let answered = answered.ok_or(MetadataError::Conflict)?;
        match answered.state {
            ProposalState::Approved { not_before } if not_before <= self.clock.now() => {
                self.advance_proposal(project, answered).await
            }
            _ => Ok(answered),
        }
    }

    async fn plan_answer(
        self: &Arc<Self>,
        request: &AnswerProposal,
        project: ProjectId,
    ) -> Result<Plan<Proposal>, MetadataError> {
        let Read { row, mut proposal } = self.read_proposal(project, request.proposal).await?;
        let rules = proposal.act.rules();
        let mut attempt = Attempt::default();
        let known = request.by.actor.user.ok_or(ApprovalRefusal::NobodyKnown)?;
        let is_own = known == proposal.proposer;
        // Who answers for the data can stop whatever is proposed about it, by whomever.
        let is_controllers = !request.approve && self.roles_of(project, known).await?.has(Role::Controller);
        let user = if !request.approve && (is_own || is_controllers) {
            known
        } else {
            self.right(&request.by, rules.approver, project).await?
        };
        let now = self.clock.now();
        match (&proposal.state, request.approve) {
            (ProposalState::Waiting, true) if user == proposal.proposer => {
                return Err(ApprovalRefusal::OwnProposal.into());
            }
            (ProposalState::Waiting, true) => {
                let wait = if rules.cools_off { self.config.cooling_off_secs } else { 0 };
                proposal.state = ProposalState::Approved { not_before: now.plus_secs(wait) };
            }
            // While an act cools off it can still be stopped; once it is due, its effect may be half there.
            (ProposalState::Waiting, false) => proposal.state = ProposalState::Rejected,
            (ProposalState::Approved { not_before }, false) if now < *not_before => {
                attempt.remove(self.rows.proposal_due(*not_before, project, proposal.id));
                proposal.state = ProposalState::Rejected;
            }
            _ => return Err(ApprovalRefusal::Settled.into()),
        }
        proposal.decisions.push(Decision {
            user,
            time: now,
            approve: request.approve,
            reason: request.reason.clone(),
            caller: request.by.actor.caller.clone().unwrap_or_default(),
        });
        attempt.expect(self.rows.proposal(project, proposal.id), Some(&row));
        if let ProposalState::Approved { not_before } = proposal.state {
            self.check_act(&proposal.act).await?;
            attempt.put(self.rows.proposal_due(not_before, project, proposal.id), bytes::Bytes::new());
        }
        self.put_proposal(&mut attempt, project, &proposal)?;
        let kind = if request.approve { EventKind::ActApproved } else { EventKind::ActRejected };
        let said = Said { kind, by: Some(&request.by.actor), reason: &request.reason };
        self.record_proposal(&mut attempt, request.commit, project, &proposal, said)?;
        Ok(Plan::Commit(attempt, proposal))
    }

    /// Carries out as much as one call can, and settles the proposal if that was all.
    async fn advance_proposal(
        self: &Arc<Self>,
        project: ProjectId,
        mut proposal: Proposal,
    ) -> Result<Proposal, MetadataError> {
        let ProposalState::Approved { not_before } = proposal.state else { return Ok(proposal) };
        let (state, kind) = match self.carry_out(&proposal).await {
            Ok(Carried::More) => return Ok(proposal),
            Ok(Carried::Done(result)) => {
                (ProposalState::CarriedOut { result: result.to_string() }, EventKind::ActCarriedOut)
            }
            // What may be otherwise in a moment does not settle it.
            Err(MetadataError::Unavailable { .. } | MetadataError::Conflict) => return Ok(proposal),
            Err(error) => {
                tracing::warn!(proposal = %proposal.id, %error, "an approved act could not be carried out");
                (ProposalState::Failed { what: error.to_string() }, EventKind::ActFailed)
            }
        };
        let commit = proposal.commit("settled");
        for number in 0..ATTEMPTS_MAX {
            let plan = self.plan_settled(project, &proposal, not_before, (state.clone(), kind), commit).await;
            if let Settled::Done(settled) = settle(self.store.as_ref(), commit, number, plan).await? {
                proposal.state = settled;
                return Ok(proposal);
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_settled(
        self: &Arc<Self>,
        project: ProjectId,
        proposal: &Proposal,
        not_before: TimestampMicros,
        (state, kind): (ProposalState, EventKind),
        commit: CommitId,
    ) -> Result<Plan<ProposalState>, MetadataError> {
        let key = self.rows.proposal(project, proposal.id);
        let row = self.get(&key).await?.ok_or(ApprovalRefusal::NoSuchProposal)?;
        let mut record: ProposalRecord = records::decode("proposal", &row.value)?;
        if record.state.is_settled() {
            return Ok(Plan::Nothing(record.state));
        }
        record.state = state.clone();
        let mut attempt = Attempt::default();
        attempt.expect(key.clone(), Some(&row));
        attempt.put(key, records::encode(&record));
        attempt.remove(self.rows.proposal_due(not_before, project, proposal.id));
        let settled = Proposal { state: state.clone(), ..proposal.clone() };
        let said = Said { kind, by: None, reason: "" };
        self.record_proposal(&mut attempt, commit, project, &settled, said)?;
        Ok(Plan::Commit(attempt, state))
    }

    /// Carries out what was approved and is due. One that fails for the moment does not keep the others waiting.
    pub(crate) async fn carry_out_due(self: &Arc<Self>) -> Result<(), MetadataError> {
        let range = self.rows.proposals_due(self.clock.now());
        let due = self
            .scan(move |_, snapshot| {
                let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
                let mut found = Vec::new();
                while let Some((key, _)) = cursor.next().map_err(store_error)? {
                    // Cell (2), tag (1), time (8), project (16), proposal (16).
                    let ids = key.get(11..).and_then(|ids| ids.as_chunks::<16>().0.first_chunk::<2>().copied());
                    let [project, id] = ids.ok_or_else(|| corrupt("row of a due proposal"))?;
                    found.push((ProjectId::from_bytes(project), ProposalId::from_bytes(id)));
                    if found.len() == CARRIED_OUT_PER_PASS {
                        break;
                    }
                }
                Ok(found)
            })
            .await?;
        for (project, id) in due {
            let step = async { self.advance_proposal(project, self.read_proposal(project, id).await?.proposal).await };
            if let Err(error) = step.await {
                tracing::warn!(proposal = %id, %error, "an approved act waits for the next pass");
            }
        }
        Ok(())
    }

    pub(crate) async fn find_proposal(self: &Arc<Self>, request: GetProposal) -> Result<Proposal, MetadataError> {
        Ok(self.read_proposal(request.project.unwrap_or(CLUSTER), request.proposal).await?.proposal)
    }

    pub(crate) async fn all_proposals(
        self: &Arc<Self>,
        request: ListProposals,
    ) -> Result<Vec<Proposal>, MetadataError> {
        let project = request.project.unwrap_or(CLUSTER);
        let range = self.rows.range(Tag::Proposal, &[project.as_bytes()]);
        self.scan(move |core, snapshot| {
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            let mut found = Vec::new();
            while let Some((key, row)) = cursor.next().map_err(store_error)? {
                let id = crate::rows::last_id(&key).ok_or_else(|| corrupt("proposal row"))?;
                let proposal = core.open_proposal(project, ProposalId::from_bytes(id), &row)?.proposal;
                if !(request.open_only && proposal.state.is_settled()) {
                    found.push(proposal);
                }
            }
            found.sort_by_key(|proposal| std::cmp::Reverse(proposal.proposed));
            found.truncate(LIST_MAX);
            Ok(found)
        })
        .await
    }

    async fn read_proposal(&self, project: ProjectId, id: ProposalId) -> Result<Read, MetadataError> {
        let row = self.get(&self.rows.proposal(project, id)).await?.ok_or(ApprovalRefusal::NoSuchProposal)?;
        self.open_proposal(project, id, &row)
    }

    fn open_proposal(&self, project: ProjectId, id: ProposalId, row: &Versioned) -> Result<Read, MetadataError> {
        let record: ProposalRecord = records::decode("proposal", &row.value)?;
        let words = self.seals.open::<ProposalWords>(Place::Proposal(project, id), record.key_version, &record.sealed);
        let words = match (words, &record.open_act) {
            (Ok(words), _) => words,
            // The project's key is gone, and what was said with it.
            (Err(MetadataError::KeyUnavailable | MetadataError::KeyDestroyed), Some(act)) => ProposalWords {
                act: act.clone(),
                reason: String::new(),
                reference: String::new(),
                decisions: Vec::new(),
            },
            (Err(error), _) => return Err(error),
        };
        let is_late = self.clock.now() > record.proposed.plus_secs(PROPOSAL_SECS_MAX);
        let state = match &record.state {
            ProposalState::Waiting if is_late => ProposalState::Expired,
            state => state.clone(),
        };
        let proposal = Proposal {
            id,
            act: words.act,
            proposer: record.proposer,
            proposed: record.proposed,
            reason: words.reason,
            reference: words.reference,
            state,
            decisions: words.decisions,
        };
        Ok(Read { row: row.clone(), proposal })
    }

    fn put_proposal(
        &self,
        attempt: &mut Attempt,
        project: ProjectId,
        proposal: &Proposal,
    ) -> Result<(), MetadataError> {
        let words = ProposalWords {
            act: proposal.act.clone(),
            reason: proposal.reason.clone(),
            reference: proposal.reference.clone(),
            decisions: proposal.decisions.clone(),
        };
        let sealed = self.seals.seal(Place::Proposal(project, proposal.id), &words)?;
        let record = ProposalRecord {
            proposed: proposal.proposed,
            proposer: proposal.proposer,
            state: proposal.state.clone(),
            key_version: sealed.key_version,
            sealed: sealed.bytes,
            open_act: proposal.act.is_ids_only().then(|| proposal.act.clone()),
        };
        attempt.put(self.rows.proposal(project, proposal.id), records::encode(&record));
        Ok(())
    }

    fn record_proposal(
        &self,
        attempt: &mut Attempt,
        commit: CommitId,
        project: ProjectId,
        proposal: &Proposal,
        said: Said<'_>,
    ) -> Result<(), MetadataError> {
        let name = proposal.act.rules().name;
        let event = Event::of_project(said.kind, project, self.now(), &name);
        let deciders: Vec<_> = proposal.deciders().iter().map(ToString::to_string).collect();
        let mut detail = json!({
            "act": name,
            "proposal": proposal.id.to_string(),
            "reference": proposal.reference,
            "deciders": deciders,
            "state": proposal.state.name(),
        });
        if !said.reason.is_empty() {
            detail["reason"] = json!(said.reason);
        }
        match &proposal.state {
            ProposalState::Approved { not_before } => detail["not_before"] = json!(not_before.0),
            ProposalState::Failed { what } => detail["why"] = json!(what),
            ProposalState::CarriedOut { result } => {
                detail["result"] = serde_json::from_str(result).unwrap_or(serde_json::Value::Null);
            }
            _ => {}
        }
        self.record_act_of(attempt, commit, said.by, &detail, event)
    }

    /// Refuses an act that does not fit the state of things, before anybody is asked to decide on it.
    async fn check_act(self: &Arc<Self>, act: &Act) -> Result<(), MetadataError> {
        match act {
            Act::AppointController(act) => self.check_appointment(act).await,
            Act::AdvanceClock(act) => self.check_clock_step(act),
            Act::CreateOpening(asked) => self.check_proposed_opening(asked),
            Act::OneControllerOpens(_) => Ok(()),
            Act::Dispose(act) => self.check_disposal(act).await,
            Act::LowerRetention(act) => Ok(act.retention.check()?),
            Act::ShredProject(act) => self.check_shred_project(act).await,
            Act::ShredObject(act) => self.check_shred_object(act).await,
        }
    }

    fn check_clock_step(&self, act: &AdvanceClock) -> Result<(), MetadataError> {
        let is_fit = act.to > self.clock.now() && act.to <= self.now();
        if is_fit { Ok(()) } else { Err(ApprovalRefusal::Unfit.into()) }
    }

    async fn carry_out_clock_step(&self, act: &AdvanceClock, proposal: &Proposal) -> Result<Carried, MetadataError> {
        if act.to > self.now() {
            return Err(ApprovalRefusal::Unfit.into());
        }
        let before = self.clock.now();
        // The record of it is the proposal's own, in the cluster's ledger, which names both operators; the row says nothing
        // that time would not have said by itself.
        self.clock.step(self.store.as_ref(), &self.rows, act.to).await?;
        tracing::warn!(proposal = %proposal.id, from = before.0, to = act.to.0, "cluster time was moved forward");
        Ok(Carried::Done(json!({ "from_micros": before.0, "to_micros": act.to.0 })))
    }

    /// Refuses who may not. Returns who it is.
    async fn right(&self, by: &Person, who: Who, project: ProjectId) -> Result<UserId, MetadataError> {
        let user = by.actor.user.ok_or(ApprovalRefusal::NobodyKnown)?;
        let is_allowed = match who {
            Who::Operators => by.is_operator,
            Who::Members(roles) => match self.require_role(by, project, roles).await {
                Ok(()) => true,
                Err(MetadataError::Project { .. }) => false,
                Err(error) => return Err(error),
            },
        };
        if is_allowed { Ok(user) } else { Err(ApprovalRefusal::NotAllowed.into()) }
    }
}

/// What a record of a proposal tells besides it.
struct Said<'a> {
    kind: EventKind,
    by: Option<&'a Actor>,
    reason: &'a str,
}

fn check_words(text: &str) -> Result<(), MetadataError> {
    if is_text(text, REASON_LEN_BYTES_MAX) { Ok(()) } else { Err(ApprovalRefusal::ReasonMalformed.into()) }
}
