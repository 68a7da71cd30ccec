"""Server-side encryption from AWS's documentation: customers' keys (SSE-C), key names (SSE-KMS), bucket defaults."""

import base64
import hashlib
import json
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request

import boto3
import pytest
from botocore.exceptions import ClientError

import harness
import rawhttp
import test_post
from harness import MIB, md5_hex, random_bytes, refused
from test_secrecy import holders

KEY = hashlib.sha256(b"a customer's key").digest()
OTHER = hashlib.sha256(b"another key").digest()
# Around every border: empty, inline, replicated, one chunk, several.
SIZES = [0, 1, 16_384, 16_385, 131_072, 131_073, 300_000, 8 * MIB + 1]
PARTS = [random_bytes(5 * MIB, 11), random_bytes(6 * MIB + 7, 12), random_bytes(10, 13)]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sse_c(key: bytes = KEY) -> dict:
    """As boto3 wants it; it encodes the key and adds its MD5."""
    return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}


def source(key: bytes = KEY) -> dict:
    return {"CopySourceSSECustomerAlgorithm": "AES256", "CopySourceSSECustomerKey": key}


def encoded(key: bytes = KEY) -> dict:
    """For the calls whose key boto3 does not encode."""
    return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": b64(key), "SSECustomerKeyMD5": b64(hashlib.md5(key).digest())}


def told(answer: dict) -> dict:
    """What an answer says of encryption."""
    names = ("ServerSideEncryption", "SSEKMSKeyId", "SSEKMSEncryptionContext", "BucketKeyEnabled", "SSECustomerAlgorithm", "SSECustomerKeyMD5")
    return {name: answer[name] for name in names if name in answer}


CUSTOMER = {"SSECustomerAlgorithm": "AES256", "SSECustomerKeyMD5": b64(hashlib.md5(KEY).digest())}
MANAGED = {"ServerSideEncryption": "AES256"}


NOT_APPLICABLE = "The encryption parameters are not applicable to this object."
NEEDS_KEY = "The object was stored using a form of Server Side Encryption."
WRONG_KEY = "must provide the correct secret key."


@pytest.mark.parametrize("size", SIZES)
def test_a_body_of_any_size_comes_back_with_its_key_alone(s3, bucket, size):
    body = random_bytes(size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body, Metadata={"a": "b"}, **sse_c())
    assert told(put) == CUSTOMER
    assert put["ETag"] != f'"{md5_hex(body)}"', "an MD5 would tell who may list but has no key what the bytes are"
    got = s3.get_object(Bucket=bucket, Key="k", **sse_c())
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED", **sse_c())
    assert got["Body"].read() == body
    for answer in (got, head):
        assert told(answer) == CUSTOMER
        assert (answer["ETag"], answer["ContentLength"], answer["Metadata"]) == (put["ETag"], size, {"a": "b"})
    assert head["ChecksumCRC32"] == put["ChecksumCRC32"], "checksums are of the plaintext"
    if size > 100:
        part = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes=50-{size - 2}", **sse_c())
        assert part["Body"].read() == body[50 : size - 1]
    attributes = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectSize", "ETag"], **encoded())
    assert attributes["ObjectSize"] == size

    # Twice, after the key has opened it: nothing is remembered.
    for _ in range(2):
        refused(lambda: s3.get_object(Bucket=bucket, Key="k"), "InvalidRequest", 400, NEEDS_KEY)
        refused(lambda: s3.get_object(Bucket=bucket, Key="k", Range="bytes=0-0"), "InvalidRequest", 400, NEEDS_KEY)
        refused(lambda: s3.get_object(Bucket=bucket, Key="k", **sse_c(OTHER)), "AccessDenied", 403, WRONG_KEY)
        refused(lambda: s3.head_object(Bucket=bucket, Key="k"), "400", 400)
        refused(lambda: s3.head_object(Bucket=bucket, Key="k", **sse_c(OTHER)), "403", 403)
        ask = {"Bucket": bucket, "Key": "k", "ObjectAttributes": ["ObjectSize"]}
        refused(lambda: s3.get_object_attributes(**ask), "InvalidRequest", 400, NEEDS_KEY)
        refused(lambda: s3.get_object_attributes(**ask, **encoded(OTHER)), "AccessDenied", 403, WRONG_KEY)
    # What is not the body needs no key.
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["Size"] == size
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "t", "Value": "v"}]})
    assert s3.get_object(Bucket=bucket, Key="k", **sse_c())["Body"].read() == body, "tagging keeps the encryption"
    s3.delete_object(Bucket=bucket, Key="k")


