"""TensorFlow's checkpoints without TensorFlow: an index of names, shapes and places, and a file of numbers.

The index is a table of sorted keys in LevelDB's format (blocks with shared prefixes); its values are the protocol
buffers of ``tensor_bundle.proto``.   Float32, one data file, no compression: what TensorFlow 1 wrote.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from audioldm.errors import AudioLDMError

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER = 48
FLOAT32 = 1
DTYPE, SHAPE, OFFSET, SIZE = 1, 2, 4, 5
"""fields of BundleEntryProto"""


def read_checkpoint(prefix: str) -> dict[str, Tensor]:
    """The float32 tensors of ``prefix``.index and ``prefix``.data-00000-of-00001 by name.

    Raises AudioLDMError where the index is no such table or points outside the data.
    """
    index, data = Path(f"{prefix}.index").read_bytes(), Path(f"{prefix}.data-00000-of-00001").read_bytes()
    found = {}
    try:
        for key, value in table(index):
            entry = dict(fields(value))
            if not key or entry.get(DTYPE) != FLOAT32:
                continue
            shape = [
                dict(fields(part)).get(1, 0) for number, part in fields(entry.get(SHAPE, b"")) if number == 2
            ]
            begin, size = entry.get(OFFSET, 0), entry[SIZE]
            if size != 4 * torch.Size(shape).numel() or begin + size > len(data):
                raise ValueError(f"{key!r} lies outside the data")
            values = torch.frombuffer(bytearray(data[begin : begin + size]), dtype=torch.float32)
            found[key.decode()] = values.reshape(shape)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise AudioLDMError(f"{prefix}.index cannot be read: {error}.", "Get the package again.") from error
    return found


def table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a LevelDB table."""
    if content[-8:] != MAGIC:
        raise ValueError("it is no table of TensorFlow's")
    footer, at = content[-FOOTER:], 0
    for _ in range(2):  # the meta index, which is empty
        _, at = varint(footer, at)
    for _, handle in block(content, *handle_of(footer[at:])):
        yield from block(content, *handle_of(handle))


def handle_of(content: bytes) -> tuple[int, int]:
    """Offset and size of a block."""
    offset, at = varint(content, 0)
    return offset, varint(content, at)[0]


def block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of one block; a key begins with as much of the one before as it says."""
    if content[offset + size] != 0:
        raise ValueError("a block is compressed")
    part = content[offset : offset + size]
    end = size - 4 - 4 * int.from_bytes(part[-4:], "little")
    at, key = 0, b""
    while at < end:
        shared, at = varint(part, at)
        own, at = varint(part, at)
        length, at = varint(part, at)
        key = key[:shared] + part[at : at + own]
        at += own + length
        yield key, part[at - length : at]


def varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the least first, and the place after it.

    >>> varint(bytes([0xAC, 0x02]), 0)
    (300, 2)
    """
    value = shift = 0
    while True:
        byte = content[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer: numbers as int, everything else as bytes."""
    at = 0
    while at < len(content):
        tag, at = varint(content, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(content, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = varint(content, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field has the wire type {kind}")
        yield tag >> 3, content[at : at + size]
        at += size
