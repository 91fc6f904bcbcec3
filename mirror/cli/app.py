"""The command's root: what all its commands share. Commands are added by sync, reading and serving."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mirror.errors import ExitCode

app = typer.Typer(
    name="tcia-mirror",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: " + " · ".join(f"{int(code)} {code.name.lower()}" for code in ExitCode),
)

SCOPE, WALK = "Which part of the archive", "How much of it is asked for"
ARCHIVE, OUTPUT = "How it is fetched", "What is told"

Root = Annotated[Path, typer.Option("--to", metavar="ROOT", envvar="TCIA_MIRROR_TO", help="The mirror's folder.")]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar="TCIA_MIRROR_CONFIG",
        help="Settings, as in config/default.toml; or TCIA_MIRROR_CONFIG in the environment. Options win over it.",
    ),
]
Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        rich_help_panel=ARCHIVE,
        help="A base URL, or nbia (the live archive, default), nlst, tcia (retired).",
    ),
]
Dialect = Annotated[
    str | None,
    typer.Option(metavar="NAME", rich_help_panel=ARCHIVE, help="nbia, tcia, or auto: told from the URL (default)."),
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
