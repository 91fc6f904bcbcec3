"""`sync` from the command line: which part of the archive is meant, signals, and what is told meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from mirror.cli.progress import Display, JsonLines, Lines, Silent
from mirror.cli.signals import watch_signals
from mirror.cli.watching import check_watchers, tell_watchers
from mirror.errors import ExitCode, Locked, MirrorError, NoScope, SettingsError, StoreError
from mirror.events import Event, Stopping, TransportChosen
from mirror.memory import keep_freed_memory
from mirror.model import Exclude, Scope
from mirror.report import Reporter, RunReport, report_path, write_report
from mirror.scope import nearest, require_sound
from mirror.settings import ScopeSettings, Settings, read_token

if TYPE_CHECKING:
    from rich.console import Console

    from mirror.cli.summary import Plan

_TICK = 0.5

#: mirror.pipeline.sync, or what stands in for it.
Engine = Callable[..., Awaitable[RunReport]]

NO_SCOPE = """nothing says which part of the archive to mirror. Give one of these:
  COLLECTION...    names or patterns of collections: tcia-mirror sync TCGA-LUAD 'CPTAC-*' --to ROOT
  --all            every collection of the archive
  --series UID     a series; may be given several times
  --manifest FILE  a .tcia, .csv or .txt file with SeriesInstanceUIDs
  --list NAME      a shared list of the archive
  --job NAME       a job: a section [jobs.NAME] of the file that --config names
  --config FILE    a file with a [scope] section
A mirror that was synced before needs none: it repeats what its last sync was about.
`tcia-mirror query getCollectionValues` lists the collections"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeOptions:
    """What the command line says about the scope. Empty: nothing."""

    collections: Sequence[str] = ()
    all: bool = False
    patients: Sequence[str] = ()
    modalities: Sequence[str] = ()
    body_parts: Sequence[str] = ()
    manufacturers: Sequence[str] = ()
    released_since: str = ""
    series: Sequence[str] = ()
    manifest: Path | None = None
    lists: Sequence[str] = ()
    exclude_collections: Sequence[str] = ()
    exclude_modalities: Sequence[str] = ()

    def is_empty(self) -> bool:
        """True when the command line says nothing about it."""
        return not any(getattr(self, option.name) for option in fields(self))


#: What narrows a scope down. The rest of the options say what is meant.
_NARROWING = (
    "patients", "modalities", "body_parts", "manufacturers", "released_since", "exclude_collections",
    "exclude_modalities",
)  # fmt: skip


def choose_scope(given: ScopeOptions, job: str | None, settings: Settings) -> Scope:
    """The scope of a run: that of a job, or what options and the [scope] of the settings come to.

    An empty one where neither says anything: then the mirror's own is meant. Raises SettingsError.
    """
    if job is None:
        return assemble_scope(given, settings.scope)
    if not given.is_empty():
        raise SettingsError(f"--job {job} says which part of the archive is meant; leave the other options of it out")
    if job not in settings.jobs:
        near = nearest([job], list(settings.jobs))
        raise SettingsError(
            f"the settings have no job {job!r}{near}; a job is a section [jobs.NAME] of the file that --config or"
            " TCIA_MIRROR_CONFIG names"
        )
    try:
        scope = _scope_of(settings.jobs[job])
    except SettingsError as error:
        raise SettingsError(f"jobs.{job}: {error}") from error
    if scope.is_empty():
        raise SettingsError(
            f"jobs.{job}: it does not say which part of the archive is meant; it should have collections, all,"
            " manifests or lists"
        )
    return scope


def assemble_scope(given: ScopeOptions, configured: ScopeSettings) -> Scope:
    """The scope that options and settings come to; an empty one where both say nothing at all.

    Collections, --all, --series, --manifest and --list say what is meant: one of them on the command line puts aside
    all of them in the settings. What narrows that down is replaced kind by kind. Raises SettingsError where something
    is narrowed and nothing meant, and where choices contradict each other.
    """
    if given.series and given.manifest:
        raise SettingsError("--series and --manifest exclude each other; put the series into the file")
    told = replace(configured, **{name: value for name in _NARROWING if (value := getattr(given, name))})
    if given.collections or given.all or given.series or given.manifest or given.lists:
        told = replace(
            told,
            collections=tuple(given.collections),
            all=given.all,
            manifest=str(given.manifest or ""),
            manifests=(),
            lists=tuple(given.lists),
        )
    scope = _scope_of(told, given.series)
    if scope.is_empty() and scope != Scope():
        raise SettingsError(NO_SCOPE)
    return scope


