//! `valv ledger head`, `prove`, `consistency`: what proves a part of a ledger without an export of all of it.

use super::head_of;
use crate::admin::{self, Channel, refused};
use crate::commands::{DataArg, create_private};
use anyhow::{Context, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use valv_ledger::{Hash, Proof, ProofError, Proven, SignedHead, leaf};
use valv_proto::admin::v1::ledger_client::LedgerClient;
use valv_proto::admin::v1::prove_inclusion_request::Which;
use valv_proto::admin::v1::{
    GetHeadRequest, GetSigningKeyRequest, LedgerHead, ProveConsistencyRequest, ProveInclusionRequest,
};

/// Whose ledger.
#[derive(Debug, clap::Args)]
pub(crate) struct Whose {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    #[arg(long, required_unless_present = "cluster", default_value = "", hide_default_value = true)]
    project: String,
    /// The cluster's own ledger. For operators.
    #[arg(long, conflicts_with = "project")]
    cluster: bool,
}

/// `valv ledger head`.
#[derive(Debug, clap::Args)]
pub(crate) struct HeadArgs {
    #[command(flatten)]
    whose: Whose,
    /// The file to write; it must not exist [default: standard output].
    #[arg(long)]
    out: Option<PathBuf>,
}

/// `valv ledger prove`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub(crate) struct ProveArgs {
    #[command(flatten)]
    whose: Whose,
    /// The event's id, as exports and receipts name it: 32 hexadecimal digits.
    #[arg(long, group = "which")]
    event: Option<String>,
    /// The event's place, from 0.
    #[arg(long, group = "which")]
    index: Option<u64>,
    /// A head that you have (a file of `valv ledger head`, or an export): the proof is for the ledger as it was then.
    #[arg(long)]
    head: Option<PathBuf>,
    /// The file to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
}

/// `valv ledger consistency`.
#[derive(Debug, clap::Args)]
pub(crate) struct ConsistencyArgs {
    #[command(flatten)]
    whose: Whose,
    /// The earlier head: a file of `valv ledger head`, or an export.
    #[arg(long)]
    from: PathBuf,
    /// The file to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
}

async fn connect(data: &DataArg) -> anyhow::Result<LedgerClient<Channel>> {
    Ok(LedgerClient::new(admin::channel(data).await?))
}

/// The key that the server signs with, to check what it answers before anything is written.
async fn signing_key(data: &DataArg) -> anyhow::Result<[u8; 32]> {
    let key = admin::connect(data).await?.get_signing_key(GetSigningKeyRequest {}).await.map_err(refused)?.into_inner();
    key.public_key.as_ref().try_into().context("the server's answer has no key")
}

fn signed_head(head: Option<LedgerHead>) -> anyhow::Result<SignedHead> {
    let head = head.context("the server's answer has no head")?;
    Ok(SignedHead {
        project: head.project,
        size: head.size,
        root: hex::encode(head.root),
        time_micros: head.time_micros,
        key: head.key,
        signature: hex::encode(head.signature),
    })
}

