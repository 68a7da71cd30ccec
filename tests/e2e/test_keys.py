"""Keys: the root key sealed and opened, keys replaced while everything runs, and keys destroyed for good."""

import json
import re
import shutil
import stat

import harness
import people
import pytest
from harness import random_bytes, wait_until

SMALL = '[storage]\nextent = "16MiB"\n'


def filled(server) -> dict[str, bytes]:
    """Objects of several kinds in a bucket."""
    s3 = server.s3()
    s3.create_bucket(Bucket="bkt")
    bodies = {"inline": random_bytes(700, 1), "replicated": random_bytes(50_000, 2), "chunk": random_bytes(900_000, 3)}
    for key, body in bodies.items():
        s3.put_object(Bucket="bkt", Key=key, Body=body, Metadata={"patient": "anna"}, Tagging="a=b")
    return bodies


def assert_readable(server, bodies: dict[str, bytes]):
    s3 = server.s3()
    for key, body in bodies.items():
        found = s3.get_object(Bucket="bkt", Key=key)
        assert found["Body"].read() == body
        assert found["Metadata"] == {"patient": "anna"}


def seal_status(server) -> dict:
    return json.loads(server.valv("admin", "seal-status", "--json").stdout)


def wait_sealed(server):
    """Waits until a sealed server takes shares."""
    wait_until(lambda: seal_status(server)["sealed"], "the server to say that it is sealed")


def wait_announced(server):
    """The same address line that `Server.start` waits for."""

    def announced():
        found = re.findall(r"^(endpoint) = (http\S+)$", server.announcement(), re.M)
        server.announced = dict(found)
        return bool(found)

    wait_until(announced, "the unsealed server to serve")


@pytest.fixture
def stopped(make_server):
    """A server with objects, stopped, and what is in it."""
    server = make_server(config=SMALL)
    bodies = filled(server)
    assert server.terminate() == 0
    return server, bodies


def test_a_server_with_shares_starts_sealed_and_opens_with_enough_of_them(stopped):
    server, bodies = stopped
    root = (server.data / "root.key").read_text().split()[-1]
    shares = server.folder / "shares"
    server.valv("key", "seal", "--shares", "5", "--threshold", "3", "--out", shares)
    assert not (server.data / "root.key").exists()
    sealed = server.data / "root.key.sealed"
    assert stat.S_IMODE(sealed.stat().st_mode) == 0o600
    for path in server.data.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert root.encode() not in data and bytes.fromhex(root) not in data, path
    files = sorted(shares.iterdir())
    assert len(files) == 5 and stat.S_IMODE(shares.stat().st_mode) == 0o700

    server.spawn()
    wait_sealed(server)
    # It says so, and serves nothing else: neither S3 nor the rest of the admin service.
    where = re.search(r"^sealed = (http\S+)$", server.announcement(), re.M)[1]
    server.announced = {"endpoint": where}
    with pytest.raises(harness.ClientError) as refused:
        server.s3().list_buckets()
    assert refused.value.response["Error"]["Code"] == "ServiceUnavailable"
    assert "sealed" in refused.value.response["Error"]["Message"]
    assert server.status()["sealed"] is True
    exported = server.valv("user", "list", check=False)
    assert exported.returncode != 0 and "sealed" in exported.stderr

    give = lambda path, check=True: server.valv("admin", "unseal", "--share-file", path, "--json", check=check)  # noqa: E731
    assert json.loads(give(files[0]).stdout)["shares_given"] == 1
    assert "sealed, 1 of 3 shares" in server.valv("status").stdout
    twice = give(files[0], check=False)
    assert twice.returncode != 0 and "given before" in twice.stderr
    # A mistyped share, and one of another set, change nothing.
    text = files[1].read_text()
    mistyped = server.folder / "mistyped"
    mistyped.write_text(text[:40] + ("0" if text[40] != "0" else "1") + text[41:])
    assert "checksum" in give(mistyped, check=False).stderr
    assert seal_status(server)["shares_given"] == 1
    give(files[3])
    # From standard input, as a keeper types it.
    last = harness.subprocess.run(
        [harness.binary(), "admin", "unseal", "--data", str(server.data)],
        input=files[4].read_text(), capture_output=True, text=True, timeout=60,
    )
    assert last.returncode == 0, last.stderr
    wait_announced(server)
    assert_readable(server, bodies)
    assert seal_status(server) | {"method": "shares"} == seal_status(server)
    assert seal_status(server)["sealed"] is False
    for path in files:
        secret = path.read_text().split("-")[6]
        assert secret not in server.log()
    # A root key in shares is replaced like any other: the same shares open the new one.
    server.valv("admin", "key", "rotate", "--root")
    assert seal_status(server)["root_version"] == 2
    server.kill()
    server.spawn()
    wait_sealed(server)
    for path in files[:3]:
        give(path)
    wait_announced(server)
    assert_readable(server, bodies)
    assert server.terminate() == 0
    # Commands over a stopped server's folder need the shares, too.
    (server.folder / "pass").write_text("correct horse\n")
    backup = ["key", "backup", "--out", server.folder / "keys.backup", "--passphrase-file", server.folder / "pass"]
    assert "--share-file 3 times" in server.valv(*backup, check=False).stderr
    given = [word for path in files[:3] for word in ("--share-file", path)]
    server.valv(*backup, *given)
    server.valv("key", "unseal-to-plain", *given)
    assert not sealed.exists()
    server.start()
    assert_readable(server, bodies)


