"""How many requests may be in flight at a server: a climb by proofs. Pure: it has no clock and waits for nothing.

`Limit.value` is the number. It keeps near a **level**, the most that is known to be of use:

- Below the level it grows by one with each good answer, at the start as well as after trouble, so that it is there
  within two or three round trips. At first the level is modest and needs no proof.
- Beyond it a proof is needed. A **trial** doubles the number and measures: where goodput grew by at least a fifth of
  what it would if the server had no bounds, that is the new level, and the next trial begins. Otherwise the number
  goes back to the level; the next trial is smaller, measured longer, and some time off, twice as long with each that
  fails. Every other such trial is of fewer requests: where that costs hardly any goodput the level goes down, so that
  nothing is sent that only queues.
- Trouble halves the number, for a second at least. Where the server refused (429, 503) soon after the number had grown,
  the level is below what was refused, and trials come nearer to that by halves.
- Answers that suddenly take several times as long are trouble too, and the level is then found anew from below.

Goodput is compared by what answers of a size take. Bodies of a run differ by a factor of a million, so that bytes or
answers a second tell what was asked for and not how the server is; answers are therefore sorted into classes by size, a
factor of two wide, and those of one measurement are held against the means of their classes in those before. Where
requests in flight are doubled and answers take as long as before, goodput has doubled. What our own side does between
two requests does not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_START = 4
#: So many requests at a time are no burden for any server that is in order.
_MODEST = 8
#: The part of unbounded growth that is proof enough. A link is well used only where the last doubling gains a quarter.
_PROOF = 1 / 5
#: Answers that a measurement needs: until a trial has failed, and after that. More of them where more are in flight.
_FEW, _MANY = 8, 64
#: Good answers until the next trial, for each request that may be in flight: below the cap, and at the cap, where only
#: fewer can be tried. At least so many answers, and so many seconds. All of that doubles, so many times at most.
_PAUSE_BELOW, _PAUSE_AT_CAP = 12, 64
_PAUSE_ANSWERS, _PAUSE_SECONDS, _PAUSE_DOUBLINGS = 100, 1.0, 7
#: A refused trial costs the time that the server asks for; that is not to be more than this part of all time.
_PART_ON_HOLD = 1 / 25
#: All that is in flight fails together when a server is overloaded: within a second that is one trouble, not eight.
_ONE_TROUBLE = 1.0
#: Answers that take so many times as long, and so many seconds longer, are trouble.
_JUMP, _JUMP_SECONDS = 3.0, 0.1
#: A single one counts as no more than so many times as long: a few that hang say nothing of the rest.
_OUTLIER = 5.0


@dataclass(slots=True)
class _Means:
    """Mean seconds of answers by class of size."""

    of: dict[int, float] = field(default_factory=dict)

    def follow(self, measured: _Measurement, weight: float) -> None:
        for kind, (count, seconds) in measured.seen.items():
            mean, old = seconds / count, self.of.get(kind)
            self.of[kind] = mean if old is None else old + weight * (mean - old)

    def scale(self, factor: float) -> None:
        self.of = {kind: mean * factor for kind, mean in self.of.items()}


@dataclass(slots=True)
class _Measurement:
    """Answers to requests that began after it did."""

    #: None: it begins with the next answer. What was let in by the last change has been sent by then, so that
    #: requests which had to make a connection first do not count.
    start: float | None = None
    answers: int = 0
    #: Answers at which every slot was in use: otherwise it is not the limit that holds us.
    full: int = 0
    #: Answers whose class is in the means, their seconds, and the means' seconds for as many.
    known: int = 0
    seconds: float = 0.0
    expected: float = 0.0
    #: Number and seconds of all answers by class.
    seen: dict[int, list[float]] = field(default_factory=dict)

    def add(self, size: int, seconds: float, full: bool, means: _Means) -> None:
        kind = size.bit_length()
        self.answers += 1
        self.full += full
        if (expected := means.of.get(kind)) is not None:
            self.known += 1
            seconds = min(seconds, _OUTLIER * expected)
            self.seconds += seconds
            self.expected += expected
        seen = self.seen.get(kind)
        if seen is None:
            self.seen[kind] = [1, seconds]
        else:
            seen[0] += 1
            seen[1] += seconds

    @property
    def slower(self) -> float:
        """How many times as long the known answers took as before."""
        return max(self.seconds, 1e-9) / max(self.expected, 1e-9)

    def has_jumped(self) -> bool:
        known_well = 2 * self.known >= self.answers
        longer = self.seconds - self.expected
        return known_well and self.slower >= _JUMP and longer >= _JUMP_SECONDS * self.known


class Limit:
    """The number of requests that may be in flight, at most `cap`. See the module's docstring."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        #: The number now.
        self.value = min(_START, cap)
        #: Why it is that.
        self.why = "start"
        #: What one request more in flight is known to bring, as part of what each brings now: 0 where it only queues, 1
        #: where nothing but this number holds goodput back.
        self.marginal = 1.0
        self._level = min(_MODEST, cap)
        #: At the level; what a measurement is compared with.
        self._means = _Means()
        self._now = _Measurement()
        #: Whether the number is on trial, whether the next trial goes up, and whether it comes at once.
        self._trial = False
        self._upwards = True
        self._eager = True
        #: Until the first trial that failed. After it trials are smaller, and measured with more care.
        self._climbing = True
        self._failed = 0
        self._pause_began = 0.0
        self._pause_least = 0.0
        #: The lowest number that the server refused; 0: it refused none.
        self._refused = 0
        self._calm_after = 0.0
        #: Good answers since the last trial or refusal, and since the number changed; whether any came since trouble.
        self._good = 0
        self._steady = 0
        self._answered = False

    def good(self, now: float, size: int, seconds: float | None, full: bool) -> None:
        """A request was answered: a body of `size` bytes in `seconds`; None where they say nothing about the server.

        `full`: every slot was in use.
        """
        self._good += 1
        self._steady += 1
        self._answered = True
        if now < self._calm_after:
            return
        growing = self.value < self._level and not self._trial
        if growing and full:
            self.value += 1
            self.why = "answers come"
            self._steady = 0
        if seconds is None:
            return
        measured = self._now
        if measured.start is None:
            measured.start = now
        elif now - seconds >= measured.start:
            measured.add(size, seconds, full, self._means)
            enough = max(_FEW, self.value // 2) if self._climbing else max(_MANY, 4 * self.value)
            if measured.answers >= enough and not growing:
                self._conclude(now, measured)
            elif not measured.answers % 16 and measured.has_jumped():
                self._back_off(now, measured)

    def trouble(self, now: float, why: str, *, refused: bool = False, retry_after: float = 0.0) -> None:
        """A request failed because of how the server is. `refused`: it says that it has too much to do."""
        self._pause_least = max(self._pause_least, retry_after / _PART_ON_HOLD)
        if now < self._calm_after:
            return
        if self._trial:
            if refused and self.value > self._level:
                self._refused = self.value
            self._fail(now, upwards=refused)
        elif refused and self._answered and self._steady < 4 * self.value:
            # An outage refuses as well, but gives no good answers in between; and one of thousands is chance.
            self._refused = self.value
            self._level = max(1, self.value - 1)
            self._fail(now, upwards=True)
        self._halve(now, why)

    def _conclude(self, now: float, measured: _Measurement) -> None:
        if measured.has_jumped():
            self._back_off(now, measured)
        elif 2 * measured.full < measured.answers:
            self._now = _Measurement()  # it is not the limit that holds us
        elif self._trial:
            self._judge(now, measured)
        else:
            self._means.follow(measured, 0.5)
            self._now = _Measurement()
            self._consider(now)

    def _back_off(self, now: float, measured: _Measurement) -> None:
        """Answers take much longer than they did: what the server bears now is found from below."""
        self._level = max(1, self.value // 2)
        self._means = _Means()
        self._trial, self._upwards, self._eager = False, True, True
        self._halve(now, f"answers take {measured.slower:.1f} times as long")

    def _judge(self, now: float, measured: _Measurement) -> None:
        ratio = self.value / self._level
        gain = ratio / measured.slower if measured.known else 0.0
        if 2 * measured.known >= measured.answers:
            found = min(1.0, max(0.0, (gain - 1) / (ratio - 1)))
            # Of small steps it is told by less.
            self.marginal += (found - self.marginal) * (1.0 if self._climbing else 0.5)
        if 2 * measured.known < measured.answers:
            # Other things are asked for than before: they are measured at the level first.
            self._trial = False
            self._means = _Means()
            self._set(self._level, "to compare")
        elif gain < 1 + (ratio - 1) * _PROOF:
            tried, hasty = self.value, self._climbing
            self._fail(now, upwards=hasty or not self._upwards)
            self._eager = hasty  # measured once more, with care
            self._set(self._level, f"{tried} give {gain:.2f} times the goodput")
        else:
            self._means.scale(measured.slower)
            self._means.follow(measured, 0.5)
            self._level = self.value
            self._refused = self._refused if self._refused > self._level else 0
            self._trial, self._eager = False, True
            self._failed, self._pause_began, self._pause_least, self._good = 0, now, 0.0, 0
            self._now = _Measurement()
            self._consider(now)

    def _consider(self, now: float) -> None:
        """Begin a trial if one is due and there is a number to try."""
        least = min(_MODEST, self.cap)
        if self._level >= self.cap or self._level <= least:
            upwards = self._level < self.cap
            if upwards != self._upwards:
                self._eager = self._climbing = False
            self._upwards = upwards
        doublings = 2 ** min(max(self._failed - 2, 0), _PAUSE_DOUBLINGS)
        due = self._eager or (
            self._good
            >= max(_PAUSE_ANSWERS, (_PAUSE_AT_CAP if self._level == self.cap else _PAUSE_BELOW) * self._level)
            * doublings
            and now - self._pause_began >= max(_PAUSE_SECONDS * doublings, self._pause_least)
        )
        if not due:
            return
        if self._upwards:
            step = self._level if self._climbing else self._level // 2
            if self._refused:
                step = min(step, (self._refused - self._level) // 2)
            number = min(self._level + max(1, step), self.cap)
        else:
            number = max(self._level - max(1, self._level // 5), least)
        if number != self._level:
            self._trial = True
            self._set(number, "to see what it gives")

    def _fail(self, now: float, *, upwards: bool) -> None:
        """No trial for a while, each time for longer; `upwards`: the way of the next."""
        self._trial = self._eager = self._climbing = False
        self._upwards = upwards
        self._failed += 1
        self._pause_began, self._good = now, 0

    def _halve(self, now: float, why: str) -> None:
        self._answered = False
        self._calm_after = now + _ONE_TROUBLE
        self._set(max(1, self.value // 2), why)

    def _set(self, number: int, why: str) -> None:
        self.value, self.why = number, why
        self._steady = 0
        self._now = _Measurement()
