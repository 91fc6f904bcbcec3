"""How numbers, times and the words of strangers are written for people."""

from __future__ import annotations

from datetime import UTC, datetime


def safe(text: str) -> str:
    """Words from outside with nothing in them that a terminal would obey: no control or bidirectional characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def count(number: int | None) -> str:
    """1234567 as 1,234,567; None as ?."""
    return "?" if number is None else f"{number:,}"


def size(number: float | None) -> str:
    """Bytes in decimal units: 1.2 GB; None as ?."""
    if number is None:
        return "?"
    if number < 1000:
        return f"{number:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        number /= 1000
        if number < 999.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:,.1f} PB"


def duration(seconds: float) -> str:
    """Seconds in the two largest units: 12 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole // 60 % 60} min"
    return f"{whole // 86400:,} d {whole // 3600 % 24} h"


def moment(seconds: int | None) -> str:
    """Seconds since 1970 as a UTC time; None as never."""
    return "never" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
