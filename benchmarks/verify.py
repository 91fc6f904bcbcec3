"""How fast a tree is verified, against one `sha256sum` over the same tree, in the same run and from a warm cache.

    python benchmarks/verify.py                    40,000 files of 27 KB, then 4,000 of 500 KB
    python benchmarks/verify.py --size 27000 --files 5000 --rounds 5

Each is a process of its own; the best of the rounds counts, and they take turns. "reading" is a verification's own time
until its last file was read: without the second or so in which Python starts. The files are made from a seed. Prints a
table, as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
#: Files to a series.
_SERIES = 100


def build(root: Path, files: int, size: int) -> int:
    """A mirror of one collection; the bytes of its files."""
    from fakes.dicom import make_series, uid

    from mirror.export import export
    from mirror.ledger import Ledger
    from mirror.serve.stock import stock

    Ledger(root).close()
    side = max(8, int(((size - 800) / 2) ** 0.5))
    for number in range(0, files, _SERIES):
        bodies = make_series(
            patient_id=f"P-{number // 1000:03d}",
            study_uid=uid(1, 1 + number // 1000),
            series_uid=uid(1, 1, 1 + number),
            instances=min(_SERIES, files - number),
            side=side,
        )
        stock(root, "Bench", bodies, released="2022-01-01")
    export(root, "sha256")
    return sum(path.stat().st_size for path in root.rglob("*.dcm"))


def timed(command: list[str], folder: Path) -> tuple[float, float, str]:
    """(seconds, CPU seconds, stdout) of one command as a process."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} ended with status {status}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, out


def run(files: int, size: int, rounds: int) -> None:
    """Both over a tree of that many files."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        root = Path(folder)
        total = build(root, files, size)
        ours = [sys.executable, "-m", "mirror", "verify", "--to", str(root), "--json"]
        others = {
            "sha256sum": ["sha256sum", "--check", "--quiet", "SHA256SUMS"],
            "verify": ours,
            "verify --quick": [*ours, "--quick"],
            "verify --deep": [*ours, "--deep"],
        }
        best: dict[str, tuple[float, float, float]] = {}
        for _ in range(rounds):
            for name, command in others.items():
                seconds, cpu, out = timed(command, root)
                reading = seconds
                if name != "sha256sum":
                    report = json.loads(out)
                    assert (report["files"], report["exit_code"]) == (files, 0), out
                    reading = report["reading_seconds"]
                best[name] = min(best.get(name, (reading, seconds, cpu)), (reading, seconds, cpu))
        reference = best["sha256sum"][0]
        for name, (reading, seconds, cpu) in best.items():
            print(
                f"| {name} | {files:,} | {total / 1e6:,.0f} | {seconds:.2f} | {cpu:.2f} | {reading:.2f} |"
                f" {files / reading:,.0f} | {total / reading / 1e6:,.0f} | {reference / reading:.2f} |",
                flush=True,
            )


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(
        "| run | files | MB | seconds | CPU s | reading | files/s | MB/s | times sha256sum |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    if options.files or options.size:
        run(options.files or 2000, options.size or 27_000, options.rounds)
        return
    run(40_000, 27_000, options.rounds)
    run(4_000, 500_000, options.rounds)


if __name__ == "__main__":
    main()
