//! The key store: the root key's file, and the system's and the projects' keys wrapped by it. It is never part of the
//! MetaStore, so no export, mirror or backup of metadata contains a project key. It also remembers which keys were
//! destroyed on purpose, so that older metadata, put back, does not bring anything back with it.
//!
//! Durability: a new key is on disk (file and folder synced) before it is used for anything. The files and the backup
//! are specified in `docs/format-metadata.md`.

mod backup;
mod root;

pub use root::{ROOT_KEY_FILE, RootHome, RootKeyFile, SEALED_ROOT_KEY_FILE, SealMethod, SealedRootKey, destroy_file};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use valv_codec::{KeyError, ProjectKey, RootKey, ShareError, SplitError, SystemKey};
use valv_types::{BlobId, ProjectId, TimestampMicros};

/// Format of the key store's file.
const STORE_FORMAT: u32 = 2;
/// The format that had no system key: the root key's bytes served as one.
const STORE_FORMAT_WITHOUT_SYSTEM: u32 = 1;
/// Most blobs whose keys were destroyed one by one: the file, which is rewritten for each act, stays below 50 MB.
const SHREDDED_BLOBS_MAX: usize = 1_000_000;
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
    /// The project's keys were destroyed on purpose: it gets no other.
    #[error("the keys of project {project} were destroyed")]
    Shredded {
        /// The project.
        project: ProjectId,
    },
    /// More blobs than the list of destroyed ones takes.
    #[error("the list of destroyed keys is full: it takes {SHREDDED_BLOBS_MAX} blobs")]
    Full,
    /// The store was opened without knowing where its root key lies, or is a copy.
    #[error("the root key can't be replaced here")]
    NoRootHome,
    /// A key does not open.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Shares don't fit.
    #[error(transparent)]
    Share(#[from] ShareError),
}

impl From<SplitError> for KeyStoreError {
    fn from(error: SplitError) -> Self {
        match error {
            SplitError::Shares(error) => Self::Share(error),
            SplitError::Key(error) => Self::Key(error),
        }
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> KeyStoreError + '_ {
    move |source| KeyStoreError::Io { path: path.to_owned(), source }
}

/// The file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoreFile {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system: Option<StoredSystemKey>,
    keys: Vec<StoredKey>,
    #[serde(default)]
    shredded_projects: Vec<ShreddedProject>,
    #[serde(default)]
    shredded_blobs: Vec<BlobId>,
}

/// The system key, wrapped by the root key.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredSystemKey {
    version: u32,
    created_micros: TimestampMicros,
    #[serde(flatten)]
    wraps: Wraps,
}

/// One version of a project's key, wrapped by the root key.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredKey {
    project: ProjectId,
    version: u32,
    created_micros: TimestampMicros,
    #[serde(flatten)]
    wraps: Wraps,
}

/// A key under the root key, and, while that is being replaced, under the next one, too.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Wraps {
    /// Base64 of the wrap (`docs/format.md`, "Wrapped keys").
    wrapped: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Wraps {
    fn new(wrapped: Vec<u8>) -> Self {
        Self { wrapped: BASE64.encode(wrapped), next: None }
    }

    /// Keeps the one that this root key made. `None` if it made none.
    fn settle(self, root: &RootKey) -> Option<Self> {
        let made = |text: &str| {
            let wrapped = BASE64.decode(text).ok()?;
            (valv_codec::wrapped_data_key_version(&wrapped).ok()? == root.version()).then_some(())
        };
        match self.next {
            Some(next) if made(&next).is_some() => Some(Self { wrapped: next, next: None }),
            _ => made(&self.wrapped).map(|()| Self { wrapped: self.wrapped, next: None }),
        }
    }
}

/// A project whose keys were destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShreddedProject {
    /// Which one.
    pub project: ProjectId,
    /// When, in microseconds.
    pub at_micros: TimestampMicros,
    /// What there was of it.
    pub keys: Vec<ShreddedKey>,
}

/// A version of a project's key that is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShreddedKey {
    /// The version.
    pub version: u32,
    /// By what it is known: 32 hexadecimal digits that follow from the key.
    pub fingerprint: String,
}

