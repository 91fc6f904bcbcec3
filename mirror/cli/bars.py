"""A run on a terminal while it goes on: bars, and a line above them for each thing worth one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from mirror.cli.progress import FINDINGS_SHOWN, Silent, line_of
from mirror.cli.tally import Tally
from mirror.cli.text import count, size
from mirror.events import Event, InstanceFailed, LimitReached, Noticed, RunStarted, Stopping, TransportChosen


class Bars(Silent):
    """Bars on a terminal. They are drawn by a thread of their own, so that a slow terminal does not slow the run."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.tally = Tally()
        self._console = console
        self._clock = clock
        self._told = 0
        self._progress = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[shown]:>24}"),
            console=console,
            auto_refresh=False,
            expand=True,
        )
        self._tasks = {n: self._progress.add_task(n, shown="") for n in ("collections", "series", "objects", "bytes")}
        self._live = Live(console=console, get_renderable=self.draw, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Count the event, and write a finding or a stop above the bars."""
        self.tally.fold(event)
        if isinstance(event, InstanceFailed | Noticed):
            self._told += 1
            if self._told > FINDINGS_SHOWN:
                return
        elif not isinstance(event, RunStarted | LimitReached | Stopping | TransportChosen):
            return
        if (line := line_of(event)) is not None:
            try:
                self._console.print(Text(line))
            except (OSError, ValueError):
                self._told = FINDINGS_SHOWN

    def draw(self) -> Group:
        """What is to be seen now."""
        tally = self.tally
        tally.sample(self._clock())
        self._set("collections", tally.collections_crawled, tally.collections, count)
        self._set("series", tally.series_done, tally.series, count)
        self._set("objects", tally.objects_done + tally.objects_failed, tally.objects, count)
        self._set("bytes", tally.bytes_done if tally.planned else 0, tally.bytes, size)
        return Group(self._progress, Text(tally.pace(), overflow="ellipsis", no_wrap=True))

    def _set(self, name: str, done: int, total: int | None, written: Callable[[int | None], str]) -> None:
        shown = written(done) if total is None else f"{written(done)} of {written(total)}"
        self._progress.update(self._tasks[name], completed=done, total=total, shown=shown)
