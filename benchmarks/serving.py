"""How fast a mirror is served: getSingleImage against nginx over the same files, and zips against a copy in memory.

    python -m benchmarks.serving                     # one worker each
    python -m benchmarks.serving --workers 2

Needs nginx and wrk (Debian packages). Files lie in shared memory; server and client share the machine's cores.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.archive import Archive, Shape, build, default_workers
from benchmarks.nginx import free_port
from mirror.archive.rows import as_noun
from mirror.ledger import Catalogue, Ledger
from mirror.ledger.browsing import Browsing
from mirror.model import Action, Digest, Header, Instance, Series, Why
from mirror.serve.stock import stock

#: Objects of a size -> series, objects of each, bytes of pixel data a side.
SHAPES = {"27 KB": Shape(8, 50, ((112, 1),)), "525 KB": Shape(2, 200, ((512, 1),)), "8 MB": Shape(1, 16, ((512, 16),))}
_V4 = "/nbia-api/services/v4/"
_NGINX = """
daemon off; worker_processes {workers}; pid {run}/pid; error_log {run}/error.log warn; user root;
events {{ worker_connections 4096; }}
http {{
  access_log off; default_type application/dicom; sendfile on; tcp_nopush on; keepalive_requests 10000000;
  client_body_temp_path {run}/t1; proxy_temp_path {run}/t2; fastcgi_temp_path {run}/t3; uwsgi_temp_path {run}/t4;
  scgi_temp_path {run}/t5; open_file_cache max=10000 inactive=600s;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""
#: wrk asks for the paths of a file by turns.
_LUA = """
local paths, at = {}, 0
for line in io.lines(os.getenv("PATHS")) do paths[#paths + 1] = line end
request = function()
  at = at % #paths + 1
  return wrk.format("GET", paths[at])
end
"""


@contextmanager
def running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process for as long as the block lasts."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def ours(root: Path, workers: int, *options: str) -> tuple[list[str], int]:
    """The command that serves a mirror, and its port."""
    port = free_port()
    words = ["--from", str(root), "--port", str(port), "--workers", str(workers), *options]
    return [sys.executable, "-m", "mirror", "serve", *words], port


def requests_a_second(folder: Path, port: int, paths: Sequence[str], connections: int, seconds: int) -> float:
    """What wrk gets, one thread."""
    (folder / "paths").write_text("\n".join(paths), encoding="ascii")
    (folder / "ask.lua").write_text(_LUA, encoding="ascii")
    told = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(folder / "ask.lua"), f"http://127.0.0.1:{port}"],
        env={**os.environ, "PATHS": str(folder / "paths")}, stdout=subprocess.PIPE, check=True, text=True,
    ).stdout  # fmt: skip
    if "Non-2xx" in told or "Socket errors" in told:
        raise SystemExit(told)
    found = re.search(r"Requests/sec:\s*([\d.]+)", told)
    assert found is not None, told
    return float(found[1])


def objects_of(archive: Archive) -> list[Path]:
    """The objects of a synthetic archive."""
    return sorted((archive.root / "o").rglob("*.dcm"))


