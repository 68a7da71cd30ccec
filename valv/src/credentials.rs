//! Access keys: those that Valv makes itself, and the one place that judges those that people choose, whether they come
//! from the environment, from the configuration file or from `valv user`.

use base64::Engine;
use valv_metadata_api::{Secret, TOKEN_SECRET_LEN_BYTES};
use valv_types::{AccessKeyId, IdError, TokenId};
use zeroize::Zeroizing;

/// A shorter secret could be guessed from the signatures that it makes.
pub(crate) const SECRET_LEN_BYTES_MIN: usize = 8;
/// No longer secret adds anything: HMAC-SHA256 hashes keys of more than 64 bytes.
pub(crate) const SECRET_LEN_BYTES_MAX: usize = 128;

/// An access key that can't be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    /// Its public half has another form.
    #[error("an access key id must have 3 to 128 letters, digits, '_', '-' or '.'")]
    Id(#[source] IdError),
    /// Its secret is too short or too long.
    #[error("a secret access key must have {SECRET_LEN_BYTES_MIN} to {SECRET_LEN_BYTES_MAX} bytes")]
    SecretLength,
    /// A line break or a space that came along when the secret was copied: clients would strip it.
    #[error("a secret access key must not begin or end with a space, nor hold control characters")]
    SecretForm,
}

/// Judges the public half of an access key.
pub(crate) fn check_id(id: &str) -> Result<AccessKeyId, CredentialError> {
    AccessKeyId::new(id).map_err(CredentialError::Id)
}

/// Judges the secret half of an access key.
pub(crate) fn check_secret(secret: &str) -> Result<(), CredentialError> {
    if !(SECRET_LEN_BYTES_MIN..=SECRET_LEN_BYTES_MAX).contains(&secret.len()) {
        return Err(CredentialError::SecretLength);
    }
    if secret.trim() != secret || secret.chars().any(char::is_control) {
        return Err(CredentialError::SecretForm);
    }
    Ok(())
}

/// `VALV` and 16 characters of base32: as long as AWS's, and not to be mistaken for one.
pub(crate) fn generate_access_key_id() -> anyhow::Result<String> {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let random: [u8; 16] = random()?;
    Ok(random.iter().fold("VALV".to_owned(), |mut id, byte| {
        id.push(char::from(ALPHABET[usize::from(byte % 32)]));
        id
    }))
}

/// 40 characters of base64url: 240 random bits.
pub(crate) fn generate_secret() -> anyhow::Result<String> {
    let random: [u8; 30] = random()?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random))
}

/// How a token for the admin service begins, so that people and scanners for leaked secrets know it.
const TOKEN_PREFIX: &str = "valv-";
/// Bytes of a token behind its prefix: the id, then the secret.
const TOKEN_LEN_BYTES: usize = 16 + TOKEN_SECRET_LEN_BYTES;

/// The secret half of a token.
pub(crate) fn generate_token_secret() -> anyhow::Result<Zeroizing<[u8; TOKEN_SECRET_LEN_BYTES]>> {
    Ok(Zeroizing::new(random()?))
}

/// A token as people handle it: `valv-` and 64 characters of base64url.
pub(crate) fn format_token(id: TokenId, secret: &[u8; TOKEN_SECRET_LEN_BYTES]) -> String {
    let mut bytes = Zeroizing::new([0; TOKEN_LEN_BYTES]);
    bytes[..16].copy_from_slice(id.as_bytes());
    bytes[16..].copy_from_slice(secret);
    format!("{TOKEN_PREFIX}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes.as_slice()))
}

/// Reads what [`format_token`] writes.
pub(crate) fn parse_token(token: &str) -> Option<(TokenId, Secret)> {
    let text = token.strip_prefix(TOKEN_PREFIX)?;
    // Decoding never gives more than the text has.
    let mut bytes = Zeroizing::new([0; TOKEN_LEN_BYTES + 3]);
    let len = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode_slice(text, bytes.as_mut_slice()).ok()?;
    let (id, secret) = bytes.get(..len).filter(|_| len == TOKEN_LEN_BYTES)?.split_at(16);
    Some((TokenId::from_bytes(id.try_into().ok()?), Secret::new(secret.to_vec())))
}

/// A token's public half, as it is listed.
pub(crate) fn parse_token_id(text: &str) -> Option<TokenId> {
    text.parse().ok()
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the operating system gave no randomness: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn generated_keys_have_the_lengths_that_clients_expect() {
        let id = generate_access_key_id().unwrap();
        assert!(check_id(&id).is_ok() && check_secret(&generate_secret().unwrap()).is_ok());
        assert_eq!((id.len(), generate_secret().unwrap().len()), (20, 40));
        assert_ne!(generate_secret().unwrap(), generate_secret().unwrap());
    }

    #[test]
    fn tokens_are_read_back_and_nothing_else_is() {
        let id = TokenId::random();
        let token = format_token(id, &[0xfb; 32]);
        assert_eq!(token.len(), 5 + 64);
        let (read, secret) = parse_token(&token).unwrap();
        assert_eq!((read, secret.expose()), (id, [0xfb; 32].as_slice()));
        let cut = &token[..token.len() - 4];
        for bad in ["", "valv-", cut, &format!("{token}AAAA"), &format!("{token}="), &token.to_uppercase(), &token[5..]]
        {
            assert!(parse_token(bad).is_none(), "{bad:?}");
        }
        assert!(parse_token(&format!("valv-{}", "A".repeat(100_000))).is_none());
        assert_eq!(parse_token_id(&id.to_string()), Some(id));
        assert_eq!(parse_token_id("nonsense"), None);
    }

    #[test]
    fn secrets_that_could_be_guessed_or_would_not_survive_copying_are_refused() {
        for good in ["12345678", "with inner spaces", &"x".repeat(128), "ünïcödé"] {
            assert!(check_secret(good).is_ok(), "{good:?}");
        }
        for bad in ["", "1234567", &"x".repeat(129)] {
            assert!(matches!(check_secret(bad), Err(CredentialError::SecretLength)), "{bad:?}");
        }
        for bad in ["12345678\n", " 12345678", "1234\t5678"] {
            assert!(matches!(check_secret(bad), Err(CredentialError::SecretForm)), "{bad:?}");
        }
    }
}
