//! Shamir's secret sharing (Shamir, CACM 22(11), 1979) of a 32-byte key over GF(256), the field of AES (FIPS 197, 4.2), as
//! SLIP-39 and HashiCorp Vault use it: a polynomial for each byte, whose value at 0 is the byte, at `index` the share's.
//!
//! Fewer shares than the threshold tell nothing about the key, whatever computer asks. Field arithmetic takes the same time
//! for all values and uses no tables. The text of a share is specified in `docs/format-metadata.md`, "Shares".

use crate::kdf::KEY_LEN;
use crate::keys::KeyError;
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// Most shares of a key: more people than any safe has keepers, and an index fits a byte with room.
pub const SHARES_MAX: u8 = 64;
/// The first word of a share.
const WORD: &str = "valv-share-1";
const SET_LEN: usize = 8;
const CHECK_LEN: usize = 4;

/// Why shares were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Not the text of a share.
    #[error("this is not a share: it should look like valv-share-1-SET-THRESHOLD-INDEX-KEY-CHECK")]
    Malformed,
    /// A share that was mistyped or damaged.
    #[error("a character of this share is wrong: its checksum does not fit")]
    Checksum,
    /// The threshold or the number of shares can't be used.
    #[error("a threshold must be at least 2 and at most the number of shares, which is at most {SHARES_MAX}")]
    Counts,
    /// Shares of different sets, or of different thresholds.
    #[error("this share is of another set")]
    OtherSet,
    /// The same share twice.
    #[error("this share was given before")]
    Twice,
    /// Fewer shares than the threshold.
    #[error("more shares are needed")]
    TooFew,
}

/// Multiplies in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    for _ in 0..8 {
        product ^= a & (b & 1).wrapping_neg();
        let carry = (a >> 7).wrapping_neg();
        a = (a << 1) ^ (0x1b & carry);
        b >>= 1;
    }
    product
}

/// The multiplicative inverse: the 254th power (of 0: 0).
fn inverse(a: u8) -> u8 {
    let mut power = a;
    let mut result = 1;
    // 254 = 2 + 4 + ... + 128.
    for _ in 0..7 {
        power = multiply(power, power);
        result = multiply(result, power);
    }
    result
}

/// Which set of shares: random, made with the set.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShareSet(pub [u8; SET_LEN]);

impl fmt::Display for ShareSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ShareSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShareSet({self})")
    }
}

/// One share. Zeroised when dropped; its text is had by [`Share::to_text`] only.
#[derive(Clone)]
pub struct Share {
    set: ShareSet,
    threshold: u8,
    index: u8,
    value: Zeroizing<[u8; KEY_LEN]>,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({}, {} of a threshold of {})", self.set, self.index, self.threshold)
    }
}

impl Share {
    /// Which set it is of.
    pub fn set(&self) -> ShareSet {
        self.set
    }

    /// How many shares of the set are needed.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// Its number in the set, from 1.
    pub fn index(&self) -> u8 {
        self.index
    }

