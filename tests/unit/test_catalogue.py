"""Questions to the ledger: status, the manifest's rows and what serve answers with, also beside a running sync."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes.records import a_loss, a_patient, a_series, a_study, an_instance, hold, plan, the_todo

from mirror.errors import SettingsError, StoreDenied
from mirror.ledger import Catalogue, Ledger
from mirror.model import Action, CollectionStatus, Finding, FindingKind, SeriesState, Why


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path) as opened:
        yield opened


@pytest.fixture
def catalogue(ledger: Ledger, tmp_path: Path) -> Iterator[Catalogue]:
    """Open beside the writer, as `serve` is beside a sync."""
    with Catalogue(tmp_path) as opened:
        yield opened


def test_no_mirror_is_told_as_such(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"no mirror here \(.*does not exist\); `tcia-mirror sync` makes one"):
        Catalogue(tmp_path)
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"


def test_a_reader_cannot_write(catalogue: Catalogue):
    with pytest.raises(Exception, match="readonly"):
        list(catalogue._rows("DELETE FROM meta"))


@contextmanager
def nobody_may_write(*folders: Path) -> Iterator[None]:
    """These folders take no file from this process, not even from one that runs as root."""
    user = os.geteuid()
    for folder in folders:
        folder.chmod(0o555)
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        if user == 0:
            os.seteuid(0)
        for folder in folders:
            folder.chmod(0o755)


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that another user can come to: pytest's own are closed to all but its user."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_mirror_that_cannot_be_written_can_be_read(open_to_all: Path):
    with Ledger(open_to_all) as ledger:
        hold(ledger, a_series("1"), ["1.1", "1.2"])
    folder = open_to_all / ".mirror"
    names = sorted(path.name for path in folder.iterdir())
    with nobody_may_write(open_to_all, folder), Catalogue(open_to_all) as catalogue:
        assert [row.sop_instance_uid for row in catalogue.instance_rows()] == ["1.1", "1.2"]
        assert catalogue.status()[0].complete == 1
    assert sorted(path.name for path in folder.iterdir()) == names


def test_what_a_killed_run_left_in_its_log_is_not_passed_over(open_to_all: Path, tmp_path: Path):
    folder = open_to_all / ".mirror"
    with Ledger(tmp_path) as ledger:
        hold(ledger, a_series("1"), ["1.1"])
        folder.mkdir()
        for name in ("ledger.sqlite", "ledger.sqlite-wal"):
            shutil.copy(ledger.path.with_name(name), folder)
    assert (folder / "ledger.sqlite-wal").stat().st_size > 0
    with (
        nobody_may_write(open_to_all, folder),
        pytest.raises(StoreDenied, match=r"ledger\.sqlite-wal is there\), and the folder cannot be written"),
    ):
        Catalogue(open_to_all)
    with Catalogue(open_to_all) as catalogue:
        assert [row.sop_instance_uid for row in catalogue.instance_rows()] == ["1.1"]


def test_a_reader_sees_what_is_committed_and_blocks_nobody(ledger: Ledger, catalogue: Catalogue):
    hold(ledger, a_series("1"), ["1.1", "1.2"])
    rows = catalogue.instance_rows()
    assert next(rows).sop_instance_uid == "1.1"
    hold(ledger, a_series("2"), ["2.1"])  # while a reader stands in the middle of its rows
    with ledger.transaction() as db:
        db.execute("DELETE FROM meta")
        assert catalogue.meta("changes") is not None, "not committed, not seen"
    assert [row.sop_instance_uid for row in rows] == ["1.2"], "the rows of one moment"
    assert [row.sop_instance_uid for row in catalogue.instance_rows()] == ["1.1", "1.2", "2.1"]
    assert catalogue.meta("changes") is None


def test_rows_that_nobody_reads_to_the_end_close_with_the_file(ledger: Ledger, tmp_path: Path):
    hold(ledger, a_series("1"), ["1.1", "1.2"])
    with Catalogue(tmp_path) as catalogue:
        rows = catalogue.instance_rows()
        assert next(rows).sop_instance_uid == "1.1"
    rows.close()  # type: ignore[attr-defined] - a generator
    assert list(rows) == []


def test_status(ledger: Ledger, catalogue: Catalogue):
    assert catalogue.status() == []
    hold(ledger, a_series("1"), ["1.1", "1.2"])
    hold(ledger, a_series("2"), ["2.1"], state=SeriesState.INCOMPLETE)
    hold(ledger, a_series("3"), [], state=SeriesState.QUARANTINED)
    plan(ledger, a_series("4"), a_series("5"))
    ledger.open_series(the_todo(ledger, "5").id)
    plan(ledger, a_series("6", collection="B"))
    with ledger.transaction() as db:
        db.execute("UPDATE series SET judged_at = 150 WHERE judged_at IS NOT NULL")
    assert catalogue.status() == [
        CollectionStatus(
            collection="A", series=5, complete=1, incomplete=1, quarantined=1, unfinished=2, instances=3, bytes=9,
            last_sync=150,
        ),
        CollectionStatus(
            collection="B", series=1, complete=0, incomplete=0, quarantined=0, unfinished=1, instances=0, bytes=0,
            last_sync=None,
        ),
    ]  # fmt: skip


def test_status_of_what_the_archive_has_no_more(ledger: Ledger, catalogue: Catalogue):
    for number in range(6):
        hold(ledger, a_series(str(number)), [])
    with ledger.transaction() as db:
        db.execute("UPDATE series SET presence = 'missing' WHERE series_instance_uid = '1'")
        db.execute("UPDATE series SET presence = 'withdrawn' WHERE series_instance_uid IN ('2', '3')")
    (status,) = catalogue.status()
    assert (status.series, status.complete, status.missing, status.withdrawn) == (6, 6, 1, 2)
    assert not status.is_withdrawn
    with ledger.transaction() as db:
        db.execute("UPDATE series SET presence = 'withdrawn'")
    assert catalogue.status()[0].is_withdrawn


def last_completes(catalogue: Catalogue) -> dict[str, int | None]:
    return {status.collection: status.last_complete for status in catalogue.status()}


def crawl(ledger: Ledger, collection: str, run: str) -> int:
    number = ledger.begin_crawl(collection, collection, 90, run)
    ledger.finish_crawl(number)
    return number


def test_the_last_complete_sync_left_nothing_to_do(
    ledger: Ledger, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(time, "time", lambda: 100.0)
    hold(ledger, a_series("1"), ["1.1"])
    hold(ledger, a_series("2", collection="a"), ["2.1"], state=SeriesState.INCOMPLETE)
    plan(ledger, a_series("3", collection="B"))
    hold(ledger, a_series("4", collection="C"), [], state=SeriesState.QUARANTINED)
    for name in ("A", "a", "B", "C"):
        crawl(ledger, name, "r1")
    ledger.begin_crawl("A", "A", 95, "cut")
    assert last_completes(catalogue) == {"A": None, "a": None, "B": None, "C": None}
    ledger.finish_run("cut")
    ledger.finish_run("r1")
    assert last_completes(catalogue) == {"A": 100, "a": None, "B": None, "C": None}

    monkeypatch.setattr(time, "time", lambda: 200.0)
    with ledger.transaction() as db:
        db.execute("UPDATE series SET presence = 'missing' WHERE series_instance_uid = '4'")
        db.execute("UPDATE series SET state = 'incomplete' WHERE series_instance_uid = '1'")
    for name in ("A", "C"):
        crawl(ledger, name, "r2")
    ledger.finish_run("r2")
    assert last_completes(catalogue) == {"A": 100, "a": None, "B": None, "C": 200}


def test_series_that_are_mirrored_from_a_list_are_complete_by_its_runs(
    ledger: Ledger, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(time, "time", lambda: 100.0)
    for uid, name in (("1", "A"), ("2", "B"), ("3", "C")):
        hold(ledger, a_series(uid, collection=name), [])
    listed = crawl(ledger, "", "r1")
    with ledger.transaction() as db:
        db.execute("UPDATE series SET crawl = ?", (listed,))
        db.execute("UPDATE series SET crawl = ?, state = 'incomplete' WHERE collection = 'C'", (listed + 1,))
    crawl(ledger, "B", "cut")
    ledger.finish_run("r1")
    assert last_completes(catalogue) == {"A": 100, "B": None, "C": None}, "a run that crawled all of B was cut off"


def last_syncs(catalogue: Catalogue) -> dict[str, int | None]:
    return {status.collection: status.last_sync for status in catalogue.status()}


def test_the_last_sync_is_the_end_of_a_run_not_of_a_crawl(
    ledger: Ledger, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
):
    plan(ledger, a_series("1"), a_series("2", collection="B"), a_series("3", collection="C"))
    monkeypatch.setattr(time, "time", lambda: 100.0)
    ledger.finish_crawl(ledger.begin_crawl("A", "A", 90, "killed"))
    ledger.finish_crawl(ledger.begin_crawl("A", "A", 91, "r1"))
    ledger.finish_crawl(ledger.begin_crawl("B", "B", 92, "r1"))
    ledger.begin_crawl("C", "C", 93, "r1")
    assert last_syncs(catalogue) == {"A": None, "B": None, "C": None}
    monkeypatch.setattr(time, "time", lambda: 200.0)
    ledger.finish_run("r1")
    assert last_syncs(catalogue) == {"A": 200, "B": 200, "C": None}
    monkeypatch.setattr(time, "time", lambda: 300.0)
    ledger.finish_crawl(ledger.begin_crawl("A", "A", 290, "killed later"))
    assert last_syncs(catalogue) == {"A": 200, "B": 200, "C": None}


def test_a_series_that_is_judged_is_synced_whatever_was_crawled(
    ledger: Ledger, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
):
    plan(ledger, a_series("1"))
    ledger.finish_crawl(ledger.begin_crawl("A", "A", 90, "r1"))
    monkeypatch.setattr(time, "time", lambda: 200.0)
    ledger.finish_run("r1")
    monkeypatch.setattr(time, "time", lambda: 300.5)
    ledger.judge(the_todo(ledger, "1").id, SeriesState.INCOMPLETE, ())
    assert last_syncs(catalogue) == {"A": 300}
    monkeypatch.setattr(time, "time", lambda: 400.0)
    ledger.finish_run("r1")
    assert last_syncs(catalogue) == {"A": 400}


def test_rows_of_the_manifest_come_in_a_fixed_order_with_every_field(ledger: Ledger, catalogue: Catalogue):
    hold(ledger, a_series("9", collection="B", study="3"), ["9.1"])
    hold(ledger, a_series("8", collection="A", patient="P2", study="2"), ["8.1"])
    hold(
        ledger,
        a_series(
            "7", Modality="CT", BodyPartExamined="CHEST", Manufacturer="Acme", ImageCount=3, FileSize=9,
            SeriesNumber=5, SeriesDescription="Axial", StudyDate="2001-02-03", StudyDescription="Thorax",
            DateReleased="2020-01-31", LicenseName="CC BY", LicenseURI="http://l", DataDescriptionURI="http://d",
        ),
        ["7.2", "7.1"],
        state=SeriesState.INCOMPLETE,
    )  # fmt: skip
    plan(ledger, a_series("6"))
    ledger.record(the_todo(ledger, "6").id, [], [a_loss("6.1")])
    assert [(r.series_instance_uid, r.sop_instance_uid) for r in catalogue.instance_rows()] == [
        ("7", "7.1"), ("7", "7.2"), ("8", "8.1"), ("9", "9.1"),
    ]  # fmt: skip
    row = next(catalogue.instance_rows())
    expected = an_instance("7.1")
    assert (row.collection, row.patient_id, row.study_instance_uid, row.modality) == ("A", "P1", "1.2", "CT")
    assert (row.path, row.bytes, row.sha256, row.md5) == (
        "A/7/7.1.dcm", 3, expected.digest.sha256, expected.digest.md5,
    )  # fmt: skip
    assert (row.source, row.fetched_at, row.verified) == ("getSingleImage", "2023-11-14T22:13:20Z", "length,header")
    assert (row.sop_class_uid, row.series_state) == ("1.2.840.10008.5.1.4.1.1.2", "incomplete")
    series = list(catalogue.series_rows())
    assert [r.series_instance_uid for r in series] == ["6", "7", "8", "9"]
    seven = series[1]
    assert (seven.instances, seven.bytes, seven.state, seven.path) == (2, 6, "incomplete", "A/7")
    assert (seven.image_count, seven.file_size, seven.series_number, seven.study_date) == (3, 9, "5", "2001-02-03")
    assert (seven.license_name, seven.license_uri, seven.data_description_uri) == ("CC BY", "http://l", "http://d")
    assert (series[0].instances, series[0].bytes, series[0].state) == (0, 0, "planned")


def test_a_series_in_the_root_has_paths_without_a_slash(ledger: Ledger, catalogue: Catalogue):
    ledger.plan_series(1, "r1", [(a_series("1"), Action(fetch=True, why=Why.NEW), "")])
    id_ = the_todo(ledger, "1").id
    ledger.record(id_, [an_instance("1.1")])
    ledger.judge(id_, SeriesState.COMPLETE, ())
    assert next(catalogue.instance_rows()).path == "1.1.dcm"
    assert [row["path"] for row in catalogue.instances("1")] == ["1.1.dcm"]


def test_findings_are_told_with_the_series(ledger: Ledger, catalogue: Catalogue):
    plan(ledger, a_series("1"))
    findings = [Finding(kind=FindingKind.COUNT_DIFFERS, detail="3, not 4"), a_loss("1.1")]
    ledger.judge(the_todo(ledger, "1").id, SeriesState.INCOMPLETE, findings)
    assert next(catalogue.series_rows()).findings == "count-differs: 3, not 4; unavailable: status 500 [1.1]"


# What serve answers with


@pytest.fixture
def served(ledger: Ledger, catalogue: Catalogue) -> Catalogue:
    """Three collections, one of them not complete; two patients, three studies and four series to show."""
    crawl = ledger.begin_crawl("Lung", "Lung", 1)
    ledger.put_patients(crawl, [a_patient("P1", collection="Lung", PatientSex="F", Novelty=1)])
    ledger.put_studies(crawl, [a_study("1.2", collection="Lung", StudyDescription="Thorax", SeriesCount=99)])
    common: dict[str, Any] = {"collection": "Lung", "ManufacturerModelName": "Scan 3000", "Manufacturer": "Acme"}
    hold(ledger, a_series("1", Modality="CT", BodyPartExamined="Chest", DateReleased="2020-01-31", **common), ["1.1"])
    hold(
        ledger,
        a_series("2", Modality="mr", BodyPartExamined="CHEST", DateReleased="2020-02-01", Novelty="n", **common),
        ["2.2", "2.1"],
    )
    hold(ledger, a_series("3", collection="Lung", patient="P2", study="1.3", Modality="CT"), ["3.1"])
    hold(ledger, a_series("4", collection="Brain", study="1.4", SeriesNumber=5), ["4.1"])
    hold(ledger, a_series("5", collection="Lung", Modality="PT"), ["5.1"], state=SeriesState.INCOMPLETE)
    hold(ledger, a_series("6", collection="Hidden"), ["6.1"], state=SeriesState.QUARANTINED)
    return catalogue


def test_only_what_is_complete_is_shown(served: Catalogue):
    assert served.collections() == ["Brain", "Lung"]
    assert [row["SeriesInstanceUID"] for row in served.series({})] == ["4", "1", "2", "3"]
    for uid in ("5", "6", "9"):
        assert list(served.series({"SeriesInstanceUID": uid})) == []
        assert served.series_size(uid) is None
        assert list(served.instances(uid)) == []
        assert served.instance(f"{uid}.1") is None
    assert [row["PatientID"] for row in served.patients({"Collection": "Hidden"})] == []
    assert list(served.studies({"Collection": "Hidden"})) == []


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"Collection": "lung"}, ["1", "2", "3"]),
        ({"Collection": "LUNG", "Modality": "ct"}, ["1", "3"]),
        ({"Modality": "MR"}, ["2"]),
        ({"BodyPartExamined": "chest"}, ["1", "2"]),
        ({"Manufacturer": "ACME"}, ["1", "2"]),
        ({"ManufacturerModelName": "scan 3000"}, ["1", "2"]),
        ({"ManufacturerModelName": "scan"}, []),
        ({"ManufacturerModelName": "Scan%"}, []),
        ({"PatientID": "p2"}, ["3"]),
        ({"StudyInstanceUID": "1.2"}, ["1", "2"]),
        ({"StudyInstanceUID": "1"}, []),
        ({"SeriesInstanceUID": "1"}, ["1"]),
        ({"Novelty": "N"}, ["2"]),
        ({"Collection": ""}, []),
        ({"Collection": "Lu"}, []),
        ({"Collection": "Lung' OR 1=1 --"}, []),
        ({"Modality": ""}, []),
    ],
)
def test_series_by_any_parameter(served: Catalogue, where: dict[str, str], found: list[str]):
    assert [row["SeriesInstanceUID"] for row in served.series(where)] == found


def test_uids_match_as_they_are_spelled(ledger: Ledger, catalogue: Catalogue):
    hold(ledger, a_series("1.A"), ["1.B"])
    assert list(catalogue.series({"SeriesInstanceUID": "1.a"})) == []
    assert catalogue.instance("1.b") is None
    assert catalogue.instance("1.B") is not None


def test_a_series_row_is_what_came_with_what_is_held(served: Catalogue):
    (row,) = served.series({"SeriesInstanceUID": "2"})
    assert row == {
        "SeriesInstanceUID": "2", "Collection": "Lung", "PatientID": "P1", "StudyInstanceUID": "1.2",
        "ManufacturerModelName": "Scan 3000", "Manufacturer": "Acme", "Modality": "mr", "BodyPartExamined": "CHEST",
        "DateReleased": "2020-02-01", "Novelty": "n", "ImageCount": 2, "FileSize": 6,
    }  # fmt: skip


def test_released_after_a_day_is_exclusive_and_since_a_day_inclusive(served: Catalogue):
    def series(after: str) -> list[str]:
        return [row["SeriesInstanceUID"] for row in served.series({}, after=after)]

    assert series("2020-01-30") == ["1", "2"]
    assert series("2020-01-31") == ["2"]
    assert series("2020-02-01") == []
    for since, count in (("2020-01-31", 2), ("2020-02-01", 1)):
        (study,) = served.studies({"Collection": "Lung"}, since=since)
        assert (study["StudyInstanceUID"], study["SeriesCount"]) == ("1.2", count)
        assert [row["PatientID"] for row in served.patients({"Collection": "Lung"}, since=since)] == ["P1"]
    assert list(served.patients({"Collection": "Lung"}, since="2020-02-02")) == []
    assert list(served.studies({"Collection": "Lung"}, since="2020-02-02")) == []


def test_values_are_in_upper_case_each_once_in_order_and_null_first(served: Catalogue):
    assert served.values("Modality", {}) == [None, "CT", "MR"]
    assert served.values("Modality", {"Collection": "lung"}) == ["CT", "MR"]
    assert served.values("BodyPartExamined", {"Collection": "Lung"}) == [None, "CHEST"]
    assert served.values("Manufacturer", {"Modality": "CT", "BodyPartExamined": "chest"}) == ["ACME"]


def test_patients_with_what_came_and_without(served: Catalogue):
    assert list(served.patients({"Collection": "Lung"})) == [
        {"PatientID": "P1", "Collection": "Lung", "PatientSex": "F", "Novelty": 1},
        {"PatientID": "P2", "Collection": "Lung"},
    ]
    assert [row["PatientID"] for row in served.patients({"Modality": "mr"})] == ["P1"]


def test_studies_count_what_matches(served: Catalogue):
    assert list(served.studies({"Collection": "Lung", "PatientID": "P1"})) == [
        {
            "StudyInstanceUID": "1.2", "PatientID": "P1", "Collection": "Lung", "StudyDescription": "Thorax",
            "SeriesCount": 2,
        }
    ]  # fmt: skip
    assert [s["SeriesCount"] for s in served.studies({"Modality": "CT"})] == [1, 1]


def test_sizes_and_files(served: Catalogue):
    assert served.series_size("2") == {"TotalSizeInBytes": 6, "ObjectCount": 2}
    files = list(served.instances("2"))
    assert [(f["sop_instance_uid"], f["instance_number"]) for f in files] == [("2.2", 1), ("2.1", 2)]
    expected = an_instance("2.1").digest
    assert (files[1]["path"], files[1]["bytes"], files[1]["md5"]) == ("Lung/2/2.1.dcm", 3, expected.md5)
    assert served.instance("2.1") == {
        "path": "Lung/2/2.1.dcm",
        "bytes": 3,
        "md5": expected.md5,
        "sha256": expected.sha256,
    }
    assert served.instance("2.1", "2") == served.instance("2.1")
    assert served.instance("2.1", "1") is None


def test_a_complete_series_without_files_has_a_size(ledger: Ledger, catalogue: Catalogue):
    hold(ledger, a_series("1"), [])
    assert catalogue.series_size("1") == {"TotalSizeInBytes": 0, "ObjectCount": 0}
    (row,) = catalogue.series({})
    assert (row["ImageCount"], row["FileSize"]) == (0, 0)


def test_what_is_listed_and_not_held_is_not_shown(ledger: Ledger, catalogue: Catalogue):
    id_ = hold(ledger, a_series("1"), ["1.1", "1.2"])
    ledger.forget(id_, ["1.2"])
    assert catalogue.series_size("1") == {"TotalSizeInBytes": 3, "ObjectCount": 1}
    assert [f["sop_instance_uid"] for f in catalogue.instances("1")] == ["1.1"]
    assert catalogue.instance("1.2") is None
    assert [r.sop_instance_uid for r in catalogue.instance_rows()] == ["1.1"]
