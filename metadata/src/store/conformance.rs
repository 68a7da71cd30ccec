//! The suite that every MetaStore must pass: what the domain logic relies on, as tests over the trait alone.

use super::{
    COMMIT_KEYS_MAX, Commit, CommitOutcome, Expectation, KEY_LEN_BYTES_MAX, Key, MetaStore, StoreError,
    VALUE_LEN_BYTES_MAX, Versioned, Write,
};
use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;
use valv_types::{CommitId, Revision};

/// One store under test.
#[async_trait]
pub trait Instance: Send {
    /// The store.
    fn store(&self) -> Arc<dyn MetaStore>;

    /// Ends the store as an orderly stop does, and opens it again.
    async fn reopen(&mut self);
}

/// Makes stores that are empty and share nothing.
#[async_trait]
pub trait Factory: Sync {
    /// A new, empty store.
    async fn fresh(&self) -> Box<dyn Instance>;
}

/// Runs everything; panics at the first thing that is wrong.
///
/// Needs a multi-threaded runtime.
pub async fn run_all(factory: &dyn Factory) {
    an_empty_store_has_no_rows_and_revision_zero(factory).await;
    revisions_grow_by_one_with_each_commit(factory).await;
    expectations_decide(factory).await;
    a_refused_commit_changes_nothing(factory).await;
    malformed_commits_are_refused(factory).await;
    large_commits_are_taken(factory).await;
    a_commit_id_has_one_effect(factory).await;
    outcomes_are_known_for_committed_and_for_unknown_ids(factory).await;
    a_dropped_commit_is_resolved_by_its_outcome(factory).await;
    snapshots_do_not_move(factory).await;
    scans_keep_order_and_bounds(factory).await;
    cursors_skip(factory).await;
    many_keys_are_read_from_one_snapshot(factory).await;
    concurrent_increments_are_never_lost(factory).await;
    transfers_keep_the_sum(factory).await;
    random_histories_agree_with_a_map(factory).await;
    everything_survives_reopening(factory).await;
}

