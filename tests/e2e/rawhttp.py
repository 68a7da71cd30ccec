"""HTTP/1.1 over a bare socket and SigV4 by hand, for requests that no S3 library would send."""

import binascii
import datetime
import hashlib
import hmac
import re
import socket
import urllib.parse
import zlib

import harness

UNSIGNED = "UNSIGNED-PAYLOAD"
STREAMING_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class Response:
    def __init__(self, status: int, headers: dict, body: bytes):
        self.status, self.headers, self.body = status, headers, body

    @property
    def code(self) -> str | None:
        """The S3 error code in the body."""
        found = re.search(rb"<Code>([^<]+)</Code>", self.body)
        return found[1].decode() if found else None

    def __repr__(self):
        return f"<{self.status} {self.code or ''} {self.headers} {self.body[:300]!r}>"


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def encode_path(path: str) -> str:
    return urllib.parse.quote(path, safe="/-_.~")


class Signer:
    """SigV4 with every part open to tampering."""

    def __init__(self, access_key=harness.ACCESS_KEY, secret_key=harness.SECRET_KEY, region=harness.REGION, now=None):
        self.access_key, self.secret_key, self.region = access_key, secret_key, region
        self.now = now or datetime.datetime.now(datetime.timezone.utc)

    @property
    def stamp(self) -> str:
        return self.now.strftime("%Y%m%dT%H%M%SZ")

    @property
    def scope(self) -> str:
        return f"{self.now:%Y%m%d}/{self.region}/s3/aws4_request"

    def key(self) -> bytes:
        key = _hmac(b"AWS4" + self.secret_key.encode(), f"{self.now:%Y%m%d}")
        for word in (self.region, "s3", "aws4_request"):
            key = _hmac(key, word)
        return key

    def signature(self, text: str) -> str:
        return _hmac(self.key(), text).hex()

    def canonical(self, method, path, query, headers, signed, payload_hash) -> str:
        pairs = sorted((urllib.parse.quote(k, safe="-_.~"), urllib.parse.quote(v, safe="-_.~")) for k, v in query)
        lines = [method, encode_path(path), "&".join(f"{k}={v}" for k, v in pairs)]
        lines += [f"{name}:{' '.join(headers[name].split())}" for name in signed]
        return "\n".join([*lines, "", ";".join(signed), payload_hash])

    def headers(self, method, path, query, headers, payload_hash, unsigned=()) -> dict:
        """The given headers with x-amz-date, x-amz-content-sha256 and Authorization; `unsigned` names are left out."""
        headers = {"x-amz-date": self.stamp, "x-amz-content-sha256": payload_hash, **headers}
        signed = sorted(name.lower() for name in headers if name.lower() not in unsigned)
        lowered = {name.lower(): value for name, value in headers.items()}
        canonical = self.canonical(method, path, query, lowered, signed, payload_hash)
        text = "\n".join(["AWS4-HMAC-SHA256", self.stamp, self.scope, hashlib.sha256(canonical.encode()).hexdigest()])
        self.seed = self.signature(text)
        credential = f"{self.access_key}/{self.scope}"
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={';'.join(signed)}, Signature={self.seed}"
        )
        return headers

    def chunk_signature(self, previous: str, chunk: bytes) -> str:
        text = "\n".join(
            ["AWS4-HMAC-SHA256-PAYLOAD", self.stamp, self.scope, previous, EMPTY_SHA256, hashlib.sha256(chunk).hexdigest()]
        )
        return self.signature(text)

    def trailer_signature(self, previous: str, trailer: bytes) -> str:
        text = "\n".join(
            ["AWS4-HMAC-SHA256-TRAILER", self.stamp, self.scope, previous, hashlib.sha256(trailer).hexdigest()]
        )
        return self.signature(text)

    def chunked(self, chunks, trailer: bytes | None = None, corrupt: int | None = None) -> bytes:
        """An aws-chunked body whose chunks are signed from the seed on; chunk `corrupt` gets a wrong signature."""
        out, previous = b"", self.seed
        for index, chunk in enumerate([*chunks, b""]):
            previous = self.chunk_signature(previous, chunk)
            shown = "0" * 64 if index == corrupt else previous
            out += f"{len(chunk):x};chunk-signature={shown}\r\n".encode() + chunk
            out += b"\r\n" if chunk or trailer is None else b""
        if trailer is not None:
            out += trailer.replace(b"\n", b"\r\n")
            out += f"x-amz-trailer-signature:{self.trailer_signature(previous, trailer)}\r\n\r\n".encode()
        return out


