//! Access keys that Valv makes itself.

use base64::Engine;

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
        assert!(valv_types::AccessKeyId::new(id.as_str()).is_ok());
        assert_eq!((id.len(), generate_secret().unwrap().len()), (20, 40));
        assert_ne!(generate_secret().unwrap(), generate_secret().unwrap());
    }
}
