"""The error tree: what each class says about going on, and the operating system's errors as ours."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mirror import errors
from mirror.errors import (
    ArchiveError,
    BadAnswer,
    ExitCode,
    Fate,
    MirrorError,
    ServerFault,
    StoreDenied,
    StoreError,
    StoreFull,
    Throttled,
    store_errors,
)

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MirrorError)]

FATES = {
    "Unreachable": Fate.RETRY,
    "Stalled": Fate.RETRY,
    "BodyCut": Fate.RETRY,
    "ServerFault": Fate.RETRY,
    "Throttled": Fate.RETRY,
    "BadAnswer": Fate.RETRY,
    "NotFound": Fate.SKIP,
    "Refused": Fate.SKIP,
}

EXITS = {
    "SettingsError": 2,
    "ArchiveError": 5,
    "Unreachable": 5,
    "Refused": 5,
    "StoreError": 7,
    "StoreFull": 7,
    "StoreDenied": 7,
    "LedgerError": 7,
    "Damaged": 7,
    "TooNew": 7,
    "Locked": 6,
    "Interrupted": 130,
    "MirrorError": 1,
}


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_says_what_to_do_and_only_the_archives_may_be_tried_again(kind: type[MirrorError]):
    assert kind.fate is FATES.get(kind.__name__, Fate.STOP)
    if kind.fate is not Fate.STOP:
        assert issubclass(kind, ArchiveError)


@pytest.mark.parametrize(("name", "code"), EXITS.items())
def test_every_error_has_its_exit_code(name: str, code: int):
    assert getattr(errors, name).exit_code == code


def test_exit_codes_are_told_in_words():
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 130]
    assert all(code.meaning for code in ExitCode)
    assert ExitCode(6).meaning == "another run holds this mirror"


def test_an_archive_error_names_what_was_asked():
    error = BadAnswer("the answer is not JSON", asked="getSeries(Collection=A) at http://x/")
    assert str(error) == "getSeries(Collection=A) at http://x/: the answer is not JSON"
    assert (error.asked, error.reason) == ("getSeries(Collection=A) at http://x/", "the answer is not JSON")
    assert str(BadAnswer("plain")) == "plain"
    assert ServerFault("x", status=502).status == 502
    assert Throttled("x").retry_after is None


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EFBIG, StoreFull),
        (errno.EACCES, StoreDenied),
        (errno.EPERM, StoreDenied),
        (errno.EROFS, StoreDenied),
        (errno.EIO, StoreError),
        (errno.ENOTDIR, StoreError),
    ],
)
def test_the_disks_errors_are_ours_and_name_the_path(number: int, kind: type[StoreError]):
    with pytest.raises(StoreError) as caught, store_errors(Path("place/manifest.csv")):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind
    assert str(caught.value) == f"place/manifest.csv: {os.strerror(number)}"
    assert isinstance(caught.value.__cause__, OSError)


def test_other_errors_pass_the_stores_mapping_unchanged():
    with pytest.raises(ValueError, match="a bug"), store_errors(Path("x")):
        raise ValueError("a bug")
    with pytest.raises(BadAnswer), store_errors(Path("x")):
        raise BadAnswer("the archive's")
