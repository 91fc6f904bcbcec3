"""What a start does without: modules by their names, in a fresh interpreter. Its time is for benchmarks.startup."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from fakes.headers import ct_body
from fakes.process import environment
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

PROJECT = Path(__file__).parents[2]
#: All that a sync which fetches something imports, whatever shows it.
SYNC = "import mirror.cli.main as m; m.add_commands(['sync']); import mirror.cli.syncing, mirror.pipeline"
WORKER = "import mirror.transports.workers"

#: Large, or of no use to a run where all goes well.
LATER = {
    "pydicom", "requests", "urllib3", "numpy", "rich", "tenacity", "prometheus_client", "pyarrow", "aiohttp.web",
    "mirror.unusual", "mirror.headers", "mirror.notify", "mirror.metrics", "mirror.serve", "mirror.demo", "mirror.diff",
    "mirror.adopt", "mirror.rebuild", "mirror.verification", "mirror.prune",
    "mirror.ledger.found", "mirror.ledger.past", "mirror.ledger.rebuilt",
}  # fmt: skip
#: What other commands need, and displays that are not asked for.
COMMANDS = {
    f"mirror.cli.{name}"
    for name in ("adopt", "bars", "diff", "differing", "log", "prune", "reading", "serving", "summary", "verify")
}


def fresh(code: str, *words: str) -> str:
    """What a new interpreter prints that runs this."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=PROJECT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def imported(code: str) -> set[str]:
    return set(json.loads(fresh(f"{code}\nimport json, sys; print(json.dumps(list(sys.modules)))")))


@pytest.mark.parametrize("code", [SYNC, WORKER], ids=["sync", "worker"])
def test_what_a_run_may_never_need_is_not_imported(code: str):
    modules = imported(code)
    assert {"aiohttp", "mirror.check", "mirror.identity", "mirror.ledger"} <= modules
    assert modules & (LATER | COMMANDS) == set()


def test_what_is_left_out_is_there_to_be_left_out():
    """No name above is one that nothing has any more."""
    ours = [name for name in LATER | COMMANDS if name.startswith("mirror.")]
    missing = fresh(
        "import sys, importlib.util as u; print([n for n in sys.argv[1:] if u.find_spec(n) is None])", *ours
    )
    assert missing.strip() == "[]"


def test_a_command_is_imported_alone_and_help_has_all():
    code = (
        "import sys, mirror.cli.main as m; app = m.add_commands(sys.argv[1:]);"
        "print([command.callback.__name__ for command in app.registered_commands])"
    )
    assert fresh(code, "status", "--json") == "['status', 'export', 'query']\n"
    every = fresh(code)
    assert every.startswith("['sync', 'status', ")
    assert every.count("'") == 2 * 12
    assert fresh(code, "stats") == fresh(code, "--help") == fresh(code, "--version", "sync") == every


FIRST_USE = """
import io, sys, threading
sys.setswitchinterval(1e-6)
from pathlib import Path
from mirror.check import read_header
from mirror.identity import scan
body, implicit = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]).read_bytes()
assert not any(name.startswith("pydicom") for name in sys.modules)
gate, said = threading.Barrier(8), []
def read(number):
    gate.wait()
    if number % 2:
        said.append(read_header(body, len(body))[0].patient_id)
    else:
        said.append(scan(implicit, len(implicit)).patient_id)
threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join(60)
assert "pydicom" in sys.modules
print(sorted(said))
"""


def test_pydicom_may_be_wanted_by_many_threads_at_once(tmp_path: Path):
    """By way of headers that are not plain, and of its dictionary: nobody meets a module that is half there."""

    def unknown_to_us(dataset: Dataset) -> None:
        dataset.PatientBreedCodeSequence = Sequence([Dataset()])
        dataset["PatientBreedCodeSequence"].is_undefined_length = True

    padded, implicit = tmp_path / "padded.dcm", tmp_path / "implicit.dcm"
    padded.write_bytes(ct_body() + b"\0" * 16)
    implicit.write_bytes(ct_body(ImplicitVRLittleEndian, change=unknown_to_us))
    patient = pydicom.dcmread(padded).PatientID
    assert fresh(FIRST_USE, str(padded), str(implicit)) == f"{[patient] * 8}\n"


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_plain_header_does_without_pydicom(tmp_path: Path, syntax: UID):
    (tmp_path / "plain.dcm").write_bytes(ct_body(syntax, undefined=True))
    code = (
        "import sys; from mirror.check import read_header; file = open(sys.argv[1], 'rb');"
        "print(read_header(file, file.seek(0, 2))[0].patient_id, 'pydicom' in sys.modules)"
    )
    assert fresh(code, str(tmp_path / "plain.dcm")).endswith(" False\n")


def test_what_pydicom_says_of_headers_is_not_told_however_late_it_comes():
    code = """
import logging, sys, warnings
import mirror.cli.main as m
def command(**_):
    assert "pydicom" not in sys.modules
    import pydicom
    logging.getLogger("pydicom").error("an odd header")
    warnings.warn_explicit("an odd value", UserWarning, "valuerep.py", 1, module="pydicom.valuerep")
    logging.getLogger("mirror").error("ours")
m.add_commands = lambda words: command
try: m.run()
except SystemExit as ended: assert ended.code == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "tcia-mirror: mirror: ours\n")
