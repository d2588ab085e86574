"""Whether a sound file is whole, by the sizes and check sums of its container; libsndfile reads damaged ones silently.

RIFF, RF64 (EBU Tech 3306), AIFF, Sony Wave64, Apple CAF, Sun AU, Ogg (RFC 3533).  Sizes that a program which
writes to a pipe leaves open state nothing.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

OPEN_SIZE = 2**32 - 2**16
CUT = "cut off before its end"
MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Every byte with its bits in the opposite order."""


def flaw_of(path: str | Path) -> str:
    """What is wrong with a file's container, "" for nothing and for formats that this does not know."""
    with open(path, "rb") as file:
        head, total = file.read(4), os.fstat(file.fileno()).st_size
        file.seek(0)
        if head == b"OggS":
            return ogg_flaw(file)
        size = stated_size(file, head)
    return CUT if size is not None and size > total else ""


def stated_size(file: BinaryIO, head: bytes) -> int | None:
    """Where a file's sound ends by its header, in bytes; None if it does not say."""
    if head in (b"RIFF", b"FORM", b"RF64"):
        return riff_end(file, "big" if head == b"FORM" else "little")
    if head == b"riff":
        file.seek(40)
        while len(chunk := file.read(24)) == 24:
            size = int.from_bytes(chunk[16:], "little")
            if chunk[:4] == b"data":
                return file.tell() - 24 + size
            file.seek(max(0, size - 24) + -size % 8, os.SEEK_CUR)
    if head in (b".snd", b"dns."):
        file.seek(4)
        start, size = struct.unpack(">II" if head == b".snd" else "<II", file.read(8).ljust(8, b"\0"))
        return None if size == 2**32 - 1 else int(start + size)
    if head == b"caff":
        file.seek(8)
        while len(chunk := file.read(12)) == 12:
            size = int.from_bytes(chunk[4:], "big", signed=True)
            if chunk[:4] == b"data":
                return None if size < 0 else file.tell() + size
            file.seek(max(0, size), os.SEEK_CUR)
    return None


def riff_end(file: BinaryIO, order: str) -> int | None:
    """The end of a RIFF, RF64 or AIFF file's sound chunk; RF64 keeps its size in ``ds64``."""
    wide = None
    file.seek(12)
    while len(chunk := file.read(8)) == 8:
        size = int.from_bytes(chunk[4:], order)  # type: ignore[arg-type]  # "little" or "big"
        if chunk[:4] == b"ds64":
            body = file.read(size)
            wide = int.from_bytes(body[8:16], "little") if len(body) >= 16 else None
            continue
        if chunk[:4] in (b"data", b"SSND"):
            size = wide if size == 2**32 - 1 and wide else size if size < OPEN_SIZE else 0
            return file.tell() + size if size else None
        file.seek(size + size % 2, os.SEEK_CUR)
    return None


def ogg_flaw(file: BinaryIO) -> str:
    """A page that is missing, damaged or cut off; every page of every stream is read."""
    last, numbers = 0, dict[bytes, int]()
    while head := file.read(27):
        place = file.tell() - len(head)
        table = file.read(head[26]) if len(head) == 27 else b""
        body = file.read(sum(table))
        if head[:4] != b"OggS"[: len(head)]:
            return f"damaged at byte {place}"
        if len(head) < 27 or len(table) < head[26] or len(body) < sum(table):
            return CUT
        page = head[:22] + bytes(4) + head[26:] + table + body
        if checksum(page) != int.from_bytes(head[22:26], "little"):
            return f"damaged at byte {place}"
        stream, number, last = head[14:18], int.from_bytes(head[18:22], "little"), head[5]
        if number != numbers.get(stream, number - 1) + 1:
            return f"damaged at byte {place}: a part is missing"
        numbers[stream] = number
    return "" if last & 4 else CUT


def checksum(page: bytes) -> int:
    """Ogg's CRC-32: zlib's polynomial with the bits in the opposite order, from 0 and not inverted.

    >>> checksum(b"\\x01"), checksum(b"")
    (79764919, 0)
    """
    value = zlib.crc32(page.translate(MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2)
