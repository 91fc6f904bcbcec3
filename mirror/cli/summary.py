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
from mirror.events import CollectionPlanned, Event, Planned, RunStarted
from mirror.model import CollectionStatus, Finding, FindingKind
from mirror.report import CollectionReport, RunReport

_FINDINGS_SHOWN = 10
#: Columns that are only there where one of their figures is not zero.
_GONE = ("missing", "withdrawn")
_LEAVING = ("missing", "returned", "withdraw")
_FIGURES = ("series", "complete", "incomplete", "quarantined", "unfinished", *_GONE, "instances", "bytes")
_TROUBLES = ("incomplete", "quarantined", "unfinished")
#: So many collections of a run have a line of their own.
_COLLECTIONS_SHOWN = 30
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
        self._started: RunStarted | None = None

    def __call__(self, event: Event) -> None:
        """Keep what belongs to the plan."""
        match event:
            case CollectionPlanned():
                self._shares[event.collection] = event
            case Planned():
                self._total = event
            case RunStarted():
                self._started = event
            case _:
                pass

    def show(self, console: Console) -> None:
        """Print the plan; nothing where the run did not come so far."""
        total = self._total
        if total is None:
            return
        rare = [name for name in _LEAVING if any(getattr(share, name) for share in self._shares.values())]
        figures = ("new", "changed", "unfinished", "kept", *rare, "objects", "bytes")
        table = _table("collection", *figures)
        for name, share in sorted(self._shares.items()):
            table.add_row(Text(safe(name)), *_figures(share.as_dict(), figures))
        if self._shares:
            console.print(table)
        leave = sum(share.withdraw for share in self._shares.values())
        fits = total.bytes is None or total.free is None or total.bytes <= total.free
        console.print(
            f"plan: {count(total.series)} series to fetch in {count(total.collections)} collections,"
            f" {count(total.objects)} objects, {size(total.bytes)}; {count(total.kept)} series kept"
            f"{f', {count(leave)} to withdraw' if leave else ''}\n"
            f"free space: {size(total.free)}{'' if fits else ', which is not enough'}"
        )
        if self._started is not None and (limits := limits_told(self._started)):
            console.print(f"limits: a run ends in order after {limits}")


def limits_told(started: RunStarted) -> str:
    """What ends a run early, in words; "" for nothing."""
    most = [] if started.max_bytes is None else [f"{size(started.max_bytes)} fetched"]
    most += [] if started.max_seconds is None else [duration(started.max_seconds)]
    return " or ".join(most)


def show_summary(console: Console, report: RunReport) -> None:
    """Print what a run came to."""
    series, instances = report.series, report.instances
    held = "" if report.bytes.held is None else f", {size(report.bytes.held)} held"
    lines = [
        f"{report.state} after {duration(report.seconds)}",
        *([f"  limit      {report.limit}; run it again to go on"] if report.limit else []),
        f"  series     {count(series.complete)} complete, {count(series.incomplete)} incomplete,"
        f" {count(series.quarantined)} quarantined, {count(series.kept)} kept; {count(series.planned)} were planned",
        f"  instances  {count(instances.fetched)} fetched, {count(instances.reused)} found in the tree,"
        f" {count(instances.failed)} failed",
        f"  bytes      {size(report.bytes.fetched)} fetched{held}",
        f"  requests   {count(report.requests.total)}, {count(report.requests.retried)} retried",
    ]
    if report.state != "planned":
        lines += _collection_lines(report)
    for line in (*lines, *findings_told(report)):
        console.print(safe(line), soft_wrap=True)


def findings_told(report: RunReport) -> list[str]:
    """The lines about a report's findings: the first of them, those that say the same in one."""
    if not report.findings_total:
        return []
    shown = _folded(report.findings)[:_FINDINGS_SHOWN]
    lines = [f"  findings   {count(report.findings_total)}", *(f"    {_told(alike)}" for alike in shown)]
    if more := report.findings_total - sum(map(len, shown)):
        lines.append(f"    and {count(more)} more, see .mirror/runs/{report.run}.json")
    return lines