/// A version of a project's key, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyVersion {
    /// The version; the highest is that of new data.
    pub version: u32,
    /// When it was made.
    pub created: TimestampMicros,
    /// By what it is known: 32 hexadecimal digits.
    pub fingerprint: String,
}

type Keys = BTreeMap<(ProjectId, u32), StoredKey>;

/// Everything in memory; a change makes another one.
#[derive(Debug, Clone)]
struct Contents {
    root: RootKey,
    system: StoredSystemKey,
    keys: Keys,
    shredded_projects: BTreeMap<ProjectId, ShreddedProject>,
    shredded_blobs: HashSet<BlobId>,
}

/// The keys. Reads are from memory; a change rewrites the file.
#[derive(Debug)]
pub struct KeyStore {
    path: PathBuf,
    system: SystemKey,
    contents: RwLock<Arc<Contents>>,
    /// Where the root key lies; also held over a change, so that changes reach the disk one after the other.
    changing: Mutex<Option<RootHome>>,
}

impl KeyStore {
    /// Opens the key store in `folder`, which is created if needed. Checks that `root` opens what is there. A replacement
    /// of the root key that was interrupted is finished, or undone, by which root key was given.
    pub fn open(folder: &Path, root: RootKey) -> Result<Self, KeyStoreError> {
        fs::create_dir_all(folder).map_err(io_error(folder))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(io_error(folder))?;
        let path = folder.join(FILE_NAME);
        let file = match fs::read(&path) {
            Ok(bytes) => Some(parse(&path, &bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error(&path)(error)),
        };
        Self::with_file(path, root, file)
    }

    fn with_file(path: PathBuf, root: RootKey, file: Option<StoreFile>) -> Result<Self, KeyStoreError> {
        let other_root = || KeyStoreError::Format { path: path.clone(), what: "another root key wraps its keys" };
        let is_interrupted = file.as_ref().is_some_and(StoreFile::is_interrupted);
        let (mut is_changed, system, system_key) = match file.as_ref().and_then(|file| file.system.clone()) {
            Some(mut stored) => {
                stored.wraps = stored.wraps.settle(&root).ok_or_else(other_root)?;
                let key = root.unwrap_system_key(stored.version, &decode(&path, &stored.wraps)?)?;
                (is_interrupted, stored, key)
            }
            None => {
                // A cluster that was made before there was a system key goes on with the one it had: its root key.
                let key = if file.is_some() { root.as_system_key() } else { SystemKey::generate(1)? };
                let wraps = Wraps::new(root.wrap_system_key(&key)?);
                let stored = StoredSystemKey { version: 1, created_micros: TimestampMicros::now(), wraps };
                (true, stored, key)
            }
        };
        let mut keys = Keys::new();
        let (mut shredded_projects, mut shredded_blobs) = (BTreeMap::new(), HashSet::new());
        if let Some(file) = file {
            for mut stored in file.keys {
                stored.wraps = stored.wraps.settle(&root).ok_or_else(other_root)?;
                keys.insert((stored.project, stored.version), stored);
            }
            shredded_projects = file.shredded_projects.into_iter().map(|entry| (entry.project, entry)).collect();
            shredded_blobs = file.shredded_blobs.into_iter().collect();
            // What was destroyed stays so, also where a copy from before it was put back over this file by halves.
            let before = keys.len();
            keys.retain(|(project, _), _| !shredded_projects.contains_key(project));
            is_changed |= keys.len() != before;
        }
        let contents = Contents { root, system, keys, shredded_projects, shredded_blobs };
        let first = contents.keys.keys().next().copied();
        let store =
            Self { path, system: system_key, contents: RwLock::new(Arc::new(contents)), changing: Mutex::new(None) };
        if let Some((project, version)) = first {
            store.project_key(project, Some(version))?;
        }
        if is_changed {
            let contents = Contents::clone(&store.contents());
            store.replace(contents)?;
        }
        Ok(store)
    }

    /// The store, told where its root key lies: from then on that can be replaced.
    pub fn with_root_home(self, home: RootHome) -> Self {
        *self.changing.lock() = Some(home);
        self
    }

    fn contents(&self) -> Arc<Contents> {
        Arc::clone(&self.contents.read())
    }

    /// What the system's own records are sealed under.
    pub fn system(&self) -> &SystemKey {
        &self.system
    }

    /// The root key's version.
    pub fn root_version(&self) -> u32 {
        self.contents.read().root.version()
    }

    /// How the root key is kept, in one word.
    pub fn root_seal(&self) -> &'static str {
        self.changing.lock().as_ref().map_or("elsewhere", RootHome::name)
    }

