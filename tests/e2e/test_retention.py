"""Retention of projects, legal holds, disposal, trash and manifests, against whoever tries to get round them."""

import concurrent.futures
import datetime
import json

import pytest
from botocore.exceptions import ClientError

from harness import error_code, random_bytes, refused, wait_until

MINIMUM_DAYS = 3653
PROJECT = "default"
# A day of lifecycle rules is a second, so that rules are no matter of patience.
CONFIG = '[metadata]\nlifecycle_day = "1s"\n'


def in_future(**delta) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(**delta)


def project(server, *words, token=None, check=True, as_json=True):
    """`valv project ...`; with a token as its user, without one as the local operator."""
    env = {} if token is None else {"VALV_TOKEN": token}
    words = [*words, "--json"] if as_json else words
    done = server.valv("project", *words, env=env, check=check)
    return json.loads(done.stdout) if check and as_json else done


def operator(server, name: str) -> str:
    """A token of a user who is an operator: in a project without members operators decide."""
    server.valv("user", "add", "--name", name, "--project", f"home-of-{name}")
    made = server.valv("admin", "token", "create", "--user", name, "--operator", "--json")
    return json.loads(made.stdout)["token"]


def answer(server, token: str, proposal: str, word: str = "approve", check: bool = True):
    return server.valv("proposal", word, proposal, "--project", PROJECT, env={"VALV_TOKEN": token}, check=check)


def expire_after_a_day(s3, bucket: str):
    rule = {
        "ID": "all",
        "Status": "Enabled",
        "Filter": {},
        "Expiration": {"Days": 1},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
    }
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})


def version_ids(s3, bucket: str) -> set[str]:
    return {version["VersionId"] for version in s3.list_object_versions(Bucket=bucket).get("Versions", [])}


def test_what_a_project_keeps_is_removed_by_nobody_and_nothing(make_server):
    server = make_server(config=CONFIG)
    s3, ada = server.s3(), operator(server, "ada")
    s3.create_bucket(Bucket="old")
    shown = project(server, "retention", "set", PROJECT, "--minimum", "10y", "--class", "trial", "--reason", "law", "--yes")
    assert shown["minimum_days"] == MINIMUM_DAYS and shown["proposal"] is None
    s3.create_bucket(Bucket="new")
    assert s3.get_bucket_versioning(Bucket="new")["Status"] == "Enabled", "made with versions"
    body = random_bytes(1000)
    for bucket in ("old", "new"):
        s3.put_object(Bucket=bucket, Key="k", Body=body)
        expire_after_a_day(s3, bucket)
    head = s3.head_object(Bucket="new", Key="k")
    assert head["ObjectLockMode"] == "COMPLIANCE"
    assert head["ObjectLockRetainUntilDate"] > in_future(days=MINIMUM_DAYS - 1)
    kept = head["VersionId"]

    # Where there are no versions, every way of writing would remove.
    s3.put_object(Bucket="new", Key="source", Body=b"other")
    refused(lambda: s3.put_object(Bucket="old", Key="k", Body=b"other"))
    refused(lambda: s3.copy_object(Bucket="old", Key="k", CopySource={"Bucket": "new", "Key": "source"}))
    upload = s3.create_multipart_upload(Bucket="old", Key="k")["UploadId"]
    part = s3.upload_part(Bucket="old", Key="k", UploadId=upload, PartNumber=1, Body=b"other")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    refused(lambda: s3.complete_multipart_upload(Bucket="old", Key="k", UploadId=upload, MultipartUpload=parts))
    s3.abort_multipart_upload(Bucket="old", Key="k", UploadId=upload)
    refused(lambda: s3.delete_object(Bucket="old", Key="k"))
    refused(lambda: s3.delete_object(Bucket="old", Key="k", VersionId="null", BypassGovernanceRetention=True))
    answer_of = s3.delete_objects(Bucket="old", Delete={"Objects": [{"Key": "k"}]}, BypassGovernanceRetention=True)
    assert [error["Code"] for error in answer_of["Errors"]] == ["AccessDenied"]

    # Where there are versions, they stay.
    refused(lambda: s3.delete_object(Bucket="new", Key="k", VersionId=kept, BypassGovernanceRetention=True))
    answer_of = s3.delete_objects(
        Bucket="new", Delete={"Objects": [{"Key": "k", "VersionId": kept}]}, BypassGovernanceRetention=True
    )
    assert [error["Code"] for error in answer_of["Errors"]] == ["AccessDenied"]
    shorter = {"Mode": "COMPLIANCE", "RetainUntilDate": in_future(days=1)}
    weaker = {"Mode": "GOVERNANCE", "RetainUntilDate": in_future(days=2 * MINIMUM_DAYS)}
    for retention in (shorter, weaker, {}):
        refused(
            lambda retention=retention: s3.put_object_retention(
                Bucket="new", Key="k", VersionId=kept, Retention=retention, BypassGovernanceRetention=True
            )
        )
    refused(lambda: s3.put_bucket_versioning(Bucket="new", VersioningConfiguration={"Status": "Suspended"}), "InvalidBucketState")

    # Less than the minimum is refused where somebody names it, and where a bucket would.
    for mode, days in (("COMPLIANCE", 30), ("GOVERNANCE", 2 * MINIMUM_DAYS)):
        with pytest.raises(ClientError) as caught:
            s3.put_object(
                Bucket="new", Key="named", Body=b"", ObjectLockMode=mode, ObjectLockRetainUntilDate=in_future(days=days)
            )
        assert error_code(caught.value) == "InvalidArgument"
        assert str(MINIMUM_DAYS) in caught.value.response["Error"]["Message"]
    default = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}
    refused(lambda: s3.put_object_lock_configuration(Bucket="new", ObjectLockConfiguration=default), "InvalidArgument")
    longer = in_future(days=2 * MINIMUM_DAYS)
    s3.put_object(Bucket="new", Key="named", Body=b"", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=longer)

    # Operators: less is for two, a disposal lists nothing that is kept, and the bucket stays.
    one = project(server, "retention", "set", PROJECT, "--minimum", "0", "--reason", "x", "--yes", check=False)
    assert one.returncode != 0 and "two people" in one.stderr
    asked = ["--bucket", "old", "--reason", "end", "--reference", "x"]
    nothing = project(server, "disposal", "propose", PROJECT, *asked, token=ada, check=False)
    assert nothing.returncode != 0 and "nothing here may be disposed of" in nothing.stderr
    refused(lambda: s3.delete_bucket(Bucket="old"), "BucketNotEmpty")

    # Rules have had their time, and a restart (and with it a clock that starts anew) changes nothing.
    s3.create_bucket(Bucket="probe")
    s3.put_object(Bucket="probe", Key="k", Body=b"")
    s3.delete_object(Bucket="probe", Key="k")
    expire_after_a_day(s3, "new")
    wait_until(lambda: "DeleteMarkers" in s3.list_object_versions(Bucket="new"), "rules to cover what they may")
    server.restart(kill=True)
    s3 = server.s3()
    assert s3.get_object(Bucket="old", Key="k")["Body"].read() == body
    assert s3.get_object(Bucket="new", Key="k", VersionId=kept)["Body"].read() == body


