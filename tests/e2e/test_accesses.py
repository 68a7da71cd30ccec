"""Accesses in the ledger: what was read, by whom, how much; refusals; and no byte without a record."""

import collections
import concurrent.futures
import json
import random
import socket
import uuid

import pytest

import harness
from harness import MIB, refused, wait_until


def exported(server, path, project="default"):
    """The lines of a verified export."""
    path.unlink(missing_ok=True)
    server.valv("ledger", "export", "--project", project, "--out", str(path))
    key = server.valv("ledger", "key").stdout.strip()
    report = json.loads(harness.run(harness.binary(), "ledger", "verify", path, "--key", key, "--json").stdout)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    accesses = [line for line in lines if line.get("accesses")]
    assert report["accesses"] == sum(one["count"] for line in accesses for one in line["accesses"]["accesses"])
    return lines


class Accesses:
    """The accesses of an export, with their names and completions."""

    def __init__(self, lines, bucket=None):
        self.all = []
        self.ends = collections.defaultdict(list)
        for line in (line for line in lines if line.get("accesses")):
            recorder = line["accesses"]["recorder"]
            names = (line.get("access_names") or {"accesses": []})["accesses"]
            clients = (line.get("access_names") or {}).get("clients")
            for access, name in zip(line["accesses"]["accesses"], names, strict=True):
                client = clients[name["client"]]
                assert access["count"] == len(name["requests"])
                if bucket is None or access["bucket"] == bucket:
                    self.all.append({**access, **name, **client, "recorder": recorder})
            for end in line["accesses"]["completions"]:
                self.ends[recorder, end["number"]].append(end)

    def of(self, action, **fields):
        return [a for a in self.all if a["action"] == action and all(a.get(k) == v for k, v in fields.items())]

    def count(self, action, **fields):
        return sum(access["count"] for access in self.of(action, **fields))

    def ends_of(self, access):
        return self.ends[access["recorder"], access["number"]]


def bucket_id(lines, name):
    created = [
        line["event"]["bucket"]
        for line in lines
        if line["line"] == "event" and line["event"]["kind"] == "bucket created" and line["names"]["subject"] == name
    ]
    return created[-1]


def versions_of(lines, bucket):
    """Key to version id, from the ingest events: where the names of versions are."""
    return {
        line["names"]["subject"]: line["event"]["version"]
        for line in lines
        if line["line"] == "event" and line["event"]["kind"] == "ingestion" and line["event"]["bucket"] == bucket
    }


def new_bucket(s3):
    name = f"accesses-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


def test_every_read_leaves_exactly_what_its_client_saw(shared, tmp_path):
    s3 = shared.s3()
    bucket = new_bucket(s3)
    sizes = {"small": 4096, "large": 3 * MIB, "empty": 0}
    for key, size in sizes.items():
        s3.put_object(Bucket=bucket, Key=key, Body=harness.random_bytes(size))
    log = collections.Counter()
    reads = collections.Counter()

    def get(key, first=None, last=None):
        words = {} if first is None else {"Range": f"bytes={first}-{last}"}
        body = s3.get_object(Bucket=bucket, Key=key, **words)["Body"].read()
        return key, len(body)

    jobs = []
    picked = random.Random(1)
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for _ in range(120):
            jobs.append(pool.submit(get, "small"))
            first = picked.randrange(3 * MIB - 70_000)
            jobs.append(pool.submit(get, "large", first, first + picked.randrange(1, 65_536)))
        # Neighbours, as a client that reads a slide in tiles asks for them.
        for tile in range(0, 3 * MIB, 65_536):
            jobs.append(pool.submit(get, "large", tile, tile + 65_535))
        jobs += [pool.submit(get, "empty") for _ in range(5)]
        for _ in range(30):
            pool.submit(s3.head_object, Bucket=bucket, Key="large")
            pool.submit(s3.list_objects_v2, Bucket=bucket, Prefix="sm")
    for job in jobs:
        key, size = job.result()
        log[key] += size
        reads[key] += 1

    lines = exported(shared, tmp_path / "all.jsonl")
    id_ = bucket_id(lines, bucket)
    found, versions = Accesses(lines, id_), versions_of(lines, id_)
    for key in sizes:
        mine = found.of("GetObject", version=versions[key])
        assert sum(access["count"] for access in mine) == reads[key], key
        assert sum(access["bytes"] for access in mine) == log[key], key
        assert all("subject" not in access for access in mine), "the version id says it all"
    assert found.count("HeadObject", version=versions["large"], status=200) == 30
    assert found.count("ListObjectsV2", subject="sm") == 30
    assert {access["access_key"] for access in found.all} == {harness.ACCESS_KEY}
    assert {access["remote"] for access in found.all} == {"127.0.0.1"}
    # Completions are at most a moment behind.
    wait_until(lambda: all_ended(shared, tmp_path, id_, log, versions), "every download's completion")


