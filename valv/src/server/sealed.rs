//! The root key at the start: read, opened with a passphrase, or waited for, share by share.
//!
//! A server whose root key lies in shares starts sealed. It takes the data folder, says on its admin service that it is
//! sealed and takes shares there, and answers S3 with 503; nothing else is open. With enough shares it goes on as any start
//! does. Shares and what they open are in memory only.

use super::Serving;
use super::admin;
use super::first_start::DataFolder;
use super::storage::Storage;
use crate::config::{Config, Role, SealKind};
use anyhow::{Context, bail};
use async_trait::async_trait;
use http::{Method, Request, Response};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use valv_codec::{RootKey, Share, ShareSet};
use valv_gateway::body::{RequestBody, ResponseBody};
use valv_gateway::error::{S3Code, S3Error};
use valv_gateway::server::{ConnInfo, Handler, ServerConfig, serve};
use valv_gateway::tls::Tls;
use valv_metadata::{
    KeyStoreError, ROOT_KEY_FILE, RootHome, RootKeyFile, SEALED_ROOT_KEY_FILE, SealMethod, SealedRootKey,
};

/// How long the sealed server's own connections may take to end once it is open.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);
/// What S3 clients are told.
const SEALED_MESSAGE: &str = "This server is sealed: its operators have to give their key shares first.";

/// An open root key, and where it lies.
pub(crate) struct OpenRoot {
    /// The key.
    pub(crate) key: RootKey,
    /// Its home, so that it can be replaced.
    pub(crate) home: RootHome,
}

/// What the data folder has.
pub(crate) enum Found {
    /// The key.
    Open(OpenRoot),
    /// A key that waits for shares.
    Sealed(SealedRootKey),
}

/// How far the root key is open. Shared by the sealed server and the one that follows it.
#[derive(Debug)]
pub(crate) struct Seal {
    state: Mutex<SealState>,
    opened: Notify,
}

#[derive(Debug)]
enum SealState {
    /// There is no root key in this process, or it is open.
    Open { method: &'static str },
    /// Shares are waited for.
    Sealed(Box<Waiting>),
    /// Opened, and about to be taken by the server.
    Opened(Option<Box<OpenRoot>>),
}

#[derive(Debug)]
struct Waiting {
    file: SealedRootKey,
    set: ShareSet,
    threshold: u8,
    shares: Vec<Share>,
}

impl std::fmt::Debug for OpenRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenRoot(..)")
    }
}

/// What is told of the seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealView {
    /// Whether shares are waited for.
    pub(crate) is_sealed: bool,
    /// plain, passphrase or shares; empty in a process without keys.
    pub(crate) method: &'static str,
    /// Shares needed, given, and of which set.
    pub(crate) threshold: u32,
    pub(crate) given: u32,
    pub(crate) set: String,
}

/// Why a share was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    /// Nothing is sealed.
    #[error("this server is not sealed")]
    NotSealed,
    /// The share can't be used. Those before it stay.
    #[error("{0}")]
    Share(valv_codec::ShareError),
    /// The shares together open nothing: at least one was forged. All are gone.
    #[error("these shares do not open the root key, so at least one is wrong: all of them were thrown away")]
    Wrong,
}

impl Seal {
    /// The seal of a process that has its root key, or needs none.
    pub(crate) fn open(method: &'static str) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(SealState::Open { method }), opened: Notify::new() })
    }

    fn sealed(file: SealedRootKey) -> anyhow::Result<Arc<Self>> {
        let SealMethod::Shares { set, threshold, .. } = file.method else {
            bail!("the root key is not sealed by shares");
        };
        let waiting = Waiting { file, set, threshold, shares: Vec::new() };
        Ok(Arc::new(Self { state: Mutex::new(SealState::Sealed(Box::new(waiting))), opened: Notify::new() }))
    }

    /// How far it is.
    pub(crate) fn view(&self) -> SealView {
        match &*self.state.lock() {
            SealState::Open { method } => {
                SealView { is_sealed: false, method, threshold: 0, given: 0, set: String::new() }
            }
            SealState::Opened(_) => {
                SealView { is_sealed: false, method: "shares", threshold: 0, given: 0, set: String::new() }
            }
            SealState::Sealed(waiting) => SealView {
                is_sealed: true,
                method: "shares",
                threshold: waiting.threshold.into(),
                given: u32::try_from(waiting.shares.len()).unwrap_or(u32::MAX),
                set: waiting.set.to_string(),
            },
        }
    }

