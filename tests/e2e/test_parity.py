"""Answers that outside suites and SDKs ask for to the letter, from AWS's API reference and user guide."""

import base64
import datetime
import email.header
import hashlib
import itertools
import re

import pytest
from botocore.exceptions import ClientError

import rawhttp
from harness import MIB, error_code, error_status

PAST = datetime.datetime(2015, 1, 1, tzinfo=datetime.timezone.utc)


def outcome(call, **arguments):
    """`OK`, or the error's status and code."""
    try:
        call(**arguments)
    except ClientError as error:
        return error_status(error), error_code(error)
    return "OK"


def uploaded(s3, bucket, key, bodies, **options):
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key, **options)["UploadId"]
    named = {"Bucket": bucket, "Key": key, "UploadId": upload}
    algorithm = {name: options[name] for name in ("ChecksumAlgorithm",) if name in options}
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(**named, **algorithm, PartNumber=number, Body=body)["ETag"]}
        for number, body in enumerate(bodies, 1)
    ]
    return named, parts


def test_empty_bodies_announced_with_expect_leave_botocores_connection_usable(s3, bucket):
    # botocore asks 100-continue for every PUT with a body, an empty one too, and waits in vain for answers that it reads
    # on a connection on which an empty body's answer came without a 100 before it.
    for round_, body in itertools.product(range(5), (b"", b"x", b"", b"")):
        s3.put_object(Bucket=bucket, Key=f"k{round_}", Body=body)
    missing = f"{bucket}-missing"
    for body in (b"", b"x"):
        assert outcome(s3.put_object, Bucket=missing, Key="k", Body=body) == (404, "NoSuchBucket")
        assert outcome(s3.put_object, Bucket=bucket, Key="k", Body=b"after a refusal") == "OK"


# "Working with object metadata", user-defined metadata: the page's example, and a value of ASCII.
METADATA = [("ÄMÄZÕÑ S3", "=?UTF-8?B?w4PChE3Dg8KEWsODwpXDg8KRIFMz?="), ("AMAZONS3", "AMAZONS3"), ("a=?_b", "a=?_b")]


@pytest.mark.parametrize("value, expected", METADATA)
def test_metadata_that_is_not_ascii_comes_back_in_encoded_words(shared, bucket, value, expected):
    s3 = shared.s3()
    # botocore's own check refuses such values; what comes after it sends them as UTF-8.
    s3.meta.events.register(
        "before-call.s3.PutObject", lambda params, **_: params["headers"].update({"x-amz-meta-nonascii": value})
    )
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "k"})
    for key in ("k", "copy"):
        assert s3.get_object(Bucket=bucket, Key=key)["Metadata"] == {"nonascii": expected}
        raw = rawhttp.request(shared, "HEAD", f"/{bucket}/{key}").headers["x-amz-meta-nonascii"]
        assert raw == expected
        # Each byte that was sent is one character of the decoded text.
        decoded = str(email.header.make_header(email.header.decode_header(raw)))
        assert decoded.encode("latin-1").decode() == value


def test_a_write_may_be_conditional_on_an_entity_tag_either_way(s3, bucket):
    put = lambda key="k", **condition: outcome(s3.put_object, Bucket=bucket, Key=key, Body=b"x", **condition)  # noqa: E731
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]

    def complete(**condition):
        named, parts = uploaded(s3, bucket, "k", [b"x"])
        return outcome(s3.complete_multipart_upload, **named, MultipartUpload={"Parts": parts}, **condition)

    for condition, expected in [
        ({"IfNoneMatch": "*"}, (412, "PreconditionFailed")),
        ({"IfNoneMatch": etag}, (412, "PreconditionFailed")),
        ({"IfNoneMatch": '"other"'}, "OK"),
        ({"IfMatch": etag}, "OK"),
        ({"IfMatch": "*"}, "OK"),
        ({"IfMatch": '"other"'}, (412, "PreconditionFailed")),
    ]:
        assert put(**condition) == expected, condition
    assert put("none", IfMatch="*") == put("none", IfMatch=etag) == (404, "NoSuchKey")
    assert put("none", IfNoneMatch=etag) == "OK"
    assert complete(IfNoneMatch="*") == complete(IfMatch='"other"') == (412, "PreconditionFailed")
    assert complete(IfNoneMatch='"other"') == "OK"


