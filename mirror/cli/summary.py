"""What people are told at the end: the plan of a dry run, the summary of a run, the table of `status`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mirror.cli.text import count, duration, moment, safe, size
from mirror.events import CollectionPlanned, Event, Planned
from mirror.model import CollectionStatus, Finding, FindingKind
from mirror.report import RunReport

_FINDINGS_SHOWN = 10
_FIGURES = ("series", "complete", "incomplete", "quarantined", "unfinished", "instances", "bytes")
_TROUBLES = ("incomplete", "quarantined", "unfinished")
#: Wider than any table: a narrow terminal wraps lines, but no figure is cut off.
_WIDTH = 500


def paper() -> Console:
    """Standard output for tables and summaries."""
    return Console(width=_WIDTH, markup=False, highlight=False, emoji=False)


def paper_width() -> int | None:
    """The columns of the terminal that standard output is; None where it is none, and no line is too long."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


class Plan:
    """An event sink that keeps the plan of a dry run, a line per collection."""

    def __init__(self) -> None:
        self._shares: dict[str, CollectionPlanned] = {}
        self._total: Planned | None = None

    def __call__(self, event: Event) -> None:
        """Keep what belongs to the plan."""
        match event:
            case CollectionPlanned():
                self._shares[event.collection] = event
            case Planned():
                self._total = event
            case _:
                pass

    def show(self, console: Console) -> None:
        """Print the plan; nothing where the run did not come so far."""
        total = self._total
        if total is None:
            return
        table = _table("collection", "new", "changed", "unfinished", "kept", "objects", "bytes")
        for name in sorted(self._shares):
            s = self._shares[name]
            table.add_row(
                Text(safe(name)), count(s.new), count(s.changed), count(s.unfinished), count(s.kept),
                count(s.objects), size(s.bytes),
            )  # fmt: skip
        if self._shares:
            console.print(table)
        fits = total.bytes is None or total.free is None or total.bytes <= total.free
        console.print(
            f"plan: {count(total.series)} series to fetch in {count(total.collections)} collections,"
            f" {count(total.objects)} objects, {size(total.bytes)}; {count(total.kept)} series kept\n"
            f"free space: {size(total.free)}{'' if fits else ', which is not enough'}"
        )


def show_summary(console: Console, report: RunReport) -> None:
    """Print what a run came to."""
    series, instances = report.series, report.instances
    held = "" if report.bytes.held is None else f", {size(report.bytes.held)} held"
    lines = [
        f"{report.state} after {duration(report.seconds)}",
        f"  series     {count(series.complete)} complete, {count(series.incomplete)} incomplete,"
        f" {count(series.quarantined)} quarantined, {count(series.kept)} kept; {count(series.planned)} were planned",
        f"  instances  {count(instances.fetched)} fetched, {count(instances.reused)} found in the tree,"
        f" {count(instances.failed)} failed",
        f"  bytes      {size(report.bytes.fetched)} fetched{held}",
        f"  requests   {count(report.requests.total)}, {count(report.requests.retried)} retried",
    ]
    if report.findings_total:
        lines.append(f"  findings   {count(report.findings_total)}")
        folded = _folded(report.findings)
        shown = folded[:_FINDINGS_SHOWN]
        lines += [f"    {_told(alike)}" for alike in shown]
        if more := report.findings_total - sum(map(len, shown)):
            lines.append(f"    and {count(more)} more, see .mirror/runs/{report.run}.json")
    for line in lines:
        console.print(safe(line), soft_wrap=True)


def _folded(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings that say the same put together: first those that were asked for, which are causes, then the others."""
    alike: dict[tuple[FindingKind, str], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.kind, finding.detail), []).append(finding)
    asked = {finding.kind for finding in findings if finding.attempts}
    return sorted(alike.values(), key=lambda f: (not any(x.attempts for x in f), f[0].kind not in asked))


def _told(alike: Sequence[Finding]) -> str:
    return str(alike[0]) + (f" and {count(len(alike) - 1)} more like it" if len(alike) > 1 else "")


def show_status(console: Console, rows: Sequence[CollectionStatus], *, width: int | None = None) -> None:
    """Print a line per collection and their sum. Where `width` is too small, columns of nothing but zeros give way."""
    table = _status_table(rows, _FIGURES)
    if width is not None and console.measure(table).maximum > width:
        sums = _sums(rows)
        table = _status_table(rows, [name for name in _FIGURES if sums[name] or name not in _TROUBLES])
    console.print(table)


def _status_table(rows: Sequence[CollectionStatus], names: Sequence[str]) -> Table:
    table = _table("collection", *names, "last sync (UTC)")
    for row in rows:
        table.add_row(Text(safe(row.collection)), *_figures(asdict(row), names), moment(row.last_sync))
    table.add_section()
    table.add_row("total", *_figures(_sums(rows), names), "")
    return table


def status_json_dict(root: str, server: str | None, layout: str | None, rows: Sequence[CollectionStatus]) -> Any:
    """`status --json`: raw numbers."""
    return {
        "root": root,
        "server": server,
        "layout": layout,
        "collections": [asdict(row) for row in rows],
        "total": _sums(rows),
    }


def _sums(rows: Sequence[CollectionStatus]) -> dict[str, int]:
    return {name: sum(getattr(row, name) for row in rows) for name in _FIGURES}


def _figures(row: dict[str, Any], names: Sequence[str]) -> list[str]:
    return [size(row[name]) if name == "bytes" else count(row[name]) for name in names]


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
