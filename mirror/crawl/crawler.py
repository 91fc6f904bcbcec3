"""A scope, collection by collection: which of them it means, and how much of each is asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import anyio

from mirror.crawl.collection import CollectionCrawl
from mirror.crawl.crawling import Crawled, Crawling
from mirror.crawl.leaving import plan_leaving
from mirror.crawl.listed import crawl_listed_series
from mirror.crawl.released import Released
from mirror.errors import ArchiveError, BadAnswer, SettingsError
from mirror.events import CollectionCrawled, ScopeFound
from mirror.ledger import Mark
from mirror.model import FindingKind
from mirror.scope import describe, fingerprint, names_of, nearest
from mirror.settings import seconds_of

#: Collections that are crawled at a time: enough to hide latency, few enough to leave the archive in peace.
_AT_A_TIME = 3
_PAGE = 500
#: A nightly run that begins a little earlier than the last one still finds that the whole walk is due.
_SLACK = 6 * 3600


async def crawl(kit: Crawling) -> Crawled:
    """Crawl and plan a scope, and what is to leave the mirror. Safe to repeat.

    Raises SettingsError for an unknown collection and for restrictions that leave no series, Unreachable when the
    archive is down, and the archive's own error when nothing of the scope could be crawled.
    """
    began = time.time()
    names = await kit.client.get_collection_values()
    if not names:
        # An archive without a collection is none: nothing may pass for a complete mirror of it.
        raise BadAnswer("it names no collection", asked=f"getCollectionValues() at {kit.client.server.base}")
    if kit.client.server.base in kit.client.source.split(", "):
        raise SettingsError(
            f"{kit.client.server.base} is a mirror of mirrors that have their content from itself: {kit.client.source}"
        )
    # A clock that is ahead would have the next crawl begin too late; one that is behind costs a few questions.
    kit.started_at = int(min(began, kit.client.clock or began))
    if kit.scope.series:
        kit.sink(ScopeFound(collections=1))
        await crawl_listed_series(kit)
    else:
        await _crawl_collections(kit, names)
    await plan_leaving(kit)
    return kit.crawled


async def _crawl_collections(kit: Crawling, names: list[str]) -> None:
    crawled, scope = kit.crawled, kit.scope
    known = await kit.ledger.run(kit.ledger.collections_known, kit.client.server.base)
    gone = {name: shown for name, shown in known.items() if name not in names}
    meant = names_of(scope, [*names, *gone], kit.client.server.base)
    kit.sink(ScopeFound(collections=len(meant)))
    errors: list[ArchiveError] = []
    crawls: list[int] = []
    released = Released(kit)
    gate = anyio.CapacityLimiter(_AT_A_TIME)

    async def one(name: str) -> None:
        async with gate:
            try:
                if name in gone and (not gone[name] or await _is_gone(kit, name)):
                    if gone[name]:
                        await _crawl_nothing(kit, name)
                else:
                    crawls.extend(await _crawl_one(kit, name, frozenset(names), released))
                crawled.collections.append(name)
            except* ArchiveError as group:
                error = _first(group)
                if await kit.client.is_down(error):
                    raise error from group
                errors.append(error)
                crawled.failed.append(name)
                kit.notice(FindingKind.CRAWL_FAILED, str(error), collection=name)

    async with anyio.create_task_group() as tasks:
        for name in meant:
            tasks.start_soon(one, name)
    if errors and not crawled.collections:
        raise errors[0]
    nothing = not (crawled.series or crawled.failed) and crawled.whole == crawled.collections
    # A day of release may lie ahead of all that there is: then there is nothing yet.
    if nothing and kit.restricted and not scope.released_since and not await _knows_any(kit, meant):
        raise SettingsError(await _why_nothing(kit, meant, crawls))


async def _crawl_one(kit: Crawling, name: str, names: frozenset[str], released: Released) -> list[int]:
    """Whole, or since the watermark; the number of the crawl where it was whole."""
    mark = await kit.ledger.run(kit.ledger.watermark, kit.client.server.base, name, fingerprint(kit.scope))
    crawl = CollectionCrawl(kit, name, names)
    every = seconds_of(kit.settings.reconcile_every)
    slack = min(_SLACK, every / 10)
    due = bool(every) and mark is not None and kit.started_at - (mark.whole_at or 0) >= every - slack
    # A collection that comes back has the days of release that it had.
    back = mark is not None and not await kit.ledger.run(kit.ledger.is_shown, name)
    # And one whose watermark is of a day to come was crawled when the clocks were wrong.
    ahead = mark is not None and max(mark.at, mark.whole_at or 0) > kit.started_at + _SLACK
    if kit.walk.full or kit.walk.reconcile or (kit.walk.since is None and (mark is None or due or back or ahead)):
        oldest = min(mark.at, kit.started_at) if mark else await kit.ledger.run(kit.ledger.known_since, name)
        since = None if oldest is None else kit.day_before(oldest)
        return [await crawl.whole(digests=kit.walk.reconcile or due, since=since)]
    known = None if mark is None else kit.day_before(mark.at)
    day = kit.walk.since or known or ""
    last = 0 if mark is None else mark.at
    await crawl.since(day, released, last=last, moves=known is not None and day <= known)
    return []


async def _is_gone(kit: Crawling, name: str) -> bool:
    """True when the archive names no collection of that name, and lists no series of it either."""
    return not await (await kit.client.get_series(Collection=name)).all()


async def _crawl_nothing(kit: Crawling, name: str) -> None:
    """Note that a collection is not there any more, as far as the scope goes: all that is known of it is missing."""
    ledger = kit.ledger
    base = kit.client.server.base
    crawl = await ledger.run(ledger.begin_crawl, name, describe(kit.scope, name), kit.started_at, kit.run, base)
    mark = Mark(server=base, scope=fingerprint(kit.scope), at=kit.started_at, whole=True)
    missing = await ledger.run(ledger.finish_crawl, crawl, run=kit.run, mark=mark, within=kit.within)
    kit.crawled.whole.append(name)
    kit.crawled.missing[name] += missing
    kit.sink(CollectionCrawled(collection=name, patients=0, studies=0, series=0, planned=0, planned_bytes=0))


async def _knows_any(kit: Crawling, names: list[str]) -> bool:
    """True when the mirror knows a series of the scope: then there was one, and the scope is not mistaken."""
    for name in names:
        after = 0
        while page := await kit.ledger.run(kit.ledger.series_of, name, after, _PAGE):
            after = page[-1][0]
            if any(kit.within(series) for _, series in page):
                return True
    return False


async def _why_nothing(kit: Crawling, names: list[str], crawls: list[int]) -> str:
    """Which restriction of the scope no series of these collections meets, and what would be near."""
    scope = kit.scope
    of = f"of {', '.join(names)}" if not scope.all else f"at {kit.client.server.base}"
    among: list[dict[str, str]] = [{}] if scope.all else [{"Collection": name} for name in names]
    for keyword, wanted in (
        ("PatientID", scope.patients),
        ("Modality", scope.modalities),
        ("BodyPartExamined", scope.body_parts),
    ):
        known = await _values(kit, keyword, among, crawls) if wanted else []
        if known and not {value.casefold() for value in known} & {value.casefold() for value in wanted}:
            return f"no series {of} has {keyword} {' or '.join(map(repr, wanted))}{nearest(wanted, known)}"
    return f"no series {of} meets the whole scope: {describe(scope)}"


async def _values(kit: Crawling, keyword: str, among: Sequence[Mapping[str, str]], crawls: list[int]) -> list[str]:
    """What the archive has for a keyword; nothing where it does not say."""
    found: dict[str, None] = {}
    if keyword == "PatientID":
        for crawl in crawls:
            found |= dict.fromkeys(await kit.ledger.run(kit.ledger.patient_ids, crawl))
        return [*found]
    ask = kit.client.get_modality_values if keyword == "Modality" else kit.client.get_body_part_values
    for where in among:
        try:
            found |= dict.fromkeys(value for value in await ask(**where) if value)
        except ArchiveError:
            # It is only for the sake of a better message.
            return []
    return [*found]


def _first(group: BaseExceptionGroup[ArchiveError]) -> ArchiveError:
    """The first error of a group, however deep it lies."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
