"""Float32 nets on matrix units that multiply bfloat16 (Intel AMX): every product as three.   arXiv:1904.06376.

A float32 number is cut into two bfloat16 numbers, x = hi + lo, and x w = hi hi + hi lo + lo hi, summed in float32:
some 5e-6 of the greatest value from the true sum, and two to three times as fast as float32 where such units are.
The kernel is C++ (``products.cpp``), compiled once for a machine with the compiler that is there.
"""

from audioldm.nets.split.blocks import split
from audioldm.nets.split.build import cache_folder, reason_against
from audioldm.nets.split.layers import Split

__all__ = ["Split", "cache_folder", "reason_against", "split"]
