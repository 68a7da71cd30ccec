"""The full sizes: minutes to an hour, not part of `make test`."""

import concurrent.futures
import os
import random
import threading

from botocore.exceptions import BotoCoreError, ClientError

import harness
from harness import MIB, error_code, random_bytes

GIB = 1024 * MIB
# The default budget, and what the program takes beside it.
MEMORY_MAX = 1 * GIB + 256 * MIB
SECONDS = int(os.environ.get("VALV_SOAK_SECONDS", "300"))


class Repeated:
    """A file of `size` bytes that repeats one random MiB, without being in memory."""

    def __init__(self, size: int):
        self.size, self.at, self.piece = size, 0, random_bytes(MIB)

    def __len__(self):
        return self.size

    def read(self, amount=-1):
        left = self.size - self.at
        amount = left if amount is None or amount < 0 else min(amount, left, MIB - self.at % MIB)
        start = self.at % MIB
        self.at += amount
        return self.piece[start : start + amount] if amount <= MIB - start else (self.piece * (amount // MIB + 2))[start : start + amount]

    def tell(self):
        return self.at

    def seek(self, offset, whence=0):
        self.at = offset if whence == 0 else self.at + offset if whence == 1 else self.size + offset
        return self.at


def test_a_5_gib_put_and_64_parallel_64_mib_uploads_stay_within_the_budget(server):
    s3 = server.s3(retries={"total_max_attempts": 20, "mode": "standard"}, read_timeout=1800)
    s3.create_bucket(Bucket="soak")
    s3.put_object(Bucket="soak", Key="5GiB", Body=Repeated(5 * GIB), ContentLength=5 * GIB)
    assert server.memory_bytes() < MEMORY_MAX, server.memory_bytes() // MIB
    got, piece = s3.get_object(Bucket="soak", Key="5GiB")["Body"], random_bytes(MIB)
    for _ in range(5 * 1024):
        assert got.read(MIB) == piece
    s3.delete_object(Bucket="soak", Key="5GiB")
    body = random_bytes(MIB) * 64
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda n: s3.put_object(Bucket="soak", Key=str(n), Body=body), range(64)))
        wholes = pool.map(lambda n: s3.get_object(Bucket="soak", Key=str(n))["Body"].read() == body, range(64))
        assert all(wholes)
    assert server.memory_bytes() < MEMORY_MAX, server.memory_bytes() // MIB


def test_kills_losses_and_replacements_for_minutes(server):
    """One writer a key; the server is killed, disks are lost and replaced; what was acknowledged is always there."""
    import shutil
    import time

    server.s3().create_bucket(Bucket="soak")
    chance, acknowledged, lock = random.Random(1), {}, threading.Lock()
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        s3, stop, doubtful = server.s3(), threading.Event(), {}

        def write(worker, s3=s3, stop=stop, doubtful=doubtful):
            mine = random.Random(worker + len(acknowledged))
            while not stop.is_set():
                key, body = f"{worker}/{mine.randrange(50)}", random_bytes(mine.choice([10, 30_000, 300_000, 9 * MIB]), mine.randrange(10**6))
                try:
                    s3.put_object(Bucket="soak", Key=key, Body=body)
                except (BotoCoreError, ClientError):
                    doubtful.setdefault(key, []).append(body)
                    continue
                with lock:
                    acknowledged[key] = body
                    doubtful.pop(key, None)

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            writers = [pool.submit(write, worker) for worker in range(6)]
            goal = len(acknowledged) + 5
            harness.wait_until(lambda goal=goal: sum(1 for _ in acknowledged) >= min(goal, 300), "some writes")
            server.kill()
            stop.set()
            for writer in writers:
                writer.result()
        victim = chance.randrange(6)
        shutil.rmtree(server.disk_folder(victim))
        server.start()
        server.valv("disk", "replace", "--disk", f"d{victim}")
        server.wait_healthy(600)
        s3 = server.s3()
        for key, body in acknowledged.items():
            try:
                got = s3.get_object(Bucket="soak", Key=key)["Body"].read()
            except ClientError as error:
                raise AssertionError(f"{key}: {error_code(error)}") from error
            if got != body:
                assert got in doubtful.get(key, []), key
                acknowledged[key] = got
