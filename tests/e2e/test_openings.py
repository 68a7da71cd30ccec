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