@pytest.mark.parametrize("versioned", [False, True])
def test_conditional_deletes(s3, bucket, versioned):
    if versioned:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    delete = lambda key="k", **condition: outcome(s3.delete_object, Bucket=bucket, Key=key, **condition)  # noqa: E731
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    for condition in ({"IfMatch": '"other"'}, {"IfMatchSize": 9}, {"IfMatchLastModifiedTime": PAST}):
        assert delete(**condition) == (412, "PreconditionFailed"), condition
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    for condition in ({"IfMatch": etag}, {"IfMatch": "*"}, {"IfMatchSize": 1}):
        assert delete(**condition) == "OK", condition
        modified = s3.put_object(Bucket=bucket, Key="k", Body=b"x") and s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert delete(IfMatchLastModifiedTime=modified) == "OK"
    # What is not there has no entity tag (S3 was seen to answer so), but any size and time do for it (API reference).
    assert delete("none", IfMatch="*") == delete("none", IfMatch=etag) == (404, "NoSuchKey")
    assert delete("none", IfMatchSize=9) == delete("never", IfMatchLastModifiedTime=PAST) == "OK"
    if versioned:
        # Now delete markers are there: without an entity tag, without bytes, and of now.
        assert delete("none", IfMatch="*") == (404, "NoSuchKey")
        assert delete("none", IfMatchSize=9) == delete("never", IfMatchLastModifiedTime=PAST) == (412, "PreconditionFailed")


def test_a_bucket_is_created_with_its_tags(s3, bucket):
    named = f"{bucket}-tagged"
    tags = [{"Key": "study", "Value": "a b"}, {"Key": "x", "Value": ""}]
    s3.create_bucket(Bucket=named, CreateBucketConfiguration={"Tags": tags})
    assert s3.get_bucket_tagging(Bucket=named)["TagSet"] == tags
    for configuration, expected in [
        ({"Tags": [{"Key": "aws:x", "Value": ""}]}, (400, "InvalidTag")),
        ({"Tags": [{"Key": str(number), "Value": ""} for number in range(51)]}, (400, "BadRequest")),
        ({"LocationConstraint": "nowhere"}, (400, "InvalidLocationConstraint")),
        ({"LocationConstraint": "eu-north-1"}, (400, "IllegalLocationConstraintException")),
    ]:
        refused = outcome(s3.create_bucket, Bucket=f"{bucket}-refused", CreateBucketConfiguration=configuration)
        assert refused == expected, configuration
    assert outcome(s3.head_bucket, Bucket=f"{bucket}-refused") == (404, "404")


