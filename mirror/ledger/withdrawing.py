"""Series on their way out of the mirror: who is due, who goes, and what of it is done.

A plan is no decision: a run that ends with an error takes it back (`stay`). A decision is written down before the first
file moves (`begin_leaving`), so that a run that was killed in the middle is finished by the next one; `finish_leaving`
forgets the files once they are where they belong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mirror.archive.rows import as_noun, from_json
from mirror.ledger.history import History, series_entry, write_history
from mirror.ledger.paging import Numbered, series_page
from mirror.model import Happened, Presence, Series

#: Why a series leaves that the archive still has.
OUTSIDE = "it is outside the scope"


@dataclass(frozen=True, slots=True)
class Leaving:
    """A series that a run takes out of the mirror. `id` is the ledger's own number of it."""

    id: int
    series: Series
    directory: str
    why: str


class Withdrawing(History):
    """The ledger's side of withdrawal."""

    def overdue(self, collection: str, missing_before: int, after: int, limit: int) -> list[Numbered]:
        """The next series of a collection that are missing since that time or longer."""
        return series_page(
            self,
            "s.collection = :collection AND s.presence = :missing AND s.missing_since <= :before",
            after,
            limit,
            collection=collection,
            missing=Presence.MISSING,
            before=missing_before,
        )

    def holding(self, after: int, limit: int) -> list[Numbered]:
        """The next series of the mirror that still have files in the tree."""
        return series_page(
            self, "EXISTS (SELECT 1 FROM instances i WHERE i.series = s.id AND i.name IS NOT NULL)", after, limit
        )

    def plan_leaving(self, run: str, leaving: Sequence[tuple[int, str]]) -> None:
        """Note that `run` is to take these series, (ledger number, why), out of the mirror. Safe to repeat."""
        with self.transaction() as db:
            db.executemany(
                "UPDATE series SET leaving = ?, leaving_why = ? WHERE id = ?", [(run, why, id_) for id_, why in leaving]
            )

    def leaving(self, run: str, after: int = 0, limit: int = 100) -> list[Leaving]:
        """The next series, by ledger number, that `run` is to take out of the mirror."""
        return [
            Leaving(id_, as_noun(Series, from_json(raw), collection=name), directory, why)
            for id_, raw, name, directory, why in self.query(
                "SELECT id, raw, collection, directory, leaving_why FROM series WHERE leaving = ? AND id > ?"
                " ORDER BY id LIMIT ?",
                run,
                after,
                limit,
            )
        ]

    def leaving_by_collection(self, run: str) -> dict[str, int]:
        """How many series of each collection `run` is to take out of the mirror."""
        return dict(self.query("SELECT collection, count(*) FROM series WHERE leaving = ? GROUP BY collection", run))

    def known_series(self) -> int:
        """How many series the mirror knows that are not withdrawn."""
        return int(self.query("SELECT count(*) FROM series WHERE presence <> ?", Presence.WITHDRAWN)[0][0])

    def stay(self, run: str) -> None:
        """Note that nothing leaves with `run` after all. Safe to repeat."""
        with self.transaction() as db:
            db.execute("UPDATE series SET leaving = NULL, leaving_why = NULL WHERE leaving = ? AND NOT moving", (run,))

    def begin_leaving(self, leaving: Leaving, run: str, retired: str | None, *, moves: bool) -> None:
        """Note that a series leaves now; `moves`: its files leave the tree, to `retired` where that is.

        Where they stay, all of it is done with this. Safe to repeat.
        """
        with self.transaction(changes=True) as db:
            held, size, begun = db.execute(
                "SELECT count(i.name), coalesce(sum(CASE WHEN i.name IS NOT NULL THEN i.bytes END), 0), s.moving"
                " FROM series s LEFT JOIN instances i ON i.series = s.id WHERE s.id = ?",
                (leaving.id,),
            ).fetchone()
            db.execute(
                "UPDATE series SET presence = ?, moving = ?, leaving = CASE WHEN ? THEN leaving END WHERE id = ?",
                (Presence.WITHDRAWN, moves, moves, leaving.id),
            )
            if not begun:
                what = Happened.LEFT if leaving.why == OUTSIDE else Happened.WITHDRAWN
                entry = series_entry(leaving.series, what, leaving.why, run)
                write_history(db, [replace(entry, instances=held, bytes=size, retired=retired)])

    def cut_off(self) -> list[str]:
        """Runs that began to take files of series out of the tree and did not finish it."""
        return [
            run for (run,) in self.query("SELECT DISTINCT leaving FROM series WHERE leaving IS NOT NULL AND moving")
        ]

    def finish_leaving(self, leaving: Leaving, scope: str) -> None:
        """Note that the files of a series have left the tree. Safe to repeat.

        One that is outside the scope is forgotten, and how far other scopes know its collection: one that takes it in
        again finds it as new. `scope` is the fingerprint of the one that it is outside of.
        """
        with self.transaction(changes=True) as db:
            if leaving.why == OUTSIDE:
                db.execute("DELETE FROM instances WHERE series = ?", (leaving.id,))
                db.execute("DELETE FROM series WHERE id = ?", (leaving.id,))
                db.execute(
                    "DELETE FROM watermarks WHERE collection = ? AND scope <> ?", (leaving.series.collection, scope)
                )
            else:
                db.execute("UPDATE instances SET name = NULL WHERE series = ?", (leaving.id,))
                db.execute(
                    "UPDATE series SET leaving = NULL, leaving_why = NULL, moving = 0 WHERE id = ?", (leaving.id,)
                )

    def shown_series(self, collection: str) -> str | None:
        """A series that the archive listed when it was asked last: of this collection, or of any where it has none."""
        for (uid,) in self.query(
            "SELECT series_instance_uid FROM series WHERE presence = ? ORDER BY collection <> ?, crawl DESC LIMIT 1",
            Presence.PRESENT,
            collection,
        ):
            return str(uid)
        return None
