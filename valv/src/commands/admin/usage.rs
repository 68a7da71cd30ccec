//! `valv admin usage`.

use crate::commands::DataArg;
use crate::commands::project::usage::{MonthArgs, show};

/// `valv admin usage`.
#[derive(Debug, clap::Args)]
pub(crate) struct AdminUsageArgs {
    #[command(flatten)]
    data: DataArg,
    #[command(flatten)]
    month: MonthArgs,
}

/// Runs the command.
pub(crate) async fn run(args: AdminUsageArgs) -> anyhow::Result<()> {
    show(&args.data, String::new(), &args.month).await
}
