"""The file of metrics: read as Prometheus reads it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mirror.errors import ExitCode, StoreError
from mirror.events import Noticed, RequestDone, SeriesDone
from mirror.metrics import write_metrics
from mirror.model import CollectionStatus, Finding, FindingKind, Outcome, Series, SeriesState
from mirror.report import Reporter, RunReport

AWKWARD = 'A "quoted" \\ name\nof two lines'
ROWS = [
    CollectionStatus(
        collection=AWKWARD, series=9, complete=4, incomplete=3, quarantined=2, unfinished=0, instances=70, bytes=8000,
        last_sync=20, missing=1, withdrawn=2, last_complete=10,
    ),
    CollectionStatus(
        collection="B", series=1, complete=0, incomplete=0, quarantined=0, unfinished=1, instances=0, bytes=0,
        last_sync=None,
    ),
    CollectionStatus(
        collection="gone", series=1, complete=1, incomplete=0, quarantined=0, unfinished=0, instances=5, bytes=50,
        last_sync=20, withdrawn=1,
    ),
]  # fmt: skip


def a_report() -> RunReport:
    reporter = Reporter()
    for call in ("getSeries", "getSeries", "getPatient"):
        reporter(RequestDone(call=call, seconds=1, bytes=1, retried=call == "getPatient"))
    for _ in range(1500):
        reporter(Noticed(finding=Finding(kind=FindingKind.UNAVAILABLE, detail="no")))
    series = Series(series_instance_uid="1", collection="A", patient_id="P", study_instance_uid="2")
    reporter(SeriesDone(outcome=Outcome(series=series, state=SeriesState.COMPLETE, bytes_fetched=70)))
    return reporter.finish("incomplete", ExitCode.INCOMPLETE)


def samples(file: Path, root: Path) -> dict[tuple[str, ...], float]:
    """Name without its prefix, then the labels' values but the root's -> value."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(file.read_text("utf-8")):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("root") == str(root)
            found[sample.name.removeprefix("tcia_mirror_"), *labels.values()] = sample.value
    return found


def test_what_prometheus_reads(tmp_path: Path):
    file = tmp_path / "tcia.prom"
    write_metrics(file, tmp_path, a_report(), ROWS, now=1234.5)
    found = samples(file, tmp_path)
    assert found.pop(("run_seconds",)) >= 0
    assert found == {
        ("last_run_timestamp_seconds",): 1234.5,
        ("run_exit_code",): 3,
        ("run_bytes_fetched",): 70,
        ("run_requests_retried",): 1,
        ("run_requests", "getPatient"): 1,
        ("run_requests", "getSeries"): 2,
        ("run_findings", "unavailable"): 1500,
        ("last_complete_timestamp_seconds", AWKWARD): 10,
        ("last_complete_timestamp_seconds", "B"): 0,
        ("series", AWKWARD, "complete"): 4,
        ("series", AWKWARD, "incomplete"): 3,
        ("series", AWKWARD, "quarantined"): 2,
        ("series", AWKWARD, "unfinished"): 0,
        ("series", "B", "complete"): 0,
        ("series", "B", "incomplete"): 0,
        ("series", "B", "quarantined"): 0,
        ("series", "B", "unfinished"): 1,
        ("series", "gone", "complete"): 1,
        ("series", "gone", "incomplete"): 0,
        ("series", "gone", "quarantined"): 0,
        ("series", "gone", "unfinished"): 0,
        ("missing_series", AWKWARD): 1,
        ("missing_series", "B"): 0,
        ("missing_series", "gone"): 0,
        ("withdrawn_series", AWKWARD): 2,
        ("withdrawn_series", "B"): 0,
        ("withdrawn_series", "gone"): 1,
        ("instances", AWKWARD): 70,
        ("instances", "B"): 0,
        ("instances", "gone"): 5,
        ("bytes", AWKWARD): 8000,
        ("bytes", "B"): 0,
        ("bytes", "gone"): 50,
    }


def test_the_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path):
    file = tmp_path / "out" / "tcia.prom"
    file.parent.mkdir()
    for now in (1.0, 2.0):
        write_metrics(file, tmp_path, a_report(), (), now=now)
        assert samples(file, tmp_path)["last_run_timestamp_seconds",] == now
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_whose_name_is_no_text(tmp_path: Path):
    root = tmp_path / os.fsdecode(b"m\xff")
    write_metrics(tmp_path / "tcia.prom", root, a_report(), (), now=1)
    assert samples(tmp_path / "tcia.prom", tmp_path / "m?")["run_exit_code",] == 3


def test_what_cannot_be_written_names_the_file_and_leaves_nothing(tmp_path: Path):
    with pytest.raises(StoreError, match=r"none/tcia\.prom: No such file or directory"):
        write_metrics(tmp_path / "none" / "tcia.prom", tmp_path, a_report(), (), now=1)
    (tmp_path / "tcia.prom").mkdir()
    with pytest.raises(StoreError, match=r"tcia\.prom: Is a directory"):
        write_metrics(tmp_path / "tcia.prom", tmp_path, a_report(), (), now=1)
    assert [path.name for path in tmp_path.iterdir()] == ["tcia.prom"]
