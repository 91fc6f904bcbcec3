"""Metrics of a mirror and of its last run, for the textfile collector of Prometheus' node exporter.

Every sample has the label `root`: the files of several mirrors on one host may not have a sample in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from mirror.errors import store_errors
from mirror.model import CollectionStatus
from mirror.report import RunReport

_STATES = ("complete", "incomplete", "quarantined", "unfinished")


def write_metrics(
    file: Path, root: Path, report: RunReport, collections: Sequence[CollectionStatus], *, now: float
) -> None:
    """Write the metrics of a run that ended at `now` (UTC seconds), and of what the mirror in `root` holds after it.

    The file is replaced whole or not at all. Safe to repeat. Raises StoreFull, StoreDenied and StoreError.
    """
    registry = CollectorRegistry()
    # A path may hold bytes that are no text; the format is text.
    label = str(root.absolute()).encode("utf-8", "replace").decode()
    _measure_run(registry, label, report, now)
    _measure_mirror(registry, label, collections)
    with store_errors(file):
        write_to_textfile(str(file), registry)


def _measure_run(registry: CollectorRegistry, root: str, report: RunReport, now: float) -> None:
    def one(name: str, text: str, value: float) -> None:
        Gauge(f"tcia_mirror_{name}", text, ["root"], registry=registry).labels(root).set(value)

    one("last_run_timestamp_seconds", "When the last run ended, however it did, in seconds since 1970.", now)
    one("run_exit_code", "Exit code of the last run.", int(report.exit_code))
    one("run_seconds", "How long the last run took.", report.seconds)
    one("run_bytes_fetched", "Bytes of the instances that the last run fetched.", report.bytes.fetched)
    one("run_requests_retried", "Requests of the last run that were second or later tries.", report.requests.retried)
    calls = Gauge("tcia_mirror_run_requests", "Requests of the last run.", ["root", "call"], registry=registry)
    for call, number in report.requests.by_call.items():
        calls.labels(root, call).set(number)
    findings = Gauge("tcia_mirror_run_findings", "Findings of the last run.", ["root", "kind"], registry=registry)
    for kind, number in report.findings_by_kind.items():
        findings.labels(root, str(kind)).set(number)


def _measure_mirror(registry: CollectorRegistry, root: str, collections: Sequence[CollectionStatus]) -> None:
    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"tcia_mirror_{name}", text, ["root", "collection", *labels], registry=registry)

    last = gauge(
        "last_complete_timestamp_seconds",
        "When a run last ended that left nothing of the collection to do, in seconds since 1970; 0: never.",
    )
    series = gauge("series", "Series that the mirror knows.", "state")
    missing = gauge("missing_series", "Series that the archive does not list at present.")
    withdrawn = gauge("withdrawn_series", "Series that the archive has withdrawn.")
    instances = gauge("instances", "Instances that the mirror holds.")
    size = gauge("bytes", "Bytes of the instances that the mirror holds.")
    for row in collections:
        of = (root, row.collection)
        if not row.is_withdrawn:
            last.labels(*of).set(row.last_complete or 0)
        for state in _STATES:
            series.labels(*of, state).set(getattr(row, state))
        missing.labels(*of).set(row.missing)
        withdrawn.labels(*of).set(row.withdrawn)
        instances.labels(*of).set(row.instances)
        size.labels(*of).set(row.bytes)
