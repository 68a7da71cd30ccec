//! Proposals: who may answer, what cooling off means, and that carrying out happens once.

use crate::records::{EventKind, LedgerRecord};
use crate::rows::Tag;
use crate::testing::{Fixture, actor};
use crate::{MetadataConfig, records};
use std::sync::atomic::Ordering;
use valv_metadata_api::*;
use valv_types::{CommitId, ProjectId, ProposalId, TimestampMicros, UserId};

const COOLING_OFF_SECS: u64 = 100;

/// A cluster whose time is a thousand seconds behind the machine's clock.
async fn late_cluster() -> Fixture {
    let config = MetadataConfig { cooling_off_secs: COOLING_OFF_SECS, ..MetadataConfig::default() };
    let fixture = Fixture::with_config(config).await;
    let clock = &fixture.service.0.clock;
    clock.go_back_to(TimestampMicros(TimestampMicros::now().0 - 1_000_000_000));
    fixture
}

fn person(is_operator: bool) -> Person {
    Person { actor: actor(ProjectId::CLUSTER, UserId::random()), is_operator }
}

async fn propose(fixture: &Fixture, by: &Person) -> Result<Proposal, MetadataError> {
    let to = TimestampMicros(fixture.service.0.clock.now().0 + 800_000_000);
    let request = ProposeAct {
        act: Act::AdvanceClock(AdvanceClock { to }),
        by: by.clone(),
        reason: "the server rested for a winter".to_owned(),
        reference: "board 12/2026".to_owned(),
        commit: CommitId::random(),
    };
    fixture.service.propose_act(request).await
}

async fn answer(
    fixture: &Fixture,
    proposal: ProposalId,
    by: &Person,
    approve: bool,
) -> Result<Proposal, MetadataError> {
    let by = by.clone();
    let request =
        AnswerProposal { proposal, project: None, by, approve, reason: String::new(), commit: CommitId::random() };
    fixture.service.answer_proposal(request).await
}

