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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from mirror.archive.client import ArchiveClient
from mirror.archive.dialects import unknown_series_hint
from mirror.errors import ArchiveError, BadAnswer, BodyCut, Fate, ServerFault, SettingsError, Stalled
from mirror.events import CollectionCrawled, EventSink, Noticed, ScopeFound
from mirror.layout import Layout
from mirror.ledger import Ledger
from mirror.model import Finding, FindingKind, Scope, Series
from mirror.plan import decide

#: Collections that are crawled at a time: enough to hide latency, few enough to leave the archive in peace.
_AT_A_TIME = 3
#: So many values are told whole, not only the nearest.
_FEW = 3


@dataclass(slots=True)
class Crawled:
    """What a crawl found: collections done and failed, and series that stay as they are."""

    collections: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    #: Series asked for by UID that the archive does not give.
    refused: list[str] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)
    #: How many series of the scope the archive gave.
    series: int = 0


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
        self._names: frozenset[str] = frozenset()
        self._crawls: list[int] = []

    async def crawl(self, scope: Scope) -> Crawled:
        """Crawl and plan a scope. Safe to repeat.

        Raises SettingsError for an unknown collection and for restrictions that leave no series, Unreachable when the
        archive is down, and the archive's own error when nothing of the scope could be crawled.
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
        if not (crawled.series or crawled.failed) and (scope.patients or scope.modalities or scope.body_parts):
            raise SettingsError(await self._why_nothing(scope, names))
        return crawled

    async def _collections(self, scope: Scope) -> list[str]:
        """The archive's spelling of the scope's collections."""
        names = await self._client.get_collection_values()
        if not names:
            # An archive without a collection is none: nothing may pass for a complete mirror of it.
            raise BadAnswer("it names no collection", asked=f"getCollectionValues() at {self._client.server.base}")
        self._names = frozenset(names)
        if scope.all:
            return names
        found: dict[str, None] = {}
        for asked in scope.collections:
            # Two collections may differ in case only: then the exact spelling means one, and any other means both.
            same = [asked] if asked in names else [name for name in names if name.casefold() == asked.casefold()]
            if not same:
                raise SettingsError(
                    f"collection {asked!r} is not among the {len(names)} of {self._client.server.base}"
                    f"{_nearest([asked], names)}"
                )
            found |= dict.fromkeys(same)
        return list(found)

    async def _why_nothing(self, scope: Scope, names: list[str]) -> str:
        """Which restriction of the scope no series of these collections meets, and what would be near."""
        of = f"of {', '.join(names)}" if not scope.all else f"at {self._client.server.base}"
        among: list[dict[str, str]] = [{}] if scope.all else [{"Collection": name} for name in names]
        for keyword, wanted in (
            ("PatientID", scope.patients),
            ("Modality", scope.modalities),
            ("BodyPartExamined", scope.body_parts),
        ):
            known = await self._values(keyword, among) if wanted else []
            if known and not {value.casefold() for value in known} & {value.casefold() for value in wanted}:
                return f"no series {of} has {keyword} {' or '.join(map(repr, wanted))}{_nearest(wanted, known)}"
        return f"no series {of} meets the whole scope: {describe(scope)}"

    async def _values(self, keyword: str, among: Sequence[Mapping[str, str]]) -> list[str]:
        """What the archive has for a keyword; nothing where it does not say."""
        found: dict[str, None] = {}
        if keyword == "PatientID":
            for crawl in self._crawls:
                found |= dict.fromkeys(await self._ledger.run(self._ledger.patient_ids, crawl))
            return [*found]
        ask = self._client.get_modality_values if keyword == "Modality" else self._client.get_body_part_values
        for where in among:
            try:
                found |= dict.fromkeys(value for value in await ask(**where) if value)
            except ArchiveError:
                # It is only for the sake of a better message.
                return []
        return [*found]

    async def _crawl_collection(self, collection: str, scope: Scope, crawled: Crawled) -> None:
        count = _Count()
        crawl = await self._ledger.run(
            self._ledger.begin_crawl, collection, describe(scope, collection), int(time.time()), self._run
        )
        self._crawls.append(crawl)
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
        crawled.series += count.series
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
                # A server that does not mind case, or ignores the parameter, also gives what is another collection's.
                others = self._names - {where["Collection"]}
                wanted = [s for s in batch if s.collection not in others and not _outside(s, scope)]
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
                    await plan(uid)
                except ArchiveError as error:
                    if await self._client.is_down(error):
                        raise
                    crawled.refused.append(uid)
                    kind = FindingKind.UNAVAILABLE if error.fate is Fate.RETRY else FindingKind.SERIES_REFUSED
                    self._notice(kind, str(error), series=uid)

        async def plan(uid: str) -> None:
            listed = await (await self._client.get_series(SeriesInstanceUID=uid)).all()
            found = [s for s in listed if not _outside(s, scope)]
            if not found:
                crawled.refused.append(uid)
                left_out = [f"the scope leaves it out: {_outside(s, scope)}" for s in listed]
                said = (left_out or [unknown_series_hint(self._client.server)])[0]
                self._notice(FindingKind.SERIES_REFUSED, said, series=uid)
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


def _outside(series: Series, scope: Scope) -> str:
    """How a series is not of the scope; "" when it is: a server that ignores a parameter must not widen it."""
    for keyword, wanted, value in (
        ("Collection", scope.collections, series.collection),
        ("PatientID", scope.patients, series.patient_id),
        ("Modality", scope.modalities, series.modality),
        ("BodyPartExamined", scope.body_parts, series.body_part_examined),
    ):
        if wanted and (value or "").casefold() not in {w.casefold() for w in wanted}:
            return f"its {keyword} is {value or '(none)'}, not {' or '.join(wanted)}"
    return ""


def _nearest(wanted: Sequence[str], known: Sequence[str]) -> str:
    """What of `known` comes near, for the end of a message; of a few, all."""
    if len(known) <= _FEW:
        return f"; the nearest are: {', '.join(sorted(known))}" if known else ""
    by_folded = {name.casefold(): name for name in known}
    near = [n for w in wanted for n in difflib.get_close_matches(w.casefold(), by_folded, n=3, cutoff=0.5)]
    return f"; the nearest are: {', '.join(by_folded[n] for n in dict.fromkeys(near))}" if near else ""


def _batched(uids: tuple[str, ...], size: int = 100) -> list[tuple[str, ...]]:
    return [uids[i : i + size] for i in range(0, len(uids), size)]
