"""The disk format as tests need it: where the records of an extent are. Written from docs/format-disk.md."""

import pathlib

CASTAGNOLI = []
for _byte in range(256):
    _crc = _byte
    for _ in range(8):
        _crc = (_crc >> 1) ^ (0x82F63B78 if _crc & 1 else 0)
    CASTAGNOLI.append(_crc)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CASTAGNOLI[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def records(extent: pathlib.Path):
    """(offset, header, table offset, payload offset, payload length) of every intact put record."""
    extent_id = int(extent.stem, 16)
    data = extent.read_bytes()
    at = 4096
    while at + 128 <= len(data):
        head = data[at : at + 128]
        if head[:4] != b"VREC":
            found = data.find(b"VREC", at + 1)
            if found < 0:
                return
            at = max(at + 64, found // 64 * 64)
            continue
        size = int.from_bytes(head[88:92], "big")
        table = 32 * -(-size // 16384)
        length = -(-(128 + table + size) // 64) * 64
        if (
            crc32c(head[:124]) != int.from_bytes(head[124:128], "big")
            or int.from_bytes(head[8:16], "big") != extent_id
            or int.from_bytes(head[16:24], "big") != at
            or at + length > len(data)
        ):
            at += 64
            continue
        if head[5] == 3:
            return
        if head[5] == 1:
            yield at, head, at + 128, at + 128 + table, size
        at += length


def flip(path: pathlib.Path, offset: int, bit: int = 0):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))


def extents(disk: pathlib.Path):
    return sorted((disk / "extents").glob("*.ext"))
