"""Openings: nobody but members gets in without one, each of their fields closes, and their end ends transfers."""

import concurrent.futures
import datetime
import http.client
import json
import random
import time

import boto3
import botocore.config
import botocore.exceptions
import pytest

import harness
import trio
from harness import REGION, error_code, refused, wait_until
from people import Person, governed
from test_projects import key_in
from test_users import user

HOUSES = ("owner", "guest", "third")
CONFIG = (
    """
[gateway]
anonymous_namespace = "owner"
trusted_proxies = ["127.0.0.2/32"]
"""
    + "".join(
        f"""
[[users]]
name = "{name}"
canonical_id = "{digit * 64}"
project = "{name}-study"
namespace = "{name}"
access_key_id = "KEY-OF-{name.upper()}"
secret_access_key = "the-secret-of-{name}-0123456789"
"""
        for name, digit in zip(HOUSES, "abc")
    )
)
MIB = 1 << 20


@pytest.fixture(scope="module")
def houses(module_folder):
    """Three projects, each in a namespace of its own."""
    server = harness.Server(module_folder / "houses", name="houses", config=CONFIG).start()
    server.valv("admin", "zone", "set", "here", "127.0.0.1", "::1")
    server.valv("admin", "zone", "set", "elsewhere", "198.51.100.0/24")
    yield server
    try:
        server.assert_clean_log()
    finally:
        server.kill()


def later(seconds: float) -> str:
    moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def opening(server, bucket: str, *words, to=("--to-project", "guest-study"), actions=("read", "list"), until=3600, check=True):
    """Makes an opening. Returns its JSON, or what was said against it."""
    given = [word for action in actions for word in ("--action", action)]
    outcome = server.valv(
        "project", "opening", "create", "owner-study", "--bucket", bucket, *to, *given,
        "--purpose", "a test", "--reference", "ethics 1", "--until", later(until), "--json", *words, check=check,
    )
    return json.loads(outcome.stdout) if outcome.returncode == 0 else outcome.stderr


def revoke(server, one: dict):
    server.valv("project", "opening", "revoke", "owner-study", one["id"], "--reason", "over", "--yes")


@pytest.fixture
def owner(houses):
    return trio.client(houses, "owner")


@pytest.fixture
def guest(houses):
    return trio.client(houses, "guest")


@pytest.fixture
def bucket(owner):
    name = f"data-{random.randrange(10**12):012d}"
    owner.create_bucket(Bucket=name)
    owner.put_object(Bucket=name, Key="a/k", Body=b"inside")
    owner.put_object(Bucket=name, Key="b/k", Body=b"outside")
    return name


def names(client) -> list[str]:
    return [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]


def test_an_opened_bucket_appears_under_its_alias_and_goes(houses, owner, guest, bucket):
    alias = f"from-owner-{bucket}"
    assert alias not in names(guest)
    refused(lambda: guest.get_object(Bucket=alias, Key="a/k"), "NoSuchBucket", 404)
    one = opening(houses, bucket, "--alias", alias, "--prefix", "a/")
    assert one["state"] == "active" and one["alias"] == alias
    assert alias in names(guest) and bucket not in names(guest)
    assert guest.get_object(Bucket=alias, Key="a/k")["Body"].read() == b"inside"
    guest.head_bucket(Bucket=alias)
    listed = guest.list_objects_v2(Bucket=alias, Prefix="a/")
    assert listed["Name"] == alias and [key["Key"] for key in listed["Contents"]] == ["a/k"]
    # Its own name leads nobody outside to it.
    refused(lambda: guest.get_object(Bucket=bucket, Key="a/k"), "NoSuchBucket", 404)
    for call in (
        lambda: guest.get_object(Bucket=alias, Key="b/k"),
        lambda: guest.list_objects_v2(Bucket=alias),
        lambda: guest.list_objects_v2(Bucket=alias, Prefix="b/"),
        lambda: guest.put_object(Bucket=alias, Key="a/new", Body=b""),
        lambda: guest.delete_object(Bucket=alias, Key="a/k"),
        lambda: guest.get_bucket_policy(Bucket=alias),
        lambda: guest.delete_bucket(Bucket=alias),
        lambda: trio.client(houses, "third").get_object(Bucket=alias, Key="a/k"),
    ):
        error = pytest.raises(botocore.exceptions.ClientError, call)
        assert error_code(error.value) in ("AccessDenied", "NoSuchBucket") and bucket not in str(error.value.response["Error"].get("Resource", "")).replace(alias, "")
    revoke(houses, one)
    wait_until(lambda: alias not in names(guest), "the alias is gone", 5)
    refused(lambda: guest.get_object(Bucket=alias, Key="a/k"), "NoSuchBucket", 404)
    # The name is free again, and a bucket of the guest's own.
    guest.create_bucket(Bucket=alias)
    assert owner.get_object(Bucket=bucket, Key="a/k")["Body"].read() == b"inside"


