"""The recovery program reads what Valv wrote, without Valv and with two disks missing."""

import base64
import json
import sys

import pytest

import disks
import harness
from harness import MIB, random_bytes

PROGRAM = harness.REPO / "tools" / "recover" / "valv_recover.py"
KEYS = ["plain", "a", "a/b", "a//b", "/lead", "../up", "sér ie/ß", "new\nline", "x" * 1024, "dir/"]


@pytest.fixture
def written(server):
    """Objects of every kind, an export and a key backup; the server is stopped."""
    s3 = server.s3()
    s3.create_bucket(Bucket="study")
    bodies = {}
    for size in (0, 1, 16_384, 16_385, 65_536, 131_072, 131_073, 1_000_000, 8 * MIB, 8 * MIB + 1, 18 * MIB + 7):
        bodies[f"size/{size}"] = random_bytes(size)
    for key in KEYS:
        bodies[key] = random_bytes(50_000 + len(key), seed=len(key))
    for key, body in bodies.items():
        s3.put_object(Bucket="study", Key=key, Body=body, Metadata={"k": "v"})
    parts = [random_bytes(5 * MIB, 1), random_bytes(9 * MIB, 2), b"end"]
    upload = s3.create_multipart_upload(Bucket="study", Key="parts")["UploadId"]
    done = [
        {"PartNumber": n, "ETag": s3.upload_part(Bucket="study", Key="parts", UploadId=upload, PartNumber=n, Body=p)["ETag"]}
        for n, p in enumerate(parts, 1)
    ]
    s3.complete_multipart_upload(Bucket="study", Key="parts", UploadId=upload, MultipartUpload={"Parts": done})
    bodies["parts"] = b"".join(parts)
    s3.copy_object(Bucket="study", Key="copied", CopySource={"Bucket": "study", "Key": "size/1000000"})
    bodies["copied"] = bodies["size/1000000"]
    s3.put_object(Bucket="study", Key="deleted", Body=b"gone" * 50_000)
    s3.delete_object(Bucket="study", Key="deleted")
    (server.folder / "pass").write_text("correct horse battery staple\n")
    server.valv("metadata", "export", "--out", server.folder / "export.jsonl")
    server.valv("key", "backup", "--out", server.folder / "keys.backup", "--passphrase-file", server.folder / "pass")
    server.kill()
    return server, bodies


def recover(server, present, check=True, passphrase="pass"):
    words = []
    for index in present:
        words += ["--disk", server.disk_folder(index)]
    return harness.run(
        sys.executable, PROGRAM, *words, "--export", server.folder / "export.jsonl", "--keys", server.folder / "keys.backup",
        "--passphrase-file", server.folder / passphrase, "--out", server.folder / "recovered", check=check,
    )  # fmt: skip


def assert_recovered(server, bodies):
    found = {}
    for line in (server.folder / "recovered" / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        key = base64.b64decode(entry["key"]["base64"]).decode()
        found[key] = (server.folder / "recovered" / entry["file"]).read_bytes()
        assert dict(entry["user_metadata"]) in ({"k": "v"}, {}), entry
    assert sorted(found) == sorted(bodies)
    for key, body in bodies.items():
        assert found[key] == body, key
    outside = [path for path in (server.folder / "recovered").rglob("*%partial")]
    assert outside == []


@pytest.mark.parametrize("lost", [(0, 1), (2, 4)])
def test_objects_are_recovered_with_two_disks_missing(written, lost):
    server, bodies = written
    for index in lost:
        harness.remove_tree(server.disk_folder(index))
    recover(server, [index for index in range(6) if index not in lost])
    assert_recovered(server, bodies)


def test_objects_are_recovered_from_damaged_disks(written):
    """Two disks are missing nothing but have a damaged block in each shard: other shards stand in for these blocks."""
    server, bodies = written
    for index in (1, 5):
        for extent in disks.extents(server.disk_folder(index)):
            for _, _, _, payload, size in list(disks.records(extent)):
                if size:
                    disks.flip(extent, payload + size // 2)
    recover(server, range(6))
    assert_recovered(server, bodies)


def test_what_cannot_be_recovered_is_said_and_not_written(written):
    server, bodies = written
    done = recover(server, [0, 1, 2], check=False)
    assert done.returncode == 1
    entries = [json.loads(line) for line in (server.folder / "recovered" / "manifest.jsonl").read_text().splitlines()]
    errors = {base64.b64decode(entry["key"]["base64"]).decode() for entry in entries if "error" in entry}
    assert f"size/{18 * MIB + 7}" in errors
    for entry in entries:
        key = base64.b64decode(entry["key"]["base64"]).decode()
        if "file" in entry:
            assert (server.folder / "recovered" / entry["file"]).read_bytes() == bodies[key]
    assert "size/0" not in errors and "size/1" not in errors, "inline bodies are in the export"


def test_a_wrong_passphrase_recovers_nothing(written):
    server, _ = written
    (server.folder / "other").write_text("wrong\n")
    done = recover(server, range(6), check=False, passphrase="other")
    assert done.returncode != 0 and "passphrase" in done.stderr
