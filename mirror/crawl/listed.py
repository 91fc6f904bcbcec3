"""Series that a scope names by their UIDs: each is asked for, with its study for the sake of its path."""

from __future__ import annotations

import anyio

from mirror.archive.dialects import unknown_series_hint
from mirror.crawl.crawling import Count, Crawling, no_suspicion
from mirror.errors import ArchiveError, Fate
from mirror.events import CollectionCrawled
from mirror.model import FindingKind
from mirror.scope import describe

_AT_A_TIME = 3
_PAGE = 100


async def crawl_listed_series(kit: Crawling) -> None:
    """Crawl and plan the scope's listed series. A series that cannot be had is a finding. Safe to repeat."""
    client, ledger, uids = kit.client, kit.ledger, kit.scope.series
    label = f"{len(uids)} listed series"
    words = describe(kit.scope, "listed series")
    crawl = await ledger.run(ledger.begin_crawl, "", words, kit.started_at, kit.run, client.server.base)
    count = Count()
    asked_studies: set[tuple[str, str]] = set()
    asked_collections: set[str] = set()
    lock = anyio.Lock()
    gate = anyio.CapacityLimiter(_AT_A_TIME)

    async def one(uid: str) -> None:
        async with gate:
            try:
                await plan(uid)
            except ArchiveError as error:
                if await client.is_down(error):
                    raise
                kit.crawled.refused.append(uid)
                kind = FindingKind.UNAVAILABLE if error.fate is Fate.RETRY else FindingKind.SERIES_REFUSED
                kit.notice(kind, str(error), series=uid)

    async def plan(uid: str) -> None:
        listed = await (await client.get_series(SeriesInstanceUID=uid)).all()
        found = [series for series in listed if kit.within(series)]
        if not found:
            kit.crawled.refused.append(uid)
            left_out = [f"the scope leaves it out: {kit.beyond(series)}" for series in listed]
            said = (left_out or [unknown_series_hint(client.server)])[0]
            kit.notice(FindingKind.SERIES_REFUSED, said, series=uid)
            return
        # One after the other: a study's row must be in before its second series is given a directory.
        async with lock:
            for name in {series.collection for series in found} - asked_collections:
                await _ask_what_is_named(kit, crawl, name)
                asked_collections.add(name)
            for study in {(s.collection, s.study_instance_uid) for s in found} - asked_studies:
                rows = await client.get_patient_study(collection=study[0], StudyInstanceUID=study[1])
                await ledger.run(ledger.fill_in_studies, crawl, await rows.all())
                asked_studies.add(study)
        suspect = kit.suspect_named(crawl) if client.server.dialect == "tcia" else no_suspicion
        planned = await ledger.run(kit.decided, found, count, suspect)
        await ledger.run(ledger.plan_series, crawl, kit.run, planned)

    for start in range(0, len(uids), _PAGE):
        async with anyio.create_task_group() as tasks:
            for uid in uids[start : start + _PAGE]:
                tasks.start_soon(one, uid)
    await ledger.run(ledger.finish_crawl, crawl)
    kit.crawled.collections.append(label)
    kit.sink(
        CollectionCrawled(
            collection=label, patients=0, studies=len(asked_studies), series=count.series,
            planned=count.planned, planned_bytes=count.planned_bytes,
        )
    )  # fmt: skip


async def _ask_what_is_named(kit: Crawling, crawl: int, collection: str) -> None:
    """In the tcia dialect, which studies of a collection were released since its series were seen last."""
    since = await kit.ledger.run(kit.ledger.known_since, collection)
    if kit.client.server.dialect != "tcia" or since is None:
        return
    named = await kit.client.new_studies_in_patient_collection(collection=collection, since=kit.day_before(since))
    async for studies in named.batches():
        await kit.ledger.run(kit.ledger.put_named_studies, crawl, studies)
