"""What people do with S3's programs day by day, beyond copying in and out: versions, metadata, globs, pipes, pruning."""

import concurrent.futures
import datetime
import io
import json
import os
import subprocess
import time

import pytest

import harness
from harness import MIB, local_tree, random_bytes, run
from test_clients import need, rclone

NAMES = [
    "scan 1.dcm", "scan 2.dcm", "patient a/ct/0001.dcm", "patient a/ct/0002.dcm", "patient a/report.txt", "patient b/ct/0001.dcm",
    "patient b/ö+%&=#.txt", "patient b/empty", "deep/" * 8 + "file", "[brackets]*.txt",
]  # fmt: skip


@pytest.fixture
def tree(folder):
    """A few files with awkward names, one of them large enough to be sent in parts."""
    root = folder / "tree"
    for index, name in enumerate(NAMES):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name.endswith("empty") else random_bytes(1000 * index + 7, index))
    (root / "large.nii").write_bytes(random_bytes(MIB, 5) * 18)
    return root


def program(name, server, folder):
    def call(*words, **options):
        return run(need(name), *words, env=server.client_env(folder), **options)

    return call


# -- rclone ------------------------------------------------------------------------------------------------------------


def test_rclone_syncs_by_checksum_and_keeps_metadata(shared, folder, tree):
    rclone(shared, folder, "mkdir", "valv:rclone-metadata")
    os.chmod(tree / "scan 1.dcm", 0o640)
    flags = ["--checksum", "--metadata"]
    rclone(shared, folder, "sync", tree, "valv:rclone-metadata", *flags)
    assert "There was nothing to transfer" in rclone(shared, folder, "sync", tree, "valv:rclone-metadata", *flags, "-v").stderr
    head = shared.s3().head_object(Bucket="rclone-metadata", Key="scan 1.dcm")["Metadata"]
    assert head["mode"] == "100640" and "mtime" in head

    # The same size and time, other bytes: only the checksum tells.
    victim = tree / "scan 2.dcm"
    was = victim.stat()
    victim.write_bytes(random_bytes(was.st_size, 99))
    os.utime(victim, ns=(was.st_atime_ns, was.st_mtime_ns))
    (tree / "patient a/report.txt").unlink()
    rclone(shared, folder, "sync", tree, "valv:rclone-metadata", *flags)
    rclone(shared, folder, "check", tree, "valv:rclone-metadata", "--download")

    rclone(shared, folder, "copy", "valv:rclone-metadata", folder / "back", "--metadata")
    assert local_tree(folder / "back") == local_tree(tree)
    for name in ("scan 1.dcm", "large.nii"):
        mine, theirs = (tree / name).stat(), (folder / "back" / name).stat()
        assert (mine.st_mode, mine.st_mtime_ns) == (theirs.st_mode, theirs.st_mtime_ns), name


def test_rclone_reads_old_versions(shared, folder):
    s3 = shared.s3()
    s3.create_bucket(Bucket="rclone-versions")
    s3.put_bucket_versioning(Bucket="rclone-versions", VersioningConfiguration={"Status": "Enabled"})
    source = folder / "in"
    source.mkdir()

    def put(text):
        (source / "notes.txt").write_text(text)
        rclone(shared, folder, "copy", source, "valv:rclone-versions", "--ignore-times")

    put("first")
    # Versions are told apart by whole seconds, as S3 lists them.
    first = datetime.datetime.now(datetime.timezone.utc)
    harness.wait_until(lambda: time.time() >= int(first.timestamp()) + 2, "the clock to pass a second")
    put("second")
    assert rclone(shared, folder, "cat", "valv:rclone-versions/notes.txt").stdout == "second"
    at = ["--s3-version-at", first.strftime("%Y-%m-%dT%H:%M:%SZ")]
    assert rclone(shared, folder, "cat", "valv:rclone-versions/notes.txt", *at).stdout == "first"
    rclone(shared, folder, "delete", "valv:rclone-versions")
    assert rclone(shared, folder, "lsf", "valv:rclone-versions").stdout == ""
    assert rclone(shared, folder, "lsf", "valv:rclone-versions", *at).stdout == "notes.txt\n"
    names = rclone(shared, folder, "lsf", "valv:rclone-versions", "--s3-versions").stdout.split()
    assert len(names) == 2 and all(name.startswith("notes-v") and name.endswith(".txt") for name in names)
    texts = {rclone(shared, folder, "cat", f"valv:rclone-versions/{name}", "--s3-versions").stdout for name in names}
    assert texts == {"first", "second"}


