"""Memory on a CPU: freed blocks wait for the next tensors up to a limit, and weight files do not stay resident.

Measured (``benchmarks/README.md``, peak memory): 1766 MiB instead of 3599 for the published S shape in float32.
"""

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
"""bytes of freed memory that may wait for the next tensor"""
PAGE = 4096
DONTNEED = 4
"""MADV_DONTNEED in Linux' mman.h"""
SUFFIX = ".safetensors"
MAPPING = re.compile(rf"([0-9a-f]+)-([0-9a-f]+) \S*p \S+ \S+ \S+ +.*{re.escape(SUFFIX)}$")
"""a private mapping of a weight file in smaps"""


class Mallinfo(ctypes.Structure):
    """glibc's counters of its heap; ``uordblks`` are the bytes in use."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
                     "keepcost")
    )  # fmt: skip


@cache
def libc() -> ctypes.CDLL | None:
    """The C library where it is glibc 2.33 or later, else None."""
    if platform.libc_ver()[0] != "glibc" or not hasattr(library := ctypes.CDLL(None), "mallinfo2"):
        return None
    library.mallinfo2.restype = Mallinfo
    return library


@cache
def keep_freed() -> int | None:
    """Let this process keep the memory that it frees for its next tensors; None where there is no glibc.

    glibc returns every block above 32 MB to the system at once; the next one costs a page fault for each 4 KiB, ten
    times what filling it costs.   The heap fragments, though, so ``trim_heap`` must be called where much was freed.
    Returns the bytes of private memory outside the heap.
    """
    if (library := libc()) is None:
        return None
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX in malloc.h
    library.mallopt(mmap_max, 0)
    library.mallopt(trim_threshold, 2**31 - 1)
    return private() - library.mallinfo2().uordblks


def trim_heap(idle: int = IDLE) -> None:
    """Return freed memory to the system where more than ``idle`` bytes of it wait."""
    if torch.compiler.is_compiling() or (library := libc()) is None or not keep_freed.cache_info().currsize:
        return
    if private() - library.mallinfo2().uordblks - (keep_freed() or 0) > idle:
        library.malloc_trim(0)


def private() -> int:
    """Bytes of memory that this process has and shares with no file."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text(encoding="utf-8").split()
    return (int(resident) - int(shared)) * PAGE


def release_weight_pages(*nets: nn.Module, least: int = IDLE) -> None:
    """Drop the resident pages of weights that are views of a file and unchanged; the next use maps them again.

    That reads the system's cache of the file, not the disk, while memory is plenty.   Nets below ``least`` bytes are
    skipped, since finding their pages takes 10 ms.   No other thread may change a weight meanwhile.
    """
    weights = [weight for net in nets for weight in net.parameters()]
    maps = Path("/proc/self/maps")
    if (library := libc()) is None or sum(weight.nbytes for weight in weights) < least:
        return
    if not maps.exists() or SUFFIX not in maps.read_text(encoding="utf-8"):
        return
    places = sorted(weight.data_ptr() for weight in weights)
    for begin, end in clean_mappings():
        at = bisect_left(places, begin)
        if at < len(places) and places[at] < end:
            library.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), DONTNEED)


def clean_mappings() -> Iterator[tuple[int, int]]:
    """(first address, end) of every mapped weight file no page of which differs from the file."""
    begin, end, clean = -1, -1, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if match := MAPPING.match(line):
            begin, end = (int(address, 16) for address in match.groups())
        elif "-" in line.split(" ", 1)[0]:
            begin = -1
        elif begin >= 0 and line.startswith("Anonymous:"):
            clean = line.split()[1] == "0"
        elif begin >= 0 and line.startswith("Swap:") and clean and line.split()[1] == "0":
            yield begin, end
