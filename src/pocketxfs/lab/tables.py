"""Outcomes as rows of numbers: CSV, JSON, and what the page and the terminal show.

`COLUMNS` is the one place that says which figures there are, what they are called, and where in an outcome they stand.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..buffer import BACKINGS
from .cell import Spec

Outcome = dict[str, Any]


def _clock(step: str) -> Callable[[Outcome], Any]:
    return lambda o: round(o["clock"][step]["cpu_ns"] / 1e6, 3)


def _area(name: str) -> Callable[[Outcome], Any]:
    return lambda o: o["vmalloc"][name] if o["vmalloc"] else 0


def _kind(kind: str) -> Callable[[Outcome], Any]:
    return lambda o: o["kinds"].get(kind, {}).get("misses", 0)


def _allocation(name: str) -> Callable[[Outcome], Any]:
    def find(outcome: Outcome) -> Any:
        allocation = (outcome["failure"] or {}).get("allocation") or {}
        return allocation.get(name, "")

    return find


#: name -> from an outcome that ran
COLUMNS: dict[str, Callable[[Outcome], Any]] = {
    "survived": lambda o: o["survived"],
    "steps": lambda o: o["steps"],
    "high_water_bytes": lambda o: o["high_water_bytes"],
    "peak_rss_bytes": lambda o: o["peak_rss_bytes"],
    "buffers_asked_bytes": lambda o: o["asked_bytes"],
    "buffers_taken_bytes": lambda o: o["taken_bytes"],
    "peak_rounding_bytes": lambda o: o["peak_rounding_bytes"],
    "retried_by_order": lambda o: " ".join(map(str, o["retried"])),
    "failed_by_order": lambda o: " ".join(map(str, o["failed"])),
    "reclaim_runs": lambda o: o["reclaim"]["reclaim_runs"],
    "reclaimed_pages": lambda o: o["reclaim"]["reclaimed_pages"],
    "worst_fragmentation_index_order_4": lambda o: max(at["fragmentation_index"]["4"] for at in o["series"]),
    "worst_unusable_index_order_4": lambda o: max(at["unusable_index"]["4"] for at in o["series"]),
    "vmalloc_peak_bytes": _area("peak_bytes"),
    "vmalloc_exhausted": _area("exhausted"),
    "maps": _area("maps"),
    "unmaps": _area("unmaps"),
    "purges": _area("purges"),
    "tlb_flushes": _area("tlb_flushes"),
    "page_table_pages": _area("page_table_pages"),
    "folios": lambda o: o["folios"] if o["folios"] is not None else "",
    "folio_fallbacks": lambda o: o["fallbacks"] if o["fallbacks"] is not None else "",
    "io_reads": lambda o: o["io"]["reads"],
    "io_segments": lambda o: o["io"]["segments"],
    "io_bytes": lambda o: o["io"]["bytes"],
    "inode_buffers": _kind("inode"),
    "directory_buffers": _kind("dir"),
    "hit_rate": lambda o: round(o["hit_rate"], 4),
    "cpu_ms_allocate": _clock("allocate"),
    "cpu_ms_free": _clock("free"),
    "cpu_ms_map": _clock("map"),
    "cpu_ms_unmap": _clock("unmap"),
    "cpu_ms_purge": _clock("purge"),
    "cpu_ms_reclaim": _clock("reclaim"),
    "cpu_ms_bio": _clock("bio"),
    "cpu_s": lambda o: round(o["cpu_s"], 3),
    "recursions": lambda o: len(o["recursions"]),
    "failure": lambda o: (o["failure"] or {}).get("error", "").split("\n")[0],
    "failure_free_pages": lambda o: (o["failure"] or {}).get("free_pages", ""),
    "failure_order": _allocation("order"),
}


def row(outcome: Outcome) -> dict[str, Any]:
    """The spec's fields and every column; columns are empty where the cell never ran."""
    spec = Spec(**outcome["spec"])
    found: dict[str, Any] = {**spec._asdict(), "image": Path(spec.image).stem, "refused": outcome["refused"] or ""}
    ran = "series" in outcome
    for name, value in COLUMNS.items():
        found[name] = value(outcome) if ran else ""
    if not ran:
        found["survived"] = outcome["survived"] and not outcome["refused"]
        found["failure"] = (outcome.get("failure") or {}).get("error", "").split("\n")[0]
    return found


def smallest_row(found: Outcome) -> dict[str, Any]:
    """A bisection's."""
    spec = Spec(**found["spec"])
    return {
        **spec._asdict(), "memory": "", "image": Path(spec.image).stem, "refused": found["refused"] or "",
        "smallest_bytes": found["smallest_bytes"] or "", "below_it": (found.get("why") or "").split("\n")[0],
    }  # fmt: skip


def write(folder: Path, cells: list[Outcome], bisections: list[Outcome]) -> list[Path]:
    """cells.csv, smallest.csv, and both with everything but the pictures as results.json; the files."""
    written = []
    for name, rows in (
        ("cells.csv", [row(one) for one in cells]),
        ("smallest.csv", [smallest_row(one) for one in bisections]),
    ):
        if rows:
            with open(folder / name, "w", encoding="utf-8", newline="") as out:
                table = csv.DictWriter(out, list(rows[0]))
                table.writeheader()
                table.writerows(rows)
            written.append(folder / name)
    plain = [{key: value for key, value in cell.items() if key != "picture"} for cell in cells]
    with open(folder / "results.json", "w", encoding="utf-8") as out:
        json.dump({"schema_version": 1, "cells": plain, "smallest": bisections}, out, indent=1)
    return [*written, folder / "results.json"]


def backings(outcomes: list[Outcome]) -> list[str]:
    """The kinds of buffers that are among them: the usual ones in their order, then others."""
    found = {outcome["spec"]["buffers"] for outcome in outcomes}
    return [name for name in BACKINGS if name in found] + sorted(found - set(BACKINGS))


def word(outcome: Outcome) -> str:
    """A cell in a word or two."""
    if outcome["refused"]:
        return "refused"
    if not outcome["survived"]:
        kind = str((outcome.get("failure") or {}).get("kind", "failed"))
        return {"NoMemory": "no memory", "NoAddresses": "no addresses"}.get(kind, kind)
    return size(outcome["high_water_bytes"])


def size(nbytes: int) -> str:
    """Bytes in K or M, as exact as it is short."""
    if nbytes >= 1 << 20:
        return f"{nbytes / (1 << 20):.2f}M"
    return f"{nbytes >> 10}K"
