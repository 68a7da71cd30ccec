//! A ledger as a file: JSON Lines that anybody can read, and that verify with nothing but a public key.
//!
//! The first line names the project, the last one is a signed head, and between them stands one line for each event, in
//! order. What people read in a line is derived from its leaf again when it is verified, so a readable part that says
//! something else than the leaf is found out, too.

mod accesses;

use crate::access::{AccessNames, Accesses};
use crate::head::{HeadError, PUBLIC_KEY_LEN_BYTES, SignedHead};
use crate::leaf::{Leaf, Names, kind_name};
use crate::tree::{Frontier, leaf_hash};
use accesses::ReadableAccessNames;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::io::BufRead;
use valv_types::TimestampMicros;

/// The name of this layout, in the first line.
pub const EXPORT_FORMAT: &str = "valv-ledger-1";
/// Longest line. Other events, with a key of 1,024 bytes, base64 and all, are below 16 KiB; accesses are bounded by the
/// constants of [`crate::access`] to 256 KiB for themselves and 512 KiB for their names.
const LINE_LEN_BYTES_MAX: usize = 1 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "one line at a time; nearly all are events, the largest kind")]
#[serde(tag = "line", rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Ledger {
        format: String,
        project: String,
    },
    Event {
        index: u64,
        /// [`Leaf::to_bytes`], base64.
        leaf: String,
        event: ReadableEvent,
        /// `None` once they were erased, and for accesses.
        names: Option<ReadableNames>,
        /// The accesses that the leaf stands for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        accesses: Option<Accesses>,
        /// Their names; `None` once they were erased.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        access_names: Option<ReadableAccessNames>,
    },
    Head(SignedHead),
}

/// A leaf for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadableEvent {
    id: String,
    time_micros: u64,
    kind: String,
    user: Option<String>,
    bucket: Option<String>,
    version: Option<String>,
    bytes: u64,
}

impl ReadableEvent {
    fn of(leaf: &Leaf) -> Self {
        Self {
            id: leaf.event.to_string(),
            time_micros: leaf.time.0,
            kind: kind_name(leaf.kind).to_owned(),
            user: leaf.user.map(|id| id.to_string()),
            bucket: leaf.bucket.map(|id| id.to_string()),
            version: leaf.version.map(|id| id.to_string()),
            bytes: leaf.bytes,
        }
    }
}

/// An event's names for people. A subject that is not UTF-8 is hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadableNames {
    salt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_hex: Option<String>,
    access_key: Option<String>,
    request_id: String,
    remote: String,
    other_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl ReadableNames {
    fn of(names: &Names) -> Self {
        let subject = std::str::from_utf8(&names.subject).ok().map(str::to_owned);
        Self {
            salt: hex::encode(names.salt),
            subject_hex: subject.is_none().then(|| hex::encode(&names.subject)),
            subject,
            access_key: names.access_key.as_ref().map(|key| key.as_str().to_owned()),
            request_id: names.request_id.clone(),
            remote: names.remote.clone(),
            other_version: names.other_version.map(|id| id.to_string()),
            rule: names.rule.clone(),
            caller: names.caller.clone(),
            detail: names.detail.clone(),
        }
    }

    fn read(&self) -> Option<Names> {
        let subject = match (&self.subject, &self.subject_hex) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(text)) => hex::decode(text).ok()?,
            _ => return None,
        };
        let parse = |text: &Option<String>| text.as_ref().map(|text| text.parse()).transpose();
        Some(Names {
            salt: hex::decode(&self.salt).ok()?.try_into().ok()?,
            subject,
            access_key: self
                .access_key
                .as_ref()
                .map(|key| valv_types::AccessKeyId::new(key.as_str()))
                .transpose()
                .ok()?,
            request_id: self.request_id.clone(),
            remote: self.remote.clone(),
            other_version: parse(&self.other_version).ok()?,
            rule: self.rule.clone(),
            caller: self.caller.clone(),
            detail: self.detail.clone(),
        })
    }
}