def unsigned_chunked(chunks, trailer: bytes = b"") -> bytes:
    """An aws-chunked body without signatures."""
    out = b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
    return out + b"0\r\n" + trailer + b"\r\n"


def crc32_base64(data: bytes) -> bytes:
    return binascii.b2a_base64(zlib.crc32(data).to_bytes(4, "big"), newline=False)


class Connection:
    """One connection; requests are written as given."""

    def __init__(self, server: harness.Server, timeout_s: float = 30.0):
        self.host = "%s:%d" % server.address
        self.sock = socket.create_connection(server.address, timeout=timeout_s)
        self.pending = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data: bytes):
        self.sock.sendall(data)

    def send_head(self, method: str, target: str, headers: dict):
        lines = [f"{method} {target} HTTP/1.1"] + [f"{name}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def end_of_body(self):
        self.sock.shutdown(socket.SHUT_WR)

    def read_response(self, head_only: bool = False) -> Response | None:
        """The next response; None if the server closed the connection instead."""
        while b"\r\n\r\n" not in self.pending:
            try:
                piece = self.sock.recv(65536)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return None
            self.pending += piece
        head, _, self.pending = self.pending.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if status == 100:
            return self.read_response(head_only)
        if head_only or status in (204, 304):
            return Response(status, headers, b"")
        if "content-length" in headers:
            want = int(headers["content-length"])
            while len(self.pending) < want:
                piece = self.sock.recv(65536)
                if not piece:
                    break
                self.pending += piece
            body, self.pending = self.pending[:want], self.pending[want:]
            return Response(status, headers, body)
        return Response(status, headers, self._chunked_body())

    def _chunked_body(self) -> bytes:
        out = b""
        while True:
            while b"\r\n" not in self.pending:
                self.pending += self.sock.recv(65536) or b"0\r\n\r\n"
            size, _, self.pending = self.pending.partition(b"\r\n")
            length = int(size, 16)
            while len(self.pending) < length + 2:
                piece = self.sock.recv(65536)
                if not piece:
                    return out
                self.pending += piece
            out += self.pending[:length]
            self.pending = self.pending[length + 2 :]
            if length == 0:
                return out


def request(
    server,
    method,
    path,
    *,
    query=(),
    headers=None,
    body=b"",
    payload_hash=None,
    signer=None,
    unsigned=(),
    tamper=None,
    content_length=None,
    half_close=False,
) -> Response | None:
    """One signed request. `tamper(headers)` changes the headers after signing; `content_length` lies about the body."""
    signer = signer or Signer()
    with Connection(server) as connection:
        payload_hash = hashlib.sha256(body).hexdigest() if payload_hash is None else payload_hash
        all_headers = {"host": connection.host, **(headers or {})}
        signed = signer.headers(method, path, query, all_headers, payload_hash, unsigned)
        if callable(body):
            body = body(signer)
        signed["content-length"] = str(len(body) if content_length is None else content_length)
        if tamper:
            tamper(signed)
        target = encode_path(path)
        if query:
            target += "?" + "&".join(
                f"{urllib.parse.quote(k, safe='-_.~')}={urllib.parse.quote(v, safe='-_.~')}" for k, v in query
            )
        connection.send_head(method, target, signed)
        try:
            connection.send(body)
            if half_close:
                connection.end_of_body()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server may refuse before it has read the body
        return connection.read_response(head_only=method == "HEAD")
