"""The plan's side of the ledger: the archive's series, and what a run is to fetch."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mirror.archive.rows import as_noun, from_json, to_json
from mirror.ledger.directories import Directories
from mirror.ledger.history import series_entry, write_history
from mirror.ledger.paging import Numbered, series_page
from mirror.model import Action, Happened, HistoryEntry, Presence, Series, SeriesState, Why

#: Rows that are read in one go where all of them could be too many.
_PAGE = 1000

#: Complete, listed, and not looked at by a crawl.
_KEPT = "s.collection = :collection AND s.crawl <> :crawl AND s.state = :complete AND s.presence = :present"

#: What the ledger keeps of the archive's row of a series; the row itself is the last of them.
_COLUMNS = (
    "collection, patient_id, study_instance_uid, modality, body_part_examined, manufacturer, image_count, file_size,"
    " max_submission_timestamp, date_released, raw"
)

#: A series that a crawl brought, what is to become of it, and its directory.
Planned = tuple[Series, Action, str]


@dataclass(frozen=True, slots=True)
class HeldSeries:
    """What the ledger knows of a series before a crawl looks at it again."""

    collection: str
    #: The canonical row, as `to_json` writes it: where the archive's is the same text, nothing of it need be read.
    raw: str
    state: SeriesState
    presence: Presence
    #: The directory that it was given, which it keeps for life.
    directory: str

    @property
    def series(self) -> Series:
        """Its row as it was when the archive was asked last."""
        return as_noun(Series, from_json(self.raw), collection=self.collection)


class _Known(NamedTuple):
    """A row of `series` that a crawl brings once more."""

    id: int
    presence: str
    columns: tuple[object, ...]


class _Row(NamedTuple):
    """A planned series, the values of _COLUMNS for it, and its row where there is one."""

    series: Series
    action: Action
    directory: str
    columns: tuple[object, ...]
    known: _Known | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Where a complete crawl moves the watermark of its collection: see model.Watermark."""

    server: str
    #: The scope's fingerprint.
    scope: str
    at: int
    #: Everything of the scope was asked for, so that what did not come is not there.
    whole: bool


@dataclass(frozen=True, slots=True)
class Todo:
    """A series that a run is to fetch. `id` is the ledger's own number of it."""

    id: int
    series: Series
    directory: str
    state: SeriesState
    why: Why = Why.NEW
    #: The archive tells of a change: what is held may not be what it has now.
    doubted: bool = False


@dataclass(frozen=True, slots=True)
class PlanSize:
    """A run's share of one collection: series to fetch by reason, objects, bytes (None: the archive does not say)."""

    collection: str
    new: int
    changed: int
    unfinished: int
    objects: int | None
    bytes: int | None