def test_policies_and_acls_alone_open_nothing(houses, owner, guest, bucket):
    owner.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=trio.OPEN)
    owner.put_bucket_policy(Bucket=bucket, Policy=trio.policy(trio.statement(bucket, action="s3:*", resource=["", "/*"])))
    nobody = trio.client(houses, None)
    refused(lambda: nobody.get_object(Bucket=bucket, Key="a/k"), "AccessDenied", 403)
    # With an opening for reading they still add nothing, and a Deny takes away.
    opening(houses, bucket, to=("--to-public",), actions=("read",))
    wait_until(lambda: readable(nobody, bucket, "a/k"), "the public opening holds", 5)
    refused(lambda: nobody.put_object(Bucket=bucket, Key="a/x", Body=b""), "AccessDenied", 403)
    deny = trio.statement(bucket, "Deny", action="s3:GetObject", resource="/a/*")
    owner.put_bucket_policy(Bucket=bucket, Policy=trio.policy(deny))
    refused(lambda: nobody.get_object(Bucket=bucket, Key="a/k"), "AccessDenied", 403)
    assert nobody.get_object(Bucket=bucket, Key="b/k")["Body"].read() == b"outside"


def readable(client, bucket: str, key: str) -> bool:
    try:
        client.get_object(Bucket=bucket, Key=key)["Body"].read()
    except botocore.exceptions.ClientError as error:
        assert error_code(error) in ("AccessDenied", "NoSuchBucket")
        return False
    return True


def test_zones_are_judged_at_use_and_a_header_moves_nobody(houses, guest, bucket):
    opening(houses, bucket, "--zone", "elsewhere", "--alias", f"e-{bucket}")
    one = opening(houses, bucket, "--zone", "here", "--alias", f"h-{bucket}", to=("--to-user", "guest"), actions=("read",))
    # Every opening of the bucket counts, by whatever name it was found: `here` lets the guest read, and not list.
    assert readable(guest, f"h-{bucket}", "a/k")
    refused(lambda: guest.list_objects_v2(Bucket=f"e-{bucket}"), "AccessDenied", 403)
    revoke(houses, one)
    wait_until(lambda: not readable(guest, f"e-{bucket}", "a/k"), "only `elsewhere` is left", 6)
    url = guest.generate_presigned_url("get_object", Params={"Bucket": f"e-{bucket}", "Key": "a/k"})
    path = url.split(houses.endpoint, 1)[1]
    for source, forwarded, status in [
        ("127.0.0.1", None, 403),
        ("127.0.0.1", "198.51.100.7", 403),
        ("127.0.0.2", None, 403),
        ("127.0.0.2", "198.51.100.7", 200),
        ("127.0.0.2", "198.51.100.7, 203.0.113.9", 403),
        ("127.0.0.2", "203.0.113.9, 198.51.100.7", 200),
        ("127.0.0.2", "198.51.100.7, nonsense", 403),
    ]:
        assert get(houses, path, source, forwarded) == status, (source, forwarded)
    houses.valv("admin", "zone", "remove", "elsewhere", "--yes")
    wait_until(lambda: get(houses, path, "127.0.0.2", "198.51.100.7") == 403, "the zone is gone", 6)
    houses.valv("admin", "zone", "set", "elsewhere", "198.51.100.0/24")


def get(server, path: str, source: str, forwarded: str | None) -> int:
    connection = http.client.HTTPConnection(*server.address, source_address=(source, 0), timeout=20)
    try:
        connection.request("GET", path, headers={"x-forwarded-for": forwarded} if forwarded else {})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_the_end_of_an_opening_ends_a_download_in_flight(houses, owner, guest, bucket, how):
    size = 64 * MIB
    owner.put_object(Bucket=bucket, Key="a/large", Body=bytes(size))
    one = opening(houses, bucket, until=6 if how == "expired" else 3600)
    body = guest.get_object(Bucket=bucket, Key="a/large")["Body"]
    read = len(body.read(64 * 1024))
    if how == "revoked":
        revoke(houses, one)
    ended_by = time.monotonic() + (12 if how == "expired" else 6)
    with pytest.raises(Exception):
        # Slowly, so that it would go on for longer than that.
        while piece := body.read(256 * 1024):
            read += len(piece)
            assert time.monotonic() < ended_by, "the transfer outlived its opening"
            time.sleep(0.1)
        assert read == size, "it ended early, and said nothing"
        pytest.fail("everything was sent")


