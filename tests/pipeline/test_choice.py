"""With transport auto each series comes the way that is faster on this server, and comes whichever way fails."""

from __future__ import annotations

import pytest
from fakes.dicom import make_series, uid
from fakes.faults import cut, delay, html, no_such_call, short_zip, status, where
from fakes.mirroring import Mirror, asked, assert_nothing_wrong, kinds, some_instance

from mirror.errors import ExitCode, ServerFault
from mirror.events import TransportChosen
from mirror.model import FindingKind, Scope, Walk
from mirror.transports import choice

pytestmark = pytest.mark.asyncio

SERIES = 12
OBJECTS = 11
MANY = Scope(collections=("Many",))
#: One series at a time: so nobody has to choose before the first tries are over.
ONE_BY_ONE = {"transport": "auto", "open_series": 1}


class Processor:
    """Our own, as one that has nothing to do, or else more than it can."""

    is_limit = False

    def look(self):
        """Nothing to see."""


@pytest.fixture(autouse=True)
def processor(monkeypatch):
    """Whether this process is what all wait for is what the test says, not what the machine is like."""
    processor = Processor()
    monkeypatch.setattr(choice, "Processor", lambda: processor)
    return processor


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path / "mirror")


@pytest.fixture
def archive(archive):
    """The small archive, and a collection of twelve series of eleven small objects."""
    stock(archive, SERIES, OBJECTS)
    return archive


def stock(archive, series, objects, first=0, side=16):
    for number in range(first, first + series):
        files = make_series(series_uid=uid(9, 1, number), instances=objects, seed=number, side=side)
        archive.stock("Many", files)


def zips(archive):
    return len(asked(archive, "getImage"))


def singles(archive):
    """How many objects were asked for by themselves, without the one that was tried beforehand."""
    return len(asked(archive, "getSingleImage")) - 1


def told(mirror):
    """What the run told of its choices: of kinds of series, and of single series."""
    chosen = [event for event in mirror.events if isinstance(event, TransportChosen)]
    return [e for e in chosen if not e.series_instance_uid], [e for e in chosen if e.series_instance_uid]


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
async def test_zips_where_each_request_takes_long(archive, mirror, dialect):
    archive.faults.add("getSingleImage", delay(0.15))
    report = await mirror.sync(archive, dialect, MANY, **ONE_BY_ONE)
    assert (report.exit_code, report.findings) == (0, ())
    assert (singles(archive), zips(archive)) == (2 * OBJECTS, SERIES - 2)
    of_kinds, of_series = told(mirror)
    assert [e.transport for e in of_kinds] == ["zip"]
    assert "small objects (under 64 KiB), 10 to 99 of them: a connection brings" in of_kinds[0].why
    assert [e.transport for e in of_series] == ["instance"] * 2 + ["zip"] * (SERIES - 2)
    assert "tried on the first series" in of_series[0].why
    assert_nothing_wrong(mirror, archive)


async def test_single_objects_where_zips_take_long_to_make(archive, mirror):
    archive.faults.add("getImage", delay(2.0))
    report = await mirror.sync(archive, scope=MANY, **ONE_BY_ONE)
    assert (report.exit_code, report.findings) == (0, ())
    assert (singles(archive), zips(archive)) == ((SERIES - 2) * OBJECTS, 2)
    assert [e.transport for e in told(mirror)[0]] == ["instance"]
    assert_nothing_wrong(mirror, archive)


async def test_the_other_way_is_tried_again_and_taken_when_the_server_has_changed(archive, mirror, monkeypatch):
    """Zips take long at first; when they do not any more, the run finds out and changes its mind."""
    monkeypatch.setattr(choice, "_CURIOSITY", 3.0)
    monkeypatch.setattr(choice, "_FADE", 0.0)
    archive.faults.add("getSingleImage", delay(0.1))
    archive.faults.add("getImage", delay(3.0), times=2)
    report = await mirror.sync(archive, scope=MANY, **ONE_BY_ONE)
    assert report.exit_code == 0
    assert [e.transport for e in told(mirror)[0]] == ["instance", "zip"]
    assert zips(archive) > 3
    assert_nothing_wrong(mirror, archive)