    /// A project's key: the given version, or the newest, which new data is sealed under.
    pub fn project_key(&self, project: ProjectId, version: Option<u32>) -> Result<ProjectKey, KeyStoreError> {
        let contents = self.contents();
        let found = match version {
            Some(version) => contents.keys.get(&(project, version)),
            None => contents.keys.range((project, 0)..=(project, u32::MAX)).next_back().map(|(_, key)| key),
        };
        let Some(stored) = found else {
            return Err(match contents.shredded_projects.contains_key(&project) {
                true => KeyStoreError::Shredded { project },
                false => KeyStoreError::NoKey { project },
            });
        };
        let wrapped = decode(&self.path, &stored.wraps)?;
        Ok(contents.root.unwrap_project_key(project, stored.version, &wrapped)?)
    }

    /// The newest version of a project's key, if it has one.
    pub fn newest_version(&self, project: ProjectId) -> Option<u32> {
        newest_version(&self.contents.read().keys, project)
    }

    /// Whether the project's keys were destroyed.
    pub fn shredded(&self, project: ProjectId) -> Option<ShreddedProject> {
        self.contents.read().shredded_projects.get(&project).cloned()
    }

    /// Whether the key of this blob was destroyed by itself.
    pub fn is_blob_shredded(&self, blob: BlobId) -> bool {
        let contents = self.contents.read();
        !contents.shredded_blobs.is_empty() && contents.shredded_blobs.contains(&blob)
    }

    /// The versions of a project's key that there are, oldest first.
    pub fn versions(&self, project: ProjectId) -> Result<Vec<KeyVersion>, KeyStoreError> {
        let contents = self.contents();
        let stored = contents.keys.range((project, 0)..=(project, u32::MAX));
        stored
            .map(|((_, version), stored)| {
                let key = self.project_key(project, Some(*version))?;
                let fingerprint = hex::encode(key.fingerprint(project));
                Ok(KeyVersion { version: *version, created: stored.created_micros, fingerprint })
            })
            .collect()
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
        let mut contents = Contents::clone(&self.contents());
        if contents.shredded_projects.contains_key(&project) {
            return Err(KeyStoreError::Shredded { project });
        }
        let key = ProjectKey::generate(version)?;
        let wraps = Wraps::new(contents.root.wrap_project_key(project, &key)?);
        let stored = StoredKey { project, version, created_micros: TimestampMicros::now(), wraps };
        contents.keys.insert((project, version), stored);
        self.replace(contents)?;
        Ok(version)
    }

    /// Removes the versions of a project's key before `version`, which must be there: nothing may refer to them any more.
    /// Returns which. Blocks on disk.
    pub fn retire_before(&self, project: ProjectId, version: u32) -> Result<Vec<u32>, KeyStoreError> {
        let _changing = self.changing.lock();
        let mut contents = Contents::clone(&self.contents());
        if !contents.keys.contains_key(&(project, version)) {
            return Err(KeyStoreError::NoKey { project });
        }
        let old: Vec<u32> = contents.keys.range((project, 0)..(project, version)).map(|((_, old), _)| *old).collect();
        if !old.is_empty() {
            old.iter().for_each(|old| drop(contents.keys.remove(&(project, *old))));
            self.replace(contents)?;
        }
        Ok(old)
    }

