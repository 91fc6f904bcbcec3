"""Where objects lie.

store   the contract every store keeps
local   a POSIX file system: temporary files out of sight, one atomic rename into the tree
"""

from __future__ import annotations

from mirror.tree.local import LocalStore
from mirror.tree.store import Part, Store

__all__ = ["LocalStore", "Part", "Store"]