fn to_json(line: &Line) -> String {
    // Strings and numbers only: nothing here can fail to become JSON.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

/// The first line of an export.
pub fn first_line(project: valv_types::ProjectId) -> String {
    to_json(&Line::Ledger { format: EXPORT_FORMAT.to_owned(), project: project.to_string() })
}

/// The line of an event.
pub fn event_line(index: u64, leaf: &Leaf, names: Option<&Names>) -> String {
    to_json(&Line::Event {
        index,
        leaf: STANDARD.encode(leaf.to_bytes()),
        event: ReadableEvent::of(leaf),
        names: names.map(ReadableNames::of),
        accesses: None,
        access_names: None,
    })
}

/// The line of accesses that were committed together.
pub fn accesses_line(index: u64, leaf: &Leaf, accesses: Accesses, names: Option<&AccessNames>) -> String {
    to_json(&Line::Event {
        index,
        leaf: STANDARD.encode(leaf.to_bytes()),
        event: ReadableEvent::of(leaf),
        names: None,
        accesses: Some(accesses),
        access_names: names.map(ReadableAccessNames::of),
    })
}

/// The last line.
pub fn last_line(head: SignedHead) -> String {
    to_json(&Line::Head(head))
}

/// Reads [`last_line`]. The signature is not checked here. `None` if it is no such line.
pub fn read_last_line(line: &str) -> Option<SignedHead> {
    match serde_json::from_str(line) {
        Ok(Line::Head(head)) => Some(head),
        _ => None,
    }
}

/// Why an export does not hold.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It could not be read.
    #[error("reading: {0}")]
    Read(#[from] std::io::Error),
    /// A line is not what should stand there.
    #[error("line {line}: {what}")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The file ends before its head.
    #[error("the export is cut off: there is no signed head at its end")]
    CutOff,
    /// The head's signature or form is wrong.
    #[error("the head: {0}")]
    Head(#[source] HeadError),
    /// The events are not those that were signed.
    #[error(
        "the events are not those that the head was signed over: something was edited, added, removed or reordered"
    )]
    OtherEvents,
    /// The earlier head is not of this ledger's past.
    #[error("the earlier head, of {size} events, is not of this ledger's past: the ledger was rewritten or forked")]
    Forked {
        /// The earlier head's size.
        size: u64,
    },
    /// The earlier head has more events than the export.
    #[error("the earlier head has {earlier} events and this export only {size}: events are missing at its end")]
    Truncated {
        /// In the earlier head.
        earlier: u64,
        /// In the export.
        size: u64,
    },
}

/// What a verified export holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whose ledger.
    pub project: valv_types::ProjectId,
    /// Number of events.
    pub events: u64,
    /// Events whose names were erased.
    pub without_names: u64,
    /// Number of accesses, which stand many to an event.
    pub accesses: u64,
    /// The tree's root.
    pub root: crate::Hash,
    /// When the head was signed.
    pub signed: TimestampMicros,
}

