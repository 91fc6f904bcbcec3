"""The delay line of the bench: what it holds, for how long, and what it drops. Its clock is ours."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack

import pytest

from benchmarks import links

DELAY, RATE = 0.020, 125e6


class Line:
    """One way of the line between two sockets, at a time of our choosing."""

    def __init__(self, stack: ExitStack) -> None:
        self.now = 100.0
        self.near, source = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        target, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.near, source, target, self.far):
            stack.enter_context(end)
            end.setblocking(False)
        self.way = links._Way(source.fileno(), target.fileno(), DELAY, RATE)

    def send(self, length: int, *, segment: int = 0, mark: bytes = b"x") -> None:
        """A packet of `length` bytes of IP comes in; with a segment size it stands for several."""
        self.near.send(struct.pack("<BBHHHH", 0, 1 if segment else 0, 0, segment, 0, 0) + mark * length)
        self.way.take()

    def came(self) -> list[bytes]:
        """What has come out by now: the first byte of each packet."""
        self.way.give()
        marks = []
        while True:
            try:
                marks.append(self.far.recv(70_000)[10:11])
            except BlockingIOError:
                return marks


@pytest.fixture
def line(monkeypatch):
    with ExitStack() as stack:
        made = Line(stack)
        monkeypatch.setattr(links.time, "monotonic", lambda: made.now)
        yield made


def test_a_packet_comes_out_after_the_delay_and_its_time_on_the_wire(line):
    line.send(1462)  # with its frame 1,500 bytes: 12 us
    assert line.way.give() == pytest.approx(0.020012)
    line.now += 0.0200
    assert line.came() == []
    line.now += 0.00002
    assert line.came() == [b"x"]
    assert line.way.give() is None


def test_packets_follow_one_another_at_the_rate(line):
    for mark in (b"a", b"b", b"c"):
        line.send(12_462, mark=mark)  # 100 us each
    line.now += 0.02015
    assert line.came() == [b"a"]
    line.now += 0.0001
    assert line.came() == [b"b"]
    line.now += 1
    assert line.came() == [b"c"]


def test_a_large_piece_costs_what_its_segments_cost(line):
    line.send(52 + 10 * 1448, segment=1448)
    assert line.way.give() == pytest.approx(0.020 + 10 * (1448 + 52 + 38) / RATE)


def test_what_would_wait_too_long_is_dropped(line):
    for _ in range(200):
        line.send(60_000)
    # Those before which no more waits than may.
    assert line.way.pieces - line.way.dropped == links.QUEUE // 60_038 + 1
    line.now += 1
    line.came()
    line.send(100)
    assert line.came() == []
    line.now += 0.021
    assert line.came() == [b"x"]
