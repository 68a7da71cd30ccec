#!/usr/bin/env python3
"""Recovers objects from Valv's disks without Valv.

Needs disk folders (any two of six may be missing), a metadata export, a key backup with its passphrase, Python 3.9 or
later, and two packages from PyPI: blake3 and cryptography. Written from docs/format.md and the pages that it names,
not from Valv's code, so that it shows whether those pages are enough.

It only ever reads the disks. Every byte it writes was authenticated; an object that can't be recovered whole is
reported and its file removed.
"""

import argparse
import base64
import collections
import hashlib
import hmac
import json
import mmap
import os
import pathlib
import sys
import urllib.parse

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

# -- disks: docs/format-disk.md ----------------------------------------------------------------------------------------

SECTOR = 4096
BLOCK = 16384
PUT, DELETE, SEAL = 1, 2, 3
SEALED_CHUNK = 1


def _crc32c_table():
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


CRC32C = _crc32c_table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def read_superblock(disk: pathlib.Path):
    """(cluster id, disk id), or None if neither copy is intact."""
    best = None
    for name in ("superblock.0", "superblock.1"):
        try:
            data = (disk / name).read_bytes()[:SECTOR]
        except OSError:
            continue
        if len(data) < SECTOR or data[:8] != b"VALVDISK" or crc32c(data[:-4]) != number(data[-4:]):
            continue
        if number(data[8:10]) != 1:
            raise SystemExit(f"{disk}: superblock version {number(data[8:10])} is unknown to this program")
        if best is None or number(data[16:24]) > best[0]:
            best = (number(data[16:24]), data[24:40], data[56:72])
    return best[1:] if best else None


