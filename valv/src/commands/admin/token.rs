//! `valv admin token` and `valv admin whoami`.

use crate::admin::{self, Channel, refused};
use crate::commands::DataArg;
use crate::commands::output::{confirm, day, print_fields, print_json, print_table, time};
use serde_json::{Value, json};
use valv_proto::admin::v1::credentials_client::CredentialsClient;
use valv_proto::admin::v1::*;

const ABOUT_TOKENS: &str = "\
A token says who you are when you talk to a server's admin service: as a controller, steward or
auditor of a project, or as an operator. It is not an access key: those sign S3 requests, and are
never taken instead.

  valv admin token create --user ada             the first one, made by an operator and handed over
  export VALV_TOKEN=valv-...                     (or --token-file) and from then on you are ada
  valv admin whoami
  valv admin token create --description laptop   your own further ones
  valv admin token revoke 1f0c...                refused from that moment

Replace a token that somebody else made for you by one of your own, and revoke it: whoever made it
may have kept a copy. Once you are a member of a governed project, operators can't make tokens for
you any more. Every creation and revocation is in the ledgers of your projects.";

/// `valv admin token ...`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = ABOUT_TOKENS)]
pub(crate) enum TokenCommand {
    /// Makes a token and prints it, this once.
    Create(CreateArgs),
    /// Lists your tokens; operators see everybody's.
    List(ListArgs),
    /// Revokes a token for good.
    Revoke(RevokeArgs),
}

/// `valv admin token create`.
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    data: DataArg,
    /// For whom [default: yourself]. Operators make the first token of a user.
    #[arg(long, default_value = "", hide_default_value = true)]
    user: String,
    /// Make its holder an operator. Only operators can.
    #[arg(long)]
    operator: bool,
    /// How many days it is valid: 1 to 1096.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=1096))]
    days: u32,
    /// What it is for.
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv admin token list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    data: DataArg,
    /// Only this user's.
    #[arg(long, default_value = "", hide_default_value = true)]
    user: String,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv admin token revoke`.
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    data: DataArg,
    /// The token's id, as it is listed.
    id: String,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
}

/// `valv admin whoami`.
#[derive(Debug, clap::Args)]
pub(crate) struct WhoAmIArgs {
    #[command(flatten)]
    data: DataArg,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

async fn connect(data: &DataArg) -> anyhow::Result<CredentialsClient<Channel>> {
    Ok(CredentialsClient::new(admin::channel(data).await?).max_decoding_message_size(admin::ADMIN_MESSAGE_BYTES_MAX))
}

/// Runs the command.
pub(crate) async fn run(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create(args) => create(args).await,
        TokenCommand::List(args) => list(args).await,
        TokenCommand::Revoke(args) => revoke(args).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let request =
        CreateTokenRequest { user: args.user, operator: args.operator, days: args.days, description: args.description };
    let reply = connect(&args.data).await?.create_token(request).await.map_err(refused)?.into_inner();
    let token = reply.token.unwrap_or_default();
    let secret = zeroize::Zeroizing::new(reply.secret);
    if args.json {
        let mut shown = token_json(&token);
        shown["token"] = json!(*secret);
        return print_json(&shown);
    }
    println!("{}", *secret);
    eprintln!(
        "Token {} of {}, valid until {}. It is not shown again: keep it as you keep a password.",
        token.id,
        token.user,
        time(token.expires_micros)
    );
    Ok(())
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let request = ListTokensRequest { user: args.user };
    let tokens = connect(&args.data).await?.list_tokens(request).await.map_err(refused)?.into_inner().tokens;
    if args.json {
        return print_json(&tokens.iter().map(token_json).collect());
    }
    let rows = tokens.into_iter().map(|token| {
        let role = if token.operator { "operator" } else { "user" };
        vec![
            token.id,
            token.user,
            role.to_owned(),
            token.state,
            day(token.created_micros),
            day(token.expires_micros),
            token.made_by,
            token.description,
        ]
    });
    print_table(&["id", "user", "as", "state", "created", "expires", "made by", "description"], rows.collect());
    Ok(())
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    confirm("revokes a token for good", &args.id, args.yes)?;
    let request = RevokeTokenRequest { id: args.id };
    let token = connect(&args.data).await?.revoke_token(request).await.map_err(refused)?.into_inner();
    println!("token {} of {} is revoked", token.id, token.user);
    Ok(())
}

/// Runs `valv admin whoami`.
pub(crate) async fn whoami(args: WhoAmIArgs) -> anyhow::Result<()> {
    let me = connect(&args.data).await?.who_am_i(WhoAmIRequest {}).await.map_err(refused)?.into_inner();
    if args.json {
        return print_json(&json!({
            "user": me.user, "user_id": me.user_id, "operator": me.operator, "by": me.by, "remote": me.remote,
        }));
    }
    print_fields(&[
        ("user", if me.user.is_empty() { "none".to_owned() } else { me.user }),
        ("operator", if me.operator { "yes" } else { "no" }.to_owned()),
        ("known by", me.by),
        ("from", me.remote),
    ]);
    Ok(())
}

fn token_json(token: &Token) -> Value {
    json!({
        "id": token.id,
        "user": token.user,
        "operator": token.operator,
        "state": token.state,
        "created": time(token.created_micros),
        "expires": time(token.expires_micros),
        "revoked": token.revoked_micros.map(time),
        "made_by": token.made_by,
        "description": token.description,
    })
}
