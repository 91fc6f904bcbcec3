"""Commands that only read: what a mirror holds, and what the archive answers."""

from __future__ import annotations

import os
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import anyio
import typer

from mirror.cli.app import Dialect, Root, Server, app
from mirror.cli.streams import is_read
from mirror.cli.text import safe
from mirror.errors import ExitCode, SettingsError


@app.command()
def export(
    to: Root,
    format: Annotated[str, typer.Option(metavar="NAME", help="csv, jsonl, parquet, sha256 (SHA256SUMS) or tcia.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write here instead of into the mirror's folder.")
    ] = None,
) -> None:
    """Write the manifest of what a mirror holds."""
    from mirror.export import export as write_manifest

    for path, rows in write_manifest(to, format, output):
        typer.echo(f"wrote {path} ({rows:,} rows)")


@app.command()
def status(
    to: Root,
    as_json: Annotated[bool, typer.Option("--json", help="Raw numbers, as JSON.")] = False,
    max_age: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="Exit with 3 where a collection's last complete sync is older (36h, 2d) or never was."
        ),
    ] = None,
) -> None:
    """What a mirror holds, collection by collection. Safe beside a running sync."""
    import json
    import time

    from mirror.cli.summary import paper, paper_width, show_status, status_json_dict, too_old
    from mirror.ledger import Catalogue
    from mirror.settings import read_duration

    limit = None if max_age is None else read_duration("option --max-age", max_age)
    with Catalogue(to) as catalogue:
        rows, server, layout = catalogue.status(), catalogue.meta("server"), catalogue.meta("layout")
        source = catalogue.meta("source_chain") or ""
    now = int(time.time())
    if as_json:
        typer.echo(json.dumps(status_json_dict(str(to), server, layout, rows, now=now, source=source), indent=1))
    else:
        show_status(paper(), rows, width=paper_width())
        if source:
            typer.echo(f"from {safe(server or '')}, which has it from {safe(source)}")
    late = [] if limit is None else too_old(rows, limit, now=now)
    for line in late:
        typer.echo(f"tcia-mirror: {safe(line)}", err=True)
    if late:
        raise typer.Exit(ExitCode.INCOMPLETE)


@app.command()
def query(
    call: Annotated[str, typer.Argument(metavar="CALL", help="A call of the API, such as getSeries.")],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Its parameters, such as Collection=TCGA-LUAD."),
    ] = None,
    server: Server = None,
    dialect: Dialect = None,
    format: Annotated[str | None, typer.Option(metavar="NAME", help="json (default), csv, xml or html.")] = None,
    metadata: Annotated[
        bool, typer.Option("--metadata", help="The document that describes the call (tcia dialect).")
    ] = False,
) -> None:
    """Ask the archive one thing and write its answer, byte for byte, on stdout."""
    from mirror.archive.dialects import find_endpoint, find_server
    from mirror.archive.endpoints import Answer, Format
    from mirror.settings import load_settings, read_token

    settings = load_settings(None, os.environ, {"archive.server": server, "archive.dialect": dialect}).archive
    token = read_token(settings, os.environ)
    told = None if settings.dialect == "auto" else settings.dialect
    where, endpoint = find_server(settings.server, told), find_endpoint(call)
    params: dict[str, str] = {}
    for parameter in parameters or ():
        key, equals, value = parameter.partition("=")
        if not key or not equals:
            raise SettingsError(f"{parameter!r} is no parameter; it should be KEY=VALUE")
        if key in params:
            raise SettingsError(f"the parameter {key} is given twice")
        params[key] = value
    if format is not None and format not in list(Format):
        raise SettingsError(f"option --format: {format!r} is not right; it should be one of {', '.join(Format)}")
    wanted = None if format is None else Format(format)
    if not metadata and endpoint.answer in (Answer.ZIP, Answer.DICOM) and sys.stdout.isatty():
        raise SettingsError(f"{endpoint.name} answers bytes that are not for a terminal; send stdout into a file")
    if where.warning:
        typer.echo(f"tcia-mirror: {where.warning}", err=True)

    async def ask() -> None:
        from mirror.archive.client import ArchiveClient

        async with (
            ArchiveClient(where, settings, token=token) as client,
            aclosing(client.raw(endpoint, params, wanted, metadata=metadata)) as chunks,
        ):
            async for chunk in chunks:
                sys.stdout.buffer.write(chunk)
                if not is_read(sys.stdout):
                    break

    anyio.run(ask)
