"""What it takes to know an object by its header: microseconds of CPU, of one thread, the best of several rounds.

    python benchmarks/identity.py                  every shape
    python benchmarks/identity.py --rounds 20      more rounds, for a machine that does other things besides

In memory, `scan` is mirror.identity alone, and `whole` is check_instance of a body, verdict and all. Of an open file,
there is read_header, and what it did before: pydicom's way, which is left for what is unusual. The header is a CT's:
95 elements, three sequences, private elements. Prints Markdown.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from mirror import check
from mirror.identity import scan
from mirror.unusual import read_by_pydicom

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SHAPES: dict[str, tuple[UID, int, int, bool]] = {
    "explicit, 27 KB": (ExplicitVRLittleEndian, 24_000, 1, False),
    "explicit, 525 KB": (ExplicitVRLittleEndian, 524_288, 1, False),
    "explicit, 27 KB, undefined lengths": (ExplicitVRLittleEndian, 24_000, 1, True),
    "implicit, 27 KB": (ImplicitVRLittleEndian, 24_000, 1, False),
    "implicit, 525 KB": (ImplicitVRLittleEndian, 524_288, 1, False),
    "encapsulated, 27 KB": (JPEG2000Lossless, 24_000, 1, False),
    "encapsulated, 525 KB, 64 fragments": (JPEG2000Lossless, 524_288, 64, False),
}


def cost(call: Callable[[], object], rounds: int, times: int) -> float:
    """Microseconds of CPU for one call."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(times):
            call()
        best = min(best, time.process_time() - start)
    return best / times * 1e6


def main() -> None:
    """Measure every shape, and print a row for each."""
    from fakes.headers import ct_body
    from fakes.records import a_series

    parser = argparse.ArgumentParser(description="Microseconds for the identity of one object")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--times", type=int, default=500)
    asked = parser.parse_args()
    print("| object | bytes | scan | whole, in memory | read_header, of a file | read_header, by pydicom |")
    print("|---|---|---|---|---|---|")
    for name, (syntax, pixels, fragments, undefined) in SHAPES.items():
        body = ct_body(syntax, pixels=pixels, fragments=fragments, undefined=undefined)
        size = len(body)
        header = scan(body, size)
        assert header is not None, f"{name}: not scanned"
        assert (header, size) == read_by_pydicom(io.BytesIO(body), size)
        row = a_series(header.series_instance_uid, study=header.study_instance_uid, patient=header.patient_id)
        uid = header.sop_instance_uid
        assert not check.check_instance(body, size, row, uid, size).verdict.findings
        view = memoryview(body)
        with tempfile.TemporaryFile() as file:
            file.write(body)
            file.flush()
            figures = (
                cost(lambda: scan(body, size), asked.rounds, asked.times),  # noqa: B023
                cost(lambda: check.check_instance(view, size, row, uid, size), asked.rounds, asked.times),  # noqa: B023
                cost(lambda: check.read_header(file, size), asked.rounds, asked.times),  # noqa: B023
                cost(lambda: read_by_pydicom(file, size), asked.rounds, asked.times // 10 + 1),  # noqa: B023
            )
        print(f"| {name} | {size:,} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")


if __name__ == "__main__":
    main()
