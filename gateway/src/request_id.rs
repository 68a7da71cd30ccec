//! The pair of ids by which a client and an operator talk about one request.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The id of one request: what `x-amz-request-id`, `x-amz-id-2`, error bodies, logs and the ledger call it.
///
/// Its text is 16 upper-case hexadecimal digits. Ids are unique within a process and, starting from a random point,
/// very unlikely to repeat across processes; they are names, not secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    /// The next request's id.
    pub fn next() -> Self {
        static NEXT: OnceLock<AtomicU64> = OnceLock::new();
        let next = NEXT.get_or_init(|| AtomicU64::new(random_u64()));
        // Multiplying by an odd number is a bijection of u64: consecutive ids look unlike each other in a log, as
        // AWS's do, and never collide.
        Self(next.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The id with this number, for tests and for replaying a log.
    pub const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// The text of `x-amz-id-2` and `<HostId>`: which process answered, in base64. The same for all its requests.
    pub fn host_id(&self) -> &'static str {
        static HOST: OnceLock<String> = OnceLock::new();
        HOST.get_or_init(|| {
            use base64::Engine as _;
            let mut bytes = [0; 24];
            for part in bytes.chunks_exact_mut(8) {
                part.copy_from_slice(&random_u64().to_be_bytes());
            }
            base64::engine::general_purpose::STANDARD.encode(bytes)
        })
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

/// A random number for naming; falls back to the clock, because a request id need not be unpredictable.
fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => valv_types::TimestampMicros::now().0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_sixteen_upper_case_digits_and_differ() {
        let (a, b) = (RequestId::next(), RequestId::next());
        assert_ne!(a, b);
        let text = a.to_string();
        assert_eq!(text.len(), 16);
        assert!(text.bytes().all(|c| c.is_ascii_digit() || (b'A'..=b'F').contains(&c)), "{text}");
        assert_eq!(RequestId::from_u64(0xab).to_string(), "00000000000000AB");
        assert_eq!(a.host_id(), b.host_id());
        assert_eq!(a.host_id().len(), 32);
    }
}