fn key(text: &str) -> Key {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(k: &str, value: &str) -> Write {
    Write { key: key(k), value: Some(key(value)) }
}

fn remove(k: &str) -> Write {
    Write { key: key(k), value: None }
}

fn expect(k: &str, revision: Option<Revision>) -> Expectation {
    Expectation { key: key(k), revision }
}

fn commit(expected: Vec<Expectation>, writes: Vec<Write>) -> Commit {
    Commit { id: CommitId::random(), expected, writes }
}

async fn committed(store: &dyn MetaStore, expected: Vec<Expectation>, writes: Vec<Write>) -> Revision {
    match store.commit(commit(expected, writes)).await {
        Ok(CommitOutcome::Committed(revision)) => revision,
        other => panic!("expected a commit, got {other:?}"),
    }
}

async fn value(store: &dyn MetaStore, k: &str) -> Option<Versioned> {
    store.get(k.as_bytes()).await.expect("get")
}

async fn rows(store: &dyn MetaStore, start: &[u8], end: &[u8]) -> Vec<(Key, Versioned)> {
    let snapshot = store.snapshot().await.expect("snapshot");
    let mut cursor = snapshot.scan(start, end).expect("scan");
    let mut found = Vec::new();
    while let Some(row) = cursor.next().expect("next") {
        found.push(row);
    }
    assert_eq!(cursor.next().expect("next"), None, "a cursor stays at its end");
    found
}

async fn an_empty_store_has_no_rows_and_revision_zero(factory: &dyn Factory) {
    let instance = factory.fresh().await;
    let store = instance.store();
    assert_eq!(value(&*store, "a").await, None);
    assert_eq!(store.latest_revision().await.unwrap(), Revision(0));
    assert_eq!(store.snapshot().await.unwrap().revision(), Revision(0));
    assert_eq!(rows(&*store, b"", &[0xff; 8]).await, []);
}

async fn revisions_grow_by_one_with_each_commit(factory: &dyn Factory) {
    let instance = factory.fresh().await;
    let store = instance.store();
    for n in 1..=5 {
        let revision = committed(&*store, vec![], vec![put("k", "v"), put(&format!("k{n}"), "v")]).await;
        assert_eq!(revision, Revision(n));
        assert_eq!(store.latest_revision().await.unwrap(), revision);
        assert_eq!(value(&*store, "k").await.unwrap().revision, revision);
    }
    assert_eq!(value(&*store, "k1").await.unwrap().revision, Revision(1), "a row keeps its own commit's revision");
    assert_eq!(committed(&*store, vec![], vec![]).await, Revision(6), "a commit without writes is one too");
}

async fn expectations_decide(factory: &dyn Factory) {
    let instance = factory.fresh().await;
    let store = instance.store();
    let first = committed(&*store, vec![expect("a", None)], vec![put("a", "1"), put("b", "")]).await;
    let second = committed(&*store, vec![expect("a", Some(first))], vec![put("a", "2")]).await;
    let removed = committed(&*store, vec![], vec![put("gone", "x")]).await;
    committed(&*store, vec![expect("gone", Some(removed))], vec![remove("gone")]).await;

    let cases = [
        (vec![expect("a", None)], Some(0)),
        (vec![expect("a", Some(first))], Some(0)),
        (vec![expect("a", Some(Revision(99)))], Some(0)),
        (vec![expect("none", Some(second))], Some(0)),
        (vec![expect("gone", Some(removed))], Some(0)),
        (vec![expect("a", Some(second)), expect("b", None), expect("a", None)], Some(1)),
        (vec![expect("a", Some(second)), expect("b", Some(first)), expect("c", Some(first))], Some(2)),
        (vec![expect("a", Some(second)), expect("b", Some(first)), expect("none", None), expect("gone", None)], None),
    ];
    for (expected, conflict) in cases {
        let label = format!("{expected:?}");
        let outcome = store.commit(commit(expected, vec![])).await.unwrap();
        match conflict {
            Some(index) => assert_eq!(outcome, CommitOutcome::Conflict { index }, "{label}"),
            None => assert!(matches!(outcome, CommitOutcome::Committed(_)), "{label}: {outcome:?}"),
        }
    }
}

async fn a_refused_commit_changes_nothing(factory: &dyn Factory) {
    let instance = factory.fresh().await;
    let store = instance.store();
    let first = committed(&*store, vec![], vec![put("a", "1")]).await;
    let refused = commit(vec![expect("a", None)], vec![put("a", "2"), put("b", "2")]);
    assert_eq!(store.commit(refused.clone()).await.unwrap(), CommitOutcome::Conflict { index: 0 });
    assert_eq!(value(&*store, "a").await.unwrap(), Versioned { revision: first, value: key("1") });
    assert_eq!(value(&*store, "b").await, None);
    assert_eq!(store.outcome(refused.id).await.unwrap(), None);
    assert_eq!(store.latest_revision().await.unwrap(), first);
    // Its id is not used up: the same commit goes through once its expectation holds.
    committed(&*store, vec![], vec![remove("a")]).await;
    assert!(matches!(store.commit(refused).await.unwrap(), CommitOutcome::Committed(_)));
}

async fn malformed_commits_are_refused(factory: &dyn Factory) {
    let instance = factory.fresh().await;
    let store = instance.store();
    let long_key = Bytes::from(vec![b'k'; KEY_LEN_BYTES_MAX + 1]);
    let long_value = Bytes::from(vec![0; VALUE_LEN_BYTES_MAX + 1]);
    let many = |n: usize| (0..n).map(|i| put(&format!("{i:06}"), "")).collect::<Vec<_>>();
    let cases = [
        ("a key twice", commit(vec![], vec![put("a", "1"), remove("a")])),
        ("a long key written", commit(vec![], vec![Write { key: long_key.clone(), value: None }])),
        ("a long key expected", commit(vec![Expectation { key: long_key, revision: None }], vec![])),
        ("a long value", commit(vec![], vec![Write { key: key("a"), value: Some(long_value) }])),
        ("too many writes", commit(vec![], many(COMMIT_KEYS_MAX + 1))),
    ];
    for (label, commit) in cases {
        let refused = store.commit(commit).await;
        assert!(matches!(refused, Err(StoreError::Malformed { .. })), "{label}: {refused:?}");
    }
    assert_eq!(store.latest_revision().await.unwrap(), Revision(0));
}

async fn large_commits_are_taken(factory: &dyn Factory) {
    let instance = factory.fresh().await;
    let store = instance.store();
    let widest = Bytes::from(vec![0xff; KEY_LEN_BYTES_MAX]);
    let largest = Bytes::from(vec![7; VALUE_LEN_BYTES_MAX]);
    let writes = vec![Write { key: widest.clone(), value: Some(largest.clone()) }];
    committed(&*store, vec![], writes).await;
    assert_eq!(store.get(&widest).await.unwrap().unwrap().value, largest);

    let writes = (0..20).map(|i| Write { key: key(&format!("v{i}")), value: Some(largest.clone()) }).collect();
    committed(&*store, vec![], writes).await;
    let writes = (0..COMMIT_KEYS_MAX).map(|i| put(&format!("{i:06}"), "x")).collect();
    let revision = committed(&*store, vec![], writes).await;
    assert_eq!(rows(&*store, b"0", b"1").await.len(), COMMIT_KEYS_MAX);
    assert_eq!(value(&*store, "012345").await.unwrap().revision, revision);
}

async fn a_commit_id_has_one_effect(factory: &dyn Factory) {
    let instance = factory.fresh().await;
    let store = instance.store();
    let once = commit(vec![expect("a", None)], vec![put("a", "1")]);
    let first = store.commit(once.clone()).await.unwrap();
    assert_eq!(first, CommitOutcome::Committed(Revision(1)));
    committed(&*store, vec![], vec![put("a", "2")]).await;
    assert_eq!(store.commit(once.clone()).await.unwrap(), first, "repeated, although its expectation fails by now");
    assert_eq!(value(&*store, "a").await.unwrap().value, key("2"));

    // At the same time, so that both can be in one group.
    let twice = commit(vec![], vec![put("b", "1")]);
    let (one, other) = tokio::join!(store.commit(twice.clone()), store.commit(twice));
    assert_eq!(one.unwrap(), other.unwrap());
    assert_eq!(store.latest_revision().await.unwrap(), Revision(3));
}

async fn outcomes_are_known_for_committed_and_for_unknown_ids(factory: &dyn Factory) {
    let instance = factory.fresh().await;
    let store = instance.store();
    let done = commit(vec![], vec![put("a", "1")]);
    assert_eq!(store.outcome(done.id).await.unwrap(), None);
    let outcome = store.commit(done.clone()).await.unwrap();
    let found = store.outcome(done.id).await.unwrap().expect("committed");
    assert_eq!(outcome, CommitOutcome::Committed(found));
}

async fn a_dropped_commit_is_resolved_by_its_outcome(factory: &dyn Factory) {
    let instance = factory.fresh().await;
    let store = instance.store();
    for n in 0..20 {
        let dropped = commit(vec![], vec![put(&format!("k{n}"), "v")]);
        let id = dropped.id;
        // Polled once: it may be in the queue, or not.
        tokio::select! {
            biased;
            _ = store.commit(dropped) => {}
            () = std::future::ready(()) => {}
        }
        let outcome = store.outcome(id).await.unwrap();
        let row = value(&*store, &format!("k{n}")).await;
        assert_eq!(row.map(|row| row.revision), outcome, "the answer is final");
    }
}

async fn snapshots_do_not_move(factory: &dyn Factory) {
    let instance = factory.fresh().await;
    let store = instance.store();
    let first = committed(&*store, vec![], vec![put("a", "1"), put("b", "1")]).await;
    let snapshot = store.snapshot().await.unwrap();
    committed(&*store, vec![], vec![put("a", "2"), remove("b"), put("c", "2")]).await;
    assert_eq!(snapshot.revision(), first);
    assert_eq!(snapshot.get(b"a").unwrap().unwrap().value, key("1"));
    assert_eq!(snapshot.get(b"c").unwrap(), None);
    let mut cursor = snapshot.scan(b"a", b"z").unwrap();
    committed(&*store, vec![], vec![put("bb", "3")]).await;
    let mut seen = Vec::new();
    while let Some((found, row)) = cursor.next().unwrap() {
        assert_eq!(row.revision, first);
        seen.push(found);
    }
    assert_eq!(seen, [key("a"), key("b")]);
}

async fn scans_keep_order_and_bounds(factory: &dyn Factory) {
    let instance = factory.fresh().await;
    let store = instance.store();
    let keys: [&[u8]; 8] = [b"", b"\0", b"a", b"a\0", b"a\0\xff", b"ab", b"b", b"\xff\xff"];
    let writes = keys.iter().rev().map(|k| Write { key: Bytes::copy_from_slice(k), value: Some(key("v")) }).collect();
    committed(&*store, vec![], writes).await;
    let bounds: [&[u8]; 7] = [b"", b"\0", b"a", b"a\0\0", b"ab", b"c", b"\xff\xff\xff"];
    for start in bounds {
        for end in bounds {
            let expected: Vec<_> = keys.iter().filter(|k| **k >= start && **k < end).map(|k| k.to_vec()).collect();
            let found: Vec<_> = rows(&*store, start, end).await.into_iter().map(|(k, _)| k.to_vec()).collect();
            assert_eq!(found, expected, "{start:?}..{end:?}");
        }
    }
}

async fn cursors_skip(factory: &dyn Factory) {
    let instance = factory.fresh().await;
    let store = instance.store();
    let writes = (0..100).map(|i| put(&format!("k{i:03}"), "v")).collect();
    committed(&*store, vec![], writes).await;
    let snapshot = store.snapshot().await.unwrap();
    let mut cursor = snapshot.scan(b"k010", b"k090").unwrap();
    cursor.seek(b"k020").unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().0, key("k020"), "before anything was read");
    assert_eq!(cursor.next().unwrap().unwrap().0, key("k021"));
    cursor.seek(b"k0305").unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().0, key("k031"), "between keys");
    cursor.seek(b"k032").unwrap();
    cursor.seek(b"k033").unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().0, key("k033"), "twice");
    cursor.seek(b"k089").unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().0, key("k089"));
    assert_eq!(cursor.next().unwrap(), None);
    let mut cursor = snapshot.scan(b"k010", b"k090").unwrap();
    cursor.seek(b"k095").unwrap();
    assert_eq!(cursor.next().unwrap(), None, "past the range");
    assert_eq!(cursor.next().unwrap(), None);
    let mut cursor = snapshot.scan(b"k010", b"k090").unwrap();
    cursor.seek(b"").unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().0, key("k010"), "never before the range");
}

