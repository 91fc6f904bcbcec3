"""One request and its answer: leave to send it, its status, its body as it comes, and who is told how it ended."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing

import aiohttp

from mirror.archive.answers import read_limited
from mirror.archive.connection import length_of, mapped, open_session
from mirror.archive.dialects import Server, error_of
from mirror.archive.endpoints import Answer, Endpoint
from mirror.archive.pacing import Pace, moment_of, seconds_of_retry_after
from mirror.errors import ArchiveError, Stalled
from mirror.events import BytesReceived, EventSink, RequestDone, RequestStarted
from mirror.settings import ArchiveSettings

#: A packed body of these would have to be unpacked, and could not be told from a cut one by its length.
#: In each answer of a mirror's server: where the mirror has its content from, nearest first, joined by ", ".
SOURCE_HEADER = "X-TCIA-Mirror-Source"
_FILES = frozenset({Answer.ZIP, Answer.DICOM})
#: Bytes that have come of a body when somebody is told before its end.
_TOLD_AT_ONCE = 128 * 1024
#: Bytes of an error's page that are looked at for its reason.
_REASON = 4096


class Line:
    """What all requests to one server share: connections, token, pace, clock. No repr of it has the token."""

    def __init__(
        self, server: Server, settings: ArchiveSettings, pace: Pace, sink: EventSink, token: str | None
    ) -> None:
        self.server = server
        self.pace = pace
        self.sink = sink
        #: See ArchiveClient.clock.
        self.clock: float | None = None
        #: See ArchiveClient.source.
        self.source = ""
        self._date: str | None = None
        #: What a request and its body may take: archive.request_timeout.
        self.most_seconds = settings.request_timeout
        self._settings = settings
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._file_headers = {**self._headers, "Accept-Encoding": "identity"}
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Make the pool of connections. Raises SettingsError for an unusable ca_file."""
        self._session = open_session(self._settings)

    async def close(self) -> None:
        """Close what is open. Safe to repeat."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def read_clock(self, date: str | None) -> None:
        """Note an answer's Date header; it says the same for a second."""
        if date != self._date:
            self._date, self.clock = date, moment_of(date)

    async def request(self, endpoint: Endpoint, url: str, wire: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Send one request; its answer, of which the body is still to come."""
        if self._session is None:
            raise RuntimeError("ArchiveClient is used outside its async with block")
        post = endpoint.method == "POST"
        return await self._session.request(
            endpoint.method,
            url,
            params=None if post else wire,
            data=wire if post else None,
            headers=self._file_headers if endpoint.answer in _FILES else self._headers,
        )


class Exchange:
    """One try of a request, good inside its block, in which the body is read. Raises what `mapped` and the status say.

    A class, since every object of a mirror passes here: what contextlib makes of a generator costs a multiple.
    """

    __slots__ = (
        "_began",
        "_endpoint",
        "_latest",
        "_line",
        "_number",
        "_response",
        "_untold",
        "_url",
        "_wire",
        "asked",
        "length",
    )

    def __init__(self, line: Line, endpoint: Endpoint, url: str, wire: Mapping[str, str], number: int) -> None:
        self._line = line
        self._endpoint = endpoint
        self._url = url
        self._wire = wire
        self._number = number
        self._response: aiohttp.ClientResponse | None = None
        #: Bytes of the body that nobody was told of yet.
        self._untold = 0
        #: The request in words.
        self.asked = f"{endpoint.name}({', '.join(f'{k}={v}' for k, v in wire.items())}) at {line.server.base}"
        #: The body's length, where the server tells it.
        self.length: int | None = None

    async def __aenter__(self) -> Exchange:
        line, endpoint = self._line, self._endpoint
        await line.pace.acquire()
        self._began = time.monotonic()
        self._latest = self._began + line.most_seconds
        try:
            line.sink(RequestStarted(call=endpoint.name))
            with mapped(self.asked, line.server):
                self._response = response = await line.request(endpoint, self._url, self._wire)
            line.read_clock(response.headers.get("Date"))
            line.source = response.headers.get(SOURCE_HEADER, "")
            if response.status not in (200, 204):
                raise await self._refusal(response)
            self.length = length_of(response)
        except BaseException as error:
            self._end(error)
            raise
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._end(error)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives; its faults as ours."""
        assert self._response is not None
        line, pace = self._line, self._line.pace
        with mapped(self.asked, line.server):
            async for chunk in self._response.content.iter_any():
                if time.monotonic() > self._latest:
                    raise Stalled("the body took longer than archive.request_timeout", asked=self.asked)
                self._untold += len(chunk)
                if self._untold >= _TOLD_AT_ONCE:
                    count, self._untold = self._untold, 0
                    line.sink(BytesReceived(count=count))
                if pace.metered:
                    await pace.taken(len(chunk))
                yield chunk

    async def _refusal(self, response: aiohttp.ClientResponse) -> ArchiveError:
        async with aclosing(self.chunks()) as chunks:
            body = await read_limited(chunks, _REASON)
        retry_after = seconds_of_retry_after(response.headers.get("Retry-After"), time.time())
        return error_of(
            self._line.server, self._endpoint, response.status, body, asked=self.asked, retry_after=retry_after
        )

    def _end(self, error: BaseException | None) -> None:
        line, response = self._line, self._response
        failure = error if isinstance(error, ArchiveError) else None
        size, seconds = 0, time.monotonic() - self._began
        try:
            if response is not None:
                # A body that was not read to its end takes its connection with it.
                response.release()
                size = response.content.total_bytes
            if error is None:
                line.pace.good(size, seconds=seconds)
            elif failure is not None:
                line.pace.trouble(failure)
        finally:
            line.sink(
                RequestDone(
                    call=self._endpoint.name,
                    seconds=seconds,
                    bytes=size,
                    retried=self._number > 1,
                    error=type(failure).__name__ if failure else None,
                    untold=self._untold,
                    collection=self._wire.get("Collection"),
                    series_instance_uid=self._wire.get("SeriesInstanceUID"),
                )
            )
            line.pace.release()


async def delegate(
    line: Line,
    call: str,
    series_instance_uid: str,
    work: Callable[[], Awaitable[tuple[int, ArchiveError | None]]],
    *,
    told: bool = False,
) -> None:
    """A request that `work` has somebody else send: it has its leave, and is told of, as any of ours.

    `work` gives the body's bytes, and the error that the request ended with; what it raises ends it without blame.
    `told`: it has told of the bytes itself, as they came.
    """
    await line.pace.acquire()
    began, size = time.monotonic(), 0
    failure = "lost"
    try:
        line.sink(RequestStarted(call=call))
        size, error = await work()
        failure = type(error).__name__ if error else ""
        if error is not None:
            line.pace.trouble(error)
        else:
            line.pace.good(size, seconds=time.monotonic() - began)
            if line.pace.metered:
                await line.pace.taken(size)
    finally:
        line.sink(
            RequestDone(
                call=call,
                seconds=time.monotonic() - began,
                bytes=size,
                untold=0 if told else size,
                error=failure or None,
                series_instance_uid=series_instance_uid,
            )
        )
        line.pace.release()
