"""The multipart family."""

import hashlib

import pytest

from harness import MIB, random_bytes, refused


def etag_of(parts):
    return '"%s-%d"' % (hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest(), len(parts))


def upload(s3, bucket, key, parts, numbers=None, **options):
    numbers = numbers or range(1, len(parts) + 1)
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key=key, **options)["UploadId"]
    done = []
    for number, part in zip(numbers, parts):
        answer = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=part)
        done.append({"PartNumber": number, "ETag": answer["ETag"]})
    return upload_id, done


PARTS = [random_bytes(5 * MIB, 1), random_bytes(9 * MIB + 77, 2), random_bytes(5 * MIB, 3), random_bytes(10, 4)]


def test_parts_become_one_object_with_awss_etag(s3, bucket):
    upload_id, done = upload(s3, bucket, "k", PARTS, Metadata={"a": "b"}, ContentType="x/y")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0, "nothing is visible before completion"
    answer = s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload_id, MultipartUpload={"Parts": done})
    assert answer["ETag"] == etag_of(PARTS)
    whole = b"".join(PARTS)
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == whole
    assert (got["ETag"], got["Metadata"], got["ContentType"]) == (etag_of(PARTS), {"a": "b"}, "x/y")
    for first, last in [(0, 10), (5 * MIB - 5, 5 * MIB + 5), (len(whole) - 15, len(whole) - 1), (4 * MIB, 16 * MIB)]:
        got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-{last}")["Body"].read()
        assert got == whole[first : last + 1], (first, last)
    for number, part in enumerate(PARTS, 1):
        got = s3.get_object(Bucket=bucket, Key="k", PartNumber=number)
        assert got["Body"].read() == part and got["PartsCount"] == len(PARTS)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    attributes = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectParts", "ObjectSize"])
    assert attributes["ObjectSize"] == len(whole) and attributes["ObjectParts"]["TotalPartsCount"] == len(PARTS)
    refused(lambda: s3.list_parts(Bucket=bucket, Key="k", UploadId=upload_id), "NoSuchUpload", 404)


def test_parts_in_any_order_with_gaps_and_replacements(s3, bucket):
    upload_id, _ = upload(s3, bucket, "k", [b"old", PARTS[2], PARTS[0], b"never named"], numbers=[9000, 700, 3, 4])
    last = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload_id, PartNumber=9000, Body=b"new")
    parts = {part["PartNumber"]: part["ETag"] for part in s3.list_parts(Bucket=bucket, Key="k", UploadId=upload_id)["Parts"]}
    assert sorted(parts) == [3, 4, 700, 9000] and parts[9000] == last["ETag"]
    chosen = [{"PartNumber": number, "ETag": parts[number]} for number in (3, 700, 9000)]
    s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload_id, MultipartUpload={"Parts": chosen})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == PARTS[0] + PARTS[2] + b"new"


def test_completions_that_are_refused(s3, bucket):
    upload_id, done = upload(s3, bucket, "k", [PARTS[0], PARTS[2]])

    def complete(parts, upload_id=upload_id):
        return lambda: s3.complete_multipart_upload(
            Bucket=bucket, Key="k", UploadId=upload_id, MultipartUpload={"Parts": parts}
        )

    refused(complete(list(reversed(done))), "InvalidPartOrder", 400)
    refused(complete([done[0], {**done[1], "ETag": '"0123456789abcdef0123456789abcdef"'}]), "InvalidPart", 400)
    refused(complete([done[0], {**done[1], "PartNumber": 3}]), "InvalidPart", 400)
    refused(complete(done, "0" * 32), "NoSuchUpload", 404)
    refused(complete(done, "nonsense"), "NoSuchUpload", 404)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    complete(done)()
    complete(done)()  # a client that lost the answer asks again

    upload_id, done = upload(s3, bucket, "small", [b"too small", b"last"])
    refused(
        lambda: s3.complete_multipart_upload(
            Bucket=bucket, Key="small", UploadId=upload_id, MultipartUpload={"Parts": done}
        ),
        "EntityTooSmall",
        400,
    )


