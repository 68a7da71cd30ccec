//! `valv status`.

use super::DataArg;
use crate::admin;
use valv_proto::admin::v1::{CensusRequest, StatusReply, StatusRequest};

/// `valv status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    data: DataArg,
    /// Start a census first and wait until it has ended.
    #[arg(long)]
    census: bool,
    /// Read and verify every shard before that census: finds damage that nobody has met yet, and takes as long as reading
    /// every disk.
    #[arg(long)]
    verify: bool,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// Asks the server of the data folder and prints its answer.
pub(crate) async fn run(args: StatusArgs) -> anyhow::Result<()> {
    let mut client = admin::connect(&args.data).await?;
    if args.census || args.verify {
        let bar = indicatif::ProgressBar::new_spinner();
        let mut progress = client.census(CensusRequest { verify: args.verify }).await?.into_inner();
        while let Some(step) = progress.message().await? {
            if let Some(census) = step.census {
                bar.set_message(format!("{} blobs, {} shards present", census.blobs, census.shards_present));
            }
            bar.tick();
        }
        bar.finish_and_clear();
    }
    let status = client.status(StatusRequest {}).await?.into_inner();
    if args.json {
        print_json(&status)?
    } else {
        print_table(&status)
    }
    Ok(())
}

fn print_json(status: &StatusReply) -> anyhow::Result<()> {
    let disks: Vec<_> = status
        .disks
        .iter()
        .map(|disk| {
            serde_json::json!({
                "disk": disk.disk, "name": disk.name, "state": disk.state, "reason": disk.reason,
                "capacity_bytes": disk.capacity_bytes, "free_bytes": disk.free_bytes, "shards": disk.shards,
                "live_bytes": disk.live_bytes, "quarantined": disk.quarantined,
            })
        })
        .collect();
    let census = status.census.as_ref().map(|census| {
        serde_json::json!({
            "ended_micros": census.ended_micros, "blobs": census.blobs, "chunks": census.chunks,
            "shards_expected": census.shards_expected, "shards_present": census.shards_present,
            "shards_missing": census.shards_missing, "shards_quarantined": census.shards_quarantined,
            "shards_unreachable": census.shards_unreachable,
        })
    });
    let value = serde_json::json!({
        "cluster": status.cluster, "version": status.version, "roles": status.roles, "healthy": status.healthy,
        "sealed": status.sealed, "shares_given": status.shares_given, "shares_needed": status.shares_needed,
        "disks": disks, "census": census, "repair_queue": status.repair_queue,
        "shards_repaired": status.shards_repaired, "bytes_repaired": status.bytes_repaired,
    });
    println!("{}", serde_json::to_string_pretty(&value)?);
    Ok(())
}

fn print_table(status: &StatusReply) {
    if status.sealed {
        println!("sealed, {} of {} shares", status.shares_given, status.shares_needed);
    }
    println!("cluster {}  valv {}  roles {}", status.cluster, status.version, status.roles.join(", "));
    println!(
        "{:<8} {:<10} {:>12} {:>12} {:>10} {:>11}  reason",
        "disk", "state", "free", "live", "shards", "quarantined"
    );
    for disk in &status.disks {
        println!(
            "{:<8} {:<10} {:>12} {:>12} {:>10} {:>11}  {}",
            disk.name,
            disk.state,
            indicatif::BinaryBytes(disk.free_bytes).to_string(),
            indicatif::BinaryBytes(disk.live_bytes).to_string(),
            disk.shards,
            disk.quarantined,
            disk.reason
        );
    }
    match &status.census {
        None => println!("no census has ended yet"),
        Some(census) => println!(
            "last census: {} blobs, {} of {} shards present, {} missing, {} quarantined, {} on disks that are away",
            census.blobs,
            census.shards_present,
            census.shards_expected,
            census.shards_missing,
            census.shards_quarantined,
            census.shards_unreachable
        ),
    }
    println!(
        "repair: {} blobs waiting, {} shards ({}) written since the start",
        status.repair_queue,
        status.shards_repaired,
        indicatif::BinaryBytes(status.bytes_repaired)
    );
    println!("{}", if status.healthy { "healthy: the census agrees with the metadata" } else { "not healthy" });
}
