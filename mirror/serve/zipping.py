"""A series as one zip, made while it is sent: what goes in, in which order, under which names.

The archive's server closes the zip politely when a file is missing, so that a short one looks whole. Ours raises
instead, and what was sent by then has no central directory: nobody can take it for a series. Memory depends neither on
the sizes of files nor on how many there are, but where files have numbers for names, or their MD5s are listed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import chain, groupby
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from mirror.archive.endpoints import DialectName, Endpoint
from mirror.deflate import crc32, deflater
from mirror.errors import StoreError
from mirror.layout import number_names
from mirror.ledger import Catalogue
from mirror.serve.bodies import Part, Span
from mirror.serve.zipformat import DEFLATED, STORED, ZipWriter, scratch

#: Bytes read from a file at a time, and held in a batch; bytes of files that a batch leaves to the sender.
BLOCK, BATCH = 1024 * 1024, 4 * 1024 * 1024
#: Bytes that a processor keeps at hand, where they are looked at and let go.
_CACHED = 256 * 1024
#: Files below this are sent with what stands around them. Larger ones that are stored go out as they lie, and are read
#: once before: from a disk, not from its cache, where they are above the other.
_SMALL, _HUGE = 128 * 1024, 1024 * 1024 * 1024
_LICENSE = (
    "License Information. The {Collection} collection is distributed under the {LicenseName} at {LicenseURI}"
    " By downloading the data, you agree to abide by terms of this license.\n"
)
#: Seconds within which a file that came is in its place for good. What was put there later may be another with the same
#: length, and its digest tells; of all others the length is enough.
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
        """The content in blocks. StoreError as soon as it is not what it must be.

        A file that a sync replaces while it is read stays the old one for us.
        """
        if isinstance(self.content, bytes):
            yield self.content
            return
        with self._open() as file, self._at_fault():
            check = _Check(self, file)
            while block := file.read(BLOCK):
                check.feed(block)
                yield block
            check.end()

    def opened(self) -> tuple[FileIO, int]:
        """The content's file, to be closed by who has it, read through once, and its CRC-32. Raises StoreError."""
        file = self._open()
        try:
            with self._at_fault():
                check, crc = _Check(self, file), 0
                buffer = memoryview(bytearray(_CACHED))
                while size := file.readinto(buffer):
                    check.feed(buffer[:size])
                    crc = crc32(buffer[:size], crc)
                check.end()
        except BaseException:
            file.close()
            raise
        return file, crc

    def _open(self) -> FileIO:
        with self._at_fault():
            return FileIO(str(self.content))

    @contextmanager
    def _at_fault(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self.content!s}: {error.strerror}") from error


class _Check:
    """Whether a file's bytes are a member's, as they come."""

    def __init__(self, member: Member, file: FileIO) -> None:
        self._member = member
        self._left = member.length
        later = bool(member.md5) and os.fstat(file.fileno()).st_ctime > member.came + _SETTLED
        self._digest = hashlib.md5(usedforsecurity=False) if later else None

    def feed(self, block: bytes | memoryview) -> None:
        """The next bytes. Raises StoreError where they are too many."""
        self._left -= len(block)
        if self._left < 0:
            self._refuse_length()
        if self._digest is not None:
            self._digest.update(block)

    def end(self) -> None:
        """There are no more. Raises StoreError where they are not the member's."""
        if self._left:
            self._refuse_length()
        if self._digest is not None and self._digest.hexdigest() != self._member.md5:
            raise StoreError(f"{self._member.content!s}: was replaced since the ledger was asked")

    def _refuse_length(self) -> None:
        raise StoreError(f"{self._member.content!s}: is not {self._member.length} bytes long, as the ledger says")


def zip_batches(members: Iterable[Member], *, stored: bool = False) -> Generator[list[Part], None, None]:
    """The zip of these members, in batches; each step does bounded work and blocks on files.

    `stored`: members are not deflated, and files among them are left to the sender. A batch's files stay open until
    the batch after the next is asked for: one is sent while the next is made.

    Raises StoreError in the middle, where a file is not what it must be.
    """
    batch, earlier = _Batch(), _Batch()
    with ZipWriter() as writer:
        try:
            for part in chain.from_iterable(chain((_parts(writer, m, stored=stored) for m in members), _last(writer))):
                batch.add(part)
                if batch.is_full:
                    yield batch.parts()
                    earlier.close()
                    earlier, batch = batch, _Batch()
            yield batch.parts()
            yield []  # is asked for while the last is being sent
        finally:
            earlier.close()
            batch.close()


