"""Many nights of a mirror and its archive: runs, kills and troubles by the calendar, with a watch on each run."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from fakes.archive import FakeArchive
from fakes.calendar import Night, Trouble, make_calendar
from fakes.faults import Asked, after, cut, edit_rows, html, status, where
from fakes.figures import Ran, Year
from fakes.mirroring import ALL, settings_for
from fakes.process import run
from fakes.watch import Watch
from fakes.world import World
from mirror.archive.endpoints import DialectName
from mirror.errors import ExitCode, MirrorError
from mirror.events import Event, InstancePublished
from mirror.model import Walk
from mirror.pipeline import sync

_LATER = timedelta(minutes=20)
_SINCE_CALLS = ("NewPatientsInCollection", "NewStudiesInPatientCollection")
_ROW_CALLS = ("getSeries", "getPatientStudy", "getPatient", *_SINCE_CALLS)
#: The command with a clock that is so many seconds ahead, or behind.
_SHIFTED = (
    "import sys, time; real, shift = time.time, float(sys.argv.pop(1)); time.time = lambda: real() + shift;"
    "from mirror.cli.main import run; run()"
)


async def run_year(
    folder: Path,
    dialect: DialectName,
    *,
    seed: int = 1,
    nights: int = 365,
    kills: int = 0,
    troubles: bool = True,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Year:
    """Live through a calendar in `folder`; `options` are those of [sync]. `say` is told of every night."""
    async with FakeArchive(folder / "upstream") as archive:
        calendar = make_calendar(seed, nights, dialect, kills=kills, troubles=troubles)
        living = _Living(folder / "mirror", World(archive), Year(seed, dialect), dialect, options, say)
        for night in calendar:
            await living.through(night)
        await living.end(calendar[-1])
    return living.year


class _Living:
    """A mirror that is kept up through the nights of a year."""

    def __init__(
        self,
        root: Path,
        world: World,
        year: Year,
        dialect: DialectName,
        options: dict[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self.root = root
        self.world = world
        self.archive = world.archive
        self.year = year
        self._dialect = dialect
        self._options = {"max_withdraw_percent": 20.0} | options
        self._say = say
        self._watch = Watch(root, world, year, options.get("on_withdrawn", "keep"), say)

    async def through(self, night: Night) -> None:
        """One night: what happened by day, the run or runs, and what must be true then."""
        self.world.apply(night.steps)
        with self._troubled(night):
            if night.trouble is Trouble.REFUSED:
                await self.archive.refuse()
            try:
                ran = await self._run(night, night.at, kill=True)
                if ran.killed and night.kill is not None and night.kill.again:
                    await self._run(night, night.at + _LATER, kill=False)
            finally:
                if night.trouble is Trouble.REFUSED:
                    await self.archive.listen()
        # What was to happen in the middle of a run that asked for less happens behind it.
        left = [step for _, step in night.during if step not in self.world.steps]
        self.world.apply(left)

    async def _run(self, night: Night, at: datetime, *, kill: bool) -> Ran:
        quiet = self._watch.quiet(night)
        self.archive.requests.clear()
        begun = time.monotonic()
        self.archive.now = lambda: at + timedelta(seconds=time.monotonic() - begun)
        for number, step in night.during if kill else ():
            self.archive.faults.at_request(number, partial(self.world.apply, [step]))
        shift = at.timestamp() - time.time()
        if kill and night.kill is not None:
            code, published = await self._command(night, shift), None
        else:
            code, published = await self._in_process(shift)
        self.archive.faults.watchers.clear()
        seconds = time.monotonic() - begun
        requests: Counter[str] = Counter()
        walked: set[str] = set()
        for call, params in self.archive.requests:
            collection = self.world.collection_of(params)
            requests[collection] += 1
            if call == "getSeries" and not {"StudyInstanceUID", "SeriesInstanceUID"} & params.keys():
                walked.add(collection)
        asked_for = sum(call == "getSingleImage" for call, _ in self.archive.requests)
        fetched = asked_for if published is None else len(published)
        ran = Ran(night.number, code, code < 0, seconds, requests, walked, quiet, fetched)
        self.year.runs.append(ran)
        words = f"seed {self.year.seed}, {self._dialect}, night {night.number} ({at:%m-%d %H:%M})"
        words += f", {night.trouble} ({night.troubled})" if night.trouble else ""
        self._watch.where = words + (", killed" if ran.killed else "")
        self._say(
            f"{self._watch.where}: exit {code}, {seconds:.2f} s, {sum(requests.values())} requests, {fetched} fetched,"
            f" walked {', '.join(sorted(walked)) or 'none'}; {'; '.join(map(str, night.steps)) or 'nothing new'}"
            f"{''.join(f'; meanwhile {step}' for _, step in night.during)}"
        )
        self._watch.after(night, at, ran)
        return ran

    async def end(self, last: Night) -> None:
        """After the last night: the tree is what the archive shows, and a whole walk finds nothing."""
        watch = self._watch
        watch.where = f"seed {self.year.seed}, {self._dialect}, at the end"
        watch.at_end()
        at = last.at + _LATER
        self.archive.requests.clear()
        self.archive.now = lambda: at
        code, fetched = await self._in_process(at.timestamp() - time.time(), Walk(full=True, reconcile=True))
        watch.where += ", after a whole walk"
        if code or fetched:
            watch.blame(f"exit code {code}, {len(fetched)} instances fetched ({watch.findings})")
        if not any(call == "getSeries" and "StudyInstanceUID" not in params for call, params in self.archive.requests):
            watch.blame("it walked nothing")
        watch.compare_whole()

    async def _in_process(self, shift: float, walk: Walk | None = None) -> tuple[int, set[str]]:
        """The run, and the instances that it fetched."""
        published: set[str] = set()

        def sink(event: Event) -> None:
            if isinstance(event, InstancePublished) and not event.reused:
                published.add(event.sop_instance_uid)

        real = time.time
        time.time = lambda: real() + shift
        try:
            settings = settings_for(self.archive, self._dialect, **self._options)
            report = await sync(self.root, ALL, settings, sink=sink, walk=walk)
            self._watch.findings = "; ".join(map(str, report.findings[:3]))
            return int(report.exit_code), published
        except MirrorError as error:
            self._watch.findings = str(error)
            return int(error.exit_code), published
        finally:
            time.time = real

    async def _command(self, night: Night, shift: float) -> int:
        """The same as the real command, which is killed at its moment; its exit code, negative for the kill."""
        assert night.kill is not None
        process: list[asyncio.subprocess.Process] = []

        def strike() -> None:
            if process[0].returncode is None:
                # Not by its method, which may take the exit code of a process that has just ended away from asyncio.
                os.kill(process[0].pid, signal.SIGKILL)

        if night.kill.request:
            self.archive.faults.at_request(night.kill.request, strike)
        else:
            loop = asyncio.get_running_loop()
            self.archive.faults.at_request(1, partial(loop.call_later, night.kill.seconds, strike))
        argv = [sys.executable, "-c", _SHIFTED, str(shift), "sync", "--all", "--to", str(self.root)]
        argv += ["--server", self.archive.url(self._dialect), "--quiet"]
        options = {f"SYNC_{name.upper()}": str(value) for name, value in self._options.items()}
        ended = await run(argv, begun=process.append, ARCHIVE_ATTEMPTS="3", **options)
        if ended.code == ExitCode.BUG or ended.code == ExitCode.USAGE:
            raise AssertionError(f"night {night.number}: {ended.err}")
        return ended.code

    @contextmanager
    def _troubled(self, night: Night) -> Iterator[None]:
        """The archive with the night's trouble."""
        faults = self.archive.faults
        changed = {step.series for step in night.steps}
        in_trouble = self._about(night.troubled, *_ROW_CALLS)
        match night.trouble:
            case Trouble.DOWN:
                faults.add("*", status(503))
            case Trouble.DOWN_LATER:
                faults.add("*", after(night.since_request, status(503)))
            case Trouble.NONSENSE:
                faults.add("*", where(in_trouble, html()))
            case Trouble.CUT:
                faults.add("*", where(in_trouble, cut()))
            case Trouble.NO_ROWS:
                faults.add("*", where(self._about(night.troubled, *_SINCE_CALLS), status(500)))
            case Trouble.SHORT:
                short = edit_rows(lambda rows: rows[: (len(rows) + 1) // 2])
                # Where rows tell no dates, what is left out of a study that was named is not asked for again.
                only = {"nbia": "StudyInstanceUID", "tcia": "-"}[self._dialect]
                listed = self._about(night.troubled, "getSeries")
                faults.add("*", where(lambda a: listed(a) and {only, "Collection"} >= a.params.keys(), short))
            case Trouble.UNFETCHABLE:
                lost = {u for s in changed for u in sorted(self.world.series[s].bodies)[::2]}
                faults.add("getSingleImage", where(lambda a: a.params["SOPInstanceUID"] in lost, status(500)))
            case Trouble.MISCOUNT:
                miscounted = edit_rows(lambda rows: [r | {"ObjectCount": int(r["ObjectCount"]) + 1} for r in rows])
                faults.add("getSeriesSize", where(lambda a: a.params["SeriesInstanceUID"] in changed, miscounted))
        try:
            yield
        finally:
            faults.clear()

    def _about(self, collection: str, *calls: str) -> Callable[[Asked], bool]:
        return lambda asked: asked.call in calls and self.world.collection_of(asked.params) == collection
