"""Bytes a second for all bodies together, by a timetable: a bucket that fills as time passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from mirror.timetable import read_timetable

#: The bucket holds what so many seconds allow: a moment without requests may be made up for, an hour may not.
_SECONDS_IN_STORE = 0.5
#: Who waits looks again after this, for the timetable may have changed.
_LOOK_AGAIN = 5.0
#: No wait is shorter, or rounding would make it one without end.
_SHORTEST = 0.001


class Allowance:
    """What may be read now, in bytes. What was read beyond it is a debt that everybody waits for."""

    def __init__(
        self,
        timetable: str,
        clock: Callable[[], float],
        rest: Callable[[float], Awaitable[None]],
        wall: Callable[[], datetime],
    ) -> None:
        self._timetable = read_timetable(timetable)
        self._clock = clock
        self._rest = rest
        self._wall = wall
        self._filled_at = clock()
        self._bytes = 0.0

    def is_limiting(self) -> bool:
        """True where the timetable has a limit now."""
        return self._timetable.rate_at(self._wall()) is not None

    async def take(self, count: int) -> None:
        """`count` bytes were read. Waits until they are allowed."""
        rate = self._fill()
        if rate is not None:
            self._bytes -= count
        while rate is not None and self._bytes < 0:
            await self._rest(min(max(-self._bytes / rate, _SHORTEST), _LOOK_AGAIN))
            rate = self._fill()

    def _fill(self) -> float | None:
        """Put in what has become allowed; the rate now, None where there is no limit and so no debt either."""
        rate, now = self._timetable.rate_at(self._wall()), self._clock()
        if rate is None:
            self._bytes = 0.0
        else:
            self._bytes = min(self._bytes + rate * (now - self._filled_at), rate * _SECONDS_IN_STORE)
        self._filled_at = now
        return rate
