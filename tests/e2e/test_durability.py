"""What an acknowledgement is worth: kill -9, lost disks, damaged disks, lost metadata, replaced disks."""

import concurrent.futures
import random
import shutil
import threading
import time

import pytest
from botocore.exceptions import BotoCoreError, ClientError

import disks
import harness
from harness import MIB, error_code, error_status, md5_hex, random_bytes

BUCKET = "durable"
# Inline, replicated, one chunk, several chunks.
SIZES = [0, 100, 16_384, 40_000, 131_072, 500_000, 9 * MIB]


def fill(s3, count=1, prefix="", sizes=SIZES):
    """Puts `count` objects of each size and returns what was acknowledged."""
    bodies = {}
    for size in sizes:
        for index in range(count):
            key = f"{prefix}{size}/{index}"
            bodies[key] = random_bytes(size, seed=index)
            s3.put_object(Bucket=BUCKET, Key=key, Body=bodies[key], Metadata={"size": str(size)})
    return bodies


def fill_multipart(s3, key="multipart"):
    parts = [random_bytes(5 * MIB, 1), random_bytes(6 * MIB + 5, 2), b"tail"]
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    done = [
        {"PartNumber": n, "ETag": s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=n, Body=part)["ETag"]}
        for n, part in enumerate(parts, 1)
    ]
    s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": done})
    return {key: b"".join(parts)}


def assert_all_whole(s3, bodies):
    for key, body in bodies.items():
        assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == body, key
    listed = {
        entry["Key"]: entry["Size"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        for entry in page.get("Contents", [])
    }
    for key, body in bodies.items():
        assert listed.get(key) == len(body), key


@pytest.fixture
def filled(server):
    s3 = server.s3()
    s3.create_bucket(Bucket=BUCKET)
    return server, {**fill(s3), **fill_multipart(s3)}


def test_restart_finds_everything(filled):
    server, bodies = filled
    server.restart()
    assert_all_whole(server.s3(), bodies)
    server.restart(kill=True)
    assert_all_whole(server.s3(), bodies)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_acknowledged_object_survives_kill_9_in_the_middle_of_parallel_uploads(server, seed):
    server.s3().create_bucket(Bucket=BUCKET)
    acknowledged, in_doubt = {}, {}
    lock = threading.Lock()
    chance = random.Random(seed)
    for round_ in range(3):
        s3 = server.s3(retries={"total_max_attempts": 1})
        stop = threading.Event()

        def upload(worker, s3=s3, round_=round_, stop=stop):
            mine = random.Random(seed * 100 + worker)
            for index in range(10_000):
                if stop.is_set():
                    return
                key = f"{round_}/{worker}/{index % 20}"  # keys are overwritten too
                body = random_bytes(mine.choice(SIZES[:-1] + [3 * MIB]), seed=worker * 1000 + index + round_ * 77)
                try:
                    s3.put_object(Bucket=BUCKET, Key=key, Body=body)
                except (BotoCoreError, ClientError):
                    with lock:
                        in_doubt.setdefault(key, []).append(body)
                    return
                with lock:
                    acknowledged[key] = body
                    in_doubt.pop(key, None)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(upload, worker) for worker in range(8)]
            before = len(acknowledged)
            enough = before + chance.randrange(30, 80)
            harness.wait_until(lambda enough=enough: len(acknowledged) >= enough, "uploads under way")
            server.kill()
            stop.set()
            for job in jobs:
                job.result()
        server.start()
        s3 = server.s3()
        for key, body in acknowledged.items():
            got = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            # An upload that got no answer may or may not have happened, but only as a whole.
            assert got == body or got in in_doubt.get(key, []), key
        for key, bodies in in_doubt.items():
            if key not in acknowledged:
                try:
                    assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() in bodies
                except ClientError as error:
                    assert error_code(error) == "NoSuchKey"


@pytest.mark.parametrize("lost", [(0, 1), (2, 5), (3, 4)])
def test_two_disks_lost_while_stopped(filled, lost):
    server, bodies = filled
    assert server.terminate() == 0
    for index in lost:
        server.move_disk_away(index)
    server.start()
    s3 = server.s3()
    assert_all_whole(s3, bodies)
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=BUCKET, Key="new", Body=random_bytes(500_000))
    assert error_status(error.value) == 503, error.value
    assert "new" not in [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]


