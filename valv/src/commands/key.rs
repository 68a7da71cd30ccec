//! `valv key`: works on the key files, with or without a running server.

use super::{FolderArg, create_private, read_passphrase};
use crate::identity::Identity;
use crate::server::{KEYS_FOLDER, ROOT_KEY_FILE};
use anyhow::{Context, bail};
use std::io::Write;
use std::path::PathBuf;
use valv_metadata::{KeyStore, RootKeyFile};

/// `valv key ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeyCommand {
    /// Writes the root key and all project keys to a file sealed under a passphrase.
    Backup(BackupArgs),
    /// Puts the keys of a backup into a data folder that has none.
    Restore(RestoreArgs),
}

/// `valv key backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    data: FolderArg,
    /// The file to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
    /// A file whose first line is the passphrase.
    #[arg(long)]
    passphrase_file: PathBuf,
}

/// `valv key restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    data: FolderArg,
    /// The backup.
    #[arg(long)]
    from: PathBuf,
    /// A file whose first line is the passphrase.
    #[arg(long)]
    passphrase_file: PathBuf,
}

/// Runs the command.
pub(crate) fn run(command: KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Backup(args) => backup(&args),
        KeyCommand::Restore(args) => restore(&args),
    }
}

fn backup(args: &BackupArgs) -> anyhow::Result<()> {
    let data = &args.data.data;
    let Some(identity) = Identity::load(data)? else {
        bail!("{} is not the data folder of a server", data.display());
    };
    let passphrase = read_passphrase(&args.passphrase_file)?;
    let root = RootKeyFile::load(&data.join(ROOT_KEY_FILE))?;
    let keys = KeyStore::open(&data.join(KEYS_FOLDER), root)?;
    let text = keys.backup(identity.cluster, passphrase.as_bytes())?;
    let mut file = create_private(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| valv_durable_file::sync_parent(&args.out))
        .with_context(|| format!("writing {}", args.out.display()))?;
    println!(
        "{} holds the root key and every project key. Keep it and its passphrase apart from the data.",
        args.out.display()
    );
    Ok(())
}

fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let data = &args.data.data;
    let text = std::fs::read_to_string(&args.from).with_context(|| format!("reading {}", args.from.display()))?;
    let passphrase = read_passphrase(&args.passphrase_file)?;
    let root = data.join(ROOT_KEY_FILE);
    let cluster = KeyStore::restore(&text, passphrase.as_bytes(), &root, &data.join(KEYS_FOLDER))?;
    if let Some(identity) = Identity::load(data)?
        && identity.cluster != cluster
    {
        println!("warning: the backup was made of cluster {cluster}, this data folder is of {}", identity.cluster);
    }
    println!("the keys of cluster {cluster} are in {}", data.display());
    Ok(())
}
