"""Runs as Markdown: one table per shape, link and dialect, medians over the rounds."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from statistics import median
from typing import Any

Run = dict[str, Any]

_HEAD = (
    "| client | n | wall s | CPU s | peak MB | objects/s | MB/s | requests | right | missing | wrong"
    " | x bare | x tcia_utils |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)
DOCS = Path(__file__).parent.parent / "docs"
LINKS = {
    "loopback": "loopback",
    "long": "40 ms round trip, 1 Gbit/s",
    "slow": "a server that thinks for 200 ms and sends 5 MB/s per connection",
}


def medians(runs: list[Run]) -> list[Run]:
    """A run per client, each figure the median over the rounds; of right, missing and wrong the worst counts."""
    by_client: dict[str, list[Run]] = {}
    for run in runs:
        by_client.setdefault(run["client"], []).append(run)
    made = []
    for rounds in by_client.values():
        one = dict(rounds[0])
        for name in ("wall", "cpu", "rss", "requests"):
            one[name] = median(run[name] for run in rounds)
        one["right"] = min(run["right"] for run in rounds)
        for name in ("missing", "wrong"):
            one[name] = max(run[name] for run in rounds)
        one["ok"] = all(run["ok"] for run in rounds)
        made.append(one)
    return made


def groups(runs: list[Run]) -> dict[tuple[str, str, str], list[Run]]:
    """The medians of each (shape, link, dialect)."""
    grouped: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        grouped.setdefault((run["shape"], run["link"], run["dialect"]), []).append(run)
    return {key: medians(of_key) for key, of_key in grouped.items()}


def best(runs: list[Run], name: str, n: int | None = None) -> float | None:
    """The shortest wall time of a client, of those with `n` connections where any has; None where there is none."""
    own = [run for run in runs if run["client"].partition("@")[0] == name and run["ok"]]
    same = [run for run in own if run["n"] == n]
    return min((run["wall"] for run in same or own), default=None)


def of(runs: list[Run]) -> str:
    """All tables."""
    parts = []
    for (shape, link, dialect), rows in groups(runs).items():
        first = rows[0]
        parts.append(
            f"### `{shape}`, {LINKS[link]}, {dialect}\n\n{first['objects']:,} objects in {first['series']:,} series,"
            f" {first['bytes'] / 1e6:,.0f} MB.\n\n{_HEAD}"
        )
        utils = best(rows, "tcia_utils")
        for row in rows:
            cells = [_ratio(best(rows, "bare", row["n"]), row), _ratio(utils, row)]
            parts[-1] += f"\n{line(row)} {' | '.join(cells)} |"
    return "\n\n".join(parts)


def line(run: Run) -> str:
    """The row of one run or median, without the ratios."""
    wall = run["wall"]
    failed = "" if run["ok"] else f" (status {run['status']})"
    return (
        f"| {run['client'].partition('@')[0]}{failed} | {run['n']} | {wall:.2f} | {run['cpu']:.2f} | {run['rss']:.0f}"
        f" | {_short(run['right'] / wall)} | {_short(run['bytes'] / wall / 1e6)} | {run['requests']:,.0f}"
        f" | {run['right']:,} | {run['missing']:,} | {run['wrong']:,} |"
    )


def _short(figure: float) -> str:
    return f"{figure:,.1f}" if figure < 10 else f"{figure:,.0f}"


def _ratio(of: float | None, run: Run) -> str:
    return "" if of is None or not run["ok"] else f"{of / run['wall']:.2f}"


def write_docs(section: str, text: str) -> None:
    """Put `text` and what it was measured on between the markers of a section of docs/performance.md."""
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    page = DOCS / "performance.md"
    head, begun, rest = page.read_text().partition(begin)
    _, ended, tail = rest.partition(end)
    if not (begun and ended):
        raise SystemExit(f"{page} has no section {section}")
    page.write_text(f"{head}{begin}\n{text}\n\nMeasured on {machine()}.\n{end}{tail}")


def machine() -> str:
    """What the figures were taken on, in words."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return (
        f"{os.cpu_count()} cores ({models[0] if models else platform.machine()}), {int(memory) / 2**20:.0f} GB,"
        f" Linux {platform.release()}, Python {platform.python_version()}"
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
