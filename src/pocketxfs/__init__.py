"""pocketxfs: XFS without a kernel, without an MMU, in 16 MB.

    import pocketxfs

    with pocketxfs.open("disk.img") as fs:
        for entry in fs.scandir("/etc"):
            print(entry.name, entry.stat().st_size)
        text = fs.open("/etc/hostname").read()
        for attribute in fs.listxattr("/srv"):
            print(attribute, fs.getxattr("/srv", attribute))
        print(fs.memory_report()["high_water_bytes"])

A filesystem is opened from a file, a block device, a partition in either, or any seekable binary file object.  What
it needs of memory comes from one arena of `memory` bytes, and never more.
"""

from __future__ import annotations

from .errors import Corrupt, DeviceError, Error, NoMemory, NotXfs, Unsupported
from .filesystem import DirEntry, Extent, FileSystem, open

__version__ = "0.1.0"

__all__ = [
    "Corrupt",
    "DeviceError",
    "DirEntry",
    "Error",
    "Extent",
    "FileSystem",
    "NoMemory",
    "NotXfs",
    "Unsupported",
    "__version__",
    "open",
]