def test_a_byte_budget_is_exact_under_many_readers(houses, owner, guest, bucket):
    size, budget = MIB, 10 * MIB
    owner.put_object(Bucket=bucket, Key="a/mib", Body=bytes(size))
    one = opening(houses, bucket, "--budget", str(budget))

    def reader(_) -> int:
        client, got = trio.client(houses, "guest"), 0
        for _ in range(2):
            try:
                for piece in client.get_object(Bucket=bucket, Key="a/mib")["Body"].iter_chunks(64 * 1024):
                    got += len(piece)
            except botocore.exceptions.ClientError as error:
                assert error_code(error) == "AccessDenied"
            except Exception:
                pass
        return got

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        sent = sum(pool.map(reader, range(16)))
    assert sent <= budget
    assert sent >= budget * 0.98, "a stream that is cut takes what stood in its buffers along"
    refused(lambda: guest.get_object(Bucket=bucket, Key="a/mib"), "AccessDenied", 403)
    # Listing needs no budget.
    assert guest.list_objects_v2(Bucket=bucket)["KeyCount"] == 3
    shown = json.loads(houses.valv("project", "opening", "show", "owner-study", one["id"], "--json").stdout)
    assert shown["drawn_bytes"] <= budget


def test_an_opening_for_writing_takes_data_in(houses, owner, guest, bucket):
    opening(houses, bucket, "--prefix", "in/", actions=("write",))
    guest.put_object(Bucket=bucket, Key="in/x", Body=b"theirs")
    assert owner.get_object(Bucket=bucket, Key="in/x")["Body"].read() == b"theirs"
    refused(lambda: guest.get_object(Bucket=bucket, Key="in/x"), "AccessDenied", 403)
    refused(lambda: guest.put_object(Bucket=bucket, Key="out/x", Body=b""), "AccessDenied", 403)
    refused(lambda: guest.delete_object(Bucket=bucket, Key="in/x"), "AccessDenied", 403)


def test_what_makes_no_sense_is_refused(houses, guest, bucket):
    guest.create_bucket(Bucket=f"g-{bucket}")
    for words, said in [
        (("--alias", f"g-{bucket}"), "alias"),
        (("--zone", "nowhere"), "zone"),
        (("--from", later(7200)), "end"),
        (("--until", later(-10)), "cannot be used multiple times"),
    ]:
        assert said in opening(houses, bucket, *words, check=False), words
    assert "no such" in opening(houses, bucket, to=("--to-user", "nobody-known"), check=False)
    assert "no such bucket" in opening(houses, "not-there", check=False)


@pytest.fixture(scope="module")
def people(houses):
    """A governed project with a controller, a steward and an auditor; an operator who has a token; and somebody else's project."""
    made = {name: Person(houses, name, operator=name == "olga") for name in ("ada", "stig", "aud", "olga", "rolf")}
    governed(houses, "cohort", made["ada"])
    for name, role in [("stig", "steward"), ("aud", "auditor")]:
        made["ada"].run("project", "member", "add", "cohort", name, "--role", role)
    governed(houses, "rivals", made["rolf"])
    s3 = key_in(houses, "cohort", "ada")
    s3.create_bucket(Bucket="cohort-scans")
    s3.put_object(Bucket="cohort-scans", Key="a/k", Body=b"inside")
    return made


def of_cohort(*words, to=("--to-project", "guest-study")) -> list[str]:
    """The words that open the governed project."""
    return ["project", "opening", "create", "cohort", "--bucket", "cohort-scans", *to, "--action", "read", "--action", "list",
            "--purpose", "a test", "--reference", "ethics 2", "--until", later(3600), *words]  # fmt: skip