class Planning(Directories):
    """What is written before a series is fetched."""

    def finish_crawl(
        self,
        crawl: int,
        planned: Sequence[Planned] = (),
        *,
        run: str = "",
        again: Sequence[str] = (),
        mark: Mark | None = None,
        within: Callable[[Series], bool] | None = None,
    ) -> int:
        """Write the last rows of a crawl, note that all are in, and move the watermark: in one transaction.

        `again`: known series that have changed though their rows do not tell.

        `within` says whether a series is of the scope of a whole crawl: one that is, and that the crawl did not bring,
        is missing from now on. Gives back how many are newly missing. Safe to repeat.
        """
        missing = 0
        rows = self._rows(planned)
        with self.transaction(changes=_tells_anew(rows)) as db:
            self._write_planned(db, crawl, run, rows)
            self._write_again(db, run, again, Why.CHANGED)
            (collection,) = db.execute("SELECT collection FROM crawls WHERE id = ?", (crawl,)).fetchone()
            if mark is not None and mark.whole and within is not None:
                before = self.watermark(mark.server, collection, mark.scope)
                # A clock that went back tells no time from which on something is missing.
                if before is None or mark.at >= before.at:
                    missing = self._mark_missing(db, crawl, collection, run, mark, within)
            if mark is not None:
                db.execute(
                    "INSERT INTO watermarks VALUES (?, ?, ?, ?, ?) ON CONFLICT (server, collection, scope)"
                    " DO UPDATE SET at = excluded.at, whole_at = coalesce(excluded.whole_at, whole_at)",
                    (mark.server, collection, mark.scope, mark.at, mark.at if mark.whole else None),
                )
            db.execute("UPDATE crawls SET finished_at = ? WHERE id = ?", (int(time.time()), crawl))
        return missing

    def _mark_missing(
        self,
        db: sqlite3.Connection,
        crawl: int,
        collection: str,
        run: str,
        mark: Mark,
        within: Callable[[Series], bool],
    ) -> int:
        missing, after = 0, 0
        # What another server showed last, this one need not have.
        gone = (
            "s.collection = :collection AND s.crawl <> :crawl AND s.presence = :present AND EXISTS"
            " (SELECT 1 FROM crawls c WHERE c.id = s.crawl AND c.server IN ('', :server))"
        )
        values = {"collection": collection, "crawl": crawl, "present": Presence.PRESENT, "server": mark.server}
        while page := series_page(self, gone, after, _PAGE, **values):
            after = page[-1][0]
            for id_, series in page:
                if not within(series):
                    continue
                db.execute(
                    "UPDATE series SET presence = ?, missing_since = ?, planned_by = NULL WHERE id = ?",
                    (Presence.MISSING, mark.at, id_),
                )
                why = "a complete crawl did not find it at the archive"
                write_history(db, [series_entry(series, Happened.MISSING, why, run)])
                missing += 1
        return missing

    def held_series(self, series_instance_uid: str) -> HeldSeries | None:
        """What the ledger knows of a series, or None."""
        return self.held_among([series_instance_uid]).get(series_instance_uid)

    def held_among(self, series_instance_uids: Sequence[str]) -> dict[str, HeldSeries]:
        """What the ledger knows of these series, by UID."""
        return {
            uid: HeldSeries(collection, raw, SeriesState(state), Presence(presence), directory)
            for uid, collection, raw, state, presence, directory in self.among(
                "SELECT series_instance_uid, collection, raw, state, presence, directory FROM series"
                " WHERE series_instance_uid IN ({})",
                series_instance_uids,
            )
        }

    def plan_series(self, crawl: int, run: str, planned: Sequence[Planned]) -> None:
        """Write crawled series with their action and directory; those to fetch are marked for `run`. Repeatable."""
        rows = self._rows(planned)
        with self.transaction(changes=_tells_anew(rows)) as db:
            self._write_planned(db, crawl, run, rows)

    def _rows(self, planned: Sequence[Planned]) -> list[_Row]:
        """What of each planned series is to be written, beside what the ledger has."""
        known = {
            uid: _Known(id_, presence, tuple(columns))
            for uid, id_, presence, *columns in self.among(
                f"SELECT series_instance_uid, id, presence, {_COLUMNS} FROM series"  # noqa: S608 - columns of ours
                " WHERE series_instance_uid IN ({})",
                [series.series_instance_uid for series, _, _ in planned],
            )
        }
        return [
            _Row(series, action, directory, _columns(series), known.get(series.series_instance_uid))
            for series, action, directory in planned
        ]

    def _write_planned(self, db: sqlite3.Connection, crawl: int, run: str, rows: Sequence[_Row]) -> None:
        back: list[HistoryEntry] = []
        seen: list[tuple[int, Why, int]] = []
        told: list[tuple[object, ...]] = []
        for row in rows:
            series, action, known = row.series, row.action, row.known
            if known is not None and known.presence != Presence.PRESENT:
                why = f"the archive lists it again; it was {known.presence}"
                back.append(series_entry(series, Happened.RETURNED, why, run))
            elif known is not None and not (action.fetch or action.doubt) and known.columns == row.columns:
                # What nothing is new of is the bulk of a large collection, and need not be written out again.
                seen.append((crawl, action.why, known.id))
                continue
            planned_by = run if action.fetch else None
            told.append(
                (
                    series.series_instance_uid, *row.columns, crawl, row.directory, SeriesState.PLANNED, action.why,
                    planned_by, action.doubt,
                )
            )  # fmt: skip
        write_history(db, back)
        db.executemany(
            "UPDATE series SET crawl = ?, why = ?, planned_by = NULL, missing_since = NULL, leaving = NULL,"
            " leaving_why = NULL WHERE id = ?",
            seen,
        )
        db.executemany(
            f"INSERT INTO series (series_instance_uid, {_COLUMNS}, crawl, directory, state, why, planned_by, doubted)"  # noqa: S608 - columns of ours
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (series_instance_uid) DO UPDATE SET collection = excluded.collection,"
            " patient_id = excluded.patient_id, study_instance_uid = excluded.study_instance_uid,"
            " modality = excluded.modality, body_part_examined = excluded.body_part_examined,"
            " manufacturer = excluded.manufacturer, image_count = excluded.image_count,"
            " file_size = excluded.file_size, max_submission_timestamp = excluded.max_submission_timestamp,"
            " date_released = excluded.date_released, raw = excluded.raw, crawl = excluded.crawl,"
            " state = CASE WHEN excluded.planned_by IS NULL THEN series.state"
            " WHEN series.state = 'open' THEN 'open' ELSE 'planned' END,"
            " why = excluded.why, planned_by = excluded.planned_by,"
            " doubted = max(series.doubted, excluded.doubted),"
            " presence = excluded.presence, missing_since = NULL, leaving = NULL, leaving_why = NULL",
            told,
        )

    def plan_again(self, run: str, series_instance_uids: Sequence[str], why: Why) -> None:
        """Mark series that are known for `run`, with the doubt that a change brings. Repeatable."""
        with self.transaction() as db:
            self._write_again(db, run, series_instance_uids, why)

    def _write_again(self, db: sqlite3.Connection, run: str, series_instance_uids: Sequence[str], why: Why) -> None:
        db.executemany(
            "UPDATE series SET planned_by = :run, why = :why, doubted = max(doubted, :why = 'changed'),"
            " state = CASE state WHEN 'open' THEN 'open' ELSE 'planned' END WHERE series_instance_uid = :uid",
            [{"run": run, "why": why, "uid": uid} for uid in series_instance_uids],
        )

    def unfinished(self, collection: str, run: str, after: int, limit: int) -> list[Numbered]:
        """The next series of a collection that are listed, not complete and not planned for `run`."""
        return series_page(
            self,
            "s.collection = :collection AND s.state <> :complete AND s.presence = :present"
            " AND s.planned_by IS NOT :run",
            after,
            limit,
            collection=collection,
            complete=SeriesState.COMPLETE,
            present=Presence.PRESENT,
            run=run,
        )

    def count_kept(self, collection: str, crawl: int) -> int:
        """How many series of a collection are complete, listed, and not among those that this crawl looked at."""
        rows = self.query(f"SELECT count(*) FROM series s WHERE {_KEPT}", _kept(collection, crawl))  # noqa: S608 - see there
        return int(rows[0][0])

    def kept_series(self, collection: str, crawl: int, after: int, limit: int) -> list[Numbered]:
        """The next of the series that `count_kept` counts."""
        return series_page(self, _KEPT, after, limit, **_kept(collection, crawl))

    def collections_known(self, server: str) -> dict[str, bool]:
        """Collections that were walked at a server, in order, and whether a series of each is not withdrawn."""
        return {
            name: bool(shown)
            for name, shown in self.query(
                "SELECT w.collection, EXISTS (SELECT 1 FROM series s WHERE s.collection = w.collection"
                " AND s.presence <> ?) FROM watermarks w WHERE w.server = ? GROUP BY w.collection ORDER BY 1",
                Presence.WITHDRAWN,
                server,
            )
        }

    def is_shown(self, collection: str) -> bool:
        """True when the archive listed a series of the collection the last time that it was asked."""
        return bool(
            self.query(
                "SELECT 1 FROM series WHERE collection = ? AND presence = ? LIMIT 1", collection, Presence.PRESENT
            )
        )

    def series_of(self, collection: str, after: int, limit: int) -> list[Numbered]:
        """The next series of a collection that the mirror knows."""
        return series_page(self, "s.collection = :collection", after, limit, collection=collection)

    def holds(self, collection: str) -> bool:
        """True when a series of the collection is complete."""
        return bool(
            self.query(
                "SELECT 1 FROM series WHERE collection = ? AND state = ? LIMIT 1", collection, SeriesState.COMPLETE
            )
        )

    def todo(self, run: str, after: int, limit: int, *, taken_up: int | None = None) -> list[Todo]:
        """The next series, by ledger number, that `run` planned and has not judged yet.

        `taken_up`: only those that were taken up less often than this, by whatever run.
        """
        return [
            Todo(
                id_,
                as_noun(Series, from_json(raw), collection=collection),
                directory,
                SeriesState(state),
                Why(why),
                bool(doubted),
            )
            for id_, raw, collection, directory, state, why, doubted in self.query(
                "SELECT id, raw, collection, directory, state, why, doubted FROM series"
                " WHERE planned_by = ? AND id > ? AND listing < coalesce(?, listing + 1) ORDER BY id LIMIT ?",
                run,
                after,
                taken_up,
                limit,
            )
        ]

    def taken_up_often(self, run: str, often: int) -> list[int]:
        """Numbers of the series of `todo` that were taken up so often or oftener, the least often first."""
        asked = "SELECT id FROM series WHERE planned_by = ? AND listing >= ? ORDER BY listing, id"
        return [id_ for (id_,) in self.query(asked, run, often)]

    def is_left_in_vain(self, run: str, often: int) -> bool:
        """True when `todo` has none that was taken up less often, or never judged."""
        asked = "SELECT 1 FROM series WHERE planned_by = ? AND (judged_at IS NULL OR listing < ?) LIMIT 1"
        return not self.query(asked, run, often)

    def series_planned(self, run: str) -> int:
        """How many series `run` has to fetch."""
        return int(self.query("SELECT count(*) FROM series WHERE planned_by = ?", run)[0][0])

    def plan_sizes(self, run: str) -> list[PlanSize]:
        """What `run` is to fetch, per collection, what is held already taken off."""
        rows = self.query(
            "SELECT collection, sum(why = 'new'), sum(why = 'changed'), sum(why = 'unfinished'),"
            " sum(max(0, image_count - held)), sum(max(0, file_size - held_bytes)),"
            " count(*) = count(image_count), count(*) = count(file_size) FROM ("
            " SELECT s.collection, s.why, s.image_count, s.file_size, count(i.name) AS held,"
            " coalesce(sum(CASE WHEN i.name IS NOT NULL THEN i.bytes END), 0) AS held_bytes"
            " FROM series s LEFT JOIN instances i ON i.series = s.id WHERE s.planned_by = ? GROUP BY s.id"
            ") GROUP BY collection ORDER BY collection",
            run,
        )
        return [
            PlanSize(name, new, changed, unfinished, objects if counted else None, size if sized else None)
            for name, new, changed, unfinished, objects, size, counted, sized in rows
        ]

    def bytes_held(self) -> int:
        """Bytes of all instances that are held."""
        return int(self.query("SELECT coalesce(sum(bytes), 0) FROM instances WHERE name IS NOT NULL")[0][0])


def _kept(collection: str, crawl: int) -> dict[str, object]:
    complete, present = SeriesState.COMPLETE, Presence.PRESENT
    return {"collection": collection, "crawl": crawl, "complete": complete, "present": present}


def _tells_anew(rows: Sequence[_Row]) -> bool:
    """True where the archive tells something else of a series: a licence may change though no file does."""
    return any(row.known is not None and row.known.columns[-1] != row.columns[-1] for row in rows)


def _columns(series: Series) -> tuple[object, ...]:
    """The values of _COLUMNS."""
    return (
        series.collection, series.patient_id, series.study_instance_uid, series.modality, series.body_part_examined,
        series.manufacturer, series.image_count, series.file_size, series.max_submission_timestamp,
        series.date_released, to_json(series.raw),
    )  # fmt: skip
