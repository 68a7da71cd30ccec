//! The key store: the root key's file, and the project keys wrapped by it. It is never part of the MetaStore, so no
//! export, mirror or backup of metadata contains a project key.
//!
//! Durability: a new key is on disk (file and folder synced) before it is used for anything. The files and the backup
//! are specified in `docs/format-metadata.md`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use valv_codec::{KeyError, ProjectKey, RootKey, SealedBackup};
use valv_types::{ClusterId, ProjectId, TimestampMicros};
use zeroize::{Zeroize as _, Zeroizing};

/// Format of the key store's file.
const STORE_FORMAT: u32 = 1;
/// First word of the root key's file.
const ROOT_MAGIC: &str = "valv-root-key";
/// Names a backup, and is authenticated with it.
const BACKUP_CONTEXT: &str = "valv key backup v1";
/// The longest root key file: the line is some 90 bytes.
const ROOT_FILE_LEN_BYTES_MAX: u64 = 4096;
const FILE_NAME: &str = "project-keys.json";
/// Key files are their owner's only.
const KEY_FILE_MODE: u32 = 0o600;

/// Why the key store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// A file could not be read or written durably.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} is not a key file of a known format: {what}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The project has no key, or not in this version.
    #[error("no key for project {project}")]
    NoKey {
        /// The project.
        project: ProjectId,
    },
    /// A key does not open.
    #[error(transparent)]
    Key(#[from] KeyError),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> KeyStoreError + '_ {
    move |source| KeyStoreError::Io { path: path.to_owned(), source }
}

/// The file that holds the root key: one line `valv-root-key 1 VERSION HEX`, readable by its owner only.
#[derive(Debug)]
pub struct RootKeyFile;

impl RootKeyFile {
    /// Makes a new root key and its file (mode 0600), durably. Fails if the file exists: a root key is never replaced.
    pub fn create(path: &Path) -> Result<RootKey, KeyStoreError> {
        let root = RootKey::generate(1)?;
        let hex = Zeroizing::new(hex::encode(root.expose()));
        let line = Zeroizing::new(format!("{ROOT_MAGIC} 1 {} {}\n", root.version(), hex.as_str()));
        valv_durable_file::create(path, line.as_bytes(), KEY_FILE_MODE).map_err(io_error(path))?;
        Ok(root)
    }

