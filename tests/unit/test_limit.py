"""How many requests may be in flight, against modelled servers: by the rules, and by what comes of them in minutes."""

from __future__ import annotations

import pytest
from fakes.simulated import Failure, Fixed, Model, Simulation, Sizes, alike, between

from mirror.archive.limit import Limit

SMALL, CT, MIXED = alike(27_000), alike(525_000), between(2_000, 2_000_000)
SEEDS = pytest.mark.parametrize("seed", [1, 2])


def answer(limit: Limit, times: int, *, begin: float = 0.0, every: float = 0.01, full: bool = True) -> float:
    """So many good answers to requests of a tenth of a second; returns when the last came."""
    for _ in range(times):
        begin += every
        limit.good(begin, 27_000, 0.1, full)
    return begin


# The rules


def test_it_begins_with_four_or_with_the_cap_where_that_is_lower():
    assert Limit(64).value == 4
    assert Limit(2).value == 2


@pytest.mark.parametrize(("cap", "most"), [(1, 1), (3, 3), (6, 6), (8, 8)])
def test_a_modest_number_is_reached_answer_by_answer_and_never_passed(cap: int, most: int):
    limit = Limit(cap)
    answer(limit, 4)
    assert limit.value == most
    answer(limit, 5000)
    assert limit.value == most


def test_it_does_not_grow_while_it_is_not_what_holds_us():
    limit = Limit(64)
    answer(limit, 500, full=False)
    assert limit.value == 4
    answer(limit, 4)
    assert limit.value == 8
    answer(limit, 500, full=False, begin=1.0)
    assert limit.value == 8


def test_trouble_halves_it_once_a_second_and_one_request_may_always_be_in_flight():
    limit = Limit(8)
    now = answer(limit, 10)
    for _ in range(8):
        limit.trouble(now + 0.5, "Stalled")
    assert (limit.value, limit.why) == (4, "Stalled")
    limit.trouble(now + 0.9, "Stalled")
    assert limit.value == 4, "what was in flight fails together"
    for seconds, value in ((2, 2), (4, 1), (6, 1)):
        limit.trouble(now + seconds, "Stalled")
        assert limit.value == value


def test_it_does_not_grow_within_the_second_after_trouble_and_then_is_back_at_once():
    limit = Limit(8)
    now = answer(limit, 10)
    limit.trouble(now, "BodyCut")
    answer(limit, 50, begin=now)
    assert limit.value == 4
    answer(limit, 4, begin=now + 1.0)
    assert limit.value == 8


def test_what_was_refused_soon_after_the_number_grew_is_not_reached_again_for_a_while():
    limit = Limit(8)
    now = answer(limit, 3)
    assert limit.value == 7
    limit.trouble(now, "Throttled", refused=True)
    assert limit.value == 3
    now = answer(limit, 110, begin=now)
    assert limit.value == 6
    answer(limit, 100, begin=now)
    assert limit.value == 7, "later it is tried"


def test_a_refusal_after_thousands_of_answers_is_chance():
    limit = Limit(8)
    now = answer(limit, 2000)
    limit.trouble(now, "Throttled", refused=True)
    answer(limit, 110, begin=now)
    assert limit.value == 8


def test_without_seconds_it_stays_modest():
    limit = Limit(64)
    for number in range(1000):
        limit.good(number / 100, 27_000, None, True)
    assert limit.value == 8


# What comes of them


def slow(_now: float, _in_flight: int, size: int) -> tuple[float, None]:
    """200 ms of thinking, 5 MB/s per connection, as many as one likes."""
    return 0.2 + size / 5e6, None


def far(_now: float, _in_flight: int, size: int) -> tuple[float, None]:
    """A warm round trip of 60 ms."""
    return 0.06 + size / 50e6, None


def link(_now: float, in_flight: int, size: int) -> tuple[float, None]:
    """The same, over a wire of 1 Gbit/s."""
    return 0.06 + max(size / 50e6, in_flight * size / 125e6), None


def workers(number: int) -> Model:
    """A server that does so many things at a time, 50 ms each; the rest queues."""
    return lambda _now, in_flight, _size: (0.05 * max(1.0, in_flight / number), None)


def throttling(most: int, seconds: float, retry_after: float = 0.0) -> Model:
    """429 above so many in flight."""
    refusal = Failure(retry_after=retry_after)
    return lambda _now, in_flight, _size: (0.002, refusal) if in_flight > most else (seconds, None)


@SEEDS
@pytest.mark.parametrize(
    ("model", "sizes", "cap", "seconds"),
    [
        (slow, SMALL, 32, 60),
        (slow, CT, 32, 60),
        (slow, MIXED, 32, 120),
        (link, CT, 32, 60),
        (workers(20), SMALL, 64, 60),
    ],
    ids=["slow-small", "slow-ct", "slow-mixed", "link-ct", "workers"],
)
def test_goodput_is_within_a_tenth_of_the_best_fixed_number(
    model: Model, sizes: Sizes, cap: int, seconds: float, seed: int
):
    best = max(
        Simulation(Fixed(number), model, sizes, seed).run(seconds).goodput(0, seconds)
        for number in (4, 8, 16, 24, 32, 64)
        if number <= cap
    )
    assert Simulation(Limit(cap), model, sizes, seed).run(seconds).goodput(0, seconds) >= 0.9 * best


