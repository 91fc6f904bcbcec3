"""Where small bodies are checked: in the loop if the disk is quick and stays so, else in threads."""

from __future__ import annotations

import threading

import pytest
from fakes.archive import FakeArchive
from fakes.mirroring import Mirror, assert_nothing_wrong

from mirror.ledger import Ledger
from mirror.memory import keep_freed_memory
from mirror.threads import Inline
from mirror.transports import admission
from mirror.tree import LocalStore

KIB = 1024


def test_nothing_is_believed_of_a_disk_that_was_not_probed():
    assert not Inline().suits(KIB)


def test_a_quick_disk_and_a_small_body():
    inline = Inline()
    inline.begin(0.00005)
    assert inline.suits(KIB)
    assert inline.suits(128 * KIB)
    assert not inline.suits(128 * KIB + 1)


def test_a_disk_that_flushes():
    inline = Inline()
    inline.begin(0.0004)
    assert not inline.suits(KIB)


def test_a_disk_that_gets_slow_is_left_to_threads():
    inline = Inline()
    inline.begin(0.00005)
    for _ in range(1000):
        inline.learn(0.0002)
    assert inline.suits(KIB)
    for _ in range(100):
        inline.learn(0.01)
    assert not inline.suits(KIB)


def test_who_serves_for_long_tries_a_slow_disk_again():
    inline = Inline(soon=0.001, rest=10)
    inline.begin(0.0)
    for _ in range(100):
        inline.learn(0.01)
    assert [inline.suits(KIB) for _ in range(10)] == [False] * 10
    assert inline.suits(KIB)
    for _ in range(5):
        inline.learn(0.01)
    assert not inline.suits(KIB)


def test_one_that_takes_long_says_little_of_the_disk():
    inline = Inline()
    inline.begin(0.00005)
    inline.learn(0.0002)
    inline.learn(1.0)
    assert inline.suits(KIB)


@pytest.mark.parametrize("fsync", [True, False])
def test_a_probe_takes_time_and_leaves_nothing(tmp_path, fsync):
    store = LocalStore(tmp_path, fsync=fsync)
    assert 0 < store.probe() < 60
    assert list((tmp_path / ".mirror" / "tmp").iterdir()) == []
    assert store.names("") == {}


@pytest.mark.parametrize("seconds", [0.0, 1.0], ids=["quick", "slow"])
@pytest.mark.asyncio
async def test_a_sync_is_right_either_way(archive: FakeArchive, tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(LocalStore, "probe", lambda store: seconds)
    # However busy the machine is.
    monkeypatch.setattr(Inline, "learn", lambda inline, took: None)
    placed, judged = [], []

    def watched(work, where):
        def watching(*args, **options):
            where.append(threading.current_thread() is threading.main_thread())
            return work(*args, **options)

        return watching

    monkeypatch.setattr(admission, "check_and_place", watched(admission.check_and_place, placed))
    monkeypatch.setattr(Ledger, "judge", watched(Ledger.judge, judged))
    mirror = Mirror(tmp_path / "mirror")
    report = await mirror.sync(archive)
    assert (report.exit_code, report.instances.fetched) == (0, 32)
    assert_nothing_wrong(mirror, archive, whole=True)
    assert set(placed) == {seconds == 0.0}
    # Another turn of the ledger may be under way in its thread.
    assert any(judged) if seconds == 0.0 else not any(judged)


def test_the_c_library_takes_the_hint_twice():
    assert keep_freed_memory() == keep_freed_memory()
