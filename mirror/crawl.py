"""Collections -> patients -> studies -> series: the archive's side of a scope, written down as a plan.

Each collection is asked for whole (three calls, whatever its size); where that fails, because a server cannot bear
it, its series are asked for patient by patient. Rows go into the ledger in batches as they come, each series with the
action that plan.decide gives it and with its directory, so nothing here holds a collection. A collection that cannot
be crawled is a finding; the others go on.
"""

from __future__ import annotations

import difflib
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio

from mirror.archive.client import ArchiveClient
from mirror.archive.dialects import unknown_series_hint
from mirror.errors import ArchiveError, BadAnswer, BodyCut, ServerFault, SettingsError, Stalled
from mirror.events import CollectionCrawled, EventSink, Noticed, ScopeFound
from mirror.layout import Layout
from mirror.ledger import Ledger
from mirror.model import Finding, FindingKind, Scope, Series
from mirror.plan import decide

#: Collections that are crawled at a time: enough to hide latency, few enough to leave the archive in peace.
_AT_A_TIME = 3


@dataclass(slots=True)
class Crawled:
    """What a crawl found: collections done and failed, and series that stay as they are."""

    collections: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    #: Series asked for by UID that the archive does not give.
    refused: list[str] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Count:
    patients: int = 0
    studies: int = 0
    series: int = 0
    planned: int = 0
    planned_bytes: int = 0


