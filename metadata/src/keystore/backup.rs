//! Key backups: everything that the key store holds, in one file's text, sealed under a passphrase.

use super::{
    FILE_NAME, KeyStore, KeyStoreError, RootKeyFile, STORE_FORMAT, STORE_FORMAT_WITHOUT_SYSTEM, StoreFile, io_error,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use valv_codec::{RootKey, SealedBackup};
use valv_types::ClusterId;
use zeroize::{Zeroize as _, Zeroizing};

/// Names a backup, and is authenticated with it.
const BACKUP_CONTEXT: &str = "valv key backup v2";
/// Backups from before there was a system key.
const BACKUP_CONTEXT_WITHOUT_SYSTEM: &str = "valv key backup v1";
const KDF: &str = "pbkdf2-hmac-sha256";
const CIPHER: &str = "aes-256-gcm";

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
    project_keys: Vec<super::StoredKey>,
    #[serde(default)]
    system_key: Option<super::StoredSystemKey>,
    #[serde(default)]
    shredded_projects: Vec<super::ShreddedProject>,
    #[serde(default)]
    shredded_blobs: Vec<valv_types::BlobId>,
}

impl KeyStore {
    /// The root key and all other keys in one file's text, sealed under `passphrase`. Takes some tenths of a second of
    /// processor time.
    pub fn backup(&self, cluster: ClusterId, passphrase: &[u8]) -> Result<String, KeyStoreError> {
        let stored = self.contents();
        let file = stored.file();
        let mut contents = BackupContents {
            cluster,
            root_version: stored.root.version(),
            root_key: BASE64.encode(stored.root.expose()),
            project_keys: file.keys,
            system_key: file.system,
            shredded_projects: file.shredded_projects,
            shredded_blobs: file.shredded_blobs,
        };
        let encoded = serde_json::to_vec(&contents).map(Zeroizing::new);
        contents.root_key.zeroize();
        let plain = encoded.map_err(|error| io_error(&self.path)(error.into()))?;
        let sealed = SealedBackup::seal(passphrase, BACKUP_CONTEXT.as_bytes(), &plain)?;
        let file = BackupFile {
            format: BACKUP_CONTEXT.to_owned(),
            kdf: KDF.to_owned(),
            iterations: sealed.iterations,
            salt: BASE64.encode(sealed.salt),
            cipher: CIPHER.to_owned(),
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
        let context = [BACKUP_CONTEXT, BACKUP_CONTEXT_WITHOUT_SYSTEM].into_iter().find(|known| *known == file.format);
        let Some(context) = context.filter(|_| file.kdf == KDF && file.cipher == CIPHER) else {
            return Err(malformed("its algorithms are unknown"));
        };
        let base64 = |text: &str| BASE64.decode(text).map_err(|_| malformed("a field is not base64"));
        let sealed = SealedBackup {
            iterations: file.iterations,
            salt: base64(&file.salt)?.try_into().map_err(|_| malformed("the salt is not 16 bytes"))?,
            nonce: base64(&file.nonce)?.try_into().map_err(|_| malformed("the nonce is not 12 bytes"))?,
            sealed: base64(&file.sealed)?,
        };
        let plain = sealed.open(passphrase, context.as_bytes())?;
        let mut contents: BackupContents =
            serde_json::from_slice(&plain).map_err(|_| malformed("its contents are not JSON"))?;
        let root_bytes = BASE64.decode(&contents.root_key).map(Zeroizing::new);
        contents.root_key.zeroize();
        let root_bytes = root_bytes.map_err(|_| malformed("the root key is not base64"))?;
        let root = RootKey::from_bytes(contents.root_version, &root_bytes)?;
        if contents.system_key.is_some() != (context == BACKUP_CONTEXT) {
            return Err(malformed("it lacks its system key"));
        }

        let path = folder.join(FILE_NAME);
        if path.exists() {
            return Err(KeyStoreError::Format { path, what: "it holds keys already" });
        }
        std::fs::create_dir_all(folder).map_err(io_error(folder))?;
        RootKeyFile::write(root_path, &root)?;
        let file = StoreFile {
            format: if contents.system_key.is_some() { STORE_FORMAT } else { STORE_FORMAT_WITHOUT_SYSTEM },
            system: contents.system_key,
            keys: contents.project_keys,
            shredded_projects: contents.shredded_projects,
            shredded_blobs: contents.shredded_blobs,
        };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| io_error(&path)(error.into()))?;
        super::root::replace_and_wipe(&path, &text)?;
        Self::open(folder, root)?;
        Ok(contents.cluster)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use valv_types::ProjectId;

    #[test]
    fn a_backup_restores_all_keys_and_is_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, project, gone) = (ClusterId::random(), ProjectId::random(), ProjectId::random());
        let root = RootKey::generate(1).unwrap();
        let store = KeyStore::open(&folder.path().join("a"), root.clone()).unwrap();
        store.ensure_project_key(project).unwrap();
        store.ensure_project_key(gone).unwrap();
        store.shred(gone).unwrap();
        let text = store.backup(cluster, b"pass").unwrap();
        assert!(!text.contains(&hex::encode(root.expose())));
        assert!(!text.contains(&BASE64.encode(root.expose())));

        let (root_path, keys) = (folder.path().join("root.key"), folder.path().join("b"));
        assert!(KeyStore::restore(&text, b"wrong", &root_path, &keys).is_err());
        assert_eq!(KeyStore::restore(&text, b"pass", &root_path, &keys).unwrap(), cluster);
        assert!(KeyStore::restore(&text, b"pass", &root_path, &keys).is_err(), "there are keys already");
        let restored = KeyStore::open(&keys, RootKeyFile::load(&root_path).unwrap()).unwrap();
        let expected = store.project_key(project, None).unwrap();
        assert_eq!(restored.project_key(project, None).unwrap().expose(), expected.expose());
        assert_eq!(restored.system().expose(), store.system().expose());
        assert!(restored.shredded(gone).is_some());
    }
}
