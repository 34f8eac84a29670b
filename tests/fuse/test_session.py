"""The protocol, request by request, over a socket pair: what each is answered with."""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path

import pytest

import pocketxfs
from pocketxfs.fuse import abi, init
from pocketxfs.fuse.attr import FOREVER
from pocketxfs.fuse.live import Live
from pocketxfs.fuse.session import read_bytes_for

from .conftest import OFFERS, Wire


def entries(data: bytes, plus: bool = False) -> list[tuple[bytes, int, int, int, tuple[int, ...]]]:
    """(name, inode, type, cookie, fuse_entry_out) of a READDIR's payload."""
    found, at = [], 0
    while at < len(data):
        head: tuple[int, ...] = ()
        if plus:
            head = abi.FUSE_ENTRY_OUT.unpack_from(data, at)
            at += abi.FUSE_ENTRY_OUT.size
        ino, after, length, dtype = abi.FUSE_DIRENT.unpack_from(data, at)
        at += abi.FUSE_DIRENT.size
        assert data[at + length : at + length + (-length & 7)] == bytes(-length & 7)
        found.append((data[at : at + length], ino, dtype, after, head))
        at += length + 7 & ~7
    return found


def read_in(offset: int, nbytes: int) -> bytes:
    return abi.FUSE_READ_IN.pack(0, offset, nbytes, 0, 0, 0, 0)


def whole_directory(wire: Wire, nodeid: int, nbytes: int, opcode: int) -> list[tuple[bytes, int, int]]:
    """A directory read in replies of at most so many bytes."""
    found: list[tuple[bytes, int, int]] = []
    cookie = 0
    while True:
        error, data = wire.ask(opcode, nodeid, read_in(cookie, nbytes))
        assert error == 0
        assert len(data) <= nbytes
        if not data:
            return found
        batch = entries(data, opcode == abi.FUSE_READDIRPLUS)
        found += [entry[:3] for entry in batch]
        cookie = batch[-1][3]


# -- INIT ------------------------------------------------------------------------------------------------------


def test_init_takes_what_it_wants_and_no_more(golden: Path) -> None:
    with pocketxfs.open(golden) as fs:
        wire = Wire(fs)
        reply = wire.init()
        major, minor, readahead, flags, background, _, max_write, gran, pages, _, flags2, *_ = abi.FUSE_INIT_OUT.unpack(
            reply
        )
        assert (major, minor, readahead, gran) == (7, abi.FUSE_KERNEL_MINOR_VERSION, 1 << 17, 1)
        assert flags | flags2 << 32 == init.WANTED
        assert pages == 256
        assert background > 0
        assert max_write >= 4096
        wire.close()


def test_init_offers_nothing(golden: Path) -> None:
    """Without zero-message opens, files and directories are opened with their caches kept."""
    with pocketxfs.open(golden) as fs:
        wire = Wire(fs)
        assert abi.FUSE_INIT_OUT.unpack(wire.init(31, 0))[3] == 0
        error, reply = wire.ask(abi.FUSE_OPENDIR, 1, abi.FUSE_OPEN_IN.pack(os.O_RDONLY, 0))
        assert (error, abi.FUSE_OPEN_OUT.unpack(reply)[1]) == (0, abi.FOPEN_KEEP_CACHE | abi.FOPEN_CACHE_DIR)
        error, reply = wire.ask(abi.FUSE_OPEN, wire.walk(b"flags/sync"), abi.FUSE_OPEN_IN.pack(os.O_RDONLY, 0))
        assert (error, abi.FUSE_OPEN_OUT.unpack(reply)[1]) == (0, abi.FOPEN_KEEP_CACHE | abi.FOPEN_NOFLUSH)
        assert wire.ask(abi.FUSE_RELEASE, 1, bytes(24)) == (0, b"")
        assert wire.ask(abi.FUSE_RELEASEDIR, 1, bytes(24)) == (0, b"")
        wire.close()


