"""How large: a collection of 600,000 series, an archive of a million, a series of 92,000 objects.

    python benchmarks/scale.py                                       all of it: expect an hour
    python benchmarks/scale.py --only collection --series 60000      a tenth of the first part

The archive is benchmarks/large.py: synthetic, on loopback, sharing the machine. Each row is a process of its own; its
peak is the most memory that it had resident. Nothing is fetched of the large collections: the ledger is told that
their series are held, and sparse files stand for the tree. Prints one table, as Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
PARTS = ("collection", "archive", "series")
#: The instances that a series of the large collections has.
HELD = 2


def measured(*command: str, kill_after: float | None = None) -> tuple[float, float, float, str]:
    """(seconds, CPU seconds, peak MB, stdout) of one command as a process."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{HERE.parent}", "TCIA_MIRROR_SYNC_FSYNC": "false"},
    )  # fmt: skip
    if kill_after is not None:
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    out = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status and kill_after is None:
        raise SystemExit(f"{command} ended with status {status}: {out[-2000:]}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, out


def row(what: str, figures: tuple[float, float, float, str], note: str = "") -> None:
    """Print one row."""
    seconds, cpu, peak, _ = figures
    print(f"| {what} | {seconds:.1f} | {cpu:.1f} | {peak:.0f} | {note} |", flush=True)


def ledger_size(root: Path) -> int:
    """Bytes of a ledger that nobody has open."""
    return (root / ".mirror" / "ledger.sqlite").stat().st_size


@contextmanager
def served(folder: Path, what: str, *sizes: str) -> Iterator[str]:
    """The URL of an archive that is made for this."""
    measured(str(HERE / "large.py"), what, str(folder), *sizes)
    process = subprocess.Popen(
        [sys.executable, str(HERE / "large.py"), "serve", str(folder), *sizes[:2]], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def sync(server: str, root: Path, *options: str, kill_after: float | None = None) -> tuple[float, float, float, str]:
    """One run of `tcia-mirror sync`."""
    command = ["-m", "mirror", "sync", "--to", str(root), "--server", server, "--json", "--quiet", *options]
    return measured(*command, kill_after=kill_after)


def planned(figures: tuple[float, float, float, str]) -> str:
    """What a run's report says of its series."""
    series = json.loads(figures[3].splitlines()[-1])["series"]
    return f"{series['planned']:,} to fetch, {series['kept']:,} as they are"


def collection(folder: Path, series: int, *, tree: bool) -> None:
    """One large collection: planned, held, planned again, and what only reads."""
    answers, root = folder / "answers", folder / "mirror"
    with served(answers, "collections", "--size", str(series)) as server:
        name = f"{series:,} series"
        first = sync(server, root, "--all", "--dry-run")
        row(f"{name}: first plan, dry run", first, planned(first))
        row(
            f"{name}: first plan", measured(__file__, "plan", str(root), server), f"ledger {_of(root, series)} a series"
        )
        hold = measured(
            __file__, "hold", str(root), str(answers), "--held", str(HELD), *([] if tree else ["--no-tree"])
        )
        print(f"(held by decree in {hold[0]:.0f} s: {series * HELD:,} instances)", file=sys.stderr)
        for what, options in (
            ("planned again, all known (`--full`, dry run)", ("--full", "--dry-run")),
            ("the same for keeps", ("--full",)),
            ("a night with nothing new", ()),
            ("`--reconcile`, digests agree", ("--reconcile",)),
        ):
            again = sync(server, root, *options)
            row(f"{name}: {what}", again, planned(again))
        measured(__file__, "release", str(root), str(answers))
        again = sync(server, root)
        row(f"{name}: a night while all of it is named as released", again, planned(again))
    reading(root, series * HELD, tree=tree)


def reading(root: Path, instances: int, *, tree: bool = True) -> None:
    """What only reads the ledger."""
    name = f"{instances:,} instances"
    for kind in ("csv", "sha256", "parquet"):
        output = root / f"out.{kind}"
        row(
            f"{name}: export {kind}",
            measured("-m", "mirror", "export", "--to", str(root), "--format", kind, "--output", str(output)),
        )
    row(f"{name}: status", measured("-m", "mirror", "status", "--to", str(root), "--json"))
    if tree:
        row(f"{name}: verify --quick", measured("-m", "mirror", "verify", "--quick", "--to", str(root), "--json"))


def archive(folder: Path, series: int) -> None:
    """180 collections, walked whole."""
    with served(folder / "answers", "collections", "--size", str(series), "--number", "180") as server:
        name = f"{series:,} series in 180 collections"
        figures = sync(server, folder / "mirror", "--all", "--dry-run")
        row(f"{name}: first plan, dry run", figures, planned(figures))
        row(f"{name}: first plan", measured(__file__, "plan", str(folder / "mirror"), server))


def one_series(folder: Path, objects: int) -> None:
    """One series of very many objects, by each transport, numbered, and after a kill."""
    with served(folder / "answers", "series", "--size", str(objects)) as server:
        name = f"a series of {objects:,}"
        for what, options in (
            ("instance", ("--transport", "instance")),
            ("zip", ("--transport", "zip")),
            ("zip, layout classic", ("--transport", "zip", "--layout", "classic")),
        ):
            root = folder / what.replace(", ", "-").replace(" ", "-")
            figures = sync(server, root, "--all", "--connections", "16", *options)
            report = json.loads(figures[3].splitlines()[-1])
            note = f"{report['series']['complete']} complete, {report['instances']['fetched']:,} fetched"
            row(f"{name}: {what}", figures, f"{note}; ledger {_of(root, objects)} an instance")
            if what == "instance":
                reading(root, objects)
                killed = folder / "killed"
                sync(server, killed, "--all", "--connections", "16", *options, kill_after=figures[0] / 2)
                figures = sync(server, killed, "--all", "--connections", "16", *options)
                report = json.loads(figures[3].splitlines()[-1])
                row(f"{name}: after a kill", figures, f"{report['instances']['fetched']:,} fetched")


def _of(root: Path, number: int) -> str:
    return f"{ledger_size(root) / number:,.0f} B"


# Steps that are processes of their own, by the package's own means


def plan(root: Path, server: str) -> None:
    """Crawl and plan an archive into a ledger that stays, and fetch nothing."""
    import anyio

    from mirror.archive.client import ArchiveClient
    from mirror.archive.dialects import server_of
    from mirror.crawl import Crawling, crawl
    from mirror.layout import Layout
    from mirror.ledger import Ledger
    from mirror.model import Scope, Walk
    from mirror.scope import to_json
    from mirror.settings import ArchiveSettings, SyncSettings
    from mirror.tree import LocalStore

    async def run() -> None:
        settings, scope, layout, store = ArchiveSettings(server=server), Scope(all=True), "uid", LocalStore(root)
        where = server_of(settings)
        with Ledger(root) as ledger:
            ledger.set_meta(server=where.base, dialect=where.dialect, layout=layout, scope=to_json(scope))
            store.sweep()
            async with ArchiveClient(where, settings, token=None, spool=store.scratch_folder) as client:
                await crawl(
                    Crawling(
                        client=client, ledger=ledger, layout=Layout.parse(layout), run="scale", scope=scope,
                        walk=Walk(),
                        sink=lambda event: None, settings=SyncSettings(),
                    )
                )  # fmt: skip
            ledger.plan_sizes("scale")

    anyio.run(run)


def hold(root: Path, answers: Path, held: int, *, tree: bool) -> None:
    """Have the ledger say, and the tree look, as if all that is planned had been fetched and judged complete."""
    sys.path.insert(0, str(HERE))
    from large import OBJECT_BYTES, uid, write_digest

    from mirror.check import series_digest
    from mirror.digests import Level, digest_over, digests_at
    from mirror.ledger import Comparison, Ledger

    def instance(series: int, number: int) -> str:
        return uid("instance", series * held + number)

    with Ledger(root) as ledger, ledger.transaction(changes=True) as db:
        db.create_function("uid_of", 2, instance, deterministic=True)
        db.create_function(
            "digest_of", 2, lambda how, text: hashlib.new(how, text.encode()).digest(), deterministic=True
        )
        db.execute(
            "INSERT INTO instances (series, sop_instance_uid, listing, name, bytes, sha256, md5, sop_class_uid,"
            " acquisition_number, instance_number, source, fetched_at, verified)"
            " SELECT series, uid, 1, uid || '.dcm', ?, digest_of('sha256', uid), digest_of('md5', uid),"
            " '1.2.840.10008.5.1.4.1.1.2', 1, number, 'getSingleImage', ?, 'header,length,series-size,series-md5'"
            " FROM (SELECT s.id AS series, value AS number, uid_of(s.id, value) AS uid FROM series s, json_each(?))",
            (OBJECT_BYTES, int(time.time()), json.dumps([*range(held)])),
        )
        db.execute(
            "UPDATE series SET state = 'complete', planned_by = NULL, listing = 1, judged_at = ?", (int(time.time()),)
        )
        db.execute("UPDATE crawls SET synced_at = started_at, complete = 1")
    with Comparison(root) as ours:
        for name in ours.all_collections():
            listed = (
                ((s.patient_id, s.study_instance_uid, s.series_instance_uid), series_digest(ours.md5s(s.id)))
                for s in ours.listed_series(name)
            )
            digest = digest_over(d for _, d in digests_at(Level.PATIENT, listed))
            write_digest(answers, name, digest or "")
    if not tree:
        return
    reader = sqlite3.connect(root / ".mirror" / "ledger.sqlite")
    last = ""
    for directory, file in reader.execute("SELECT directory, name FROM series s JOIN instances i ON i.series = s.id"):
        if directory != last:
            (root / directory).mkdir(parents=True)
            last = directory
        handle = os.open(root / directory / file, os.O_CREAT | os.O_WRONLY)
        os.truncate(handle, OBJECT_BYTES)
        os.close(handle)


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=PARTS, nargs="*", default=PARTS)
    parser.add_argument("--series", type=int, default=600_000, help="of the collection")
    parser.add_argument("--archive", type=int, default=1_000_000, help="series of the archive")
    parser.add_argument("--objects", type=int, default=92_000, help="of the series")
    parser.add_argument("--no-tree", action="store_true", help="no files for what is held, and so no verify")
    parser.add_argument("--held", type=int, default=HELD, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where to work, and what stays there afterwards")
    options = parser.parse_args()
    match options.step:
        case ["plan", root, server]:
            plan(Path(root), server)
        case ["hold", root, answers]:
            hold(Path(root), Path(answers), options.held, tree=not options.no_tree)
        case ["release", root, answers]:
            sys.path.insert(0, str(HERE))
            from large import release

            release(Path(answers), "Collection-000")
        case _:
            print("| run | seconds | CPU s | peak MB | |\n|---|---|---|---|---|")
            folder = options.folder or Path(tempfile.mkdtemp(prefix="scale-"))
            try:
                if "collection" in options.only:
                    collection(folder / "collection", options.series, tree=not options.no_tree)
                if "archive" in options.only:
                    archive(folder / "archive", options.archive)
                if "series" in options.only:
                    one_series(folder / "series", options.objects)
            finally:
                if options.folder is None:
                    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
