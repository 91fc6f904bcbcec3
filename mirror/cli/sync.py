"""`sync`: its options, and what they come to."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mirror.cli.app import ARCHIVE, OUTPUT, SCOPE, WALK, Config, Dialect, Server, app
from mirror.errors import SettingsError


@app.command()
def sync(
    collections: Annotated[
        list[str] | None,
        typer.Argument(metavar="COLLECTION", help="Names or patterns of collections.", show_default=False),
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="ROOT", help="The mirror's folder; made if need be.")] = None,
    config: Config = None,
    job: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=SCOPE, help="What the section [jobs.NAME] of the settings says."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", rich_help_panel=SCOPE, help="Every collection of the archive.")
    ] = False,
    patient: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", rich_help_panel=SCOPE, help="Only this PatientID. Repeatable."),
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(metavar="M", rich_help_panel=SCOPE, help="Only this Modality (CT, MR, ...). Repeatable."),
    ] = None,
    body_part: Annotated[
        list[str] | None,
        typer.Option(metavar="B", rich_help_panel=SCOPE, help="Only this BodyPartExamined. Repeatable."),
    ] = None,
    manufacturer: Annotated[
        list[str] | None,
        typer.Option(metavar="M", rich_help_panel=SCOPE, help="Only this Manufacturer, or pattern of it. Repeatable."),
    ] = None,
    released_since: Annotated[
        str,
        typer.Option(
            metavar="DATE", rich_help_panel=SCOPE, show_default=False, help="Only series released on this day or later."
        ),
    ] = "",
    exclude_collection: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", rich_help_panel=SCOPE, help="Not this collection, or pattern. Repeatable."),
    ] = None,
    exclude_modality: Annotated[
        list[str] | None,
        typer.Option(metavar="M", rich_help_panel=SCOPE, help="Not this Modality. Repeatable."),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option(metavar="UID", rich_help_panel=SCOPE, help="This SeriesInstanceUID. Repeatable."),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", rich_help_panel=SCOPE, help="The series that a .tcia, .csv or .txt file names."),
    ] = None,
    shared_list: Annotated[
        list[str] | None,
        typer.Option("--list", metavar="NAME", rich_help_panel=SCOPE, help="The series of a shared list. Repeatable."),
    ] = None,
    server: Server = None,
    dialect: Dialect = None,
    connections: Annotated[
        int | None,
        typer.Option(metavar="N", rich_help_panel=ARCHIVE, help="Most requests in flight, 1 to 256 (default: 8)."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="R", rich_help_panel=ARCHIVE, help="Most requests per second; 0: no limit (default)."),
    ] = None,
    bandwidth: Annotated[
        str | None,
        typer.Option(
            metavar="B",
            rich_help_panel=ARCHIVE,
            help='Most bytes per second: 20MB/s, or by local time "Mon-Fri 08:00-18:00 20MB/s, else full".',
        ),
    ] = None,
    polite: Annotated[
        bool | None,
        typer.Option(
            "--polite",
            rich_help_panel=ARCHIVE,
            show_default=False,
            help="One request at a time and 2 s between them, whatever else is set.",
        ),
    ] = None,
    max_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", rich_help_panel=ARCHIVE, help="End in order after so many bytes (200GB, 1TiB): exit code 8."
        ),
    ] = None,
    max_duration: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", rich_help_panel=ARCHIVE, help="End in order after so long (8h, 23h30m): exit code 8."
        ),
    ] = None,
    transport: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            rich_help_panel=ARCHIVE,
            help="instance: object by object (default). zip: series by series. auto: whichever proves faster.",
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            rich_help_panel=ARCHIVE,
            help="Processes that receive and check instances and zips; 1: the run's own does it (default).",
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=ARCHIVE,
            help="uid (a new mirror's default), classic, descriptive, or a template. Fixed for a mirror's life.",
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", rich_help_panel=WALK, help="Ask for everything, not only for what is new."),
    ] = False,
    reconcile: Annotated[
        bool,
        typer.Option(
            "--reconcile",
            rich_help_panel=WALK,
            help="As --full, and compare the archive's digests with what is held: finds silent changes (nbia).",
        ),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="DATE", rich_help_panel=WALK, help="Ask what was released since this day, YYYY-MM-DD."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", rich_help_panel=WALK, help="Withdraw even more series than sync.max_withdraw allows."),
    ] = False,
    retire_outside: Annotated[
        bool,
        typer.Option(
            "--retire-outside",
            rich_help_panel=WALK,
            help="Held series that are outside the scope leave the tree, to .mirror/retired/.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=OUTPUT, help="Print the plan and fetch nothing.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", rich_help_panel=OUTPUT, help="JSON lines on stdout; the last is the run report."),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", rich_help_panel=OUTPUT, help="Only errors. With --json: only the run report."),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", rich_help_panel=OUTPUT, help="Tell of each series which way it comes, and why."
        ),
    ] = False,
    notify_url: Annotated[
        str | None,
        typer.Option(
            "--notify-url", metavar="URL", rich_help_panel=OUTPUT, help="Post the run report to this webhook."
        ),
    ] = None,
    metrics_file: Annotated[
        Path | None,
        typer.Option(
            "--metrics-file",
            metavar="FILE",
            rich_help_panel=OUTPUT,
            help="Write Prometheus metrics here: a .prom file.",
        ),
    ] = None,
) -> None:
    """Mirror a part of the archive, or bring a mirror up to date.

    Run it again after an interruption: what is there and sound is not fetched again. Without a part of the archive it
    repeats what the mirror's last sync was about.
    """
    from mirror import pipeline
    from mirror.cli.syncing import ScopeOptions, choose_scope, sync_command
    from mirror.model import Walk
    from mirror.scope import is_day
    from mirror.settings import load_settings

    settings = load_settings(
        config,
        os.environ,
        {
            "to": None if to is None else str(to),
            "archive.server": server,
            "archive.dialect": dialect,
            "archive.connections": connections,
            "archive.rate": rate,
            "archive.bandwidth": bandwidth,
            "archive.polite": polite,
            "sync.transport": transport,
            "sync.processes": processes,
            "sync.layout": layout,
            "sync.max_bytes": max_bytes,
            "sync.max_duration": max_duration,
            "report.notify_url": notify_url,
            "report.metrics_file": None if metrics_file is None else str(metrics_file),
        },
    )
    given = ScopeOptions(
        collections=collections or (),
        all=every,
        patients=patient or (),
        modalities=modality or (),
        body_parts=body_part or (),
        manufacturers=manufacturer or (),
        released_since=released_since,
        series=series or (),
        manifest=manifest,
        lists=shared_list or (),
        exclude_collections=exclude_collection or (),
        exclude_modalities=exclude_modality or (),
    )
    scope = choose_scope(given, job, settings)
    if since is not None and not is_day(since):
        raise SettingsError(f"option --since: {since!r} is not right; it should be a day, YYYY-MM-DD")
    if since is not None and (full or reconcile):
        raise SettingsError("--since asks for a part, --full and --reconcile ask for everything: give one")
    walk = Walk(full=full, reconcile=reconcile, since=since, force=force, retire_outside=retire_outside)
    code = sync_command(
        partial(pipeline.sync, walk=walk),
        settings,
        scope,
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
        verbose=verbose,
    )
    raise typer.Exit(code)
