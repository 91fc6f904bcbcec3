"""Who is told when a run has ended: a webhook and a file of metrics. Neither can change what the run came to."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import anyio
import typer

from mirror.cli.text import safe
from mirror.errors import MirrorError
from mirror.model import CollectionStatus
from mirror.report import RunReport
from mirror.settings import Settings


def check_watchers(settings: Settings) -> None:
    """Raises SettingsError where a webhook's URL is none: better told before a run than after it."""
    if settings.report.notify_url:
        from mirror.notify import check_url

        check_url(settings.report.notify_url)


def tell_watchers(root: Path, report: RunReport, settings: Settings) -> None:
    """Write the metrics, then post the report, where the settings ask for it. What fails is a warning on stderr."""
    try:
        if settings.report.metrics_file:
            from mirror.metrics import write_metrics

            write_metrics(Path(settings.report.metrics_file), root, report, _held(root), now=time.time())
    except MirrorError as error:
        _warn(f"the metrics were not written: {error}")
    try:
        if settings.report.notify_url:
            anyio.run(_post, report, settings)
    except MirrorError as error:
        _warn(f"the webhook was not told: {error}")


def _held(root: Path) -> Sequence[CollectionStatus]:
    """What the mirror holds; nothing where its ledger cannot be read, which the run's exit code tells."""
    from mirror.ledger import Catalogue

    try:
        with Catalogue(root) as catalogue:
            return catalogue.status()
    except MirrorError:
        return ()


async def _post(report: RunReport, settings: Settings) -> None:
    """Post the report; whoever sends a signal does not want to wait for that."""
    from mirror.notify import post_report

    async with anyio.create_task_group() as tasks:

        async def give_up() -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    tasks.cancel_scope.cancel()
                    _warn("the webhook was not told: stopped while it was asked")

        tasks.start_soon(give_up)
        try:
            await post_report(settings.report.notify_url, report, settings.archive)
        except MirrorError as error:
            # Not raised: out of the group it would come as a group.
            _warn(f"the webhook was not told: {error}")
        tasks.cancel_scope.cancel()


def _warn(text: str) -> None:
    typer.echo(f"tcia-mirror: warning: {safe(text)}", err=True)
