"""What the parts of one run's crawl share: whom they ask, where they write, and how a batch becomes planned rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mirror.archive.client import ArchiveClient
from mirror.archive.endpoints import ENDPOINTS
from mirror.archive.fields import FIELDS, canonical
from mirror.archive.rows import as_noun, to_json
from mirror.events import EventSink, Noticed
from mirror.layout import Layout
from mirror.ledger import HeldSeries, Ledger, Planned
from mirror.model import Action, Finding, FindingKind, Scope, Series, Study, Walk, Why
from mirror.plan import decide
from mirror.scope import boundary
from mirror.settings import SyncSettings, seconds_of

#: Why a series that looks unchanged is to be compared all the same; "": there is no reason.
Suspect = Callable[[Series], str]


def no_suspicion(_series: Series) -> str:
    """Believe what the archive's row says."""
    return ""


@dataclass(slots=True)
class Crawled:
    """What a crawl found: collections done and failed, and series that stay as they are."""

    collections: list[str] = field(default_factory=list)
    #: Those of them that were walked whole: what they lack is not there.
    whole: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    #: Series asked for by UID that the archive does not give.
    refused: list[str] = field(default_factory=list)
    #: By collection: series that stay as they are, that are missing for the first time, and that are listed again.
    kept: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    returned: Counter[str] = field(default_factory=Counter)
    #: How many series of the scope the archive gave.
    series: int = 0
    #: What was crawled, with nothing left in it that only the archive could say.
    scope: Scope = field(default_factory=Scope)
    #: More are to leave than may: none does.
    leaving_refused: bool = False


@dataclass(slots=True)
class Count:
    """What one crawl of a collection came to."""

    patients: int = 0
    studies: int = 0
    series: int = 0
    planned: int = 0
    planned_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class Crawling:
    """One run's crawl: a client to ask, a ledger to write to, and what is asked for."""

    client: ArchiveClient
    ledger: Ledger
    layout: Layout
    run: str
    sink: EventSink
    settings: SyncSettings
    scope: Scope
    walk: Walk
    #: When the crawl began, by the archive's clock where that is the earlier one; seconds since 1970.
    started_at: int = 0
    crawled: Crawled = field(default_factory=Crawled)
    #: How a series is not of the scope, in words; "" when it is.
    beyond: Callable[[Series], str] = field(init=False)
    #: The scope leaves something of its collections out.
    restricted: bool = field(init=False)

    def __post_init__(self) -> None:
        self.beyond = boundary(self.scope)
        self.restricted = self.scope.is_narrowed()
        self.crawled.scope = self.scope

    def within(self, series: Series) -> bool:
        """True for a series of the scope."""
        return not self.beyond(series)

    def decided(self, batch: Iterable[Series], count: Count, suspect: Suspect = no_suspicion) -> list[Planned]:
        """What is to become of each series, and where it lies. Blocks: for the ledger's thread."""
        batch = list(batch)
        known = self.ledger.held_among([series.series_instance_uid for series in batch])
        new = [series for series in batch if series.series_instance_uid not in known]
        claimed = iter(self._claimed(new))
        planned: list[Planned] = []
        for series in batch:
            held = known.get(series.series_instance_uid)
            if held is None:
                action, directory = decide(series, None, None), next(claimed)
            else:
                series, action = self._compared(series, held)
                if reason := suspect(series):
                    why = action.why if action.fetch else Why.CHANGED
                    action = Action(fetch=True, why=why, detail=reason, doubt=True)
                directory = held.directory
            planned.append((series, action, directory))
            count.series += 1
            self.crawled.returned[series.collection] += held is not None and held.presence != "present"
            if action.fetch:
                count.planned += 1
                count.planned_bytes += series.file_size or 0
            else:
                self.crawled.kept[series.collection] += 1
        return planned

    def is_known(self, series: Series, held: HeldSeries | None) -> bool:
        """True where nothing is to be done for a series: the ledger knows it as it is, or the scope leaves it out."""
        if not self.within(series):
            return True
        return held is not None and not self._compared(series, held)[1].fetch

    def _compared(self, series: Series, held: HeldSeries) -> tuple[Series, Action]:
        """A row of a series that is known, and what is to become of it."""
        # Nearly always the archive says of a series what it has said before: that need not be read to be compared.
        if to_json(series.raw) == held.raw:
            return series, decide(series, series, held.state, held.presence)
        before = held.series
        series = self._filled_in(series, before)
        return series, decide(series, before, held.state, held.presence)

    def _claimed(self, new: Sequence[Series]) -> list[str]:
        """The directories of series that are new. Blocks."""
        studies: dict[tuple[str, str, str], Study | None] = {}
        records = []
        for series in new:
            key = series.collection, series.patient_id, series.study_instance_uid
            if key not in studies:
                studies[key] = self.ledger.study(*key)
            records.append(self.layout.directory(series, studies[key]))
        return self.ledger.claim_directories(records) if records else []

    def _filled_in(self, series: Series, known: Series) -> Series:
        """A row with what it cannot tell in this dialect and another has told: or the other would see no change."""
        told = {canonical(name) for name in ENDPOINTS["getSeries"].fields(self.client.server.dialect)}
        untold = {name: value for name, value in known.raw.items() if name in FIELDS and name not in told}
        if not untold:
            return series
        return as_noun(Series, {**untold, **series.raw}, collection=series.collection)

    def suspect_named(self, crawl: int) -> Suspect:
        """The tcia dialect tells that something was released in a study, and neither what nor when.

        Within the overlap nobody knows whether that was before the last crawl, or once more after it: what is held of
        the study is compared as often as it is named.
        """

        def named(series: Series) -> str:
            if self.ledger.is_named(crawl, series):
                return "its study is named as released, and nothing tells what in it"
            return ""

        return named

    def day_before(self, moment: float) -> str:
        """The ISO day from which on the since-calls are asked for what came after a moment (UTC, seconds)."""
        return datetime.fromtimestamp(max(0.0, moment - seconds_of(self.settings.overlap)), UTC).date().isoformat()

    def notice(self, kind: FindingKind, detail: str, collection: str | None = None, series: str | None = None) -> None:
        """Tell of a finding about a collection or a series."""
        self.sink(Noticed(finding=Finding(kind=kind, detail=detail, collection=collection, series_instance_uid=series)))
