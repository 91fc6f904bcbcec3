"""`adopt` and `rebuild`: taking over what lies on the disk already."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirror.cli.app import ARCHIVE, OUTPUT, Dialect, Root, Server, app
from mirror.errors import SettingsError
from mirror.model import Scope

if TYPE_CHECKING:
    from rich.console import Console

    from mirror.adopt import AdoptionReport, How
    from mirror.rebuild import RebuildReport
    from mirror.settings import Settings

Layout = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=ARCHIVE,
        help="The mirror's own layout: uid (a new mirror's default), classic, descriptive, or a template.",
    ),
]


@app.command()
def adopt(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder with DICOM files, in any layout.", show_default=False)
    ],
    to: Annotated[Path | None, typer.Option(metavar="ROOT", help="The mirror's folder; made if need be.")] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Give the bytes a second name; copy where the disk cannot (default).")
    ] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy: the folder and the mirror share nothing.")] = False,
    move: Annotated[bool, typer.Option("--move", help="As --link, then remove from DIR what the mirror has.")] = False,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings, as in config/default.toml. Options win over it.")
    ] = None,
    server: Server = None,
    dialect: Dialect = None,
    layout: Layout = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=OUTPUT, help="Read headers, ask the archive, change nothing.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", rich_help_panel=OUTPUT, help="JSON lines on stdout; the last is the report."),
    ] = False,
) -> None:
    """Take over DICOM files that another tool left. A sync then fetches only the rest.

    Each file is checked as if it had just come from the archive. What does not check out stays where it is.
    """
    from mirror.cli.syncing import sync_command
    from mirror.settings import load_settings

    settings = load_settings(
        config,
        os.environ,
        {
            "to": None if to is None else str(to),
            "archive.server": server,
            "archive.dialect": dialect,
            "sync.layout": layout,
        },
    )
    engine = partial(_adopt, folder, _how(link=link, copy=copy, move=move))
    code = sync_command(engine, settings, Scope(), dry_run=dry_run, as_json=as_json, quiet=False, show=_show_adoption)
    raise typer.Exit(code)


def _how(*, link: bool, copy: bool, move: bool) -> How:
    if link + copy + move > 1:
        raise SettingsError("--link, --copy and --move exclude each other; give one")
    return "copy" if copy else "move" if move else "link"


async def _adopt(folder: Path, how: How, root: Path, _scope: Scope, settings: Settings, **rest: Any) -> AdoptionReport:
    from mirror.adopt import adopt

    return await adopt(folder, root, settings, how=how, **rest)


def _show_adoption(console: Console, report: Any) -> None:
    """Print what an adoption came to."""
    from mirror.adopt import AdoptionReport
    from mirror.cli.summary import findings_told
    from mirror.cli.text import count, duration, safe

    lines = [f"{report.state} after {duration(report.seconds)}"]
    if isinstance(report, AdoptionReport):
        a = report.adoption
        besides = f"{count(a.other)} other, {count(a.links)} symbolic links, {count(a.zips)} zips"
        would = "to adopt" if report.state == "planned" else "adopted"
        lines += [
            f"  found      {count(a.dicom)} DICOM files among {count(a.files)} ({besides})",
            f"  series     {count(a.series_known)} that the archive or the mirror knows,"
            f" {count(a.series_unknown)} unknown ({count(a.unknown)} files)",
            f"  instances  {count(a.adopted)} {would}, {count(a.held)} held already, {count(a.refused)} refused,"
            f" {count(a.missing)} missing",
        ]
        if report.state != "planned":
            lines += [
                f"  complete   {count(report.series.complete)} series; a sync completes the others",
                f"  bytes      {count(a.linked)} files linked, {count(a.copied)} copied, {count(a.removed)} removed",
            ]
        lines += [f"  no DICOM   {name}" for name in a.other_named]
        if a.zips:
            lines.append("  zips are not looked into: unpack them and adopt again")
    for line in (*lines, *findings_told(report)):
        console.print(safe(line), soft_wrap=True)


@app.command()
def rebuild(
    to: Root,
    layout: Layout = None,
    server: Server = None,
    dialect: Dialect = None,
    force: Annotated[
        bool, typer.Option("--force", help="Put a ledger that is there aside, sound or not, and make a new one.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", rich_help_panel=OUTPUT, help="JSON lines on stdout; the last is the report."),
    ] = False,
) -> None:
    """Make a lost or damaged ledger again, from the tree and the last manifest. Every file is read.

    A sync then fetches nothing that is right. What is not what the manifest says goes to quarantine.
    """
    from mirror.archive.dialects import server_of
    from mirror.cli.syncing import sync_command
    from mirror.settings import load_settings

    settings = load_settings(
        None, os.environ, {"to": str(to), "archive.server": server, "archive.dialect": dialect, "sync.layout": layout}
    )
    given = None if server is None else server_of(settings.archive)
    engine = partial(_rebuild, {"layout": settings.sync.layout, "server": given, "force": force})
    code = sync_command(engine, settings, Scope(), dry_run=False, as_json=as_json, quiet=False, show=_show_rebuilt)
    raise typer.Exit(code)


async def _rebuild(
    given: dict[str, Any], root: Path, _scope: Scope, _settings: Settings, *, sink: Any, stop: Any, **_: Any
) -> RebuildReport:
    from mirror.rebuild import rebuild

    return await rebuild(root, **given, sink=sink, stop=stop)


def _show_rebuilt(console: Console, report: Any) -> None:
    """Print what a rebuild came to."""
    from mirror.cli.summary import findings_told
    from mirror.cli.text import count, duration, safe
    from mirror.rebuild import RebuildReport

    lines = [f"{report.state} after {duration(report.seconds)}"]
    if isinstance(report, RebuildReport):
        r = report.rebuilt
        lines += [
            f"  manifest   {count(r.manifest_series)} series, {count(r.manifest_instances)} instances",
            f"  files      {count(r.equal)} as the manifest says, {count(r.changed)} not and set aside,"
            f" {count(r.missing)} missing",
            f"  besides    {count(r.unrecorded)} that the manifest does not list, {count(r.foreign)} foreign,"
            f" {count(r.unplaced)} of no known place",
            f"  series     {count(r.series_complete)} complete, {count(r.series_open)} for the next sync to look at",
        ]
    for line in (*lines, *findings_told(report)):
        console.print(safe(line), soft_wrap=True)
