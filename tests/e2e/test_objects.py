"""Objects through boto3: keys as given, ranges, conditions, copies, checksums, errors."""

import base64
import datetime
import random
import zlib

import pytest

import harness
import rawhttp
from harness import MIB, md5_hex, random_bytes, refused

# Around every border: empty, inline, replicated, frame, chunk, several chunks.
SIZES = [0, 1, 16_383, 16_384, 16_385, 65_536, 131_072, 131_073, 300_000, 8 * MIB, 8 * MIB + 1, 20 * MIB + 12_345]


@pytest.mark.parametrize("size", SIZES)
def test_a_body_of_any_size_comes_back_whole_under_its_md5(s3, bucket, size):
    body = random_bytes(size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body, ContentType="application/dicom", Metadata={"a": "b"})
    assert put["ETag"] == f'"{md5_hex(body)}"'
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == body
    head = s3.head_object(Bucket=bucket, Key="k")
    for answer in (got, head):
        assert answer["ETag"] == put["ETag"]
        assert answer["ContentLength"] == size
        assert answer["ContentType"] == "application/dicom"
        assert answer["Metadata"] == {"a": "b"}
        assert answer["AcceptRanges"] == "bytes"


KEYS = [
    "a//b", "/a", "a/./b", "a/../b", "..", ".", "//", "/", "a/", "a", "trailing ", " leading", "a+b", "a%2Fb", "a%b", "a?b#c&d=e",
    "åäö/ß", "日本語", "🧬", "e\u0301", "é", "quote'\"", "back\\slash", "semi;colon", "tab\there", "new\nline", "ctrl\x01\x1f\x7f",
    "<xml>&amp;", "x" * 1024, "ü" * 512,
]  # fmt: skip


