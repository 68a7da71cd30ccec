"""Users, their access keys and projects, and the namespaces in which names are looked up."""

import http.client
import json
import re
import socket
import time
import urllib.parse

import boto3
import botocore.config
import pytest
from botocore.exceptions import ClientError

import harness
from harness import ACCESS_KEY, MIB, REGION, SECRET_KEY, error_code, error_status, random_bytes, wait_until

SECRET = "a-secret-of-some-length"


def client(server, access_key: str, secret: str = SECRET, region: str = REGION, **options):
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret,
        region_name=region,
        config=botocore.config.Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            s3={"addressing_style": "path"},
            signature_version="s3v4",
            **options,
        ),
    )


def user(server, *words, secret: str | None = SECRET, **options):
    """`valv user ...`, which finds a secret in its environment and never on its command line."""
    env = {} if secret is None else {"VALV_SECRET_ACCESS_KEY": secret}
    return server.valv("user", *words, env=env, **options)


def refusal(call, **arguments) -> tuple[str, int]:
    """S3 code and status of a call that has to be refused."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return error_code(caught.value), error_status(caught.value)


def wait_refused(s3):
    """Waits until an access key is refused: for a gateway's lease at most, which is 3 s."""
    wait_until(lambda: refused_as(s3) == "InvalidAccessKeyId", "the access key to be refused")


def refused_as(s3) -> str | None:
    try:
        s3.list_buckets()
    except ClientError as error:
        return error_code(error)
    return None


# -- namespaces --------------------------------------------------------------------------------------------------------


def unsigned(server, method: str, bucket: str, host: str | None, headers: dict | None = None) -> tuple[int, bytes]:
    """Status and body of a request for `key` in `bucket` that nobody signed."""
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    headers = {**(headers or {}), **({} if host is None else {"Host": host})}
    connection.request(method, f"/{bucket}/key", headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def preflight(server, bucket: str, host: str | None = None) -> int:
    """The status of a browser's question about `bucket`."""
    headers = {"Origin": "https://viewer.example.org", "Access-Control-Request-Method": "GET"}
    return unsigned(server, "OPTIONS", bucket, host, headers)[0]


CORS = {"CORSRules": [{"AllowedOrigins": ["https://viewer.example.org"], "AllowedMethods": ["GET"]}]}

HOSTS = """
[gateway]
anonymous_namespace = "elsewhere"
[[gateway.hosts]]
name = "s3.example.org"
namespace = "default"
"""


def test_an_unsigned_request_finds_buckets_in_the_namespace_of_its_host(make_server):
    server = make_server(config=HOSTS)
    s3 = client(server, ACCESS_KEY, SECRET_KEY)
    s3.create_bucket(Bucket="scans")
    s3.put_bucket_cors(Bucket="scans", CORSConfiguration=CORS)
    assert preflight(server, "scans", host="s3.example.org") == 200
    assert preflight(server, "scans", host="S3.Example.ORG:9000") == 200
    assert preflight(server, "other", host="s3.example.org") == 403

    # The other namespace does not exist yet, then it does, with a bucket of the same name that has no rules.
    assert preflight(server, "scans") == 403
    user(server, "add", "--name", "b", "--project", "b", "--namespace", "elsewhere", "--access-key-id", "KEY-OF-B")
    s3_b = client(server, "KEY-OF-B")
    s3_b.create_bucket(Bucket="scans")
    assert preflight(server, "scans") == 403
    s3_b.put_bucket_cors(Bucket="scans", CORSConfiguration=CORS)
    assert preflight(server, "scans") == 200

    # The same for a download that a policy allows to everybody, where policies decide.
    server.let_policies_decide("default")
    server.let_policies_decide("b")
    anybody = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::scans/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [anybody]})
    for owner, body in [(s3, b"of the default namespace"), (s3_b, b"of the other one")]:
        owner.put_object(Bucket="scans", Key="key", Body=body)
        owner.delete_public_access_block(Bucket="scans")
        owner.put_bucket_policy(Bucket="scans", Policy=policy)
    assert unsigned(server, "GET", "scans", "s3.example.org") == (200, b"of the default namespace")
    assert unsigned(server, "GET", "scans", None) == (200, b"of the other one")


