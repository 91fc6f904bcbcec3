"""The command tcia-mirror: its commands, their options, and what the process exits with.

Whatever a command needs is imported when it runs, so that --help does not wait for it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
import warnings
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, NoReturn

import anyio
import typer

from mirror.cli.streams import is_read, lasting_streams
from mirror.cli.text import safe
from mirror.errors import ExitCode, MirrorError, SettingsError

app = typer.Typer(
    name="tcia-mirror",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: " + " · ".join(f"{int(code)} {code.name.lower()}" for code in ExitCode),
)

_SCOPE, _ARCHIVE, _OUTPUT = "Which part of the archive", "How it is fetched", "What is told"

Root = Annotated[Path, typer.Option("--to", metavar="ROOT", envvar="TCIA_MIRROR_TO", help="The mirror's folder.")]
Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        rich_help_panel=_ARCHIVE,
        help="A base URL, or nbia (the live archive, default), nlst, tcia (retired).",
    ),
]
Dialect = Annotated[
    str | None,
    typer.Option(metavar="NAME", rich_help_panel=_ARCHIVE, help="nbia, tcia, or auto: told from the URL (default)."),
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tcia-mirror {version('tcia-mirror')}")
        raise typer.Exit


@app.callback()
def tcia_mirror(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Mirror collections of The Cancer Imaging Archive into a verified DICOM tree, and serve it back."""


@app.command()
def sync(
    collections: Annotated[
        list[str] | None, typer.Argument(metavar="COLLECTION", help="Names of collections.", show_default=False)
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="ROOT", help="The mirror's folder; made if need be.")] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings, as in config/default.toml. Options win over it.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", rich_help_panel=_SCOPE, help="Every collection of the archive.")
    ] = False,
    patient: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", rich_help_panel=_SCOPE, help="Only this PatientID. Repeatable."),
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(metavar="M", rich_help_panel=_SCOPE, help="Only this Modality (CT, MR, ...). Repeatable."),
    ] = None,
    body_part: Annotated[
        list[str] | None,
        typer.Option(metavar="B", rich_help_panel=_SCOPE, help="Only this BodyPartExamined. Repeatable."),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option(metavar="UID", rich_help_panel=_SCOPE, help="This SeriesInstanceUID. Repeatable."),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", rich_help_panel=_SCOPE, help="The series that a .tcia, .csv or .txt file names."),
    ] = None,
    server: Server = None,
    dialect: Dialect = None,
    connections: Annotated[
        int | None,
        typer.Option(metavar="N", rich_help_panel=_ARCHIVE, help="Most requests in flight, 1 to 64 (default: 8)."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="R", rich_help_panel=_ARCHIVE, help="Most requests per second; 0: no limit (default)."),
    ] = None,
    transport: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            rich_help_panel=_ARCHIVE,
            help="instance: object by object (default). zip: series by series. auto: as the server can.",
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_ARCHIVE,
            help="uid (a new mirror's default), classic, descriptive, or a template. Fixed for a mirror's life.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=_OUTPUT, help="Print the plan and fetch nothing.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", rich_help_panel=_OUTPUT, help="JSON lines on stdout; the last is the run report."),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", rich_help_panel=_OUTPUT, help="Only errors. With --json: only the run report."),
    ] = False,
) -> None:
    """Mirror a part of the archive, or bring a mirror up to date.

    Run it again after an interruption: what is there and sound is not fetched again.
    """
    from mirror import pipeline
    from mirror.cli.syncing import ScopeOptions, assemble_scope, sync_command
    from mirror.settings import load_settings

    settings = load_settings(
        config,
        os.environ,
        {
            "to": None if to is None else str(to),
            "archive.server": server,
            "archive.dialect": dialect,
            "archive.connections": connections,
            "archive.rate": rate,
            "sync.transport": transport,
            "sync.layout": layout,
        },
    )
    given = ScopeOptions(
        collections=collections or (),
        all=every,
        patients=patient or (),
        modalities=modality or (),
        body_parts=body_part or (),
        series=series or (),
        manifest=manifest,
    )
    scope = assemble_scope(given, settings.scope)
    code = sync_command(pipeline.sync, settings, scope, dry_run=dry_run, as_json=as_json, quiet=quiet)
    raise typer.Exit(code)


@app.command()
def export(
    to: Root,
    format: Annotated[str, typer.Option(metavar="NAME", help="csv, jsonl, parquet, sha256 (SHA256SUMS) or tcia.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write here instead of into the mirror's folder.")
    ] = None,
) -> None:
    """Write the manifest of what a mirror holds."""
    from mirror.export import export as write_manifest

    for path, rows in write_manifest(to, format, output):
        typer.echo(f"wrote {path} ({rows:,} rows)")


@app.command()
def status(
    to: Root,
    as_json: Annotated[bool, typer.Option("--json", help="Raw numbers, as JSON.")] = False,
) -> None:
    """What a mirror holds, collection by collection. Safe beside a running sync."""
    import json

    from mirror.cli.summary import paper, paper_width, show_status, status_json_dict
    from mirror.ledger import Catalogue

    with Catalogue(to) as catalogue:
        rows, server, layout = catalogue.status(), catalogue.meta("server"), catalogue.meta("layout")
    if as_json:
        typer.echo(json.dumps(status_json_dict(str(to), server, layout, rows), indent=1))
    else:
        show_status(paper(), rows, width=paper_width())


