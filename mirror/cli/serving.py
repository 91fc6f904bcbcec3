"""`serve`, and the demo that shows all of it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import anyio
import typer

from mirror.cli.app import Config, app
from mirror.cli.healthcheck import PORT
from mirror.errors import MirrorError, SettingsError


@app.command()
def serve(
    root: Annotated[Path, typer.Option("--from", metavar="ROOT", help="The mirror's folder.")],
    host: Annotated[str | None, typer.Option(help="The address to listen on (127.0.0.1).", show_default=False)] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help=f"The port to listen on ({PORT}); 0 takes a free one.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes that listen on the port together (1).")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where clients see it, behind a reverse proxy.")
    ] = None,
    tokens_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Bearer tokens, and the collections that each may see.")
    ] = None,
    access_log: Annotated[
        bool | None, typer.Option("--access-log", help="A line on standard error for each request.")
    ] = None,
    config: Config = None,
) -> None:
    """Serve a mirror over the v4 API, in both dialects, until it is stopped. Safe beside a running sync."""
    from mirror.archive.dialects import NBIA_PREFIX, TCIA_PREFIX
    from mirror.serve import serve as serve_mirror
    from mirror.settings import load_settings

    given = {
        "serve.host": host,
        "serve.port": port,
        "serve.workers": workers,
        "serve.base_url": base_url,
        "serve.tokens_file": tokens_file,
        "serve.access_log": access_log,
    }
    settings = load_settings(config, os.environ, given).serve

    def ready(base: str) -> None:
        typer.echo(f"nbia  {base}{NBIA_PREFIX}\ntcia  {base}{TCIA_PREFIX}")
        sys.stdout.flush()

    async def main() -> OSError | MirrorError | None:
        stop = anyio.Event()
        failure: OSError | MirrorError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_at_signal, stop)
            try:
                await serve_mirror(root, settings, ready=ready, stop=stop)
            except (OSError, MirrorError) as error:  # as itself, not in the task group's wrapping
                failure = error
            tasks.cancel_scope.cancel()
        return failure

    failure = anyio.run(main)
    if isinstance(failure, OSError):
        where = f"{settings.host}, port {settings.port}"
        raise SettingsError(f"cannot listen on {where}: {failure.strerror or failure}") from failure
    if failure is not None:
        raise failure


async def _stop_at_signal(stop: anyio.Event) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            stop.set()


@app.command()
def demo(
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the demo's files here.")] = None,
) -> None:
    """Show it all on a small archive of real DICOM files: served here, mirrored, changed, mirrored again."""
    from mirror.demo import demo as show

    show(keep)