def test_forged_shares_are_all_thrown_away_and_a_sealed_server_stops_when_told(stopped):
    server, bodies = stopped
    mine, other = server.folder / "mine", server.folder / "other"
    copy = server.folder / "copy"
    shutil.copytree(server.data, copy, ignore=shutil.ignore_patterns("disks", "admin.sock"))
    server.valv("key", "seal", "--shares", "3", "--threshold", "2", "--out", mine)
    harness.run(harness.binary(), "key", "seal", "--shares", "3", "--threshold", "2", "--out", other, "--data", copy)
    server.spawn()
    wait_sealed(server)
    foreign = server.valv("admin", "unseal", "--share-file", other / "share-1-of-3.txt", check=False)
    assert foreign.returncode != 0 and "another set" in foreign.stderr
    assert server.terminate() == 0
    server.spawn()
    wait_sealed(server)
    assert seal_status(server)["shares_given"] == 0
    for number in (3, 1):
        server.valv("admin", "unseal", "--share-file", mine / f"share-{number}-of-3.txt")
    wait_announced(server)
    assert_readable(server, bodies)


def test_a_passphrase_opens_the_root_key_and_a_wrong_one_does_not(stopped):
    server, bodies = stopped
    right, wrong = server.folder / "right", server.folder / "wrong"
    right.write_text("correct horse battery\n")
    wrong.write_text("wrong horse\n")
    server.valv("key", "seal", "--passphrase-file", right)
    assert not (server.data / "root.key").exists()
    again = server.valv("key", "seal", "--passphrase-file", right, check=False)
    assert again.returncode != 0 and "sealed already" in again.stderr
    for config, complaint in [
        (SMALL, "keys.passphrase_file"),
        (f'{SMALL}[keys]\npassphrase_file = "{wrong}"\n', "keys.passphrase_file"),
        (f'{SMALL}[keys]\nseal = "plain"\n', "sealed in another way"),
        (f'{SMALL}[keys]\nseal = "shares"\n', "sealed in another way"),
    ]:
        server.config = config
        with pytest.raises(harness.ServerEnded):
            server.start()
        assert complaint in server.log_tail(20)
    server.config = f'{SMALL}[keys]\nseal = "passphrase"\npassphrase_file = "{right}"\n'
    server.start()
    assert_readable(server, bodies)
    server.valv("admin", "key", "rotate", "--root")
    server.restart(kill=True)
    assert_readable(server, bodies)


