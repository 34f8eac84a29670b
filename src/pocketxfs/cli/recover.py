"""`recover`: replay an image's log into the image, as mounting it under Linux would, and close the log.

The one verb that writes to an image.  Whatever cannot be replayed rightly is refused before anything is written, and
an interruption at any moment leaves an image that a second run, or Linux, recovers to the same state.

Where the log leaves work that needs the allocators (unfinished intents, unlinked inodes, blocks staged for
copy-on-write), the replay is written all the same, the log stays dirty, and Linux finishes the work on its next mount.
"""

from __future__ import annotations

from typing import Any

from .common.args import Option, UsageError
from .common.logopen import LogSource
from .common.target import Target
from .run import Run

USAGE = "[-n] IMAGE ..."
ABOUT = """
Exit code 0 where the log is clean afterwards; 1 where work is left that only Linux can finish: the log then stays
dirty, and everything in it has been replayed.
"""
OPTIONS = (Option(("-n", "--dry-run"), "dry_run", "replay in memory only, and say what would be done"),)


def run(run: Run) -> None:
    """Each image."""
    documents = []
    for target in run.targets():
        if target.path.strip(b"/"):
            raise UsageError(f"recover: names an image, not a path in one: {target.image}")
        name = target.image.encode("utf-8", "surrogateescape")
        try:
            facts = _recover(run, target)
        except OSError as error:
            run.fail(name, error)
            continue
        documents.append({"image": target.image, **facts})
        if not run.args.json:
            _tell(run, target, facts)
        if facts["log"] == "dirty" and not run.args.dry_run:
            run.failed += 1
        else:
            run.done += 1
    if run.args.json:
        from .common.jsonout import document

        document(run, images=documents, failed=run.failed)


def _recover(run: Run, target: Target) -> dict[str, Any]:
    dry = run.args.dry_run
    with LogSource(run, target, writable=not dry) as source:
        if source.state.clean:
            return {"log": "clean", "was": "clean", "replay": None, "bytes_written": 0, "left": []}
        progress = run.progress("replay")
        if dry:
            from ..journal.recovery import replay

            after, report = replay(source.device, source.geo, source.machine, source.logdev, tick=progress.tick)
            after.close()
            closed, sectors = not report.unfinished, 0
        else:
            from ..journal.inplace import recover

            done = recover(source.device, source.geo, source.machine, source.logdev, tick=progress.tick)
            report, closed, sectors = done.report, done.closed, done.sectors_written
        return {
            "log": "clean" if closed else "dirty", "was": "dirty", "replay": report.as_dict(),
            "bytes_written": sectors << 9, "left": report.unfinished_words(),
        }  # fmt: skip


def _tell(run: Run, target: Target, facts: dict[str, Any]) -> None:
    name = target.image
    if facts["was"] == "clean":
        lines = [f"{name}: the log is clean, nothing to do"]
    else:
        replay = facts["replay"]
        would = "would be " if run.args.dry_run else ""
        lines = [
            f"{name}: {replay['transactions']} transactions {would}replayed"
            + (f", {facts['bytes_written']} bytes written" if not run.args.dry_run else "")
        ]
        if facts["log"] == "clean":
            lines.append(f"{name}: the log {would or 'is '}closed: clean")
        else:
            lines.append(f"{name}: left for Linux to finish, the log stays dirty:")
            lines += [f"  {words}" for words in facts["left"]]
    run.out.write(("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))
