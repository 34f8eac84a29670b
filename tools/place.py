"""What the long campaigns share: how far they are, kept in a file; a time to stop at; Ctrl-C between two cases."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any


class Place:
    """`state` is what is kept: who it belongs to, which must not change, and what the campaign puts there."""

    def __init__(self, resume: Path | None, seconds: float | None, owner: dict[str, Any], more: dict[str, Any]) -> None:
        self._resume = resume
        self.state: dict[str, Any] = {**owner, **more}
        if resume is not None and resume.exists():
            self.state = json.loads(resume.read_text())
            found = {name: self.state[name] for name in owner}
            if found != owner:
                raise SystemExit(f"{resume} is of another campaign: {found}, not {owner}")
        self._deadline = time.monotonic() + seconds if seconds else float("inf")
        self._stopping = False
        self.noted = 0.0

    def save(self) -> None:
        """The state into the file, whole or not at all."""
        if self._resume is not None:
            partial = self._resume.with_suffix(".partial")
            partial.write_text(json.dumps(self.state, indent=1))
            partial.replace(self._resume)

    def over(self) -> bool:
        """Whether to stop here."""
        return self._stopping or time.monotonic() > self._deadline

    def stop_on_interrupt(self) -> None:
        """The first Ctrl-C ends the campaign behind the case under way, the second at once."""

        def stop(_number: int, _frame: Any) -> None:
            if self._stopping:
                raise KeyboardInterrupt
            self._stopping = True

        signal.signal(signal.SIGINT, stop)
