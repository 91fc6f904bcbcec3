"""`sync` from the command line: which part of the archive is meant, signals, and what is told meanwhile."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import TaskStatus
from rich.console import Console

from mirror.cli.progress import Bars, Display, JsonLines, Lines, Silent
from mirror.cli.summary import Plan, paper, show_summary
from mirror.errors import ExitCode, Locked, MirrorError, SettingsError, StoreError
from mirror.events import Event, Stopping
from mirror.model import Scope
from mirror.report import Reporter, RunReport, report_path, write_report
from mirror.settings import ScopeSettings, Settings, read_token

_TICK = 0.5

#: mirror.pipeline.sync, or what stands in for it.
Engine = Callable[..., Awaitable[RunReport]]

NO_SCOPE = """nothing says which part of the archive to mirror. Give one of these:
  COLLECTION...    names of collections: tcia-mirror sync TCGA-LUAD CPTAC-LUAD --to ROOT
  --all            every collection of the archive
  --series UID     a series; may be given several times
  --manifest FILE  a .tcia, .csv or .txt file with SeriesInstanceUIDs
  --config FILE    a file with a [scope] section
`tcia-mirror query getCollectionValues` lists the collections"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeOptions:
    """What the command line says about the scope. Empty: nothing."""

    collections: Sequence[str] = ()
    all: bool = False
    patients: Sequence[str] = ()
    modalities: Sequence[str] = ()
    body_parts: Sequence[str] = ()
    series: Sequence[str] = ()
    manifest: Path | None = None


def assemble_scope(given: ScopeOptions, configured: ScopeSettings) -> Scope:
    """The scope of a run. Raises SettingsError where nothing is chosen or choices contradict each other.

    Collections, --all, --series and --manifest say what is meant: one of them on the command line puts aside all of
    them in the settings. Patients, modalities and body parts narrow that down, each replaced on its own.
    """
    if given.series and given.manifest:
        raise SettingsError("--series and --manifest exclude each other; put the series into the file")
    chosen = given.collections or given.all or given.series or given.manifest
    manifest = given.manifest if chosen else Path(configured.manifest) if configured.manifest else None
    collections = tuple(given.collections if chosen else configured.collections)
    everything = given.all if chosen else configured.all
    if everything and collections:
        raise SettingsError(
            f"names of collections ({', '.join(collections)}) and --all (scope.all) exclude each other; give one"
        )
    scope = Scope(
        collections=collections,
        all=everything,
        patients=tuple(given.patients or configured.patients),
        modalities=tuple(given.modalities or configured.modalities),
        body_parts=tuple(given.body_parts or configured.body_parts),
        series=_read_manifest(manifest) if manifest else tuple(given.series),
    )
    for what in ("collections", "patients", "modalities", "body_parts", "series"):
        if any(not value.strip() for value in getattr(scope, what)):
            raise SettingsError(f"{what}: an empty name is among those given; leave it out")
    if scope.is_empty():
        raise SettingsError(NO_SCOPE)
    return scope


def _read_manifest(file: Path) -> tuple[str, ...]:
    from mirror.manifest import read_series_uids

    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise SettingsError(f"{file}: cannot read the manifest: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: is not UTF-8 text: {error.reason} at byte {error.start}") from error
    return tuple(read_series_uids(text, str(file)))


def sync_command(engine: Engine, settings: Settings, scope: Scope, *, dry_run: bool, as_json: bool, quiet: bool) -> int:
    """Run `engine` and tell about it; returns the exit code. An error of the run is raised after its report is out."""
    if not settings.to:
        raise SettingsError("nothing says where the mirror is: give --to ROOT, TCIA_MIRROR_TO or `to` in --config")
    token = read_token(settings.archive, os.environ)
    plan = Plan()
    run = _Run(engine, Path(settings.to), scope, settings, _display(as_json, quiet), plan, dry_run)
    with run.display:
        report = anyio.run(run.main, token)
    run.display.close(report)
    if run.failure is not None:
        raise run.failure
    if not (as_json or quiet):
        console = paper()
        plan.show(console)
        if report.state != "planned" or report.findings_total:
            show_summary(console, report)
    return int(report.exit_code)


def _display(as_json: bool, quiet: bool) -> Display:
    if as_json:
        return JsonLines(sys.stdout, only_report=quiet)
    if quiet:
        return Silent()
    if sys.stderr.isatty():
        return Bars(Console(stderr=True, markup=False, highlight=False, emoji=False))
    return Lines(sys.stderr)


@dataclass(slots=True)
class _Run:
    """One sync under this command's signals: the first asks it to stop, the second ends it."""

    engine: Engine
    root: Path
    scope: Scope
    settings: Settings
    display: Display
    plan: Plan
    dry_run: bool
    failure: Exception | None = None
    reporter: Reporter = field(default_factory=Reporter)
    _stopping: bool = False

    def sink(self, event: Event) -> None:
        if isinstance(event, Stopping):
            if self._stopping:
                return
            self._stopping = True
        self.reporter(event)
        self.display(event)
        if self.dry_run:
            self.plan(event)

    async def main(self, token: str | None) -> RunReport:
        stop = anyio.Event()
        report: RunReport | None = None
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._watch, stop, tasks.cancel_scope)
            tasks.start_soon(self._tick)
            try:
                report = await self.engine(
                    self.root, self.scope, self.settings, token=token, sink=self.sink, stop=stop, dry_run=self.dry_run
                )
            except Exception as error:  # to be raised again when the display has ended
                self.failure = _innermost(error)
            tasks.cancel_scope.cancel()
        return report or self._unfinished()

    async def _watch(
        self, stop: anyio.Event, scope: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                if stop.is_set():
                    scope.cancel()
                stop.set()
                self.sink(Stopping())

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(_TICK)
            self.display.tick()

    def _unfinished(self) -> RunReport:
        """The report of a run that did not come back with one; it is put beside those of other runs if it can be."""
        if self.failure is None:
            report = self.reporter.finish("interrupted", ExitCode.INTERRUPTED)
        else:
            code = self.failure.exit_code if isinstance(self.failure, MirrorError) else ExitCode.BUG
            report = self.reporter.finish("failed", code, error=str(self.failure) or type(self.failure).__name__)
        ours = (
            report.run
            and not self.dry_run
            and (self.root / ".mirror").is_dir()
            and not isinstance(self.failure, Locked)
        )
        if ours and not report_path(self.root, report.run).exists():
            with suppress(StoreError):
                write_report(self.root, report)
        return report


def _innermost(error: Exception) -> Exception:
    """The error itself, taken out of groups that hold nothing else; the first where all of a group are ours."""
    while isinstance(error, ExceptionGroup) and (
        len(error.exceptions) == 1 or all(isinstance(e, MirrorError) for e in error.exceptions)
    ):
        error = error.exceptions[0]
    return error
