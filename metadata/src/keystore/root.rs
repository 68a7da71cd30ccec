//! Where the root key lies: a plain file, or one that is sealed under a passphrase or under shares.
//!
//! A folder has `root.key`, `root.key.sealed`, or, after a crash in the middle of sealing, both: then the sealed one counts,
//! since the plain one is removed only after the sealed one was read back.

use super::{KEY_FILE_MODE, KeyStoreError, io_error};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use valv_codec::{KeyError, RootKey, SEALING_ITERATIONS, SealingKey, Share, ShareSet};
use zeroize::Zeroizing;

/// First word of the root key's file.
const ROOT_MAGIC: &str = "valv-root-key";
/// The longest root key file: the line is some 90 bytes, a sealed one some 500.
const ROOT_FILE_LEN_BYTES_MAX: u64 = 4096;
/// Names a sealed root key, and is authenticated with it.
const SEALED_FORMAT: &str = "valv sealed root key v1";
const PASSPHRASE: &str = "passphrase";
const SHARES: &str = "shares";
const KDF: &str = "pbkdf2-hmac-sha256";
/// The plain file's name in a data folder.
pub const ROOT_KEY_FILE: &str = "root.key";
/// The sealed file's name in a data folder.
pub const SEALED_ROOT_KEY_FILE: &str = "root.key.sealed";

/// The file that holds the root key: one line `valv-root-key 1 VERSION HEX`, readable by its owner only.
#[derive(Debug)]
pub struct RootKeyFile;

fn line_of(root: &RootKey) -> Zeroizing<String> {
    let hex = Zeroizing::new(hex::encode(root.expose()));
    Zeroizing::new(format!("{ROOT_MAGIC} 1 {} {}\n", root.version(), hex.as_str()))
}

impl RootKeyFile {
    /// Makes a new root key and its file (mode 0600), durably. Fails if the file exists.
    pub fn create(path: &Path) -> Result<RootKey, KeyStoreError> {
        let root = RootKey::generate(1)?;
        Self::write(path, &root)?;
        Ok(root)
    }

    /// Writes the file of a root key, durably. Fails if the file exists.
    pub fn write(path: &Path, root: &RootKey) -> Result<(), KeyStoreError> {
        valv_durable_file::create(path, line_of(root).as_bytes(), KEY_FILE_MODE).map_err(io_error(path))
    }

    /// Reads a root key. A file that others may read is still taken, with a warning: refusing would lock people out of
    /// their data after a careless copy.
    pub fn load(path: &Path) -> Result<RootKey, KeyStoreError> {
        let text = read_small(path)?;
        let malformed = |what| KeyStoreError::Format { path: path.to_owned(), what };
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

fn read_small(path: &Path) -> Result<Zeroizing<String>, KeyStoreError> {
    let metadata = fs::metadata(path).map_err(io_error(path))?;
    let mode = metadata.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format_args!("{:o}", mode & 0o777), "the root key file can be read by others; set its mode to 0600");
    }
    if metadata.len() > ROOT_FILE_LEN_BYTES_MAX {
        return Err(KeyStoreError::Format { path: path.to_owned(), what: "it is too long" });
    }
    Ok(Zeroizing::new(fs::read_to_string(path).map_err(io_error(path))?))
}

/// How a root key is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealMethod {
    /// By a passphrase.
    Passphrase {
        /// PBKDF2 salt.
        salt: [u8; 16],
        /// PBKDF2 iterations.
        iterations: u32,
    },
    /// By a key that lies in shares.
    Shares {
        /// Which set of shares.
        set: ShareSet,
        /// How many are needed.
        threshold: u8,
        /// How many there are.
        count: u8,
    },
}

impl SealMethod {
    /// What is authenticated with the sealed key: the format, a zero byte, and what only fits this seal.
    fn context(&self) -> Vec<u8> {
        let mut out = SEALED_FORMAT.as_bytes().to_vec();
        out.push(0);
        match self {
            Self::Passphrase { salt, iterations } => {
                out.extend_from_slice(PASSPHRASE.as_bytes());
                out.extend_from_slice(salt);
                out.extend_from_slice(&iterations.to_be_bytes());
            }
            Self::Shares { set, threshold, count } => {
                out.extend_from_slice(SHARES.as_bytes());
                out.extend_from_slice(&set.0);
                out.extend_from_slice(&[*threshold, *count]);
            }
        }
        out
    }
}

