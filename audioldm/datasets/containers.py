"""Whether a sound file is whole, by the sizes and check sums of its container; libsndfile reads damaged ones silently.

RIFF, RF64 (EBU Tech 3306), AIFF, Sony Wave64, Apple CAF, Sun AU, Ogg (RFC 3533), MP3 by its Xing header.
"""

import os
import sys
import zlib
from typing import BinaryIO, Literal

OPEN = {4: 2**32 - 2**16, 8: 2**64}  # By its bytes, a size that is so large states none.
CUT = "cut off before its end"
MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # every byte with its bits reversed
MORE = "more than one sound: what begins at byte {place} would not be read"
CHUNKS: dict[bytes, tuple[int, int, int, Literal["little", "big"], int, int]] = {
    b"RIFF": (12, 4, 4, "little", 2, 0),
    b"RF64": (12, 4, 4, "little", 2, 0),
    b"FORM": (12, 4, 4, "big", 2, 0),
    b"riff": (40, 16, 8, "little", 8, 24),
    b"caff": (8, 4, 8, "big", 1, 0),
}
"""First bytes of a file -> where its chunks begin, bytes of a chunk's name and size, their order, its alignment, and
bytes of the chunk's header that its size includes"""
MP3_SLACK = 1500  # Bytes; some encoders count a frame more or less.
AU: dict[bytes, Literal["little", "big"]] = {b".snd": "big", b"dns.": "little"}


def flaw_of(file: BinaryIO) -> str:
    """What is wrong with the container of a file at its beginning, "" for nothing and for formats not known here."""
    head, total = file.read(4), file.seek(0, os.SEEK_END)
    file.seek(0)
    if head == b"OggS":
        return ogg_flaw(file)
    if head[:3] == b"ID3" or head[:2] >= b"\xff\xe0":
        end, start, slack = mp3_end(file), b"\xff", MP3_SLACK
    else:
        end, start, slack = stated_end(file, head), head, 0
    if end is None or abs(end - total) <= slack:
        return ""
    if end > total:
        return CUT
    file.seek(end + end % 2 * (start in (b"RIFF", b"FORM")))
    return MORE.format(place=end) if file.read(4)[: len(start)] == start else ""


def mp3_end(file: BinaryIO) -> int | None:
    """Where an MP3 file ends by the Xing or Info header of its encoder; None if there is none."""
    head = file.read(10)
    tag = sum((byte & 127) << 7 * place for place, byte in enumerate(head[:5:-1])) + 10
    begin = tag if head[:3] == b"ID3" else 0
    file.seek(begin)
    frame = file.read(64)
    for place in (36, 21, 13):  # after the frame's header and what belongs to its channels
        flags = int.from_bytes(frame[place + 4 : place + 8])
        if frame[place : place + 4] in (b"Xing", b"Info") and flags & 2:
            at = place + 8 + 4 * (flags & 1)
            return begin + int.from_bytes(frame[at : at + 4])
    return None


def stated_end(file: BinaryIO, head: bytes) -> int | None:
    """Where a file's sound ends by its header, in bytes; None if it does not say."""
    if head in AU:
        return au_end(file, AU[head])
    if head not in CHUNKS:
        return None
    begin, name, width, order, align, included = CHUNKS[head]
    wide = 0
    file.seek(begin)
    while len(chunk := file.read(name + width)) == name + width:
        size = int.from_bytes(chunk[name:], order, signed=head == b"caff") - included
        if chunk[:4] in (b"data", b"SSND"):
            if size >= OPEN[width]:
                size = wide
            return file.tell() + size if size > 0 else None
        begin = file.tell()
        if chunk[:4] == b"ds64":
            wide = int.from_bytes(file.read(16)[8:], "little")
        file.seek(min(begin + max(0, size) + -size % align, sys.maxsize))
    return None


def au_end(file: BinaryIO, order: Literal["little", "big"]) -> int | None:
    sizes = file.read(12)
    start, size = (int.from_bytes(sizes[at : at + 4], order) for at in (4, 8))
    return None if size == 2**32 - 1 else start + size


def ogg_flaw(file: BinaryIO) -> str:
    """A page that is missing, damaged or cut off; every page of every stream is read."""
    last, numbers = 0, dict[bytes, int]()
    while head := file.read(27):
        place = file.tell() - len(head)
        table = file.read(sum(head[26:]))
        page = head + table + file.read(sum(table))
        if head[:4] != b"OggS"[: len(head)]:
            return f"damaged at byte {place}"
        if len(page) < 27 + sum(head[26:]) + sum(table):
            return CUT
        if checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(head[22:26], "little"):
            return f"damaged at byte {place}"
        if (head[5] & 2, last & 4) == (2, 4):  # a stream begins after one has ended
            return MORE.format(place=place)
        stream, number, last = head[14:18], int.from_bytes(head[18:22], "little"), head[5]
        if number != numbers.get(stream, number - 1) + 1:
            return f"damaged at byte {place}: a part is missing"
        numbers[stream] = number
    return "" if last & 4 else CUT


def checksum(page: bytes) -> int:
    """Ogg's CRC-32: zlib's polynomial with the bits in the opposite order, from 0 and not inverted."""
    return int(f"{zlib.crc32(page.translate(MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}"[::-1], 2)
