"""JSON that streams: one document, its list written item by item, so that it is as long as it likes."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from ..run import SCHEMA_VERSION, Run


def dumps(value: Any) -> bytes:
    """One line of it."""
    return json.dumps(value).encode()


class JsonList:
    """`{"schema_version": 1, "verb": ..., KEY: [...], ...}`."""

    def __init__(self, run: Run, key: str) -> None:
        self._out: BinaryIO = run.out
        self._run = run
        self._first = True
        head = {"schema_version": SCHEMA_VERSION, "verb": run.verb}
        self._out.write(dumps(head)[:-1] + b", " + dumps(key) + b": [")

    def add(self, item: Any) -> None:
        """One more item."""
        self._out.write((b"\n" if self._first else b",\n") + dumps(item))
        self._first = False

    def end(self, **more: Any) -> None:
        """Close the list, and say how much failed."""
        tail = dumps({**more, "failed": self._run.failed})[1:]
        self._out.write(b"\n], " + tail + b"\n")


def document(run: Run, **content: Any) -> None:
    """A whole document at once."""
    value = {"schema_version": SCHEMA_VERSION, "verb": run.verb, **content}
    run.out.write(json.dumps(value, indent=2).encode() + b"\n")