async def test_series_that_are_not_alike_are_measured_apart(archive, mirror):
    """Zips of large objects take long here, those of small ones do not: nobody judges the one by the other."""
    stock(archive, 6, OBJECTS, first=100, side=200)
    large = {uid(9, 1, number) for number in range(100, 106)}
    slow = delay(2.0)
    archive.faults.add("getImage", where(lambda asked: asked.params["SeriesInstanceUID"] in large, slow))
    fast = where(lambda asked: asked.params["SeriesInstanceUID"] not in large, delay(0.15))
    archive.faults.add("getSingleImage", fast)
    report = await mirror.sync(archive, scope=MANY, **ONE_BY_ONE)
    assert (report.exit_code, report.findings) == (0, ())
    by_zip = [params["SeriesInstanceUID"] for params in asked(archive, "getImage")]
    assert len(large & set(by_zip)) == 2
    assert len(by_zip) == 2 + SERIES - 2
    assert_nothing_wrong(mirror, archive)


async def test_one_object_is_never_a_zip(archive, mirror):
    stock(archive, 5, 1, first=200)
    archive.faults.add("getSingleImage", delay(0.15))
    report = await mirror.sync(archive, scope=MANY, **ONE_BY_ONE)
    assert report.exit_code == 0
    by_zip = {params["SeriesInstanceUID"] for params in asked(archive, "getImage")}
    assert by_zip.isdisjoint({uid(9, 1, number) for number in range(200, 205)})
    assert_nothing_wrong(mirror, archive)


async def test_large_series_are_not_tried_as_zips(archive, mirror, monkeypatch):
    monkeypatch.setattr(choice, "_LARGE", 1000)
    report = await mirror.sync(archive, scope=MANY, **ONE_BY_ONE)
    assert (report.exit_code, zips(archive)) == (0, 0)
    assert_nothing_wrong(mirror, archive)


async def test_many_series_at_a_time(archive, mirror):
    """All choose before anything is measured: the tries are shared out, and the others go the way that came first."""
    archive.faults.add("getImage", delay(2.0))
    report = await mirror.sync(archive, scope=MANY, transport="auto", open_series=SERIES, connections=4)
    assert (report.exit_code, report.findings) == (0, ())
    assert (singles(archive), zips(archive)) == ((SERIES - 2) * OBJECTS, 2)
    assert_nothing_wrong(mirror, archive)


# Where it is not connections that are scarce


async def test_while_we_are_the_limit_small_objects_come_as_zips(archive, mirror, processor):
    """Though a connection brings more of them one by one."""
    processor.is_limit = True
    archive.faults.add("getSingleImage", delay(0.03))
    archive.faults.add("getImage", delay(0.2))
    report = await mirror.sync(archive, scope=MANY, connections=2, **ONE_BY_ONE)
    assert (report.exit_code, report.findings) == (0, ())
    assert (singles(archive), zips(archive)) == (2 * OBJECTS, SERIES - 2)
    assert "this process is what all wait for, and a zip costs it 0." in told(mirror)[0][0].why
    assert_nothing_wrong(mirror, archive)


async def test_while_we_are_the_limit_no_zip_that_takes_long_is_waited_for(archive, mirror, processor):
    processor.is_limit = True
    archive.faults.add("getImage", delay(2.0))
    report = await mirror.sync(archive, scope=MANY, **ONE_BY_ONE)
    assert (report.exit_code, zips(archive)) == (0, 2)
    assert_nothing_wrong(mirror, archive)


