"""Who may see what: bearer tokens, each with the collections that it opens.

    [anonymous]                      # who brings no token; without this section, nobody
    collections = ["CPTAC-*"]

    [tokens.radiology]
    sha256 = "9f86d081..."           # of the token, as `printf %s TOKEN | sha256sum` gives it
    collections = ["*"]

Hides the file and how a token comes (as Bearer, or as the password of Basic, which browsers can ask for). The file
holds no token that could be used by who reads it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.errors import SettingsError

_DIGEST = re.compile(r"[0-9a-f]{64}")
#: The headers of a 401: how a token may come.
ASK = {"WWW-Authenticate": 'Bearer realm="tcia-mirror", Basic realm="tcia-mirror", charset="UTF-8"'}
#: What opens everything.
EVERYTHING = ("*",)


@dataclass(frozen=True, slots=True)
class Rights:
    """Patterns of collections (as in a scope) by the SHA-256 of the token; None: who brings none."""

    of: Mapping[str | None, tuple[str, ...]]

    @classmethod
    def read(cls, file: str) -> Rights:
        """The rights in a file; without one (""), everybody sees everything. Raises SettingsError, which names it."""
        if not file:
            return cls({None: EVERYTHING})
        try:
            table = tomllib.loads(Path(file).read_text("utf-8"))
        except OSError as error:
            raise SettingsError(f"serve.tokens_file: {file}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"serve.tokens_file: {file}: is not valid TOML: {error}") from error
        if unknown := table.keys() - {"anonymous", "tokens"}:
            raise SettingsError(f"serve.tokens_file: {file}: unknown {min(unknown)!r}; there are anonymous, tokens")
        rights: dict[str | None, tuple[str, ...]] = {}
        if "anonymous" in table:
            rights[None] = _collections(f"{file}: [anonymous]", table["anonymous"], others=())
        tokens = table.get("tokens", {})
        if not isinstance(tokens, dict):
            raise SettingsError(f"serve.tokens_file: {file}: tokens: should be sections [tokens.NAME]")
        for name, entry in tokens.items():
            where = f"{file}: [tokens.{name}]"
            collections = _collections(where, entry, others=("sha256",))
            digest = entry.get("sha256")
            if not isinstance(digest, str) or not _DIGEST.fullmatch(digest.lower()):
                raise SettingsError(f"serve.tokens_file: {where}: sha256: should be 64 hex digits")
            if digest.lower() in rights:
                raise SettingsError(f"serve.tokens_file: {where}: another section has the same sha256")
            rights[digest.lower()] = collections
        return cls(rights)

    def open_to(self, authorization: str | None) -> tuple[str, ...] | None:
        """The patterns that a request's Authorization header opens; None: it opens nothing, and asks for a token.

        A token that is not known is no better than none, and no worse: guests of the archive's own bring one.
        """
        token = _token(authorization or "")
        digest = None if token is None else hashlib.sha256(token).hexdigest()
        return self.of.get(digest, self.of.get(None))

    @property
    def are_needed(self) -> bool:
        """Whether there is anything that not everybody sees."""
        return self.of.get(None) != EVERYTHING


def _collections(where: str, entry: Any, others: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(entry, dict) or entry.keys() - {"collections", *others}:
        raise SettingsError(f"serve.tokens_file: {where}: has {' and '.join(('collections', *others))}, and no more")
    names = entry.get("collections")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise SettingsError(f'serve.tokens_file: {where}: collections: should be a list of names or patterns, ["*"]')
    return tuple(names)


def _token(header: str) -> bytes | None:
    scheme, _, value = header.strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip().encode("utf-8", "surrogateescape")
        case "basic":
            try:
                return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return None
    return None
