"""Which way a series comes, where the settings leave it to the run (`auto`).

What is scarce under a cap of connections is the time for which they are taken. So every request for objects tells how
long it took, and a series comes by the way that has brought most per second of a connection for series of its kind:
objects of about that size, about that many. Both ways are tried on the first series of a kind; meanwhile others come
one by one, as many as keep the connections busy. The way that is behind is tried again whenever that costs next to
nothing of what was spent since. While this process itself is what all wait for, the way that costs us less is taken.

A zip brings all of a series or nothing, and what it does not bring comes by itself in the series' second round: so it
is no matter of right or wrong which way is taken, and what is missing of a zip is only the price of having tried.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import anyio

from mirror.errors import ArchiveError
from mirror.events import Event, RequestDone, TransportChosen
from mirror.model import SeriesSize
from mirror.transfer import Kit, OpenSeries
from mirror.transports.instance import InstanceTransport
from mirror.transports.processor import WAYS, Processor, Way, effort
from mirror.transports.zipped import ZipTransport

_CALLS: dict[str, Way] = {InstanceTransport.source: "instance", ZipTransport.source: "zip"}

#: What an object is worth beside its bytes, as bytes: series of a kind that differ in size are compared by it.
_OBJECT = 64 * 1024
#: Kinds differ in the mean bytes of their objects, and in how many there are.
_SIZES = (64 * 1024, 512 * 1024)
_NUMBERS = (10, 100)
_SIZE_WORDS = ("small objects (under 64 KiB)", "objects of 64 to 512 KiB", "large objects (512 KiB or more)")
_NUMBER_WORDS = ("under 10", "10 to 99", "100 or more")
#: Series of a kind that are given to each way before either is preferred.
_TRIES = 2
#: Zips of so many bytes last. They are for a run that has so many series for each connection, else some of these would
#: be idle while the last zips come.
_LASTING = 16 * 1024**2
_ENOUGH = 2
#: What was seen before counts so much beside one series more.
_FADE = 0.85
#: The other way is preferred from this share of the cost on, not for less.
_BETTER = 0.95
#: Trying the way that is behind costs at most this share of what is spent.
_CURIOSITY = 0.02
#: Where one connection more brings less than this part of what each does, it is not connections that are scarce.
_SCARCE = 0.5
#: While we are the limit, a zip may take so many times as long by connections, and is still what costs us less.
_NOT_WORSE = 2.0
#: A way that is no better counts as so much worse, and costs that when it is tried.
_LITTLE_WORSE = 1.2
#: A zip is tried only for series up to this size, and taken for larger ones only where it costs so much less: it needs
#: twice the disk, and one that is cut comes again from its beginning.
_LARGE = 4 * 1024**3
_FAR_BETTER = 0.5
#: Of objects with so many bytes each, on average, none is a zip: to ask for each is next to nothing beside them.
_HUGE = 32 * 1024**2
#: A server that has failed to give so many zips, and never gave one, has none.
_NO_ZIPS = 3


@dataclass(slots=True)
class _Spent:
    """Seconds of connections that the series of a kind took by one way, and what those have brought; it fades."""

    seconds: float = 0.0
    wanted: float = 0.0
    brought: float = 0.0
    #: Series that were tried that way before either was preferred.
    tried: int = 0

    def add(self, seconds: float, wanted: float, share: float) -> None:
        """Note that a share of what was wanted of a series has come."""
        self.seconds = self.seconds * _FADE + seconds
        self.wanted = self.wanted * _FADE + wanted
        self.brought = self.brought * _FADE + wanted * share

    @property
    def cost(self) -> float | None:
        """Seconds for a byte, or what counts as one; None: nobody knows yet."""
        return self.seconds / self.wanted if self.wanted else None

    @property
    def lost(self) -> float:
        """The share that did not come."""
        return 1.0 - self.brought / self.wanted if self.wanted else 0.0


@dataclass(slots=True)
class _Kind:
    """What is known of series that are alike."""

    name: str
    by: dict[Way, _Spent] = field(default_factory=lambda: {way: _Spent() for way in WAYS})
    preferred: Way | None = None
    #: Spent since the way that is behind was tried.
    spent: float = 0.0


@dataclass(frozen=True, slots=True)
class _Costs:
    """Seconds of what is scarce that a series takes either way: of connections, or of this process."""

    by: dict[Way, float]
    ours: bool

    @property
    def best(self) -> Way:
        """The way that costs less."""
        return "zip" if self.by["zip"] < self.by["instance"] else "instance"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A series to bring: what all of it counts as, and what is missing of it; see _OBJECT. And bytes of all of it."""

    all: float
    missing: float
    bytes: int
    objects: int


