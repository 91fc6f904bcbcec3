"""What a server can do wrong on a real socket, how often it is asked again, and when."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime

import anyio
import pytest
from aiohttp import web
from fakes.archive import FakeArchive
from fakes.clock import Clock
from fakes.dicom import instance_uid, uid
from fakes.faults import cut, html, stall, status
from fakes.servers import Events, asking, request_head, serving, serving_raw

from mirror.archive import answers
from mirror.archive.client import ArchiveClient
from mirror.archive.endpoints import ENDPOINTS
from mirror.archive.exchange import Exchange
from mirror.errors import (
    ArchiveError,
    BadAnswer,
    BodyCut,
    Refused,
    ServerFault,
    Stalled,
    StoreFull,
    Throttled,
    Unreachable,
)
from mirror.events import BytesReceived, LimitChanged, RequestDone, RequestStarted

BIG = uid(2, 1, 2, 1)
ROWS = b'[{"Collection":"A"}]'
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n" + ROWS


async def collections(client: ArchiveClient) -> list[str]:
    return await client.get_collection_values()


async def whole(chunks: AsyncIterator[bytes], length: int | None) -> bytes:
    return b"".join([chunk async for chunk in chunks])


class Wire:
    """A raw server: the first connections get these answers, one each, and are closed; later ones get rows."""

    def __init__(self, *answers: bytes | None, reset: bool = False) -> None:
        self.answers = list(answers)
        self.reset = reset
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answer = self.answers.pop(0) if self.answers else OK
        if answer is not None:
            await request_head(reader)
            writer.write(answer)
            await writer.drain()
        if self.reset and answer != OK:
            peer: socket.socket = writer.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def outcome(server: Wire, **settings: object) -> tuple[object, int]:
    """What came of asking such a server for collections, and how many connections that took."""
    async with serving_raw(server) as origin, asking(origin, clock=Clock(), **settings) as client:
        try:
            return await collections(client), server.connections
        except ArchiveError as error:
            return error, server.connections


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BROKEN = {
    "closed before a request": (None, Unreachable),
    "closed without an answer": (b"", Unreachable),
    "closed in the status line": (b"HTTP/1.1 2", Unreachable),
    "cut in a body with a length": (HEAD + b"Content-Length: 20\r\n\r\n" + ROWS[:7], BodyCut),
    "cut before a body with a length": (HEAD + b"Content-Length: 20\r\n\r\n", BodyCut),
    "cut in a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n14\r\n" + ROWS[:7], BodyCut),
    "cut between chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n14\r\n" + ROWS + b"\r\n", BodyCut),
}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.asyncio
async def test_a_connection_that_breaks_is_tried_again_until_it_holds(name: str, reset: bool):
    answer, kind = BROKEN[name]
    assert await outcome(Wire(*[answer] * 3, reset=reset), attempts=4) == (["A"], 4)
    error, connections = await outcome(Wire(*[answer] * 9, reset=reset), attempts=3)
    assert type(error) in (kind, Unreachable) if reset else type(error) is kind
    # aiohttp asks once more at once, by itself, where a connection ends before an answer: it may have been an old one.
    assert connections == (6 if type(error) is Unreachable else 3)
    assert str(error).startswith("getCollectionValues() at http://127.0.0.1:")


BAD = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "html": HEAD + b"Content-Length: 27\r\n\r\n<html><h1>Sorry</h1></html>",
    "text": HEAD + b"Content-Length: 5\r\n\r\nsorry",
    "half JSON of the right length": HEAD + b"Content-Length: 10\r\n\r\n" + ROWS[:10],
    "half JSON without a length": b"HTTP/1.0 200 OK\r\n\r\n" + ROWS[:10],
    "JSON of another kind": HEAD + b"Content-Length: 2\r\n\r\n17",
    "an empty object's list": HEAD + b"Content-Length: 4\r\n\r\n[[]]",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.asyncio
async def test_an_answer_that_is_none_is_asked_for_once_more(name: str):
    assert await outcome(Wire(BAD[name])) == (["A"], 2)
    error, connections = await outcome(Wire(*[BAD[name]] * 9))
    assert (type(error), connections) == (BadAnswer, 2)


@pytest.mark.asyncio
async def test_a_body_that_does_not_unpack_is_cut():
    packed = gzip.compress(ROWS)
    good = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    assert await outcome(Wire(good)) == (["A"], 1)
    bad = good.replace(packed, packed[:5] + b"\xff" * (len(packed) - 5))
    error, connections = await outcome(Wire(*[bad] * 9), attempts=3)
    assert (type(error), connections) == (BodyCut, 3)


@pytest.mark.asyncio
async def test_a_port_where_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    clock, events = Clock(), Events()
    async with asking(f"http://127.0.0.1:{port}", clock=clock, sink=events, attempts=4) as client:
        with pytest.raises(Unreachable, match=rf"no connection: Cannot connect to host 127\.0\.0\.1:{port}") as caught:
            await collections(client)
        assert len(clock.slept) == 3
        assert await client.is_down(caught.value)
    assert [e.error for e in events if isinstance(e, RequestDone)] == ["Unreachable"] * 8


@pytest.mark.asyncio
async def test_a_name_that_does_not_exist():
    async with asking("http://no-such-host.invalid", attempts=2) as client:
        with pytest.raises(Unreachable, match=r"Cannot connect to host no-such-host\.invalid"):
            await collections(client)


# Stalls


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", OK[:-5]], ids=["no answer", "half a head", "half a body"])
@pytest.mark.asyncio
async def test_silence_is_a_failure_and_not_a_hang(answer: bytes):
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await request_head(reader)
        if connections < 3:
            writer.write(answer)
            await reader.read()  # until the client leaves
        else:
            writer.write(OK)

    async with (
        serving_raw(handler) as origin,
        asking(origin, clock=Clock(), progress_timeout=0.5, attempts=3) as client,
    ):
        assert await collections(client) == ["A"]
        assert connections == 3


@pytest.mark.asyncio
async def test_silence_for_ever_is_told_as_such():
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    events = Events()
    async with (
        serving_raw(handler) as origin,
        asking(origin, clock=Clock(), progress_timeout=0.05, attempts=2, sink=events) as client,
    ):
        with pytest.raises(Stalled, match="no byte came for too long"):
            await collections(client)
    assert [e.error for e in events if isinstance(e, RequestDone)] == ["Stalled"] * 2


@pytest.mark.asyncio
async def test_a_slow_body_is_not_a_stalled_one():
    """Longer than the progress timeout in all, never between two bytes."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in ROWS:
            await response.write(bytes([byte]))
            await asyncio.sleep(0.04)
        return response

    async with serving(handler) as origin, asking(origin, progress_timeout=0.5, attempts=1) as client:
        assert await collections(client) == ["A"]