async def test_while_we_are_the_limit_large_objects_come_one_by_one(archive, mirror, processor):
    processor.is_limit = True
    stock(archive, 6, OBJECTS, first=500, side=300)
    large = [uid(9, 1, number) for number in range(500, 506)]
    archive.faults.add("getSingleImage", delay(0.1))
    report = await mirror.sync(archive, scope=Scope(series=tuple(large)), **ONE_BY_ONE)
    assert (report.exit_code, zips(archive), singles(archive)) == (0, 2, 4 * OBJECTS)
    assert_nothing_wrong(mirror, archive)


@pytest.mark.parametrize(("side", "by_zip"), [(240, 2), (16, SERIES - 2)], ids=["large", "small"])
async def test_where_more_connections_bring_little_no_zip_takes_from_others(archive, mirror, monkeypatch, side, by_zip):
    """Of objects that can fill a link."""
    monkeypatch.setattr(choice, "_SCARCE", 2.0)
    stock(archive, SERIES, OBJECTS, first=600, side=side)
    some = Scope(series=tuple(uid(9, 1, number) for number in range(600, 600 + SERIES)))
    archive.faults.add("getSingleImage", delay(0.1))
    report = await mirror.sync(archive, scope=some, **ONE_BY_ONE)
    assert (report.exit_code, zips(archive), singles(archive)) == (0, by_zip, (SERIES - by_zip) * OBJECTS)
    assert_nothing_wrong(mirror, archive)


async def test_objects_beside_which_a_request_is_nothing_come_one_by_one(archive, mirror, monkeypatch):
    monkeypatch.setattr(choice, "_HUGE", 500)
    report = await mirror.sync(archive, scope=MANY, **ONE_BY_ONE)
    assert (report.exit_code, zips(archive)) == (0, 0)
    assert_nothing_wrong(mirror, archive)


async def test_a_few_zips_that_last_are_not_waited_for(archive, mirror, monkeypatch):
    """Twelve series are too few for eight connections, and enough for four."""
    monkeypatch.setattr(choice, "_LASTING", 1000)
    archive.faults.add("getSingleImage", delay(0.15))
    report = await mirror.sync(archive, scope=MANY, **ONE_BY_ONE)
    assert (report.exit_code, zips(archive)) == (0, 0)
    report = await Mirror(mirror.root.with_name("other")).sync(archive, scope=MANY, connections=4, **ONE_BY_ONE)
    assert report.exit_code == 0
    assert zips(archive) > 0
    assert_nothing_wrong(mirror, archive)


# Zips that fail


@pytest.mark.parametrize(
    ("fault", "tries"),
    [(no_such_call(500), 3), (no_such_call(404), 1), (status(400, "No access"), 1), (html(), 2), (cut(0.5), 3)],
    ids=["500", "404", "400", "a page", "cut"],
)
async def test_a_server_that_gives_no_zips(archive, mirror, fault, tries):
    archive.faults.add("getImage", fault)
    report = await mirror.sync(archive, scope=MANY, **ONE_BY_ONE)
    assert (report.exit_code, report.findings) == (0, ())
    # They are tried now and then, since one that fails at once costs little; but not for ever.
    assert singles(archive) == SERIES * OBJECTS
    assert zips(archive) in (2 * tries, 3 * tries)
    assert_nothing_wrong(mirror, archive)


async def test_after_three_zips_that_failed_and_none_that_came_no_other_is_asked_for(archive, mirror):
    stock(archive, 4, 5, first=300)
    stock(archive, 4, OBJECTS, first=400, side=200)
    archive.faults.add("getImage", no_such_call(404))
    report = await mirror.sync(archive, scope=MANY, **ONE_BY_ONE)
    assert (report.exit_code, zips(archive)) == (0, 3)
    assert "the server gave none of 3 zips" in {e.why for e in told(mirror)[0]}
    assert {e.transport for e in told(mirror)[0]} == {"instance"}
    assert_nothing_wrong(mirror, archive)


