"""`info`: a filesystem as xfs_info shows it, then its features by name, its state and its log.

A dirty log does not stop it: saying so is its task.
"""

from __future__ import annotations

from typing import Any

from .common.text import human
from .run import Run

USAGE = "IMAGE ..."
OPTIONS = ()


def run(run: Run) -> None:
    """Show each image."""
    documents = []
    for target, fs, _ in run.each(follow=True, root_only=True, any_log=True):
        facts = fs.info()
        run.done += 1
        if run.args.json:
            documents.append({"image": target.image, **facts})
        else:
            run.out.write(("\n".join(lines(facts)) + "\n").encode("utf-8", "surrogateescape"))
    if run.args.json:
        from .common.jsonout import document

        document(run, filesystems=documents, failed=run.failed)


def lines(facts: dict[str, Any]) -> list[str]:
    """xfs_info's block, and ours below it."""
    has = set(facts["features"]).__contains__
    log, realtime = facts["log"], facts["realtime"]
    block = facts["block_bytes"]
    v5 = facts["version"] == 5

    def flag(name: str) -> int:
        return int(has(name))

    def row(section: str, first: str, rest: str) -> str:
        return f"{section:9}={first:22} {rest}"

    log_name = "internal log" if log["internal"] else "external"
    unit = log["stripe_unit_bytes"] // block if log["stripe_unit_bytes"] > 1 else 0
    shown = [
        f"meta-data={facts['device']:22} isize={facts['inode_bytes']:<6} agcount={facts['ag_count']}, "
        f"agsize={facts['ag_blocks']} blks",
        row("", "", f"sectsz={facts['sector_bytes']:<5} attr={2 if v5 or has('attr2') else flag('attr')}, "
            f"projid32bit={int(v5 or has('projid32'))}"),
        row("", "", f"crc={int(v5):<8} finobt={flag('finobt')}, sparse={flag('sparse-inodes')}, "
            f"rmapbt={flag('rmapbt')}"),
        row("", "", f"reflink={flag('reflink'):<4} bigtime={flag('bigtime')} inobtcount={flag('inobtcount')} "
            f"nrext64={flag('nrext64')}"),
    ]  # fmt: skip
    if has("exchange") or has("metadir") or has("parent"):
        shown.append(row("", "", f"exchange={flag('exchange'):<3} metadir={flag('metadir')} parent={flag('parent')}"))
    rt_extent = realtime["extent_blocks"] * block
    shown += [
        row("data     ", "", f"bsize={block:<6} blocks={facts['data_blocks']}, imaxpct={facts['inode_max_percent']}"),
        row("", "", f"sunit={facts['stripe_unit_blocks']:<6} swidth={facts['stripe_width_blocks']} blks"),
        row("naming   ", "version 2", f"bsize={facts['directory_block_bytes']:<6} ascii-ci={flag('ascii-ci')}, "
            f"ftype={flag('ftype')}"),
        row("log      ", log_name, f"bsize={block:<6} blocks={log['blocks']}, version={log['version']}"),
        row("", "", f"sectsz={log['sector_bytes']:<5} sunit={unit} blks, lazy-count={int(v5 or has('lazy-count'))}"),
        row("realtime ", "external" if realtime["blocks"] and not has("metadir") else
            "internal" if realtime["blocks"] else "none",
            f"extsz={rt_extent:<6} blocks={realtime['blocks']}, rtextents={realtime['extents']}"),
        "",
        f"version   {facts['version']}",
        f"label     {facts['label'] or '(none)'}",
        f"uuid      {facts['uuid']}",
    ]  # fmt: skip
    if facts["meta_uuid"] != facts["uuid"]:
        shown.append(f"meta uuid {facts['meta_uuid']}")
    shown += [
        f"size      {human(facts['data_blocks'] * block)}, {human(facts['free_blocks'] * block)} free",
        f"inodes    {facts['inodes']} allocated, {facts['free_inodes']} of them free",
        f"features  {' '.join(facts['features'])}",
        f"state     {state(facts)}",
        f"log       {log['state']}" + (f": {log['reason']}" if log["reason"] else ""),
    ]
    return shown


def state(facts: dict[str, Any]) -> str:
    """In what shape the filesystem is, as far as its superblock and its device say."""
    wrong = []
    if "needsrepair" in facts["features"]:
        wrong.append("needs repair (xfs_repair)")
    if facts["truncated"]:
        wrong.append(f"cut short: the device has {human(facts['device_bytes'])}")
    wrong += facts["secondary_superblocks_wrong"]
    if facts["log"]["state"] == "dirty":
        wrong.append("not unmounted cleanly")
    return ", ".join(wrong) or "in order"
