"""Everything that can go wrong, as one tree; each class says what the caller should do about it.

    MirrorError
      SettingsError                        STOP   usage or settings: where, what was given, what would be right
        NoScope                            STOP   nothing says which part of the archive is meant
      ArchiveError                                the upstream; `asked` names the request
        Unreachable                        RETRY  no connection
        Stalled                            RETRY  bytes stopped coming
        BodyCut                            RETRY  the body ended before its length
        ServerFault                        RETRY  5xx
        Throttled                          RETRY  429 or 503 with Retry-After
        BadAnswer                          RETRY  HTML for JSON, not a zip, a required field missing
        NotFound                           SKIP   no such call, or no such thing
        Refused                            SKIP   the archive says 400 (also for "no access")
      StoreError                           STOP   the tree
        StoreFull, StoreDenied             STOP
      LedgerError                          STOP   the state
        Locked, TooNew, Damaged            STOP
      Interrupted                          STOP   a stop was asked for

Bad bytes are no error: they are a `Verdict` (see model). Every message names what was asked.
"""

from __future__ import annotations

import errno
from enum import Enum, IntEnum
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class Fate(Enum):
    """What the caller should do: try again, leave this one item, or end the run."""

    RETRY = "retry"
    SKIP = "skip"
    STOP = "stop"


class ExitCode(IntEnum):
    """The command's exit codes: an interface. README's table is checked against this one."""

    def __new__(cls, value: int, meaning: str) -> ExitCode:
        """Keep the meaning beside the number, so that help and README print the same words."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    meaning: str

    COMPLETE = 0, "the mirror is complete and verified, as far as this run was asked to look"
    BUG = 1, "a bug in tcia-mirror: please report it with the traceback"
    USAGE = 2, "wrong usage or settings; nothing was done"
    INCOMPLETE = 3, "the run finished, but some series are incomplete or quarantined; or diff found differences"
    DAMAGE = 4, "verify found damage in the tree"
    UNREACHABLE = 5, "the archive could not be reached, or answered nothing usable"
    LOCKED = 6, "another run holds this mirror"
    DISK = 7, "the disk is full or not writable, or the ledger cannot be used"
    LIMITED = 8, "ended by max_bytes or max_duration as asked, in order: no failure; the next run goes on"
    INTERRUPTED = 130, "interrupted (SIGINT or SIGTERM); run it again to go on"


class MirrorError(Exception):
    """Base of all errors that this package raises on purpose."""

    fate: ClassVar[Fate] = Fate.STOP
    exit_code: ClassVar[ExitCode] = ExitCode.BUG


class SettingsError(MirrorError):
    """A setting, option or argument is wrong; the message says where and what would be right."""

    exit_code = ExitCode.USAGE


class NoScope(SettingsError):
    """Nothing says which part of the archive is meant, and the mirror has no scope of its own to repeat."""


class ArchiveError(MirrorError):
    """The archive did not give what was asked. `asked` is the request in words (no secrets)."""

    exit_code = ExitCode.UNREACHABLE

    def __init__(self, message: str, *, asked: str = "") -> None:
        super().__init__(f"{asked}: {message}" if asked else message)
        self.asked = asked
        self.reason = message

    def __reduce__(self) -> tuple[Any, ...]:
        # Between processes: an exception is made again from what it was made of.
        told = {name: value for name, value in vars(self).items() if name != "reason"}
        return partial(type(self), **told), (self.reason,)


class Unreachable(ArchiveError):
    """No connection could be made, or it broke before an answer began."""

    fate = Fate.RETRY


class Stalled(ArchiveError):
    """No byte came for longer than the progress timeout."""

    fate = Fate.RETRY


class BodyCut(ArchiveError):
    """The body ended before the length its headers promised."""

    fate = Fate.RETRY


class ServerFault(ArchiveError):
    """The server answered 5xx; `status` says which."""

    fate = Fate.RETRY

    def __init__(self, message: str, *, asked: str = "", status: int = 500) -> None:
        super().__init__(message, asked=asked)
        self.status = status


class Throttled(ArchiveError):
    """The server asked for fewer requests; `retry_after` is its wish in seconds, or None."""

    fate = Fate.RETRY

    def __init__(self, message: str, *, asked: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, asked=asked)
        self.retry_after = retry_after


class BadAnswer(ArchiveError):
    """The answer is not what the call promises: HTML for JSON, not a zip, a required field missing."""

    fate = Fate.RETRY


class NotFound(ArchiveError):
    """The server knows no such call or no such thing."""

    fate = Fate.SKIP


class Refused(ArchiveError):
    """The server refuses the request: 400, 401, 403, or the tcia dialect's 471."""

    fate = Fate.SKIP


class StoreError(MirrorError):
    """The tree could not be read or written; the message names the path."""

    exit_code = ExitCode.DISK


class StoreFull(StoreError):
    """No space left, or less than the plan needs."""


class StoreDenied(StoreError):
    """Permission denied, or a read-only file system."""


class store_errors:  # noqa: N801 - reads as a statement
    """The operating system's errors as StoreFull, StoreDenied or StoreError; the message names `path`."""

    __slots__ = ("_path",)

    def __init__(self, path: Path | str | None) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            kind = StoreFull if error.errno in _FULL else StoreDenied if error.errno in _DENIED else StoreError
            raise kind(f"{self._path}: {error.strerror or error}") from error


class LedgerError(MirrorError):
    """The ledger cannot be used."""

    exit_code = ExitCode.DISK


class Locked(LedgerError):
    """Another run holds this mirror; the message says who."""

    exit_code = ExitCode.LOCKED


class TooNew(LedgerError):
    """The ledger was written by a newer version of tcia-mirror."""


class Damaged(LedgerError):
    """SQLite says the file is not a sound database."""


class Interrupted(MirrorError):
    """A stop was asked for; what was in flight has been committed."""

    exit_code = ExitCode.INTERRUPTED
