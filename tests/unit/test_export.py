"""Exports are whole or absent, the same for the same mirror, and what the field's programs read."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow.parquet
import pytest

from mirror.archive.dialects import find_server
from mirror.errors import SettingsError, StoreError
from mirror.export import EXPORT_FORMATS, _published, export, export_standard
from mirror.layout import ROOT_FILES, Layout
from mirror.ledger import Catalogue, Ledger
from mirror.manifest import InstanceRow, SeriesRow, columns, read_csv, read_jsonl, read_series_uids
from mirror.model import Action, Digest, Finding, FindingKind, Header, Instance, Series, SeriesState, Why

LAYOUT = Layout.parse("uid")
LICENCE = {
    "LicenseName": "CC BY 3.0",
    "LicenseURI": "http://creativecommons.org/licenses/by/3.0/",
    "DataDescriptionURI": "https://doi.org/10.7937/K9/TCIA.1",
}


def add_series(root: Path, ledger: Ledger, number: int, *, complete: bool = True, description: str = "T1") -> None:
    """A series of three instances with its files in the tree; the last one is missing unless it is complete."""
    patient = f"Pati\u00ebnt {number % 2} a\\b"
    uid = f"1.2.{number}"
    raw = {
        "SeriesInstanceUID": uid, "Collection": "TCGA-GBM", "PatientID": patient, "StudyInstanceUID": "1.2",
        "Modality": "MR", "SeriesDescription": description, "ImageCount": 3, **LICENCE,
    }  # fmt: skip
    series = Series(
        series_instance_uid=uid, collection="TCGA-GBM", patient_id=patient, study_instance_uid="1.2", modality="MR",
        image_count=3, raw=raw,
    )  # fmt: skip
    directory = ledger.claim_directory(LAYOUT.directory(series, None))
    crawl = ledger.begin_crawl("TCGA-GBM", "", 1)
    ledger.plan_series(crawl, "run", [(series, Action(fetch=True, why=Why.NEW), directory)])
    (todo,) = ledger.todo("run", 0, 10)
    listing = ledger.open_series(todo.id)
    uids = [f"{uid}.{n}" for n in range(3)]
    ledger.list_instances(todo.id, listing, uids)
    (root / directory).mkdir(parents=True)
    held = []
    for sop in uids if complete else uids[:-1]:
        content = f"DICM {sop}".encode()
        name = LAYOUT.file_name(sop)
        (root / directory / name).write_bytes(content)
        digest = Digest(
            bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), md5=hashlib.md5(content).hexdigest()
        )
        header = Header(
            sop_instance_uid=sop, series_instance_uid=uid, study_instance_uid="1.2", patient_id=patient,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        )  # fmt: skip
        held.append(
            Instance(
                header=header, digest=digest, name=name, source="getSingleImage", fetched_at=1746515289,
                verified="length,header",
            )
        )  # fmt: skip
    ledger.record(todo.id, held)
    if complete:
        ledger.judge(todo.id, SeriesState.COMPLETE, [])
    else:
        missing = Finding(kind=FindingKind.INSTANCES_MISSING, detail="1 of 3", series_instance_uid=uid)
        ledger.judge(todo.id, SeriesState.INCOMPLETE, [missing])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A mirror with two complete series and an incomplete one: eight files."""
    root = tmp_path / "mirror"
    with Ledger(root) as ledger:
        ledger.set_meta(server=find_server("nlst").base)
        for number in (2, 1):
            add_series(root, ledger, number)
        add_series(root, ledger, 3, complete=False)
    return root


def files_of(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_file()}


def rows_of(root: Path) -> tuple[list[InstanceRow], list[SeriesRow]]:
    with Catalogue(root) as catalogue:
        return list(catalogue.instance_rows()), list(catalogue.series_rows())


def test_the_rows_are_those_of_the_mirror(root):
    instances, series = rows_of(root)
    assert [row.sop_instance_uid for row in instances] == [
        "1.2.2.0", "1.2.2.1", "1.2.2.2", "1.2.1.0", "1.2.1.1", "1.2.1.2", "1.2.3.0", "1.2.3.1",
    ]  # fmt: skip
    assert [(row.series_instance_uid, row.instances, row.state) for row in series] == [
        ("1.2.2", 3, "complete"), ("1.2.1", 3, "complete"), ("1.2.3", 2, "incomplete"),
    ]  # fmt: skip


