"""Requests against a modelled server, on a clock of its own: what a Limit does in ten minutes, within a second.

A model says of a request how long it takes and whether it fails, from the time, the number in flight, and the size of
its body. As many requests are in flight as the limit allows, always. Everything random comes from a seed.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, log

from mirror.archive.limit import Limit


@dataclass(frozen=True)
class Failure:
    """How a request fails: status 429 unless `why` says otherwise."""

    why: str = "Throttled"
    refused: bool = True
    retry_after: float = 0.0


#: (time, in flight with this one, bytes) -> seconds, failure
Model = Callable[[float, int, int], tuple[float, Failure | None]]
Sizes = Callable[[random.Random], int]


def alike(size: int) -> Sizes:
    """Bodies of one size."""
    return lambda _: size


def between(least: int, most: int) -> Sizes:
    """Bodies of all sizes, as many from 1 to 2 kB as from 1 to 2 MB."""
    return lambda chance: int(exp(chance.uniform(log(least), log(most))))


class Fixed(Limit):
    """A limit that stays where it is, to compare with."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def good(self, *_: object) -> None: ...
    def trouble(self, *_: object, **__: object) -> None: ...


@dataclass
class Simulation:
    """`spread`: the coefficient of variation of the seconds. `setup`: seconds that a new connection costs."""

    limit: Limit
    model: Model
    sizes: Sizes = field(default_factory=lambda: alike(27_000))
    seed: int = 1
    spread: float = 0.4
    setup: float = 0.0
    now: float = 0.0
    in_flight: int = 0
    idle: int = 0
    held_until: float = 0.0
    #: Time and bytes of each good answer, time of each failure, time and value of each change.
    answers: list[tuple[float, int]] = field(default_factory=list)
    failures: list[float] = field(default_factory=list)
    changes: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._begun = 0
        self._ends: list[tuple[float, int, float, int, Failure | None]] = []

    def run(self, until: float) -> Simulation:
        """Go on until that time."""
        self._fill()
        while self.now < until:
            if not self._ends:
                self.now = self.held_until
                self._fill()
                continue
            self.now, _, began, size, failure = heapq.heappop(self._ends)
            before = self.limit.value
            if failure is None:
                self.limit.good(self.now, size, self.now - began, self.in_flight >= before)
                self.answers.append((self.now, size))
            else:
                self.limit.trouble(self.now, failure.why, refused=failure.refused, retry_after=failure.retry_after)
                self.failures.append(self.now)
                self.held_until = max(self.held_until, self.now + failure.retry_after)
            if self.limit.value != before:
                self.changes.append((self.now, self.limit.value))
            self.in_flight -= 1
            self.idle += 1
            self._fill()
        return self

    def _fill(self) -> None:
        while self.in_flight < self.limit.value and self.now >= self.held_until:
            size = self.sizes(self._chance)
            seconds, failure = self.model(self.now, self.in_flight + 1, size)
            if failure is None and self.spread:
                shape = self.spread**-2
                seconds *= self._chance.gammavariate(shape, 1 / shape)
            if self.idle:
                self.idle -= 1
            else:
                seconds += self.setup
            self.in_flight += 1
            self._begun += 1
            heapq.heappush(self._ends, (self.now + seconds, self._begun, self.now, size, failure))

    def rate(self, begin: float, end: float) -> float:
        """Answers a second."""
        return sum(begin <= time < end for time, _ in self.answers) / (end - begin)

    def goodput(self, begin: float, end: float) -> float:
        """Bytes a second."""
        return sum(size for time, size in self.answers if begin <= time < end) / (end - begin)

    def failed(self, begin: float, end: float) -> float:
        """The part of all requests that failed."""
        failed = sum(begin <= time < end for time in self.failures)
        return failed / (failed + sum(begin <= time < end for time, _ in self.answers))

    def first_at(self, value: int) -> float:
        """When the limit was that for the first time."""
        return next(time for time, seen in self.changes if seen >= value)

    def mean(self, begin: float, end: float) -> float:
        """The limit's mean over that time."""
        steps = [(begin, self.at(begin)), *[(t, v) for t, v in self.changes if begin < t < end], (end, 0)]
        return sum(v * (later - t) for (t, v), (later, _) in pairwise(steps)) / (end - begin)

    def at(self, time: float) -> int:
        """The limit at that time."""
        return [4, *[value for changed, value in self.changes if changed <= time]][-1]