def test_in_a_governed_project_only_a_controller_opens_and_revokes(houses, people, guest):
    refusals = [people[name].refused(*of_cohort("--alias", "cohort-stolen")) for name in ("stig", "aud", "olga", "rolf")]
    # The server's socket is an operator's.
    refusals.append(houses.valv(*of_cohort("--alias", "cohort-stolen"), check=False).stderr)
    assert all("role" in said or "no such project" in said for said in refusals), refusals
    assert people["ada"].json("project", "opening", "list", "cohort") == []
    assert "cohort-stolen" not in names(guest)

    one = people["ada"].json(*of_cohort("--alias", "cohort-shared"))
    assert one["state"] == "active" and len(one["deciders"]) == 1
    assert readable(guest, "cohort-shared", "a/k")
    ending = ["project", "opening", "revoke", "cohort", one["id"], "--reason", "I say so", "--yes"]
    for name in ("stig", "aud", "olga", "rolf"):
        people[name].refused(*ending)
    assert houses.valv(*ending, check=False).returncode != 0
    # An id of one project ends nothing by the name of another, whoever controls that.
    people["rolf"].refused("project", "opening", "revoke", "rivals", one["id"], "--reason", "I say so", "--yes")
    assert people["aud"].json("project", "opening", "show", "cohort", one["id"])["state"] == "active"
    assert readable(guest, "cohort-shared", "a/k")
    people["ada"].run(*ending)
    wait_until(lambda: not readable(guest, "cohort-shared", "a/k"), "the opening has ended", 6)


def test_nobody_of_another_project_finds_a_way_to_what_is_opened_to_others(houses, people):
    # Somebody who shares the namespace, so that true names lead somewhere, and somebody who doesn't.
    near = Person(houses, "nell")
    governed(houses, "neighbours", near, namespace="cohort")
    for project, controller in [("rivals", people["rolf"]), ("neighbours", near)]:
        depositor = f"dep-of-{project}"
        user(houses, "add", "--name", depositor, "--project", f"own-{depositor}")
        controller.run("project", "member", "add", project, depositor, "--role", "depositor")
    mate = Person(houses, "matt")
    governed(houses, "mates", mate, namespace="cohort")
    made = {
        alias: people["ada"].json(*of_cohort("--budget", "1MiB", "--alias", alias, to=to))
        for alias, to in [
            ("cohort-for-guests", ("--to-project", "guest-study")),
            ("cohort-of-a-user", ("--to-user", "third")),
            # A name in the very namespace in which one of the attackers looks names up.
            ("cohort-for-mates", ("--to-project", "mates")),
        ]
    }
    for project, controller in [("rivals", people["rolf"]), ("neighbours", near)]:
        loot = f"loot-of-{project}"
        strongest = key_in(houses, project, controller.name)
        strongest.create_bucket(Bucket=loot)
        for s3 in (strongest, key_in(houses, project, f"dep-of-{project}")):
            for bucket in ("cohort-scans", *made):
                assert bucket not in names(s3)
                attack(s3, bucket, loot)
        assert strongest.list_objects_v2(Bucket=loot)["KeyCount"] == 0
    for one in made.values():
        assert people["ada"].json("project", "opening", "show", "cohort", one["id"])["drawn_bytes"] == 0
    # For whom it was made, it opens.
    assert readable(key_in(houses, "mates", "matt"), "cohort-for-mates", "a/k")


def attack(s3, bucket: str, loot: str):
    """Every way in to `a/k` of a bucket, and none may work."""
    source = {"Bucket": bucket, "Key": "a/k"}
    upload = s3.create_multipart_upload(Bucket=loot, Key="part")["UploadId"]
    here = {"Bucket": bucket, "Key": "a/k"}
    for call in (
        lambda: s3.get_object(**here),
        lambda: s3.get_object(**here, Range="bytes=0-0"),
        lambda: s3.get_object_attributes(**here, ObjectAttributes=["ObjectSize"]),
        lambda: s3.get_object_tagging(**here),
        lambda: s3.get_object_acl(**here),
        lambda: s3.put_object(Bucket=bucket, Key="a/new", Body=b""),
        lambda: s3.put_object_acl(**here, ACL="public-read"),
        lambda: s3.delete_object(**here),
        lambda: s3.create_multipart_upload(Bucket=bucket, Key="a/new"),
        lambda: s3.list_objects(Bucket=bucket),
        lambda: s3.list_objects_v2(Bucket=bucket, Prefix="a/"),
        lambda: s3.list_object_versions(Bucket=bucket),
        lambda: s3.list_multipart_uploads(Bucket=bucket),
        lambda: s3.get_bucket_policy(Bucket=bucket),
        lambda: s3.put_bucket_policy(Bucket=bucket, Policy=trio.policy(trio.statement(bucket))),
        lambda: s3.get_bucket_acl(Bucket=bucket),
        lambda: s3.delete_bucket(Bucket=bucket),
        lambda: s3.copy_object(Bucket=loot, Key="copy", CopySource=source),
        lambda: s3.copy_object(Bucket=bucket, Key="a/copy", CopySource=source),
        lambda: s3.upload_part_copy(Bucket=loot, Key="part", UploadId=upload, PartNumber=1, CopySource=source),
    ):
        error = pytest.raises(botocore.exceptions.ClientError, call)
        assert error_code(error.value) in ("AccessDenied", "NoSuchBucket"), (bucket, error.value)
    for call in (lambda: s3.head_object(**here), lambda: s3.head_bucket(Bucket=bucket)):
        error = pytest.raises(botocore.exceptions.ClientError, call)
        assert error_code(error.value) in ("403", "404"), (bucket, error.value)
    for operation, params in [("get_object", here), ("list_objects_v2", {"Bucket": bucket}), ("put_object", here)]:
        url = s3.generate_presigned_url(operation, Params=params)
        address, _, path = url.split("//", 1)[1].partition("/")
        connection = http.client.HTTPConnection(address, timeout=20)
        connection.request("PUT" if operation == "put_object" else "GET", f"/{path}")
        answer = connection.getresponse()
        assert answer.status in (403, 404) and b"inside" not in answer.read(), (bucket, operation)
        connection.close()


