"""The entry point of the command tcia-mirror: what the process exits with, and what it says before.

A command is imported when it is asked for, and whatever it needs when it runs: nobody waits for the others.
"""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import typer

from mirror.cli.app import app
from mirror.cli.streams import lasting_streams
from mirror.cli.text import safe
from mirror.errors import ExitCode, MirrorError

#: The commands in the order of --help, and the module of each. Importing it is what adds its commands.
_MODULES = {
    "sync": "sync", "status": "reading", "log": "log", "diff": "diff", "verify": "verify", "adopt": "adopt",
    "rebuild": "adopt", "prune": "prune", "export": "reading", "query": "reading", "serve": "serving",
    "demo": "serving", "lists": "lists",
}  # fmt: skip


def add_commands(words: Sequence[str] = ()) -> typer.Typer:
    """The app with the command that `words` begin with, or with all: it makes ready what it has, asked for or not."""
    asked = [_MODULES[word] for word in words[:1] if word in _MODULES]
    for module in asked or _MODULES.values():
        import_module(f"mirror.cli.{module}")
    order = list(_MODULES)
    app.registered_commands.sort(key=lambda command: order.index(getattr(command.callback, "__name__", "")))
    return app


def _tell(message: str) -> None:
    lines = [safe(line) for line in message.splitlines()]
    typer.echo("tcia-mirror: " + "\n".join(lines), err=True)


def run() -> NoReturn:
    """The entry point: run the command and exit with its code (ExitCode says which means what)."""
    with lasting_streams() as streams:
        logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="tcia-mirror: %(name)s: %(message)s")
        # What pydicom finds odd in an archive's headers is the archive's; what is wrong with them is a finding. It is
        # imported later, if at all, and sets its logger's level then: so that is no way to silence it.
        logging.getLogger("pydicom").propagate = False
        warnings.filterwarnings("ignore", module="pydicom")
        code = _ended()
        if (failure := streams.failure()) is not None:
            _tell(f"standard output: {failure.strerror or failure}")
            # What went wrong before that is worse; a run that ended well has not told so.
            code = ExitCode.DISK if code in (ExitCode.COMPLETE, ExitCode.INCOMPLETE, ExitCode.LIMITED) else code
    sys.exit(int(code))


def _ended() -> int:
    """Run the command; what it ends with."""
    try:
        code = add_commands(sys.argv[1:])(prog_name="tcia-mirror")
    except SystemExit as ended:
        code = ended.code
    except MirrorError as error:
        _tell(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except Exception:
        traceback.print_exc()
        _tell("this is a bug in tcia-mirror; please report it with the lines above")
        code = ExitCode.BUG
    return int(code or 0)