def test_keys_are_bytes_as_given(s3, bucket):
    for key in KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for key in KEYS:
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode(), repr(key)
        assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] == len(key.encode())
    listed = [
        entry["Key"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 7})
        for entry in page["Contents"]
    ]
    assert listed == sorted(KEYS, key=str.encode)
    # XML 1.0 has no control characters, so these keys can't be named in a DeleteObjects document or its answer.
    alone = [key for key in KEYS if any(ord(char) < 32 for char in key)]
    for key in alone:
        s3.delete_object(Bucket=bucket, Key=key)
    rest = [key for key in KEYS if key not in alone]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in rest]})
    assert sorted(entry["Key"] for entry in answer["Deleted"]) == sorted(rest)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_any_range_of_any_object_is_that_slice(s3, bucket):
    chance = random.Random(20261124)
    for size in (1, 5_000, 100_000, 200_000, 8 * MIB + 70_000, 17 * MIB + 3):
        body = random_bytes(size)
        s3.put_object(Bucket=bucket, Key="k", Body=body)
        cases = [(0, 0), (0, size - 1), (size - 1, size - 1), (0, size + 10)]
        borders = [border for border in (65_536, 131_072, 8 * MIB, 16 * MIB) if border < size]
        cases += [(border - 1, min(border + 1, size - 1)) for border in borders]
        for _ in range(12):
            first = chance.randrange(size)
            cases.append((first, first + chance.choice([0, 100, 65_535, 200_000, size])))
        for first, last in cases:
            got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-{last}")
            expected = body[first : last + 1]
            assert got["Body"].read() == expected, (size, first, last)
            assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
            assert got["ContentRange"] == f"bytes {first}-{first + len(expected) - 1}/{size}"
        first = chance.randrange(size)
        assert s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-")["Body"].read() == body[first:]
        suffix = chance.randrange(1, size + 1)
        assert s3.get_object(Bucket=bucket, Key="k", Range=f"bytes=-{suffix}")["Body"].read() == body[-suffix:]
        assert s3.get_object(Bucket=bucket, Key="k", Range=f"bytes=-{size + 5}")["Body"].read() == body
        answer = refused(lambda size=size: s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={size}-"), "InvalidRange", 416)
        assert answer["ResponseMetadata"]["HTTPHeaders"].get("content-range", f"bytes */{size}") == f"bytes */{size}"


def test_a_range_that_is_none_is_ignored(shared, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    for header in ("bytes=5-2", "octets=0-1", "bytes=", "bytes=a-b"):
        response = rawhttp.request(shared, "GET", f"/{bucket}/k", headers={"range": header})
        assert (response.status, response.body) == (200, b"0123456789"), (header, response)


def test_conditions_on_reads(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    now = datetime.datetime.now(datetime.timezone.utc)
    past, future = now - datetime.timedelta(hours=1), now + datetime.timedelta(hours=1)
    for name in ("get_object", "head_object"):
        call = getattr(s3, name)
        call(Bucket=bucket, Key="k", IfMatch=etag)
        call(Bucket=bucket, Key="k", IfNoneMatch='"other"')
        call(Bucket=bucket, Key="k", IfModifiedSince=past)
        call(Bucket=bucket, Key="k", IfUnmodifiedSince=future)
        call(Bucket=bucket, Key="k", IfMatch=etag, IfUnmodifiedSince=past)
        code = "PreconditionFailed" if name == "get_object" else "412"
        refused(lambda call=call: call(Bucket=bucket, Key="k", IfMatch='"other"'), code, 412)
        refused(lambda call=call: call(Bucket=bucket, Key="k", IfUnmodifiedSince=past), code, 412)
        refused(lambda call=call: call(Bucket=bucket, Key="k", IfNoneMatch=etag), "304", 304)
        refused(lambda call=call: call(Bucket=bucket, Key="k", IfModifiedSince=now), "304", 304)


def test_conditions_on_writes(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"one", IfNoneMatch="*")["ETag"]
    refused(lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"two", IfNoneMatch="*"), "PreconditionFailed", 412)
    refused(lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"two", IfMatch='"other"'), "PreconditionFailed", 412)
    refused(lambda: s3.put_object(Bucket=bucket, Key="none", Body=b"two", IfMatch=etag), "NoSuchKey", 404)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"one"
    s3.put_object(Bucket=bucket, Key="k", Body=b"two", IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"two"
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"three")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    refused(
        lambda: s3.complete_multipart_upload(
            Bucket=bucket, Key="k", UploadId=upload, MultipartUpload=parts, IfNoneMatch="*"
        ),
        "PreconditionFailed",
        412,
    )
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"two"


@pytest.mark.parametrize("size", [100, 200_000, 9 * MIB])
def test_copies_keep_or_replace_metadata(s3, bucket, size):
    body = random_bytes(size)
    source = {"Bucket": bucket, "Key": "dir/a b+ü"}
    s3.put_object(**source, Body=body, Metadata={"a": "1"}, ContentType="text/x")
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    assert copied["CopyObjectResult"]["ETag"] == f'"{md5_hex(body)}"'
    got = s3.get_object(Bucket=bucket, Key="copy")
    assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (body, {"a": "1"}, "text/x")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, Metadata={"b": "2"}, MetadataDirective="REPLACE")
    assert s3.head_object(Bucket=bucket, Key="copy")["Metadata"] == {"b": "2"}
    refused(lambda: s3.copy_object(Bucket=bucket, CopySource=source, Key=source["Key"]), "InvalidRequest", 400)
    s3.copy_object(Bucket=bucket, CopySource=source, Key=source["Key"], Metadata={"c": "3"}, MetadataDirective="REPLACE")
    s3.delete_object(**source)
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == body, "the copy outlives its source"
    missing = {"Bucket": bucket, "Key": "none"}
    refused(lambda: s3.copy_object(Bucket=bucket, Key="x", CopySource=missing), "NoSuchKey", 404)
    refused(
        lambda: s3.copy_object(Bucket=bucket, Key="x", CopySource={"Bucket": bucket, "Key": "copy"}, CopySourceIfMatch='"z"'),
        "PreconditionFailed",
        412,
    )


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums_are_verified_stored_and_returned(s3, bucket, algorithm):
    if algorithm in ("CRC32C", "CRC64NVME"):
        pytest.importorskip("awscrt", reason="botocore computes this one with awscrt only")
    body = random_bytes(50_000)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body, ChecksumAlgorithm=algorithm)
    name = f"Checksum{algorithm}"
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == body
    assert got[name] == put[name]
    attributes = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Checksum", "ETag", "ObjectSize"])
    assert attributes["Checksum"][name] == put[name]
    assert attributes["ObjectSize"] == len(body) and attributes["ETag"] == md5_hex(body)


# The published check values of "123456789", so that the two that botocore can't compute are tested as well.
@pytest.mark.parametrize(
    "name, value", [("crc32", 0xCBF43926), ("crc32c", 0xE3069283), ("crc64nvme", 0xAE8B14860A799888)]
)
def test_checksum_headers_agree_with_their_published_check_values(shared, s3, bucket, name, value):
    width = 8 if name == "crc64nvme" else 4
    text = base64.b64encode(value.to_bytes(width, "big")).decode()
    wrong = base64.b64encode((value ^ 1).to_bytes(width, "big")).decode()
    body = b"123456789"
    assert rawhttp.request(shared, "PUT", f"/{bucket}/k", body=body, headers={f"x-amz-checksum-{name}": text}).status == 200
    response = rawhttp.request(shared, "PUT", f"/{bucket}/z", body=body, headers={f"x-amz-checksum-{name}": wrong})
    assert (response.status, response.code) == (400, "BadDigest")
    response = rawhttp.request(shared, "HEAD", f"/{bucket}/k", headers={"x-amz-checksum-mode": "ENABLED"})
    assert response.headers[f"x-amz-checksum-{name}"] == text


