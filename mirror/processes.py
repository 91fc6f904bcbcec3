"""Worker processes beside the event loop: messages go out, each is answered, in any order.

An answer is one value, or comes in parts, of which the worker makes no more than one ahead of who takes them.

One interpreter does one thing at a time, whatever the number of cores. A worker is another interpreter, joined by a
socket pair: it ends when this process does, however that ends, since the socket ends with it. It is no child in the
way of multiprocessing, which would run the caller's own script again. Messages are pickled: they never leave the
machine, and both ends are this package.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from enum import Enum
from typing import Any, Self

import anyio

_LENGTH = struct.Struct("<L")
#: What a worker runs: the modules of its parent, whatever folder it was started in.
_START = """
import importlib, json, sys
sys.path[:], module, name, number = json.loads(sys.stdin.readline())
getattr(importlib.import_module(module), name)(number)
"""
#: What answers a message, with one value or in parts; and what makes it of a greeting; its block ends with the worker.
Handle = Callable[[Any], Awaitable[Any] | AsyncGenerator[Any]]
Begin = Callable[[Any], AbstractAsyncContextManager[Handle]]
#: Stands for the end of what comes.
_END = object()
#: Seconds until a worker that was told to end is ended.
_PATIENCE = 10.0


class WorkerLost(Exception):
    """The worker ended before it answered."""


class _Sign(Enum):
    """What is said of an answer in parts beside them."""

    #: By who takes them: a part was taken; no more are wanted.
    TAKEN = "taken"
    ENOUGH = "enough"
    #: By who makes them: that was the last.
    LAST = "last"
    #: By nobody: there will be none, the worker has ended.
    LOST = "lost"


class Processes:
    """Some worker processes, each running `main(number of its socket)`. Use as an async context manager.

    `main` is a function at the top of a module, which calls `serve`. The first message to each worker is `greeting`.
    Leaving the block ends them: in order, or at once where it is left by an error.
    """

    def __init__(self, count: int, main: Callable[[int], None], greeting: Any) -> None:
        self._count = count
        self._main = main
        self._greeting = greeting
        self._workers: list[_Worker] = []

    async def __aenter__(self) -> Self:
        try:
            for _ in range(self._count):
                self._workers.append(await _Worker.begin(self._main, self._greeting))
        except BaseException:
            await self.__aexit__(RuntimeError)
            raise
        return self

    async def __aexit__(self, error: type[BaseException] | None, *_: object) -> None:
        for worker in self._workers:
            worker.end(at_once=error is not None)
        # Whoever is cancelled meanwhile: what they leave half-written can be swept only when all of them have ended.
        with anyio.CancelScope(shield=True):
            for worker in self._workers:
                await asyncio.to_thread(worker.wait)

    @property
    def pids(self) -> list[int]:
        """The workers' process numbers, also of those that are lost."""
        return [worker.pid for worker in self._workers]

    async def ask(self, message: Any) -> Any:
        """The answer of the worker that has the least to do. Raises WorkerLost where there is none any more."""
        return await self._least_busy().ask(message)

    async def follow(self, message: Any) -> AsyncGenerator[Any]:
        """As `ask`, of an answer that comes in parts. Close it: a worker that nobody listens to gives up."""
        async with aclosing(self._least_busy().follow(message)) as parts:
            async for part in parts:
                yield part

    def _least_busy(self) -> _Worker:
        alive = [worker for worker in self._workers if not worker.lost]
        if not alive:
            raise WorkerLost
        return min(alive, key=lambda worker: len(worker.waiting) + len(worker.followed))


