"""The tables of README.md, made from the code. Run it to write them anew: make readme.

A table stands between <!-- table: NAME --> and <!-- end of table -->; what is between them is replaced.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import typer.main

from mirror.archive.endpoints import ENDPOINTS, Answer, Endpoint
from mirror.cli.main import add_commands
from mirror.errors import ExitCode
from mirror.settings import Settings, variable_of

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
_ANSWERS = {
    Answer.ROWS: "rows",
    Answer.ZIP: "a zip",
    Answer.DICOM: "a DICOM file",
    Answer.DIGEST: "an MD5",
    Answer.MANIFEST: "a `.tcia` file",
    Answer.SEARCH: "an object (json only)",
}


@cache
def command_line() -> dict[str, Any]:
    """The commands by their names, as typer has them; whether click is inside or beside it is typer's affair."""
    return dict(cast("Any", typer.main.get_command(add_commands())).commands)


def _every_command() -> dict[str, Any]:
    """The same with the commands of a group in its place, each by all its words."""
    flat: dict[str, Any] = {}
    for name, command in command_line().items():
        below = getattr(command, "commands", {})
        flat |= {f"{name} {word}": inner for word, inner in below.items()} or {name: command}
    return flat


def exit_codes() -> list[str]:
    return _table(("code", "meaning"), ((str(int(code)), code.meaning) for code in ExitCode))


def commands() -> list[str]:
    rows = []
    for name, command in _every_command().items():
        arguments = [_value(p) for p in command.params if p.param_type_name == "argument"]
        usage = " ".join([name, *arguments])
        rows.append((f"`{usage}`", (command.help or "").split("\n\n")[0].replace("\n", " ")))
    return _table(("command", "what it does"), rows)


def options() -> list[str]:
    rows = []
    for name, command in _every_command().items():
        for option in command.params:
            if option.param_type_name == "option" and not option.hidden:
                usage = ", ".join(option.opts) + ("" if option.is_flag else f" {_value(option)}")
                instead = f", or {option.envvar} in the environment" if option.envvar else ""
                required = f" Required{instead}." if option.required else ""
                rows.append((f"`{name}`", f"`{usage}`", f"{option.help or ''}{required}"))
    return _table(("command", "option", "what it means"), rows)


def _value(parameter: Any) -> str:
    """What a value of the parameter is called in a usage line."""
    return (parameter.metavar or parameter.name.upper()) + ("..." if parameter.nargs == -1 else "")


def endpoints() -> list[str]:
    def row(endpoint: Endpoint) -> tuple[str, ...]:
        params = ", ".join(f"**{p.name}**" if p.required else p.name for p in endpoint.params)
        formats = "" if len(endpoint.formats) != 1 else f" ({endpoint.formats[0]} only)"
        return (
            f"`{endpoint.name}`",
            endpoint.text.rstrip("."),
            params,
            _ANSWERS[endpoint.answer] + formats,
            _path(endpoint, endpoint.nbia),
            _path(endpoint, endpoint.tcia),
        )

    return _table(("call", "what it gives", "parameters", "answer", "nbia", "tcia"), map(row, ENDPOINTS.values()))


def _path(endpoint: Endpoint, path: str | None) -> str:
    if path is None:
        return "-"
    method = "" if endpoint.method == "GET" else endpoint.method + " "
    return "yes" if not method and path == endpoint.name else f"`{method}{path}`"


def settings() -> list[str]:
    rows = []
    for outer in fields(Settings):
        value = getattr(Settings(), outer.name)
        if outer.name == "jobs":
            continue  # their names are the user's, their keys those of scope
        inner = [(outer.name, value)]
        if is_dataclass(value):
            inner = [(f"{outer.name}.{f.name}", getattr(value, f.name)) for f in fields(value)]
        rows += [(f"`{key}`", _default(default), f"`{variable_of(key)}`") for key, default in inner]
    return _table(("key", "default", "variable"), rows)


def _default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value}`" if value not in ("", ()) else "none"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    cells = [head, tuple("---" for _ in head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


TABLES: dict[str, Callable[[], list[str]]] = {
    "exit-codes": exit_codes,
    "commands": commands,
    "options": options,
    "endpoints": endpoints,
    "settings": settings,
}


def with_tables(text: str) -> str:
    """README's text with every table as the code has it."""
    return _BLOCK.sub(lambda m: m[1] + "\n".join(TABLES[m[2]]()) + "\n" + m[3], text)


def named_tables(text: str) -> list[str]:
    """The tables that README has a place for, in its order."""
    return [match[2] for match in _BLOCK.finditer(text)]


def main() -> int:
    """Write the tables; says so where one was not right."""
    old = README.read_text("utf-8")
    new = with_tables(old)
    if new != old:
        README.write_text(new, "utf-8")
        sys.stdout.write("README.md: tables written anew\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
