//! `valv user`: users and access keys, through the admin service of a running server.

use super::DataArg;
use super::output::{confirm, day, print_fields, print_json, print_table};
use crate::admin::{self, Channel, refused};
use crate::credentials;
use anyhow::Context;
use serde_json::{Value, json};

use valv_proto::admin::v1::admin_client::AdminClient;
use valv_proto::admin::v1::*;

const ABOUT_USERS: &str = "\
A user is a person or a program, and owns access keys. An access key is a user in a project:
requests signed with it act in that project, on its buckets. Projects that were made with the same
namespace share bucket names.

  valv user add --name ada --project cohort-7    a user, a project if it is new, and an access key
  valv user key add ada                          rotation: a second key beside the first ...
  valv user key disable VALV...                  ... which is then refused within 3 seconds
  valv user list --json                          for scripts

Secrets are made and printed once, or taken from VALV_SECRET_ACCESS_KEY. Nobody is shown them again.";

/// `valv user ...`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = ABOUT_USERS)]
pub(crate) enum UserCommand {
    /// Lists all users.
    List(ListArgs),
    /// Shows a user and all access keys.
    Show(ShowArgs),
    /// Adds a user with a project and an access key, or a further access key to a user that exists.
    Add(AddArgs),
    /// Changes a user's display name, e-mail address or default project.
    Change(ChangeArgs),
    /// Deletes a user and all access keys. Refused while the user owns buckets.
    Delete(DeleteArgs),
    /// Access keys: add, list, disable, enable, delete.
    #[command(subcommand)]
    Key(KeyCommand),
}

/// `valv user key ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeyCommand {
    /// Adds an access key to a user.
    Add(KeyAddArgs),
    /// Lists a user's access keys. Secrets are shown to nobody.
    List(ShowArgs),
    /// Disables an access key: it is refused within 3 seconds, and transfers that run with it end.
    Disable(KeyArgs),
    /// Enables an access key that was disabled.
    Enable(KeyArgs),
    /// Deletes an access key for good.
    Delete(KeyDeleteArgs),
}

/// `valv user list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    data: DataArg,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv user show`, `valv user key list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    data: DataArg,
    /// The user's name.
    name: String,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// An access key that the operator chooses, or leaves to Valv.
#[derive(Debug, clap::Args)]
struct NewKeyArgs {
    /// The access key id; made if left out.
    #[arg(long, env = "VALV_ACCESS_KEY_ID")]
    access_key_id: Option<String>,
    /// The secret; made and printed if left out. Give it in the environment: a command line can be seen by others.
    #[arg(long, env = "VALV_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret_access_key: Option<String>,
}

/// `valv user add`.
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    data: DataArg,
    /// The user's unique name.
    #[arg(long)]
    name: String,
    /// The name shown in listings and ACLs [default: the user's name].
    #[arg(long, default_value = "", hide_default_value = true)]
    display_name: String,
    /// E-mail address; an ACL may name the user by it.
    #[arg(long, default_value = "", hide_default_value = true)]
    email: String,
    /// The canonical id, 64 hexadecimal digits; one is made if this is left out.
    #[arg(long, default_value = "", hide_default_value = true)]
    canonical_id: String,
    /// The project in which the key's requests act; made if it is new. It is a new user's default project.
    #[arg(long)]
    project: String,
    /// The namespace of a new project's bucket names [default: default]. Projects in one namespace can't have buckets
    /// of the same name, and their users can name each other's.
    #[arg(long, default_value = "", hide_default_value = true)]
    namespace: String,
    #[command(flatten)]
    key: NewKeyArgs,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv user change`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    data: DataArg,
    /// The user's name, which never changes.
    name: String,
    /// The name shown in listings and ACLs.
    #[arg(long, group = "what")]
    display_name: Option<String>,
    /// E-mail address; empty to take it away.
    #[arg(long, group = "what")]
    email: Option<String>,
    /// The default project, in which new keys act; it must exist. Keys that are there keep theirs.
    #[arg(long, group = "what")]
    project: Option<String>,
}

/// `valv user delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    data: DataArg,
    /// The user's name.
    name: String,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
}