def test_a_key_for_an_object_that_has_none_is_refused(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"plain")
    refused(lambda: s3.get_object(Bucket=bucket, Key="k", **sse_c()), "InvalidRequest", 400, NOT_APPLICABLE)
    refused(lambda: s3.head_object(Bucket=bucket, Key="k", **sse_c()), "400", 400)
    s3.put_object(Bucket=bucket, Key="kms", Body=b"named", ServerSideEncryption="aws:kms")
    refused(lambda: s3.get_object(Bucket=bucket, Key="kms", **sse_c()), "InvalidRequest", 400, NOT_APPLICABLE)


def test_each_version_has_its_own_key(s3, bucket):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"first", **sse_c())["VersionId"]
    second = s3.put_object(Bucket=bucket, Key="k", Body=b"second", **sse_c(OTHER))["VersionId"]
    get = lambda version, key: s3.get_object(Bucket=bucket, Key="k", VersionId=version, **sse_c(key))["Body"].read()  # noqa: E731
    assert get(first, KEY) == b"first" and get(second, OTHER) == b"second"
    refused(lambda: get(first, OTHER), "AccessDenied", 403, WRONG_KEY)
    refused(lambda: get(second, KEY), "AccessDenied", 403, WRONG_KEY)


HEADERS = {
    "x-amz-server-side-encryption-customer-algorithm": "AES256",
    "x-amz-server-side-encryption-customer-key": b64(KEY),
    "x-amz-server-side-encryption-customer-key-MD5": b64(hashlib.md5(KEY).digest()),
}
ALGORITHM, KEY_NAME, KEY_MD5 = HEADERS
SHORT = b64(KEY[:16])
SHORT_MD5 = b64(hashlib.md5(KEY[:16]).digest())


@pytest.mark.parametrize(
    "change, code, on_get, message",
    [
        ({KEY_NAME: None, KEY_MD5: None}, "InvalidArgument", 400, b"an appropriate secret key"),
        ({ALGORITHM: None, KEY_MD5: None}, "InvalidArgument", 400, b"a valid encryption algorithm"),
        ({ALGORITHM: None, KEY_NAME: None}, "InvalidArgument", 400, b"a valid encryption algorithm"),
        ({ALGORITHM: None}, "InvalidArgument", 400, b"a valid encryption algorithm"),
        ({KEY_NAME: None}, "InvalidArgument", 400, b"an appropriate secret key"),
        ({KEY_MD5: None}, "InvalidArgument", 200, b"the client calculated MD5 of the secret key"),
        ({ALGORITHM: "AES128"}, "InvalidEncryptionAlgorithmError", 400, b"Supported value: AES256."),
        ({KEY_MD5: b64(hashlib.md5(OTHER).digest())}, "InvalidArgument", 400, b"did not match the hash that was provided"),
        ({KEY_MD5: "no base64!!!"}, "InvalidArgument", 400, b"did not match the hash that was provided"),
        ({KEY_NAME: "no base64!!!"}, "InvalidArgument", 400, b"The secret key was invalid"),
        ({KEY_NAME: SHORT, KEY_MD5: SHORT_MD5}, "InvalidArgument", 403, b"The secret key was invalid"),
        ({"x-amz-server-side-encryption": "AES256"}, "InvalidArgument", 400, b"is incompatible with the encryption method"),
    ],
)
def test_incomplete_and_contradictory_keys_are_refused_as_aws_does(shared, s3, bucket, change, code, on_get, message):
    s3.put_object(Bucket=bucket, Key="there", Body=b"x", **sse_c())
    headers = {name: value for name, value in {**HEADERS, **change}.items() if value is not None}
    put = rawhttp.request(shared, "PUT", f"/{bucket}/k", headers=headers, body=b"body")
    assert (put.status, put.code) == (400, code), put
    assert message in put.body and b64(KEY).encode() not in put.body and SHORT.encode() not in put.body
    got = rawhttp.request(shared, "GET", f"/{bucket}/there", headers=headers)
    assert got.status == on_get, got
    assert "KeyCount" in s3.list_objects_v2(Bucket=bucket) and s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


