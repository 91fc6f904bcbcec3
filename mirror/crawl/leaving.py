"""Which series are to leave the mirror, and on whose word: part of the plan, and done only when the run has ended well.

A series is due when a whole crawl lacked it, another one lacked it that began sync.withdraw_after later, and none in
between had it. Where the archive can be asked (getSeriesQCInfo, nbia) it must say that the series is hidden or gone,
and must tell of one that is there: to one without rights it says nothing of any.
More than sync.max_withdraw of them at once is more likely a fault than a wish.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

from mirror.crawl.crawling import Crawling
from mirror.errors import ArchiveError
from mirror.ledger import OUTSIDE
from mirror.model import FindingKind, Series
from mirror.settings import seconds_of

T = TypeVar("T")

_PAGE = 500
_SHOWN = "visible"


async def plan_leaving(kit: Crawling) -> None:
    """Mark what this run is to take out of the mirror. Safe to repeat. Raises the ArchiveError of a dead archive."""
    crawled, ledger = kit.crawled, kit.ledger
    if crawled.failed or crawled.refused:
        if due := [series async for _, series in _first(_overdue(kit))]:
            said = "some series could leave the mirror; not in a run whose crawl had errors"
            kit.notice(FindingKind.MISSING_UPSTREAM, said, due[0].collection)
        return
    most = await _most(kit)
    planned = 0
    async for page in _pages(_leaving(kit), min(_PAGE, most + 1)):
        planned += len(page)
        if planned > most and not kit.walk.force:
            crawled.leaving_refused = True
            await ledger.run(ledger.stay, kit.run)
            kit.notice(
                FindingKind.WITHDRAWAL_REFUSED,
                f"more series would leave the mirror than the {most} that sync.max_withdraw and"
                f" sync.max_withdraw_percent allow ({await _count(kit)} are due); none does, --force lets them go",
            )
            return
        await ledger.run(ledger.plan_leaving, kit.run, page)


async def _leaving(kit: Crawling) -> AsyncIterator[tuple[int, str]]:
    """(ledger number, why) of every series that is to go, confirmed where the archive can be asked."""
    if kit.walk.retire_outside:
        async for id_, _ in _outside(kit):
            yield id_, OUTSIDE
    trusted: dict[str, bool] = {}
    async for id_, series in _overdue(kit):
        if series.collection not in trusted:
            trusted[series.collection] = await _is_told(kit, series.collection)
        if trusted[series.collection] and (why := await _confirmed(kit, series)) is not None:
            yield id_, why


async def _count(kit: Crawling) -> int:
    outside = [1 async for _ in _outside(kit)] if kit.walk.retire_outside else []
    return len(outside) + sum([1 async for _ in _overdue(kit)])


async def _pages(items: AsyncIterator[T], size: int) -> AsyncIterator[list[T]]:
    page: list[T] = []
    async for item in items:
        page.append(item)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page


async def _first(items: AsyncIterator[T]) -> AsyncIterator[T]:
    async for item in items:
        yield item
        return


async def _most(kit: Crawling) -> int:
    known = await kit.ledger.run(kit.ledger.known_series)
    share = int(known * kit.settings.max_withdraw_percent / 100)
    return min(kit.settings.max_withdraw, max(1, share))


async def _overdue(kit: Crawling) -> AsyncIterator[tuple[int, Series]]:
    """Series of collections that were walked whole which have been missing for long enough."""
    before = int(kit.started_at - seconds_of(kit.settings.withdraw_after))
    for collection in kit.crawled.whole:
        after = 0
        while page := await kit.ledger.run(kit.ledger.overdue, collection, before, after, _PAGE):
            after = page[-1][0]
            for id_, series in page:
                if kit.within(series):
                    yield id_, series


async def _outside(kit: Crawling) -> AsyncIterator[tuple[int, Series]]:
    """Series with files in the tree that are none of the scope."""
    listed = frozenset(kit.scope.series)
    after = 0
    while page := await kit.ledger.run(kit.ledger.holding, after, _PAGE):
        after = page[-1][0]
        for id_, series in page:
            if not kit.within(series) or (listed and series.series_instance_uid not in listed):
                yield id_, series


async def _is_told(kit: Crawling, collection: str) -> bool:
    """True where getSeriesQCInfo tells of a series that is there: to one who has no rights it tells of none."""
    if kit.client.server.dialect != "nbia":
        return True
    uid = await kit.ledger.run(kit.ledger.shown_series, collection)
    if kit.walk.force if uid is None else await _visibility(kit, uid, collection):
        return True
    said = "nothing is withdrawn: getSeriesQCInfo does not tell of a series that is there, so its silence tells nothing"
    kit.notice(FindingKind.MISSING_UPSTREAM, said, collection)
    return False


async def _visibility(kit: Crawling, uid: str, collection: str) -> list[str] | None:
    """What getSeriesQCInfo says of a series, nothing where it has none; None where it does not answer."""
    try:
        rows = await (await kit.client.get_series_qc_info(uid)).all()
    except ArchiveError as error:
        if await kit.client.is_down(error):
            raise
        kit.notice(FindingKind.MISSING_UPSTREAM, f"not withdrawn: {error}", collection, uid)
        return None
    return [str(row.get("Visibility", "")) for row in rows]


async def _confirmed(kit: Crawling, series: Series) -> str | None:
    """Why a series is withdrawn, in words; None: the archive does not confirm that it is."""
    uid = series.series_instance_uid
    if kit.client.server.dialect != "nbia":
        return "two whole crawls did not find it at the archive" if await _is_not_listed(kit, series) else None
    shown = await _visibility(kit, uid, series.collection)
    if shown is None:
        return None
    if any(word.casefold() == _SHOWN for word in shown):
        said = "not withdrawn: getSeries does not list it, but getSeriesQCInfo says that it is visible"
        kit.notice(FindingKind.MISSING_UPSTREAM, said, series.collection, uid)
        return None
    return f"the archive hides it: {shown[0]}" if shown else "the archive has it no more"


async def _is_not_listed(kit: Crawling, series: Series) -> bool:
    """True when the archive, asked once more for this series alone, lists none."""
    uid = series.series_instance_uid
    try:
        return not await (await kit.client.get_series(SeriesInstanceUID=uid)).all()
    except ArchiveError as error:
        if await kit.client.is_down(error):
            raise
        kit.notice(FindingKind.MISSING_UPSTREAM, f"not withdrawn: {error}", series.collection, uid)
        return False
