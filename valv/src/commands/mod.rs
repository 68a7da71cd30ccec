//! The commands that are not the server: each a client of the admin service, or a tool over files.

pub(crate) mod admin;
pub(crate) mod disk;
pub(crate) mod key;
pub(crate) mod ledger;
pub(crate) mod metadata;
pub(crate) mod output;
pub(crate) mod project;
pub(crate) mod proposal;
pub(crate) mod statement;
pub(crate) mod status;
pub(crate) mod user;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Which server a command talks to.
pub(crate) use crate::admin::ServerArg as DataArg;

/// Which data folder a command that works on files is about.
#[derive(Debug, clap::Args)]
pub(crate) struct FolderArg {
    /// The server's data folder.
    #[arg(long, default_value = "valv-data")]
    pub(crate) data: PathBuf,
}

/// Creates a file that must not exist yet, readable by its owner only: exports and backups are never overwritten.
pub(crate) fn create_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Reads a passphrase from a file's first line.
pub(crate) fn read_passphrase(path: &Path) -> anyhow::Result<zeroize::Zeroizing<String>> {
    use anyhow::Context;
    let text = zeroize::Zeroizing::new(
        std::fs::read_to_string(path).with_context(|| format!("reading the passphrase from {}", path.display()))?,
    );
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        anyhow::bail!("{} holds no passphrase in its first line", path.display());
    }
    Ok(zeroize::Zeroizing::new(line.to_owned()))
}