def test_a_parts_key_must_be_its_uploads(s3, bucket):
    create = s3.create_multipart_upload(Bucket=bucket, Key="k", Metadata={"a": "b"}, **sse_c())
    assert told(create) == CUSTOMER
    ask = {"Bucket": bucket, "Key": "k", "UploadId": create["UploadId"]}
    part = lambda number, body, **key: s3.upload_part(**ask, PartNumber=number, Body=body, **key)  # noqa: E731
    initiate = "The multipart upload initiate requested encryption."
    refused(lambda: part(1, b"x"), "InvalidRequest", 400, initiate)
    refused(lambda: part(1, b"x", **sse_c(OTHER)), "InvalidRequest", 400, "did not match the ones used originally.")
    done = []
    for number, body in enumerate(PARTS, 1):
        answer = part(number, body, **sse_c())
        assert told(answer) == CUSTOMER and answer["ETag"] != f'"{md5_hex(body)}"'
        done.append({"PartNumber": number, "ETag": answer["ETag"]})
    assert len(s3.list_parts(**ask)["Parts"]) == 3
    assert len(s3.list_parts(**ask, **encoded())["Parts"]) == 3
    refused(lambda: s3.list_parts(**ask, **encoded(OTHER)), "InvalidRequest", 400, "did not match")
    complete = lambda **key: s3.complete_multipart_upload(**ask, MultipartUpload={"Parts": done}, **key)  # noqa: E731
    refused(lambda: complete(**sse_c(OTHER)), "InvalidRequest", 400, "did not match")
    complete()
    whole = b"".join(PARTS)
    assert s3.get_object(Bucket=bucket, Key="k", **sse_c())["Body"].read() == whole
    for first, last in [(0, 10), (5 * MIB - 5, 5 * MIB + 5), (len(whole) - 15, len(whole) - 1)]:
        got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-{last}", **sse_c())
        assert got["Body"].read() == whole[first : last + 1] and told(got) == CUSTOMER
    assert s3.get_object(Bucket=bucket, Key="k", PartNumber=3, **sse_c())["Body"].read() == PARTS[2]
    refused(lambda: s3.get_object(Bucket=bucket, Key="k"), "InvalidRequest", 400, NEEDS_KEY)
    refused(lambda: s3.get_object(Bucket=bucket, Key="k", **sse_c(OTHER)), "AccessDenied", 403, WRONG_KEY)
    head = s3.head_object(Bucket=bucket, Key="k", **sse_c())
    assert head["ETag"].endswith('-3"') and head["Metadata"] == {"a": "b"}

    plain = s3.create_multipart_upload(Bucket=bucket, Key="p")["UploadId"]
    refused(
        lambda: s3.upload_part(Bucket=bucket, Key="p", UploadId=plain, PartNumber=1, Body=b"x", **sse_c()),
        "InvalidRequest", 400, initiate,
    )  # fmt: skip


def test_an_upload_with_a_checksum_needs_its_key_to_the_end(s3, bucket):
    create = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="SHA256", **sse_c())
    ask = {"Bucket": bucket, "Key": "k", "UploadId": create["UploadId"]}
    answer = s3.upload_part(**ask, PartNumber=1, Body=b"part", ChecksumAlgorithm="SHA256", **sse_c())
    parts = {"Parts": [{"PartNumber": 1, "ETag": answer["ETag"], "ChecksumSHA256": answer["ChecksumSHA256"]}]}
    refused(lambda: s3.list_parts(**ask), "InvalidArgument", 400)
    refused(lambda: s3.complete_multipart_upload(**ask, MultipartUpload=parts), "InvalidArgument", 400)
    assert s3.list_parts(**ask, **encoded())["Parts"][0]["ChecksumSHA256"] == answer["ChecksumSHA256"]
    s3.complete_multipart_upload(**ask, MultipartUpload=parts, **sse_c())
    assert s3.get_object(Bucket=bucket, Key="k", **sse_c())["Body"].read() == b"part"


@pytest.mark.parametrize("size", [0, 1_000, 400_000])
def test_copies_in_every_direction(s3, bucket, size):
    body = random_bytes(size)
    s3.put_object(Bucket=bucket, Key="plain", Body=body, Metadata={"m": "1"})
    copy = lambda target, of, **keys: s3.copy_object(Bucket=bucket, Key=target, CopySource={"Bucket": bucket, "Key": of}, **keys)  # noqa: E731
    get = lambda key, **keys: s3.get_object(Bucket=bucket, Key=key, **keys)  # noqa: E731

    assert told(copy("secret", "plain", **sse_c())) == CUSTOMER
    got = get("secret", **sse_c())
    assert got["Body"].read() == body and got["Metadata"] == {"m": "1"}
    assert get("plain")["Body"].read() == body

    refused(lambda: copy("x", "secret"), "InvalidRequest", 400, NEEDS_KEY)
    refused(lambda: copy("x", "secret", **source(OTHER)), "AccessDenied", 403, WRONG_KEY)
    refused(lambda: copy("x", "plain", **source()), "InvalidRequest", 400, NOT_APPLICABLE)
    refused(lambda: copy("x", "secret", **source(), SSECustomerAlgorithm="AES256"), "InvalidArgument", 400)

    copy("rotated", "secret", **source(), **sse_c(OTHER))
    assert get("rotated", **sse_c(OTHER))["Body"].read() == body
    refused(lambda: get("rotated", **sse_c()), "AccessDenied", 403, WRONG_KEY)
    copy("same", "secret", **source(), **sse_c())
    assert get("same", **sse_c())["Body"].read() == body

    back = copy("back", "secret", **source())
    assert told(back) == MANAGED and back["CopyObjectResult"]["ETag"] == f'"{md5_hex(body)}"'
    assert get("back")["Body"].read() == body

    # In place: a new key, then none.
    copy("secret", "secret", **source(), **sse_c(OTHER))
    assert get("secret", **sse_c(OTHER))["Body"].read() == body
    copy("secret", "secret", **source(OTHER))
    assert told(get("secret")) == MANAGED
    refused(lambda: copy("secret", "secret"), "InvalidRequest", 400, "without changing")


