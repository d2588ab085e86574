"""Whether a sound file is whole, by the sizes and check sums of its container; libsndfile reads damaged ones silently.

RIFF, RF64 (EBU Tech 3306), AIFF, Sony Wave64, Apple CAF, Sun AU, Ogg (RFC 3533).  Sizes that a program which
writes to a pipe leaves open state nothing.
"""

import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

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
    return ENDS[head](file) if head in ENDS else None


def wave64_end(file: BinaryIO) -> int | None:
    """Of Sony Wave64, whose sizes hold their chunk's head and are rounded up to 8."""
    file.seek(40)
    while len(chunk := file.read(24)) == 24:
        size = int.from_bytes(chunk[16:], "little")
        if chunk[:4] == b"data":
            return file.tell() - 24 + size
        file.seek(max(0, size - 24) + -size % 8, os.SEEK_CUR)
    return None


def au_end(file: BinaryIO, layout: str) -> int | None:
    """Of Sun AU."""
    file.seek(4)
    start, size = struct.unpack(layout, file.read(8).ljust(8, b"\0"))
    return None if size == 2**32 - 1 else int(start + size)


def caf_end(file: BinaryIO) -> int | None:
    """Of Apple CAF; a size of -1 is open."""
    file.seek(8)
    while len(chunk := file.read(12)) == 12:
        size = int.from_bytes(chunk[4:], "big", signed=True)
        if chunk[:4] == b"data":
            return None if size < 0 else file.tell() + size
        file.seek(max(0, size), os.SEEK_CUR)
    return None


def riff_end(file: BinaryIO, order: Literal["little", "big"] = "little") -> int | None:
    """Of a RIFF, RF64 or AIFF file; RF64 keeps its size in ``ds64``."""
    wide = 0
    file.seek(12)
    while len(chunk := file.read(8)) == 8:
        size = int.from_bytes(chunk[4:], order)
        if chunk[:4] in (b"data", b"SSND"):
            stated = wide if size == 2**32 - 1 else size if size < OPEN_SIZE else 0
            return file.tell() + stated if stated else None
        if chunk[:4] == b"ds64":
            wide = int.from_bytes(file.read(size)[8:16], "little")
            continue
        file.seek(size + size % 2, os.SEEK_CUR)
    return None


ENDS: dict[bytes, Callable[[BinaryIO], int | None]] = {
    b"RIFF": riff_end,
    b"RF64": riff_end,
    b"FORM": partial(riff_end, order="big"),
    b"riff": wave64_end,
    b".snd": partial(au_end, layout=">II"),
    b"dns.": partial(au_end, layout="<II"),
    b"caff": caf_end,
}
"""First bytes of a file -> where its sound ends by its header"""


def ogg_flaw(file: BinaryIO) -> str:
    """A page that is missing, damaged or cut off; every page of every stream is read."""
    last, numbers = 0, dict[bytes, int]()
    while head := file.read(27):
        place = file.tell() - len(head)
        if flaw := page_flaw(file, head):
            return flaw.format(place=place)
        stream, number, last = head[14:18], int.from_bytes(head[18:22], "little"), head[5]
        if number != numbers.get(stream, number - 1) + 1:
            return f"damaged at byte {place}: a part is missing"
        numbers[stream] = number
    return "" if last & 4 else CUT


def page_flaw(file: BinaryIO, head: bytes) -> str:
    """What is wrong with the page of Ogg that begins with ``head``; ``file`` is then at its end."""
    table = file.read(head[26]) if len(head) == 27 else b""
    body = file.read(sum(table))
    if head[:4] != b"OggS"[: len(head)]:
        return "damaged at byte {place}"
    if len(head) < 27 or len(table) < head[26] or len(body) < sum(table):
        return CUT
    page = head[:22] + bytes(4) + head[26:] + table + body
    return "" if checksum(page) == int.from_bytes(head[22:26], "little") else "damaged at byte {place}"


def checksum(page: bytes) -> int:
    """Ogg's CRC-32: zlib's polynomial with the bits in the opposite order, from 0 and not inverted.

    >>> checksum(b"\\x01"), checksum(b"")
    (79764919, 0)
    """
    value = zlib.crc32(page.translate(MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2)