def _collection_lines(report: RunReport) -> list[str]:
    """What became of each collection to which something happened; the others in one line."""
    touched = [collection for collection in report.collections if not collection.unchanged]
    lines = [f"    {c.collection}: {_happened(c)}" for c in touched[:_COLLECTIONS_SHOWN]]
    if more := len(touched) - len(lines):
        lines.append(f"    and {count(more)} more, see .mirror/runs/{report.run}.json")
    if unchanged := len(report.collections) - len(touched):
        noun = "collection" if unchanged == 1 else "collections"
        lines.append(f"    {count(unchanged)} {'other ' if touched else ''}{noun} unchanged")
    return ["  collections", *lines] if lines else []


def _happened(c: CollectionReport) -> str:
    """In words: what the plan found, what became of it, what it cost."""
    found = _worded(
        (c.new, "new"), (c.changed, "changed"), (c.unfinished, "unfinished"), (c.missing, "missing"),
        (c.returned, "returned"), (c.withdrawn, "withdrawn"), (c.withdraw - c.withdrawn, "not withdrawn"),
    )  # fmt: skip
    became = _worded((c.complete, "complete"), (c.incomplete, "incomplete"), (c.quarantined, "quarantined"))
    cost = _worded((c.instances_fetched, "instances fetched"), (c.instances_failed, "failed"))
    cost += f", {size(c.bytes_fetched)}" if c.bytes_fetched else ""
    crawl = "could not be crawled" if c.crawl_failed else ""
    return "; ".join(words for words in (crawl, found, became, cost, f"{count(c.requests)} requests") if words)


def _worded(*figures: tuple[int, str]) -> str:
    return ", ".join(f"{count(number)} {word}" for number, word in figures if number > 0)


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
    sums = _sums(rows)
    names = [name for name in _FIGURES if sums[name] or name not in _GONE]
    table = _status_table(rows, names)
    if width is not None and console.measure(table).maximum > width:
        table = _status_table(rows, [name for name in names if sums[name] or name not in _TROUBLES])
    console.print(table)


def _status_table(rows: Sequence[CollectionStatus], names: Sequence[str]) -> Table:
    table = _table("collection", *names, "last sync (UTC)")
    for row in rows:
        table.add_row(Text(safe(row.collection)), *_figures(asdict(row), names), moment(row.last_sync))
    table.add_section()
    table.add_row("total", *_figures(_sums(rows), names), "")
    return table


def status_json_dict(
    root: str, server: str | None, layout: str | None, rows: Sequence[CollectionStatus], *, now: int, source: str = ""
) -> dict[str, Any]:
    """`status --json`: raw numbers. Ages are of the last complete sync; the mirror has its oldest collection's."""
    syncs = [row.last_complete for row in rows if not row.is_withdrawn]
    oldest = None if None in syncs else min((at for at in syncs if at is not None), default=None)
    return {
        "root": root,
        "server": server,
        "source_chain": source.split(", ") if source else [],
        "layout": layout,
        "last_complete": oldest,
        "age_seconds": _age(oldest, now),
        "collections": [{**asdict(row), "age_seconds": _age(row.last_complete, now)} for row in rows],
        "total": _sums(rows),
    }


def too_old(rows: Sequence[CollectionStatus], max_age: float, *, now: int) -> list[str]:
    """A line for each collection whose last complete sync is longer ago than `max_age` seconds, or never was."""
    if not rows:
        return ["no collection was ever synced"]
    lines = []
    for row in rows:
        age = _age(row.last_complete, now)
        if not row.is_withdrawn and (age is None or age > max_age):
            ago = "never" if age is None else f"{duration(age)} ago, {moment(row.last_complete)} UTC"
            lines.append(f"{row.collection}: last complete sync: {ago}")
    return lines


def _age(at: int | None, now: int) -> int | None:
    return None if at is None else max(0, now - at)


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
