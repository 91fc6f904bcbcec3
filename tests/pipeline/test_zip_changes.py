"""Changes that come as zips: the old bytes are kept until their successor is in, and nothing is taken for damage."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.dicom import make_series, uid
from fakes.faults import no_such_call
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, kinds, snapshot, some_instance
from fakes.zips import Members, members_of, with_other_pixels

from mirror.errors import ExitCode
from mirror.model import FindingKind, Walk

pytestmark = pytest.mark.asyncio

NIGHT = Walk()
SERIES = uid(2, 1, 2, 1)
FIRST = f"{SERIES}.10001"


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirror")


@pytest.mark.parametrize("comes", [True, False])
async def test_one_instance_is_replaced_and_one_is_added(archive, mirror, nights, comes):
    await mirror.sync(archive, walk=NIGHT, transport="zip")
    old = mirror.instances()
    archive.replace(FIRST)
    more = make_series(patient_id="S2-001", study_uid=uid(2, 1, 2), series_uid=SERIES, first=50, instances=1, seed=2)
    archive.stock("Brain Beta", more, released=nights.today)
    if not comes:
        archive.faults.add("getImage", members_of(without_first), SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, walk=NIGHT, transport="zip")
    assert mirror.quarantine() == {}
    assert f"{SERIES}.10050" in mirror.instances()
    kept = list(snapshot(mirror.root / ".mirror" / "retired").values())
    if comes:
        assert (report.exit_code, kept) == (ExitCode.COMPLETE, [old[FIRST]])
        assert len(asked(archive, "getImage")) == 1, "one zip tells all"
        assert_nothing_wrong(mirror, archive, whole=True)
    else:
        assert (report.exit_code, kept) == (ExitCode.INCOMPLETE, [])
        assert mirror.instances()[FIRST] == old[FIRST], "a successor that cannot be had leaves what is there"


def without_first(members: Members) -> Members:
    """All but the image of the first instance."""
    return [(name, body) for name, body in members if FIRST.encode() not in body]


async def test_a_series_without_a_list_shrinks(archive, mirror, nights):
    for call in ("getSOPInstanceUIDs", "getSingleImage"):
        archive.faults.add(call, no_such_call())
    assert (await mirror.sync(archive, walk=NIGHT, transport="auto")).exit_code == ExitCode.COMPLETE
    archive.remove(SERIES, some_instance(archive, SERIES, 5))
    archive.stamp(SERIES, DateReleased=nights.today)
    codes = [(await mirror.sync(archive, walk=NIGHT, transport="auto")).exit_code for _ in range(3)]
    assert codes == [ExitCode.INCOMPLETE, ExitCode.COMPLETE, ExitCode.COMPLETE]
    assert_nothing_wrong(mirror, archive, whole=True)


async def test_two_bodies_for_an_instance_that_is_held(archive, mirror, nights):
    """The first is what is held; the second does not take its place."""
    await mirror.sync(archive, "tcia", walk=NIGHT, transport="zip")
    archive.stamp(SERIES, DateReleased=nights.today)
    archive.faults.add("getImage", members_of(with_other_pixels), SeriesInstanceUID=SERIES)
    report = await mirror.sync(archive, "tcia", walk=NIGHT, transport="zip")
    assert report.exit_code == ExitCode.INCOMPLETE
    assert FindingKind.DUPLICATE_INSTANCE in kinds(report)
    assert_nothing_wrong(mirror, archive)