def test_disks_lost_one_after_the_other_while_running_and_back_again(filled):
    server, bodies = filled
    s3 = server.s3()
    server.move_disk_away(1)
    assert_all_whole(s3, bodies)
    server.wait_disks("absent", [1])
    bodies.update(fill(s3, prefix="one-away/"))
    server.move_disk_away(4)
    server.wait_disks("absent", [1, 4])
    assert_all_whole(s3, bodies)
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=BUCKET, Key="new", Body=random_bytes(500_000))
    assert (error_status(error.value), error_code(error.value)) in [(503, "SlowDown"), (503, "ServiceUnavailable")]
    for index in (1, 4):
        server.bring_disk_back(index)
    server.wait_disks("online", [1, 4])
    server.wait_healthy()
    s3.put_object(Bucket=BUCKET, Key="new", Body=b"again")
    # What was written while disk 1 was away has been rebuilt there: two others may go.
    for index in (0, 5):
        server.move_disk_away(index)
    assert_all_whole(s3, bodies)


def test_a_replaced_disk_is_refilled_and_then_two_others_may_be_lost(filled):
    server, bodies = filled
    shutil.rmtree(server.disk_folder(2))
    server.wait_disks("absent", [2])
    server.disk_folder(2).mkdir()
    server.wait_disks("absent", [2])  # an empty folder is never initialised silently
    server.valv("disk", "replace", "--disk", "d2")
    server.wait_disks("online", [2])
    status = server.wait_healthy()
    assert status["shards_repaired"] > 0
    assert status["census"]["shards_present"] == status["census"]["shards_expected"]
    for index in (0, 3):
        server.move_disk_away(index)
    assert_all_whole(server.s3(), bodies)
    server.restart(kill=True)
    assert_all_whole(server.s3(), bodies)


def test_a_disk_replaced_while_the_server_is_stopped_is_refilled(filled):
    server, bodies = filled
    assert server.terminate() == 0
    for index in (1, 2):
        shutil.rmtree(server.disk_folder(index))
        server.valv("disk", "replace", "--disk", f"d{index}")
    server.start()
    server.wait_healthy()
    for index in (4, 5):
        server.move_disk_away(index)
    assert_all_whole(server.s3(), bodies)


def test_disks_with_anything_on_them_are_never_initialised(filled):
    server, _ = filled
    done = server.valv("disk", "replace", "--disk", "d2", check=False)
    assert done.returncode != 0 and "d2" in done.stderr
    assert server.valv("disk", "replace", "--disk", "nonsense", check=False).returncode != 0