def singles(work: Path, rounds: int, workers: int, connections: int, seconds: int) -> None:
    """getSingleImage, by size of object."""
    print(
        f"| getSingleImage, {workers} worker(s), {connections} connections | nginx /s | ours /s | MB/s | nginx / ours |"
    )
    print("|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        files = objects_of(build(work / "archive", shape, "nbia", seed=1, workers=default_workers()))
        root, size = work / "mirror", files[0].stat().st_size
        stock(root, "Bench", files, released="2026-01-01")
        with Catalogue(root) as catalogue:
            held = [
                (row["SeriesInstanceUID"], i["sop_instance_uid"], i["path"])
                for row in catalogue.series({})
                for i in catalogue.instances(row["SeriesInstanceUID"])
            ]
        calls = [
            f"{_V4}getSingleImage?{urlencode({'SeriesInstanceUID': series, 'SOPInstanceUID': uid})}"
            for series, uid, _ in held
        ]
        run = work / "run"
        run.mkdir()
        port = free_port()
        (run / "nginx.conf").write_text(_NGINX.format(run=run, port=port, root=root, workers=workers))
        command, own = ours(root, workers)
        binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        assert binary is not None
        with running([binary, "-c", str(run / "nginx.conf")]), running(command) as server:
            assert server.stdout is not None
            server.stdout.readline()
            told: dict[str, list[float]] = {"nginx": [], "ours": []}
            for _ in range(rounds):
                plain = [f"/{path}" for _, _, path in held]
                told["nginx"].append(requests_a_second(run, port, plain, connections, seconds))
                told["ours"].append(requests_a_second(run, own, calls, connections, seconds))
        theirs, mine = (statistics.median(told[who]) for who in ("nginx", "ours"))
        print(f"| {name} | {theirs:,.0f} | {mine:,.0f} | {mine * size / 1e6:,.0f} | {theirs / mine:.2f} |", flush=True)
        for folder in ("archive", "mirror", "run"):
            shutil.rmtree(work / folder)


def zips(work: Path, rounds: int) -> None:
    """getImage of one series, stored and deflated, against the same bytes copied in memory."""
    files = objects_of(build(work / "archive", Shape(1, 800, ((512, 1),)), "nbia", seed=1, workers=default_workers()))
    root = work / "mirror"
    stock(root, "Bench", files, released="2026-01-01")
    with Catalogue(root) as catalogue:
        (row,) = catalogue.series({})
        total = catalogue.series_size(row["SeriesInstanceUID"])
    assert total is not None
    size = total["TotalSizeInBytes"] / 1e6
    print(f"\n| getImage, {size:,.0f} MB | s | MB/s | x copy | first byte s |")
    print("|---|---|---|---|---|")
    began = time.perf_counter()
    with (work / "copy").open("wb") as target:
        for path in files:
            with path.open("rb") as source:
                shutil.copyfileobj(source, target, 1024 * 1024)
    copied = time.perf_counter() - began
    (work / "copy").unlink()
    print(f"| copied in shared memory | {copied:.2f} | {size / copied:,.0f} | 1.00 | |")
    command, port = ours(root, 1)
    url = f"http://127.0.0.1:{port}{_V4}getImage?SeriesInstanceUID={row['SeriesInstanceUID']}"
    with running(command) as server:
        assert server.stdout is not None
        server.stdout.readline()
        for name, options in (("stored", ["-H", "Accept-Encoding: identity"]), ("deflated", [])):
            took = []
            for _ in range(rounds):
                told = subprocess.run(
                    ["curl", "-sf", "-o", "/dev/null", "-w", "%{time_total} %{time_starttransfer}", *options, url],
                    stdout=subprocess.PIPE, check=True, text=True,
                ).stdout.split()  # fmt: skip
                took.append((float(told[0]), float(told[1])))
            whole, first = statistics.median(whole for whole, _ in took), max(f for _, f in took)
            print(f"| {name} | {whole:.2f} | {size / whole:,.0f} | {whole / copied:.2f} | {first:.3f} |", flush=True)


def many(work: Path, counts: Sequence[int]) -> None:
    """getImage of series of many small files: how soon it begins, and what memory. One file stands for all of them."""
    print("\n| getImage of so many files | first byte s | s | MB | peak MB of the server before, after |")
    print("|---|---|---|---|---|")
    (file,) = objects_of(build(work / "archive", Shape(1, 1, ((16, 1),)), "nbia", seed=1, workers=1))
    body = file.read_bytes()
    digest = Digest(
        bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        md5=hashlib.md5(body, usedforsecurity=False).hexdigest(),
    )
    for count in counts:
        root = work / str(count)
        stock(root, "Bench", [file], released="2026-01-01")
        with Catalogue(root) as catalogue:
            uid = next(catalogue.series({}))["SeriesInstanceUID"]
            name = Path(next(catalogue.instances(uid))["path"]).name
        with Ledger(root) as ledger:
            number = ledger.series_number(uid)
            assert number is not None
            for start in range(1, count, 1000):
                ledger.record(number, [_instance(uid, n, name, digest) for n in range(start, min(start + 1000, count))])
        command, port = ours(root, 1)
        with running(command) as server:
            assert server.stdout is not None
            server.stdout.readline()
            before = peak_of(server)
            first, whole, size = fetched(f"http://127.0.0.1:{port}{_V4}getImage?SeriesInstanceUID={uid}")
            print(f"| {count:,} | {first:.2f} | {whole:.1f} | {size:,.0f} | {before}, {peak_of(server)} |", flush=True)


def _instance(uid: str, number: int, name: str, digest: Digest) -> Instance:
    header = Header(
        sop_instance_uid=f"{uid}.{number}", series_instance_uid=uid, study_instance_uid="1.2", patient_id="P",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2", instance_number=number,
    )  # fmt: skip
    return Instance(header=header, digest=digest, name=name, source="getImage", fetched_at=0, verified="length")


def fetched(url: str, *options: str) -> tuple[float, float, float]:
    """Seconds to the first byte and to the last of an answer, and its MB."""
    told = subprocess.run(
        ["curl", "-sf", "-o", "/dev/null", "-w", "%{time_starttransfer} %{time_total} %{size_download}", *options, url],
        stdout=subprocess.PIPE, check=True, text=True,
    ).stdout.split()  # fmt: skip
    first, whole, size = map(float, told)
    return first, whole, size / 1e6


def peak_of(server: subprocess.Popen[bytes]) -> int:
    """The most memory that it had, in MB."""
    peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text("ascii"))
    assert peak is not None
    return int(peak[1]) // 1024


