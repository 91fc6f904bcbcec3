"""A calendar of what happens at an archive, night after night, drawn from a seed; pure.

Curators work in bursts with quiet weeks between them. What they do is drawn as acts on single series, each at its
moment, and dealt out to the nights in front of which it happens; a few happen in the middle of a night's run. Some
nights the archive is in trouble, some runs are killed.

What each dialect can see decides what a calendar may contain:

    an act                                          nbia sees it by         tcia sees it by
    released with the day's date                    the since-calls         the since-calls
    once more on that day, of the same length       the study's digest      the since-calls
    added, or visible again, without a new date     a whole walk            a whole walk
    grown or shrunk without a new date              ImageCount              ImageCount: only growth is drawn, so that
                                                                            two changes never make up for each other
    replaced without a new date                     FileSize, the digest    nothing: never drawn
    hidden, deleted                                 a whole walk            a whole walk
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

from fakes.dicom import uid
from mirror.archive.endpoints import DialectName

START = datetime(2024, 1, 1, 2, 0, tzinfo=UTC)
COLLECTIONS = ("Lung", "Brain", "Colon", "Late", "Brief")
#: A collection that comes in the course of the year, and one whose only series goes (and for even seeds comes back).
_LATE, _BRIEF = COLLECTIONS[3:]
#: Nights before the end without any act, and without one that hides or deletes: a whole walk comes every 7 days, and
#: it takes two to withdraw.
_LAST_ACT, _LAST_HIDING = 9, 17
_HOUR = timedelta(hours=1)


class Act(StrEnum):
    """What happens to one series."""

    ADD = "add"
    GROW = "grow"
    SHRINK = "shrink"
    REPLACE = "replace"
    HIDE = "hide"
    SHOW = "show"
    DELETE = "delete"
    RELEASE = "release"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One act on one series at a moment (UTC)."""

    at: datetime
    act: Act
    collection: str
    patient: str
    study: str
    series: str
    #: InstanceNumbers that it is about; of a DELETE or HIDE none.
    numbers: tuple[int, ...] = ()
    #: Which bytes the instances have from then on, and by how many bytes their headers are longer.
    version: int = 0
    longer: int = 0
    #: The day that the archive gives as DateReleased from then on; "": no other than before; None: none at all.
    released: str | None = ""
    #: The row's MaxSubmissionTimestamp moves to the day of the act.
    submitted: bool = True

    @property
    def dated(self) -> bool:
        """The since-calls tell of it: it carries the day on which it happens, or one next to it."""
        if not self.released:
            return False
        return abs(date.fromisoformat(self.released) - self.at.date()) <= timedelta(days=1)

    def __str__(self) -> str:
        numbers = f" {','.join(map(str, self.numbers))}" if self.numbers else ""
        released = "" if self.released == "" else f" released {self.released}"
        return f"{self.at:%m-%d %H:%M} {self.collection} {self.act} ...{self.series[-14:]}{numbers}{released}"


class Trouble(StrEnum):
    """What is wrong with the archive for one night."""

    REFUSED = "connections are refused"
    DOWN = "503 to everything"
    DOWN_LATER = "503 to everything, from some request on"
    NONSENSE = "HTML for the rows of one collection"
    CUT = "the rows of one collection are cut off"
    NO_ROWS = "the since-calls of one collection answer 500"
    UNFETCHABLE = "instances that changed are listed and cannot be fetched"
    MISCOUNT = "getSeriesSize of what changed disagrees with the list"
    SHORT = "getSeries leaves out half of the rows of one collection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """SIGKILL for a night's run: at its `request`th request, or so many seconds after its first."""

    request: int = 0
    seconds: float = 0.0
    #: The run is started again in the same night.
    again: bool = True


@dataclass(slots=True, kw_only=True)
class Night:
    """One night: when its run begins, what happened since the last, what happens meanwhile, what goes wrong."""

    number: int
    at: datetime
    steps: list[Step] = field(default_factory=list)
    #: (number of the request in front of which it happens, act).
    during: list[tuple[int, Step]] = field(default_factory=list)
    trouble: Trouble | None = None
    #: The collection that the trouble is with, and the request from which on, where it begins later.
    troubled: str = ""
    since_request: int = 0
    kill: Kill | None = None


