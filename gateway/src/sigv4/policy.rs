//! The signature over a POST form's policy: "Authenticating Requests: Browser-Based Uploads Using POST".

use super::credential::{Credential, Place};
use super::{ALGORITHM, Identity, SecretSource, SigV4Config, Signature, SignedBy, lookup};
use crate::error::{S3Code, S3Error};
use crate::http_date;

/// The fields of a form that carry its signature, as the form gives them.
#[derive(Debug, Clone, Copy)]
pub struct PolicySignature<'a> {
    /// `policy`: base64, signed as it stands.
    pub policy: &'a str,
    /// `x-amz-algorithm`.
    pub algorithm: &'a str,
    /// `x-amz-credential`.
    pub credential: &'a str,
    /// `x-amz-date`.
    pub date: &'a str,
    /// `x-amz-signature`.
    pub signature: &'a str,
    /// `x-amz-security-token`.
    pub security_token: Option<&'a str>,
}

impl PolicySignature<'_> {
    /// Verifies the signature. That the policy has not expired and that the form meets it is for the caller to check.
    ///
    /// # Errors
    /// InvalidArgument for malformed fields, InvalidAccessKeyId, SignatureDoesNotMatch.
    pub async fn verify(
        &self,
        config: &SigV4Config,
        secrets: &(impl SecretSource + ?Sized),
    ) -> Result<Identity, S3Error> {
        if self.algorithm != ALGORITHM {
            return Err(S3Error::invalid_argument(
                format!("X-Amz-Algorithm only supports \"{ALGORITHM}\""),
                "x-amz-algorithm",
                self.algorithm,
            ));
        }
        let signed_at = http_date::parse_basic(self.date).ok_or_else(|| {
            S3Error::invalid_argument(
                "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"",
                "x-amz-date",
                self.date,
            )
        })?;
        let credential = Credential::parse(self.credential, Place::Form)?;
        credential.check(config, signed_at, Place::Form)?;
        let mismatch = || {
            S3Error::new(S3Code::SignatureDoesNotMatch)
                .with_extra("AWSAccessKeyId", credential.access_key.as_str())
                .with_extra("StringToSign", self.policy)
                .with_extra("SignatureProvided", self.signature)
        };
        let signature = Signature::from_hex(self.signature.as_bytes()).ok_or_else(mismatch)?;
        let grant = lookup(&credential, self.security_token, secrets).await?;
        if credential.signing_key(&grant).sign(self.policy.as_bytes()) != signature {
            return Err(mismatch());
        }
        Ok(Identity {
            access_key: credential.access_key,
            grant,
            signed_by: SignedBy::FormPolicy,
            signed_headers: Vec::new(),
            signed_at,
        })
    }
}
