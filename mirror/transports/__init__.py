"""The ways in which a series' instances come, behind one seam (transfer.Transport).

instance   getSOPInstanceUIDs lists, getSingleImage brings each: single files, resumable one by one
zipped     getImage brings the series as one zip, unpacked and checked member by member (unpacking, spool, unzip)
choice     whichever of the two has proved to be faster for series of that kind
workers    other processes that bring single instances and zips (zip_errand) for a run
admission  the door into the tree that both use: check, publish, or quarantine
"""

from __future__ import annotations

from mirror.transports.choice import AutoTransport
from mirror.transports.instance import InstanceTransport, Job, fetch_instance
from mirror.transports.workers import Workers, workers_of
from mirror.transports.zipped import Capabilities, ZipTransport, probe

__all__ = [
    "AutoTransport",
    "Capabilities",
    "InstanceTransport",
    "Job",
    "Workers",
    "ZipTransport",
    "fetch_instance",
    "probe",
    "workers_of",
]