def test_posix_acl_only_with_permissions() -> None:
    body = abi.FUSE_INIT_IN_EXT.pack(7, 45, 0, OFFERS, 0)
    assert init.negotiate(body, 1 << 20, 4096, False).flags & abi.FUSE_POSIX_ACL == 0
    assert init.negotiate(body, 1 << 20, 4096, True).flags & abi.FUSE_POSIX_ACL


def test_older_and_newer_protocols(golden: Path) -> None:
    with pytest.raises(init.ProtocolError, match=r"7\.30"):
        init.negotiate(abi.FUSE_INIT_IN.pack(7, 30, 0, 0), 1 << 20, 4096, False)
    with pytest.raises(init.ProtocolError):
        init.negotiate(abi.FUSE_INIT_IN.pack(6, 99, 0, 0), 1 << 20, 4096, False)
    with pocketxfs.open(golden) as fs:
        wire = Wire(fs)
        assert wire.ask(abi.FUSE_INIT, 0, struct.pack("=II", 8, 0)) == (0, struct.pack("=II", 7, 39))
        assert wire.ask(abi.FUSE_GETATTR, 1, bytes(16))[0] == errno.EIO  # not yet
        wire.init()
        assert wire.ask(abi.FUSE_GETATTR, 1, bytes(16))[0] == 0
        assert wire.ask(abi.FUSE_INIT, 0, abi.FUSE_INIT_IN.pack(7, 39, 0, 0))[0] == errno.EIO  # not again
        wire.close()


@pytest.mark.parametrize(
    ("ram", "most"), [(16 << 20, 1 << 20), (8 << 20, 1 << 19), (1 << 20, 1 << 17), (1 << 30, 1 << 20)]
)
def test_reply_buffer_follows_the_memory(ram: int, most: int) -> None:
    assert read_bytes_for(ram) == most


# -- names and attributes --------------------------------------------------------------------------------------


def test_lookup_and_getattr_agree_with_the_library(wire: Wire) -> None:
    for path in (b"directories", b"special/char-255-255", b"special/block-511-262143", b"times/time-0", b"acls/access"):
        info = wire.fs.lstat(path)
        nodeid = wire.walk(path)
        assert nodeid == info.st_ino
        error, reply = wire.ask(abi.FUSE_GETATTR, nodeid, bytes(16))
        valid, _, _, *attr = abi.FUSE_ATTR_OUT.unpack(reply)
        assert (error, valid) == (0, FOREVER)
        ino, size, blocks, a_s, m_s, c_s, a_ns, m_ns, c_ns, mode, nlink, uid, gid, rdev, blksize, flags = attr
        assert (ino, size, blocks, mode, nlink, uid, gid, blksize) == (
            info.st_ino, info.st_size, info.st_blocks, info.st_mode, info.st_nlink, info.st_uid, info.st_gid,
            info.st_blksize,
        )  # fmt: skip
        for seconds, ns, both in (
            (a_s, a_ns, info.st_atime_ns),
            (m_s, m_ns, info.st_mtime_ns),
            (c_s, c_ns, info.st_ctime_ns),
        ):
            assert seconds * 10**9 + ns == both
        major, minor = rdev >> 8 & 0xFFF, rdev & 0xFF | rdev >> 12 & 0xFFF00
        assert (major, minor) == (os.major(info.st_rdev), os.minor(info.st_rdev))


def test_root_is_node_one(wire: Wire) -> None:
    error, reply = wire.ask(abi.FUSE_LOOKUP, 1, b".\0")
    assert (error, abi.FUSE_ENTRY_OUT.unpack(reply)[0]) == (0, 1)
    child = wire.lookup(b"directories")
    error, reply = wire.ask(abi.FUSE_LOOKUP, child, b"..\0")
    assert (error, abi.FUSE_ENTRY_OUT.unpack(reply)[0]) == (0, 1)
    assert abi.FUSE_ENTRY_OUT.unpack(reply)[6] == wire.fs.root_ino


