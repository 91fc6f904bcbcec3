"""The ledger's file, open for writing: one connection, one thread at a time, one lock per mirror, and transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from mirror.errors import LedgerError
from mirror.ledger.connection import Log, connect, sqlite_errors
from mirror.ledger.facts import KEPT, write_facts
from mirror.ledger.lock import take_lock
from mirror.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

#: So many values go into one question; SQLite takes a bounded number.
_AT_A_TIME = 500


class LedgerFile:
    """One mirror's ledger, held by one writer. Use as a context manager.

    With `rehearse`, everything that is written is undone by `close`: how a plan is made without being kept.
    An older ledger is migrated to the newest version all the same.
    """

    def __init__(self, root: Path, *, rehearse: bool = False) -> None:
        self.path = root / ".mirror" / "ledger.sqlite"
        self._root = root
        self._rehearse = rehearse
        self._threads = Threads(1, "ledger")
        self._lock = take_lock(root)
        try:
            if (rebuilding := rebuild_folder(root) / ".mirror" / "ledger.sqlite").exists():
                raise LedgerError(
                    f"{rebuilding}: a rebuild of this mirror's ledger was cut off; `tcia-mirror rebuild --to {root}`"
                    " goes on with it"
                )
            self._db = connect(self.path)
            self._log = Log(self._db, self.path)
            if rehearse:
                self._db.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Close the file and let go of the lock. Safe to repeat."""
        # An open transaction, a rehearsal's, is rolled back by closing.
        self._db.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of this ledger in a thread, after those already waiting. Not cut short by cancellation."""
        result = await self._threads.run(work, *args, **kwargs)
        if self._log.is_long and not self._rehearse:
            await self._threads.run(self._log.shorten)
        return result

    @property
    def is_idle(self) -> bool:
        """Whether no method is called or waits to be: then the loop itself may call one that takes no time."""
        return self._threads.are_idle

    @contextmanager
    def transaction(self, *, changes: bool = False, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Everything that the block writes, or nothing. `changes`: what is held is another, a manifest is stale.

        `durable`: it survives a power cut once this returns, and with it all that was written before. Other
        transactions survive one in their order, but the last of them may be lost.
        """
        # Inside a rehearsal, which is one transaction that is never committed, a step is a savepoint.
        begin, commit, undo = (
            ("SAVEPOINT step", "RELEASE step", "ROLLBACK TO step")
            if self._rehearse
            else ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
        )
        flushed = self._flushed if durable and not self._rehearse else nullcontext
        with sqlite_errors(self.path), flushed():
            self._db.execute(begin)
            try:
                yield self._db
                if changes:
                    self._db.execute(
                        "INSERT INTO meta VALUES ('changes', '1')"
                        " ON CONFLICT (key) DO UPDATE SET value = CAST(value AS INTEGER) + 1"
                    )
            except BaseException:
                # A full disk, among others, has made SQLite undo it already.
                if self._db.in_transaction:
                    self._db.execute(undo)
                raise
            self._db.execute(commit)

    @contextmanager
    def _flushed(self) -> Iterator[None]:
        """Whatever is committed inside the block is flushed before that returns."""
        (before,) = self._db.execute("PRAGMA synchronous").fetchone()
        self._db.execute("PRAGMA synchronous = FULL")
        try:
            yield
        finally:
            self._db.execute(f"PRAGMA synchronous = {before}")

    def query(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """All rows of a question; `args` are its values, or one mapping of them."""
        with sqlite_errors(self.path):
            return self._db.execute(sql, args[0] if args and isinstance(args[0], dict) else args).fetchall()

    def each(self, sql: str, *args: Any) -> Iterator[tuple[Any, ...]]:
        """As `query`, row by row: for questions whose answer is as long as a series or a mirror is large."""
        with sqlite_errors(self.path):
            yield from self._db.execute(sql, args)

    def among(self, sql: str, values: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """As `query`, about any number of values: `{}` in the question stands for them."""
        for start in range(0, len(values), _AT_A_TIME):
            some = values[start : start + _AT_A_TIME]
            yield from self.query(sql.format(", ".join("?" * len(some))), *some)

    # Facts about the mirror

    def meta(self, key: str) -> str | None:
        """A fact about the mirror itself, or None."""
        rows = self.query("SELECT value FROM meta WHERE key = ?", key)
        return rows[0][0] if rows else None

    def set_meta(self, **facts: str) -> None:
        """Write facts about the mirror itself; those that a rebuild needs are kept beside the ledger as well."""
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", facts.items()
            )
        if not (self._rehearse or KEPT.isdisjoint(facts)):
            write_facts(self._root, {name: value for name in KEPT if (value := self.meta(name)) is not None})


def rebuild_folder(root: Path) -> Path:
    """Where a ledger that is being made again lies, as in a root of its own, until it takes its place."""
    return root / ".mirror" / "rebuild"