class _Batch:
    """Parts that go out together: little in memory, and more of files, which cost nothing but to be looked at."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._bytes = self._files = 0

    def add(self, part: Part) -> None:
        self._parts.append(part)
        if isinstance(part, Span):
            self._files += part.length
        else:
            self._bytes += len(part)

    @property
    def is_full(self) -> bool:
        return self._bytes >= BLOCK or self._files >= BATCH

    def parts(self) -> list[Part]:
        """Those added, neighbouring bytes in one."""
        told: list[Part] = []
        for _, run in groupby(self._parts, type):
            alike = list(run)
            told += alike if isinstance(alike[0], Span) else [b"".join(p for p in alike if isinstance(p, bytes))]
        self._parts = [part for part in told if isinstance(part, Span)]  # the rest is the sender's alone
        return told

    def close(self) -> None:
        for part in self._parts:
            if isinstance(part, Span):
                part.file.close()


def _parts(writer: ZipWriter, member: Member, *, stored: bool) -> Generator[Part, None, None]:
    """One entry with its header."""
    name, came, length = member.name, member.came, member.length
    if length <= _SMALL:
        body = b"".join(member.blocks())
        crc, method = crc32(body), STORED
        if not stored and body:
            packer, method = deflater(), DEFLATED
            body = packer.compress(body) + packer.flush()
        yield writer.known(name, came, method, crc, len(body), length) + body
    elif stored and isinstance(member.content, Path) and length <= _HUGE:
        file, crc = member.opened()
        span = Span(file, 0, length)
        try:
            yield writer.known(name, came, STORED, crc, length, length)
            yield span
        except GeneratorExit:
            file.close()  # of a batch that nobody takes
            raise
    else:
        yield from _behind(writer, member, stored=stored)


def _behind(writer: ZipWriter, member: Member, *, stored: bool) -> Generator[bytes, None, None]:
    """One entry whose CRC and lengths stand behind it: it is read once, whatever its size."""
    packer = None if stored else deflater()
    header, entry = writer.begin(member.name, member.came, DEFLATED if packer else STORED, member.length)
    yield header
    crc = packed = 0
    with closing(member.blocks()) as blocks:
        for block in blocks:
            crc = crc32(block, crc)
            part = packer.compress(block) if packer else block
            packed += len(part)
            yield part
    if packer:
        rest = packer.flush()
        packed += len(rest)
        yield rest
    yield writer.end(entry, crc, packed, member.length)


def _last(writer: ZipWriter) -> Iterator[Iterable[Part]]:
    yield writer.finish()


def md5_list(hashes: Iterable[tuple[str, str]]) -> str:
    """The text of md5hashes.csv: (name in the zip, MD5 as lower-case hex)."""
    return "Filename,MD5Hash\n" + "".join(f"{name},{digest}\n" for name, digest in hashes)


class _Row(Struct, frozen=True, gc=False, array_like=True):
    """What a member needs of an instance: a series may have a hundred thousand, and a zip takes hours to send."""

    sop_instance_uid: str
    path: str
    length: int
    md5: bytes
    acquisition_number: int | None
    instance_number: int | None
    fetched_at: int

    def member(self, name: str, root: Path) -> Member:
        """The instance's file under this name."""
        return Member(name, root / self.path, self.length, self.md5.hex(), self.fetched_at)


class _Rows:
    """The rows of a series, read from the ledger at one moment and kept outside of memory where they are many."""

    def __init__(self, catalogue: Catalogue, series_instance_uid: str) -> None:
        self._file: IO[bytes] = scratch()
        self.count = 0
        encode = msgspec.msgpack.Encoder().encode
        try:
            for batch in catalogue.instance_batches(series_instance_uid):
                body = encode(batch)
                self._file.write(len(body).to_bytes(4, "big") + body)
                self.count += len(batch)
        except BaseException:
            self._file.close()
            raise

    def __iter__(self) -> Iterator[_Row]:
        decode = msgspec.msgpack.Decoder(list[_Row]).decode
        self._file.seek(0)
        while size := self._file.read(4):
            yield from decode(self._file.read(int.from_bytes(size, "big")))

    def close(self) -> None:
        """Forget them."""
        self._file.close()


def series_members(
    catalogue: Catalogue, root: Path, dialect: DialectName, endpoint: Endpoint, params: dict[str, str]
) -> Generator[Member, None, None] | None:
    """What goes into a series' zip, in the order of the dialect's server; None where the series is not held.

    What is held is read now; members are made when they are asked for. To be closed.
    """
    rows = _Rows(catalogue, params["SeriesInstanceUID"])
    if not rows.count:
        rows.close()
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
    numbered = endpoint.numbered or params.get("NewFileNames", "").lower() == "yes"
    return _nbia_members(root, rows, terms, _numbered(rows) if numbered else _counted, with_hashes=with_hashes)


#: The name of the n-th row's file (from 1 on) in a zip.
_Name = Callable[[int, _Row], str]


def _counted(n: int, row: _Row) -> str:
    return f"{n:08d}.dcm"


def _numbered(rows: _Rows) -> _Name:
    names = number_names([(row.sop_instance_uid, row.acquisition_number, row.instance_number) for row in rows])
    return lambda _, row: names[row.sop_instance_uid]


def _tcia_members(root: Path, rows: _Rows) -> Generator[Member, None, None]:
    with closing(rows):
        yield Member.text("./", "")
        for n, row in enumerate(rows, start=1):
            yield row.member(f"./{n}-{row.path.rpartition('/')[2]}", root)


def _nbia_members(
    root: Path, rows: _Rows, terms: str | None, name: _Name, *, with_hashes: bool
) -> Generator[Member, None, None]:
    with closing(rows):
        if terms is not None:
            yield Member.text("LICENSE", terms)
        for n, row in enumerate(rows, start=1):
            yield row.member(name(n, row), root)
        if with_hashes:
            yield Member.text(
                "md5hashes.csv", md5_list((name(n, row), row.md5.hex()) for n, row in enumerate(rows, start=1))
            )
