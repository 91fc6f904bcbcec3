"""First figures: one sync on loopback against `serve`, and a bare aiohttp loop over the same objects in the same run.

    python benchmarks/first.py                     2,000 objects of 32 KiB, then 16,000, to see what memory does
    python benchmarks/first.py --objects 4000 --size 524288 --dialect tcia

Server, bare loop and sync are each a process of their own. The server shares the machine with its client, so the
figures say what this machine does with both, not what a network would do. Prints one row per run, as Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

PREFIX = {"nbia": "/nbia-api/services/v4/", "tcia": "/services/v4/TCIA/query/"}


def build(root: Path, objects: int, size: int) -> None:
    """An archive of one collection, 100 objects to a series."""
    from fakes.dicom import make_series, uid

    from mirror.serve.stock import stock

    side = max(8, int((size / 2) ** 0.5))
    for number in range(0, objects, 100):
        files = make_series(series_uid=uid(1, 1, 1 + number), instances=min(100, objects - number), side=side)
        stock(root, "Bench", files, released="2022-01-01")


async def bare_loop(base: str, connections: int) -> tuple[int, int]:
    """List and fetch every object, keep nothing: what aiohttp alone does here."""
    objects = received = 0
    queue: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue(2 * connections)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:

        async def get(call: str, **params: str) -> bytes:
            async with session.get(base + call, params=params) as response:
                response.raise_for_status()
                return await response.read()

        async def fetch() -> None:
            nonlocal objects, received
            while (job := await queue.get()) is not None:
                body = await get("getSingleImage", SeriesInstanceUID=job[0], SOPInstanceUID=job[1])
                received += len(body)
                objects += 1

        tasks = [asyncio.create_task(fetch()) for _ in range(connections)]
        for series in json.loads(await get("getSeries", Collection="Bench")):
            uid = series["SeriesInstanceUID"]
            for row in json.loads(await get("getSOPInstanceUIDs", SeriesInstanceUID=uid)):
                await queue.put((uid, row["SOPInstanceUID"]))
        for _ in tasks:
            await queue.put(None)
        await asyncio.gather(*tasks)
    return objects, received


def measured(command: list[str]) -> tuple[float, float, float, str]:
    """(seconds, CPU seconds, peak MB, stdout) of one command as a process."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    if status:
        raise SystemExit(f"{command} ended with status {status}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, out


def serve(root: Path) -> tuple[subprocess.Popen[bytes], str]:
    """`tcia-mirror serve` on a free port, listening."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mirror", "serve", "--from", str(root), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"http://127.0.0.1:{port}"
        time.sleep(0.05)
    raise SystemExit("the server does not listen")


def row(name: str, objects: int, size: int, seconds: float, cpu: float, peak: float) -> None:
    """Print one row."""
    print(
        f"| {name} | {objects:,} | {seconds:.2f} | {objects / seconds:,.0f} | {size / seconds / 1e6:.1f} |"
        f" {cpu:.2f} | {peak:.0f} |",
        flush=True,
    )


def run(objects: int, size: int, dialect: str, connections: int) -> None:
    """Both clients over an archive of that many objects."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        root = Path(folder) / "archive"
        build(root, objects, size)
        server, origin = serve(root)
        try:
            base = origin + PREFIX[dialect]
            bare = [sys.executable, __file__, "--bare", base, "--connections", str(connections)]
            seconds, cpu, peak, out = measured(bare)
            count, received = map(int, out.split())
            row(f"bare aiohttp, {dialect}", count, received, seconds, cpu, peak)
            for name, to, transport, fsync in (
                ("sync, instance", "instance", "instance", "true"),
                ("sync again, nothing new", "instance", "instance", "true"),
                ("sync, instance, fsync off", "loose", "instance", "false"),
                ("sync, zip", "zip", "zip", "true"),
            ):
                command = [sys.executable, "-m", "mirror", "sync", "Bench", "--to", str(Path(folder) / to)]
                command += ["--server", base, "--json", "--quiet", "--connections", str(connections)]
                command += ["--transport", transport]
                os.environ["TCIA_MIRROR_SYNC_FSYNC"] = fsync
                seconds, cpu, peak, out = measured(command)
                report = json.loads(out.splitlines()[-1])
                done = report["instances"]["fetched"] or report["series"]["kept"]
                row(name, done, report["bytes"]["fetched"], seconds, cpu, peak)
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--objects", type=int, nargs="*", default=[2000, 16000])
    parser.add_argument("--size", type=int, default=32 * 1024)
    parser.add_argument("--dialect", choices=["nbia", "tcia"], default="nbia")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(*asyncio.run(bare_loop(options.bare, options.connections)))
        return
    print("| run | objects | seconds | objects/s | MB/s | CPU s | peak MB |\n|---|---|---|---|---|---|---|")
    for objects in options.objects:
        run(objects, options.size, options.dialect, options.connections)


if __name__ == "__main__":
    main()
