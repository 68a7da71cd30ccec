"""HTTP manners over bare sockets: how long and how much the server waits for, what every answer carries, and whether a
connection goes on after a refusal."""

import email.utils
import pathlib
import re
import socket
import time

import pytest

import harness
from harness import MIB, random_bytes
from rawhttp import EMPTY_SHA256, UNSIGNED, Connection, Signer

BODY = random_bytes(100_000, seed=6)


def signed(connection, method: str, path: str, headers=None, payload_hash=UNSIGNED, signer=None, query=()) -> dict:
    return (signer or Signer()).headers(method, path, query, {"host": connection.host, **(headers or {})}, payload_hash)


def get(connection, path: str, **options):
    connection.send_head("GET", path, signed(connection, "GET", path, payload_hash=EMPTY_SHA256, **options))
    return connection.read_response()


def put_head(connection, path: str, length: int, signer=None, **headers):
    connection.send_head("PUT", path, {**signed(connection, "PUT", path, headers, signer=signer), "content-length": str(length)})


def ended(connection) -> bool:
    """Whether the server has ended the connection: waits for it, as long as the socket's own limit says."""
    try:
        while connection.sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


# -- what every answer carries ---------------------------------------------------------------------------------------------


def test_every_answer_has_ids_a_date_and_a_server(shared, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=BODY)
    seen = set()
    with Connection(shared) as connection:
        for path, status in ((f"/{bucket}/k", 200), (f"/{bucket}/none", 404), (f"/{bucket}", 200), ("/no-such-bucket", 404)):
            response = get(connection, path)
            assert response.status == status
            request_id = response.headers["x-amz-request-id"]
            assert re.fullmatch(r"[0-9A-F]{16}", request_id, re.I) and request_id not in seen
            seen.add(request_id)
            assert response.headers["x-amz-id-2"] and response.headers["server"] == "Valv"
            at = email.utils.parsedate_to_datetime(response.headers["date"])
            assert response.headers["date"].endswith(" GMT") and abs(at.timestamp() - time.time()) < 3600
            if status != 200:
                assert f"<RequestId>{request_id}</RequestId><HostId>{response.headers['x-amz-id-2']}</HostId>".encode() in response.body
                assert response.headers["content-type"] == "application/xml"
            assert "connection" not in response.headers


def test_objects_accept_ranges(shared, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=BODY)
    with Connection(shared) as connection:
        assert get(connection, f"/{bucket}/k").headers["accept-ranges"] == "bytes"
        part = get(connection, f"/{bucket}/k", headers={"range": "bytes=5-9"})
        assert (part.status, part.headers["content-range"], part.body) == (206, f"bytes 5-9/{len(BODY)}", BODY[5:10])
        assert part.headers["accept-ranges"] == "bytes"
        headers = signed(connection, "HEAD", f"/{bucket}/k", payload_hash=EMPTY_SHA256)
        connection.send_head("HEAD", f"/{bucket}/k", headers)
        head = connection.read_response(head_only=True)
        assert (head.headers["accept-ranges"], head.headers["content-length"]) == ("bytes", str(len(BODY)))


