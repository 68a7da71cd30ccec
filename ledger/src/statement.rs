//! Signed statements: what Valv states to outsiders beside its ledgers, such as receipts, certificates and reports.
//!
//! A statement is a JSON object, and what is signed is its canonical text ([`canonical`]): so a file may be laid out anew
//! on its way and still verifies, while nothing that a reader sees can be changed. A file of a statement may hold lines
//! before it, one for each object or month that it speaks of; the statement then says how many they are and their
//! SHA-256, and so speaks of millions of objects without having to be held in memory.

use crate::head::{PUBLIC_KEY_LEN_BYTES, key_name};
use crate::tree::Hash;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::io::BufRead;
use valv_types::{ProjectId, TimestampMicros};

/// The name of this layout, inside each statement.
pub const STATEMENT_FORMAT: &str = "valv-statement-1";
/// Longest line of a file: facts are some KiB, and a line before them holds an object's name and checksums.
const LINE_LEN_BYTES_MAX: usize = 1 << 20;
/// The field of the facts that says which lines stand before a statement.
const LINES_FIELD: &str = "lines";

/// What a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatementKind {
    /// These objects came in, with these lengths and checksums.
    IngestReceipt,
    /// The data went from one controller to another.
    TransferReceipt,
    /// The data was moved to other hardware or coded anew.
    MigrationReceipt,
    /// Damaged or missing shards were rebuilt.
    RepairReceipt,
    /// Data or a ledger was exported.
    ExportReceipt,
    /// Data was disposed of at the end of its retention.
    DisposalReceipt,
    /// Keys were destroyed.
    ShredCertificate,
    /// What was verified, when, and what is missing.
    FixityReport,
    /// What a project held, asked and was sent.
    UsageReport,
    /// The checksums of objects.
    ChecksumManifest,
}

impl StatementKind {
    /// Its name in statements.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IngestReceipt => "ingest receipt",
            Self::TransferReceipt => "transfer receipt",
            Self::MigrationReceipt => "migration receipt",
            Self::RepairReceipt => "repair receipt",
            Self::ExportReceipt => "export receipt",
            Self::DisposalReceipt => "disposal receipt",
            Self::ShredCertificate => "shredding certificate",
            Self::FixityReport => "fixity report",
            Self::UsageReport => "usage report",
            Self::ChecksumManifest => "checksum manifest",
        }
    }
}

/// What is stated.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// What it is.
    pub kind: StatementKind,
    /// Of which project.
    pub project: ProjectId,
    /// The project's name then.
    pub project_name: String,
    /// The project's ledger then: number of events, and root. What the statement speaks of is in it.
    pub ledger: (u64, Hash),
    /// When it was made, in cluster time.
    pub time: TimestampMicros,
    /// What it says: integers, strings, booleans, nulls, arrays and objects.
    pub facts: Value,
}

impl Statement {
    /// The statement as the object that is signed.
    pub fn to_json(&self) -> Value {
        json!({
            "format": STATEMENT_FORMAT,
            "kind": self.kind.name(),
            "project": self.project.to_string(),
            "project_name": self.project_name,
            "ledger": {"size": self.ledger.0, "root": hex::encode(self.ledger.1)},
            "time": rfc3339(self.time),
            "time_micros": self.time.0,
            "facts": self.facts,
        })
    }
}

/// A time for people and for statements: RFC 3339 in UTC, in whole seconds (rounded down).
pub fn rfc3339(time: TimestampMicros) -> String {
    use time::format_description::well_known::Rfc3339;
    let secs = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let text = time::OffsetDateTime::from_unix_timestamp(secs).ok().and_then(|time| time.format(&Rfc3339).ok());
    // Beyond the year 9999, where the format ends.
    text.unwrap_or_else(|| format!("{secs} s after 1970"))
}

/// A statement with its signature, as it travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedStatement {
    /// What is stated.
    pub statement: Value,
    /// [`key_name`] of the key that signed it.
    pub key: String,
    /// Ed25519 over [`signed_text`], hexadecimal.
    pub signature: String,
}

/// Why a statement can't be trusted.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// It could not be read.
    #[error("reading: {0}")]
    Read(#[from] std::io::Error),
    /// There is no statement at the end of the file.
    #[error("there is no signed statement at its end")]
    CutOff,
    /// It holds what has no canonical text.
    #[error("it holds a number that is no integer between -2^63 and 2^64: such have no canonical text")]
    Number,
    /// Its form is another.
    #[error("{what}")]
    Form {
        /// What is wrong.
        what: &'static str,
    },
    /// Another key signed it.
    #[error("it was signed by key {found}, not by {expected}")]
    OtherKey {
        /// The key that it names.
        found: String,
        /// The key that was given.
        expected: String,
    },
    /// The signature is not that key's over this statement.
    #[error("the signature is wrong: the statement was changed, or is not of this key")]
    Signature,
    /// The lines before the statement are not those that it speaks of.
    #[error(
        "the lines before the statement are not those that it was made over: something was edited, added or removed"
    )]
    OtherLines,
}

