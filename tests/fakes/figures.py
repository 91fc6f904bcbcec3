"""What many nights came to: every run, what it cost, and what was wrong."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field

from mirror.archive.endpoints import DialectName


@dataclass(slots=True)
class Ran:
    """One run of one night."""

    night: int
    exit_code: int
    killed: bool
    seconds: float
    #: Requests by collection; "" for those of none.
    requests: Counter[str]
    #: Collections that were walked whole, that had nothing new, and that had trouble.
    walked: set[str]
    quiet: set[str]
    fetched: int


@dataclass
class Year:
    """What became of the nights."""

    seed: int
    dialect: DialectName
    runs: list[Ran] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    #: Bytes that came into the tree for the first time; how often a series was compared with what the archive shows.
    needed: int = 0
    compared: int = 0

    def quiet_costs(self) -> list[int]:
        """Requests per collection of every run that ended well, found nothing new there and did not walk it."""
        return [r.requests[c] for r in self.runs if r.exit_code == 0 for c in r.quiet - r.walked]

    def table(self) -> list[tuple[str, str]]:
        """The figures, in words."""
        whole = [r for r in self.runs if not r.killed]
        in_process = sorted(r.seconds for r in whole)
        after = [r.requests[c] for r in whole for c in r.requests if c and c not in r.quiet | r.walked]
        walks = [r.requests[c] for r in whole for c in r.walked & r.quiet]
        total = sum(sum(r.requests.values()) for r in self.runs)
        fetched = sum(r.fetched for r in self.runs)
        return [
            ("nights", str(1 + max(r.night for r in self.runs))),
            ("runs", f"{len(self.runs)}, {sum(r.killed for r in self.runs)} of them killed"),
            ("exit codes", ", ".join(f"{c}: {n}" for c, n in sorted(Counter(r.exit_code for r in whole).items()))),
            ("requests per collection, quiet night", _spread(self.quiet_costs())),
            ("requests per collection, quiet night with a walk", _spread(walks)),
            ("requests per collection, night with something new", _spread(after)),
            ("collections walked whole", str(sum(len(r.walked) for r in self.runs))),
            ("seconds per night", f"median {statistics.median(in_process):.3f}, max {in_process[-1]:.3f}"),
            ("requests in all", f"{total:,}"),
            ("instances fetched", f"{fetched:,}, {self.needed:,} of them new bytes in the tree"),
            ("series compared with the archive", f"{self.compared:,}"),
            ("wrong", str(len(self.wrong))),
        ]


def _spread(numbers: list[int]) -> str:
    """How often each number came, or their middle and largest where they are many."""
    counted = Counter(numbers)
    if len(counted) <= 4:
        return ", ".join(f"{number} ({often} times)" for number, often in sorted(counted.items())) or "none"
    return f"median {statistics.median(numbers):.0f}, max {max(numbers)} ({len(numbers)} times)"
