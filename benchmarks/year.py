"""A year of nights: an archive with a calendar, and a mirror that is synced every night and killed now and then.

    python benchmarks/year.py                                  365 nights in each dialect
    python benchmarks/year.py --nights 45 --dialect nbia --seed 7 --verbose

Archive, calendar and the checks after each night are those of tests/fakes (calendar, world, year, watch). The archive
shares the machine, and but for the nights that are killed the process, with the mirror. Prints the figures, as
Markdown, and every sentence about what was wrong; ends with status 1 where there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def main() -> None:
    """Parse the options and run."""
    from fakes.year import run_year

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--dialect", choices=["nbia", "tcia"], nargs="*", default=["nbia", "tcia"])
    parser.add_argument("--seed", type=int, nargs="*", default=[1])
    parser.add_argument("--kills", type=int, help="runs that are killed; a ninth of the nights by default")
    parser.add_argument("--calm", action="store_true", help="an archive without trouble")
    parser.add_argument("--layout", default="uid")
    parser.add_argument("--on-withdrawn", choices=["keep", "retire", "delete"], default="keep")
    parser.add_argument("--verbose", action="store_true", help="a line for every run")
    options = parser.parse_args()
    wrong = 0
    for seed in options.seed:
        for dialect in options.dialect:
            with tempfile.TemporaryDirectory(prefix="year-") as folder:
                begun = time.monotonic()
                year = asyncio.run(
                    run_year(
                        Path(folder),
                        dialect,
                        seed=seed,
                        nights=options.nights,
                        kills=options.nights // 9 if options.kills is None else options.kills,
                        troubles=not options.calm,
                        say=(lambda line: print(line, flush=True)) if options.verbose else (lambda line: None),
                        layout=options.layout,
                        on_withdrawn=options.on_withdrawn,
                    )
                )
            print(f"\n| {dialect}, seed {seed} | {time.monotonic() - begun:.0f} s |\n|---|---|")
            for name, value in year.table():
                print(f"| {name} | {value} |")
            for line in year.wrong:
                print(f"\n{line}", flush=True)
            wrong += len(year.wrong)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
