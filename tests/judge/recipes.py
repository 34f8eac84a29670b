"""The filesystems that the judged tests run on: VERIFY's matrix, each feature alone and the usual ones together.

A recipe says how mkfs.xfs is called, what `populate` puts in, and which kernel makes and shows it.  `MATRIX` is what
`make test` judges; `BIG` (a million names, trees of 60,000 and 600,000 files) is partly slow.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Parts = tuple[tuple[str, dict[str, Any]], ...]

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


class Recipe(NamedTuple):
    """How to make one filesystem."""

    name: str
    parts: Parts
    mkfs: tuple[str, ...] = ()
    size: int = 96 * MIB
    #: "6.1", the release's xfsprogs, or "next", those of the next one
    xfsprogs: str = "6.1"
    #: "kernel", the machine's, or "uml", user-mode Linux
    judge: str = "kernel"
    #: bytes of an external log and of a realtime device
    log: int = 0
    rt: int = 0
    #: fill the disk with 0xAB before mkfs
    prefill: bool = False
    mount: str = "inode64"
    #: parts that run after the others, in a mount of their own
    later: Parts = ()
    #: change the UUID afterwards, so that blocks carry another one than the superblock shows
    new_uuid: bool = False
    #: leave the log dirty: stop the filesystem as a power cut would after `later`
    dirty: bool = False
    slow: bool = False

    def __repr__(self) -> str:
        return f"<recipe {self.name}>"


def everything(
    *, isize: int = 512, dirblk: int = 4096, reflink: bool = True, projid32: bool = True, v4: bool = False,
    extents: tuple[int, ...] = (5, 21, 60, 300), colliding: int = 100,
) -> Parts:  # fmt: skip
    """All ordinary parts, at counts that fit the block and inode sizes."""
    options: dict[str, Any] = {"isize": isize, "dirblk": dirblk}
    widest = {"widest": 19 if v4 else 200}
    parts: list[tuple[str, dict[str, Any]]] = [
        ("files", {}), ("farthest", {}), ("unwritten", {}), ("fragmented", {"extents": extents}),
        ("directories", options), ("collisions", {"count": colliding}), ("deep", {}), ("odd_names", {}),
        ("attributes", {}), ("acls", widest), ("special", options), ("times", {}), ("freed_inodes", {}),
    ]  # fmt: skip
    if reflink and not v4:
        parts.append(("reflinks", {}))
    parts.append(("flags", {"projid32": int(projid32)}))
    return tuple(parts)


def _mkfs(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ALL_ON = "-m crc=1,finobt=1,rmapbt=1,reflink=1,bigtime=1,inobtcount=1 -i sparse=1,nrext64=1"
ALL_OFF = "-m crc=1,finobt=0,rmapbt=0,reflink=0,bigtime=0,inobtcount=0 -i sparse=0"
NO_EXTRAS = "-m crc=1,finobt=1,rmapbt=0,reflink=0,bigtime=0,inobtcount=0 -i sparse=0"
#: without the trees that reserve space in each group, so that a full filesystem is full
NO_RESERVES = "-m finobt=0,rmapbt=0,reflink=0,inobtcount=0"


def _features() -> list[Recipe]:
    plain = everything(reflink=False)
    return [
        Recipe("default", everything(colliding=600)),
        Recipe("all-on", everything(), _mkfs(ALL_ON)),
        Recipe("all-off", plain, _mkfs(ALL_OFF)),
        Recipe("only-finobt", plain, _mkfs(NO_EXTRAS)),
        Recipe("only-sparse", plain, _mkfs(NO_EXTRAS.replace("sparse=0", "sparse=1"))),
        Recipe("only-rmapbt", plain, _mkfs(NO_EXTRAS.replace("rmapbt=0", "rmapbt=1") + " -l size=8m")),
        Recipe("only-reflink", everything(), _mkfs(NO_EXTRAS.replace("reflink=0", "reflink=1"))),
        Recipe("only-bigtime", plain, _mkfs(NO_EXTRAS.replace("bigtime=0", "bigtime=1"))),
        Recipe("only-inobtcount", plain, _mkfs(NO_EXTRAS.replace("inobtcount=0", "inobtcount=1"))),
        Recipe("only-nrext64", plain, _mkfs(NO_EXTRAS + ",nrext64=1")),
        Recipe("nrext64", everything(), _mkfs("-i nrext64=1")),
        Recipe("next-default", everything(), (), xfsprogs="next"),
        Recipe("exchange", everything(), _mkfs("-i exchange=1"), xfsprogs="next"),
        Recipe("parent", everything(), _mkfs("-n parent=1"), xfsprogs="next"),
        Recipe("metadir", everything(), _mkfs("-m metadir=1"), xfsprogs="next"),
        Recipe("next-all", everything(), _mkfs("-m rmapbt=1,metadir=1 -i nrext64=1,exchange=1 -n parent=1"),
               xfsprogs="next"),
        Recipe("no-align", everything(), _mkfs("-d noalign")),
        Recipe("stripe", everything(), _mkfs("-d su=64k,sw=4"), size=192 * MIB),
        Recipe("many-groups", everything(), _mkfs("-d agcount=5"), size=144 * MIB),
    ]  # fmt: skip


def _sizes() -> list[Recipe]:
    found = []
    for isize in (1024, 2048):
        found.append(Recipe(f"inode-{isize}", everything(isize=isize), _mkfs(f"-i size={isize}")))
    deep = (5, 21, 60, 300, 3000)
    found.append(Recipe("block-1k", everything(extents=deep), _mkfs("-b size=1024")))
    found.append(Recipe("block-1k-rmapbt", everything(extents=deep), _mkfs("-b size=1024 -m rmapbt=1")))
    found.append(Recipe("block-2k", everything(), _mkfs("-b size=2048 -i size=1024")))
    for kib, size in ((8, 128), (16, 192), (32, 256), (64, 512)):
        for extra, label in (("", ""), (" -m rmapbt=1 -i nrext64=1", "-rmapbt")):
            if label and kib not in (16, 64):
                continue
            found.append(
                Recipe(
                    f"block-{kib}k{label}", everything(dirblk=kib * KIB, extents=(5, 21, 60)),
                    _mkfs(f"-b size={kib}k{extra}"), size=size * MIB,
                )
            )  # fmt: skip
    found.append(
        Recipe("block-64k-next", everything(dirblk=64 * KIB, extents=(5, 21, 60)), _mkfs("-b size=64k -n parent=1"),
               size=1024 * MIB, xfsprogs="next")
    )  # fmt: skip
    for sector in (1024, 2048, 4096):
        found.append(Recipe(f"sector-{sector}", everything(), _mkfs(f"-s size={sector}")))
    found.append(
        Recipe("sector-32k", everything(dirblk=32 * KIB, extents=(5, 21)), _mkfs("-s size=32k -b size=32k"),
               size=512 * MIB)
    )  # fmt: skip
    for kib in (8, 16, 32, 64):
        found.append(Recipe(f"dir-{kib}k", everything(dirblk=kib * KIB), _mkfs(f"-n size={kib}k")))
    found.append(Recipe("dir-64k-block-1k", everything(dirblk=64 * KIB), _mkfs("-b size=1024 -n size=64k -m rmapbt=1")))
    return found


def _layouts() -> list[Recipe]:
    return [
        Recipe("prefilled", everything(), prefill=True, size=64 * MIB),
        Recipe("prefilled-1k", everything(), _mkfs("-b size=1024"), prefill=True, size=64 * MIB),
        Recipe("prefilled-64k", (("files", {}), ("unwritten", {}), ("fragmented", {"extents": (5, 21)})),
               _mkfs("-b size=64k -l size=32m"), prefill=True, size=224 * MIB),
        Recipe("external-log", everything(), _mkfs("-l size=16m"), log=16 * MIB),
        Recipe("metadata-uuid", everything(), new_uuid=True),
        Recipe("metadata-uuid-1k", everything(), _mkfs("-b size=1024 -m rmapbt=1"), new_uuid=True),
        Recipe("inodes-64bit", (("sf8", {}), *everything(isize=512)), _mkfs("-d agcount=8 -l size=64m -i maxpct=100"),
               size=6 * TIB),
        Recipe("scattered", everything(reflink=False), _mkfs(NO_RESERVES), later=(("scattered", {}),)),
        Recipe("scattered-1k", everything(reflink=False), _mkfs(NO_RESERVES + " -b size=1024"),
               later=(("scattered", {"count": 6000}),)),
        Recipe("scattered-dir-64k", everything(dirblk=64 * KIB, reflink=False), _mkfs(NO_RESERVES + " -n size=64k"),
               later=(("scattered", {"count": 5000}),)),
        Recipe("scattered-dir-16k-parent", everything(dirblk=16 * KIB, reflink=False),
               _mkfs(NO_RESERVES + " -n size=16k,parent=1"), xfsprogs="next",
               later=(("scattered", {"count": 5000, "margin": 4900}),)),
        Recipe("sparse-inodes", everything(reflink=False), _mkfs(NO_RESERVES), size=64 * MIB,
               later=(("sparse_inodes", {}),)),
        Recipe("dirty-log", everything(), later=(("tree", {"count": 300, "nbytes": 900_000}),), dirty=True),
        Recipe("deep-trees-4k", (("deep_trees", {"extents": 7000}),), _mkfs("-i nrext64=1"), size=128 * MIB),
        Recipe("deep-trees-1k", (("deep_trees", {"extents": 60_000}),), _mkfs("-b size=1024 -m rmapbt=1"),
               size=192 * MIB),
    ]  # fmt: skip


def _uml() -> list[Recipe]:
    v4 = "-m crc=0,finobt=0 -i projid32bit=1"
    old = everything(isize=256, v4=True, extents=(5, 21, 60))

    def make(name: str, mkfs: str, parts: Parts = old, **more: Any) -> Recipe:
        return Recipe("uml-" + name, parts, _mkfs(mkfs), judge="uml", **more)

    def sized(dirblk: int, isize: int = 256, projid32: bool = True) -> Parts:
        return everything(isize=isize, v4=True, dirblk=dirblk, projid32=projid32, extents=(5, 21, 60))

    case = (("case_names", {}), ("special", {"isize": 512}))
    return [
        make("v4", v4),
        make("v4-ftype", v4 + " -n ftype=1"),
        make("v4-no-ftype", v4 + " -n ftype=0"),
        make("v4-block-512", "-m crc=0 -b size=512", sized(4096)),
        make("v4-block-1k-inode-512", "-m crc=0 -b size=1024 -i size=512", sized(4096, 512)),
        make("v4-inode-2048", "-m crc=0 -i size=2048", sized(4096, 2048)),
        make("v4-dir-64k", v4 + " -n size=64k", sized(65536)),
        make("v4-attr1-projid16", "-m crc=0 -i attr=1,projid32bit=0 -l lazy-count=0,version=1",
             sized(4096, projid32=False), mount="inode64,noattr2"),
        make("v4-ascii-ci", v4 + " -n version=ci", case),
        make("v4-quota", v4, (*old, ("quotas", {})), mount="usrquota,grpquota"),
        make("v4-realtime", "-m crc=0 -r extsize=64k",
             (("files", {}), ("realtime", {}), ("special", {"isize": 256})), rt=64 * MIB),
        make("ascii-ci", "-n version=ci", case),
        make("quota", "", (*everything(), ("quotas", {})), mount="usrquota,grpquota,prjquota"),
        make("realtime", "-r extsize=4k -m reflink=0", (("files", {}), ("realtime", {})), rt=64 * MIB),
        make("realtime-extsize-256k", "-r extsize=256k -m reflink=0", (("files", {}), ("realtime", {})), rt=128 * MIB),
    ]  # fmt: skip


def _big() -> list[Recipe]:
    return [
        Recipe("million", (("million", {}),), (), size=2 * GIB),
        Recipe("million-dir-16k", (("million", {}),), _mkfs("-n size=16k"), size=2 * GIB, slow=True),
        # Linux 6.18 takes 11 KB of directory a name here, so that a million would fill 11 GiB
        Recipe("many-dir-64k", (("million", {"count": 150_000}),), _mkfs("-n size=64k"), size=2 * GIB, slow=True),
        Recipe("tree-60k", (("tree", {"count": 60_000, "nbytes": 640_000_000}),), (), size=2 * GIB),
        Recipe("tree-600k", (("tree", {"count": 600_000, "nbytes": 600_000_000}),), (), size=8 * GIB, slow=True),
    ]  # fmt: skip


def _golden() -> list[Recipe]:
    """For tests/images, which ship with the project: contents that compress."""

    def parts(isize: int, widest: int) -> Parts:
        options = {"isize": isize, "dirblk": 4096}
        return (
            ("directories", options), ("special", options), ("times", {}), ("acls", {"widest": widest}),
            ("odd_names", {}), ("freed_inodes", {}), ("collisions", {"count": 200}), ("flags", {}),
        )  # fmt: skip

    return [
        Recipe("golden-v5", parts(512, 200), _mkfs(ALL_ON), size=64 * MIB),
        Recipe("golden-v4", parts(256, 19), _mkfs("-m crc=0,finobt=0"), judge="uml", size=64 * MIB),
    ]


MATRIX: list[Recipe] = [*_features(), *_sizes(), *_layouts(), *_uml()]
BIG: list[Recipe] = _big()
GOLDEN: list[Recipe] = _golden()
ALL: dict[str, Recipe] = {recipe.name: recipe for recipe in (*MATRIX, *BIG)}