def test_a_cluster_that_begins_sealed_never_has_its_root_key_in_the_clear(make_server, folder):
    phrase = folder / "phrase"
    phrase.write_text("correct horse battery\n")
    server = make_server(config=f'{SMALL}[keys]\nseal = "passphrase"\npassphrase_file = "{phrase}"\n')
    bodies = filled(server)
    assert not (server.data / "root.key").exists() and (server.data / "root.key.sealed").exists()
    server.restart(kill=True)
    assert_readable(server, bodies)


def test_the_root_key_is_replaced_while_everything_runs(make_server):
    server = make_server(config=SMALL)
    bodies = filled(server)
    before = (server.data / "root.key").read_text()
    signing = server.valv("ledger", "key").stdout
    wraps = json.loads((server.data / "keys" / "project-keys.json").read_text())
    copy = server.folder / "old-root"
    copy.write_text(before)
    for version in (2, 3):
        assert f"version {version}" in server.valv("admin", "key", "rotate", "--root").stdout
        assert_readable(server, bodies)
    after = (server.data / "root.key").read_text()
    assert after != before and after.split()[2] == "3"
    moved = json.loads((server.data / "keys" / "project-keys.json").read_text())
    assert all(old["wrapped"] != new["wrapped"] for old, new in zip(wraps["keys"], moved["keys"], strict=True))
    assert all("next" not in key for key in moved["keys"])
    # Heads of ledgers still verify with the key that was published before.
    assert server.valv("ledger", "key").stdout == signing
    server.s3().put_object(Bucket="bkt", Key="more", Body=b"more", Metadata={"patient": "anna"})
    server.restart(kill=True)
    assert_readable(server, bodies | {"more": b"more"})
    # The old root key opens nothing any more, and the server says so.
    assert server.terminate() == 0
    (server.data / "root.key").write_text(before)
    with pytest.raises(harness.ServerEnded):
        server.start()
    assert "another root key" in server.log_tail(20)
    (server.data / "root.key").write_text(after)
    server.start()
    assert_readable(server, bodies)


QUICK = f'{SMALL}[keys]\nlease = "1s"\nretire_after = "1s"\n[metadata]\ncooling_off = "1s"\n'


def project_keys(server, project: str = "default") -> dict:
    return json.loads(server.valv("project", "key", "list", project, "--json").stdout)


def test_a_project_key_is_replaced_under_load_and_a_crash_stops_nothing(make_server):
    server = make_server(config=QUICK)
    bodies = filled(server)
    s3 = server.s3()
    upload = s3.create_multipart_upload(Bucket="bkt", Key="parts", Metadata={"patient": "anna"})["UploadId"]
    whole = random_bytes(6 << 20, 9)
    parts = [whole[: 5 << 20], whole[5 << 20 :]]
    sent = [
        s3.upload_part(Bucket="bkt", Key="parts", UploadId=upload, PartNumber=n, Body=part)["ETag"]
        for n, part in enumerate(parts, 1)
    ]
    s3.put_bucket_tagging(Bucket="bkt", Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
    customer = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
    s3.put_object(Bucket="bkt", Key="customer", Body=b"own key", **customer)
    first = project_keys(server)["versions"]
    assert [key["version"] for key in first] == [1]

    server.valv("project", "key", "rotate", "default", "--detach")
    server.kill()
    server.start()
    s3 = server.s3()
    written = {}
    number = 0

    def ended():
        # Load: writes go on all the time, each readable at once.
        nonlocal number
        number += 1
        key, body = f"load-{number}", random_bytes(3_000 + number, number)
        s3.put_object(Bucket="bkt", Key=key, Body=body, Metadata={"patient": "anna"})
        written[key] = body
        assert s3.get_object(Bucket="bkt", Key=key)["Body"].read() == body
        return project_keys(server)["rotation"]["ended"]

    wait_until(ended, "the rotation to end", interval_s=0.1)
    keys = project_keys(server)
    assert [key["version"] for key in keys["versions"]] == [2] and not keys["rotation"]["kept"]
    assert keys["versions"][0]["fingerprint"] != first[0]["fingerprint"]
    stored = json.loads((server.data / "keys" / "project-keys.json").read_text())
    project = [key["version"] for key in stored["keys"] if key["version"] == 2]
    assert project == [2]
    assert_readable(server, bodies | written)
    # What was under way under the old key goes on under the new one.
    s3.complete_multipart_upload(
        Bucket="bkt", Key="parts", UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(sent, 1)]},
    )  # fmt: skip
    assert_readable(server, {"parts": whole})
    assert s3.get_object(Bucket="bkt", Key="customer", **customer)["Body"].read() == b"own key"
    assert s3.get_bucket_tagging(Bucket="bkt")["TagSet"] == [{"Key": "k", "Value": "v"}]
    server.restart(kill=True)
    assert_readable(server, bodies | written | {"parts": whole})
    assert "everything is under version 3" in server.valv("project", "key", "rotate", "default").stdout
    assert_readable(server, bodies | {"parts": whole})
    export = server.folder / "ledger.jsonl"
    server.valv("ledger", "export", "--project", "default", "--out", export)
    assert "project key replaced" in export.read_text() and '"subject":"replicated"' in export.read_text().replace(" ", "")