/// The canonical text of a JSON value: no space; object members in the order of their names' UTF-8 bytes; integers in
/// decimal; strings escaped as RFC 8259 demands and no further (`\"`, `\\`, `\b`, `\f`, `\n`, `\r`, `\t`, other control
/// characters as `\u00xx`). It is that of RFC 8785 wherever that differs in nothing: other numbers have none here.
///
/// # Errors
/// [`StatementError::Number`].
pub fn canonical(value: &Value) -> Result<String, StatementError> {
    let mut out = String::new();
    write_canonical(value, &mut out)?;
    Ok(out)
}

fn write_canonical(value: &Value, out: &mut String) -> Result<(), StatementError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(is_true) => out.push_str(if *is_true { "true" } else { "false" }),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => out.push_str(&number.to_string()),
            (None, Some(number)) => out.push_str(&number.to_string()),
            (None, None) => return Err(StatementError::Number),
        },
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (index, (name, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(name, out);
                out.push(':');
                write_canonical(item, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
}

/// The text that a signature covers: a line that no other document of Valv begins with, and the canonical text.
///
/// # Errors
/// [`StatementError::Number`].
pub fn signed_text(statement: &Value) -> Result<String, StatementError> {
    Ok(format!("valv statement 1\n{}\n", canonical(statement)?))
}

impl SignedStatement {
    /// Writes a statement down with the signature that `sign` makes over its text.
    ///
    /// # Errors
    /// [`StatementError::Number`].
    pub fn new(
        statement: &Statement,
        public_key: &[u8; PUBLIC_KEY_LEN_BYTES],
        sign: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<Self, StatementError> {
        let statement = statement.to_json();
        let signature = sign(signed_text(&statement)?.as_bytes());
        Ok(Self { statement, key: key_name(public_key), signature: hex::encode(signature) })
    }

    /// The statement as the last line of its file.
    pub fn to_line(&self) -> String {
        // Strings and integers only: nothing here can fail to become JSON.
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Checks signature and form. What lines stand before it is not checked here: see [`verify`].
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn verify(&self, public_key: &[u8; PUBLIC_KEY_LEN_BYTES]) -> Result<&Map<String, Value>, StatementError> {
        let expected = key_name(public_key);
        if self.key != expected {
            return Err(StatementError::OtherKey { found: self.key.clone(), expected });
        }
        let text = signed_text(&self.statement)?;
        let signature = hex::decode(&self.signature).map_err(|_| StatementError::Signature)?;
        UnparsedPublicKey::new(&ED25519, public_key)
            .verify(text.as_bytes(), &signature)
            .map_err(|_| StatementError::Signature)?;
        let members = self.statement.as_object().ok_or(StatementError::Form { what: "it is no object" })?;
        if members.get("format").and_then(Value::as_str) != Some(STATEMENT_FORMAT) {
            return Err(StatementError::Form { what: "its format is not known here" });
        }
        Ok(members)
    }
}

/// The lines that stand before a statement, as they are written: their number and hash become one of its facts.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    hash: Sha256,
    count: u64,
}

impl Lines {
    /// Takes up a line, with its line feed.
    pub fn push(&mut self, line: &[u8]) {
        self.hash.update(line);
        self.count += 1;
    }

    /// Puts what was taken up into a statement's facts.
    pub fn put_into(self, facts: &mut Map<String, Value>) {
        let sha256 = hex::encode(self.hash.finalize());
        facts.insert(LINES_FIELD.to_owned(), json!({"count": self.count, "sha256": sha256}));
    }
}

/// A file that holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The statement.
    pub statement: Map<String, Value>,
    /// Lines before it.
    pub lines: u64,
}

/// Verifies a file: the signature of the statement in its last line, and the lines before it, if it speaks of any. Memory
/// is bounded by a line.
///
/// # Errors
/// The first thing that does not hold.
pub fn verify(mut input: impl BufRead, public_key: &[u8; PUBLIC_KEY_LEN_BYTES]) -> Result<Verified, StatementError> {
    use std::io::Read as _;
    let (mut lines, mut last, mut line) = (Lines::default(), Vec::new(), Vec::new());
    loop {
        line.clear();
        let mut limited = (&mut input).take(LINE_LEN_BYTES_MAX as u64 + 1);
        if limited.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.len() > LINE_LEN_BYTES_MAX {
            return Err(StatementError::Form { what: "a line is too long" });
        }
        if !last.is_empty() {
            lines.push(&last);
        }
        std::mem::swap(&mut last, &mut line);
    }
    let signed: SignedStatement = serde_json::from_slice(&last).map_err(|_| StatementError::CutOff)?;
    let statement = signed.verify(public_key)?.clone();
    let count = lines.count;
    let mut found = Map::new();
    lines.put_into(&mut found);
    let told = statement.get("facts").and_then(|facts| facts.get(LINES_FIELD));
    // A statement that speaks of no lines has none before it.
    if told.is_some() && told != found.get(LINES_FIELD) || told.is_none() && count > 0 {
        return Err(StatementError::OtherLines);
    }
    Ok(Verified { statement, lines: count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    fn key(seed: u8) -> (Ed25519KeyPair, [u8; 32]) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("seed");
        let public = pair.public_key().as_ref().try_into().expect("32 bytes");
        (pair, public)
    }

    fn signed(facts: Value) -> SignedStatement {
        let (pair, public) = key(1);
        let statement = Statement {
            kind: StatementKind::IngestReceipt,
            project: ProjectId::from_bytes([4; 16]),
            project_name: "cohort \u{e5}".to_owned(),
            ledger: (7, [9; 32]),
            time: TimestampMicros(1_700_000_000_000_001),
            facts,
        };
        SignedStatement::new(&statement, &public, |text| pair.sign(text).as_ref().to_vec()).expect("canonical")
    }

    #[test]
    fn the_canonical_text_is_what_the_documentation_says() {
        let value = json!({"b": [1, -2, true, null], "a": "\u{1}\"\\\n\u{7f}\u{e5}/", "": {"z": u64::MAX}});
        let text = canonical(&value).expect("integers");
        assert_eq!(
            text,
            "{\"\":{\"z\":18446744073709551615},\"a\":\"\\u0001\\\"\\\\\\n\u{7f}\u{e5}/\",\"b\":[1,-2,true,null]}"
        );
        assert!(matches!(canonical(&json!([1.5])), Err(StatementError::Number)));
    }

    proptest! {
        #[test]
        fn canonical_text_is_json_of_the_same_value(names in prop::collection::vec(".{0,6}", 0..6), number in any::<i64>()) {
            let members: Map<String, Value> = names.iter().map(|name| (name.clone(), json!([name, number]))).collect();
            let value = Value::Object(members);
            let text = canonical(&value).expect("integers");
            prop_assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
        }
    }

    #[test]
    fn a_statement_verifies_however_it_is_laid_out_and_not_once_it_was_changed() {
        let signed = signed(json!({"objects": 3}));
        let public = key(1).1;
        let text = signed.to_line();
        assert_eq!(verify(text.as_bytes(), &public).expect("holds").lines, 0);
        let other_layout = text.replace(':', ": ");
        assert!(verify(other_layout.as_bytes(), &public).is_err(), "a time in it has colons");
        let spaced = text.replace("\"objects\":3", "\"objects\" :  3");
        assert!(verify(spaced.as_bytes(), &public).is_ok());
        for (from, to) in
            [("\"objects\":3", "\"objects\":4"), ("\"objects\":3", "\"objects\":3,\"more\":1"), ("ingest", "export")]
        {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            assert!(matches!(verify(changed.as_bytes(), &public), Err(StatementError::Signature)), "{to}");
        }
        assert!(matches!(verify(text.as_bytes(), &key(2).1), Err(StatementError::OtherKey { .. })));
        assert!(matches!(verify("".as_bytes(), &public), Err(StatementError::CutOff)));
        assert!(matches!(verify(format!("x\n{text}").as_bytes(), &public), Err(StatementError::OtherLines)));
    }

    #[test]
    fn lines_before_a_statement_are_bound_to_it() {
        let mut lines = Lines::default();
        lines.push(b"one\n");
        lines.push(b"two\n");
        let mut facts = Map::new();
        lines.put_into(&mut facts);
        let last = signed(Value::Object(facts)).to_line();
        let check =
            |before: &str| verify(format!("{before}{last}").as_bytes(), &key(1).1).map(|verified| verified.lines);
        assert_eq!(check("one\ntwo\n").expect("holds"), 2);
        for before in ["", "one\n", "two\none\n", "one\ntwo\nthree\n", "one\ntwO\n", "one two\n"] {
            assert!(matches!(check(before), Err(StatementError::OtherLines)), "{before:?}");
        }
        assert!(matches!(verify("one\ntwo\n".as_bytes(), &key(1).1), Err(StatementError::CutOff)));
    }
}
