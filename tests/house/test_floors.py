"""The plan of the house, held against the imports: floors, doors, and what only the command may do."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PACKAGE = "mirror"

#: A room is a module or package right below `mirror`. It may use the rooms of lower floors and, without a cycle,
#: those of its own.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "model", "events"}),
    frozenset(
        {
            "settings",
            "scope",
            "archive",
            "layout",
            "plan",
            "manifest",
            "threads",
            "processes",
            "memory",
            "timetable",
            "deflate",
        }
    ),
    frozenset({"check", "identity", "unusual", "headers", "tree", "ledger", "limits"}),
    frozenset(
        "resolve crawl digests transfer transports fetch withdraw export report notify metrics diff prune"  # noqa: SIM905
        " lists live serve".split()
    ),
    frozenset({"pipeline", "adopt", "rebuild", "verification"}),
    frozenset({"api", "__init__"}),
    frozenset({"cli", "demo", "__main__"}),
)

#: The modules that may import a library; a name that ends with a slash stands for all modules of that package.
DOORS: dict[str, tuple[str, ...]] = {
    "aiofiles": ("transports/",),
    "aiohttp": ("archive/connection", "archive/exchange", "notify", "serve/"),
    # Bytes to typed values and back: settings, what the archive sends, what the manifest and the server write. And
    # values that are cheap to make, of which every object makes some.
    "msgspec": (
        "archive/answers",
        "archive/rows",
        "check",
        "events",
        "manifest",
        "model",
        "serve/",
        "settings/",
        "transports/",
    ),
    "isal": ("deflate",),
    "prometheus_client": ("metrics", "serve/counting"),
    "pyarrow": ("export",),
    "pydicom": ("demo", "headers", "identity/walk", "serve/page/pixels", "unusual"),
    "rich": ("cli/", "demo"),
    "sqlite3": ("ledger/",),
    "tenacity": ("archive/pacing",),
    "typer": ("cli/",),
    "zstandard": ("serve/packing",),
}
#: Structured concurrency is no part that could be exchanged: every floor but the ground may use it.
EVERYWHERE = frozenset({"anyio"})
GROUND = FLOORS[0]
#: The extras that bring what the package itself imports where it is there.
EXTRAS = ("fast", "parquet", "zstd")

#: Rooms that talk to people: they may print, exit and read the environment.
FRONT = frozenset({"cli", "demo"})

LONGEST = 400
NAMES_THAT_HIDE_NOTHING = re.compile(r"_*(utils?|helpers?|common|misc)")


@dataclass(frozen=True)
class Import:
    """One imported module, and where it is imported."""

    module: str
    names: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Module:
    """A module of the package: its dotted name without the package's, its text and its tree."""

    name: str
    is_package: bool
    text: str = field(repr=False)

    @property
    def tree(self) -> ast.Module:
        return _parse(self.text)

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]

    @property
    def door(self) -> str:
        return self.name.replace(".", "/") + ("/" if self.is_package else "")

    def imports(self) -> Iterator[Import]:
        """Every import, also those inside functions and those for types alone."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, (), node.lineno)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"mirror/{self.door}:{node.lineno}: a relative import"
                yield Import(node.module or "", tuple(alias.name for alias in node.names), node.lineno)

    def own_imports(self) -> Iterator[tuple[str, int]]:
        """The modules of the package that are imported, by their names, with the line."""
        for found in self.imports():
            if found.module != PACKAGE and not found.module.startswith(PACKAGE + "."):
                continue
            base = found.module[len(PACKAGE) + 1 :]
            for name in found.names or ("",):
                below = f"{base}.{name}" if base and name else base or name
                yield (below if below in MODULES else base or "__init__"), found.line


@cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


def _read_modules() -> dict[str, Module]:
    root = PROJECT / PACKAGE
    modules = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__" and len(parts) > 1
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = Module(name, is_package, path.read_text("utf-8"))
    return modules


MODULES = _read_modules()
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
each_module = pytest.mark.parametrize("module", MODULES.values(), ids=list(MODULES))


def test_every_room_has_a_floor():
    assert {module.room for module in MODULES.values()} <= set(FLOOR_OF), "give the new room a floor in FLOORS"
    assert sum(len(rooms) for rooms in FLOORS) == len(FLOOR_OF), "a room has two floors"


def test_the_design_has_the_same_plan():
    plan = re.search(
        r"^```\nmirror/\n(.*?)^```$", (PROJECT / "docs" / "design.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert plan is not None
    drawn = {(int(floor), room) for floor, room in re.findall(r"(?:^|\s)(\d) (\w+)(?:\.py|/)", plan[1])}
    assert drawn == {(floor, room) for room, floor in FLOOR_OF.items() if not room.startswith("__")}


@each_module
def test_no_upward_edge(module):
    upward = [
        f"line {line}: {module.name} (floor {FLOOR_OF[module.room]}) imports {target}"
        f" (floor {FLOOR_OF[target.partition('.')[0]]})"
        for target, line in module.own_imports()
        if FLOOR_OF[target.partition(".")[0]] > FLOOR_OF[module.room]
    ]
    assert upward == []


def test_no_cycle_of_modules():
    assert _cycle({name: {target for target, _ in m.own_imports()} - {name} for name, m in MODULES.items()}) == []


def test_no_cycle_of_rooms():
    rooms: dict[str, set[str]] = {}
    for module in MODULES.values():
        targets = {_front_as_one(target.partition(".")[0]) for target, _ in module.own_imports()}
        room = _front_as_one(module.room)
        rooms.setdefault(room, set()).update(targets - {room})
    assert _cycle(rooms) == []


def _front_as_one(room: str) -> str:
    """The demo is a command and uses the other commands' displays: the front is one room with two doors."""
    return "cli" if room in FRONT else room