/// The sealed file as it stands on disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedFile {
    format: String,
    root_version: u32,
    method: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kdf: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iterations: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    set: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shares: Option<u8>,
    sealed: String,
}

/// A sealed root key, closed.
#[derive(Debug, Clone)]
pub struct SealedRootKey {
    path: PathBuf,
    /// How it is sealed.
    pub method: SealMethod,
    version: u32,
    sealed: Vec<u8>,
}

impl SealedRootKey {
    /// Reads the file. `None` if there is none.
    pub fn load(path: &Path) -> Result<Option<Self>, KeyStoreError> {
        let text = match read_small(path) {
            Ok(text) => text,
            Err(KeyStoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let malformed = |what| KeyStoreError::Format { path: path.to_owned(), what };
        let file: SealedFile = serde_json::from_str(&text).map_err(|_| malformed("it is not a sealed root key"))?;
        if file.format != SEALED_FORMAT {
            return Err(malformed("its format is unknown"));
        }
        let method = match file.method.as_str() {
            PASSPHRASE if file.kdf.as_deref() == Some(KDF) => {
                let salt = file.salt.and_then(|text| BASE64.decode(text).ok()).and_then(|salt| salt.try_into().ok());
                let salt = salt.ok_or_else(|| malformed("the salt is not 16 bytes"))?;
                let iterations = file.iterations.ok_or_else(|| malformed("the iterations are missing"))?;
                SealMethod::Passphrase { salt, iterations }
            }
            SHARES => {
                let mut set = [0; 8];
                let text = file.set.unwrap_or_default();
                hex::decode_to_slice(&text, &mut set).map_err(|_| malformed("the set is not 16 digits"))?;
                let (Some(threshold), Some(count)) = (file.threshold, file.shares) else {
                    return Err(malformed("threshold or number of shares is missing"));
                };
                SealMethod::Shares { set: ShareSet(set), threshold, count }
            }
            _ => return Err(malformed("it is sealed in an unknown way")),
        };
        let sealed = BASE64.decode(&file.sealed).map_err(|_| malformed("the sealed key is not base64"))?;
        Ok(Some(Self { path: path.to_owned(), method, version: file.root_version, sealed }))
    }

    /// Opens it with a passphrase. Takes a fraction of a second of processor time.
    ///
    /// # Errors
    /// [`KeyError::Mismatch`] for a wrong passphrase.
    pub fn open_with_passphrase(&self, passphrase: &[u8]) -> Result<(RootKey, RootHome), KeyStoreError> {
        let SealMethod::Passphrase { salt, iterations } = &self.method else {
            return Err(KeyStoreError::Format { path: self.path.clone(), what: "it is sealed by shares" });
        };
        self.open(SealingKey::from_passphrase(passphrase, salt, *iterations)?)
    }

    /// Opens it with shares.
    ///
    /// # Errors
    /// [`KeyStoreError::Share`] for shares that are too few or of another set, [`KeyError::Mismatch`] for forged ones.
    pub fn open_with_shares(&self, shares: &[Share]) -> Result<(RootKey, RootHome), KeyStoreError> {
        let SealMethod::Shares { set, .. } = self.method else {
            return Err(KeyStoreError::Format { path: self.path.clone(), what: "it is sealed by a passphrase" });
        };
        if shares.iter().any(|share| share.set() != set) {
            return Err(KeyStoreError::Share(valv_codec::ShareError::OtherSet));
        }
        self.open(SealingKey::combine(shares)?)
    }

    fn open(&self, key: SealingKey) -> Result<(RootKey, RootHome), KeyStoreError> {
        let root = key.open_root(&self.method.context(), self.version, &self.sealed)?;
        Ok((root, RootHome::Sealed { path: self.path.clone(), method: self.method, key }))
    }
}

/// Where a root key is kept, with what writing a new one there needs.
#[derive(Debug, Clone)]
pub enum RootHome {
    /// In the clear, in this file.
    Plain(PathBuf),
    /// Sealed.
    Sealed {
        /// The file.
        path: PathBuf,
        /// How.
        method: SealMethod,
        /// What seals it.
        key: SealingKey,
    },
}

impl RootHome {
    /// A new home under a passphrase. Takes a fraction of a second of processor time.
    pub fn with_passphrase(path: &Path, passphrase: &[u8]) -> Result<Self, KeyStoreError> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|_| KeyError::NoRandomness)?;
        let key = SealingKey::from_passphrase(passphrase, &salt, SEALING_ITERATIONS)?;
        let method = SealMethod::Passphrase { salt, iterations: SEALING_ITERATIONS };
        Ok(Self::Sealed { path: path.to_owned(), method, key })
    }

