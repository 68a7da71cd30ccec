"""HTTP that no client library would send: mutated, ambiguous and malformed requests. The server answers or closes, stores
nothing that was not signed, and goes on."""

import random
import socket

import pytest

import harness
import rawhttp
from rawhttp import EMPTY_SHA256, UNSIGNED, Connection, Signer, request

BODY = harness.random_bytes(3_000, seed=4)


def exchange(server, data: bytes, patience_s: float = 0.5) -> bytes:
    """Sends bytes and returns what comes back. A server that waits for more is told that no more will come: it then
    takes the client for gone, and the request must leave nothing."""
    got = b""
    with socket.create_connection(server.address, timeout=patience_s) as sock:
        try:
            sock.sendall(data)
            while piece := sock.recv(65536):
                got += piece
        except TimeoutError:
            sock.settimeout(30)
            try:
                sock.shutdown(socket.SHUT_WR)
                while piece := sock.recv(65536):
                    got += piece
            except (BrokenPipeError, ConnectionResetError, OSError):
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass
    return got


def status_of(answer: bytes):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else None


def signed_head(server, method, target, extra=None, payload_hash=UNSIGNED) -> dict:
    headers = {"host": "%s:%d" % server.address, **(extra or {})}
    return Signer().headers(method, target, [], headers, payload_hash)


