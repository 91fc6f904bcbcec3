"""Standard output and error while a command runs: writing to them never raises, whoever has left.

A reader may close a pipe early, as `head` does: what is written from then on is dropped, and the command ends as it
would have. A disk that takes no more drops the rest as well, but that is a failure, to be told at the end.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class _Lasting(io.RawIOBase):
    """The bytes of a stream, for as long as there is somebody who takes them."""

    def __init__(self, stream: TextIO | None) -> None:
        # Below Python's own buffer: what it could not write it would try again, and fail, when the process ends.
        self._under: Any = None if stream is None else getattr(stream.buffer, "raw", stream.buffer)
        self.taken = stream is not None
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._under is not None and bool(self._under.isatty())

    def fileno(self) -> int:
        if self._under is None:
            raise io.UnsupportedOperation("fileno")
        return int(self._under.fileno())

    def write(self, data: Any) -> int | None:
        if self.taken:
            try:
                written: int | None = self._under.write(data)
            except BrokenPipeError:
                self.taken = False
            except OSError as error:
                self.taken, self.failure = False, error
            else:
                return written
        return memoryview(data).nbytes


class Streams:
    """What became of standard output and error."""

    def __init__(self, out: _Lasting) -> None:
        self._out = out

    def failure(self) -> OSError | None:
        """Why standard output took no more, if nobody had left; all that was written so far is tried first."""
        sys.stdout.flush()
        return self._out.failure


@contextmanager
def lasting_streams() -> Iterator[Streams]:
    """Put sys.stdout and sys.stderr into lasting ones. One that was closed from the beginning takes nothing."""
    before = sys.stdout, sys.stderr
    out, err = _Lasting(sys.stdout), _Lasting(sys.stderr)
    sys.stdout = _text(out, before[0], line_buffering=out.isatty())
    sys.stderr = _text(err, before[1], line_buffering=True)
    try:
        yield Streams(out)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def is_read(stream: TextIO) -> bool:
    """False once nobody takes what is written to a lasting stream: then there is no use in more."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.taken if isinstance(raw, _Lasting) else True


def _text(raw: _Lasting, like: TextIO | None, *, line_buffering: bool) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=like.encoding if like is not None else "utf-8",
        errors=like.errors if like is not None else "replace",
        line_buffering=line_buffering,
    )