def test_a_bucket_with_nothing_but_open_uploads_is_deleted(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    named, _ = uploaded(s3, bucket, "k", [b"x"])
    assert outcome(s3.delete_bucket, Bucket=bucket) == (409, "BucketNotEmpty")
    assert [part["Size"] for part in s3.list_parts(**named)["Parts"]] == [1], "a refusal aborts nothing"
    s3.delete_object(Bucket=bucket, Key="k")
    assert outcome(s3.delete_bucket, Bucket=bucket) == "OK"
    s3.create_bucket(Bucket=bucket)
    assert outcome(s3.list_parts, **named) == (404, "NoSuchUpload")


def test_an_empty_continuation_token_starts_a_listing(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    listed = s3.list_objects_v2(Bucket=bucket, ContinuationToken="")
    assert (listed["ContinuationToken"], listed["KeyCount"], listed["IsTruncated"]) == ("", 1, False)
    assert outcome(s3.list_objects_v2, Bucket=bucket, ContinuationToken="x") == (400, "InvalidArgument")


def test_a_part_copied_from_beyond_its_source_is_an_invalid_range(s3, bucket):
    s3.put_object(Bucket=bucket, Key="source", Body=b"12345")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]

    def copy(range_):
        source = {"Bucket": bucket, "Key": "source"}
        named = {"Bucket": bucket, "Key": "k", "UploadId": upload, "PartNumber": 1}
        return outcome(s3.upload_part_copy, **named, CopySource=source, CopySourceRange=range_)

    assert copy("bytes=0-4") == "OK"
    assert copy("bytes=0-21") == (416, "InvalidRange")
    for range_ in ("0-2", "bytes=0", "bytes=hello-world", "bytes=0-bar", "bytes=hello-", "bytes=0-2,3-4"):
        assert copy(range_) == (400, "InvalidArgument"), range_


def test_parts_are_listed_among_the_attributes_whatever_the_checksum(s3, bucket):
    bodies = [b"a" * 5 * MIB, b"b" * 7]
    for options in ({}, {"ChecksumAlgorithm": "CRC32"}, {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}):
        named, parts = uploaded(s3, bucket, "k", bodies, **options)
        s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
        ask = {"Bucket": bucket, "Key": "k", "ObjectAttributes": ["ObjectParts"]}
        told = s3.get_object_attributes(**ask)["ObjectParts"]
        assert [part["Size"] for part in told["Parts"]] == [len(body) for body in bodies], options
        assert all(("ChecksumCRC32" in part) == bool(options) for part in told["Parts"]), options
        page = s3.get_object_attributes(**ask, MaxParts=1, PartNumberMarker=1)["ObjectParts"]
        assert (page["TotalPartsCount"], page["PartNumberMarker"], page["IsTruncated"]) == (2, 1, False)
        assert [part["PartNumber"] for part in page["Parts"]] == [2]


def test_checksums_that_no_body_can_have_are_bad_digests(s3, bucket):
    for value in ("bad", "AAAA"):
        assert outcome(s3.put_object, Bucket=bucket, Key="k", Body=b"x", ChecksumSHA256=value) == (400, "BadDigest")
    named, parts = uploaded(s3, bucket, "k", [b"x"], ChecksumAlgorithm="SHA256")
    complete = lambda **said: outcome(  # noqa: E731
        s3.complete_multipart_upload, **named, MultipartUpload={"Parts": parts}, **said
    )
    assert complete(ChecksumSHA256="bad") == (400, "BadDigest")
    # The parts' own checksums were verified when they came, and need not be said again.
    assert complete() == "OK"
    assert outcome(s3.complete_multipart_upload, **{**named, "Key": "other"}) == (400, "MalformedXML")


def test_an_empty_tag_set_is_none(s3, bucket):
    for tags in ([{"Key": "k", "Value": "v"}], []):
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    assert outcome(s3.get_bucket_tagging, Bucket=bucket) == (404, "NoSuchTagSet")


def test_an_upload_without_parts_is_listed_and_a_missing_one_named(s3, bucket):
    named, _ = uploaded(s3, bucket, "k", [])
    listed = s3.list_parts(**named)
    assert (listed["PartNumberMarker"], listed["NextPartNumberMarker"], listed["IsTruncated"]) == (0, 0, False)
    s3.abort_multipart_upload(**named)
    with pytest.raises(ClientError) as error:
        s3.list_parts(**named)
    assert error.value.response["Error"]["Code"] == "NoSuchUpload"
    assert error.value.response["Error"]["UploadId"] == named["UploadId"]


def test_a_legal_hold_that_never_was_is_told_from_one_released(s3, bucket):
    locked = f"{bucket}-locked"
    s3.create_bucket(Bucket=locked, ObjectLockEnabledForBucket=True)
    s3.put_object(Bucket=locked, Key="k", Body=b"x")
    named = {"Bucket": locked, "Key": "k"}
    assert outcome(s3.get_object_legal_hold, **named) == (404, "NoSuchObjectLockConfiguration")
    assert "ObjectLockLegalHoldStatus" not in s3.head_object(**named)
    for status in ("ON", "OFF"):
        s3.put_object_legal_hold(**named, LegalHold={"Status": status})
        assert s3.get_object_legal_hold(**named)["LegalHold"] == {"Status": status}
        assert s3.head_object(**named)["ObjectLockLegalHoldStatus"] == status


def test_a_request_may_be_dated_by_date_alone(shared, bucket):
    s3 = shared.s3()
    # botocore signs `Date`, as mail writes it, in place of `x-amz-date` if it is there.
    s3.meta.events.register("before-call.s3.PutObject", lambda params, **_: params["headers"].update({"Date": ""}))
    assert outcome(s3.put_object, Bucket=bucket, Key="k", Body=b"x") == "OK"


def test_an_object_lock_configuration_says_something(s3, bucket):
    locked = f"{bucket}-locked"
    s3.create_bucket(Bucket=locked, ObjectLockEnabledForBucket=True)
    put = lambda **said: outcome(s3.put_object_lock_configuration, Bucket=locked, **said)  # noqa: E731
    assert put() == (400, "MissingRequestBodyError")
    assert put(ObjectLockConfiguration={}) == (400, "MalformedXML")
    assert put(ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}) == "OK"