def test_no_shard_is_written_when_keys_are_replaced(make_server):
    server = make_server(config=QUICK)
    filled(server)
    before = server.wait_healthy()["census"]
    server.valv("project", "key", "rotate", "default")
    server.valv("admin", "key", "rotate", "--root")
    after = server.wait_healthy()["census"]
    for field in ("blobs", "chunks", "shards_present"):
        assert after[field] == before[field], field


@pytest.fixture
def operators(make_server):
    server = make_server(config=QUICK)
    return server, people.Person(server, "oda", operator=True), people.Person(server, "olof", operator=True)


def shred(server, first, second, *words) -> str:
    asked = ["project", "shred", "propose", "default", *words, "--reason", "end of the study"]
    return first.json(*asked, "--reference", "disposal 2036/14", "--yes")["id"]


def settled(who, proposal: str, state: str) -> dict:
    show = lambda: who.json("proposal", "show", proposal, "--project", "default")  # noqa: E731
    return wait_until(lambda: (found := show())["state"] == state and found, f"the act to be {state}")


def certificate(server, who, proposal: str) -> dict:
    path = server.folder / f"certificate-{proposal}.json"
    who.run("project", "shred", "certificate", "default", proposal, "--out", path)
    return json.loads(path.read_text())["statement"]["facts"]


