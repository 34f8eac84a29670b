"""Which files with several names have been met already, in bounded memory.

The first few thousand are kept in a dictionary; past that they move to a temporary SQLite database, which has no
name and goes with the process.  An inode is forgotten when as many names of it as its link count says were met.
"""

from __future__ import annotations

from typing import Any

MOST_ENTRIES = 4096
MOST_BYTES = 1 << 19
CACHE_KIB = 512


class Links:
    """Inode -> the value given with its first name."""

    def __init__(self, entries: int = MOST_ENTRIES, nbytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = entries, nbytes
        self._held: dict[int, tuple[int, bytes]] = {}
        self._nbytes = 0
        self._db: Any = None

    def meet(self, ino: int, nlink: int, value: bytes) -> bytes | None:
        """None at an inode's first name, whose `value` is kept; at a later one, the value of the first."""
        held = self._held
        found = held.pop(ino, None)
        if found is not None:
            left, first = found
            if left > 1:
                held[ino] = (left - 1, first)
            else:
                self._nbytes -= len(first)
            return first
        if self._db is not None:
            row = self._db.execute("SELECT left, value FROM links WHERE ino = ?", (_signed(ino),)).fetchone()
            if row is not None:
                if row[0] > 1:
                    self._db.execute("UPDATE links SET left = left - 1 WHERE ino = ?", (_signed(ino),))
                else:
                    self._db.execute("DELETE FROM links WHERE ino = ?", (_signed(ino),))
                return bytes(row[1])
        if nlink > 1:
            if len(held) >= self._most or self._nbytes + len(value) > self._most_bytes:
                self._spill()
            held[ino] = (nlink - 1, value)
            self._nbytes += len(value)
        return None

    def replace(self, ino: int, value: bytes) -> None:
        """Another name stands for the inode from now on (the first could not be made)."""
        found = self._held.get(ino)
        if found is not None:
            self._nbytes += len(value) - len(found[1])
            self._held[ino] = (found[0], value)
        elif self._db is not None:
            self._db.execute("UPDATE links SET value = ? WHERE ino = ?", (value, _signed(ino)))

    def forget(self, ino: int) -> None:
        """The name kept was not made after all: the next one is the first again."""
        found = self._held.pop(ino, None)
        if found is not None:
            self._nbytes -= len(found[1])
        elif self._db is not None:
            self._db.execute("DELETE FROM links WHERE ino = ?", (_signed(ino),))

    def _spill(self) -> None:
        if self._db is None:
            import sqlite3

            self._db = sqlite3.connect("", isolation_level=None)
            self._db.execute("PRAGMA journal_mode = OFF")
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._db.execute("PRAGMA temp_store = FILE")
            self._db.execute("CREATE TABLE links (ino INTEGER PRIMARY KEY, left INTEGER, value BLOB)")
            self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT OR REPLACE INTO links VALUES (?, ?, ?)",
            ((_signed(ino), left, value) for ino, (left, value) in self._held.items()),
        )
        self._held.clear()
        self._nbytes = 0

    @property
    def spilled(self) -> bool:
        """Whether the database is in use."""
        return self._db is not None

    def close(self) -> None:
        """Forget everything."""
        self._held.clear()
        if self._db is not None:
            self._db.close()
            self._db = None


def _signed(ino: int) -> int:
    """SQLite's integers are signed."""
    return ino - (1 << 64) if ino >> 63 else ino
