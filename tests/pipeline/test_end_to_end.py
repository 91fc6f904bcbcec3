"""A whole mirror, in both dialects, all layouts, over every transport; and a second run that has nothing to do."""

from __future__ import annotations

import itertools
import json
from pathlib import PurePosixPath

import pytest
from fakes.dicom import TRANSFER_SYNTAXES, make_series, uid
from fakes.mirroring import EXPORTED, Mirror, asked, assert_nothing_wrong, snapshot, truth

from mirror.errors import ExitCode
from mirror.events import InstancePublished, SeriesDone
from mirror.manifest import columns, read_csv
from mirror.model import Scope, SeriesState

TEMPLATE = "{Modality}/{PatientID} {StudyDate}/{SeriesNumber}/IM_{SOPInstanceUID}"
LAYOUTS = ("uid", "classic", "descriptive", TEMPLATE)
CRAWL = {"getCollectionValues": 1, "getPatient": 2, "getPatientStudy": 2, "getSeries": 2}


@pytest.mark.parametrize(
    ("dialect", "layout", "transport"), list(itertools.product(("nbia", "tcia"), LAYOUTS, ("instance", "zip", "auto")))
)
@pytest.mark.asyncio
async def test_a_mirror_is_the_archive_byte_for_byte(archive, tmp_path, dialect, layout, transport):
    mirror = Mirror(tmp_path / "mirror")
    report = await mirror.sync(archive, dialect, layout=layout, transport=transport)

    assert (report.state, report.exit_code, report.findings) == ("complete", ExitCode.COMPLETE, ())
    assert (report.series.planned, report.series.complete, report.instances.fetched) == (7, 7, 32)
    assert report.bytes.fetched == report.bytes.held == sum(map(len, truth(archive).values()))
    assert report.requests.total == len(archive.requests)
    assert_nothing_wrong(mirror, archive, whole=True)
    assert {name for name in snapshot(mirror.root) if "/" not in name} == EXPORTED
    calls = {"instance": {"getSingleImage"}, "zip": {"getImage"}, "auto": {"getSingleImage", "getImage"}}[transport]
    assert {row.source for row in mirror.rows()} == calls
    singles = sum(row.source == "getSingleImage" for row in mirror.rows())
    zips = len({row.series_instance_uid for row in mirror.rows() if row.source == "getImage"})
    # To find out what the server can do, one image is asked for besides.
    assert len(asked(archive, "getSingleImage")) == singles + (transport != "instance")
    assert len(asked(archive, "getImage")) == zips

    before = snapshot(mirror.root)
    again = await mirror.sync(archive, dialect, transport=transport)
    assert (again.exit_code, again.series.kept, again.series.planned) == (0, 7, 0)
    # Rows of the tcia dialect tell no days: what was released once more, only the since-call tells.
    crawl = CRAWL if dialect == "nbia" else CRAWL | {"NewStudiesInPatientCollection": 2}
    assert again.requests.by_call == crawl == dict(archive.counts())
    assert (again.instances.fetched, again.bytes.held) == (0, report.bytes.held)
    after = snapshot(mirror.root)
    assert [path for path in before if path[:8] != ".mirror/" and before[path] != after[path]] == []
    assert [path for path in after if path[:8] != ".mirror/" and path not in before] == []


@pytest.mark.asyncio
async def test_where_files_lie(archive, tmp_path):
    series = uid(2, 1, 2, 1)
    expected = {
        "uid": [f"Brain Beta/S2-001/{uid(2, 1, 2)}/{series}/{series}.{n}.dcm" for n in range(10001, 10013)],
        # Two acquisitions that take turns: every file begins a run of its own.
        "classic": [f"Brain Beta/S2-001/{uid(2, 1, 2)}/{series}/{n}-1.dcm" for n in range(1, 13)],
        "descriptive": [
            f"Brain Beta/S2-001/02-03-2001-1-Thorax-{uid(2, 1, 2)[-5:]}/7.000000-Axial, 1 mm-{series[-5:]}/{n}-1.dcm"
            for n in range(1, 13)
        ],
        TEMPLATE: [f"MR/S2-001 2001-02-03/7/IM_{series}.{n}" for n in range(10001, 10013)],
    }
    for layout, paths in expected.items():
        mirror = Mirror(tmp_path / str(len(layout)))
        await mirror.sync(archive, layout=layout)
        lies = {row.sop_instance_uid: row.path for row in mirror.rows() if row.series_instance_uid == series}
        assert [lies[f"{series}.{n}"] for n in range(10001, 10013)] == paths


