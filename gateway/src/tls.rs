//! TLS for the S3 endpoint: certificate and key from PEM files, replaceable while the server runs.

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Why TLS could not be set up. All are the operator's to mend; the messages name the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or holds no PEM of the kind wanted.
    #[error("{path}: no {what} can be read from it")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What went wrong.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The file holds no certificate at all.
    #[error("{path}: no certificate in it")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key don't belong together, or rustls refuses them.
    #[error("certificate {certificate} and key {key} can't be used")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What went wrong.
        #[source]
        source: rustls::Error,
    },
}

/// A certificate with its key. New connections use what was loaded last.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Loads a certificate chain and its private key (PKCS#8, PKCS#1 or SEC1) from PEM files.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, TlsError> {
        let (certificate, key) = (certificate.into(), key.into());
        let current = ArcSwap::from_pointee(read(&certificate, &key)?);
        Ok(Self { certificate, key, current })
    }

    /// Loads the files again, as after a renewal. If that fails, what was loaded before stays in use.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(read(&self.certificate, &self.key)?));
        Ok(())
    }

    /// What accepts the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({})", self.certificate.display())
    }
}

fn read(certificate: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let bad = |path: &Path, what: &'static str| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, what, source }
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(bad(certificate, "certificate"))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: certificate.to_owned() });
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(bad(key, "private key"))?;
    let unusable = |source| TlsError::Unusable { certificate: certificate.to_owned(), key: key.to_owned(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("write");
        path
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_pair_is_loaded_and_a_failed_reload_keeps_it() {
        let folder = tempfile::tempdir().expect("folder");
        let (certificate, key) = pair();
        let certificate = write(folder.path(), "cert.pem", &certificate);
        let key = write(folder.path(), "key.pem", &key);
        let tls = Tls::load(&certificate, &key).expect("loaded");
        let before = tls.current.load_full();
        std::fs::write(&key, "nonsense").expect("write");
        assert!(matches!(tls.reload(), Err(TlsError::Pem { what: "private key", .. })));
        assert!(Arc::ptr_eq(&before, &tls.current.load_full()));
        let (renewed, renewed_key) = pair();
        std::fs::write(&certificate, renewed).expect("write");
        std::fs::write(&key, renewed_key).expect("write");
        tls.reload().expect("reloaded");
        assert!(!Arc::ptr_eq(&before, &tls.current.load_full()));
    }

    #[test]
    fn files_that_do_not_fit_are_named() {
        let folder = tempfile::tempdir().expect("folder");
        let ((certificate, key), (_, other)) = (pair(), pair());
        let certificate = write(folder.path(), "cert.pem", &certificate);
        let key = write(folder.path(), "key.pem", &key);
        let other = write(folder.path(), "other.pem", &other);
        let empty = write(folder.path(), "empty.pem", "");
        let missing = folder.path().join("missing.pem");
        for (certificate, key, named) in [
            (&missing, &key, &missing),
            (&certificate, &missing, &missing),
            (&empty, &key, &empty),
            (&certificate, &empty, &empty),
            (&certificate, &other, &other),
        ] {
            let error = Tls::load(certificate, key).expect_err("refused");
            assert!(error.to_string().contains(&named.display().to_string()), "{error}");
        }
    }
}