def all_ended(server, tmp_path, bucket, log, versions):
    found = Accesses(exported(server, tmp_path / "ended.jsonl"), bucket)
    for key in ("small", "large"):
        mine = found.of("GetObject", version=versions[key])
        ends = [end for access in mine for end in found.ends_of(access)]
        if sum(end["sent_bytes"] for end in ends) != log[key]:
            return False
        assert sum(end["count"] for end in ends) == sum(access["count"] for access in mine)
        assert {end["end"] for end in ends} == {"whole"}
    return True


def test_each_kind_of_question_is_an_access(shared, tmp_path):
    s3 = shared.s3()
    bucket, other = new_bucket(s3), new_bucket(s3)
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789", Tagging="a=b")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    s3.upload_part_copy(
        Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, CopySource=f"{bucket}/k", CopySourceRange="bytes=2-5"
    )
    s3.copy_object(Bucket=other, Key="copy", CopySource=f"{bucket}/k")
    s3.list_parts(Bucket=bucket, Key="m", UploadId=upload)
    s3.list_multipart_uploads(Bucket=bucket)
    s3.list_objects(Bucket=bucket, Prefix="a/b")
    s3.list_object_versions(Bucket=bucket)
    s3.list_buckets()
    s3.head_bucket(Bucket=bucket)
    s3.get_object_tagging(Bucket=bucket, Key="k")
    s3.get_object_acl(Bucket=bucket, Key="k")
    s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ETag"])
    s3.get_bucket_versioning(Bucket=bucket)
    s3.get_bucket_location(Bucket=bucket)
    refused(lambda: s3.get_object(Bucket=bucket, Key="missing"), "NoSuchKey")
    refused(lambda: s3.get_object(Bucket=bucket, Key="k", IfMatch='"x"'), "PreconditionFailed")
    refused(lambda: s3.get_bucket_policy(Bucket=bucket), "NoSuchBucketPolicy")

    lines = exported(shared, tmp_path / "all.jsonl")
    id_ = bucket_id(lines, bucket)
    found, version = Accesses(lines, id_), versions_of(lines, id_)["k"]
    assert not Accesses(lines, bucket_id(lines, other)).all, "a copy reads its source"
    expected = {
        ("UploadPartCopy", version, 200, None): 4,
        ("CopyObject", version, 200, None): 10,
        ("ListParts", None, 200, "m"): None,
        ("ListMultipartUploads", None, 200, None): None,
        ("ListObjects", None, 200, "a/b"): None,
        ("ListObjectVersions", None, 200, None): None,
        ("HeadBucket", None, 200, None): 0,
        ("GetObjectTagging", version, 200, None): None,
        ("GetObjectAcl", version, 200, None): None,
        ("GetObjectAttributes", version, 200, None): None,
        ("GetBucketVersioning", None, 200, None): None,
        ("GetBucketLocation", None, 200, None): None,
        ("GetObject", None, 404, "missing"): 0,
        ("GetObject", version, 412, None): 0,
        ("GetBucketPolicy", None, 404, None): 0,
    }
    told = {(a["action"], a["version"], a["status"], a.get("subject")): a for a in found.all}
    assert set(told) == set(expected) and all(access["count"] == 1 for access in told.values())
    for what, size in expected.items():
        assert size is None or told[what]["bytes"] == size, what
    assert (told["UploadPartCopy", version, 200, None]["start"], told["UploadPartCopy", version, 200, None]["end"]) == (2, 6)
    assert [a for a in Accesses(lines).of("ListBuckets") if a["bucket"] is None]


