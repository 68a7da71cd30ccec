//! What a person who started a server wants to read first: where it is, and what to paste into rclone.

use super::gateway::Gateway;
use super::metadata::Metadata;
use super::storage::Storage;
use crate::config::Config;

/// Prints endpoint, key and an rclone section on standard output. The secret is shown once: when it was generated.
pub(crate) fn print(
    config: &Config,
    gateway: Option<&Gateway>,
    metadata: Option<&Metadata>,
    storage: Option<&Storage>,
) {
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
    let (access_key_id, secret) = match key {
        Some(key) => (key.access_key_id.as_str(), key.shown_secret.as_deref().unwrap_or(SECRET_NOT_SHOWN)),
        None => (KEY_NOT_SHOWN, SECRET_NOT_SHOWN),
    };
    println!("access_key_id = {access_key_id}");
    println!("secret_access_key = {secret}");
    println!();
    println!("# Paste into ~/.config/rclone/rclone.conf, then: rclone copy FOLDER valv:BUCKET");
    println!("[valv]");
    println!("type = s3");
    println!("provider = Other");
    println!("env_auth = false");
    println!("access_key_id = {access_key_id}");
    println!("secret_access_key = {secret}");
    println!("region = {}", config.gateway.region);
    println!("endpoint = {scheme}://{address}");
    println!("force_path_style = true");
}

const KEY_NOT_SHOWN: &str = "(the key given to the first start; `valv user add` makes another)";
const SECRET_NOT_SHOWN: &str = "(the secret given to the first start)";
