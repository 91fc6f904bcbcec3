"""Whether this process is the limit: by the clocks, and not for a moment's sake."""

from __future__ import annotations

import time

from mirror.transports.processor import WAYS, Processor, effort


class Clocks:
    """Time that passes, and how much of it the processor was at work."""

    def __init__(self) -> None:
        self.now = 100.0
        self.spent = 5.0

    def go_on(self, seconds: float, share: float) -> None:
        self.now += seconds
        self.spent += seconds * share


def make() -> tuple[Clocks, Processor]:
    clocks = Clocks()
    return clocks, Processor(lambda: clocks.now, lambda: clocks.spent)


def test_a_core_that_is_taken_whole_is_the_limit_until_it_is_clearly_not():
    clocks, processor = make()
    assert not processor.is_limit
    for share, limit in ((0.8, False), (0.95, True), (1.6, True), (0.8, True), (0.7, False), (0.8, False)):
        clocks.go_on(0.6, share)
        processor.look()
        assert processor.is_limit is limit, share


def test_moments_say_nothing():
    clocks, processor = make()
    for _ in range(4):
        clocks.go_on(0.1, 1.0)
        processor.look()
    assert not processor.is_limit
    clocks.go_on(0.2, 0.0)
    processor.look()
    assert not processor.is_limit, "four parts of six"


def test_it_sees_this_process():
    processor = Processor()
    until = time.process_time() + 0.8
    while time.process_time() < until:
        processor.look()
    spent, began = time.process_time(), time.monotonic()
    time.sleep(0.7)
    processor.look()
    assert time.process_time() - spent < 0.75 * (time.monotonic() - began)
    assert not processor.is_limit


def test_small_objects_cost_less_as_a_zip_and_large_ones_by_themselves():
    def cheaper(bytes_: float) -> str:
        return min(WAYS, key=lambda way: effort(way, 100, 100 * bytes_))

    assert [cheaper(size) for size in (1_000, 27_000, 80_000, 120_000, 527_000, 1e8)] == ["zip"] * 3 + ["instance"] * 3
