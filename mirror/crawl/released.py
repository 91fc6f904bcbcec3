"""Which of the studies that a since-call names hold nothing new.

A study is named for as many nights as the overlap is long. In the nbia dialect one getUpdatedSeries for the whole
archive gives the rows of everything that was released since a day: a study all of whose rows are known as they are
need not be walked once more. Rows are the same when a series is released twice on one day: if that day was not over
at the last crawl, the archive's digest of the study is asked as well. So it is where a mirror names a series by the
day on which it came there: its row need not tell what is new. The tcia dialect has neither call; there every named
study is walked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import anyio

from mirror.crawl.crawling import Crawling
from mirror.errors import ArchiveError
from mirror.model import Series
from mirror.scope import is_day

#: A day of some zone is over in all of them so many seconds after it began in UTC (UTC-12 is the last).
_OVER = 36 * 3600


@dataclass(frozen=True, slots=True)
class Known:
    """A study of which everything that was released since a day is known: how many series, and the newest's day; ""
    where their days of release are not why they are named.
    """

    series: int
    newest: str

    def is_over(self, moment: float) -> bool:
        """True when the newest series' day of release was over at a moment (UTC, seconds), in whichever zone."""
        if not self.newest:
            return False
        return datetime.fromisoformat(self.newest).replace(tzinfo=UTC).timestamp() + _OVER <= moment


class Released:
    """What was released since a day, asked once for each day, by whichever collection needs it first."""

    def __init__(self, kit: Crawling) -> None:
        self._kit = kit
        self._known: dict[str, dict[str, Known]] = {}
        self._lock = anyio.Lock()

    async def known(self, since: str) -> dict[str, Known]:
        """StudyInstanceUID -> what was released of it since an ISO day, where all of that is known as it is.

        Empty where the archive does not say. Raises the ArchiveError of an archive that is down.
        """
        if self._kit.client.server.dialect != "nbia":
            return {}
        async with self._lock:
            if since not in self._known:
                self._known[since] = await self._ask(since)
            return self._known[since]

    async def _ask(self, since: str) -> dict[str, Known]:
        kit = self._kit
        known: dict[str, Known] = {}
        news: set[str] = set()
        days: dict[str, str] = {}
        # That call leaves its day out, the calls by collection do not.
        day = (date.fromisoformat(since) - timedelta(days=1)).isoformat()
        try:
            rows = await kit.client.get_updated_series(since=day)
            async for batch in rows.batches():
                for series, is_known in await kit.ledger.run(self._look_up, batch):
                    study, day_released = series.study_instance_uid, series.date_released or ""
                    if not is_known:
                        news.add(study)
                        continue
                    if is_day(day_released) and day_released >= since:
                        # The same few days come hundreds of thousands of times; one text of each will do.
                        newest = days.setdefault(day_released, day_released)
                    else:
                        newest = ""
                    before = known.get(study, Known(0, newest))
                    known[study] = Known(before.series + 1, newest and before.newest and max(before.newest, newest))
        except ArchiveError as error:
            if await kit.client.is_down(error):
                raise
            return {}
        for study in news & known.keys():
            del known[study]
        return known

    def _look_up(self, batch: list[Series]) -> list[tuple[Series, bool]]:
        """Each series, and whether there is nothing to do for it. Blocks."""
        kit = self._kit
        held = kit.ledger.held_among([series.series_instance_uid for series in batch])
        return [(series, kit.is_known(series, held.get(series.series_instance_uid))) for series in batch]
