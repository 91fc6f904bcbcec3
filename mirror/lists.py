"""Shared lists: named lists of series that whoever runs a mirror has made, and that ContentsByName answers.

Each list is a file of its own, <root>/.mirror/lists/<name>.txt, made beside it and renamed into place: a reader sees
the old list or the new one, and two who make lists at once cannot harm each other. So none of it needs the lock of the
one writer, and a list can be made while a sync holds that for hours. It is no part of the ledger for the same reason,
and because a rebuild makes the ledger anew from what the archive said: a list is the operator's own word, and stays.

The first line is a comment with the name as it was given, and then a SeriesInstanceUID stands on each: the file is
itself a manifest that `sync --manifest` takes. Names match without regard to case, as the archive has it.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mirror.errors import SettingsError, store_errors
from mirror.layout import safe_name
from mirror.ledger import Catalogue
from mirror.model import Scope
from mirror.scope import names_of, nearest

_FOLDER = Path(".mirror", "lists")
_HEAD = re.compile(r"# shared list made (\d+): (.*)")
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_LONGEST_NAME = 200
#: Seconds.
_NOBODY_WRITES_SO_LONG = 3600
#: More unknown series than these make no message clearer.
_TOLD = 5


@dataclass(frozen=True, slots=True)
class SharedList:
    """A list: its name as it was given, when it was made (seconds since 1970), and the series on it, in their order."""

    name: str
    made: int
    series: tuple[str, ...]


def gather(catalogue: Catalogue, collections: Iterable[str], uids: Iterable[str]) -> tuple[str, ...]:
    """Series for a list, each once: those of the collections (names or patterns, as of a sync), then the listed ones.

    A series that is not complete yet may be on a list; it is answered as soon as it is. Raises SettingsError that names
    collections and series which the mirror does not know, or has as withdrawn.
    """
    found: dict[str, None] = {}
    asked = Scope(collections=tuple(collections))
    for name in names_of(asked, catalogue.all_collections(), "this mirror"):
        found |= dict.fromkeys(catalogue.uids_of("Collection", name))
    unknown: list[str] = []
    for uid in dict.fromkeys(uids):
        known = list(catalogue.uids_of("SeriesInstanceUID", uid))
        found |= dict.fromkeys(known)
        if not known:
            unknown.append(uid)
    if unknown:
        more = f" and {len(unknown) - _TOLD} more" if len(unknown) > _TOLD else ""
        raise SettingsError(
            f"series {', '.join(unknown[:_TOLD])}{more}: not in this mirror, or withdrawn; sync first, or leave out"
        )
    return tuple(found)


def make_list(root: Path, name: str, series: Iterable[str]) -> SharedList:
    """Make a list, or put this one in the place of the one that has the name. Whole or not at all; safe to repeat.

    Raises SettingsError for a name that is none, for what is no UID and for an empty list, and StoreError.
    """
    if not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise SettingsError(f"list {name!r}: a name has 1 to {_LONGEST_NAME} characters that can be printed")
    made = SharedList(name, int(time.time()), tuple(dict.fromkeys(series)))
    if not made.series:
        raise SettingsError(
            f"list {name!r}: no series for it; the archive answers an empty list as one that is not there"
        )
    for uid in made.series:
        if not _UID.fullmatch(uid):
            raise SettingsError(f"list {name!r}: {uid!r} is no SeriesInstanceUID")
    path = _path(root, name)
    with store_errors(path):
        path.parent.mkdir(exist_ok=True)
        _sweep(path.parent)
        # A name of its own, so that two who make the same list do not write into one file.
        part = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with part.open("x", encoding="utf-8") as file:
                file.write(f"# shared list made {made.made}: {name}\n")
                file.writelines(f"{uid}\n" for uid in made.series)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return made


def _sweep(folder: Path) -> None:
    """Remove what killed makers of lists left."""
    for part in folder.glob(".*.part"):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > _NOBODY_WRITES_SO_LONG:
                part.unlink()


def delete_list(root: Path, name: str) -> SharedList:
    """Delete a list; gives back what it was. Raises SettingsError where there is none, and StoreError."""
    gone = find_list(root, name)
    path = _path(root, name)
    with store_errors(path):
        path.unlink(missing_ok=True)
    return gone


def find_list(root: Path, name: str) -> SharedList:
    """The list of that name. Raises SettingsError with the nearest names where there is none, and StoreError."""
    if (found := _read(_path(root, name))) is not None:
        return found
    names = [known.name for known in all_lists(root)]
    raise SettingsError(f"list {name!r}: this mirror has none of that name{nearest([name], names)}")


def all_lists(root: Path) -> list[SharedList]:
    """Every list of a mirror, by name. Raises StoreError."""
    folder = root / _FOLDER
    with store_errors(folder):
        paths = [path for path in folder.glob("*.txt") if not path.name.startswith(".")]
    found = (_read(path) for path in paths)
    return sorted((known for known in found if known), key=lambda known: (known.name.casefold(), known.name))


def series_of(root: Path, name: str) -> Iterator[str]:
    """The series of a list as they stand in it, one by one; none where there is no such list. Raises StoreError."""
    path = _path(root, name)
    with store_errors(path):
        try:
            file = path.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        with file:
            for line in file:
                if _UID.fullmatch(uid := line.strip()):
                    yield uid


def _read(path: Path) -> SharedList | None:
    """The list in a file; None where there is none, or one that nobody here has made."""
    with store_errors(path):
        try:
            head, *lines = path.read_text("utf-8", "replace").splitlines() or [""]
        except FileNotFoundError:
            return None
    if (told := _HEAD.fullmatch(head)) is None:
        return None
    return SharedList(told[2], int(told[1]), tuple(line for line in lines if _UID.fullmatch(line)))


def _path(root: Path, name: str) -> Path:
    return root / _FOLDER / f"{safe_name(name.casefold())}.txt"
