"""Verification's side of the ledger: what is held where, when it was last looked at, and what became of damage.

Damage is remembered in the history: an entry `damaged` with the SHA-256 that the instance had is open until a later
entry says that it was repaired, has changed at the archive, or has left. So it survives whatever happens between.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mirror.archive.rows import as_noun, from_json
from mirror.ledger.directories import path_key
from mirror.ledger.history import History, write_history
from mirror.model import Happened, HistoryEntry, Series, SeriesState, Why

#: Where a scrub stands: series go by the time they were last verified, and by number among those of one time.
Turn = tuple[int, int]
BEGINNING: Turn = (-1, 0)
#: Series whose rows are read in one go, if they are small.
_SERIES = 200

_OF = "(:collections IS NULL OR s.collection COLLATE NOCASE IN (SELECT value FROM json_each(:collections)))"
#: What closes a damage `d`: the first later entry about its instance that says how it ended; null: it is open.
_CLOSED = (
    "(SELECT h.what FROM history h WHERE h.sop_instance_uid = d.sop_instance_uid AND h.id > d.id"
    " AND h.series_instance_uid = d.series_instance_uid AND h.what IN ('repaired', 'changed', 'left')"
    " ORDER BY h.id LIMIT 1)"
)
_OPEN = (
    "FROM history d JOIN series s ON s.series_instance_uid = d.series_instance_uid"
    f" WHERE d.what = 'damaged' AND {_CLOSED} IS NULL AND {_OF}"
)
_PLAN = (
    "UPDATE series SET planned_by = :run, why = :why, state = CASE WHEN state = 'open' THEN 'open' ELSE 'planned' END"
)


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A held instance: its file's name, and the SHA-256 and length it came with."""

    sop_instance_uid: str
    name: str
    sha256: bytes
    bytes: int


@dataclass(frozen=True, slots=True)
class HeldFiles:
    """A series and every file that is held of it. `id` is the ledger's own number of it."""

    id: int
    series: Series
    directory: str
    state: SeriesState
    verified_at: int
    files: tuple[HeldFile, ...]

    @property
    def turn(self) -> Turn:
        """Its place in the order in which series are verified."""
        return self.verified_at, self.id

    @property
    def bytes(self) -> int:
        """Bytes of all its files, by the ledger."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where an instance of a known series belongs, and what the ledger knows of it."""

    id: int
    series: Series
    sop_instance_uid: str
    directory: str
    #: Its file's name; None: it is not held.
    name: str | None
    #: The SHA-256 that it has, or had when it was held; None: it never was.
    sha256: bytes | None


@dataclass(frozen=True, slots=True)
class Damage:
    """An instance that a run found damaged, and how it stands now."""

    #: Number of the history's entry; later ones are greater.
    id: int
    run: str
    why: str
    collection: str
    series_instance_uid: str
    sop_instance_uid: str
    #: The SHA-256 before the damage.
    sha256: bytes
    #: How it ended; None: it is open.
    closed: Happened | None
    state: SeriesState
    directory: str
    #: The file that is held now; None: none is.
    file: HeldFile | None


