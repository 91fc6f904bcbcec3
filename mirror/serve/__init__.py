"""The archive's v4 API, both dialects, over a mirror: who mirrors us speaks to it as to the archive.

running    where it listens, by how many processes, how it stops
app        routes
gate       what every request passes: limits, counts, the access log
rights     who may see what
heads      what each dialect's server says in the headers of its answers
answers    what a call is answered with
bodies     how a body goes out: conditions, ranges, slow clients; packing: gzip and zstd
parameters what a request asks, or the dialect's refusal
queries    which rows a call answers with
searching  patients and manifests by numbered criteria
formats    rows as JSON, CSV, XML and HTML
openapi    what is published about all this: an OpenAPI document, the schema of the metadata documents
zipping    a series as one zip, made while it is sent
guests     tokens for clients that will not ask without one; retriever: what one client asks before all else
page       the page at /, for people
stock      a mirror made from DICOM files on disk, for archives of one's own, the demo and tests
"""

from __future__ import annotations

from mirror.serve.app import make_app
from mirror.serve.running import serve

__all__ = ["make_app", "serve"]
