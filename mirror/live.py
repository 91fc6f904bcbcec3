"""A run at work, told to whoever looks: <root>/.mirror/live.json, written anew every second and gone with the run.

Hides the file. Promises that it is whole whenever it is read, that no run waits or fails for it, and that one left by a
run that was killed is known by its age.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from mirror.errors import ExitCode
from mirror.events import CollectionCrawled, Event, Planned, ScopeFound, SeriesDone, Stopping
from mirror.report import Reporter

#: Seconds between two of its words, and after which a run that says nothing is no more.
PERIOD, SILENT = 1.0, 10.0
#: How many of the series that were judged last are told.
_LAST = 10


class Live:
    """An event sink that tells how far a run is, besides what its report would say now. Belongs to one run."""

    def __init__(self, root: Path, reporter: Reporter) -> None:
        self._path = _path(root)
        self._reporter = reporter
        self._phase = "crawl"
        self._collections = self._crawled = 0
        self._objects: int | None = None
        self._bytes: int | None = None
        self._last: deque[dict[str, Any]] = deque(maxlen=_LAST)

    def __call__(self, event: Event) -> None:
        """Fold one event, which the reporter has seen. Never raises."""
        match event:
            case ScopeFound(collections=number):
                self._collections = number
            case CollectionCrawled():
                self._crawled += 1
            case Planned(objects=objects, bytes=size):
                self._phase, self._objects, self._bytes = "fetch", objects, size
            case Stopping():
                self._phase = "stop"
            case SeriesDone(outcome=outcome):
                series = outcome.series
                self._last.appendleft(
                    {
                        "series_instance_uid": series.series_instance_uid,
                        "collection": series.collection,
                        "patient_id": series.patient_id,
                        "state": str(outcome.state),
                        "at": int(time.time()),
                    }
                )
            case _:
                pass

    @asynccontextmanager
    async def told(self) -> AsyncIterator[None]:
        """Tell it for as long as the block lasts."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tell)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
                with suppress(OSError):
                    self._path.unlink(missing_ok=True)

    async def _tell(self) -> None:
        while True:
            # Shielded: a thread that writes would put back what has been taken away.
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._write, self._words())
            await anyio.sleep(PERIOD)

    def _words(self) -> bytes:
        # Only its counts are used, whatever the run will end as.
        report = self._reporter.finish("interrupted", ExitCode.INTERRUPTED)
        told = {
            "at": time.time(),
            "run": report.run,
            "pid": os.getpid(),
            "server": report.server,
            "scope": report.scope,
            "started_at": report.started_at,
            "seconds": round(report.seconds, 1),
            "phase": self._phase,
            "collections": {"found": self._collections, "crawled": self._crawled},
            "series": asdict(report.series),
            "instances": asdict(report.instances) | {"planned": self._objects},
            "bytes": {"fetched": report.bytes.fetched, "planned": self._bytes},
            "findings": {str(kind): number for kind, number in report.findings_by_kind.items()},
            "last": list(self._last),
        }
        return json.dumps(told).encode()

    def _write(self, words: bytes) -> None:
        # A full disk ends a run by its own means; this is for lookers-on, and not worth a flush either.
        with suppress(OSError):
            part = self._path.with_name(f".{self._path.name}.part")
            part.write_bytes(words)
            part.replace(self._path)


def read_live(root: Path) -> tuple[dict[str, Any], bool] | None:
    """What the run at work said last, and whether it is still there; None where no run is. Blocks.

    A run is taken for gone that has said nothing for SILENT seconds: it was killed, and the next one goes on.
    """
    try:
        told = json.loads(_path(root).read_bytes())
        return told, time.time() - float(told["at"]) < SILENT
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _path(root: Path) -> Path:
    return root / ".mirror" / "live.json"