def _cycle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@each_module
def test_libraries_come_in_by_their_door(module):
    for found in module.imports():
        library = found.module.partition(".")[0]
        where = f"{module.door}:{found.line}"
        if library in EVERYWHERE:
            assert module.room not in GROUND, f"{where}: {library} on the ground floor"
        elif library in DOORS:
            assert any(_is_behind(module.door, door) for door in DOORS[library]), f"{where}: {library}"
        else:
            assert library == PACKAGE or library in sys.stdlib_module_names, f"{where}: {library} has no door"


def _is_behind(name: str, door: str) -> bool:
    return name.startswith(door) if door.endswith("/") else name.rstrip("/") == door


def test_doors_lead_somewhere():
    for library, doors in DOORS.items():
        for door in doors:
            behind = [m for m in MODULES.values() if _is_behind(m.door, door)]
            assert behind, f"{library}: no module is behind {door}"
            used = any(found.module.partition(".")[0] == library for m in behind for found in m.imports())
            assert used, f"{library}: nothing behind {door} uses it"


def test_what_is_declared_is_what_is_imported():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {
        re.split(r"[<>=!~\[; ]", text, maxsplit=1)[0].replace("-", "_")
        for text in [*project["dependencies"], *(t for e in EXTRAS for t in project["optional-dependencies"][e])]
    }
    imported = {found.module.partition(".")[0] for module in MODULES.values() for found in module.imports()}
    assert declared == imported - set(sys.stdlib_module_names) - {PACKAGE, "__future__"}


@each_module
def test_only_the_front_prints_exits_and_reads_the_environment(module):
    if module.room in FRONT:
        return
    assert list(_front_acts(module)) == []


def _front_acts(module: Module) -> Iterator[str]:
    attributes = {("sys", "exit"), ("os", "environ"), ("os", "getenv"), ("os", "_exit"), ("logging", "basicConfig")}
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Name(id="print" | "exit" | "quit" | "SystemExit" as name)):
                yield f"line {node.lineno}: {name}()"
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if (owner, name) in attributes:
                yield f"line {node.lineno}: {owner}.{name}"
    for found in module.imports():
        for name in found.names:
            if (found.module, name) in attributes:
                yield f"line {found.line}: from {found.module} import {name}"


@each_module
def test_nobody_takes_what_is_private(module):
    taken = [
        f"line {found.line}: {name} of {found.module}"
        for found in module.imports()
        if found.module.partition(".")[0] == PACKAGE
        for name in (*found.names, *found.module.split("."))
        if name.startswith("_") and not name.startswith("__")
    ]
    assert taken == []


@each_module
def test_a_module_hides_one_thing_and_says_which(module):
    assert len(module.text.splitlines()) <= LONGEST, "look for the second secret, and give it a file of its own"
    assert not NAMES_THAT_HIDE_NOTHING.fullmatch(module.name.rpartition(".")[2])
    assert ast.get_docstring(module.tree), "it has no docstring"


def test_the_rules_can_be_broken():
    """An import inside a function, an upward edge, a print and a private name are seen."""
    bad = Module(
        "plan",
        is_package=False,
        text="import os\nfrom mirror.archive.client import _tls\n"
        "def f():\n    from mirror import pipeline\n    print(os.environ)\n",
    )
    assert list(bad.own_imports()) == [("archive.client", 2), ("pipeline", 4)]
    assert list(_front_acts(bad)) == ["line 5: print()", "line 5: os.environ"]
    assert _cycle({"a": {"b"}, "b": {"a"}}) in (["a", "b", "a"], ["b", "a", "b"])
    assert _cycle({"a": {"b"}, "b": set()}) == []
