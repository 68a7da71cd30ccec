"""Browser-based uploads: forms as boto3 signs them, sent by a plain HTTP client and over bare sockets. Written from AWS's
"Browser-Based Uploads Using POST" and what its servers answer."""

import base64
import datetime
import hashlib
import json
import re
import socket
import urllib.parse

import pytest
import urllib3
from botocore.exceptions import ClientError

from harness import ACCESS_KEY, MIB, SECRET_KEY, error_code, md5_hex, random_bytes, wait_until
from rawhttp import Connection, Signer, crc32_base64

BOUNDARY = "----ValvTestBoundary7MA4YWxk"
FILE = random_bytes(70_000, seed=9)
http = urllib3.PoolManager(retries=False)


@pytest.fixture
def s3(shared):
    """boto3 still signs forms with version 2 unless it is told to use 4."""
    return shared.s3(signature_version="s3v4")


def part(name: str, value: bytes, filename: str | None = None, extra: str = "") -> bytes:
    shown = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n{extra}\r\n'
    return head.encode() + value + b"\r\n"


def form(fields, file: bytes | None = FILE, filename: str | None = "scan.dcm", after: bytes = b"", close: bytes | None = None) -> bytes:
    pairs = fields.items() if isinstance(fields, dict) else fields
    body = b"".join(part(name, value if isinstance(value, bytes) else str(value).encode()) for name, value in pairs)
    if file is not None:
        body += part("file", file, filename, "Content-Type: text/x-of-the-part\r\n")
    return body + after + (f"--{BOUNDARY}--\r\n".encode() if close is None else close)


def post(server, bucket: str, body: bytes, headers: dict | None = None, **options):
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **(headers or {})}
    return http.request("POST", f"{server.endpoint}/{bucket}", body=body, headers=headers, redirect=False, **options)


def code_of(response) -> str | None:
    found = re.search(rb"<Code>([^<]+)</Code>", response.data)
    return found[1].decode() if found else None


def message_of(response) -> str:
    found = re.search(rb"<Message>([^<]*)</Message>", response.data)
    return found[1].decode().replace("&quot;", '"') if found else ""


def in_an_hour() -> str:
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    return at.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def signed(bucket: str, fields: dict, conditions: list, expiration=None, signer=None, document=None) -> dict:
    """The fields of a form with a policy of exactly these conditions (and those that SigV4 demands)."""
    signer = signer or Signer()
    stamps = {
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": f"{signer.access_key}/{signer.scope}",
        "x-amz-date": signer.stamp,
    }
    if document is None:
        document = {"expiration": expiration or in_an_hour(), "conditions": conditions + [{k: v} for k, v in stamps.items()]}
    text = document if isinstance(document, str) else json.dumps(document)
    policy = base64.b64encode(text.encode()).decode()
    return {**fields, **stamps, "policy": policy, "x-amz-signature": signer.signature(policy)}


def any_of(*names) -> list:
    return [["starts-with", f"${name}", ""] for name in names]


def keys(s3, bucket) -> list:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_a_form_that_boto3_signed_stores_its_file(shared, s3, bucket):
    made = s3.generate_presigned_post(bucket, "uploads/${filename}")
    assert made["url"].startswith(shared.endpoint)
    response = post(shared, bucket, form(made["fields"]))
    assert response.status == 204 and response.data == b"", response.data
    assert response.headers["ETag"] == f'"{md5_hex(FILE)}"'
    assert response.headers["Location"] == f"{shared.endpoint}/{bucket}/uploads%2Fscan.dcm"
    assert "x-amz-checksum-crc64nvme" in response.headers
    got = s3.get_object(Bucket=bucket, Key="uploads/scan.dcm")
    assert got["Body"].read() == FILE
    # The part's own type is not the object's.
    assert got["ContentType"] == "binary/octet-stream"


