"""The differences that `diff` finds, on stdout as they are found: as text, JSON lines or CSV."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, fields

import anyio
import typer

from mirror.cli.streams import is_read
from mirror.cli.text import count, safe
from mirror.diff import Difference, Kind, against_archive
from mirror.errors import ExitCode
from mirror.ledger import Comparison
from mirror.model import Scope
from mirror.scope import from_json
from mirror.settings import ArchiveSettings, read_token

_WORDS = {
    Kind.ONLY_HERE: "- only here",
    Kind.ONLY_THERE: "+ only there",
    Kind.DIFFERS: "~ differs",
    Kind.INCOMPLETE: "! incomplete here",
    Kind.WITHDRAWN: "  withdrawn",
}
_WIDTH = max(map(len, _WORDS.values()))


class Told:
    """Tells differences and counts them. The base of the formats."""

    def __init__(self) -> None:
        self.alike = 0
        self.counts: Counter[Kind] = Counter()

    def take(self, found: Sequence[Difference]) -> None:
        """What was found of one series."""
        for difference in found:
            self._line(difference)
        if found:
            self.counts[found[0].kind] += 1
        if not found or found[0].kind is Kind.WITHDRAWN:
            self.alike += 1

    def close(self) -> ExitCode:
        """Tell what it comes to; what the command exits with."""
        differing = sum(number for kind, number in self.counts.items() if kind is not Kind.WITHDRAWN)
        self._summary(differing)
        return ExitCode.INCOMPLETE if differing else ExitCode.COMPLETE

    def _line(self, difference: Difference) -> None:
        raise NotImplementedError

    def _summary(self, differing: int) -> None:
        """Tell the numbers of series."""


class _Text(Told):
    """A line per difference, and a last one that adds them up."""

    def _line(self, difference: Difference) -> None:
        word = _WORDS[difference.kind]
        if difference.sop_instance_uid is not None:
            typer.echo(f"    {word:<{_WIDTH}}  {safe(difference.sop_instance_uid)}")
            return
        place = (difference.collection, difference.patient_id, difference.series_instance_uid)
        line = f"{word:<{_WIDTH}}  {'  '.join(safe(part) for part in place if part)}"
        typer.echo(line + (f": {safe(difference.what)}" if difference.what else ""))

    def _summary(self, differing: int) -> None:
        parts = [f"{count(number)} {_WORDS[kind][2:]}" for kind, number in self.counts.items()]
        series = f"{count(self.alike)} series alike" if self.alike else "no series alike"
        typer.echo(f"{count(differing) if differing else 'none'} of the series differ; " + ", ".join([series, *parts]))


class _Json(Told):
    """An object per line: differences, then their numbers."""

    def _line(self, difference: Difference) -> None:
        typer.echo(json.dumps(asdict(difference)))

    def _summary(self, differing: int) -> None:
        counts = {kind.value: self.counts[kind] for kind in Kind}
        typer.echo(json.dumps({"same": not differing, "alike": self.alike, "series": counts}))


class _Csv(Told):
    """A header, and a row per difference."""

    def __init__(self) -> None:
        super().__init__()
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._names = [f.name for f in fields(Difference)]
        self._writer.writerow(self._names)

    def _line(self, difference: Difference) -> None:
        self._writer.writerow([getattr(difference, name) for name in self._names])


FORMATS: dict[str, Callable[[], Told]] = {"text": _Text, "json": _Json, "csv": _Csv}


def tell(told: Told, differences: Iterable[Sequence[Difference]]) -> None:
    """Tell all of them, for as long as somebody reads."""
    for found in differences:
        told.take(found)
        if not is_read(sys.stdout):
            break


def compare_archive(
    told: Told, here: Comparison, settings: ArchiveSettings, collections: Sequence[str], *, whole: bool, instances: bool
) -> None:
    """Tell what differs from the archive that the settings mean; `whole`: of all that it has of a collection."""
    from mirror.archive.client import ArchiveClient
    from mirror.archive.dialects import server_of

    server, token = server_of(settings), read_token(settings, os.environ)
    if server.warning:
        typer.echo(f"tcia-mirror: {server.warning}", err=True)

    kept = None if whole else here.meta("scope")

    def note(words: str) -> None:
        typer.echo(f"tcia-mirror: {safe(words)} and are not compared; --whole compares them", err=True)

    async def main() -> None:
        async with (
            ArchiveClient(server, settings, token=token) as client,
            aclosing(
                against_archive(
                    here,
                    client,
                    collections,
                    scope=Scope(all=True) if kept is None else from_json(kept),
                    instances=instances,
                    note=note,
                )
            ) as differences,
        ):
            async for found in differences:
                told.take(found)
                if not is_read(sys.stdout):
                    break

    anyio.run(main)
