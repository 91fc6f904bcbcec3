"""The run report: folded from events, bounded, and written whole or not at all."""

from __future__ import annotations

import json
import re
import tracemalloc
from dataclasses import replace

import msgspec
import pytest

from mirror.errors import ExitCode, StoreDenied, StoreError
from mirror.events import (
    BytesReceived,
    CollectionCrawled,
    CollectionPlanned,
    InstanceFailed,
    InstancePublished,
    Noticed,
    Planned,
    RequestDone,
    RunStarted,
    SeriesDone,
    SeriesOpened,
    Withdrawn,
)
from mirror.model import Finding, FindingKind, Outcome, Series, SeriesState
from mirror.report import (
    FINDINGS_KEPT,
    ByteCounts,
    CollectionReport,
    InstanceCounts,
    Reporter,
    SeriesCounts,
    report_path,
    write_report,
)

KEYS = [
    "state", "exit_code", "seconds", "series", "instances", "bytes", "requests", "findings", "findings_total",
    "findings_by_kind", "collections", "run", "server", "root", "scope", "started_at", "version", "error", "limit",
]  # fmt: skip
STARTED = RunStarted(run="r1", server="http://a/", root="/m", scope="TCGA", connections=4)


def series(uid: str) -> Series:
    return Series(series_instance_uid=uid, collection="TCGA", patient_id="P", study_instance_uid="1.2")


def unavailable(uid: str, in_series: str = "s1") -> Finding:
    return Finding(
        kind=FindingKind.UNAVAILABLE,
        detail="status 500",
        collection="TCGA",
        series_instance_uid=in_series,
        sop_instance_uid=uid,
        attempts=3,
        next_try=1700000000,
    )


def told(*events) -> Reporter:
    reporter = Reporter()
    for event in events:
        reporter(event)
    return reporter


def test_a_whole_run_in_json():
    lost, short = unavailable("i2"), Finding(kind=FindingKind.COUNT_DIFFERS, detail="1 of 2", series_instance_uid="s1")
    reporter = told(
        STARTED,
        RequestDone(call="getSeries", seconds=0.1, bytes=10),
        CollectionCrawled(collection="TCGA", patients=1, studies=1, series=3, planned=2, planned_bytes=30),
        Planned(collections=1, series=2, kept=1, objects=3, bytes=30, free=10**9),
        SeriesOpened(series_instance_uid="s1", collection="TCGA", listed=2, to_fetch=2),
        RequestDone(call="getSingleImage", seconds=0.1, bytes=10),
        BytesReceived(count=10),
        InstancePublished(series_instance_uid="s1", sop_instance_uid="i1", bytes=10),
        RequestDone(call="getSingleImage", seconds=0.1, bytes=0, error="ServerFault"),
        RequestDone(call="getSingleImage", seconds=0.1, bytes=0, retried=True, error="ServerFault"),
        InstanceFailed(series_instance_uid="s1", sop_instance_uid="i2", finding=lost),
        SeriesDone(
            outcome=Outcome(
                series=series("s1"),
                state=SeriesState.INCOMPLETE,
                fetched=1,
                failed=1,
                bytes_fetched=10,
                findings=(lost, short),
            )
        ),
        SeriesDone(outcome=Outcome(series=series("s2"), state=SeriesState.COMPLETE, reused=1)),
    )
    report = reporter.finish("incomplete", ExitCode.INCOMPLETE, bytes_held=42).to_json_dict()
    assert list(report) == KEYS
    assert json.loads(json.dumps(report)) == report
    assert report["state"] == "incomplete"
    assert report["exit_code"] == 3
    assert report["series"] == {"planned": 2, "complete": 1, "incomplete": 1, "quarantined": 0, "kept": 1}
    assert report["instances"] == {"fetched": 1, "reused": 1, "failed": 1}
    assert report["bytes"] == {"fetched": 10, "held": 42}
    assert report["requests"] == {"total": 4, "by_call": {"getSeries": 1, "getSingleImage": 3}, "retried": 1}
    assert report["findings"] == [
        {
            "kind": "unavailable",
            "detail": "status 500",
            "collection": "TCGA",
            "series_instance_uid": "s1",
            "sop_instance_uid": "i2",
            "attempts": 3,
            "next_try": 1700000000,
        },
        {"kind": "count-differs", "detail": "1 of 2", "series_instance_uid": "s1"},
    ]
    assert report["findings_total"] == 2
    assert report["findings_by_kind"] == {"count-differs": 1, "unavailable": 1}
    assert (report["run"], report["server"], report["root"], report["scope"]) == ("r1", "http://a/", "/m", "TCGA")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", report["started_at"])
    assert re.match(r"\d+\.\d+", report["version"])
    assert report["error"] is None
    assert report["seconds"] >= 0


