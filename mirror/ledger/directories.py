"""Which directory belongs to whom: claimed once, kept for life, and never the same for two as a disk sees them."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

from mirror.errors import LedgerError
from mirror.ledger.crawls import Crawls

#: The (name, identity) parts of a record's path, from the root downwards.
Parts = Sequence[tuple[str, str]]


class Directories(Crawls):
    """The ledger's side of the layout."""

    def claim_directory(self, parts: Parts) -> str:
        """The directory for a record whose path has these (name, identity) parts, from the root downwards.

        A name that another identity holds already, as a case-insensitive or normalising disk would see it, gets a
        suffix made from its own identity. Repeating a claim gives the same path.
        """
        return self.claim_directories([parts])[0]

    def claim_directories(self, records: Sequence[Parts]) -> list[str]:
        """As `claim_directory`, for many records in one transaction, in their order."""
        # Neighbours share all but their last part.
        claimed: dict[tuple[str, str, str], str] = {}
        paths: list[str] = []
        with self.transaction():
            for parts in records:
                path, lineage = "", ""
                for name, identity in parts:
                    lineage += "\0" + identity
                    key = path, name, lineage
                    if key not in claimed:
                        claimed[key] = self._claim(path, name, lineage)
                    path = claimed[key]
                paths.append(path)
        return paths

    def _claim(self, parent: str, name: str, lineage: str) -> str:
        for candidate in (name, f"{name}~{_suffix(lineage)}"):
            wanted = f"{parent}/{candidate}" if parent else candidate
            key = path_key(wanted)
            rows = self.query("SELECT path, identity FROM directories WHERE key = ?", key)
            if not rows:
                self._db.execute("INSERT INTO directories VALUES (?, ?, ?)", (key, wanted, lineage))
                return wanted
            if rows[0][1] == lineage:
                return str(rows[0][0])
        raise LedgerError(f"no free directory name for {name!r} below {parent or 'the root'}")

    def is_laid_out(self) -> bool:
        """True once a directory has been claimed: from then on the mirror's layout is fixed."""
        return bool(self.query("SELECT 1 FROM directories LIMIT 1"))

    def directory_of(self, series_instance_uid: str) -> str | None:
        """The directory a series was given, which it keeps for life; None when the series is new."""
        rows = self.query("SELECT directory FROM series WHERE series_instance_uid = ?", series_instance_uid)
        return rows[0][0] if rows else None


def path_key(path: str) -> str:
    """The path as a disk sees it that folds case and normalises Unicode (HFS+, APFS, NTFS)."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def _suffix(identity: str) -> str:
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:8]
