"""`verify`: its options, and what they come to."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from mirror.cli.app import ARCHIVE, OUTPUT, SCOPE, Config, Root, app
from mirror.cli.text import safe
from mirror.errors import ExitCode, SettingsError

if TYPE_CHECKING:
    from mirror.verification import Budget, VerifyReport


@app.command()
def verify(
    to: Root,
    collections: Annotated[
        list[str] | None,
        typer.Argument(metavar="COLLECTION", help="Only these collections.", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only whether each file is there, and its size.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Headers too; with --server (nbia) also the archive's digests.")
    ] = False,
    since_verified: Annotated[
        str | None,
        typer.Option(metavar="AGE", rich_help_panel=SCOPE, help="Not what was verified within that time (30d)."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="MUCH", rich_help_panel=SCOPE, help="End after so long (2h) or so many bytes (500GB)."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set aside what is damaged, fetch it again, and prove it.")
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", rich_help_panel=ARCHIVE, help="The archive to ask, instead of the mirror's own."),
    ] = None,
    config: Config = None,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=OUTPUT, help="One JSON object at the end, and nothing else.")
    ] = False,
) -> None:
    """Compare every file of a mirror with what it was when it came, and mend what is not so any more.

    Least recently verified series come first, so that one budget after the other goes through all of them.
    """
    from mirror.cli.signals import watch_signals
    from mirror.cli.summary import paper
    from mirror.cli.verifying import Told, show_report
    from mirror.pipeline import one_error
    from mirror.settings import load_settings, read_duration, read_token
    from mirror.verification import Depth
    from mirror.verification import verify as verify_tree

    if quick and deep:
        raise SettingsError("--quick and --deep exclude each other; give one")
    settings = load_settings(config, os.environ, {})
    not_since = None if since_verified is None else read_duration("option --since-verified", since_verified)
    limit = None if budget is None else read_budget(budget)
    told = Told(silent=as_json)

    async def main() -> VerifyReport | None:
        stop = anyio.Event()
        report: VerifyReport | None = None
        async with anyio.create_task_group() as tasks:
            await tasks.start(watch_signals, stop, tasks.cancel_scope, told.stopping)
            report = await verify_tree(
                to,
                settings,
                collections=tuple(collections or ()),
                depth=Depth.QUICK if quick else Depth.DEEP if deep else Depth.SUMS,
                repair=repair,
                not_since=not_since,
                budget=limit,
                server=server,
                token=read_token(settings.archive, os.environ),
                sink=told,
                stop=stop,
            )
            tasks.cancel_scope.cancel()
        return report

    with one_error(), told:
        report = anyio.run(main)
    if report is None:
        # A second signal: what was found so far has been told.
        raise typer.Exit(int(ExitCode.INTERRUPTED))
    if as_json:
        typer.echo(json.dumps(report.to_json_dict()))
    else:
        show_report(paper(), report)
    if report.error is not None:
        typer.echo(f"tcia-mirror: {safe(report.error)}", err=True)
    raise typer.Exit(int(report.exit_code))


def read_budget(text: str) -> Budget:
    """A length of time (2h) or a number of bytes (500GB, 1TiB). Raises SettingsError."""
    from mirror.settings import bytes_of, read_duration
    from mirror.verification import Budget

    # With its B: 500m are minutes.
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*[kmgtp]i?b\s*", text, re.IGNORECASE):
        return Budget(bytes=bytes_of(text))
    if text.strip()[-1:].isdigit():
        raise SettingsError(f"option --budget: {text!r} is not right; it should be a time such as 2h or bytes as 500GB")
    return Budget(seconds=read_duration("option --budget", text))