class Upload:
    """A PUT by presigned URL whose body goes out slowly."""

    def __init__(self, server, url: str, size: int):
        self.left, self.is_cut = size, False
        self.connection = http.client.HTTPConnection(*server.address, timeout=20)
        self.connection.putrequest("PUT", url.split(server.endpoint, 1)[1])
        self.connection.putheader("Content-Length", str(size))
        self.connection.endheaders()

    def send(self, size: int):
        size = min(size, self.left)
        try:
            self.connection.send(bytes(size))
        except OSError:
            self.is_cut = True
        self.left -= size

    def status(self) -> int | None:
        """The answer's, once all is sent; None if the connection was cut."""
        self.send(self.left)
        try:
            return self.connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            self.connection.close()


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_the_end_of_an_opening_ends_uploads_in_flight(houses, owner, guest, bucket, how):
    one = opening(houses, bucket, "--prefix", "in/", actions=("write",), until=6 if how == "expired" else 3600)
    whole = {"Bucket": bucket, "Key": "in/parts"}
    upload = {**whole, "UploadId": guest.create_multipart_upload(**whole)["UploadId"]}
    etag = guest.upload_part(**upload, PartNumber=1, Body=bytes(5 * MIB))["ETag"]
    # A part and an object, both half sent when the opening ends.
    urls = [
        guest.generate_presigned_url("upload_part", Params={**upload, "PartNumber": 2}),
        guest.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "in/object"}),
    ]
    running = [Upload(houses, url, 8 * MIB) for url in urls]
    for each in running:
        each.send(MIB)
    if how == "revoked":
        revoke(houses, one)

    def is_over() -> bool:
        for each in running:
            each.send(16 * 1024)
        try:
            guest.put_object(Bucket=bucket, Key="in/probe", Body=b"")
        except botocore.exceptions.ClientError as error:
            return error_code(error) in ("AccessDenied", "NoSuchBucket")
        return False

    wait_until(is_over, "the opening has ended", 15)
    # For running transfers, too, within the five seconds that the documentation promises.
    end = time.monotonic() + 5
    while time.monotonic() < end and not all(each.is_cut for each in running):
        for each in running:
            each.send(16 * 1024)
        time.sleep(0.1)
    assert all(each.is_cut or each.left for each in running)
    for each in running:
        status = each.status()
        assert status is None or status in (403, 404), status
    for call in (
        lambda: guest.upload_part(**upload, PartNumber=3, Body=b"late"),
        lambda: guest.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}),
        lambda: guest.list_parts(**upload),
        lambda: guest.abort_multipart_upload(**upload),
        lambda: guest.create_multipart_upload(**whole),
    ):
        error = pytest.raises(botocore.exceptions.ClientError, call)
        assert error_code(error.value) in ("AccessDenied", "NoSuchBucket"), error.value
    # What had arrived is the owner's to see and to abort; nothing of the rest is there.
    assert [part["PartNumber"] for part in owner.list_parts(**upload)["Parts"]] == [1]
    owner.abort_multipart_upload(**upload)
    keys = [entry["Key"] for entry in owner.list_objects_v2(Bucket=bucket, Prefix="in/").get("Contents", [])]
    assert set(keys) <= {"in/probe"}