def test_the_default_checksum_of_a_new_sdk_is_verified(s3, bucket):
    body = random_bytes(3 * MIB)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert base64.b64decode(put["ChecksumCRC32"]) == zlib.crc32(body).to_bytes(4, "big")


def test_an_sdk_that_sends_checksums_only_when_required_works(shared, bucket):
    s3 = shared.s3(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    body = random_bytes(200_000)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}]})


def test_headers_kept_and_overridden(s3, bucket):
    kept = {
        "CacheControl": "max-age=1", "ContentDisposition": "attachment", "ContentEncoding": "gzip",
        "ContentLanguage": "sv", "ContentType": "text/plain; charset=utf-8",
    }  # fmt: skip
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **kept)
    head = s3.head_object(Bucket=bucket, Key="k")
    assert {name: head[name] for name in kept} == kept
    got = s3.get_object(Bucket=bucket, Key="k", ResponseContentType="a/b", ResponseCacheControl="no-store")
    assert (got["ContentType"], got["CacheControl"]) == ("a/b", "no-store")


def test_deleting_is_idempotent_and_quiet_when_asked(s3, bucket):
    assert s3.delete_object(Bucket=bucket, Key="none")["ResponseMetadata"]["HTTPStatusCode"] == 204
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    objects = [{"Key": "k"}, {"Key": "none"}]
    assert len(s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})["Deleted"]) == 2
    assert "Deleted" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
    refused(lambda: s3.get_object(Bucket=bucket, Key="k"), "NoSuchKey", 404)


def test_buckets(s3):
    name = f"made-{random.randrange(10**12)}"
    refused(lambda: s3.head_bucket(Bucket=name), "404", 404)
    refused(lambda: s3.list_objects_v2(Bucket=name), "NoSuchBucket", 404)
    refused(lambda: s3.put_object(Bucket=name, Key="k", Body=b""), "NoSuchBucket", 404)
    refused(lambda: s3.get_object(Bucket=name, Key="k"), "NoSuchBucket", 404)
    refused(lambda: s3.delete_bucket(Bucket=name), "NoSuchBucket", 404)
    s3.create_bucket(Bucket=name)
    s3.head_bucket(Bucket=name)
    assert name in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
    assert s3.get_bucket_location(Bucket=name).get("LocationConstraint") is None
    s3.put_object(Bucket=name, Key="k", Body=b"")
    refused(lambda: s3.delete_bucket(Bucket=name), "BucketNotEmpty", 409)
    s3.delete_object(Bucket=name, Key="k")
    s3.delete_bucket(Bucket=name)
    refused(lambda: s3.head_bucket(Bucket=name), "404", 404)


def test_probes_get_awss_answer_for_a_bucket_without_the_feature(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert s3.get_bucket_acl(Bucket=bucket)["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert s3.get_object_acl(Bucket=bucket, Key="k")["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    refused(lambda: s3.get_bucket_policy(Bucket=bucket), "NoSuchBucketPolicy", 404)
    refused(lambda: s3.get_bucket_lifecycle_configuration(Bucket=bucket), "NoSuchLifecycleConfiguration", 404)
    refused(lambda: s3.get_bucket_cors(Bucket=bucket), "NoSuchCORSConfiguration", 404)
    refused(lambda: s3.get_bucket_tagging(Bucket=bucket), "NoSuchTagSet", 404)
    refused(lambda: s3.get_object_lock_configuration(Bucket=bucket), "ObjectLockConfigurationNotFoundError", 404)
    rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"


def test_errors_of_missing_things(s3, bucket):
    refused(lambda: s3.get_object(Bucket=bucket, Key="none"), "NoSuchKey", 404)
    refused(lambda: s3.head_object(Bucket=bucket, Key="none"), "404", 404)
    refused(
        lambda: s3.get_object_attributes(Bucket=bucket, Key="none", ObjectAttributes=["ETag"]), "NoSuchKey", 404
    )


def test_resumed_and_parallel_ranges_agree_under_one_etag(s3, bucket):
    body = random_bytes(12 * MIB)
    etag = s3.put_object(Bucket=bucket, Key="k", Body=body)["ETag"]
    step = 3 * MIB
    pieces = [
        s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={at}-{at + step - 1}", IfMatch=etag)["Body"].read()
        for at in range(0, len(body), step)
    ]
    assert b"".join(pieces) == body
