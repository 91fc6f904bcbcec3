"""A page to look at the mirror with, in a browser: `GET /`. What lies below /_page/ serves it and is no API.

routes  what the page asks, as JSON, pictures and events
pixels  a frame as a PNG, in a process of its own
static  the page itself, without a build step
"""

from __future__ import annotations

from mirror.serve.page.routes import add_page

__all__ = ["add_page"]
