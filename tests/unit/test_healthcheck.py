"""The container's health check: whom it asks, and what it takes for well."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from fakes.archive import FakeArchive
from fakes.faults import hold

from mirror.cli import healthcheck
from mirror.cli.healthcheck import healthy, main, served_at

HERE = ("127.0.0.1", 8042)


@pytest.mark.parametrize(
    ("command", "address"),
    [
        ("tcia-mirror serve --from /data", HERE),
        ("/opt/tcia-mirror/bin/python /opt/tcia-mirror/bin/tcia-mirror serve --from /data", HERE),
        ("/sbin/docker-init -- tcia-mirror serve --from /data --host 0.0.0.0", HERE),
        ("python -m mirror serve --from /data --host :: --port 80", ("::1", 80)),
        ("tcia-mirror serve --host=10.1.2.3 --port=9000 --from=/data", ("10.1.2.3", 9000)),
        ("tcia-mirror serve --port 1 --from --port --port 2", ("127.0.0.1", 2)),
        ("tcia-mirror serve --from /data --port 0", None),
        ("tcia-mirror sync 4D-Lung", None),
        ("tcia-mirror sync serve --to tcia-mirror", None),
        ("sleep 100", None),
        ("tcia-mirror", None),
        ("", None),
    ],
    ids=lambda value: value.replace("/", "|") or "nothing" if isinstance(value, str) else "",
)
def test_whom_it_asks(command, address):
    assert served_at([*command.split(), ""], {}) == address


def test_an_address_from_the_environment():
    variables = {"TCIA_MIRROR_SERVE_HOST": "0.0.0.0", "TCIA_MIRROR_SERVE_PORT": "9000"}
    assert served_at(["tcia-mirror", "serve", ""], variables) == ("127.0.0.1", 9000)
    assert served_at(["tcia-mirror", "serve", "--port", "1", ""], variables) == ("127.0.0.1", 1)
    assert served_at(["tcia-mirror", "serve", ""], {"TCIA_MIRROR_SERVE_PORT": ""}) == HERE


def test_an_address_from_a_file_of_settings(tmp_path):
    (tmp_path / "serve.toml").write_text('[serve]\nhost = "0.0.0.0"\nport = 9001\n')
    words = ["tcia-mirror", "serve", "--config", "serve.toml", ""]
    assert served_at(words, {}, tmp_path) == ("127.0.0.1", 9001)
    assert served_at([*words[:2], ""], {"TCIA_MIRROR_CONFIG": str(tmp_path / "serve.toml")}) == ("127.0.0.1", 9001)
    assert served_at(words, {"TCIA_MIRROR_SERVE_PORT": "7"}, tmp_path) == ("127.0.0.1", 7)
    assert served_at([*words[:4], "--host=10.1.2.3", ""], {}, tmp_path) == ("10.1.2.3", 9001)
    (tmp_path / "empty.toml").write_text("")
    assert served_at(["tcia-mirror", "serve", "--config=empty.toml", ""], {}, tmp_path) == HERE


def test_beside_a_service_of_kubernetes():
    assert served_at(["tcia-mirror", "serve", ""], {"TCIA_MIRROR_SERVE_PORT": "tcp://10.0.0.7:8042"}) == HERE


def process(folder: Path, *words: str) -> Path:
    """A folder like that of a process in /proc."""
    (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
    (folder / "environ").write_bytes(b"PATH=/bin\0HOME=/\0")
    return folder


def test_what_does_not_serve_is_well(tmp_path):
    assert main(process(tmp_path, "tcia-mirror", "sync", "Caf\u00e9")) == 0
    (tmp_path / "cmdline").write_bytes(b"tcia-mirror\0sync\0\xff\0")
    assert main(tmp_path) == 0


@pytest.mark.asyncio
async def test_what_serves_is_well_while_its_mirror_can_be_read(tmp_path, archive):
    port = archive.origin.rpartition(":")[2]
    serving = process(tmp_path, "tcia-mirror", "serve", "--from", "/data")
    (tmp_path / "environ").write_bytes(f"TCIA_MIRROR_SERVE_PORT={port}\0".encode())
    assert await asyncio.to_thread(main, serving) == 0
    (archive.root / ".mirror" / "ledger.sqlite").rename(tmp_path / "gone")
    assert await asyncio.to_thread(main, serving) == 1


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not healthy("127.0.0.1", port)


@pytest.mark.asyncio
async def test_a_server_that_does_not_answer(archive: FakeArchive, monkeypatch):
    go_on = asyncio.Event()
    archive.faults.add("*", hold(go_on))
    monkeypatch.setattr(healthcheck, "PATIENCE", 0.1)
    port = int(archive.origin.rpartition(":")[2])
    assert not await asyncio.to_thread(healthy, "127.0.0.1", port)
    go_on.set()
    archive.faults.clear()
    monkeypatch.setattr(healthcheck, "PATIENCE", 60)
    assert await asyncio.to_thread(healthy, "127.0.0.1", port)