# Files


@pytest.mark.parametrize("fault", [cut(), cut(0.0), stall()], ids=["cut", "cut at once", "stalled"])
@pytest.mark.asyncio
async def test_a_file_is_received_anew_with_every_try(archive: FakeArchive, fault: object):
    archive.faults.add("getSingleImage", fault, times=2)  # type: ignore[arg-type] - a Fault
    seen: list[tuple[int, int | None]] = []
    sop = instance_uid(BIG, 3)
    _, true = archive.files()[sop]

    async def receive(chunks: AsyncIterator[bytes], length: int | None) -> bytes:
        seen.append((0, length))
        body = b""
        async for chunk in chunks:
            body += chunk
            seen[-1] = (len(body), length)
        return body

    async with asking(archive.origin, clock=Clock(), progress_timeout=0.5) as client:
        assert await client.get_single_image(BIG, sop, receive) == true
    assert len(seen) == 3
    assert seen[-1] == (len(true), len(true))
    assert all(got < len(true) and length == len(true) for got, length in seen[:-1])


@pytest.mark.asyncio
async def test_a_zip_that_is_cut_is_tried_again(archive: FakeArchive):
    archive.faults.add("getImage", cut(), times=1)
    async with asking(archive.origin, clock=Clock()) as client:
        body = await client.get_image(BIG, whole)
    assert body.endswith(b"\0\0")
    assert archive.counts()["getImage"] == 2


@pytest.mark.asyncio
async def test_what_the_receiver_says_about_a_body_counts_like_the_archives_own(archive: FakeArchive):
    tries = 0

    async def receive(chunks: AsyncIterator[bytes], length: int | None) -> None:
        nonlocal tries
        tries += 1
        async for _ in chunks:
            pass
        raise BadAnswer("no zip")

    async with asking(archive.origin, clock=Clock()) as client:
        with pytest.raises(BadAnswer, match="no zip"):
            await client.get_image(BIG, receive)
    assert tries == 2


@pytest.mark.asyncio
async def test_what_goes_wrong_on_our_side_is_not_the_archives_and_not_tried_again(archive: FakeArchive):
    for error in (StoreFull("the disk is full"), OSError("a file"), ValueError("a bug"), TimeoutError("ours")):

        async def receive(chunks: AsyncIterator[bytes], length: int | None, error: Exception = error) -> None:
            await anext(chunks)
            raise error

        before = archive.counts()["getImage"]
        async with asking(archive.origin, clock=Clock()) as client:
            with pytest.raises(type(error)) as caught:
                await client.get_image(BIG, receive)
            assert caught.value is error
            assert client.pace.statistics().in_flight == 0
            assert client.pace.statistics().limit == 4
        assert archive.counts()["getImage"] == before + 1