def test_parts_are_copied_between_keys(s3, bucket):
    body = random_bytes(6 * MIB, 5)
    s3.put_object(Bucket=bucket, Key="plain", Body=body)
    s3.put_object(Bucket=bucket, Key="secret", Body=body, **sse_c())
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", **sse_c(OTHER))["UploadId"]

    def copy(number, of, **options):
        answer = s3.upload_part_copy(
            Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, CopySource={"Bucket": bucket, "Key": of}, **options
        )
        return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

    refused(lambda: copy(1, "plain"), "InvalidRequest", 400, "initiate requested encryption")
    refused(lambda: copy(1, "secret", **sse_c(OTHER)), "InvalidRequest", 400, NEEDS_KEY)
    parts = [copy(1, "plain", **sse_c(OTHER)), copy(2, "secret", **source(), CopySourceRange="bytes=100-200", **sse_c(OTHER))]
    s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="k", **sse_c(OTHER))["Body"].read() == body + body[100:201]


def test_a_form_can_bring_a_key(shared, s3, bucket):
    fields = {name.lower(): value for name, value in HEADERS.items()}
    conditions = [["starts-with", f"${name}", ""] for name in fields]
    made = shared.s3(signature_version="s3v4").generate_presigned_post(bucket, "form", Conditions=conditions)
    answer = test_post.post(shared, bucket, test_post.form({**made["fields"], **fields}))
    assert answer.status == 204 and answer.headers[ALGORITHM] == "AES256", answer.data
    assert s3.get_object(Bucket=bucket, Key="form", **sse_c())["Body"].read() == test_post.FILE
    refused(lambda: s3.get_object(Bucket=bucket, Key="form"), "InvalidRequest", 400, NEEDS_KEY)


