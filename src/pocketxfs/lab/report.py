"""One self-contained HTML page of outcomes: no script, no link to anywhere, every picture in it.

First what happened in each cell, the smallest memory for each backing, who ran out and of what, what the CPU was spent
on; then every cell by itself: its numbers, its indexes over time, and its memory, one row an instant, one pixel a page.

Needs matplotlib and Pillow (`pip install 'pocketxfs[lab]'`); `tables` needs neither.
"""

from __future__ import annotations

import time
from collections import defaultdict
from html import escape
from pathlib import Path
from typing import Any

from ..errors import Unsupported
from . import tables
from .cell import Spec
from .tables import Outcome

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem; color: #1c2330; }
h1, h2, h3 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 2px solid #d9dee7; }
table { border-collapse: collapse; font-size: 13px; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; border: 1px solid #e1e5ec; text-align: right; } th { background: #f3f5f9; }
th.l, td.l { text-align: left } td.ok { background: #e6f4ea } td.bad { background: #fbe3e1; font-weight: 600 }
td.no { background: #eef0f3; color: #76808f } a { color: inherit; text-decoration: none }
.picture { overflow-x: auto; border: 1px solid #e1e5ec } .picture img { image-rendering: pixelated; display: block }
.key span { display: inline-block; margin-right: 1rem }
.key i { display: inline-block; width: .9em; height: .9em; margin-right: .3em }
details { margin: .4rem 0; border: 1px solid #e1e5ec; border-radius: 4px; padding: .3rem .8rem }
summary { cursor: pointer }
.why { font-size: 13px; color: #8a1c12 } img.plot { max-width: 100% } code { background: #f3f5f9; padding: 0 .3em }
"""


def page(cells: list[Outcome], bisections: list[Outcome], title: str = "pocketxfs lab") -> str:
    """The page."""
    try:
        from . import plots
    except ImportError as error:
        raise Unsupported(f"a report needs {error.name}: pip install 'pocketxfs[lab]'") from None
    ran = [cell for cell in cells if "series" in cell]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{len(cells)} cells, {len(bisections)} bisections; made {time.strftime('%Y-%m-%d %H:%M')}. A cell is a "
        "workload on an image, over one backing, one machine and one size of memory. What is shown is the most memory "
        "that was in use, or what ran out.</p>",
        "<h2>What happened</h2>",
        _matrix(cells),
    ]
    if bisections:
        parts += ["<h2>The smallest memory that does</h2>", plots.smallest(bisections), _smallest(bisections)]
    failed = [cell for cell in cells if not cell["survived"] and not cell["refused"]]
    if failed:
        parts += ["<h2>Who ran out, and of what</h2>", _failures(failed)]
    if ran:
        parts += [
            "<h2>What it cost</h2>",
            "<p>CPU time of finding, mapping, unmapping and giving back the memory of buffers, really measured, each "
            "step without those inside it; and the segments that a read was made of. Sums over this page's cells that "
            "every backing finished on the same machine.</p>",
            plots.costs(ran),
            _costs(ran),
        ]
        parts += ["<h2>Every cell</h2>", *(_cell(cell, plots) for cell in ran)]
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en">{head}\n{body}\n</html>\n'


def _anchor(spec: Spec) -> str:
    return "c" + spec.key()


def _group(spec: Spec) -> tuple[Any, ...]:
    return spec.workload, Path(spec.image).stem, spec.machine, spec.memory, spec.seed, spec.tasks, spec.size


def _matrix(cells: list[Outcome]) -> str:
    rows: dict[tuple[Any, ...], dict[str, Outcome]] = defaultdict(dict)
    for cell in cells:
        spec = Spec(**cell["spec"])
        rows[_group(spec)][spec.buffers] = cell
    names = tables.backings(cells)
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = []
    for group, found in rows.items():
        workload, image, machine, memory, seed, tasks, _ = group
        first = f"{workload}{f' ×{tasks}' if tasks else ''}"
        line = "".join(f'<td class="l">{escape(str(word))}</td>' for word in (first, image, machine, memory, seed))
        lines.append(f"<tr>{line}{''.join(_state(found.get(name)) for name in names)}</tr>")
    return (
        '<table id="matrix"><tr><th class="l">workload</th><th class="l">image</th><th class="l">machine</th>'
        f'<th class="l">memory</th><th class="l">seed</th>{head}</tr>{"".join(lines)}</table>'
    )


def _state(cell: Outcome | None) -> str:
    if cell is None:
        return "<td></td>"
    kind = "no" if cell["refused"] else "ok" if cell["survived"] else "bad"
    word, why = tables.word(cell), cell["refused"] or (cell.get("failure") or {}).get("error", "")
    text = f'<a href="#{_anchor(Spec(**cell["spec"]))}">{escape(word)}</a>' if "series" in cell else escape(word)
    return f'<td class="{kind}" title="{escape(why)}">{text}</td>'


def _smallest(bisections: list[Outcome]) -> str:
    rows: dict[tuple[Any, ...], dict[str, Outcome]] = defaultdict(dict)
    for found in bisections:
        spec = Spec(**found["spec"])
        rows[_group(spec._replace(memory=""))][spec.buffers] = found
    names = tables.backings(bisections)
    lines = []
    for group, of in rows.items():
        workload, image, machine, _, _, tasks, _ = group
        name = f"{workload}{f' ×{tasks}' if tasks else ''} on {image}, {machine}"
        line = []
        for backing in names:
            one = of.get(backing)
            if one is None or one["refused"]:
                line.append(f'<td class="no">{"refused" if one else ""}</td>')
            else:
                text = tables.size(one["smallest_bytes"]) if one["smallest_bytes"] else "never"
                line.append(f'<td title="{escape(one.get("why") or "")}">{text}</td>')
        lines.append(f'<tr><td class="l">{escape(name)}</td>{"".join(line)}</tr>')
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return f'<table id="smallest"><tr><th class="l">workload</th>{head}</tr>{"".join(lines)}</table>'


def _failures(failed: list[Outcome]) -> str:
    lines = []
    for cell in failed:
        row, failure = tables.row(cell), cell.get("failure") or {}
        order = row["failure_order"]
        index = ""
        if order != "" and failure.get("fragmentation_index"):
            index = failure["fragmentation_index"][order]
        words = (order, row["failure_free_pages"], index, " ".join(map(str, failure.get("buddyinfo", []))))
        numbers = "".join(f"<td>{escape(str(word))}</td>" for word in words)
        name = escape(Spec(**cell["spec"]).name)
        lines.append(f'<tr><td class="l">{name}</td>{numbers}<td class="l why">{escape(row["failure"])}</td></tr>')
    return (
        '<table id="failures"><tr><th class="l">cell</th><th>order</th><th>free pages</th><th>fragmentation index</th>'
        f'<th>free blocks by order</th><th class="l">what was said</th></tr>{"".join(lines)}</table>'
    )


def _costs(ran: list[Outcome]) -> str:
    from .plots import STEPS, comparable

    sums = comparable(ran)
    head = "".join(f"<th>{step}, CPU ms</th>" for step in STEPS)
    lines = []
    for name, of in sums.items():
        steps = "".join(f"<td>{of[step] / 1e6:.2f}</td>" for step in STEPS)
        rounding = 100 * (of["taken"] / of["asked"] - 1) if of["asked"] else 0.0
        segments = f"{of['segments'] / max(1, of['reads']):.2f}"
        rest = (segments, f"{rounding:.1f}%", of["maps"], of["flushes"], of["tables"])
        cells = "".join(f"<td>{value}</td>" for value in rest)
        lines.append(f'<tr><td class="l">{escape(name)}</td><td>{of["cells"]}</td>{steps}{cells}</tr>')
    return (
        f'<table id="costs"><tr><th class="l">backing</th><th>cells</th>{head}<th>segments a read</th><th>rounding</th>'
        f"<th>maps</th><th>TLB flushes</th><th>page-table pages</th></tr>{''.join(lines)}</table>"
    )


def _cell(cell: Outcome, plots: Any) -> str:
    spec = Spec(**cell["spec"])
    numbers = "".join(
        f'<tr><td class="l">{escape(name.replace("_", " "))}</td><td class="l">{escape(str(value))}</td></tr>'
        for name, value in tables.row(cell).items()
        if name in tables.COLUMNS
    )
    failure = f'<p class="why">{escape(cell["failure"]["error"])}</p>' if cell["failure"] else ""
    state = tables.word(cell)
    open_ = " open" if cell["failure"] else ""
    return (
        f'<details id="{_anchor(spec)}"{open_}><summary>{escape(spec.name)}: <b>{escape(state)}</b></summary>{failure}'
        f"{plots.picture(cell)}{plots.over_time(cell)}<table>{numbers}</table></details>"
    )
