"""`prune`: delete what was retired long ago."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.app import OUTPUT, Root, app
from mirror.cli.text import count, duration, safe, size

if TYPE_CHECKING:
    from mirror.prune import PrunePlan, RetiredRun


@app.command()
def prune(
    to: Root,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="As 90d or 12w; wins over sync.prune_after (default: 90d).")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings, as in config/default.toml. Options win over it.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=OUTPUT, help="Print what would be deleted; delete nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", rich_help_panel=OUTPUT, help="One JSON object.")] = False,
) -> None:
    """Delete what has lain in .mirror/retired/ for longer than a while: bytes that changed or were withdrawn."""
    from mirror.ledger import Catalogue, Ledger
    from mirror.prune import plan_prune
    from mirror.prune import prune as delete
    from mirror.settings import load_settings, read_duration, seconds_of
    from mirror.tree import LocalStore

    settings = load_settings(config, os.environ, {})
    age = (
        seconds_of(settings.sync.prune_after)
        if older_than is None
        else read_duration("option --older-than", older_than)
    )
    Catalogue(to).close()  # says so where there is no mirror; a ledger to write would be made
    told = _json if as_json else _text
    if dry_run:
        plan = plan_prune(LocalStore(to), age, time.time())
        told(plan, list(plan.due), age, dry_run=True)
        return
    gone: list[RetiredRun] = []
    with Ledger(to) as ledger:
        store = LocalStore(to)
        plan = plan_prune(store, age, time.time())
        try:
            delete(ledger, store, plan, gone.append)
        finally:
            told(plan, gone, age, dry_run=False)


def _text(plan: PrunePlan, runs: list[RetiredRun], age: float, *, dry_run: bool) -> None:
    for retired in runs:
        typer.echo(f"{retired.run}  {_amount([retired])}")
    for name in plan.strange:
        typer.echo(f"tcia-mirror: .mirror/retired/{safe(name)}: no run has made this; it is left alone", err=True)
    verb = "would delete" if dry_run else "deleted"
    typer.echo(
        f"{verb} {_amount(runs)} of {_runs(len(runs))} that began more than {duration(age)} ago;"
        f" {_runs(plan.younger)} younger"
    )


def _json(plan: PrunePlan, runs: list[RetiredRun], age: float, *, dry_run: bool) -> None:
    import json
    from dataclasses import asdict

    told = {"dry_run": dry_run, "older_than_seconds": age, "runs": [asdict(retired) for retired in runs]}
    typer.echo(json.dumps(told | {"younger_runs": plan.younger, "left_alone": list(plan.strange)}, indent=1))


def _amount(runs: list[RetiredRun]) -> str:
    files = sum(retired.files for retired in runs)
    return f"{count(files)} file{'s' * (files != 1)}, {size(sum(retired.bytes for retired in runs))}"


def _runs(number: int) -> str:
    return f"{count(number)} run{'s' * (number != 1)}"
