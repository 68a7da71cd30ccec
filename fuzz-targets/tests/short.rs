//! Every fuzz target over its seeds and over mutations of them, on stable Rust.
//!
//! `VALV_FUZZ_RUNS` (mutations a target, 20,000 unless told) makes it longer, `VALV_FUZZ_SEED` makes it another one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use valv_fuzz_targets::random::Random;
use valv_fuzz_targets::{TARGETS, Target};

/// Enough for every kind of mutation to meet every seed some hundred times, in two or three seconds altogether.
const RUNS: u64 = 20_000;
/// Inputs grow no further: longer ones find nothing new and take their time.
const INPUT_LEN_BYTES_MAX: usize = 16 << 10;

fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
        Err(_) => otherwise,
    }
}

fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus-seeds").join(name);
    let read = |folder: &PathBuf| std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = read(&folder).map(|entry| entry.expect("entry").path()).collect();
    // The order of a folder is not the same everywhere, and a seed must replay a run.
    paths.sort();
    assert!(!paths.is_empty(), "{name} has no seeds");
    paths.into_iter().map(|path| (path.clone(), std::fs::read(&path).expect("seed"))).collect()
}

fn mutate(random: &mut Random, input: &mut Vec<u8>, others: &[(PathBuf, Vec<u8>)], words: &[&str]) {
    let at = random.below(input.len() + 1);
    let end = at + random.below((input.len() - at).min(64) + 1);
    match random.below(9) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = *random.pick(b"\0\x01\x7f\x80\xff\r\n \"%+/;<>{}09aA"),
        2 => drop(input.drain(at..end)),
        3 => {
            let piece = input[at..end].to_vec();
            let to = random.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        4 => input.truncate(at),
        5 => {
            let other = &random.pick(others).1;
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        6 => {
            // Replaces a number by one at an edge.
            if let Some(digit) = input.iter().position(u8::is_ascii_digit) {
                let after = input[digit..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                let edge = *random.pick(&[
                    "0",
                    "1",
                    "-1",
                    "63",
                    "64",
                    "1024",
                    "1025",
                    "10000",
                    "10001",
                    "18446744073709551616",
                ]);
                input.splice(digit..digit + after, edge.bytes());
            }
        }
        _ => drop(input.splice(at..at, random.pick(words).bytes())),
    }
    input.truncate(INPUT_LEN_BYTES_MAX);
}

fn try_one(target: &Target, input: &[u8], how: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        panic!("{} fails on {how}: {} (hex)\n{}", target.name, hex::encode(input), input.escape_ascii());
    }
}

fn short_run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    let seeds = seeds(name);
    for (path, seed) in &seeds {
        try_one(target, seed, &path.display().to_string());
    }
    let (runs, first) = (number("VALV_FUZZ_RUNS", RUNS), number("VALV_FUZZ_SEED", 0x5eed));
    println!("{name}: {runs} mutations from VALV_FUZZ_SEED={first}");
    let mut random = Random::new(first);
    for run in 0..runs {
        let mut input = random.pick(&seeds).1.clone();
        for _ in 0..1 + random.below(4) {
            mutate(&mut random, &mut input, &seeds, target.words);
        }
        try_one(target, &input, &format!("mutation {run} of VALV_FUZZ_SEED={first}"));
    }
}

macro_rules! short_runs {
    ($($name:ident),* $(,)?) => {
        $( #[test] fn $name() { short_run(stringify!($name)); } )*

        #[test]
        fn every_target_has_its_run_and_its_fuzzer() {
            let run = [$( stringify!($name) ),*];
            for target in TARGETS {
                assert!(run.contains(&target.name), "{} has no run here", target.name);
                let fuzzer = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                    .join(format!("../fuzz/fuzz_targets/{}.rs", target.name));
                assert!(fuzzer.exists(), "{} has no fuzzer", fuzzer.display());
            }
        }
    };
}

short_runs!(signature, chunked, xml, range, address, form, lifecycle, policy, wire);
