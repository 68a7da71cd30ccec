//! `valv project manifest`: the signed checksums of a bucket's objects, and files checked against them.

use crate::admin;
use crate::commands::output::print_json;
use crate::commands::statement::public_key;
use crate::commands::{DataArg, create_private};
use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use valv_gateway::checksum::{BodyHasher, WithMd5, parse_algorithm, parse_digest};
use valv_proto::admin::v1::ExportManifestRequest;
use valv_proto::admin::v1::retention_client::RetentionClient;

const ABOUT_MANIFESTS: &str = "\
A manifest has a line of JSON for each object (key, version, size, MD5, checksums, time) and ends with a
statement that Valv has signed over all of them. Whoever has the files and the manifest can check them,
years later and without Valv:

  valv project manifest cohort-7 --bucket images --out images.jsonl
  valv project manifest --check /mnt/copy --manifest images.jsonl --key 7c9f...

A manifest that broke off can be gone on with: --start-after takes the last key of the one that there is,
and a new file gets the rest, with a statement of its own. Of an object in several parts without a
whole-object checksum only the size can be checked, and that is said.";
/// Longest line of a manifest: a key is at most 6 KiB as JSON writes it.
const LINE_LEN_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a file read at once.
const BLOCK_BYTES: usize = 1 << 20;
/// Names of keys shown for each kind of trouble; the rest is counted.
const SHOWN_MAX: usize = 20;

/// `valv project manifest`.
#[derive(Debug, clap::Args)]
#[command(after_help = ABOUT_MANIFESTS)]
pub(crate) struct ManifestArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    #[arg(required_unless_present = "check")]
    project: Option<String>,
    /// The bucket.
    #[arg(long, required_unless_present = "check")]
    bucket: Option<String>,
    /// Only keys that begin with this.
    #[arg(long, default_value = "")]
    prefix: String,
    /// Only keys after this one.
    #[arg(long, default_value = "")]
    start_after: String,
    /// Old versions, too.
    #[arg(long)]
    all_versions: bool,
    /// The file to write; it must not exist.
    #[arg(long, required_unless_present = "check")]
    out: Option<PathBuf>,
    /// Checks the files under this folder against a manifest instead. Needs no server.
    #[arg(long, requires = "manifest", conflicts_with_all = ["project", "bucket", "out"])]
    check: Option<PathBuf>,
    /// The manifest to check against.
    #[arg(long, requires = "check")]
    manifest: Option<PathBuf>,
    /// The public key that the manifest's signature is checked with: as `valv ledger key` prints it.
    #[arg(long, requires = "check")]
    key: Option<String>,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) async fn run(args: ManifestArgs) -> anyhow::Result<()> {
    match (&args.check, &args.manifest) {
        (Some(folder), Some(manifest)) => check(folder, manifest, args.key.as_deref(), args.json),
        _ => export(args).await,
    }
}

async fn export(args: ManifestArgs) -> anyhow::Result<()> {
    let (Some(project), Some(bucket), Some(out)) = (args.project, args.bucket, args.out) else {
        bail!("a project, --bucket and --out are needed");
    };
    let mut client = RetentionClient::new(admin::channel(&args.data).await?)
        .max_decoding_message_size(admin::ADMIN_MESSAGE_BYTES_MAX);
    let request = ExportManifestRequest {
        project,
        bucket,
        prefix: args.prefix.into_bytes().into(),
        start_after: args.start_after.into_bytes().into(),
        all_versions: args.all_versions,
    };
    let mut pieces = client.export_manifest(request).await.map_err(admin::refused)?.into_inner();
    let writing = || format!("writing {}", out.display());
    let mut file = create_private(&out).with_context(|| format!("creating {}", out.display()))?;
    let bar = indicatif::ProgressBar::new_spinner();
    let (mut written, mut lines) = (0, 0);
    while let Some(piece) = pieces.message().await.context("the manifest broke off: go on after its last key")? {
        file.write_all(&piece.json_lines).with_context(writing)?;
        written += piece.json_lines.len() as u64;
        lines += piece.json_lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        bar.set_message(indicatif::BinaryBytes(written).to_string());
        bar.tick();
    }
    file.sync_all().with_context(writing)?;
    bar.finish_and_clear();
    let objects = lines.saturating_sub(1);
    if args.json {
        return print_json(&json!({ "objects": objects, "file": out.display().to_string() }));
    }
    println!("{} holds {objects} objects and a signed statement; `valv statement verify` checks it", out.display());
    Ok(())
}

/// A line of a manifest.
#[derive(Deserialize)]
struct Line {
    key: Option<String>,
    key_base64: Option<String>,
    current: bool,
    size: u64,
    md5: Option<String>,
    #[serde(default)]
    checksums: BTreeMap<String, Told>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    base64: String,
}

impl Line {
    fn key(&self) -> anyhow::Result<Vec<u8>> {
        match (&self.key, &self.key_base64) {
            (Some(key), _) => Ok(key.clone().into_bytes()),
            (None, Some(key)) => Ok(STANDARD.decode(key)?),
            (None, None) => bail!("a line without a key"),
        }
    }
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// Size and a checksum of all bytes agree.
    Good,
    /// The size agrees; there is no checksum of all bytes.
    SizeOnly,
    Missing,
    Differs,
    /// A key that no file can have.
    NoFile,
}

