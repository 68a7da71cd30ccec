//! `identity.json`: which cluster and node this data folder is, and which disks belong to it.
//!
//! It is what tells a first start from a loss: with it, a disk folder that is empty is a disk that is away. Written
//! once, before any disk is initialised, and changed only by `valv disk replace`.

use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use valv_types::{ClusterId, DiskId, NodeId};

const FILE_NAME: &str = "identity.json";
const VERSION: u32 = 1;
/// It names ids, and no secret.
const FILE_MODE: u32 = 0o644;

/// The identity of a data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Format version of this file.
    pub(crate) version: u32,
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// This process.
    pub(crate) node: NodeId,
    /// Whether the first start got to its end. Until then a start may initialise empty disk folders.
    #[serde(default)]
    pub(crate) initialised: bool,
    /// Its disks, in the configuration's order.
    pub(crate) disks: Vec<DiskIdentity>,
}

/// One disk of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiskIdentity {
    /// The folder's last name: stays when the folder is mounted elsewhere.
    pub(crate) name: String,
    /// The id in its superblock.
    pub(crate) id: DiskId,
}

/// An identity that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// It can't be read or written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what this program writes.
    #[error("{path}: {source}", path = .path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Written by a newer Valv.
    #[error("{path}: version {found} is newer than this program", path = .path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The configuration names other disks than the folder was made with.
    #[error(
        "the configuration names disk folders {configured:?}, this data folder has {known:?}; disks are exchanged with `valv disk replace`"
    )]
    Disks {
        /// Names in the configuration.
        configured: Vec<String>,
        /// Names in the identity.
        known: Vec<String>,
    },
    /// The configuration names another cluster.
    #[error("this data folder belongs to cluster {known}, the configuration says {configured}")]
    Cluster {
        /// From the configuration.
        configured: ClusterId,
        /// From the file.
        known: ClusterId,
    },
}

impl Identity {
    /// Reads the identity of `data`; `None` if it has none yet.
    pub(crate) fn load(data: &Path) -> Result<Option<Self>, IdentityError> {
        let path = data.join(FILE_NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Io { path, source }),
        };
        let identity: Self =
            serde_json::from_slice(&text).map_err(|source| IdentityError::Malformed { path: path.clone(), source })?;
        if identity.version > VERSION {
            return Err(IdentityError::Newer { path, found: identity.version });
        }
        Ok(Some(identity))
    }

    /// A new identity for `disks`; the cluster's id follows from its name, or is random.
    pub(crate) fn new(cluster_name: Option<&str>, disks: &[PathBuf]) -> Self {
        let cluster = cluster_name.map_or_else(ClusterId::random, cluster_id);
        let disks = disks.iter().map(|path| DiskIdentity { name: disk_name(path), id: DiskId::random() }).collect();
        Self { version: VERSION, cluster, node: NodeId::random(), initialised: false, disks }
    }

    /// Writes the identity durably: a crash leaves the old or the new one.
    pub(crate) fn store(&self, data: &Path) -> Result<(), IdentityError> {
        let path = data.join(FILE_NAME);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|source| IdentityError::Malformed { path: path.clone(), source })?;
        valv_durable_file::replace(&path, &text, FILE_MODE).map_err(|source| IdentityError::Io { path, source })
    }

    /// Pairs the configured folders with their ids, in the configuration's order.
    pub(crate) fn match_disks(&self, folders: &[PathBuf]) -> Result<Vec<(PathBuf, DiskIdentity)>, IdentityError> {
        let mut matched = Vec::with_capacity(folders.len());
        for folder in folders {
            let name = disk_name(folder);
            if let Some(disk) = self.disks.iter().find(|disk| disk.name == name) {
                matched.push((folder.clone(), disk.clone()));
            }
        }
        if matched.len() != folders.len() || matched.len() != self.disks.len() {
            return Err(IdentityError::Disks {
                configured: folders.iter().map(|folder| disk_name(folder)).collect(),
                known: self.disks.iter().map(|disk| disk.name.clone()).collect(),
            });
        }
        Ok(matched)
    }

    /// Refuses a configuration that names another cluster.
    pub(crate) fn check_cluster(&self, cluster_name: Option<&str>) -> Result<(), IdentityError> {
        match cluster_name.map(cluster_id) {
            Some(configured) if configured != self.cluster => {
                Err(IdentityError::Cluster { configured, known: self.cluster })
            }
            _ => Ok(()),
        }
    }
}

/// The id of the cluster with this name: the first 16 bytes of BLAKE3, so that processes which share a configured name
/// agree without talking to each other.
fn cluster_id(name: &str) -> ClusterId {
    let digest = blake3::derive_key("valv cluster name v1", name.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    ClusterId::from_bytes(id)
}

/// A disk's name: the last part of its folder.
pub(crate) fn disk_name(folder: &Path) -> String {
    folder.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_and_follows_moved_folders() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(data.path()).unwrap(), None);
        let made = Identity::new(Some("north"), &["/a/d0".into(), "/a/d1".into()]);
        made.store(data.path()).unwrap();
        let read = Identity::load(data.path()).unwrap().unwrap();
        assert_eq!(read, made);
        let moved = read.match_disks(&["/b/d1".into(), "/b/d0".into()]).unwrap();
        assert_eq!(moved[1].1, made.disks[0]);
        assert!(read.match_disks(&["/b/d0".into()]).is_err(), "one is missing");
        assert!(read.match_disks(&["/b/d0".into(), "/b/d7".into()]).is_err(), "one is unknown");
    }

    #[test]
    fn a_cluster_name_always_gives_the_same_id() {
        let one = Identity::new(Some("north"), &[]);
        assert!(one.check_cluster(Some("north")).is_ok());
        assert!(one.check_cluster(None).is_ok());
        assert!(one.check_cluster(Some("south")).is_err());
    }
}