def test_every_field_is_kept_as_a_put_would_keep_its_header(shared, s3, bucket):
    fields = {
        "acl": "private",
        "Content-Type": "image/png",
        "Cache-Control": "max-age=60",
        "Content-Disposition": 'attachment; filename="${filename}"',
        "Content-Encoding": "gzip",
        "Content-Language": "sv",
        "Expires": "Fri, 01 Jan 2038 00:00:00 GMT",
        "x-amz-storage-class": "STANDARD",
        "x-amz-server-side-encryption": "AES256",
        "x-amz-meta-Study": "SCAPIS",
        "X-Amz-Meta-File": "${filename}",
        "x-amz-website-redirect-location": "/elsewhere",
        "tagging": "<Tagging><TagSet><Tag><Key>a b</Key><Value>1/2</Value></Tag><Tag><Key>c</Key><Value></Value></Tag></TagSet></Tagging>",
        "x-ignore-this": "anything",
    }
    conditions = [["starts-with", f"${name}", ""] for name in fields if not name.startswith("x-ignore")]
    made = s3.generate_presigned_post(bucket, "all", Conditions=conditions)
    response = post(shared, bucket, form({**made["fields"], **fields}, filename="dir\\a b.png"))
    assert response.status == 204, response.data
    got = s3.get_object(Bucket=bucket, Key="all", ChecksumMode="ENABLED")
    assert got["Body"].read() == FILE
    assert got["ContentType"] == "image/png"
    assert got["CacheControl"] == "max-age=60"
    assert got["ContentDisposition"] == 'attachment; filename="a b.png"'
    assert got["ContentEncoding"] == "gzip"
    assert got["ContentLanguage"] == "sv"
    assert got["ExpiresString"] == "Fri, 01 Jan 2038 00:00:00 GMT"
    assert got["ServerSideEncryption"] == "AES256"
    assert got["WebsiteRedirectLocation"] == "/elsewhere"
    assert got["Metadata"] == {"study": "SCAPIS", "file": "a b.png"}
    assert got["TagCount"] == 2
    tags = s3.get_object_tagging(Bucket=bucket, Key="all")["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"a b": "1/2", "c": ""}


def test_success_is_answered_as_the_form_wants(shared, s3, bucket):
    names = any_of("success_action_status", "success_action_redirect", "redirect")
    key = "a b/é&.txt"
    encoded = urllib.parse.quote(key, safe="")

    def sent(**fields):
        conditions = [c for c in names if c[1][1:] in fields]
        made = s3.generate_presigned_post(bucket, key, Conditions=conditions)
        return post(shared, bucket, form({**made["fields"], **fields}, b"hello"))

    etag = md5_hex(b"hello")
    created = sent(success_action_status="201")
    assert created.status == 201 and created.headers["Content-Type"] == "application/xml"
    assert created.headers["Location"] == f"{shared.endpoint}/{bucket}/{encoded}"
    assert created.data.decode() == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<PostResponse><Location>{shared.endpoint}/{bucket}/{encoded}</Location><Bucket>{bucket}</Bucket>"
        f"<Key>a b/é&amp;.txt</Key><ETag>&quot;{etag}&quot;</ETag></PostResponse>"
    )
    for status, expected in (("200", 200), ("204", 204), ("404", 204), ("", 204)):
        response = sent(success_action_status=status)
        assert (response.status, response.data) == (expected, b""), status
    query = f"bucket={bucket}&key={encoded.replace('%20', '+')}&etag=%22{etag}%22"
    for field, url, location in (
        ("success_action_redirect", "https://example.org/done", f"https://example.org/done?{query}"),
        ("redirect", "http://example.org/done?a=b", f"http://example.org/done?a=b&{query}"),
    ):
        response = sent(**{field: url})
        assert response.status == 303 and response.headers["Location"] == location
    assert sent(success_action_redirect="/relative").status == 204
    assert sent(success_action_redirect="https://example.org", success_action_status="201").status == 303