/// Where a key's file would lie; `None` if it would lie outside the folder, or nowhere.
fn path_of(folder: &Path, key: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(key));
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    // Components forget about `a//b` and `a/.`, which are other keys than `a/b` and `a`.
    let joined: Vec<u8> =
        path.components().map(|part| part.as_os_str().as_bytes()).collect::<Vec<_>>().join(b"/".as_slice());
    (is_plain && joined == key && !key.contains(&0)).then(|| folder.join(path))
}

fn check_line(folder: &Path, key: &[u8], line: &Line) -> anyhow::Result<Found> {
    let Some(path) = path_of(folder, key) else { return Ok(Found::NoFile) };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Found::Missing);
        }
        Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
    };
    let about = file.metadata().with_context(|| format!("reading {}", path.display()))?;
    if !about.is_file() {
        return Ok(Found::Missing);
    }
    if about.len() != line.size {
        return Ok(Found::Differs);
    }
    let mut expected = Vec::new();
    for (name, told) in line.checksums.iter().filter(|(_, told)| told.kind == "FULL_OBJECT") {
        // One that a newer Valv wrote is not known here; others are checked all the same.
        let Ok(algorithm) = parse_algorithm(name) else { continue };
        let digest = parse_digest(algorithm, &told.base64).map_err(|_| anyhow::anyhow!("a checksum can't be read"))?;
        expected.push((algorithm, digest));
    }
    let md5 = line.md5.as_deref().map(hex::decode).transpose().context("an MD5 can't be read")?;
    if expected.is_empty() && md5.is_none() {
        return Ok(Found::SizeOnly);
    }
    let with_md5 = if md5.is_some() { WithMd5::Yes } else { WithMd5::No };
    let mut hasher = BodyHasher::new(with_md5, expected.iter().map(|(algorithm, _)| *algorithm));
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match file.read(&mut block).with_context(|| format!("reading {}", path.display()))? {
            0 => break,
            read => hasher.update(&block[..read]),
        }
    }
    let digests = hasher.finish();
    let is_md5 = md5.is_none_or(|md5| digests.md5().is_some_and(|found| found.as_slice() == md5));
    let all = expected.iter().all(|(algorithm, digest)| digests.checksum(*algorithm) == Some(digest.as_slice()));
    Ok(if is_md5 && all { Found::Good } else { Found::Differs })
}

fn check(folder: &Path, manifest: &Path, key: Option<&str>, is_json: bool) -> anyhow::Result<()> {
    let open = || File::open(manifest).with_context(|| format!("opening {}", manifest.display()));
    if let Some(key) = key {
        valv_ledger::statement::verify(BufReader::new(open()?), &public_key(key)?)
            .with_context(|| format!("{} does not hold", manifest.display()))?;
    }
    let mut counts: BTreeMap<Found, u64> = BTreeMap::new();
    let mut troubles: Vec<(Found, String)> = Vec::new();
    let mut reader = BufReader::new(open()?);
    let mut text = Vec::new();
    let mut is_complete = false;
    loop {
        text.clear();
        let read =
            (&mut reader).take(LINE_LEN_BYTES_MAX).read_until(b'\n', &mut text).context("reading the manifest")?;
        if read == 0 {
            break;
        }
        let value: Value = serde_json::from_slice(&text).context("a line of the manifest can't be read")?;
        if value.get("statement").is_some() {
            is_complete = true;
            continue;
        }
        let line: Line = serde_json::from_value(value).context("a line of the manifest can't be read")?;
        if !line.current {
            continue;
        }
        let key = line.key()?;
        let found = check_line(folder, &key, &line)?;
        *counts.entry(found).or_default() += 1;
        if found > Found::SizeOnly && troubles.len() < SHOWN_MAX {
            troubles.push((found, String::from_utf8_lossy(&key).escape_debug().to_string()));
        }
    }
    let count = |found: Found| counts.get(&found).copied().unwrap_or_default();
    let is_good = is_complete && counts.keys().all(|found| *found <= Found::SizeOnly);
    if is_json {
        print_json(&json!({
            "holds": is_good,
            "complete": is_complete,
            "signature": if key.is_some() { "good" } else { "not checked" },
            "good": count(Found::Good),
            "size_only": count(Found::SizeOnly),
            "missing": count(Found::Missing),
            "differ": count(Found::Differs),
            "no_file_name": count(Found::NoFile),
        }))?;
    } else {
        for (found, key) in &troubles {
            let word = match found {
                Found::Missing => "missing",
                Found::Differs => "differs",
                _ => "no file can have this name",
            };
            println!("{word}: {key}");
        }
        println!("good: {}", count(Found::Good));
        println!("size agrees, no checksum of all bytes: {}", count(Found::SizeOnly));
        println!("missing: {}, differ: {}", count(Found::Missing), count(Found::Differs));
        if count(Found::NoFile) > 0 {
            println!("keys that no file can have: {}", count(Found::NoFile));
        }
        if key.is_none() {
            println!("the signature was not checked: --key does");
        }
    }
    match (is_good, is_complete) {
        (true, _) => Ok(()),
        (false, false) => bail!("the manifest is cut off: it ends without its statement"),
        (false, true) => bail!("the files are not those of the manifest"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_name_a_file_inside_the_folder_are_looked_for() {
        let folder = Path::new("/copy");
        assert_eq!(path_of(folder, b"a/b.dcm").unwrap(), Path::new("/copy/a/b.dcm"));
        for key in [&b"/etc/passwd"[..], b"../x", b"a/../b", b"a//b", b"a/.", b"./a", b"a/", b"a\0b"] {
            assert_eq!(path_of(folder, key), None, "{}", key.escape_ascii());
        }
    }
}
