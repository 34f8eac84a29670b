"""A fake filesystem behind `pocketxfs.open`, and a way to run one command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import pocketxfs
from pocketxfs.cli import main

from .fake import FakeFs


class Result(NamedTuple):
    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[bytes]:
        return self.out.splitlines()


Command = Callable[..., Result]


@pytest.fixture
def pxfs(capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    """Run a command line; exit code and what was written."""

    def run(*words: str | Path) -> Result:
        code = main([str(word) for word in words])
        captured = capfdbinary.readouterr()
        return Result(code, captured.out, captured.err.decode())

    return run


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeFs:
    """An empty fake filesystem, opened whatever image is named; `image` in the working directory stands for it."""
    fs = FakeFs()
    monkeypatch.setattr(pocketxfs, "open", lambda *_, **__: fs)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image").write_bytes(b"not read")
    (tmp_path / "out").mkdir()
    return fs