    /// Takes a share; the one that reaches the threshold opens the root key.
    pub(crate) fn submit(&self, text: &str) -> Result<SealView, SubmitError> {
        let mut state = self.state.lock();
        let SealState::Sealed(waiting) = &mut *state else { return Err(SubmitError::NotSealed) };
        let share = Share::from_text(text).map_err(SubmitError::Share)?;
        if share.set() != waiting.set || share.threshold() != waiting.threshold {
            return Err(SubmitError::Share(valv_codec::ShareError::OtherSet));
        }
        if waiting.shares.iter().any(|given| given.index() == share.index()) {
            return Err(SubmitError::Share(valv_codec::ShareError::Twice));
        }
        tracing::info!(index = share.index(), threshold = waiting.threshold, "took a share of the root key's seal");
        waiting.shares.push(share);
        if waiting.shares.len() >= usize::from(waiting.threshold) {
            // Whatever comes of it, the shares are not needed any more: they are zeroised as they are dropped.
            let shares = std::mem::take(&mut waiting.shares);
            match waiting.file.open_with_shares(&shares) {
                Ok((key, home)) => {
                    *state = SealState::Opened(Some(Box::new(OpenRoot { key, home })));
                    self.opened.notify_one();
                }
                Err(error) => {
                    tracing::warn!(%error, "shares were given that do not open the root key; all were thrown away");
                    return Err(SubmitError::Wrong);
                }
            }
        }
        drop(state);
        Ok(self.view())
    }

    fn take(&self) -> Option<OpenRoot> {
        let mut state = self.state.lock();
        let SealState::Opened(root) = &mut *state else { return None };
        let root = root.take();
        *state = SealState::Open { method: "shares" };
        root.map(|root| *root)
    }
}

/// Looks for the root key, makes it on a first start, and opens it if a passphrase does.
pub(crate) async fn find(config: &Config, folder: &DataFolder) -> anyhow::Result<Found> {
    let (plain, sealed) = (folder.path.join(ROOT_KEY_FILE), folder.path.join(SEALED_ROOT_KEY_FILE));
    let wanted = config.keys.seal;
    let Some(file) = SealedRootKey::load(&sealed)? else {
        return match wanted {
            None | Some(SealKind::Plain) => {
                let key = if folder.is_first_start() {
                    RootKeyFile::load_or_create(&plain)?
                } else {
                    // Never made anew: a new root key would open nothing of what is there.
                    RootKeyFile::load(&plain).context("the root key is needed: put it back with `valv key restore`")?
                };
                Ok(Found::Open(OpenRoot { key, home: RootHome::Plain(plain) }))
            }
            // A cluster that begins sealed never has its root key on disk in the clear.
            Some(SealKind::Passphrase) if folder.is_first_start() && !plain.exists() => {
                let passphrase = passphrase(config)?;
                let made = tokio::task::spawn_blocking(move || -> Result<OpenRoot, KeyStoreError> {
                    let home = RootHome::with_passphrase(&sealed, passphrase.as_bytes())?;
                    let key = RootKey::generate(1)?;
                    home.store(&key)?;
                    Ok(OpenRoot { key, home })
                });
                Ok(Found::Open(made.await??))
            }
            Some(SealKind::Passphrase) => bail!(
                "keys.seal is \"passphrase\" and the root key is not sealed: `valv key seal --passphrase-file` seals it"
            ),
            Some(SealKind::Shares) => {
                bail!("keys.seal is \"shares\" and the root key is not sealed: `valv key seal --shares` seals it")
            }
        };
    };
    if plain.exists() {
        tracing::warn!(
            path = %plain.display(),
            "the root key lies beside its sealed form in the clear: run `valv key seal --finish`"
        );
    }
    match (file.method, wanted) {
        (SealMethod::Shares { .. }, None | Some(SealKind::Shares)) => Ok(Found::Sealed(file)),
        (SealMethod::Passphrase { .. }, None | Some(SealKind::Passphrase)) => {
            let passphrase = passphrase(config)?;
            let opened = tokio::task::spawn_blocking(move || file.open_with_passphrase(passphrase.as_bytes()));
            let (key, home) = opened.await?.context("opening the root key with keys.passphrase_file")?;
            Ok(Found::Open(OpenRoot { key, home }))
        }
        (_, Some(wanted)) => bail!("keys.seal is {wanted:?}, and the root key is sealed in another way"),
    }
}

fn passphrase(config: &Config) -> anyhow::Result<zeroize::Zeroizing<String>> {
    let Some(path) = &config.keys.passphrase_file else {
        bail!("the root key is sealed by a passphrase: set keys.passphrase_file");
    };
    crate::commands::read_passphrase(path)
}

/// The root key with its seal: at once, or when enough shares were given. `None` if the server is to stop before.
pub(crate) async fn open(
    config: &Config,
    folder: &DataFolder,
    storage: Option<&Storage>,
    cancel: &CancellationToken,
) -> anyhow::Result<Option<(OpenRoot, Arc<Seal>)>> {
    let file = match find(config, folder).await? {
        Found::Open(root) => {
            let seal = Seal::open(root.home.name());
            return Ok(Some((root, seal)));
        }
        Found::Sealed(file) => file,
    };
    let seal = Seal::sealed(file)?;
    let admin = admin::serve(config, folder, storage, None, &seal).await?;
    let s3 = if config.has(Role::Gateway) { refuse_s3(config).await? } else { Vec::new() };
    tracing::warn!(
        set = seal.view().set,
        threshold = seal.view().threshold,
        "sealed: nothing is served before enough shares were given (`valv admin unseal`)"
    );
    let root = loop {
        tokio::select! {
            () = seal.opened.notified() => {
                if let Some(root) = seal.take() {
                    break Some(root);
                }
            }
            () = cancel.cancelled() => break None,
        }
    };
    for serving in s3.into_iter().chain([admin.serving]) {
        if tokio::time::timeout(HAND_OVER_MAX, serving.stop()).await.is_err() {
            tracing::warn!("a connection to the sealed server did not end");
        }
    }
    if root.is_some() {
        tracing::info!("unsealed");
    }
    Ok(root.map(|root| (root, seal)))
}