@pytest.mark.asyncio
async def test_a_caller_that_is_cancelled_gives_its_slot_back(archive: FakeArchive):
    archive.faults.add("getImage", stall())
    async with asking(archive.origin) as client:
        with anyio.move_on_after(0.2) as scope:
            await client.get_image(BIG, whole)
        assert scope.cancelled_caught
        assert client.pace.statistics().in_flight == 0
        assert await collections(client) == ["Brain Beta", "Lung-Alpha"]


# Large lists


def _many(count: int) -> list[dict[str, object]]:
    return [{"SeriesInstanceUID": f"1.2.{n}", "Collection": "A", "SeriesDescription": "x" * 50} for n in range(count)]


@pytest.mark.asyncio
async def test_a_large_list_comes_by_way_of_a_file_and_is_the_same(monkeypatch: pytest.MonkeyPatch):
    body = json.dumps(_many(2000)).encode()

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    async with serving(handler) as origin, asking(origin) as client:
        in_memory = await (await client.get_series()).all()
        monkeypatch.setattr(answers, "_IN_MEMORY", 10_000)
        rows = await client.get_series()
        batches = [batch async for batch in rows.batches(300)]
    assert [len(batch) for batch in batches] == [300] * 6 + [200]
    assert [row for batch in batches for row in batch] == in_memory
    assert in_memory[1999].series_instance_uid == "1.2.1999"


@pytest.mark.asyncio
async def test_a_large_list_that_is_cut_is_asked_for_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers, "_IN_MEMORY", 1000)
    body = json.dumps(_many(200)).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    cut_body = head % len(body) + body[:5000]
    short_body = head % 5000 + body[:5000]
    for answer, tries in ((cut_body, 3), (short_body, 2)):
        server = Wire(*[answer] * (tries - 1), head % len(body) + body)
        async with serving_raw(server) as origin, asking(origin, clock=Clock()) as client:
            assert len(await (await client.get_series()).all()) == 200
        assert server.connections == tries


@pytest.mark.asyncio
async def test_a_large_list_that_is_malformed_in_the_middle_is_a_bad_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers, "_IN_MEMORY", 1000)
    body = json.dumps(_many(200)).encode()
    body = body[:9000] + b"\x00<oops>" + body[9000:]

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    async with serving(handler) as origin, asking(origin) as client:
        rows = await client.get_series(Collection="A")
        with pytest.raises(
            BadAnswer,
            match=r"getSeries\(Collection=A\) at .*: JSON is malformed",
        ):
            await rows.all()


# Throttling


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.asyncio
async def test_a_server_that_asks_for_time_gets_it_from_every_request(archive: FakeArchive, code: int):
    clock = Clock(1000.0)
    archive.faults.add("getSeries", status(code, headers={"Retry-After": "7"}), times=1)
    times: dict[str, float] = {}

    async with asking(archive.origin, clock=clock, retry_wait=0.5) as client:

        async def one(name: str) -> None:
            await client.get_series(Collection=name)
            times[name] = clock.time

        await client.get_collection_values()
        assert clock.slept == []
        await one("first")
        assert 1007.0 <= times["first"] <= 1007.5
        clock.time = 2000.0
        archive.faults.add("getSeriesSize", status(code, headers={"Retry-After": "30"}), times=1)
        with pytest.raises(Throttled):
            await client_once(client)
        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(one, name)
        assert [times[name] for name in "abc"] == [2030.0] * 3


async def client_once(client: ArchiveClient) -> None:
    """One try, without the loop around it."""
    endpoint = ENDPOINTS["getSeriesSize"]
    async with Exchange(client._line, endpoint, client.server.url(endpoint), {"SeriesInstanceUID": BIG}, 1):
        raise AssertionError("it was to be refused")


@pytest.mark.asyncio
async def test_a_server_may_ask_by_date(archive: FakeArchive):
    clock = Clock(1000.0)
    until = datetime.fromtimestamp(time.time() + 500, UTC)
    archive.faults.add("*", status(429, headers={"Retry-After": format_datetime(until, usegmt=True)}), times=1)
    async with asking(archive.origin, clock=clock) as client:
        await collections(client)
    assert 1400.0 < clock.time <= 1501.0


@pytest.mark.asyncio
async def test_time_that_is_not_left_is_not_waited_for(archive: FakeArchive):
    clock = Clock()
    archive.faults.add("*", status(429, headers={"Retry-After": "400"}))
    async with asking(archive.origin, clock=clock, deadline=300.0) as client:
        with pytest.raises(Throttled) as caught:
            await collections(client)
    assert caught.value.retry_after == 400.0
    assert (archive.counts()["getCollectionValues"], clock.slept) == (1, [])