/// `valv user key add`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyAddArgs {
    #[command(flatten)]
    data: DataArg,
    /// The user's name.
    name: String,
    /// The project in which the key's requests act; made if it is new [default: the user's].
    #[arg(long, default_value = "", hide_default_value = true)]
    project: String,
    /// The namespace of a new project's bucket names [default: default].
    #[arg(long, default_value = "", hide_default_value = true, requires = "project")]
    namespace: String,
    #[command(flatten)]
    key: NewKeyArgs,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv user key disable`, `valv user key enable`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    data: DataArg,
    /// The access key id.
    access_key_id: String,
}

/// `valv user key delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyDeleteArgs {
    #[command(flatten)]
    data: DataArg,
    /// The access key id.
    access_key_id: String,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub(crate) async fn run(command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::List(args) => list(args).await,
        UserCommand::Show(args) => {
            let (user, keys) = describe(&args.data, &args.name).await?;
            match args.json {
                true => print_json(&with_keys(&user, &keys)),
                false => {
                    print_user(&user);
                    println!();
                    print_keys(&keys);
                    Ok(())
                }
            }
        }
        UserCommand::Add(args) => add(args).await,
        UserCommand::Change(args) => change(args).await,
        UserCommand::Delete(args) => delete(args).await,
        UserCommand::Key(KeyCommand::Add(args)) => add_key(args).await,
        UserCommand::Key(KeyCommand::List(args)) => {
            let (_, keys) = describe(&args.data, &args.name).await?;
            match args.json {
                true => print_json(&keys.iter().map(key_json).collect()),
                false => {
                    print_keys(&keys);
                    Ok(())
                }
            }
        }
        UserCommand::Key(KeyCommand::Disable(args)) => set_key(args, true).await,
        UserCommand::Key(KeyCommand::Enable(args)) => set_key(args, false).await,
        UserCommand::Key(KeyCommand::Delete(args)) => delete_key(args).await,
    }
}

async fn connect(data: &DataArg) -> anyhow::Result<AdminClient<Channel>> {
    admin::connect(data).await
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut client = connect(&args.data).await?;
    let mut users = Vec::new();
    loop {
        let after = users.last().map(|user: &User| user.name.clone()).unwrap_or_default();
        let page = client.list_users(ListUsersRequest { after }).await.map_err(refused)?.into_inner().users;
        if page.is_empty() {
            break;
        }
        users.extend(page);
    }
    if args.json {
        return print_json(&users.iter().map(user_json).collect());
    }
    let rows = users.iter().map(|user| {
        [&user.name, &user.display_name, &user.email, &user.project, &user.namespace]
            .map(|text| text.clone())
            .into_iter()
            .chain([day(user.created_micros)])
            .collect()
    });
    print_table(&["user", "display name", "e-mail", "default project", "namespace", "since"], rows.collect());
    Ok(())
}

async fn describe(data: &DataArg, name: &str) -> anyhow::Result<(User, Vec<AccessKey>)> {
    let request = DescribeUserRequest { name: name.to_owned() };
    let reply = connect(data).await?.describe_user(request).await.map_err(refused)?.into_inner();
    Ok((reply.user.context("the server's answer has no user")?, reply.keys))
}

/// An access key about to be made.
struct NewKey {
    id: String,
    secret: String,
    is_generated: bool,
}

impl NewKeyArgs {
    fn key(self) -> anyhow::Result<NewKey> {
        let id = match self.access_key_id {
            Some(id) => id,
            None => credentials::generate_access_key_id()?,
        };
        credentials::check_id(&id)?;
        let (secret, is_generated) = match self.secret_access_key {
            Some(secret) => (secret, false),
            None => (credentials::generate_secret()?, true),
        };
        credentials::check_secret(&secret)?;
        Ok(NewKey { id, secret, is_generated })
    }
}

impl NewKey {
    fn print(&self) {
        println!("access_key_id = {}", self.id);
        if self.is_generated {
            println!("secret_access_key = {}", self.secret);
            eprintln!("Keep the secret now: it is not shown again.");
        }
    }

    fn json(&self) -> Value {
        match self.is_generated {
            true => json!({"access_key_id": self.id, "secret_access_key": self.secret}),
            false => json!({"access_key_id": self.id}),
        }
    }
}

async fn add(args: AddArgs) -> anyhow::Result<()> {
    let key = args.key.key()?;
    let request = EnsureUserRequest {
        name: args.name.clone(),
        display_name: args.display_name,
        email: args.email,
        canonical_id: args.canonical_id,
        project: args.project,
        namespace: args.namespace,
        access_key_id: key.id.clone(),
        secret_access_key: key.secret.clone().into_bytes().into(),
    };
    let reply = connect(&args.data).await?.ensure_user(request).await.map_err(refused)?.into_inner();
    if args.json {
        let mut value = key.json();
        value["name"] = json!(args.name);
        value["user"] = json!(reply.user);
        value["project"] = json!(reply.project);
        return print_json(&value);
    }
    println!("user = {}", reply.user);
    println!("project = {}", reply.project);
    key.print();
    Ok(())
}