/// Answers every S3 request with 503, which clients repeat.
struct SealedHandler;

#[async_trait]
impl Handler for SealedHandler {
    async fn handle(&self, request: Request<RequestBody>, conn: ConnInfo) -> Response<ResponseBody> {
        let is_head = request.method() == Method::HEAD;
        let error = S3Error::new(S3Code::ServiceUnavailable).with_message(SEALED_MESSAGE).closing_connection();
        error.into_response(&conn.request_id, is_head)
    }
}

async fn refuse_s3(config: &Config) -> anyhow::Result<Vec<Serving>> {
    let section = &config.gateway;
    let tls = match &section.tls {
        None => None,
        Some(files) => Some(Arc::new(Tls::load(&files.certificate, &files.key).context("gateway: TLS")?)),
    };
    let server_config = ServerConfig {
        connections_max: section.connections_max,
        header_timeout: section.idle_timeout.max(Duration::from_secs(1)),
        write_stall_timeout: section.idle_timeout.max(Duration::from_secs(1)),
        drain_timeout: Duration::from_secs(1),
        ..ServerConfig::default()
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut servers = Vec::with_capacity(section.listen.len());
    for address in &section.listen {
        let listener = TcpListener::bind(address).await.with_context(|| format!("gateway: binding {address}"))?;
        let bound = listener.local_addr()?;
        let stop = CancellationToken::new();
        let serving = serve(listener, tls.clone(), Arc::new(SealedHandler), server_config.clone(), stop.clone());
        servers.push(Serving::spawn(stop, serving));
        println!("sealed = {scheme}://{bound}");
    }
    Ok(servers)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn sealed(folder: &std::path::Path) -> (Arc<Seal>, Vec<Zeroizing<String>>, RootKey) {
        let path = folder.join(SEALED_ROOT_KEY_FILE);
        let (home, shares) = RootHome::with_shares(&path, 2, 3).unwrap();
        let root = RootKey::generate(1).unwrap();
        home.store(&root).unwrap();
        let seal = Seal::sealed(SealedRootKey::load(&path).unwrap().unwrap()).unwrap();
        (seal, shares.iter().map(Share::to_text).collect(), root)
    }

    #[test]
    fn the_share_that_reaches_the_threshold_opens_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let (seal, shares, root) = sealed(folder.path());
        assert_eq!((seal.view().is_sealed, seal.view().given, seal.view().threshold), (true, 0, 2));
        assert_eq!(seal.submit(&shares[2]).unwrap().given, 1);
        assert!(matches!(seal.submit(&shares[2]), Err(SubmitError::Share(valv_codec::ShareError::Twice))));
        assert!(matches!(seal.submit("x"), Err(SubmitError::Share(valv_codec::ShareError::Malformed))));
        assert!(!seal.submit(&shares[0]).unwrap().is_sealed);
        assert_eq!(seal.take().unwrap().key.expose(), root.expose());
        assert!(seal.take().is_none(), "the key is handed over once");
        assert!(matches!(seal.submit(&shares[1]), Err(SubmitError::NotSealed)));
    }

    #[test]
    fn a_forged_share_costs_all_of_them_and_a_foreign_one_none() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (seal, shares, _) = sealed(one.path());
        let (_, foreign, _) = sealed(two.path());
        seal.submit(&shares[0]).unwrap();
        assert!(matches!(seal.submit(&foreign[1]), Err(SubmitError::Share(valv_codec::ShareError::OtherSet))));
        assert_eq!(seal.view().given, 1);
        // A share of the right set with another value, and a checksum that fits.
        let other = valv_codec::SealingKey::generate().unwrap().split(2, 3).unwrap();
        let value = other[1].to_text().split('-').nth(6).unwrap().to_owned();
        let words: Vec<&str> = shares[1].split('-').collect();
        let body = format!("{}-{value}", words[..6].join("-"));
        let mut check = [0; 4];
        let hasher = blake3::Hasher::new().update(b"valv share check v1\0").update(body.as_bytes()).finalize_xof();
        { hasher }.fill(&mut check);
        let forged = format!("{body}-{}", hex::encode(check));
        assert!(matches!(seal.submit(&forged), Err(SubmitError::Wrong)));
        assert_eq!((seal.view().is_sealed, seal.view().given), (true, 0));
        seal.submit(&shares[0]).unwrap();
        assert!(!seal.submit(&shares[1]).unwrap().is_sealed, "the right ones still open it");
    }
}
