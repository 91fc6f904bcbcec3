"""A bandwidth by the time of day: "20MB/s", or "Mon-Fri 08:00-18:00 20MB/s, else full". Pure.

Parts are separated by commas; the first whose days and hours fit has its way, and where none does there is no limit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES = 24 * 60
_PART = re.compile(
    r"(?:(?P<first>[A-Za-z]{3})(?:-(?P<last>[A-Za-z]{3}))?\s+)?"
    r"(?:(?P<begin>\d\d?:\d\d)-(?P<end>\d\d?:\d\d)\s+)?"
    r"(?P<otherwise>(?i:else)\s+)?"
    r"(?P<rate>\S.*)"
)
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMG]?)(i?)(B|bits?)/s")
_FACTORS = {"": 0, "k": 1, "m": 2, "g": 3}


@dataclass(frozen=True, slots=True)
class _Part:
    #: Days of the week, 0 for Monday, on which its hours begin.
    days: frozenset[int]
    #: Minutes of the day. An end that is not after the beginning is on the next day.
    begin: int
    end: int
    rate: float | None

    def holds(self, day: int, minute: int) -> bool:
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        return (day in self.days and minute >= self.begin) or ((day - 1) % 7 in self.days and minute < self.end)


@dataclass(frozen=True, slots=True)
class Timetable:
    """Bytes a second by local time."""

    parts: tuple[_Part, ...]

    def rate_at(self, moment: datetime) -> float | None:
        """Bytes a second at a local time; None: as fast as can be."""
        day, minute = moment.weekday(), moment.hour * 60 + moment.minute
        return next((part.rate for part in self.parts if part.holds(day, minute)), None)


def read_timetable(text: str) -> Timetable:
    """The timetable that a text means. Raises ValueError, which says what is wrong with which part."""
    parts = [part.strip() for part in text.split(",")]
    return Timetable(tuple(_read_part(part, is_last=part is parts[-1]) for part in parts))


def _read_part(text: str, *, is_last: bool) -> _Part:
    found = _PART.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} has no rate")
    rate = _read_rate(found["rate"])
    timed = bool(found["first"] or found["begin"])
    if not timed and not is_last:
        raise ValueError(f"{text!r} holds at any time, so that nothing may follow it")
    if timed and found["otherwise"]:
        raise ValueError(f"{text!r} has hours or days and an 'else'")
    begin, end = _minute(found["begin"] or "00:00"), _minute(found["end"] or "24:00")
    if begin in (end, _MINUTES):
        raise ValueError(f"{text!r} begins where it ends, or not on its day")
    return _Part(_days(found["first"], found["last"]), begin, end, rate)


def _read_rate(text: str) -> float | None:
    if text.lower() == "full":
        return None
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no rate such as 20MB/s, 500kB/s, 100Mbit/s or full")
    number, factor, binary, unit = found.groups()
    rate: float = float(number) * (1024 if binary else 1000) ** _FACTORS[factor.lower()] / (1 if unit == "B" else 8)
    if rate < 1:
        raise ValueError(f"{text!r} is less than a byte a second")
    return rate


def _minute(text: str) -> int:
    hour, minute = map(int, text.split(":"))
    if minute > 59 or hour * 60 + minute > _MINUTES:
        raise ValueError(f"{text} is no time of day")
    return hour * 60 + minute


def _days(first: str | None, last: str | None) -> frozenset[int]:
    if first is None:
        return frozenset(range(7))
    last = last or first
    for name in (first, last):
        if name.lower() not in _DAYS:
            raise ValueError(f"{name!r} is no day; they are Mon, Tue, Wed, Thu, Fri, Sat and Sun")
    begin, end = _DAYS.index(first.lower()), _DAYS.index(last.lower())
    return frozenset((begin + n) % 7 for n in range((end - begin) % 7 + 1))