def test_head_has_no_body_whatever_the_answer(shared, s3, bucket):
    """Each answer to HEAD is followed by that to a GET on the same connection: a body would be read as its beginning."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    wrong = Signer(secret_key="wrong")
    with Connection(shared) as connection:
        for path, options, status in (
            (f"/{bucket}/k", {}, 200),
            (f"/{bucket}/none", {}, 404),
            ("/no-such-bucket/k", {}, 404),
            ("/no-such-bucket", {}, 404),
            (f"/{bucket}", {}, 200),
            (f"/{bucket}/k", {"signer": wrong}, 403),
            (f"/{bucket}/k", {"headers": {"if-match": '"x"'}}, 412),
            (f"/{bucket}/k", {"headers": {"range": "bytes=9-"}}, 416),
            (f"/{bucket}/k", {"headers": {"if-none-match": "*"}}, 304),
        ):
            connection.send_head("HEAD", path, signed(connection, "HEAD", path, payload_hash=EMPTY_SHA256, **options))
            response = connection.read_response(head_only=True)
            assert response.status == status, (path, options)
            after = get(connection, f"/{bucket}/k")
            assert (after.status, after.body) == (200, b"hello"), (path, options)


# -- connections after refusals --------------------------------------------------------------------------------------------


def test_a_connection_goes_on_after_each_refusal_of_a_request_without_body(shared, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    refusals = [
        ("GET", f"/{bucket}/none", {}, 404),
        ("GET", "/no-such-bucket/k", {}, 404),
        ("GET", f"/{bucket}/k", {"signer": Signer(secret_key="wrong")}, 403),
        ("GET", f"/{bucket}/k", {"signer": Signer(access_key="NOSUCHKEY00000000")}, 403),
        ("GET", f"/{bucket}/k", {"headers": {"range": "bytes=9-"}}, 416),
        ("GET", f"/{bucket}/k", {"headers": {"if-match": '"x"'}}, 412),
        ("GET", f"/{bucket}/k", {"headers": {"if-none-match": "*"}}, 304),
        ("DELETE", "/no-such-bucket/k", {}, 404),
        ("DELETE", f"/{bucket}", {}, 409),
        ("PUT", f"/{bucket}", {}, 200),
        ("PATCH", f"/{bucket}/k", {}, 405),
    ]
    with Connection(shared) as connection:
        for method, path, options, status in refusals:
            connection.send_head(method, path, signed(connection, method, path, payload_hash=EMPTY_SHA256, **options))
            response = connection.read_response()
            assert response.status == status, (method, path, response)
            assert "connection" not in response.headers
        assert get(connection, f"/{bucket}/k").body == b"hello"


def test_a_connection_goes_on_after_a_body_that_was_read_and_refused(shared, s3, bucket):
    with Connection(shared) as connection:
        for headers in ({"x-amz-checksum-crc32": "AAAAAA=="}, {"content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}):
            put_head(connection, f"/{bucket}/k", len(BODY), **headers)
            connection.send(BODY)
            response = connection.read_response()
            assert (response.status, response.code) == (400, "BadDigest")
            assert "connection" not in response.headers
        put_head(connection, f"/{bucket}/k", len(BODY))
        connection.send(BODY)
        assert connection.read_response().status == 200


UNREAD = {
    "a wrong signature": (lambda bucket: dict(path=f"/{bucket}/k", signer=Signer(secret_key="wrong")), 403),
    "a bucket that does not exist": (lambda _: dict(path="/no-such-bucket/k"), 404),
    "a header that is not taken": (lambda bucket: {"path": f"/{bucket}/k", "x-amz-storage-class": "FakeClass"}, 400),
}


@pytest.mark.parametrize("case", UNREAD, ids=lambda name: name.replace(" ", "-"))
@pytest.mark.parametrize("late", [False, True], ids=["body-at-once", "body-after-the-answer"])
def test_a_connection_goes_on_after_a_small_body_that_nobody_read(shared, s3, bucket, case, late):
    """Whether the body came with the head or only after the answer: unless the answer says close, the next request on the
    connection is answered."""
    made, status = UNREAD[case]
    with Connection(shared) as connection:
        for _ in range(3):
            options = made(bucket)
            put_head(connection, options.pop("path"), 1_000, **options)
            if not late:
                connection.send(BODY[:1_000])
            response = connection.read_response()
            assert response.status == status
            if response.headers.get("connection") == "close":
                assert ended(connection)
                return
            if late:
                connection.send(BODY[:1_000])
        assert get(connection, f"/{bucket}").status == 200


@pytest.mark.parametrize("case", UNREAD, ids=lambda name: name.replace(" ", "-"))
def test_a_client_that_is_still_sending_a_large_body_hears_the_refusal(shared, s3, bucket, case):
    made, status = UNREAD[case]
    options = made(bucket)
    with Connection(shared) as connection:
        put_head(connection, options.pop("path"), 8 * MIB, **options)
        connection.send(random_bytes(8 * MIB))
        response = connection.read_response()
        assert response.status == status and response.headers["connection"] == "close"
        assert ended(connection)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_an_unauthenticated_body_is_not_read_without_end(shared, s3, bucket):
    """5 GiB are announced and sent under a wrong signature: the answer comes, and some 64 MiB later the connection ends."""
    piece, sent = bytes(MIB), 0
    with Connection(shared) as connection:
        put_head(connection, f"/{bucket}/k", 5 << 30, signer=Signer(secret_key="wrong"))
        response = connection.read_response()
        assert (response.status, response.headers["connection"]) == (403, "close")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while sent < 1 << 30:
                connection.send(piece)
                sent += len(piece)
    # What both sides' sockets hold comes on top.
    assert sent < 128 * MIB


# -- limits ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length, status", [(40_000, 200), (70_000, 431), (1 << 20, 431)])
def test_the_header_section_is_bounded(shared, s3, bucket, length, status):
    with Connection(shared) as connection:
        headers = signed(connection, "GET", f"/{bucket}", payload_hash=EMPTY_SHA256)
        try:
            connection.send_head("GET", f"/{bucket}", {**headers, "x-other": "v" * length})
        except (BrokenPipeError, ConnectionResetError):
            pass
        response = connection.read_response()
        assert response is not None and response.status == status, response
    s3.head_bucket(Bucket=bucket)


@pytest.fixture(scope="module")
def strict(module_folder):
    """A server that gives up on clients after a second and serves three at a time."""
    config = '[gateway]\nidle_timeout = "1s"\nconnections_max = 3\n'
    server = harness.Server(module_folder / "strict", config=config, name="strict").start()
    server.s3().create_bucket(Bucket="scans")
    yield server
    server.assert_clean_log()
    server.kill()


def test_clients_that_send_nothing_are_given_up(strict):
    head = b"GET /scans HTTP/1.1\r\nhost: localhost\r\n"
    for start in (b"", b"GET /sc", head):
        with Connection(strict) as connection:
            connection.send(start)
            assert ended(connection)
    # After an answer, too: an idle connection is not kept for ever.
    with Connection(strict) as connection:
        assert get(connection, "/scans").status == 200
        assert ended(connection)


def test_a_body_that_stalls_is_given_up_and_stores_nothing(strict):
    with Connection(strict) as connection:
        put_head(connection, "/scans/k", len(BODY))
        connection.send(BODY[:50_000])
        response = connection.read_response()
        assert (response.status, response.code) == (400, "RequestTimeout")
        assert response.headers["connection"] == "close" and ended(connection)
    form = b'--B\r\nContent-Disposition: form-data; name="key"\r\n\r\nk'
    with Connection(strict) as connection:
        headers = {"host": connection.host, "content-type": "multipart/form-data; boundary=B", "content-length": "10000"}
        connection.send_head("POST", "/scans", headers)
        connection.send(form)
        response = connection.read_response()
        assert (response.status, response.code) == (400, "RequestTimeout")
        assert ended(connection)
    s3 = strict.s3()
    assert s3.list_objects_v2(Bucket="scans")["KeyCount"] == 0
    s3.close()


def test_a_body_that_drips_is_given_up(strict):
    """A byte now and then, each within the idle timeout, holds a connection and its buffers for two such timeouts only."""
    with Connection(strict) as connection:
        put_head(connection, "/scans/k", len(BODY))
        connection.sock.settimeout(0.3)
        for byte in BODY:
            connection.send(bytes([byte]))
            try:
                connection.pending += connection.sock.recv(65536)
                break
            except TimeoutError:
                pass
        connection.sock.settimeout(30)
        response = connection.read_response()
        assert (response.status, response.code) == (400, "RequestTimeout")
        assert ended(connection)


def established(local: int, remote: int) -> bool:
    """Whether the server's end of a connection is open, as the kernel tells (state 01 in /proc/net/tcp)."""
    ports = (f":{local:04X}", f":{remote:04X}")
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, ours, theirs, state, *_ = line.split()
        if (ours[-5:], theirs[-5:]) == ports:
            return state == "01"
    return False


def test_a_client_that_takes_nothing_is_given_up(strict):
    s3, size = strict.s3(), 64 * MIB
    s3.put_object(Bucket="scans", Key="large", Body=random_bytes(size))
    s3.close()
    with Connection(strict) as connection:
        # So that what the sockets hold is far less than the object.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        path = "/scans/large"
        connection.send_head("GET", path, signed(connection, "GET", path, payload_hash=EMPTY_SHA256))
        connection.sock.recv(1)
        harness.wait_until(lambda: not established(strict.address[1], connection.sock.getsockname()[1]), "the end of the transfer")
        got = 1
        try:
            while piece := connection.sock.recv(1 << 20):
                got += len(piece)
        except ConnectionResetError:
            pass
        assert got < size


def test_beyond_the_limit_connections_wait_for_their_turn(strict):
    with Connection(strict) as first, Connection(strict) as second, Connection(strict) as third:
        for connection in (first, second, third):
            assert get(connection, "/scans").status == 200
        # The kernel takes the fourth; its request is answered when another has ended (by its idle timeout at the latest).
        with Connection(strict) as fourth:
            first.sock.close()
            assert get(fourth, "/scans").status == 200
