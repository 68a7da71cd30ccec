//! The server's configuration: one TOML file, or the defaults of a one-process server over one data folder.
//!
//! Every error names the file, the key and the line, because whoever reads it has the file open in an editor.

mod admin;

pub(crate) use admin::AdminSection;

use crate::credentials::{self, CredentialError};
use admin::FileAdmin;
use serde::Deserialize;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use valv_lifecycle::DayLength;
use valv_metadata::ConfiguredOpening;
use valv_metadata_api::OpeningTo;
use valv_policy::Cidr;
use valv_types::AccessKeyId;

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file can't be read.
    #[error("{file}: {source}", file = .file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{file}:{line}: {message}", file = .file.display())]
    Syntax {
        /// Which file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, with the key's name.
        message: String,
    },
    /// An environment variable that can't be used.
    #[error("{name}: {message}")]
    Variable {
        /// Which one.
        name: &'static str,
        /// What is wrong.
        message: String,
    },
    /// A value that is well formed but can't be used.
    #[error("{file}:{line}: {key}: {message}", file = .file.display())]
    Value {
        /// Which file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key, dotted.
        key: &'static str,
        /// What is wrong.
        message: String,
    },
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Speaks S3.
    Gateway,
    /// Keeps the metadata.
    Metadata,
    /// Keeps the shards.
    Storage,
}

impl Role {
    /// All of them: what a server without a file does.
    pub(crate) const ALL: [Self; 3] = [Self::Gateway, Self::Metadata, Self::Storage];

    /// The role's name as the file spells it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Metadata => "metadata",
            Self::Storage => "storage",
        }
    }
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) roles: Vec<Role>,
    pub(crate) data: PathBuf,
    pub(crate) cluster: Option<String>,
    pub(crate) memory_budget_bytes: u64,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) gateway: GatewaySection,
    pub(crate) metadata: MetadataSection,
    pub(crate) storage: StorageSection,
    pub(crate) keys: KeysSection,
    pub(crate) custody: CustodySection,
    pub(crate) admin: AdminSection,
    pub(crate) users: Vec<UserSection>,
    pub(crate) openings: Vec<ConfiguredOpening>,
    /// From the command line only: an operator's explicit word, for one start.
    pub(crate) accept_metadata_loss: bool,
}

impl Config {
    /// Whether this process has `role`.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// `[gateway]`.
#[derive(Debug, Clone)]
pub(crate) struct GatewaySection {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) region: String,
    pub(crate) base_domains: Vec<String>,
    /// The namespace of unsigned requests to endpoints that `hosts` does not name.
    pub(crate) anonymous_namespace: Option<String>,
    /// Namespace by endpoint: lower-case, without port.
    pub(crate) hosts: HashMap<String, String>,
    pub(crate) tls: Option<TlsSection>,
    pub(crate) metadata: Option<String>,
    pub(crate) storage: Vec<String>,
    pub(crate) connections_max: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) sse_c_without_tls: bool,
    pub(crate) kms_key_names: Vec<String>,
    pub(crate) new_buckets: NewBucketsSection,
    /// Proxies whose X-Forwarded-For is believed.
    pub(crate) trusted_proxies: Vec<Cidr>,
}

/// `[gateway.new_buckets]`: what buckets are made with unless their maker says otherwise. Locked down if it is left out.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NewBucketsSection {
    pub(crate) object_ownership: Ownership,
    pub(crate) public_access_block: Switch,
}

/// S3's object ownership, by S3's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Ownership {
    #[default]
    BucketOwnerEnforced,
    BucketOwnerPreferred,
    ObjectWriter,
}

/// A switch that is on unless it is turned off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Switch(pub(crate) bool);

impl Default for Switch {
    fn default() -> Self {
        Self(true)
    }
}

/// `[gateway.tls]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsSection {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// `[metadata]`.
#[derive(Debug, Clone)]
pub(crate) struct MetadataSection {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) storage: Vec<String>,
    pub(crate) trash: Duration,
    pub(crate) census: Duration,
    pub(crate) orphan_scan: Duration,
    /// How long a day of lifecycle rules is: of interest to the gateway, too.
    pub(crate) lifecycle_day: DayLength,
    pub(crate) lifecycle_every: Duration,
    /// How long an approved act that can't be undone waits.
    pub(crate) cooling_off: Duration,
    pub(crate) k: u8,
    pub(crate) m: u8,
    pub(crate) repair_bytes_per_s: u64,
}

/// `[custody]`.
#[derive(Debug, Clone)]
pub(crate) struct CustodySection {
    /// How far ahead the horizon's gauges look.
    pub(crate) warn_before: Duration,
}

/// `[storage]`.
#[derive(Debug, Clone)]
pub(crate) struct StorageSection {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) disks: Vec<PathBuf>,
    pub(crate) extent_bytes: u64,
    pub(crate) scrub: Duration,
}