def test_a_large_file_is_streamed(shared, s3, bucket):
    """20 MiB, in chunked transfer coding so that nobody knows the length, and with a length."""
    data = random_bytes(20 * MIB, seed=3)
    made = s3.generate_presigned_post(bucket, "large", Conditions=[["content-length-range", 20 * MIB, 20 * MIB]])
    body = form(made["fields"], data)
    before = shared.memory_bytes("VmRSS")
    for chunked in (False, True):
        s3.delete_object(Bucket=bucket, Key="large")
        pieces = [body[at : at + 100_003] for at in range(0, len(body), 100_003)]
        response = post(shared, bucket, iter(pieces) if chunked else body, chunked=chunked)
        assert response.status == 204, response.data
        assert response.headers["ETag"] == f'"{md5_hex(data)}"'
        assert s3.get_object(Bucket=bucket, Key="large")["Body"].read() == data
    # Two chunk buffers of 8 MiB and parity, times what the allocator keeps; a buffered file would be more.
    assert shared.memory_bytes("VmRSS") - before < 256 * MIB


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 16 * 1024 + 1, 128 * 1024 + 1])
def test_any_size_of_file(shared, s3, bucket, size):
    made = s3.generate_presigned_post(bucket, "k")
    data = random_bytes(size, seed=2)
    assert post(shared, bucket, form(made["fields"], data)).status == 204
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data


def test_files_that_look_like_boundaries_are_stored_whole(shared, s3, bucket):
    made = s3.generate_presigned_post(bucket, "k")
    line = f"--{BOUNDARY}".encode()
    for data in (b"\r\n" + line[:-1], b"x" + line + b"--", b"\r\n\r\n--", b"\n" + line + b"\n", line[:-1] + b"\r", b"\r\n" * 50):
        assert post(shared, bucket, form(made["fields"], data)).status == 204
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data


def test_names_of_fields_have_no_case_and_fields_after_the_file_are_ignored(shared, s3, bucket):
    fields = {"KEY": "u/${filename}", "aCl": "private"}
    made = signed(bucket, fields, [{"bUcKeT": bucket}, ["StArTs-WiTh", "$KeY", "u/"], {"AcL": "private"}])
    made = {{"policy": "Policy", "x-amz-signature": "X-Amz-Signature"}.get(name, name): value for name, value in made.items()}
    body = form(made, after=part("submit", b"Upload") + part("acl", b"public-read"))
    assert post(shared, bucket, body).status == 204
    assert keys(s3, bucket) == ["u/scan.dcm"]


