"""The memory report, for people and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from ...memory.process import peak_rss_bytes


def lines(report: dict[str, Any], indent: str = "") -> Iterator[str]:
    """Any nest of dicts as aligned lines; byte counts with their size in words beside them."""
    from .text import human

    width = max((len(str(key)) for key, value in report.items() if not isinstance(value, dict)), default=0)
    for key, value in report.items():
        label = str(key).replace("_", " ")
        if isinstance(value, dict):
            if value:
                yield f"{indent}{label}:"
                yield from lines(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{indent}{label}:"
            for item in value:
                yield f"{indent}  - " + ", ".join(f"{k} {v}" for k, v in item.items())
        elif isinstance(value, str) and "\n" in value:
            yield f"{indent}{label}:"
            yield from (f"{indent}  {line}" for line in value.splitlines())
        elif isinstance(value, int) and not isinstance(value, bool) and str(key).endswith("bytes") and value > 1023:
            yield f"{indent}{label:{width}}  {value} ({human(value)})"
        else:
            yield f"{indent}{label:{width}}  {value}"


def with_process(report: dict[str, Any]) -> dict[str, Any]:
    """The report with the process's own figure added."""
    peak = peak_rss_bytes()
    return report if peak is None else {**report, "process_peak_rss_bytes": peak}


def write_reports(where: str, reports: list[dict[str, Any]], as_json: bool) -> None:
    """Write reports to a file, or to standard error for "-"; JSON for `--json` and for files named so."""
    reports = [with_process(report) for report in reports]
    if as_json or where.endswith(".json"):
        import json

        from ..run import SCHEMA_VERSION

        text = json.dumps({"schema_version": SCHEMA_VERSION, "reports": reports}, indent=2) + "\n"
    else:
        text = "".join(line + "\n" for report in reports for line in lines(report))
    if where == "-":
        sys.stderr.write(text)
        sys.stderr.flush()
    else:
        with open(where, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