    /// Destroys all versions of a project's key: what was sealed under them can't be opened again, and the project never
    /// gets another. Durable when this returns; copies in backups of the key store live on until those die. Calling it
    /// again tells what was destroyed the first time. Blocks on disk.
    pub fn shred(&self, project: ProjectId) -> Result<ShreddedProject, KeyStoreError> {
        let _changing = self.changing.lock();
        let mut contents = Contents::clone(&self.contents());
        if let Some(done) = contents.shredded_projects.get(&project) {
            return Ok(done.clone());
        }
        let keys = self.versions(project)?;
        let keys = keys.into_iter().map(|key| ShreddedKey { version: key.version, fingerprint: key.fingerprint });
        let entry = ShreddedProject { project, at_micros: TimestampMicros::now(), keys: keys.collect() };
        contents.keys.retain(|(owner, _), _| *owner != project);
        contents.shredded_projects.insert(project, entry.clone());
        self.replace(contents)?;
        Ok(entry)
    }

    /// Remembers that the keys of these blobs were destroyed: no wrap of theirs, from wherever it may come back, is used
    /// again. Durable when this returns. Blocks on disk.
    pub fn shred_blobs(&self, blobs: &[BlobId]) -> Result<(), KeyStoreError> {
        let _changing = self.changing.lock();
        let mut contents = Contents::clone(&self.contents());
        contents.shredded_blobs.extend(blobs);
        if contents.shredded_blobs.len() > SHREDDED_BLOBS_MAX {
            return Err(KeyStoreError::Full);
        }
        self.replace(contents)
    }

    /// Replaces the root key: every key is wrapped anew, and nothing else changes. Readers go on throughout. A crash leaves
    /// the old root key or the new one in force, and the next [`Self::open`] cleans up. Returns the new version. Blocks on
    /// disk.
    pub fn rotate_root(&self) -> Result<u32, KeyStoreError> {
        let changing = self.changing.lock();
        let home = changing.as_ref().ok_or(KeyStoreError::NoRootHome)?;
        let old = self.contents();
        let root = RootKey::generate(old.root.version().saturating_add(1))?;
        let mut both = Contents::clone(&old);
        both.system.wraps.next = Some(BASE64.encode(root.wrap_system_key(&self.system)?));
        for ((project, version), stored) in &mut both.keys {
            let key = old.root.unwrap_project_key(*project, *version, &decode(&self.path, &stored.wraps)?)?;
            stored.wraps.next = Some(BASE64.encode(root.wrap_project_key(*project, &key)?));
        }
        let mut after = Contents::clone(&both);
        // First both wraps, then the root key, then one wrap: whichever root key a crash leaves opens every key.
        self.replace(both)?;
        home.store(&root)?;
        let settle = |wraps: &Wraps| {
            let what = "another root key wraps its keys";
            wraps.clone().settle(&root).ok_or_else(|| KeyStoreError::Format { path: self.path.clone(), what })
        };
        after.system.wraps = settle(&after.system.wraps)?;
        for stored in after.keys.values_mut() {
            stored.wraps = settle(&stored.wraps)?;
        }
        let version = root.version();
        after.root = root;
        self.replace(after)?;
        Ok(version)
    }

    /// Writes the file anew, and overwrites the old one. A crash leaves the old or the new one.
    fn replace(&self, contents: Contents) -> Result<(), KeyStoreError> {
        let text = serde_json::to_vec_pretty(&contents.file()).map_err(|error| io_error(&self.path)(error.into()))?;
        root::replace_and_wipe(&self.path, &text)?;
        *self.contents.write() = Arc::new(contents);
        Ok(())
    }
}

impl StoreFile {
    /// Whether a replacement of the root key was under way.
    fn is_interrupted(&self) -> bool {
        let system = self.system.as_ref().is_some_and(|system| system.wraps.next.is_some());
        system || self.keys.iter().any(|key| key.wraps.next.is_some())
    }
}

impl Contents {
    fn file(&self) -> StoreFile {
        let mut shredded_blobs: Vec<BlobId> = self.shredded_blobs.iter().copied().collect();
        shredded_blobs.sort_unstable();
        StoreFile {
            format: STORE_FORMAT,
            system: Some(self.system.clone()),
            keys: self.keys.values().cloned().collect(),
            shredded_projects: self.shredded_projects.values().cloned().collect(),
            shredded_blobs,
        }
    }
}

