"""README's column on how tcia-mirror bears faults, run again. Where one of these changes, README changes with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import faults
from fakes.archive import FakeArchive
from fakes.dicom import make_collection

from mirror.archive.endpoints import DialectName
from mirror.model import Scope
from mirror.pipeline import sync
from mirror.settings import ArchiveSettings, Settings, SyncSettings, Transport

#: Adds its rules for the transport's call; gets the series' UIDs and one SOPInstanceUID of the first.
Spoil = Callable[[faults.Faults, str, list[str], str], object]

#: (files, files that are the archive's, exit code) after the first run, and after one without the fault.
WHOLE = (120, 120, 0)


def always(fault: faults.Fault) -> Spoil:
    return lambda rules, call, series, _: rules.add(call, fault, SeriesInstanceUID=series[0])


def once(fault: faults.Fault) -> Spoil:
    return lambda rules, call, series, _: [rules.add(call, fault, times=1, SeriesInstanceUID=uid) for uid in series]


def one_object(fault: faults.Fault) -> Spoil:
    return lambda rules, call, series, sop: rules.add(call, fault, SeriesInstanceUID=series[0], SOPInstanceUID=sop)


BOTH: tuple[Transport, ...] = ("instance", "zip")
CASES: list[tuple[str, tuple[Transport, ...], DialectName, Spoil, tuple[int, int, int], tuple[int, int, int]]] = [
    ("always 500", BOTH, "nbia", always(faults.status(500)), (100, 100, 3), WHOLE),
    ("once 500", BOTH, "nbia", once(faults.status(500)), WHOLE, WHOLE),
    ("once 429", BOTH, "nbia", once(faults.status(429, headers={"Retry-After": "0"})), WHOLE, WHOLE),
    ("once cut", BOTH, "nbia", once(faults.cut()), WHOLE, WHOLE),
    ("always cut", BOTH, "nbia", always(faults.cut()), (100, 100, 3), WHOLE),
    ("short zip", ("zip",), "nbia", always(faults.short_zip(10)), (110, 110, 3), WHOLE),
    ("flipped in zip", ("zip",), "nbia", always(faults.flip_in_zip()), (119, 119, 3), WHOLE),
    ("flipped alone", ("instance",), "nbia", one_object(faults.flip()), (119, 119, 3), WHOLE),
    ("flipped in zip, tcia", ("zip",), "tcia", always(faults.flip_in_zip()), (120, 119, 0), (120, 119, 0)),
    ("flipped alone, tcia", ("instance",), "tcia", one_object(faults.flip()), (120, 119, 0), (120, 119, 0)),
]


@pytest.fixture(scope="module")
def six_series(tmp_path_factory) -> Path:
    """The root of an archive with 6 series of 20 objects, copied for each test."""
    root = tmp_path_factory.mktemp("six") / "upstream"
    FakeArchive(root).stock("C", make_collection(patients=3, series=2, instances=20))
    return root


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("transport", "dialect", "spoil", "first", "rerun"),
    [
        pytest.param(transport, dialect, spoil, first, rerun, id=f"{name}, by {transport}")
        for name, transports, dialect, spoil, first, rerun in CASES
        for transport in transports
    ],
)
async def test_as_readme_says(six_series, tmp_path, transport, dialect, spoil, first, rerun):
    async with FakeArchive(shutil.copytree(six_series, tmp_path / "upstream")) as archive:
        truth = archive.files()
        series = sorted({uid for uid, _ in truth.values()})
        sop = min(sop for sop, (uid, _) in truth.items() if uid == series[0])
        settings = Settings(
            archive=ArchiveSettings(server=archive.url(dialect), retry_wait=0.01, retry_max_wait=0.02),
            sync=SyncSettings(transport=transport, fsync=False),
        )

        async def run() -> tuple[int, int, int]:
            report = await sync(tmp_path / "mirror", Scope(collections=("C",)), settings)
            held = list((tmp_path / "mirror" / "C").rglob("*.dcm"))
            return len(held), sum(_is_true(path, truth) for path in held), int(report.exit_code)

        call = "getSingleImage" if transport == "instance" else "getImage"
        spoil(archive.faults, call, series, sop)
        assert await run() == first
        assert sum(rule.used for rule in archive.faults.rules) > 0
        archive.faults.clear()
        assert await run() == rerun


def _is_true(path: Path, truth: dict[str, tuple[str, bytes]]) -> bool:
    return path.read_bytes() == truth[path.stem][1]