def overwrite_randomly(folder, chance):
    """Random garbage over some tenths of what every extent holds, its header included."""
    for extent in disks.extents(folder):
        end = max((payload + size for _, _, _, payload, size in disks.records(extent)), default=4096)
        with open(extent, "r+b") as file:
            for _ in range(40):
                length = chance.randrange(1, max(2, end // 50))
                file.seek(chance.randrange(0, max(1, end - length)))
                file.write(chance.randbytes(length))


@pytest.mark.parametrize("live", [False, True], ids=["stopped", "running"])
def test_two_disks_with_random_damage_in_every_extent(filled, live):
    server, bodies = filled
    if not live:
        server.kill()
    chance = random.Random(42)
    for index in (1, 3):
        overwrite_randomly(server.disk_folder(index), chance)
    if not live:
        server.start()
    assert_all_whole(server.s3(), bodies)
    assert_all_whole(server.s3(), fill(server.s3(), prefix="after/", sizes=[100, 500_000]))


def test_every_byte_of_a_record_may_flip(server):
    """Bits in each field of the header, in the table, the payload and the padding, on two disks at once."""
    s3 = server.s3()
    s3.create_bucket(Bucket=BUCKET)
    bodies = fill(s3, count=2, sizes=[40_000, 700_000])
    chance = random.Random(3)
    for round_ in range(3):
        server.kill()
        flipped = 0
        for index in (round_, round_ + 2):
            for extent in disks.extents(server.disk_folder(index)):
                for nth, (at, _, table, payload, size) in enumerate(list(disks.records(extent))):
                    fields = [0, 4, 5, 6, 8, 16, 24, 32, 40, 48, 60, 84, 88, 92, 120, 124]
                    region = nth % 4
                    if region == 0:
                        offset = at + fields[(nth // 4 + round_ * 5) % len(fields)]
                    elif region == 1:
                        offset = table + chance.randrange(max(1, payload - table))
                    else:
                        offset = payload + chance.randrange(max(1, size))
                    disks.flip(extent, offset, chance.randrange(8))
                    flipped += 1
        assert flipped > 4
        server.start()
        assert_all_whole(server.s3(), bodies)
        # Damage that no read met is latent: it has to be found, and mended, before the next round damages other disks.
        server.status(verify=True)
        server.wait_healthy()


def test_the_metadata_folder_is_rebuilt_from_the_disks(filled):
    server, bodies = filled
    s3 = server.s3()
    s3.delete_object(Bucket=BUCKET, Key="100/0")
    del bodies["100/0"]
    s3.put_object(Bucket=BUCKET, Key="40000/0", Body=b"overwritten")
    bodies["40000/0"] = b"overwritten"
    server.kill()
    shutil.rmtree(server.data / "metadata")
    server.start()
    s3 = server.s3()
    assert_all_whole(s3, bodies)
    with pytest.raises(ClientError):
        s3.get_object(Bucket=BUCKET, Key="100/0")
    assert s3.head_object(Bucket=BUCKET, Key="500000/0")["Metadata"] == {"size": "500000"}
    bodies.update(fill(s3, prefix="after/"))
    server.kill()
    shutil.rmtree(server.data / "metadata")
    server.start()
    assert_all_whole(server.s3(), bodies)


@pytest.mark.parametrize("victims", ["CURRENT", "*.sst", "MANIFEST-*", "*.log", "*"])
def test_a_damaged_metadata_folder_is_put_aside_and_rebuilt(filled, victims):
    server, bodies = filled
    server.restart()  # a clean stop has written tables, which are then damaged too
    bodies.update(fill(server.s3(), prefix="more/"))
    server.kill()
    for path in (server.data / "metadata").glob(victims):
        if path.is_file() and path.stat().st_size:
            path.write_bytes(random_bytes(path.stat().st_size))
    server.start()
    assert_all_whole(server.s3(), bodies)
    server.restart(kill=True)
    assert_all_whole(server.s3(), bodies)


@pytest.mark.parametrize("lost", [(0, 1), (1, 4), (2, 5)])
def test_the_metadata_folder_and_two_disks_lost_at_once(filled, lost):
    server, bodies = filled
    server.kill()
    shutil.rmtree(server.data / "metadata")
    for index in lost:
        server.move_disk_away(index)
    server.start()
    assert_all_whole(server.s3(), bodies)


def test_a_lost_index_is_rebuilt_from_the_extents(filled):
    server, bodies = filled
    server.kill()
    for index in range(6):
        shutil.rmtree(server.disk_folder(index) / "index")
    server.start()
    assert_all_whole(server.s3(), bodies)


def test_a_torn_tail_is_cut_off_and_nothing_acknowledged_with_it(filled):
    server, bodies = filled
    server.kill()
    for index in (0, 1, 2, 3, 4, 5):
        extent = disks.extents(server.disk_folder(index))[-1]
        end = max((payload + size for _, _, _, payload, size in disks.records(extent)), default=4096)
        with open(extent, "r+b") as file:
            file.seek(-(-end // 64) * 64)
            file.write(b"VREC" + random_bytes(5_000, seed=index))
    server.start()
    s3 = server.s3()
    assert_all_whole(s3, bodies)
    bodies.update(fill(s3, prefix="after/"))
    server.restart(kill=True)
    assert_all_whole(server.s3(), bodies)


def test_overwrites_and_deletes_are_atomic_for_readers(server):
    s3 = server.s3()
    s3.create_bucket(Bucket=BUCKET)
    bodies = [random_bytes(size, seed=index) for index, size in enumerate([100, 100_000, 3 * MIB, 9 * MIB])]
    etags = {f'"{md5_hex(body)}"': body for body in bodies}
    s3.put_object(Bucket=BUCKET, Key="k", Body=bodies[0])
    stop = threading.Event()
    seen = set()

    def read():
        while not stop.is_set():
            try:
                got = s3.get_object(Bucket=BUCKET, Key="k")
                body = got["Body"].read()
            except ClientError as error:
                assert error_code(error) == "NoSuchKey", error
                seen.add("missing")
                continue
            except BotoCoreError:
                continue  # an error in the middle is allowed; mixed bytes are not
            assert body == etags[got["ETag"]]
            seen.add(got["ETag"])

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            for index in range(40):
                s3.put_object(Bucket=BUCKET, Key="k", Body=bodies[index % 4])
                if index % 8 == 5:
                    s3.delete_object(Bucket=BUCKET, Key="k")
        finally:
            stop.set()
        for reader in readers:
            reader.result()
    assert len(seen) > 1


NO_TRASH = '[metadata]\ntrash = "0s"\norphan_scan = "1s"\n'


def live_bytes(server):
    return sum(disk["live_bytes"] for disk in server.status()["disks"])


def test_deleted_space_is_reclaimed_after_the_trash_time(make_server):
    server = make_server(config=NO_TRASH)
    s3 = server.s3()
    s3.create_bucket(Bucket=BUCKET)
    empty = live_bytes(server)
    for index in range(4):
        s3.put_object(Bucket=BUCKET, Key=f"{index}", Body=random_bytes(9 * MIB, index))
    assert live_bytes(server) > empty + 50 * MIB
    s3.delete_object(Bucket=BUCKET, Key="0")
    s3.put_object(Bucket=BUCKET, Key="1", Body=b"overwritten")
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "2"}, {"Key": "3"}]})
    harness.wait_until(lambda: live_bytes(server) < empty + 5 * MIB, "deleted space to be reclaimed", 90)
    assert s3.get_object(Bucket=BUCKET, Key="1")["Body"].read() == b"overwritten"


def test_small_objects_take_no_more_space_than_their_copies(server):
    """MinIO #11101: 29 KB were stored as 144 KB."""
    s3 = server.s3()
    s3.create_bucket(Bucket=BUCKET)
    before = live_bytes(server)
    for index in range(100):
        s3.put_object(Bucket=BUCKET, Key=f"{index}", Body=random_bytes(29_000, index))
    taken = live_bytes(server) - before
    # Three copies of each, some tags and padding, and the mirrored metadata.
    assert 100 * 3 * 29_000 <= taken < 100 * 3 * 32_000, taken


def test_deleted_space_is_kept_during_the_trash_time(server):
    s3 = server.s3()
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="k", Body=random_bytes(9 * MIB))
    before = live_bytes(server)
    s3.delete_object(Bucket=BUCKET, Key="k")
    server.status(census=True)
    assert live_bytes(server) >= before - MIB


def test_clients_that_disconnect_or_stall_leave_nothing(make_server):
    import rawhttp

    server = make_server(config=NO_TRASH + '[gateway]\nidle_timeout = "2s"\n')
    s3 = server.s3()
    s3.create_bucket(Bucket=BUCKET)
    empty = live_bytes(server)
    connections = []
    for index in range(6):
        connection = rawhttp.Connection(server)
        headers = rawhttp.Signer().headers("PUT", f"/{BUCKET}/{index}", [], {"host": connection.host}, rawhttp.UNSIGNED)
        connection.send_head("PUT", f"/{BUCKET}/{index}", {**headers, "content-length": str(64 * MIB)})
        connection.send(random_bytes(12 * MIB, index))
        connections.append(connection)
    for connection in connections[:3]:
        connection.sock.close()
    for connection in connections[3:]:  # these stall: the server has to give them up by itself
        response = connection.read_response()
        assert response is None or response.status in (400, 408), response
        connection.sock.close()
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    harness.wait_until(lambda: live_bytes(server) < empty + 5 * MIB, "abandoned space to be reclaimed", 90)
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"goes on")


