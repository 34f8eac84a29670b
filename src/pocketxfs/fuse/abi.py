"""The kernel's FUSE protocol: names, numbers and structures, as in include/uapi/linux/fuse.h.

Source: that header (dual licensed, BSD), facts only.  Structures are in the machine's own byte order and aligned by
construction, so each is one `struct.Struct` of standard sizes; the sizes are asserted at the end.  Bodies of requests
that write are not here: they are refused before they are read.  Limits: Linux, protocol 7.31 (Linux 5.4) and up.
"""

from __future__ import annotations

from struct import Struct

FUSE_KERNEL_VERSION = 7
#: The newest minor version that this server has use for (7.39 brought FUSE_STATX); the smaller of both sides counts.
FUSE_KERNEL_MINOR_VERSION = 39
#: The oldest that it speaks: max_pages, cached symlinks and directories, zero-message opens are all there.
FUSE_OLDEST_MINOR_VERSION = 31
FUSE_ROOT_ID = 1
#: The kernel hands no request to a smaller buffer.
FUSE_MIN_READ_BUFFER = 8192

# -- opcodes (enum fuse_opcode) --------------------------------------------------------------------------------

_BEFORE = frozenset(globals())
FUSE_LOOKUP = 1
FUSE_FORGET = 2
FUSE_GETATTR = 3
FUSE_SETATTR = 4
FUSE_READLINK = 5
FUSE_SYMLINK = 6
FUSE_MKNOD = 8
FUSE_MKDIR = 9
FUSE_UNLINK = 10
FUSE_RMDIR = 11
FUSE_RENAME = 12
FUSE_LINK = 13
FUSE_OPEN = 14
FUSE_READ = 15
FUSE_WRITE = 16
FUSE_STATFS = 17
FUSE_RELEASE = 18
FUSE_FSYNC = 20
FUSE_SETXATTR = 21
FUSE_GETXATTR = 22
FUSE_LISTXATTR = 23
FUSE_REMOVEXATTR = 24
FUSE_FLUSH = 25
FUSE_INIT = 26
FUSE_OPENDIR = 27
FUSE_READDIR = 28
FUSE_RELEASEDIR = 29
FUSE_FSYNCDIR = 30
FUSE_GETLK = 31
FUSE_SETLK = 32
FUSE_SETLKW = 33
FUSE_ACCESS = 34
FUSE_CREATE = 35
FUSE_INTERRUPT = 36
FUSE_BMAP = 37
FUSE_DESTROY = 38
FUSE_IOCTL = 39
FUSE_POLL = 40
FUSE_NOTIFY_REPLY = 41
FUSE_BATCH_FORGET = 42
FUSE_FALLOCATE = 43
FUSE_READDIRPLUS = 44
FUSE_RENAME2 = 45
FUSE_LSEEK = 46
FUSE_COPY_FILE_RANGE = 47
FUSE_SETUPMAPPING = 48
FUSE_REMOVEMAPPING = 49
FUSE_SYNCFS = 50
FUSE_TMPFILE = 51
FUSE_STATX = 52
FUSE_COPY_FILE_RANGE_64 = 53

#: number -> name without its prefix, for messages
OPCODE_NAMES: dict[int, str] = {
    number: name[5:] for name, number in tuple(globals().items()) if name[:5] == "FUSE_" and name not in _BEFORE
}

# -- INIT flags; bits 32 and up travel in flags2 ---------------------------------------------------------------