class _Frames(asyncio.Protocol):
    """Pickled values over a stream, each behind its length."""

    def __init__(self, received: Callable[[Any], None], closed: Callable[[], None]) -> None:
        self._received = received
        self._closed = closed
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        self._closed()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while at + _LENGTH.size <= len(buffer):
            (length,) = _LENGTH.unpack_from(buffer, at)
            end = at + _LENGTH.size + length
            if end > len(buffer):
                break
            with memoryview(buffer) as view:
                value = pickle.loads(view[at + _LENGTH.size : end])  # noqa: S301 - from our own worker
            at = end
            self._received(value)
        del buffer[:at]

    def send(self, value: Any) -> None:
        if self._transport is not None:
            body = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
            self._transport.write(_LENGTH.pack(len(body)) + body)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Worker:
    """One process, seen from outside."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._frames = _Frames(self._answered, self._ended)
        self._next = 0
        #: Numbers of messages without an answer -> who waits for it.
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        #: Numbers of messages that are answered in parts -> those that came.
        self.followed: dict[int, asyncio.Queue[Any]] = {}
        self.lost = False
        self.pid = process.pid

    @classmethod
    async def begin(cls, main: Callable[[int], None], greeting: Any) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - it takes a millisecond; our own interpreter
                [sys.executable, "-I", "-c", _START], stdin=subprocess.PIPE, pass_fds=[theirs.fileno()]
            )
            assert process.stdin is not None
            with process.stdin as stdin, suppress(BrokenPipeError):
                start = (sys.path, main.__module__, main.__qualname__, theirs.fileno())
                stdin.write(json.dumps(start).encode() + b"\n")
        worker = cls(process)
        ours.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: worker._frames, sock=ours)
        worker._frames.send(greeting)
        return worker

    async def ask(self, message: Any) -> Any:
        number, self._next = self._next, self._next + 1
        future = self.waiting[number] = asyncio.get_running_loop().create_future()
        self._frames.send((number, message))
        try:
            return await future
        finally:
            self.waiting.pop(number, None)

    async def follow(self, message: Any) -> AsyncGenerator[Any]:
        number, self._next = self._next, self._next + 1
        parts = self.followed[number] = asyncio.Queue()
        self._frames.send((number, message))
        part: Any = None
        try:
            while (part := await parts.get()) is not _Sign.LAST:
                if part is _Sign.LOST:
                    raise WorkerLost
                self._frames.send((number, _Sign.TAKEN))
                yield part
        finally:
            del self.followed[number]
            if part is not _Sign.LAST and not self.lost:
                self._frames.send((number, _Sign.ENOUGH))

    def _answered(self, value: tuple[int, Any]) -> None:
        number, answer = value
        future = self.waiting.get(number)
        if future is not None and not future.done():
            future.set_result(answer)
        elif (parts := self.followed.get(number)) is not None:
            parts.put_nowait(answer)

    def _ended(self) -> None:
        self.lost = True
        for parts in self.followed.values():
            parts.put_nowait(_Sign.LOST)
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(WorkerLost())

    def end(self, *, at_once: bool) -> None:
        if at_once:
            self._process.kill()
        self._frames.close()

    def wait(self) -> None:
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(number: int, begin: Begin) -> None:
    """Be a worker: `begin` makes of the greeting what answers each message. Returns when the other end is gone.

    Messages are answered side by side. An error that an answer lets through is a bug: it ends the worker, with its
    traceback. Signals that a terminal or a service manager sends to all processes of a run are for the one that leads.
    """
    for number_of_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number_of_signal, signal.SIG_IGN)
    asyncio.run(_serve(number, begin))


async def _serve(number: int, begin: Begin) -> None:
    received: asyncio.Queue[Any] = asyncio.Queue()
    frames = _Frames(received.put_nowait, lambda: received.put_nowait(_END))
    await asyncio.get_running_loop().create_connection(lambda: frames, sock=socket.socket(fileno=number))
    greeting = await received.get()
    if greeting is _END:
        return
    async with begin(greeting) as handle, asyncio.TaskGroup() as tasks:
        at_work: dict[int, asyncio.Task[None]] = {}
        #: Of an answer in parts: how many more may be sent before one is taken.
        ahead: dict[int, asyncio.Semaphore] = {}

        async def see_to(number: int, message: Any) -> None:
            try:
                await answer(number, message)
            finally:
                del at_work[number]

        async def answer(number: int, message: Any) -> None:
            made = handle(message)
            if not isinstance(made, AsyncGenerator):
                frames.send((number, await made))
                return
            leave = ahead[number] = asyncio.Semaphore(1)
            try:
                async with aclosing(made):
                    async for part in made:
                        frames.send((number, part))
                        await leave.acquire()
                frames.send((number, _Sign.LAST))
            finally:
                del ahead[number]

        while (value := await received.get()) is not _END:
            number, message = value
            if message is _Sign.TAKEN:
                if number in ahead:
                    ahead[number].release()
            elif message is _Sign.ENOUGH:
                if number in at_work:
                    at_work[number].cancel()
            else:
                at_work[number] = tasks.create_task(see_to(number, message))
        for task in at_work.values():
            task.cancel()