def test_a_hold_of_each_scope_stops_every_removal_until_it_is_released(make_server):
    server = make_server(config=CONFIG)
    s3 = server.s3()
    for name in ("versions", "plain"):
        s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    words = ["--reason", "inquiry", "--reference", "court 12/31"]
    scopes = ([], ["--bucket", "plain"], ["--bucket", "plain", "--prefix", "held/"])
    for number, scope in enumerate(scopes):
        s3.put_object(Bucket="plain", Key="held/k", Body=b"1")
        s3.put_object(Bucket="plain", Key="free", Body=b"1")
        hold = project(server, "hold", "set", PROJECT, *scope, *words)
        assert [held["id"] for held in project(server, "hold", "list", PROJECT)] == [hold["id"]]
        refused(lambda: s3.delete_object(Bucket="plain", Key="held/k"))
        refused(lambda: s3.put_object(Bucket="plain", Key="held/k", Body=b"2"))
        expire_after_a_day(s3, "plain")
        if number == 2:
            wait_until(lambda: not exists(s3, "plain", "free"), "a rule to take what is not held")
        if number == 0:
            version = s3.put_object(Bucket="versions", Key="k", Body=b"1")["VersionId"]
            refused(lambda version=version: s3.delete_object(Bucket="versions", Key="k", VersionId=version))
            s3.create_bucket(Bucket="later")
            s3.put_object(Bucket="later", Key="k", Body=b"1")
            refused(lambda: s3.delete_object(Bucket="later", Key="k"))
        refused(lambda: s3.delete_bucket(Bucket="plain"))
        assert s3.get_object(Bucket="plain", Key="held/k")["Body"].read() == b"1"
        s3.delete_bucket_lifecycle(Bucket="plain")
        project(server, "hold", "release", PROJECT, hold["id"], "--reason", "closed")
        s3.delete_object(Bucket="plain", Key="held/k")
    assert project(server, "hold", "list", PROJECT) == []
    again = project(server, "hold", "release", PROJECT, hold["id"], "--reason", "x", check=False)
    assert again.returncode != 0 and "no such legal hold" in again.stderr


