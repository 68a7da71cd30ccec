//! `valv project key` and `valv project shred`: a project's key replaced, or destroyed.

use crate::admin::{self, refused};
use crate::commands::DataArg;
use crate::commands::output::{confirm, print_fields, print_json, print_table, time};
use anyhow::bail;
use std::path::PathBuf;
use valv_proto::admin::v1::keys_client::KeysClient;
use valv_proto::admin::v1::{
    GetProjectKeysRequest, GetShredCertificateRequest, KeyRotation, ProposeShreddingRequest, RotateProjectKeyRequest,
};

/// `valv project key ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ProjectKeyCommand {
    /// Makes a new version of the project's key and moves everything to it, while clients go on.
    ///
    /// No object is read or written: the wraps of data keys and the sealed records in metadata are made anew. Interrupted, it
    /// goes on by itself; the command only watches. Old versions are destroyed `keys.retire_after` after nothing refers to
    /// them any more. Take a key backup afterwards.
    ///
    /// Example: valv project key rotate cohort-7
    #[command(verbatim_doc_comment)]
    Rotate(RotateArgs),
    /// Lists the versions of the project's key, and how far a rotation is.
    List(ListArgs),
}

/// `valv project key rotate`.
#[derive(Debug, clap::Args)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// Don't wait until it has ended.
    #[arg(long)]
    detach: bool,
}

/// `valv project key list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project shred ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ShredCommand {
    /// Proposes to destroy the project's keys: nobody can read any of its objects again.
    ///
    /// Refused while anything in the project is under retention or legal hold. Another controller or a steward approves it
    /// (`valv proposal approve`); it then cools off before it is carried out, and can be rejected until then.
    ///
    /// Example: valv project shred propose cohort-7 --reason 'end of the study' --reference 'disposal decision 2036/14'
    #[command(verbatim_doc_comment)]
    Propose(ProposeArgs),
    /// Writes the signed certificate of a destroyed key, which `valv statement verify` checks.
    Certificate(CertificateArgs),
}