def test_digests_of_the_file_are_verified(shared, s3, bucket):
    crc, md5 = crc32_base64(FILE).decode(), base64.b64encode(hashlib.md5(FILE).digest()).decode()

    def sent(**fields):
        fields = {name.replace("_", "-"): value for name, value in fields.items()}
        made = s3.generate_presigned_post(bucket, "k", Conditions=any_of(*fields))
        return post(shared, bucket, form({**made["fields"], **fields}))

    assert sent(x_amz_checksum_crc32=crc, x_amz_checksum_algorithm="CRC32", Content_MD5=md5).status == 204
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head["ChecksumCRC32"] == crc and head["ChecksumType"] == "FULL_OBJECT"
    s3.delete_object(Bucket=bucket, Key="k")
    for fields, code in (
        ({"x_amz_checksum_crc32": "AAAAAA=="}, "BadDigest"),
        ({"x_amz_checksum_crc32": "!!"}, "BadDigest"),
        ({"x_amz_checksum_algorithm": "CRC32"}, "InvalidRequest"),
        ({"Content_MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}, "BadDigest"),
    ):
        response = sent(**fields)
        assert (response.status, code_of(response)) == (400, code), fields
    assert keys(s3, bucket) == []


def test_versions_and_locks_are_made_as_by_a_put(shared, s3):
    bucket = f"locked-{md5_hex(in_an_hour().encode())[:12]}"
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    until = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = {
        "x-amz-object-lock-mode": "GOVERNANCE",
        "x-amz-object-lock-retain-until-date": until,
        "x-amz-object-lock-legal-hold": "ON",
    }
    made = s3.generate_presigned_post(bucket, "k", Conditions=any_of(*fields))
    versions = set()
    for _ in range(2):
        response = post(shared, bucket, form({**made["fields"], **fields}))
        assert response.status == 204, response.data
        versions.add(response.headers["x-amz-version-id"])
    assert len(versions) == 2
    head = s3.head_object(Bucket=bucket, Key="k")
    assert head["ObjectLockMode"] == "GOVERNANCE" and head["ObjectLockLegalHoldStatus"] == "ON"
    with pytest.raises(ClientError) as refused:
        s3.delete_object(Bucket=bucket, Key="k", VersionId=versions.pop())
    assert error_code(refused.value) == "AccessDenied"


def test_a_file_is_sealed_under_the_customers_key(shared, s3, bucket):
    key = random_bytes(32, seed=5)
    customer = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}
    fields = {
        "x-amz-server-side-encryption-customer-algorithm": "AES256",
        "x-amz-server-side-encryption-customer-key": base64.b64encode(key).decode(),
        "x-amz-server-side-encryption-customer-key-MD5": base64.b64encode(hashlib.md5(key).digest()).decode(),
    }
    made = s3.generate_presigned_post(bucket, "k", Conditions=any_of(*fields))
    response = post(shared, bucket, form({**made["fields"], **fields}))
    assert response.status == 204, response.data
    assert response.headers["x-amz-server-side-encryption-customer-algorithm"] == "AES256"
    assert s3.get_object(Bucket=bucket, Key="k", **customer)["Body"].read() == FILE
    with pytest.raises(ClientError):
        s3.get_object(Bucket=bucket, Key="k")


def test_an_unsigned_form_may_what_the_bucket_lets_anybody_do(shared, s3, bucket):
    body = form({"key": "open/${filename}", "x-amz-meta-a": "1"})
    assert post(shared, bucket, body).status == 403
    shared.let_policies_decide()
    s3.delete_public_access_block(Bucket=bucket)
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/open/*"}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    # Within the lease of what the gateway knew before.
    wait_until(lambda: post(shared, bucket, body).status == 204, "the opening holds")
    got = s3.get_object(Bucket=bucket, Key="open/scan.dcm")
    assert got["Body"].read() == FILE and got["Metadata"] == {"a": "1"}
    other = post(shared, bucket, form({"key": "closed/k"}))
    assert (other.status, code_of(other)) == (403, "AccessDenied")
    # One that has a policy is held to it, though nobody signed it.
    policy = base64.b64encode(json.dumps({"expiration": in_an_hour(), "conditions": [{"bucket": bucket}]}).encode()).decode()
    bound = post(shared, bucket, form({"key": "open/k", "policy": policy}))
    assert (bound.status, message_of(bound)) == (403, "Invalid according to Policy: Extra input fields: key")
    # A wrong signature is refused, and not taken for none.
    wrong = post(shared, bucket, form(signed(bucket, {"key": "open/k"}, [{"bucket": bucket}] + BASE, signer=Signer(secret_key="wrong"))))
    assert (wrong.status, code_of(wrong)) == (403, "SignatureDoesNotMatch")
    assert keys(s3, bucket) == ["open/scan.dcm"]


BASE = any_of("key") + [["content-length-range", 0, 1 << 20]]


def with_base(bucket, **more):
    return signed(bucket, {"key": "k", **more.pop("fields", {})}, [{"bucket": bucket}] + BASE + more.pop("conditions", []), **more)


def without(name):
    def made(bucket):
        fields = with_base(bucket)
        del fields[name]
        return fields

    return made


def changed(name, value):
    return lambda bucket: {**with_base(bucket), name: value}


def missing(name):
    return f"Bucket POST must contain a field named '{name}'.  If it is specified, please check the order of the fields."


POLICY_FAILED = "Invalid according to Policy: Policy Condition failed: "
# What the form is made of (given the bucket's name), then status, code and what the message must have.
REFUSED = {
    "a value that the policy does not allow": (
        lambda b: with_base(b, fields={"acl": "public-read"}, conditions=[{"acl": "private"}]),
        (403, "AccessDenied", POLICY_FAILED + '["eq", "$acl", "private"]'),
    ),
    "a key with another start": (
        lambda b: with_base(b, conditions=[["starts-with", "$key", "user/"]]),
        (403, "AccessDenied", POLICY_FAILED + '["starts-with", "$key", "user/"]'),
    ),
    "a field that is missing": (
        lambda b: with_base(b, conditions=[["starts-with", "$Content-Type", ""]]),
        (403, "AccessDenied", POLICY_FAILED + '["starts-with", "$Content-Type", ""]'),
    ),
    "a policy for another bucket": (
        lambda b: signed(b, {"key": "k"}, [{"bucket": "another"}] + BASE),
        (403, "AccessDenied", POLICY_FAILED + '["eq", "$bucket", "another"]'),
    ),
    "a policy for no bucket": (
        lambda b: signed(b, {"key": "k"}, BASE),
        (403, "AccessDenied", "Invalid according to Policy: Extra input fields: bucket"),
    ),
    "a field without a condition": (
        lambda b: with_base(b, fields={"x-amz-meta-a": "1"}),
        (403, "AccessDenied", "Invalid according to Policy: Extra input fields: x-amz-meta-a"),
    ),
    "an expired policy": (
        lambda b: with_base(b, expiration="2020-01-01T00:00:00Z"),
        (403, "AccessDenied", "Invalid according to Policy: Policy expired."),
    ),
    "a file that is too long": (
        lambda b: with_base(b, conditions=[["content-length-range", 0, len(FILE) - 1]]),
        (400, "EntityTooLarge", "exceeds the maximum allowed"),
    ),
    "a file that is too short": (
        lambda b: with_base(b, conditions=[["content-length-range", len(FILE) + 1, 1 << 30]]),
        (400, "EntityTooSmall", "smaller than the minimum allowed"),
    ),
    "a policy that is no JSON": (
        lambda b: with_base(b, document="{"),
        (400, "InvalidPolicyDocument", "Invalid Policy: Invalid JSON."),
    ),
    "a policy without an end": (
        lambda b: with_base(b, document={"conditions": []}),
        (400, "InvalidPolicyDocument", "Invalid Policy: Policy missing expiration."),
    ),
    "a policy without conditions": (
        lambda b: with_base(b, document={"expiration": in_an_hour()}),
        (400, "InvalidPolicyDocument", "Invalid Policy: Policy missing conditions."),
    ),
    "another secret": (
        lambda b: with_base(b, signer=Signer(secret_key="wrong")),
        (403, "SignatureDoesNotMatch", ""),
    ),
    "an unknown access key": (
        lambda b: with_base(b, signer=Signer(access_key="NOSUCHKEY00000000")),
        (403, "InvalidAccessKeyId", ""),
    ),
    "another region": (lambda b: with_base(b, signer=Signer(region="eu-north-9")), (400, "InvalidArgument", "the region 'eu-north-9' is wrong")),
    "a signature that is none": (changed("x-amz-signature", "abc"), (403, "SignatureDoesNotMatch", "")),
    "a policy that was changed": (
        changed("policy", base64.b64encode(b'{"expiration": "2040-01-01T00:00:00Z", "conditions": []}').decode()),
        (403, "SignatureDoesNotMatch", ""),
    ),
    "a date of another day": (changed("x-amz-date", "20200101T000000Z"), (400, "InvalidArgument", "")),
    "another algorithm": (changed("x-amz-algorithm", "AWS4-HMAC-MD5"), (400, "InvalidArgument", "")),
    "a session token": (changed("x-amz-security-token", "token"), (400, "InvalidToken", "")),
    "no signature": (without("x-amz-signature"), (400, "InvalidArgument", missing("X-Amz-Signature"))),
    "no credential": (without("x-amz-credential"), (400, "InvalidArgument", missing("X-Amz-Credential"))),
    "no policy": (without("policy"), (400, "InvalidArgument", missing("Policy"))),
    "no key": (without("key"), (400, "InvalidArgument", missing("key"))),
    "an empty key": (changed("key", ""), (400, "InvalidArgument", "")),
    "a long key": (changed("key", "k" * 1025), (400, "KeyTooLongError", "")),
    "a wrong signature of version 2": (
        lambda b: {"key": "k", "AWSAccessKeyId": ACCESS_KEY, "policy": "e30=", "signature": "x"},
        (403, "SignatureDoesNotMatch", ""),
    ),
    "no signature at all": (lambda b: {"key": "k"}, (403, "AccessDenied", "")),
    "metadata that is too long": (
        lambda b: with_base(b, fields={"x-amz-meta-a": "x" * 2048}, conditions=any_of("x-amz-meta-a")),
        (400, "MetadataTooLarge", ""),
    ),
    "metadata with a line end": (
        lambda b: with_base(b, fields={"x-amz-meta-a": "x\r\ny: z"}, conditions=any_of("x-amz-meta-a")),
        (400, "InvalidArgument", ""),
    ),
    "tags that are no XML": (
        lambda b: with_base(b, fields={"tagging": "not-xml"}, conditions=any_of("tagging")),
        (400, "MalformedXML", ""),
    ),
    "an unknown storage class": (
        lambda b: with_base(b, fields={"x-amz-storage-class": "FakeClass"}, conditions=any_of("x-amz-storage-class")),
        (400, "InvalidStorageClass", ""),
    ),
    "fields that are too long": (
        lambda b: {"x-ignore-a": "x" * 20_480, **with_base(b)},
        (400, "MaxPostPreDataLengthExceededError", ""),
    ),
    "too many fields": (lambda b: [("x-ignore-a", "")] * 300, (400, "MalformedPOSTRequest", "")),
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda name: name.replace(" ", "-"))
def test_a_form_that_must_be_refused_stores_nothing(shared, s3, bucket, case):
    made, (status, code, message) = REFUSED[case]
    response = post(shared, bucket, form(made(bucket)))
    assert (response.status, code_of(response)) == (status, code), response.data
    assert message in message_of(response)
    assert SECRET_KEY.encode() not in response.data
    assert keys(s3, bucket) == []


def test_a_bucket_that_does_not_exist(shared, s3, bucket):
    response = post(shared, "no-such-bucket", form(signed("no-such-bucket", {"key": "k"}, [{"bucket": "no-such-bucket"}] + BASE)))
    assert (response.status, code_of(response)) == (404, "NoSuchBucket")


MALFORMED = {
    "no file": (dict(file=None), "InvalidArgument"),
    "two files": (dict(after=part("file", b"x", "y")), "InvalidArgument"),
    "no closing boundary": (dict(close=b""), "MalformedPOSTRequest"),
    "half a closing boundary": (dict(close=f"--{BOUNDARY}-".encode()), "MalformedPOSTRequest"),
    "a boundary that goes on": (dict(close=f"--{BOUNDARY}x\r\n".encode()), "MalformedPOSTRequest"),
    "bytes after the end": (dict(close=f"--{BOUNDARY}--\r\nmore".encode()), "MalformedPOSTRequest"),
    "a field after the file without an end": (dict(after=part("submit", b"x")[:-2], close=b""), "MalformedPOSTRequest"),
}


@pytest.mark.parametrize("case", MALFORMED, ids=lambda name: name.replace(" ", "-"))
def test_a_malformed_form_stores_nothing(shared, s3, bucket, case):
    options, code = MALFORMED[case]
    for chunked in (False, True):
        body = form(with_base(bucket), **options)
        response = post(shared, bucket, iter([body]) if chunked else body, chunked=chunked)
        assert (response.status, code_of(response)) == (400, code), response.data
    assert keys(s3, bucket) == []


def test_fields_after_the_file_are_missing(shared, s3, bucket):
    fields = with_base(bucket)
    key = fields.pop("key").encode()
    response = post(shared, bucket, form(fields, after=part("key", key)))
    assert (response.status, message_of(response)) == (400, missing("key"))
    assert keys(s3, bucket) == []


def test_a_post_that_is_no_form_is_refused(shared, bucket):
    for content_type, status, code in (
        ("text/html", 412, "PreconditionFailed"),
        ("application/x-www-form-urlencoded", 412, "PreconditionFailed"),
        ("multipart/form-data", 400, "MalformedPOSTRequest"),
    ):
        response = post(shared, bucket, b"key=k", headers={"Content-Type": content_type})
        assert (response.status, code_of(response)) == (status, code)
        if status == 412:
            assert b"<Condition>Bucket POST must be of the enclosure-type multipart/form-data</Condition>" in response.data


def test_only_the_form_authenticates_it(shared, s3, bucket):
    """A signed request around an unsigned form is an unsigned form."""
    body = form({"key": "k"})
    with Connection(shared) as connection:
        content_type = f"multipart/form-data; boundary={BOUNDARY}"
        headers = {"host": connection.host, "content-type": content_type}
        headers = Signer().headers("POST", f"/{bucket}", [], headers, hashlib.sha256(body).hexdigest())
        connection.send_head("POST", f"/{bucket}", {**headers, "content-length": str(len(body))})
        connection.send(body)
        response = connection.read_response()
    assert (response.status, response.code) == (403, "AccessDenied")
    assert keys(s3, bucket) == []


def head_of(server, bucket, length: int, **more) -> bytes:
    host = "%s:%d" % server.address
    lines = [f"POST /{bucket} HTTP/1.1", f"host: {host}", f"content-type: multipart/form-data; boundary={BOUNDARY}"]
    lines += [f"content-length: {length}", *(f"{name}: {value}" for name, value in more.items()), "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("case", ["another secret", "an expired policy", "no signature at all", "a field without a condition"])
def test_a_form_is_judged_before_its_file_is_sent(shared, s3, bucket, case):
    """The answer comes while the file is still with the client: nothing of it was waited for, let alone buffered."""
    made, (status, code, _) = REFUSED[case]
    body = form(made(bucket), b"x" * 1000)
    until_file = body.index(b'name="file"')
    until_file = body.index(b"\r\n\r\n", until_file) + 4
    with Connection(shared) as connection:
        connection.send(head_of(shared, bucket, 1 << 30))
        connection.send(body[:until_file])
        response = connection.read_response()
        assert (response.status, response.code) == (status, code)
        assert response.headers["connection"] == "close"
    assert keys(s3, bucket) == []


def test_expect_100_continue_is_refused_before_the_fields_when_the_head_is_wrong(shared, bucket):
    with socket.create_connection(shared.address, timeout=20) as sock:
        head = head_of(shared, bucket, 1000, expect="100-continue").replace(b"multipart/form-data", b"multipart/mixed")
        sock.sendall(head)
        assert sock.recv(65536).startswith(b"HTTP/1.1 412")
    with socket.create_connection(shared.address, timeout=20) as sock:
        body = form(with_base(bucket))
        sock.sendall(head_of(shared, bucket, len(body), expect="100-continue"))
        assert sock.recv(65536).startswith(b"HTTP/1.1 100")
        sock.sendall(body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize("at", [0.1, 0.5, 0.99])
def test_a_form_that_breaks_off_stores_nothing(shared, s3, bucket, at):
    body = form(with_base(bucket))
    with Connection(shared) as connection:
        connection.send(head_of(shared, bucket, len(body)))
        connection.send(body[: int(len(body) * at)])
        connection.end_of_body()
        response = connection.read_response()
        assert (response.status, response.code) == (400, "IncompleteBody")
    assert keys(s3, bucket) == []


def test_a_connection_goes_on_after_a_form(shared, s3, bucket):
    made = s3.generate_presigned_post(bucket, "k")
    body = form(made["fields"])
    with Connection(shared) as connection:
        for _ in range(2):
            connection.send(head_of(shared, bucket, len(body)) + body)
            response = connection.read_response()
            assert response.status == 204 and "connection" not in response.headers


def test_a_page_of_an_allowed_origin_may_read_the_answer(shared, s3, bucket):
    rule = {"AllowedOrigins": ["https://pages.example"], "AllowedMethods": ["POST"], "ExposeHeaders": ["ETag"]}
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    made = s3.generate_presigned_post(bucket, "k")
    response = post(shared, bucket, form(made["fields"]), headers={"Origin": "https://pages.example"})
    assert response.status == 204
    assert response.headers["Access-Control-Allow-Origin"] == "https://pages.example"
    assert response.headers["Access-Control-Expose-Headers"] == "ETag"
    other = post(shared, bucket, form(made["fields"]), headers={"Origin": "https://elsewhere.example"})
    assert other.status == 204 and "Access-Control-Allow-Origin" not in other.headers


def test_a_bucket_named_by_the_host_takes_forms(make_server):
    server = make_server(config='[gateway]\nbase_domains = ["s3.example.org"]\n')
    server.s3().create_bucket(Bucket="scans")
    fields = signed("scans", {"key": "a/${filename}", "success_action_status": "201"}, [{"bucket": "scans"}] + BASE + any_of("success_action_status"))
    headers = {"Host": "scans.s3.example.org", "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    response = http.request("POST", server.endpoint, body=form(fields), headers=headers)
    assert response.status == 201 and b"<Location>http://scans.s3.example.org/a%2Fscan.dcm</Location>" in response.data
    assert server.s3().get_object(Bucket="scans", Key="a/scan.dcm")["Body"].read() == FILE
