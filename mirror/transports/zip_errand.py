"""A series' zip as an errand of a worker process: it downloads, unpacks, checks and places, and tells in batches.

Only what is simply right is a worker's: a series of which nothing is held. At the first thing that is anything else
(an error, a member that is wrong or cannot be read or comes twice) it ends, and the run does the series over by its
ordinary way, which knows about doubles, quarantine and second tries. What has its place by then is told, and is held
as any instance; what a worker placed that died before it told is met by the run as it meets what a killed run left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass

from mirror.archive.client import ArchiveClient
from mirror.errors import ArchiveError, MirrorError
from mirror.events import BytesReceived
from mirror.model import Digest, Finding, Header, Instance, Series, SeriesSize
from mirror.processes import Processes, WorkerLost
from mirror.threads import Inline, Threads
from mirror.transfer import OpenSeries, Shelf, meet_placed
from mirror.transports.spool import Blocks, Spool
from mirror.transports.unpacking import MEMBERS, SOURCE, Unpacking, receive_zip
from mirror.transports.unzip import Zip

#: A zip of a series with more bytes is the run's own: one wrong member, and a worker's work is all done over.
_MOST = 256 * 1024 * 1024
#: Seconds between two tellings of how far a download is.
_TELL = 0.25

#: An instance that has its place, in plain values: a batch of them is pickled in a tenth of the time.
_Row = tuple[str, str, str, str, int | None, int | None, int, str, str, str, int, str, tuple[Finding, ...]]


@dataclass(frozen=True, slots=True)
class ZipErrand:
    """A series to bring as a zip: what its members are compared with, where they go, and what getSeriesSize said."""

    collection: str
    series_instance_uid: str
    study_instance_uid: str
    patient_id: str
    directory: str
    object_count: int
    total_size_in_bytes: int
    #: Ask for md5hashes.csv.
    md5s: bool


@dataclass(frozen=True, slots=True)
class _Downloaded:
    """The zip is here, or why it is not; how many bytes came."""

    size: int
    error: MirrorError | None = None


@dataclass(frozen=True, slots=True)
class _Ended:
    """All members have their place, or not: for the reason given, or since something was not simply right."""

    whole: bool
    error: MirrorError | None = None


#: What a worker tells in the course of it: bytes that came, the download's end, instances, the end of it all.
_Part = int | _Downloaded | list[_Row] | _Ended


# The run's side


def errand_of(open_series: OpenSeries, size: SeriesSize | None, *, md5s: bool) -> ZipErrand | None:
    """The errand for a series of which nothing is held; None where it is not for a worker."""
    # What takes its share of a bandwidth as it comes is for who counts the bytes.
    if open_series.round != 1 or open_series.kit.client.pace.metered or size is None or not size.object_count:
        return None
    if size.total_size_in_bytes is None or size.total_size_in_bytes > _MOST:
        return None
    series = open_series.todo.series
    return ZipErrand(
        series.collection, series.series_instance_uid, series.study_instance_uid, series.patient_id,
        open_series.todo.directory, size.object_count, size.total_size_in_bytes, md5s,
    )  # fmt: skip


async def fetch_by_worker(processes: Processes, open_series: OpenSeries, errand: ZipErrand) -> bool:
    """Have a worker bring a series' zip; what has its place is noted. False: the series is to be done over.

    Raises StoreError, and the Interrupted of a stop that came before its turn. What is begun is ended in spite of one.
    """
    kit = open_series.kit
    failed = False
    async with aclosing(processes.follow(errand)) as parts:

        async def download() -> tuple[int, ArchiveError | None]:
            nonlocal failed
            async for part in parts:
                if isinstance(part, _Downloaded):
                    failed = part.error is not None
                    return part.size, _archives(part.error)
                kit.sink(BytesReceived(count=part))
            raise WorkerLost

        try:
            await kit.client.delegate(SOURCE, errand.series_instance_uid, download, told=True)
            if failed:
                return False
            async for part in parts:
                if isinstance(part, _Ended):
                    _archives(part.error)
                    return part.whole
                for row in part:
                    await _note(open_series, errand, row)
        except WorkerLost:
            await meet_placed(open_series, SOURCE)
    return False


def _archives(error: MirrorError | None) -> ArchiveError | None:
    """An error that is the archive's; raises any other."""
    if error is None or isinstance(error, ArchiveError):
        return error
    raise error