def test_refusals_are_in_the_ledger_of_whom_they_protect(trio_server, main, alt, nobody, tmp_path):
    bucket = new_bucket(main)
    main.put_object(Bucket=bucket, Key="k", Body=b"secret")
    own = new_bucket(alt)
    refused(lambda: alt.get_object(Bucket=bucket, Key="k"))
    refused(lambda: alt.get_object(Bucket=bucket, Key="missing"))
    refused(lambda: alt.put_object(Bucket=bucket, Key="mine", Body=b"x"))
    refused(lambda: alt.list_objects_v2(Bucket=bucket, Prefix="p"))
    refused(lambda: alt.copy_object(Bucket=own, Key="stolen", CopySource=f"{bucket}/k"))
    refused(lambda: nobody.get_object(Bucket=bucket, Key="k"))
    lines = exported(trio_server, tmp_path / "main.jsonl", "main-study")
    id_ = bucket_id(lines, bucket)
    found, version = Accesses(lines, id_), versions_of(lines, id_)["k"]
    denied = [access for access in found.all if access["status"] == 403]
    assert {(a["action"], a["version"], a.get("subject"), a["access_key"]) for a in denied} == {
        ("GetObject", version, None, "KEY-OF-ALT"),
        ("GetObject", None, "missing", "KEY-OF-ALT"),
        ("PutObject", None, "mine", "KEY-OF-ALT"),
        ("ListObjectsV2", None, None, "KEY-OF-ALT"),
        ("CopyObject", version, None, "KEY-OF-ALT"),
        ("GetObject", version, None, None),
    }
    assert all(access["bytes"] == 0 and bool(access["user"]) == bool(access["access_key"]) for access in denied)
    assert not Accesses(exported(trio_server, tmp_path / "alt.jsonl", "alt-study"), id_).all, "another project's ledger"


def raw_get(server, url, read_bytes=0):
    """Opens a signed URL and reads so much of the answer; the socket is open still."""
    path = url.split("/", 3)[3]
    sock = socket.create_connection(server.address, timeout=60)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    sock.sendall(f"GET /{path} HTTP/1.1\r\nHost: {server.address[0]}:{server.address[1]}\r\n\r\n".encode())
    got = b""
    while len(got) < read_bytes:
        piece = sock.recv(65_536)
        assert piece
        got += piece
    assert not got or got.startswith(b"HTTP/1.1 200")
    return sock


def test_who_breaks_off_is_told_what_was_sent_and_a_killed_server_leaves_the_intent(server, tmp_path):
    s3 = server.s3()
    bucket = new_bucket(s3)
    size = 48 * MIB
    for key in ("broken-off", "killed"):
        s3.put_object(Bucket=bucket, Key=key, Body=harness.random_bytes(size))

    def url(key):
        return s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})

    raw_get(server, url("broken-off"), MIB).close()

    def ended(name):
        lines = exported(server, tmp_path / f"{name}.jsonl")
        id_ = bucket_id(lines, bucket)
        found = Accesses(lines, id_)
        (access,) = found.of("GetObject", version=versions_of(lines, id_)[name])
        assert access["bytes"] == size and access["state"] == "begun"
        return found.ends_of(access)

    (end,) = wait_until(lambda: ended("broken-off"), "the completion of a download that was broken off")
    assert end["end"] == "broken-off" and MIB // 2 < end["sent_bytes"] < size and end["of_bytes"] == size

    sock = raw_get(server, url("killed"), MIB)
    server.restart(kill=True)
    sock.close()
    assert ended("killed") == [], "nobody knows how much was sent: it counts whole"
    assert len(ended("broken-off")) == 1


def test_what_is_left_to_tell_is_told_when_the_server_ends(server, tmp_path):
    s3 = server.s3()
    bucket = new_bucket(s3)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 1000)
    s3.get_object(Bucket=bucket, Key="k")["Body"].read()
    server.restart()
    lines = exported(server, tmp_path / "all.jsonl")
    found = Accesses(lines, bucket_id(lines, bucket))
    (access,) = found.of("GetObject")
    assert [end["end"] for end in found.ends_of(access)] == ["whole"]


def test_no_byte_is_sent_while_nothing_can_be_recorded(server, tmp_path):
    s3 = server.s3()
    bucket = new_bucket(s3)
    # A small body lies in metadata, so that it could be read with every disk away.
    s3.put_object(Bucket=bucket, Key="small", Body=b"a body in the metadata")
    assert s3.get_object(Bucket=bucket, Key="small")["Body"].read() == b"a body in the metadata"
    for index in range(6):
        server.move_disk_away(index)
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "small"})

    def is_refused():
        sock = raw_get(server, url)
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"</Error>"):
            piece = sock.recv(65_536)
            if not piece:
                break
            answer += piece
            if b"a body in the metadata" in answer:
                break
        sock.close()
        return answer if answer.startswith(b"HTTP/1.1 503") else None

    answer = wait_until(is_refused, "reads to be refused")
    assert b"a body in the metadata" not in answer and b"ServiceUnavailable" in answer
    refused(lambda: s3.list_objects_v2(Bucket=bucket), "ServiceUnavailable")
    with pytest.raises(harness.ClientError) as head:
        s3.head_object(Bucket=bucket, Key="small")
    assert harness.error_status(head.value) == 503
    for index in range(6):
        server.bring_disk_back(index)

    def is_served():
        return s3.get_object(Bucket=bucket, Key="small")["Body"].read() == b"a body in the metadata"

    wait_until(is_served, "reads to be served again")
