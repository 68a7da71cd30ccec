"""Proofs, receipts, fixity reports and usage: what is stated verifies without a server, and agrees with the ledger."""

import csv
import datetime
import hashlib
import io
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

import disks
import harness
import people

MONTH = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m")
CHANGES = {
    "bucket created",
    "bucket deleted",
    "bucket changed",
    "ingestion",
    "replication",
    "delete marker created",
    "deaccession",
    "restoration from trash",
    "metadata modification",
    "upload created",
    "part committed",
    "upload completed",
    "upload aborted",
}
MADE = {"ingestion", "replication", "upload completed"}


@pytest.fixture(scope="module")
def told(shared, tmp_path_factory):
    """A project with objects of every kind, two heads between which it has grown, and the key."""
    folder = tmp_path_factory.mktemp("reports")
    s3, bucket = shared.s3(), "reports"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="ct/small", Body=b"slice", ChecksumAlgorithm="SHA256")
    s3.put_object(Bucket=bucket, Key="ct/large", Body=harness.random_bytes(3_000_000))
    shared.valv("ledger", "head", "--project", "default", "--out", str(folder / "old.json"))
    s3.copy_object(Bucket=bucket, Key="ct/copy", CopySource=f"{bucket}/ct/large")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="mr/parts")["UploadId"]
    part = s3.upload_part(
        Bucket=bucket, Key="mr/parts", UploadId=upload, PartNumber=1, Body=harness.random_bytes(100_000)
    )
    s3.complete_multipart_upload(
        Bucket=bucket,
        Key="mr/parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    s3.put_object(Bucket=bucket, Key="gone", Body=b"x" * 1000)
    s3.delete_object(Bucket=bucket, Key="gone")
    assert len(s3.get_object(Bucket=bucket, Key="ct/large")["Body"].read()) == 3_000_000
    shared.valv("ledger", "export", "--project", "default", "--out", str(folder / "ledger.jsonl"))
    return folder, shared.valv("ledger", "key").stdout.strip()


def events(folder):
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return [line for line in lines if line["line"] == "event"]


def offline(*words, **options):
    return harness.run(harness.binary(), *words, **options)


def verify_proof(path, key, **options):
    return offline("ledger", "verify", str(path), "--key", key, "--json", **options)


def refused_with(path, key, text, verify=verify_proof):
    answer = verify(path, key, check=False)
    assert answer.returncode == 1 and text in answer.stderr, answer.stderr


# -- proofs --------------------------------------------------------------------------------------------------------------


def test_an_event_is_proved_by_its_id_and_by_its_place(shared, told, tmp_path):
    folder, key = told
    event = next(event for event in events(folder) if (event["names"] or {}).get("subject") == "ct/small")
    for number, words in enumerate([("--event", event["event"]["id"]), ("--index", str(event["index"]))]):
        out = tmp_path / f"proof{number}.json"
        shared.valv("ledger", "prove", "--project", "default", *words, "--out", str(out))
        proven = json.loads(verify_proof(out, key).stdout)
        assert (proven["index"], proven["event"]) == (event["index"], event["event"]["id"])
        assert (proven["subject"], proven["kind"], proven["bytes"]) == ("ct/small", "ingestion", 5)
    # For whoever keeps an older head, the proof is about the ledger as it was then.
    old = tmp_path / "old.json"
    words = ("--event", event["event"]["id"], "--head", str(folder / "old.json"))
    shared.valv("ledger", "prove", "--project", "default", *words, "--out", str(old))
    assert json.loads(old.read_text())["head"] == {
        name: value for name, value in json.loads((folder / "old.json").read_text()).items() if name != "line"
    }
    assert json.loads(verify_proof(old, key).stdout)["size"] < events(folder)[-1]["index"] + 1


def test_a_ledger_goes_on_from_its_head_and_not_from_a_forked_one(shared, told, tmp_path):
    folder, key = told
    out = tmp_path / "consistency.json"
    shared.valv(
        "ledger", "consistency", "--project", "default", "--from", str(folder / "old.json"), "--out", str(out)
    )
    proven = json.loads(verify_proof(out, key).stdout)
    assert proven["old_size"] < proven["size"]
    # Of another past: the server can't prove that it goes on from it, and its signature is found out.
    head = json.loads((folder / "old.json").read_text())
    (tmp_path / "forked.json").write_text(json.dumps({**head, "root": "ab" * 32}) + "\n")
    words = ("--from", str(tmp_path / "forked.json"), "--out", str(tmp_path / "none.json"))
    answer = shared.valv("ledger", "consistency", "--project", "default", *words, check=False)
    assert answer.returncode == 1 and "signature" in answer.stderr
    assert not (tmp_path / "none.json").exists()


def test_a_tampered_proof_does_not_verify(shared, told, tmp_path):
    folder, key = told
    out = tmp_path / "proof.json"
    shared.valv("ledger", "prove", "--project", "default", "--index", "2", "--out", str(out))
    proof = json.loads(out.read_text())
    other = "00" * 32
    for change, found in [
        ({"index": 3}, "not in the ledger"),
        ({"path": [other, *proof["path"][1:]]}, "not in the ledger"),
        ({"path": proof["path"][1:]}, "not in the ledger"),
        ({"head": {**proof["head"], "size": proof["head"]["size"] + 1}}, "signature is wrong"),
        ({"head": {**proof["head"], "root": other}}, "signature is wrong"),
        ({"format": "another"}, "format is not known"),
    ]:
        assert {**proof, **change} != proof
        (tmp_path / "tampered.json").write_text(json.dumps({**proof, **change}))
        refused_with(tmp_path / "tampered.json", key, found)
    refused_with(out, "ab" * 32, "signed by key")
    answer = shared.valv(
        "ledger", "prove", "--project", "default", "--event", "12" * 16, "--out", str(tmp_path / "no"), check=False
    )
    assert answer.returncode == 1 and "no such event" in answer.stderr


# -- statements ----------------------------------------------------------------------------------------------------------


def verified(path, key):
    """Verifies a file as docs/statements.md says, with none of Valv's code."""
    *lines, last = path.read_bytes().splitlines(keepends=True)
    signed = json.loads(last)
    canonical = json.dumps(signed["statement"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    text = b"valv statement 1\n" + canonical.encode() + b"\n"
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signed["signature"]), text)
    told = signed["statement"]["facts"].get("lines", {"count": 0, "sha256": hashlib.sha256().hexdigest()})
    assert told == {"count": len(lines), "sha256": hashlib.sha256(b"".join(lines)).hexdigest()}
    return signed["statement"], [json.loads(line) for line in lines]


def verify_statement(path, key, **options):
    return offline("statement", "verify", str(path), "--key", key, "--json", **options)


def test_an_ingest_receipt_has_what_is_stored_and_verifies_in_a_few_lines_of_python(shared, told, tmp_path):
    folder, key = told
    out = tmp_path / "receipt.jsonl"
    shared.valv("project", "receipt", "ingest", "default", "--bucket", "reports", "--out", str(out))
    statement, lines = verified(out, key)
    assert statement["kind"] == "ingest receipt" and statement["project_name"] == "default"
    by_key = {line["subject"]: line for line in lines}
    assert set(by_key) == {"ct/small", "ct/large", "ct/copy", "mr/parts", "gone"}
    small = by_key["ct/small"]
    assert small["stored"]["len_bytes"] == 5 and small["stored"]["etag"] == harness.md5_hex(b"slice")
    assert [checksum["algorithm"] for checksum in small["stored"]["checksums"]] == ["SHA256"]
    assert small["access_key"] and small["bucket_name"] == "reports"
    assert by_key["gone"]["stored"] is None and statement["facts"]["versions_removed_since"] == 1
    assert statement["facts"]["bytes"] == 5 + 2 * 3_000_000 + 100_000 + 1000
    # Its lines are events of the ledger, which a proof shows one by one.
    proof = tmp_path / "proof.json"
    shared.valv("ledger", "prove", "--project", "default", "--event", small["event"], "--out", str(proof))
    assert json.loads(verify_proof(proof, key).stdout)["index"] == small["index"]
    assert json.loads(verify_statement(out, key).stdout) == statement
    text = offline("statement", "verify", str(out), "--key", key).stdout
    assert "holds: ingest receipt for project default" in text and "events: 5" in text


def test_a_receipt_can_be_of_a_prefix_and_of_a_time(shared, told, tmp_path):
    _, key = told
    shared.valv(
        "project", "receipt", "ingest", "default", "--bucket", "reports", "--prefix", "mr/", "--out", str(tmp_path / "p")
    )
    assert [line["subject"] for line in verified(tmp_path / "p", key)[1]] == ["mr/parts"]
    shared.valv("project", "receipt", "ingest", "default", "--until", "2001-01-01", "--out", str(tmp_path / "t"))
    assert verified(tmp_path / "t", key)[1] == []
    answer = shared.valv(
        "project", "receipt", "ingest", "default", "--bucket", "nobody", "--out", str(tmp_path / "n"), check=False
    )
    assert answer.returncode == 1 and "no such bucket" in answer.stderr and not (tmp_path / "n").exists()


def test_a_changed_receipt_does_not_verify(shared, told, tmp_path):
    _, key = told
    out, changed = tmp_path / "receipt.jsonl", tmp_path / "changed.jsonl"
    shared.valv("project", "receipt", "ingest", "default", "--bucket", "reports", "--out", str(out))
    lines = out.read_text().splitlines(keepends=True)
    for edited, found in [
        (lines[1:], "lines before the statement"),
        ([lines[1], lines[0], *lines[2:]], "lines before the statement"),
        ([lines[0].replace('"bytes":5', '"bytes":6'), *lines[1:]], "lines before the statement"),
        ([*lines[:-1], lines[-1].replace('"events":5', '"events":6')], "signature is wrong"),
        (lines[:-1], "no signed statement"),
    ]:
        assert edited != lines
        changed.write_text("".join(edited))
        refused_with(changed, key, found, verify=verify_statement)
    refused_with(out, "ab" * 32, "signed by key", verify=verify_statement)
    with pytest.raises(InvalidSignature):
        changed.write_text("".join([*lines[:-1], lines[-1].replace('"events":5', '"events":6')]))
        verified(changed, key)


# -- usage ---------------------------------------------------------------------------------------------------------------


def usage(server, *words):
    return json.loads(server.valv("project", "usage", "default", "--month", MONTH, "--json", *words).stdout)[0]


def naive(exported, start, until):
    """Usage as anybody can sum it up from an export."""
    held = byte_micros = changes = reads = ingress = egress = 0
    for line in exported:
        event, bytes_ = line["event"], line["event"]["bytes"]
        sign = 1 if event["kind"] in MADE else -1 if event["kind"] == "deletion" else 0
        held += sign * bytes_
        byte_micros += sign * bytes_ * (until - max(event["time_micros"], start))
        changes += event["kind"] in CHANGES
        ingress += bytes_ if event["kind"] in ("ingestion", "part committed") else 0
        accesses = line.get("accesses") or {"accesses": [], "completions": []}
        reads += sum(access["count"] for access in accesses["accesses"])
        egress += sum(access["bytes"] for access in accesses["accesses"])
        egress -= sum(end["of_bytes"] - end["sent_bytes"] for end in accesses["completions"])
    return held, byte_micros, changes, reads, ingress, egress


def test_usage_is_exactly_what_the_ledger_says(shared, told, tmp_path):
    start = int(datetime.datetime.strptime(MONTH + "+0000", "%Y-%m%z").timestamp()) * 1_000_000

    def summed():
        found = usage(shared)
        out = tmp_path / f"{found['until_micros']}.jsonl"
        shared.valv("ledger", "export", "--project", "default", "--out", str(out))
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        exported = [line for line in lines if line["line"] == "event"]
        # Something may have been recorded between the two: ask again.
        return (found, exported) if len(exported) == found["ledger_size"] else None

    found, exported = harness.wait_until(summed, "usage and export of one ledger")
    held, byte_micros, changes, reads, ingress, egress = naive(exported, start, found["until_micros"])
    assert found["held_bytes_end"] == held >= 6_000_000
    assert int(found["byte_micros"]) == byte_micros and found["byte_hours"] == byte_micros // 3_600_000_000
    assert found["change_requests"] == changes and found["read_requests"] == reads
    assert found["ingress_bytes"] == ingress and found["egress_bytes"] == egress


def test_usage_is_a_table_csv_and_empty_for_other_months(shared, told):
    table = shared.valv("project", "usage", "default").stdout
    assert "byte-hours" in table and "default" in table
    rows = list(csv.DictReader(io.StringIO(shared.valv("admin", "usage", "--csv").stdout)))
    mine = next(row for row in rows if row["name"] == "default")
    assert mine["month"] == MONTH and int(mine["held_bytes_end"]) > 6_000_000
    before = json.loads(shared.valv("project", "usage", "default", "--month", "2001-01", "--json").stdout)[0]
    assert before["byte_micros"] == "0" and before["held_bytes_end"] == 0
    wrong = shared.valv("project", "usage", "default", "--month", "2026-13", check=False)
    assert wrong.returncode == 2 and "write it as 2026-11" in wrong.stderr
    unknown = shared.valv("project", "usage", "nobody", check=False)
    assert unknown.returncode == 1 and "project" in unknown.stderr


# -- who may see them ----------------------------------------------------------------------------------------------------


def test_a_stranger_sees_nothing_that_is_reported(shared, told, tmp_path):
    eve, olof = people.Person(shared, "eve"), people.Person(shared, "olof", operator=True)
    asked = [
        ("ledger", "head", "--project", "default"),
        ("ledger", "prove", "--project", "default", "--index", "0"),
        ("ledger", "export", "--project", "default"),
        ("ledger", "head", "--cluster"),
        ("project", "receipt", "ingest", "default"),
        ("project", "fixity", "default"),
        ("metadata", "export"),
    ]
    for number, words in enumerate(asked):
        # Without members, a project is looked after by operators.
        olof.run(*words, "--out", str(tmp_path / f"{number}"))
        # Not even that the project exists.
        found = "operator" if words[-1] in ("--cluster", "export") else "no such project"
        assert found in eve.refused(*words, "--out", str(tmp_path / f"{number}-eve"))
        assert not (tmp_path / f"{number}-eve").exists()
    for words, found in [(("project", "usage", "default"), "no such project"), (("admin", "usage"), "operator")]:
        olof.run(*words)
        assert found in eve.refused(*words)


def test_members_of_a_governed_project_see_what_is_reported_of_it_and_operators_do_not(shared, tmp_path):
    ada, aud = people.Person(shared, "ada"), people.Person(shared, "aud")
    olga = people.Person(shared, "olga", operator=True)
    people.governed(shared, "cohort", ada)
    ada.run("project", "member", "add", "cohort", "aud", "--role", "auditor")
    outs = iter(range(1000))
    for words in [
        ("ledger", "head", "--project", "cohort"),
        ("ledger", "prove", "--project", "cohort", "--index", "0"),
        ("ledger", "export", "--project", "cohort"),
        ("project", "receipt", "ingest", "cohort"),
        ("project", "fixity", "cohort"),
    ]:
        for member in (ada, aud):
            member.run(*words, "--out", str(tmp_path / f"{next(outs)}"))
        out = tmp_path / f"{next(outs)}"
        assert "role" in olga.refused(*words, "--out", str(out)) and not out.exists()
        # The server's socket proves an operator, and no member.
        local = shared.valv(*words, "--out", str(out), check=False)
        assert local.returncode == 1 and "role" in local.stderr
    assert aud.json("project", "usage", "cohort")[0]["name"] == "cohort"
    assert "role" in olga.refused("project", "usage", "cohort")
    assert {usage["name"] for usage in olga.json("admin", "usage")} >= {"default", "cohort"}


# -- fixity --------------------------------------------------------------------------------------------------------------


def fixity(server, key, out):
    server.valv("project", "fixity", "default", "--out", str(out))
    return verified(out, key)[0]["facts"]


def damage_a_shard(server):
    """Flips a bit in the shard of the large object that the first disk has."""
    for extent in disks.extents(server.disk_folder(0)):
        for _, _, _, payload, size in disks.records(extent):
            if size > 400_000:
                disks.flip(extent, payload + size // 2)
                return
    raise AssertionError("no such shard")


def test_a_fixity_report_says_what_is_verified_missing_and_repaired(make_server, tmp_path):
    server = make_server("fixity")
    s3 = server.s3()
    s3.create_bucket(Bucket="fixity")
    s3.put_object(Bucket="fixity", Key="large", Body=harness.random_bytes(2_000_000))
    s3.put_object(Bucket="fixity", Key="small", Body=b"in metadata")
    key = server.valv("ledger", "key").stdout.strip()
    # A pass counts for what was there when it began, to the second.
    reports = iter(range(1000))

    def all_verified():
        server.status(verify=True)
        facts = fixity(server, key, tmp_path / f"verified{next(reports)}")
        return facts if facts["verified"]["objects"] == 1 else None

    facts = harness.wait_until(all_verified, "the large object is verified", interval_s=0.5)
    assert facts["all"] == {"objects": 2, "bytes": 2_000_011}
    assert facts["verified"] == {"objects": 1, "bytes": 2_000_000}
    assert facts["in_metadata"] == {"objects": 1, "bytes": 11}
    assert facts["last_verified"]["oldest"] and facts["shards"]["missing"] == 0
    assert facts["repairs"] == {"records": 0, "bytes": "0"}

    server.move_disk_away(2)
    server.wait_disks("absent", [2])
    facts = fixity(server, key, tmp_path / "away")
    assert facts["on_disks_that_are_away"]["objects"] == 1 and facts["verified"]["objects"] == 0
    assert facts["shards"]["on_disks_that_are_away"] > 0
    server.bring_disk_back(2)
    server.wait_disks("online", [2])
    server.wait_healthy()

    # Damage that is found is rebuilt, and then stands in the ledger and in the report.
    damage_a_shard(server)
    server.status(verify=True)

    def repaired():
        facts = fixity(server, key, tmp_path / f"repaired{next(reports)}")
        return facts if facts["repairs"]["records"] else None

    facts = harness.wait_until(repaired, "the repair is told", interval_s=0.5)
    # The census and the repair queue may have met the same damage at the same time: each tells what it wrote.
    assert int(facts["repairs"]["bytes"]) == 2_000_000 * facts["repairs"]["records"]
    assert facts["damaged"]["objects"] == 0
    out = tmp_path / "repairs"
    server.valv("project", "receipt", "repair", "default", "--out", str(out))
    for line in verified(out, key)[1]:
        assert line["kind"] == "repair" and line["detail"]["blobs"] == 1 and len(line["detail"]["versions"]) == 1
