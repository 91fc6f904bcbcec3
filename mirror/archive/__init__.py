"""The upstream: all that is known about the v4 API lives in this folder.

endpoints   the table of every call, its parameters and answer fields
dialects    the two APIs that are both called v4, and how each spells the table
pacing      how many requests may be in flight, and when a failed one is tried again
connection  HTTP sessions, and what their errors mean
client      ArchiveClient: one coroutine per call
"""

from __future__ import annotations
