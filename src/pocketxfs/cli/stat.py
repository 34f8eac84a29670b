"""`stat`: everything that an inode says, in stat(1)'s form, and what only XFS knows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .common.args import Option
from .common.text import device_numbers, escaped, full_time, kind_name, mode_string, named, owner_name
from .run import Run

if TYPE_CHECKING:
    from ..filesystem import FileSystem
    from ..inode import Inode

USAGE = "[-L] IMAGE[:PATH] ..."
OPTIONS = (
    Option(("-L", "--dereference"), "follow", "follow symbolic links"),
    Option(("-f", "--file-system"), "file_system", "the filesystem instead of the file"),
)

#: di_flags and di_flags2, as the kernel names them (XFS_DIFLAG_*).
FLAGS = (
    "realtime", "prealloc", "newrtbm", "immutable", "append", "sync", "noatime", "nodump", "rtinherit", "projinherit",
    "nosymlinks", "extsize", "extszinherit", "nodefrag", "filestream",
)  # fmt: skip
FLAGS2 = ("dax", "reflink", "cowextsize", "bigtime", "nrext64", "metadata")


def run(run: Run) -> None:
    """Each operand."""
    json = None
    if run.args.json:
        from .common.jsonout import JsonList

        json = JsonList(run, "files")
    for target, fs, inode in run.each(follow=run.args.follow):
        try:
            if run.args.file_system:
                content = _whole(fs)
                text = _whole_text(target.image, content)
            else:
                content = facts(run, fs, inode, target.path)
                text = _text(inode, target.path, content)
        except OSError as error:
            run.fail(target.path, error)
            continue
        run.done += 1
        if json is not None:
            json.add(content)
        else:
            run.out.write(text.encode("utf-8", "surrogateescape"))
    if json is not None:
        json.end()


def flag_names(inode: Inode) -> list[str]:
    """The inode's flags, by name."""
    found = [name for bit, name in enumerate(FLAGS) if inode.flags >> bit & 1]
    return found + [name for bit, name in enumerate(FLAGS2) if inode.flags2 >> bit & 1]


def facts(run: Run, fs: FileSystem, inode: Inode, path: bytes) -> dict[str, Any]:
    """As JSON has it."""
    status = inode.stat()
    content: dict[str, Any] = {
        **named("path", path),
        "type": kind_name(inode.mode, 1),
        "mode_text": mode_string(inode.mode),
        "birth_ns": inode.btime_ns,
        "generation": inode.gen,
        "project": inode.projid,
        "flags": flag_names(inode),
    }
    for field in (
        "ino", "mode", "nlink", "uid", "gid", "size", "blocks", "blksize", "rdev", "atime_ns", "mtime_ns", "ctime_ns",
    ):  # fmt: skip
        content[field] = getattr(status, "st_" + field)
    if inode.kind == 0o120000:
        content |= named("target", fs.readlink_inode(inode))
    attributes = []
    try:
        for name, nbytes in fs.xattrs(inode):
            attributes.append({**named("name", name), "bytes": nbytes})
    except OSError as error:
        run.fail(path, error)
    content["xattrs"] = attributes
    return content


def _text(inode: Inode, path: bytes, content: dict[str, Any]) -> str:
    status = inode.stat()
    name = escaped(path)
    if "target" in content:
        name += " -> " + escaped(os.fsencode(content["target"]))
    fourth = ""
    if inode.kind in (0o020000, 0o060000):
        major, minor = device_numbers(status.st_rdev)
        fourth = f"     Device type: {major},{minor}"
    born = inode.btime_ns
    shown = (
        f"  File: {name}\n"
        f"  Size: {status.st_size:<10}\tBlocks: {status.st_blocks:<10} IO Block: {status.st_blksize:<6} "
        f"{kind_name(inode.mode, inode.size)}\n"
        f" Inode: {inode.ino:<11} Links: {status.st_nlink}{fourth}\n"
        f"Access: ({inode.mode & 0o7777:04o}/{mode_string(inode.mode)})  "
        f"Uid: ({inode.uid:5}/{owner_name(inode.uid):>8})   Gid: ({inode.gid:5}/{owner_name(inode.gid):>8})\n"
        f"Access: {full_time(status.st_atime_ns)}\n"
        f"Modify: {full_time(status.st_mtime_ns)}\n"
        f"Change: {full_time(status.st_ctime_ns)}\n"
        f" Birth: {full_time(born) if born is not None else '-'}\n"
    )
    if content["flags"]:
        shown += f" Flags: {' '.join(content['flags'])}\n"
    if inode.projid:
        shown += f"Project: {inode.projid}\n"
    for attribute in content["xattrs"]:
        shown += f" Xattr: {escaped(os.fsencode(attribute['name']))} ({attribute['bytes']} bytes)\n"
    return shown


def _whole(fs: FileSystem) -> dict[str, Any]:
    status = fs.statvfs()
    fields = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "flag", "namemax")
    return {field: getattr(status, "f_" + field) for field in fields}


def _whole_text(image: str, content: dict[str, Any]) -> str:
    return (
        f'  File: "{escaped(os.fsencode(image))}"\n'
        f"    Namelen: {content['namemax']:<7} Type: xfs\n"
        f"Block size: {content['bsize']:<10} Fundamental block size: {content['frsize']}\n"
        f"Blocks: Total: {content['blocks']:<10} Free: {content['bfree']:<10} Available: {content['bavail']}\n"
        f"Inodes: Total: {content['files']:<10} Free: {content['ffree']}\n"
    )
