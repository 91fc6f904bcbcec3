"""A long link: two network namespaces, and between them a line that holds every packet for 20 ms, at 1 Gbit/s.

The line is a process of our own over two TUN devices, so that it is the same on every kernel (many have no netem).
What crosses it is real TCP: handshakes, slow start and congestion windows cost what they cost on a long link. Packets
cross in the large pieces of segmentation offload, as they do with netem; the time on the wire is counted for each
segment that a piece stands for. What waits for the wire beyond QUEUE bytes is dropped, as by a router. Needs root.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

#: One way: half of the round trip, seconds; and bytes per second on the wire.
DELAY = 0.020
RATE = 125e6
#: Bytes that may wait for the wire: what is on its way in one round trip at full rate.
QUEUE = 5_000_000
#: The framing of Ethernet that a segment has on the wire beyond its IP packet, and the headers of a segment of TCP.
_FRAME, _HEADERS = 38, 52
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_CSUM_AND_TSO = 0x01 | 0x02 | 0x04
#: Before each packet (virtio_net_hdr): flags, kind of offload, length of headers, segment size, ...
_VNET = struct.Struct("<BBHHHH")
_LARGEST = 65536 + _VNET.size
_SERVER, _CLIENT = "10.77.0.1", "10.77.0.2"


@dataclass(frozen=True, slots=True)
class Ends:
    """Heads of commands that run at either end, and the address of the server's end."""

    server: tuple[str, ...]
    client: tuple[str, ...]
    server_address: str


@contextmanager
def long_link(delay: float = DELAY, rate: float = RATE) -> Iterator[Ends]:
    """The link, for as long as the context lasts. Raises SystemExit where there are no rights to make one."""
    if os.geteuid() != 0:
        raise SystemExit("the long link makes network namespaces: run it as root, or leave --links long out")
    tag = f"tb{os.getpid() % 100_000}"
    server, client = f"{tag}-s", f"{tag}-c"
    with ExitStack() as stack:
        for name in (server, client):
            _run("ip", "netns", "add", name)
            stack.callback(_run, "ip", "netns", "del", name)
        command = [sys.executable, "-m", "benchmarks.links", tag, str(delay), str(rate)]
        line = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent)
        stack.callback(line.communicate)
        stack.callback(line.terminate)
        assert line.stdout is not None
        if line.stdout.readline() != b"ready\n":
            raise SystemExit("the delay line did not start")
        for name, own, other in ((server, _SERVER, _CLIENT), (client, _CLIENT, _SERVER)):
            _run("ip", "link", "set", name, "netns", name)
            inside = ("ip", "netns", "exec", name)
            # What one run learned of the way must not help the next.
            _run(*inside, "sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1")
            # Many slow connections would send pieces of two segments each, and the line would cost a core.
            _run(*inside, "sysctl", "-qw", "net.ipv4.tcp_min_tso_segs=22")
            _run(*inside, "ip", "link", "set", "lo", "up")
            _run(*inside, "ip", "address", "add", own, "peer", other, "dev", name)
            _run(*inside, "ip", "link", "set", name, "txqueuelen", "20000", "up")
            # Congestion control of most servers, whatever this machine's own is.
            _run(*inside, "ip", "route", "replace", other, "dev", name, "src", own, "congctl", "cubic")
        yield Ends(("ip", "netns", "exec", server), ("ip", "netns", "exec", client), _SERVER)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _tun(name: str) -> int:
    """A TUN device with offloads, and the descriptor through which its packets go."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
    fcntl.ioctl(tun, _TUNSETOFFLOAD, _CSUM_AND_TSO)
    return tun


class _Way:
    """One direction of the line."""

    def __init__(self, source: int, target: int, delay: float, rate: float) -> None:
        self._source = source
        self._target = target
        self._delay = delay
        self._rate = rate
        self._on_the_way: deque[tuple[float, bytearray, int]] = deque()
        #: Buffers to be used again: memory that is new costs more than the rest of a piece's way.
        self._spare = [bytearray(_LARGEST)]
        #: When the wire is free again.
        self._free = 0.0
        self.pieces = self.dropped = 0

    def take(self) -> None:
        """Take in what has come."""
        for _ in range(64):
            if not self._spare:
                self._spare.append(bytearray(_LARGEST))
            piece = self._spare[-1]
            try:
                size = os.readv(self._source, (piece,))
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EIO):  # EIO: the device is not up yet
                    return
                raise
            now = time.monotonic()
            start = max(now, self._free)
            self.pieces += 1
            if (start - now) * self._rate > QUEUE:
                self.dropped += 1
                continue
            segment = _VNET.unpack_from(piece)[3]
            length = size - _VNET.size
            segments = -(-(length - _HEADERS) // segment) if segment else 1
            self._free = start + (length + (segments - 1) * _HEADERS + segments * _FRAME) / self._rate
            self._on_the_way.append((self._free + self._delay, self._spare.pop(), size))

    def give(self) -> float | None:
        """Give out what is due; seconds until there is more, None: nothing is on its way."""
        while self._on_the_way:
            due, piece, size = self._on_the_way[0]
            if (wait := due - time.monotonic()) > 0:
                return wait
            self._on_the_way.popleft()
            try:
                os.write(self._target, memoryview(piece)[:size])
            except OSError:  # its device is down, or full
                self.dropped += 1
            self._spare.append(piece)
        return None


def carry(tag: str, delay: float, rate: float) -> None:
    """Be the line between the devices TAG-s and TAG-c until SIGTERM."""
    server, client = _tun(f"{tag}-s"), _tun(f"{tag}-c")
    ways = {server: _Way(server, client, delay, rate), client: _Way(client, server, delay, rate)}
    os.setpriority(os.PRIO_PROCESS, 0, -15)
    # Timers of a microsecond, not of 50: PR_SET_TIMERSLACK.
    ctypes.CDLL(None).prctl(29, 1000, 0, 0, 0)
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    signal.signal(signal.SIGINT, lambda *_: None)  # the bench ends us
    print("ready", flush=True)
    while not ended:
        waits = [wait for way in ways.values() if (wait := way.give()) is not None]
        readable, _, _ = select.select(list(ways), [], [], min(waits, default=0.5))
        for source in readable:
            ways[source].take()
    told = [f"{way.pieces:,} pieces, {way.dropped:,} dropped" for way in ways.values()]
    print(f"line: to the client {told[0]}; to the server {told[1]}; {time.process_time():.1f} CPU s", file=sys.stderr)


if __name__ == "__main__":
    carry(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
