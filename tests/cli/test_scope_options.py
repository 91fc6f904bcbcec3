"""Which part of the archive a command line and its settings mean together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mirror.cli.syncing import ScopeOptions, assemble_scope, choose_scope
from mirror.errors import SettingsError
from mirror.model import Exclude, Scope
from mirror.settings import ScopeSettings, Settings

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


def test_nothing_said_is_an_empty_scope():
    assert assemble_scope(ScopeOptions(), ScopeSettings()) == Scope()


def test_a_shared_list_is_a_choice_and_joins_listed_series():
    configured = ScopeSettings(collections=("A",), lists=("theirs",), manifests=("none.txt",))
    assert assemble_scope(ScopeOptions(lists=["mine"], series=["1.2"]), configured) == Scope(
        lists=("mine",), series=("1.2",)
    )
    assert assemble_scope(ScopeOptions(), ScopeSettings(lists=("theirs",))) == Scope(lists=("theirs",))


def test_every_option_and_every_setting_has_its_place_in_the_scope(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.csv"
    one.write_text(f"{UID}\n{UID}.2\n")
    two.write_text(f"SeriesInstanceUID\n{UID}.2\n{UID}.3\n")
    configured = ScopeSettings(
        collections=("A",), patients=("P",), modalities=("CT",), body_parts=("B",), manufacturers=("M",),
        released_since="2026-01-01", manifest=str(one), manifests=(str(two),), lists=("L",), exclude_collections=("a",),
        exclude_patients=("p",), exclude_modalities=("m",), exclude_body_parts=("b",), exclude_manufacturers=("f",),
        exclude_series=("s",),
    )  # fmt: skip
    expected = Scope(
        collections=("A",), patients=("P",), modalities=("CT",), body_parts=("B",), manufacturers=("M",),
        released_since="2026-01-01", series=(UID, f"{UID}.2", f"{UID}.3"), lists=("L",),
        exclude=Exclude(
            collections=("a",), patients=("p",), modalities=("m",), body_parts=("b",), manufacturers=("f",),
            series=("s",),
        ),
    )  # fmt: skip
    assert assemble_scope(ScopeOptions(), configured) == expected
    given = ScopeOptions(
        collections=["X"], patients=["Y"], modalities=["Z"], body_parts=["W"], manufacturers=["V"],
        released_since="2026-02-02", exclude_collections=["U"], exclude_modalities=["T"],
    )  # fmt: skip
    assert assemble_scope(given, configured) == Scope(
        collections=("X",), patients=("Y",), modalities=("Z",), body_parts=("W",), manufacturers=("V",),
        released_since="2026-02-02",
        exclude=replace(expected.exclude, collections=("U",), modalities=("T",)),
    )  # fmt: skip


def test_a_job_puts_the_scope_of_the_settings_aside():
    jobs = {"ct": ScopeSettings(collections=("A*",), modalities=("CT",)), "mr": ScopeSettings(all=True)}
    settings = Settings(scope=ScopeSettings(collections=("B",), patients=("P",)), jobs=jobs)
    assert choose_scope(ScopeOptions(), "ct", settings) == Scope(collections=("A*",), modalities=("CT",))
    assert choose_scope(ScopeOptions(), "mr", settings) == Scope(all=True)
    assert choose_scope(ScopeOptions(), None, settings) == Scope(collections=("B",), patients=("P",))


@pytest.mark.parametrize(
    ("job", "given", "words"),
    [
        ("nightly-mr", ScopeOptions(), r"no job 'nightly-mr'; the nearest are: nightly-ct"),
        ("nightly-ct", ScopeOptions(all=True), "--job nightly-ct says which part.*leave the other options"),
        ("nightly-ct", ScopeOptions(released_since="2026-01-01"), "--job nightly-ct says which part"),
        ("narrow", ScopeOptions(), "jobs.narrow: it does not say which part"),
        ("both", ScopeOptions(), r"jobs.both: names of collections \(A\)"),
        ("lost", ScopeOptions(), r"jobs.lost: no-such.txt: cannot read the manifest: No such file"),
    ],
)
def test_a_job_that_cannot_be_is_refused(job, given, words):
    jobs = {
        "nightly-ct": ScopeSettings(all=True),
        "narrow": ScopeSettings(modalities=("CT",)),
        "both": ScopeSettings(all=True, collections=("A",)),
        "lost": ScopeSettings(manifests=("no-such.txt",)),
        "another": ScopeSettings(all=True),
    }
    with pytest.raises(SettingsError, match=words):
        choose_scope(given, job, Settings(jobs=jobs))


def test_a_job_where_there_are_none_is_told_where_they_stand():
    with pytest.raises(SettingsError, match=r"no job 'a'; a job is a section \[jobs.NAME\].*TCIA_MIRROR_CONFIG"):
        choose_scope(ScopeOptions(), "a", Settings())


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
        (
            ScopeOptions(modalities=["CT"]),
            ScopeSettings(),
            "nothing says which part.*COLLECTION.*--all.*--series.*--manifest.*--list.*--job.*--config",
        ),
        (ScopeOptions(exclude_collections=["A"]), ScopeSettings(), "nothing says which part"),
        (ScopeOptions(), ScopeSettings(released_since="2026-01-01"), "nothing says which part"),
        (ScopeOptions(all=True, released_since="soon"), ScopeSettings(), "released_since: 'soon' is not right"),
        (ScopeOptions(lists=["l", ""]), ScopeSettings(), "lists: an empty name"),
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