def test_a_name_that_is_not_there_is_remembered(wire: Wire) -> None:
    error, reply = wire.ask(abi.FUSE_LOOKUP, 1, b"no such name\0")
    nodeid, _, valid, *_ = abi.FUSE_ENTRY_OUT.unpack(reply)
    assert (error, nodeid, valid) == (0, 0, FOREVER)
    assert wire.ask(abi.FUSE_LOOKUP, 1, b"n" * 256 + b"\0")[0] == errno.ENAMETOOLONG
    assert wire.ask(abi.FUSE_LOOKUP, wire.walk(b"acls/access"), b"x\0")[0] == errno.ENOTDIR


def test_handles_of_inodes_that_are_not(wire: Wire) -> None:
    """A handle's nodeid comes from a user: free inodes, and numbers of nothing, are stale."""
    used = {entry.inode() for folder, _, _ in wire.fs.walk(b"/") for entry in wire.fs.scandir(folder)}
    freed = {entry.inode() for entry in wire.fs.scandir(b"/freed_inodes")}
    free = next(ino for ino in range(min(freed), max(freed)) if ino not in used)
    for nodeid in (0, 2, free, 1 << 40, (1 << 64) - 1):
        assert wire.ask(abi.FUSE_LOOKUP, nodeid, b".\0")[0] == errno.ESTALE, nodeid
    assert wire.ask(abi.FUSE_GETATTR, 1 << 60, bytes(16))[0] == errno.ESTALE


def test_statx_tells_the_birth_time(wire: Wire) -> None:
    nodeid = wire.walk(b"flags/immutable")
    inode = wire.fs.inode(nodeid)
    error, reply = wire.ask(abi.FUSE_STATX, nodeid, abi.FUSE_STATX_IN.pack(0, 0, 0, 0, 0xFFF))
    found = abi.FUSE_STATX_OUT.unpack(reply)
    mask, attributes = found[3], found[5]
    assert error == 0
    assert mask == abi.STATX_BASIC_STATS | abi.STATX_BTIME
    assert found[18] * 10**9 + found[19] == inode.btime_ns
    assert attributes == abi.STATX_ATTR_IMMUTABLE
    assert found[9] == inode.mode


def test_access(wire: Wire) -> None:
    path = next(path for path in files(wire.fs) if not stat.S_IMODE(wire.fs.lstat(path).st_mode) & 0o111)
    plain, runnable = wire.walk(path), wire.lookup(b"directories")
    for mask, expected in ((os.R_OK, 0), (os.W_OK, errno.EROFS), (os.X_OK, errno.EACCES)):
        assert wire.ask(abi.FUSE_ACCESS, plain, abi.FUSE_ACCESS_IN.pack(mask, 0))[0] == expected
    assert wire.ask(abi.FUSE_ACCESS, runnable, abi.FUSE_ACCESS_IN.pack(os.X_OK | os.R_OK, 0))[0] == 0


def test_readlink(wire: Wire) -> None:
    for name in wire.fs.listdir(b"/special"):
        if name.startswith(b"symlink"):
            expected = wire.fs.readlink(b"/special/" + name)
            assert wire.ask(abi.FUSE_READLINK, wire.walk(b"special/" + name)) == (0, expected)
    assert wire.ask(abi.FUSE_READLINK, 1)[0] == errno.EINVAL


# -- directories -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [4096, 333, 1 << 16, 1 << 20])
def test_directories_in_pieces_of_any_size(wire: Wire, nbytes: int) -> None:
    for path in (
        b"directories/short",
        b"directories/block",
        b"directories/leaf",
        b"directories/free-index",
        b"odd_names",
    ):
        inode = wire.fs.resolve(path)
        expected = [item[:3] for item in wire.fs.readdir(inode)]
        assert whole_directory(wire, inode.ino, nbytes, abi.FUSE_READDIR) == expected
        if nbytes > 500:
            assert whole_directory(wire, inode.ino, nbytes, abi.FUSE_READDIRPLUS) == expected


