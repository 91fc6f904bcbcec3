"""`tcia-mirror demo`: the whole product on a small archive of real DICOM files, served on loopback.

The files are those that pydicom ships for its own tests: real scanners, many modalities and transfer syntaxes. They
are put into collections, patients, studies and series of their own, consistently: references between them follow.
"""

from __future__ import annotations

import hashlib
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import anyio
import anyio.to_thread
import pydicom
from pydicom.uid import UID, generate_uid
from rich.console import Console
from rich.tree import Tree

from mirror.cli.bars import Bars
from mirror.cli.progress import Display, Lines
from mirror.cli.summary import paper, paper_width, show_status, show_summary
from mirror.cli.text import size
from mirror.errors import SettingsError, StoreError
from mirror.ledger import Catalogue
from mirror.model import Scope
from mirror.pipeline import sync
from mirror.report import RunReport
from mirror.serve import serve
from mirror.serve.stock import stock
from mirror.settings import ArchiveSettings, ServeSettings, Settings

#: Slow enough that a person sees the bars move.
_RATE = 40.0
_DOI = "https://doi.org/10.5555/tcia-mirror-demo"


@dataclass(frozen=True, slots=True)
class _Study:
    """A study of the demo archive: whose it is, and its series as (description, modality, files of pydicom's)."""

    collection: str
    patient_id: str
    date: str
    description: str
    series: tuple[tuple[str, str, tuple[str, ...]], ...]


def _folder(path: str, *names: str) -> tuple[str, ...]:
    return tuple(f"dicomdirtests/{path}/{name}" for name in names)


_STUDIES = (
    _Study(
        "Demo-Chest", "CHEST-001", "20190114", "CT chest",
        (
            ("Axial 5 mm", "CT", _folder("77654033/CT2", "17106", "17136", "17166", "17196")),
            ("Scout", "CT", ("CT_small.dcm",)),
            ("Lesions", "SEG", ("liver_1frame.dcm",)),
        ),
    ),
    _Study(
        "Demo-Chest", "CHEST-002", "20190302", "CR chest",
        (
            ("PA", "CR", (*_folder("77654033/CR1", "6154"), *_folder("77654033/CR2", "6247"))),
            ("Report", "SR", ("reportsi.dcm",)),
        ),
    ),
    _Study(
        "Demo-Brain", "BRAIN 01", "20200611", "MR brain",
        (
            ("T1 axial", "MR", _folder("98892003/MR1", "15820", "4919", "5641")),
            ("T2 axial", "MR", _folder("98892003/MR2", "15970", "4950", "4981", "5011", "6273", "6605", "6935")),
            ("Localizer", "MR", ("MR_small.dcm",)),
        ),
    ),
    _Study(
        "Demo-Brain", "BRAIN 02", "20200819", "MR brain, every encoding",
        (
            ("Explicit and implicit", "MR", ("MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_padded.dcm")),
            ("Compressed", "MR", ("MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm")),
        ),
    ),
    _Study(
        "Demo-Radiotherapy", "RT/7", "20210407", "Plan and dose",
        (
            ("Plan", "RTPLAN", ("rtplan.dcm",)),
            ("Dose", "RTDOSE", ("rtdose.dcm",)),
            ("Echo", "US", ("examples_palette.dcm",)),
        ),
    ),
)  # fmt: skip

_ADDED = _Study(
    "Demo-Brain", "BRAIN 02", "20210211", "MR brain, follow-up",
    (("T1 axial", "MR", _folder("98892003/MR700", "4467", "4528", "4558", "4588", "4618")),),
)  # fmt: skip


def build_archive(root: Path, studies: tuple[_Study, ...] = _STUDIES, *, released: str = "2022-01-31") -> int:
    """Stock a mirror at `root` with the demo's studies. Returns the number of files. Safe to repeat."""
    with warnings.catch_warnings(), _quiet_pydicom():
        # Some of these files hold values that DICOM does not allow; so do some of any archive.
        warnings.simplefilter("ignore")
        renamed = {str(_read(name).SOPInstanceUID): _uid(name) for study in studies for name in _names(study)}
        total = 0
        for study in studies:
            files = [
                data
                for number, series in enumerate(study.series, 1)
                for data in _relabelled(study, number, series, renamed)
            ]
            total += stock(root, study.collection, files, released=released, doi=_DOI)
    return total


def _names(study: _Study) -> list[str]:
    return [name for _, _, names in study.series for name in names]


def _relabelled(
    study: _Study, number: int, series: tuple[str, str, tuple[str, ...]], renamed: Mapping[str, UID]
) -> Iterator[bytes]:
    """The bytes of a series' files under their new identity. `renamed`: old SOPInstanceUID -> new, for references."""
    description, modality, names = series
    for instance, name in enumerate(names, 1):
        dataset = _read(name)
        dataset.PatientID = study.patient_id
        dataset.PatientName = study.patient_id
        dataset.StudyInstanceUID = _uid(study.collection, study.patient_id, study.date)
        dataset.StudyDate = study.date
        dataset.StudyDescription = study.description
        dataset.StudyID = study.date[:4]
        dataset.SeriesInstanceUID = _uid(study.collection, study.patient_id, study.date, str(number))
        dataset.SeriesNumber = number
        dataset.SeriesDescription = description
        dataset.Modality = modality
        dataset.InstanceNumber = instance
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = _uid(name)
        for element in dataset.iterall():
            if element.keyword == "ReferencedSOPInstanceUID":
                element.value = renamed.get(str(element.value), element.value)
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        yield buffer.getvalue()


def _read(name: str) -> pydicom.FileDataset:
    path = Path(pydicom.__file__).parent / "data" / "test_files" / name
    if not path.exists():
        raise SettingsError(f"{path}: this installation of pydicom lacks its test files, which the demo is made of")
    return pydicom.dcmread(path)