async fn add_key(args: KeyAddArgs) -> anyhow::Result<()> {
    let key = args.key.key()?;
    let request = CreateAccessKeyRequest {
        user: args.name,
        project: args.project,
        namespace: args.namespace,
        id: key.id.clone(),
        secret: key.secret.clone().into_bytes().into(),
    };
    let made = connect(&args.data).await?.create_access_key(request).await.map_err(refused)?.into_inner();
    if args.json {
        let mut value = key.json();
        value["project"] = json!(made.project);
        return print_json(&value);
    }
    println!("project = {}", made.project);
    key.print();
    Ok(())
}

async fn change(args: ChangeArgs) -> anyhow::Result<()> {
    let request = UpdateUserRequest {
        name: args.name.clone(),
        display_name: args.display_name,
        email: args.email,
        project: args.project,
    };
    connect(&args.data).await?.update_user(request).await.map_err(refused)?;
    print_user(&describe(&args.data, &args.name).await?.0);
    Ok(())
}

async fn delete(args: DeleteArgs) -> anyhow::Result<()> {
    let (user, keys) = describe(&args.data, &args.name).await?;
    let what = format!("user {} with {} access keys", user.name, keys.len());
    confirm(&format!("deletes {what} for good"), &user.name, args.yes)?;
    let request = DeleteUserRequest { name: args.name };
    let reply = connect(&args.data).await?.delete_user(request).await.map_err(refused)?.into_inner();
    println!("{what} is deleted");
    warn_if_configured(&reply);
    Ok(())
}

async fn set_key(args: KeyArgs, disabled: bool) -> anyhow::Result<()> {
    let request = UpdateAccessKeyRequest { id: args.access_key_id, disabled };
    let key = connect(&args.data).await?.update_access_key(request).await.map_err(refused)?.into_inner();
    match key.disabled {
        true => println!("{} is disabled: it is refused everywhere within 3 seconds", key.id),
        false => println!("{} is enabled", key.id),
    }
    Ok(())
}

async fn delete_key(args: KeyDeleteArgs) -> anyhow::Result<()> {
    confirm(&format!("deletes access key {} for good", args.access_key_id), &args.access_key_id, args.yes)?;
    let request = DeleteAccessKeyRequest { id: args.access_key_id.clone() };
    let reply = connect(&args.data).await?.delete_access_key(request).await.map_err(refused)?.into_inner();
    println!("access key {} is deleted", args.access_key_id);
    warn_if_configured(&reply);
    Ok(())
}

fn warn_if_configured(reply: &DeletedReply) {
    if reply.configured {
        eprintln!(
            "warning: the server's configuration or environment names it, so the next start makes it again: take it \
             out there too"
        );
    }
}

fn user_json(user: &User) -> Value {
    json!({
        "id": user.id, "name": user.name, "display_name": user.display_name, "email": user.email,
        "canonical_id": user.canonical_id, "project": user.project, "namespace": user.namespace,
        "created_micros": user.created_micros,
    })
}

fn key_json(key: &AccessKey) -> Value {
    json!({
        "access_key_id": key.id, "project": key.project, "created_micros": key.created_micros,
        "disabled": key.disabled,
    })
}

fn with_keys(user: &User, keys: &[AccessKey]) -> Value {
    let mut value = user_json(user);
    value["keys"] = keys.iter().map(key_json).collect();
    value
}

fn print_user(user: &User) {
    print_fields(&[
        ("user", user.name.clone()),
        ("display name", user.display_name.clone()),
        ("e-mail", user.email.clone()),
        ("canonical id", user.canonical_id.clone()),
        ("default project", user.project.clone()),
        ("namespace", user.namespace.clone()),
        ("since", day(user.created_micros)),
    ]);
}

fn print_keys(keys: &[AccessKey]) {
    let row = |key: &AccessKey| {
        let state = if key.disabled { "disabled" } else { "enabled" };
        vec![key.id.clone(), key.project.clone(), state.to_owned(), day(key.created_micros)]
    };
    print_table(&["access key id", "project", "state", "since"], keys.iter().map(row).collect());
}
