//! User metadata that is not ASCII, as S3 gives it back: RFC 2047 encoded words.
//!
//! "Working with object metadata" in AWS's user guide: values with other characters are encoded "to make them mail-safe
//! before returning", and its example shows how. Each byte that came is taken for a character of ISO-8859-1, as HTTP once
//! had it (so what a client sent as UTF-8 decodes to its bytes, each one a character), and the text becomes words of UTF-8,
//! in quoted-printable if most of it is ASCII and in base64 if not. A value of ASCII alone goes back as it came.

use crate::checksum;
use std::fmt::Write as _;

const PREFIX: &str = "=?UTF-8?";
const SUFFIX: &str = "?=";
/// Longest text of one word: RFC 2047, section 2, allows 75 characters with the `=?UTF-8?Q?` and `?=` around it.
const TEXT_LEN_MAX: usize = 75 - PREFIX.len() - 2 - SUFFIX.len();

/// How a word's bytes are written (RFC 2047, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// `B`: base64.
    Base64,
    /// `Q`: like quoted-printable.
    Quoted,
}

/// The value's text as it is sent to a client; `None` for ASCII, which is sent as it is.
pub(crate) fn encode(value: &[u8]) -> Option<String> {
    let others = value.iter().filter(|byte| !is_plain(**byte)).count();
    if others == 0 {
        return None;
    }
    let encoding = if value.len() - others > others { Encoding::Quoted } else { Encoding::Base64 };
    let characters: Vec<char> = value.iter().map(|&byte| byte as char).collect();
    let mut out = String::new();
    words(&characters, encoding, &mut out);
    Some(out)
}

/// ASCII that a header may hold as it is.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~')
}

/// Appends the characters as one word, or halves them until each half fits into one.
fn words(characters: &[char], encoding: Encoding, out: &mut String) {
    let text: String = characters.iter().collect();
    let (letter, encoded) = match encoding {
        Encoding::Base64 => ('B', checksum::encode(text.as_bytes())),
        Encoding::Quoted => ('Q', quoted(text.as_bytes())),
    };
    if encoded.len() > TEXT_LEN_MAX && characters.len() > 1 {
        let (first, rest) = characters.split_at(characters.len() / 2);
        words(first, encoding, out);
        return words(rest, encoding, out);
    }
    if !out.is_empty() {
        out.push(' ');
    }
    // Writing into a String does not fail.
    let _ = write!(out, "{PREFIX}{letter}?{encoded}{SUFFIX}");
}

fn quoted(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b' ' => out.push('_'),
            b'=' | b'_' | b'?' => {
                let _ = write!(out, "={byte:02X}");
            }
            b'!'..=b'~' => out.push(byte as char),
            _ => {
                let _ = write!(out, "={byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_as_awss_page_shows() {
        for (value, expected) in [
            (&b"AMAZONS3"[..], None),
            (b"a=?_b\tc", None),
            // The example of the page.
            ("ÄMÄZÕÑ S3".as_bytes(), Some("=?UTF-8?B?w4PChE3Dg8KEWsODwpXDg8KRIFMz?=")),
            // What S3 was seen to answer (minio/minio#21282).
            ("Miniö".as_bytes(), Some("=?UTF-8?Q?Mini=C3=83=C2=B6?=")),
            ("ö".as_bytes(), Some("=?UTF-8?B?w4PCtg==?=")),
            (b"Hello World\xe9", Some("=?UTF-8?Q?Hello_World=C3=A9?=")),
            (b"a=b?c_d\xe9", Some("=?UTF-8?Q?a=3Db=3Fc=5Fd=C3=A9?=")),
        ] {
            assert_eq!(encode(value).as_deref(), expected, "{value:?}");
        }
    }

    #[test]
    fn long_values_become_several_words_of_at_most_75_characters() {
        for value in [vec![0xe9; 500], [b"x".repeat(500), vec![0xff]].concat()] {
            let encoded = encode(&value).expect("not ASCII");
            let words: Vec<_> = encoded.split(' ').collect();
            assert!(words.len() > 1);
            for word in words {
                assert!(word.len() <= 75 && word.starts_with(PREFIX) && word.ends_with(SUFFIX), "{word}");
            }
        }
    }
}