@SEEDS
def test_a_long_link_is_full_within_seconds(seed: int):
    run = Simulation(Limit(128), far, SMALL, seed, spread=0.2, setup=0.25).run(10)
    fixed = Simulation(Fixed(128), far, SMALL, seed, spread=0.2, setup=0.25).run(10)
    assert run.first_at(128) < 1.5
    assert run.rate(0, 10) >= 0.88 * fixed.rate(0, 10)


@SEEDS
@pytest.mark.parametrize("number", [12, 20, 50])
def test_it_levels_off_where_goodput_stops_growing(number: int, seed: int):
    run = Simulation(Limit(128), workers(number), SMALL, seed).run(90)
    assert number * 0.9 <= run.mean(30, 90) <= number * 1.3 + 4
    assert run.rate(30, 90) >= 0.95 * number / 0.05


@SEEDS
@pytest.mark.parametrize(
    ("model", "sizes", "least", "most"),
    [(slow, CT, 0.75, 1.0), (far, SMALL, 0.75, 1.0), (link, CT, 0.0, 0.45), (workers(10), SMALL, 0.0, 0.45)],
    ids=["slow", "far", "link", "workers"],
)
def test_it_knows_what_one_request_more_would_bring(model: Model, sizes: Sizes, least: float, most: float, seed: int):
    """Nothing but their number holds back those of a slow server; on a full link others lose what one more gains."""
    limit = Limit(32)
    simulation = Simulation(limit, model, sizes, seed, spread=0.1)
    for seconds in (10, 60):
        simulation.run(seconds)
        assert least <= limit.marginal <= most, seconds


@SEEDS
@pytest.mark.parametrize(("most", "seconds"), [(3, 0.1), (6, 2.0), (10, 0.2), (10, 2.0), (20, 0.3)])
def test_a_server_that_throttles_is_used_to_its_limit_and_refuses_next_to_nothing(most: int, seconds: float, seed: int):
    run = Simulation(Limit(64), throttling(most, seconds), SMALL, seed).run(240)
    assert run.failed(60, 240) < 0.01
    assert run.rate(60, 240) >= 0.9 * most / seconds


@SEEDS
def test_trials_that_make_everybody_wait_are_rare(seed: int):
    run = Simulation(Limit(64), throttling(10, 0.2, retry_after=5.0), SMALL, seed).run(900)
    assert run.failed(60, 900) < 0.001
    assert run.rate(60, 900) >= 0.9 * 50
    run = Simulation(Limit(64), throttling(10, 0.2, retry_after=60.0), SMALL, seed).run(900)
    assert sum(time >= 200 for time in run.failures) <= 1


@SEEDS
def test_a_server_that_bears_less_or_more_than_it_did_is_followed(seed: int):
    def model(now: float, in_flight: int, size: int) -> tuple[float, Failure | None]:
        most = 20 if now < 60 else 8 if now < 180 else 30
        return throttling(most, 0.1)(now, in_flight, size)

    run = Simulation(Limit(32), model, SMALL, seed).run(600)
    assert run.rate(90, 180) >= 0.9 * 80
    assert run.failed(90, 180) < 0.01
    assert run.rate(500, 600) >= 0.85 * 300


@pytest.mark.parametrize("why", ["ServerFault", "Unreachable"])
def test_an_outage_costs_nothing_when_it_is_over(why: str):
    down = Failure(why, refused=why == "ServerFault")

    def model(now: float, in_flight: int, size: int) -> tuple[float, Failure | None]:
        return (0.5, down) if 30 <= now < 60 else far(now, in_flight, size)

    run = Simulation(Limit(32), model).run(90)
    assert run.at(29) == 32
    assert run.at(59) == 1
    assert run.first_at(32) < 5
    assert [value for time, value in run.changes if 60 <= time < 63][-1] >= 30


@SEEDS
def test_failures_by_chance_cost_little(seed: int):
    def model(now: float, in_flight: int, size: int) -> tuple[float, Failure | None]:
        model.asked = getattr(model, "asked", 0) + 1  # type: ignore[attr-defined]
        return (0.05, Failure("ServerFault")) if model.asked % 1009 == 0 else far(now, in_flight, size)  # type: ignore[attr-defined]

    run = Simulation(Limit(16), model, SMALL, seed).run(120)
    assert run.mean(20, 120) > 11


@SEEDS
def test_answers_that_suddenly_take_much_longer_halve_it_and_it_comes_back(seed: int):
    def model(now: float, in_flight: int, size: int) -> tuple[float, None]:
        seconds, _ = far(now, in_flight, size)
        return (8 * seconds * in_flight / 8 if 30 <= now < 60 else seconds), None

    run = Simulation(Limit(32), model, SMALL, seed).run(150)
    assert run.at(29.9) > 25
    assert run.mean(45, 60) < 20, "more would only queue"
    assert run.mean(110, 150) > 25


def test_one_answer_that_hangs_is_no_jump():
    limit = Limit(8)
    now = answer(limit, 300, every=1.0)
    for number in range(1, 301):
        now += 1.0
        limit.good(now, 27_000, 20.0 if number % 60 == 0 else 0.1, True)
        assert limit.value == 8


def test_trials_of_more_than_the_server_bears_become_rare():
    run = Simulation(Limit(64), throttling(10, 0.1), SMALL).run(600)
    assert sum(time < 60 for time in run.failures) >= 4
    assert sum(time >= 300 for time in run.failures) <= 4
