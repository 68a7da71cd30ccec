"""Memory is bounded by the configuration, whatever clients send. The full sizes are in tests/soak."""

import concurrent.futures

from botocore.exceptions import ClientError

import harness
from harness import MIB, error_code, random_bytes

BUDGET = 256 * MIB
# What the program itself takes beside the budget: code, RocksDB's memtables and caches, the allocator's slack.
BESIDE = 256 * MIB


def test_parallel_uploads_beyond_the_budget_wait_or_are_told_to_slow_down(make_server):
    server = make_server(config='memory_budget = "256MiB"\n')
    s3 = server.s3(retries={"total_max_attempts": 10, "mode": "standard"})
    s3.create_bucket(Bucket="memory")
    body = random_bytes(MIB) * 32

    def upload(index):
        try:
            s3.put_object(Bucket="memory", Key=str(index), Body=body)
            return True
        except ClientError as error:
            assert error_code(error) == "SlowDown", error
            return False

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        done = list(pool.map(upload, range(16)))
    assert any(done)
    for index, stored in enumerate(done):
        if stored:
            assert s3.get_object(Bucket="memory", Key=str(index))["Body"].read() == body
    assert server.memory_bytes() < BUDGET + BESIDE, f"{server.memory_bytes() // MIB} MiB"


def test_readers_that_do_not_read_hold_no_more_than_the_budget(make_server):
    import rawhttp

    server = make_server(config='memory_budget = "256MiB"\n')
    s3 = server.s3()
    s3.create_bucket(Bucket="memory")
    s3.put_object(Bucket="memory", Key="k", Body=random_bytes(MIB) * 64)
    connections = []
    for _ in range(40):
        connection = rawhttp.Connection(server)
        headers = rawhttp.Signer().headers("GET", "/memory/k", [], {"host": connection.host}, rawhttp.EMPTY_SHA256)
        connection.send_head("GET", "/memory/k", headers)
        connections.append(connection)
    assert s3.list_objects_v2(Bucket="memory")["KeyCount"] == 1, "others are served meanwhile"
    assert server.memory_bytes() < BUDGET + BESIDE, f"{server.memory_bytes() // MIB} MiB"
    for connection in connections:
        connection.sock.close()
    harness.wait_until(
        lambda: s3.get_object(Bucket="memory", Key="k")["Body"].read() == random_bytes(MIB) * 64, "a reader that reads"
    )


def test_many_idle_connections_do_not_keep_others_out(server):
    import socket

    idle = [socket.create_connection(server.address) for _ in range(300)]
    server.s3().create_bucket(Bucket="idle")
    for sock in idle:
        sock.close()