    /// A new home under shares, and the shares.
    pub fn with_shares(path: &Path, threshold: u8, count: u8) -> Result<(Self, Vec<Share>), KeyStoreError> {
        let key = SealingKey::generate()?;
        let shares = key.split(threshold, count)?;
        let set = shares.first().map(Share::set).ok_or(valv_codec::ShareError::Counts)?;
        let method = SealMethod::Shares { set, threshold, count };
        Ok((Self::Sealed { path: path.to_owned(), method, key }, shares))
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Plain(path) | Self::Sealed { path, .. } => path,
        }
    }

    /// In one word, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Plain(_) => "plain",
            Self::Sealed { method: SealMethod::Passphrase { .. }, .. } => PASSPHRASE,
            Self::Sealed { method: SealMethod::Shares { .. }, .. } => SHARES,
        }
    }

    fn contents(&self, root: &RootKey) -> Result<Zeroizing<String>, KeyStoreError> {
        let Self::Sealed { path, method, key } = self else { return Ok(line_of(root)) };
        let sealed = BASE64.encode(key.seal_root(&method.context(), root)?);
        let mut file = SealedFile {
            format: SEALED_FORMAT.to_owned(),
            root_version: root.version(),
            method: self.name().to_owned(),
            kdf: None,
            iterations: None,
            salt: None,
            set: None,
            threshold: None,
            shares: None,
            sealed,
        };
        match method {
            SealMethod::Passphrase { salt, iterations } => {
                file.kdf = Some(KDF.to_owned());
                file.iterations = Some(*iterations);
                file.salt = Some(BASE64.encode(salt));
            }
            SealMethod::Shares { set, threshold, count } => {
                file.set = Some(set.to_string());
                file.threshold = Some(*threshold);
                file.shares = Some(*count);
            }
        }
        let text = serde_json::to_string_pretty(&file).map_err(|error| io_error(path)(error.into()))?;
        Ok(Zeroizing::new(text + "\n"))
    }

    /// Puts `root` here, in place of another one that may be here, which is overwritten. Durable when this returns, and
    /// read back. A crash leaves the old or the new one. Blocks on disk.
    pub fn store(&self, root: &RootKey) -> Result<(), KeyStoreError> {
        replace_and_wipe(self.path(), self.contents(root)?.as_bytes())?;
        let found = match self {
            Self::Plain(path) => RootKeyFile::load(path)?,
            Self::Sealed { path, key, .. } => {
                let gone = || KeyStoreError::Format { path: path.clone(), what: "it is not what was written" };
                SealedRootKey::load(path)?.ok_or_else(gone)?.open(key.clone())?.0
            }
        };
        if (found.version(), found.expose()) != (root.version(), root.expose()) {
            return Err(KeyStoreError::Format { path: self.path().to_owned(), what: "it is not what was written" });
        }
        Ok(())
    }
}

/// Replaces a file whole, then overwrites what was there before with zeros: an unlinked file's blocks would otherwise keep
/// it. What the file system or the device keeps besides (journals, snapshots, spare flash) is beyond reach.
pub(super) fn replace_and_wipe(path: &Path, contents: &[u8]) -> Result<(), KeyStoreError> {
    let old = match OpenOptions::new().write(true).open(path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error(path)(error)),
    };
    valv_durable_file::replace(path, contents, KEY_FILE_MODE).map_err(io_error(path))?;
    // The new file counts already: failing to overwrite the old one undoes nothing.
    if let Some(Err(error)) = old.map(wipe) {
        tracing::warn!(%error, path = %path.display(), "the old contents of a key file could not be overwritten");
    }
    Ok(())
}

fn wipe(mut file: File) -> io::Result<()> {
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    file.rewind()?;
    io::copy(&mut io::Read::take(io::repeat(0), len as u64), &mut file)?;
    file.flush()?;
    file.sync_all()
}

