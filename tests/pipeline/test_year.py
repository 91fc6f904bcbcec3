"""A mirror that is synced every night for weeks, of an archive that changes, fails and lies: see fakes.calendar.

benchmarks/year.py lives through whole years of the same.
"""

from __future__ import annotations

import pytest
from fakes.calendar import Act, Trouble, make_calendar
from fakes.year import run_year

NIGHTS = 45
OPTIONS = {"nbia": {"on_withdrawn": "retire", "layout": "classic"}, "tcia": {}}


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.timeout(180)
@pytest.mark.asyncio
async def test_after_weeks_of_nights_the_tree_is_what_the_archive_shows(tmp_path, dialect):
    year = await run_year(tmp_path, dialect, seed=4, nights=NIGHTS, kills=3, **OPTIONS[dialect])
    assert year.wrong == []
    assert {run.night for run in year.runs} == set(range(NIGHTS))
    assert sum(run.killed for run in year.runs) >= 2
    assert year.compared > 20 * NIGHTS
    # The rest costs nothing: two questions a night, and a whole walk a week.
    quiet = year.quiet_costs()
    assert len(quiet) > NIGHTS
    assert max(quiet) == 2
    assert sum(len(run.walked) for run in year.runs if not run.killed) <= 5 * (NIGHTS // 7 + 3)


@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
def test_a_calendar_has_some_of_everything(dialect):
    nights = make_calendar(4, 365, dialect, kills=40)
    assert nights == make_calendar(4, 365, dialect, kills=40)
    steps = [step for night in nights for step in night.steps]
    assert {step.act for step in steps} == set(Act)
    assert {night.trouble for night in nights} == {None, *Trouble}
    assert sum(night.kill is not None for night in nights) == 40
    assert any(night.during for night in nights)
    assert sum(not night.steps for night in nights) > 100
    if dialect == "tcia":
        assert all(step.dated for step in steps if step.act is Act.SHRINK)
