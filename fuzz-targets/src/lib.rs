//! What the fuzzers run: one plain function over bytes for each parser that reads what strangers send.
//!
//! A target asserts what its parser promises (round trips, bounds, that a cut of the input changes nothing, that what is
//! accepted was allowed), and compares with a second, simpler implementation where there is one. That it does not panic
//! is the least of it. `fuzz/` hands these functions to libFuzzer; `tests/short.rs` runs them on stable Rust over the
//! seeds and over mutations of them, in every test run. This crate must never be a dependency of anything that serves.

pub mod address;
pub mod chunked;
pub mod form;
pub mod lifecycle;
pub mod policy;
pub mod random;
pub mod range;
pub mod signature;
pub mod wire;
pub mod xml;

/// A parser under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: the folder of its seeds and the name of its fuzzer.
    pub name: &'static str,
    /// Panics if an assertion fails for these bytes.
    pub run: fn(&[u8]),
    /// Words that mean something to the parser, for mutations that random bytes would hardly find.
    pub words: &'static [&'static str],
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "signature", run: signature::run, words: signature::WORDS },
    Target { name: "chunked", run: chunked::run, words: chunked::WORDS },
    Target { name: "xml", run: xml::run, words: xml::WORDS },
    Target { name: "range", run: range::run, words: range::WORDS },
    Target { name: "address", run: address::run, words: address::WORDS },
    Target { name: "form", run: form::run, words: form::WORDS },
    Target { name: "lifecycle", run: lifecycle::run, words: lifecycle::WORDS },
    Target { name: "policy", run: policy::run, words: policy::WORDS },
    Target { name: "wire", run: wire::run, words: wire::WORDS },
];
