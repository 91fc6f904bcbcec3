"""Names from the archive that no disk should see: all mirrored, all inside the root, no two on one path."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

import pytest
from fakes.dicom import make_series, uid
from fakes.faults import edit_rows
from fakes.mirroring import Mirror, assert_nothing_wrong, snapshot, truth

from mirror.model import FindingKind, Scope, SeriesState

PATIENTS = [
    "..", "../..", "../../../../etc/passwd", "/etc/passwd", "/", ".", "a/../../b", "..\\..\\b", "C:\\x", "a/b", "a_b",
    "nul\0byte", "new\nline", "tab\t", "bell\a", "\x7f", "\x1b[31mred", "", " ", " lead", "trail ", "trail.", ".hidden",
    "x" * 300, "x" * 299 + "y", "é" * 150, "\N{PILE OF POO}" * 80,
    "caf\u00e9", "cafe\u0301", "\u212b", "\u00c5", "\u1e9e", "\u00df", "SS",
    "patient", "Patient", "PATIENT", "pat\u0131ent",
    "CON", "con", "nul.txt", "COM1", "lpt9 ", "aux.dcm",
    "rtl\u202egnp", "zero\u200bwidth", "line\u2028", "a:b", "a*b", "a?b", 'a"b', "a<b>", "a|b", "~", "$HOME", "`id`",
    "-rf", "%2e%2e%2f", "patient~12345678", ".mirror", "manifest.csv",
]  # fmt: skip
COLLECTIONS = [
    "..",
    "../up",
    ".mirror",
    "SHA256SUMS",
    "manifest.csv",
    "LUNG-ALPHA",
    "lung-alpha",
    "con",
    "a/b",
    "é",
    "e\u0301",
]
LAYOUTS = ("uid", "classic", "descriptive", "{PatientID}/{StudyDescription}{SeriesDescription}/{SOPInstanceUID}.dcm")


def folded(path: str) -> str:
    """The path as the most forgetful disk sees it."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFKD", path).casefold()).casefold()


def assert_safe(mirror: Mirror, outside: dict[str, bytes]) -> None:
    root = mirror.root.resolve()
    rows = mirror.rows()
    for row in rows:
        assert (root / row.path).resolve() == root / row.path
        for part in PurePosixPath(row.path).parts:
            assert len(part.encode()) <= 255
            assert part == part.strip(" .")
            assert not any(unicodedata.category(char) in {"Cc", "Cf", "Cs"} for char in part)
            assert not set(part) & set('/\\<>:"|?*')
    assert len({row.path for row in rows}) == len(rows)
    elsewhere = {path: body for path, body in snapshot(root.parent).items() if not path.startswith(f"{root.name}/")}
    assert elsewhere == outside


@pytest.mark.parametrize("layout", [LAYOUTS[0], *LAYOUTS[2:]])
@pytest.mark.asyncio
async def test_patients(archive, tmp_path, layout):
    described = {
        uid(4, number, 1): {"PatientID": patient, "StudyDescription": patient, "SeriesDescription": patient[::-1]}
        for number, patient in enumerate(PATIENTS)
    }
    files = [
        file
        for number in range(len(PATIENTS))
        for file in make_series(series_uid=uid(4, number, 1), study_uid=uid(4, number), instances=1, side=4)
    ]
    archive.stock("Hostile", files, extra=lambda row: described[row["SeriesInstanceUID"]])
    mirror = Mirror(tmp_path / "home" / "mirror")
    (tmp_path / "home").mkdir()
    scope = Scope(collections=("Hostile",))
    report = await mirror.sync(archive, scope=scope, layout=layout)
    assert (report.exit_code, report.series.complete) == (0, len(PATIENTS))
    assert {f.kind for f in report.findings} == {FindingKind.OTHER_PATIENT}
    assert_safe(mirror, {})
    assert {row.patient_id for row in mirror.rows()} == set(PATIENTS)
    # Also where the disk folds case and normalises: one path each.
    assert len({folded(row.path) for row in mirror.rows()}) == len(PATIENTS)
    assert mirror.instances() == {u: body for u, body in truth(archive).items() if u.startswith(uid(4))}
    assert_nothing_wrong(mirror, archive)

    again = await mirror.sync(archive, scope=scope)
    assert (again.exit_code, again.series.kept, again.instances.fetched) == (0, len(PATIENTS), 0)
    assert_nothing_wrong(mirror, archive)


@pytest.mark.parametrize("layout", LAYOUTS[1:3])
@pytest.mark.asyncio
async def test_collections(archive, tmp_path, layout):
    for number, collection in enumerate(COLLECTIONS):
        archive.stock(collection, make_series(series_uid=uid(3, number, 1), study_uid=uid(3, number), instances=2))
    mirror = Mirror(tmp_path / "home" / "mirror")
    (tmp_path / "home").mkdir()
    report = await mirror.sync(archive, layout=layout)
    assert (report.exit_code, report.findings) == (0, ())
    assert_safe(mirror, {})
    assert {row.collection for row in mirror.rows()} == {"Lung-Alpha", "Brain Beta", *COLLECTIONS}
    tops = {row.collection: PurePosixPath(row.path).parts[0] for row in mirror.rows()}
    assert len({folded(top) for top in tops.values()}) == len(tops)
    assert_nothing_wrong(mirror, archive, whole=True)
    again = await mirror.sync(archive)
    assert (again.exit_code, again.series.planned, again.instances.fetched) == (0, 0, 0)


@pytest.mark.asyncio
async def test_rows_whose_identifiers_are_null_or_missing(archive, tmp_path):
    def nameless(rows):
        return [{k: v for k, v in row.items() if k not in ("PatientID", "StudyInstanceUID")} for row in rows]

    archive.faults.add("getSeries", edit_rows(nameless), Collection="Lung-Alpha")
    mirror = Mirror(tmp_path / "mirror")
    report = await mirror.sync(archive, scope=Scope(collections=("Lung-Alpha",)))
    assert report.exit_code == 0
    assert {row.state for row in mirror.series().values()} == {SeriesState.COMPLETE}
    assert_nothing_wrong(mirror, archive)


@pytest.mark.asyncio
async def test_a_row_with_half_a_character_is_one_collections_finding_at_most(archive, tmp_path):
    archive.faults.add(
        "getSeries", edit_rows(lambda rows: [row | {"PatientID": "\ud800"} for row in rows]), Collection="Lung-Alpha"
    )
    mirror = Mirror(tmp_path / "mirror")
    report = await mirror.sync(archive)
    assert report.series.complete in (3, 7)
    assert_nothing_wrong(mirror, archive)
