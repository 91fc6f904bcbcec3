"""No test asks another host by mistake: the guard of fakes/loopback.py refuses, and keeps what it refused."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import loopback
from fakes.process import environment
from fakes.servers import asking


def taken() -> list[tuple[str, object]]:
    """What was refused; the test that asks for it does not fail by it."""
    strays, loopback.strays[:] = loopback.strays[:], []
    return strays


@pytest.mark.parametrize("host", ["services.cancerimagingarchive.net", b"example.org", "192.0.2.1", "::2"])
def test_another_host_is_not_asked_for(host):
    with pytest.raises(AssertionError, match="leave this machine"):
        socket.getaddrinfo(host, 443)
    assert taken() == [("socket.getaddrinfo", host)]


def test_another_host_is_not_connected_to():
    address = ("192.0.2.1", 443)
    with socket.socket() as client, pytest.raises(AssertionError, match="leave this machine"):
        client.connect(address)
    with socket.socket(type=socket.SOCK_DGRAM) as client, pytest.raises(AssertionError, match="leave this machine"):
        client.sendto(b"?", address)
    assert taken() == [("socket.connect", address), ("socket.sendto", address)]


@pytest.mark.parametrize("url", ["https://nbia.cancerimagingarchive.net", "https://127.0.0.1.example.org"])
@pytest.mark.asyncio
async def test_the_client_does_not_get_to_another_host(url):
    async with asking(url, attempts=1) as client:
        with pytest.raises(AssertionError, match="leave this machine"):
            await client.get_collection_values()
    assert taken() != []


def test_this_machine_and_names_that_exist_nowhere_are_no_strays():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1])).close()
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("archive.invalid", 80)
    assert taken() == []


def test_the_command_does_not_get_past_the_proxy_that_is_not_there(tmp_path: Path):
    command = [sys.executable, "-m", "mirror", "query", "getCollectionValues"]
    environ = environment(ARCHIVE_ATTEMPTS="1")
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 5
    assert "Cannot connect to host 127.0.0.1:9" in done.stderr
