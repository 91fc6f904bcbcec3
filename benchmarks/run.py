"""The bench's command: shapes x links x clients, in rounds, to one table, its figures as JSON, and a plot."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import plot, tables
from benchmarks.archive import SHAPES, Archive, build, default_workers
from benchmarks.clients import DEFAULTS, Client, Job, command_of, parse
from benchmarks.measure import check, measured
from benchmarks.nginx import Server, nginx

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tcia-mirror-bench"


def options() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--links", nargs="+", choices=DEFAULTS, default=["loopback"])
    parser.add_argument("--dialects", nargs="+", choices=["nbia", "tcia"], default=["nbia"])
    parser.add_argument("--clients", nargs="+", metavar="NAME[+OPTION=VALUE][@N]", help="who is measured")
    parser.add_argument("--connections", type=int, help="connections where a client has no @N of its own")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are told (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: a tenth of the series (1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server", choices=["nginx", "stub"], default="nginx", help="what serves the loopback")
    parser.add_argument("--other", type=Path, help="another checkout, measured as other-TRANSPORT")
    parser.add_argument("--work", type=Path, help="where archives and results lie for the time (shared memory)")
    parser.add_argument("--cache", type=Path, default=_CACHE, help="environments of the Python tools")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="figures, plot and logs (./bench)")
    parser.add_argument("--figures", type=Path, nargs="+", help="tell what these figures.json say; measure nothing")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/performance.md")
    return parser


def main() -> None:
    """Run what the command line asks for."""
    asked = options().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # what was made is taken away on every way out
    if asked.figures:
        runs = [run for path in asked.figures for run in json.loads(path.read_text())["runs"]]
    else:
        runs = measure(asked)
    told = tables.of(runs)
    print(told)
    drawn = tables.DOCS if asked.write_docs else asked.out
    shown = plot.walls(runs, drawn / "performance.png")
    if asked.write_docs:
        tables.write_docs("tables", shown + told)
    if any(not run["ok"] for run in runs):
        sys.exit("a client did not bring everything right; see the table and the log")


def measure(asked: argparse.Namespace) -> list[tables.Run]:
    """Every shape, dialect and link; the figures so far are in figures.json at any time."""
    asked.out.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")
    runs: list[tables.Run] = []
    with tempfile.TemporaryDirectory(
        prefix="tcia-bench-", dir=asked.work or (memory if memory.is_dir() else None)
    ) as name:
        folder = Path(name)
        for dialect in asked.dialects:
            for shape in asked.shapes:
                tell(f"building {shape}, {dialect}")
                asked_for = SHAPES[shape].scaled(asked.scale)
                archive = build(folder / "archive", asked_for, dialect, seed=asked.seed, workers=default_workers())
                tell(f"{len(archive.objects):,} objects, {archive.series:,} series, {archive.bytes / 1e6:,.0f} MB")
                for link in asked.links:
                    runs += measure_all(asked, archive, shape, link, folder)
                    figures = {"machine": tables.machine(), "runs": runs}
                    (asked.out / "figures.json").write_text(json.dumps(figures, indent=1))
                shutil.rmtree(archive.root)
    return runs


def measure_all(asked: argparse.Namespace, archive: Archive, shape: str, link: str, folder: Path) -> list[tables.Run]:
    """Every client over one archive and link, taking turns, `asked.rounds` times."""
    names, n = DEFAULTS[link]
    clients = [parse(name) for name in asked.clients or names]
    runs = []
    with serving(archive, link, folder, asked.server) as (server, inside):
        for number in range(asked.rounds):
            for client in clients:
                run = measure_one(asked, archive, client, client.n or asked.connections or n, server, inside, folder)
                if run is not None:
                    run |= {"shape": shape, "link": link, "dialect": archive.dialect, "round": number}
                    runs.append(run)
                    tell(tables.line(run))
                elif not number:
                    clients = [c for c in clients if c != client]
    return runs


def measure_one(
    asked: argparse.Namespace,
    archive: Archive,
    client: Client,
    n: int,
    server: Server,
    inside: tuple[str, ...],
    folder: Path,
) -> tables.Run | None:
    """One run of one client as a dictionary; None where the tool cannot be had."""
    result = folder / "result"
    result.mkdir()
    job = Job(archive, server.origin, result, n, asked.cache, folder, asked.other)
    try:
        command, env = command_of(client, job)
    except LookupError as error:
        tell(f"{client.text} is left out: {error}")
        shutil.rmtree(result)
        return None
    before = server.requests()
    cost = measured([*inside, *command], cwd=folder, env=env, log=asked.out / "clients.log")
    requests = server.requests() - before
    if client.keeps_files:
        brought = check(result, archive)
        right, missing, wrong = brought.right, brought.missing, brought.wrong
    else:
        objects, received = map(int, cost.out.split() if cost.status == 0 else (0, 0))
        right = objects if received == archive.bytes else 0
        missing, wrong = len(archive.objects) - right, 0
    shutil.rmtree(result)
    return {
        "client": client.text, "n": n, "wall": cost.wall, "cpu": cost.cpu, "rss": cost.rss, "status": cost.status,
        "requests": requests, "objects": len(archive.objects), "bytes": archive.bytes, "series": archive.series,
        "right": right, "missing": missing, "wrong": wrong,
        "ok": (cost.status, missing, wrong) == (0, 0, 0),
    }  # fmt: skip


@contextmanager
def serving(archive: Archive, link: str, folder: Path, kind: str) -> Iterator[tuple[Server, tuple[str, ...]]]:
    """A server behind a link, and the head of a command that is to run at its client's end."""
    run = folder / "server"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, run, ignore_errors=True)
        if link == "long":
            from benchmarks.links import long_link

            ends = stack.enter_context(long_link())
            yield (
                stack.enter_context(nginx(archive, run, host=ends.server_address, port=8042, inside=ends.server)),
                ends.client,
            )
        elif link == "slow" or kind == "stub":
            from benchmarks.stub import SLOW, stub

            yield stack.enter_context(stub(archive, run, **(SLOW if link == "slow" else {}))), ()
        else:
            yield stack.enter_context(nginx(archive, run)), ()


def tell(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)
