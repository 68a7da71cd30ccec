//! `valv key`: works on the key files of a data folder.

use super::{FolderArg, create_private, read_passphrase};
use crate::identity::Identity;
use crate::server::{KEYS_FOLDER, lock_folder};
use anyhow::{Context, bail};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use valv_codec::{RootKey, Share};
use valv_metadata::{
    KeyStore, ROOT_KEY_FILE, RootHome, RootKeyFile, SEALED_ROOT_KEY_FILE, SealMethod, SealedRootKey, destroy_file,
};
use zeroize::Zeroizing;

/// `valv key ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeyCommand {
    /// Writes all keys to a file sealed under a passphrase.
    Backup(BackupArgs),
    /// Puts the keys of a backup into a data folder that has none.
    Restore(RestoreArgs),
    /// Seals the root key: under a passphrase, or under shares that several people keep. The server must be stopped.
    ///
    /// The plain file is overwritten and removed once the sealed one was written and read back. Take a key backup first.
    ///
    /// Example: three of five people can start the server.
    ///
    ///     valv key seal --data /srv/valv --shares 5 --threshold 3 --out /run/shares
    #[command(verbatim_doc_comment)]
    Seal(SealArgs),
    /// Puts the root key back in the clear, as a new data folder has it. The server must be stopped.
    UnsealToPlain(UnsealArgs),
}

/// How a command opens a root key that is sealed.
#[derive(Debug, clap::Args)]
pub(crate) struct OpenArgs {
    /// Opens a root key that a passphrase seals: a file whose first line it is.
    #[arg(long, value_name = "FILE")]
    root_passphrase_file: Option<PathBuf>,
    /// Opens a root key that lies in shares: a file with one share. As often as shares are needed.
    #[arg(long, value_name = "FILE")]
    share_file: Vec<PathBuf>,
}

/// `valv key backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    data: FolderArg,
    #[command(flatten)]
    open: OpenArgs,
    /// The file to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
    /// A file whose first line is the passphrase of the backup.
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

/// `valv key seal`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("how").required(true).args(["passphrase_file", "shares", "finish"]))]
pub(crate) struct SealArgs {
    #[command(flatten)]
    data: FolderArg,
    /// Seal under a passphrase: a file whose first line it is. The server then needs `keys.passphrase_file`.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Seal under this many shares.
    #[arg(long, value_name = "N", requires = "threshold", requires = "out")]
    shares: Option<u8>,
    /// How many of the shares are needed.
    #[arg(long, value_name = "T", requires = "shares")]
    threshold: Option<u8>,
    /// The folder for the shares, one file each; it must not exist. Give each file to one person and delete it here.
    #[arg(long, value_name = "DIR", requires = "shares")]
    out: Option<PathBuf>,
    /// Remove the plain file that an interrupted sealing left beside the sealed one, after checking that they hold the same.
    #[arg(long)]
    finish: bool,
    #[command(flatten)]
    open: OpenArgs,
}

/// `valv key unseal-to-plain`.
#[derive(Debug, clap::Args)]
pub(crate) struct UnsealArgs {
    #[command(flatten)]
    data: FolderArg,
    #[command(flatten)]
    open: OpenArgs,
}

/// Runs the command.
pub(crate) fn run(command: KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Backup(args) => backup(&args),
        KeyCommand::Restore(args) => restore(&args),
        KeyCommand::Seal(args) => seal(&args),
        KeyCommand::UnsealToPlain(args) => unseal(&args),
    }
}

impl OpenArgs {
    /// The root key of a data folder, however it lies there.
    pub(crate) fn root(&self, data: &Path) -> anyhow::Result<RootKey> {
        match SealedRootKey::load(&data.join(SEALED_ROOT_KEY_FILE))? {
            None => Ok(RootKeyFile::load(&data.join(ROOT_KEY_FILE))?),
            Some(sealed) => self.opened(&sealed),
        }
    }

    fn opened(&self, sealed: &SealedRootKey) -> anyhow::Result<RootKey> {
        let (root, _) = match sealed.method {
            SealMethod::Passphrase { .. } => {
                let Some(path) = &self.root_passphrase_file else {
                    bail!("the root key is sealed by a passphrase: give --root-passphrase-file");
                };
                sealed.open_with_passphrase(read_passphrase(path)?.as_bytes()).context("opening the root key")?
            }
            SealMethod::Shares { threshold, set, .. } => {
                if self.share_file.is_empty() {
                    bail!("the root key is sealed by shares: give --share-file {threshold} times, of set {set}");
                }
                let mut shares = Vec::with_capacity(self.share_file.len());
                for path in &self.share_file {
                    shares.push(read_share(path)?);
                }
                sealed.open_with_shares(&shares).context("opening the root key")?
            }
        };
        Ok(root)
    }
}

/// Reads a share's file.
pub(crate) fn read_share(path: &Path) -> anyhow::Result<Share> {
    let text = fs::read_to_string(path).map(Zeroizing::new).with_context(|| format!("reading {}", path.display()))?;
    Share::from_text(&text).with_context(|| path.display().to_string())
}

