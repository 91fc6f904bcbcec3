"""The built image, run: it mirrors an archive as any user with nothing but /data to write to, killed or not.

`make container` builds it and runs these tests; without an image they say that they were not tried.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from fakes.archive import FakeArchive
from fakes.asking import ask
from fakes.container import KILLED, Container, Image, Inside
from fakes.faults import hold
from fakes.mirroring import Mirror, assert_nothing_wrong, sums_pass, truth
from fakes.process import Striker

from mirror.archive.dialects import NBIA_PREFIX
from mirror.demo import build_archive
from mirror.errors import ExitCode

if "CONTAINER_IMAGE" not in os.environ:
    pytest.skip("the container was not tried: `make container` builds and runs it", allow_module_level=True)

IMAGE = Image(Path(os.environ["CONTAINER_IMAGE"]))
PROJECT = Path(__file__).parents[2]
#: Nobody that the image knows, in the group of root: whom OpenShift runs a container as.
ANYBODY = "1234567890:0"


@pytest_asyncio.fixture
async def embedded(tmp_path) -> AsyncIterator[FakeArchive]:
    """The archive of `tcia-mirror demo`, on a real socket."""
    build_archive(tmp_path / "upstream")
    async with FakeArchive(tmp_path / "upstream") as archive:
        yield archive


def container_for(tmp_path: Path, user: str = "") -> Container:
    """A container with a folder at /data that its user may write, by ownership or, where it is anybody, by group."""
    container = Container(IMAGE, tmp_path / "data", user)
    container.data.mkdir()
    if user:
        container.data.chmod(0o775)
    else:
        os.chown(container.data, *container.ids)
    return container


@pytest.fixture
def container(tmp_path) -> Container:
    return container_for(tmp_path)


# What it is


def test_what_an_engine_is_told():
    config = IMAGE.config
    assert (config["Entrypoint"], config["Cmd"]) == (["tcia-mirror"], ["--help"])
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("1000:1000", "/data", "SIGTERM")
    assert (config["Volumes"], config["ExposedPorts"]) == ({"/data": {}}, {"8042/tcp": {}})
    assert "TCIA_MIRROR_TO=/data" in config["Env"]
    how, *check = config["Healthcheck"]["Test"]
    assert (how, check[-1]) == ("CMD", "/opt/tcia-mirror/healthcheck.py")


def test_its_labels_say_what_it_is():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    said = {name.removeprefix("org.opencontainers.image."): text for name, text in IMAGE.config["Labels"].items()}
    assert said["title"] == project["name"]
    assert said["description"] == project["description"]
    assert said["licenses"] == project["license"]
    assert said["source"] == project["urls"]["Homepage"]
    assert said["version"] == project["version"]
    assert said["revision"] == (IMAGE.folder / "revision").read_text().strip()


def test_nothing_to_build_with_is_in_it():
    folders = next(v for v in IMAGE.config["Env"] if v.startswith("PATH=")).removeprefix("PATH=").split(":")
    there = {path.name for folder in folders for path in (IMAGE.root / folder[1:]).glob("*")}
    assert {"tcia-mirror", "python3"} <= there
    assert there & {"cc", "gcc", "g++", "ld", "make", "pip", "pip3", "git", "curl"} == set()
    assert [path.name for path in (IMAGE.root / "opt").iterdir()] == ["tcia-mirror"]
    assert not (IMAGE.root / "src").exists()
    [packages] = (IMAGE.root / "opt/tcia-mirror/lib").glob("python3*/site-packages")
    assert {"mirror", "aiohttp"} <= {path.name for path in packages.iterdir()}
    assert [path.name for name in ("pip", "setuptools", "hatchling") for path in packages.glob(f"{name}*")] == []


@pytest.mark.parametrize("module", ["pip", "ensurepip"])
@pytest.mark.asyncio
async def test_nothing_to_install_with_is_in_it(container, module):
    for python in ("/opt/tcia-mirror/bin/python3", "/usr/bin/python3"):
        ended = await container.run("-m", module, entrypoint=[python])
        assert (ended.code, ended.err.strip()) == (1, f"{python}: No module named {module}")


def test_only_data_is_its_user_s():
    assert (IMAGE.root / "data").stat().st_mode & 0o777 == 0o775
    assert [path for path in _theirs() if path != "data"] == []


def _theirs() -> Iterator[str]:
    """What the image's user, or anybody in the group of root, could change. An engine mounts its own /dev."""
    uid, gid = Container(IMAGE, Path()).ids
    for folder, names, files in os.walk(IMAGE.root):
        for path in [Path(folder, name) for name in (*names, *files)]:
            told, name = path.lstat(), str(path.relative_to(IMAGE.root))
            if stat.S_ISLNK(told.st_mode) or told.st_mode & stat.S_ISVTX or name.startswith("dev/"):
                continue
            free = stat.S_IWOTH if told.st_gid else stat.S_IWOTH | stat.S_IWGRP
            if told.st_uid == uid or told.st_gid == gid or told.st_mode & free:
                yield name


@pytest.mark.asyncio
async def test_the_stand_in_for_an_engine_is_as_strict_as_one(tmp_path):
    """The others prove nothing if this fails: even root could write nowhere, and the command is process 1."""
    container = container_for(tmp_path, "0:0")
    script = "for f in / /tmp /opt/tcia-mirror /etc; do touch $f/x; done; echo $$ ${HOME-homeless} $PWD; touch x"
    ended = await container.run("-c", script, entrypoint=["/bin/sh"])
    assert ended.err.count("Read-only file system") == 4
    assert (ended.code, ended.out) == (0, "1 homeless /data\n")
    assert (container.data / "x").exists()
    assert not (IMAGE.root / "tmp" / "x").exists()


