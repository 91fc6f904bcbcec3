"""`serve`, and the demo that shows all of it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import anyio
import typer

from mirror.cli.app import app
from mirror.cli.healthcheck import PORT
from mirror.errors import MirrorError, SettingsError


@app.command()
def serve(
    root: Annotated[Path, typer.Option("--from", metavar="ROOT", help="The mirror's folder.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = PORT,
) -> None:
    """Serve a mirror over the v4 API, in both dialects, until it is stopped. Safe beside a running sync."""
    from mirror.archive.dialects import NBIA_PREFIX, TCIA_PREFIX
    from mirror.serve.app import serve as serve_mirror

    def ready(base: str) -> None:
        typer.echo(f"nbia  {base}{NBIA_PREFIX}\ntcia  {base}{TCIA_PREFIX}")
        sys.stdout.flush()

    async def main() -> OSError | MirrorError | None:
        stop = anyio.Event()
        failure: OSError | MirrorError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_at_signal, stop)
            try:
                await serve_mirror(root, host, port, ready=ready, stop=stop)
            except (OSError, MirrorError) as error:  # as itself, not in the task group's wrapping
                failure = error
            tasks.cancel_scope.cancel()
        return failure

    failure = anyio.run(main)
    if isinstance(failure, OSError):
        raise SettingsError(f"cannot listen on {host}, port {port}: {failure.strerror or failure}") from failure
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