def put_request(server, bucket, key="object", **more) -> bytes:
    headers = {**signed_head(server, "PUT", f"/{bucket}/{key}"), "content-length": str(len(BODY)), "connection": "close", **more}
    lines = [f"PUT /{bucket}/{key} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + BODY


def keys(s3, bucket):
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_a_mutated_request_is_refused_or_means_the_same(shared, s3, bucket):
    """Flips, cuts, repeats and splices a signed PUT. What is stored, if anything, is the signed key with the body's
    bytes in the length that was declared; nothing else appears and nothing panics."""
    chance = random.Random(20261124)
    head_len = len(put_request(shared, bucket)) - len(BODY)
    stored = 0
    for _ in range(250):
        data = bytearray(put_request(shared, bucket))
        kind = chance.choice(["flip", "cut", "repeat", "insert", "swap"])
        at = chance.randrange(head_len)
        if kind == "flip":
            data[at] ^= 1 << chance.randrange(8)
        elif kind == "cut":
            del data[at : at + chance.randrange(1, 40)]
        elif kind == "repeat":
            data[at:at] = data[at : at + chance.randrange(1, 200)]
        elif kind == "insert":
            data[at:at] = chance.choice([b"\0", b"\r\n", b"\n", b" ", b":", b"\xff", b"%", b"%00", b"/../", b"\r\n\r\n", b";", b","])
        else:
            other = chance.randrange(head_len)
            data[at], data[other] = data[other], data[at]
        status = status_of(exchange(shared, bytes(data)))
        found = keys(s3, bucket)
        assert set(found) <= {"object"}, (kind, at, bytes(data[:head_len]))
        if found:
            got = s3.get_object(Bucket=bucket, Key="object")["Body"].read()
            assert got == BODY[: len(got)] or status == 200 and kind in ("cut", "insert", "repeat"), (kind, at)
            s3.delete_object(Bucket=bucket, Key="object")
            stored += 1
    assert exchange(shared, put_request(shared, bucket)).startswith(b"HTTP/1.1 200")
    assert 0 < stored < 250, "some mutations are harmless, most are not"


AMBIGUOUS = {
    "length and chunked": {"transfer-encoding": "chunked"},
    "an unknown transfer encoding": {"transfer-encoding": "gzip"},
    "chunked twice": {"transfer-encoding": "chunked, chunked"},
    "a negative length": {"content-length": "-1"},
    "a length with a sign": {"content-length": "+3000"},
    "a length that is no number": {"content-length": "3000x"},
    "a length beyond 64 bits": {"content-length": "99999999999999999999999"},
}


@pytest.mark.parametrize("case", AMBIGUOUS, ids=lambda name: name.replace(" ", "-"))
def test_a_body_whose_length_is_ambiguous_is_refused(shared, s3, bucket, case):
    answer = exchange(shared, put_request(shared, bucket, **AMBIGUOUS[case]))
    assert answer == b"" or 400 <= status_of(answer) <= 501, answer[:300]
    assert answer.count(b"HTTP/1.1 ") <= 1, "a second request was read out of the first one's body"
    assert keys(s3, bucket) == []


def test_a_request_hidden_in_a_body_is_not_executed(shared, s3, bucket):
    """Request smuggling: two lengths that differ."""
    hidden = put_request(shared, bucket, key="hidden")
    head = signed_head(shared, "PUT", f"/{bucket}/outer")
    lines = [f"PUT /{bucket}/outer HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    lines += ["content-length: 4", f"content-length: {len(hidden)}"]
    exchange(shared, "\r\n".join([*lines, "", ""]).encode("latin-1") + hidden)
    assert "hidden" not in keys(s3, bucket)


TARGETS = {
    "a broken escape": "/{bucket}/a%zzb",
    "an escape cut off": "/{bucket}/a%4",
    "a zero byte": "/{bucket}/a%00b",
    "bytes that are no UTF-8": "/{bucket}/a%ff%feb",
    "an overlong slash": "/{bucket}%c0%afobject",
    "a path that climbs out": "/{bucket}/../../../etc/passwd",
    "an absolute form": "http://elsewhere.example/{bucket}/object",
    "no path": "*",
    "a query with a broken escape": "/{bucket}?list-type=2&prefix=%zz",
    "a very long path": "/{bucket}/" + "a" * 20_000,
}


@pytest.mark.parametrize("case", TARGETS, ids=lambda name: name.replace(" ", "-"))
def test_a_strange_target_is_answered_and_nothing_else_happens(shared, s3, bucket, case):
    target = TARGETS[case].format(bucket=bucket)
    for method in ("GET", "PUT", "DELETE", "HEAD", "POST"):
        lines = [f"{method} {target} HTTP/1.1", "host: %s:%d" % shared.address, "content-length: 0", "connection: close", "", ""]
        answer = exchange(shared, "\r\n".join(lines).encode())
        assert answer == b"" or 400 <= status_of(answer) < 600 and status_of(answer) != 500, (method, answer[:300])
    assert keys(s3, bucket) == []


def test_a_signed_zero_byte_key_is_stored_or_refused_but_never_cut(shared, s3, bucket):
    response = request(shared, "PUT", f"/{bucket}/a\0b", body=b"x")
    if response.status == 200:
        assert request(shared, "GET", f"/{bucket}/a\0b").body == b"x"
        assert request(shared, "DELETE", f"/{bucket}/a\0b").status == 204
    else:
        assert response.status == 400, response
    assert request(shared, "GET", f"/{bucket}/a").status == 404


def test_a_response_header_from_the_query_cannot_be_split(shared, s3, bucket):
    s3.put_object(Bucket=bucket, Key="object", Body=b"x")
    for value in ("text/plain\r\nx-evil: 1", "a\nx-evil: 1", "\0", "ü\r"):
        response = request(shared, "GET", f"/{bucket}/object", query=[("response-content-type", value)])
        assert "x-evil" not in response.headers
        assert response.status in (200, 400), response


def test_methods_and_versions_that_s3_does_not_have(shared, s3, bucket):
    for line in (f"PATCH /{bucket}/k HTTP/1.1", f"TRACE /{bucket} HTTP/1.1", f"CONNECT {bucket}:443 HTTP/1.1", "GET / HTTP/1.0",
                 "GET / HTTP/3.0", "GET /", "\0\0\0\0", "PRI * HTTP/2.0"):  # fmt: skip
        answer = exchange(shared, f"{line}\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        assert answer == b"" or status_of(answer) in (400, 403, 404, 405, 501, 505) or answer[:1] == b"\0", (line, answer[:300])
    s3.head_bucket(Bucket=bucket)


@pytest.mark.parametrize("count", [99, 5_000])
def test_many_headers_are_taken_or_refused(shared, s3, bucket, count):
    with Connection(shared) as connection:
        headers = {"host": connection.host, **{f"x-other-{n}": "v" for n in range(count)}}
        try:
            connection.send_head("GET", f"/{bucket}", headers)
        except (BrokenPipeError, ConnectionResetError):
            pass
        response = connection.read_response()
    assert response is None or response.status in (400, 403, 431), response


def test_requests_in_a_row_on_one_connection_keep_their_order(shared, s3, bucket):
    """Pipelining: several requests before the first answer."""
    sizes = [10, 200_000, 0, 70_000]
    for number, size in enumerate(sizes):
        s3.put_object(Bucket=bucket, Key=str(number), Body=harness.random_bytes(size, number))
    with Connection(shared) as connection:
        for number in range(len(sizes)):
            headers = Signer().headers("GET", f"/{bucket}/{number}", [], {"host": connection.host}, EMPTY_SHA256)
            connection.send_head("GET", f"/{bucket}/{number}", headers)
        for number, size in enumerate(sizes):
            response = connection.read_response()
            assert response.status == 200 and response.body == harness.random_bytes(size, number)


def test_a_client_that_sends_its_head_byte_by_byte_does_not_keep_others_out(shared, s3, bucket):
    slow = [socket.create_connection(shared.address) for _ in range(50)]
    for sock in slow:
        sock.sendall(b"GET / HTT")
    s3.put_object(Bucket=bucket, Key="k", Body=BODY)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == BODY
    for sock in slow:
        sock.close()


def test_expect_100_continue_is_answered_before_the_body_and_refused_before_it_too(shared, s3, bucket):
    for signer, wanted in ((Signer(), b"100"), (Signer(secret_key="wrong"), b"403")):
        with socket.create_connection(shared.address, timeout=20) as sock:
            host = "%s:%d" % shared.address
            head = signer.headers("PUT", f"/{bucket}/k", [], {"host": host}, UNSIGNED)
            lines = [f"PUT /{bucket}/k HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
            lines += [f"content-length: {len(BODY)}", "expect: 100-continue", "", ""]
            sock.sendall("\r\n".join(lines).encode())
            answer = sock.recv(65536)
            assert answer.split(b" ")[1] == wanted, answer[:200]
            if wanted == b"100":
                sock.sendall(BODY)
                assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == BODY