@pytest.mark.asyncio
async def test_the_manifest_says_what_was_fetched_and_how_it_was_verified(archive, tmp_path):
    for dialect, series_check in (("nbia", "series-size,series-md5"), ("tcia", "series-size")):
        for transport, call, own_check in (
            ("instance", "getSingleImage", "length,header"),
            ("zip", "getImage", "length,header,md5" if dialect == "nbia" else "length,header"),
        ):
            mirror = Mirror(tmp_path / f"{dialect}-{transport}")
            await mirror.sync(archive, dialect, transport=transport)
            with (mirror.root / "manifest.csv").open(newline="") as file:
                assert file.readline().rstrip("\n") == ",".join(columns(type(mirror.rows()[0])))
                file.seek(0)
                rows = list(read_csv(file))
            assert rows == mirror.rows()
            assert {(row.source, row.verified) for row in rows} == {(call, f"{own_check},{series_check}")}
            assert {row.sop_instance_uid: row.bytes for row in rows} == {u: len(b) for u, b in truth(archive).items()}
            assert {row.series_state for row in rows} == {SeriesState.COMPLETE}


@pytest.mark.asyncio
async def test_the_report_lies_in_the_mirror_and_the_events_agree_with_it(archive, tmp_path):
    mirror = Mirror(tmp_path / "mirror")
    report = await mirror.sync(archive, fsync=True)
    (path,) = (mirror.root / ".mirror" / "runs").iterdir()
    assert json.loads(path.read_text()) == report.to_json_dict()
    published = [event for event in mirror.events if isinstance(event, InstancePublished)]
    assert sorted(event.sop_instance_uid for event in published) == sorted(truth(archive))
    outcomes = [event.outcome for event in mirror.events if isinstance(event, SeriesDone)]
    assert sum(outcome.bytes_fetched for outcome in outcomes) == report.bytes.fetched


@pytest.mark.parametrize("transport", ["instance", "zip"])
@pytest.mark.asyncio
async def test_every_transfer_syntax_arrives(archive, tmp_path, transport):
    for number, syntax in enumerate(TRANSFER_SYNTAXES):
        archive.stock("Syntaxes", make_series(series_uid=uid(9, 1, number), seed=9, transfer_syntax=syntax))
    mirror = Mirror(tmp_path / "mirror")
    report = await mirror.sync(archive, scope=Scope(collections=("Syntaxes",)), transport=transport)
    assert (report.exit_code, report.series.complete, report.instances.fetched) == (0, 4, 16)
    true = truth(archive)
    assert {u: true[u] for u in mirror.instances()} == mirror.instances()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.asyncio
async def test_an_object_of_many_blocks_arrives(archive, tmp_path, layout):
    # 1100 x 1100 x 2 bytes: over two of the blocks in which bodies are written.
    archive.stock("Large", make_series(series_uid=uid(8, 1, 1), instances=2, side=1100, seed=8))
    for transport in ("instance", "zip"):
        mirror = Mirror(tmp_path / transport)
        report = await mirror.sync(archive, scope=Scope(collections=("Large",)), layout=layout, transport=transport)
        assert (report.exit_code, report.instances.fetched) == (0, 2)
        assert {PurePosixPath(row.path).name for row in mirror.rows()} == {
            PurePosixPath(path).name for path in mirror.tree()
        }
        assert mirror.instances() == {u: b for u, b in truth(archive).items() if u.startswith(uid(8))}


@pytest.mark.asyncio
async def test_no_more_requests_are_in_flight_than_there_may_be(archive, tmp_path):
    await Mirror(tmp_path / "mirror").sync(archive, connections=2)
    assert 0 < archive.faults.most_in_flight <= 2
