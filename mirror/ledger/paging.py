"""Series of the ledger, page by page in the order of their numbers: nothing has to hold all of a collection."""

from __future__ import annotations

from mirror.archive.rows import as_noun, from_json
from mirror.ledger.file import LedgerFile
from mirror.model import Series

#: A series and the ledger's own number of it.
Numbered = tuple[int, Series]


def series_page(ledger: LedgerFile, condition: str, after: int, limit: int, **values: object) -> list[Numbered]:
    """The next series behind number `after` that a condition on `series s` takes; `values` are its :names."""
    return [
        (number, as_noun(Series, from_json(raw), collection=collection))
        for number, raw, collection in ledger.query(
            f"SELECT s.id, s.raw, s.collection FROM series s WHERE ({condition}) AND s.id > :after"  # noqa: S608 - a condition of ours; values are bound
            " ORDER BY s.id LIMIT :limit",
            {"after": after, "limit": limit, **values},
        )
    ]
