"""What the host says of this process's memory: the part of the promise that the arena does not cover."""

from __future__ import annotations

import sys


def peak_rss_bytes() -> int | None:
    """The most memory that this process has had resident; None where the system does not say.

    Linux: VmHWM, not getrusage, whose figure a process inherits from the one that started it (exec keeps the larger).
    """
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
