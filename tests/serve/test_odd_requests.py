"""Requests that no client sends on purpose, byte for byte: each has an answer, and the server goes on as before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.fuzz_checks import FORESEEN
from fakes.threaded import serving_in_a_thread, unforeseen

NBIA, TCIA = b"/nbia-api/services/v4/", b"/services/v4/TCIA/query/"
LISTS = b"/services/v4/SharedList/query/"
LONG = b"9" * 7000
#: Target -> the status it has.
TARGETS = {
    # NULs and bytes that are no UTF-8, in paths, names and values.
    NBIA + b"get%00": 500,
    NBIA + b"%FF%FE": 500,
    NBIA + b"getSeries%2f..%2f..%2f..%2fetc%2fpasswd": 500,
    TCIA + b"get%00": 500,
    TCIA + b"%ED%A0%80/metadata": 500,
    NBIA + b"getSeries?Collection=%00": 200,
    NBIA + b"getSeries?Collection=%FF%FE": 200,
    NBIA + b"getSeries?SeriesInstanceUID=%ED%A0%80": 200,
    NBIA + b"getPatient?%FF=1": 400,
    NBIA + b"getPatient?%00": 400,
    NBIA + b"getMD5HashForImage?SOPInstanceUID=%00%FF": 200,
    NBIA + b"getImage?SeriesInstanceUID=1%0d%0aX-Made-Up:%20yes": 400,
    NBIA + b"getDicomTags?SeriesUID=%ED%B2%80": 400,
    NBIA + b"getSingleImage?SeriesInstanceUID=..%2f..&SOPInstanceUID=..%2f..%2fetc%2fpasswd": 500,
    TCIA + b"getSeriesSize?SeriesInstanceUID=%00": 200,
    TCIA + b"getSingleImage?SeriesInstanceUID=%FF&SOPInstanceUID=%00": 500,
    LISTS + b"ContentsByName?name=%FF%00": 200,
    LISTS + b"ContentsByName?name=..%2f..%2fledger.sqlite": 200,
    # Days that are none, in digits that are no ASCII too.
    NBIA + b"NewPatientsInCollection?Collection=a&fromDate=00-00-0000": 200,
    NBIA + b"getUpdatedSeries?fromDate=%D9%A1%D9%A1-%D9%A1%D9%A1-%D9%A2%D9%A0%D9%A2%D9%A0": 200,
    TCIA + b"NewPatientsInCollection?Collection=a&Date=9999-99-99": 200,
    # Given twice, given empty, and without end.
    NBIA + b"getSeries?Collection=Lung-Alpha&Collection=%00": 200,
    NBIA + b"getSeries?Collection=Lung-Alpha&format=json&format=%FF": 200,
    NBIA + b"getSeries?Collection=Lung-Alpha&format=%FF": 500,
    NBIA + b"getSeries?&&&=&": 400,
    TCIA + b"getSeries?&&&=&": 200,
    NBIA + b"getSeries?SeriesInstanceUID=" + LONG: 200,
    TCIA + b"getPatientStudy?PatientID=" + b"%F0%9F%98%80" * 500: 200,
    # Longer than a line may be.
    NBIA + b"getSeries?Collection=" + b"a" * 100_000: 400,
}


@pytest.fixture(scope="module")
def port(stocked: Path) -> Iterator[int]:
    with serving_in_a_thread(stocked) as origin:
        yield int(origin.rpartition(":")[2])


async def send(port: int, request: bytes) -> tuple[int, bytes, bytes]:
    """These bytes, and the status, head and body that come back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


def request(method: bytes, target: bytes) -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("target", TARGETS, ids=[target[:60].decode() for target in TARGETS])
@pytest.mark.asyncio
async def test_an_odd_target(port: int, target: bytes, caplog: pytest.LogCaptureFixture) -> None:
    status, head, body = await send(port, request(b"GET", target))
    assert status == TARGETS[target], body[:300]
    if status == 500:
        assert FORESEEN.fullmatch(body), body[:300]
    assert b"x-made-up" not in head.lower()
    assert unforeseen(caplog.records) == []
    again, _, _ = await send(port, request(b"GET", b"/healthz"))
    assert again == 200


@pytest.mark.parametrize("method", [b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"PROPFIND"])
@pytest.mark.asyncio
async def test_other_methods_have_an_answer(port: int, method: bytes) -> None:
    nbia, _, body = await send(port, request(method, NBIA + b"getCollectionValues"))
    assert (nbia, body) == (500, b"Server was not able to process your request\nHTTP 405 Method Not Allowed")
    published, _, _ = await send(port, request(method, b"/openapi.json"))
    assert published == 405


@pytest.mark.parametrize("raw", [b"GET /\x00 HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET\r\n\r\n"])
@pytest.mark.asyncio
async def test_what_is_no_request_is_refused(port: int, raw: bytes) -> None:
    status, _, _ = await send(port, raw)
    assert status == 400
    again, _, _ = await send(port, request(b"GET", b"/healthz"))
    assert again == 200


@pytest.mark.asyncio
async def test_a_form_that_is_too_large_is_refused(port: int) -> None:
    form = b"list=" + b"1" * (17 * 1024 * 1024)
    head = (
        b"POST " + NBIA + b"getSeriesMetadata HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n" % len(form)
    )
    status, _, _ = await send(port, head + form)
    assert status == 413