async fn many_keys_are_read_from_one_snapshot(factory: &dyn Factory) {
    let instance = factory.fresh().await;
    let store = instance.store();
    committed(&*store, vec![], vec![put("a", "0"), put("b", "0")]).await;
    assert_eq!(store.get_many(&[]).await.unwrap(), []);
    let found = store.get_many(&[key("b"), key("none"), key("a"), key("b")]).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, true]);
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 1..=200 {
                committed(&*store, vec![], vec![put("a", &n.to_string()), put("b", &n.to_string())]).await;
            }
        })
    };
    while !writer.is_finished() {
        let found = store.get_many(&[key("a"), key("b")]).await.unwrap();
        assert_eq!(found[0], found[1]);
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

const TASKS: u64 = 8;
const ROUNDS: u64 = 25;

async fn concurrent_increments_are_never_lost(factory: &dyn Factory) {
    let instance = factory.fresh().await;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let store = instance.store();
        tasks.spawn(async move {
            for _ in 0..ROUNDS {
                loop {
                    let read = value(&*store, "counter").await;
                    let count: u64 = read.as_ref().map_or(0, |row| number(&row.value));
                    let expected = vec![expect("counter", read.map(|row| row.revision))];
                    let writes = vec![put("counter", &(count + 1).to_string())];
                    match store.commit(commit(expected, writes)).await.unwrap() {
                        CommitOutcome::Committed(_) => break,
                        CommitOutcome::Conflict { index } => assert_eq!(index, 0),
                    }
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(number(&value(&*instance.store(), "counter").await.unwrap().value), TASKS * ROUNDS);
}

fn number(value: &Bytes) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

async fn transfers_keep_the_sum(factory: &dyn Factory) {
    const ACCOUNTS: u64 = 6;
    const EACH: u64 = 100;
    let instance = factory.fresh().await;
    let store = instance.store();
    let writes = (0..ACCOUNTS).map(|a| put(&format!("account{a}"), &EACH.to_string())).collect();
    committed(&*store, vec![], writes).await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            for round in 0..ROUNDS {
                let from = format!("account{}", (task + round) % ACCOUNTS);
                let to = format!("account{}", (task + 3 * round + 1) % ACCOUNTS);
                let read = store.get_many(&[key(&from), key(&to)]).await.unwrap();
                let (Some(a), Some(b)) = (&read[0], &read[1]) else { panic!("an account is gone") };
                let (have, had) = (number(&a.value), number(&b.value));
                if from == to || have == 0 {
                    continue;
                }
                let expected = vec![expect(&from, Some(a.revision)), expect(&to, Some(b.revision))];
                let writes = vec![put(&from, &(have - 1).to_string()), put(&to, &(had + 1).to_string())];
                store.commit(commit(expected, writes)).await.unwrap();
                let sum: u64 = rows(&*store, b"account", b"accounu").await.iter().map(|(_, r)| number(&r.value)).sum();
                assert_eq!(sum, ACCOUNTS * EACH, "in every snapshot");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// One step of a random history over a handful of keys, so that they meet.
#[derive(Debug, Clone)]
enum Step {
    Commit { expected: Vec<(u8, Guess)>, writes: BTreeMap<u8, Option<u8>> },
    Scan { start: u8, end: u8, seek: Option<u8> },
    Reopen,
}

#[derive(Debug, Clone, Copy)]
enum Guess {
    Right,
    Absent,
    Revision(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let guess =
        prop_oneof![6 => Just(Guess::Right), 1 => Just(Guess::Absent), 1 => (0..20u64).prop_map(Guess::Revision)];
    let expected = prop::collection::vec((0..8u8, guess), 0..3);
    let writes = prop::collection::btree_map(0..8u8, prop::option::weighted(0.7, any::<u8>()), 0..4);
    let step = prop_oneof![
        20 => (expected, writes).prop_map(|(expected, writes)| Step::Commit { expected, writes }),
        5 => (0..9u8, 0..9u8, prop::option::of(0..9u8)).prop_map(|(start, end, seek)| Step::Scan { start, end, seek }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

async fn random_histories_agree_with_a_map(factory: &dyn Factory) {
    let runtime = tokio::runtime::Handle::current();
    let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
    tokio::task::block_in_place(|| {
        TestRunner::new(config)
            .run(&steps(), |steps| {
                runtime.block_on(run_history(factory, steps));
                Ok(())
            })
            .unwrap();
    });
}

async fn run_history(factory: &dyn Factory, steps: Vec<Step>) {
    let mut instance = factory.fresh().await;
    let mut model: BTreeMap<u8, Versioned> = BTreeMap::new();
    let mut latest = 0;
    for step in steps {
        let store = instance.store();
        match step {
            Step::Commit { expected, writes } => {
                let actual = |k: &u8| model.get(k).map(|row| row.revision);
                let expected: Vec<_> = expected
                    .into_iter()
                    .map(|(k, guess)| match guess {
                        Guess::Right => (k, actual(&k)),
                        Guess::Absent => (k, None),
                        Guess::Revision(n) => (k, Some(Revision(n))),
                    })
                    .collect();
                let conflict = expected.iter().position(|(k, revision)| actual(k) != *revision);
                let expected =
                    expected.iter().map(|(k, revision)| Expectation { key: one(*k), revision: *revision }).collect();
                let made = writes.iter().map(|(k, v)| Write { key: one(*k), value: v.map(one) }).collect();
                let outcome = store.commit(commit(expected, made)).await.unwrap();
                match conflict {
                    Some(index) => assert_eq!(outcome, CommitOutcome::Conflict { index }),
                    None => {
                        latest += 1;
                        assert_eq!(outcome, CommitOutcome::Committed(Revision(latest)));
                        for (k, v) in writes {
                            match v {
                                Some(v) => {
                                    model.insert(k, Versioned { revision: Revision(latest), value: one(v) });
                                }
                                None => {
                                    model.remove(&k);
                                }
                            }
                        }
                    }
                }
            }
            Step::Scan { start, end, seek } => {
                let from = seek.unwrap_or(start).max(start);
                let expected: Vec<_> =
                    model.iter().filter(|(k, _)| (from..end).contains(*k)).map(|(k, v)| (one(*k), v.clone())).collect();
                let snapshot = store.snapshot().await.unwrap();
                let mut cursor = snapshot.scan(&[start], &[end]).unwrap();
                if let Some(seek) = seek {
                    cursor.seek(&[seek]).unwrap();
                }
                let found: Vec<_> = std::iter::from_fn(|| cursor.next().unwrap()).collect();
                assert_eq!(found, expected);
            }
            Step::Reopen => {
                drop(store);
                instance.reopen().await;
            }
        }
    }
    let store = instance.store();
    for k in 0..8u8 {
        assert_eq!(store.get(&[k]).await.unwrap().as_ref(), model.get(&k));
    }
}

fn one(byte: u8) -> Bytes {
    Bytes::copy_from_slice(&[byte])
}

async fn everything_survives_reopening(factory: &dyn Factory) {
    let mut instance = factory.fresh().await;
    let done = commit(vec![], vec![put("a", "1"), put("b", "1")]);
    {
        let store = instance.store();
        store.commit(done.clone()).await.unwrap();
        committed(&*store, vec![], vec![remove("b"), put("c", "2")]).await;
    }
    instance.reopen().await;
    let store = instance.store();
    assert_eq!(store.latest_revision().await.unwrap(), Revision(2));
    assert_eq!(value(&*store, "a").await.unwrap(), Versioned { revision: Revision(1), value: key("1") });
    assert_eq!(value(&*store, "b").await, None);
    assert_eq!(value(&*store, "c").await.unwrap().revision, Revision(2));
    assert_eq!(store.outcome(done.id).await.unwrap(), Some(Revision(1)));
    assert_eq!(store.commit(done).await.unwrap(), CommitOutcome::Committed(Revision(1)));
    assert_eq!(committed(&*store, vec![expect("c", Some(Revision(2)))], vec![]).await, Revision(3));
}