/// Overwrites a file with zeros and removes it, durably. No error if it is not there.
pub fn destroy_file(path: &Path) -> Result<(), KeyStoreError> {
    match OpenOptions::new().write(true).open(path) {
        Ok(file) => wipe(file).map_err(io_error(path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(path)(error)),
    }
    fs::remove_file(path).map_err(io_error(path))?;
    valv_durable_file::sync_parent(path).map_err(io_error(path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_root_key_opens_with_its_passphrase_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SEALED_ROOT_KEY_FILE);
        assert!(SealedRootKey::load(&path).unwrap().is_none());
        let root = RootKey::generate(4).unwrap();
        RootHome::with_passphrase(&path, b"correct horse").unwrap().store(&root).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&hex::encode(root.expose())) && !text.contains(&BASE64.encode(root.expose())));
        let sealed = SealedRootKey::load(&path).unwrap().unwrap();
        let wrong = sealed.open_with_passphrase(b"wrong").unwrap_err();
        assert!(matches!(wrong, KeyStoreError::Key(KeyError::Mismatch)));
        let (opened, home) = sealed.open_with_passphrase(b"correct horse").unwrap();
        assert_eq!(opened.expose(), root.expose());
        // A new root key goes where the old one was, under the same passphrase.
        let next = RootKey::generate(5).unwrap();
        home.store(&next).unwrap();
        let sealed = SealedRootKey::load(&path).unwrap().unwrap();
        assert_eq!(sealed.open_with_passphrase(b"correct horse").unwrap().0.expose(), next.expose());
    }

    #[test]
    fn shares_of_this_set_open_it_and_others_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SEALED_ROOT_KEY_FILE);
        let root = RootKey::generate(1).unwrap();
        let (home, shares) = RootHome::with_shares(&path, 3, 5).unwrap();
        home.store(&root).unwrap();
        let (_, foreign) = RootHome::with_shares(&path, 3, 5).unwrap();
        let sealed = SealedRootKey::load(&path).unwrap().unwrap();
        assert_eq!(sealed.open_with_shares(&shares[2..]).unwrap().0.expose(), root.expose());
        let few = sealed.open_with_shares(&shares[..2]).unwrap_err();
        assert!(matches!(few, KeyStoreError::Share(valv_codec::ShareError::TooFew)));
        let other = sealed.open_with_shares(&foreign[..3]).unwrap_err();
        assert!(matches!(other, KeyStoreError::Share(valv_codec::ShareError::OtherSet)));
        assert!(sealed.open_with_passphrase(b"x").is_err());
    }

    #[test]
    fn every_changed_field_of_a_sealed_root_key_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SEALED_ROOT_KEY_FILE);
        let (home, shares) = RootHome::with_shares(&path, 2, 3).unwrap();
        home.store(&RootKey::generate(1).unwrap()).unwrap();
        let good: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for (field, value) in [
            ("format", serde_json::json!("valv sealed root key v2")),
            ("root_version", serde_json::json!(2)),
            ("method", serde_json::json!("passphrase")),
            ("set", serde_json::json!("0000000000000000")),
            ("threshold", serde_json::json!(1)),
            ("shares", serde_json::json!(4)),
            ("sealed", serde_json::json!("AAAA")),
            ("more", serde_json::json!(1)),
        ] {
            let mut changed = good.clone();
            changed[field] = value;
            fs::write(&path, changed.to_string()).unwrap();
            let opened = SealedRootKey::load(&path).and_then(|file| file.unwrap().open_with_shares(&shares));
            assert!(opened.is_err(), "{field}");
        }
    }

    #[test]
    fn what_is_destroyed_was_overwritten_first() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("root.key"), folder.path().join("link"));
        RootKeyFile::create(&path).unwrap();
        fs::hard_link(&path, &link).unwrap();
        destroy_file(&path).unwrap();
        destroy_file(&path).unwrap();
        assert!(!path.exists());
        assert!(fs::read(&link).unwrap().iter().all(|byte| *byte == 0));
        // The same for what is replaced.
        replace_and_wipe(&path, b"old").unwrap();
        fs::remove_file(&link).unwrap();
        fs::hard_link(&path, &link).unwrap();
        replace_and_wipe(&path, b"new contents").unwrap();
        assert_eq!(fs::read(&link).unwrap(), [0; 3]);
        assert_eq!(fs::read(&path).unwrap(), b"new contents");
    }
}