class Verifying(History):
    """What is written while the tree is verified and repaired."""

    def end_of_series(self, at: int | None) -> Turn:
        """The last turn there is now; `at`: the last of series that were not verified since then."""
        rows = self.query(
            "SELECT verified_at, id FROM series WHERE verified_at <= ? ORDER BY verified_at DESC, id DESC LIMIT 1",
            2**62 if at is None else at,
        )
        return rows[0] if rows else BEGINNING

    def extent(self, collections: Sequence[str], after: Turn, end: Turn) -> tuple[int, int]:
        """How many series there are behind one turn up to another, and bytes in them as far as the archive says."""
        return self.query(
            "SELECT count(*), coalesce(sum(file_size), 0) FROM series s"
            f" WHERE (verified_at, id) > (:at, :id) AND (verified_at, id) <= (:end_at, :end_id) AND {_OF}",
            _between(collections, after, end),
        )[0]

    def held_files(self, collections: Sequence[str], after: Turn, end: Turn, limit: int) -> list[HeldFiles]:
        """The next series up to `end`, least recently verified first, with all their files: about `limit` of them."""
        found: list[HeldFiles] = []
        rows = self.query(
            "SELECT id, raw, collection, directory, state, verified_at FROM series s"
            f" WHERE (verified_at, id) > (:at, :id) AND (verified_at, id) <= (:end_at, :end_id) AND {_OF}"
            f" ORDER BY verified_at, id LIMIT {_SERIES}",
            _between(collections, after, end),
        )
        for id_, raw, collection, directory, state, verified_at in rows:
            series = as_noun(Series, from_json(raw), collection=collection)
            files = self._files(id_)
            found.append(HeldFiles(id_, series, directory, SeriesState(state), verified_at, files))
            limit -= len(files)
            if limit <= 0:
                break
        return found

    def _files(self, series: int) -> tuple[HeldFile, ...]:
        return tuple(
            HeldFile(*row)
            for row in self.query(
                "SELECT sop_instance_uid, name, sha256, bytes FROM instances WHERE series = ? AND name IS NOT NULL"
                " ORDER BY sop_instance_uid",
                series,
            )
        )

    def held_md5s(self, series: int) -> dict[str, str]:
        """SOPInstanceUID -> MD5 (lower-case hex) of every held instance of a series."""
        return dict(
            self.query(
                "SELECT sop_instance_uid, lower(hex(md5)) FROM instances WHERE series = ? AND name IS NOT NULL", series
            )
        )

    def mark_verified(self, series: Sequence[int], at: int) -> None:
        """Note that every file of these series was read and is as it came. Safe to repeat."""
        with self.transaction() as db:
            db.executemany("UPDATE series SET verified_at = ? WHERE id = ?", [(at, id_) for id_ in series])

    def unknown_collections(self, names: Sequence[str]) -> list[str]:
        """Those of these names that no series of the mirror has."""
        return [
            name
            for name in names
            if not self.query("SELECT 1 FROM series WHERE collection = ? COLLATE NOCASE LIMIT 1", name)
        ]

    def claimed_directories(self, paths: Sequence[str]) -> dict[str, bool]:
        """Those of these paths that are directories of the mirror; True for one that is a series' own."""
        return {
            path: bool(own)
            for path in paths
            for (own,) in self.query(
                "SELECT EXISTS (SELECT 1 FROM series WHERE directory = d.path) FROM directories d WHERE key = ?",
                path_key(path),
            )
        }

    def whereabouts(self, series_instance_uid: str, sop_instance_uid: str) -> Whereabouts | None:
        """Where an instance belongs; None where the mirror does not know its series."""
        for id_, raw, collection, directory, name, sha256 in self.query(
            "SELECT s.id, s.raw, s.collection, s.directory, i.name, i.sha256 FROM series s"
            " LEFT JOIN instances i ON i.series = s.id AND i.sop_instance_uid = ? WHERE s.series_instance_uid = ?",
            sop_instance_uid,
            series_instance_uid,
        ):
            series = as_noun(Series, from_json(raw), collection=collection)
            return Whereabouts(id_, series, sop_instance_uid, directory, name, sha256)
        return None

    def note_damage(self, entries: Sequence[HistoryEntry]) -> int:
        """Remember what is damaged, for good: this survives a power cut. What is open already is not noted again;
        how many are new comes back.
        """
        new = 0
        with self.transaction(durable=True) as db:
            for entry in entries:
                open_one = db.execute(
                    f"SELECT 1 FROM history d WHERE what = 'damaged' AND sop_instance_uid = ?"
                    f" AND series_instance_uid = ? AND {_CLOSED} IS NULL",
                    (entry.sop_instance_uid, entry.series_instance_uid),
                ).fetchone()
                if open_one is None:
                    write_history(db, [entry])
                    new += 1
        return new

    def lose(self, series: int, uids: Sequence[str], run: str) -> None:
        """Note that these instances are not held after all, and plan the series for `run`. Safe to repeat.

        Only once their files are out of the tree: a file without a row is believed by its header.
        """
        with self.transaction(changes=bool(uids)) as db:
            db.executemany(
                "UPDATE instances SET name = NULL, attempts = 0, next_try = NULL"
                " WHERE series = ? AND sop_instance_uid = ?",
                [(series, uid) for uid in uids],
            )
            db.execute(f"{_PLAN} WHERE id = :id", {"run": run, "why": Why.DAMAGED, "id": series})

    def plan_damaged(self, run: str, collections: Sequence[str]) -> None:
        """Plan for `run` what earlier ones found damaged and nobody has brought since. Safe to repeat."""
        args = {"run": run, "why": Why.DAMAGED, "collections": _json(collections)}
        # Whatever the waits between tries were for: somebody asks for them now.
        with self.transaction() as db:
            db.execute(
                "UPDATE instances SET attempts = 0, next_try = NULL WHERE name IS NULL"
                f" AND (series, sop_instance_uid) IN (SELECT s.id, d.sop_instance_uid {_OPEN})",
                args,
            )
            db.execute(
                f"{_PLAN} WHERE id IN (SELECT s.id {_OPEN} AND (s.state <> 'complete' OR NOT EXISTS (SELECT 1"
                " FROM instances i WHERE i.series = s.id AND i.sop_instance_uid = d.sop_instance_uid"
                " AND i.name IS NOT NULL)))",
                args,
            )

    def damages(self, run: str, collections: Sequence[str], after: int, limit: int) -> list[Damage]:
        """The next damages, by their number, that are open or were found by `run`."""
        return [
            Damage(
                id_, of, why, collection, series, uid, sha256, Happened(closed) if closed else None,
                SeriesState(state), directory, None if name is None else HeldFile(uid, name, held, size),
            )
            for id_, of, why, collection, series, uid, sha256, closed, state, directory, name, size, held in self.query(
                f"SELECT d.id, d.run, d.why, d.collection, d.series_instance_uid, d.sop_instance_uid, d.old_sha256,"
                f" {_CLOSED} AS closed, s.state, s.directory, i.name, i.bytes, i.sha256 FROM history d"
                " JOIN series s ON s.series_instance_uid = d.series_instance_uid"
                " LEFT JOIN instances i ON i.series = s.id AND i.sop_instance_uid = d.sop_instance_uid"
                f" WHERE d.what = 'damaged' AND d.id > :after AND (closed IS NULL OR d.run = :run) AND {_OF}"
                " ORDER BY d.id LIMIT :limit",
                {"after": after, "run": run, "limit": limit, "collections": _json(collections)},
            )
        ]  # fmt: skip


def _json(collections: Sequence[str]) -> str | None:
    return json.dumps(list(collections)) if collections else None


def _between(collections: Sequence[str], after: Turn, end: Turn) -> dict[str, object]:
    return {
        "collections": _json(collections), "at": after[0], "id": after[1], "end_at": end[0], "end_id": end[1],
    }  # fmt: skip
