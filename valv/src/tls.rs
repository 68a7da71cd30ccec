//! TLS of the admin service, at both ends: PEM files in, rustls configurations out.

use anyhow::Context;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;

/// The only protocol that gRPC speaks.
const ALPN: &[u8] = b"h2";

/// How a command trusts and shows itself: `ca` is what the server's certificate must come from, `pair` a client
/// certificate with its key.
pub(crate) fn client_config(ca: &Path, pair: Option<(&Path, &Path)>) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca)?);
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(chain(certificate)?, private(key)?)
            .with_context(|| format!("{} and {} can't be used", certificate.display(), key.display()))?,
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// How the server shows itself, and whose client certificates it takes. Without `client_ca` it asks for none; with one, a
/// client may still come without, and then needs a token.
pub(crate) fn server_config(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider)
                .allow_unauthenticated()
                .build()
                .with_context(|| format!("{}: client certificates can't be verified with it", ca.display()))?,
        ),
    };
    let mut config = builder
        .with_single_cert(chain(certificate)?, private(key)?)
        .with_context(|| format!("{} and {} can't be used", certificate.display(), key.display()))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).with_context(|| format!("{}: a certificate that can't be used", path.display()))?;
    }
    Ok(roots)
}

fn chain(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("{}: no certificate can be read from it", path.display()))?;
    anyhow::ensure!(!chain.is_empty(), "{}: no certificate in it", path.display());
    Ok(chain)
}

fn private(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path)
        .with_context(|| format!("{}: no private key can be read from it", path.display()))
}
