"""What the ledger's history tells, for whoever only reads: entries about a collection, or about what has a UID."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from mirror.ledger.catalogue import Catalogue
from mirror.model import Happened, HistoryEntry

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


class Past(Catalogue):
    """A catalogue that can also be asked what happened. Use as a Catalogue.

    A ledger of a version that kept no history yet has none.
    """

    def entries(
        self,
        about: Sequence[str] = (),
        *,
        since: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[HistoryEntry]:
        """Entries in the order in which things happened, or in the reverse one; of more than `limit`, the newest.

        `about`: collections (whatever their case), and UIDs of series, studies or instances; nothing: everything. An
        entry about a whole series is none about an instance. `since` is in seconds since 1970, UTC.
        """
        if not self._is_kept():
            return
        where, args = _about(about)
        if since is not None:
            where, args["since"] = f"({where}) AND at >= :since", since
        newest = f"SELECT * FROM history WHERE {where} ORDER BY id DESC"
        if limit is not None:
            newest, args["limit"] = f"{newest} LIMIT :limit", limit
        sql = newest if newest_first else f"SELECT * FROM history WHERE {where} ORDER BY id"
        if limit is not None and not newest_first:
            sql = f"SELECT * FROM ({newest}) ORDER BY id"
        for r in self._rows(sql, args):
            yield HistoryEntry(
                what=Happened(r["what"]), why=r["why"], collection=r["collection"],
                series_instance_uid=r["series_instance_uid"], sop_instance_uid=r["sop_instance_uid"],
                instances=r["instances"], bytes=r["bytes"], old_sha256=_hex(r["old_sha256"]), sha256=_hex(r["sha256"]),
                retired=r["retired"], run=r["run"], at=r["at"],
            )  # fmt: skip

    def begins(self) -> int | None:
        """When the first thing happened that the history tells of, seconds since 1970, UTC; None: it tells nothing."""
        if self._is_kept():
            for r in self._rows("SELECT at FROM history ORDER BY id LIMIT 1"):
                return int(r["at"])
        return None

    def _is_kept(self) -> bool:
        rows = self._rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'history'")
        return next(rows, None) is not None


def is_uid(text: str) -> bool:
    """True for what has the form of a UID."""
    return _UID.fullmatch(text) is not None


def _about(about: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The condition that an entry is about one of these, and its arguments."""
    conditions, args = [], dict[str, Any]()
    for number, text in enumerate(about):
        name = f":about{number}"
        args[name[1:]] = text
        conditions.append(
            f"series_instance_uid = {name} OR sop_instance_uid = {name} OR series_instance_uid IN"
            f" (SELECT series_instance_uid FROM series WHERE study_instance_uid = {name})"
            if is_uid(text)
            else f"collection = {name} COLLATE NOCASE"
        )
    return " OR ".join(conditions) or "TRUE", args


def _hex(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()
