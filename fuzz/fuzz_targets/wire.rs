//! libFuzzer over requests of the metadata API: what has to hold is in `fuzz-targets/`.

#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| valv_fuzz_targets::wire::run(data));