def test_without_a_file_unsigned_requests_find_buckets_of_the_default_namespace(shared, s3, bucket):
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration=CORS)
    assert preflight(shared, bucket) == 200


# -- three users in a configuration file -------------------------------------------------------------------------------


def example_configuration() -> str:
    """The file that README.md shows for an outside test suite."""
    lines = (harness.REPO / "README.md").read_text().split("    # three-users.toml", 1)[1].splitlines()[1:]
    block = []
    for line in lines:
        if line and not line.startswith("    "):
            break
        block.append(line.removeprefix("    "))
    return "\n".join(block)


@pytest.fixture(scope="module")
def trio(module_folder):
    """A server over README's file, and the users that it names."""
    server = harness.Server(module_folder / "trio", config=example_configuration(), name="trio")
    server.start()
    text = server.config
    users = {}
    for section in text.split("[[users]]")[1:]:
        values = dict(re.findall(r'^(\w+) = "(.*)"$', section, re.M))
        values["s3"] = client(server, values["access_key_id"], values["secret_access_key"])
        users[values["name"]] = values
    yield server, users
    server.assert_clean_log()
    server.kill()


def test_the_readme_gives_an_outside_suite_a_main_an_alternative_and_a_third_user(trio):
    _, users = trio
    assert set(users) == {"main", "alt", "third"}
    for one in users.values():
        answer = one["s3"].list_buckets()
        assert answer["Owner"]["ID"] == one["canonical_id"]
        assert answer["Owner"]["DisplayName"] == one["display_name"]


def test_users_of_one_namespace_can_name_each_others_buckets_and_get_403(trio):
    _, users = trio
    main, alt = users["main"]["s3"], users["alt"]["s3"]
    main.create_bucket(Bucket="of-main")
    main.put_object(Bucket="of-main", Key="k", Body=b"x")
    assert [bucket["Name"] for bucket in alt.list_buckets()["Buckets"]] == []
    assert refusal(alt.create_bucket, Bucket="of-main") == ("BucketAlreadyExists", 409)
    assert refusal(alt.head_bucket, Bucket="of-main") == ("403", 403)
    assert refusal(alt.list_objects_v2, Bucket="of-main") == ("AccessDenied", 403)
    assert refusal(alt.get_object, Bucket="of-main", Key="k") == ("AccessDenied", 403)
    assert refusal(alt.get_object, Bucket="of-main", Key="missing") == ("AccessDenied", 403)
    assert refusal(alt.put_object, Bucket="of-main", Key="k", Body=b"y") == ("AccessDenied", 403)
    assert refusal(alt.delete_object, Bucket="of-main", Key="k") == ("AccessDenied", 403)
    assert refusal(alt.delete_bucket, Bucket="of-main") == ("AccessDenied", 403)
    source = {"Bucket": "of-main", "Key": "k"}
    alt.create_bucket(Bucket="of-alt")
    assert refusal(alt.copy_object, Bucket="of-alt", Key="k", CopySource=source) == ("AccessDenied", 403)
    assert refusal(alt.head_bucket, Bucket="of-nobody") == ("404", 404)
    assert main.get_object(Bucket="of-main", Key="k")["Body"].read() == b"x"


