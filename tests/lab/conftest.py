"""The bundled images, unpacked once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketxfs.lab import bundled


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> file."""
    folder = tmp_path_factory.mktemp("lab-images")
    return {name: bundled.unpacked(name, folder) for name in bundled.NAMES}
