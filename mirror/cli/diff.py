"""`diff`: what differs between a mirror and an archive, another mirror or a manifest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mirror.cli.app import ARCHIVE, OUTPUT, Dialect, Root, app
from mirror.errors import SettingsError


@app.command()
def diff(
    to: Root,
    collections: Annotated[
        list[str] | None,
        typer.Argument(metavar="COLLECTION", help="Only these collections.", show_default=False),
    ] = None,
    other: Annotated[Path | None, typer.Option(metavar="ROOT", help="Another mirror, in place of the archive.")] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="An exported table (.csv, .jsonl, .parquet) or a list of series (.tcia, .csv, .txt), in its place.",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", rich_help_panel=ARCHIVE, help="A base URL, or nbia, nlst, tcia (retired)."),
    ] = None,
    dialect: Dialect = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", rich_help_panel=ARCHIVE, help="Settings, as in config/default.toml."),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole", rich_help_panel=ARCHIVE, help="All that the archive has, also outside the mirror's last scope."
        ),
    ] = False,
    format: Annotated[
        str, typer.Option(metavar="NAME", rich_help_panel=OUTPUT, help="text, json (an object per line) or csv.")
    ] = "text",
    instances: Annotated[
        bool, typer.Option("--instances", rich_help_panel=OUTPUT, help="Name each instance that differs.")
    ] = False,
) -> None:
    """What differs between a mirror and its archive, or something else. Changes nothing.

    Without --server, --other or --manifest: the server that the mirror was made from. Exits with 0 where nothing
    differs, with 3 where something does.
    """
    from mirror.cli.differing import FORMATS, compare_archive, tell
    from mirror.diff import against_manifest, against_mirror
    from mirror.ledger import Comparison
    from mirror.settings import load_settings

    if sum(given is not None for given in (other, manifest, server)) > 1:
        raise SettingsError("--server, --other and --manifest exclude each other; give one")
    if format not in FORMATS:
        raise SettingsError(f"option --format: {format!r} is not right; it should be one of {', '.join(FORMATS)}")
    told = FORMATS[format]()
    chosen = collections or ()
    with Comparison(to) as here:
        if other is not None:
            with Comparison(other) as there:
                tell(told, against_mirror(here, there, chosen, instances=instances))
        elif manifest is not None:
            tell(told, against_manifest(here, manifest, chosen, instances=instances))
        else:
            named = {
                "archive.server": server or here.meta("server"),
                "archive.dialect": dialect or (None if server else here.meta("dialect")),
            }
            if named["archive.server"] is None:
                raise SettingsError(f"{to}: was not made from a server; give --server, --other or --manifest")
            settings = load_settings(config, os.environ, named).archive
            compare_archive(told, here, settings, chosen, whole=whole, instances=instances)
    raise typer.Exit(told.close())
