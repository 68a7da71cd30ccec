"""Disks that are full: writes get a clear error, reads and deletes go on, and what was deleted makes room again."""

import os
import subprocess

import pytest
from botocore.exceptions import ClientError

import harness
from harness import MIB, error_code, error_status, random_bytes

BUCKET = "full"
DISK_MIB = 192
# Small objects travel in the metadata commit; so many of them fit on no disk here.
SMALL, SMALL_MAX = 16_000, 20_000


@pytest.fixture
def small_disks(folder):
    """Six file systems in memory."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mounts = []
    try:
        for index in range(6):
            mount = folder / f"mount-{index}"
            mount.mkdir()
            done = harness.run("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=700", "none", mount, check=False)
            if done.returncode != 0:
                pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
            mounts.append(mount)
        yield [mount / f"d{index}" for index, mount in enumerate(mounts)]
    finally:
        for mount in mounts:
            subprocess.run(["umount", "-l", str(mount)], check=False)


@pytest.fixture
def small_server(small_disks, make_server):
    # Made after the mounts, so that it is killed before they go.
    names = ", ".join(f'"{disk}"' for disk in small_disks)
    server = make_server(
        config='[metadata]\ntrash = "0s"\norphan_scan = "1s"\n' f'[storage]\nextent = "16MiB"\ndisks = [{names}]\n'
    )
    server.s3().create_bucket(Bucket=BUCKET)
    return server


def put_until_full(s3, prefix, size, count_max):
    """Returns the keys that were stored; the refusal has to be one that clients understand and retry."""
    stored = []
    for number in range(count_max):
        key = f"{prefix}/{number:05}"
        try:
            s3.put_object(Bucket=BUCKET, Key=key, Body=random_bytes(size, number))
        except ClientError as error:
            assert error_status(error) in (503, 507), error
            return stored
        stored.append(key)
    raise AssertionError(f"{count_max} objects of {size} bytes were stored on {6 * DISK_MIB} MiB")


def assert_readable(s3, keys, size):
    for key in keys:
        number = int(key.rsplit("/", 1)[1])
        assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == random_bytes(size, number), key


def test_full_disks_refuse_writes_serve_reads_and_take_deletes(small_server):
    s3 = small_server.s3()
    stored = put_until_full(s3, "large", 8 * MIB, 6 * DISK_MIB)
    assert 8 * len(stored) > 6 * DISK_MIB // 2, "most of the disks' room is usable"
    assert_readable(s3, stored, 8 * MIB)
    small_server.restart(kill=True)
    s3 = small_server.s3()
    assert_readable(s3, stored[:5] + stored[-5:], 8 * MIB)
    # Neighbours go together, so that whole extents are free at once: copying out of mixed ones needs room of its own.
    kept, doomed = stored[: len(stored) // 4], stored[len(stored) // 4 :]
    for key in doomed:
        s3.delete_object(Bucket=BUCKET, Key=key)

    def writable():
        try:
            s3.put_object(Bucket=BUCKET, Key="again/00001", Body=random_bytes(8 * MIB, 1))
        except ClientError as error:
            assert error_status(error) in (503, 507), error
            return False
        return True

    harness.wait_until(writable, "deleted space to be room for new objects", 90, interval_s=0.3)
    assert_readable(s3, [*kept, "again/00001"], 8 * MIB)
    small_server.wait_healthy()


def test_small_objects_that_fill_the_disks_can_still_be_deleted(small_server):
    s3 = small_server.s3()
    put_until_full(s3, "large", 8 * MIB, 6 * DISK_MIB)
    stored = put_until_full(s3, "small", SMALL, SMALL_MAX)
    assert_readable(s3, stored[-20:], SMALL)
    for key in stored[:50]:
        s3.delete_object(Bucket=BUCKET, Key=key)
    entries = s3.list_objects_v2(Bucket=BUCKET, Prefix="large/")["Contents"]
    for entry in entries:
        s3.delete_object(Bucket=BUCKET, Key=entry["Key"])
    with pytest.raises(ClientError) as error:
        s3.head_object(Bucket=BUCKET, Key=entries[0]["Key"])
    assert error_code(error.value) == "404"
    harness.wait_until(
        lambda: s3.put_object(Bucket=BUCKET, Key="again", Body=random_bytes(8 * MIB)), "room again", 90, interval_s=0.3
    )
