"""`lists`: make, show and delete the shared lists of a mirror."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.app import app
from mirror.cli.streams import is_read
from mirror.cli.text import count, moment, safe
from mirror.errors import SettingsError

if TYPE_CHECKING:
    from mirror.ledger import Catalogue
    from mirror.lists import SharedList

lists = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(lists, name="lists", help="Make, show and delete named lists of series, which ContentsByName answers.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The list's name; case makes no difference.")]
From = Annotated[Path, typer.Option("--from", metavar="ROOT", envvar="TCIA_MIRROR_TO", help="The mirror's folder.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]

_COLUMNS = ("series", "collection", "patient", "modality", "images")


@lists.command()
def make(
    name: Name,
    root: From,
    series: Annotated[
        list[str] | None, typer.Option("--series", metavar="UID", help="This SeriesInstanceUID. Repeatable.")
    ] = None,
    manifest: Annotated[
        list[Path] | None,
        typer.Option(
            "--manifest", metavar="FILE", help="The series that a .tcia, .csv or .txt file names. Repeatable."
        ),
    ] = None,
    collection: Annotated[
        list[str] | None,
        typer.Option("--collection", metavar="NAME", help="Every series of this collection, or pattern. Repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a list of series that the mirror has, or replace the one of that name. Safe beside a running sync."""
    import json

    from mirror.cli.syncing import read_manifest
    from mirror.ledger import Catalogue
    from mirror.lists import gather, make_list

    if not series and not manifest and not collection:
        raise SettingsError("say what is on the list: --series, --manifest or --collection")
    uids = [*(series or ()), *(uid for file in manifest or () for uid in read_manifest(file))]
    with Catalogue(root) as catalogue:
        made = make_list(root, name, gather(catalogue, collection or (), uids))
    if as_json:
        typer.echo(json.dumps(_told(made), indent=1))
    else:
        typer.echo(f"list {safe(made.name)}: {count(len(made.series))} series")


@lists.command()
def show(
    root: From,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Its series; without a name, all lists.")] = None,
    as_json: Json = False,
) -> None:
    """All lists, or the series of one, and whether the mirror shows them. Safe beside a running sync."""
    import json

    from mirror.ledger import Catalogue
    from mirror.lists import all_lists, find_list

    with Catalogue(root) as catalogue:
        if name is not None:
            found = find_list(root, name)
            rows = [_row(catalogue, uid) for uid in found.series]
            if as_json:
                typer.echo(json.dumps(_told(found) | {"series": rows}, indent=1))
            else:
                cells = [["-" if row[name] is None else str(row[name]) for name in _COLUMNS] for row in rows]
                _table(_COLUMNS, cells)
            return
        known = [(of, sum(1 for uid in of.series if _row(catalogue, uid)["shown"])) for of in all_lists(root)]
    if as_json:
        typer.echo(json.dumps({"lists": [_told(of) | {"shown": shown} for of, shown in known]}, indent=1))
    else:
        rows_of = [[of.name, count(len(of.series)), count(shown), moment(of.made)] for of, shown in known]
        _table(("list", "series", "shown", "made"), rows_of)


@lists.command()
def delete(name: Name, root: From, as_json: Json = False) -> None:
    """Delete a list. No series is touched."""
    import json

    from mirror.ledger import Catalogue
    from mirror.lists import delete_list

    Catalogue(root).close()  # says so where there is no mirror
    gone = delete_list(root, name)
    if as_json:
        typer.echo(json.dumps(_told(gone), indent=1))
    else:
        typer.echo(f"list {safe(gone.name)}: deleted; it had {count(len(gone.series))} series")


def _told(of: SharedList) -> dict[str, object]:
    return {"name": of.name, "made": of.made, "series": list(of.series)}


def _row(catalogue: Catalogue, uid: str) -> dict[str, object]:
    """What the mirror shows of a series; without `shown`, nothing but its UID."""
    row = next(catalogue.series({"SeriesInstanceUID": uid}), None)
    if row is None:
        return {"series": uid, "shown": False, "collection": None, "patient": None, "modality": None, "images": None}
    return {
        "series": uid,
        "shown": True,
        "collection": row["Collection"],
        "patient": row.get("PatientID"),
        "modality": row.get("Modality"),
        "images": row["ImageCount"],
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as what is in them, two spaces between; a reader may leave early."""
    lines = [head, *([safe(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if not is_read(sys.stdout):
            break