def exists(s3, bucket: str, key: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        assert error_code(error) == "404"
        return False
    return True


def test_a_disposal_is_listed_approved_by_another_and_survives_a_kill(make_server):
    count = 300
    server = make_server()
    s3 = server.s3()
    ada, bob = operator(server, "ada"), operator(server, "bob")
    s3.create_bucket(Bucket="study", ObjectLockEnabledForBucket=True)
    soon, far = in_future(seconds=8), in_future(days=30)

    def put(number: int) -> str:
        lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": far if number == 0 else soon}
        return s3.put_object(Bucket="study", Key=f"scan/{number:04}", Body=b"x" * 10, **lock)["VersionId"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(put, range(count)))
    s3.delete_object(Bucket="study", Key="scan/0001")
    words = ["--bucket", "study", "--reason", "end of study", "--reference", "board 4/36"]

    def proposed():
        made = project(server, "disposal", "propose", PROJECT, *words, token=ada)
        if made["versions"] == count - 1:
            return made
        answer(server, ada, made["id"], "reject")
        return None

    disposal = wait_until(proposed, "retention to end", interval_s=0.5)
    assert (disposal["state"], disposal["bytes"], disposal["kept"]) == ("proposed", (count - 1) * 10, 1)
    list_path = server.folder / "list.jsonl"
    project(server, "disposal", "show", PROJECT, disposal["id"], "--list", list_path, token=bob)
    listed = [json.loads(line) for line in list_path.read_text().splitlines()]
    assert {entry["version"] for entry in listed} == set(versions[1:])
    own = answer(server, ada, disposal["id"], check=False)
    assert own.returncode != 0 and "another person" in own.stderr
    early = project(server, "disposal", "receipt", PROJECT, disposal["id"], "--out", server.folder / "no", as_json=False, check=False)
    assert early.returncode != 0 and len(version_ids(s3, "study")) == count

    # What is held after the list was made stays.
    hold = project(server, "hold", "set", PROJECT, "--bucket", "study", "--prefix", "scan/0100", "--reason", "r", "--reference", "r")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        approval = pool.submit(answer, server, bob, disposal["id"], check=False)
        wait_until(lambda: len(version_ids(s3, "study")) < count, "the first removals", interval_s=0.0)
        server.kill()
        approval.result()
    server.start()
    s3 = server.s3()

    def done():
        shown = project(server, "disposal", "show", PROJECT, disposal["id"])
        return shown if shown["state"] == "done" else None

    shown = wait_until(done, "the disposal to end")
    assert (shown["removed"], shown["refused"], shown["gone"], shown["delete_markers"]) == (count - 2, 1, 0, 1)
    assert shown["removed_bytes"] == (count - 2) * 10 and sorted(shown["deciders"]) == ["ada", "bob"]
    assert version_ids(s3, "study") == {versions[0], versions[100]}
    receipt = server.folder / "receipt.jsonl"
    project(server, "disposal", "receipt", PROJECT, disposal["id"], "--out", receipt, as_json=False)
    key = server.valv("ledger", "key").stdout.strip()
    verified = json.loads(run_offline(server, "statement", "verify", receipt, "--key", key, "--json").stdout)
    assert verified["kind"] == "disposal receipt" and verified["facts"]["removed"] == count - 2
    export = server.folder / "ledger.jsonl"
    server.valv("ledger", "export", "--project", PROJECT, "--out", export)
    events = [json.loads(line).get("event") or {} for line in export.read_text().splitlines()]
    disposed = [event for event in events if event.get("kind") == "deaccession by disposal"]
    assert len(disposed) == count - 1, "each version, and the delete marker"
    project(server, "hold", "release", PROJECT, hold["id"], "--reason", "r")

    # Until it is purged, a steward can bring a version back.
    trash = project(server, "trash", "list", PROJECT, "--bucket", "study", "--prefix", "scan/0002", check=False)
    entries = [json.loads(line) for line in trash.stdout.splitlines()]
    assert [entry["version"] for entry in entries] == [versions[2]] and entries[0]["by"] == "ada"
    project(server, "trash", "restore", PROJECT, versions[2])
    assert s3.get_object(Bucket="study", Key="scan/0002", VersionId=versions[2])["Body"].read() == b"x" * 10
    again = project(server, "trash", "restore", PROJECT, versions[2], check=False)
    assert again.returncode != 0 and "trash has no such version" in again.stderr


def run_offline(server, *words, **options):
    """A command that needs no server."""
    import harness

    return harness.run(harness.binary(), *words, **options)


def test_extension_is_for_good_and_lowering_for_two(make_server):
    server = make_server(config='[metadata]\ncooling_off = "0s"\n')
    s3 = server.s3()
    ada, bob = operator(server, "ada"), operator(server, "bob")
    s3.create_bucket(Bucket="data")
    for key in ("a/1", "a/2", "b/1"):
        s3.put_object(Bucket="data", Key=key, Body=b"x")
    until = in_future(days=400).strftime("%Y-%m-%d")
    words = ["--bucket", "data", "--prefix", "a/", "--until", until, "--reason", "follow-up", "--yes"]
    assert project(server, "retention", "extend", PROJECT, *words) == {"extended": 2, "unchanged": 0}
    assert project(server, "retention", "extend", PROJECT, *words) == {"extended": 0, "unchanged": 2}
    refused(lambda: s3.delete_object(Bucket="data", Key="a/1"))
    s3.delete_object(Bucket="data", Key="b/1")
    past = project(server, "retention", "extend", PROJECT, *words[:4], "--until", "2020-01-01", *words[6:], check=False)
    assert past.returncode != 0 and "in the future" in past.stderr

    project(server, "retention", "set", PROJECT, "--minimum", "2y", "--reason", "law", "--yes")
    lower = ["retention", "set", PROJECT, "--minimum", "1y", "--reason", "law changed", "--reference", "law 7"]
    proposal = project(server, *lower, "--propose", token=ada)["proposal"]
    assert project(server, "retention", "show", PROJECT)["minimum_days"] == 731
    assert answer(server, ada, proposal, check=False).returncode != 0
    answer(server, bob, proposal)
    wait_until(lambda: project(server, "retention", "show", PROJECT)["minimum_days"] == 366, "the approved class")


def test_a_manifest_is_signed_and_files_are_checked_against_it(make_server, folder):
    server = make_server()
    s3 = server.s3()
    s3.create_bucket(Bucket="images")
    copy = folder / "copy"
    bodies = {f"p{number}/scan.dcm": random_bytes(3000 + number, number) for number in range(30)}
    for key, body in bodies.items():
        s3.put_object(Bucket="images", Key=key, Body=body, ChecksumAlgorithm="SHA256")
        path = copy / key
        path.parent.mkdir(parents=True)
        path.write_bytes(body)
    upload = s3.create_multipart_upload(Bucket="images", Key="parts.bin", ChecksumAlgorithm="SHA256")["UploadId"]
    part = s3.upload_part(
        Bucket="images", Key="parts.bin", UploadId=upload, PartNumber=1, Body=b"part", ChecksumAlgorithm="SHA256"
    )
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}]}
    s3.complete_multipart_upload(Bucket="images", Key="parts.bin", UploadId=upload, MultipartUpload=parts)
    (copy / "parts.bin").write_bytes(b"part")
    s3.put_object(Bucket="images", Key="../outside", Body=b"x")
    manifest = folder / "images.jsonl"
    made = project(server, "manifest", PROJECT, "--bucket", "images", "--out", manifest)
    assert made["objects"] == 32
    rest = folder / "rest.jsonl"
    made = project(server, "manifest", PROJECT, "--bucket", "images", "--start-after", "p28/scan.dcm", "--out", rest)
    keys = sorted([*bodies, "parts.bin", "../outside"])
    assert made["objects"] == len(keys) - keys.index("p28/scan.dcm") - 1
    key = server.valv("ledger", "key").stdout.strip()
    server.kill()

    def check(*words, ok=False):
        done = run_offline(server, "project", "manifest", "--check", copy, "--manifest", manifest, *words, "--json", check=False)
        assert (done.returncode == 0) == ok, done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr

    found = check("--key", key)
    assert (found["good"], found["size_only"], found["no_file_name"]) == (30, 1, 1)
    lines = [line for line in manifest.read_text().splitlines(True) if '"../outside"' not in line]
    manifest.write_text("".join(lines))
    assert "does not hold" in check("--key", key), "a line was taken out"
    assert check(ok=True)["holds"] is True, "without the key only the files are checked"
    target = copy / "p7/scan.dcm"
    damaged = bytearray(bodies["p7/scan.dcm"])
    damaged[1000] ^= 1
    target.write_bytes(damaged)
    (copy / "p8/scan.dcm").unlink()
    found = check()
    assert (found["differ"], found["missing"]) == (1, 1)
    manifest.write_text("".join(lines[:-1]))
    assert check()["complete"] is False
