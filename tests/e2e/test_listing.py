"""Listings against the obvious model: a sorted set of keys."""

import random

import pytest

import harness
from harness import error_code
from botocore.exceptions import ClientError


def model(keys, prefix, delimiter, after):
    """What S3 lists: keys and common prefixes in one order, after `after`."""
    out, seen = [], set()
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        rest = key[len(prefix) :]
        if delimiter and delimiter in rest:
            common = prefix + rest[: rest.index(delimiter) + len(delimiter)]
            if common in seen:
                continue
            seen.add(common)
            if not after or common.encode() > after.encode():
                out.append(("prefix", common))
        elif not after or key.encode() > after.encode():
            out.append(("key", key))
    return out


def listed(page):
    entries = [("key", entry["Key"]) for entry in page.get("Contents", [])]
    entries += [("prefix", entry["Prefix"]) for entry in page.get("CommonPrefixes", [])]
    return sorted(entries, key=lambda entry: entry[1].encode())


@pytest.fixture(scope="module")
def filled(shared):
    chance = random.Random(7)
    alphabet = ["a", "b", "/", "//", ".", "-", "ü", "\x01", "zz", "a/"]
    keys = {"".join(chance.choices(alphabet, k=chance.randrange(1, 7))) for _ in range(400)}
    keys = sorted(keys)
    s3 = shared.s3()
    s3.create_bucket(Bucket="listing")
    for key in keys:
        s3.put_object(Bucket="listing", Key=key, Body=b"x")
    doomed = keys[::5]
    for key in doomed:
        s3.delete_object(Bucket="listing", Key=key)
    return [key for key in keys if key not in set(doomed)]


def test_every_page_of_version_2_is_what_the_model_says(s3, filled):
    chance = random.Random(11)
    for _ in range(25):
        prefix = chance.choice(["", "", "a", "a/", "/", "b//", "ü", "none"])
        delimiter = chance.choice(["", "/", "/", "//", "zz", "."])
        after = chance.choice(["", "", "a", "a/b", "b", chance.choice(filled)])
        size = chance.choice([1, 2, 7, 50, 1000])
        expected = model(filled, prefix, delimiter, after)
        if size < 7:
            expected = expected[: 3 * size]
        got, token, pages = [], None, 0
        while True:
            options = {"Bucket": "listing", "Prefix": prefix, "MaxKeys": size}
            if delimiter:
                options["Delimiter"] = delimiter
            if after:
                options["StartAfter"] = after
            if token:
                options["ContinuationToken"] = token
            page = s3.list_objects_v2(**options)
            entries = listed(page)
            assert page["KeyCount"] == len(entries) <= size
            got += entries
            pages += 1
            if not page["IsTruncated"] or (size < 7 and pages == 3):
                break
            token = page["NextContinuationToken"]
        assert got == expected, (prefix, delimiter, after, size)


def test_every_page_of_version_1_is_what_the_model_says(s3, filled):
    for prefix, delimiter, size in [("", "/", 3), ("a", "", 40), ("", "", 1000), ("a/", "/", 2)]:
        got, marker = [], ""
        while True:
            page = s3.list_objects(Bucket="listing", Prefix=prefix, Delimiter=delimiter, Marker=marker, MaxKeys=size)
            got += listed(page)
            if not page["IsTruncated"]:
                break
            marker = page.get("NextMarker") or page["Contents"][-1]["Key"]
        assert got == model(filled, prefix, delimiter, ""), (prefix, delimiter, size)


def test_entries_carry_etag_size_and_owner_when_asked(s3, filled):
    entry = s3.list_objects_v2(Bucket="listing", MaxKeys=1)["Contents"][0]
    assert entry["ETag"] == f'"{harness.md5_hex(b"x")}"' and entry["Size"] == 1 and entry["StorageClass"] == "STANDARD"
    assert "Owner" not in entry
    assert "Owner" in s3.list_objects_v2(Bucket="listing", MaxKeys=1, FetchOwner=True)["Contents"][0]


def test_limits_and_nonsense_are_answered_as_aws_does(s3, filled):
    assert s3.list_objects_v2(Bucket="listing", MaxKeys=0)["KeyCount"] == 0
    assert s3.list_objects_v2(Bucket="listing", MaxKeys=5000)["MaxKeys"] == 1000
    for options in ({"MaxKeys": -1}, {"ContinuationToken": "nonsense"}):
        with pytest.raises(ClientError) as error:
            s3.list_objects_v2(Bucket="listing", **options)
        assert error_code(error.value) == "InvalidArgument"


def test_a_listing_sees_every_write_that_was_acknowledged(s3, bucket):
    for index in range(30):
        s3.put_object(Bucket=bucket, Key=f"{index:03}", Body=b"")
        assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == index + 1
    s3.delete_object(Bucket=bucket, Key="010")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 29


def test_2500_versions_of_one_key_are_listed_once_each(shared, bucket):
    """SeaweedFS #7705: pagination of versions ended or looped at 1,000."""
    import concurrent.futures

    s3 = shared.s3()
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        made = set(pool.map(lambda n: s3.put_object(Bucket=bucket, Key="k", Body=b"%d" % n)["VersionId"], range(2500)))
    assert len(made) == 2500
    listed = [
        version
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket)
        for version in page.get("Versions", [])
    ]
    assert len(listed) == 2500 and {version["VersionId"] for version in listed} == made
    assert [version["IsLatest"] for version in listed] == [True] + [False] * 2499
    assert listed == sorted(listed, key=lambda version: version["LastModified"], reverse=True)