def test_presigned_urls_work_with_the_keys_headers(shared, bucket):
    s3 = shared.s3(signature_version="s3v4")

    def call(method, key, body=None):
        operation = {"PUT": "put_object", "GET": "get_object"}[method]
        url = s3.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": "k", **sse_c(key)})
        headers = {**HEADERS, KEY_NAME: b64(key), KEY_MD5: b64(hashlib.md5(key).digest())}
        request = urllib.request.Request(url, data=body, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    assert call("PUT", KEY, b"presigned")[0] == 200
    assert call("GET", KEY) == (200, b"presigned")
    assert call("GET", OTHER)[0] == 403
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k", **sse_c()})
    assert b64(KEY) not in url and urllib.parse.quote(b64(KEY), safe="") not in url
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(url)
    assert error.value.code == 403, "signed headers are missing"


def outside_address() -> str | None:
    """An address of this machine that is not a loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return None


@pytest.mark.parametrize("allowed", [False, True])
def test_keys_over_plain_http_are_taken_from_this_machine_or_where_the_operator_says_so(make_server, allowed):
    address = outside_address()
    if address is None:
        pytest.skip("this machine has loopback addresses only")
    server = make_server(config=f"[gateway]\nsse_c_without_tls = {str(allowed).lower()}\n")
    s3 = server.s3()
    s3.create_bucket(Bucket="bkt")
    s3.put_object(Bucket="bkt", Key="k", Body=b"near", **sse_c())
    plain = socket.create_connection
    far = lambda target, *rest, **options: plain(target, *rest, **{**options, "source_address": (address, 0)})  # noqa: E731
    socket.create_connection = far
    try:
        got = rawhttp.request(server, "GET", "/bkt/k", headers=HEADERS)
        put = rawhttp.request(server, "PUT", "/bkt/far", headers=HEADERS, body=b"far")
    finally:
        socket.create_connection = plain
    if allowed:
        assert (got.status, put.status) == (200, 200)
    else:
        for answer in (got, put):
            assert (answer.status, answer.code) == (400, "InvalidRequest") and b"must be made over a secure connection" in answer.body
        refused(lambda: s3.get_object(Bucket="bkt", Key="far"), "NoSuchKey", 404)


def test_clients_move_objects_of_any_size_under_their_own_key(shared, s3, bucket, folder):
    """boto3's transfers and aws: single puts, multipart uploads with their own checksums, parallel ranges, copies."""
    small, large = folder / "in" / "small", folder / "in" / "large"
    small.parent.mkdir()
    small.write_bytes(random_bytes(5_000, 1))
    large.write_bytes(random_bytes(20 * MIB + 5, 2))
    (folder / "key").write_bytes(KEY)
    env = shared.client_env(folder)

    s3.upload_file(str(large), bucket, "boto3/large", ExtraArgs=sse_c())
    s3.download_file(bucket, "boto3/large", str(folder / "back"), ExtraArgs=sse_c())
    assert (folder / "back").read_bytes() == large.read_bytes()
    refused(lambda: s3.download_file(bucket, "boto3/large", str(folder / "back")), "400", 400)

    keys = ["--sse-c", "AES256", "--sse-c-key", f"fileb://{folder}/key"]
    of_source = ["--sse-c-copy-source", "AES256", "--sse-c-copy-source-key", f"fileb://{folder}/key"]
    aws = lambda *words: harness.run("aws", "s3", *words, env=env)  # noqa: E731
    aws("cp", "--recursive", small.parent, f"s3://{bucket}/aws", *keys)
    aws("cp", f"s3://{bucket}/aws/large", f"s3://{bucket}/aws/copy", *keys, *of_source)
    aws("cp", "--recursive", f"s3://{bucket}/aws", folder / "aws", *keys)
    assert (folder / "aws" / "small").read_bytes() == small.read_bytes()
    assert (folder / "aws" / "large").read_bytes() == (folder / "aws" / "copy").read_bytes() == large.read_bytes()


def test_rclone_moves_objects_under_its_own_key_over_tls(make_server, folder):
    """It sends keys over TLS only, and knows that ETags are no MD5s then."""
    harness.run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem",
    )  # fmt: skip
    server = make_server(config=f'[gateway.tls]\ncertificate = "{folder}/cert.pem"\nkey = "{folder}/key.pem"\n')
    s3 = boto3.client(
        "s3", endpoint_url=server.endpoint, aws_access_key_id=harness.ACCESS_KEY,
        aws_secret_access_key=harness.SECRET_KEY, region_name=harness.REGION, verify=str(folder / "cert.pem"),
    )  # fmt: skip
    small, large = folder / "in" / "small", folder / "in" / "large"
    small.parent.mkdir()
    small.write_bytes(random_bytes(5_000, 1))
    large.write_bytes(random_bytes(20 * MIB + 5, 2))
    text = "0123456789abcdef0123456789abcdef"
    flags = ["--s3-sse-customer-algorithm", "AES256", "--s3-sse-customer-key", text, "--retries", "1"]
    flags += ["--s3-upload-cutoff", "8M", "--s3-chunk-size", "6M", "--ca-cert", folder / "cert.pem"]
    env = server.client_env(folder)
    rclone = lambda *words: harness.run("rclone", *words, *flags, env=env)  # noqa: E731
    rclone("mkdir", "valv:bkt")
    rclone("copy", small.parent, "valv:bkt/study")
    rclone("check", small.parent, "valv:bkt/study", "--download")
    assert "There was nothing to transfer" in rclone("copy", small.parent, "valv:bkt/study", "-v").stderr
    rclone("copyto", "valv:bkt/study/small", "valv:bkt/copy")
    assert s3.get_object(Bucket="bkt", Key="copy", **sse_c(text.encode()))["Body"].read() == small.read_bytes()
    refused(lambda: s3.get_object(Bucket="bkt", Key="study/small"), "InvalidRequest", 400, NEEDS_KEY)


# -- key names ---------------------------------------------------------------------------------------------------------


def test_the_projects_key_is_named_on_every_answer(s3, bucket):
    context = b64(json.dumps({"purpose": "study"}).encode())
    put = s3.put_object(
        Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSEncryptionContext=context, BucketKeyEnabled=True
    )
    arn = put["SSEKMSKeyId"]
    project = arn.rsplit("/", 1)[1]
    assert arn == f"arn:aws:kms:us-east-1:{project}:key/{project}" and len(project) == 32
    named = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": arn, "BucketKeyEnabled": True}
    assert told(put) == {**named, "SSEKMSEncryptionContext": context}
    assert put["ETag"] == f'"{md5_hex(b"x")}"'
    for answer in (s3.get_object(Bucket=bucket, Key="k"), s3.head_object(Bucket=bucket, Key="k")):
        assert told(answer) == named
    plain = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": arn}
    uuid = "-".join([project[:8], project[8:12], project[12:16], project[16:20], project[20:]])
    for name in (arn, project, uuid, "alias/project", "alias/aws/s3", f"arn:aws:kms:us-east-1:{project}:alias/project"):
        assert told(s3.put_object(Bucket=bucket, Key="n", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=name)) == plain
    copy = {"Bucket": bucket, "CopySource": {"Bucket": bucket, "Key": "k"}}
    assert told(s3.copy_object(**copy, Key="c", ServerSideEncryption="aws:kms", SSEKMSKeyId="alias/project")) == plain
    assert told(s3.head_object(Bucket=bucket, Key="c")) == plain
    assert told(s3.copy_object(**copy, Key="c")) == MANAGED, "a copy has what its own request asks for"
    assert told(s3.head_object(Bucket=bucket, Key="c")) == MANAGED

    create = s3.create_multipart_upload(Bucket=bucket, Key="m", ServerSideEncryption="aws:kms", SSEKMSKeyId=arn)
    ask = {"Bucket": bucket, "Key": "m", "UploadId": create["UploadId"]}
    part = s3.upload_part(**ask, PartNumber=1, Body=b"part")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    complete = s3.complete_multipart_upload(**ask, MultipartUpload=parts)
    for answer in (create, part, complete, s3.get_object(Bucket=bucket, Key="m")):
        assert told(answer) == plain