async def test_what_a_short_zip_lacks_comes_by_itself(archive, mirror):
    archive.faults.add("getSingleImage", delay(0.1))
    archive.faults.add("getImage", short_zip(3), SeriesInstanceUID=uid(9, 1, 8))
    report = await mirror.sync(archive, scope=MANY, **ONE_BY_ONE)
    assert (report.exit_code, report.findings) == (0, ())
    assert (singles(archive), zips(archive)) == (2 * OBJECTS + 3, SERIES - 2)
    assert_nothing_wrong(mirror, archive)


@pytest.mark.parametrize("name", ["cut", "short"])
async def test_what_neither_way_brings_is_missing(archive, mirror, name):
    """The series is incomplete, and says why, as with either transport alone."""
    broken = uid(9, 1, 8)
    lost = some_instance(archive, broken, 10)
    archive.faults.add("getSingleImage", status(500), SOPInstanceUID=lost)
    archive.faults.add("getSingleImage", delay(0.1))
    archive.faults.add("getImage", {"cut": cut(0.5), "short": short_zip(1)}[name], SeriesInstanceUID=broken)
    report = await mirror.sync(archive, scope=MANY, **ONE_BY_ONE)
    assert (report.exit_code, report.series.incomplete) == (ExitCode.INCOMPLETE, 1)
    assert FindingKind.UNAVAILABLE in kinds(report)
    assert set(mirror.instances()) >= {u for u in archive.files() if u.startswith(f"{broken}.")} - {lost}
    assert_nothing_wrong(mirror, archive)


async def test_an_archive_that_goes_down_is_no_reason_to_try_the_other_way(archive, mirror):
    archive.faults.add("getSingleImage", delay(0.1))
    down = status(503)
    archive.faults.add(
        "getImage", lambda a: (archive.faults.add("*", down), down(a))[1], SeriesInstanceUID=uid(9, 1, 8)
    )
    archive.faults.rules.insert(0, archive.faults.rules.pop())
    with pytest.raises(ServerFault):
        await mirror.sync(archive, scope=MANY, **ONE_BY_ONE)
    # Each zip was asked for as often as a request may be, and nothing after that but whether the archive is down.
    assert asked(archive, "getSingleImage")[-1]["SeriesInstanceUID"] != uid(9, 1, 8)
    true = archive.files()
    assert all(body == true[u][1] for u, body in mirror.instances().items())


# What is held already


async def test_a_few_that_are_missing_come_by_themselves(archive, mirror):
    """Though zips are what is taken for series that are not begun."""
    begun = uid(9, 1, 0)
    for number in (3, 7):
        archive.faults.add("getSingleImage", status(404), SOPInstanceUID=some_instance(archive, begun, number))
    await mirror.sync(archive, scope=Scope(series=(begun,)), transport="instance")
    archive.faults.clear()
    archive.faults.add("getSingleImage", delay(0.1))
    report = await mirror.sync(archive, scope=MANY, **ONE_BY_ONE)
    assert (report.exit_code, report.findings) == (0, ())
    # The first of all was to see whether the server has the call.
    of_begun = [p["SOPInstanceUID"] for p in asked(archive, "getSingleImage")[1:] if p["SeriesInstanceUID"] == begun]
    assert sorted(of_begun) == [some_instance(archive, begun, number) for number in (3, 7)]
    assert (singles(archive), zips(archive)) == (2 + 2 * OBJECTS, SERIES - 3)
    assert_nothing_wrong(mirror, archive)


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
async def test_a_change_is_found_either_way(archive, mirror, nights, dialect):
    archive.faults.add("getSingleImage", delay(0.1))
    await mirror.sync(archive, dialect, MANY, **ONE_BY_ONE)
    changed = [uid(9, 1, number) for number in range(SERIES)]
    for series in changed:
        archive.replace(f"{series}.10001", released=nights.today)
    report = await mirror.sync(archive, dialect, MANY, walk=Walk(), **ONE_BY_ONE)
    assert (report.exit_code, report.findings) == (0, ())
    assert report.instances.fetched == SERIES
    assert_nothing_wrong(mirror, archive)