class Crawler:
    """One run's crawl: a client to ask, a ledger to write to, and the name of the run that is planned for."""

    def __init__(self, client: ArchiveClient, ledger: Ledger, layout: Layout, run: str, sink: EventSink) -> None:
        self._client = client
        self._ledger = ledger
        self._layout = layout
        self._run = run
        self._sink = sink

    async def crawl(self, scope: Scope) -> Crawled:
        """Crawl and plan a scope. Safe to repeat.

        Raises SettingsError for an unknown collection, Unreachable when the archive is down, and the archive's own
        error when nothing of the scope could be crawled.
        """
        crawled = Crawled()
        if scope.series:
            self._sink(ScopeFound(collections=1))
            await self._crawl_listed_series(scope, crawled)
            return crawled
        names = await self._collections(scope)
        self._sink(ScopeFound(collections=len(names)))
        errors: list[ArchiveError] = []
        gate = anyio.CapacityLimiter(_AT_A_TIME)

        async def one(name: str) -> None:
            async with gate:
                try:
                    await self._crawl_collection(name, scope, crawled)
                    crawled.collections.append(name)
                except ArchiveError as error:
                    if await self._client.is_down(error):
                        raise
                    errors.append(error)
                    crawled.failed.append(name)
                    self._notice(FindingKind.CRAWL_FAILED, str(error), collection=name)

        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(one, name)
        if errors and not crawled.collections:
            raise errors[0]
        return crawled

    async def _collections(self, scope: Scope) -> list[str]:
        """The archive's spelling of the scope's collections."""
        names = await self._client.get_collection_values()
        if not names:
            # An archive without a collection is none: nothing may pass for a complete mirror of it.
            raise BadAnswer("it names no collection", asked=f"getCollectionValues() at {self._client.server.base}")
        if scope.all:
            return names
        by_folded = {name.casefold(): name for name in names}
        found: dict[str, None] = {}
        for asked in scope.collections:
            name = by_folded.get(asked.casefold())
            if name is None:
                near = difflib.get_close_matches(asked.casefold(), by_folded, n=3, cutoff=0.5)
                hint = f"; the nearest are: {', '.join(by_folded[n] for n in near)}" if near else ""
                raise SettingsError(
                    f"collection {asked!r} is not among the {len(names)} of {self._client.server.base}{hint}"
                )
            found[name] = None
        return list(found)

    async def _crawl_collection(self, collection: str, scope: Scope, crawled: Crawled) -> None:
        count = _Count()
        crawl = await self._ledger.run(
            self._ledger.begin_crawl, collection, describe(scope, collection), int(time.time()), self._run
        )
        patients = await self._client.get_patient(collection=collection)
        async for patient_rows in patients.batches():
            count.patients += len(patient_rows)
            await self._ledger.run(self._ledger.put_patients, crawl, patient_rows)
        by_patient: list[dict[str, str]] = [{"PatientID": p} for p in scope.patients] or [{}]
        for where in by_patient:
            studies = await self._client.get_patient_study(collection=collection, **where)
            async for study_rows in studies.batches():
                count.studies += len(study_rows)
                await self._ledger.run(self._ledger.put_studies, crawl, study_rows)
        for where in by_patient:
            try:
                await self._crawl_series({"Collection": collection, **where}, crawl, scope, crawled, count)
            except (ServerFault, Stalled, BodyCut):
                if where:
                    raise
                # Too much for the server at once: the same, patient by patient.
                for patient_id in await self._ledger.run(self._ledger.patient_ids, crawl):
                    narrow = {"Collection": collection, "PatientID": patient_id}
                    await self._crawl_series(narrow, crawl, scope, crawled, count)
        if count.series == 0 and not (scope.patients or scope.modalities or scope.body_parts):
            # The archive lists a collection only while it has a visible series: an empty answer is no answer.
            raise ServerFault("lists no series, though getCollectionValues names it", asked=f"collection {collection}")
        await self._ledger.run(self._ledger.finish_crawl, crawl)
        self._sink(
            CollectionCrawled(
                collection=collection,
                patients=count.patients,
                studies=count.studies,
                series=count.series,
                planned=count.planned,
                planned_bytes=count.planned_bytes,
            )
        )

    async def _crawl_series(
        self, where: Mapping[str, str], crawl: int, scope: Scope, crawled: Crawled, count: _Count
    ) -> None:
        """getSeries for every combination of the scope's modalities and body parts."""
        for modality, body_part in itertools.product(scope.modalities or (None,), scope.body_parts or (None,)):
            narrowed = dict(where)
            if modality is not None:
                narrowed["Modality"] = modality
            if body_part is not None:
                narrowed["BodyPartExamined"] = body_part
            rows = await self._client.get_series(**narrowed)
            async for batch in rows.batches():
                wanted = [series for series in batch if _within(series, scope)]
                kept = await self._ledger.run(self._plan, crawl, wanted, count)
                for name, number in kept.items():
                    crawled.kept[name] = crawled.kept.get(name, 0) + number

    def _plan(self, crawl: int, batch: list[Series], count: _Count) -> dict[str, int]:
        """Decide on a batch and write it down; how many series of each collection are kept as they are."""
        planned = []
        kept: dict[str, int] = {}
        for series in batch:
            held = self._ledger.held_series(series.series_instance_uid)
            action = decide(series, held.series if held else None, held.state if held else None)
            directory = self._ledger.directory_of(series.series_instance_uid)
            if directory is None:
                study = self._ledger.study(series.collection, series.patient_id, series.study_instance_uid)
                directory = self._ledger.claim_directory(self._layout.directory(series, study))
            planned.append((series, action, directory))
            count.series += 1
            if action.fetch:
                count.planned += 1
                count.planned_bytes += series.file_size or 0
            else:
                kept[series.collection] = kept.get(series.collection, 0) + 1
        self._ledger.plan_series(crawl, self._run, planned)
        return kept

    async def _crawl_listed_series(self, scope: Scope, crawled: Crawled) -> None:
        """A scope that names series: each is asked for by its UID, with its study for the sake of its path."""
        label = f"{len(scope.series)} listed series"
        crawl = await self._ledger.run(
            self._ledger.begin_crawl, "", describe(scope, "listed series"), int(time.time()), self._run
        )
        count = _Count()
        asked_studies: set[tuple[str, str]] = set()
        gate = anyio.CapacityLimiter(_AT_A_TIME)

        async def one(uid: str) -> None:
            async with gate:
                try:
                    await listed(uid)
                except ArchiveError as error:
                    if await self._client.is_down(error):
                        raise
                    crawled.refused.append(uid)
                    self._notice(FindingKind.SERIES_REFUSED, str(error), series=uid)

        async def listed(uid: str) -> None:
            found = [s for s in await (await self._client.get_series(SeriesInstanceUID=uid)).all() if _within(s, scope)]
            if not found:
                crawled.refused.append(uid)
                self._notice(FindingKind.SERIES_REFUSED, unknown_series_hint(self._client.server), series=uid)
                return
            for study in {(s.collection, s.study_instance_uid) for s in found} - asked_studies:
                asked_studies.add(study)
                rows = await self._client.get_patient_study(collection=study[0], StudyInstanceUID=study[1])
                await self._ledger.run(self._ledger.put_studies, crawl, await rows.all())
            for name, number in (await self._ledger.run(self._plan, crawl, found, count)).items():
                crawled.kept[name] = crawled.kept.get(name, 0) + number

        for chunk in _batched(scope.series):
            async with anyio.create_task_group() as tasks:
                for uid in chunk:
                    tasks.start_soon(one, uid)
        await self._ledger.run(self._ledger.finish_crawl, crawl)
        crawled.collections.append(label)
        self._sink(
            CollectionCrawled(
                collection=label, patients=0, studies=len(asked_studies), series=count.series,
                planned=count.planned, planned_bytes=count.planned_bytes,
            )
        )  # fmt: skip

    def _notice(self, kind: FindingKind, detail: str, collection: str | None = None, series: str | None = None) -> None:
        self._sink(
            Noticed(finding=Finding(kind=kind, detail=detail, collection=collection, series_instance_uid=series))
        )


def describe(scope: Scope, collections: str | None = None) -> str:
    """A scope in words, the same words for the same scope."""
    parts = [collections or ("all collections" if scope.all else ", ".join(scope.collections) or "listed series")]
    for name, values in (
        ("PatientID", scope.patients),
        ("Modality", scope.modalities),
        ("BodyPartExamined", scope.body_parts),
    ):
        if values:
            parts.append(f"{name} {' or '.join(sorted(values))}")
    if scope.series:
        parts.append(f"{len(scope.series)} listed series")
    return "; ".join(parts)


def _within(series: Series, scope: Scope) -> bool:
    """True for a series of the scope: a server that ignores a parameter must not widen it."""
    tests = (
        (scope.collections, series.collection),
        (scope.patients, series.patient_id),
        (scope.modalities, series.modality),
        (scope.body_parts, series.body_part_examined),
    )
    return all(not wanted or (value or "").casefold() in {w.casefold() for w in wanted} for wanted, value in tests)


def _batched(uids: tuple[str, ...], size: int = 100) -> list[tuple[str, ...]]:
    return [uids[i : i + size] for i in range(0, len(uids), size)]
