"""The archive's own host name, leading to a server of ours: what clients without a setting for the server can be given.

A proxy, as the variables HTTPS_PROXY and REQUESTS_CA_BUNDLE name one, which answers for the archive's hosts with a
certificate that it made, and lets nobody through to any other.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio

HOSTS = ".cancerimagingarchive.net"


@asynccontextmanager
async def archive_host(origin: str, folder: Path) -> AsyncIterator[tuple[dict[str, str], list[str]]]:
    """The variables that lead a client of the archive to `origin`, and the hosts that were refused."""
    key, certificate = folder / "host.key", folder / "host.pem"
    await anyio.run_process(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=archive", "-addext", f"subjectAltName=DNS:*{HOSTS}", "-keyout", str(key),
            "-out", str(certificate),
        ]
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    host, port = origin.removeprefix("http://").split(":")
    refused: list[str] = []

    async def pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            while chunk := await source.read(1 << 16):
                target.write(chunk)
                await target.drain()
        with suppress(ConnectionError, ssl.SSLError, RuntimeError):
            target.close()

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b" ", 2)
        if method != b"CONNECT" or not target.decode().endswith(f"{HOSTS}:443"):
            refused.append(target.decode())
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.drain()
        await writer.start_tls(context)
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pour(reader, back), pour(there, writer))

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield {"HTTPS_PROXY": proxy, "https_proxy": proxy, "REQUESTS_CA_BUNDLE": str(certificate)}, refused
    finally:
        server.close()
