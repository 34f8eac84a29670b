"""Unnamed temporary files, for what does not fit into memory."""

from __future__ import annotations

import os


def temporary_fd() -> int:
    """A descriptor of one, for reading and writing.  Raises `OSError`.

    /tmp is often memory itself: /var/tmp comes first unless the user has said otherwise.
    """
    named = next((os.environ[name] for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)), None)
    folder = named or ("/var/tmp" if os.access("/var/tmp", os.W_OK | os.X_OK) else "/tmp")
    flag = getattr(os, "O_TMPFILE", 0)
    if flag:
        try:
            return os.open(folder, flag | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError:
            pass  # no such folder, or a filesystem without it: the portable way finds another
    import tempfile

    fd, name = tempfile.mkstemp(prefix="pocketxfs-", dir=folder if os.path.isdir(folder) else None)
    os.unlink(name)
    return fd