def blobs(server, bucket: str, key: str) -> set[str]:
    """Ids of the blobs that hold an object's current version, by the server's own export."""
    out = server.folder / "export.jsonl"
    server.valv("metadata", "export", "--out", out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    out.unlink()
    found = [
        line for line in lines
        if line["type"] == "version" and line["bucket"]["name"] == bucket and line["key"]["utf8"] == key
    ]  # fmt: skip
    assert len(found) == 1, found
    return {blob["blob"] for blob in found[0]["blobs"]}


def test_a_copy_across_projects_needs_both_rights_and_is_sealed_anew(trio):
    server, users = trio
    main, alt = users["main"]["s3"], users["alt"]["s3"]
    source, target = "copy-source", "copy-target"
    main.create_bucket(Bucket=source)
    alt.create_bucket(Bucket=target)
    bodies = {"inline": random_bytes(1000), "shards": random_bytes(9 * MIB, seed=1)}
    for key, body in bodies.items():
        main.put_object(Bucket=source, Key=key, Body=body, ContentType="text/x-study", Metadata={"of": "main"})
    copy = {"Bucket": target, "Key": "inline", "CopySource": f"{source}/inline"}
    assert refusal(alt.copy_object, **copy) == ("AccessDenied", 403)
    statement = {
        "Effect": "Allow",
        "Principal": {"CanonicalUser": users["alt"]["canonical_id"]},
        "Action": ["s3:GetObject", "s3:GetObjectTagging"],
        "Resource": f"arn:aws:s3:::{source}/*",
    }
    main.put_bucket_policy(Bucket=source, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    wait_until(lambda: alt.get_object(Bucket=source, Key="inline"), "the policy to be seen")
    # Reading the source gives no right to write into its bucket, nor into a third one's.
    assert refusal(alt.copy_object, Bucket=source, Key="k", CopySource=f"{source}/inline") == ("AccessDenied", 403)

    for key, body in bodies.items():
        answer = alt.copy_object(Bucket=target, Key=key, CopySource=f"{source}/{key}")
        assert answer["CopyObjectResult"]["ETag"] == f'"{harness.md5_hex(body)}"'
        main.copy_object(Bucket=source, Key=f"{key}-again", CopySource=f"{source}/{key}")
    upload = alt.create_multipart_upload(Bucket=target, Key="parts")["UploadId"]
    part = alt.upload_part_copy(
        Bucket=target, Key="parts", UploadId=upload, PartNumber=1, CopySource=f"{source}/shards",
        CopySourceRange="bytes=1000-6291455",
    )  # fmt: skip
    parts = [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]
    alt.complete_multipart_upload(Bucket=target, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})

    for key in bodies:
        assert blobs(server, source, key) == blobs(server, source, f"{key}-again"), "shared inside a project"
        assert not blobs(server, source, key) & blobs(server, target, key), "sealed anew across projects"
    # The copies are alt's own, and outlive the source and the right to it.
    main.delete_bucket_policy(Bucket=source)
    harness.empty_and_delete(main, source)
    for key, body in bodies.items():
        got = alt.get_object(Bucket=target, Key=key)
        assert got["Body"].read() == body
        assert (got["ContentType"], got["Metadata"]) == ("text/x-study", {"of": "main"})
        assert alt.list_objects(Bucket=target, Prefix=key)["Contents"][0]["Owner"]["ID"] == users["alt"]["canonical_id"]
    assert alt.get_object(Bucket=target, Key="parts")["Body"].read() == bodies["shards"][1000:6291456]


def test_a_session_token_is_refused_in_a_header_and_in_a_url(shared, s3, bucket):
    with_token = boto3.client(
        "s3", endpoint_url=shared.endpoint, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        aws_session_token="a-token", region_name=REGION,
        config=botocore.config.Config(
            retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, signature_version="s3v4"
        ),
    )  # fmt: skip
    assert refusal(with_token.list_buckets) == ("InvalidToken", 400)
    assert refusal(with_token.put_object, Bucket=bucket, Key="k", Body=b"x") == ("InvalidToken", 400)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    url = with_token.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=600)
    assert "X-Amz-Security-Token=a-token" in url
    assert fetch(url) == 400
    # A URL that was signed without one gets none later.
    plain = client(shared, ACCESS_KEY, SECRET_KEY)
    url = plain.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=600)
    assert fetch(url) == 200
    assert fetch(url + "&X-Amz-Security-Token=a-token") == 400


