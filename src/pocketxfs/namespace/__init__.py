"""Names: directories, extended attributes, symbolic links."""

from __future__ import annotations

from . import attributes, directory, symlink

__all__ = ["attributes", "directory", "symlink"]