    /// Reads a root key. A file that others may read is still taken, with a warning: refusing would lock people out of
    /// their data after a careless copy.
    pub fn load(path: &Path) -> Result<RootKey, KeyStoreError> {
        let metadata = fs::metadata(path).map_err(io_error(path))?;
        let mode = metadata.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), mode = format_args!("{:o}", mode & 0o777), "the root key file can be read by others; set its mode to 0600");
        }
        let malformed = |what| KeyStoreError::Format { path: path.to_owned(), what };
        if metadata.len() > ROOT_FILE_LEN_BYTES_MAX {
            return Err(malformed("it is too long"));
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(io_error(path))?);
        let words: Vec<&str> = text.split_whitespace().collect();
        let &[magic, format, version, hex] = words.as_slice() else {
            return Err(malformed("it needs four words"));
        };
        if (magic, format) != (ROOT_MAGIC, "1") {
            return Err(malformed("it does not start with \"valv-root-key 1\""));
        }
        let version = version.parse().map_err(|_| malformed("the version is not a number"))?;
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(hex, bytes.as_mut_slice())
            .map_err(|_| malformed("the key is not 64 hexadecimal digits"))?;
        Ok(RootKey::from_bytes(version, bytes.as_slice())?)
    }

    /// Reads the root key, or makes it if the file does not exist.
    pub fn load_or_create(path: &Path) -> Result<RootKey, KeyStoreError> {
        match Self::load(path) {
            Err(KeyStoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Self::create(path),
            other => other,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoreFile {
    format: u32,
    keys: Vec<StoredKey>,
}

/// One version of a project's key, wrapped by the root key.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredKey {
    project: ProjectId,
    version: u32,
    created_micros: TimestampMicros,
    /// Base64 of the wrap (`docs/format.md`, "Wrapped keys").
    wrapped: String,
}

type Keys = BTreeMap<(ProjectId, u32), StoredKey>;

/// The project keys. Reads are from memory; a change rewrites the file.
#[derive(Debug)]
pub struct KeyStore {
    path: PathBuf,
    root: RootKey,
    keys: RwLock<Arc<Keys>>,
    /// Held over a change, so that changes reach the disk one after the other.
    changing: Mutex<()>,
}

impl KeyStore {
    /// Opens the key store in `folder`, which is created if needed. Checks that `root` opens what is there.
    pub fn open(folder: &Path, root: RootKey) -> Result<Self, KeyStoreError> {
        fs::create_dir_all(folder).map_err(io_error(folder))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(io_error(folder))?;
        let path = folder.join(FILE_NAME);
        let keys = match fs::read(&path) {
            Ok(bytes) => parse(&path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Keys::new(),
            Err(error) => return Err(io_error(&path)(error)),
        };
        let store = Self { path, root, keys: RwLock::new(Arc::new(keys)), changing: Mutex::new(()) };
        let first = store.keys.read().keys().next().copied();
        if let Some((project, version)) = first {
            store.project_key(project, Some(version))?;
        }
        Ok(store)
    }

    /// The root key.
    pub fn root(&self) -> &RootKey {
        &self.root
    }

    /// A project's key: the given version, or the newest, which new data is sealed under.
    pub fn project_key(&self, project: ProjectId, version: Option<u32>) -> Result<ProjectKey, KeyStoreError> {
        let keys = Arc::clone(&self.keys.read());
        let found = match version {
            Some(version) => keys.get(&(project, version)),
            None => keys.range((project, 0)..=(project, u32::MAX)).next_back().map(|(_, key)| key),
        };
        let stored = found.ok_or(KeyStoreError::NoKey { project })?;
        let wrapped = self.wrapped(stored)?;
        Ok(self.root.unwrap_project_key(project, stored.version, &wrapped)?)
    }

    fn wrapped(&self, stored: &StoredKey) -> Result<Vec<u8>, KeyStoreError> {
        let malformed = || KeyStoreError::Format { path: self.path.clone(), what: "a wrapped key is not base64" };
        BASE64.decode(&stored.wrapped).map_err(|_| malformed())
    }

    /// The newest version of a project's key, if it has one.
    pub fn newest_version(&self, project: ProjectId) -> Option<u32> {
        self.keys.read().range((project, 0)..=(project, u32::MAX)).next_back().map(|((_, version), _)| *version)
    }

    /// Makes the project's first key unless it has one; durable when this returns. Blocks on disk.
    pub fn ensure_project_key(&self, project: ProjectId) -> Result<u32, KeyStoreError> {
        let _changing = self.changing.lock();
        match self.newest_version(project) {
            Some(version) => Ok(version),
            None => self.add(project, 1),
        }
    }

    /// Makes a new version of the project's key, under which new data is sealed from now on. Blocks on disk.
    pub fn rotate_project_key(&self, project: ProjectId) -> Result<u32, KeyStoreError> {
        let _changing = self.changing.lock();
        let newest = self.newest_version(project).ok_or(KeyStoreError::NoKey { project })?;
        self.add(project, newest + 1)
    }

    fn add(&self, project: ProjectId, version: u32) -> Result<u32, KeyStoreError> {
        let key = ProjectKey::generate(version)?;
        let wrapped = BASE64.encode(self.root.wrap_project_key(project, &key)?);
        let mut keys = Keys::clone(&self.keys.read());
        let stored = StoredKey { project, version, created_micros: TimestampMicros::now(), wrapped };
        keys.insert((project, version), stored);
        self.replace(keys)?;
        Ok(version)
    }

    /// Destroys all versions of a project's key: what was sealed under them can't be opened again. Durable when this
    /// returns; copies in backups of the key store live on until those die. Blocks on disk.
    pub fn shred(&self, project: ProjectId) -> Result<(), KeyStoreError> {
        let _changing = self.changing.lock();
        let mut keys = Keys::clone(&self.keys.read());
        keys.retain(|(owner, _), _| *owner != project);
        self.replace(keys)
    }

    /// Writes the file anew. A crash leaves the old or the new one.
    fn replace(&self, keys: Keys) -> Result<(), KeyStoreError> {
        let file = StoreFile { format: STORE_FORMAT, keys: keys.values().cloned().collect() };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| io_error(&self.path)(error.into()))?;
        valv_durable_file::replace(&self.path, &text, KEY_FILE_MODE).map_err(io_error(&self.path))?;
        *self.keys.write() = Arc::new(keys);
        Ok(())
    }

    /// The root key and all project keys in one file's text, sealed under `passphrase`. Takes some tenths of a second
    /// of processor time.
    pub fn backup(&self, cluster: ClusterId, passphrase: &[u8]) -> Result<String, KeyStoreError> {
        let file = StoreFile { format: STORE_FORMAT, keys: self.keys.read().values().cloned().collect() };
        let mut contents = BackupContents {
            cluster,
            root_version: self.root.version(),
            root_key: BASE64.encode(self.root.expose()),
            project_keys: file.keys,
        };
        let encoded = serde_json::to_vec(&contents).map(Zeroizing::new);
        contents.root_key.zeroize();
        let plain = encoded.map_err(|error| io_error(&self.path)(error.into()))?;
        let sealed = SealedBackup::seal(passphrase, BACKUP_CONTEXT.as_bytes(), &plain)?;
        let file = BackupFile {
            format: BACKUP_CONTEXT.to_owned(),
            kdf: "pbkdf2-hmac-sha256".to_owned(),
            iterations: sealed.iterations,
            salt: BASE64.encode(sealed.salt),
            cipher: "aes-256-gcm".to_owned(),
            nonce: BASE64.encode(sealed.nonce),
            sealed: BASE64.encode(&sealed.sealed),
        };
        serde_json::to_string_pretty(&file).map_err(|error| io_error(&self.path)(error.into()))
    }

    /// Opens a backup and writes its keys: the root key's file at `root_path`, and a key store in `folder`. Neither may
    /// hold keys already. Returns the cluster that the backup was made of.
    pub fn restore(text: &str, passphrase: &[u8], root_path: &Path, folder: &Path) -> Result<ClusterId, KeyStoreError> {
        let malformed = |what| KeyStoreError::Format { path: PathBuf::from("key backup"), what };
        let file: BackupFile = serde_json::from_str(text).map_err(|_| malformed("it is not a JSON key backup"))?;
        if file.format != BACKUP_CONTEXT || file.kdf != "pbkdf2-hmac-sha256" || file.cipher != "aes-256-gcm" {
            return Err(malformed("its algorithms are unknown"));
        }
        let base64 = |text: &str| BASE64.decode(text).map_err(|_| malformed("a field is not base64"));
        let sealed = SealedBackup {
            iterations: file.iterations,
            salt: base64(&file.salt)?.try_into().map_err(|_| malformed("the salt is not 16 bytes"))?,
            nonce: base64(&file.nonce)?.try_into().map_err(|_| malformed("the nonce is not 12 bytes"))?,
            sealed: base64(&file.sealed)?,
        };
        let plain = sealed.open(passphrase, BACKUP_CONTEXT.as_bytes())?;
        let mut contents: BackupContents =
            serde_json::from_slice(&plain).map_err(|_| malformed("its contents are not JSON"))?;
        let root_bytes = BASE64.decode(&contents.root_key).map(Zeroizing::new);
        contents.root_key.zeroize();
        let root_bytes = root_bytes.map_err(|_| malformed("the root key is not base64"))?;
        let root = RootKey::from_bytes(contents.root_version, &root_bytes)?;

        let store = Self::open(folder, root)?;
        let _changing = store.changing.lock();
        if !store.keys.read().is_empty() {
            return Err(KeyStoreError::Format { path: store.path.clone(), what: "it holds keys already" });
        }
        let hex = Zeroizing::new(hex::encode(root_bytes.as_slice()));
        let line = Zeroizing::new(format!("{ROOT_MAGIC} 1 {} {}\n", contents.root_version, hex.as_str()));
        valv_durable_file::create(root_path, line.as_bytes(), KEY_FILE_MODE).map_err(io_error(root_path))?;
        store.replace(contents.project_keys.into_iter().map(|key| ((key.project, key.version), key)).collect())?;
        Ok(contents.cluster)
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Keys, KeyStoreError> {
    let malformed = |what| KeyStoreError::Format { path: path.to_owned(), what };
    let file: StoreFile = serde_json::from_slice(bytes).map_err(|_| malformed("it is not a JSON key store"))?;
    if file.format != STORE_FORMAT {
        return Err(malformed("its format is unknown"));
    }
    Ok(file.keys.into_iter().map(|key| ((key.project, key.version), key)).collect())
}

#[derive(Serialize, Deserialize)]
struct BackupFile {
    format: String,
    kdf: String,
    iterations: u32,
    salt: String,
    cipher: String,
    nonce: String,
    sealed: String,
}

#[derive(Serialize, Deserialize)]
struct BackupContents {
    cluster: ClusterId,
    root_version: u32,
    root_key: String,
    project_keys: Vec<StoredKey>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_reopening_and_shredding_removes_them() {
        let folder = tempfile::tempdir().unwrap();
        let root_path = folder.path().join("root.key");
        let project = ProjectId::random();
        let root = RootKeyFile::load_or_create(&root_path).unwrap();
        assert_eq!(fs::metadata(&root_path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(RootKeyFile::create(&root_path).is_err(), "a root key is never overwritten");
        let store = KeyStore::open(&folder.path().join("keys"), root).unwrap();
        assert_eq!(store.ensure_project_key(project).unwrap(), 1);
        assert_eq!(store.ensure_project_key(project).unwrap(), 1);
        assert_eq!(store.rotate_project_key(project).unwrap(), 2);
        let first = *store.project_key(project, Some(1)).unwrap().expose();

        let root = RootKeyFile::load(&root_path).unwrap();
        let again = KeyStore::open(&folder.path().join("keys"), root).unwrap();
        assert_eq!(*again.project_key(project, Some(1)).unwrap().expose(), first);
        assert_eq!(again.project_key(project, None).unwrap().version(), 2);
        again.shred(project).unwrap();
        assert!(matches!(again.project_key(project, Some(1)), Err(KeyStoreError::NoKey { .. })));
    }

    #[test]
    fn another_root_key_does_not_open_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = KeyStore::open(folder.path(), RootKey::generate(1).unwrap()).unwrap();
        store.ensure_project_key(ProjectId::random()).unwrap();
        assert!(KeyStore::open(folder.path(), RootKey::generate(1).unwrap()).is_err());
    }

    #[test]
    fn a_backup_restores_all_keys_and_is_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, project) = (ClusterId::random(), ProjectId::random());
        let store = KeyStore::open(&folder.path().join("a"), RootKey::generate(1).unwrap()).unwrap();
        store.ensure_project_key(project).unwrap();
        let text = store.backup(cluster, b"pass").unwrap();
        assert!(!text.contains(&hex::encode(store.root().expose())));
        assert!(!text.contains(&BASE64.encode(store.root().expose())));

        let (root_path, keys) = (folder.path().join("root.key"), folder.path().join("b"));
        assert!(KeyStore::restore(&text, b"wrong", &root_path, &keys).is_err());
        assert_eq!(KeyStore::restore(&text, b"pass", &root_path, &keys).unwrap(), cluster);
        let restored = KeyStore::open(&keys, RootKeyFile::load(&root_path).unwrap()).unwrap();
        let expected = store.project_key(project, None).unwrap();
        assert_eq!(restored.project_key(project, None).unwrap().expose(), expected.expose());
    }
}
