"""The container's HEALTHCHECK: does what the container was started for still work? Exit code 0 or 1, as Docker asks.

Of a `serve` it asks /healthz. Any other command is well as long as it runs: how a sync goes is told by its exit code.
The Dockerfile copies this file out of the package and runs it alone, once a minute: it imports nothing that takes time,
and of the package nothing at all.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

#: What `serve` takes where no option says otherwise.
PORT = 8042
_NAMES = ("tcia-mirror", "mirror")  # also: python -m mirror
#: Seconds; less than the timeout that the Dockerfile sets.
PATIENCE = 8.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - asked, not listened on


def served_at(words: list[str], environ: Mapping[str, str], folder: Path = Path()) -> tuple[str, int] | None:
    """Host and port to ask, from a process's command line, its environment, and its file of settings; None where it
    serves nothing, or at a port of its choice. `folder`: where the process was started.
    """
    ours = next((n for n, word in enumerate(words) if Path(word).name in _NAMES), len(words))
    command, options = words[ours + 1 : ours + 2], words[ours + 2 :]
    if command != ["serve"]:
        return None
    config = _value(options, "--config", environ.get("TCIA_MIRROR_CONFIG", ""))
    host, port = _settings(folder / config) if config else ("", "")
    host = environ.get("TCIA_MIRROR_SERVE_HOST") or host or "127.0.0.1"
    # Beside a Service called tcia-mirror-serve Kubernetes says "tcp://..." there, which is not meant for us.
    said = environ.get("TCIA_MIRROR_SERVE_PORT", "")
    port = (said if said.strip().isdecimal() else "") or port or str(PORT)
    host, number = _value(options, "--host", host), int(_value(options, "--port", port))
    return (_ANY.get(host, host), number) if number else None


def _settings(file: Path) -> tuple[str, str]:
    """Host and port of a file of settings, as far as it has them."""
    import tomllib

    table = tomllib.loads(file.read_text("utf-8")).get("serve", {})
    return str(table.get("host", "")), str(table.get("port", ""))


def _value(options: list[str], name: str, default: str) -> str:
    """The last value given to an option, in either way of writing it."""
    value = default
    for word, following in zip(options, [*options[1:], default], strict=True):
        if word == name:
            value = following
        elif word.startswith(name + "="):
            value = word[len(name) + 1 :]
    return value


def healthy(host: str, port: int) -> bool:
    """Whether the server there says that it can read its mirror."""
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def main(process: Path = Path("/proc/1")) -> int:
    """Look at the container's first process."""

    def strings(name: str) -> list[str]:
        return (process / name).read_text("utf-8", "surrogateescape").split("\0")

    variables = dict(text.partition("=")[::2] for text in strings("environ"))
    address = served_at(strings("cmdline"), variables, process / "cwd")
    return 0 if address is None or healthy(*address) else 1


if __name__ == "__main__":
    sys.exit(main())