def test_readdirplus_gives_what_lookup_gives(wire: Wire) -> None:
    nodeid = wire.walk(b"special")
    _, data = wire.ask(abi.FUSE_READDIRPLUS, nodeid, read_in(0, 1 << 16))
    given = 0
    for name, ino, dtype, _, head in entries(data, True):
        if name in (b".", b".."):
            assert head == (0,) * len(head)
            continue
        error, reply = wire.ask(abi.FUSE_LOOKUP, nodeid, name + b"\0")
        assert (error, abi.FUSE_ENTRY_OUT.unpack(reply)) == (0, head)
        assert head[0] == ino
        assert dtype in (0, head[15] >> 12)
        given += 1
    assert wire.session.server.lookups == 1 + 2 * given


def test_many_readers_of_one_directory(wire: Wire) -> None:
    """More walks than are kept, in turn: each goes on where it stood."""
    inode = wire.fs.resolve(b"directories/node")
    expected = [item[0] for item in wire.fs.readdir(inode)]
    cookies, found = [0] * 9, [[] for _ in range(9)]
    for _ in range(400):
        for reader in range(9):
            _, data = wire.ask(abi.FUSE_READDIR, inode.ino, read_in(cookies[reader], 600 + 100 * reader))
            for name, _, _, after, _ in entries(data):
                found[reader].append(name)
                cookies[reader] = after
    assert all(names == expected for names in found)


def test_directory_errors(wire: Wire) -> None:
    file = wire.walk(b"acls/access")
    assert wire.ask(abi.FUSE_READDIR, file, read_in(0, 4096))[0] == errno.ENOTDIR
    assert wire.ask(abi.FUSE_OPENDIR, file, abi.FUSE_OPEN_IN.pack(0, 0))[0] == errno.ENOTDIR
    assert wire.ask(abi.FUSE_OPENDIR, 1, abi.FUSE_OPEN_IN.pack(0, 0))[0] == errno.ENOSYS
    assert wire.ask(abi.FUSE_READDIR, 1, read_in(0, 8))[0] == errno.EINVAL
    assert wire.ask(abi.FUSE_READDIR, 1, read_in(1 << 63, 4096))[0] == errno.EINVAL
    assert wire.ask(abi.FUSE_READDIR, 1, read_in((1 << 63) - 1, 4096)) == (0, b"")


# -- files -----------------------------------------------------------------------------------------------------


def files(fs: pocketxfs.FileSystem) -> list[bytes]:
    return [
        os.path.join(folder, name)
        for folder, _, names in fs.walk(b"/")
        for name in names
        if fs.isfile(os.path.join(folder, name)) and not fs.islink(os.path.join(folder, name))
    ]


def test_reads(wire: Wire) -> None:
    checked = 0
    for path in files(wire.fs):
        inode = wire.fs.resolve(path)
        if not inode.size:
            continue
        whole = wire.fs.read_inode_bytes(inode, 0, 1 << 20)
        assert wire.ask(abi.FUSE_READ, inode.ino, read_in(0, 1 << 20)) == (0, whole)
        assert wire.ask(abi.FUSE_READ, inode.ino, read_in(1, 700)) == (0, whole[1:701])
        assert wire.ask(abi.FUSE_READ, inode.ino, read_in(inode.size, 700)) == (0, b"")
        assert wire.ask(abi.FUSE_READ, inode.ino, read_in((1 << 63) - 1, 700)) == (0, b"")
        checked += 1
        if checked == 50:
            break
    assert checked
    assert wire.ask(abi.FUSE_READ, inode.ino, read_in(0, (1 << 20) + 1))[0] == errno.EINVAL
    assert wire.ask(abi.FUSE_READ, inode.ino, read_in(1 << 63, 1))[0] == errno.EINVAL
    assert wire.ask(abi.FUSE_READ, 1, read_in(0, 100))[0] == errno.EISDIR


