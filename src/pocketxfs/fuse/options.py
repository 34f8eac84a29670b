"""Mount options: pocketxfs's own, lklfuse's names for the same things, mount(8)'s, and fstab's.

A word that is not known is refused by name.  `\\,` stands for a comma within a value, as lklfuse has it.
"""

from __future__ import annotations

from typing import Any

from ..errors import Error
from . import mounting as m


class OptionError(Error):
    """A mount option that cannot be taken."""

    exit_code = 2


class MountOptions:
    """What a mount is asked for; the defaults are `pocketxfs mount`'s."""

    __slots__ = (
        "allow_other", "buffers", "default_permissions", "exec", "flags", "force", "foreground", "fsname", "lock",
        "log", "logdev", "machine", "memory", "norecovery", "notes", "offset", "partition", "rtdev", "splice",
    )  # fmt: skip

    def __init__(self) -> None:
        self.memory = "16M"
        self.buffers = "contiguous"
        self.machine = "host"
        self.partition: int | None = None
        self.offset: int | None = None
        self.rtdev: str | None = None
        self.logdev: str | None = None
        self.norecovery = self.force = False
        self.allow_other = self.default_permissions = False
        self.fsname: str | None = None
        self.log: str | None = None
        self.lock: str | None = None
        self.foreground = False
        #: Data through a pipe rather than the staging buffer.
        self.splice = True
        self.flags = m.MS_RDONLY | m.MS_NOSUID | m.MS_NODEV
        #: Things that the user should hear, though they stop nothing.
        self.notes: list[str] = []

    def take(self, text: str) -> None:
        """Take a list of options as `-o` has it.  Raises `OptionError`."""
        for word in split(text):
            name, equals, value = word.partition("=")
            if name in _FLAGS and not equals:
                on, bit = _FLAGS[name]
                self.flags = self.flags | bit if on else self.flags & ~bit
            elif name in _VALUES:
                if not value:
                    raise OptionError(f"option {name}= needs a value")
                try:
                    _VALUES[name](self, value)
                except ValueError as error:
                    raise OptionError(f"option {word}: {error}") from None
            elif name in _SWITCHES and not equals:
                setattr(self, _SWITCHES[name], True)
            elif name in ("splice", "nosplice") and not equals:
                self.splice = name == "splice"
            elif name == "rw" and not equals:
                self.notes.append("this version reads only: mounted read-only")
            elif name in _REFUSED:
                raise OptionError(f"option {name}: {_REFUSED[name]}")
            elif name not in _NOTHING and not name.startswith("x-"):
                raise OptionError(f"option {word!r} is not known")
        if self.allow_other:
            # else everybody could read what only root may in the image
            self.default_permissions = True

    def open_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `pocketxfs.open`."""
        return {
            "memory": self.memory,
            "buffers": self.buffers,
            "machine": self.machine,
            "partition": self.partition,
            "offset": self.offset,
            "rtdev": self.rtdev,
            "logdev": self.logdev,
            "norecovery": self.norecovery,
            "force": self.force,
        }


def split(text: str) -> list[str]:
    """The words of a list of options; a backslash keeps the character behind it."""
    words, word, characters = [], "", iter(text)
    for character in characters:
        if character == "\\":
            word += next(characters, "\\")
        elif character == ",":
            words.append(word)
            word = ""
        else:
            word += character
    words.append(word)
    return [word for word in words if word]


def _number(text: str) -> int:
    value = int(text, 0)
    if value < 0:
        raise ValueError("negative")
    return value


def _set_mb(options: MountOptions, value: str) -> None:
    options.memory = f"{_number(value)}M"


def _set_partition(options: MountOptions, value: str) -> None:
    options.partition = _number(value) or None  # lklfuse's 0 is the whole device


def _set_offset(options: MountOptions, value: str) -> None:
    options.offset = _number(value)


def _set_type(options: MountOptions, value: str) -> None:
    if value != "xfs":
        raise ValueError("this program knows xfs only")


def _set_opts(options: MountOptions, value: str) -> None:
    """lklfuse's `opts=`: the mount options of the kernel's XFS, those that mean something to a reader."""
    for word in split(value):
        name, equals, rest = word.partition("=")
        if name in ("norecovery", "ro", "logdev", "rtdev"):
            options.take(word.replace(",", "\\,"))
        elif name not in _XFS_NOTHING:
            raise ValueError(f"XFS option {word!r} is not known")


def _setter(name: str) -> Any:
    return lambda options, value: setattr(options, name, value)


_FLAGS = {
    "ro": (True, m.MS_RDONLY), "nosuid": (True, m.MS_NOSUID), "suid": (False, m.MS_NOSUID),
    "nodev": (True, m.MS_NODEV), "dev": (False, m.MS_NODEV), "noexec": (True, m.MS_NOEXEC),
    "exec": (False, m.MS_NOEXEC), "sync": (True, m.MS_SYNCHRONOUS), "async": (False, m.MS_SYNCHRONOUS),
    "noatime": (True, m.MS_NOATIME), "atime": (False, m.MS_NOATIME), "nodiratime": (True, m.MS_NODIRATIME),
    "diratime": (False, m.MS_NODIRATIME),
}  # fmt: skip

_SWITCHES = {
    "allow_other": "allow_other", "default_permissions": "default_permissions", "norecovery": "norecovery",
    "force": "force",
}  # fmt: skip

_VALUES = {
    "mb": _set_mb, "memory": _setter("memory"), "buffers": _setter("buffers"), "machine": _setter("machine"),
    "part": _set_partition, "partition": _set_partition, "offset": _set_offset, "fsname": _setter("fsname"),
    "log": _setter("log"), "lock": _setter("lock"), "rtdev": _setter("rtdev"), "logdev": _setter("logdev"),
    "type": _set_type, "opts": _set_opts,
}  # fmt: skip

_REFUSED = {
    "allow_root": "not offered by the kernel; use allow_other",
    "auto_unmount": "a crashed mount stays, so that nobody writes into the empty directory below",
    "remount": "unmount, and mount again",
    "bind": "not a mount of its own",
}

#: Words for mount(8), fstab, systemd and libfuse that change nothing here.
_NOTHING = frozenset((
    "defaults", "auto", "noauto", "user", "users", "nouser", "owner", "group", "nofail", "_netdev", "comment",
    "relatime", "norelatime", "strictatime", "lazytime", "nolazytime", "dirsync", "mand", "nomand", "iversion",
    "silent", "loud", "loop", "nonempty", "subtype", "blkdev", "uhelper", "helper", "sloppy", "max_read",
))  # fmt: skip

#: Options of the kernel's XFS that concern writing, or that a second mount of the same UUID needs there.
_XFS_NOTHING = frozenset((
    "nouuid", "inode32", "inode64", "attr2", "noattr2", "ikeep", "noikeep", "largeio", "nolargeio", "swalloc",
    "noalign", "logbufs", "logbsize", "allocsize", "sunit", "swidth", "wsync", "grpid", "nogrpid", "bsdgroups",
    "sysvgroups", "filestreams", "discard", "nodiscard", "noquota", "quota", "usrquota", "grpquota", "prjquota",
    "uquota", "gquota", "pquota", "uqnoenforce", "gqnoenforce", "pqnoenforce", "noatime", "nodiratime", "relatime",
    "defaults",
))  # fmt: skip