def client_of(server, person):
    return harness.boto3.client(
        "s3", endpoint_url=server.endpoint, aws_access_key_id=person.key[0], aws_secret_access_key=person.key[1],
        region_name=harness.REGION, config=harness.botocore.config.Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip


def is_destroyed(server) -> bool:
    """Whether S3 says that the key is gone, for reads and writes."""
    for ask in (
        lambda s3: s3.get_object(Bucket="bkt", Key="inline"),
        lambda s3: s3.put_object(Bucket="bkt", Key="new", Body=b"x"),
    ):
        try:
            ask(server.s3())
            return False
        except harness.ClientError as refused:
            error = refused.response["Error"]
            if error["Code"] != "AccessDenied" or "destroyed" not in error["Message"]:
                return False
    return True


def test_two_people_destroy_a_project_and_a_certificate_says_so(operators):
    server, oda, olof = operators
    filled(server)
    s3 = server.s3()
    s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    s3.put_object(Bucket="locked", Key="k", Body=b"held", ObjectLockLegalHoldStatus="ON")
    # Legal hold forbids it to anybody.
    said = oda.refused("project", "shred", "propose", "default", "--reason", "r", "--reference", "f", "--yes")
    assert "locked" in said
    s3.put_object_legal_hold(Bucket="locked", Key="k", LegalHold={"Status": "OFF"})
    proposal = shred(server, oda, olof)
    assert "own proposal" in oda.refused("proposal", "approve", proposal, "--project", "default", "--reason", "yes")
    olof.run("proposal", "approve", proposal, "--project", "default", "--reason", "checked")
    settled(oda, proposal, "carried out")
    facts = certificate(server, oda, proposal)
    assert facts["destroyed"] == "project" and facts["reference"] == "disposal 2036/14"
    assert [decider["name"] for decider in facts["decided_by"]] == ["oda", "olof"]
    assert [key["version"] for key in facts["project_keys"]] == [1] and facts["versions"] == 4
    thirty_days = 30 * 24 * 3600 * 1_000_000
    assert facts["last_backup_dies_micros"] == facts["purged_micros"] + thirty_days
    path = server.folder / f"certificate-{proposal}.json"
    key = server.valv("ledger", "key").stdout.split()[0]
    harness.run(harness.binary(), "statement", "verify", path, "--key", key)
    assert is_destroyed(server)


def test_a_destroyed_project_does_not_come_back_with_older_metadata(operators):
    server, oda, olof = operators
    filled(server)
    other = client_of(server, oda)
    other.create_bucket(Bucket="elsewhere")
    other.put_object(Bucket="elsewhere", Key="k", Body=b"alive")
    assert server.terminate() == 0
    copy = server.folder / "metadata-before"
    shutil.copytree(server.data / "metadata", copy)
    server.start()
    proposal = shred(server, oda, olof)
    olof.run("proposal", "approve", proposal, "--project", "default", "--reason", "checked")
    wait_until(lambda: is_destroyed(server), "the project's keys to be destroyed")
    # The gateway before the restart has not been fenced yet, and might still hold the key: no certificate so far.
    early = oda.run("project", "shred", "certificate", "default", proposal, check=False)
    assert early.returncode != 0 and "no certificate yet" in early.stderr
    assert server.terminate() == 0
    shutil.rmtree(server.data / "metadata")
    shutil.copytree(copy, server.data / "metadata")
    server.start()
    assert is_destroyed(server)
    assert client_of(server, oda).get_object(Bucket="elsewhere", Key="k")["Body"].read() == b"alive"


def test_a_destroyed_object_does_not_come_back_with_older_metadata(operators):
    server, oda, olof = operators
    bodies = filled(server)
    s3 = server.s3()
    s3.put_bucket_versioning(Bucket="bkt", VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket="bkt", Key="secret", Body=random_bytes(400_000, 5))["VersionId"]
    assert server.terminate() == 0
    copy = server.folder / "metadata-before"
    shutil.copytree(server.data / "metadata", copy)
    server.start()
    proposal = shred(server, oda, olof, "--bucket", "bkt", "--key", "secret", "--version", version)
    olof.run("proposal", "approve", proposal, "--project", "default", "--reason", "checked")
    settled(oda, proposal, "carried out")
    facts = certificate(server, oda, proposal)
    assert facts["destroyed"] == "object version" and facts["bytes"] == 400_000
    with pytest.raises(harness.ClientError) as refused:
        server.s3().get_object(Bucket="bkt", Key="secret")
    assert refused.value.response["Error"]["Code"] == "NoSuchKey"
    assert_readable(server, bodies)
    assert server.terminate() == 0
    shutil.rmtree(server.data / "metadata")
    shutil.copytree(copy, server.data / "metadata")
    server.start()
    with pytest.raises(harness.ClientError) as refused:
        server.s3().get_object(Bucket="bkt", Key="secret")
    # The folder may have been brought up to date from the disks' mirror before.
    assert refused.value.response["Error"]["Code"] in ("AccessDenied", "NoSuchKey")
    assert_readable(server, bodies)


def test_a_stolen_metadata_folder_opens_nothing_without_the_key_store(stopped):
    server, _ = stopped
    for name in ("root.key", "keys"):
        path = server.data / name
        (shutil.rmtree if path.is_dir() else type(path).unlink)(path)
    for path in (server.data / "metadata").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for needle in (b"patient", b"anna", b"bkt", harness.SECRET_KEY.encode(), harness.md5_hex(random_bytes(700, 1)).encode()):
                assert needle not in data, (path, needle)
    with pytest.raises(harness.ServerEnded):
        server.start()
    assert "root key is needed" in server.log_tail(20)
    # A root key of one's own opens nothing either.
    (server.data / "root.key").write_text(f"valv-root-key 1 1 {'0' * 64}\n")
    with pytest.raises(harness.ServerEnded):
        server.start()
