"""kill -9 at awkward moments: first start, recovery, refilling, multipart, deletes; and losses on top of it."""

import concurrent.futures
import contextlib
import random
import shutil
import threading
import time

import pytest
from botocore.exceptions import BotoCoreError, ClientError

import disks
import harness
from harness import MIB, error_code, error_status, random_bytes

BUCKET = "crashes"
GONE = b"(deleted)"


def read(s3, key) -> bytes:
    try:
        return s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    except ClientError as error:
        if error_code(error) != "NoSuchKey":
            raise
        return GONE


class Load:
    """Parallel clients, each with keys of its own, that remember what was acknowledged and what got no answer."""

    KINDS = ("put", "put", "put", "delete", "copy", "multipart")

    def __init__(self, server, seed: int, workers: int = 6):
        self.s3 = server.s3(connect_timeout=5, read_timeout=60)
        self.seed, self.workers = seed, workers
        self.acknowledged: dict[str, bytes] = {}
        self.doubtful: dict[str, list[bytes]] = {}
        self.done = 0
        self.lock = threading.Lock()
        self.stop = threading.Event()

    def _one(self, chance, key, number):
        body = random_bytes(chance.choice([50, 16_384, 30_000, 140_000, 3 * MIB]), seed=number)
        kind = chance.choice(self.KINDS)
        if kind == "delete":
            return GONE, lambda: self.s3.delete_object(Bucket=BUCKET, Key=key)
        if kind == "copy" and self.acknowledged.get(key, GONE) != GONE:
            source = {"Bucket": BUCKET, "Key": key}
            to = f"{key}-copy"
            return None, lambda: self.s3.copy_object(Bucket=BUCKET, Key=to, CopySource=source)
        if kind == "multipart":
            return body, lambda: self._multipart(key, body)
        return body, lambda: self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    def _multipart(self, key, body):
        upload = self.s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        part = self.s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=3, Body=body)["ETag"]
        parts = {"Parts": [{"PartNumber": 3, "ETag": part}]}
        self.s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload=parts)

    def _work(self, worker):
        chance = random.Random(self.seed * 1000 + worker)
        for number in range(100_000):
            if self.stop.is_set():
                return
            key = f"{self.seed}/{worker}/{chance.randrange(12)}"
            body, call = self._one(chance, key, worker * 100_000 + number)
            if body is None:
                key, body = f"{key}-copy", self.acknowledged[key]
            try:
                call()
            except (BotoCoreError, ClientError):
                with self.lock:
                    self.doubtful.setdefault(key, []).append(body)
                continue
            with self.lock:
                self.acknowledged[key] = body
                self.doubtful.pop(key, None)
                self.done += 1

    @contextlib.contextmanager
    def running(self):
        with concurrent.futures.ThreadPoolExecutor(self.workers) as pool:
            jobs = [pool.submit(self._work, worker) for worker in range(self.workers)]
            try:
                yield self
            finally:
                self.stop.set()
            for job in jobs:
                job.result()

    def wait_for(self, count):
        goal = self.done + count
        harness.wait_until(lambda: self.done >= goal, f"{count} more acknowledgements")

    def check(self, s3):
        for key, body in self.acknowledged.items():
            got = read(s3, key)
            assert got == body or got in self.doubtful.get(key, []), key
        for key, bodies in self.doubtful.items():
            if key not in self.acknowledged:
                assert read(s3, key) in [GONE, *bodies], key
        listed = set()
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self.seed}/"):
            listed.update(entry["Key"] for entry in page.get("Contents", []))
        certain = {key for key in self.acknowledged if key not in self.doubtful}
        assert {key for key in certain if self.acknowledged[key] != GONE} == listed & certain


@pytest.fixture
def ready(server):
    server.s3().create_bucket(Bucket=BUCKET)
    return server


def test_every_acknowledged_change_survives_kill_9(ready):
    for seed in (1, 2):
        load = Load(ready, seed)
        with load.running():
            load.wait_for(60)
            ready.kill()
        ready.start()
        load.check(ready.s3())


@pytest.mark.parametrize("lost", [(0, 3), (2, 4)])
def test_every_acknowledged_change_survives_kill_9_with_the_metadata_and_two_disks_lost(ready, lost):
    """The mirror of a commit is as durable as the commit, wherever the crash falls."""
    load = Load(ready, seed=lost[0] + 10)
    with load.running():
        load.wait_for(80)
        ready.kill()
    shutil.rmtree(ready.data / "metadata")
    for index in lost:
        shutil.rmtree(ready.disk_folder(index))
    ready.start()
    load.check(ready.s3())


