"""Our pace against a server that refuses: what is let through, what is refused, and what we learn, over time.

    python -m benchmarks.throttle                       429 above 16 requests in flight, 100 ms a request, two minutes
    python -m benchmarks.throttle --retry-after 0 2     and once more, saying when to come again
    python -m benchmarks.throttle --limit 8 --scale 0.3 --transport zip

The server's limit is what a bare aiohttp loop gets from it with exactly as many connections as it bears, measured just
before. Prints a Markdown row and writes throttle.png and throttle.json (throttle-2 for Retry-After 2) to --out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import plot, tables
from benchmarks.archive import PREFIX, SHAPES, Archive, build, default_workers
from benchmarks.clients import HERE, PROJECT
from benchmarks.measure import check, measured
from benchmarks.stub import stub

Line = dict[str, Any]

#: Until then the pace may learn, seconds.
LEARNING = 60.0
#: Objects over which the server's limit is measured.
_SAMPLE = 1500
HEAD = (
    "| server | wall s | right | refused | refused after the first minute | MB/s after the first minute"
    " | the server's limit, MB/s | ratio |\n|---|---|---|---|---|---|---|---|"
)


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both runs; everything that was written down."""
    archive = build(folder / "archive", SHAPES["small"].scaled(asked.scale), workers=default_workers())
    options = {"think": asked.think, "limit": asked.limit, "retry_after": asked.retry_after}
    limit = _limit_of(archive, folder, asked)
    trace, events, tree = folder / "trace", folder / "events", folder / "tree"
    tree.mkdir()
    with stub(archive, folder / "server", trace=trace, **options) as server:
        base = server.origin + PREFIX["nbia"]
        command = [sys.executable, str(HERE / "launch_ours.py"), base, str(tree), str(asked.connections)]
        command += [asked.transport, str(events)]
        env = os.environ | {"PYTHONPATH": str(PROJECT)}
        cost = measured(command, cwd=folder, env=env, log=asked.out / "clients.log")
        requests = server.requests()
    brought = check(tree, archive)
    return {
        "limit": asked.limit, "retry_after": asked.retry_after, "think": asked.think, "transport": asked.transport,
        "connections": asked.connections, "wall": cost.wall, "status": cost.status, "requests": requests,
        "right": brought.right, "missing": brought.missing, "wrong": brought.wrong, "best": limit,
        "trace": _lines(trace), "events": _lines(events),
    }  # fmt: skip


def _limit_of(archive: Archive, folder: Path, asked: argparse.Namespace) -> float:
    """Bytes per second that the server gives to exactly as many connections as it bears."""
    few = replace(archive, objects=archive.objects[:_SAMPLE])
    urls = folder / "few"
    urls.write_text("\n".join(few.paths()))
    trace = folder / "trace-of-bare"
    with stub(archive, folder / "server", think=asked.think, limit=asked.limit, trace=trace) as server:
        command = [sys.executable, str(HERE / "bare.py"), server.origin, str(urls), str(asked.limit)]
        cost = measured(command, cwd=folder, log=asked.out / "clients.log")
    objects = int(cost.out.split()[0])
    if objects != len(few.objects):
        raise SystemExit(f"the bare loop got {objects} of {len(few.objects)} objects")
    first, last = _busy(_lines(trace))
    return (last["sent"] - first["sent"]) / (last["at"] - first["at"])


def _lines(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _busy(trace: list[Line]) -> tuple[Line, Line]:
    """The first line after something was asked for, and the last before which something was sent."""
    busy = [line for line in trace if line["requests"] > 0]
    return busy[0], [after for before, after in pairwise(busy) if after["sent"] > before["sent"]][-1]


def told(run: dict[str, Any]) -> dict[str, float]:
    """What the trace says: share refused in all and after the first minute, and bytes per second after it.

    The time counts from the first request to the last byte. A run that is over within the minute counts from half.
    """
    begin, last = _busy(run["trace"])
    learnt = min(begin["at"] + LEARNING, (begin["at"] + last["at"]) / 2)
    first = next(line for line in run["trace"] if line["at"] >= learnt)
    requests, refused = last["requests"] - first["requests"], last["refused"] - first["refused"]
    return {
        "refused": last["refused"] / last["requests"],
        "refused_later": refused / max(requests, 1),
        "goodput": (last["sent"] - first["sent"]) / (last["at"] - first["at"]),
        "from": first["at"] - begin["at"],
    }


def row(run: dict[str, Any]) -> str:
    """The run as a row of Markdown."""
    figures = told(run)
    wish = f", Retry-After {run['retry_after']}" if run["retry_after"] else ""
    return (
        f"| 429 above {run['limit']} in flight{wish}, {run['transport']} | {run['wall']:.0f} | {run['right']:,}"
        f" | {figures['refused']:.2%} | {figures['refused_later']:.2%} | {figures['goodput'] / 1e6:.2f}"
        f" | {run['best'] / 1e6:.2f} | {figures['goodput'] / run['best']:.2f} |"
    )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throttle", description=__doc__)
    parser.add_argument("--limit", type=int, default=16, help="requests in flight that the server bears (16)")
    parser.add_argument(
        "--retry-after", type=int, nargs="+", default=[0], help="seconds it asks for; 0: it does not say; several: runs"
    )
    parser.add_argument("--think", type=float, default=0.1, help="seconds until an answer begins (0.1)")
    parser.add_argument("--connections", type=int, default=64, help="our cap (64)")
    parser.add_argument("--transport", default="instance")
    parser.add_argument("--scale", type=float, default=1.0, help="1: 20,000 objects of 27 KB")
    parser.add_argument("--write-docs", action="store_true", help="put the rows into docs/performance.md")
    parser.add_argument("--out", type=Path, default=Path("bench"))
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    asked.out.mkdir(parents=True, exist_ok=True)
    rows, bad, shown = [HEAD], [], ""
    for wish in asked.retry_after:
        run = measure_in_memory(argparse.Namespace(**vars(asked) | {"retry_after": wish}))
        name = f"throttle-{wish}" if wish else "throttle"
        (asked.out / f"{name}.json").write_text(json.dumps(run))
        shown += plot.throttle(run, (tables.DOCS if asked.write_docs else asked.out) / f"{name}.png")
        rows.append(row(run))
        if (run["status"], run["missing"], run["wrong"]) != (0, 0, 0):
            bad.append(f"status {run['status']}, {run['missing']} missing, {run['wrong']} wrong")
    print("\n".join(rows))
    if asked.write_docs:
        tables.write_docs("throttle", "\n".join(rows) + shown)
    if bad:
        sys.exit("; ".join(bad))


def measure_in_memory(asked: argparse.Namespace) -> dict[str, Any]:
    """As `measure`, in a folder that is gone afterwards."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="tcia-bench-", dir=memory if memory.is_dir() else None) as folder:
        return measure(asked, Path(folder))


if __name__ == "__main__":
    main()