async def _note(open_series: OpenSeries, errand: ZipErrand, row: _Row) -> None:
    uid, study, patient, sop_class, acquisition, number, size, sha256, md5, name, fetched_at, verified, findings = row
    for finding in findings:
        open_series.notice(finding)
    open_series.seen.add(uid)
    await open_series.published(
        Instance(
            header=Header(
                sop_instance_uid=uid,
                series_instance_uid=errand.series_instance_uid,
                study_instance_uid=study,
                patient_id=patient,
                sop_class_uid=sop_class,
                acquisition_number=acquisition,
                instance_number=number,
            ),
            digest=Digest(bytes=size, sha256=sha256, md5=md5),
            name=name,
            source=SOURCE,
            fetched_at=fetched_at,
            verified=verified,
        )
    )


# The worker's side


class ZipBearer:
    """What a worker brings zips with. One per worker, which is one of so many."""

    def __init__(
        self,
        client: ArchiveClient,
        shelf: Callable[[Series, str], Shelf],
        threads: Threads,
        inline: Inline,
        workers: int,
    ) -> None:
        self._client = client
        self._shelf = shelf
        self._threads = threads
        self._inline = inline
        self._blocks = Blocks(workers)

    async def bring(self, errand: ZipErrand) -> AsyncGenerator[_Part]:
        """See the module. Closed early, it leaves nothing but files that have their place."""
        series = Series(
            collection=errand.collection,
            patient_id=errand.patient_id,
            study_instance_uid=errand.study_instance_uid,
            series_instance_uid=errand.series_instance_uid,
        )
        size = SeriesSize(object_count=errand.object_count, total_size_in_bytes=errand.total_size_in_bytes)
        shelf = self._shelf(series, errand.directory)
        spool = Spool(shelf.store, self._blocks, size.total_size_in_bytes)
        download = asyncio.create_task(self._download(errand, spool, size))
        told = 0
        try:
            while not (await asyncio.wait({download}, timeout=_TELL))[0]:
                if spool.size > told:
                    yield spool.size - told
                    told = spool.size
            if spool.size > told:
                yield spool.size - told
            try:
                zipped = download.result()
            except MirrorError as error:
                yield _Downloaded(spool.size, error)
                return
            yield _Downloaded(spool.size)
            async with aclosing(self._unpack(shelf, zipped, size)) as parts:
                async for part in parts:
                    yield part
        finally:
            if not download.done():
                download.cancel()
                with suppress(asyncio.CancelledError, MirrorError):
                    await download
            await spool.discard()

    async def _download(self, errand: ZipErrand, spool: Spool, size: SeriesSize) -> Zip:
        uid = errand.series_instance_uid

        async def receive(chunks: AsyncIterator[bytes], _length: int | None) -> Zip:
            return await receive_zip(spool, chunks, size, f"{SOURCE}({uid})", self._threads)

        options = {"IncludeMD5": "Yes"} if errand.md5s else {}
        return await self._client.get_image(uid, receive, **options)

    async def _unpack(self, shelf: Shelf, zipped: Zip, size: SeriesSize) -> AsyncGenerator[_Part]:
        unpacking = Unpacking(shelf, zipped, size, frozenset(), set(), last_try=False)
        rows: list[_Row] = []
        right = True
        failure: MirrorError | None = None
        try:
            async with aclosing(unpacking.in_turns(self._threads, self._inline)) as steps:
                async for came in steps:
                    right = not unpacking.unreadable
                    for _, admitted in came:
                        if admitted.instance is None:
                            right = False
                        else:
                            rows.append(_row(admitted.instance, admitted.checked.verdict.findings))
                    if not right:
                        break
                    if len(rows) >= MEMBERS:
                        yield rows
                        rows = []
        except MirrorError as error:
            right, failure = False, error
        if rows:
            yield rows
        yield _Ended(right, failure)


def _row(instance: Instance, findings: tuple[Finding, ...]) -> _Row:
    header, digest = instance.header, instance.digest
    return (
        header.sop_instance_uid, header.study_instance_uid, header.patient_id, header.sop_class_uid,
        header.acquisition_number, header.instance_number, digest.bytes, digest.sha256, digest.md5, instance.name,
        instance.fetched_at, instance.verified, findings,
    )  # fmt: skip