/// `valv project shred propose`.
#[derive(Debug, clap::Args)]
pub(crate) struct ProposeArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// Only one object version: its bucket.
    #[arg(long, requires = "key", requires = "version")]
    bucket: Option<String>,
    /// Its key.
    #[arg(long, requires = "bucket")]
    key: Option<String>,
    /// Its version id, as S3 shows it.
    #[arg(long, requires = "bucket")]
    version: Option<String>,
    /// Why.
    #[arg(long)]
    reason: String,
    /// The disposal decision that it rests on.
    #[arg(long)]
    reference: String,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project shred certificate`.
#[derive(Debug, clap::Args)]
pub(crate) struct CertificateArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// The proposal's id.
    proposal: String,
    /// The file to write; it must not exist. Without it, the certificate is printed.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Runs `valv project key`.
pub(crate) async fn run(command: ProjectKeyCommand) -> anyhow::Result<()> {
    match command {
        ProjectKeyCommand::Rotate(args) => rotate(args).await,
        ProjectKeyCommand::List(args) => list(args).await,
    }
}

async fn rotate(args: RotateArgs) -> anyhow::Result<()> {
    let mut client = KeysClient::new(admin::channel(&args.data).await?);
    let request = RotateProjectKeyRequest { project: args.project.clone(), detach: args.detach };
    let mut progress = client.rotate_project_key(request).await.map_err(refused)?.into_inner();
    let bar = indicatif::ProgressBar::new_spinner();
    let mut last = None;
    while let Some(step) = progress.message().await.map_err(refused)? {
        bar.set_message(describe(&step));
        bar.tick();
        last = Some(step);
    }
    bar.finish_and_clear();
    match last {
        Some(step) if step.ended_micros > 0 || args.detach => println!("{}", describe(&step)),
        _ => bail!("the server went away; the rotation goes on by itself: valv project key list {}", args.project),
    }
    Ok(())
}

fn describe(rotation: &KeyRotation) -> String {
    let KeyRotation { version, moved, passes, seen, .. } = rotation;
    if rotation.ended_micros > 0 {
        let old = if rotation.kept { "old versions had to stay" } else { "old versions are destroyed" };
        return format!("everything is under version {version}: {moved} records moved, {old}");
    }
    if rotation.settles_micros > 0 && *seen == 0 {
        return format!("version {version}: {moved} records moved; settles until {}", time(rotation.settles_micros));
    }
    format!("version {version}: {moved} records moved, pass {}, {seen} rows looked at", passes + 1)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut client = KeysClient::new(admin::channel(&args.data).await?);
    let keys = client.get_project_keys(GetProjectKeysRequest { project: args.project }).await.map_err(refused)?;
    let keys = keys.into_inner();
    if args.json {
        let versions: Vec<_> = keys
            .versions
            .iter()
            .map(|key| {
                serde_json::json!({
                    "version": key.version, "created": time(key.created_micros), "fingerprint": key.fingerprint,
                })
            })
            .collect();
        let rotation = keys.rotation.as_ref().map(|rotation| {
            serde_json::json!({
                "version": rotation.version, "moved": rotation.moved, "passes": rotation.passes,
                "ended": rotation.ended_micros > 0, "kept": rotation.kept,
            })
        });
        return print_json(&serde_json::json!({ "versions": versions, "rotation": rotation }));
    }
    let rows = keys.versions.iter();
    let rows = rows.map(|key| vec![key.version.to_string(), time(key.created_micros), key.fingerprint.clone()]);
    print_table(&["version", "created", "fingerprint"], rows.collect());
    if let Some(rotation) = &keys.rotation {
        println!("{}", describe(rotation));
    }
    Ok(())
}

/// Runs `valv project shred`.
pub(crate) async fn shred(command: ShredCommand) -> anyhow::Result<()> {
    match command {
        ShredCommand::Propose(args) => propose(args).await,
        ShredCommand::Certificate(args) => certificate(args).await,
    }
}

async fn propose(args: ProposeArgs) -> anyhow::Result<()> {
    let what = match &args.key {
        Some(key) => format!("proposes to destroy the key of {key}"),
        None => format!("proposes to destroy all keys of project {}", args.project),
    };
    confirm(&what, &args.project, args.yes)?;
    let mut client = KeysClient::new(admin::channel(&args.data).await?);
    let request = ProposeShreddingRequest {
        project: args.project,
        bucket: args.bucket.unwrap_or_default(),
        key: args.key.unwrap_or_default().into_bytes().into(),
        version: args.version.unwrap_or_default(),
        reason: args.reason,
        reference: args.reference,
    };
    let proposal = client.propose_shredding(request).await.map_err(refused)?.into_inner();
    if args.json {
        return print_json(&serde_json::json!({
            "id": proposal.id, "project": proposal.project, "act": proposal.act, "state": proposal.state,
        }));
    }
    print_fields(&[
        ("proposal", proposal.id.clone()),
        ("act", proposal.act),
        ("approved by", proposal.approvers),
        ("next", format!("valv proposal approve {} --project {} --reason ...", proposal.id, proposal.project)),
    ]);
    Ok(())
}

async fn certificate(args: CertificateArgs) -> anyhow::Result<()> {
    let mut client = KeysClient::new(admin::channel(&args.data).await?);
    let request = GetShredCertificateRequest { project: args.project, proposal: args.proposal };
    let statement = client.get_shred_certificate(request).await.map_err(refused)?.into_inner().statement;
    let statement = statement.trim_end();
    match args.out {
        None => println!("{statement}"),
        Some(path) => {
            use std::io::Write as _;
            let mut file = crate::commands::create_private(&path)?;
            writeln!(file, "{statement}")?;
            file.sync_all()?;
            println!("{} holds the certificate", path.display());
        }
    }
    Ok(())
}
