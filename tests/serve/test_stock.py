"""A mirror from DICOM files on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fakes.dicom import TRANSFER_SYNTAXES, instance_uid, make_series, uid
from pydicom.uid import UID

from mirror.errors import Locked
from mirror.ledger import Catalogue, Ledger
from mirror.serve.stock import stock

SERIES = uid(1, 1, 1)


def test_files_lie_by_their_uids_and_the_ledger_has_their_digests(tmp_path: Path) -> None:
    files = make_series(patient_id="P/1", study_uid=uid(1, 1), series_uid=SERIES, instances=2)
    (tmp_path / "in.dcm").write_bytes(files[1])
    assert stock(tmp_path / "m", "Lung", [files[0], tmp_path / "in.dcm"], released="2020-01-31") == 2
    with Catalogue(tmp_path / "m") as catalogue:
        rows = list(catalogue.instance_rows())
    assert [row.sop_instance_uid for row in rows] == [instance_uid(SERIES, 1), instance_uid(SERIES, 2)]
    assert [row.patient_id for row in rows] == ["P/1", "P/1"]
    for row, body in zip(rows, files, strict=True):
        path = tmp_path / "m" / row.path
        assert path.name == f"{row.sop_instance_uid}.dcm"
        assert len(Path(row.path).parts) == 5
        assert path.read_bytes() == body
        assert (row.bytes, row.sha256) == (len(body), hashlib.sha256(body).hexdigest())
        assert row.md5 == hashlib.md5(body).hexdigest()


def test_adding_to_a_series_updates_its_counts_and_repeating_changes_nothing(tmp_path: Path) -> None:
    files = make_series(series_uid=SERIES, instances=5)
    stock(tmp_path, "Lung", files[:2], released="2020-01-31")
    for _ in range(2):
        stock(tmp_path, "Lung", files[2:], released="2021-01-31")
        with Catalogue(tmp_path) as catalogue:
            (row,) = catalogue.series({})
            (listed,) = catalogue.series_rows()
        assert (row["ImageCount"], row["FileSize"]) == (5, sum(map(len, files)))
        assert (listed.image_count, listed.instances, listed.state) == (5, 5, "complete")
        assert row["DateReleased"] == "2021-01-31"


def test_further_fields_and_facts_about_the_mirror(tmp_path: Path) -> None:
    stock(
        tmp_path,
        "Lung",
        make_series(series_uid=SERIES),
        released="2020-01-31",
        doi="https://doi.org/10.1/x",
        license_name="CC0",
        license_uri="https://cc.example/zero",
        server="https://archive.example/",
        extra=lambda row: {"Site": "Here", "SeriesDescription": row["SeriesDescription"].upper(), "NewField": "kept"},
    )
    with Catalogue(tmp_path) as catalogue:
        (row,) = catalogue.series({})
        assert (row["Site"], row["SeriesDescription"], row["NewField"]) == ("Here", "AXIAL, 1 MM", "kept")
        assert (row["LicenseName"], row["DataDescriptionURI"]) == ("CC0", "https://doi.org/10.1/x")
        assert (row["StudyDate"], row["SeriesNumber"], row["PixelSpacing"]) == ("2001-02-03", 1, "0.500000")
        assert catalogue.meta("server") == "https://archive.example/"
        assert catalogue.meta("layout") == "uid"


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_every_transfer_syntax_of_the_fakes_is_sound(tmp_path: Path, syntax: UID) -> None:
    files = make_series(series_uid=SERIES, transfer_syntax=syntax, acquisitions=(3, 4), instances=3)
    assert files == make_series(series_uid=SERIES, transfer_syntax=syntax, acquisitions=(3, 4), instances=3)
    stock(tmp_path, "Lung", files, released="2020-01-31")
    with Catalogue(tmp_path) as catalogue:
        rows = list(catalogue.instances(SERIES))
    assert [(row["acquisition_number"], row["instance_number"]) for row in rows] == [(3, 1), (4, 2), (3, 3)]


def test_what_is_no_dicom_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"notes\.txt: no DICOM preamble"):
        stock(tmp_path / "m", "Lung", [tmp_path / "notes.txt"], released="2020-01-31")
    with pytest.raises(ValueError, match="file 1: the data set is cut off"):
        stock(tmp_path / "m", "Lung", [make_series()[0][:-10]], released="2020-01-31")


def test_a_mirror_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    with Ledger(tmp_path), pytest.raises(Locked):
        stock(tmp_path, "Lung", make_series(), released="2020-01-31")
