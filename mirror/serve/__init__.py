"""The archive's v4 API, both dialects, over a mirror: who mirrors us speaks to it as to the archive.

app        routes, and answers that stream
parameters what a request asks, or the dialect's refusal
queries    which rows a call answers with
formats    rows as JSON, CSV, XML and HTML
zipping    a series as one zip, made while it is sent
page       the page at /, for people
stock      a mirror made from DICOM files on disk, for archives of one's own, the demo and tests
"""

from __future__ import annotations

from mirror.serve.app import make_app, serve

__all__ = ["make_app", "serve"]
