"""Nothing of the tests leaves this machine: an audit hook in this process, proxies that are not there for its children.

A connection to another host, or the look-up of its name, is refused and kept in `strays`; conftest.py fails the test in
which it was tried, whatever the code made of the refusal.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from typing import NoReturn

#: Where nobody listens; whoever asks for another host by the environment's proxies ends here.
_NOWHERE = ("127.0.0.1", 9)
_PROXIES = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://{}:{}".format(*_NOWHERE)),
    "NO_PROXY": "localhost,127.0.0.1,::1,.invalid",
}
#: Audit events of the socket module with (socket, address), and with the name first.
_CONNECTING = ("socket.connect", "socket.sendto", "socket.sendmsg")
_RESOLVING = ("socket.getaddrinfo", "socket.gethostbyname")

#: What was tried since somebody last looked, as (event, address).
strays: list[tuple[str, object]] = []


def keep_in() -> None:
    """From now on, for good: an audit hook cannot be taken back."""
    for name, value in _PROXIES.items():
        os.environ[name] = value
        os.environ.pop(name.lower(), None)
    sys.addaudithook(_watch)


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event in _CONNECTING:
        # An address that is no tuple is a socket's path.
        if isinstance(address := arguments[1], tuple) and (address[:2] == _NOWHERE or not _is_here(address[0])):
            _refuse(event, address)
    elif event in _RESOLVING and not _is_here(name := arguments[0]):
        if str(name).endswith(".invalid"):
            # It exists nowhere (RFC 6761); no name server needs to be asked.
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        _refuse(event, name)


def _refuse(event: str, address: object) -> NoReturn:
    strays.append((event, address))
    raise AssertionError(f"a test tried to leave this machine: {event} {address!r}")


def _is_here(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    try:
        return name is None or name == "localhost" or ipaddress.ip_address(str(name)).is_loopback
    except ValueError:
        return False