def test_names_that_the_operator_declares_are_names_of_the_projects_key(make_server):
    server = make_server(config='[gateway]\nkms_key_names = ["testkey-1"]\n')
    s3 = server.s3()
    s3.create_bucket(Bucket="bkt")
    ask = {"Bucket": "bkt", "Key": "k", "Body": b"x", "ServerSideEncryption": "aws:kms"}
    named = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "testkey-1"}
    assert told(s3.put_object(**ask, SSEKMSKeyId="testkey-1")) == named
    assert told(s3.get_object(Bucket="bkt", Key="k")) == named
    refused(lambda: s3.put_object(**ask, SSEKMSKeyId="testkey-2"), "KMS.NotFoundException", 400)
    default(s3, "bkt", {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "testkey-1"})
    assert told(s3.put_object(Bucket="bkt", Key="d", Body=b"x")) == named


def test_every_answer_names_sse_s3_where_nothing_was_asked_for(s3, bucket):
    create = s3.create_multipart_upload(Bucket=bucket, Key="m", ServerSideEncryption="AES256")
    ask = {"Bucket": bucket, "Key": "m", "UploadId": create["UploadId"]}
    part = s3.upload_part(**ask, PartNumber=1, Body=b"part")
    copied = s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    part_copy = s3.upload_part_copy(**ask, PartNumber=2, CopySource={"Bucket": bucket, "Key": "k"})
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    complete = s3.complete_multipart_upload(**ask, MultipartUpload=parts)
    for answer in (create, part, copied, part_copy, complete, s3.head_object(Bucket=bucket, Key="m")):
        assert told(answer) == MANAGED


@pytest.mark.parametrize("name", ["alias/other", "0" * 32, "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", "x"])
def test_another_key_is_not_found(s3, bucket, name):
    ask = {"Bucket": bucket, "Key": "k", "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": name}
    refused(lambda: s3.put_object(**ask, Body=b"x"), "KMS.NotFoundException", 400)
    refused(lambda: s3.create_multipart_upload(**ask), "KMS.NotFoundException", 400)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_methods_that_do_not_fit_are_refused(s3, bucket):
    put = lambda **options: lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"x", **options)  # noqa: E731
    refused(put(ServerSideEncryption="ROT13"), "InvalidArgument", 400, "The encryption method specified is not supported")
    refused(put(ServerSideEncryption="AES256", SSEKMSKeyId="alias/project"), "InvalidArgument", 400, "aws:kms")
    refused(put(SSEKMSKeyId="alias/project"), "InvalidArgument", 400, "aws:kms")
    refused(put(ServerSideEncryption="aws:kms", SSEKMSEncryptionContext="no JSON"), "InvalidArgument", 400, "string-string map")
    refused(put(ServerSideEncryption="aws:kms:dsse"), "NotImplemented", 501)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")


def test_a_read_that_names_a_method_is_refused(shared, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for method in ("GET", "HEAD"):
        answer = rawhttp.request(shared, method, f"/{bucket}/k", headers={"x-amz-server-side-encryption": "AES256"})
        assert answer.status == 400, answer


# -- bucket defaults ---------------------------------------------------------------------------------------------------


def default(s3, bucket, method=None, blocked=None, **rule):
    rule = {**rule, **({"ApplyServerSideEncryptionByDefault": method} if method else {})}
    rule |= {"BlockedEncryptionTypes": {"EncryptionType": [blocked]}} if blocked else {}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})


def rules(s3, bucket):
    return s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]


