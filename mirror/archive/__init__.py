"""The upstream: all that is known about the v4 API lives in this folder.

endpoints   the table of every call, its parameters and answer fields
dialects    the two APIs that are both called v4, and how each spells the table
limit       how many requests are of use: a climb by proofs
allowance   how many bytes a second
pacing      when a request may begin, and when a failed one is tried again
connection  HTTP sessions, and what their errors mean
client      ArchiveClient: one coroutine per call
"""

from __future__ import annotations
