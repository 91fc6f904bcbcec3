"""ArchiveClient: one coroutine per call of the v4 API; typed rows out, errors mapped, retries inside.

Every coroutine may be repeated: the API only reads. What can go wrong is in errors.ArchiveError; a RETRY error that
comes out of here has been retried already. Bodies that are files are handed to a `receive` coroutine as they arrive;
it is called anew for each try, with the body's chunks and its length where the server tells it.

No request carries the token but to the server that was named: a redirect to another host goes without.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, TypeVar

import anyio

from mirror.archive.answers import Rows, read_digest, read_object, read_text, spool_rows
from mirror.archive.dialects import Server, decode_row, encode_params
from mirror.archive.endpoints import ENDPOINTS, Endpoint, Format
from mirror.archive.exchange import Exchange, Line, delegate
from mirror.archive.pacing import Pace, Unpaced, is_outage, retrying, sleeper
from mirror.archive.rows import as_noun
from mirror.errors import ArchiveError, BadAnswer, SettingsError
from mirror.events import Event, EventSink, ignore
from mirror.model import Patient, Series, SeriesSize, Study
from mirror.settings import ArchiveSettings

T = TypeVar("T")
#: What a search needs said: the first patients, by their identifiers.
_PAGE = {"sortField": "subject", "sortDirection": "ascending", "start": "0", "size": "100"}
Receive = Callable[[AsyncIterator[bytes], int | None], Awaitable[T]]


class ArchiveClient:
    """A connection pool to one server. Use as an async context manager, inside one event loop.

    `token` is sent as a bearer token and appears in no message, event or repr. When `stop` is set, requests that wait
    for their turn or for another try raise Interrupted. `spool` is the folder for large answers (None: the system's).
    `paced` False: every request has its leave already, from the run that this is a worker of.
    """

    def __init__(
        self,
        server: Server,
        settings: ArchiveSettings,
        *,
        token: str | None = None,
        sink: EventSink = ignore,
        stop: anyio.Event | None = None,
        spool: Path | None = None,
        paced: bool = True,
    ) -> None:
        self.server = server
        self._spool = spool
        self._settings = settings
        #: As given. Never printed.
        self.token = token
        pace = (Pace if paced else Unpaced)(settings, sink, sleep=sleeper(stop or anyio.Event()))
        self._line = Line(server, settings, pace, sink, token)

    async def __aenter__(self) -> ArchiveClient:
        self._line.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._line.close()

    @property
    def pace(self) -> Pace:
        """The limits that all its requests keep."""
        return self._line.pace

    @property
    def clock(self) -> float | None:
        """The archive's clock (the Date header of its last answer), seconds since 1970; None: it does not say."""
        return self._line.clock

    @property
    def source(self) -> str:
        """Where a server that is a mirror has its content from, nearest first, joined by ", "; "": it is none."""
        return self._line.source

    def also_tell(self, sink: EventSink) -> None:
        """Tell `sink` as well of requests that are begun from now on."""
        first = self._line.sink

        def both(event: Event) -> None:
            first(event)
            sink(event)

        self._line.sink = both

    # Lists

    async def get_collection_values(self) -> list[str]:
        """Names of all collections."""
        return [str(v) for v in await self._values("getCollectionValues", "Collection") if v]

    async def get_modality_values(self, **where: str) -> list[str | None]:
        """Modalities; None stands for series without one. `where`: Collection, BodyPartExamined."""
        return await self._values("getModalityValues", "Modality", **where)

    async def get_body_part_values(self, **where: str) -> list[str | None]:
        """Body parts; None stands for series without one. `where`: Collection, Modality."""
        return await self._values("getBodyPartValues", "BodyPartExamined", **where)

    async def get_manufacturer_values(self, **where: str) -> list[str | None]:
        """Manufacturers; None stands for series without one. `where`: Collection, Modality, BodyPartExamined."""
        return await self._values("getManufacturerValues", "Manufacturer", **where)

    async def get_patient(self, *, collection: str) -> Rows[Patient]:
        """Patients of a collection."""
        return await self._rows(
            "getPatient", lambda r: as_noun(Patient, r, collection=collection), Collection=collection
        )

    async def patients_by_modality(self, *, collection: str, modality: str) -> Rows[str]:
        """PatientIDs of a collection that have a series of a modality; one may come twice."""
        return await self._rows(
            "PatientsByModality", lambda r: str(r.get("PatientID", "")), Collection=collection, Modality=modality
        )

    async def get_patient_study(self, *, collection: str, **where: str) -> Rows[Study]:
        """Studies of a collection. `where`: PatientID, StudyInstanceUID."""
        return await self._rows(
            "getPatientStudy", lambda r: as_noun(Study, r, collection=collection), Collection=collection, **where
        )

    async def get_series(self, **where: str) -> Rows[Series]:
        """Series. `where`: any parameter of getSeries by its canonical name; without one, the whole archive."""
        known = {"collection": where["Collection"]} if "Collection" in where else {}
        return await self._rows("getSeries", lambda r: as_noun(Series, r, **known), **where)

    async def get_series_size(self, series_instance_uid: str) -> SeriesSize | None:
        """Bytes and number of a series' files; None: the archive does not know the series."""
        rows = await self._rows("getSeriesSize", lambda r: r, SeriesInstanceUID=series_instance_uid)
        # An unknown series is no row, or a row of nulls, depending on the server.
        known = [row for row in await rows.all() if row.get("ObjectCount")]
        return as_noun(SeriesSize, known[0]) if known else None

    async def get_sop_instance_uids(self, series_instance_uid: str) -> Rows[str]:
        """SOPInstanceUIDs of a series, in no order. BadAnswer for a row without one."""
        return await self._rows("getSOPInstanceUIDs", _sop_instance_uid, SeriesInstanceUID=series_instance_uid)

    async def new_patients_in_collection(self, *, collection: str, since: str) -> Rows[Patient]:
        """Patients with a series released since an ISO day (inclusive in nbia, unknown in tcia)."""
        return await self._rows(
            "NewPatientsInCollection",
            lambda r: as_noun(Patient, r, collection=collection),
            Collection=collection,
            Date=since,
        )

    async def new_studies_in_patient_collection(self, *, collection: str, since: str, **where: str) -> Rows[Study]:
        """Studies with a series released since an ISO day. `where`: PatientID."""
        return await self._rows(
            "NewStudiesInPatientCollection",
            lambda r: as_noun(Study, r, collection=collection),
            Collection=collection,
            Date=since,
            **where,
        )

    async def contents_by_name(self, name: str) -> Rows[Series]:
        """Series of a shared list."""
        return await self._rows("ContentsByName", lambda r: as_noun(Series, r), name=name)

    async def get_updated_series(self, *, since: str | None = None) -> Rows[Series]:
        """nbia: series released after an ISO day (that day not included)."""
        return await self._rows(
            "getUpdatedSeries", lambda r: as_noun(Series, r), **({} if since is None else {"Date": since})
        )

    async def get_series_metadata(self, series_instance_uids: Sequence[str]) -> Rows[dict[str, Any]]:
        """nbia: canonical rows of everything the archive says about these series; unknown ones are left out."""
        return await self._rows("getSeriesMetadata", lambda r: r, list=",".join(series_instance_uids))

    async def get_series_qc_info(self, series_instance_uid: str) -> Rows[dict[str, Any]]:
        """nbia: canonical rows with the Visibility of a series, hidden ones too."""
        return await self._rows("getSeriesQCInfo", lambda r: r, seriesId=series_instance_uid)

    async def get_denied_series(self, series_instance_uids: Sequence[str]) -> Rows[dict[str, Any]]:
        """nbia: canonical rows of those of these series that are not there or not shown."""
        return await self._rows("getDeniedSeries", lambda r: r, seriesList=",".join(series_instance_uids))

    async def get_collection_descriptions(self, **where: str) -> Rows[dict[str, Any]]:
        """nbia: descriptions and DOIs. `where`: collectionName."""
        return await self._rows("getCollectionDescriptions", lambda r: r, **where)

    async def get_collection_or_series_for_doi(self, doi: str, *, series: bool = False) -> Rows[dict[str, Any]]:
        """nbia: canonical rows of the collections that name a DOI, as it stands there, or of their series."""
        wanted = "series" if series else "collection"
        return await self._rows("getCollectionOrSeriesForDOI", lambda r: r, DOI=doi, CollectionOrSeries=wanted)

    async def get_dicom_tags(self, series_instance_uid: str) -> Rows[dict[str, Any]]:
        """nbia: element, name and data of what stands in one image of a series."""
        return await self._rows("getDicomTags", lambda r: r, SeriesInstanceUID=series_instance_uid)

    # Counts, nbia: canonical rows of a value and Count, how many patients have series of it

    async def get_collection_values_and_counts(self) -> Rows[dict[str, Any]]:
        """Collections."""
        return await self._rows("getCollectionValuesAndCounts", lambda r: r)

    async def get_modality_values_and_counts(self, **where: str) -> Rows[dict[str, Any]]:
        """Modalities. `where`: Collection, BodyPartExamined."""
        return await self._rows("getModalityValuesAndCounts", lambda r: r, **where)

    async def get_body_part_values_and_counts(self, **where: str) -> Rows[dict[str, Any]]:
        """Body parts. `where`: Collection, Modality."""
        return await self._rows("getBodyPartValuesAndCounts", lambda r: r, **where)

    async def get_manufacturer_values_and_counts(self, **where: str) -> Rows[dict[str, Any]]:
        """Manufacturers; a row without one counts those of whom nothing is said. `where`: as the calls before."""
        return await self._rows("getManufacturerValuesAndCounts", lambda r: r, **where)

    async def get_species_values_and_counts(self) -> Rows[dict[str, Any]]:
        """Species."""
        return await self._rows("getSpeciesValuesAndCounts", lambda r: r)

    # Digests

    async def get_md5_hash_for_image(self, sop_instance_uid: str) -> str | None:
        """nbia: MD5 of one file, lower-case hex; None: unknown to the archive."""
        return await self._digest("getMD5HashForImage", SOPInstanceUID=sop_instance_uid)

    async def get_md5_hierarchy(self, **where: str) -> str | None:
        """nbia: MD5 over the sorted MD5s of a series, study, patient or collection; None: unknown."""
        return await self._digest("getMD5Hierarchy", **where)

    # Searches and manifests

    async def get_manifest_for_collection(self, *, collection: str, **options: str) -> str:
        """nbia: the text of a `.tcia` file that names a collection's series. `options`: includeAnnotation=false."""
        return await self._text("getManifestForCollection", Collection=collection, **options)

    async def get_manifest_for_simple_search(self, **criteria: str) -> str:
        """nbia: the text of a `.tcia` file that names the series of get_simple_search, or of a page of it."""
        return await self._text("getManifestForSimpleSearch", **_PAGE | {"size": "1000000"} | criteria)

    async def get_simple_search(self, **criteria: str) -> dict[str, Any]:
        """nbia: a page of the patients who match criteriaType0, value0 and so on, as the archive's object."""
        return read_object(await self._text("getSimpleSearch", **_PAGE | criteria), "getSimpleSearch")

    async def _text(self, call: str, **params: str) -> str:
        return await self._call(ENDPOINTS[call], params, lambda c, _n, asked: read_text(c, asked))

    # Files

    async def get_single_image(self, series_instance_uid: str, sop_instance_uid: str, receive: Receive[T]) -> T:
        """One DICOM file, handed to `receive`; its result comes back."""
        params = {"SeriesInstanceUID": series_instance_uid, "SOPInstanceUID": sop_instance_uid}
        return await self._call(ENDPOINTS["getSingleImage"], params, lambda c, n, _: receive(c, n))

    async def get_image(self, series_instance_uid: str, receive: Receive[T], **options: str) -> T:
        """All files of a series as one zip, handed to `receive`. `options`: NewFileNames, IncludeMD5 (nbia)."""
        params = {"SeriesInstanceUID": series_instance_uid, **options}
        return await self._call(ENDPOINTS["getImage"], params, lambda c, n, _: receive(c, n))

    async def get_image_with_md5_hash(self, series_instance_uid: str, receive: Receive[T]) -> T:
        """nbia: as get_image, with md5hashes.csv and without a LICENSE."""
        params = {"SeriesInstanceUID": series_instance_uid}
        return await self._call(ENDPOINTS["getImageWithMD5Hash"], params, lambda c, n, _: receive(c, n))

    async def get_dcm_image(self, series_instance_uid: str, receive: Receive[T], **options: str) -> T:
        """nbia: as get_image, without a LICENSE, members by their numbers. `options`: MD5Verification=true."""
        params = {"SeriesInstanceUID": series_instance_uid, **options}
        return await self._call(ENDPOINTS["getDCMImage"], params, lambda c, n, _: receive(c, n))

    async def delegate(
        self,
        call: str,
        series_instance_uid: str,
        work: Callable[[], Awaitable[tuple[int, ArchiveError | None]]],
        *,
        told: bool = False,
    ) -> None:
        """Have `work` see to one request, not tried again, under this client's pace; see exchange.delegate."""
        await delegate(self._line, call, series_instance_uid, work, told=told)

    # As it came

    async def raw(
        self, endpoint: Endpoint, params: Mapping[str, str], format: Format | None = None, *, metadata: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Any call's body as it comes, retried until its first byte is out. `metadata`: the call's document."""
        if metadata and self.server.dialect != "tcia":
            raise SettingsError(f"{endpoint.name}: only the tcia dialect has metadata documents")
        if format is not None and format not in endpoint.formats:
            have = ", ".join(endpoint.formats) or "no format parameter"
            raise SettingsError(f"{endpoint.name} has no format {format}; it has: {have}")
        wire = {} if metadata else encode_params(endpoint, self.server.dialect, params)
        if format is not None:
            wire["format"] = format
        url = self.server.url(endpoint) + ("/metadata" if metadata else "")

        async def begin(number: int) -> tuple[bytes, AsyncIterator[bytes], AsyncExitStack]:
            async with AsyncExitStack() as stack:
                exchange = await stack.enter_async_context(Exchange(self._line, endpoint, url, wire, number))
                chunks = await stack.enter_async_context(aclosing(exchange.chunks()))
                return await anext(chunks, b""), chunks, stack.pop_all()

        first, chunks, stack = await retrying(begin, self._settings, self.pace.sleep)
        async with stack:
            if first:
                yield first
            async for chunk in chunks:
                yield chunk

    async def metadata(self, call: str) -> Any:
        """tcia: the document that describes a call, decoded."""
        endpoint = ENDPOINTS[call]
        chunks = [c async for c in self.raw(endpoint, {}, metadata=True)]
        rows = await spool_rows(_again(chunks), "tcia", f"{call}/metadata")
        return list(rows)

    async def is_down(self, error: ArchiveError) -> bool:
        """True when `error` is the archive's being down, not one item's: a small call gets no answer either."""
        try:
            if is_outage(error):
                await self.get_collection_values()
        except ArchiveError as silence:
            return is_outage(silence)
        return False

    async def rows(self, endpoint: Endpoint, params: Mapping[str, str]) -> Rows[dict[str, Any]]:
        """Canonical rows of any call that answers rows."""
        return await self._rows(endpoint.name, lambda r: r, **params)

    # How all of them work

    async def _values(self, call: str, name: str, **where: str) -> list[str | None]:
        return await (await self._rows(call, lambda r: r.get(name), **where)).all()

    async def _rows(self, call: str, read: Callable[[dict[str, Any]], T], **params: str) -> Rows[T]:
        dialect = self.server.dialect
        asked = ""

        async def receive(chunks: AsyncIterator[bytes], _length: int | None, what: str) -> Any:
            nonlocal asked
            asked = what
            return await spool_rows(chunks, dialect, what, self._spool)

        rows = await self._call(ENDPOINTS[call], params, receive)
        return Rows(rows, lambda r: read(decode_row(r)), asked)

    async def _digest(self, call: str, **params: str) -> str | None:
        return await self._call(ENDPOINTS[call], params, lambda c, _n, asked: read_digest(c, asked))

    async def _call(
        self,
        endpoint: Endpoint,
        params: Mapping[str, str],
        receive: Callable[[AsyncIterator[bytes], int | None, str], Awaitable[T]],
    ) -> T:
        """Ask until it is answered or not worth another try; `receive` gets chunks, length and the request in words."""
        wire = encode_params(endpoint, self.server.dialect, params)
        url = self.server.url(endpoint)
        if endpoint.method == "POST" and endpoint.formats:
            wire["format"] = Format.JSON  # what the GET calls answer unasked; getSeriesMetadata answers CSV

        async def once(number: int) -> T:
            async with (
                Exchange(self._line, endpoint, url, wire, number) as exchange,
                aclosing(exchange.chunks()) as chunks,
            ):
                return await receive(chunks, exchange.length, exchange.asked)

        return await retrying(once, self._settings, self.pace.sleep)


def _sop_instance_uid(row: dict[str, Any]) -> str:
    uid = row.get("SOPInstanceUID")
    if not uid:
        raise BadAnswer(f"a row has no SOPInstanceUID: {row!r}")
    return str(uid)


async def _again(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
