"""schemathesis against the server: what its OpenAPI document allows, and what it does not, over a real socket.

What is asked is the same in every run, so that a failure is the code's; `make fuzz` asks much more, and something else
each time (FUZZ_EXAMPLES says how much, per operation). What is looked at is the status, the content type and the schema
of each answer, and more: see fakes.fuzz_checks. The checks that a server must refuse whatever the document does not
allow are left out: the archive's servers ignore most of it, and so does ours.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from fakes.dicom import instance_uid, uid
from fakes.process import unmeasured
from fakes.threaded import serving_in_a_thread, unforeseen

from mirror.lists import make_list
from mirror.serve.openapi import OPENAPI_PATH

LONG = "FUZZ_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
CHECKS = (
    "status_code_conformance", "response_headers_conformance", "content_type_as_told", "body_as_told",
    "fault_as_foreseen",
)  # fmt: skip
SERIES = uid(1, 1, 1, 1)
#: Values that find something, which no generator would come upon.
KNOWN = {
    "Collection": ["Lung-Alpha", "brain beta"],
    "PatientID": ["S1-001"],
    "PatientId": ["S1-001"],
    "StudyInstanceUID": [uid(1, 1, 1)],
    "SeriesInstanceUID": [SERIES, uid(2, 1, 2, 1)],
    "SeriesUID": [SERIES],
    "SOPInstanceUID": [instance_uid(SERIES, 1)],
    "name": ["a list"],
    "list": [f"{SERIES},{uid(2, 1, 2, 1)}"],
    "seriesId": [SERIES],
    "DOI": ["https://doi.org/10.1/Lung-Alpha"],
    "Date": ["2000-01-01"],
    "fromDate": ["01-01-2000"],
}


@pytest.fixture
def document(origin: str) -> dict[str, Any]:
    """The server's document, with values that find something for examples."""
    with urlopen(origin + OPENAPI_PATH) as answer:
        told = json.load(answer)
    for operation in (operation for path in told["paths"].values() for operation in path.values()):
        for param in operation.get("parameters", ()):
            param["schema"]["examples"] = KNOWN.get(param["name"], [])
        for content in operation.get("requestBody", {}).get("content", {}).values():
            for name, schema in content["schema"]["properties"].items():
                schema["examples"] = KNOWN.get(name, [])
    return told


@pytest.fixture
def origin(stocked: Path, tmp_path: Path) -> Iterator[str]:
    root = tmp_path / "upstream"
    shutil.copytree(stocked, root)
    make_list(root, "a list", [SERIES, uid(2, 1, 2, 1)])
    with serving_in_a_thread(root) as at:
        yield at


def fuzz(document: dict[str, Any], origin: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "openapi.json"
    file.write_text(json.dumps(document))
    which = ("--generation-database", "none") if LONG else ("--generation-deterministic",)
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "run", str(file), "--url", origin,
        "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--mode", "all",
        "--max-examples", str(EXAMPLES), *which,
        "--suppress-health-check", "all", "--continue-on-failure", "--warnings", "off", "--no-color",
    ]  # fmt: skip
    environment = unmeasured() | {
        "SCHEMATHESIS_HOOKS": "fakes.fuzz_checks",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "PYTHONWARNINGS": "ignore",
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60 + 60 * EXAMPLES
    )


@pytest.mark.timeout(120 + 60 * EXAMPLES)
def test_schemathesis_finds_nothing(
    document: dict[str, Any], origin: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = fuzz(document, origin, tmp_path)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    (number,) = re.findall(r"^ *Operations: .*?(\d+) selected", told, re.MULTILINE) or [""]
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert number == str(len(operations)), told
    # What no handler saw coming is told here, also where the answer had begun.
    assert unforeseen(caplog.records) == []


def test_what_is_not_as_the_document_says_is_found(document: dict[str, Any], origin: str, tmp_path: Path) -> None:
    """The checks can fail: on a status, a content type, a row and a text that the document does not have."""
    base = "/nbia-api/services/v4/"
    paths = document["paths"]
    paths[base + "getCollectionValues"]["get"]["responses"]["200"]["content"].pop("application/json")
    row = document["components"]["schemas"][
        paths[base + "getSeries"]["get"]["operationId"].removesuffix("_get") + "_row"
    ]
    row["properties"]["ImageCount"]["type"] = "string"
    paths[base + "getSeriesSize"]["get"]["responses"]["400"]["content"]["application/json"]["x-plain-text"] = ["Else."]
    del paths[base + "getImage"]["get"]["responses"]["400"]
    wanted = ("getCollectionValues", "getSeries", "getSeriesSize", "getImage")
    document["paths"] = {base + name: paths[base + name] for name in wanted}
    done = fuzz(document, origin, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    for title in ("Undocumented Content-Type", "Undocumented status code", "Another text", "violates schema"):
        assert title in done.stdout, f"{title}\n{done.stdout}"
