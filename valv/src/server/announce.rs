//! What a person who started a server wants to read first: where it is, and what to paste into rclone.

use super::admin::users::FirstKey;
use super::gateway::Gateway;
use super::metadata::Metadata;
use super::storage::Storage;
use crate::config::Config;
use std::fmt::Write;

/// Prints endpoint, key and an rclone section on standard output. The secret is shown once: when it was generated.
pub(crate) fn print(
    config: &Config,
    gateway: Option<&Gateway>,
    metadata: Option<&Metadata>,
    storage: Option<&Storage>,
    admin: Option<&str>,
) {
    if let Some(url) = admin {
        println!("admin = {url}");
    }
    if let Some(address) = metadata.and_then(|metadata| metadata.address) {
        println!("metadata = http://{address}");
    }
    if let Some(address) = storage.and_then(|storage| storage.address) {
        println!("storage = http://{address}");
    }
    let Some(gateway) = gateway else { return };
    let scheme = if config.gateway.tls.is_some() { "https" } else { "http" };
    for address in &gateway.addresses {
        println!("endpoint = {scheme}://{address}");
    }
    let Some(address) = gateway.addresses.first() else { return };
    let key = metadata.and_then(|metadata| metadata.first_key.as_ref());
    print!("{}", access(key, &config.gateway.region, &format!("{scheme}://{address}")));
}

/// The access key, and a section that rclone takes as it stands. A secret that Valv did not make is not repeated: who
/// gave it has it, and standard output often ends up in a log.
fn access(key: Option<&FirstKey>, region: &str, endpoint: &str) -> String {
    let (told, note, credentials) = match key {
        Some(FirstKey { access_key_id, shown_secret: Some(secret) }) => (
            format!("access_key_id = {access_key_id}\nsecret_access_key = {secret}\n"),
            String::new(),
            format!("env_auth = false\naccess_key_id = {access_key_id}\nsecret_access_key = {secret}\n"),
        ),
        Some(FirstKey { access_key_id, shown_secret: None }) => (
            format!("access_key_id = {access_key_id}\nsecret_access_key = (not printed: as given in VALV_SECRET_ACCESS_KEY)\n"),
            format!(
                "# The section holds no key: rclone takes it from its environment. Before it is used:\n\
                 #   export AWS_ACCESS_KEY_ID={access_key_id} AWS_SECRET_ACCESS_KEY=\"$VALV_SECRET_ACCESS_KEY\"\n"
            ),
            "env_auth = true\n".to_owned(),
        ),
        None => (
            "access_key_id = (not printed: as told at the first start)\n".to_owned(),
            "# The section holds no key: rclone takes it from its environment. A key's secret is told once, when it is\n\
             # made; for a new one: valv user key add admin. Before the section is used:\n\
             #   export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...\n"
                .to_owned(),
            "env_auth = true\n".to_owned(),
        ),
    };
    let mut out = told;
    out.push_str("\n# Paste into ~/.config/rclone/rclone.conf, then: rclone copy FOLDER valv:BUCKET\n");
    out.push_str(&note);
    // Writing to a String does not fail.
    let _ = write!(
        out,
        "[valv]\ntype = s3\nprovider = Other\n{credentials}region = {region}\nendpoint = {endpoint}\nforce_path_style = true\n"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_holds_a_secret_only_when_valv_made_it() {
        let key = |secret: Option<&str>| FirstKey {
            access_key_id: "KEY0".to_owned(),
            shown_secret: secret.map(str::to_owned),
        };
        let made = access(Some(&key(Some("made-secret"))), "r", "http://e");
        assert!(
            made.contains("\nenv_auth = false\naccess_key_id = KEY0\nsecret_access_key = made-secret\nregion = r\n")
        );
        for (known, id) in [(Some(key(None)), "AWS_ACCESS_KEY_ID=KEY0 "), (None, "AWS_ACCESS_KEY_ID=... ")] {
            let text = access(known.as_ref(), "r", "http://e");
            let (before, section) = text.split_once("[valv]").unwrap_or_default();
            assert!(section.contains("\nenv_auth = true\nregion = r\n") && !section.contains("key"), "{text}");
            assert!(before.contains(id), "{text}");
        }
    }
}
