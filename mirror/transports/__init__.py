"""The ways in which a series' instances come, behind one seam (transfer.Transport).

instance   getSOPInstanceUIDs lists, getSingleImage brings each: single files, resumable one by one
zipped     getImage brings the series as one zip, unpacked and checked member by member
admission  the door into the tree that both use: check, publish, or quarantine
"""

from __future__ import annotations

from mirror.transports.instance import InstanceTransport, Job, fetch_instance
from mirror.transports.zipped import Capabilities, ZipTransport, probe

__all__ = ["Capabilities", "InstanceTransport", "Job", "ZipTransport", "fetch_instance", "probe"]