def test_a_buckets_default_is_kept_and_applied(s3, bucket):
    sse_s3 = [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]
    assert rules(s3, bucket) == sse_s3
    s3.put_object(Bucket=bucket, Key="before", Body=b"x")
    method = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/project"}
    default(s3, bucket, method, BucketKeyEnabled=True)
    assert rules(s3, bucket) == [{"ApplyServerSideEncryptionByDefault": method, "BucketKeyEnabled": True}]
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    named = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": put["SSEKMSKeyId"], "BucketKeyEnabled": True}
    copy = {"Bucket": bucket, "CopySource": {"Bucket": bucket, "Key": "before"}}
    create = s3.create_multipart_upload(Bucket=bucket, Key="m")
    for answer in (put, s3.head_object(Bucket=bucket, Key="k"), s3.copy_object(**copy, Key="c"), create):
        assert told(answer) == named
    assert told(s3.head_object(Bucket=bucket, Key="before")) == MANAGED
    assert told(s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="AES256")) == MANAGED
    # Where a bucket has a default, a copy onto itself needs no other change.
    assert told(s3.copy_object(**copy, Key="before")) == named
    assert told(s3.head_object(Bucket=bucket, Key="before")) == named
    without = {name: value for name, value in named.items() if name != "BucketKeyEnabled"}
    assert told(s3.put_object(Bucket=bucket, Key="k", Body=b"x", BucketKeyEnabled=False)) == without
    assert told(s3.put_object(Bucket=bucket, Key="k", Body=b"x", **sse_c())) == CUSTOMER
    s3.delete_bucket_encryption(Bucket=bucket)
    s3.delete_bucket_encryption(Bucket=bucket)
    assert rules(s3, bucket) == sse_s3
    assert told(s3.put_object(Bucket=bucket, Key="k", Body=b"x")) == MANAGED
    refused(lambda: s3.copy_object(**copy, Key="before"), "InvalidRequest", 400)


def test_a_default_key_that_is_another_is_told_when_it_is_used(s3, bucket):
    default(s3, bucket, {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/elsewhere"})
    refused(lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"x"), "KMS.NotFoundException", 400)


def test_defaults_that_mean_nothing_are_refused(s3, bucket):
    def put(*rules):
        return lambda: s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": list(rules)})

    rule = lambda **method: {"ApplyServerSideEncryptionByDefault": method}  # noqa: E731
    refused(put(), "MalformedXML", 400)
    refused(put(rule(SSEAlgorithm="AES256"), rule(SSEAlgorithm="AES256")), "MalformedXML", 400)
    refused(put(rule(SSEAlgorithm="DES")), "MalformedXML", 400)
    refused(put(rule(SSEAlgorithm="AES256", KMSMasterKeyID="k")), "InvalidArgument", 400, "KMSMasterKeyID is not applicable")
    refused(put(rule(SSEAlgorithm="aws:kms:dsse")), "NotImplemented", 501)


def test_a_bucket_that_blocks_customers_keys_takes_none_and_still_gives_back_what_it_has(s3, bucket):
    s3.put_object(Bucket=bucket, Key="old", Body=b"x", **sse_c())
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", **sse_c())["UploadId"]
    default(s3, bucket, {"SSEAlgorithm": "AES256"}, "SSE-C")
    message = "has blocked upload requests that specify Server Side Encryption with Customer provided keys (SSE-C)"
    for call in (
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"x", **sse_c()),
        lambda: s3.create_multipart_upload(Bucket=bucket, Key="k", **sse_c()),
        lambda: s3.copy_object(Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "old"}, **source(), **sse_c()),
        lambda: s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=b"x", **sse_c()),
    ):
        refused(call, "AccessDenied", 403, message)
    assert s3.get_object(Bucket=bucket, Key="old", **sse_c())["Body"].read() == b"x"
    s3.copy_object(Bucket=bucket, Key="plain", CopySource={"Bucket": bucket, "Key": "old"}, **source())
    default(s3, bucket, {"SSEAlgorithm": "aws:kms"})
    assert rules(s3, bucket)[0]["BlockedEncryptionTypes"] == {"EncryptionType": ["SSE-C"]}, "not mentioned, not changed"
    default(s3, bucket, None, "NONE")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **sse_c())


# -- secrecy and the page on formats -----------------------------------------------------------------------------------


