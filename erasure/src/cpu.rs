//! Whether this processor can run what the coding library was compiled to.

/// The processor lacks instructions that the Reed-Solomon code was compiled for. Starting would end in SIGILL at the
/// first chunk, so a process refuses to start instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this processor lacks {}: erasure coding is compiled for x86-64-v3 (Intel Haswell, 2013; AMD Excavator, 2015)",
    .missing.join(", ")
)]
pub struct CpuUnsupported {
    /// The instruction sets that are missing, as the kernel and compilers name them.
    pub missing: Vec<&'static str>,
}

/// Checks that every instruction set is there that `reed-solomon-erasure`'s C code may use: its build script passes
/// `-march=haswell`. Call it once at start. On other architectures the C code is compiled for the baseline.
pub fn check_cpu() -> Result<(), CpuUnsupported> {
    let missing = missing();
    if missing.is_empty() { Ok(()) } else { Err(CpuUnsupported { missing }) }
}

#[cfg(target_arch = "x86_64")]
fn missing() -> Vec<&'static str> {
    macro_rules! lacking {
        ($($name:tt),*) => {
            [$(($name, std::is_x86_feature_detected!($name))),*]
        };
    }
    // GCC's list for haswell, less what only kernels or cryptography use (FSGSBASE, RDRND, AES, PCLMUL, HLE) and what no
    // compiler emits by itself.
    let wanted = lacking![
        "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "avx", "avx2", "bmi1", "bmi2", "fma", "f16c", "lzcnt", "movbe"
    ];
    wanted.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn missing() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_is_missing() {
        let text = CpuUnsupported { missing: vec!["avx2", "fma"] }.to_string();
        assert!(text.starts_with("this processor lacks avx2, fma: "), "{text}");
    }

    #[test]
    fn the_machine_that_runs_the_other_tests_is_supported() {
        assert_eq!(check_cpu(), Ok(()));
    }
}