/// Verifies an export: its form, every readable part, every name, the order, the root and the signature; and that the
/// heads of `earlier` exports are of this ledger's past. Memory is bounded by a line.
///
/// # Errors
/// The first thing that does not hold.
pub fn verify(
    mut input: impl BufRead,
    public_key: &[u8; PUBLIC_KEY_LEN_BYTES],
    earlier: &[SignedHead],
) -> Result<Report, ExportError> {
    let mut earlier_heads = Vec::with_capacity(earlier.len());
    for head in earlier {
        earlier_heads.push(head.verify(public_key).map_err(ExportError::Head)?);
    }
    let mut lines = Lines { input: &mut input, number: 0, text: Vec::new() };
    let project = match lines.next()?.ok_or(ExportError::CutOff)? {
        Line::Ledger { format, project } if format == EXPORT_FORMAT => project,
        _ => return Err(lines.wrong("the export must begin with its format and project")),
    };
    let mut frontier = Frontier::default();
    let (mut without_names, mut access_count) = (0, 0u64);
    let head = loop {
        for head in earlier_heads.iter().filter(|head| head.size == frontier.size()) {
            if head.project.to_string() != project || head.root != frontier.root() {
                return Err(ExportError::Forked { size: head.size });
            }
        }
        match lines.next()?.ok_or(ExportError::CutOff)? {
            Line::Event { index, leaf, event, names, accesses, access_names } => {
                if index != frontier.size() {
                    return Err(lines.wrong("the events are not numbered one by one"));
                }
                let bytes = STANDARD.decode(&leaf).map_err(|_| lines.wrong("the leaf is not base64"))?;
                let leaf = Leaf::from_bytes(&bytes).ok_or_else(|| lines.wrong("the leaf can't be read"))?;
                if leaf.project.to_string() != project {
                    return Err(lines.wrong("the leaf is of another project"));
                }
                if event != ReadableEvent::of(&leaf) {
                    return Err(lines.wrong("the readable event differs from its leaf"));
                }
                match (leaf.entries_hash, names) {
                    (Some(hash), None) => {
                        let held = accesses::check(&leaf, &hash, accesses, access_names);
                        let held = held.map_err(|what| lines.wrong(what))?;
                        access_count = access_count.saturating_add(held.count);
                        without_names += u64::from(held.is_without_names);
                    }
                    (Some(_), Some(_)) => return Err(lines.wrong("accesses with the names of another event")),
                    (None, _) if accesses.is_some() || access_names.is_some() => {
                        return Err(lines.wrong("accesses in an event that has none"));
                    }
                    (None, None) => without_names += 1,
                    (None, Some(names)) => {
                        let names = names.read().ok_or_else(|| lines.wrong("the names can't be read"))?;
                        if names.hash() != leaf.names_hash {
                            return Err(lines.wrong("the names are not those that the leaf was made of"));
                        }
                    }
                }
                frontier.push(leaf_hash(&bytes));
            }
            Line::Head(head) => break head.verify(public_key).map_err(ExportError::Head)?,
            Line::Ledger { .. } => return Err(lines.wrong("a second beginning")),
        }
    };
    if lines.next()?.is_some() {
        return Err(lines.wrong("something follows the signed head"));
    }
    if head.project.to_string() != project || head.size != frontier.size() || head.root != frontier.root() {
        return Err(ExportError::OtherEvents);
    }
    if let Some(head) = earlier_heads.iter().find(|head| head.size > frontier.size()) {
        return Err(ExportError::Truncated { earlier: head.size, size: frontier.size() });
    }
    Ok(Report {
        project: head.project,
        events: head.size,
        without_names,
        accesses: access_count,
        root: head.root,
        signed: head.time,
    })
}

struct Lines<'a, R> {
    input: &'a mut R,
    number: u64,
    text: Vec<u8>,
}