def test_series_that_were_cut_off_count_by_their_events():
    report = told(
        InstancePublished(series_instance_uid="s1", sop_instance_uid="i1", bytes=10),
        InstancePublished(series_instance_uid="s1", sop_instance_uid="i2", bytes=7, reused=True),
        InstanceFailed(series_instance_uid="s1", sop_instance_uid="i3", finding=unavailable("i3")),
        InstanceFailed(series_instance_uid="s1", sop_instance_uid="i3", finding=unavailable("i3")),
    ).finish("interrupted", ExitCode.INTERRUPTED)
    assert report.instances == InstanceCounts(fetched=1, reused=1, failed=1)
    assert report.bytes == ByteCounts(fetched=10, held=None)
    assert report.series == SeriesCounts()


def test_what_became_of_each_collection():
    crawled = CollectionCrawled(collection="TCGA", patients=1, studies=1, series=3, planned=2, planned_bytes=30)
    fetched = Outcome(series=series("s1"), state=SeriesState.INCOMPLETE, fetched=4, failed=1, bytes_fetched=40)
    lost = Finding(kind=FindingKind.CRAWL_FAILED, detail="status 500", collection="Z")
    report = told(
        RequestDone(call="getSeries", seconds=1, bytes=1, collection="TCGA"),
        RequestDone(call="getSeries", seconds=1, bytes=1, collection="TCGA", retried=True),
        RequestDone(call="getSeries", seconds=1, bytes=1, collection="B"),
        RequestDone(call="getCollectionValues", seconds=1, bytes=1),
        msgspec.structs.replace(crawled, since="2024-05-01"),
        msgspec.structs.replace(crawled, collection="B"),
        Noticed(finding=lost),
        CollectionPlanned(
            collection="TCGA", new=1, changed=2, unfinished=3, kept=4, missing=5, returned=6, withdraw=2, objects=9
        ),
        CollectionPlanned(collection="B", kept=7),
        SeriesDone(outcome=fetched),
        SeriesDone(outcome=Outcome(series=series("s2"), state=SeriesState.COMPLETE, reused=1)),
        SeriesDone(outcome=Outcome(series=series("s3"), state=SeriesState.QUARANTINED)),
        SeriesOpened(series_instance_uid="s4", collection="TCGA", listed=2, to_fetch=2),
        InstancePublished(series_instance_uid="s4", sop_instance_uid="i1", bytes=10),
        InstancePublished(series_instance_uid="s4", sop_instance_uid="i2", bytes=10, reused=True),
        InstanceFailed(series_instance_uid="s4", sop_instance_uid="i3", finding=unavailable("i3", "s4")),
        Withdrawn(collection="TCGA", series_instance_uid="s9", how="retire"),
    ).finish("interrupted", ExitCode.INTERRUPTED)
    kept, changed, failed = report.collections
    assert kept == CollectionReport(collection="B", kept=7, requests=1)
    assert kept.unchanged
    assert changed == CollectionReport(
        collection="TCGA", since="2024-05-01", new=1, changed=2, unfinished=3, kept=4, missing=5, returned=6,
        withdraw=2, withdrawn=1, complete=1, incomplete=1, quarantined=1,
        instances_fetched=5, instances_failed=2, bytes_fetched=50, requests=2,
    )  # fmt: skip
    assert not changed.unchanged
    assert failed == CollectionReport(collection="Z", crawl_failed=True)
    assert not failed.unchanged
    row = report.to_json_dict()["collections"][1]
    assert (row["collection"], row["since"], row["withdrawn"]) == ("TCGA", "2024-05-01", 1)


def test_a_report_can_be_made_again_while_series_are_open():
    reporter = told(
        CollectionPlanned(collection="A", new=1),
        SeriesOpened(series_instance_uid="s1", collection="A", listed=1, to_fetch=1),
        InstancePublished(series_instance_uid="s1", sop_instance_uid="i1", bytes=10),
    )
    first, again = (reporter.finish("interrupted", ExitCode.INTERRUPTED).collections for _ in range(2))
    assert [c.instances_fetched for c in first] == [1]
    assert again == first