def test_part_numbers_outside_1_to_10000_are_refused(s3, bucket):
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    for number in (0, 10_001):
        refused(
            lambda number=number: s3.upload_part(Bucket=bucket, Key="k", UploadId=upload_id, PartNumber=number, Body=b"x"),
            "InvalidArgument",
            400,
        )


def test_aborting_forgets_the_upload(s3, bucket):
    upload_id, _ = upload(s3, bucket, "k", [PARTS[0]])
    assert [entry["UploadId"] for entry in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload_id]
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload_id)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    refused(
        lambda: s3.upload_part(Bucket=bucket, Key="k", UploadId=upload_id, PartNumber=1, Body=b"x"), "NoSuchUpload", 404
    )
    refused(lambda: s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload_id), "NoSuchUpload", 404)
    s3.delete_bucket(Bucket=bucket)


def test_listings_of_parts_and_uploads_are_paged(s3, bucket):
    made = []
    for key in ("a/1", "a/2", "b", "b", "c"):
        made.append((key, s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]))
    got = []
    for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2}):
        got += [(entry["Key"], entry["UploadId"]) for entry in page.get("Uploads", [])]
    assert sorted(got) == sorted(made) and [key for key, _ in got] == sorted(key for key, _ in made)
    page = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [entry["Prefix"] for entry in page["CommonPrefixes"]] == ["a/"] and len(page["Uploads"]) == 3
    for number in range(1, 8):
        s3.upload_part(Bucket=bucket, Key="c", UploadId=made[-1][1], PartNumber=number, Body=b"x" * number)
    pages = list(
        s3.get_paginator("list_parts").paginate(
            Bucket=bucket, Key="c", UploadId=made[-1][1], PaginationConfig={"PageSize": 3}
        )
    )
    assert len(pages) == 3
    assert [(part["PartNumber"], part["Size"]) for page in pages for part in page["Parts"]] == [(n, n) for n in range(1, 8)]


def test_parts_are_copied_whole_and_by_range(s3, bucket):
    body = PARTS[1]
    s3.put_object(Bucket=bucket, Key="source ü", Body=body)
    source = {"Bucket": bucket, "Key": "source ü"}
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    copy = lambda number, **options: {  # noqa: E731
        "PartNumber": number,
        "ETag": s3.upload_part_copy(
            Bucket=bucket, Key="k", UploadId=upload_id, PartNumber=number, CopySource=source, **options
        )["CopyPartResult"]["ETag"],
    }
    parts = [copy(1), copy(2, CopySourceRange=f"bytes=100-{6 * MIB}"), copy(3, CopySourceRange="bytes=5-5")]
    s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload_id, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body + body[100 : 6 * MIB + 1] + body[5:6]
    refused(lambda: copy(4, CopySourceRange=f"bytes=0-{len(body)}"), "NoSuchUpload", 404)


@pytest.mark.parametrize("kind, algorithm", [("FULL_OBJECT", "CRC32"), ("COMPOSITE", "SHA256")])
def test_checksums_of_multipart_objects(s3, bucket, kind, algorithm):
    upload_id = s3.create_multipart_upload(
        Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm, ChecksumType=kind
    )["UploadId"]
    name, done = f"Checksum{algorithm}", []
    for number, part in enumerate([PARTS[0], PARTS[3]], 1):
        answer = s3.upload_part(
            Bucket=bucket, Key="k", UploadId=upload_id, PartNumber=number, Body=part, ChecksumAlgorithm=algorithm
        )
        done.append({"PartNumber": number, "ETag": answer["ETag"], name: answer[name]})
    answer = s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload_id, MultipartUpload={"Parts": done}, ChecksumType=kind
    )
    assert answer["ChecksumType"] == kind
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head[name] == answer[name] and head["ChecksumType"] == kind
    assert answer[name].endswith("-2") == (kind == "COMPOSITE")
