"""What a ledger cannot be made again without, in a small file beside it: <root>/.mirror/format.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from mirror.errors import store_errors

#: The number of the form that a mirror has on disk.
FORMAT = 1
#: The facts about a mirror that are kept there.
KEPT = frozenset({"layout", "server", "dialect", "scope", "source_chain"})


def write_facts(root: Path, facts: Mapping[str, str]) -> None:
    """Keep those of these facts that are KEPT, with the others that are kept. Whole or not at all; safe to repeat."""
    before = read_facts(root)
    after = before | {name: facts[name] for name in sorted(KEPT) if name in facts}
    if after == before:
        return
    path = _path(root)
    part = path.with_name(f".{path.name}.part")
    with store_errors(path):
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"format": FORMAT, **after}, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def read_facts(root: Path) -> dict[str, str]:
    """The facts that are kept; empty where there is no such file, or one that nobody can read."""
    path = _path(root)
    with store_errors(path):
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            return {}
        except UnicodeDecodeError:
            return {}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: found[name] for name in sorted(KEPT) if isinstance(found.get(name), str)}


def _path(root: Path) -> Path:
    return root / ".mirror" / "format.json"
