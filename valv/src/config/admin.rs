//! `[admin]`: the admin service over the network.

use super::{ConfigError, Source};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use toml::Spanned;

/// `[admin]`. Without `listen`, only the socket in the data folder answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct AdminSection {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) tls: Option<AdminTls>,
    /// Users whose client certificates are operators'.
    pub(crate) operators: Vec<String>,
}

/// The files of the admin service's TLS.
#[derive(Debug, Clone)]
pub(crate) struct AdminTls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// What client certificates must come from; without it none are asked for.
    pub(crate) client_ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileAdmin {
    listen: Option<Spanned<String>>,
    tls_cert: Option<Spanned<PathBuf>>,
    tls_key: Option<Spanned<PathBuf>>,
    client_ca: Option<Spanned<PathBuf>>,
    #[serde(default)]
    operators: Vec<Spanned<String>>,
}

impl Source<'_> {
    pub(super) fn admin(&self, file: FileAdmin) -> Result<AdminSection, ConfigError> {
        let tls = match (file.tls_cert, file.tls_key) {
            (Some(certificate), Some(key)) => Some(AdminTls {
                certificate: certificate.into_inner(),
                key: key.into_inner(),
                client_ca: file.client_ca.as_ref().map(|ca| ca.get_ref().clone()),
            }),
            (None, None) => None,
            (Some(alone), None) => return Err(self.value(alone.span(), "admin.tls_cert", "goes with tls_key")),
            (None, Some(alone)) => return Err(self.value(alone.span(), "admin.tls_key", "goes with tls_cert")),
        };
        if let (Some(ca), None) = (&file.client_ca, &tls) {
            return Err(self.value(ca.span(), "admin.client_ca", "goes with tls_cert and tls_key"));
        }
        if let (Some(name), None) = (file.operators.first(), &file.client_ca) {
            return Err(self.value(
                name.span(),
                "admin.operators",
                "names users of client certificates: needs client_ca",
            ));
        }
        if let Some(name) = file.operators.iter().find(|name| name.get_ref().is_empty()) {
            return Err(self.value(name.span(), "admin.operators", "a user's name must not be empty"));
        }
        let listen = file.listen.as_ref().map(|text| self.address(text, "admin.listen")).transpose()?;
        if let (Some(text), Some(address), None) = (&file.listen, listen, &tls)
            && !address.ip().is_loopback()
        {
            let message = format!("{address} is not a loopback address: refused without tls_cert and tls_key");
            return Err(self.value(text.span(), "admin.listen", message));
        }
        let operators = file.operators.into_iter().map(Spanned::into_inner).collect();
        Ok(AdminSection { listen, tls, operators })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::config::{Overrides, Source};
    use std::path::PathBuf;

    fn check(text: &str) -> Result<super::AdminSection, String> {
        let source = Source { file: PathBuf::from("valv.toml"), text };
        source.check(Overrides::default()).map(|config| config.admin).map_err(|error| error.to_string())
    }

    #[test]
    fn the_network_needs_tls_and_this_machine_does_not() {
        assert!(check("").unwrap().listen.is_none());
        assert!(check("[admin]\nlisten = '127.0.0.1:9443'").unwrap().tls.is_none());
        let all = "[admin]\nlisten = '0.0.0.0:9443'\ntls_cert = 'c'\ntls_key = 'k'\nclient_ca = 'a'\noperators = ['o']";
        let section = check(all).unwrap();
        assert_eq!(section.tls.unwrap().client_ca, Some(PathBuf::from("a")));
        assert_eq!(section.operators, ["o"]);
        for (text, expected) in [
            ("listen = '0.0.0.0:9443'", "valv.toml:2: admin.listen: 0.0.0.0:9443 is not a loopback address"),
            ("listen = '[::]:9443'", "valv.toml:2: admin.listen: [::]:9443 is not a loopback address"),
            ("tls_cert = 'c'", "valv.toml:2: admin.tls_cert: goes with tls_key"),
            ("tls_key = 'k'", "valv.toml:2: admin.tls_key: goes with tls_cert"),
            ("client_ca = 'a'", "valv.toml:2: admin.client_ca: goes with"),
            ("operators = ['o']", "valv.toml:2: admin.operators: names users of client certificates"),
            (
                "tls_cert = 'c'\ntls_key = 'k'\nclient_ca = 'a'\noperators = ['']",
                "valv.toml:5: admin.operators: a user's",
            ),
            ("listen = 'here'", "valv.toml:2: admin.listen: \"here\" is not ADDRESS:PORT"),
        ] {
            let error = check(&format!("[admin]\n{text}")).unwrap_err();
            assert!(error.starts_with(expected), "{text:?} gave {error:?}");
        }
    }
}
