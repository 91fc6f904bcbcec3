"""An archive on a real socket: a stocked mirror behind our own server, with a fault layer in front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web

from fakes.dicom import make_collection, make_series, uid
from fakes.faults import Faults
from mirror.archive.dialects import NBIA_PREFIX, TCIA_PREFIX
from mirror.archive.endpoints import DialectName
from mirror.ledger import Catalogue, Ledger
from mirror.model import Action, Why
from mirror.serve import make_app
from mirror.serve.stock import stock

_PREFIXES: dict[DialectName, str] = {"nbia": NBIA_PREFIX, "tcia": TCIA_PREFIX}
RELEASED = "2020-01-31"


class FakeArchive:
    """Serves `root` on a free port of 127.0.0.1 between `async with`; stock it before or meanwhile.

    >>> async with FakeArchive(tmp_path / "upstream") as archive:
    ...     archive.stock("Lung", make_series(...))
    ...     find_server(archive.url("nbia"))
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.faults = Faults()
        self._runner: web.AppRunner | None = None
        self._origin = ""
        if not (root / ".mirror" / "ledger.sqlite").exists():
            Ledger(root).close()

    @property
    def requests(self) -> list[tuple[str, dict[str, str]]]:
        """(call by the endpoint table's name, parameters as sent) of every request so far."""
        return self.faults.requests

    def counts(self) -> Counter[str]:
        """How often each call was asked."""
        return Counter(call for call, _ in self.faults.requests)

    def url(self, dialect: DialectName = "nbia") -> str:
        """The base URL of the server in a dialect; a setting `server` takes it."""
        return self._origin + _PREFIXES[dialect]

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return self._origin

    async def __aenter__(self) -> FakeArchive:
        self._runner = web.AppRunner(make_app(self.root, [self.faults.middleware]), shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._origin = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    # What the archive holds. Each of these may be called while it serves.

    def stock(
        self,
        collection: str,
        files: Iterable[Path | bytes],
        *,
        released: str = RELEASED,
        extra: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
    ) -> int:
        """Add files to a collection; released on that ISO day."""
        return stock(
            self.root, collection, files, released=released, extra=extra, doi=f"https://doi.org/10.1/{collection}"
        )

    def withdraw(self, series_instance_uid: str) -> None:
        """Hide a series, as the archive does with one that it withdraws or updates."""
        with Ledger(self.root) as ledger:
            held = ledger.held_series(series_instance_uid)
            directory = ledger.directory_of(series_instance_uid)
            assert held is not None
            assert directory is not None
            ledger.plan_series(0, "withdrawn", [(held.series, Action(fetch=True, why=Why.CHANGED), directory)])

    def files(self) -> dict[str, tuple[str, bytes]]:
        """SOPInstanceUID -> (SeriesInstanceUID, bytes) of every file it holds."""
        with Catalogue(self.root) as catalogue:
            return {
                row.sop_instance_uid: (row.series_instance_uid, (self.root / row.path).read_bytes())
                for row in catalogue.instance_rows()
            }

    def path_of(self, sop_instance_uid: str) -> Path:
        """Where the file of an instance lies."""
        with Catalogue(self.root) as catalogue:
            row = catalogue.instance(sop_instance_uid)
            assert row is not None
            return self.root / row["path"]


def stock_small(archive: FakeArchive) -> None:
    """Two collections, three patients, seven series, 32 files; one series has 12 files in two acquisitions."""
    archive.stock("Lung-Alpha", make_collection(patients=2, series=2, instances=3, seed=1), released="2020-01-31")
    archive.stock("Brain Beta", make_collection(patients=1, series=2, instances=4, seed=2), released="2021-06-15")
    archive.stock(
        "Brain Beta",
        make_series(
            patient_id="S2-001", study_uid=uid(2, 1, 2), series_uid=uid(2, 1, 2, 1), instances=12, acquisitions=(1, 2),
            seed=2, Modality="MR", BodyPartExamined="BRAIN", Manufacturer=None, SeriesNumber=7,
        ),
        released="2021-06-16",
        extra=lambda row: {"BodyPartExamined": "Brain", "Site": "Elsewhere"},
    )  # fmt: skip