# What it does


@pytest.mark.parametrize("user", ["", ANYBODY], ids=["its own user", "anybody"])
@pytest.mark.asyncio
async def test_killed_and_run_again_it_mirrors_the_archive(embedded, tmp_path, user):
    container, true = container_for(tmp_path, user), truth(embedded)
    settings = {"ARCHIVE_SERVER": embedded.url(), "SCOPE_ALL": "true"}
    mirror = Mirror(container.data)
    striker = Striker((12,), once=mirror.instances)
    embedded.faults.add("getSingleImage", striker)
    assert (await container.struck(striker, "sync", **settings)).code == KILLED
    held = mirror.instances()
    assert {uid: true[uid] for uid in held} == held
    assert 0 < len(held) < len(true)

    embedded.faults.clear()
    embedded.requests.clear()
    ended = await container.run("sync", **settings)
    assert ended.code == ExitCode.COMPLETE, ended.err
    assert mirror.instances() == true
    assert embedded.counts()["getSingleImage"] == len(true) - len(held)
    assert_nothing_wrong(mirror, embedded)
    assert sums_pass(mirror.root)
    assert {path.stat().st_uid for path in container.data.rglob("*")} == {container.ids[0]}
    assert (await container.run("verify")).code == ExitCode.COMPLETE


@pytest.mark.asyncio
async def test_stopped_it_finishes_what_is_in_flight(embedded, container):
    settings = {"ARCHIVE_SERVER": embedded.url(), "SCOPE_ALL": "true"}
    striker = Striker((12,), signal.SIGTERM)
    embedded.faults.add("getSingleImage", striker)
    ended = await container.struck(striker, "sync", **settings)
    assert ended.code == ExitCode.INTERRUPTED, ended.err
    mirror = Mirror(container.data)
    assert 0 < len(mirror.instances()) < len(truth(embedded))
    assert mirror.parts() == []
    assert sums_pass(mirror.root)
    assert (await container.run("sync", **settings)).code == ExitCode.COMPLETE
    assert mirror.instances() == truth(embedded)


@pytest.mark.asyncio
async def test_a_collection_by_variable_and_options_over_it(embedded, container):
    ended = await container.run("sync", ARCHIVE_SERVER=embedded.url(), SCOPE_COLLECTIONS="Demo-Brain")
    assert ended.code == ExitCode.COMPLETE, ended.err
    assert {row.collection for row in Mirror(container.data).rows()} == {"Demo-Brain"}


@pytest.mark.parametrize(
    ("words", "settings", "code"),
    [
        ((), {}, ExitCode.COMPLETE),
        (("sync", "--all"), {"ARCHIVE_SERVERS": "nbia"}, ExitCode.USAGE),
        (("sync", "--all"), {"ARCHIVE_SERVER": "http://127.0.0.1:9"}, ExitCode.UNREACHABLE),
    ],
    ids=["no words: help", "a variable that is none", "nobody listens"],
)
@pytest.mark.asyncio
async def test_exit_codes(container, words, settings, code):
    ended = await container.run(*words, **settings)
    assert ended.code == code, ended.err


@pytest.mark.asyncio
async def test_a_folder_that_is_somebody_else_s(embedded, container):
    os.chown(container.data, 0, 0)
    ended = await container.run("sync", ARCHIVE_SERVER=embedded.url(), SCOPE_ALL="true")
    assert ended.code == ExitCode.DISK
    assert "/data" in ended.err


# How it is told to be


@asynccontextmanager
async def running(container: Container, *words: str, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A running container; killed at the end, if it is still there."""
    command = container.command(*words, **settings)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            Inside(process).send_signal(signal.SIGKILL)
        await process.communicate()


async def health(container: Container, process: asyncio.subprocess.Process) -> int:
    """The exit code of the image's HEALTHCHECK in a running container: 0 or 1."""
    return (await container.execute(Inside(process), *IMAGE.config["Healthcheck"]["Test"][1:])).code


@pytest.mark.parametrize("user", ["", ANYBODY], ids=["its own user", "anybody"])
@pytest.mark.asyncio
async def test_health_of_a_server(tmp_path, unused_port, user):
    container = Container(IMAGE, tmp_path / "data", user, mode="ro")
    build_archive(container.data)
    words = ("serve", "--from", "/data", "--host", "0.0.0.0", "--port", str(unused_port))
    async with running(container, *words) as process:
        assert process.stdout is not None
        assert (await process.stdout.readline()).decode() == f"nbia  http://0.0.0.0:{unused_port}{NBIA_PREFIX}\n"
        assert (await ask(f"http://127.0.0.1:{unused_port}{NBIA_PREFIX}getCollectionValues")).status == 200
        assert await health(container, process) == 0
        # As when the volume goes away under it.
        (container.data / ".mirror" / "ledger.sqlite").rename(tmp_path / "gone")
        assert await health(container, process) == 1
        (tmp_path / "gone").rename(container.data / ".mirror" / "ledger.sqlite")
        assert await health(container, process) == 0
        Inside(process).send_signal(signal.SIGTERM)
        assert await process.wait() == ExitCode.COMPLETE


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.asyncio
async def test_health_of_a_sync(embedded, container):
    asked, go_on = asyncio.Event(), asyncio.Event()
    embedded.faults.at_request(5, asked.set)
    embedded.faults.add("getSingleImage", hold(go_on))
    async with running(container, "sync", ARCHIVE_SERVER=embedded.url(), SCOPE_ALL="true") as process:
        await asked.wait()
        assert await health(container, process) == 0
        embedded.faults.clear()
        go_on.set()
        assert await process.wait() == ExitCode.COMPLETE
