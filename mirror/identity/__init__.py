"""Who a DICOM file is, by its header, wherever it is just as the standard says; `check` has the way for the rest.

walk       one walk over the elements
familiar   headers that are laid out like one that was walked before
tables     what DICOM says of tags, VRs, transfer syntaxes and sequences
"""

from __future__ import annotations

from mirror.identity.familiar import scan
from mirror.identity.walk import HEAD, Bytes, number

__all__ = ["HEAD", "Bytes", "number", "scan"]
