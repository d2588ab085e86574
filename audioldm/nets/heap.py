"""Memory on a CPU: what is freed waits for the next tensors, up to a limit; what a file holds is not held for long."""

import ctypes
import platform
import re
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch import nn

IDLE = 256 * 2**20
"""Bytes of freed memory that may wait for the next tensor."""
PAGE = 4096
DONTNEED = 4
"""MADV_DONTNEED in Linux' mman.h."""
SUFFIX = ".safetensors"
MAPPING = re.compile(rf"([0-9a-f]+)-([0-9a-f]+) \S*p \S+ \S+ \S+ +.*{re.escape(SUFFIX)}$")
"""A private mapping of a weight file in smaps."""


class Mallinfo(ctypes.Structure):
    """What glibc counts of its heap; ``uordblks`` are bytes in use."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
                     "keepcost")
    )  # fmt: skip


@cache
def libc() -> ctypes.CDLL | None:
    """The C library where it is a glibc that can be asked (2.33 or later), else None."""
    if platform.libc_ver()[0] != "glibc" or not hasattr(found := ctypes.CDLL(None), "mallinfo2"):
        return None
    found.mallinfo2.restype = Mallinfo
    return found


@cache
def keep_freed() -> int | None:
    """Let this process keep the memory that it frees, for its next tensors; None where the C library is not glibc.

    glibc gives every block above 32 MB back to the system at once; the next one costs a page fault for each 4 KiB,
    ten times what filling it costs.   Its heap gets gaps, though (an aligned block does not fit into the hole that one
    like it has left), so ``trim_heap`` must be called where much was freed.   Gives the bytes of private memory that
    are not of the heap.
    """
    if (library := libc()) is None:
        return None
    never, trim, most = 0, -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX in malloc.h
    library.mallopt(most, never)
    library.mallopt(trim, 2**31 - 1)
    return private() - library.mallinfo2().uordblks


def trim_heap(idle: int = IDLE) -> None:
    """Give freed memory back to the system, where more than ``idle`` bytes of it are kept."""
    if torch.compiler.is_compiling() or (library := libc()) is None or not keep_freed.cache_info().currsize:
        return
    other = keep_freed() or 0
    if private() - library.mallinfo2().uordblks - other > idle:
        library.malloc_trim(0)


def private() -> int:
    """Bytes of memory that this process holds and shares with no file."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * PAGE


def release_weight_pages(*nets: nn.Module, least: int = IDLE) -> None:
    """Let go of the pages of weights that are views of a file, where none was changed; the next use maps them again.

    That reads the system's cache of the file, not the disk, while memory is plenty.   Nets of fewer than ``least``
    bytes stay: the system takes 10 ms to tell where they are.   No weight may be changed by another thread meanwhile.
    """
    weights = [weight for net in nets for weight in net.parameters()]
    maps = Path("/proc/self/maps")
    if (library := libc()) is None or sum(weight.nbytes for weight in weights) < least:
        return
    if not maps.exists() or SUFFIX not in maps.read_text():
        return
    places = sorted(weight.data_ptr() for weight in weights)
    for begin, end, unchanged in file_mappings():
        at = bisect_left(places, begin)
        if unchanged and at < len(places) and places[at] < end:
            library.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), DONTNEED)


def file_mappings() -> Iterator[tuple[int, int, bool]]:
    """(first address, end, no page of it differs from the file) of every weight file that this process has mapped."""
    begin, end, changed = -1, -1, True
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := MAPPING.match(line):
            begin, end = (int(address, 16) for address in found.groups())
        elif "-" in line.split(" ", 1)[0]:
            begin = -1
        elif begin >= 0 and line.startswith("Anonymous:"):
            changed = line.split()[1] != "0"
        elif begin >= 0 and line.startswith("Swap:"):  # a changed page may be there
            yield begin, end, not changed and line.split()[1] == "0"
