"""The report's pictures: memory page by page with Pillow, everything else with matplotlib, as data in the page."""

from __future__ import annotations

import io
import zlib
from base64 import b64decode, b64encode
from collections import defaultdict
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image

from . import tables
from .cell import Spec

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.fonttype": "none", "font.size": 8, "svg.hashsalt": "pocketxfs"})

from matplotlib import pyplot  # noqa: E402

Outcome = dict[str, Any]
STEPS = ("allocate", "free", "map", "unmap", "purge", "reclaim", "bio")
COLOURS = ("#3366aa", "#77aadd", "#88bb55", "#dd8833", "#aa3355", "#775599", "#999999")
#: Owners of pages; free is white, who comes later takes the next.
PALETTE = (
    "#ffffff", "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999", "#ee8866", "#44bb99",
    "#332288", "#994455", "#bbcc33", "#0077bb", "#dd77aa", "#555555",
)  # fmt: skip


def _svg(figure: Any) -> str:
    held = io.StringIO()
    figure.savefig(held, format="svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    text = held.getvalue()
    packed = b64encode(text[text.index("<svg") :].encode()).decode()
    return f'<img class="plot" alt="" src="data:image/svg+xml;base64,{packed}">'


def picture(cell: Outcome) -> str:
    """Physical memory over time: a row an instant, a pixel a page."""
    kept = cell.get("picture")
    if kept is None:
        return ""
    pages, rows = kept["pages"], kept["rows"]
    raw = zlib.decompress(b64decode(kept["packed"]))
    image = Image.frombytes("P", (pages, rows), raw)
    image.putpalette(b"".join(bytes.fromhex(colour(owner)[1:]) for owner in range(256)))
    held = io.BytesIO()
    image.save(held, "PNG", optimize=True)
    packed = b64encode(held.getvalue()).decode()
    height = max(1, 160 // rows) * rows
    seen = sorted(set(raw))
    key = "".join(
        f'<span><i style="background:{colour(owner)};outline:1px solid #ccc"></i>'
        f"{escape(kept['owners'][owner] or 'free')}</span>"
        for owner in seen
    )
    return (
        f'<p class="key">{key}</p><div class="picture"><img alt="physical memory over time" width="{max(pages, 1024)}" '
        f'height="{height}" src="data:image/png;base64,{packed}"></div>'
    )


def colour(owner: int) -> str:
    """Of an owner's pages."""
    return PALETTE[owner] if owner < len(PALETTE) else PALETTE[1 + owner % (len(PALETTE) - 1)]


def over_time(cell: Outcome) -> str:
    """Free pages, both indexes, and the vmalloc area's space."""
    series = cell["series"]
    steps = [at["step"] for at in series]
    figure, axes = _canvas()
    for axis in axes:
        axis.cla()
    axes[0].plot(steps, [at["free_pages"] for at in series], color=COLOURS[0], lw=1)
    axes[0].set_title("free pages")
    for order, shade in (("2", COLOURS[2]), ("4", COLOURS[3]), ("5", COLOURS[4])):
        axes[1].plot(steps, [at["unusable_index"][order] for at in series], color=shade, lw=1, label=f"order {order}")
        wanted = [at["fragmentation_index"][order] for at in series]
        if max(wanted) > 0:
            axes[1].plot(steps, [max(0, value) for value in wanted], color=shade, lw=1, ls=":")
    axes[1].set_title("unusable index (dotted: fragmentation index)")
    axes[1].set_ylim(0, 1000)
    axes[1].legend(frameon=False, loc="upper left")
    axes[2].plot(steps, [at["vmalloc_bytes"] / (1 << 20) for at in series], color=COLOURS[5], lw=1)
    axes[2].set_title("vmalloc area in use, MiB")
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=90)
    return f'<img class="plot" alt="" src="data:image/png;base64,{b64encode(held.getvalue()).decode()}">'


@cache
def _canvas() -> tuple[Any, Any]:
    """One figure for every cell's plots: to lay one out takes longer than to draw in it."""
    return pyplot.subplots(
        1, 3, figsize=(11, 1.9), gridspec_kw={"left": 0.05, "right": 0.99, "top": 0.86, "bottom": 0.14}
    )


def smallest(bisections: list[Outcome]) -> str:
    """Bars: the smallest memory by workload and backing."""
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for found in bisections:
        spec = Spec(**found["spec"])
        if found["smallest_bytes"]:
            tasks = f" ×{spec.tasks}" if spec.tasks else ""
            groups[f"{spec.workload}{tasks}\n{Path(spec.image).stem}\n{spec.machine}"][spec.buffers] = found[
                "smallest_bytes"
            ]
    if not groups:
        return ""
    figure, axis = pyplot.subplots(figsize=(max(5.0, 1.3 * len(groups)), 3.2), constrained_layout=True)
    for index, backing in enumerate(tables.backings(bisections)):
        at = [place + index * 0.14 for place, name in enumerate(groups) if backing in groups[name]]
        axis.bar(
            at,
            [of[backing] / (1 << 20) for of in groups.values() if backing in of],
            0.13,
            color=COLOURS[index],
            label=backing,
        )
    axis.set_xticks([place + 0.35 for place in range(len(groups))], list(groups))
    axis.set_ylabel("MiB")
    axis.legend(frameon=False, ncols=3, loc="upper left")
    axis.set_ylim(0, axis.get_ylim()[1] * 1.25)
    return _svg(figure)


def comparable(ran: list[Outcome]) -> dict[str, dict[str, float]]:
    """Sums by backing over the cells of those groups that every backing of the page finished."""
    groups: dict[tuple[Any, ...], dict[str, Outcome]] = defaultdict(dict)
    for cell in ran:
        spec = Spec(**cell["spec"])
        if cell["survived"]:
            groups[tuple(spec._replace(buffers=""))][spec.buffers] = cell
    backings = [name for name in tables.backings(ran) if any(name in of for of in groups.values())]
    whole = [of for of in groups.values() if all(name in of for name in backings)]
    sums: dict[str, dict[str, float]] = {}
    for name in backings:
        total = sums[name] = dict.fromkeys(
            (*STEPS, "cells", "segments", "reads", "asked", "taken", "maps", "flushes", "tables"), 0.0
        )
        for of in whole:
            cell = of[name]
            area = cell["vmalloc"] or {}
            for step in STEPS:
                total[step] += cell["clock"][step]["cpu_ns"]
            total["cells"] += 1
            total["segments"] += cell["io"]["segments"]
            total["reads"] += cell["io"]["reads"]
            total["asked"] += cell["asked_bytes"]
            total["taken"] += cell["taken_bytes"]
            total["maps"] += area.get("maps", 0)
            total["flushes"] += area.get("tlb_flushes", 0)
            total["tables"] += area.get("page_table_pages", 0)
        for count in ("cells", "maps", "flushes", "tables"):
            total[count] = int(total[count])
    return sums


def costs(ran: list[Outcome]) -> str:
    """Stacked bars: CPU time by step and backing."""
    sums = comparable(ran)
    if not any(of["cells"] for of in sums.values()):
        return ""
    figure, axis = pyplot.subplots(figsize=(8, 2.4), constrained_layout=True)
    left = [0.0] * len(sums)
    for step, shade in zip(STEPS, COLOURS, strict=True):
        values = [of[step] / 1e6 for of in sums.values()]
        axis.barh(list(sums), values, left=left, color=shade, label=step)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axis.invert_yaxis()
    axis.set_xlabel("CPU ms")
    axis.legend(frameon=False, ncols=7, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return _svg(figure)
