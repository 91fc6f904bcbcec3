"""What each step costs per object, microseconds: so that the effect of a change is seen where it was made.

    python -m benchmarks.micro                 both sizes of object, on shared memory and on the disk of --disk
    python -m benchmarks.micro --only hash write --rounds 7

CPU time of this process is told beside the wall time: on a machine that is busy with other things only the former
means much. Of several rounds the fastest counts. "receive" is aiohttp from nginx on loopback, over one connection.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiofiles
import aiohttp
import anyio
import anyio.to_thread
import pydicom
from yarl import URL

from benchmarks import tables
from benchmarks.archive import Archive, Object, Shape, build
from benchmarks.nginx import Server, nginx
from mirror.archive.rows import as_noun
from mirror.check import check_instance
from mirror.events import InstancePublished
from mirror.ledger import Ledger
from mirror.model import Action, Digest, Header, Instance, Series, Why

#: Objects of each size that a step goes through in a round.
SIZES = {"27 KB": Shape(8, 50, ((112, 1),)), "525 KB": Shape(2, 50, ((512, 1),))}
_ROW = {"Collection": "Bench", "PatientID": "BENCH-00000", "StudyInstanceUID": "1.2"}


class Clock:
    """Wall and CPU seconds inside its context, added up."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self.wall -= time.perf_counter()
        self.cpu -= time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


@dataclass(frozen=True, slots=True)
class Bench:
    """What steps work on: the objects' bytes, the files, a server of them, and folders in memory and on a disk."""

    archive: Archive
    server: Server | None
    bodies: list[bytes]
    series: list[Series]
    memory: Path
    disk: Path
    #: For a step whose preparation does not count.
    clock: Clock


#: A step does its work once for each object.
Step = Callable[[Bench], Awaitable[None]]
STEPS: dict[str, Step] = {}


def step(name: str) -> Callable[[Step], Step]:
    """Enter a step under its name."""

    def enter(function: Step) -> Step:
        STEPS[name] = function
        return function

    return enter


async def _receive(bench: Bench, take: Callable[[aiohttp.ClientResponse], Awaitable[object]]) -> None:
    assert bench.server is not None
    async with aiohttp.ClientSession() as session:
        for path in bench.archive.paths():
            async with session.get(URL(bench.server.origin + path, encoded=True)) as response:
                await take(response)


@step("receive, read()")
async def _receive_whole(bench: Bench) -> None:
    await _receive(bench, lambda response: response.read())


@step("receive, iter_any()")
async def _receive_chunks(bench: Bench) -> None:
    async def take(response: aiohttp.ClientResponse) -> None:
        async for _ in response.content.iter_any():
            pass

    await _receive(bench, take)


@step("hash SHA-256")
async def _sha256(bench: Bench) -> None:
    for body in bench.bodies:
        hashlib.sha256(body).digest()


@step("hash MD5")
async def _md5(bench: Bench) -> None:
    for body in bench.bodies:
        hashlib.md5(body, usedforsecurity=False).digest()


@step("header, mirror.check")
async def _header(bench: Bench) -> None:
    for body, o, series in zip(bench.bodies, bench.archive.objects, bench.series, strict=True):
        checked = check_instance(io.BytesIO(body), len(body), series, o.uid, len(body))
        assert checked.header is not None
        assert checked.verdict.ok, checked


@step("header, pydicom")
async def _pydicom(bench: Bench) -> None:
    for body in bench.bodies:
        assert pydicom.dcmread(io.BytesIO(body), stop_before_pixels=True, specific_tags=["SOPInstanceUID"])


def _write(folder: Path, bodies: list[bytes], *, fsync: bool) -> None:
    for number, body in enumerate(bodies):
        part = folder / "part"
        with part.open("xb", buffering=0) as file:
            file.write(body)
            if fsync:
                os.fsync(file.fileno())
        part.replace(folder / f"{number}.dcm")


@step("write and rename, memory")
async def _write_memory(bench: Bench) -> None:
    with _folder(bench.memory) as folder:
        _write(folder, bench.bodies, fsync=False)


@step("write and rename, disk")
async def _write_disk(bench: Bench) -> None:
    with _folder(bench.disk) as folder:
        _write(folder, bench.bodies, fsync=False)


@step("write, fsync and rename, disk")
async def _write_flushed(bench: Bench) -> None:
    with _folder(bench.disk) as folder:
        _write(folder, bench.bodies, fsync=True)


@step("write, aiofiles, memory")
async def _write_aiofiles(bench: Bench) -> None:
    with _folder(bench.memory) as folder:
        for number, body in enumerate(bench.bodies):
            async with aiofiles.open(folder / f"{number}.dcm", "xb") as file:
                await file.write(body)


@step("queue hop")
async def _queue(bench: Bench) -> None:
    send, receive = anyio.create_memory_object_stream[int](16)

    async def take() -> None:
        async with receive:
            async for _ in receive:
                pass

    async with anyio.create_task_group() as tasks, send:
        tasks.start_soon(take)
        for number in range(len(bench.bodies)):
            await send.send(number)