def test_open(wire: Wire) -> None:
    file = wire.walk(b"acls/access")
    assert wire.ask(abi.FUSE_OPEN, file, abi.FUSE_OPEN_IN.pack(os.O_RDONLY, 0))[0] == errno.ENOSYS
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        assert wire.ask(abi.FUSE_OPEN, file, abi.FUSE_OPEN_IN.pack(flags, 0))[0] == errno.EROFS


def test_lseek(wire: Wire) -> None:
    checked = 0
    for path in files(wire.fs):
        inode = wire.fs.resolve(path)
        if inode.size < 2:
            continue
        for whence, seek in ((3, wire.fs.seek_data), (4, wire.fs.seek_hole)):
            try:
                expected = (0, abi.FUSE_LSEEK_OUT.pack(seek(path, 1)))
            except OSError as error:
                expected = (error.errno or 0, b"")
            assert wire.ask(abi.FUSE_LSEEK, inode.ino, abi.FUSE_LSEEK_IN.pack(0, 1, whence, 0)) == expected
        assert wire.ask(abi.FUSE_LSEEK, inode.ino, abi.FUSE_LSEEK_IN.pack(0, inode.size, 3, 0))[0] == errno.ENXIO
        assert wire.ask(abi.FUSE_LSEEK, inode.ino, abi.FUSE_LSEEK_IN.pack(0, 0, 2, 0))[0] == errno.EINVAL
        checked += 1
        if checked == 20:
            break
    assert checked


def test_ioctl(wire: Wire) -> None:
    file = wire.walk(b"flags/immutable")
    getflags = abi.FUSE_IOCTL_IN.pack(0, 0, 0x80086601, 0, 0, 8)
    error, reply = wire.ask(abi.FUSE_IOCTL, file, getflags)
    assert (error, reply[16:20]) == (0, struct.pack("=I", 0x10))
    error, reply = wire.ask(abi.FUSE_IOCTL, file, abi.FUSE_IOCTL_IN.pack(0, 0, 0x801C581F, 0, 0, 28))
    assert (error, len(reply)) == (0, 44)
    assert struct.unpack_from("=I", reply, 16)[0] & 8
    assert wire.ask(abi.FUSE_IOCTL, file, abi.FUSE_IOCTL_IN.pack(0, 0, 0x1234, 0, 0, 8))[0] == errno.ENOTTY
    assert wire.ask(abi.FUSE_IOCTL, file, abi.FUSE_IOCTL_IN.pack(0, 2, 0x80086601, 0, 0, 8))[0] == errno.ENOTTY


# -- extended attributes ---------------------------------------------------------------------------------------


def test_attributes(wire: Wire) -> None:
    for path in (b"/acls/access", b"/acls/wide-200", b"/acls/both-200"):
        nodeid = wire.fs.lstat(path).st_ino
        error, reply = wire.ask(abi.FUSE_LISTXATTR, nodeid, abi.FUSE_GETXATTR_IN.pack(65536, 0))
        names = reply.split(b"\0")[:-1]
        assert error == 0
        assert [os.fsdecode(name) for name in names] == wire.fs.listxattr(path)
        assert wire.ask(abi.FUSE_LISTXATTR, nodeid, abi.FUSE_GETXATTR_IN.pack(0, 0)) == (
            0,
            struct.pack("=II", len(reply), 0),
        )
        assert wire.ask(abi.FUSE_LISTXATTR, nodeid, abi.FUSE_GETXATTR_IN.pack(1, 0))[0] == errno.ERANGE
        for name in names:
            value = wire.fs.getxattr(path, name)
            body = name + b"\0"
            assert wire.ask(abi.FUSE_GETXATTR, nodeid, abi.FUSE_GETXATTR_IN.pack(65536, 0) + body) == (0, value)
            asked = wire.ask(abi.FUSE_GETXATTR, nodeid, abi.FUSE_GETXATTR_IN.pack(0, 0) + body)
            assert asked == (0, struct.pack("=II", len(value), 0))
    assert wire.ask(abi.FUSE_GETXATTR, 1, abi.FUSE_GETXATTR_IN.pack(9, 0) + b"user.no\0")[0] == errno.ENODATA


