"""Keys: the root key sealed and opened, keys replaced while everything runs, and keys destroyed for good."""

import json
import re
import shutil
import stat

import harness
import pytest
import rawhttp
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