def test_a_customers_key_is_on_no_disk_and_in_no_log(make_server):
    """With the log at its most talkative, for good and for refused requests."""
    server = make_server(config='[storage]\nextent = "16MiB"\n', env={"VALV_LOG": "trace"})
    s3 = server.s3()
    s3.create_bucket(Bucket="bkt")
    marker = b"PLANTED-MARKER-2d9e61c07ab4"
    for name, size in [("inline", 1_000), ("replicated", 60_000), ("chunk", 400_000)]:
        s3.put_object(Bucket="bkt", Key=name, Body=marker * (size // len(marker)), **sse_c())
        s3.get_object(Bucket="bkt", Key=name, **sse_c())["Body"].read()
    upload = s3.create_multipart_upload(Bucket="bkt", Key="parts", **sse_c())["UploadId"]
    part = s3.upload_part(Bucket="bkt", Key="parts", UploadId=upload, PartNumber=1, Body=marker * 1000, **sse_c())["ETag"]
    s3.upload_part(Bucket="bkt", Key="parts", UploadId=upload, PartNumber=2, Body=b"left open", **sse_c())
    s3.complete_multipart_upload(
        Bucket="bkt", Key="parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}, **sse_c()
    )
    s3.create_multipart_upload(Bucket="bkt", Key="open", **sse_c())
    s3.copy_object(Bucket="bkt", Key="copy", CopySource={"Bucket": "bkt", "Key": "chunk"}, **source(), **sse_c(OTHER))
    for key in ("chunk", "copy"):
        for given in ({}, sse_c(OTHER) if key == "chunk" else sse_c()):
            with pytest.raises(ClientError):
                s3.get_object(Bucket="bkt", Key=key, **given)
    rawhttp.request(server, "PUT", "/bkt/bad", headers={**HEADERS, KEY_MD5: b64(b"0" * 16)}, body=b"x")
    rawhttp.request(server, "GET", "/bkt/chunk", headers=HEADERS, signer=rawhttp.Signer(secret_key="wrong"))
    # A form whose policy names the key; another is sent.
    fields = {name.lower(): value for name, value in HEADERS.items()}
    made = server.s3(signature_version="s3v4").generate_presigned_post("bkt", "form", Conditions=[{k: v} for k, v in fields.items()])
    assert test_post.post(server, "bkt", test_post.form({**made["fields"], **fields})).status == 204
    other = {**fields, KEY_NAME: b64(OTHER), KEY_MD5.lower(): b64(hashlib.md5(OTHER).digest())}
    answer = test_post.post(server, "bkt", test_post.form({**made["fields"], **other}))
    assert answer.status == 403 and b64(KEY).encode() not in answer.data
    (server.folder / "pass").write_text("correct horse\n")
    server.valv("metadata", "export", "--out", server.folder / "export.jsonl")
    server.valv("key", "backup", "--out", server.folder / "keys.backup", "--passphrase-file", server.folder / "pass")
    assert server.terminate() == 0
    versions = [json.loads(line) for line in (server.folder / "export.jsonl").read_text().splitlines()[1:]]
    assert {(line["encryption_base64"], len(line["checksums"])) for line in versions} == {(b64(b"\x81\x02"), 0)}
    log = server.log()
    for key in (KEY, OTHER):
        md5 = hashlib.md5(key).digest()
        for secret in (key, md5):
            for form in (secret, b64(secret).encode(), secret.hex().encode()):
                assert holders(server.folder, form) == [], form
            assert b64(secret) not in log and secret.hex() not in log
    assert holders(server.folder, marker) == []
    assert holders(server.folder, md5_hex(marker * 1000).encode()) == []
    assert holders(server.folder, hashlib.md5(marker * 1000).digest()) == []


def test_the_recovery_program_opens_a_customers_objects_with_their_key(server):
    s3 = server.s3()
    s3.create_bucket(Bucket="study")
    bodies = {"inline": random_bytes(900), "chunk": random_bytes(400_000), "two": random_bytes(8 * MIB + 5)}
    for key, body in bodies.items():
        s3.put_object(Bucket="study", Key=key, Body=body, **sse_c())
    s3.put_object(Bucket="study", Key="other", Body=b"other" * 10_000, **sse_c(OTHER))
    s3.put_object(Bucket="study", Key="kms", Body=b"named" * 10_000, ServerSideEncryption="aws:kms")
    (server.folder / "pass").write_text("correct horse battery staple\n")
    (server.folder / "customer").write_text(b64(KEY) + "\n")
    server.valv("metadata", "export", "--out", server.folder / "export.jsonl")
    server.valv("key", "backup", "--out", server.folder / "keys.backup", "--passphrase-file", server.folder / "pass")
    server.kill()
    words = [word for index in (0, 2, 3, 5) for word in ("--disk", server.disk_folder(index))]
    words += ["--export", server.folder / "export.jsonl", "--keys", server.folder / "keys.backup"]
    words += ["--passphrase-file", server.folder / "pass", "--customer-key-file", server.folder / "customer"]
    program = harness.REPO / "tools" / "recover" / "valv_recover.py"
    done = harness.run(sys.executable, program, *words, "--out", server.folder / "recovered", check=False)
    assert done.returncode == 1 and "customer's key" in done.stderr, done.stderr
    found = {}
    for line in (server.folder / "recovered" / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        name = base64.b64decode(entry["key"]["base64"]).decode()
        found[name] = (server.folder / "recovered" / entry["file"]).read_bytes() if "file" in entry else None
    assert found == {**bodies, "other": None, "kms": b"named" * 10_000}