def test_a_crawl_of_listed_series_is_no_collection():
    label = CollectionCrawled(collection="2 listed series", patients=0, studies=1, series=2, planned=2, planned_bytes=3)
    report = told(label, CollectionPlanned(collection="A", new=2)).finish("complete", ExitCode.COMPLETE)
    assert [collection.collection for collection in report.collections] == ["A"]


def test_before_the_plan_stands_the_crawled_collections_count():
    crawled = CollectionCrawled(collection="A", patients=1, studies=1, series=3, planned=2, planned_bytes=30)
    reporter = told(crawled, msgspec.structs.replace(crawled, collection="B", planned=5))
    assert reporter.finish("interrupted", ExitCode.INTERRUPTED).series.planned == 7


def test_a_finding_told_by_an_event_and_by_the_outcome_counts_once():
    finding = Finding(kind=FindingKind.SERIES_REFUSED, detail="status 400", series_instance_uid="s1")
    outcome = Outcome(series=series("s1"), state=SeriesState.INCOMPLETE, findings=(finding,))
    plan = Planned(collections=1, series=1, kept=0, objects=1, bytes=1, free=1)
    report = told(plan, Noticed(finding=finding), SeriesDone(outcome=outcome)).finish("incomplete", ExitCode.INCOMPLETE)
    assert report.findings == (finding,)
    assert report.findings_total == 1


def test_findings_beyond_the_limit_are_counted_and_take_no_memory():
    def finding(number: int) -> Finding:
        return Finding(kind=FindingKind.CRAWL_FAILED, detail=str(number) * 200, collection="TCGA")

    reporter = told(*(Noticed(finding=finding(n)) for n in range(FINDINGS_KEPT)))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for n in range(2000):
        reporter(Noticed(finding=finding(n)))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    report = reporter.finish("incomplete", ExitCode.INCOMPLETE)
    assert len(report.findings) == FINDINGS_KEPT
    assert report.findings_total == FINDINGS_KEPT + 2000
    assert report.findings_by_kind == {FindingKind.CRAWL_FAILED: FINDINGS_KEPT + 2000}
    assert grown < 100_000


def test_series_that_the_crawl_refuses_take_no_memory():
    def refused(number: int) -> Noticed:
        uid = f"1.2.{number}"
        return Noticed(finding=Finding(kind=FindingKind.SERIES_REFUSED, detail="no", series_instance_uid=uid))

    reporter = told(*(refused(n) for n in range(FINDINGS_KEPT)))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for n in range(FINDINGS_KEPT, FINDINGS_KEPT + 2000):
        reporter(refused(n))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000
    assert reporter.finish("incomplete", ExitCode.INCOMPLETE).findings_total == FINDINGS_KEPT + 2000


def test_judged_series_take_no_memory():
    reporter = told()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(2000):
        uid = f"1.2.{number}"
        reporter(InstancePublished(series_instance_uid=uid, sop_instance_uid=uid + ".1", bytes=1))
        reporter(SeriesDone(outcome=Outcome(series=series(uid), state=SeriesState.COMPLETE, fetched=1)))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000
    assert reporter.finish("complete", ExitCode.COMPLETE).series.complete == 2000


def test_a_failed_run_says_why():
    report = told(STARTED).finish("failed", ExitCode.LOCKED, error="held by process 7").to_json_dict()
    assert (report["state"], report["exit_code"], report["error"]) == ("failed", 6, "held by process 7")


def test_the_report_is_written_beside_the_ledger_and_can_be_written_again(tmp_path):
    report = told(STARTED).finish("complete", ExitCode.COMPLETE, bytes_held=1)
    path = write_report(tmp_path, report)
    assert path == report_path(tmp_path, "r1") == tmp_path / ".mirror" / "runs" / "r1.json"
    assert json.loads(path.read_text()) == report.to_json_dict()
    write_report(tmp_path, replace(report, seconds=9.0))
    assert json.loads(path.read_text())["seconds"] == 9.0
    assert [p.name for p in path.parent.iterdir()] == ["r1.json"]


def test_a_report_that_cannot_be_written_names_its_path(tmp_path):
    (tmp_path / ".mirror").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match=r"r1\.json") as caught:
        write_report(tmp_path, told(STARTED).finish("complete", ExitCode.COMPLETE))
    assert caught.value.exit_code is ExitCode.DISK
    assert not isinstance(caught.value, StoreDenied)
