"""One change to one file: of a value, of a line, of bytes, of what the file is."""

import copy
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator
NASTY: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    3,
    10**12,
    -(10**12),
    2**63,
    10**400,
    0.5,
    -0.5,
    1e-300,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "x",
    "0",
    "-1",
    "nan",
    "../../secret/secret.wav",
    "/etc/passwd",
    "a\0b",
    "\x1b[2J",
    "\ud800",
    "\u202e",
    "=1+1",
    "x" * 100_000,
    "é" * 300,
    [],
    {},
    [[]],
    [None],
    ["x"],
    [0] * 5000,
    {"a": {"b": [1]}},
    {"": None},
    [[[[[[[[[[1]]]]]]]]]],
]
"""What stands where another value belongs"""
TEXTS = [
    b"",
    b"\0",
    b"\xff\xfe\x00",
    b"{",
    b"[",
    b"[" * 100_000,
    b"null",
    b"1e999",
    b"{}",
    b"[]",
    b'{"a":' * 5000,
    b"\x81\x8d\n",
    b'"',
    b'"never closed\n' * 3,
    b",,,,,,\n" * 50,
    b"a" * 200_000,
    b"\xef\xbb\xbf",
    b"<html></html>",
    b"- !!python/object:os.system x",
    b"&a [*a]\n",
    b"a: &a [x, x]\nb: [*a, *a]\n",
    b"\r\r\r",
    "\u2028\x85\x0b".encode() * 5,
]
"""What a whole file, or a line of it, may hold instead"""
MEMBERS = (
    "../evil.wav",
    "/tmp/evil.wav",
    "a/../../evil.wav",
    "..",
    ".",
    "",
    "x" * 300,
    "a\\..\\b",
    "é\udcff",
    "clips/../clips.jsonl",
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside a JSON value; of long lists the first four."""
    inner = (
        value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    )
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def change_json(value: Any, rng: Rng) -> Any:
    """``value`` with one value inside replaced, removed or added."""
    value = copy.deepcopy(value)
    ways = places(value)
    path = ways[rng.integers(len(ways))]
    nasty = copy.deepcopy(NASTY[rng.integers(len(NASTY))])
    if not path:
        return (
            nasty if rng.random() < 0.3 else {**value, "strange": nasty} if isinstance(value, dict) else nasty
        )
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if rng.random() < 0.2:
        del holder[path[-1]]
    else:
        holder[path[-1]] = nasty
    return value


def written(value: Any) -> bytes:
    """JSON of anything; halves of surrogate pairs as escapes."""
    return json.dumps(value).encode()


def change_bytes(content: bytes, rng: Rng) -> bytes:
    """Bytes flipped, cut off, doubled, put in or taken out."""
    data = bytearray(content or b"\0")
    first, last = sorted(rng.integers(0, len(data) + 1, 2))
    kind = rng.integers(6)
    if kind == 0:
        for place in rng.integers(0, len(data), rng.integers(1, 20)):
            data[place] ^= int(rng.integers(1, 256))
    elif kind == 1:
        del data[first:]
    elif kind == 2:
        del data[first:last]
    elif kind == 3:
        data[first:first] = data[first:last]
    elif kind == 4:
        data[first:last] = bytes(last - first)
    else:
        data[first:first] = TEXTS[rng.integers(len(TEXTS))]
    return bytes(data)


def change_lines(content: bytes, rng: Rng) -> bytes:
    """A line of JSON with another value, or a line of text with a cell of another content."""
    lines = content.split(b"\n")
    number = int(rng.integers(len(lines)))
    try:
        lines[number] = written(change_json(json.loads(lines[number]), rng))
    except ValueError:
        cells = lines[number].split(b",")
        nasty = [text.encode("utf-8", "replace") for text in map(str, NASTY)] + TEXTS
        cells[rng.integers(len(cells))] = nasty[rng.integers(len(nasty))]
        lines[number] = b",".join(cells)
    return b"\n".join(lines)


def change_safetensors(content: bytes, rng: Rng) -> bytes:
    """A header with another value, another length of it, or weights that are no numbers."""
    length = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    kind = rng.integers(4)
    if kind == 0:
        text = written(change_json(header, rng))
        return len(text).to_bytes(8, "little") + text + body
    if kind == 1:
        size = [0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1][rng.integers(7)]
        return int(size).to_bytes(8, "little") + content[8:]
    if kind == 2:
        names = [name for name in header if name != "__metadata__" and header[name]["dtype"].startswith("F")]
        first, last = header[names[rng.integers(len(names))]]["data_offsets"] if names else (0, 0)
        return content[: 8 + length] + body[:first] + b"\xff" * (last - first) + body[last:]
    return change_bytes(content, rng)


def change_tar(content: bytes, rng: Rng) -> bytes:
    """A member of another name, kind or size, twice, or none; or other bytes."""
    kind, out = rng.integers(5), io.BytesIO()
    if kind == 0:
        return change_bytes(content, rng)
    with tarfile.open(fileobj=io.BytesIO(content)) as source, tarfile.open(fileobj=out, mode="w") as target:
        members = source.getmembers()
        at = int(rng.integers(len(members)))
        for number, item in enumerate(members):
            body = (source.extractfile(item).read() if item.isreg() else b"") or b""
            times = 1
            if number == at and kind == 1:
                item.name = MEMBERS[rng.integers(len(MEMBERS))]
            elif number == at and kind == 2:
                kinds = (
                    tarfile.SYMTYPE,
                    tarfile.LNKTYPE,
                    tarfile.CHRTYPE,
                    tarfile.FIFOTYPE,
                    tarfile.DIRTYPE,
                    tarfile.GNUTYPE_SPARSE,
                )
                item.type, item.linkname, body = (
                    kinds[rng.integers(6)],
                    ("/etc/passwd", "..", item.name)[rng.integers(3)],
                    b"",
                )
            elif number == at and kind == 3:
                times = int(rng.integers(0, 2)) * 2
            elif number == at:
                lines = item.name.endswith((".jsonl", ".txt", ".json"))
                body = change_lines(body, rng) if lines and rng.random() < 0.8 else change_bytes(body, rng)
            item.size = len(body)
            for _ in range(times):
                target.addfile(item, io.BytesIO(body))
    return out.getvalue()


class Evil:
    """A pickle that would write a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/fuzz-evil $HOME/evil",)


CHANGES: dict[str, Callable[[bytes, Rng], bytes]] = {
    ".json": lambda content, rng: written(change_json(json.loads(content), rng)),
    ".jsonl": change_lines,
    ".csv": change_lines,
    ".txt": change_lines,
    ".yaml": change_lines,
    ".tsv": change_lines,
    ".safetensors": change_safetensors,
    ".tar": change_tar,
}


def mutate(path: Path, rng: Rng) -> str:
    """Change a file; what was done, for the name of the case."""
    kind = rng.random()
    content = path.read_bytes()
    if kind < 0.6 and path.suffix in CHANGES and content.strip():
        path.write_bytes(CHANGES[path.suffix](content, rng))
        return "changed"
    if kind < 0.75:
        path.write_bytes(change_bytes(content, rng))
        return "other bytes"
    if kind < 0.88:
        path.write_bytes(TEXTS[rng.integers(len(TEXTS))])
        return "another text"
    path.unlink()
    what = ("gone", "a folder", "a pipe", "endless", "a tebibyte", "a circle", "a pickle")[rng.integers(7)]
    if what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    elif what == "endless":
        path.symlink_to("/dev/zero")
    elif what == "a tebibyte":
        path.touch()
        os.truncate(path, 2**40)
    elif what == "a circle":
        path.symlink_to(path.name)
    elif what == "a pickle":
        import pickle

        path.write_bytes(pickle.dumps(Evil()))
    return what
