"""`log`: what happened to a mirror's series and instances."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.app import OUTPUT, Root, app
from mirror.cli.streams import is_read
from mirror.cli.text import count, moment, safe, size
from mirror.errors import SettingsError

if TYPE_CHECKING:
    from mirror.ledger.past import Past
    from mirror.model import HistoryEntry

#: So many hex digits tell one SHA-256 from another.
_DIGITS = 12


@app.command()
def log(
    to: Root,
    about: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WHAT",
            help="Only what is about these: collections, or UIDs of series, studies or instances.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="Only what happened on this day (UTC, YYYY-MM-DD) or later.")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the newest N.")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", rich_help_panel=OUTPUT, help="The newest first.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=OUTPUT, help="An object per line; times are seconds since 1970.")
    ] = False,
) -> None:
    """What came, changed and left, when, and why; the oldest first. Safe beside a running sync."""  # fmt: skip
    from dataclasses import asdict

    from mirror.ledger.past import Past

    with Past(to) as past:
        chosen, told = about or [], 0
        _require_known(past, chosen)
        for entry in past.entries(chosen, since=_seconds(since), limit=limit, newest_first=reverse):
            typer.echo(json.dumps(asdict(entry)) if as_json else _line(entry))
            told += 1
            if not is_read(sys.stdout):
                break
        if not told:
            typer.echo(f"tcia-mirror: {_nothing(past.begins())}", err=True)


def _require_known(past: Past, about: list[str]) -> None:
    from mirror.ledger.past import is_uid
    from mirror.scope import nearest

    for name in about:
        if is_uid(name) or next(past.entries([name], limit=1), None) is not None:
            continue
        names = past.all_collections()
        if name.casefold() not in {known.casefold() for known in names}:
            raise SettingsError(f"{name!r} is no UID, and no collection of this mirror{nearest([name], names)}")


def _seconds(day: str | None) -> int | None:
    from datetime import UTC, datetime

    from mirror.scope import is_day

    if day is None:
        return None
    if not is_day(day):
        raise SettingsError(f"option --since: {day!r} is not right; it should be a day, YYYY-MM-DD")
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


def _line(entry: HistoryEntry) -> str:
    parts = [moment(entry.at), f"{entry.what:<9}", entry.collection, entry.series_instance_uid]
    if entry.sop_instance_uid is not None:
        parts.append(entry.sop_instance_uid)
    facts = [] if entry.instances is None else [f"{count(entry.instances)} instance" + "s" * (entry.instances != 1)]
    facts += [] if entry.bytes is None else [size(entry.bytes)]
    if entry.old_sha256 or entry.sha256:
        facts.append(f"SHA-256 {_short(entry.old_sha256)} -> {_short(entry.sha256)}")
    if facts:
        parts.append(", ".join(facts))
    kept = f"; the old bytes: {entry.retired}" if entry.retired else ""
    return safe(f"{'  '.join(parts)}: {entry.why}{kept}")


def _short(sha256: str | None) -> str:
    return sha256[:_DIGITS] if sha256 else "(none)"


def _nothing(begins: int | None) -> str:
    if begins is None:
        return "nothing is told: the history of a mirror is kept from the first sync on that knows of it"
    return f"nothing is told of that: the history of this mirror begins at {moment(begins)} UTC"
