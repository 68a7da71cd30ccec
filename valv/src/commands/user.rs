//! `valv user`.

use super::DataArg;
use crate::admin;
use anyhow::Context;
use valv_proto::admin::v1::EnsureUserRequest;

/// `valv user ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum UserCommand {
    /// Adds a user with a project and an access key, or a further access key to a user that exists.
    Add(AddArgs),
}

/// `valv user add`.
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    data: DataArg,
    /// The user's unique name.
    #[arg(long)]
    name: String,
    /// The name shown in listings.
    #[arg(long, default_value = "")]
    display_name: String,
    /// E-mail address.
    #[arg(long, default_value = "")]
    email: String,
    /// The canonical id, 64 hexadecimal digits; one is made if this is left out.
    #[arg(long, default_value = "")]
    canonical_id: String,
    /// The project in which the user's requests act.
    #[arg(long)]
    project: String,
    /// The namespace of the project's bucket names; projects that name the same one share it.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// The access key id; made if left out.
    #[arg(long, env = "VALV_ACCESS_KEY_ID")]
    access_key_id: Option<String>,
    /// The secret; made and printed if left out.
    #[arg(long, env = "VALV_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret_access_key: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(command: UserCommand) -> anyhow::Result<()> {
    let UserCommand::Add(args) = command;
    let mut client = admin::connect(&args.data.data).await?;
    let access_key_id = match args.access_key_id {
        Some(id) => id,
        None => crate::server::generate_access_key_id()?,
    };
    let (secret, generated) = match args.secret_access_key {
        Some(secret) => (secret, false),
        None => (crate::server::generate_secret()?, true),
    };
    let request = EnsureUserRequest {
        name: args.name,
        display_name: args.display_name,
        email: args.email,
        canonical_id: args.canonical_id,
        project: args.project,
        namespace: args.namespace,
        access_key_id: access_key_id.clone(),
        secret_access_key: secret.clone().into_bytes().into(),
    };
    let reply = client.ensure_user(request).await.context("the server refused")?.into_inner();
    println!("user = {}", reply.user);
    println!("project = {}", reply.project);
    println!("access_key_id = {access_key_id}");
    if generated {
        println!("secret_access_key = {secret}");
    }
    Ok(())
}
