"""How the C library gives memory back: not so soon.

Bodies come in pieces of 256 KiB, for each of which glibc would fetch pages from the kernel and give them back. A page
that is touched for the first time costs more than the copy into it: receiving large objects took twice as long.
"""

from __future__ import annotations

import ctypes

#: mallopt(3): give the top of the heap back from so many bytes on; take pieces below so many from the heap.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_TRIM, _MMAP = 16 * 1024 * 1024, 4 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Tell the C library so, for this process; False where it is not glibc. Safe to repeat."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_THRESHOLD, _MMAP) and mallopt(_M_TRIM_THRESHOLD, _TRIM))
