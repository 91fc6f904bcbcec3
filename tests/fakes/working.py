"""Workers for the tests of worker processes: importable by their name, as those of the package are."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mirror.processes import serve


def main(socket: int) -> None:
    """A worker that does what its messages name; the greeting is a folder, where it leaves word of its end."""
    serve(socket, _begin)


@asynccontextmanager
async def _begin(greeting: Path) -> AsyncIterator[Callable[[Any], Awaitable[Any] | AsyncGenerator[Any]]]:
    async def handle(message: tuple[str, Any]) -> Any:
        what, value = message
        match what:
            case "echo":
                return value
            case "wait":
                await asyncio.sleep(value)
                return value
            case "pid":
                return os.getpid()
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise ValueError(value)
        return None

    async def count(most: int) -> AsyncGenerator[int]:
        """Numbers, each noted in a file before it is told, and the end of it in another."""
        try:
            for number in range(most):
                (greeting / "counted").write_text(str(number))
                yield number
        finally:
            (greeting / "given-up").touch()

    def begin(message: tuple[str, Any]) -> Awaitable[Any] | AsyncGenerator[Any]:
        return count(message[1]) if message[0] == "count" else handle(message)

    try:
        yield begin
    finally:
        (greeting / f"ended-{os.getpid()}").touch()