fn hashes(path: &[bytes::Bytes]) -> anyhow::Result<Vec<Hash>> {
    let hash = |bytes: &bytes::Bytes| Hash::try_from(bytes.as_ref()).context("the server's answer has no hashes");
    path.iter().map(hash).collect()
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = create_private(path).with_context(|| format!("creating {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
    file.sync_all().with_context(|| format!("writing {}", path.display()))
}

/// Runs `valv ledger head`.
pub(super) async fn head(args: HeadArgs) -> anyhow::Result<()> {
    let request = GetHeadRequest { project: args.whose.project, cluster: args.whose.cluster };
    let head = connect(&args.whose.data).await?.get_head(request).await.map_err(refused)?.into_inner();
    let head = signed_head(Some(head))?;
    let line = valv_ledger::export::last_line(head.clone());
    match args.out {
        None => print!("{line}"),
        Some(path) => {
            write_private(&path, &line)?;
            println!("{} holds the head of {} events; keep it away from the server", path.display(), head.size);
        }
    }
    Ok(())
}

/// Runs `valv ledger prove`.
pub(super) async fn prove(args: ProveArgs) -> anyhow::Result<()> {
    let data = &args.whose.data;
    let kept = args.head.as_deref().map(head_of).transpose()?;
    let which = match (args.event, args.index) {
        (Some(event), _) => Some(Which::Event(event)),
        (None, index) => index.map(Which::Index),
    };
    let request = ProveInclusionRequest {
        project: args.whose.project,
        cluster: args.whose.cluster,
        which,
        size: kept.as_ref().map(|head| head.size),
    };
    let found = connect(data).await?.prove_inclusion(request).await.map_err(refused)?.into_inner();
    let head = match kept {
        Some(head) => head,
        None => signed_head(found.head)?,
    };
    let proof = Proof::inclusion(found.index, &found.leaf, found.names.as_deref(), &hashes(&found.path)?, head);
    proof.verify(&signing_key(data).await?).map_err(|error| match error {
        ProofError::NotIncluded => anyhow::anyhow!("{error}: the head is of another past than the server's"),
        error => error.into(),
    })?;
    write_private(&args.out, &proof.to_json())?;
    println!("{} proves event {}; `valv ledger verify` checks it", args.out.display(), found.index);
    Ok(())
}

/// Runs `valv ledger consistency`.
pub(super) async fn consistency(args: ConsistencyArgs) -> anyhow::Result<()> {
    let data = &args.whose.data;
    let old = head_of(&args.from)?;
    let request =
        ProveConsistencyRequest { project: args.whose.project, cluster: args.whose.cluster, old_size: old.size };
    let found = connect(data).await?.prove_consistency(request).await.map_err(refused)?.into_inner();
    let new = signed_head(found.head)?;
    let proof = Proof::consistency(&hashes(&found.path)?, old.clone(), new.clone());
    proof.verify(&signing_key(data).await?)?;
    write_private(&args.out, &proof.to_json())?;
    println!("{} proves that {} events go on from {}", args.out.display(), new.size, old.size);
    Ok(())
}

/// Prints what a proof says, once it holds.
pub(super) fn verify(proof: &Proof, key: &[u8; 32], json: bool) -> anyhow::Result<()> {
    let proven = proof.verify(key).context("the proof does not hold")?;
    if json {
        println!("{}", as_json(&proven));
        return Ok(());
    }
    match &proven {
        Proven::Inclusion { leaf, names, index, head } => {
            println!("holds: event {index} of {} in the ledger of project {}", head.size, head.project);
            println!("event: {}", leaf.event);
            println!("what: {}", leaf::kind_name(leaf.kind));
            println!("when: {}", valv_ledger::statement::rfc3339(leaf.time));
            println!("bytes: {}", leaf.bytes);
            match names {
                None => println!("names: erased"),
                Some(names) => {
                    println!("subject: {}", String::from_utf8_lossy(&names.subject));
                    if let Some(key) = &names.access_key {
                        println!("access key: {key}");
                    }
                }
            }
        }
        Proven::Consistency { old, new } => {
            println!("holds: {} events of project {} go on from {}", new.size, new.project, old.size);
        }
    }
    Ok(())
}

fn as_json(proven: &Proven) -> serde_json::Value {
    match proven {
        Proven::Inclusion { leaf, names, index, head } => serde_json::json!({
            "proof": "inclusion",
            "project": head.project.to_string(),
            "size": head.size,
            "root": hex::encode(head.root),
            "index": index,
            "event": leaf.event.to_string(),
            "kind": leaf::kind_name(leaf.kind),
            "time_micros": leaf.time.0,
            "bytes": leaf.bytes,
            "subject": names.as_ref().map(|names| String::from_utf8_lossy(&names.subject).into_owned()),
            "access_key": names.as_ref().and_then(|names| names.access_key.as_ref()).map(|key| key.as_str()),
        }),
        Proven::Consistency { old, new } => serde_json::json!({
            "proof": "consistency",
            "project": new.project.to_string(),
            "old_size": old.size,
            "size": new.size,
            "root": hex::encode(new.root),
        }),
    }
}

/// The largest proof: 64 hashes of 64 digits, a leaf and names, far below this.
const PROOF_LEN_BYTES_MAX: u64 = 256 * 1024;

/// The proof that a file holds; `None` if it holds something else.
pub(super) fn read(path: &Path) -> anyhow::Result<Option<Proof>> {
    let opening = || format!("opening {}", path.display());
    let len_bytes = std::fs::metadata(path).with_context(opening)?.len();
    if len_bytes > PROOF_LEN_BYTES_MAX {
        return Ok(None);
    }
    let bytes = std::fs::read(path).with_context(opening)?;
    let text = String::from_utf8_lossy(&bytes);
    if text.trim().is_empty() {
        bail!("{} is empty", path.display());
    }
    Ok(Proof::from_json(&text))
}
