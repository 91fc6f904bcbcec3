"""Bandwidths by the time of day: what the texts mean, and which are refused."""

from __future__ import annotations

from datetime import datetime

import pytest

from mirror.errors import SettingsError
from mirror.settings import load_settings
from mirror.timetable import read_timetable

MB = 1_000_000.0
#: 2024-01-01 is a Monday.
DAYS = {"Mon": 1, "Tue": 2, "Fri": 5, "Sat": 6, "Sun": 7}


def at(text: str, moment: str) -> float | None:
    day, time = moment.split()
    hour, minute = map(int, time.split(":"))
    return read_timetable(text).rate_at(datetime(2024, 1, DAYS[day], hour, minute, 59))


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("20MB/s", 20 * MB),
        (" 20 MB/s ", 20 * MB),
        ("1.5GB/s", 1500 * MB),
        ("500kB/s", 0.5 * MB),
        ("512KiB/s", 512 * 1024.0),
        ("2MiB/s", 2 * 1024.0**2),
        ("800B/s", 800.0),
        ("100Mbit/s", 12.5 * MB),
        ("FULL", None),
        ("1 Gbits/s", 125 * MB),
        ("full", None),
        ("else 20MB/s", 20 * MB),
    ],
)
def test_rates(text: str, rate: float | None):
    assert at(text, "Tue 12:00") == rate


BY_DAY = "08:00-18:00 20MB/s, else full"
WEEK = "Mon-Fri 08:00-18:00 20MB/s, Sat 50MB/s, Sun 22:00-06:00 1MB/s, else 80MB/s"
NIGHT = "22:00-06:00 full, else 5MB/s"


@pytest.mark.parametrize(
    ("text", "moment", "rate"),
    [
        (BY_DAY, "Mon 07:59", None),
        (BY_DAY, "Mon 08:00", 20 * MB),
        (BY_DAY, "Sun 17:59", 20 * MB),
        (BY_DAY, "Mon 18:00", None),
        ("08:00-18:00 20MB/s", "Mon 18:00", None),
        (WEEK, "Fri 12:00", 20 * MB),
        (WEEK, "Fri 18:00", 80 * MB),
        (WEEK, "Sat 00:00", 50 * MB),
        (WEEK, "Sat 23:59", 50 * MB),
        (WEEK, "Sun 05:00", 80 * MB),
        (WEEK, "Sun 22:00", 1 * MB),
        (WEEK, "Mon 05:59", 1 * MB),
        (WEEK, "Mon 06:00", 80 * MB),
        (WEEK, "Tue 05:00", 80 * MB),
        (NIGHT, "Tue 21:59", 5 * MB),
        (NIGHT, "Tue 23:00", None),
        (NIGHT, "Tue 00:00", None),
        (NIGHT, "Tue 06:00", 5 * MB),
        ("Sat-Mon 1MB/s", "Mon 12:00", 1 * MB),
        ("Sat-Mon 1MB/s", "Fri 12:00", None),
        ("18:00-24:00 1MB/s", "Fri 23:59", 1 * MB),
        ("18:00-24:00 1MB/s", "Sat 00:00", None),
        ("08:00-18:00 1MB/s, 12:00-20:00 2MB/s", "Fri 13:00", 1 * MB),
        ("08:00-18:00 1MB/s, 12:00-20:00 2MB/s", "Fri 19:00", 2 * MB),
    ],
)
def test_the_first_part_that_fits_has_its_way(text: str, moment: str, rate: float | None):
    assert at(text, moment) == rate


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("fast", "'fast' is no rate"),
        ("20", "'20' is no rate"),
        ("20MB", "'20MB' is no rate"),
        ("20Mb/s", "'20Mb/s' is no rate"),
        ("0MB/s", "'0MB/s' is less than a byte a second"),
        ("-1MB/s", "'-1MB/s' is no rate"),
        ("08:00-18:00", "'08:00-18:00' is no rate"),
        ("08:00-18:00 20MB/s,", "'' has no rate"),
        ("8-18 20MB/s", "'8-18 20MB/s' is no rate"),
        ("08:60-18:00 20MB/s", "08:60 is no time of day"),
        ("08:00-24:01 20MB/s", "24:01 is no time of day"),
        ("08:00-08:00 20MB/s", "begins where it ends"),
        ("24:00-08:00 20MB/s", "begins where it ends, or not on its day"),
        ("Mon-Fry 20MB/s", "'Fry' is no day"),
        ("20MB/s, 08:00-18:00 1MB/s", "'20MB/s' holds at any time, so that nothing may follow it"),
        ("else full, 08:00-18:00 1MB/s", "'else full' holds at any time"),
        ("08:00-18:00 else 1MB/s", "has hours or days and an 'else'"),
    ],
)
def test_what_is_no_bandwidth_is_refused_with_what_is_wrong_and_what_would_be_right(text: str, wrong: str):
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {}, {"archive.bandwidth": text})
    message = str(caught.value)
    assert message.startswith(f"option --bandwidth: {text!r} is not right: ")
    assert wrong in message
    assert 'such as 20MB/s, or rates by the time of day such as "Mon-Fri 08:00-18:00 20MB/s, else full"' in message


def test_no_bandwidth_and_one_by_a_variable():
    assert load_settings(None, {}, {"archive.bandwidth": ""}).archive.bandwidth == ""
    environ = {"TCIA_MIRROR_ARCHIVE_BANDWIDTH": BY_DAY, "TCIA_MIRROR_ARCHIVE_POLITE": "true"}
    settings = load_settings(None, environ, {}).archive
    assert (settings.bandwidth, settings.polite) == (BY_DAY, True)