def _scope_of(told: ScopeSettings, series: Sequence[str] = ()) -> Scope:
    """The scope that a section tells, its manifests read; `series` are meant as well."""
    listed = list(series)
    for file in (told.manifest, *told.manifests):
        listed += read_manifest(Path(file)) if file else ()
    return require_sound(
        Scope(
            collections=told.collections,
            all=told.all,
            patients=tuple(told.patients),
            modalities=tuple(told.modalities),
            body_parts=tuple(told.body_parts),
            manufacturers=tuple(told.manufacturers),
            released_since=told.released_since or None,
            series=tuple(dict.fromkeys(listed)),
            lists=told.lists,
            exclude=Exclude(
                collections=tuple(told.exclude_collections),
                patients=told.exclude_patients,
                modalities=tuple(told.exclude_modalities),
                body_parts=told.exclude_body_parts,
                manufacturers=told.exclude_manufacturers,
                series=told.exclude_series,
            ),
        )
    )


def read_manifest(file: Path) -> tuple[str, ...]:
    """The SeriesInstanceUIDs that a .tcia, .csv or .txt file names. Raises SettingsError."""
    from mirror.manifest import read_series_uids

    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise SettingsError(f"{file}: cannot read the manifest: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: is not UTF-8 text: {error.reason} at byte {error.start}") from error
    return tuple(read_series_uids(text, str(file)))


def sync_command(
    engine: Engine,
    settings: Settings,
    scope: Scope,
    *,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool = False,
    show: Callable[[Console, RunReport], None] | None = None,
) -> int:
    """Run `engine` and tell about it; returns the exit code. An error of the run is raised after its report is out.

    `show` prints what a run came to in place of the plan and the summary of a sync. `verbose`: which way each series
    comes is told as well.
    """
    if not settings.to:
        if scope.is_empty():
            raise SettingsError(NO_SCOPE)
        raise SettingsError("nothing says where the mirror is: give --to ROOT, TCIA_MIRROR_TO or `to` in --config")
    check_watchers(settings)
    token = read_token(settings.archive, os.environ)
    plan = _plan() if dry_run else None
    run = _Run(engine, Path(settings.to), scope, settings, _display(as_json, quiet), plan, verbose)
    with run.display:
        report = anyio.run(run.main, token)
    run.display.close(report)
    if isinstance(run.failure, NoScope):
        raise SettingsError(NO_SCOPE) from run.failure
    if run.failure is None and not (as_json or quiet):
        from mirror.cli.summary import paper, show_summary

        console = paper()
        if show is not None:
            show(console, report)
            return int(report.exit_code)
        if plan is not None:
            plan.show(console)
        if report.state != "planned" or report.findings_total:
            show_summary(console, report)
    if not dry_run:
        tell_watchers(Path(settings.to), report, settings)
    if run.failure is not None:
        raise run.failure
    return int(report.exit_code)


def _plan() -> Plan:
    from mirror.cli.summary import Plan

    return Plan()


def _display(as_json: bool, quiet: bool) -> Display:
    if as_json:
        return JsonLines(sys.stdout, only_report=quiet)
    if quiet:
        return Silent()
    if sys.stderr.isatty():
        # Whoever reads lines or a report at the end does not wait for what draws on a terminal.
        from rich.console import Console

        from mirror.cli.bars import Bars

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
    #: What keeps the plan; None where the run is no dry run.
    plan: Plan | None
    verbose: bool = False
    failure: Exception | None = None
    reporter: Reporter = field(default_factory=Reporter)
    _stopping: bool = False

    def sink(self, event: Event) -> None:
        if isinstance(event, Stopping):
            if self._stopping:
                return
            self._stopping = True
        self.reporter(event)
        if not self.verbose and isinstance(event, TransportChosen) and event.series_instance_uid is not None:
            return
        self.display(event)
        if self.plan is not None:
            self.plan(event)

    async def main(self, token: str | None) -> RunReport:
        stop = anyio.Event()
        report: RunReport | None = None
        keep_freed_memory()
        async with anyio.create_task_group() as tasks:
            await tasks.start(watch_signals, stop, tasks.cancel_scope, lambda: self.sink(Stopping()))
            tasks.start_soon(self._tick)
            try:
                report = await self.engine(
                    self.root,
                    self.scope,
                    self.settings,
                    token=token,
                    sink=self.sink,
                    stop=stop,
                    dry_run=self.plan is not None,
                )
            except Exception as error:  # to be raised again when the display has ended
                self.failure = _innermost(error)
            tasks.cancel_scope.cancel()
        return report or self._unfinished()

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
            and self.plan is None
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