@app.command()
def query(
    call: Annotated[str, typer.Argument(metavar="CALL", help="A call of the API, such as getSeries.")],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Its parameters, such as Collection=TCGA-LUAD."),
    ] = None,
    server: Server = None,
    dialect: Dialect = None,
    format: Annotated[str | None, typer.Option(metavar="NAME", help="json (default), csv, xml or html.")] = None,
    metadata: Annotated[
        bool, typer.Option("--metadata", help="The document that describes the call (tcia dialect).")
    ] = False,
) -> None:
    """Ask the archive one thing and write its answer, byte for byte, on stdout."""
    from mirror.archive.dialects import find_endpoint, find_server
    from mirror.archive.endpoints import Answer, Format
    from mirror.settings import load_settings, read_token

    settings = load_settings(None, os.environ, {"archive.server": server, "archive.dialect": dialect}).archive
    token = read_token(settings, os.environ)
    told = None if settings.dialect == "auto" else settings.dialect
    where, endpoint = find_server(settings.server, told), find_endpoint(call)
    params: dict[str, str] = {}
    for parameter in parameters or ():
        key, equals, value = parameter.partition("=")
        if not key or not equals:
            raise SettingsError(f"{parameter!r} is no parameter; it should be KEY=VALUE")
        if key in params:
            raise SettingsError(f"the parameter {key} is given twice")
        params[key] = value
    if format is not None and format not in list(Format):
        raise SettingsError(f"option --format: {format!r} is not right; it should be one of {', '.join(Format)}")
    wanted = None if format is None else Format(format)
    if not metadata and endpoint.answer in (Answer.ZIP, Answer.DICOM) and sys.stdout.isatty():
        raise SettingsError(f"{endpoint.name} answers bytes that are not for a terminal; send stdout into a file")
    if where.warning:
        typer.echo(f"tcia-mirror: {where.warning}", err=True)

    async def ask() -> None:
        from mirror.archive.client import ArchiveClient

        async with (
            ArchiveClient(where, settings, token=token) as client,
            aclosing(client.raw(endpoint, params, wanted, metadata=metadata)) as chunks,
        ):
            async for chunk in chunks:
                sys.stdout.buffer.write(chunk)
                if not is_read(sys.stdout):
                    break

    anyio.run(ask)


@app.command()
def serve(
    root: Annotated[Path, typer.Option("--from", metavar="ROOT", help="The mirror's folder.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8042,
) -> None:
    """Serve a mirror over the v4 API, in both dialects, until it is stopped. Safe beside a running sync."""
    from mirror.archive.dialects import NBIA_PREFIX, TCIA_PREFIX
    from mirror.serve.app import serve as serve_mirror

    def ready(base: str) -> None:
        typer.echo(f"nbia  {base}{NBIA_PREFIX}\ntcia  {base}{TCIA_PREFIX}")
        sys.stdout.flush()

    async def main() -> OSError | MirrorError | None:
        stop = anyio.Event()
        failure: OSError | MirrorError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_at_signal, stop)
            try:
                await serve_mirror(root, host, port, ready=ready, stop=stop)
            except (OSError, MirrorError) as error:  # as itself, not in the task group's wrapping
                failure = error
            tasks.cancel_scope.cancel()
        return failure

    failure = anyio.run(main)
    if isinstance(failure, OSError):
        raise SettingsError(f"cannot listen on {host}, port {port}: {failure.strerror or failure}") from failure
    if failure is not None:
        raise failure


async def _stop_at_signal(stop: anyio.Event) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            stop.set()


@app.command()
def demo(
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the demo's files here.")] = None,
) -> None:
    """Show it all on a small archive of real DICOM files: served here, mirrored, changed, mirrored again."""
    from mirror.demo import demo as show

    show(keep)


def _tell(message: str) -> None:
    lines = [safe(line) for line in message.splitlines()]
    typer.echo("tcia-mirror: " + "\n".join(lines), err=True)


def run() -> NoReturn:
    """The entry point: run the command and exit with its code (ExitCode says which means what)."""
    with lasting_streams() as streams:
        logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="tcia-mirror: %(name)s: %(message)s")
        # What pydicom finds odd in an archive's headers is the archive's; what is wrong with them is a finding.
        logging.getLogger("pydicom").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module="pydicom")
        code = _ended()
        if (failure := streams.failure()) is not None:
            _tell(f"standard output: {failure.strerror or failure}")
            # What went wrong before that is worse; a run that ended well has not told so.
            code = ExitCode.DISK if code in (ExitCode.COMPLETE, ExitCode.INCOMPLETE) else code
    sys.exit(int(code))


def _ended() -> int:
    """Run the command; what it ends with."""
    try:
        code = app(prog_name="tcia-mirror")
    except SystemExit as ended:
        code = ended.code
    except MirrorError as error:
        _tell(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except Exception:
        traceback.print_exc()
        _tell("this is a bug in tcia-mirror; please report it with the lines above")
        code = ExitCode.BUG
    return int(code or 0)
