"""Stand-ins that tests share: an archive on a real socket, faults in front of it, small DICOM files."""
