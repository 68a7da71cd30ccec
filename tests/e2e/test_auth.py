"""Requests that must be refused: AWS's code, nothing stored, and the server goes on. Over bare sockets."""

import datetime
import hashlib

import boto3
import botocore.config
import pytest
from botocore.exceptions import ClientError

import harness
import rawhttp
from rawhttp import (
    STREAMING_SIGNED,
    STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER,
    UNSIGNED,
    Connection,
    Signer,
    crc32_base64,
    request,
    unsigned_chunked,
)

BODY = harness.random_bytes(100_000, seed=1)


def utc(**offset):
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**offset)


def assert_nothing_stored(s3, bucket):
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def flip_signature(headers):
    text = headers["Authorization"]
    headers["Authorization"] = text[:-1] + ("0" if text[-1] != "0" else "1")


def drop(name):
    return lambda headers: headers.pop(name)


def replace(name, value):
    return lambda headers: headers.__setitem__(name, value)


REFUSED = {
    "a bad signature": (dict(tamper=flip_signature), 403, "SignatureDoesNotMatch"),
    "a wrong secret": (dict(signer=lambda: Signer(secret_key="wrong")), 403, "SignatureDoesNotMatch"),
    "an unknown access key": (dict(signer=lambda: Signer(access_key="NOSUCHKEY00000000")), 403, "InvalidAccessKeyId"),
    "a clock 16 minutes behind": (dict(signer=lambda: Signer(now=utc(minutes=-16))), 403, "RequestTimeTooSkewed"),
    "a clock 16 minutes ahead": (dict(signer=lambda: Signer(now=utc(minutes=16))), 403, "RequestTimeTooSkewed"),
    "another region": (dict(signer=lambda: Signer(region="eu-north-9")), 400, "AuthorizationHeaderMalformed"),
    "an x-amz header that is not signed": (
        dict(headers={"x-amz-meta-a": "1"}, unsigned={"x-amz-meta-a"}),
        403,
        "AccessDenied",
    ),
    "a host that is not signed": (dict(unsigned={"host"}), 403, "AccessDenied"),
    "a signed header that is missing": (dict(headers={"x-amz-meta-a": "1"}, tamper=drop("x-amz-meta-a")), 403, None),
    "a signed header that was changed": (
        dict(headers={"x-amz-meta-a": "1"}, tamper=replace("x-amz-meta-a", "2")),
        403,
        "SignatureDoesNotMatch",
    ),
    "a body that is not the one signed": (
        dict(payload_hash=hashlib.sha256(b"other").hexdigest()),
        400,
        "XAmzContentSHA256Mismatch",
    ),
    "a payload hash that is no hash": (dict(payload_hash="nonsense"), 400, "InvalidArgument"),
    "a Content-MD5 of other bytes": (dict(headers={"content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}), 400, "BadDigest"),
    "a Content-MD5 that is no MD5": (dict(headers={"content-md5": "abc"}), 400, "InvalidDigest"),
    "a checksum of other bytes": (dict(headers={"x-amz-checksum-crc32": "AAAAAA=="}), 400, "BadDigest"),
    "a checksum that is none": (dict(headers={"x-amz-checksum-crc32": "!!"}), 400, "BadDigest"),
    "two checksums": (
        dict(headers={"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-sha1": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="}),
        400,
        "InvalidRequest",
    ),
    "no length": (dict(tamper=drop("content-length"), body=b""), 411, "MissingContentLength"),
    "an authorization that is none": (dict(tamper=replace("Authorization", "Basic dXNlcjpwdw==")), 400, None),
    "a malformed credential": (
        dict(tamper=replace("Authorization", "AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=00")),
        400,
        "AuthorizationHeaderMalformed",
    ),
    "metadata beyond 2 KiB": (dict(headers={"x-amz-meta-a": "x" * 2100}), 400, "MetadataTooLarge"),
    "a key beyond 1,024 bytes": (dict(key="k" * 1025), 400, "KeyTooLongError"),
    "a length beyond 5 GiB": (dict(content_length=5 * (1 << 30) + 1, payload_hash=UNSIGNED), 400, "EntityTooLarge"),
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda name: name.replace(" ", "-"))
def test_a_refused_put_gets_awss_code_and_stores_nothing(shared, s3, bucket, case):
    options, status, code = REFUSED[case]
    options = dict(options)
    make_signer = options.pop("signer", Signer)
    key = options.pop("key", "object")
    response = request(shared, "PUT", f"/{bucket}/{key}", **{"body": BODY, **options, "signer": make_signer()})
    assert response is not None and response.status == status, response
    if code is not None:
        assert response.code == code, response
    assert response.headers.get("x-amz-request-id"), response
    assert b"<RequestId>" in response.body
    assert_nothing_stored(s3, bucket)


def test_the_same_request_untouched_is_accepted(shared, s3, bucket):
    response = request(shared, "PUT", f"/{bucket}/object", body=BODY, headers={"x-amz-meta-a": "1"})
    assert response.status == 200, response
    assert s3.get_object(Bucket=bucket, Key="object")["Body"].read() == BODY


def test_an_unsigned_request_is_denied(shared, s3, bucket):
    s3.put_object(Bucket=bucket, Key="object", Body=b"secret")
    for method, path in [("GET", f"/{bucket}/object"), ("PUT", f"/{bucket}/new"), ("GET", f"/{bucket}"), ("GET", "/")]:
        with Connection(shared) as connection:
            connection.send_head(method, path, {"host": connection.host, "content-length": "0"})
            response = connection.read_response()
        assert response.status == 403 and response.code == "AccessDenied", (method, path, response)
        assert b"secret" not in response.body


def test_a_header_block_beyond_the_limit_is_refused_and_the_server_goes_on(shared, s3, bucket):
    with Connection(shared) as connection:
        try:
            connection.send_head("PUT", f"/{bucket}/object", {"host": connection.host, "x-amz-meta-a": "x" * 200_000})
        except (BrokenPipeError, ConnectionResetError):
            pass
        response = connection.read_response()
    assert response is None or response.status in (400, 431), response
    assert_nothing_stored(s3, bucket)


def test_a_body_shorter_than_declared_stores_nothing(shared, s3, bucket):
    response = request(
        shared, "PUT", f"/{bucket}/object", body=BODY[:50_000], payload_hash=UNSIGNED, content_length=len(BODY), half_close=True
    )
    assert response is None or response.code in ("IncompleteBody", "RequestTimeout"), response
    assert_nothing_stored(s3, bucket)


def test_bytes_beyond_the_declared_length_are_not_part_of_the_object(shared, s3, bucket):
    response = request(shared, "PUT", f"/{bucket}/object", body=BODY, payload_hash=UNSIGNED, content_length=len(BODY) - 10)
    assert response.status == 200, response
    assert s3.get_object(Bucket=bucket, Key="object")["Body"].read() == BODY[:-10]


def streaming(length, **extra):
    return {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": str(length), **extra}


CHUNKS = [BODY[:65536], BODY[65536:]]


def test_signed_chunks_are_accepted(shared, s3, bucket):
    response = request(
        shared,
        "PUT",
        f"/{bucket}/object",
        headers=streaming(len(BODY)),
        payload_hash=STREAMING_SIGNED,
        body=lambda signer: signer.chunked(CHUNKS),
    )
    assert response.status == 200, response
    found = s3.get_object(Bucket=bucket, Key="object")
    assert found["Body"].read() == BODY
    assert "aws-chunked" not in found.get("ContentEncoding", "")


def test_signed_chunks_with_a_signed_trailer_are_accepted(shared, s3, bucket):
    trailer = b"x-amz-checksum-crc32:" + crc32_base64(BODY) + b"\n"
    response = request(
        shared,
        "PUT",
        f"/{bucket}/object",
        headers=streaming(len(BODY), **{"x-amz-trailer": "x-amz-checksum-crc32"}),
        payload_hash=STREAMING_SIGNED_TRAILER,
        body=lambda signer: signer.chunked(CHUNKS, trailer),
    )
    assert response.status == 200, response
    found = s3.get_object(Bucket=bucket, Key="object", ChecksumMode="ENABLED")
    assert found["Body"].read() == BODY
    assert found["ChecksumCRC32"].encode() == crc32_base64(BODY)


def test_unsigned_chunks_with_a_trailer_are_accepted(shared, s3, bucket):
    trailer = b"x-amz-checksum-crc32:" + crc32_base64(BODY) + b"\r\n"
    response = request(
        shared,
        "PUT",
        f"/{bucket}/object",
        headers=streaming(len(BODY), **{"x-amz-trailer": "x-amz-checksum-crc32"}),
        payload_hash=STREAMING_UNSIGNED_TRAILER,
        body=lambda _: unsigned_chunked(CHUNKS, trailer),
    )
    assert response.status == 200, response
    assert s3.get_object(Bucket=bucket, Key="object")["Body"].read() == BODY


def _cut(maker, keep):
    return lambda signer: maker(signer)[:keep]


CHUNKED_REFUSED = {
    "a bad chunk signature": (STREAMING_SIGNED, lambda s: s.chunked(CHUNKS, corrupt=1), "SignatureDoesNotMatch"),
    "a bad signature of the last chunk": (STREAMING_SIGNED, lambda s: s.chunked(CHUNKS, corrupt=2), "SignatureDoesNotMatch"),
    "chunks that end early": (STREAMING_SIGNED, lambda s: s.chunked([CHUNKS[0]]), None),
    "chunks that go on": (STREAMING_SIGNED, lambda s: s.chunked([*CHUNKS, b"more"]), None),
    "chunks cut off between two": (STREAMING_SIGNED, _cut(lambda s: s.chunked(CHUNKS), 65536 + 88), "IncompleteBody"),
    "chunks without the last": (STREAMING_UNSIGNED_TRAILER, lambda _: unsigned_chunked(CHUNKS)[:-5], "IncompleteBody"),
    "a chunk size that is no number": (STREAMING_UNSIGNED_TRAILER, lambda _: b"zz\r\nabc\r\n0\r\n\r\n", None),
    "a chunk size beyond all bounds": (STREAMING_UNSIGNED_TRAILER, lambda _: b"f" * 40 + b"\r\nabc", None),
    "a trailer checksum of other bytes": (
        STREAMING_UNSIGNED_TRAILER,
        lambda _: unsigned_chunked(CHUNKS, b"x-amz-checksum-crc32:AAAAAA==\r\n"),
        "BadDigest",
    ),
}


@pytest.mark.parametrize("case", CHUNKED_REFUSED, ids=lambda name: name.replace(" ", "-"))
def test_a_refused_chunked_body_stores_nothing(shared, s3, bucket, case):
    mode, body, code = CHUNKED_REFUSED[case]
    extra = {"x-amz-trailer": "x-amz-checksum-crc32"} if "trailer checksum" in case else {}
    response = request(
        shared,
        "PUT",
        f"/{bucket}/object",
        headers=streaming(len(BODY), **extra),
        payload_hash=mode,
        body=body,
    )
    assert response is not None and 400 <= response.status < 500, response
    if code is not None:
        assert response.code == code, response
    assert_nothing_stored(s3, bucket)


@pytest.mark.parametrize(
    "path, query, body",
    [
        ("", [("delete", "")], b"<Delete><Object><Key>a</Key>"),
        ("", [("delete", "")], b"not xml"),
        ("", [("delete", "")], b"<Delete>" + b"<Object>" * 2000),
        ("/object", [("uploadId", "x")], b"<CompleteMultipartUpload>"),
    ],
)
def test_malformed_xml_is_refused(shared, s3, bucket, path, query, body):
    if query[0][0] == "uploadId":
        upload = s3.create_multipart_upload(Bucket=bucket, Key="object")["UploadId"]
        query = [("uploadId", upload)]
    md5 = __import__("base64").b64encode(hashlib.md5(body).digest()).decode()
    response = request(shared, "POST", f"/{bucket}{path}", query=query, body=body, headers={"content-md5": md5})
    assert response.status == 400 and response.code == "MalformedXML", response
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_an_entity_in_xml_is_not_expanded(shared, bucket):
    body = b'<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/hostname">]><Delete><Object><Key>&e;</Key></Object></Delete>'
    md5 = __import__("base64").b64encode(hashlib.md5(body).digest()).decode()
    response = request(shared, "POST", f"/{bucket}", query=[("delete", "")], body=body, headers={"content-md5": md5})
    assert response.status == 400 and response.code == "MalformedXML", response


@pytest.mark.parametrize("name", ["ab", "Upper", "a" * 64, "under_score", "dots..dots", "-dash", "192.168.0.1", "a.-b"])
def test_an_invalid_bucket_name_is_refused(shared, name):
    response = request(shared, "PUT", f"/{name}")
    assert response.status == 400 and response.code == "InvalidBucketName", response


def test_an_unknown_operation_is_not_implemented(shared, bucket):
    for query in [("accelerate", ""), ("analytics", ""), ("inventory", "")]:
        response = request(shared, "PUT", f"/{bucket}", query=[query], body=b"<X/>")
        assert response.status == 501 and response.code == "NotImplemented", (query, response)


def test_presigned_urls_work_until_they_expire_and_only_for_what_they_say(shared, s3, bucket, folder):
    # For us-east-1 botocore still presigns with version 2 of the protocol unless told otherwise.
    s3 = shared.s3(signature_version="s3v4")
    s3.put_object(Bucket=bucket, Key="a b/ü", Body=b"content")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b/ü"}, ExpiresIn=60)
    assert harness.run("curl", "-sf", url).stdout == "content"
    put = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "up"}, ExpiresIn=60)
    (folder / "file").write_bytes(BODY)
    harness.run("curl", "-sf", "-T", folder / "file", put)
    assert s3.get_object(Bucket=bucket, Key="up")["Body"].read() == BODY

    def code(changed):
        out = harness.run("curl", "-s", "-w", "%{http_code}", changed).stdout
        return out[-3:], out

    assert code(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"))[0] == "403"
    assert code(url.replace("a%20b", "a%20c"))[0] == "403"
    assert code(url + "&response-content-type=text/html")[0] == "403"
    expired = Signer(now=utc(minutes=-10))
    for seconds, status, word in [(60, "403", "Request has expired"), (604_801, "400", "AuthorizationQueryParametersError")]:
        query = [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", f"{expired.access_key}/{expired.scope}"),
            ("X-Amz-Date", expired.stamp),
            ("X-Amz-Expires", str(seconds)),
            ("X-Amz-SignedHeaders", "host"),
        ]
        host = "%s:%d" % shared.address
        canonical = expired.canonical("GET", f"/{bucket}/up", query, {"host": host}, ["host"], UNSIGNED)
        text = "\n".join(["AWS4-HMAC-SHA256", expired.stamp, expired.scope, hashlib.sha256(canonical.encode()).hexdigest()])
        query.append(("X-Amz-Signature", expired.signature(text)))
        encoded = "&".join(f"{k}={rawhttp.encode_path(v).replace('/', '%2F')}" for k, v in query)
        got, out = code(f"{shared.endpoint}/{bucket}/up?{encoded}")
        assert got == status and word in out, out


def test_virtual_host_style_finds_the_bucket(make_server):
    server = make_server(config='[gateway]\nbase_domains = ["s3.valv.test"]\n')
    server.s3().create_bucket(Bucket="by-host")
    response = request(server, "PUT", "/a//b", body=BODY, headers={"host": "by-host.s3.valv.test"})
    assert response.status == 200, response
    assert server.s3().get_object(Bucket="by-host", Key="a//b")["Body"].read() == BODY


def test_a_key_of_another_project_sees_nothing_of_this_one(shared, s3, bucket):
    s3.put_object(Bucket=bucket, Key="object", Body=b"mine")
    other = ("OTHERPROJECTKEY0001", "another-secret-0123456789")
    shared.valv(
        "user", "add", "--name", "other", "--project", "other", "--namespace", "other",
        "--access-key-id", other[0], "--secret-access-key", other[1],
    )
    client = boto3.client(
        "s3", endpoint_url=shared.endpoint, aws_access_key_id=other[0], aws_secret_access_key=other[1],
        region_name=harness.REGION, config=botocore.config.Config(s3={"addressing_style": "path"}),
    )
    assert client.list_buckets()["Buckets"] == []
    for call in (
        lambda: client.get_object(Bucket=bucket, Key="object"),
        lambda: client.list_objects_v2(Bucket=bucket),
        lambda: client.put_object(Bucket=bucket, Key="object", Body=b"theirs"),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert harness.error_code(error.value) in ("NoSuchBucket", "AccessDenied")
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="object", Body=b"theirs")
    assert s3.get_object(Bucket=bucket, Key="object")["Body"].read() == b"mine"