def test_trusted_attributes_are_root_s(wire: Wire) -> None:
    nodeid = wire.fs.lstat("/acls/access").st_ino
    body = abi.FUSE_GETXATTR_IN.pack(65536, 0)
    assert b"trusted." in wire.ask(abi.FUSE_LISTXATTR, nodeid, body)[1]
    assert b"trusted." not in wire.ask(abi.FUSE_LISTXATTR, nodeid, body, uid=1000)[1]
    wire.session.server.lists_trusted = False
    assert b"trusted." not in wire.ask(abi.FUSE_LISTXATTR, nodeid, body)[1]


def test_live_attributes(wire: Wire) -> None:
    ask = abi.FUSE_GETXATTR_IN.pack(65536, 0)
    assert wire.ask(abi.FUSE_GETXATTR, 1, ask + b"pocketxfs.pid\0")[0] == errno.EOPNOTSUPP
    wire.session.server.live = Live(wire.session)
    assert wire.ask(abi.FUSE_GETXATTR, 1, ask + b"pocketxfs.pid\0") == (0, str(os.getpid()).encode())
    error, report = wire.ask(abi.FUSE_GETXATTR, 1, ask + b"pocketxfs.memory\0")
    assert error == 0
    assert b'"high_water_bytes"' in report
    assert wire.ask(abi.FUSE_GETXATTR, 1, ask + b"pocketxfs.extents\0")[0] == errno.ENODATA
    assert wire.ask(abi.FUSE_GETXATTR, 1, ask + b"pocketxfs.other\0")[0] == errno.ENODATA
    path = next(path for path in files(wire.fs) if wire.fs.lstat(path).st_blocks)
    error, text = wire.ask(abi.FUSE_GETXATTR, wire.fs.lstat(path).st_ino, ask + b"pocketxfs.extents\0")
    assert error == 0
    assert len(text.splitlines()) == len(wire.fs.extents(path))
    assert wire.ask(abi.FUSE_LISTXATTR, 1, ask)[1].find(b"pocketxfs") < 0


# -- the rest --------------------------------------------------------------------------------------------------


def test_what_writes_is_refused(wire: Wire) -> None:
    for opcode in (
        abi.FUSE_SETATTR, abi.FUSE_SYMLINK, abi.FUSE_MKNOD, abi.FUSE_MKDIR, abi.FUSE_UNLINK, abi.FUSE_RMDIR,
        abi.FUSE_RENAME, abi.FUSE_RENAME2, abi.FUSE_LINK, abi.FUSE_WRITE, abi.FUSE_CREATE, abi.FUSE_TMPFILE,
        abi.FUSE_SETXATTR, abi.FUSE_REMOVEXATTR, abi.FUSE_FALLOCATE, abi.FUSE_COPY_FILE_RANGE,
    ):  # fmt: skip
        assert wire.ask(opcode, 1, bytes(64))[0] == errno.EROFS, abi.OPCODE_NAMES[opcode]


def test_what_the_kernel_does_by_itself(wire: Wire) -> None:
    for opcode in (
        abi.FUSE_FLUSH, abi.FUSE_FSYNC, abi.FUSE_FSYNCDIR, abi.FUSE_GETLK, abi.FUSE_SETLK, abi.FUSE_BMAP,
        abi.FUSE_POLL, abi.FUSE_SYNCFS, abi.FUSE_SETUPMAPPING, 4096, 77, 0,
    ):  # fmt: skip
        assert wire.ask(opcode, 1, bytes(64))[0] == errno.ENOSYS


def test_statfs(wire: Wire) -> None:
    error, reply = wire.ask(abi.FUSE_STATFS)
    st = wire.fs.statvfs()
    assert error == 0
    assert abi.FUSE_STATFS_OUT.unpack(reply)[:8] == (
        st.f_blocks, st.f_bfree, st.f_bavail, st.f_files, st.f_ffree, st.f_bsize, st.f_namemax, st.f_frsize,
    )  # fmt: skip


