"""Commands of ours as texts tell them, and whether our command line takes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import readme_tables


def check_usage(words: Sequence[str]) -> None:
    """The words after `tcia-mirror` are a command of ours with options that it has; raises click's error if not."""
    name, *arguments = words
    assert name in readme_tables.command_line()
    readme_tables.command_line()[name].make_context(name, list(arguments))


def usages(text: str) -> list[list[str]]:
    """The words after each `tcia-mirror` in a text's commands; those after the image's name for docker."""
    found = []
    for line in re.sub(r"\\\n(#\s*)?", " ", text).splitlines():
        if match := re.search(rf"(?:^|[ /=])tcia-mirror ((?:{'|'.join(readme_tables.command_line())})\b.*)", line):
            usage = re.split(r"\s{2,}|`|[|>)]| &$", match[1])[0]
            found.append(shlex.split(usage))
    return found