# Of b"123456789": sha1sum and its like, xxhsum, and the catalogue of CRCs.
CHECKSUMS = {
    "crc32": bytes.fromhex("cbf43926"),
    "crc32c": bytes.fromhex("e3069283"),
    "crc64nvme": bytes.fromhex("ae8b14860a799888"),
    "sha1": hashlib.sha1(b"123456789").digest(),
    "sha256": hashlib.sha256(b"123456789").digest(),
    "sha512": hashlib.sha512(b"123456789").digest(),
    "md5": hashlib.md5(b"123456789").digest(),
    "xxhash64": bytes.fromhex("8cb841db40e6ae83"),
    "xxhash3": bytes.fromhex("72dcb18b67a17dff"),
    "xxhash128": bytes.fromhex("33119477ede5dcd5e9716427681d5860"),
}


@pytest.mark.parametrize("algorithm", CHECKSUMS)
def test_checksums_of_every_kind(shared, bucket, algorithm):
    header, digest = f"x-amz-checksum-{algorithm}", CHECKSUMS[algorithm]
    value, wrong = (base64.b64encode(given).decode() for given in (digest, bytes(len(digest))))

    def ask(method, key, query=(), body=b"", **headers):
        headers = {name.replace("_", "-"): text for name, text in headers.items()}
        return rawhttp.request(shared, method, f"/{bucket}/{key}", query=query, headers=headers, body=body)

    refused = ask("PUT", "k", body=b"123456789", **{header: wrong})
    assert (refused.status, refused.code) == (400, "BadDigest")
    put = ask("PUT", "k", body=b"123456789", **{header: value})
    assert (put.status, put.headers[header], put.headers["x-amz-checksum-type"]) == (200, value, "FULL_OBJECT")
    head = ask("HEAD", "k", x_amz_checksum_mode="ENABLED")
    assert (head.headers[header], head.headers["x-amz-checksum-type"]) == (value, "FULL_OBJECT")
    assert header not in ask("HEAD", "k").headers
    attributes = ask("GET", "k", query=[("attributes", "")], x_amz_object_attributes="Checksum")
    assert f"<Checksum{algorithm.upper()}>{value}</Checksum{algorithm.upper()}>".encode() in attributes.body
    # A copy computes another kind by reading its source.
    rawhttp.request(shared, "PUT", f"/{bucket}/plain", body=b"123456789")
    copied = ask("PUT", "copy", x_amz_copy_source=f"/{bucket}/plain", x_amz_checksum_algorithm=algorithm.upper())
    assert copied.status == 200 and value.encode() in copied.body
    # Of parts: the kind's own type, and the other where S3 has both.
    is_crc = algorithm.startswith("crc")
    for kind in ("COMPOSITE", "FULL_OBJECT"):
        asked = {"x_amz_checksum_algorithm": algorithm.upper(), "x_amz_checksum_type": kind}
        created = ask("POST", "parts", query=[("uploads", "")], **asked)
        if algorithm == "crc64nvme" and kind == "COMPOSITE" or not is_crc and kind == "FULL_OBJECT":
            assert (created.status, created.code) == (400, "InvalidRequest"), kind
            continue
        assert created.headers["x-amz-checksum-type"] == kind
        upload = re.search(rb"<UploadId>(.*)</UploadId>", created.body)[1].decode()
        named = [("partNumber", "1"), ("uploadId", upload)]
        etag = ask("PUT", "parts", query=named, body=b"123456789", **{header: value}).headers["etag"]
        part = f"<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
        done = ask(
            "POST",
            "parts",
            query=named[1:],
            body=f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>".encode(),
        )
        assert (done.status, kind.encode() in done.body) == (200, True), done
        told = ask("HEAD", "parts", x_amz_checksum_mode="ENABLED").headers[header]
        assert told.endswith("-1") if kind == "COMPOSITE" else told == value
