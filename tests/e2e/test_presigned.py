"""Presigned URLs and forms as SDKs make them by default: version 2 for us-east-1, headers moved into the query."""

import hashlib
import hmac
import time
import urllib.parse

import boto3
import pytest
import urllib3

from harness import ACCESS_KEY, REGION, SECRET_KEY


@pytest.fixture
def by_default(shared):
    """A client with no word said about signatures."""
    return boto3.client(
        "s3",
        endpoint_url=shared.endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    )


def send(method: str, url: str, body: bytes | None = None, headers: dict | None = None, **options):
    """One request, without a word of a client's own."""
    # urllib3 leaves the path as it is signed.
    request = urllib3.PoolManager(retries=False).request
    if body is not None:
        options["body"] = body
    return request(method, url, headers=headers, timeout=30, **options)


def code(answer) -> str:
    return answer.data.decode().split("<Code>")[1].split("</Code>")[0]


def test_urls_of_a_client_with_boto3s_defaults_are_honoured(by_default, s3, bucket):
    key = "a b/å+%.txt"
    put = by_default.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": key})
    assert send("PUT", put, body=b"body").status == 200
    get = by_default.generate_presigned_url(
        "get_object",
        Params={"Bucket": bucket, "Key": key, "ResponseContentType": "text/x-test", "ResponseContentDisposition": 'a; b="c"'},
    )
    answer = send("GET", get)
    assert (answer.status, answer.data, answer.headers["Content-Type"]) == (200, b"body", "text/x-test")
    assert send("GET", get, headers={"Range": "bytes=1-2"}).data == b"od"
    delete = by_default.generate_presigned_url("delete_object", Params={"Bucket": bucket, "Key": key})
    assert send("DELETE", delete).status == 204
    assert send("GET", get).status == 404


def test_headers_that_boto3_puts_under_the_signature_are_kept(by_default, s3, bucket):
    url = by_default.generate_presigned_url(
        "put_object",
        Params={"Bucket": bucket, "Key": "k", "ContentType": "image/png", "Metadata": {"site": "Lund"}},
    )
    assert send("PUT", url, body=b"x").status == 200
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ContentType"], head["Metadata"]) == ("image/png", {"site": "Lund"})


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda url: url.replace("/k?", "/other?"), "SignatureDoesNotMatch"),
        (lambda url: url + "&versionId=null", "SignatureDoesNotMatch"),
        (lambda url: url + "&retention", "InvalidRequest"),
        (lambda url: url + "&attributes", "InvalidRequest"),
        (lambda url: url + "&list-type=2", "InvalidRequest"),
        (lambda url: url.replace("Signature=", "Signature=A"), "SignatureDoesNotMatch"),
        (lambda url: url.replace(ACCESS_KEY, "NOBODY"), "InvalidAccessKeyId"),
        (lambda url: url.split("Expires=")[0] + "Expires=1", "AccessDenied"),
        (lambda url: url.split("Expires=")[0] + f"Expires={int(time.time()) + 8 * 86_400}", "AccessDenied"),
    ],
    ids=["key", "version", "retention", "attributes", "listing", "signature", "access key", "expired", "too long"],
)
def test_a_changed_version_2_url_is_refused(by_default, s3, bucket, change, expected):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    url = by_default.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    assert send("GET", url).status == 200
    refused = send("GET", change(url))
    assert refused.status in (400, 403) and code(refused) == expected


def test_forms_of_a_client_with_boto3s_defaults_are_honoured(by_default, s3, bucket):
    form = by_default.generate_presigned_post(
        bucket, "up/${filename}", Fields={"acl": "private"}, Conditions=[{"acl": "private"}, ["starts-with", "$key", "up/"]]
    )
    assert "AWSAccessKeyId" in form["fields"]
    answer = send("POST", form["url"], fields=[*form["fields"].items(), ("file", ("a.txt", b"body"))])
    assert answer.status == 204, answer.data
    assert s3.get_object(Bucket=bucket, Key="up/a.txt")["Body"].read() == b"body"
    form["fields"]["signature"] = "AAAA" + form["fields"]["signature"][4:]
    refused = send("POST", form["url"], fields=[*form["fields"].items(), ("file", ("b.txt", b"body"))])
    assert (refused.status, code(refused)) == (403, "SignatureDoesNotMatch")


def presigned_v4(shared, method: str, path: str, **query) -> str:
    """A URL as SDKs for JavaScript and Go make it: every header moved into the query, host alone signed as a header."""
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{now[:8]}/{REGION}/s3/aws4_request"
    parameters = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{ACCESS_KEY}/{scope}",
        "X-Amz-Date": now,
        "X-Amz-Expires": "300",
        "X-Amz-SignedHeaders": "host",
        **{name.replace("_", "-"): value for name, value in query.items()},
    }
    quote = urllib.parse.quote
    text = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(parameters.items()))
    host = urllib.parse.urlsplit(shared.endpoint).netloc
    canonical = "\n".join([method, path, text, f"host:{host}\n", "host", "UNSIGNED-PAYLOAD"])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{SECRET_KEY}".encode()
    for word in [*scope.split("/")]:
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    return f"{shared.endpoint}{path}?{text}&X-Amz-Signature={hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()}"


def test_headers_moved_into_a_version_4_url_are_honoured_and_checksums_there_are_not(shared, s3, bucket):
    url = presigned_v4(
        shared,
        "PUT",
        f"/{bucket}/k",
        x_amz_meta_site="Lund",
        x_amz_tagging="a=b",
        x_amz_storage_class="STANDARD",
        x_amz_checksum_crc32="AAAAAA==",
        x_amz_sdk_checksum_algorithm="CRC32",
    )
    assert send("PUT", url, body=b"not empty").status == 200
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"site": "Lund"}
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "a", "Value": "b"}]

    url = presigned_v4(shared, "PUT", f"/{bucket}/copy", x_amz_copy_source=f"{bucket}/k")
    assert send("PUT", url).status == 200
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == b"not empty"

    refused = send("PUT", presigned_v4(shared, "PUT", f"/{bucket}/k", x_amz_storage_class="GLACIER"), body=b"x")
    assert (refused.status, code(refused)) == (400, "InvalidStorageClass")
    tampered = presigned_v4(shared, "PUT", f"/{bucket}/k", x_amz_meta_site="Lund").replace("Lund", "Oslo")
    assert code(send("PUT", tampered, body=b"x")) == "SignatureDoesNotMatch"
