"""Where a run stands, in numbers: a fold over events that every display shares, with rate and time left."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from mirror.cli.text import count, duration, size
from mirror.events import (
    BytesReceived,
    CollectionCrawled,
    Event,
    InstanceFailed,
    InstancePublished,
    LimitChanged,
    LimitReached,
    Noticed,
    Planned,
    RequestDone,
    RequestStarted,
    RunStarted,
    ScopeFound,
    SeriesDone,
    SeriesOpened,
    Stopping,
)
from mirror.model import SeriesState

#: Speeds are told over so many seconds.
_RATE_OVER = 20.0


@dataclass(slots=True)
class Tally:
    """Where a run stands, in numbers. None: not known (yet)."""

    run: str = ""
    connections: int = 0
    in_flight: int = 0
    collections: int | None = None
    collections_crawled: int = 0
    series_found: int = 0
    planned: bool = False
    series: int | None = None
    series_done: int = 0
    series_not_complete: int = 0
    objects: int | None = None
    objects_listed: int = 0
    objects_done: int = 0
    objects_failed: int = 0
    bytes: int | None = None
    bytes_published: int = 0
    bytes_received: int = 0
    requests: int = 0
    retried: int = 0
    findings: int = 0
    stopping: bool = False
    #: bytes_received when fetching began: the crawl's bytes are no objects.
    _crawl_bytes: int = 0
    _samples: deque[tuple[float, int, int]] = field(default_factory=lambda: deque(maxlen=128))

    def fold(self, event: Event) -> None:
        """Count one event."""
        match event:
            case BytesReceived(count=number):
                self.bytes_received += number
            case RequestStarted():
                self.in_flight += 1
            case RequestDone(retried=retried, untold=number):
                self.in_flight -= 1
                self.bytes_received += number
                self.requests += 1
                self.retried += retried
            case InstancePublished(bytes=number):
                self.objects_done += 1
                self.bytes_published += number
            case InstanceFailed():
                self.objects_failed += 1
                self.findings += 1
            case SeriesOpened(to_fetch=number):
                self.objects_listed += number
            case SeriesDone(outcome=outcome):
                self.series_done += 1
                self.series_not_complete += outcome.state is not SeriesState.COMPLETE
            case Noticed():
                self.findings += 1
            case LimitChanged(connections=number):
                self.connections = number
            case CollectionCrawled(series=number):
                self.collections_crawled += 1
                self.series_found += number
            case ScopeFound(collections=number):
                self.collections = number
            case Planned():
                self.planned = True
                self.collections, self.series = event.collections, event.series
                self.objects, self.bytes = event.objects, event.bytes
                self._crawl_bytes = self.bytes_received
            case RunStarted(run=run, connections=number):
                self.run, self.connections = run, number
            case Stopping() | LimitReached():
                self.stopping = True
            case _:
                pass

    @property
    def bytes_done(self) -> int:
        """Bytes of objects that are here: published, or on their way as far as the plan's total allows."""
        coming = self.bytes_received - self._crawl_bytes
        return max(self.bytes_published, coming if self.bytes is None else min(coming, self.bytes))

    def sample(self, now: float) -> None:
        """Note where the run stands now; `rate` and `eta` are told over the last samples."""
        while self._samples and now - self._samples[0][0] > _RATE_OVER:
            self._samples.popleft()
        self._samples.append((now, self.bytes_received, self.objects_done))

    def rate(self) -> float:
        """Bytes per second over the last samples."""
        return self._speed(1)

    def eta(self) -> float | None:
        """Seconds that are left at the present speed; None where that cannot be told."""
        if not self.planned:
            return None
        if self.bytes is not None:
            left, speed = self.bytes - self.bytes_done, self._speed(1)
        elif self.objects is not None:
            left, speed = self.objects - self.objects_done - self.objects_failed, self._speed(2)
        else:
            return None
        return max(left, 0) / speed if speed > 0 else None

    def _speed(self, column: int) -> float:
        if len(self._samples) < 2:
            return 0.0
        first, last = self._samples[0], self._samples[-1]
        passed = last[0] - first[0]
        return (last[column] - first[column]) / passed if passed > 0 else 0.0

    def pace(self) -> str:
        """The line under the bars, and the end of a plain line."""
        words = [f"{size(self.rate())}/s"]
        if (eta := self.eta()) is not None:
            words.append(f"{duration(eta)} left")
        words.append(f"{max(0, self.in_flight)} of {self.connections} connections in use")
        if self.retried:
            words.append(f"{count(self.retried)} of {count(self.requests)} requests retried")
        if self.findings:
            words.append(f"{count(self.findings)} findings")
        if self.stopping:
            words.append("stopping")
        return ", ".join(words)
