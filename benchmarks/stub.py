"""A server of our own over a synthetic archive: slow, or one that refuses; and where nginx is not there.

    think    seconds until an answer begins       rate    bytes per second of one answer; 0: no limit
    limit    requests in flight above which it says 429; 0: none       retry_after    seconds it asks for then; 0: does
             not say

It finds answers as nginx.py does, counts as nginx's stub_status does, and can write down what it did over time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from benchmarks.archive import PREFIX, Archive
from benchmarks.nginx import Server

#: The slow server of the bench.
SLOW = {"think": 0.2, "rate": 5e6}
#: Bytes that a limited answer sends in a row.
_PIECE = 128 * 1024
#: How often it is written down what the server does, seconds.
TICK = 0.25
_KEYS = ("SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Collection")
_VERSIONS = tuple(PREFIX["nbia"].replace("v4", old) for old in ("v1", "v2"))


class _Stub:
    """The server and its counters."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._root: Path = asked.root
        self._prefix = PREFIX[asked.dialect]
        self._options = asked
        self.in_flight = self.peak = self.requests = self.refused = self.sent = self.asked = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if request.path == "/status":  # nginx counts these too
            self.asked += 1
            return web.Response(text=f"accepts handled requests\n 0 0 {self.requests + self.asked} \n")
        self.requests += 1
        asked = self._options
        if asked.limit and self.in_flight >= asked.limit:
            self.refused += 1
            headers = {"Retry-After": str(asked.retry_after)} if asked.retry_after else None
            return web.Response(status=429, text="too many requests", headers=headers)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            if asked.think:
                await asyncio.sleep(asked.think)
            return await self._send(request)
        finally:
            self.in_flight -= 1

    async def _send(self, request: web.Request) -> web.StreamResponse:
        found = self._find(request)
        if found is None:
            return web.Response(status=404)
        path, content_type = found
        try:
            file = path.open("rb")
        except OSError:
            status = {"application/dicom": 500, "application/octet-stream": 400}.get(content_type)
            if status is not None:
                return web.Response(status=status)
            file = (self._root / "empty").open("rb")
        with file:
            length = os.fstat(file.fileno()).st_size
            response = web.StreamResponse(headers={"Content-Type": content_type})
            response.content_length = length
            began, rate = time.monotonic(), self._options.rate
            # Who tries what the server can leaves when it has seen enough.
            with suppress(ConnectionError):
                await response.prepare(request)
                for done in range(0, length, _PIECE):
                    piece = file.read(_PIECE)
                    if rate and (wait := began + (done + len(piece)) / rate - time.monotonic()) > 0:
                        await asyncio.sleep(wait)
                    await response.write(piece)
                    self.sent += len(piece)
                await response.write_eof()
        return response

    def _find(self, request: web.Request) -> tuple[Path, str] | None:
        """The file that answers, and its type; None: no such call."""
        prefix = next((p for p in (self._prefix, *_VERSIONS) if request.path.startswith(p)), None)
        if prefix is None:
            return None
        call, query = request.path.removeprefix(prefix), request.query
        if call == "getSingleImage":
            return self._root / "o" / query["SeriesInstanceUID"] / f"{query['SOPInstanceUID']}.dcm", "application/dicom"
        if call in ("getImage", "getImageWithMD5Hash"):
            return self._root / "z" / f"{query['SeriesInstanceUID']}.zip", "application/octet-stream"
        if call == "getMD5HashForImage":
            return self._root / "a" / call / query["SOPInstanceUID"], "text/plain"
        key = next((query[name] for name in _KEYS if query.get(name)), "all")
        return self._root / "a" / call / key, "application/json"

    async def write_down(self, path: Path) -> None:
        """A line of JSON each TICK: seconds of the monotonic clock, most in flight since the last line, counts."""
        with path.open("w") as file:
            while True:
                now = time.monotonic()
                counts = {"requests": self.requests, "refused": self.refused, "sent": self.sent}
                print(json.dumps({"at": now, "in_flight": self.peak, **counts}), file=file, flush=True)
                self.peak = self.in_flight
                await asyncio.sleep(TICK)


async def serve(asked: argparse.Namespace) -> None:
    """Serve until the process is ended; say the port first."""
    stub = _Stub(asked)
    server = web.Server(stub.answer, keepalive_timeout=600)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    if asked.trace is not None:
        await stub.write_down(asked.trace)
    await asyncio.Event().wait()


@contextmanager
def stub(archive: Archive, run: Path, **options: Any) -> Iterator[Server]:
    """The server as a process of its own; options are those of the module, and `trace`, a file to write down in."""
    command = [sys.executable, "-m", "benchmarks.stub", str(archive.root), archive.dialect]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip().decode()
        if not port:
            raise SystemExit("the stub did not start")
        yield Server(f"http://127.0.0.1:{port}", ())
    finally:
        process.terminate()
        process.communicate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("dialect", choices=list(PREFIX))
    for name, kind in (("think", float), ("rate", float), ("limit", int), ("retry_after", int), ("trace", Path)):
        parser.add_argument(f"--{name}", type=kind, default=None if kind is Path else 0)
    asyncio.run(serve(parser.parse_args()))
