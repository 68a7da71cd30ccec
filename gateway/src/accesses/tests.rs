//! What is folded loses nothing; what can't be recorded is not served.

use super::*;
use crate::request_id::RequestId;
use async_trait::async_trait;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;
use valv_ledger::Client;
use valv_metadata_api::{ACCESSES_PER_CALL_MAX, Empty, Request, Response, Transport};
use valv_types::{OpeningId, TimestampMicros, UserId, VersionId};

fn access(user: u8, version: u8, opening: Option<u8>, range: Range<u64>) -> NewAccess {
    NewAccess {
        project: ProjectId::from_bytes([1; 16]),
        action: "GetObject",
        user: Some(UserId::from_bytes([user; 16])),
        access_key: None,
        remote: IpAddr::V4(Ipv4Addr::new(192, 0, 2, user)),
        request: RequestId::from_u64(7),
        time: TimestampMicros(1),
        bucket: None,
        version: Some(VersionId::from_bytes([version; 16])),
        opening: opening.map(|byte| OpeningId::from_bytes([byte; 16])),
        bytes: range.end - range.start,
        range,
        status: 206,
        state: AccessState::Begun,
        subject: Vec::new(),
    }
}

proptest! {
    /// Of each user, version and opening: bytes, requests and their ids, and which bytes of the object are covered.
    #[test]
    fn folding_loses_no_byte_no_request_and_no_opening(
        reads in prop::collection::vec((0u8..3, 0u8..3, prop::option::of(0u8..2), 0u64..20, 0u64..6), 0..60)
    ) {
        let mut gathering = Gathering::default();
        type Who = (Option<UserId>, Option<VersionId>, Option<OpeningId>);
        let mut expected: BTreeMap<Who, (u64, u64, Vec<String>, Vec<u64>)> = BTreeMap::new();
        let mut numbers = Vec::new();
        for (number, (user, version, opening, start, len)) in (0u64..).zip(reads) {
            let new = NewAccess { request: RequestId::from_u64(number), ..access(user, version, opening, start..start + len) };
            let sums = expected.entry((new.user, new.version, new.opening)).or_default();
            sums.0 += len;
            sums.1 += 1;
            sums.2.push(RequestId::from_u64(number).to_string());
            sums.3.extend(start..start + len);
            numbers.push(gathering.add(number, new));
        }
        let (clients, accesses) = gathering.into_parts();
        let mut found: BTreeMap<Who, (u64, u64, Vec<String>, Vec<u64>)> = BTreeMap::new();
        for one in &accesses {
            let access = &one.access;
            prop_assert!(numbers.contains(&access.number));
            prop_assert_eq!(access.count as usize, one.name.requests.len());
            let client: &Client = &clients[one.name.client as usize];
            let user = access.user.map(|user| user.as_bytes()[0]).unwrap_or_default();
            prop_assert_eq!(&client.remote, &format!("192.0.2.{user}"));
            let sums = found.entry((access.user, access.version, access.opening)).or_default();
            sums.0 += access.bytes;
            sums.1 += access.count;
            sums.2.extend(one.name.requests.iter().cloned());
            sums.3.extend(access.start..access.end);
        }
        for sums in expected.values_mut().chain(found.values_mut()) {
            sums.2.sort();
            sums.3.sort_unstable();
            sums.3.dedup();
        }
        prop_assert_eq!(found, expected);
        // Every request goes by the number of an access that is there.
        prop_assert!(numbers.iter().all(|number| accesses.iter().any(|one| one.access.number == *number)));
    }
}

#[test]
fn refusals_of_the_unsigned_share_one_name_and_those_of_users_do_not() {
    let refused = |user: Option<u8>, key: &str| NewAccess {
        status: 403,
        version: None,
        subject: key.as_bytes().to_vec(),
        user: user.map(|byte| UserId::from_bytes([byte; 16])),
        ..access(1, 1, None, 0..0)
    };
    let mut gathering = Gathering::default();
    for (number, (user, key)) in (0..).zip([(None, "a"), (None, "b"), (Some(1), "a"), (Some(1), "b"), (None, "c")]) {
        gathering.add(number, refused(user, key));
    }
    let (_, accesses) = gathering.into_parts();
    let told: Vec<_> =
        accesses.iter().map(|one| (one.access.user.is_some(), one.access.count, &one.name.subject[..])).collect();
    assert_eq!(told, [(false, 3, &b"a"[..]), (true, 1, b"a"), (true, 1, b"b")]);
}

/// Metadata that takes what it is permitted to take, and can be told to fail.
#[derive(Clone)]
struct Ledger {
    calls: Arc<Mutex<Vec<RecordAccesses>>>,
    permits: Arc<Semaphore>,
    failures: Arc<AtomicUsize>,
}

#[async_trait]
impl Transport for Ledger {
    async fn call(&self, request: Request) -> Result<Response, MetadataError> {
        let Request::RecordAccesses(request) = request else { panic!("only accesses are recorded here") };
        self.permits.acquire().await.expect("open").forget();
        self.calls.lock().push(request);
        let fails =
            self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if fails {
            self.permits.add_permits(1);
            return Err(MetadataError::Unavailable { what: "a test".to_owned() });
        }
        Ok(Response::RecordAccesses(Empty {}))
    }
}