def forget(wire: Wire, opcode: int, body: bytes) -> None:
    assert wire.send(abi.FUSE_IN_HEADER.pack(40 + len(body), opcode, 99, 1, 0, 0, 0, 0, 0) + body) is None


def test_forget_is_not_answered_and_counted(wire: Wire) -> None:
    for name in wire.fs.listdir(b"/freed_inodes")[:200]:
        wire.lookup(name, wire.fs.lstat("/freed_inodes").st_ino)
    assert wire.session.server.lookups == 200
    held = wire.fs.mount.inodes.count()
    forget(wire, abi.FUSE_FORGET, abi.FUSE_FORGET_IN.pack(100))
    assert wire.session.server.lookups == 100
    forget(wire, abi.FUSE_BATCH_FORGET, abi.FUSE_BATCH_FORGET_IN.pack(2, 0) + struct.pack("=QQQQ", 5, 70, 6, 30))
    assert wire.session.server.lookups == 0
    assert wire.fs.mount.inodes.count() < held, "what the kernel forgets, the cache of inodes lets go"
    forget(wire, abi.FUSE_FORGET, abi.FUSE_FORGET_IN.pack(1 << 60))
    assert wire.session.server.lookups == 0


def test_interrupt_is_not_answered(wire: Wire) -> None:
    forget(wire, abi.FUSE_INTERRUPT, struct.pack("=Q", 4))


def test_destroy_ends_the_session(wire: Wire) -> None:
    assert wire.ask(abi.FUSE_DESTROY) == (0, b"")
    assert wire.session.ended


def test_the_loop_ends_where_the_other_end_is_closed(golden: Path) -> None:
    with pocketxfs.open(golden) as fs:
        wire = Wire(fs)
        wire.ours.send(
            abi.FUSE_IN_HEADER.pack(104, abi.FUSE_INIT, 2, 0, 0, 0, 0, 0, 0)
            + abi.FUSE_INIT_IN_EXT.pack(7, 45, 0, OFFERS, 0)
        )
        wire.ours.shutdown(1)
        wire.session.run()
        assert wire.session.requests == 1
        wire.close()


def test_buffers_are_given_back(golden: Path) -> None:
    with pocketxfs.open(golden, memory="4M") as fs:
        before = fs.mount.machine.used_bytes
        wire = Wire(fs)
        assert fs.mount.machine.used_bytes >= before + (1 << 18)
        wire.close()
        assert fs.mount.machine.used_bytes == before


def test_an_inode_that_cannot_be_read_is_listed_with_its_name(golden: Path, tmp_path: Path) -> None:
    """One damaged inode: its name is there, whoever looks it up is told, the rest is as before."""
    image = tmp_path / "damaged.img"
    image.write_bytes(golden.read_bytes())
    with pocketxfs.open(image) as fs:
        names = fs.listdir(b"/freed_inodes")
        daddr, offset = fs.geo.inode_place(fs.lstat(b"/freed_inodes/" + names[0]).st_ino)
        folder = fs.lstat("/freed_inodes").st_ino
    with image.open("r+b") as raw:
        raw.seek(daddr * 512 + offset + 50)
        raw.write(b"\xff\xee\xdd")
    with pocketxfs.open(image) as fs:
        wire = Wire(fs)
        wire.init()
        error, data = wire.ask(abi.FUSE_READDIRPLUS, folder, read_in(0, 1 << 17))
        found = {entry[0]: entry[4][0] for entry in entries(data, True)}
        assert error == 0
        assert set(names) < set(found)
        assert [name for name in names if not found[name]] == [names[0]]
        assert wire.ask(abi.FUSE_LOOKUP, folder, names[0] + b"\0")[0] == pocketxfs.Corrupt.default_errno
        assert any("di_crc" in line for line in wire.said)
        wire.close()