fn refusal<T: std::fmt::Debug>(result: Result<T, MetadataError>) -> ApprovalRefusal {
    match result {
        Err(MetadataError::Approval { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

fn events(fixture: &Fixture) -> Vec<EventKind> {
    let rows = fixture.store.rows();
    let ledger = rows.iter().filter(|(key, _)| key[2] == Tag::Ledger as u8 && key[3..19] == [0; 16]);
    let mut events: Vec<LedgerRecord> = ledger.map(|(_, row)| records::decode("ledger", &row.value).unwrap()).collect();
    events.sort_by_key(|event| event.time);
    events.into_iter().map(|event| event.kind).filter(|kind| *kind as u32 >= 85).collect()
}

#[tokio::test]
async fn two_known_operators_decide() {
    let fixture = late_cluster().await;
    let (first, second, outsider) = (person(true), person(true), person(false));
    let unknown = Person { actor: Actor { user: None, ..first.actor.clone() }, is_operator: true };
    assert_eq!(refusal(propose(&fixture, &outsider).await), ApprovalRefusal::NotAllowed);
    assert_eq!(refusal(propose(&fixture, &unknown).await), ApprovalRefusal::NobodyKnown);

    let proposal = propose(&fixture, &first).await.unwrap();
    assert_eq!(refusal(answer(&fixture, proposal.id, &first, true).await), ApprovalRefusal::OwnProposal);
    assert_eq!(refusal(answer(&fixture, proposal.id, &outsider, true).await), ApprovalRefusal::NotAllowed);
    assert_eq!(refusal(answer(&fixture, proposal.id, &outsider, false).await), ApprovalRefusal::NotAllowed);
    assert_eq!(refusal(answer(&fixture, proposal.id, &unknown, true).await), ApprovalRefusal::NobodyKnown);
    assert_eq!(refusal(answer(&fixture, ProposalId::random(), &second, true).await), ApprovalRefusal::NoSuchProposal);
    let approved = answer(&fixture, proposal.id, &second, true).await.unwrap();
    assert!(matches!(approved.state, ProposalState::Approved { .. }));
    assert_eq!(approved.deciders(), [first.actor.user.unwrap(), second.actor.user.unwrap()]);
    assert_eq!(refusal(answer(&fixture, proposal.id, &person(true), true).await), ApprovalRefusal::Settled);
    assert_eq!(events(&fixture), [EventKind::ActProposed, EventKind::ActApproved]);
}

#[tokio::test]
async fn an_act_waits_and_then_happens_once() {
    let fixture = late_cluster().await;
    let core = &fixture.service.0;
    let proposal = propose(&fixture, &person(true)).await.unwrap();
    let Act::AdvanceClock(AdvanceClock { to }) = proposal.act else { panic!("{:?}", proposal.act) };
    answer(&fixture, proposal.id, &person(true), true).await.unwrap();
    core.carry_out_due().await.unwrap();
    assert!(core.clock.now() < to, "it cools off");

    core.clock.advance_secs(COOLING_OFF_SECS);
    // The commit that settles it happens, and its answer is lost.
    fixture.store.lose_answers.store(2, Ordering::Relaxed);
    core.carry_out_due().await.unwrap();
    core.carry_out_due().await.unwrap();
    assert!(core.clock.now() >= to);
    let find = GetProposal { proposal: proposal.id, project: None };
    let settled = fixture.service.get_proposal(find).await.unwrap();
    assert!(matches!(settled.state, ProposalState::CarriedOut { .. }));
    assert_eq!(fixture.store.count(Tag::ProposalDue), 0);
    assert_eq!(events(&fixture), [EventKind::ActProposed, EventKind::ActApproved, EventKind::ActCarriedOut]);
    assert_eq!(refusal(answer(&fixture, proposal.id, &person(true), false).await), ApprovalRefusal::Settled);
}

#[tokio::test]
async fn it_can_be_stopped_while_it_cools_off_and_withdrawn() {
    let fixture = late_cluster().await;
    let core = &fixture.service.0;
    let (first, second) = (person(true), person(true));
    let proposal = propose(&fixture, &first).await.unwrap();
    let Act::AdvanceClock(AdvanceClock { to }) = proposal.act else { panic!("{:?}", proposal.act) };
    answer(&fixture, proposal.id, &second, true).await.unwrap();
    let rejected = answer(&fixture, proposal.id, &person(true), false).await.unwrap();
    assert_eq!(rejected.state, ProposalState::Rejected);
    core.clock.advance_secs(COOLING_OFF_SECS);
    core.carry_out_due().await.unwrap();
    assert!(core.clock.now() < to);

    let withdrawn = propose(&fixture, &first).await.unwrap();
    assert_eq!(answer(&fixture, withdrawn.id, &first, false).await.unwrap().state, ProposalState::Rejected);
    let open = ListProposals { project: None, open_only: true };
    assert_eq!(fixture.service.list_proposals(open).await.unwrap(), []);
    let all = ListProposals { project: None, open_only: false };
    assert_eq!(fixture.service.list_proposals(all).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_nobody_answers_expires_and_time_beyond_the_clock_is_refused() {
    let fixture = late_cluster().await;
    let proposal = propose(&fixture, &person(true)).await.unwrap();
    fixture.service.0.clock.advance_secs(PROPOSAL_SECS_MAX + 1);
    assert_eq!(refusal(answer(&fixture, proposal.id, &person(true), true).await), ApprovalRefusal::Settled);
    // Cluster time is now ahead of the machine's.
    assert_eq!(refusal(propose(&fixture, &person(true)).await), ApprovalRefusal::Unfit);
}

#[tokio::test]
async fn reasons_are_bounded_text_and_sealed() {
    let fixture = late_cluster().await;
    let by = person(true);
    let to = fixture.service.0.clock.now().plus_secs(10);
    let request = |reason: &str, reference: &str| ProposeAct {
        act: Act::AdvanceClock(AdvanceClock { to }),
        by: by.clone(),
        reason: reason.to_owned(),
        reference: reference.to_owned(),
        commit: CommitId::random(),
    };
    for (reason, reference) in [("", "r"), ("r", " "), ("a\u{7}b", "r"), (&"x".repeat(REASON_LEN_BYTES_MAX + 1), "r")] {
        let refused = fixture.service.propose_act(request(reason, reference)).await;
        assert_eq!(refusal(refused), ApprovalRefusal::ReasonMalformed);
    }
    fixture.service.propose_act(request("planted-reason", "planted-reference")).await.unwrap();
    for (key, row) in fixture.store.rows().iter() {
        for text in [&b"planted-reason"[..], b"planted-reference"] {
            assert!(!row.value.windows(text.len()).any(|window| window == text), "{key:?}");
        }
    }
}
