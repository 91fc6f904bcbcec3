"""Statuses as errors, through the client: which error, how many tries, and what it says. No bodies worth the name."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from fakes.aioresponses_helper import canned
from fakes.clock import Clock
from fakes.servers import Events, asking

from mirror.archive.client import ArchiveClient
from mirror.archive.endpoints import DialectName
from mirror.errors import (
    ArchiveError,
    BadAnswer,
    BodyCut,
    NotFound,
    Refused,
    ServerFault,
    SettingsError,
    Stalled,
    Throttled,
    Unreachable,
)
from mirror.events import RequestDone

ANY = re.compile(r"http://archive\.test/.*")
ORIGIN = "http://archive.test"


async def ask(client: ArchiveClient) -> object:
    return await client.get_series_size("1.2.3")


@pytest.mark.parametrize(
    ("status", "headers", "kind", "tries"),
    [
        (400, {}, Refused, 1),
        (401, {}, Refused, 1),
        (403, {}, Refused, 1),
        (404, {}, NotFound, 1),
        (405, {}, Refused, 1),
        (429, {}, Throttled, 5),
        (429, {"Retry-After": "1"}, Throttled, 5),
        (471, {}, Refused, 1),
        (500, {}, ServerFault, 3),
        (501, {}, ServerFault, 3),
        (502, {}, ServerFault, 5),
        (503, {}, ServerFault, 5),
        (503, {"Retry-After": "1"}, Throttled, 5),
        (504, {}, ServerFault, 5),
        (571, {}, ServerFault, 3),
        (304, {}, ServerFault, 3),
    ],
)
@pytest.mark.parametrize("dialect", ["nbia", "tcia"])
@pytest.mark.asyncio
async def test_a_status_is_an_error_after_so_many_tries(
    status: int, headers: dict[str, str], kind: type[ArchiveError], tries: int, dialect: DialectName
):
    events, clock = Events(), Clock()
    with canned() as answers:
        answers.get(ANY, status=status, headers=headers, body=b"words of the server", repeat=True)
        async with asking(ORIGIN, dialect, clock=clock, sink=events) as client:
            with pytest.raises(ArchiveError) as caught:
                await ask(client)
    assert type(caught.value) is kind
    assert answers.asked == tries
    assert "words of the server" in str(caught.value)
    assert str(caught.value).startswith("getSeriesSize(SeriesInstanceUID=1.2.3) at http://archive.test/")
    done = [e for e in events if isinstance(e, RequestDone)]
    assert [(e.call, e.retried, e.error) for e in done] == [
        ("getSeriesSize", number > 0, kind.__name__) for number in range(tries)
    ]
    assert len(clock.slept) >= tries - 1


@pytest.mark.parametrize(
    ("failure", "kind", "tries"),
    [
        (aiohttp.ClientConnectionError("reset"), Unreachable, 5),
        (aiohttp.ServerDisconnectedError(), Unreachable, 5),
        (ConnectionRefusedError("refused"), Unreachable, 5),
        (aiohttp.ConnectionTimeoutError("slow"), Unreachable, 5),
        (aiohttp.SocketTimeoutError("slow"), Stalled, 5),
        (TimeoutError(), Stalled, 5),
        (aiohttp.ClientPayloadError("cut"), BodyCut, 5),
        (aiohttp.NonHttpUrlRedirectClientError("ftp://x"), BadAnswer, 2),
        (aiohttp.InvalidUrlRedirectClientError("http://:0"), BadAnswer, 2),
        (aiohttp.ClientError("whatever"), BadAnswer, 2),
        (aiohttp.InvalidURL("http://user:s3cret@x:y"), SettingsError, 1),
        (ValueError("Port of http://user:s3cret@x:y out of range"), SettingsError, 1),
        (MemoryError(), MemoryError, 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
@pytest.mark.asyncio
async def test_a_failure_below_is_one_of_ours(failure: BaseException, kind: type[BaseException], tries: int):
    with canned() as answers:
        answers.get(ANY, exception=failure, repeat=True)
        async with asking(ORIGIN, clock=Clock()) as client:
            with pytest.raises(kind) as caught:
                await ask(client)
    assert type(caught.value) is kind
    assert answers.asked == tries
    assert "s3cret" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


@pytest.mark.asyncio
async def test_it_comes_right_in_the_end():
    with canned() as answers:
        for status in (503, 429, 502):
            answers.get(ANY, status=status)
        answers.get(ANY, body=b'[{"TotalSizeInBytes":1806,"ObjectCount":3}]')
        async with asking(ORIGIN, clock=Clock()) as client:
            size = await client.get_series_size("1.2.3")
    assert size is not None
    assert (size.total_size_in_bytes, size.object_count) == (1806, 3)
    assert answers.asked == 4


CALLS: dict[str, Callable[[ArchiveClient], Awaitable[object]]] = {
    "getSeries": lambda c: c.get_series(Collection="A"),
    "getPatient": lambda c: c.get_patient(collection="A"),
    "getImage": lambda c: c.get_image("1.2", _receive),
    "getSingleImage": lambda c: c.get_single_image("1.2", "1.2.3", _receive),
    "getMD5HashForImage": lambda c: c.get_md5_hash_for_image("1.2.3"),
}


async def _receive(chunks: object, length: int | None) -> None:
    raise AssertionError("a refused request has no body to receive")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.asyncio
async def test_calls_of_every_kind_go_the_same_way(call: str):
    with canned() as answers:
        answers.get(ANY, status=400, body=b"no")
        async with asking(ORIGIN) as client:
            with pytest.raises(Refused, match=rf"{call}\(.*status 400: no"):
                await CALLS[call](client)


@pytest.mark.asyncio
async def test_no_content_is_no_rows():
    with canned() as answers:
        answers.post(ANY, status=204)
        async with asking(ORIGIN) as client:
            assert await (await client.get_series_qc_info("1.2.3")).all() == []


@pytest.mark.asyncio
async def test_a_client_outside_its_block_is_a_bug():
    async with asking(ORIGIN) as client:
        pass
    with pytest.raises(RuntimeError, match="outside its async with block"):
        await ask(client)