FUSE_ASYNC_READ = 1 << 0
FUSE_POSIX_LOCKS = 1 << 1
FUSE_ATOMIC_O_TRUNC = 1 << 3
FUSE_EXPORT_SUPPORT = 1 << 4
FUSE_BIG_WRITES = 1 << 5
FUSE_DONT_MASK = 1 << 6
FUSE_SPLICE_WRITE = 1 << 7
FUSE_SPLICE_MOVE = 1 << 8
FUSE_SPLICE_READ = 1 << 9
FUSE_FLOCK_LOCKS = 1 << 10
FUSE_HAS_IOCTL_DIR = 1 << 11
FUSE_AUTO_INVAL_DATA = 1 << 12
FUSE_DO_READDIRPLUS = 1 << 13
FUSE_READDIRPLUS_AUTO = 1 << 14
FUSE_ASYNC_DIO = 1 << 15
FUSE_WRITEBACK_CACHE = 1 << 16
FUSE_NO_OPEN_SUPPORT = 1 << 17
FUSE_PARALLEL_DIROPS = 1 << 18
FUSE_HANDLE_KILLPRIV = 1 << 19
FUSE_POSIX_ACL = 1 << 20
FUSE_ABORT_ERROR = 1 << 21
FUSE_MAX_PAGES = 1 << 22
FUSE_CACHE_SYMLINKS = 1 << 23
FUSE_NO_OPENDIR_SUPPORT = 1 << 24
FUSE_EXPLICIT_INVAL_DATA = 1 << 25
FUSE_MAP_ALIGNMENT = 1 << 26
FUSE_SUBMOUNTS = 1 << 27
FUSE_HANDLE_KILLPRIV_V2 = 1 << 28
FUSE_SETXATTR_EXT = 1 << 29
FUSE_INIT_EXT = 1 << 30
FUSE_SECURITY_CTX = 1 << 32
FUSE_HAS_INODE_DAX = 1 << 33
FUSE_HAS_EXPIRE_ONLY = 1 << 35
FUSE_DIRECT_IO_ALLOW_MMAP = 1 << 36
FUSE_PASSTHROUGH = 1 << 37
FUSE_NO_EXPORT_SUPPORT = 1 << 38
FUSE_HAS_RESEND = 1 << 39
FUSE_ALLOW_IDMAP = 1 << 40
FUSE_OVER_IO_URING = 1 << 41
FUSE_REQUEST_TIMEOUT = 1 << 42

# -- other flags -----------------------------------------------------------------------------------------------

FOPEN_KEEP_CACHE = 1 << 1
FOPEN_CACHE_DIR = 1 << 3
FOPEN_NOFLUSH = 1 << 5

FUSE_IOCTL_COMPAT = 1 << 0
FUSE_IOCTL_UNRESTRICTED = 1 << 1
FUSE_IOCTL_DIR = 1 << 4

# linux/stat.h, as FUSE_STATX carries them
STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800
STATX_ATTR_IMMUTABLE = 0x10
STATX_ATTR_APPEND = 0x20
STATX_ATTR_NODUMP = 0x40

# -- structures ------------------------------------------------------------------------------------------------

#: len opcode unique nodeid uid gid pid total_extlen padding
FUSE_IN_HEADER = Struct("=IIQQIIIHH")
#: len error unique
FUSE_OUT_HEADER = Struct("=IiQ")

#: ino size blocks atime mtime ctime atimensec mtimensec ctimensec mode nlink uid gid rdev blksize flags.
#: The seconds are declared unsigned and read as signed.
_ATTR = "QQQqqqIIIIIIIIII"
FUSE_ATTR = Struct("=" + _ATTR)
#: nodeid generation entry_valid attr_valid entry_valid_nsec attr_valid_nsec
_ENTRY = "QQQQII"
FUSE_ENTRY_OUT = Struct("=" + _ENTRY + _ATTR)
#: attr_valid attr_valid_nsec dummy
FUSE_ATTR_OUT = Struct("=QII" + _ATTR)
#: ino off namelen type; then the name, padded to eight bytes
_DIRENT = "QQII"
FUSE_DIRENT = Struct("=" + _DIRENT)
FUSE_DIRENTPLUS = Struct("=" + _ENTRY + _ATTR + _DIRENT)

