"""The verbs: one module of this folder each, imported when it is used.

A verb's module has `USAGE` (what follows the verb's name), `OPTIONS` (its own), and `run(run: Run) -> None`; `ABOUT`
(more lines of help) and `LONG_ONLY` (single-dash words are operands, as in find) where it wants them.  To add a
verb, write its module and name it here.
"""

from __future__ import annotations

#: name -> (module of this folder, what it does)
VERBS: dict[str, tuple[str, str]] = {
    "info": ("info", "geometry, features, state and log of a filesystem"),
    "ls": ("ls", "list directories"),
    "stat": ("stat", "everything that an inode says"),
    "cat": ("cat", "write files to standard output"),
    "cp": ("cp", "copy files and trees out of an image"),
    "tar": ("tar", "write a tree as a PAX archive"),
    "find": ("find", "find files, with find(1)'s expressions"),
    "du": ("du", "space that trees take"),
    "df": ("df", "space and inodes, used and free"),
    "extents": ("extents", "where files lie on the disk, as xfs_bmap -v"),
    "mount": ("mount", "an image in a directory, over FUSE"),
    "umount": ("umount", "take a mount away"),
    "memory": ("memory", "walk or read a tree, and show what memory it took"),
    "log": ("log", "what the log holds, transaction by transaction"),
    "lab": ("lab", "measure what kinds of buffers cost, on any image, workload and machine"),
    "recover": ("recover", "replay the log into the image, as a mount would"),
}
