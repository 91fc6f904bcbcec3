"""An archive on a real socket: a stocked mirror behind our own server, with a fault layer in front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web

from fakes.dicom import make_collection, make_series, uid
from fakes.faults import Faults
from mirror.archive.dialects import NBIA_PREFIX, TCIA_PREFIX
from mirror.archive.endpoints import DialectName
from mirror.archive.rows import from_json, to_json
from mirror.ledger import Catalogue, Ledger
from mirror.model import Presence
from mirror.serve import make_app
from mirror.serve.stock import stock
from mirror.settings import ServeSettings

_PREFIXES: dict[DialectName, str] = {"nbia": NBIA_PREFIX, "tcia": TCIA_PREFIX}
RELEASED = "2020-01-31"


class FakeArchive:
    """Serves `root` on a free port of 127.0.0.1 between `async with`; stock it before or meanwhile.

    >>> async with FakeArchive(tmp_path / "upstream") as archive:
    ...     archive.stock("Lung", make_series(...))
    ...     find_server(archive.url("nbia"))
    """

    def __init__(self, root: Path, settings: ServeSettings | None = None) -> None:
        self.root = root
        self._settings = settings
        self.faults = Faults()
        #: What the server's clock says (UTC, in the Date header of every answer); None: the machine's.
        self.now: Callable[[], datetime] | None = None
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._port = 0
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
        return self.origin + _PREFIXES[dialect]

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> FakeArchive:
        app = make_app(self.root, self._settings, middlewares=[self.faults.middleware])
        app.on_response_prepare.append(self._tell_time)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def listen(self) -> None:
        """Take connections, after `refuse` at the same port."""
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def refuse(self) -> None:
        """Refuse connections, as a machine does on which no server runs."""
        assert self._site is not None
        await self._site.stop()

    async def _tell_time(self, request: web.Request, response: web.StreamResponse) -> None:
        if self.now is not None:
            response.headers["Date"] = format_datetime(self.now(), usegmt=True)

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

    def replace(self, *sop_instance_uids: str, released: str | None = None) -> None:
        """Give instances of one series other bytes of the same length; `released`: on that ISO day."""
        bodies = [self.path_of(sop).read_bytes() for sop in sop_instance_uids]
        with Ledger(self.root) as ledger:
            held = ledger.held_series(sop_instance_uids[0].rpartition(".")[0])
        assert held is not None
        days = {} if released is None else {"DateReleased": released, "MaxSubmissionTimestamp": released}
        self.stock(
            held.series.collection,
            [body[:-1] + bytes([(body[-1] + 1) % 256]) for body in bodies],
            extra=lambda _: {**held.series.raw, **days},
        )

    def withdraw(self, series_instance_uid: str) -> None:
        """Hide a series, as the archive does with one that it withdraws or updates: getSeriesQCInfo alone knows it."""
        self._set_presence(series_instance_uid, Presence.WITHDRAWN)

    def give_back(self, series_instance_uid: str) -> None:
        """Show a hidden series again. What its row says stays, the day of release among it."""
        self._set_presence(series_instance_uid, Presence.PRESENT)

    def _set_presence(self, series_instance_uid: str, presence: Presence) -> None:
        with Ledger(self.root) as ledger, ledger.transaction() as db:
            done = db.execute(
                "UPDATE series SET presence = ? WHERE series_instance_uid = ?", (presence, series_instance_uid)
            )
            assert done.rowcount == 1

    def stamp(self, series_instance_uid: str, **fields: str | None) -> None:
        """Give a series' row other values, or none: DateReleased and MaxSubmissionTimestamp, ISO days."""
        columns = {"DateReleased": "date_released", "MaxSubmissionTimestamp": "max_submission_timestamp"}
        with Ledger(self.root) as ledger, ledger.transaction() as db:
            where = "WHERE series_instance_uid = ?"
            (raw,) = db.execute(f"SELECT raw FROM series {where}", (series_instance_uid,)).fetchone()
            row = {name: value for name, value in (from_json(raw) | fields).items() if value is not None}
            for name, value in fields.items():
                db.execute(f"UPDATE series SET {columns[name]} = ? {where}", (value, series_instance_uid))
            db.execute(f"UPDATE series SET raw = ? {where}", (to_json(row), series_instance_uid))

    def remove(self, series_instance_uid: str, *sop_instance_uids: str) -> None:
        """Take instances out of a series; without any, the series out of the archive: no call knows it any more."""
        with Ledger(self.root) as ledger, ledger.transaction() as db:
            (id_,) = db.execute(
                "SELECT id FROM series WHERE series_instance_uid = ?", (series_instance_uid,)
            ).fetchone()
            for uid in sop_instance_uids:
                db.execute("DELETE FROM instances WHERE series = ? AND sop_instance_uid = ?", (id_, uid))
            if not sop_instance_uids:
                db.execute("DELETE FROM instances WHERE series = ?", (id_,))
                db.execute("DELETE FROM series WHERE id = ?", (id_,))

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


def stock_another(
    archive: FakeArchive, number: int, released: str, *, study: int = 1, patient: str = "S1-001", modality: str = "CT"
) -> str:
    """One more series of two instances in the small archive's first collection, released on that ISO day; its UID."""
    series = uid(1, 1, study, number)
    archive.stock(
        "Lung-Alpha",
        make_series(
            patient_id=patient, study_uid=uid(1, 1, study), series_uid=series, instances=2, seed=number,
            Modality=modality,
        ),
        released=released,
    )  # fmt: skip
    return series