def test_sigterm_lets_an_upload_in_flight_finish(server):
    import rawhttp

    s3 = server.s3()
    s3.create_bucket(Bucket=BUCKET)
    body = random_bytes(4 * MIB)
    with rawhttp.Connection(server) as connection:
        headers = rawhttp.Signer().headers("PUT", f"/{BUCKET}/k", [], {"host": connection.host}, rawhttp.UNSIGNED)
        connection.send_head("PUT", f"/{BUCKET}/k", {**headers, "content-length": str(len(body))})
        connection.send(body[: 2 * MIB])
        server.process.terminate()
        harness.wait_until(lambda: "stopping" in server.log(), "the drain to begin")
        connection.send(body[2 * MIB :])
        response = connection.read_response()
    assert response is not None and response.status == 200, response
    assert server.process.wait(60) == 0
    server.start()
    assert server.s3().get_object(Bucket=BUCKET, Key="k")["Body"].read() == body


def test_disks_that_arrive_in_any_order_cost_nothing(filled):
    """MinIO #14053: objects were judged dangling and purged while drives came online."""
    server, bodies = filled
    assert server.terminate() == 0
    for index in range(6):
        server.move_disk_away(index)
    for index in (3, 0, 5, 1):
        server.bring_disk_back(index)
    server.start()
    s3 = server.s3()
    assert_all_whole(s3, bodies)
    for index in (4, 2):
        server.bring_disk_back(index)
        time.sleep(0)
    server.wait_disks("online", range(6))
    server.wait_healthy()
    assert_all_whole(s3, bodies)
