"""Clients that race each other: conditional writes, overwrites, multipart completions, listings."""

import concurrent.futures
import random
import threading

from botocore.exceptions import ClientError

from harness import MIB, error_code, random_bytes


def outcome(call):
    """The error code of a call, or None if it succeeded."""
    try:
        call()
    except ClientError as error:
        return error_code(error)
    return None


LOST = {"PreconditionFailed", "ConditionalRequestConflict"}


def test_of_many_writers_that_want_an_absent_key_exactly_one_wins(s3, bucket):
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for round_, size in enumerate([10, 40_000, 500_000]):
            bodies = [random_bytes(size, round_ * 100 + writer) for writer in range(12)]
            start = threading.Barrier(12)

            def write(writer, round_=round_, bodies=bodies, start=start):
                start.wait()
                return outcome(
                    lambda: s3.put_object(Bucket=bucket, Key=f"{round_}", Body=bodies[writer], IfNoneMatch="*")
                )

            said = list(pool.map(write, range(12)))
            winners = [writer for writer, code in enumerate(said) if code is None]
            assert len(winners) == 1, said
            assert {code for code in said if code} <= LOST, said
            assert s3.get_object(Bucket=bucket, Key=f"{round_}")["Body"].read() == bodies[winners[0]]


def test_no_increment_of_a_counter_is_lost(s3, bucket):
    """Compare and swap by ETag: the commit is conditional, not only the check before it."""
    s3.put_object(Bucket=bucket, Key="counter", Body=b"0")

    def count(_):
        done = 0
        while done < 6:
            found = s3.get_object(Bucket=bucket, Key="counter")
            value = int(found["Body"].read())
            code = outcome(
                lambda: s3.put_object(Bucket=bucket, Key="counter", Body=b"%d" % (value + 1), IfMatch=found["ETag"])  # noqa: B023
            )
            assert code is None or code in LOST, code
            done += code is None

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(count, range(6)))
    assert s3.get_object(Bucket=bucket, Key="counter")["Body"].read() == b"36"


def test_an_upload_is_completed_once_and_late_completions_say_the_same_or_that_it_is_gone(s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    bodies = [random_bytes(5 * MIB, 1), random_bytes(1000, 2)]
    parts = [
        {"PartNumber": n, "ETag": s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=n, Body=body)["ETag"]}
        for n, body in enumerate(bodies, 1)
    ]

    def complete(_):
        return outcome(
            lambda: s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
        )

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        said = list(pool.map(complete, range(6)))
    assert None in said and set(said) <= {None, "NoSuchUpload"}, said
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"".join(bodies)
    assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_aborting_and_completing_at_once_is_one_or_the_other(s3, bucket):
    for number in range(6):
        key = f"k{number}"
        upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        part = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=random_bytes(200_000))["ETag"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            completed = pool.submit(
                outcome,
                lambda key=key, upload=upload, parts=parts: s3.complete_multipart_upload(
                    Bucket=bucket, Key=key, UploadId=upload, MultipartUpload=parts
                ),
            )
            aborted = pool.submit(
                outcome, lambda key=key, upload=upload: s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
            )
        if completed.result() is None:
            assert aborted.result() in (None, "NoSuchUpload")
            assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == random_bytes(200_000)
        else:
            assert (completed.result(), aborted.result()) == ("NoSuchUpload", None)
            assert outcome(lambda key=key: s3.get_object(Bucket=bucket, Key=key)) == "NoSuchKey"


def test_a_bucket_is_deleted_only_while_it_is_empty(s3):
    """The emptiness of a bucket is guarded: a PUT that raced its deletion is either refused or keeps it."""
    for number in range(8):
        name = f"racing-{number}-bucket"
        s3.create_bucket(Bucket=name)
        start = threading.Barrier(2)

        def put(name=name, start=start):
            start.wait()
            return outcome(lambda: s3.put_object(Bucket=name, Key="k", Body=b"x"))

        def delete(name=name, start=start):
            start.wait()
            return outcome(lambda: s3.delete_bucket(Bucket=name))

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            stored, deleted = pool.submit(put), pool.submit(delete)
        pair = (stored.result(), deleted.result())
        assert pair in ((None, "BucketNotEmpty"), ("NoSuchBucket", None)), pair
        if stored.result() is None:
            assert s3.get_object(Bucket=name, Key="k")["Body"].read() == b"x"
            s3.delete_object(Bucket=name, Key="k")
            s3.delete_bucket(Bucket=name)
        assert outcome(lambda name=name: s3.head_bucket(Bucket=name)) == "404"


def test_a_listing_during_writes_misses_nothing_that_was_there_before(s3, bucket):
    fixed = [f"fixed/{number:03}" for number in range(120)]
    for key in fixed:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    stop = threading.Event()

    def churn(worker):
        chance = random.Random(worker)
        while not stop.is_set():
            key = f"fixed/{chance.randrange(120):03}-{worker}"
            s3.put_object(Bucket=bucket, Key=key, Body=b"x")
            s3.delete_object(Bucket=bucket, Key=key)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        churns = [pool.submit(churn, worker) for worker in range(3)]
        try:
            for size in (1000, 7, 31):
                keys = []
                pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": size})
                for page in pages:
                    keys += [entry["Key"] for entry in page.get("Contents", [])]
                assert keys == sorted(keys) and len(set(keys)) == len(keys)
                assert set(fixed) <= set(keys)
        finally:
            stop.set()
        for done in churns:
            done.result()
