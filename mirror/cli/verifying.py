"""What is told of a verification: its findings while it goes on, with a bar on a terminal, and what it came to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from mirror.cli.text import count, duration, safe, size
from mirror.events import DamageEnded, Event, FilesVerified, InstancePublished, Noticed, TransportChosen, VerifyStarted

if TYPE_CHECKING:
    from mirror.verification import VerifyReport


class Told:
    """Tells what is found, a line each, on standard output; on a terminal a bar as well. An event sink."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._bar: Progress | None = None
        if not silent and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[shown]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True, markup=False, highlight=False, emoji=False),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._bar.add_task("verifying", shown="")
        self._done = 0
        self._series = 0
        self._fetched = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Take an event. Never raises."""
        match event:
            case Noticed(finding=finding):
                self._line(str(finding))
            case DamageEnded(what=what, path=path):
                self._line(f"{what}: {path}")
            case TransportChosen(transport=transport, why=why):
                self._line(f"transport {transport}: {why}")
            case VerifyStarted(bytes=total) if self._bar is not None:
                self._bar.update(self._task, total=total or None)
                self._bar.start()
            case FilesVerified(bytes=number) if self._bar is not None:
                self._done += number
                self._bar.update(self._task, completed=self._done, shown=size(self._done))
            case InstancePublished() if self._bar is not None:
                self._fetched += 1
                self._bar.update(self._task, description="repairing", shown=f"{count(self._fetched)} files")
            case _:
                pass

    def stopping(self) -> None:
        """A signal came."""
        if not self._silent:
            typer.echo("stopping: what is in hand is being finished; a second signal ends the run at once", err=True)

    def _line(self, text: str) -> None:
        if self._silent:
            return
        if self._bar is not None and sys.stdout.isatty():
            # Above the bar, and not broken into lines: paths are there to be copied.
            self._bar.console.print(Text(safe(text)), soft_wrap=True)
        else:
            sys.stdout.write(safe(text) + "\n")


def show_report(console: Console, report: VerifyReport) -> None:
    """Print what a verification came to."""
    speed = report.bytes / report.reading_seconds if report.reading_seconds > 0 else 0
    lines = [
        f"{report.state} after {duration(report.seconds)}",
        f"  looked at  {count(report.series)} series, {count(report.files)} files, {size(report.bytes)}"
        + ("" if report.depth == "quick" else f", {size(speed)}/s"),
    ]
    if report.found:
        lines.append(f"  found      {_listed(report.found)}")
    if report.mended:
        lines.append(f"  mended     {_listed(report.mended)}")
    if report.repair or report.open:
        lines.append(f"  open       {count(report.open)}")
    if report.digests:
        lines.append(f"  digests    of {count(report.digests)} series compared with the archive's")
    if report.series_left:
        lines.append(f"  left       {count(report.series_left)} series for the next run")
    if report.not_ours:
        lines.append(f"  not ours   {count(report.not_ours)} beside the mirror's own, left alone")
    for line in lines:
        console.print(safe(line), soft_wrap=True)


def _listed(numbers: dict[str, int]) -> str:
    return ", ".join(f"{count(number)} {what}" for what, number in numbers.items())