def test_rclone_copies_in_parts_inside_the_server(shared, folder, tree):
    for bucket in ("rclone-parts-a", "rclone-parts-b"):
        rclone(shared, folder, "mkdir", f"valv:{bucket}")
    cutoffs = ["--s3-upload-cutoff", "6M", "--s3-chunk-size", "6M", "--s3-copy-cutoff", "7M"]
    rclone(shared, folder, "copy", tree, "valv:rclone-parts-a", *cutoffs)
    rclone(shared, folder, "copy", "valv:rclone-parts-a", "valv:rclone-parts-b/copied", *cutoffs)
    rclone(shared, folder, "check", tree, "valv:rclone-parts-b/copied", "--download")
    etag = shared.s3().head_object(Bucket="rclone-parts-b", Key="copied/large.nii")["ETag"]
    assert etag.strip('"').endswith("-3"), etag
    rclone(shared, folder, "moveto", "valv:rclone-parts-b/copied/large.nii", "valv:rclone-parts-b/moved.nii", *cutoffs)
    listing = json.loads(rclone(shared, folder, "lsjson", "-R", "--files-only", "valv:rclone-parts-b").stdout)
    assert len(listing) == len(local_tree(tree))
    for bucket in ("rclone-parts-a", "rclone-parts-b"):
        rclone(shared, folder, "purge", f"valv:{bucket}")


# -- aws ---------------------------------------------------------------------------------------------------------------


