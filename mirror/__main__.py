"""`python -m mirror` is the command tcia-mirror."""

from __future__ import annotations

from mirror.cli.main import run

run()
