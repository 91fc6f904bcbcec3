"""Forms that nobody can read: a refusal in the dialect's words, never a fault that the server did not see coming."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from fakes.asking import ask_with
from fakes.threaded import serving_in_a_thread, unforeseen

URLENCODED = "application/x-www-form-urlencoded"
UNREADABLE = [
    ("multipart/form-data", b"x"),
    ("multipart/form-data; boundary=a", b"x"),
    (URLENCODED + "; charset=bogus", b"list=1&SeriesInstanceUID=1"),
    (URLENCODED + "; charset=base64", b"list=1&SeriesInstanceUID=1"),
    (URLENCODED, b"list=\xff\xfe"),
]


@pytest.mark.parametrize(("content_type", "body"), UNREADABLE)
@pytest.mark.asyncio
async def test_a_form_that_cannot_be_read_is_refused(stocked: Path, content_type: str, body: bytes) -> None:
    with serving_in_a_thread(stocked) as origin:
        nbia = await ask_with(f"{origin}/nbia-api/services/v4/getSeriesMetadata", body, {"Content-Type": content_type})
        assert (nbia.status, nbia.headers["Content-Type"]) == (400, "text/plain")
        assert nbia.text == "The form cannot be read."
        tcia = await ask_with(f"{origin}/services/v4/TCIA/query/getSeriesSize", body, {"Content-Type": content_type})
        assert (tcia.status, json.loads(tcia.body)) == (400, {"errorMessage": "The form cannot be read."})
        token = await ask_with(f"{origin}/nbia-api/oauth/token", body, {"Content-Type": content_type})
        assert (token.status, json.loads(token.body)) == (400, {"error": "invalid_request"})


@pytest.mark.asyncio
async def test_a_body_that_cannot_be_unpacked_is_refused(stocked: Path) -> None:
    headers = {"Content-Type": URLENCODED, "Content-Encoding": "gzip"}
    with serving_in_a_thread(stocked) as origin:
        answer = await ask_with(f"{origin}/nbia-api/services/v4/getSeriesMetadata", b"list=1", headers)
    assert (answer.status, answer.text) == (400, "The form cannot be read.")


def test_a_fault_that_nobody_saw_coming_is_seen_by_these_tests(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("aiohttp.server").error("Unhandled exception")
    assert len(unforeseen(caplog.records)) == 1
