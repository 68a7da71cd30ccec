//! `valv disk`: works on folders, with or without a running server. A running one notices within seconds.

use super::FolderArg;
use crate::identity::Identity;
use anyhow::{Context, bail};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use valv_storage_node::{Disk, FolderError, read_superblock};

/// `valv disk ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum DiskCommand {
    /// Initialises an empty folder in place of a disk that was lost. Its shards are then rebuilt from the others.
    Replace(ReplaceArgs),
}

/// `valv disk replace`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplaceArgs {
    #[command(flatten)]
    data: FolderArg,
    /// The disk's name, as `valv status` shows it.
    #[arg(long)]
    disk: String,
    /// The new folder, empty or not there yet [default: DATA/disks/NAME]. Its last name must be the disk's name.
    #[arg(long)]
    path: Option<PathBuf>,
}

/// Runs the command.
pub(crate) async fn run(command: DiskCommand) -> anyhow::Result<()> {
    let DiskCommand::Replace(args) = command;
    let data = &args.data.data;
    let Some(identity) = Identity::load(data)? else {
        bail!("{} is not the data folder of a server", data.display());
    };
    let Some(disk) = identity.disks.iter().find(|disk| disk.name == args.disk) else {
        let names: Vec<_> = identity.disks.iter().map(|disk| disk.name.as_str()).collect();
        bail!("no disk {:?} here; there are {}", args.disk, names.join(", "));
    };
    let path = args.path.unwrap_or_else(|| data.join("disks").join(&disk.name));
    match read_superblock(&path) {
        Ok(found) if found.disk == disk.id => bail!(
            "{} holds disk {} already: nothing to replace. To give its contents up, empty the folder first",
            path.display(),
            disk.name
        ),
        Ok(found) => bail!("{} holds another disk ({}): it is left alone", path.display(), found.disk),
        // `format` decides: it takes an empty folder, or one that a crash left half-made, and no other.
        Err(_) => {}
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .with_context(|| format!("creating {}", path.display()))?;
    let made = valv_storage_node::Identity {
        cluster: identity.cluster,
        node: identity.node,
        disk: disk.id,
        name: disk.name.clone(),
    };
    match Disk::format(&path, &made) {
        Ok(_) => {}
        Err(FolderError::NotEmpty) => bail!(
            "{} is not empty. A folder that holds anything is never initialised: move its contents away first",
            path.display()
        ),
        Err(error) => return Err(error).with_context(|| format!("initialising {}", path.display())),
    }
    println!("{} is initialised as disk {} ({})", path.display(), disk.name, disk.id);
    println!("A running server opens it within seconds and rebuilds its shards; see `valv status`.");
    Ok(())
}