fn backup(args: &BackupArgs) -> anyhow::Result<()> {
    let data = &args.data.data;
    let Some(identity) = Identity::load(data)? else {
        bail!("{} is not the data folder of a server", data.display());
    };
    let passphrase = read_passphrase(&args.passphrase_file)?;
    let keys = KeyStore::open(&data.join(KEYS_FOLDER), args.open.root(data)?)?;
    let text = keys.backup(identity.cluster, passphrase.as_bytes())?;
    write_private(&args.out, text.as_bytes())?;
    println!("{} holds every key. Keep it and its passphrase apart from the data.", args.out.display());
    Ok(())
}

fn write_private(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let mut file = create_private(path).with_context(|| format!("creating {}", path.display()))?;
    file.write_all(contents)
        .and_then(|()| file.sync_all())
        .and_then(|()| valv_durable_file::sync_parent(path))
        .with_context(|| format!("writing {}", path.display()))
}

fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let data = &args.data.data;
    let text = fs::read_to_string(&args.from).with_context(|| format!("reading {}", args.from.display()))?;
    let passphrase = read_passphrase(&args.passphrase_file)?;
    let sealed = data.join(SEALED_ROOT_KEY_FILE);
    if sealed.exists() {
        bail!("{} is there: a root key is never replaced by another", sealed.display());
    }
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

fn seal(args: &SealArgs) -> anyhow::Result<()> {
    let data = &args.data.data;
    let _lock = lock_folder(data)?;
    let (plain, sealed) = (data.join(ROOT_KEY_FILE), data.join(SEALED_ROOT_KEY_FILE));
    if args.finish {
        return finish(args, &plain, &sealed);
    }
    if sealed.exists() {
        bail!(
            "{} is there: the root key is sealed already. Change its seal with `valv key unseal-to-plain` first; if an \
             earlier sealing was interrupted, finish it with --finish",
            sealed.display()
        );
    }
    let root = RootKeyFile::load(&plain)?;
    // A key that does not open what is there must not become the only one.
    KeyStore::open(&data.join(KEYS_FOLDER), root.clone()).context("the root key does not open the key store")?;
    let home = match (&args.passphrase_file, args.shares, args.threshold, &args.out) {
        (Some(path), ..) => RootHome::with_passphrase(&sealed, read_passphrase(path)?.as_bytes())?,
        (None, Some(count), Some(threshold), Some(out)) => {
            let (home, shares) = RootHome::with_shares(&sealed, threshold, count)?;
            // First the shares, which must all be durable before the key can be opened by them only.
            fs::DirBuilder::new().create(out).with_context(|| format!("creating {}", out.display()))?;
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(out, fs::Permissions::from_mode(0o700))?;
            for share in &shares {
                let name = format!("share-{}-of-{count}.txt", share.index());
                let text = Zeroizing::new(format!("{}\n", share.to_text().as_str()));
                write_private(&out.join(name), text.as_bytes())?;
            }
            home
        }
        _ => bail!("give --passphrase-file, or --shares with --threshold and --out"),
    };
    home.store(&root)?;
    destroy_file(&plain)?;
    println!("the root key is sealed in {}; {} was overwritten and removed.", sealed.display(), plain.display());
    match (&args.out, args.threshold) {
        (Some(out), Some(threshold)) => println!(
            "{} holds the shares, of which {threshold} open it. Give each to another person, then delete the folder. \
             The server starts sealed from now on: `valv admin unseal`.",
            out.display()
        ),
        _ => println!("The server needs `keys.passphrase_file` in its configuration from now on."),
    }
    Ok(())
}

fn finish(args: &SealArgs, plain: &Path, sealed: &Path) -> anyhow::Result<()> {
    let file = SealedRootKey::load(sealed)?.with_context(|| format!("{} is not there", sealed.display()))?;
    let opened = args.open.opened(&file)?;
    if plain.exists() {
        let root = RootKeyFile::load(plain)?;
        if (root.version(), root.expose()) != (opened.version(), opened.expose()) {
            bail!("{} holds another key than {}: nothing was removed", plain.display(), sealed.display());
        }
        destroy_file(plain)?;
    }
    println!("the root key is sealed in {}", sealed.display());
    Ok(())
}

fn unseal(args: &UnsealArgs) -> anyhow::Result<()> {
    let data = &args.data.data;
    let _lock = lock_folder(data)?;
    let (plain, sealed) = (data.join(ROOT_KEY_FILE), data.join(SEALED_ROOT_KEY_FILE));
    let file = SealedRootKey::load(&sealed)?.with_context(|| format!("{} is not there", sealed.display()))?;
    let root = args.open.opened(&file)?;
    RootHome::Plain(plain.clone()).store(&root)?;
    destroy_file(&sealed)?;
    println!("the root key is in {} in the clear", plain.display());
    Ok(())
}