def _uid(*sources: str) -> UID:
    return generate_uid(entropy_srcs=["tcia-mirror demo", *sources])


@contextmanager
def _quiet_pydicom() -> Iterator[None]:
    logger = logging.getLogger("pydicom")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def demo(keep: Path | None = None) -> None:
    """Run the demo and print it. Leaves nothing behind, or all of it in `keep`, which must not exist or be empty.

    Raises SettingsError for an unusable `keep`, and StoreError if the mirror is not what the archive is.
    """
    # Where standard output is no terminal no line is too long.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else paper().width)
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise SettingsError(f"--keep: {keep} is not empty")
    with _workspace(keep) as folder:
        anyio.run(_show, console, folder)
        if keep is not None:
            console.print(f"\nKept in {keep}: archive/ (what was served) and mirror/ (what was mirrored).")


@contextmanager
def _workspace(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="tcia-mirror-demo-") as folder:
        yield Path(folder)


async def _show(console: Console, folder: Path) -> None:
    archive, mirror = folder / "archive", folder / "mirror"
    _title(console, "1. A small archive of real DICOM files, served on loopback")
    files = await anyio.to_thread.run_sync(build_archive, archive)
    listening, stop = anyio.Event(), anyio.Event()
    base = ""

    def ready(url: str) -> None:
        nonlocal base
        base = url
        listening.set()

    async with anyio.create_task_group() as tasks:

        async def served() -> None:
            await serve(archive, ServeSettings(port=0), ready=ready, stop=stop)

        tasks.start_soon(served)
        await listening.wait()
        console.print(f"{files} files, in both dialects:")
        console.print(f"  {base}/nbia-api/services/v4/\n  {base}/services/v4/TCIA/query/")

        _title(console, "2. tcia-mirror sync --all: crawl, plan, fetch, check, publish")
        first = await _sync(base, mirror)
        show_summary(paper(), first)

        _title(console, "3. What is on disk")
        _show_tree(console, mirror)
        with Catalogue(mirror) as catalogue:
            show_status(paper(), catalogue.status(), width=paper_width())
        _title(console, "The head of manifest.csv")
        with (mirror / "manifest.csv").open(encoding="utf-8") as manifest:
            for line in islice(manifest, 3):
                console.print(line.rstrip(), soft_wrap=True, style="dim", markup=False)

        if first.instances.fetched != files:
            raise StoreError(f"{mirror}: {first.instances.fetched} files were fetched, {files} were there")
        _title(console, "4. Verified: every file against SHA256SUMS, and against the archive's own")
        console.print(await anyio.to_thread.run_sync(_verify, archive, mirror))

        _title(console, "5. The archive releases a study; a second sync asks what is new, and fetches only that")
        today = datetime.now(UTC).date().isoformat()
        added = await anyio.to_thread.run_sync(lambda: build_archive(archive, (_ADDED,), released=today))
        second = await _sync(base, mirror)
        show_summary(paper(), second)
        fetched, asked = second.instances.fetched, second.requests.by_call.get("getSingleImage", 0)
        console.print(f"{added} files were added; {fetched} were fetched, by {asked} calls of getSingleImage.")
        console.print(await anyio.to_thread.run_sync(_verify, archive, mirror))
        stop.set()
    if fetched != added:
        raise StoreError(f"the second sync fetched {fetched} files, {added} were added")


async def _sync(base: str, mirror: Path) -> RunReport:
    terminal = Console(stderr=True, markup=False, highlight=False)
    display: Display = Bars(terminal) if terminal.is_terminal else Lines(sys.stderr)
    settings = Settings(archive=ArchiveSettings(server=base, rate=_RATE))
    with display:
        report = await sync(mirror, Scope(all=True), settings, sink=display)
    display.close(report)
    if report.state != "complete":
        raise StoreError(f"{mirror}: the sync ended {report.state}: {'; '.join(map(str, report.findings[:3]))}")
    return report


def _verify(archive: Path, mirror: Path) -> str:
    """Compare every file of the mirror with its sum, and with the file of the same SOPInstanceUID in the archive."""
    with Catalogue(archive) as theirs, Catalogue(mirror) as ours:
        wanted = {row.sop_instance_uid: row.path for row in theirs.instance_rows()}
        held = {row.sop_instance_uid: row.path for row in ours.instance_rows()}
    lines = (mirror / "SHA256SUMS").read_text("utf-8").splitlines()
    sums = {path: digest for digest, path in (line.split("  ", 1) for line in lines)}
    total = 0
    for uid, path in held.items():
        data = (mirror / path).read_bytes()
        if sums.get(path) != hashlib.sha256(data).hexdigest() or data != (archive / wanted[uid]).read_bytes():
            raise StoreError(f"{mirror / path}: is not what the archive has")
        total += len(data)
    if held.keys() != wanted.keys():
        raise StoreError(f"{mirror}: {len(held)} instances are held, the archive has {len(wanted)}")
    return f"{len(held)} of {len(wanted)} files are the archive's, byte for byte ({size(total)})."


def _show_tree(console: Console, mirror: Path) -> None:
    tree = Tree(f"{mirror.name}/")

    def grow(branch: Tree, folder: Path, depth: int) -> None:
        for path in sorted(p for p in folder.iterdir() if p.name != ".mirror"):
            if path.is_file():
                branch.add(f"{path.name}  [dim]{size(path.stat().st_size)}[/dim]")
            elif depth < 3:
                grow(branch.add(f"{path.name}/"), path, depth + 1)
            else:
                branch.add(f"{path.name}/  [dim]{sum(1 for _ in path.iterdir())} files[/dim]")

    grow(tree, mirror, 0)
    console.print(tree)


def _title(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]")