impl<R: BufRead> Lines<'_, R> {
    fn next(&mut self) -> Result<Option<Line>, ExportError> {
        use std::io::Read as _;
        self.text.clear();
        self.number += 1;
        let mut limited = self.input.take(LINE_LEN_BYTES_MAX as u64 + 1);
        if limited.read_until(b'\n', &mut self.text)? == 0 {
            return Ok(None);
        }
        if self.text.len() > LINE_LEN_BYTES_MAX {
            return Err(self.wrong("the line is too long"));
        }
        serde_json::from_slice(&self.text).map(Some).map_err(|_| self.wrong("this is no line of a ledger"))
    }

    fn wrong(&self, what: &'static str) -> ExportError {
        ExportError::Line { line: self.number, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Access, AccessEnd, AccessName, AccessState, Client, Completion};
    use crate::head::Head;
    use crate::leaf::LEAF_FORMAT;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use valv_types::{AccessKeyId, BucketId, CommitId, OpeningId, ProjectId, RecorderId, UserId, VersionId};

    fn key(seed: u8) -> (Ed25519KeyPair, [u8; 32]) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("seed");
        let public = pair.public_key().as_ref().try_into().expect("32 bytes");
        (pair, public)
    }

    fn event(project: ProjectId, number: u8, subject: &[u8]) -> (Leaf, Names) {
        let names = Names {
            salt: [number; 16],
            subject: subject.to_vec(),
            access_key: Some(AccessKeyId::new("VALV0123456789ABCDEF").expect("key")),
            request_id: format!("request-{number}"),
            remote: "192.0.2.7".to_owned(),
            other_version: number.is_multiple_of(2).then(|| VersionId::from_bytes([number; 16])),
            rule: (number == 4).then(|| "rule".to_owned()),
            caller: None,
            detail: None,
        };
        let leaf = Leaf {
            format: LEAF_FORMAT,
            project,
            event: CommitId::from_bytes([number; 16]),
            time: TimestampMicros(1_700_000_000_000_000 + u64::from(number)),
            kind: 20,
            user: Some(UserId::from_bytes([9; 16])),
            bucket: Some(BucketId::from_bytes([8; 16])),
            version: None,
            bytes: 1 << number,
            names_hash: names.hash(),
            entries_hash: None,
        };
        (leaf, names)
    }

    fn signed(project: ProjectId, frontier: &Frontier, seed: u8) -> SignedHead {
        let (pair, public) = key(seed);
        let head = Head { project, size: frontier.size(), root: frontier.root(), time: TimestampMicros(7) };
        SignedHead::new(&head, &public, pair.sign(head.signed_text().as_bytes()).as_ref())
    }

    /// An export of `subjects`, line by line, and its head.
    fn export(project: ProjectId, subjects: &[&[u8]]) -> (Vec<String>, SignedHead) {
        let mut lines = vec![first_line(project)];
        let mut frontier = Frontier::default();
        for (number, subject) in (0u8..).zip(subjects) {
            let (leaf, names) = event(project, number, subject);
            lines.push(event_line(u64::from(number), &leaf, Some(&names)));
            frontier.push(leaf_hash(&leaf.to_bytes()));
        }
        let head = signed(project, &frontier, 1);
        lines.push(last_line(head.clone()));
        (lines, head)
    }

    fn check(lines: &[String], earlier: &[SignedHead]) -> Result<Report, String> {
        verify(lines.concat().as_bytes(), &key(1).1, earlier).map_err(|error| error.to_string())
    }

    const SUBJECTS: [&[u8]; 5] = [b"bucket", "sl\u{e4}tt/1".as_bytes(), b"\xff\x00", b"c", b"d"];

    #[test]
    fn a_whole_export_verifies_and_so_do_its_beginnings() {
        let project = ProjectId::from_bytes([4; 16]);
        let (lines, _) = export(project, &SUBJECTS);
        let (_, earlier) = export(project, &SUBJECTS[..3]);
        let report = check(&lines, std::slice::from_ref(&earlier)).expect("holds");
        assert_eq!((report.project, report.events, report.without_names), (project, 5, 0));
        assert_eq!(check(&export(project, &[]).0, &[]).expect("empty").events, 0);
    }

    #[test]
    fn names_may_be_erased_and_nothing_else() {
        let project = ProjectId::from_bytes([4; 16]);
        let (mut lines, _) = export(project, &SUBJECTS);
        lines[2] = event_line(1, &event(project, 1, SUBJECTS[1]).0, None);
        assert_eq!(check(&lines, &[]).expect("holds").without_names, 1);
    }

    fn accesses(project: ProjectId) -> (Leaf, Accesses, AccessNames) {
        let access = |number: u64, version: Option<u8>| Access {
            number,
            time: TimestampMicros(1_700_000_000_000_000),
            action: if version.is_some() { "GetObject" } else { "ListObjectsV2" }.to_owned(),
            user: Some(UserId::from_bytes([9; 16])),
            bucket: Some(BucketId::from_bytes([8; 16])),
            version: version.map(|byte| VersionId::from_bytes([byte; 16])),
            opening: version.map(|byte| OpeningId::from_bytes([byte; 16])),
            start: 0,
            end: 1_000 * u64::from(version.is_some()),
            bytes: 1_000,
            count: number,
            status: 200,
            state: if version.is_some() { AccessState::Begun } else { AccessState::Answered },
        };
        let completion = Completion { number: 1, count: 1, of_bytes: 1_000, sent_bytes: 10, end: AccessEnd::BrokenOff };
        let accesses = Accesses {
            recorder: RecorderId::from_bytes([6; 16]),
            accesses: vec![access(1, Some(7)), access(2, None)],
            completions: vec![completion],
        };
        let name = |subject: &[u8]| AccessName { client: 0, requests: vec!["R".to_owned()], subject: subject.to_vec() };
        let client = Client { access_key: None, remote: "192.0.2.7".to_owned() };
        let names = AccessNames { salt: [3; 16], clients: vec![client], accesses: vec![name(b""), name(b"\xff/")] };
        let leaf = Leaf {
            kind: 100,
            bytes: 2_000,
            user: None,
            bucket: None,
            names_hash: names.hash(),
            entries_hash: Some(Accesses::hash_of(&accesses.to_bytes())),
            ..event(project, 1, b"").0
        };
        (leaf, accesses, names)
    }

    /// An export of one event and one leaf of accesses, with what `edit` makes of the latter's line.
    fn export_of_accesses(edit: impl Fn(&Leaf, &Accesses, &AccessNames) -> String) -> Vec<String> {
        let project = ProjectId::from_bytes([4; 16]);
        let (mut lines, _) = export(project, &SUBJECTS[..1]);
        let (leaf, accesses, names) = accesses(project);
        let mut frontier = Frontier::default();
        for leaf in [&event(project, 0, SUBJECTS[0]).0, &leaf] {
            frontier.push(leaf_hash(&leaf.to_bytes()));
        }
        lines[2] = edit(&leaf, &accesses, &names);
        lines.push(last_line(signed(project, &frontier, 1)));
        lines
    }

    #[test]
    fn accesses_are_counted_and_their_names_may_be_erased() {
        let whole = |leaf: &Leaf, accesses: &Accesses, names: &AccessNames| {
            accesses_line(1, leaf, accesses.clone(), Some(names))
        };
        let report = check(&export_of_accesses(whole), &[]).expect("holds");
        assert_eq!((report.events, report.accesses, report.without_names), (2, 3, 0));
        let erased = export_of_accesses(|leaf, accesses, _| accesses_line(1, leaf, accesses.clone(), None));
        assert_eq!(check(&erased, &[]).expect("holds").without_names, 1);
    }

    #[test]
    fn every_edit_of_accesses_is_found() {
        let edit = |from: &'static str, to: &'static str| {
            let lines = export_of_accesses(|leaf, accesses, names| {
                let line = accesses_line(1, leaf, accesses.clone(), Some(names));
                let edited = line.replacen(from, to, 1);
                assert_ne!(edited, line, "{from}");
                edited
            });
            check(&lines, &[]).expect_err(from)
        };
        let opening = "07070707070707070707070707070707\",\"start\"";
        for (from, to, expected) in [
            ("\"count\":1", "\"count\":2", "line 3: the accesses are not those"),
            ("\"bytes\":1000", "\"bytes\":999", "line 3: the accesses are not those"),
            (opening, "08070707070707070707070707070707\",\"start\"", "line 3: the accesses are not those"),
            ("\"sent_bytes\":10", "\"sent_bytes\":9", "line 3: the accesses are not those"),
            ("broken-off", "whole", "line 3: the accesses are not those"),
            ("192.0.2.7", "192.0.2.8", "line 3: the names are not those"),
            ("ff2f", "fe2f", "line 3: the names are not those"),
            ("\"names\":null,\"accesses\"", "\"names\":null,\"accessed\"", "line 3: this is no line"),
        ] {
            let error = edit(from, to);
            assert!(error.starts_with(expected), "{from}: {error}");
        }
        let dropped = export_of_accesses(|leaf, _, _| event_line(1, leaf, None));
        assert!(check(&dropped, &[]).expect_err("dropped").contains("the accesses are missing"));
        let fewer = export_of_accesses(|leaf, accesses, names| {
            let fewer = Accesses { accesses: accesses.accesses[..1].to_vec(), ..accesses.clone() };
            accesses_line(1, leaf, fewer, Some(names))
        });
        assert!(check(&fewer, &[]).expect_err("fewer").contains("the accesses are not those"));
    }

    #[test]
    fn every_edit_is_found() {
        let project = ProjectId::from_bytes([4; 16]);
        let (whole, _) = export(project, &SUBJECTS);
        type Edit<'a> = (&'a str, &'a dyn Fn(&mut Vec<String>), &'a str);
        let edits: [Edit<'_>; 12] = [
            (
                "a name",
                &|lines| lines[1] = lines[1].replace(":\"bucket\"", ":\"bucked\""),
                "line 2: the names are not those",
            ),
            ("an address", &|lines| lines[1] = lines[1].replace("192.0.2.7", "192.0.2.8"), "line 2: the names are not"),
            (
                "a readable time",
                &|lines| lines[1] = lines[1].replace("000000,", "000001,"),
                "line 2: the readable event",
            ),
            (
                "a number of bytes",
                &|lines| lines[2] = lines[2].replace("\"bytes\":2", "\"bytes\":3"),
                "line 3: the readable",
            ),
            (
                "a leaf and its text",
                &|lines| {
                    let (leaf, names) = event(project, 1, b"other");
                    lines[2] = event_line(1, &leaf, Some(&names));
                },
                "the events are not those",
            ),
            ("two events swapped", &|lines| lines.swap(2, 3), "line 3: the events are not numbered"),
            (
                "two events swapped and renumbered",
                &|lines| {
                    for (place, number) in [(2, 2), (3, 1)] {
                        let (leaf, names) = event(project, number, SUBJECTS[usize::from(number)]);
                        lines[place] = event_line(place as u64 - 1, &leaf, Some(&names));
                    }
                },
                "the events are not those",
            ),
            ("an event removed", &|lines| drop(lines.remove(5)), "the events are not those"),
            ("cut off", &|lines| lines.truncate(4), "the export is cut off"),
            ("cut off within a line", &|lines| lines[6].truncate(40), "line 7: this is no line"),
            (
                "an older head",
                &|lines| lines[6] = last_line(export(project, &SUBJECTS[..3]).1),
                "the events are not those",
            ),
            ("more behind the head", &|lines| lines.push(lines[1].clone()), "line 8: something follows"),
        ];
        for (what, edit, expected) in edits {
            let mut lines = whole.clone();
            edit(&mut lines);
            assert_ne!(lines, whole, "{what}");
            let error = check(&lines, &[]).expect_err(what);
            assert!(error.starts_with(expected), "{what}: {error}");
        }
    }

    #[test]
    fn forks_truncations_and_other_keys_are_found() {
        let project = ProjectId::from_bytes([4; 16]);
        let (lines, head) = export(project, &SUBJECTS);
        let mut other = SUBJECTS;
        other[1] = b"rewritten";
        let (forked, _) = export(project, &other);
        let (_, earlier) = export(project, &SUBJECTS[..3]);
        let error = check(&forked, &[earlier]).expect_err("forked");
        assert!(error.starts_with("the earlier head, of 3 events, is not"), "{error}");
        let (shorter, _) = export(project, &SUBJECTS[..3]);
        let error = check(&shorter, &[head]).expect_err("truncated");
        assert!(error.starts_with("the earlier head has 5 events and this export only 3"), "{error}");
        let error = verify(lines.concat().as_bytes(), &key(2).1, &[]).expect_err("another key").to_string();
        assert!(error.contains("it was signed by key"), "{error}");
        let (of_another, _) = export(ProjectId::from_bytes([5; 16]), &SUBJECTS);
        let mixed = [&of_another[..6], &lines[6..]].concat();
        assert!(check(&mixed, &[]).is_err());
    }

    #[test]
    fn the_bytes_of_a_leaf_stay_what_they_are() {
        let (leaf, names) = event(ProjectId::from_bytes([4; 16]), 3, b"k");
        assert_eq!(
            hex::encode(leaf.to_bytes()),
            "8a01500404040404040404040404040404040450030303030303030303030303030303031b00060a24181e4003145009090909\
             0909090909090909090909095008080808080808080808080808080808f6085820387e2fc6bd57f7317758aaa0c3dbe1c583abb\
             2d987425f0a841c3acdd2cd5e03"
        );
        assert_eq!(Leaf::from_bytes(&leaf.to_bytes()), Some(leaf.clone()));
        assert_eq!(Leaf::from_bytes(&[leaf.to_bytes(), vec![0]].concat()), None, "one event has one leaf");
        assert_eq!(leaf.names_hash, names.hash());
    }
}