fn recorder(permits: usize) -> (Arc<AccessRecorder>, Ledger) {
    let ledger = Ledger { calls: Arc::default(), permits: Arc::new(Semaphore::new(permits)), failures: Arc::default() };
    let counter = |name: &str| IntCounter::new(name, "of a test").expect("name");
    let metrics = RecorderMetrics { accesses: counter("accesses"), commits: counter("commits") };
    (AccessRecorder::new(Arc::new(valv_metadata_api::Client(ledger.clone())), metrics), ledger)
}

/// A read that touches no other.
fn read(number: u64) -> NewAccess {
    access(1, 1, None, number * 100..number * 100 + 10)
}

#[tokio::test]
async fn what_begins_while_a_commit_is_under_way_shares_the_next() {
    let (recorder, ledger) = recorder(0);
    let mut tickets = vec![recorder.begin(read(0)).expect("begins")];
    tokio::task::yield_now().await;
    for number in 1..100 {
        tickets.push(recorder.begin(read(number)).expect("begins"));
    }
    ledger.permits.add_permits(1);
    tickets[0].recorded().await.expect("recorded");
    let mut second = std::pin::pin!(tickets[1].recorded());
    assert!(futures_util::poll!(&mut second).is_pending(), "the second batch is not there yet");
    ledger.permits.add_permits(1);
    second.await.expect("recorded");
    let sizes: Vec<_> = ledger.calls.lock().iter().map(|call| call.accesses.len()).collect();
    assert_eq!(sizes, [1, 99]);
    assert_eq!((recorder.metrics.accesses.get(), recorder.metrics.commits.get()), (100, 2));
}

#[tokio::test]
async fn completions_go_along_with_the_next_access_or_by_themselves_soon() {
    let (recorder, ledger) = recorder(100);
    let mut first = recorder.begin(read(0)).expect("begins");
    first.recorded().await.expect("recorded");
    first.sent(4);
    drop(first);
    let mut second = recorder.begin(read(1)).expect("begins");
    second.recorded().await.expect("recorded");
    second.sent(10);
    drop(second);
    recorder.tasks.close();
    recorder.tasks.wait().await;
    let calls = ledger.calls.lock();
    let told: Vec<_> = calls.iter().map(|call| (call.accesses.len(), call.completions.len())).collect();
    assert_eq!(told, [(1, 0), (1, 1), (0, 1)]);
    let end = |call: usize| &calls[call].completions[0].completion;
    assert_eq!((end(1).number, end(1).sent_bytes, end(1).of_bytes, end(1).end), (0, 4, 10, AccessEnd::BrokenOff));
    assert_eq!((end(2).number, end(2).sent_bytes, end(2).of_bytes, end(2).end), (1, 10, 10, AccessEnd::Whole));
}

#[tokio::test]
async fn closing_leaves_nothing() {
    let (recorder, ledger) = recorder(100);
    let mut ticket = recorder.begin(read(0)).expect("begins");
    ticket.recorded().await.expect("recorded");
    drop(ticket);
    recorder.drain(Duration::from_secs(60)).await;
    assert_eq!(ledger.calls.lock().len(), 2);
}

#[tokio::test]
async fn reads_are_refused_while_nothing_is_recorded_and_nothing_is_recorded_twice() {
    let (recorder, ledger) = recorder(1);
    // Longer than a read waits: 20, 40 ... 640 ms and then a second after each.
    ledger.failures.store(10, Ordering::Relaxed);
    let mut refused = recorder.begin(read(0)).expect("begins");
    tokio::task::yield_now().await;
    let mut behind = recorder.begin(read(1)).expect("begins");
    for ticket in [&mut refused, &mut behind] {
        let error = ticket.recorded().await.expect_err("refused");
        assert_eq!(error.code(), S3Code::ServiceUnavailable);
    }
    let at_once = recorder.begin(read(2)).map(drop).expect_err("refused at once");
    assert_eq!(at_once.code(), S3Code::ServiceUnavailable);
    drop((refused, behind));
    // It comes back: what was refused is recorded under the commit id it had, and as reads of which nothing was sent.
    ledger.permits.add_permits(100);
    recorder.drain(Duration::from_secs(60)).await;
    let mut after = recorder.begin(read(3)).expect("serves again");
    after.recorded().await.expect("recorded");
    let calls = ledger.calls.lock();
    let commits: std::collections::BTreeSet<_> = calls.iter().map(|call| *call.commit.as_bytes()).collect();
    assert_eq!(calls[..11].iter().map(|call| call.commit).collect::<std::collections::HashSet<_>>().len(), 1);
    assert!(commits.len() >= 3);
    let ends = calls[11..].iter().flat_map(|call| &call.completions);
    let ends: Vec<_> = ends.map(|end| (end.completion.number, end.completion.sent_bytes)).collect();
    assert_eq!(ends, [(0, 0), (1, 0)]);
}

#[tokio::test]
async fn a_commit_without_an_answer_refuses_its_reads_in_time() {
    let (recorder, _ledger) = recorder(0);
    let mut ticket = recorder.begin(read(0)).expect("begins");
    let error = ticket.recorded().await.expect_err("refused");
    assert_eq!(error.code(), S3Code::ServiceUnavailable);
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let (recorder, _ledger) = recorder(0);
    let mut tickets = Vec::new();
    let refused = loop {
        match recorder.begin(read(tickets.len() as u64)) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code(), S3Code::SlowDown);
    assert_eq!(tickets.len(), BATCHES_MAX * ACCESSES_PER_CALL_MAX);
}
