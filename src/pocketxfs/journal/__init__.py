"""The journal: where the log's head and tail are, what it holds, and replaying it (kernel: xfs_log_recover.c).

`log_state` says whether a log is clean; `replay` gives the device as it is after a replay, without touching the image.
The rest is imported when it is needed: opening a clean filesystem takes `head` and `ring` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .head import LogState, log_state

if TYPE_CHECKING:
    from .recovery import Report as Report
    from .recovery import replay as replay
else:
    _LATER = {"Report": "recovery", "replay": "recovery"}

    def __getattr__(name: str) -> Any:
        home = _LATER.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{home}"), name)


__all__ = ["LogState", "Report", "log_state", "replay"]
