"""One collection: walked whole, or asked for what was released since a day.

Both end in one transaction that writes the last planned rows, notes what is missing and moves the watermark: a crawl
that is cut off anywhere before leaves the watermark where it was, and the next one asks for the same again.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from typing import TypeVar

import anyio

from mirror.crawl.crawling import Count, Crawling, Suspect, no_suspicion
from mirror.crawl.released import Known, Released
from mirror.digests import Level, differing_series, differing_series_in, highest_level, is_same
from mirror.errors import BodyCut, ServerFault, Stalled
from mirror.events import CollectionCrawled
from mirror.ledger import Comparison, Mark, Planned
from mirror.model import Action, Patient, Series, Study, Why
from mirror.scope import describe, fingerprint

#: More studies than these are not walked one by one: the collection's list, or its digest, is one request.
_MANY = 200
Row = TypeVar("Row", Patient, Study, Series)
#: Studies that are walked at a time.
_AT_A_TIME = 4
_PAGE = 500


class CollectionCrawl:
    """One crawl of one collection. Used once."""

    def __init__(self, kit: Crawling, collection: str, others: frozenset[str]) -> None:
        self._kit = kit
        self._collection = collection
        #: A server that does not mind case, or ignores the parameter, also gives what is another collection's.
        self._others = others - {collection}
        self._words = describe(kit.scope, collection)
        self._count = Count()
        self._crawl = 0
        #: The newest rows, which go with the watermark; those before them are in the ledger.
        self._last: list[Planned] = []

    async def whole(self, *, digests: bool, since: str | None = None) -> int:
        """Ask for everything of the scope; `digests`: and compare what is held with the archive's digests of it.

        `since`: the ISO day from which on what is held may have been released once more. Where rows tell no days
        (tcia), only the since-calls tell of that, and the watermark moves beyond it.

        Gives back the crawl's number. Raises ArchiveError where the collection cannot be crawled.
        """
        kit, scope = self._kit, self._kit.scope
        await self._begin()
        await self._patients()
        by_patient: list[dict[str, str]] = [{"PatientID": p} for p in scope.patients] or [{}]
        for where in by_patient:
            await self._studies(**where)
        suspect: Suspect = no_suspicion
        if since is not None and kit.client.server.dialect == "tcia":
            suspect = kit.suspect_named(self._crawl)
            named = await kit.client.new_studies_in_patient_collection(collection=self._collection, since=since)
            async for studies in named.batches():
                await kit.ledger.run(kit.ledger.put_named_studies, self._crawl, self._ours(studies))
        for where in by_patient:
            await self._all_series(where, suspect)
        if self._count.series == 0 and not self._kit.restricted:
            # The archive lists a collection only while it has a visible series: an empty answer is no answer.
            raise ServerFault(
                "lists no series, though getCollectionValues names it", asked=f"collection {self._collection}"
            )
        silent = [uid async for uid in self._silently_changed()] if digests else []
        await self._finish(
            Mark(server=kit.client.server.base, scope=fingerprint(scope), at=kit.started_at, whole=True), silent
        )
        kit.crawled.whole.append(self._collection)
        return self._crawl

    async def since(self, day: str, released: Released, *, last: int, moves: bool) -> None:
        """Ask what was released since an ISO day; `moves`: what came before it is known, so the watermark moves.

        `last`: when the crawl before this one began, 0: there was none.

        What is known and not finished is planned again. Raises ArchiveError where the collection cannot be crawled.
        """
        kit = self._kit
        await self._begin()
        patients = await kit.client.new_patients_in_collection(collection=self._collection, since=day)
        async for batch in patients.batches():
            self._count.patients += len(batch)
            await kit.ledger.run(kit.ledger.put_patients, self._crawl, self._ours(batch), in_part=True)
        waiting: list[Study] = []
        told_of_once: list[tuple[str, str]] = []
        patients_meant = {patient.casefold() for patient in kit.scope.patients}
        named = await kit.client.new_studies_in_patient_collection(collection=self._collection, since=day)
        async for batch_of_studies in named.batches():
            studies = self._ours(batch_of_studies)
            self._count.studies += len(studies)
            await kit.ledger.run(kit.ledger.put_named_studies, self._crawl, studies)
            known = await released.known(day)
            for study in studies:
                if patients_meant and study.patient_id.casefold() not in patients_meant:
                    continue
                quiet = known.get(study.study_instance_uid)
                if quiet is None or not _is_all(study, quiet):
                    if len(waiting) <= _MANY:
                        waiting.append(study)
                elif not quiet.is_over(last):
                    told_of_once.append((study.patient_id, study.study_instance_uid))
        await self._walk(waiting)
        await self._plan_unfinished()
        mark = Mark(server=kit.client.server.base, scope=fingerprint(kit.scope), at=kit.started_at, whole=False)
        silent = await self._told_twice(told_of_once)
        await self._finish(mark if moves else None, silent, since=day)
        kit.crawled.kept[self._collection] += await kit.ledger.run(self._count_others)

    # Steps of both

    def _ours(self, batch: list[Row]) -> list[Row]:
        """The rows that are of this collection."""
        return [row for row in batch if row.collection not in self._others]

    async def _begin(self) -> None:
        ledger = self._kit.ledger
        self._crawl = await ledger.run(
            ledger.begin_crawl,
            self._collection,
            self._words,
            self._kit.started_at,
            self._kit.run,
            self._kit.client.server.base,
        )

    async def _patients(self) -> None:
        ledger = self._kit.ledger
        patients = await self._kit.client.get_patient(collection=self._collection)
        async for batch in patients.batches():
            self._count.patients += len(batch)
            await ledger.run(ledger.put_patients, self._crawl, self._ours(batch))

    async def _studies(self, **where: str) -> None:
        ledger = self._kit.ledger
        studies = await self._kit.client.get_patient_study(collection=self._collection, **where)
        async for batch in studies.batches():
            self._count.studies += len(batch)
            await ledger.run(ledger.put_studies, self._crawl, self._ours(batch))

    async def _all_series(self, where: Mapping[str, str], suspect: Suspect = no_suspicion) -> None:
        """Every series of the collection, or of one patient of it."""
        ledger = self._kit.ledger
        try:
            await self._series(where, suspect)
        except (ServerFault, Stalled, BodyCut):
            if where:
                raise
            # Too much for the server at once: the same, patient by patient.
            for patient_id in await ledger.run(ledger.patient_ids, self._crawl):
                await self._series({"PatientID": patient_id}, suspect)

    async def _series(self, where: Mapping[str, str], suspect: Suspect) -> None:
        """getSeries for every combination of the scope's modalities and body parts."""
        scope = self._kit.scope
        for modality, body_part in itertools.product(scope.modalities or (None,), scope.body_parts or (None,)):
            narrowed = {"Collection": self._collection, **where}
            if modality is not None:
                narrowed["Modality"] = modality
            if body_part is not None:
                narrowed["BodyPartExamined"] = body_part
            rows = await self._kit.client.get_series(**narrowed)
            async for batch in rows.batches():
                await self._put(batch, suspect)

    async def _put(self, batch: list[Series], suspect: Suspect) -> None:
        """Decide on rows of getSeries; they wait here until there are more, or the crawl is finished."""
        kit, ledger = self._kit, self._kit.ledger
        wanted = [series for series in self._ours(batch) if kit.within(series)]
        before, self._last = self._last, await ledger.run(kit.decided, wanted, self._count, suspect)
        if before:
            await ledger.run(ledger.plan_series, self._crawl, kit.run, before)

    async def _finish(self, mark: Mark | None, silent: list[str] | tuple[()], since: str | None = None) -> None:
        kit, count = self._kit, self._count
        silently = Action(fetch=True, why=Why.CHANGED, detail="the archive's digest is another", doubt=True)
        again = dict.fromkeys(silent)
        last: list[Planned] = []
        for series, action, directory in self._last:
            told = series.series_instance_uid in again and not action.fetch
            last.append((series, silently if told else action, directory))
            if action.fetch:
                # Its row has told already.
                again.pop(series.series_instance_uid, None)
        kit.crawled.kept[self._collection] -= len(again)
        count.planned += len(again)
        missing = await kit.ledger.run(
            kit.ledger.finish_crawl, self._crawl, last, run=kit.run, mark=mark, within=kit.within, again=[*again]
        )
        kit.crawled.missing[self._collection] += missing
        kit.crawled.series += count.series
        kit.sink(
            CollectionCrawled(
                collection=self._collection, patients=count.patients, studies=count.studies, series=count.series,
                planned=count.planned, planned_bytes=count.planned_bytes, since=since,
            )
        )  # fmt: skip

    # Steps of a whole walk

    async def _silently_changed(self) -> AsyncIterator[str]:
        """Complete series of the scope whose digest at the archive is not that of what is held."""
        kit = self._kit
        if kit.client.server.dialect != "nbia" or not await kit.ledger.run(kit.ledger.holds, self._collection):
            return
        with Comparison(kit.ledger.path.parents[1]) as ours:
            top = highest_level(kit.scope)
            async for uid in self._of_scope(differing_series(kit.client, ours, self._collection, top=top)):
                yield uid

    async def _of_scope(self, uids: AsyncIterator[str]) -> AsyncIterator[str]:
        async for uid in uids:
            held = await self._kit.ledger.run(self._kit.ledger.held_series, uid)
            if held is not None and self._kit.within(held.series):
                yield uid

    # Steps of a since-crawl

    async def _walk(self, studies: list[Study]) -> None:
        """The series of the studies that a since-call named."""
        kit = self._kit
        silent_rows = kit.client.server.dialect == "tcia"
        suspect = kit.suspect_named(self._crawl) if silent_rows else no_suspicion
        if (silent_rows and studies) or len(studies) > _MANY:
            # There the since-calls tell little more than UIDs; and a list that is too long is asked for by patient.
            await self._patients()
        if len(studies) > _MANY:
            if silent_rows:
                await self._studies_named()
            await self._all_series({}, suspect)
            return
        gate = anyio.CapacityLimiter(_AT_A_TIME)
        lock = anyio.Lock()

        async def one(study: Study) -> None:
            async with gate:
                uid = study.study_instance_uid
                if silent_rows:
                    told = await (
                        await kit.client.get_patient_study(collection=self._collection, StudyInstanceUID=uid)
                    ).all()
                    await kit.ledger.run(kit.ledger.fill_in_studies, self._crawl, told)
                series = await (await kit.client.get_series(Collection=self._collection, StudyInstanceUID=uid)).all()
                if not series:
                    raise ServerFault("lists no series, though the study is named as released", asked=f"study {uid}")
                async with lock:
                    await self._put(series, suspect)

        async with anyio.create_task_group() as tasks:
            for study in studies:
                tasks.start_soon(one, study)

    async def _studies_named(self) -> None:
        ledger = self._kit.ledger
        studies = await self._kit.client.get_patient_study(collection=self._collection)
        async for batch in studies.batches():
            await ledger.run(ledger.fill_in_studies, self._crawl, self._ours(batch))

    async def _plan_unfinished(self) -> None:
        """Plan what is known, wanted and not complete: its row is not asked for again, its instances are."""
        kit, after = self._kit, 0
        waiting = {series.series_instance_uid for series, _, _ in self._last}
        while page := await kit.ledger.run(kit.ledger.unfinished, self._collection, kit.run, after, _PAGE):
            after = page[-1][0]
            uids = [s.series_instance_uid for _, s in page if s.series_instance_uid not in waiting and kit.within(s)]
            self._count.planned += len(uids)
            await kit.ledger.run(kit.ledger.plan_again, kit.run, uids, Why.UNFINISHED)

    async def _told_twice(self, studies: list[tuple[str, str]]) -> list[str]:
        """Series of these studies, (PatientID, StudyInstanceUID), that were released once more on the same day.

        Where they are many, the collection's digest is asked first: if that agrees, nothing in any of them changed.
        """
        if not studies:
            return []
        with Comparison(self._kit.ledger.path.parents[1]) as ours:
            all_of_it = highest_level(self._kit.scope) is Level.COLLECTION
            if len(studies) > _MANY and all_of_it and await is_same(self._kit.client, ours, self._collection):
                return []
            differing = differing_series_in(self._kit.client, ours, self._collection, studies)
            return [uid async for uid in self._of_scope(differing)]

    def _count_others(self) -> int:
        """Series of the scope that stay as they are though nobody asked for them. Blocks."""
        kit = self._kit
        if not kit.restricted:
            return kit.ledger.count_kept(self._collection, self._crawl)
        kept, after = 0, 0
        while page := kit.ledger.kept_series(self._collection, self._crawl, after, _PAGE):
            after = page[-1][0]
            kept += sum(kit.within(series) for _, series in page)
        return kept


def _is_all(study: Study, known: Known) -> bool:
    """True when as many of its series are known as the since-call counts: others may be shown to us alone."""
    counted = study.raw.get("SeriesCount")
    return counted is not None and known.series >= counted