@dataclass(slots=True)
class _Series:
    collection: str
    patient: str
    study: str
    series: str
    numbers: list[int]
    released: str | None
    #: No other act before this moment.
    busy: datetime
    next_number: int
    version: int = 0
    gone: bool = False


def make_calendar(
    seed: int, nights: int = 365, dialect: DialectName = "nbia", *, kills: int = 0, troubles: bool = True
) -> list[Night]:
    """The nights of a calendar; the same for the same arguments. At least 30 nights."""
    return _Drawing(seed, nights, dialect).draw(kills, troubles)


class _Drawing:
    def __init__(self, seed: int, nights: int, dialect: DialectName) -> None:
        self._random = random.Random(f"{seed}/{nights}/{dialect}")
        self._seed = seed
        self._nights = nights
        self._dialect = dialect
        #: The archive's zone, which nobody tells: its days are of that zone.
        self._zone = timedelta(hours=self._random.choice([-12, -6, -5, 0, 9, 14]))
        self._steps: list[Step] = []
        self._series: list[_Series] = []
        self._version = 0

    def draw(self, kills: int, troubles: bool) -> list[Night]:
        jitter = [timedelta(minutes=self._random.randint(-60, 60)) for _ in range(self._nights)]
        nights = [Night(number=n, at=START + timedelta(days=n) + jitter[n]) for n in range(self._nights)]
        for collection in COLLECTIONS:
            self._draw_collection(collection)
        self._deal_out(nights)
        chosen = self._random
        if troubles:
            # Trouble comes when there is something to lose: where acts are, and now and then where none are.
            busy = [night for night in nights[3 : self._nights - _LAST_ACT] if night.steps]
            number = max(len(Trouble), self._nights // 15)
            for index, night in enumerate(chosen.sample(busy, min(number, len(busy)))):
                night.trouble = [*Trouble][index % len(Trouble)]
                night.troubled = chosen.choice(night.steps).collection
                night.since_request = chosen.randint(2, 30)
        calm = [night for night in nights[1 : self._nights - _LAST_ACT] if night.trouble is None]
        busy = [night for night in calm if night.steps]
        struck = chosen.sample(busy, min(kills * 3 // 4, len(busy)))
        idle = [night for night in calm if night not in struck]
        struck += chosen.sample(idle, min(kills - len(struck), len(idle)))
        for night in struck:
            again = chosen.random() < 0.6
            if chosen.random() < 0.6:
                night.kill = Kill(request=chosen.randint(2, 40), again=again)
            else:
                night.kill = Kill(seconds=chosen.uniform(0.0, 0.4), again=again)
        return nights

    # Acts

    def _draw_collection(self, collection: str) -> None:
        at = START - 4 * _HOUR
        if collection == _BRIEF:
            self._new(at, collection, patient=1, study=1, series=1, released=self._day(at))
            (only,) = (s for s in self._series if s.collection == _BRIEF)
            self._step(only, at + timedelta(days=self._nights * 0.3), Act.DELETE)
            if self._seed % 2 == 0:
                back = at + timedelta(days=self._nights * 0.7)
                self._step(only, back, Act.ADD, tuple(only.numbers), released=self._day(back))
            return
        if collection == _LATE:
            at += timedelta(days=self._nights * 0.25)
        patients = self._random.randint(3, 5)
        for patient in range(1, patients + 1):
            for study in range(1, self._random.randint(1, 2) + 1):
                for series in range(1, self._random.randint(1, 2) + 1):
                    # What has long been there was released long ago.
                    day = self._day(at) if collection == _LATE else "2019-05-17"
                    self._new(at, collection, patient=patient, study=study, series=series, released=day)
        end = START + timedelta(days=self._nights - _LAST_ACT - 1)
        day = at + timedelta(days=self._random.uniform(1, 6))
        while day < end:
            for _ in range(self._random.randint(2, 7)):
                moment = day + timedelta(days=self._random.uniform(0, 4))
                if moment < end:
                    self._act(collection, moment, end)
            day += timedelta(days=self._random.uniform(8, 22))

    def _act(self, collection: str, at: datetime, end: datetime) -> None:
        free = [s for s in self._series if s.collection == collection and s.busy <= at and not s.gone]
        if not free:
            return
        kinds = {
            self._comes: 6,
            self._comes_undated: 2,
            self._grows: 4,
            self._grows_hidden: 3,
            self._shrinks: 2,
            self._is_replaced: 5,
            self._is_replaced_twice: 2,
            self._is_released_again: 2,
            self._hides_for_a_while: 3,
        }
        if self._dialect == "nbia":
            kinds[self._is_replaced_silently] = 3
        if at < end - timedelta(days=_LAST_HIDING - _LAST_ACT):
            kinds |= {self._leaves: 1, self._leaves_and_comes_back: 1}
        (kind,) = self._random.choices([*kinds], [*kinds.values()])
        kind(self._random.choice(free), at, end)

    def _comes(self, near: _Series, at: datetime, end: datetime) -> None:
        """A series: of a new patient, in a new study, or in an old one."""
        self._new_near(near, at, self._day(at))

    def _comes_undated(self, near: _Series, at: datetime, end: datetime) -> None:
        """Made visible with an old date of release, or none: it escapes the since-calls."""
        self._new_near(near, at, self._random.choice([None, "2018-03-09"]))

    def _grows(self, series: _Series, at: datetime, end: datetime) -> None:
        self._grow(series, at, self._random.choice([self._day(at)] * 3 + [""]))

    def _grows_hidden(self, series: _Series, at: datetime, end: datetime) -> None:
        """As the archive does it: what is new hides the series until it is released again."""
        back = self._later(at, 0.2, 5.0, end)
        self._step(series, at, Act.HIDE)
        self._grow(series, at + timedelta(seconds=1), "")
        self._show(series, back, self._random.choice([self._day(back)] * 3 + [""]))

    def _shrinks(self, series: _Series, at: datetime, end: datetime) -> None:
        if len(series.numbers) < 2:
            return
        number = self._random.choice(series.numbers)
        silent = self._dialect == "nbia" and self._random.random() < 0.3
        series.numbers.remove(number)
        self._step(series, at, Act.SHRINK, (number,), released="" if silent else self._day(at))

    def _is_replaced(self, series: _Series, at: datetime, end: datetime) -> None:
        """With a new date; half of the time it was hidden meanwhile."""
        if self._random.random() < 0.5:
            self._replace(series, at, self._day(at))
            return
        back = self._later(at, 0.2, 5.0, end)
        self._step(series, at, Act.HIDE)
        self._replace(series, at + timedelta(seconds=1), "")
        self._show(series, back, self._day(back))

    def _is_replaced_twice(self, series: _Series, at: datetime, end: datetime) -> None:
        """On two days running, or twice on one day of the archive with a night between, or without."""
        self._replace(series, at, self._day(at))
        again = self._later(at, 0.05, 1.5, end)
        self._replace(series, again, self._day(again))

    def _is_replaced_silently(self, series: _Series, at: datetime, end: datetime) -> None:
        """No date moves; the length moves, or only the digest."""
        self._replace(series, at, "", submitted=False)

    def _is_released_again(self, series: _Series, at: datetime, end: datetime) -> None:
        """A new date, and nothing else is new."""
        series.released = self._day(at)
        self._step(series, at, Act.RELEASE, released=series.released, submitted=False)

    def _hides_for_a_while(self, series: _Series, at: datetime, end: datetime) -> None:
        """And comes back as it was, with the date that it had or a new one."""
        back = self._later(at, 0.3, self._random.choice([3.0, 30.0]), end)
        self._step(series, at, Act.HIDE)
        self._show(series, back, self._random.choice(["", self._day(back)]))

    def _leaves(self, series: _Series, at: datetime, end: datetime) -> None:
        series.gone = True
        self._step(series, at, self._random.choice([Act.HIDE, Act.DELETE]))

    def _leaves_and_comes_back(self, series: _Series, at: datetime, end: datetime) -> None:
        """Deleted, and there again some time later, with other bytes under the same UIDs."""
        back = self._later(at, 1.0, 40.0, end)
        self._step(series, at, Act.DELETE)
        series.version = self._next_version()
        series.released = self._day(back)
        self._step(series, back, Act.ADD, tuple(series.numbers), version=series.version, released=series.released)

    # What acts are made of

    def _new_near(self, near: _Series, at: datetime, released: str | None) -> None:
        same = [s for s in self._series if s.collection == near.collection]
        where = self._random.choice(["patient", "study", "series"])
        patient = int(near.patient[-3:])
        study, series = (int(part) for part in near.series.split(".")[-2:])
        if where == "patient":
            patient, study, series = 1 + max(int(s.patient[-3:]) for s in same), 1, 1
        elif where == "study":
            study, series = 1 + max(int(s.series.split(".")[-2]) for s in same if s.patient == near.patient), 1
        else:
            series = 1 + max(int(s.series.split(".")[-1]) for s in same if s.study == near.study)
        self._new(at, near.collection, patient=patient, study=study, series=series, released=released)

    def _new(
        self, at: datetime, collection: str, *, patient: int, study: int, series: int, released: str | None
    ) -> None:
        number = COLLECTIONS.index(collection) + 1
        count = self._random.randint(2, 6)
        made = _Series(
            collection=collection,
            patient=f"{collection}-{patient:03d}",
            study=uid(self._seed, number, patient, study),
            series=uid(self._seed, number, patient, study, series),
            numbers=[*range(1, count + 1)],
            released=released,
            busy=at + timedelta(days=1),
            next_number=count + 1,
        )
        self._series.append(made)
        self._step(made, at, Act.ADD, tuple(made.numbers), released=released)

    def _grow(self, series: _Series, at: datetime, released: str) -> None:
        count = self._random.randint(1, 3)
        numbers = tuple(range(series.next_number, series.next_number + count))
        series.next_number += count
        series.numbers += numbers
        series.released = released or series.released
        self._step(series, at, Act.GROW, numbers, released=released)

    def _replace(self, series: _Series, at: datetime, released: str, *, submitted: bool = True) -> None:
        numbers = self._random.sample(series.numbers, self._random.randint(1, len(series.numbers)))
        series.released = released or series.released
        self._step(
            series,
            at,
            Act.REPLACE,
            tuple(sorted(numbers)),
            version=self._next_version(),
            longer=self._random.choice([0, 0, 64]),
            released=released,
            submitted=submitted,
        )

    def _show(self, series: _Series, at: datetime, released: str) -> None:
        series.released = released or series.released
        self._step(series, at, Act.SHOW, released=released, submitted=False)

    def _step(
        self,
        series: _Series,
        at: datetime,
        act: Act,
        numbers: tuple[int, ...] = (),
        *,
        version: int = 0,
        longer: int = 0,
        released: str | None = "",
        submitted: bool = True,
    ) -> None:
        series.busy = max(series.busy, at + timedelta(days=1))
        self._steps.append(
            Step(
                at=at, act=act, collection=series.collection, patient=series.patient, study=series.study,
                series=series.series, numbers=numbers, version=version, longer=longer, released=released,
                submitted=submitted,
            )
        )  # fmt: skip

    def _later(self, at: datetime, least: float, most: float, end: datetime) -> datetime:
        """A moment that many days later, and before the acts end."""
        return min(at + timedelta(days=self._random.uniform(least, most)), max(end, at) + timedelta(minutes=1))

    def _day(self, at: datetime) -> str:
        return (at + self._zone).date().isoformat()

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    def _deal_out(self, nights: list[Night]) -> None:
        self._steps.sort(key=lambda step: step.at)
        index = 0
        for night in nights:
            while index < len(self._steps) and self._steps[index].at <= night.at:
                night.steps.append(self._steps[index])
                index += 1
        # Some of what would happen before a run happens in the middle of it.
        for night in nights[1:]:
            if night.steps and self._random.random() < 0.15:
                late = night.steps.pop()
                moment = night.at + timedelta(seconds=1)
                if late.dated:
                    late = replace(late, released=self._day(moment))
                night.during.append((self._random.randint(2, 25), replace(late, at=moment)))