def test_listings_name_the_owner_by_canonical_id_and_display_name(trio):
    _, users = trio
    main = users["main"]
    s3, bucket = main["s3"], "owners"
    owner = {"ID": main["canonical_id"], "DisplayName": main["display_name"]}
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert s3.list_objects(Bucket=bucket)["Contents"][0]["Owner"] == owner
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]["Owner"] == owner
    assert s3.list_object_versions(Bucket=bucket)["Versions"][0]["Owner"] == owner
    upload = s3.create_multipart_upload(Bucket=bucket, Key="u")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="u", UploadId=upload, PartNumber=1, Body=b"x")
    listed = s3.list_multipart_uploads(Bucket=bucket)["Uploads"][0]
    parts = s3.list_parts(Bucket=bucket, Key="u", UploadId=upload)
    for answer in (listed, parts):
        assert (answer["Owner"], answer["Initiator"]) == (owner, owner)
    acl = s3.get_bucket_acl(Bucket=bucket)
    assert acl["Owner"]["ID"] == main["canonical_id"]


OTHER_REGION = """
[gateway]
region = "eu-north-1"
[[users]]
name = "two"
display_name = "Two"
project = "default"
[[users.keys]]
access_key_id = "KEY-OF-TWO"
secret_access_key = "a-secret-of-some-length"
[[users.keys]]
access_key_id = "KEY-OF-TWO-B"
secret_access_key = "a-secret-of-some-length"
project = "second"
"""


def test_a_configured_user_may_have_several_keys_and_the_file_may_change_what_is_said_of_them(make_server):
    server = make_server(config=OTHER_REGION)
    s3 = client(server, "KEY-OF-TWO", region="eu-north-1")
    second = client(server, "KEY-OF-TWO-B", region="eu-north-1")
    where = {"LocationConstraint": "eu-north-1"}
    s3.create_bucket(Bucket="taken", CreateBucketConfiguration=where)
    again = {"Bucket": "taken", "CreateBucketConfiguration": where}
    assert refusal(s3.create_bucket, **again) == ("BucketAlreadyOwnedByYou", 409)
    assert refusal(second.create_bucket, **again) == ("BucketAlreadyExists", 409)
    assert refusal(second.head_bucket, Bucket="taken") == ("403", 403)
    assert second.list_buckets()["Buckets"] == []
    assert second.list_buckets()["Owner"] == s3.list_buckets()["Owner"]

    # What an operator disabled stays disabled, and a display name that the file changes is changed.
    user(server, "key", "disable", "KEY-OF-TWO-B")
    assert server.terminate() == 0
    server.config = server.config.replace('"Two"', '"Zwei"')
    server.start()
    s3 = client(server, "KEY-OF-TWO", region="eu-north-1")
    assert s3.list_buckets()["Owner"]["DisplayName"] == "Zwei"
    assert refused_as(client(server, "KEY-OF-TWO-B", region="eu-north-1")) == "InvalidAccessKeyId"
    deleted = user(server, "key", "delete", "KEY-OF-TWO-B", "--yes")
    assert "the next start makes it again" in deleted.stderr


@pytest.mark.parametrize(
    "users, said",
    [
        (('access_key_id = "KEY-A"', 'secret_access_key = "short"'), "valv.toml:5: users.secret_access_key: a secret"),
        (('access_key_id = "no key"', 'secret_access_key = "long-enough"'), "valv.toml:4: users.access_key_id: an access"),
        ((f'access_key_id = "{ACCESS_KEY}"', 'secret_access_key = "long-enough"'), "this access key id is taken"),
    ],
)
def test_access_keys_of_the_file_that_can_not_be_are_refused_at_the_start(make_server, users, said):
    config = "\n".join(['[[users]]', 'name = "a"', 'project = "default"', *users])
    server = make_server(config=config, start=False)
    with pytest.raises(harness.ServerEnded):
        server.start()
    assert said in server.log()


@pytest.mark.parametrize(
    "secret, said",
    [("short", "must have 8 to 128 bytes"), ("x" * 129, "must have 8 to 128 bytes"), ("newline-at-end\n", "control characters")],
)
def test_the_environment_and_valv_user_take_the_same_secrets_as_the_file(make_server, shared, secret, said):
    server = make_server(env={"VALV_SECRET_ACCESS_KEY": secret}, start=False)
    with pytest.raises(harness.ServerEnded):
        server.start()
    assert said in server.log()
    for words in (["add", "--name", "s", "--project", "s"], ["key", "add", "admin"]):
        refused = user(shared, *words, "--access-key-id", "KEY-S", secret=secret, check=False)
        assert refused.returncode != 0 and said in refused.stderr