@step("thread hop")
async def _thread(bench: Bench) -> None:
    for _ in bench.bodies:
        await anyio.to_thread.run_sync(int)


@step("event to a sink")
async def _event(bench: Bench) -> None:
    told: list[int] = []
    for o in bench.archive.objects:
        event = InstancePublished(series_instance_uid=o.series, sop_instance_uid=o.uid, bytes=o.bytes)
        told.append(event.bytes)


@step("ledger rows, in batches of 200")
async def _rows(bench: Bench) -> None:
    _record(bench, 200)


@step("ledger rows, one by one")
async def _rows_alone(bench: Bench) -> None:
    _record(bench, 1)


def _record(bench: Bench, batch: int) -> None:
    """Note every object as held, in a new ledger."""
    with _folder(bench.memory) as root:
        ledger = Ledger(root)
        series = as_noun(Series, _ROW | {"SeriesInstanceUID": "1.2.3", "ImageCount": len(bench.bodies)})
        ledger.plan_series(1, "bench", [(series, Action(fetch=True, why=Why.NEW), "a/b")])
        (todo,) = ledger.todo("bench", 0, 1)
        rows = [_instance(number, o) for number, o in enumerate(bench.archive.objects)]
        ledger.list_instances(todo.id, ledger.open_series(todo.id), [row.header.sop_instance_uid for row in rows])
        with bench.clock:
            for begin in range(0, len(rows), batch):
                ledger.record(todo.id, rows[begin : begin + batch])
        ledger.close()


def _instance(number: int, o: Object) -> Instance:
    uid = f"1.3.6.1.4.1.14519.5.2.1.1.{number:037d}"
    header = Header(
        sop_instance_uid=uid, series_instance_uid="1.2.3", study_instance_uid="1.2", patient_id="BENCH-00000",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2", acquisition_number=1, instance_number=number,
    )  # fmt: skip
    return Instance(
        header=header, digest=Digest(bytes=o.bytes, sha256=o.sha256, md5=o.md5), name=f"{uid}.dcm",
        source="getSingleImage", fetched_at=0, verified="length,header",
    )  # fmt: skip


@contextmanager
def _folder(at: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tcia-micro-", dir=at))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def measure(bench: Bench, names: list[str], rounds: int) -> dict[str, tuple[float, float]]:
    """(wall, CPU) microseconds per object of each step, the fastest of the rounds by CPU."""
    costs: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):
        for name in names:
            if name.startswith("receive") and bench.server is None:
                continue
            whole, inner = Clock(), Clock()
            with whole:
                anyio.run(STEPS[name], replace(bench, clock=inner))
            spent = inner if inner.cpu else whole
            wall, cpu = (seconds / len(bench.bodies) * 1e6 for seconds in (spent.wall, spent.cpu))
            if name not in costs or cpu < costs[name][1]:
                costs[name] = (wall, cpu)
    return costs


@contextmanager
def bench_of(shape: Shape, memory: Path, disk: Path, *, serve: bool) -> Iterator[Bench]:
    """The bench for objects of a shape."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(memory))
        archive = build(folder / "archive", shape)
        server = stack.enter_context(nginx(archive, folder / "server")) if serve else None
        bodies = [(archive.root / "o" / o.series / f"{o.uid}.dcm").read_bytes() for o in archive.objects]
        rows = {}
        for body, o in zip(bodies, archive.objects, strict=True):
            if o.series not in rows:
                header = pydicom.dcmread(io.BytesIO(body), stop_before_pixels=True)
                known = {"PatientID": header.PatientID, "StudyInstanceUID": header.StudyInstanceUID}
                rows[o.series] = as_noun(Series, _ROW | known | {"SeriesInstanceUID": o.series})
        yield Bench(archive, server, bodies, [rows[o.series] for o in archive.objects], memory, disk, Clock())


def main() -> None:
    """Measure and print a table, as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], help="steps whose name begins so")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--disk", type=Path, default=Path.cwd(), help="a folder on the disk that is meant (here)")
    parser.add_argument("--no-server", action="store_true", help="leave the steps out that need nginx")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    asked = parser.parse_args()
    names = [name for name in STEPS if name.startswith(tuple(asked.only))]
    shared = Path("/dev/shm")
    memory = shared if shared.is_dir() else Path(tempfile.gettempdir())
    serve = not asked.no_server and any(name.startswith("receive") for name in names)
    made = {}
    for size, shape in SIZES.items():
        with bench_of(shape, memory, asked.disk, serve=serve) as bench:
            made[size] = measure(bench, names, asked.rounds)
    heads = [f"{size}, {what}" for size in SIZES for what in ("wall us", "CPU us")]
    rows = [f"| step | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for name in names:
        cells = [f"{figure:.1f}" for size in SIZES for figure in made[size].get(name, ())]
        if cells:
            rows.append(f"| {name} | {' | '.join(cells)} |")
    print("\n".join(rows))
    if asked.write_docs:
        tables.write_docs("micro", "\n".join(rows))


if __name__ == "__main__":
    main()
