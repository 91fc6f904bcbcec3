"""The server as it runs: `serve` by one process and by several, and how it stops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.asking import ask
from fakes.dicom import instance_uid, make_series, uid
from prometheus_client.parser import text_string_to_metric_families

from mirror.serve.stock import stock

V4 = "/nbia-api/services/v4/"
SERIES = uid(9, 1, 1, 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    stock(tmp_path / "mirror", "One", make_series(series_uid=SERIES, instances=2, side=1024), released="2026-01-01")
    return tmp_path / "mirror"


class Served:
    """`tcia-mirror serve` as a process of its own."""

    def __init__(self, root: Path, *options: str, **environ: str) -> None:
        command = [sys.executable, "-m", "mirror", "serve", "--from", str(root), *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environ}
        )

    async def origin(self) -> str:
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        return line.split()[1].removesuffix(V4)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    async def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        _, said = await asyncio.to_thread(self.process.communicate, timeout=30)
        return self.process.returncode, said


def children(pid: int) -> set[int]:
    return {int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()}


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.asyncio
async def test_it_serves_until_it_is_told_to_stop(root, workers):
    with Served(root, "--port", "0", "--workers", workers, "--access-log") as served:
        origin = await served.origin()
        for _ in range(8):
            assert (await ask(origin + V4 + "getCollectionValues")).rows == [{"Collection": "One"}]
        assert len(children(served.process.pid)) == (0 if workers == "1" else 2)
        code, said = await served.end()
    assert code == 0
    assert said.count("GET /nbia-api/services/v4/getCollectionValues 200") == 8


@pytest.mark.asyncio
async def test_a_question_may_be_as_long_as_the_archive_takes_it(root):
    with Served(root, "--port", "0") as served:
        origin = await served.origin()
        answer = await ask(origin + V4 + "getSeries", PatientID="x" * 50_000)
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.asyncio
async def test_a_worker_that_is_lost_is_replaced(root):
    with Served(root, "--port", "0", "--workers", "2") as served:
        origin = await served.origin()
        before = children(served.process.pid)
        os.kill(min(before), signal.SIGKILL)
        for _ in range(200):
            if len(now := children(served.process.pid) - {min(before)}) == 2:
                break
            await asyncio.sleep(0.1)
        assert len(now) == 2
        # The one that is left answers meanwhile, and the new one as soon as it listens.
        answers = [(await ask(origin + V4 + "getCollectionValues")).status for _ in range(16)]
        assert answers == [200] * 16
        code, said = await served.end()
    assert code == 0
    assert "a worker was lost; another takes its place" in said


async def counted(origin: str) -> dict[str, float]:
    """Calls answered with 200, by worker, as any one of them tells it."""
    text = (await ask(origin + "/metrics")).text
    return {
        sample.labels["worker"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "tcia_mirror_serve_requests_total" and sample.labels["call"] == "getCollectionValues"
    }


@pytest.mark.asyncio
async def test_whichever_worker_is_asked_tells_what_all_have_counted(root):
    with Served(root, "--port", "0", "--workers", "2") as served:
        origin = await served.origin()
        for _ in range(40):
            await ask(origin + V4 + "getCollectionValues")
        told = [await counted(origin) for _ in range(10)]
        assert all(figures == told[0] for figures in told)
        assert sum(told[0].values()) == 40
        assert set(told[0]) == {"0", "1"}
        # One that is gone is missing for a while, and nothing else.
        os.kill(max(children(served.process.pid)), signal.SIGKILL)
        for _ in range(200):
            if len(left := await counted(origin)) == 1:
                break
            await asyncio.sleep(0.05)
        assert left.items() <= told[0].items()
        assert (await served.end())[0] == 0


@pytest.mark.asyncio
async def test_workers_that_cannot_tell_each_other_serve_all_the_same(root, tmp_path):
    """A socket's name has about a hundred characters."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    with Served(root, "--port", "0", "--workers", "2", TMPDIR=str(folder)) as served:
        origin = await served.origin()
        assert (await ask(origin + V4 + "getCollectionValues")).status == 200
        assert (await ask(origin + "/metrics")).status == 200
        code, said = await served.end()
    assert code == 0
    assert "/metrics will lack this worker" in said


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.asyncio
async def test_a_port_that_somebody_has(root, workers):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with Served(root, "--port", port, "--workers", workers) as served:
            _, said = await asyncio.to_thread(served.process.communicate, timeout=30)
    assert served.process.returncode == 2
    assert f"cannot listen on 127.0.0.1, port {port}: " in said


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.asyncio
async def test_an_answer_under_way_ends_when_it_is_told_to_stop(root, workers):
    with Served(root, "--port", "0", "--workers", workers) as served:
        origin = await served.origin()
        port = int(origin.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        of = f"SeriesInstanceUID={SERIES}&SOPInstanceUID={instance_uid(SERIES, 1)}"
        writer.write(f"GET {V4}getSingleImage?{of} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        served.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        body = await reader.read(-1)
        writer.close()
        assert len(body) == length
        _, said = await asyncio.to_thread(served.process.communicate, timeout=30)
    assert (served.process.returncode, said) == (0, "")


@pytest.mark.asyncio
async def test_settings_come_by_the_environment_too(root, tmp_path):
    with Served(root, TCIA_MIRROR_SERVE_PORT="0", TCIA_MIRROR_SERVE_BASE_URL="https://example.org/x/") as served:
        assert await served.origin() == "https://example.org/x"
    with Served(root, TCIA_MIRROR_SERVE_TOKENS_FILE=str(tmp_path / "none")) as served:
        _, said = await asyncio.to_thread(served.process.communicate, timeout=30)
    assert served.process.returncode == 2
    assert "serve.tokens_file" in said