/// `[keys]`.
#[derive(Debug, Clone)]
pub(crate) struct KeysSection {
    /// How the root key has to be kept. `None`: as it is found.
    pub(crate) seal: Option<SealKind>,
    /// Its first line opens a root key that is sealed by a passphrase.
    pub(crate) passphrase_file: Option<PathBuf>,
    /// How long a gateway may keep a project's key.
    pub(crate) lease: Duration,
    /// How long old versions of a project's key are kept after nothing referred to them any more.
    pub(crate) retire_after: Duration,
    /// How long backups of the key store are kept: said in certificates of destroyed keys.
    pub(crate) backups_kept: Duration,
}

/// How a root key is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SealKind {
    Plain,
    Passphrase,
    Shares,
}

/// `[[users]]`: made at start if they are not there.
#[derive(Debug, Clone)]
pub(crate) struct UserSection {
    pub(crate) name: String,
    /// Empty: as it is, or the name.
    pub(crate) display_name: String,
    /// Empty: as it is, or none.
    pub(crate) email: String,
    /// Empty: derived.
    pub(crate) canonical_id: String,
    /// At least one; the first acts in the user's default project.
    pub(crate) keys: Vec<KeySection>,
}

/// `[[users.keys]]`, or the one key that stands in `[[users]]` itself.
#[derive(Debug, Clone)]
pub(crate) struct KeySection {
    pub(crate) id: AccessKeyId,
    pub(crate) secret: SecretText,
    /// The project in which the key acts.
    pub(crate) project: String,
    /// The namespace of a project that has to be made. Empty: the project's own, or `default`.
    pub(crate) namespace: String,
}

/// A secret in the configuration: it has no `Debug` output.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct SecretText(pub(crate) String);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// Where S3 is served when nothing says otherwise: this machine only.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:9000";
/// Disks of a server without a file: 4+2 needs six.
const DEFAULT_DISKS: usize = 6;
const MIB: u64 = 1 << 20;

/// The file as written. Spans are kept so that later checks can name a line.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileConfig {
    roles: Option<Spanned<Vec<Role>>>,
    data: Option<PathBuf>,
    cluster: Option<String>,
    memory_budget: Option<Spanned<String>>,
    metrics: Option<Spanned<String>>,
    #[serde(default)]
    gateway: FileGateway,
    #[serde(default)]
    metadata: FileMetadata,
    #[serde(default)]
    storage: FileStorage,
    #[serde(default)]
    keys: FileKeys,
    #[serde(default)]
    custody: FileCustody,
    #[serde(default)]
    admin: FileAdmin,
    #[serde(default)]
    users: Vec<FileUser>,
    #[serde(default)]
    openings: Vec<FileOpenings>,
}