# How many tries, on a socket


@pytest.mark.parametrize(
    ("fault", "kind", "tries"),
    [
        (status(400, "no"), Refused, 1),
        (status(500, "Server was not able to process your request\nnull"), ServerFault, 3),
        (status(502), ServerFault, 5),
        (status(503), ServerFault, 5),
        (status(504), ServerFault, 5),
        (status(429), Throttled, 5),
        (html(), BadAnswer, 2),
    ],
    ids=["400", "500", "502", "503", "504", "429", "html"],
)
@pytest.mark.asyncio
async def test_tries(archive: FakeArchive, fault: object, kind: type[ArchiveError], tries: int):
    archive.faults.add("getSeriesSize", fault)  # type: ignore[arg-type] - a Fault
    events = Events()
    async with asking(archive.origin, clock=Clock(), sink=events) as client:
        with pytest.raises(ArchiveError) as caught:
            await client.get_series_size(BIG)
    assert type(caught.value) is kind
    assert archive.counts()["getSeriesSize"] == tries
    done = [e for e in events if isinstance(e, RequestDone)]
    assert [e.retried for e in done] == [False] + [True] * (tries - 1)
    assert len([e for e in events if isinstance(e, RequestStarted)]) == tries


@pytest.mark.asyncio
async def test_a_missing_parameter_in_the_tcia_dialect_is_refused_once():
    asked = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        told = {"errorDescription": "x", "detailedMessage": "Mandatory Attribute Missing : [SeriesInstanceUID]"}
        return web.json_response(told, status=471)

    async with serving(handler) as origin, asking(origin, "tcia") as client:
        with pytest.raises(Refused, match=r"status 471: x; Mandatory Attribute Missing : \[SeriesInstanceUID\]"):
            await client.get_series_size(BIG)
    assert asked == 1


@pytest.mark.asyncio
async def test_raw_answers_are_retried_until_their_first_byte():
    rest = HEAD + b"Content-Length: 20\r\n\r\n"
    server = Wire(None, rest, b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
    endpoint = ENDPOINTS["getCollectionValues"]
    async with serving_raw(server) as origin, asking(origin, clock=Clock()) as client:
        assert b"".join([c async for c in client.raw(endpoint, {})]) == ROWS
    assert server.connections == 4
    server = Wire(*[rest + ROWS[:7]] * 9)
    got = []
    async with serving_raw(server) as origin, asking(origin, clock=Clock()) as client:
        with pytest.raises(BodyCut):
            got += [c async for c in client.raw(endpoint, {})]
        assert client.pace.statistics().in_flight == 0
    assert server.connections == 1


# How many at once


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.asyncio
async def test_no_more_requests_at_once_than_the_cap(connections: int):
    inside = most = answered = 0
    full = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal inside, most, answered
        inside += 1
        most = max(most, inside)
        if inside == connections:
            full.set()
        await full.wait()
        await asyncio.sleep(0.002)
        inside -= 1
        answered += 1
        return web.Response(body=ROWS)

    async with (
        serving(handler) as origin,
        asking(origin, connections=connections) as client,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(40):
            tasks.start_soon(collections, client)
    assert (most, answered) == (connections, 40)


@pytest.mark.asyncio
async def test_the_limit_grows_under_load_and_halves_on_trouble(archive: FakeArchive):
    events = Events()
    async with asking(archive.origin, sink=events, connections=6) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(150):
                tasks.start_soon(client.get_series_size, BIG)
        limits = [e.connections for e in events if isinstance(e, LimitChanged)]
        assert 5 in limits
        assert max(limits) <= 6
        before = client.pace.statistics().limit
        archive.faults.add("*", status(503), times=1)
        await client.get_series_size(BIG)
        assert LimitChanged(connections=before // 2, why="ServerFault") in events
    assert archive.faults.most_in_flight <= 6


@pytest.mark.asyncio
async def test_a_rate_is_kept(archive: FakeArchive):
    clock, starts = Clock(1000.0), []
    async with asking(archive.origin, clock=clock, rate=2.0) as client:
        for _ in range(4):
            await collections(client)
            starts.append(clock.time)
    assert starts == [1000.0, 1000.5, 1001.0, 1001.5]


@pytest.mark.asyncio
async def test_events_tell_the_bytes_of_a_body_once(archive: FakeArchive):
    events = Events()
    async with asking(archive.origin, sink=events) as client:
        body = await client.get_single_image(BIG, instance_uid(BIG, 1), whole)
    (done,) = (e for e in events if isinstance(e, RequestDone))
    assert done.untold + sum(e.count for e in events if isinstance(e, BytesReceived)) == len(body)
    assert (done.call, done.bytes, done.retried, done.error) == ("getSingleImage", len(body), False, None)
