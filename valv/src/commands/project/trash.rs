//! `valv project trash`.

use crate::admin;
use crate::commands::DataArg;
use crate::commands::output::{print_json, print_table, time};
use serde_json::{Value, json};
use valv_proto::admin::v1::retention_client::RetentionClient;
use valv_proto::admin::v1::{ListTrashRequest, RestoreVersionRequest, TrashedVersion};

const ABOUT_TRASH: &str = "\
What is removed waits in the trash until its time is over (metadata.trash_hours). A controller or a
steward can bring it back until then: with its retention, and at its place among its key's versions.

  valv project trash list cohort-7 --bucket images --prefix patient-17/
  valv project trash restore cohort-7 5f0c...";

/// `valv project trash ...`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = ABOUT_TRASH)]
pub(crate) enum TrashCommand {
    /// Lists removed versions: what is purged first comes first.
    List(ListArgs),
    /// Brings a version back.
    Restore(RestoreArgs),
}

/// `valv project trash list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// Only this bucket.
    #[arg(long, default_value = "")]
    bucket: String,
    /// Only keys that begin with this.
    #[arg(long, default_value = "")]
    prefix: String,
    /// Print a line of JSON for each version, for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project trash restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// The version, as `list` shows it.
    version: String,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

fn version_json(version: &TrashedVersion) -> Value {
    json!({
        "version": version.version,
        "bucket": (!version.bucket.is_empty()).then_some(&version.bucket),
        "key": String::from_utf8_lossy(&version.key),
        "size": version.len_bytes,
        "written": time(version.written_micros),
        "removed": time(version.removed_micros),
        "by": (!version.by.is_empty()).then_some(&version.by),
        "purged_from": time(version.due_micros),
    })
}

/// Runs the command.
pub(super) async fn run(command: TrashCommand) -> anyhow::Result<()> {
    match command {
        TrashCommand::List(args) => list(args).await,
        TrashCommand::Restore(args) => {
            let mut client = RetentionClient::new(admin::channel(&args.data).await?);
            let version = args.version.clone();
            let request = RestoreVersionRequest { project: args.project, version: args.version, due_micros: 0 };
            client.restore_version(request).await.map_err(admin::refused)?;
            if args.json {
                return print_json(&json!({ "restored": version }));
            }
            println!("version {version} is back");
            Ok(())
        }
    }
}

/// Shows page after page: in pages of a thousand, so that a large trash is no large table in memory.
async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut client = RetentionClient::new(admin::channel(&args.data).await?);
    let mut request = ListTrashRequest {
        project: args.project,
        bucket: args.bucket,
        prefix: args.prefix.into_bytes().into(),
        after: Default::default(),
    };
    let mut is_first = true;
    loop {
        let page = client.list_trash(request.clone()).await.map_err(admin::refused)?.into_inner();
        if args.json {
            page.versions.iter().for_each(|version| println!("{}", version_json(version)));
        } else if is_first || !page.versions.is_empty() {
            let rows = page.versions.iter().map(|version| {
                vec![
                    version.version.clone(),
                    if version.bucket.is_empty() { "(deleted)".to_owned() } else { version.bucket.clone() },
                    String::from_utf8_lossy(&version.key).escape_debug().to_string(),
                    version.len_bytes.to_string(),
                    time(version.removed_micros),
                    version.by.clone(),
                    time(version.due_micros),
                ]
            });
            print_table(&["VERSION", "BUCKET", "KEY", "BYTES", "REMOVED", "BY", "PURGED FROM"], rows.collect());
        }
        is_first = false;
        if page.next.is_empty() {
            return Ok(());
        }
        request.after = page.next;
    }
}
