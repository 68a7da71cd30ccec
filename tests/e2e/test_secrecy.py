"""No plaintext, no key and no secret on any disk, in any log line or in any error message."""

import json
import os
import stat

import harness
import people
import rawhttp
from harness import MIB, random_bytes

MARKER = b"PLANTED-MARKER-7c1f3b9e52d84a60"
BUCKET_MARKER = "planted-bucket-5f0c77"


def holders(folder, needle, skip=()):
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in skip:
            data = path.read_bytes()
            if needle in data:
                found.append(str(path))
    return found


def test_planted_markers_are_nowhere(make_server):
    server = make_server(config='[storage]\nextent = "16MiB"\n')
    s3 = server.s3()
    s3.create_bucket(Bucket=BUCKET_MARKER)
    text = MARKER.decode()
    for name, size in [("inline", 1_000), ("replicated", 60_000), ("chunk", 400_000), ("chunks", 9 * MIB)]:
        body = (MARKER + random_bytes(4_000, size)) * (size // 4_000 + 1)
        s3.put_object(
            Bucket=BUCKET_MARKER, Key=name, Body=body, Metadata={"patient": text}, Tagging=f"tag={text}",
            ContentDisposition=f"attachment; filename={text}",
        )
    upload = s3.create_multipart_upload(Bucket=BUCKET_MARKER, Key="parts", Metadata={"patient": text})["UploadId"]
    part = s3.upload_part(Bucket=BUCKET_MARKER, Key="parts", UploadId=upload, PartNumber=1, Body=MARKER * 1000)["ETag"]
    s3.complete_multipart_upload(
        Bucket=BUCKET_MARKER, Key="parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}
    )
    assert MARKER in s3.get_object(Bucket=BUCKET_MARKER, Key="inline")["Body"].read()
    rawhttp.request(server, "PUT", f"/{BUCKET_MARKER}/bad", body=MARKER, payload_hash="0" * 64)
    assert server.terminate() == 0
    for needle in (MARKER, harness.SECRET_KEY.encode(), BUCKET_MARKER.encode()):
        assert holders(server.data, needle) == [], needle
    for needle in (text, harness.SECRET_KEY):
        assert needle not in server.log(), needle
    etag = harness.md5_hex(MARKER * 1000).encode()
    assert holders(server.data, etag) == [], "an MD5 would fingerprint a known file"
    assert holders(server.data, bytes.fromhex(etag.decode())) == []


def test_the_root_key_is_in_its_file_alone_and_only_its_owner_reads_it(make_server):
    server = make_server(config='[storage]\nextent = "16MiB"\n')
    server.s3().create_bucket(Bucket="bkt")
    server.s3().put_object(Bucket="bkt", Key="k", Body=b"x")
    root = server.data / "root.key"
    assert stat.S_IMODE(os.stat(root).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(server.data).st_mode) & 0o077 == 0
    key = root.read_text().split()[-1]
    (server.folder / "pass").write_text("correct horse\n")
    server.valv("key", "backup", "--out", server.folder / "keys.backup", "--passphrase-file", server.folder / "pass")
    server.valv("metadata", "export", "--out", server.folder / "export.jsonl")
    assert server.terminate() == 0
    for form in (key.encode(), bytes.fromhex(key)):
        assert holders(server.folder, form, skip={"root.key"}) == []


def test_errors_say_nothing_about_what_is_inside(server):
    s3 = server.s3()
    s3.create_bucket(Bucket="bkt")
    s3.put_object(Bucket="bkt", Key="k", Body=MARKER * 10_000)
    response = rawhttp.request(server, "GET", "/bkt/k", signer=rawhttp.Signer(secret_key="wrong"))
    assert response.status == 403 and MARKER not in response.body
    assert harness.SECRET_KEY.encode() not in response.body


def test_what_people_say_of_projects_is_sealed_and_not_logged(make_server):
    """Contacts, purposes, reasons and references, in every act that takes some: on no disk, in no row, in no log."""
    server = make_server(config='[storage]\nextent = "16MiB"\n[metadata]\ncooling_off = "0s"\n')
    text = MARKER.decode()
    ada, bo = people.Person(server, "ada"), people.Person(server, "bo")
    oda = people.Person(server, "oda", operator=True)
    named = {name: f"{name} {text}" for name in ("organisation", "contact", "legal_basis", "ethics_approval", "note")}
    people.governed(server, "planted", ada, **{key: value for key, value in named.items() if key != "note"})
    ada.run("project", "update", "planted", "--note", named["note"])
    assert text in json.dumps(ada.json("project", "show", "planted"))
    ada.run("project", "member", "add", "planted", "bo", "--role", "controller")
    key = ("VALVPLANTED000000000", f"{text}-secret-of-ada")
    ada.run(
        "user", "key", "add", "ada", "--project", "planted", "--access-key-id", key[0],
        env={"VALV_SECRET_ACCESS_KEY": key[1]},
    )  # fmt: skip
    s3 = server.s3(key)
    s3.create_bucket(Bucket="images", ObjectLockEnabledForBucket=True)
    s3.put_object(Bucket="images", Key="k", Body=MARKER * 10, Metadata={"patient": text}, Tagging=f"tag={text}")
    said = ["--reason", f"reason {text}", "--reference", f"reference {text}"]
    hold = ada.json("project", "hold", "set", "planted", "--bucket", "images", *said)["id"]
    ada.run("project", "hold", "release", "planted", hold, "--reason", text)
    words = ["proposal", "appoint-controller", "--project", "planted", "--user", "oda", *said]
    proposal = oda.json(*words)["id"]
    bo.run("proposal", "reject", proposal, "--project", "planted", "--reason", f"no {text}")
    oda.run("admin", "custodian", "add", f"custodian {text}", "--contact", text, "--contract", text)
    ada.run("project", "transfer", "offer", "planted", "--to", "bo", "--organisation", text, "--contact", text,
            "--legal-basis", text, "--reason", text)  # fmt: skip
    # Refusals repeat nothing of it either.
    assert text not in bo.refused("project", "hold", "release", "planted", hold, "--reason", text)
    assert server.terminate() == 0
    assert holders(server.data, MARKER) == []
    assert text not in server.log()
