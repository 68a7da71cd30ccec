"""What comes back after it was away, older than the rest: disks, indexes and metadata. Nothing is revived or lost."""

import shutil

import pytest
from botocore.exceptions import ClientError

import disks
import harness
from harness import MIB, error_code, random_bytes

BUCKET = "stale"
NO_TRASH = '[metadata]\ntrash = "0s"\norphan_scan = "1s"\n'


def put_all(s3, bodies):
    for key, body in bodies.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)


def assert_state(s3, bodies, gone=()):
    for key, body in bodies.items():
        assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == body, key
    for key in gone:
        with pytest.raises(ClientError) as error:
            s3.get_object(Bucket=BUCKET, Key=key)
        assert error_code(error.value) == "NoSuchKey", key
    listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    assert listed == sorted(bodies)


def generation(number):
    return {f"{size}": random_bytes(size, number) for size in (100, 40_000, 300_000, 9 * MIB)}


@pytest.mark.parametrize("lost", [(0, 2), (3, 4)])
def test_metadata_is_rebuilt_from_the_newest_mirror_when_an_old_disk_is_back(server, lost):
    """Disk 1 was away for the last changes; then two of the disks that have them are lost, and the metadata too."""
    s3 = server.s3()
    s3.create_bucket(Bucket=BUCKET)
    put_all(s3, {**generation(1), "doomed": b"doomed" * 10_000})
    server.move_disk_away(1)
    server.wait_disks("absent", [1])
    bodies = {**generation(2), "new": random_bytes(200_000, 3)}
    put_all(s3, bodies)
    s3.delete_object(Bucket=BUCKET, Key="doomed")
    server.kill()
    server.bring_disk_back(1)
    shutil.rmtree(server.data / "metadata")
    for index in lost:
        server.move_disk_away(index)
    server.start()
    # Shards of what was written while disk 1 was away are on four disks of five at best here: reading needs repair
    # to have run before, so only what the pool promises is asked: the metadata is the newest.
    s3 = server.s3()
    listed = {entry["Key"]: entry["ETag"] for entry in s3.list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert listed == {key: f'"{harness.md5_hex(body)}"' for key, body in bodies.items()}
    for index in lost:
        server.bring_disk_back(index)
    server.wait_disks("online", range(6))
    assert_state(s3, bodies, gone=["doomed"])
    server.wait_healthy()
    for index in lost:
        server.move_disk_away(index)
    assert_state(s3, bodies, gone=["doomed"])


def test_a_disk_that_was_away_during_deletes_revives_nothing(make_server):
    server = make_server(config=NO_TRASH)
    s3 = server.s3()
    s3.create_bucket(Bucket=BUCKET)
    put_all(s3, generation(1))
    full = sum(disk["live_bytes"] for disk in server.status()["disks"])
    server.move_disk_away(3)
    server.wait_disks("absent", [3])
    for key in generation(1):
        s3.delete_object(Bucket=BUCKET, Key=key)
    put_all(s3, {"kept": random_bytes(100_000, 7)})
    server.restart()
    server.bring_disk_back(3)
    server.wait_disks("online", range(6))
    server.wait_healthy()
    assert_state(server.s3(), {"kept": random_bytes(100_000, 7)}, gone=generation(1))

    def reclaimed():
        return sum(disk["live_bytes"] for disk in server.status()["disks"]) < full // 10

    harness.wait_until(reclaimed, "the returned disk to give up what was deleted", 90)


@pytest.mark.parametrize("pattern", ["*.sst", "MANIFEST-*", "CURRENT"])
def test_a_damaged_index_is_rebuilt(server, pattern):
    s3 = server.s3()
    s3.create_bucket(Bucket=BUCKET)
    bodies = generation(1)
    put_all(s3, bodies)
    assert server.terminate() == 0
    damaged = 0
    for index in (0, 1, 2, 3):
        for path in (server.disk_folder(index) / "index").rglob(pattern):
            if path.stat().st_size:
                for at in range(0, path.stat().st_size, 97):
                    disks.flip(path, at, at % 8)
                damaged += 1
    assert damaged >= 4
    server.start()
    assert_state(server.s3(), bodies)
    put_all(server.s3(), {"after": random_bytes(300_000)})
    server.restart(kill=True)
    assert_state(server.s3(), {**bodies, "after": random_bytes(300_000)})


def test_an_old_copy_of_the_metadata_folder_loses_nothing(make_server):
    """Somebody restores last week's backup of the folder. The mirror knows better, and no blob is taken for an orphan."""
    server = make_server(config=NO_TRASH)
    s3 = server.s3()
    s3.create_bucket(Bucket=BUCKET)
    put_all(s3, {"old": random_bytes(50_000)})
    assert server.terminate() == 0
    shutil.copytree(server.data / "metadata", server.folder / "backup")
    server.start()
    bodies = {**generation(1), "old": random_bytes(60_000)}
    put_all(server.s3(), bodies)
    server.kill()
    shutil.rmtree(server.data / "metadata")
    shutil.move(server.folder / "backup", server.data / "metadata")
    try:
        server.start()
    except harness.ServerEnded:
        shutil.rmtree(server.data / "metadata")
        server.start()
    server.wait_healthy()
    assert_state(server.s3(), bodies)