def test_disks_may_vanish_while_clients_write(ready):
    """What was acknowledged at any moment of it can be read; with two disks away nothing new is acknowledged."""
    load = Load(ready, seed=21)
    with load.running():
        load.wait_for(40)
        ready.move_disk_away(5)
        ready.wait_disks("absent", [5])
        load.wait_for(40)
        shutil.rmtree(ready.disk_folder(1))
        ready.wait_disks("absent", [1, 5])
    s3 = ready.s3()
    load.check(s3)
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=BUCKET, Key="late", Body=random_bytes(500_000))
    assert error_status(error.value) == 503, error.value
    ready.kill()
    ready.start()
    load.check(ready.s3())
    ready.bring_disk_back(5)
    ready.valv("disk", "replace", "--disk", "d1")
    ready.wait_disks("online", range(6))
    ready.wait_healthy()
    for index in (0, 2):
        ready.move_disk_away(index)
    load.check(ready.s3())


def test_kills_during_recovery_and_refilling_cost_nothing(ready):
    load = Load(ready, seed=31)
    with load.running():
        load.wait_for(80)
        ready.kill()
    shutil.rmtree(ready.disk_folder(3))
    ready.valv("disk", "replace", "--disk", "d3")
    for index in (0, 4):
        shutil.rmtree(ready.disk_folder(index) / "index")
    shutil.rmtree(ready.data / "metadata")
    chance = random.Random(5)
    for _ in range(6):
        ready.spawn()
        # Any moment will do: the point is that the moments differ.
        time.sleep(chance.choice([0.02, 0.05, 0.1, 0.2, 0.4, 0.8]))
        ready.kill()
    ready.start()
    load.check(ready.s3())
    ready.wait_healthy()
    for index in (1, 2):
        ready.move_disk_away(index)
    load.check(ready.s3())


def test_a_first_start_that_is_killed_is_finished_by_the_next(make_server):
    chance = random.Random(8)
    for number in range(6):
        server = make_server(name=f"first-{number}", start=False)
        for _ in range(2):
            server.spawn()
            time.sleep(chance.uniform(0.0, 0.25))
            server.kill()
        server.start()
        s3 = server.s3()
        with contextlib.suppress(ClientError):
            s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="k", Body=random_bytes(300_000))
        server.restart(kill=True)
        assert read(server.s3(), "k") == random_bytes(300_000)
        server.kill()


def test_parts_uploaded_before_a_crash_can_be_completed_after_it(ready):
    s3 = ready.s3()
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="k", Metadata={"a": "b"}, ContentType="x/y")["UploadId"]
    bodies = {1: random_bytes(5 * MIB, 1), 2: random_bytes(5 * MIB, 2), 3: random_bytes(10, 3)}
    etags = {}
    for number in (1, 2, 3):
        if number == 3:
            ready.restart(kill=True)
            s3 = ready.s3()
        part = s3.upload_part(Bucket=BUCKET, Key="k", UploadId=upload, PartNumber=number, Body=bodies[number])
        etags[number] = part["ETag"]
    ready.kill()
    shutil.rmtree(ready.data / "metadata")
    ready.start()
    s3 = ready.s3()
    listed = s3.list_parts(Bucket=BUCKET, Key="k", UploadId=upload)["Parts"]
    assert {part["PartNumber"]: part["ETag"] for part in listed} == etags
    parts = {"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in etags.items()]}
    s3.complete_multipart_upload(Bucket=BUCKET, Key="k", UploadId=upload, MultipartUpload=parts)
    got = s3.get_object(Bucket=BUCKET, Key="k")
    assert got["Body"].read() == b"".join(bodies.values())
    assert got["Metadata"] == {"a": "b"} and got["ContentType"] == "x/y"


def test_damage_beyond_repair_is_an_error_and_never_wrong_bytes(ready):
    """RustFS #6025: reads that silently return something else. Three damaged shards of four plus two are too many."""
    s3 = ready.s3()
    bodies = {name: random_bytes(size, 1) for name, size in [("large", 9 * MIB), ("medium", 700_000), ("small", 90_000)]}
    for key, body in bodies.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    s3.put_object(Bucket=BUCKET, Key="inline", Body=b"fine")
    ready.kill()
    for index in range(6):
        for extent in disks.extents(ready.disk_folder(index)):
            for _, _, _, payload, size in list(disks.records(extent)):
                # The middle of the last third, so that the first frames of a large object stay right.
                disks.flip(extent, payload + size * 5 // 6)
    ready.start()
    s3 = ready.s3()
    failed = 0
    for key, body in bodies.items():
        try:
            got = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        except (BotoCoreError, ClientError):
            failed += 1
        else:
            assert got == body, key
        for first in range(0, len(body), len(body) // 7):
            try:
                got = s3.get_object(Bucket=BUCKET, Key=key, Range=f"bytes={first}-{first + 999}")["Body"].read()
            except (BotoCoreError, ClientError):
                continue
            assert got == body[first : first + 1000], (key, first)
    assert failed > 0, "the damage was beyond what the pool survives"
    assert read(s3, "inline") == b"fine"
    s3.put_object(Bucket=BUCKET, Key="after", Body=random_bytes(500_000))
    assert read(s3, "after") == random_bytes(500_000)
