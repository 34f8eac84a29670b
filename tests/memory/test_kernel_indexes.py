"""The fragmentation indexes against the running kernel's own, computed from its /proc/buddyinfo."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pocketxfs.memory import fragmentation_index, unusable_index


def rows(path: Path) -> dict[str, list[str]]:
    """By "node, zone" the numbers of each line."""
    found = {}
    for line in path.read_text().splitlines():
        words = line.split()
        found[" ".join(words[:4])] = words[4:]
    return found


@pytest.mark.judged
def test_indexes_equal_the_kernels(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "debugfs", "none", tmp_path], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"the kernel's indexes cannot be read: debugfs needs root ({mounted.stderr.strip()})")
    try:
        folder = tmp_path / "extfrag"
        if not folder.exists():
            pytest.skip("this kernel does not show its fragmentation indexes (CONFIG_COMPACTION, debugfs)")
        compared = 0
        for _ in range(50):
            before = rows(Path("/proc/buddyinfo"))
            unusable, index = rows(folder / "unusable_index"), rows(folder / "extfrag_index")
            after = rows(Path("/proc/buddyinfo"))
            for zone, words in before.items():
                if after.get(zone) != words:
                    continue  # it moved while we looked
                counts = [int(word) for word in words]
                orders = range(len(counts))
                assert [f"{unusable_index(counts, o) / 1000:.3f}" for o in orders] == unusable[zone]
                assert [f"{fragmentation_index(counts, o) / 1000:.3f}" for o in orders] == index[zone]
                compared += 1
            if compared >= 20:
                break
        if not compared:
            pytest.skip("the kernel's free lists never stood still")
    finally:
        subprocess.run(["umount", tmp_path], check=True)
