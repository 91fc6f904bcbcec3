"""Our sync with every change of its pace written down: python launch_ours.py BASE FOLDER CONNECTIONS TRANSPORT FILE.

A line of JSON per event: seconds of the system's monotonic clock, connections allowed, and why. Prints the exit code.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from mirror import run, sync
from mirror.events import Event, LimitChanged
from mirror.settings import Settings


def main() -> None:
    """Mirror the bench's collection."""
    base, folder, connections, transport, path = sys.argv[1:]
    settings = Settings()
    settings = replace(
        settings,
        archive=replace(settings.archive, connections=int(connections)),
        sync=replace(settings.sync, transport=transport),
    )
    with Path(path).open("w") as file:

        def note(event: Event) -> None:
            if isinstance(event, LimitChanged):
                line = {"at": time.monotonic(), "limit": event.connections, "why": event.why}
                print(json.dumps(line), file=file, flush=True)

        report = run(sync("Bench", to=folder, server=base, settings=settings, sink=note))
    print(report.exit_code)


if __name__ == "__main__":
    main()