    fn body(&self) -> Zeroizing<String> {
        let mut value = Zeroizing::new(String::with_capacity(2 * KEY_LEN));
        for byte in self.value.iter() {
            for digit in [byte >> 4, byte & 15] {
                value.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        Zeroizing::new(format!("{WORD}-{}-{}-{}-{}", self.set, self.threshold, self.index, value.as_str()))
    }

    /// The share as its keeper keeps it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let body = self.body();
        let check = check(body.as_bytes());
        let mut text = Zeroizing::new(String::with_capacity(body.len() + 1 + 2 * CHECK_LEN));
        text.push_str(&body);
        text.push('-');
        for byte in check {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }

    /// Reads what [`Self::to_text`] wrote; space around it and capitals do no harm.
    ///
    /// # Errors
    /// [`ShareError::Malformed`], [`ShareError::Checksum`].
    pub fn from_text(text: &str) -> Result<Self, ShareError> {
        let text = Zeroizing::new(text.trim().to_ascii_lowercase());
        let (body, given) = text.rsplit_once('-').ok_or(ShareError::Malformed)?;
        let rest = body.strip_prefix(WORD).and_then(|rest| rest.strip_prefix('-')).ok_or(ShareError::Malformed)?;
        let words: Vec<&str> = rest.split('-').collect();
        let &[set, threshold, index, value] = words.as_slice() else { return Err(ShareError::Malformed) };
        let given: [u8; CHECK_LEN] = from_hex(given).ok_or(ShareError::Malformed)?;
        if given != check(body.as_bytes()) {
            return Err(ShareError::Checksum);
        }
        let number = |text: &str| text.parse::<u8>().ok().filter(|number| (1..=SHARES_MAX).contains(number));
        Ok(Self {
            set: ShareSet(from_hex(set).ok_or(ShareError::Malformed)?),
            threshold: number(threshold).ok_or(ShareError::Malformed)?,
            index: number(index).ok_or(ShareError::Malformed)?,
            value: Zeroizing::new(from_hex(value).ok_or(ShareError::Malformed)?),
        })
    }
}

fn check(body: &[u8]) -> [u8; CHECK_LEN] {
    let mut out = [0; CHECK_LEN];
    blake3::Hasher::new().update(b"valv share check v1\0").update(body).finalize_xof().fill(&mut out);
    out
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(out)
}

/// Splits `secret` into `count` shares, of which `threshold` give it back.
pub(crate) fn split(secret: &[u8; KEY_LEN], threshold: u8, count: u8) -> Result<Vec<Share>, SplitError> {
    if threshold < 2 || threshold > count || count > SHARES_MAX {
        return Err(SplitError::Shares(ShareError::Counts));
    }
    let mut set = [0; SET_LEN];
    getrandom::fill(&mut set).map_err(|_| SplitError::Key(KeyError::NoRandomness))?;
    // Coefficients of x^1 .. x^(threshold-1), for all bytes.
    let mut coefficients: Vec<Zeroizing<[u8; KEY_LEN]>> = Vec::with_capacity(usize::from(threshold) - 1);
    for _ in 1..threshold {
        let mut random = Zeroizing::new([0; KEY_LEN]);
        getrandom::fill(random.as_mut_slice()).map_err(|_| SplitError::Key(KeyError::NoRandomness))?;
        coefficients.push(random);
    }
    let shares = (1..=count)
        .map(|index| Share { set: ShareSet(set), threshold, index, value: evaluate(secret, &coefficients, index) })
        .collect();
    Ok(shares)
}

/// Horner's rule at `x`.
fn evaluate(secret: &[u8; KEY_LEN], coefficients: &[Zeroizing<[u8; KEY_LEN]>], x: u8) -> Zeroizing<[u8; KEY_LEN]> {
    let mut value = Zeroizing::new([0; KEY_LEN]);
    for coefficient in coefficients.iter().rev() {
        for (byte, add) in value.iter_mut().zip(coefficient.iter()) {
            *byte = multiply(*byte ^ add, x);
        }
    }
    for (byte, add) in value.iter_mut().zip(secret) {
        *byte ^= add;
    }
    value
}

/// Why a key could not be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// The counts can't be used.
    #[error(transparent)]
    Shares(#[from] ShareError),
    /// No randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Puts a key together from shares of one set. With wrong values the result is another key: whatever it opens commits to
/// its key, and tells.
pub(crate) fn combine(shares: &[Share]) -> Result<Zeroizing<[u8; KEY_LEN]>, ShareError> {
    let Some(first) = shares.first() else { return Err(ShareError::TooFew) };
    for (at, share) in shares.iter().enumerate() {
        if (share.set, share.threshold) != (first.set, first.threshold) {
            return Err(ShareError::OtherSet);
        }
        if shares[..at].iter().any(|other| other.index == share.index) {
            return Err(ShareError::Twice);
        }
    }
    let Some(shares) = shares.get(..usize::from(first.threshold)) else { return Err(ShareError::TooFew) };
    let mut secret = Zeroizing::new([0; KEY_LEN]);
    for share in shares {
        // Lagrange's basis polynomial at 0; subtraction is exclusive or.
        let mut basis = 1;
        for other in shares.iter().filter(|other| other.index != share.index) {
            basis = multiply(basis, multiply(other.index, inverse(other.index ^ share.index)));
        }
        for (byte, value) in secret.iter_mut().zip(share.value.iter()) {
            let mut term = multiply(*value, basis);
            *byte ^= term;
            term.zeroize();
        }
    }
    Ok(secret)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_field_is_that_of_aes() {
        // FIPS 197, 4.2 and 4.2.1.
        assert_eq!(multiply(0x57, 0x83), 0xc1);
        assert_eq!(multiply(0x57, 0x13), 0xfe);
        for a in 1..=255 {
            assert_eq!(multiply(a, inverse(a)), 1, "{a}");
        }
        assert_eq!(inverse(0), 0);
    }

    #[test]
    fn shares_of_a_known_polynomial_are_what_they_are() {
        // 0x2a + 0x57 x: at 0x83, 0x2a ^ 0xc1; at 0x13, 0x2a ^ 0xfe.
        let (secret, line) = ([0x2a; KEY_LEN], vec![Zeroizing::new([0x57; KEY_LEN])]);
        let share = |index: u8| Share {
            set: ShareSet([1, 2, 3, 4, 5, 6, 7, 8]),
            threshold: 2,
            index,
            value: evaluate(&secret, &line, index),
        };
        assert_eq!(*share(0x83).value, [0xeb; KEY_LEN]);
        assert_eq!(*share(0x13).value, [0xd4; KEY_LEN]);
        assert_eq!(*combine(&[share(0x83), share(0x13)]).unwrap(), secret);
        let text = share(3).to_text();
        let value = "d3".repeat(KEY_LEN);
        assert!(text.starts_with(&format!("valv-share-1-0102030405060708-2-3-{value}-")), "{}", text.as_str());
    }

    #[test]
    fn counts_that_share_nothing_are_refused() {
        for (threshold, count) in [(0, 3), (1, 3), (4, 3), (2, SHARES_MAX + 1)] {
            assert_eq!(split(&[1; KEY_LEN], threshold, count).unwrap_err(), SplitError::Shares(ShareError::Counts));
        }
    }

    #[test]
    fn foreign_repeated_and_missing_shares_are_told() {
        let (mine, other) = (split(&[1; KEY_LEN], 3, 5).unwrap(), split(&[1; KEY_LEN], 3, 5).unwrap());
        let pick = |shares: [&Share; 3]| combine(&shares.map(Clone::clone));
        assert_eq!(pick([&mine[0], &mine[1], &other[2]]).unwrap_err(), ShareError::OtherSet);
        assert_eq!(pick([&mine[0], &mine[1], &mine[0]]).unwrap_err(), ShareError::Twice);
        assert_eq!(combine(&mine[..2]).unwrap_err(), ShareError::TooFew);
        assert_eq!(combine(&[]).unwrap_err(), ShareError::TooFew);
        assert!(!format!("{:?}", mine[0]).contains(&mine[0].to_text()[38..60]));
    }

    #[test]
    fn every_wrong_character_of_a_share_is_noticed() {
        let share = split(&[9; KEY_LEN], 2, 2).unwrap().remove(1);
        let text = share.to_text();
        let shouted = Zeroizing::new(format!("  {}\n", text.to_uppercase()));
        assert_eq!(*Share::from_text(&shouted).unwrap().value, *share.value);
        for at in 0..text.len() {
            let mut wrong = text.as_bytes().to_vec();
            wrong[at] = if wrong[at] == b'7' { b'1' } else { b'7' };
            assert!(Share::from_text(std::str::from_utf8(&wrong).unwrap()).is_err(), "character {at}");
            assert!(Share::from_text(&text[..at]).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_threshold_of_the_shares_give_the_key_back_and_fewer_give_another(
            secret in any::<[u8; KEY_LEN]>(),
            (threshold, count) in (2u8..6).prop_flat_map(|threshold| (Just(threshold), threshold..9)),
            order in any::<prop::sample::Index>(),
        ) {
            let mut shares = split(&secret, threshold, count).unwrap();
            let middle = order.index(shares.len());
            shares.rotate_left(middle);
            prop_assert_eq!(*combine(&shares).unwrap(), secret);
            let through_text: Vec<Share> =
                shares.iter().take(threshold.into()).map(|share| Share::from_text(&share.to_text()).unwrap()).collect();
            prop_assert_eq!(*combine(&through_text).unwrap(), secret);
            // Taken for a set of a lower threshold, what is there gives another key (chance 2^-256).
            if threshold > 2 {
                let mut few: Vec<Share> = shares.into_iter().take(usize::from(threshold) - 1).collect();
                few.iter_mut().for_each(|share| share.threshold = threshold - 1);
                prop_assert_ne!(*combine(&few).unwrap(), secret);
            }
        }
    }
}