# -- access keys -------------------------------------------------------------------------------------------------------


def test_keys_are_rotated_with_overlap_and_a_disabled_one_is_refused_with_every_kind_of_signature(shared):
    user(shared, "add", "--name", "rota", "--project", "rota", "--access-key-id", "KEY-ROTA-OLD")
    old = client(shared, "KEY-ROTA-OLD")
    old.create_bucket(Bucket="rota")
    old.put_object(Bucket="rota", Key="k", Body=b"x")
    made = json.loads(user(shared, "key", "add", "rota", "--json", secret=None).stdout)
    new = client(shared, made["access_key_id"], made["secret_access_key"])
    for s3 in (old, new):
        assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["rota"]

    url = old.generate_presigned_url("get_object", Params={"Bucket": "rota", "Key": "k"}, ExpiresIn=600)
    assert fetch(url) == 200
    user(shared, "key", "disable", "KEY-ROTA-OLD")
    wait_refused(old)
    assert fetch(url) == 403
    assert refusal(old.put_object, Bucket="rota", Key="k", Body=b"y") == ("InvalidAccessKeyId", 403)
    assert new.get_object(Bucket="rota", Key="k")["Body"].read() == b"x"
    user(shared, "key", "enable", "KEY-ROTA-OLD")
    wait_until(lambda: refused_as(old) is None, "the enabled key to be taken")
    assert fetch(url) == 200
    user(shared, "key", "delete", "KEY-ROTA-OLD", "--yes")
    wait_refused(old)
    keys = json.loads(user(shared, "key", "list", "rota", "--json").stdout)
    assert [key["access_key_id"] for key in keys] == [made["access_key_id"]]


def fetch(url: str) -> int:
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    connection.request("GET", f"{parts.path}?{parts.query}")
    status = connection.getresponse().status
    connection.close()
    return status


def slow_socket(server) -> socket.socket:
    """A connection that buffers little, so that a slow end is felt at the other one."""
    sock = socket.socket()
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 64 * 1024)
    sock.settimeout(harness.PATIENCE_S)
    sock.connect(server.address)
    return sock


def path_of(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.path}?{parts.query}"


