"""What all tests share: judged tests skip loudly (in CI: fail) where the judge is missing; slow ones need `--torture`.

A test marked `judged` needs the machine's kernel; `judged("next")` also the next release's xfsprogs, `judged("uml")`
user-mode Linux; `judged("repair")` only xfsprogs, `judged("chromium")` only a browser, no root.
"""

from __future__ import annotations

import os
import shutil

import pytest

from tests.judge import kernel


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our options."""
    group = parser.getgroup("pocketxfs")
    group.addoption(
        "--torture", action="store_true", help="run the tests marked slow too, and every recipe on every machine"
    )
    group.addoption("--pxfs-memory", help="judge reading with this much memory only, as 16M")
    group.addoption("--pxfs-buffers", help="judge reading with this backing only, as unmapped")
    group.addoption("--pxfs-machine", help="judge reading on this machine only, as nommu-8m")


def in_ci() -> bool:
    """Where nothing may be skipped for want of a judge."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def missing_judge(*needs: str) -> str | None:
    """What a judged test lacks here."""
    if "chromium" in needs:
        return None if shutil.which("chromium") else "chromium (Debian: chromium)"
    if "repair" in needs:
        lacking = None if shutil.which("xfs_repair") else "xfs_repair (Debian: xfsprogs)"
    else:
        lacking = kernel.missing("uml" if "uml" in needs else "kernel")
    return lacking or (kernel.missing("kernel", "next") if "next" in needs else None)


def no_judge(lacking: str) -> None:
    """End a test whose judge is missing."""
    line = f"JUDGE MISSING: this needs {lacking}; `make judges` installs what it can"
    if in_ci():
        pytest.fail(line, pytrace=False)
    pytest.skip(line)


def pytest_report_header() -> list[str]:
    """Say which judges are here."""
    lines = []
    for label, needs in (
        ("the kernel", ()), ("xfsprogs next", ("next",)), ("user-mode Linux", ("uml",)), ("xfs_repair", ("repair",)),
        ("chromium", ("chromium",)),
    ):  # fmt: skip
        lines.append(f"{label}: {missing_judge(*needs) or 'here'}")
    return ["judges: " + "; ".join(lines).replace("; ", "\n        ")]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow ones out."""
    if config.getoption("--torture") or "slow" in (config.getoption("-m") or ""):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Judged tests need their judge."""
    for marker in item.iter_markers("judged"):
        lacking = missing_judge(*marker.args)
        if lacking:
            no_judge(lacking)