def test_csv_is_two_tables_in_the_root(root):
    assert export(root, "csv") == [(root / "manifest.csv", 8), (root / "manifest-series.csv", 3)]
    instances, series = rows_of(root)
    with (root / "manifest.csv").open(encoding="utf-8", newline="") as file:
        assert list(read_csv(file)) == instances
    with (root / "manifest-series.csv").open(encoding="utf-8", newline="") as file:
        assert list(read_csv(file, SeriesRow)) == series
    assert b"\r" not in (root / "manifest.csv").read_bytes()


def test_json_lines_are_two_tables_in_the_root(root):
    assert export(root, "jsonl") == [(root / "manifest.jsonl", 8), (root / "manifest-series.jsonl", 3)]
    instances, series = rows_of(root)
    with (root / "manifest.jsonl").open(encoding="utf-8", newline="") as file:
        assert list(read_jsonl(file)) == instances
    with (root / "manifest-series.jsonl").open(encoding="utf-8", newline="") as file:
        assert list(read_jsonl(file, SeriesRow)) == series
    first = json.loads((root / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["fetched_at"] == "2025-05-06T07:08:09Z"


def test_parquet_is_two_typed_tables_in_the_root(root):
    assert export(root, "parquet") == [(root / "manifest.parquet", 8), (root / "manifest-series.parquet", 3)]
    instances, series = rows_of(root)
    table = pyarrow.parquet.read_table(root / "manifest.parquet")
    assert [InstanceRow(**row) for row in table.to_pylist()] == instances
    table = pyarrow.parquet.read_table(root / "manifest-series.parquet")
    assert [SeriesRow(**row) for row in table.to_pylist()] == series
    types = {field.name: (str(field.type), field.nullable) for field in table.schema}
    assert tuple(types) == columns(SeriesRow)
    assert types["instances"] == ("int64", False)
    assert types["file_size"] == ("int64", True)
    assert types["findings"] == ("string", False)


def test_parquet_comes_in_row_groups(root, monkeypatch):
    monkeypatch.setattr("mirror.export._ROW_GROUP", 3)
    export(root, "parquet")
    metadata = pyarrow.parquet.read_metadata(root / "manifest.parquet")
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [3, 3, 2]


def test_parquet_without_its_extra_says_what_to_install(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingsError, match=r"tcia-mirror\[parquet\]"):
        export(root, "parquet")
    assert files_of(root) == set()


def test_sha256sum_passes_in_the_tree_and_sees_damage(root):
    assert export(root, "sha256") == [(root / "SHA256SUMS", 8)]
    check = ["sha256sum", "-c", "--strict", "SHA256SUMS"]
    done = subprocess.run(check, cwd=root, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count(": OK\n")) == (0, 8)
    victim = next(root.glob("TCGA-GBM/*/1.2/1.2.1/1.2.1.1.dcm"))
    victim.write_bytes(b"damaged")
    assert subprocess.run(check, cwd=root, check=False, capture_output=True).returncode == 1


def test_tcia_names_the_complete_series_and_the_mirrors_server(root, tmp_path):
    assert export(root, "tcia") == [(root / "manifest.tcia", 2)]
    text = (root / "manifest.tcia").read_text(encoding="utf-8")
    assert text.splitlines()[0] == (
        "downloadServerUrl=https://nlst.cancerimagingarchive.net/nbia-download/servlet/DownloadServlet"
    )
    assert read_series_uids(text, "manifest.tcia") == ["1.2.2", "1.2.1"]
    export(root, "tcia", tmp_path / "GBM of today.tcia")
    assert "databasketId=GBM-of-today.tcia\n" in (tmp_path / "GBM of today.tcia").read_text(encoding="utf-8")


@pytest.mark.parametrize("server", [None, "nonsense", find_server("tcia").base])
def test_tcia_names_the_live_archive_for_a_server_that_is_no_nbia(root, server):
    with Ledger(root) as ledger:
        ledger.set_meta(server=server or "")
    export(root, "tcia")
    first = (root / "manifest.tcia").read_text(encoding="utf-8").splitlines()[0]
    assert first == "downloadServerUrl=https://nbia.cancerimagingarchive.net/nbia-download/servlet/DownloadServlet"


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_output_goes_where_it_is_told(root, tmp_path, format):
    output = tmp_path / "out" / "all.of.it"
    output.parent.mkdir()
    written = export(root, format, output)
    two = ["all.of.it", "all.of-series.it"] if format in ("csv", "jsonl", "parquet") else ["all.of.it"]
    assert [path.name for path, _ in written] == two
    assert files_of(output.parent) == set(two)
    assert files_of(root) == set()


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_the_same_mirror_gives_the_same_bytes(root, tmp_path, format):
    def contents() -> list[bytes]:
        return [path.read_bytes() for path, _ in export(root, format)]

    before = contents()
    assert contents() == before
    twin = tmp_path / "twin"
    with Ledger(twin) as ledger:
        ledger.set_meta(server=find_server("nlst").base)
        add_series(twin, ledger, 3, complete=False)
        for number in (1, 2):
            add_series(twin, ledger, number)
    assert [path.read_bytes() for path, _ in export(twin, format)] == before


def test_the_default_files_are_names_that_no_directory_gets(root):
    written = [path.name for kind in EXPORT_FORMATS for path, _ in export(root, kind)]
    written += [path.name for path, _ in export_standard(root)]
    assert {name.casefold() for name in written} == ROOT_FILES


def test_the_standard_export(root):
    assert [(path.relative_to(root).as_posix(), rows) for path, rows in export_standard(root)] == [
        ("manifest.csv", 8), ("manifest-series.csv", 3), ("SHA256SUMS", 8), ("LICENSES", 1), ("CITATIONS", 1),
    ]  # fmt: skip
    assert (
        (root / "LICENSES")
        .read_text(encoding="utf-8")
        .endswith("\nTCGA-GBM\n  CC BY 3.0, http://creativecommons.org/licenses/by/3.0/ (3 series)\n")
    )
    assert (
        (root / "CITATIONS")
        .read_text(encoding="utf-8")
        .endswith("\nTCGA-GBM\n  https://doi.org/10.7937/K9/TCIA.1 (3 series)\n")
    )


def test_files_have_the_mode_that_the_umask_gives(root):
    umask = os.umask(0o027)
    try:
        export(root, "tcia")
    finally:
        os.umask(umask)
    assert (root / "manifest.tcia").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(("format", "says"), [("cvs", "did you mean 'csv'"), ("xlsx", "none of csv, jsonl, parquet")])
def test_an_unknown_format_names_the_right_ones(root, format, says):
    with pytest.raises(SettingsError, match=says):
        export(root, format)


def test_no_mirror_is_a_settings_error(tmp_path):
    with pytest.raises(SettingsError, match="no mirror here"):
        export(tmp_path, "csv")
    with pytest.raises(SettingsError, match="no mirror here"):
        export_standard(tmp_path)


def test_a_folder_is_no_output(root, tmp_path):
    with pytest.raises(SettingsError, match="a folder"):
        export(root, "csv", tmp_path)


def test_an_output_that_is_a_link_is_written_where_it_leads(root, tmp_path):
    (tmp_path / "held").mkdir()
    target, link = tmp_path / "held" / "really.tcia", tmp_path / "link.tcia"
    target.write_text("old")
    link.symlink_to(Path("held") / "really.tcia")
    assert export(root, "tcia", link) == [(target, 2)]
    assert link.is_symlink()
    assert list(read_series_uids(target.read_text(), "link")) == ["1.2.2", "1.2.1"]
    assert files_of(tmp_path / "held") == {"really.tcia"}


def test_a_link_to_what_is_not_there_yet_makes_it(root, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "new")
    export(root, "sha256", link)
    assert link.is_symlink()
    assert len((tmp_path / "new").read_text().splitlines()) == 8


def test_both_tables_lie_where_the_link_leads_to(root, tmp_path):
    (tmp_path / "held").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "held" / "really.csv")
    export(root, "csv", tmp_path / "link.csv")
    assert files_of(tmp_path / "held") == {"really.csv", "really-series.csv"}
    assert files_of(tmp_path) == {"link.csv"}


def test_a_manifest_of_the_mirror_may_be_a_link_too(root, tmp_path):
    (root / "manifest.csv").symlink_to(tmp_path / "elsewhere.csv")
    assert export(root, "csv")[0] == (root / "manifest.csv", 8)
    assert (root / "manifest.csv").is_symlink()
    assert len((tmp_path / "elsewhere.csv").read_text(encoding="utf-8").splitlines()) == 9
    assert (root / "manifest-series.csv").is_file()


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_what_is_no_file_is_left_as_it_is(root, tmp_path, format):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for output in (pipe, tmp_path / "link"):
        with pytest.raises(SettingsError, match=f"{output}: is not a file; an export replaces files"):
            export(root, format, output)
    if format in ("csv", "jsonl", "parquet"):
        (tmp_path / f"x-series.{format}").symlink_to(pipe)
        with pytest.raises(SettingsError, match=f"x-series.{format}: is not a file; an export replaces files"):
            export(root, format, tmp_path / f"x.{format}")
    assert pipe.is_fifo()
    assert (tmp_path / "link").is_symlink()
    assert files_of(tmp_path) == set()


def test_links_that_lead_to_each_other_are_named(root, tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(StoreError, match="a: Too many levels of symbolic links"):
        export(root, "tcia", tmp_path / "a")


def test_an_output_that_cannot_be_made_is_named(root, tmp_path):
    with pytest.raises(StoreError, match=r"absent/x\.csv: No such file"):
        export(root, "csv", tmp_path / "absent" / "x.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/x\.csv: Not a directory"):
        export(root, "csv", tmp_path / "file" / "x.csv")


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from mirror.errors import StoreFull
    from mirror.export import export
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        export(Path(sys.argv[1]), sys.argv[2])
    except StoreFull as error:
        print(error)
"""


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(root, format):
    name = f"manifest-series.{format}"
    export(root, format)
    before = (root / name).read_bytes()
    noise = "".join(hashlib.sha256(str(n).encode()).hexdigest() for n in range(5000))  # does not compress below half
    with Ledger(root) as ledger:
        add_series(root, ledger, 4, description=noise)
    script = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(root), format]
    # Nothing that measures coverage may write there either.
    environ = {variable: value for variable, value in os.environ.items() if not variable.startswith("COVERAGE_")}
    done = subprocess.run(script, check=True, capture_output=True, text=True, env=environ)
    assert done.stdout == f"{root / name}: File too large\n"
    assert done.stderr == ""
    assert (root / name).read_bytes() == before
    assert files_of(root) == {f"manifest.{format}", name}


def test_an_interrupt_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path):
    def interrupted(file) -> int:
        file.write(b"half a mani")
        raise KeyboardInterrupt

    target = tmp_path / "manifest.csv"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        _published(target, interrupted)
    assert target.read_bytes() == b"old"
    assert files_of(tmp_path) == {"manifest.csv"}


def test_what_a_killed_export_left_is_taken_away_but_not_what_another_writes(root):
    dead = root / ".manifest.csv.0123456789abcdef.part"
    alive = root / ".manifest.csv.fedcba9876543210.part"
    other = root / ".manifest.csv"
    for path in (dead, alive, other):
        path.write_bytes(b"half a mani")
    with alive.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        export(root, "csv")
    assert files_of(root) == {"manifest.csv", "manifest-series.csv", alive.name, other.name}
    export(root, "csv")
    assert files_of(root) == {"manifest.csv", "manifest-series.csv", other.name}


def test_an_export_beside_a_running_sync_sees_what_is_committed(root):
    with Ledger(root) as ledger:
        add_series(root, ledger, 5)
        assert export(root, "csv")[0] == (root / "manifest.csv", 11)
    with (root / "manifest.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file))) == 12
