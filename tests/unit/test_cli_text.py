"""Numbers and times as people read them."""

from __future__ import annotations

import pytest

from mirror.cli.text import count, duration, moment, safe, size


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "?"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"),
        (1_234_567_890, "1.2 GB"), (5 * 10**12, "5.0 TB"), (1_234_567 * 10**12, "1,234.6 PB"),
    ],
)  # fmt: skip
def test_bytes(number, text):
    assert size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3725, "1 h 2 min"), (90000, "1 d 1 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_counts_and_moments():
    assert (count(1234567), count(None)) == ("1,234,567", "?")
    assert moment(None) == "never"
    assert moment(86400) == "1970-01-02 00:00"


def test_words_from_outside_keep_their_letters_and_lose_their_controls():
    assert safe("患者 é [x]") == "患者 é [x]"
    assert safe("a\x1b[2Jb\u202ec\n") == "a\ufffd[2Jb\ufffdc\ufffd"
