//! libFuzzer over bucket policies and their evaluation: what has to hold is in `fuzz-targets/`.

#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| valv_fuzz_targets::policy::run(data));