fn newest_version(keys: &Keys, project: ProjectId) -> Option<u32> {
    keys.range((project, 0)..=(project, u32::MAX)).next_back().map(|((_, version), _)| *version)
}

fn decode(path: &Path, wraps: &Wraps) -> Result<Vec<u8>, KeyStoreError> {
    let malformed = || KeyStoreError::Format { path: path.to_owned(), what: "a wrapped key is not base64" };
    BASE64.decode(&wraps.wrapped).map_err(|_| malformed())
}

fn parse(path: &Path, bytes: &[u8]) -> Result<StoreFile, KeyStoreError> {
    let malformed = |what| KeyStoreError::Format { path: path.to_owned(), what };
    let file: StoreFile = serde_json::from_slice(bytes).map_err(|_| malformed("it is not a JSON key store"))?;
    match (file.format, &file.system) {
        (STORE_FORMAT, Some(_)) | (STORE_FORMAT_WITHOUT_SYSTEM, None) => Ok(file),
        (STORE_FORMAT | STORE_FORMAT_WITHOUT_SYSTEM, _) => Err(malformed("it lacks its system key")),
        _ => Err(malformed("its format is unknown")),
    }
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
        let shredded = again.shred(project).unwrap();
        assert_eq!(shredded.keys.iter().map(|key| key.version).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(again.shred(project).unwrap(), shredded);
        assert!(matches!(again.project_key(project, Some(1)), Err(KeyStoreError::Shredded { .. })));
        // It stays so, over a restart too, and the project gets no other key.
        let root = RootKeyFile::load(&root_path).unwrap();
        let again = KeyStore::open(&folder.path().join("keys"), root).unwrap();
        assert!(matches!(again.ensure_project_key(project), Err(KeyStoreError::Shredded { .. })));
        assert_eq!(again.shredded(project), Some(shredded));
        assert!(matches!(again.project_key(ProjectId::random(), None), Err(KeyStoreError::NoKey { .. })));
    }

    #[test]
    fn old_versions_are_retired_and_destroyed_blobs_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let (root, project) = (RootKey::generate(1).unwrap(), ProjectId::random());
        let store = KeyStore::open(folder.path(), root.clone()).unwrap();
        store.ensure_project_key(project).unwrap();
        store.rotate_project_key(project).unwrap();
        assert_eq!(store.rotate_project_key(project).unwrap(), 3);
        assert!(store.retire_before(project, 4).is_err(), "a version that is not there");
        assert_eq!(store.retire_before(project, 3).unwrap(), [1, 2]);
        assert!(store.retire_before(project, 3).unwrap().is_empty());
        assert_eq!(store.versions(project).unwrap().len(), 1);
        let blob = BlobId::new(valv_types::IncarnationId(1), 7);
        assert!(!store.is_blob_shredded(blob));
        store.shred_blobs(&[blob]).unwrap();
        let again = KeyStore::open(folder.path(), root).unwrap();
        assert!(again.is_blob_shredded(blob));
        assert_eq!(again.newest_version(project), Some(3));
    }

    #[test]
    fn the_root_key_is_replaced_and_everything_under_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (root_path, keys) = (folder.path().join("root.key"), folder.path().join("keys"));
        let root = RootKeyFile::create(&root_path).unwrap();
        let store = KeyStore::open(&keys, root.clone()).unwrap();
        assert!(matches!(store.rotate_root(), Err(KeyStoreError::NoRootHome)));
        let store = store.with_root_home(RootHome::Plain(root_path.clone()));
        let project = ProjectId::random();
        store.ensure_project_key(project).unwrap();
        let (system, key) = (*store.system().expose(), *store.project_key(project, None).unwrap().expose());
        assert_eq!(store.rotate_root().unwrap(), 2);
        assert_eq!(*store.project_key(project, None).unwrap().expose(), key);
        assert_eq!(store.rotate_root().unwrap(), 3);
        store.rotate_project_key(project).unwrap();
        let new = RootKeyFile::load(&root_path).unwrap();
        assert_eq!(new.version(), 3);
        assert!(KeyStore::open(&keys, root).is_err(), "the old root key opens nothing any more");
        let again = KeyStore::open(&keys, new).unwrap();
        assert_eq!(*again.project_key(project, Some(1)).unwrap().expose(), key);
        assert_eq!(*again.system().expose(), system);
    }

    #[test]
    fn a_crash_at_any_step_of_replacing_the_root_key_leaves_one_that_opens_everything() {
        let folder = tempfile::tempdir().unwrap();
        let (root_path, keys) = (folder.path().join("root.key"), folder.path().join("keys"));
        let old = RootKeyFile::create(&root_path).unwrap();
        let store = KeyStore::open(&keys, old.clone()).unwrap();
        let project = ProjectId::random();
        store.ensure_project_key(project).unwrap();
        let key = *store.project_key(project, None).unwrap().expose();
        // The root key can't be stored: what is on disk then is what a crash right before leaves.
        let store = store.with_root_home(RootHome::Plain(folder.path().join("missing").join("root.key")));
        assert!(store.rotate_root().is_err());
        assert_eq!(*store.project_key(project, None).unwrap().expose(), key);
        let between = fs::read(keys.join(FILE_NAME)).unwrap();
        assert!(parse(&keys, &between).unwrap().is_interrupted());
        let undone = KeyStore::open(&keys, old.clone()).unwrap();
        assert_eq!(*undone.project_key(project, None).unwrap().expose(), key);
        assert!(!parse(&keys, &fs::read(keys.join(FILE_NAME)).unwrap()).unwrap().is_interrupted());
        // After the root key was stored: the same file, and the new root key.
        let store = undone.with_root_home(RootHome::Plain(root_path.clone()));
        let mut both = Contents::clone(&store.contents());
        let new = RootKey::generate(2).unwrap();
        both.system.wraps.next = Some(BASE64.encode(new.wrap_system_key(store.system()).unwrap()));
        let stored = both.keys.get_mut(&(project, 1)).unwrap();
        let moved = new.wrap_project_key(project, &ProjectKey::from_bytes(1, &key).unwrap()).unwrap();
        stored.wraps.next = Some(BASE64.encode(moved));
        store.replace(both).unwrap();
        let finished = KeyStore::open(&keys, new).unwrap();
        assert_eq!(*finished.project_key(project, None).unwrap().expose(), key);
        assert!(KeyStore::open(&keys, old).is_err());
    }

    #[test]
    fn a_store_from_before_the_system_key_goes_on_with_its_root_key() {
        let folder = tempfile::tempdir().unwrap();
        let (root, project) = (RootKey::generate(1).unwrap(), ProjectId::random());
        let key = ProjectKey::generate(1).unwrap();
        let wrapped = BASE64.encode(root.wrap_project_key(project, &key).unwrap());
        let old = serde_json::json!({"format": 1, "keys": [
            {"project": project, "version": 1, "created_micros": 5, "wrapped": wrapped},
        ]});
        fs::write(folder.path().join(FILE_NAME), old.to_string()).unwrap();
        let store = KeyStore::open(folder.path(), root.clone()).unwrap();
        assert_eq!(store.system().expose(), root.expose());
        assert_eq!(store.project_key(project, None).unwrap().expose(), key.expose());
        let again = KeyStore::open(folder.path(), root.clone()).unwrap();
        assert_eq!(again.system().expose(), root.expose());
        // A file of the new format without one is damaged, and no reason to make another.
        let mut file: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.path().join(FILE_NAME)).unwrap()).unwrap();
        file.as_object_mut().unwrap().remove("system");
        fs::write(folder.path().join(FILE_NAME), file.to_string()).unwrap();
        assert!(KeyStore::open(folder.path(), root).is_err());
    }

    #[test]
    fn another_root_key_does_not_open_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = KeyStore::open(folder.path(), RootKey::generate(1).unwrap()).unwrap();
        store.ensure_project_key(ProjectId::random()).unwrap();
        assert!(KeyStore::open(folder.path(), RootKey::generate(1).unwrap()).is_err());
    }
}