def walk(extent_id: int, data):
    """(offset, header, whole length) of each intact record header of an extent."""
    at = SECTOR
    while at + 128 <= len(data):
        head = data[at : at + 128]
        size = number(head[88:92])
        length = -(-(128 + 32 * -(-size // BLOCK) + size) // 64) * 64
        if (
            head[:4] != b"VREC"
            or crc32c(head[:124]) != number(head[124:128])
            or head[4] != 1
            or number(head[8:16]) != extent_id
            or number(head[16:24]) != at
            or at + length > len(data)
        ):
            found = data.find(b"VREC", at + 1)  # the next multiple of 64 where a header may be
            if found < 0:
                return
            at = max(at + 64, found // 64 * 64)
            continue
        if head[5] == SEAL:
            return
        yield at, head
        at += length


class Shard:
    """A shard where it lies: its bytes are read, and its blocks checked, when they are needed."""

    __slots__ = ("path", "at", "size", "table_crc", "generation")

    def __init__(self, path, at, head):
        self.path, self.at, self.size = path, at, number(head[88:92])
        self.table_crc, self.generation = number(head[120:124]), number(head[84:88])

    def blocks(self):
        """Its blocks in order, None for each that does not verify; None if the table does not."""
        count = -(-self.size // BLOCK)
        with open(self.path, "rb") as file:
            file.seek(self.at + 128)
            table = file.read(32 * count)
            payload = file.read(self.size)
        if len(payload) != self.size or crc32c(table) != self.table_crc:
            return None
        out = []
        for index in range(count):
            block = payload[index * BLOCK : (index + 1) * BLOCK]
            out.append(block if blake3(block).digest() == table[32 * index : 32 * index + 32] else None)
        return out


def scan_disk(disk: pathlib.Path):
    """Newest record of each shard key on a disk: {33-byte key: Shard, or None where it was deleted}."""
    identity = read_superblock(disk)
    newest = {}
    for path in sorted((disk / "extents").glob("*.ext")):
        extent_id = int(path.stem, 16)
        if path.stat().st_size <= SECTOR:
            continue
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            head = data[:SECTOR]
            intact = head[:8] == b"VALVEXTN" and crc32c(head[:-4]) == number(head[-4:])
            if intact and identity and (head[24:40], head[40:56]) != identity:
                print(f"{path} belongs to another disk: left out", file=sys.stderr)
                continue
            for at, record in walk(extent_id, data):
                if record[5] not in (PUT, DELETE):
                    continue
                key, sequence = record[48:81], number(record[24:32])
                if key in newest and newest[key][0] > sequence:
                    continue
                wanted = record[5] == PUT and record[6] == SEALED_CHUNK
                newest[key] = (sequence, Shard(path, at, record) if wanted else None)
    return {key: shard for key, (_, shard) in newest.items()}


# -- erasure code: docs/format-erasure.md ------------------------------------------------------------------------------

EXP, LOG = [0] * 510, [0] * 256
_value = 1
for _power in range(255):
    EXP[_power] = EXP[_power + 255] = _value
    LOG[_value] = _power
    _value <<= 1
    if _value & 0x100:
        _value ^= 0x11D


def multiply(a: int, b: int) -> int:
    return EXP[LOG[a] + LOG[b]] if a and b else 0


def power(a: int, n: int) -> int:
    out = 1
    for _ in range(n):
        out = multiply(out, a)
    return out


def invert(matrix):
    """Gauss-Jordan over GF(2^8)."""
    n = len(matrix)
    rows = [list(row) + [int(i == j) for j in range(n)] for i, row in enumerate(matrix)]
    for column in range(n):
        pivot = next(row for row in range(column, n) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = EXP[255 - LOG[rows[column][column]]]
        rows[column] = [multiply(value, scale) for value in rows[column]]
        for row in range(n):
            factor = rows[row][column]
            if row != column and factor:
                rows[row] = [a ^ multiply(factor, b) for a, b in zip(rows[row], rows[column])]
    return [row[n:] for row in rows]


def product(a, b):
    out = []
    for row in a:
        out.append([0] * len(b[0]))
        for column in range(len(b[0])):
            for i, value in enumerate(row):
                out[-1][column] ^= multiply(value, b[i][column])
    return out


def code_matrix(k: int, m: int):
    vandermonde = [[power(row, column) for column in range(k)] for row in range(k + m)]
    return product(vandermonde, invert(vandermonde[:k]))


TABLES = [bytes(multiply(factor, value) for value in range(256)) for factor in range(256)]
_inverses = {}


def combine(row, pieces) -> bytes:
    """The sum of factor * piece, byte by byte."""
    total = 0
    for factor, piece in zip(row, pieces):
        if factor:
            total ^= number(piece.translate(TABLES[factor]))
    return total.to_bytes(len(pieces[0]), "big")


def decode(k: int, m: int, pieces: dict) -> list:
    """The k data pieces from any k pieces, by shard number."""
    if all(index in pieces for index in range(k)):
        return [pieces[index] for index in range(k)]
    chosen = tuple(sorted(pieces)[:k])
    if (k, m, chosen) not in _inverses:
        matrix = code_matrix(k, m)
        _inverses[k, m, chosen] = invert([matrix[index] for index in chosen])
    inverse = _inverses[k, m, chosen]
    have = [pieces[index] for index in chosen]
    return [pieces[index] if index in pieces else combine(inverse[index], have) for index in range(k)]


# -- keys and frames: docs/format.md -----------------------------------------------------------------------------------


class Unrecoverable(Exception):
    """This object can't be had from what is here."""


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt or None, info).derive(secret)


class WrongKey(Unrecoverable):
    """A wrap was made by another key, or is damaged."""


def open_wrap(outer: bytes, label: bytes, context: bytes, aad: bytes, wrap: bytes) -> bytes:
    okm = hkdf(outer, wrap[:16], label + context, 64)
    if not hmac.compare_digest(okm[32:], wrap[16:48]):
        raise WrongKey("a wrapped key does not belong here or is damaged")
    try:
        return AESGCM(okm[:32]).decrypt(bytes(12), wrap[48:], aad)
    except InvalidTag:
        raise Unrecoverable("a wrapped key is damaged") from None


def unwrap(outer: bytes, version: int, context: bytes, wrapped: bytes) -> bytes:
    if (wrapped[:2], len(wrapped)) not in ((b"\x01\x01", 102), (b"\x01\x02", 166)):
        raise Unrecoverable("a wrapped key of an unknown format")
    if number(wrapped[2:6]) != version:
        raise Unrecoverable(f"the wrap needs key version {number(wrapped[2:6])}, not {version}")
    return open_wrap(outer, b"valv wrap v1", context, wrapped[:6] + context, wrapped[6:])


class Keys:
    """A key backup, opened."""

    def __init__(self, text: str, passphrase: bytes, customers: list):
        self.customers = customers
        outer = json.loads(text)
        formats = ("valv key backup v1", "valv key backup v2")
        if outer["format"] not in formats or (outer["kdf"], outer["cipher"]) != ("pbkdf2-hmac-sha256", "aes-256-gcm"):
            raise SystemExit("the key backup's format is unknown to this program")
        if outer["iterations"] < 100_000:
            raise SystemExit("the key backup asks for too few iterations: it is forged or was made carelessly")
        salt, nonce, sealed = (base64.b64decode(outer[name]) for name in ("salt", "nonce", "sealed"))
        key = hashlib.pbkdf2_hmac("sha256", passphrase, salt, outer["iterations"], 32)
        try:
            inner = json.loads(AESGCM(key).decrypt(nonce, sealed, outer["format"].encode()))
        except InvalidTag:
            raise SystemExit("the passphrase does not open the key backup") from None
        root, version = base64.b64decode(inner["root_key"]), inner["root_version"]
        self.cluster = inner["cluster"]
        self.projects = {}
        for entry in inner["project_keys"]:
            project = bytes.fromhex(entry["project"])
            context = b"project\0" + project + entry["version"].to_bytes(4, "big")
            wrapped = base64.b64decode(entry["wrapped"])
            self.projects[project, entry["version"]] = unwrap(root, version, context, wrapped)

    def data_key(self, project: bytes, blob: bytes, wrapped: bytes) -> bytes:
        version = number(wrapped[2:6])
        if (project, version) not in self.projects:
            raise Unrecoverable(f"the key backup has no version {version} of the project's key: it may be older than the object")
        context = b"blob\0\0\0\0" + project + blob
        inner = unwrap(self.projects[project, version], version, context, wrapped)
        if wrapped[1] == 1:
            return inner
        for customer in self.customers:
            try:
                return open_wrap(customer, b"valv customer wrap v1", context, context, inner)
            except WrongKey:
                continue
        raise Unrecoverable("its customer's key (SSE-C) is not among those given")


def read_customer_key(path: pathlib.Path) -> bytes:
    """Base64 of 32 bytes, as S3 clients send it, or the bytes themselves."""
    data = path.read_bytes()
    key = data if len(data) == 32 else base64.b64decode(data.strip())
    if len(key) != 32:
        raise SystemExit(f"{path}: a customer's key has 32 bytes")
    return key


class Frames:
    """Opens the frames of one blob."""

    def __init__(self, data_key: bytes, project: bytes, blob: bytes):
        self.aad = b"\x01" + project + blob
        okm = hkdf(data_key, b"", b"valv frames v1" + self.aad, 39)
        self.cipher, self.prefix = AESGCM(okm[:32]), okm[32:]

    def open(self, index: int, last: bool, sealed: bytes) -> bytes:
        nonce = self.prefix + index.to_bytes(4, "big") + bytes([last])
        try:
            return self.cipher.decrypt(nonce, sealed, self.aad)
        except InvalidTag:
            raise Unrecoverable(f"frame {index} fails authentication") from None


# -- blobs -------------------------------------------------------------------------------------------------------------


def find_chunk(candidates, k: int, m: int, shard_len: int) -> bytes:
    """The sealed chunk with its padding, from any k good pieces of each block. `candidates`: (number, Shard) pairs."""
    by_generation = collections.defaultdict(list)
    for index, shard in candidates:
        if shard.size == shard_len and index < k + m:
            by_generation[shard.generation].append((index, shard))
    problem = "no shard of it on any disk"
    for generation in sorted(by_generation, reverse=True):
        blocks, lost = [{} for _ in range(-(-shard_len // BLOCK))], False
        for index, shard in sorted(by_generation[generation], key=lambda pair: pair[0]):
            if not lost and all(len(block) >= k for block in blocks):
                break
            for at, block in enumerate(shard.blocks() or []):
                if block is not None:
                    # A copy of a replicated chunk is its only data shard.
                    blocks[at].setdefault(0 if k == 1 else index, block)
        short = min(len(block) for block in blocks)
        if short < k:
            problem = f"{short} intact shards of a block, {k} are needed"
            continue
        decoded = [decode(k, m, block) for block in blocks]
        return b"".join(b"".join(pieces[index] for pieces in decoded) for index in range(k))
    raise Unrecoverable(problem)


def read_blob(entry: dict, project: bytes, keys: Keys, shards: dict):
    """The plaintext of a blob, frame by frame."""
    blob, length, layout = bytes.fromhex(entry["blob"]), entry["len_bytes"], entry["layout"]
    known = (layout["aead"], layout["erasure_code"], layout["hash"], layout["block_len_bytes"])
    if known != ("Aes256GcmStream", "ReedSolomonVandermonde", "Blake3", BLOCK):
        raise Unrecoverable(f"a layout that this program does not know: {known}")
    frames = Frames(keys.data_key(project, blob, base64.b64decode(entry["wrapped_key_base64"])), project, blob)
    if entry["place"] == "inline":
        yield frames.open(0, True, base64.b64decode(entry["inline_base64"]))
        return
    frame_plain, per_chunk = layout["frame_plain_bytes"], layout["frames_per_chunk"]
    chunk_plain, frame_count = frame_plain * per_chunk, -(-length // frame_plain)
    for chunk in range(-(-length // chunk_plain)):
        plain = min(chunk_plain, length - chunk * chunk_plain)
        last = (chunk + 1) * chunk_plain >= length
        k = 1 if last and plain <= layout["replicated_plain_bytes_max"] else layout["k"]
        sealed_len = plain + 16 * -(-plain // frame_plain)
        shard_len = -(-(-(-sealed_len // k)) // 64) * 64
        try:
            sealed = find_chunk(shards.get((blob, chunk), ()), k, layout["m"], shard_len)[:sealed_len]
        except Unrecoverable as error:
            raise Unrecoverable(f"chunk {chunk} of blob {entry['blob']}: {error}") from None
        for at in range(0, sealed_len, frame_plain + 16):
            index = chunk * per_chunk + at // (frame_plain + 16)
            yield frames.open(index, index == frame_count - 1, sealed[at : at + frame_plain + 16])


# -- objects -----------------------------------------------------------------------------------------------------------


def file_name(key: bytes, is_also_folder: bool) -> pathlib.PurePosixPath:
    """A safe path for any key. What is not plain is percent-encoded; `%` never stands for itself, so nothing collides."""
    parts = []
    for part in key.split(b"/"):
        text = urllib.parse.quote(part, safe=" !#$&'()+,-.;=@[]^_`{}~")
        text = {"": "%", ".": "%2E", "..": "%2E%2E"}.get(text, text)
        if len(text) > 200:
            text = "%sha256-" + hashlib.sha256(part).hexdigest()
        parts.append(text)
    if is_also_folder:
        parts[-1] += "%file"
    return pathlib.PurePosixPath(*parts)


def read_export(path: pathlib.Path):
    with open(path, encoding="utf-8") as file:
        header = json.loads(file.readline())
        if (header.get("type"), header.get("format")) != ("valv-metadata-export", 1):
            raise SystemExit(f"{path}: not a metadata export of a format that this program knows")
        return header, [line for line in map(json.loads, file) if line["type"] == "version"]


def wanted(lines, arguments):
    for line in lines:
        key = base64.b64decode(line["key"]["base64"])
        if line["is_delete_marker"] or not (line["is_current"] or arguments.all_versions):
            continue
        if arguments.bucket and line["bucket"]["name"] != arguments.bucket:
            continue
        if key.startswith(os.fsencode(arguments.prefix)):
            yield key, line


def recover(line: dict, target: pathlib.Path, keys: Keys, shards: dict):
    """Writes one object version; raises Unrecoverable, and leaves no file, if it can't be had whole."""
    project = bytes.fromhex(line["project"])
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name[:200] + "%partial")
    md5, written = hashlib.md5(), 0
    try:
        with open(partial, "wb") as out:
            for entry in line["blobs"]:
                if entry["offset"] != written:
                    raise Unrecoverable(f"a blob starts at {entry['offset']}, expected {written}")
                for plain in read_blob(entry, project, keys, shards):
                    out.write(plain)
                    md5.update(plain)
                    written += len(plain)
        if written != line["len_bytes"]:
            raise Unrecoverable(f"{written} bytes instead of {line['len_bytes']}")
        if len(line["etag"]) == 32 and not line["encryption_base64"] and md5.hexdigest() != line["etag"]:
            raise Unrecoverable("its MD5 differs from its ETag")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--disk", action="append", required=True, type=pathlib.Path, help="a disk folder; repeat for each that is left")
    parser.add_argument("--export", required=True, type=pathlib.Path, help="what `valv metadata export` wrote")
    parser.add_argument("--keys", required=True, type=pathlib.Path, help="what `valv key backup` wrote")
    parser.add_argument("--passphrase-file", required=True, type=pathlib.Path, help="its first line opens the key backup")
    parser.add_argument("--customer-key-file", action="append", default=[], type=pathlib.Path, help="a customer's key (SSE-C), in base64 or raw; repeat for each")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="where to write; a manifest goes beside the files")
    parser.add_argument("--bucket", help="only this bucket")
    parser.add_argument("--prefix", default="", help="only keys that start with this")
    parser.add_argument("--all-versions", action="store_true", help="noncurrent versions too")
    arguments = parser.parse_args()

    passphrase = arguments.passphrase_file.read_bytes().splitlines()[0]
    keys = Keys(arguments.keys.read_text(), passphrase, [read_customer_key(path) for path in arguments.customer_key_file])
    header, lines = read_export(arguments.export)
    if header["cluster"] != keys.cluster:
        print("warning: export and key backup are of different clusters", file=sys.stderr)

    shards = collections.defaultdict(list)
    for disk in arguments.disk:
        found = scan_disk(disk)
        print(f"{disk}: {len(found)} shards", file=sys.stderr)
        for key, shard in found.items():
            if shard is not None:
                shards[key[12:28], number(key[28:32])].append((key[32], shard))

    chosen = list(wanted(lines, arguments))
    folders = collections.defaultdict(set)
    for key, line in chosen:
        parts = key.split(b"/")
        folders[line["bucket"]["name"]].update(b"/".join(parts[:n]) for n in range(1, len(parts)))
    arguments.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with open(arguments.out / "manifest.jsonl", "w", encoding="utf-8") as manifest:
        for key, line in chosen:
            bucket = line["bucket"]["name"]
            name = pathlib.PurePosixPath(bucket) / file_name(key, key in folders[bucket])
            if not line["is_current"]:
                name = pathlib.PurePosixPath("%versions", line["version"]) / name
            entry = {name_: line[name_] for name_ in ("bucket", "key", "version", "len_bytes", "etag", "headers", "user_metadata", "tags")}
            try:
                recover(line, arguments.out / name, keys, shards)
                entry["file"] = str(name)
            except Unrecoverable as error:
                failed += 1
                entry["error"] = str(error)
                print(f"{bucket}/{os.fsdecode(key)}: {error}", file=sys.stderr)
            manifest.write(json.dumps(entry) + "\n")
    print(f"{len(chosen) - failed} objects recovered, {failed} not; see {arguments.out / 'manifest.jsonl'}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
