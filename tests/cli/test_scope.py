"""Which part of the archive a command line and its settings mean together."""

from __future__ import annotations

import pytest

from mirror.cli.syncing import ScopeOptions, assemble_scope
from mirror.errors import SettingsError
from mirror.model import Scope
from mirror.settings import ScopeSettings

UID = "1.3.6.1.4.1.14519.5.2.1.1"


def test_the_settings_hold_where_the_command_line_says_nothing():
    configured = ScopeSettings(collections=("A", "B"), modalities=("CT",), body_parts=("CHEST",), patients=("P",))
    assert assemble_scope(ScopeOptions(), configured) == Scope(
        collections=("A", "B"), modalities=("CT",), body_parts=("CHEST",), patients=("P",)
    )


def test_a_choice_on_the_command_line_puts_aside_the_choice_in_the_settings(tmp_path):
    listed = tmp_path / "some.txt"
    listed.write_text(UID)
    configured = ScopeSettings(collections=("A",), manifest=str(listed), modalities=("CT",))
    assert assemble_scope(ScopeOptions(collections=["B"]), configured) == Scope(collections=("B",), modalities=("CT",))
    assert assemble_scope(ScopeOptions(all=True), configured) == Scope(all=True, modalities=("CT",))
    assert assemble_scope(ScopeOptions(series=["1.2"]), configured) == Scope(series=("1.2",), modalities=("CT",))


def test_what_narrows_down_is_replaced_kind_by_kind():
    configured = ScopeSettings(collections=("A",), modalities=("CT",), patients=("P1",))
    assert assemble_scope(ScopeOptions(modalities=["MR", "PT"]), configured) == Scope(
        collections=("A",), modalities=("MR", "PT"), patients=("P1",)
    )


def test_a_manifest_restricts_together_with_collections(tmp_path):
    listed = tmp_path / "some.txt"
    listed.write_text(f"{UID}\n{UID}.2\n")
    given = ScopeOptions(collections=["A"], manifest=listed)
    assert assemble_scope(given, ScopeSettings()) == Scope(collections=("A",), series=(UID, f"{UID}.2"))
    assert assemble_scope(ScopeOptions(), ScopeSettings(manifest=str(listed))).series == (UID, f"{UID}.2")


@pytest.mark.parametrize(
    ("given", "configured", "words"),
    [
        (ScopeOptions(), ScopeSettings(), "COLLECTION.*--all.*--series.*--manifest.*--config"),
        (ScopeOptions(modalities=["CT"]), ScopeSettings(), "nothing says which part"),
        (ScopeOptions(collections=["A"], all=True), ScopeSettings(), r"\(A\) and --all"),
        (ScopeOptions(), ScopeSettings(collections=("A",), all=True), r"scope\.all"),
        (ScopeOptions(collections=["A", " "]), ScopeSettings(), "collections: an empty name"),
        (ScopeOptions(collections=["A"], patients=[""]), ScopeSettings(), "patients: an empty name"),
    ],
)
def test_a_scope_that_says_nothing_or_contradicts_itself_is_refused(given, configured, words):
    with pytest.raises(SettingsError, match=f"(?s){words}"):
        assemble_scope(given, configured)


def test_series_and_manifest_exclude_each_other(tmp_path):
    with pytest.raises(SettingsError, match="--series and --manifest"):
        assemble_scope(ScopeOptions(series=["1.2"], manifest=tmp_path / "m.txt"), ScopeSettings())


def test_a_manifest_that_gives_no_series_is_refused_and_named(tmp_path):
    """Without series the scope would be the whole of the collections beside it."""
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary.txt"
    empty.write_text("\n")
    binary.write_bytes(b"\xff\xfe\x00")
    for file, words in [(empty, "empty.txt"), (binary, "not UTF-8"), (tmp_path / "none.txt", "No such file")]:
        with pytest.raises(SettingsError, match=words) as caught:
            assemble_scope(ScopeOptions(collections=["A"], manifest=file), ScopeSettings())
        assert str(file) in str(caught.value)
