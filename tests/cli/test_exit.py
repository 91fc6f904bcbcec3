"""Every way a command can end, and the code of it."""

from __future__ import annotations

import pytest

from mirror import errors
from mirror.cli import main
from mirror.errors import ExitCode, MirrorError


def classes(base: type[MirrorError] = MirrorError) -> list[type[MirrorError]]:
    return [base, *(c for child in base.__subclasses__() for c in classes(child))]


def ends_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def app(**_: object) -> None:
        raise error

    monkeypatch.setattr(main, "add_commands", lambda _words: app)
    with pytest.raises(SystemExit) as caught:
        main.run()
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("kind", classes(), ids=lambda c: c.__name__)
def test_an_error_of_ours_is_one_line_and_its_own_code(monkeypatch, capsys, kind):
    assert ends_with(monkeypatch, kind("what was asked \x1b[2J")) == kind.exit_code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "tcia-mirror: what was asked \ufffd[2J\n")


def test_all_error_classes_were_tried():
    named = {c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, MirrorError)}
    assert named == {c for c in classes() if c.__module__ == errors.__name__}


def test_a_bug_shows_its_traceback_and_exits_1(monkeypatch, capsys):
    assert ends_with(monkeypatch, ZeroDivisionError("boom")) == ExitCode.BUG == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "ZeroDivisionError: boom" in err
    assert "bug in tcia-mirror" in err


def test_an_interrupt_from_the_keyboard_exits_130(monkeypatch, capsys):
    assert ends_with(monkeypatch, KeyboardInterrupt()) == 130
    assert "Traceback" not in capsys.readouterr().err