def lists(work: Path, series: int) -> None:
    """getSeries of a large mirror: how soon it begins, how long it takes, and what memory. And the page's questions."""
    root = work / "mirror"
    with Ledger(root) as ledger:
        ledger.set_meta(server="bench", dialect="nbia", layout="uid")
        crawl = ledger.begin_crawl("Bench", "bench", int(time.time()))
        for start in range(0, series, 5000):
            ledger.plan_series(crawl, "bench", [_planned(number) for number in range(start, min(start + 5000, series))])
        ledger.finish_crawl(crawl)
        with ledger.transaction(changes=True) as db:
            db.execute(
                "INSERT INTO instances (series, sop_instance_uid, listing, name, bytes, sha256, md5, sop_class_uid,"
                " source, fetched_at, verified) SELECT id, series_instance_uid || '.1', 1, 'x.dcm', 500000,"
                " zeroblob(32), zeroblob(16), '1.2', 'getSingleImage', 0, 'length' FROM series"
            )
            db.execute("UPDATE series SET state = 'complete', planned_by = NULL")
    print(f"\n| getSeries, {series:,} rows | first byte s | s | MB | peak MB of the server |")
    print("|---|---|---|---|---|")
    for name, options in (("plain", []), ("gzip", ["-H", "Accept-Encoding: gzip"])):
        command, port = ours(root, 1)
        with running(command) as server:
            assert server.stdout is not None
            server.stdout.readline()
            first, whole, size = fetched(f"http://127.0.0.1:{port}{_V4}getSeries", *options)
            print(f"| {name} | {first:.2f} | {whole:.1f} | {size:,.0f} | {peak_of(server)} |", flush=True)
    last = f"1.3.6.1.4.1.14519.5.2.1.{series - 1:012d}"
    asked: list[tuple[str, Callable[[Browsing], object]]] = [
        ("getSeries of a patient", lambda c: list(c.series({"PatientID": f"BENCH-{series // 8:07d}"}))),
        ("getSeries of a study", lambda c: list(c.series({"StudyInstanceUID": f"{last}.9"}))),
        ("getMD5HashForImage, no series named", lambda c: c.instance(f"{last}.1")),
        ("page: figures of all collections (kept 30 s)", Browsing.figures),
        ("page: patients, none found", lambda c: c.patients_page("Bench", "nobody", "", 50)),
        ("page: series of a patient", lambda c: c.series_page("Bench", "BENCH-0000100", ("", 0), 50)),
        ("page: one step of a search that finds none", lambda c: c.search_step("Bench", "nothing", 0, 50)),
        ("page: a UID found by its beginning", lambda c: c.find(last[:-2], 10)),
        ("page: an instance found by its UID", lambda c: c.find(f"{last}.1", 10)),
    ]
    print(f"\n| question to {series:,} series | ms |")
    print("|---|---|")
    with Browsing(root) as browsing:
        for what, ask in asked:
            began = time.perf_counter()
            ask(browsing)
            print(f"| {what} | {(time.perf_counter() - began) * 1000:.1f} |", flush=True)


def _planned(number: int) -> tuple[Series, Action, str]:
    uid = f"1.3.6.1.4.1.14519.5.2.1.{number:012d}"
    row = {
        "SeriesInstanceUID": uid, "StudyInstanceUID": f"{uid}.9", "Collection": "Bench", "Modality": "CT",
        "PatientID": f"BENCH-{number // 4:07d}", "SeriesDescription": "Synthetic series for a measurement",
        "BodyPartExamined": "CHEST", "Manufacturer": "Nobody", "ImageCount": 1, "FileSize": 500_000,
        "DateReleased": "2026-01-01", "MaxSubmissionTimestamp": "2026-01-01", "LicenseName": "CC BY 4.0",
    }  # fmt: skip
    return as_noun(Series, row), Action(fetch=True, why=Why.NEW), f"Bench/{number}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", choices=("singles", "zips", "many", "lists"))
    parser.add_argument("--series", type=int, default=600_000, help="rows of the list")
    parser.add_argument("--files", type=int, nargs="+", default=[92_000, 600_000], help="files of a zip of many")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="serving-") as folder:
        work = Path(folder)
        if given.only in (None, "singles"):
            (work / "s").mkdir()
            singles(work / "s", given.rounds, given.workers, given.connections, given.seconds)
        if given.only in (None, "zips"):
            (work / "z").mkdir()
            zips(work / "z", given.rounds)
        if given.only in (None, "many"):
            (work / "m").mkdir()
            many(work / "m", given.files)
        if given.only in (None, "lists"):
            (work / "l").mkdir()
            lists(work / "l", given.series)


if __name__ == "__main__":
    main()