class AutoTransport:
    """Both transports, and the choice between them, for a run of so many `series`; tell it the client's events.

    For a server that has the calls for single instances: whatever else fails, a series comes by them.
    """

    # What a killed run left is checked where it lies; nobody knows which way it came.
    source = InstanceTransport.source

    def __init__(self, kit: Kit, instance: InstanceTransport, zipped: ZipTransport, series: int) -> None:
        self._instance = instance
        self._zip = zipped
        self._sink = kit.sink
        self._pace = kit.client.pace
        self._connections = self._pace.statistics().cap
        self._most_open = kit.most_open
        #: Series that are not begun, and those that are under way.
        self._left = series
        self._open = 0
        self._kinds: dict[tuple[int, int], _Kind] = {}
        #: Seconds of connections that the open series have taken, by SeriesInstanceUID and way.
        self._taken: dict[str, dict[Way, float]] = {}
        #: Objects of the series that come one by one just now, and what is set when a series is at its end.
        self._coming = 0
        self._ended = anyio.Event()
        #: Zips that failed since the run began, as long as none came; None: one has.
        self._failed: int | None = 0
        self._processor = Processor()

    def __call__(self, event: Event) -> None:
        """Count what a request has taken. Never raises."""
        self._processor.look()
        if isinstance(event, RequestDone) and (way := _CALLS.get(event.call)) is not None:
            taken = self._taken.get(event.series_instance_uid or "")
            if taken is not None:
                taken[way] += event.seconds

    async def fetch(self, open_series: OpenSeries, size: SeriesSize | None) -> None:
        """See Transport."""
        uid = open_series.todo.series.series_instance_uid
        if open_series.round == 2:
            self._tell("instance", "its first round left something open", uid)
            await self._instance.fetch(open_series, size)
            return
        self._left -= 1
        self._open += 1
        try:
            await self._fetch_first(open_series, size, uid)
        finally:
            self._open -= 1

    async def _fetch_first(self, open_series: OpenSeries, size: SeriesSize | None, uid: str) -> None:
        wanted = await _look_at(open_series, size)
        way, kind, why = self._choose(open_series, wanted)
        while way is None and self._coming >= self._pace.statistics().limit:
            # All that may be in flight is; more would only stand in the way of what is tried.
            await self._ended.wait()
            way, kind, why = self._choose(open_series, wanted)
        way = way or "instance"
        self._tell(way, why, uid)
        self._taken[uid] = dict.fromkeys(WAYS, 0.0)
        share, coming = 0.0, wanted.objects if wanted is not None and way == "instance" else 0
        self._coming += coming
        try:
            if way == "zip":
                objects = await self._fetch_zip(open_series, size)
            else:
                before = open_series.fetched + open_series.reused
                await self._instance.fetch(open_series, size)
                objects = open_series.fetched + open_series.reused - before
            if wanted is not None:
                share = min(1.0, objects / wanted.objects)
        finally:
            seconds = self._taken.pop(uid)[way]
            # What a stop has cut short says nothing.
            if kind is not None and wanted is not None and seconds and not open_series.kit.stop.is_set():
                kind.by[way].add(seconds, wanted.all, share)
                self._prefer(kind, wanted)
            self._coming -= coming
            self._ended.set()
            self._ended = anyio.Event()

    async def _fetch_zip(self, open_series: OpenSeries, size: SeriesSize | None) -> int:
        """Fetch a series by its zip; how many objects were in it. Where there is none, all is left for round two."""
        try:
            await self._zip.fetch(open_series, size)
        except ArchiveError as error:
            if await open_series.kit.client.is_down(error):
                raise
            uid = open_series.todo.series.series_instance_uid
            self._tell("instance", f"its zip could not be had: {error}", uid)
            # Unless it was not asked for, because the series' list was not to be had.
            if self._failed is not None and self._taken[uid]["zip"]:
                self._failed += 1
                if self._failed == _NO_ZIPS:
                    self._tell("instance", f"the server gave none of {_NO_ZIPS} zips")
            return 0
        if open_series.seen:
            self._failed = None
        return len(open_series.seen)

    def _choose(self, open_series: OpenSeries, wanted: _Wanted | None) -> tuple[Way | None, _Kind | None, str]:
        """The way for a series, its kind (None: it says nothing of one), and why in words.

        No way: nothing is known yet.
        """
        if wanted is None:
            return "instance", None, "the archive does not say how large the series is"
        if wanted.objects == 1:
            return "instance", None, "it is one object"
        if not wanted.missing:
            return "instance", None, "nothing is missing"
        if wanted.bytes >= _HUGE * wanted.objects:
            return "instance", None, "beside objects of that size it costs nothing to ask for each"
        if self._failed is not None and self._failed >= _NO_ZIPS:
            return "instance", None, f"the server gave none of {_NO_ZIPS} zips"
        if open_series.free is not None and 2 * wanted.bytes > open_series.free:
            return "instance", None, "the disk has no room for its zip beside it"
        if wanted.bytes >= _LASTING and self._open + self._left < _ENOUGH * self._connections:
            return "instance", None, "there are too few series like it for zips to use all connections"
        kind = self._kind(wanted)
        costs = self._costs(kind, wanted)
        if wanted.missing < wanted.all:
            # Of the zip only what is missing is of use; and such a series is not like others of its kind.
            if costs is None or costs.best == "instance":
                return "instance", None, "part of it is here"
            return "zip", None, f"most of it is missing; {self._words(kind, wanted)}"
        large = wanted.bytes > _LARGE
        for way in WAYS:
            if kind.by[way].tried < _TRIES and not (large and way == "zip"):
                kind.by[way].tried += 1
                return way, kind, f"tried on the first series of {kind.name}"
        if large:
            far_better = costs is not None and costs.by["zip"] < _FAR_BETTER * costs.by["instance"]
            return "zip" if far_better else "instance", kind, f"it is large; {self._words(kind, wanted)}"
        if costs is None:
            return None, kind, f"nothing is known yet of {kind.name}"
        best = self._prefer(kind, wanted)
        if costs.ours:
            return best, kind, self._words(kind, wanted)
        last = self._costs(kind, wanted, self._open + max(0, self._left))
        if best == "zip" and last is not None and last.best == "instance":
            return "instance", kind, "the last series share the connections, and a zip would take one alone"
        other: Way = "zip" if best == "instance" else "instance"
        # Where a series costs little more by it, or nothing, it is tried often, else seldom.
        kind.spent += min(costs.by.values())
        if costs.by[other] - costs.by[best] <= _CURIOSITY * kind.spent:
            kind.spent = 0.0
            return other, kind, f"tried again; {self._words(kind, wanted)}"
        return best, kind, self._words(kind, wanted)

    def _kind(self, wanted: _Wanted) -> _Kind:
        size = bisect_right(_SIZES, wanted.bytes // wanted.objects)
        number = bisect_right(_NUMBERS, wanted.objects)
        name = f"{_SIZE_WORDS[size]}, {_NUMBER_WORDS[number]} of them"
        return self._kinds.setdefault((size, number), _Kind(name))

    def _costs(self, kind: _Kind, wanted: _Wanted, series: int | None = None) -> _Costs | None:
        """What a series costs either way; None: nobody knows yet.

        `series`: beside so many, itself included, where there are fewer than may be open at a time.
        """
        single, zipped = kind.by["instance"].cost, kind.by["zip"].cost
        if single is None or zipped is None:
            return None
        # What zips do not bring comes one by one after all.
        # A zip takes one connection, however many others have nothing to do.
        at_once = min(self._most_open, max(1, series or self._most_open))
        crowd = max(1.0, self._connections / at_once)
        again = kind.by["zip"].lost * single
        one, all_ = single * wanted.missing, (zipped * crowd + again) * wanted.all
        if self._processor.is_limit:
            objects, bytes_ = wanted.objects, wanted.bytes
            ours = effort("instance", objects, bytes_)
            ours_zip = effort("zip", objects, bytes_) + kind.by["zip"].lost * ours
            ours *= wanted.missing / wanted.all
            # Where a zip would wait for the archive instead of us, nothing is won.
            if ours <= ours_zip or all_ < _NOT_WORSE * one:
                return _Costs({"instance": ours, "zip": ours_zip}, ours=True)
        elif (
            kind.preferred != "zip"
            and wanted.bytes >= _SIZES[0] * wanted.objects
            and self._pace.statistics().marginal < _SCARCE
        ):
            # The link is full, say: what a zip had from it came from the others. So it is worth a try now and then.
            # Small objects fill no link before their number is the limit.
            all_ = max(all_, _LITTLE_WORSE * one)
        return _Costs({"instance": one, "zip": all_}, ours=False)

    def _prefer(self, kind: _Kind, wanted: _Wanted) -> Way:
        """The way that costs less; a change of mind is told."""
        costs = self._costs(kind, wanted)
        if costs is None:
            return "instance"
        best, by = costs.best, costs.by
        if kind.preferred is None or (best != kind.preferred and by[best] < _BETTER * by[kind.preferred]):
            kind.preferred = best
            self._tell(best, f"for series of {kind.name}: {self._words(kind, wanted)}")
        return kind.preferred

    def _words(self, kind: _Kind, wanted: _Wanted) -> str:
        """What was measured, in words."""
        costs = self._costs(kind, wanted)
        if costs is None:
            return "nothing is measured yet"
        if costs.ours:
            ratio = costs.by["zip"] / max(costs.by["instance"], 1e-9)
            return f"this process is what all wait for, and a zip costs it {ratio:.2g} of what single objects do"
        rates = {way: wanted.objects / max(cost, 1e-9) for way, cost in costs.by.items()}
        return f"a connection brings {rates['zip']:.3g} objects a second as zips, {rates['instance']:.3g} one by one"

    def _tell(self, way: Way, why: str, series_instance_uid: str | None = None) -> None:
        self._sink(TransportChosen(transport=way, why=why, series_instance_uid=series_instance_uid))


def _worth(objects: int, bytes_: int) -> float:
    return float(objects * _OBJECT + bytes_)


async def _look_at(open_series: OpenSeries, size: SeriesSize | None) -> _Wanted | None:
    """What there is to bring of a series; None where the archive does not say how large it is."""
    kit, todo = open_series.kit, open_series.todo
    objects = size.object_count if size else todo.series.image_count
    bytes_ = (size.total_size_in_bytes if size else None) or todo.series.file_size
    if not objects or not bytes_:
        return None

    def look() -> tuple[int, int]:
        totals = kit.ledger.totals(todo.id, open_series.listing)
        held, held_bytes = totals.held + totals.unlisted, totals.held_bytes
        if held and (doubted := len(kit.ledger.doubted_names(todo.id))):
            # What is in doubt comes again; all of it is as good as half of it for what is decided here.
            held, held_bytes = held - doubted, held_bytes * (held - doubted) // held
        return held, held_bytes

    held, held_bytes = await kit.ledger.run(look)
    missing = _worth(max(0, objects - held), max(0, bytes_ - held_bytes) if objects > held else 0)
    return _Wanted(_worth(objects, bytes_), missing, bytes_, objects)
