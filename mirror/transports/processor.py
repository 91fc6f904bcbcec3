"""Whether this process is what a run waits for, and what an object costs it either way.

Where the wire is quick, neither connections nor the archive are scarce but our own time: then all requests wait for it,
and how long they take says nothing about the way that is better.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

#: How a series comes: object by object, or as a zip.
Way = Literal["instance", "zip"]
WAYS: tuple[Way, Way] = ("instance", "zip")

#: Seconds of the processor for an object, and for a byte of it: from `python -m benchmarks` (`small`, `ct`; loopback)
#: where MD5 goes at 600 MB/s. It is their relation that counts, and that is much the same elsewhere: a request costs
#: more than a member, and a zip's bytes are moved and summed once more. They meet at about 100 KB.
_OBJECT: dict[Way, float] = {"instance": 0.55e-3, "zip": 0.34e-3}
_BYTE: dict[Way, float] = {"instance": 3.4e-9, "zip": 5.6e-9}
#: Seconds between two looks at the clocks, and from which share of a core on we are the limit, or no longer.
_LOOK = 0.5
_BUSY, _IDLE = 0.9, 0.75


def effort(way: Way, objects: float, bytes_: float) -> float:
    """About how many seconds of the processor so many objects, of so many bytes together, take."""
    return _OBJECT[way] * objects + _BYTE[way] * bytes_


class Processor:
    """How much of a core this process takes, all its threads together."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, spent: Callable[[], float] = time.process_time
    ) -> None:
        self._clock = clock
        self._spent = spent
        self._last = (clock(), spent())
        #: This process could do no more than it does, since the last look.
        self.is_limit = False

    def look(self) -> None:
        """Look at the clocks, if that is due. To be called all the time; costs next to nothing."""
        now = self._clock()
        before, spent_before = self._last
        if now - before < _LOOK:
            return
        spent = self._spent()
        self._last = (now, spent)
        self.is_limit = (spent - spent_before) / (now - before) >= (_IDLE if self.is_limit else _BUSY)
