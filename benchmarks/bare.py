"""What aiohttp alone does here: fetch every URL of a list over so many connections and keep nothing.

python bare.py ORIGIN FILE CONNECTIONS; prints objects and bytes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
from yarl import URL


async def fetch_all(origin: str, paths: list[str], connections: int) -> tuple[int, int]:
    """(objects, bytes) of the answers with status 200."""
    objects = received = 0
    left = iter(paths)
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:

        async def fetch() -> None:
            nonlocal objects, received
            for path in left:
                async with session.get(URL(origin + path, encoded=True)) as response:
                    if response.status == 200:
                        objects += 1
                        async for chunk in response.content.iter_any():
                            received += len(chunk)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(connections):
                tasks.create_task(fetch())
    return objects, received


if __name__ == "__main__":
    print(*asyncio.run(fetch_all(sys.argv[1], Path(sys.argv[2]).read_text().split(), int(sys.argv[3]))))
