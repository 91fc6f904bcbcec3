"""A series as one zip, made while it is sent. Hides the zip format; promises never to end well when a file is short.

The archive's server closes the zip politely when a file is missing, so that a short one looks whole. Ours raises
instead, and what was sent by then has no central directory: nobody can take it for a series.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP64_LIMIT, ZIP_DEFLATED, ZIP_STORED, ZipFile

from msgspec import Struct

from mirror.archive.endpoints import DialectName, Endpoint
from mirror.errors import StoreError
from mirror.layout import number_names
from mirror.ledger import Catalogue

#: Bytes read from a file, and about the bytes given out, at a time.
BLOCK = 1024 * 1024
_LICENSE = (
    "License Information. The {Collection} collection is distributed under the {LicenseName} at {LicenseURI}"
    " By downloading the data, you agree to abide by terms of this license.\n"
)
#: DICOM compresses little; the fastest level costs a third of the usual one.
_LEVEL = 1
#: Seconds within which a file that came is in its place for good. What was put there later may be another with the same
#: length, and its digest tells; of all others the length is enough, and their bytes are not read twice.
_SETTLED = 60


@dataclass(frozen=True, slots=True)
class Member:
    """One entry: its name in the zip, and either its bytes or a file with the length it must have."""

    name: str
    content: bytes | Path
    length: int
    #: What a file's bytes must be, which is looked at where it was put there after it came (seconds since 1970, UTC).
    md5: str = ""
    came: int = 0

    @classmethod
    def text(cls, name: str, content: str) -> Member:
        """An entry of text."""
        body = content.encode()
        return cls(name, body, len(body))

    def blocks(self) -> Generator[bytes, None, None]:
        """The content in blocks. StoreError where the file is missing, not as long as it must be, or another.

        A file that a sync replaces while it is read stays the old one for us.
        """
        if isinstance(self.content, bytes):
            yield self.content
            return
        try:
            with self.content.open("rb") as file:
                left = self.length
                digest = None
                if self.md5 and os.fstat(file.fileno()).st_ctime > self.came + _SETTLED:
                    digest = hashlib.md5(usedforsecurity=False)
                while block := file.read(BLOCK):
                    left -= len(block)
                    if left < 0:
                        break
                    if digest is not None:
                        digest.update(block)
                    yield block
        except OSError as error:
            raise StoreError(f"{self.content}: {error.strerror}") from error
        if left:
            raise StoreError(f"{self.content}: is not {self.length} bytes long, as the ledger says")
        if digest is not None and digest.hexdigest() != self.md5:
            raise StoreError(f"{self.content}: was replaced since the ledger was asked")


class _Sink(io.RawIOBase):
    """A file that cannot seek and gives back what was written to it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.held = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]  # ZipFile writes no other buffers
        # What cannot change any more is not copied: most of a zip is blocks of files.
        self._parts.append(data if isinstance(data, bytes) else bytes(data))
        self.held += len(data)
        return len(data)

    def take(self) -> bytes:
        """What was written since the last take."""
        taken = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self.held = 0
        return taken


def zip_pieces(members: Iterable[Member], *, stored: bool = False) -> Generator[bytes, None, None]:
    """The zip of these members, in pieces of about BLOCK bytes; each step does bounded work and blocks on files.

    `stored`: members are not deflated.

    Memory does not depend on the sizes. Raises StoreError in the middle, where a file is not what it must be.
    """
    sink = _Sink()
    with ZipFile(sink, "w", ZIP_STORED if stored else ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for member in members:
            large = member.length * 1.05 > ZIP64_LIMIT  # must be said before it is written
            with archive.open(member.name, "w", force_zip64=large) as target, closing(member.blocks()) as blocks:
                for block in blocks:
                    target.write(block)
                    if sink.held >= BLOCK:
                        yield sink.take()
    yield sink.take()


def md5_list(hashes: Iterable[tuple[str, str]]) -> str:
    """The text of md5hashes.csv: (name in the zip, MD5 as lower-case hex)."""
    return "Filename,MD5Hash\n" + "".join(f"{name},{digest}\n" for name, digest in hashes)


class _Row(Struct, frozen=True, gc=False):
    """What a member needs of an instance: a series may have a hundred thousand, and a zip takes hours to send."""

    sop_instance_uid: str
    path: str
    bytes: int
    md5: str
    acquisition_number: int | None
    instance_number: int | None
    fetched_at: int

    def member(self, name: str, root: Path) -> Member:
        """The instance's file under this name."""
        return Member(name, root / self.path, self.bytes, self.md5, self.fetched_at)


def series_members(
    catalogue: Catalogue, root: Path, dialect: DialectName, endpoint: Endpoint, params: dict[str, str]
) -> Iterable[Member] | None:
    """What goes into a series' zip, in the order of the dialect's server; None where the series is not held.

    What is held is read now; members are made when they are asked for.
    """
    rows = [_Row(**row) for row in catalogue.instances(params["SeriesInstanceUID"])]
    if not rows:
        return None
    if dialect == "tcia":
        return _tcia_members(root, rows)
    terms = None
    if endpoint.name == "getImage":
        series = next(catalogue.series({"SeriesInstanceUID": params["SeriesInstanceUID"]}), {})
        words = {name: series.get(name, "") for name in ("Collection", "LicenseName", "LicenseURI")}
        terms = _LICENSE.format_map(words)
    with_hashes = (
        endpoint.name == "getImageWithMD5Hash"
        or params.get("IncludeMD5", "").lower() == "yes"
        or params.get("MD5Verification", "").lower() == "true"
    )
    numbered = endpoint.name == "getDCMImage" or params.get("NewFileNames", "").lower() == "yes"
    return _nbia_members(root, rows, terms, numbered=numbered, with_hashes=with_hashes)


def _tcia_members(root: Path, rows: Sequence[_Row]) -> Iterator[Member]:
    yield Member.text("./", "")
    for n, row in enumerate(rows, start=1):
        yield row.member(f"./{n}-{row.path.rpartition('/')[2]}", root)


def _nbia_members(
    root: Path, rows: Sequence[_Row], terms: str | None, *, numbered: bool, with_hashes: bool
) -> Iterator[Member]:
    if terms is not None:
        yield Member.text("LICENSE", terms)
    names: Callable[[int, _Row], str] = lambda n, row: f"{n:08d}.dcm"  # noqa: E731 - one of two
    if numbered:
        named = number_names([(r.sop_instance_uid, r.acquisition_number, r.instance_number) for r in rows])
        names = lambda n, row: named[row.sop_instance_uid]  # noqa: E731 - the other
    for n, row in enumerate(rows, start=1):
        yield row.member(names(n, row), root)
    if with_hashes:
        yield Member.text("md5hashes.csv", md5_list((names(n, row), row.md5) for n, row in enumerate(rows, start=1)))
