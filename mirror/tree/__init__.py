"""Where objects lie.

store   the contract every store keeps
local   a POSIX file system: temporary files out of sight, one atomic rename into the tree
linked  a file of the same disk as a part of a local store
"""

from __future__ import annotations

from mirror.tree.linked import LinkedPart, link_part
from mirror.tree.local import LocalStore
from mirror.tree.store import Part, Store

__all__ = ["LinkedPart", "LocalStore", "Part", "Store", "link_part"]
