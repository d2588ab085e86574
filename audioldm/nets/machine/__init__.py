"""Tricks that depend on the machine: float32 products on bfloat16 matrix units, and care of a processor's memory.

Nothing here changes what a net computes beyond rounding.   ``pipeline.engines`` decides where it is used.
"""

from audioldm.nets.machine.heap import keep_freed, release_weight_pages, trim_heap
from audioldm.nets.machine.kernel import cache_folder, reason_against
from audioldm.nets.machine.split import Split, split

__all__ = [
    "Split",
    "cache_folder",
    "keep_freed",
    "reason_against",
    "release_weight_pages",
    "split",
    "trim_heap",
]
