"""`log`: what the log holds: its geometry, head, tail and state, then every transaction that a replay would replay.

Each item comes with what it changes: fields of the known structures with their values before and after, entries and
records that come and go, for inodes their paths.  Nothing is written: the replay goes into an overlay.  To name
inodes by path the replayed tree is gone through once; `--no-paths` leaves that out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import Error
from .common.args import Option, UsageError, number
from .common.logopen import LogSource, open_filesystem
from .common.logpaths import LogPaths
from .common.target import Target
from .run import Run

if TYPE_CHECKING:
    from ..journal.view import ItemView, LogView
    from .common.progress import Progress


def _lsn(text: str) -> int:
    """CYCLE:BLOCK, or one number."""
    cycle, colon, block = text.partition(":")
    return number(cycle) << 32 | number(block) if colon else number(text)


USAGE = "[--since=LSN] [--summary] [--no-paths] IMAGE"
ABOUT = """
Transactions are shown with their LSN, CYCLE:BLOCK of the record that they begin in.  Under each item stand its
changes: "field before -> after", "+ added", "- gone".
"""
OPTIONS = (
    Option(("--since",), "since", "only transactions from this LSN on: CYCLE:BLOCK", "LSN", _lsn),
    Option(("-s", "--summary"), "summary", "transactions and items, without what they change"),
    Option(("--no-paths",), "no_paths", "inodes by number only"),
)


def run(run: Run) -> None:
    """One image."""
    targets = run.targets(1, 1)
    target = targets[0]
    if target.path.strip(b"/"):
        raise UsageError(f"log: names an image, not a path in one: {target.image}")
    with LogSource(run, target) as source, _paths(run, target, source) as paths:
        if run.args.json:
            _json(run, target, source, paths)
        else:
            _text(run, source, paths)
    run.done += 1


def _view(run: Run, source: LogSource, progress: Progress) -> LogView:
    from ..journal.view import LogView

    return LogView(source.device, source.ring, source.state, source.geo, source.machine, progress.tick)


def _text(run: Run, source: LogSource, paths: LogPaths) -> None:
    write = run.out.write
    write(("\n".join(source.lines()) + "\n").encode())
    if source.state.clean:
        return
    from ..journal.view import lsn_words

    brief, since = run.args.summary, run.args.since or 0
    with _view(run, source, run.progress("reading the log")) as view:
        plan = view.plan
        progress = run.progress("items", plan.items)
        for commit in view.transactions():
            shown = commit.lsn >= since
            if shown:
                write(f"\ntransaction {commit.number}  lsn {lsn_words(commit.lsn)}  items {commit.count}\n".encode())
            for item in view.items(commit):
                progress.tick()
                if shown:
                    write("".join(_lines(item, paths, brief)).encode("utf-8", "backslashreplace"))
        write(
            f"\n{plan.transactions} transactions in {plan.records} records, {plan.bytes >> 10} KiB".encode()
            + (f"; {plan.open_left} without a commit, not replayed\n" if plan.open_left else "\n").encode()
        )


def _lines(item: ItemView, paths: LogPaths, brief: bool) -> list[str]:
    what = item.what
    if item.ino is not None:
        path = paths.get(item.ino)
        what = f"inode {item.ino}" + (f" {path}" if path else "")
    where = f"  ({item.where})" if item.where else ""
    outcome = f"  not replayed: {item.outcome}" if item.outcome else ""
    lines = [f"  {item.kind:8} {what}{where}{outcome}\n"]
    if not brief:
        lines += [f"             {change.words()}\n" for change in item.changes]
    return lines


def _json(run: Run, target: Target, source: LogSource, paths: LogPaths) -> None:
    from .common.jsonout import JsonList

    out = JsonList(run, "items")
    facts: dict[str, Any] = {"image": target.image, "log": source.facts()}
    if not source.state.clean:
        from ..journal.view import lsn_words

        since = run.args.since or 0
        with _view(run, source, run.progress("reading the log")) as view:
            progress = run.progress("items", view.plan.items)
            for commit in view.transactions():
                for item in view.items(commit):
                    progress.tick()
                    if commit.lsn < since:
                        continue
                    found = item.as_dict()
                    if run.args.summary:
                        del found["changes"]
                    path = paths.get(item.ino) if item.ino is not None else None
                    if path is not None:
                        found["path"] = path
                    out.add({"transaction": commit.number, "lsn": lsn_words(commit.lsn), **found})
            facts["transactions"] = view.plan.transactions
            facts["records"] = view.plan.records
            facts["transactions_without_commit"] = view.plan.open_left
    out.end(**facts)


def _paths(run: Run, target: Target, source: LogSource) -> LogPaths:
    """Of the inodes that the log names, in the tree as it is after the replay."""
    if source.state.clean or run.args.no_paths:
        return LogPaths(source.machine, None)
    with _view(run, source, run.progress("reading the log")) as view:
        paths = LogPaths(source.machine, view.inodes())
    if paths.left:
        try:
            with open_filesystem(run, target) as fs:
                paths.look(fs, run.progress("looking for paths").tick)
        except Error as error:
            run.note(target.image.encode("utf-8", "surrogateescape"), f"inodes by number only: {error}")
    return paths