def test_transfers_in_flight_end_when_their_key_is_disabled(shared):
    size = 48 * MIB
    admin = shared.s3()
    user(shared, "add", "--name", "slow", "--project", "default", "--access-key-id", "KEY-SLOW")
    s3 = client(shared, "KEY-SLOW")
    s3.create_bucket(Bucket="slow")
    s3.put_object(Bucket="slow", Key="big", Body=random_bytes(size))
    get = s3.generate_presigned_url("get_object", Params={"Bucket": "slow", "Key": "big"}, ExpiresIn=600)
    put = s3.generate_presigned_url("put_object", Params={"Bucket": "slow", "Key": "new"}, ExpiresIn=600)
    host = "{}:{}".format(*shared.address)
    download, upload, silent = slow_socket(shared), slow_socket(shared), slow_socket(shared)
    download.sendall(f"GET {path_of(get)} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert download.recv(1024).startswith(b"HTTP/1.1 200 ")
    upload.sendall(f"PUT {path_of(put)} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n".encode())
    upload.sendall(bytes(MIB))
    silent.sendall(f"PUT {path_of(put)} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\nx".encode())

    user(shared, "key", "disable", "KEY-SLOW")
    # Two go on at a pace at which the whole would take minutes, until the server ends them.
    received, sent, answer = 0, MIB, None
    deadline = time.monotonic() + harness.PATIENCE_S
    while download is not None or answer is None:
        assert time.monotonic() < deadline, f"not ended after {received} bytes received, {sent} sent"
        if download is not None:
            try:
                piece = download.recv(64 * 1024)
            except ConnectionError:
                piece = b""
            received += len(piece)
            if not piece:
                download = None
        if answer is None:
            try:
                upload.sendall(bytes(16 * 1024))
                sent += 16 * 1024
                upload.setblocking(False)
                answer = upload.recv(4096)
            except BlockingIOError:
                pass
            except ConnectionError:
                answer = b""
            finally:
                upload.settimeout(harness.PATIENCE_S)
        time.sleep(0.02)
    assert received < size and sent < size
    assert answer == b"" or b"403 Forbidden" in answer
    # Not the idle timeout, which is 400.
    assert b"403 Forbidden" in silent.recv(4096)
    assert refusal(admin.head_object, Bucket="slow", Key="new") == ("404", 404)
    assert admin.head_object(Bucket="slow", Key="big")["ContentLength"] == size


def test_a_key_acts_in_the_project_that_it_was_made_for(shared):
    user(shared, "add", "--name", "two", "--project", "p-one", "--access-key-id", "KEY-P-ONE")
    user(shared, "key", "add", "two", "--project", "p-two", "--access-key-id", "KEY-P-TWO")
    one, two = client(shared, "KEY-P-ONE"), client(shared, "KEY-P-TWO")
    one.create_bucket(Bucket="p-one")
    assert two.list_buckets()["Buckets"] == []
    assert refusal(two.head_bucket, Bucket="p-one") == ("403", 403)
    shown = json.loads(user(shared, "show", "two", "--json").stdout)
    assert shown["project"] == "p-one"
    assert {key["access_key_id"]: key["project"] for key in shown["keys"]} == {"KEY-P-ONE": "p-one", "KEY-P-TWO": "p-two"}
    user(shared, "change", "two", "--project", "p-two", "--display-name", "Two of two")
    made = json.loads(user(shared, "key", "add", "two", "--json", "--access-key-id", "KEY-P-3").stdout)
    assert made == {"access_key_id": "KEY-P-3", "project": "p-two"}, "a given secret is not repeated"
    assert client(shared, "KEY-P-3").list_buckets()["Owner"]["DisplayName"] == "Two of two"


def test_users_are_listed_shown_and_deleted(shared):
    user(shared, "add", "--name", "ada", "--project", "ada", "--email", "ada@example.org", "--access-key-id", "KEY-ADA")
    listed = json.loads(user(shared, "list", "--json").stdout)
    assert [one["name"] for one in listed] == sorted(one["name"] for one in listed)
    (ada,) = [one for one in listed if one["name"] == "ada"]
    assert (ada["email"], ada["project"], ada["namespace"], len(ada["canonical_id"])) == ("ada@example.org", "ada", "default", 64)
    table = user(shared, "list").stdout
    assert re.search(r"^ada +ada +ada@example\.org +ada +default +\d{4}-\d\d-\d\d$", table, re.M), table
    shown = user(shared, "show", "ada").stdout
    assert re.search(r"^KEY-ADA +ada +enabled +\d{4}", shown, re.M), shown
    for output in (table, shown, user(shared, "key", "list", "ada").stdout):
        assert SECRET not in output

    s3 = client(shared, "KEY-ADA")
    s3.create_bucket(Bucket="of-ada")
    for words, said in [
        (["delete", "ada"], "say --yes"),
        (["delete", "ada", "--yes"], "owns buckets"),
        (["key", "delete", "KEY-ADA"], "say --yes"),
        (["key", "delete", "KEY-NOBODY", "--yes"], "no such access key"),
        (["show", "nobody"], "no such user"),
        (["add", "--name", "eve", "--project", "eve", "--access-key-id", "KEY-ADA"], "this access key id is taken"),
        (["add", "--name", "eve", "--project", "eve", "--email", "ADA@example.org", "--access-key-id", "KEY-EVE"], "e-mail address is another"),
        (["add", "--name", "eve", "--project", "ada", "--namespace", "own", "--access-key-id", "KEY-EVE"], "another namespace"),
        (["change", "ada", "--project", "nowhere"], "no such project"),
    ]:  # fmt: skip
        refused = user(shared, *words, check=False)
        assert refused.returncode != 0 and said in refused.stderr, (words, refused.stderr)
    s3.delete_bucket(Bucket="of-ada")
    user(shared, "delete", "ada", "--yes")
    wait_refused(s3)
    assert "ada" not in [one["name"] for one in json.loads(user(shared, "list", "--json").stdout)]
