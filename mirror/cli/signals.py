"""SIGINT and SIGTERM while a command runs: the first asks it to stop in order, the second ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from anyio.abc import TaskStatus


async def watch_signals(
    stop: anyio.Event,
    scope: anyio.CancelScope,
    told: Callable[[], None],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Set `stop` at the first signal and cancel `scope` at the second; `told` is called at each."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            if stop.is_set():
                scope.cancel()
            stop.set()
            told()