#: major minor max_readahead flags; since 7.36 flags2 and 11 words unused
FUSE_INIT_IN = Struct("=IIII")
FUSE_INIT_IN_EXT = Struct("=IIIII44x")
#: major minor max_readahead flags max_background congestion_threshold max_write time_gran max_pages map_alignment
#: flags2 max_stack_depth request_timeout, 11 half words unused
FUSE_INIT_OUT = Struct("=IIIIHHIIHHIIH22x")
#: What INIT is answered with where the major version differs.
FUSE_INIT_OUT_SHORT = Struct("=II")

FUSE_FORGET_IN = Struct("=Q")
#: count dummy; then `count` of fuse_forget_one: nodeid nlookup
FUSE_BATCH_FORGET_IN = Struct("=II")
FUSE_FORGET_ONE = Struct("=QQ")
#: getattr_flags dummy fh
FUSE_GETATTR_IN = Struct("=IIQ")
#: flags open_flags
FUSE_OPEN_IN = Struct("=II")
#: fh open_flags backing_id
FUSE_OPEN_OUT = Struct("=QIi")
#: fh offset size read_flags lock_owner flags padding; READDIR and READDIRPLUS too
FUSE_READ_IN = Struct("=QQIIQII")
#: fh flags release_flags lock_owner
FUSE_RELEASE_IN = Struct("=QIIQ")
#: blocks bfree bavail files ffree bsize namelen frsize padding spare[6]
FUSE_STATFS_OUT = Struct("=QQQQQIIII24x")
#: size padding; GETXATTR (then the name) and LISTXATTR
FUSE_GETXATTR_IN = Struct("=II")
FUSE_GETXATTR_OUT = Struct("=II")
#: mask padding
FUSE_ACCESS_IN = Struct("=II")
#: fh flags cmd arg in_size out_size; then in_size bytes
FUSE_IOCTL_IN = Struct("=QIIQII")
#: result flags in_iovs out_iovs
FUSE_IOCTL_OUT = Struct("=iIII")
#: fh offset whence padding
FUSE_LSEEK_IN = Struct("=QQII")
FUSE_LSEEK_OUT = Struct("=Q")
#: getattr_flags reserved fh sx_flags sx_mask
FUSE_STATX_IN = Struct("=IIQII")
#: attr_valid attr_valid_nsec flags spare[2], then fuse_statx: mask blksize attributes nlink uid gid mode spare ino
#: size blocks attributes_mask, four of (tv_sec tv_nsec reserved): atime btime ctime mtime, rdev and dev (major and
#: minor each), spare
FUSE_STATX_OUT = Struct("=QII16x" + "IIQIIIHHQQQQ" + "qIi" * 4 + "IIII112x")

_SIZES = (
    (FUSE_IN_HEADER, 40), (FUSE_OUT_HEADER, 16), (FUSE_ATTR, 88), (FUSE_ENTRY_OUT, 128), (FUSE_ATTR_OUT, 104),
    (FUSE_DIRENT, 24), (FUSE_DIRENTPLUS, 152), (FUSE_INIT_IN, 16), (FUSE_INIT_IN_EXT, 64), (FUSE_INIT_OUT, 64),
    (FUSE_FORGET_IN, 8), (FUSE_BATCH_FORGET_IN, 8), (FUSE_FORGET_ONE, 16), (FUSE_GETATTR_IN, 16), (FUSE_OPEN_IN, 8),
    (FUSE_OPEN_OUT, 16), (FUSE_READ_IN, 40), (FUSE_RELEASE_IN, 24), (FUSE_STATFS_OUT, 80), (FUSE_GETXATTR_IN, 8),
    (FUSE_GETXATTR_OUT, 8), (FUSE_ACCESS_IN, 8), (FUSE_IOCTL_IN, 32), (FUSE_IOCTL_OUT, 16), (FUSE_LSEEK_IN, 24),
    (FUSE_LSEEK_OUT, 8), (FUSE_STATX_IN, 24), (FUSE_STATX_OUT, 32 + 256),
)  # fmt: skip
for _layout, _bytes in _SIZES:
    assert _layout.size == _bytes, (_layout.format, _layout.size, _bytes)
del _layout, _bytes