/// `[[openings]]`: people for whom the policies and ACLs of a project's buckets decide.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileOpenings {
    project: Spanned<String>,
    policies_decide_for: Spanned<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileUser {
    name: Spanned<String>,
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    canonical_id: String,
    project: Spanned<String>,
    #[serde(default)]
    namespace: String,
    access_key_id: Option<Spanned<String>>,
    secret_access_key: Option<Spanned<SecretText>>,
    #[serde(default)]
    keys: Vec<FileKey>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    access_key_id: Spanned<String>,
    secret_access_key: Spanned<SecretText>,
    project: Option<Spanned<String>>,
    #[serde(default)]
    namespace: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileGateway {
    listen: Option<Spanned<OneOrMany>>,
    region: Option<String>,
    #[serde(default)]
    base_domains: Vec<String>,
    anonymous_namespace: Option<String>,
    #[serde(default)]
    hosts: Vec<FileHost>,
    tls: Option<TlsSection>,
    metadata: Option<Spanned<String>>,
    #[serde(default)]
    storage: Vec<Spanned<String>>,
    connections_max: Option<Spanned<usize>>,
    idle_timeout: Option<Spanned<String>>,
    #[serde(default)]
    sse_c_without_tls: bool,
    #[serde(default)]
    kms_key_names: Vec<String>,
    #[serde(default)]
    new_buckets: NewBucketsSection,
    #[serde(default)]
    trusted_proxies: Vec<Spanned<String>>,
}

/// `[[gateway.hosts]]`: an endpoint's host name and the namespace of unsigned requests to it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileHost {
    name: Spanned<String>,
    namespace: Spanned<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMetadata {
    listen: Option<Spanned<String>>,
    #[serde(default)]
    storage: Vec<Spanned<String>>,
    trash: Option<Spanned<String>>,
    census: Option<Spanned<String>>,
    orphan_scan: Option<Spanned<String>>,
    lifecycle_day: Option<Spanned<String>>,
    lifecycle_every: Option<Spanned<String>>,
    cooling_off: Option<Spanned<String>>,
    k: Option<Spanned<u8>>,
    m: Option<u8>,
    repair_rate: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCustody {
    warn_before: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileStorage {
    listen: Option<Spanned<String>>,
    disks: Option<Spanned<Vec<PathBuf>>>,
    extent: Option<Spanned<String>>,
    scrub: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKeys {
    seal: Option<Spanned<SealKind>>,
    passphrase_file: Option<Spanned<PathBuf>>,
    lease: Option<Spanned<String>>,
    retire_after: Option<Spanned<String>>,
    backups_kept: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// What the command line says; it goes over the file.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    /// `--data`.
    pub(crate) data: Option<PathBuf>,
    /// `--listen`.
    pub(crate) listen: Option<SocketAddr>,
    /// `--accept-metadata-loss`.
    pub(crate) accept_metadata_loss: bool,
    /// `VALV_LIFECYCLE_DAY`, from the environment: an outside test suite sets it without a file.
    pub(crate) lifecycle_day: Option<String>,
}

/// The environment variable that goes over `metadata.lifecycle_day`.
pub(crate) const LIFECYCLE_DAY_VARIABLE: &str = "VALV_LIFECYCLE_DAY";
/// How long a gateway keeps a project's key: a few minutes of reading while metadata is away.
const KEY_LEASE: Duration = Duration::from_secs(5 * 60);
/// An old key version outlives its last reference by this: reads of large objects that began under it come to their end.
const KEY_RETIRE_AFTER: Duration = Duration::from_secs(24 * 3600);
/// How long backups of the key store are kept, as the architecture has it: 30 days.
const KEY_BACKUPS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
const KEY_LEASE_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// How often all lifecycle rules are gone through when days have 24 hours.
const LIFECYCLE_EVERY: Duration = Duration::from_secs(3600);
/// Passes are no closer together: each looks at every row that a rule may concern.
const LIFECYCLE_EVERY_MIN: Duration = Duration::from_secs(1);

/// How far ahead the horizon's gauges look: prolonging a contract for hardware, or buying it, takes a public institution a year.
const WARN_BEFORE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads and checks `file`, or takes the defaults.
pub(crate) fn load(file: Option<&Path>, overrides: Overrides) -> Result<Config, ConfigError> {
    let (name, text) = match file {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|source| ConfigError::Read { file: path.to_owned(), source })?;
            (path.to_owned(), text)
        }
        None => (PathBuf::from("defaults"), String::new()),
    };
    Source { file: name, text: &text }.check(overrides)
}

struct Source<'a> {
    file: PathBuf,
    text: &'a str,
}

impl Source<'_> {
    fn check(&self, overrides: Overrides) -> Result<Config, ConfigError> {
        let file: FileConfig = toml::from_str(self.text).map_err(|error| ConfigError::Syntax {
            file: self.file.clone(),
            line: self.line(error.span().unwrap_or(0..0)),
            message: self.describe(&error),
        })?;
        let roles = match &file.roles {
            None => Role::ALL.to_vec(),
            Some(roles) if roles.get_ref().is_empty() => {
                return Err(self.value(roles.span(), "roles", "name at least one of gateway, metadata, storage"));
            }
            Some(roles) => roles.get_ref().clone(),
        };
        let has = |role| roles.contains(&role);
        let data = overrides.data.or(file.data).unwrap_or_else(|| PathBuf::from("valv-data"));
        let gateway = self.gateway(file.gateway, overrides.listen)?;
        let metadata = self.metadata(file.metadata, overrides.lifecycle_day)?;
        let storage = self.storage(file.storage, &data)?;
        let keys = self.keys(file.keys)?;
        let warn_before = self.duration_or(&file.custody.warn_before, "custody.warn_before", WARN_BEFORE)?;

        if has(Role::Gateway) && !has(Role::Metadata) && gateway.metadata.is_none() {
            return Err(self.value(0..0, "gateway.metadata", "needed: this process has no metadata role"));
        }
        if has(Role::Gateway) && !has(Role::Storage) && gateway.storage.is_empty() {
            return Err(self.value(0..0, "gateway.storage", "needed: this process has no storage role"));
        }
        if has(Role::Metadata) && !has(Role::Storage) && metadata.storage.is_empty() {
            return Err(self.value(0..0, "metadata.storage", "needed: this process has no storage role"));
        }
        if !(has(Role::Gateway) && has(Role::Metadata) && has(Role::Storage)) && file.cluster.is_none() {
            return Err(self.value(0..0, "cluster", "needed when roles are split: the same name in every process"));
        }
        let memory_budget_bytes = match &file.memory_budget {
            None => 1024 * MIB,
            Some(text) => self.bytes(text, "memory_budget")?,
        };
        if memory_budget_bytes < 128 * MIB {
            let span = file.memory_budget.as_ref().map(Spanned::span).unwrap_or_default();
            return Err(self.value(span, "memory_budget", "at least 128MiB: one upload in flight needs 26 MiB"));
        }
        let metrics = file.metrics.as_ref().map(|text| self.address(text, "metrics")).transpose()?;
        Ok(Config {
            roles,
            data,
            cluster: file.cluster,
            memory_budget_bytes,
            metrics,
            gateway,
            metadata,
            storage,
            keys,
            custody: CustodySection { warn_before },
            admin: self.admin(file.admin)?,
            users: self.users(file.users)?,
            openings: self.openings(file.openings)?,
            accept_metadata_loss: overrides.accept_metadata_loss,
        })
    }

    fn gateway(&self, file: FileGateway, listen: Option<SocketAddr>) -> Result<GatewaySection, ConfigError> {
        let texts = match (&listen, file.listen) {
            (Some(_), _) => vec![],
            (None, None) => vec![Spanned::new(0..0, DEFAULT_LISTEN.to_owned())],
            (None, Some(spanned)) => {
                let span = spanned.span();
                match spanned.into_inner() {
                    OneOrMany::One(text) => vec![Spanned::new(span, text)],
                    OneOrMany::Many(texts) => texts.into_iter().map(|t| Spanned::new(span.clone(), t)).collect(),
                }
            }
        };
        let mut addresses = listen.into_iter().collect::<Vec<_>>();
        for text in &texts {
            addresses.push(self.address(text, "gateway.listen")?);
        }
        let connections_max = match &file.connections_max {
            None => 4096,
            Some(n) if *n.get_ref() == 0 => {
                return Err(self.value(n.span(), "gateway.connections_max", "must be at least 1"));
            }
            Some(n) => *n.get_ref(),
        };
        Ok(GatewaySection {
            listen: addresses,
            region: file.region.unwrap_or_else(|| "us-east-1".to_owned()),
            base_domains: file.base_domains,
            anonymous_namespace: Some(file.anonymous_namespace.unwrap_or_else(default_namespace))
                .filter(|name| !name.is_empty()),
            hosts: self.hosts(file.hosts)?,
            tls: file.tls,
            metadata: file.metadata.as_ref().map(|text| self.loopback_url(text, "gateway.metadata")).transpose()?,
            storage: self.loopback_urls(&file.storage, "gateway.storage")?,
            connections_max,
            idle_timeout: self.duration_or(&file.idle_timeout, "gateway.idle_timeout", Duration::from_secs(60))?,
            sse_c_without_tls: file.sse_c_without_tls,
            kms_key_names: file.kms_key_names,
            new_buckets: file.new_buckets,
            trusted_proxies: self.networks(&file.trusted_proxies, "gateway.trusted_proxies")?,
        })
    }

    fn openings(&self, files: Vec<FileOpenings>) -> Result<Vec<ConfiguredOpening>, ConfigError> {
        files
            .into_iter()
            .map(|file| {
                let (span, names) = (file.policies_decide_for.span(), file.policies_decide_for.into_inner());
                if names.is_empty() || names.iter().any(String::is_empty) {
                    let message = "name users, projects (as \"project:NAME\"), or \"public\"";
                    return Err(self.value(span, "openings.policies_decide_for", message));
                }
                let to = |name: String| match name.strip_prefix("project:") {
                    Some(project) => OpeningTo::Project(project.to_owned()),
                    None if name == "public" => OpeningTo::Public(String::new()),
                    None => OpeningTo::User(name),
                };
                let to = names.into_iter().map(to).collect();
                Ok(ConfiguredOpening { project_name: file.project.into_inner(), to })
            })
            .collect()
    }

    fn users(&self, files: Vec<FileUser>) -> Result<Vec<UserSection>, ConfigError> {
        let mut users = Vec::with_capacity(files.len());
        for file in files {
            for (value, key) in [(&file.name, "users.name"), (&file.project, "users.project")] {
                if value.get_ref().is_empty() {
                    return Err(self.value(value.span(), key, "must not be empty"));
                }
            }
            let project = file.project.get_ref();
            let mut keys = Vec::with_capacity(file.keys.len() + 1);
            match (&file.access_key_id, &file.secret_access_key) {
                (Some(id), Some(secret)) => keys.push(self.key(id, secret, project, &file.namespace)?),
                (None, None) => {}
                (Some(alone), None) => {
                    return Err(self.value(alone.span(), "users.access_key_id", "goes with secret_access_key"));
                }
                (None, Some(alone)) => {
                    return Err(self.value(alone.span(), "users.secret_access_key", "goes with access_key_id"));
                }
            }
            for key in &file.keys {
                let (project, namespace) = match &key.project {
                    Some(own) if own.get_ref().is_empty() => {
                        return Err(self.value(own.span(), "users.keys.project", "must not be empty"));
                    }
                    Some(own) if own.get_ref() != project => (own.get_ref(), &key.namespace),
                    _ => (project, &file.namespace),
                };
                keys.push(self.key(&key.access_key_id, &key.secret_access_key, project, namespace)?);
            }
            // The first key makes the user, and with it the default project.
            keys.sort_by_key(|key| key.project != *project);
            if keys.first().is_none_or(|key| key.project != *project) {
                return Err(self.value(
                    file.name.span(),
                    "users",
                    "needs an access key that acts in the user's own project",
                ));
            }
            let FileUser { name, display_name, email, canonical_id, .. } = file;
            users.push(UserSection { name: name.into_inner(), display_name, email, canonical_id, keys });
        }
        Ok(users)
    }

    fn key(
        &self,
        id: &Spanned<String>,
        secret: &Spanned<SecretText>,
        project: &str,
        namespace: &str,
    ) -> Result<KeySection, ConfigError> {
        let wrong = |span, key, error: CredentialError| self.value(span, key, error.to_string());
        credentials::check_secret(&secret.get_ref().0)
            .map_err(|error| wrong(secret.span(), "users.secret_access_key", error))?;
        Ok(KeySection {
            id: credentials::check_id(id.get_ref()).map_err(|error| wrong(id.span(), "users.access_key_id", error))?,
            secret: secret.get_ref().clone(),
            project: project.to_owned(),
            namespace: namespace.to_owned(),
        })
    }

    fn hosts(&self, files: Vec<FileHost>) -> Result<HashMap<String, String>, ConfigError> {
        let mut hosts = HashMap::with_capacity(files.len());
        for host in files {
            let name = host.name.get_ref().trim_matches('.').to_ascii_lowercase();
            // A port never tells endpoints apart: behind a proxy it is not the one that is listened on.
            if name.is_empty() || name.contains([':', '/', ' ']) {
                return Err(self.value(host.name.span(), "gateway.hosts.name", "must be a host name without a port"));
            }
            if host.namespace.get_ref().is_empty() {
                return Err(self.value(host.namespace.span(), "gateway.hosts.namespace", "must not be empty"));
            }
            if hosts.insert(name, host.namespace.into_inner()).is_some() {
                return Err(self.value(host.name.span(), "gateway.hosts.name", "stands there twice"));
            }
        }
        Ok(hosts)
    }

    fn metadata(&self, file: FileMetadata, lifecycle_day: Option<String>) -> Result<MetadataSection, ConfigError> {
        let k_span = file.k.as_ref().map(Spanned::span).unwrap_or_default();
        let (k, m) = (file.k.map_or(4, Spanned::into_inner), file.m.unwrap_or(2));
        if k == 0 || m == 0 || u16::from(k) + u16::from(m) > 32 {
            return Err(self.value(k_span, "metadata.k", "a pool needs 1 <= k, 1 <= m and k + m <= 32"));
        }
        let lifecycle_day = self.lifecycle_day(&file.lifecycle_day, lifecycle_day)?;
        let lifecycle_every = LIFECYCLE_EVERY.min(lifecycle_day.length() / 10).max(LIFECYCLE_EVERY_MIN);
        let lifecycle_every = self.duration_or(&file.lifecycle_every, "metadata.lifecycle_every", lifecycle_every)?;
        if lifecycle_every < LIFECYCLE_EVERY_MIN {
            let span = file.lifecycle_every.as_ref().map(Spanned::span).unwrap_or_default();
            return Err(self.value(span, "metadata.lifecycle_every", "must be at least 1s"));
        }
        Ok(MetadataSection {
            lifecycle_day,
            lifecycle_every,
            listen: file.listen.as_ref().map(|text| self.loopback(text, "metadata.listen")).transpose()?,
            storage: self.loopback_urls(&file.storage, "metadata.storage")?,
            trash: self.duration_or(&file.trash, "metadata.trash", Duration::from_secs(24 * 3600))?,
            census: self.duration_or(&file.census, "metadata.census", Duration::from_secs(24 * 3600))?,
            cooling_off: self.duration_or(
                &file.cooling_off,
                "metadata.cooling_off",
                Duration::from_secs(7 * 24 * 3600),
            )?,
            orphan_scan: self.duration_or(&file.orphan_scan, "metadata.orphan_scan", Duration::from_secs(600))?,
            k,
            m,
            repair_bytes_per_s: match &file.repair_rate {
                None => 256 * MIB,
                Some(text) => self.bytes(text, "metadata.repair_rate")?.max(MIB),
            },
        })
    }

    /// The length of a day: what the environment says, or the file, or 24 hours.
    fn lifecycle_day(&self, file: &Option<Spanned<String>>, over: Option<String>) -> Result<DayLength, ConfigError> {
        let range = "must be 1s to 24h";
        if let Some(text) = over {
            return parse_duration(&text).and_then(DayLength::new).ok_or_else(|| ConfigError::Variable {
                name: LIFECYCLE_DAY_VARIABLE,
                message: format!("{text:?}: {range}"),
            });
        }
        let length = self.duration_or(file, "metadata.lifecycle_day", DayLength::CALENDAR.length())?;
        DayLength::new(length).ok_or_else(|| {
            let span = file.as_ref().map(Spanned::span).unwrap_or_default();
            self.value(span, "metadata.lifecycle_day", range)
        })
    }

    fn storage(&self, file: FileStorage, data: &Path) -> Result<StorageSection, ConfigError> {
        let disks = match file.disks {
            None => (0..DEFAULT_DISKS).map(|i| data.join("disks").join(format!("d{i}"))).collect(),
            Some(disks) if disks.get_ref().is_empty() => {
                return Err(self.value(disks.span(), "storage.disks", "name at least one folder"));
            }
            Some(disks) => {
                let span = disks.span();
                let disks = disks.into_inner();
                let mut names: Vec<_> = disks.iter().map(|path| path.file_name()).collect();
                names.sort();
                if names.windows(2).any(|pair| pair[0] == pair[1]) {
                    return Err(self.value(span, "storage.disks", "the folders' last names must differ"));
                }
                disks
            }
        };
        let extent_bytes = match &file.extent {
            None => 256 * MIB,
            Some(text) => {
                let bytes = self.bytes(text, "storage.extent")?;
                if !(16 * MIB..=4096 * MIB).contains(&bytes) {
                    return Err(self.value(text.span(), "storage.extent", "must be 16MiB to 4GiB"));
                }
                bytes
            }
        };
        Ok(StorageSection {
            listen: file.listen.as_ref().map(|text| self.loopback(text, "storage.listen")).transpose()?,
            disks,
            extent_bytes,
            scrub: self.duration_or(&file.scrub, "storage.scrub", Duration::from_secs(14 * 24 * 3600))?,
        })
    }

    fn keys(&self, file: FileKeys) -> Result<KeysSection, ConfigError> {
        let seal = file.seal.as_ref().map(|kind| *kind.get_ref());
        match (&file.seal, &file.passphrase_file) {
            (Some(kind), None) if *kind.get_ref() == SealKind::Passphrase => {
                return Err(self.value(kind.span(), "keys.seal", "needs keys.passphrase_file"));
            }
            (Some(kind), Some(path)) if *kind.get_ref() != SealKind::Passphrase => {
                return Err(self.value(path.span(), "keys.passphrase_file", "goes with keys.seal = \"passphrase\""));
            }
            _ => {}
        }
        let lease = self.duration_or(&file.lease, "keys.lease", KEY_LEASE)?;
        if !KEY_LEASE_RANGE.contains(&lease) {
            let span = file.lease.as_ref().map(Spanned::span).unwrap_or_default();
            return Err(self.value(span, "keys.lease", "must be 1s to 1h"));
        }
        Ok(KeysSection {
            seal,
            passphrase_file: file.passphrase_file.map(Spanned::into_inner),
            lease,
            retire_after: self.duration_or(&file.retire_after, "keys.retire_after", KEY_RETIRE_AFTER)?,
            backups_kept: self.duration_or(&file.backups_kept, "keys.backups_kept", KEY_BACKUPS_KEPT)?,
        })
    }

    fn line(&self, span: Range<usize>) -> usize {
        let end = span.start.min(self.text.len());
        self.text.as_bytes()[..end].iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    /// The parser's message with the key it is about, which TOML errors of a wrong type leave out.
    fn describe(&self, error: &toml::de::Error) -> String {
        let message = error.message().trim_end();
        let Some(span) = error.span() else { return message.to_owned() };
        let start = self.text[..span.start.min(self.text.len())].rfind('\n').map_or(0, |at| at + 1);
        let line = self.text[start..].lines().next().unwrap_or_default();
        match line.split_once('=') {
            Some((key, _)) => format!("{}: {message}", key.trim()),
            None => message.to_owned(),
        }
    }

    fn value(&self, span: Range<usize>, key: &'static str, message: impl Into<String>) -> ConfigError {
        ConfigError::Value { file: self.file.clone(), line: self.line(span), key, message: message.into() }
    }

    fn address(&self, text: &Spanned<String>, key: &'static str) -> Result<SocketAddr, ConfigError> {
        let parsed = text.get_ref().parse();
        parsed.map_err(|_| self.value(text.span(), key, format!("{:?} is not ADDRESS:PORT", text.get_ref())))
    }

    /// Valv's own services carry keys, and their channel is not encrypted before the cluster has certificates.
    fn loopback(&self, text: &Spanned<String>, key: &'static str) -> Result<SocketAddr, ConfigError> {
        let address = self.address(text, key)?;
        if !address.ip().is_loopback() {
            return Err(self.value(
                text.span(),
                key,
                format!("{address} is not a loopback address: refused without mTLS"),
            ));
        }
        Ok(address)
    }

    fn loopback_url(&self, text: &Spanned<String>, key: &'static str) -> Result<String, ConfigError> {
        let bare = text.get_ref().strip_prefix("http://").unwrap_or(text.get_ref()).trim_end_matches('/');
        let address = self.loopback(&Spanned::new(text.span(), bare.to_owned()), key)?;
        Ok(format!("http://{address}"))
    }

    fn loopback_urls(&self, texts: &[Spanned<String>], key: &'static str) -> Result<Vec<String>, ConfigError> {
        texts.iter().map(|text| self.loopback_url(text, key)).collect()
    }

    fn networks(&self, texts: &[Spanned<String>], key: &'static str) -> Result<Vec<Cidr>, ConfigError> {
        let network = |text: &Spanned<String>| {
            let message = || format!("{:?} is not a network such as 10.0.0.0/8", text.get_ref());
            Cidr::parse(text.get_ref()).ok_or_else(|| self.value(text.span(), key, message()))
        };
        texts.iter().map(network).collect()
    }

    fn bytes(&self, text: &Spanned<String>, key: &'static str) -> Result<u64, ConfigError> {
        parse_bytes(text.get_ref())
            .ok_or_else(|| self.value(text.span(), key, format!("{:?} is not a size such as 512MiB", text.get_ref())))
    }

    fn duration_or(
        &self,
        text: &Option<Spanned<String>>,
        key: &'static str,
        default: Duration,
    ) -> Result<Duration, ConfigError> {
        let Some(text) = text else { return Ok(default) };
        parse_duration(text.get_ref()).ok_or_else(|| {
            self.value(text.span(), key, format!("{:?} is not a time such as 30s, 24h or 14d", text.get_ref()))
        })
    }
}

/// Reads `512MiB`, `1GiB`, `100kB` or plain bytes.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Reads `500ms`, `30s`, `10m`, `24h` or `14d`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit.trim() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        "d" => number.checked_mul(86_400).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, ConfigError> {
        Source { file: PathBuf::from("valv.toml"), text }.check(Overrides::default())
    }

    #[test]
    fn no_file_gives_all_roles_over_six_disks() {
        let config = check("").unwrap();
        assert_eq!(config.roles, Role::ALL);
        assert_eq!(config.storage.disks.len(), 6);
        assert_eq!(config.storage.disks[5], PathBuf::from("valv-data/disks/d5"));
        assert_eq!(config.gateway.listen, [DEFAULT_LISTEN.parse().unwrap()]);
        assert_eq!((config.metadata.k, config.metadata.m), (4, 2));
    }

    #[test]
    fn errors_name_file_line_and_key() {
        for (text, expected) in [
            ("data = 'x'\nrols = []", "valv.toml:2: rols: unknown field `rols`"),
            ("\nroles = []", "valv.toml:2: roles: name at least one"),
            ("roles = ['cook']", "valv.toml:1: roles: unknown variant `cook`"),
            ("[gateway]\nlisten = 'nowhere'", "valv.toml:2: gateway.listen: \"nowhere\" is not ADDRESS:PORT"),
            ("[gateway]\nregion = 7", "valv.toml:2: region: invalid type"),
            ("memory_budget = '12 parsecs'", "valv.toml:1: memory_budget: \"12 parsecs\" is not a size"),
            ("memory_budget = '1MiB'", "valv.toml:1: memory_budget: at least 128MiB"),
            ("[metadata]\ntrash = 'soon'", "valv.toml:2: metadata.trash: \"soon\" is not a time"),
            ("[metadata]\nlisten = '10.0.0.1:9101'", "valv.toml:2: metadata.listen: 10.0.0.1:9101 is not a loopback"),
            ("[custody]\nwarn_before = 'early'", "valv.toml:2: custody.warn_before: \"early\" is not a time"),
            ("[storage]\ndisks = []", "valv.toml:2: storage.disks: name at least one folder"),
            (
                "[storage]\n\ndisks = ['/a/x', '/b/x']",
                "valv.toml:3: storage.disks: the folders' last names must differ",
            ),
            ("roles = ['gateway']", "valv.toml:1: gateway.metadata: needed"),
            ("roles = ['storage']", "valv.toml:1: cluster: needed"),
            ("data = ", "valv.toml:1: data: "),
        ] {
            let error = check(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn unsigned_requests_have_the_default_namespace_unless_the_file_says_otherwise() {
        let gateway = |text: &str| check(text).unwrap().gateway;
        assert_eq!(gateway("").anonymous_namespace.as_deref(), Some("default"));
        assert_eq!(gateway("[gateway]\nanonymous_namespace = ''").anonymous_namespace, None);
        let hosts = gateway("[[gateway.hosts]]\nname = 'S3.Example.org.'\nnamespace = 'x'").hosts;
        assert_eq!(hosts, HashMap::from([("s3.example.org".to_owned(), "x".to_owned())]));
        for (host, line) in [("a:9000", 2), ("", 2), ("http://a", 2), ("twice", 5)] {
            let section = |host: &str| format!("[[gateway.hosts]]\nname = '{host}'\nnamespace = 'x'\n");
            let error = check(&(section(host) + &section("twice"))).unwrap_err().to_string();
            assert!(error.starts_with(&format!("valv.toml:{line}: gateway.hosts.name: ")), "{error}");
        }
    }

    #[test]
    fn new_buckets_are_locked_down_unless_the_file_says_otherwise() {
        let made = |text: &str| check(text).unwrap().gateway.new_buckets;
        let default = made("");
        assert_eq!(default.object_ownership, Ownership::BucketOwnerEnforced);
        assert!(default.public_access_block.0);
        let open = made("[gateway.new_buckets]\nobject_ownership = 'ObjectWriter'\npublic_access_block = false");
        assert_eq!(open.object_ownership, Ownership::ObjectWriter);
        assert!(!open.public_access_block.0);
        assert!(made("[gateway.new_buckets]\nobject_ownership = 'ObjectWriter'").public_access_block.0);
        for text in ["object_ownership = 'mine'", "public = true"] {
            assert!(check(&format!("[gateway.new_buckets]\n{text}")).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_and_times_are_read_with_their_units() {
        assert_eq!(parse_bytes("512MiB"), Some(512 << 20));
        assert_eq!(parse_bytes("7"), Some(7));
        assert_eq!(parse_bytes("7 bananas"), None);
        assert_eq!(parse_bytes("99999999999TiB"), None);
        assert_eq!(parse_duration("14d"), Some(Duration::from_secs(14 * 86_400)));
        assert_eq!(parse_duration("0s"), Some(Duration::ZERO));
        assert_eq!(parse_duration("10"), None);
    }

    #[test]
    fn a_user_has_one_key_or_several_and_the_first_is_in_its_own_project() {
        let key = |id: &str, more: &str| {
            format!("[[users.keys]]\naccess_key_id='{id}'\nsecret_access_key='hush-hush'\n{more}\n")
        };
        let user = "[[users]]\nname='a'\nproject='p'\nnamespace='n'\n";
        let text = [user, &key("KEY1", "project='q'"), &key("KEY2", ""), &key("KEY3", "project='p'")].concat();
        let config = check(&text).unwrap();
        let keys: Vec<_> = config.users[0].keys.iter().map(|k| (k.id.as_str(), &*k.project, &*k.namespace)).collect();
        assert_eq!(keys, [("KEY2", "p", "n"), ("KEY3", "p", "n"), ("KEY1", "q", "")]);
        let single = "access_key_id='KEY0'\nsecret_access_key='hush-hush'\n";
        assert_eq!(check(&[user, single, &key("KEY1", "")].concat()).unwrap().users[0].keys.len(), 2);
        for (text, expected) in [
            (user.to_owned(), "valv.toml:2: users: needs an access key"),
            ([user, &key("KEY1", "project='q'")].concat(), "valv.toml:2: users: needs an access key"),
            ([user, "access_key_id='KEY0'"].concat(), "valv.toml:5: users.access_key_id: goes with"),
            ([user, "secret_access_key='hush-hush'"].concat(), "valv.toml:5: users.secret_access_key: goes with"),
            ([user, &key("no key", "")].concat(), "valv.toml:6: users.access_key_id: an access key id must have"),
            (
                [user, "access_key_id='KEY0'\nsecret_access_key='short'"].concat(),
                "valv.toml:6: users.secret_access_key: a secret access key must have 8 to 128 bytes",
            ),
        ] {
            let error = check(&text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn lifecycle_days_may_be_short_and_passes_follow_them() {
        let section = |text: &str| check(&format!("[metadata]\n{text}")).unwrap().metadata;
        let both =
            |section: MetadataSection| (section.lifecycle_day.length().as_secs(), section.lifecycle_every.as_secs());
        assert_eq!(both(section("")), (86_400, 3_600));
        assert_eq!(both(section("lifecycle_day = '1h'")), (3_600, 360));
        assert_eq!(both(section("lifecycle_day = '2s'")), (2, 1));
        assert_eq!(both(section("lifecycle_day = '2s'\nlifecycle_every = '7s'")), (2, 7));
        let over = |text: &str| {
            let overrides = Overrides { lifecycle_day: Some(text.to_owned()), ..Overrides::default() };
            Source { file: PathBuf::from("valv.toml"), text: "[metadata]\nlifecycle_day = '1h'" }.check(overrides)
        };
        assert_eq!(both(over("10s").unwrap().metadata), (10, 1));
        assert_eq!(over("never").unwrap_err().to_string(), "VALV_LIFECYCLE_DAY: \"never\": must be 1s to 24h");
        for (text, expected) in [
            ("lifecycle_day = '25h'", "valv.toml:2: metadata.lifecycle_day: must be 1s to 24h"),
            ("lifecycle_day = '10ms'", "valv.toml:2: metadata.lifecycle_day: must be 1s to 24h"),
            ("lifecycle_every = '0s'", "valv.toml:2: metadata.lifecycle_every: must be at least 1s"),
        ] {
            assert_eq!(check(&format!("[metadata]\n{text}")).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        let config =
            check("[[users]]\nname='a'\nproject='p'\naccess_key_id='AKIA'\nsecret_access_key='hush-hush'").unwrap();
        assert!(!format!("{config:?}").contains("hush"));
    }
}
