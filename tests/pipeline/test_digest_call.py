"""getMD5Hierarchy of an archive that has it, and of one that says it has no such thing."""

from __future__ import annotations

import pytest
from fakes.faults import after, status
from fakes.mirroring import Mirror

from mirror.transfer import DigestCall


@pytest.mark.asyncio
async def test_an_archive_without_the_call_is_not_asked_for_every_series(archive, tmp_path):
    mirror = Mirror(tmp_path)
    archive.faults.add("getMD5Hierarchy", status(404))
    report = await mirror.sync(archive, open_series=1)
    assert report.state == "complete"
    assert report.series.complete > 3
    assert archive.counts()["getMD5Hierarchy"] == 3


@pytest.mark.asyncio
async def test_an_archive_that_has_it_is_asked_for_each_though_it_misses_some(archive, tmp_path):
    mirror = Mirror(tmp_path)
    archive.faults.add("getMD5Hierarchy", after(1, status(404)))
    report = await mirror.sync(archive, open_series=1)
    assert report.series.complete > 4
    assert archive.counts()["getMD5Hierarchy"] == report.series.complete


def test_what_an_archive_showed_first_is_not_forgotten():
    call = DigestCall()
    call.missed()
    call.missed()
    assert call.is_there
    call.answered()
    for _ in range(10):
        call.missed()
    assert call.is_there


def test_three_times_from_the_start():
    call = DigestCall()
    for _ in range(3):
        call.missed()
    assert not call.is_there