def test_aws_cli_syncs_pipes_moves_and_removes(shared, folder, tree):
    aws = program("aws", shared, folder)
    (folder / "aws-config").write_text("[default]\ns3 =\n  multipart_chunksize = 5MB\n  multipart_threshold = 6MB\n")
    s3 = shared.s3()
    for bucket in ("aws-work", "aws-mirror"):
        s3.create_bucket(Bucket=bucket)

    def keys(bucket):
        return {entry["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
                for entry in page.get("Contents", [])}  # fmt: skip

    aws("s3", "sync", "--only-show-errors", tree, "s3://aws-work/t")
    (tree / "patient a/report.txt").unlink()
    (tree / "new").write_bytes(b"new")
    aws("s3", "sync", "--only-show-errors", "--delete", tree, "s3://aws-work/t")
    assert keys("aws-work") == {f"t/{name}" for name in local_tree(tree)}
    aws("s3", "sync", "--only-show-errors", "s3://aws-work/t", "s3://aws-mirror", "--exclude", "*", "--include", "*.dcm")
    assert keys("aws-mirror") == {name for name in local_tree(tree) if name.endswith(".dcm")}
    aws("s3", "mv", "--only-show-errors", "s3://aws-work/t/large.nii", "s3://aws-mirror/moved.nii")
    with open(tree / "large.nii", "rb") as source:
        env = {**os.environ, **shared.client_env(folder)}
        subprocess.run([need("aws"), "s3", "cp", "-", "s3://aws-mirror/piped"], stdin=source, env=env, check=True, timeout=300)
    piped = subprocess.run([need("aws"), "s3", "cp", "s3://aws-mirror/piped", "-"], stdout=subprocess.PIPE, env=env, timeout=300)
    assert piped.stdout == (tree / "large.nii").read_bytes()
    aws("s3", "rm", "--only-show-errors", "--recursive", "s3://aws-mirror", "--exclude", "*.nii")
    assert keys("aws-mirror") == {"moved.nii"}


# -- s5cmd -------------------------------------------------------------------------------------------------------------


def test_s5cmd_globs_syncs_pipes_and_removes(shared, folder, tree):
    s5cmd = program("s5cmd", shared, folder)
    s5cmd("mb", "s3://s5cmd-work")
    s5cmd("cp", f"{tree}/*.dcm", "s3://s5cmd-work/flat/")
    s5cmd("sync", f"{tree}/", "s3://s5cmd-work/t/")
    assert s5cmd("sync", "--size-only", f"{tree}/", "s3://s5cmd-work/t/").stdout == ""
    listed = s5cmd("ls", "s3://s5cmd-work/t/patient*/ct/*.dcm").stdout.splitlines()
    assert len(listed) == 3, listed
    env = {**os.environ, **shared.client_env(folder)}
    with open(tree / "large.nii", "rb") as source:
        subprocess.run([need("s5cmd"), "pipe", "s3://s5cmd-work/piped"], stdin=source, env=env, check=True, timeout=300)
    got = subprocess.run([need("s5cmd"), "cat", "s3://s5cmd-work/piped"], stdout=subprocess.PIPE, env=env, check=True, timeout=300)
    assert got.stdout == (tree / "large.nii").read_bytes()
    s5cmd("mv", "s3://s5cmd-work/piped", "s3://s5cmd-work/moved")
    s5cmd("cp", "s3://s5cmd-work/t/*", "s3://s5cmd-work/copied/")
    (tree / "scan 1.dcm").unlink()
    s5cmd("sync", "--delete", f"{tree}/", "s3://s5cmd-work/t/")
    s5cmd("cp", "s3://s5cmd-work/t/*", f"{folder}/back/")
    assert local_tree(folder / "back") == local_tree(tree)
    # A batch of commands over many connections, as pipelines run it.
    batch = folder / "batch"
    batch.write_text("".join(f'cp "s3://s5cmd-work/t/scan 2.dcm" s3://s5cmd-work/batch/{n}\n' for n in range(50)))
    s5cmd("run", batch)
    old = s5cmd("--use-list-objects-v1", "ls", "s3://s5cmd-work/batch/*").stdout.splitlines()
    assert len(old) == 50
    assert s5cmd("du", "s3://s5cmd-work/batch/*").stdout.startswith(str(50 * (tree / "scan 2.dcm").stat().st_size))
    s5cmd("rm", "s3://s5cmd-work/*")
    s5cmd("rb", "s3://s5cmd-work")


# -- s3cmd -------------------------------------------------------------------------------------------------------------


def test_s3cmd_syncs_and_is_told_what_is_not_there(shared, folder, tree):
    host = "%s:%d" % shared.address
    config = folder / "s3cfg"
    config.write_text(
        f"[default]\naccess_key = {harness.ACCESS_KEY}\nsecret_key = {harness.SECRET_KEY}\nhost_base = {host}\n"
        f"host_bucket = {host}\nuse_https = False\nbucket_location = us-east-1\nmax_retries = 1\n"
    )

    def s3cmd(*words, **options):
        return run(need("s3cmd"), "-c", config, "--no-progress", *words, **options)

    s3cmd("mb", "s3://s3cmd-work")
    s3cmd("sync", f"{tree}/", "s3://s3cmd-work/t/")
    (tree / "scan 1.dcm").unlink()
    s3cmd("sync", "--delete-removed", f"{tree}/", "s3://s3cmd-work/t/")
    listed = s3cmd("ls", "--recursive", "s3://s3cmd-work/t/").stdout.splitlines()
    assert len(listed) == len(local_tree(tree))
    s3cmd("put", "--add-header", "x-amz-meta-study: 17", tree / "scan 2.dcm", "s3://s3cmd-work/with metadata")
    assert shared.s3().head_object(Bucket="s3cmd-work", Key="with metadata")["Metadata"]["study"] == "17"
    # Without this, s3cmd 2.3 reads the source's ACL and sets it on the copy, which AWS refuses where ACLs are off.
    s3cmd("cp", "--acl-private", "s3://s3cmd-work/t/large.nii", "s3://s3cmd-work/copied.nii")
    s3cmd("mv", "--acl-private", "s3://s3cmd-work/copied.nii", "s3://s3cmd-work/moved.nii")
    s3cmd("get", "s3://s3cmd-work/moved.nii", folder / "moved.nii")
    assert (folder / "moved.nii").read_bytes() == (tree / "large.nii").read_bytes()
    # Its URLs are signed by Signature Version 2.
    url = s3cmd("signurl", "s3://s3cmd-work/moved.nii", "+600").stdout.strip()
    run("curl", "-sf", "-o", folder / "by url", url)
    assert (folder / "by url").read_bytes() == (tree / "large.nii").read_bytes()
    # Bucket owner enforced, as buckets are made by default: an ACL that makes something public can't be set.
    public = s3cmd("setacl", "--acl-public", "s3://s3cmd-work/moved.nii", check=False)
    assert public.returncode != 0 and "AccessControlListNotSupported" in public.stderr, public.stderr


# -- restic ------------------------------------------------------------------------------------------------------------


def test_restic_keeps_what_it_is_told_to_keep(shared, folder, tree):
    shared.s3().create_bucket(Bucket="restic-work")
    env = shared.client_env(folder)

    def restic(*words, **options):
        return run(need("restic"), "-r", f"s3:{shared.endpoint}/restic-work/repo", "-o", "s3.connections=8", *words, env=env, **options)

    restic("init")
    assert restic("init", check=False).returncode != 0, "a repository that is there is not made again"
    restic("backup", tree, "--tag", "first")
    first = local_tree(tree)
    (tree / "scan 1.dcm").unlink()
    (tree / "scan 2.dcm").write_bytes(random_bytes(300_000, 8))
    restic("backup", tree, "--tag", "second")
    assert len(json.loads(restic("snapshots", "--json").stdout)) == 2
    restic("check", "--read-data")
    restic("restore", "latest", "--tag", "first", "--target", folder / "restored-first")
    assert local_tree(folder / "restored-first" / tree.relative_to("/")) == first
    found = restic("find", "scan 1.dcm").stdout
    assert "scan 1.dcm" in found
    restic("forget", "--keep-last", "1", "--prune")
    assert len(json.loads(restic("snapshots", "--json").stdout)) == 1
    restic("check", "--read-data")
    restic("restore", "latest", "--target", folder / "restored")
    assert local_tree(folder / "restored" / tree.relative_to("/")) == local_tree(tree)
    env["RESTIC_PASSWORD"] = "wrong"
    assert restic("snapshots", check=False).returncode != 0


# -- boto3 -------------------------------------------------------------------------------------------------------------


class OneWay(io.RawIOBase):
    """A body that can be read once and has no length: a pipe or a socket."""

    def __init__(self, data):
        self.left = memoryview(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        size = min(len(buffer), len(self.left))
        buffer[:size] = self.left[:size]
        self.left = self.left[size:]
        return size


def test_boto3s_transfer_manager_in_many_threads(shared, folder):
    from boto3.s3.transfer import TransferConfig

    s3 = shared.s3()
    s3.create_bucket(Bucket="transfers")
    config = TransferConfig(multipart_threshold=6 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
    bodies = {f"file {n}": random_bytes(n * 700_001 % (12 * MIB), n) for n in range(16)}
    seen = []

    def there(item):
        name, body = item
        s3.upload_fileobj(io.BytesIO(body), "transfers", name, Config=config, Callback=seen.append)

    def back(item):
        name, body = item
        out = io.BytesIO()
        s3.download_fileobj("transfers", name, out, Config=config)
        return out.getvalue() == body

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(there, bodies.items()))
        assert all(pool.map(back, bodies.items()))
    assert sum(seen) == sum(map(len, bodies.values()))

    large = random_bytes(13 * MIB + 5, 77)
    s3.upload_fileobj(io.BufferedReader(OneWay(large)), "transfers", "one way", Config=config)
    s3.copy({"Bucket": "transfers", "Key": "one way"}, "transfers", "copied", Config=config)
    head = s3.head_object(Bucket="transfers", Key="copied", ChecksumMode="ENABLED")
    assert head["ETag"].endswith('-3"') and any(name.startswith("Checksum") for name in head), head
    out = io.BytesIO()
    s3.download_fileobj("transfers", "copied", out, Config=config)
    assert out.getvalue() == large
