"""Where other readers differ from the kernel: `python -m tests.judge.others [RECIPE...]` prints support.md's table.

libfsxfs (C) and dissect.xfs (Python), both from PyPI, read the images of the matrix; names, types, sizes, modes,
owners, times, symlink targets and contents are held against the manifest.  A count of entries that are missing,
that are too many, and that differ, and in what.
"""

from __future__ import annotations

import collections
import gzip
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import digest, kernel

KINDS = {0o10: "f", 0o4: "d", 0o12: "l", 0o2: "c", 0o6: "b", 0o1: "p", 0o14: "s"}
Seen = dict[str, Any]
#: Contents above this are not compared: neither reader skips holes.
MOST_BYTES = 8 << 20
SECONDS = 240


def latin(name: str) -> str:
    """One character a byte, as the manifests have it."""
    return name.encode("utf-8", "surrogateescape").decode("latin-1")


def contents(size: int, data: bytes) -> str:
    """The manifests' digest of what a reader returned."""
    data = data.ljust(size, b"\xff")[:size] if len(data) != size else data
    return digest.digest(size, lambda count, at: data[at : at + count], iter([(0, size)]))


def libfsxfs(image: Path) -> Iterator[tuple[str, Seen]]:
    """Everything that libfsxfs shows."""
    import pyfsxfs

    volume = pyfsxfs.volume()
    volume.open(str(image))

    def walk(folder: Any, base: str) -> Iterator[tuple[str, Seen]]:
        try:
            total = folder.number_of_sub_file_entries
        except OSError:
            yield base, {"error": "directory refused"}
            return
        for index in range(total):
            try:
                entry = folder.get_sub_file_entry(index)
                path = base + latin(entry.name)
                _ = entry.file_mode, entry.size
            except OSError:
                yield base + f"entry {index}", {"error": "entry refused"}
                continue
            kind = KINDS.get(entry.file_mode >> 12, "?")
            seen: Seen = {
                "t": kind, "mode": entry.file_mode & 0o7777, "uid": entry.owner_identifier,
                "gid": entry.group_identifier, "ino": entry.inode_number, "nlink": entry.number_of_links,
                "mt": entry.get_modification_time_as_integer(),
            }  # fmt: skip
            if kind in "fl":
                seen["size"] = entry.size
            if kind == "l":
                try:
                    seen["target"] = latin(entry.symbolic_link_target)
                except OSError:
                    seen["error"] = "link target refused"
            elif kind == "f" and entry.size <= MOST_BYTES:
                try:
                    data = entry.read_buffer_at_offset(entry.size, 0) if entry.size else b""
                    seen["sha"] = contents(entry.size, data)
                except OSError:
                    seen["error"] = "contents refused"
            yield path, seen
            if kind == "d":
                yield from walk(entry, path + "/")

    yield from walk(volume.get_root_directory(), "")


def dissect(image: Path) -> Iterator[tuple[str, Seen]]:
    """Everything that dissect.xfs shows."""
    from dissect.xfs import XFS

    with open(image, "rb") as handle:
        fs = XFS(handle)

        def walk(folder: Any, base: str) -> Iterator[tuple[str, Seen]]:
            for name, node in folder.listdir().items():
                if name in (".", ".."):
                    continue
                path = base + latin(name)
                try:
                    kind = KINDS.get(node.filetype >> 12, "?")
                    seen: Seen = {
                        "t": kind, "mode": node.inode.di_mode & 0o7777, "uid": node.inode.di_uid,
                        "gid": node.inode.di_gid, "ino": node.inum, "mt": node.mtime_ns,
                    }  # fmt: skip
                    if kind in "fl":
                        seen["size"] = node.size
                    if kind == "l":
                        seen["target"] = latin(node.link)
                    elif kind == "f" and node.size <= MOST_BYTES:
                        seen["sha"] = contents(node.size, node.open().read())
                except TimeoutError:
                    raise
                except Exception as error:
                    seen = {"error": type(error).__name__}
                yield path, seen
                if seen.get("t") == "d":
                    yield from walk(node, path + "/")

        yield from walk(fs.root, "")


READERS: dict[str, Callable[[Path], Iterator[tuple[str, Seen]]]] = {"libfsxfs": libfsxfs, "dissect.xfs": dissect}


def wanted(built: kernel.Built) -> dict[str, Seen]:
    """The kernel's manifest by path."""
    found = {}
    with gzip.open(built.manifest, "rt", encoding="utf-8") as lines:
        base: dict[int, Seen] = {}
        for line in lines:
            record = json.loads(line)
            if "p" not in record or record["p"] == ".":
                continue
            # a second name of an inode is written without what the first one said already
            base.setdefault(record.get("ino", record.get("dino")), record)
            found[record["p"]] = {**base[record.get("ino", record.get("dino"))], **record}
    return found


def compare(name: str, reader: str) -> str:
    """One cell: `equal`, or what is not."""
    built = kernel.ensure(_recipe(name))
    kernels = wanted(built)
    counts: collections.Counter[str] = collections.Counter()
    left = set(kernels)
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(SECONDS)
    try:
        for path, seen in READERS[reader](built.image):
            theirs = kernels.get(path)
            left.discard(path)
            if "error" in seen:
                counts[f"{seen['error']}"] += 1
            elif theirs is None:
                counts["extra names"] += 1
            if theirs is None:
                continue
            for field, value in seen.items():
                if field in theirs and theirs[field] != value:
                    counts[f"{field} wrong"] += 1
    except TimeoutError:
        counts[f"stopped after {SECONDS} s"] = 1
    except Exception as error:
        return f"fails: {type(error).__name__}: {str(error).splitlines()[0][:90] if str(error) else ''}"
    finally:
        signal.alarm(0)
    if left:
        counts["names missing"] = len(left)
    return "equal" if not counts else ", ".join(f"{count} {what}" for what, count in counts.most_common())


def _late(*_: object) -> None:
    raise TimeoutError


def _recipe(name: str) -> Any:
    from .recipes import ALL

    return ALL[name]


USUAL = (
    "default", "all-on", "nrext64", "parent", "metadir", "block-1k", "block-64k", "dir-16k", "dir-64k", "prefilled",
    "scattered-dir-64k", "deep-trees-4k", "external-log", "metadata-uuid", "inodes-64bit", "sparse-inodes", "uml-v4",
    "uml-v4-block-512", "uml-v4-ascii-ci", "uml-v4-realtime",
)  # fmt: skip


def main() -> None:
    """Print the table."""
    print("| image | entries | libfsxfs | dissect.xfs |\n|---|---|---|---|")
    for name in sys.argv[1:] or USUAL:
        entries = len(wanted(kernel.ensure(_recipe(name))))
        cells = [compare(name, reader) for reader in READERS]
        print(f"| {name} | {entries} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
