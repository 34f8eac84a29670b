"""The damage itself: cases, each a few patches or a cut, made from an image's catalogue.

`structured` is complete and in a fixed order: every field of some blocks of every kind and level, set to zero, to the
block's own address in every unit, past the end, to all ones, inflated; pointers to relatives (loops); blocks swapped.
`random_case(seed, index)` is flips within metadata, `cuts` are images that end early.  Checksums are made right again
(`repair`), so that the check behind them is reached, unless a case says otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from .catalogue import RECORDS, Field, Found, Image, checksum, log_checksum
from .patched import Patch


class Case(NamedTuple):
    """One damaged image: patches in order, or a length that it is cut to."""

    name: str
    patches: tuple[Patch, ...] = ()
    cut: int | None = None


#: Blocks of each kind and level that get the whole treatment.
BLOCKS_PER_KIND = 3
NULL4, NULL8 = 0xFFFFFFFF, (1 << 64) - 1


def repair(image: Image, found: Found, raw: bytearray) -> bytes:
    """The block with its checksum made right."""
    crc = image.kinds[found.kind].crc
    if found.kind == "log":
        raw[32:36] = log_checksum(bytes(raw)).to_bytes(4, "little")
    elif crc is not None and image.v5:
        raw[crc : crc + 4] = checksum(bytes(raw), crc).to_bytes(4, "little")
    return bytes(raw)


def patched(image: Image, found: Found, changes: list[tuple[Field, int]], *, mend: bool = True) -> tuple[Patch, ...]:
    """The patch that makes these changes to a block."""
    raw = bytearray(image.bytes_of(found))
    for field, value in changes:
        raw[field.offset : field.offset + field.nbytes] = value.to_bytes(field.nbytes, "big")
    return ((found.offset, repair(image, found, raw) if mend else bytes(raw)),)


def class_of(image: Image, found: Found) -> str:
    """What tells blocks of a kind apart: an inode's type and forks, a tree's level, the superblock's copy."""
    if found.kind == "inode":
        raw = image.bytes_of(found)
        return f"inode {raw[2] >> 4:x}/{raw[5]}/{raw[83] if raw[82] else '-'}"
    if found.kind == "superblock":
        return "superblock 0" if found.offset == 0 else "superblock n"
    return f"{found.kind} {found.level}"


def chosen(image: Image, per_kind: int = BLOCKS_PER_KIND) -> list[Found]:
    """A few sound blocks of every class: the first, the last, and between."""
    classes: dict[str, list[Found]] = {}
    for found in image.blocks:
        if image.sound(found):
            classes.setdefault(class_of(image, found), []).append(found)
    picked = []
    for blocks in classes.values():
        step = max(1, (len(blocks) - 1) // max(1, per_kind - 1)) if len(blocks) > per_kind else 1
        picked += blocks[::step][:per_kind]
    return picked


def values(image: Image, found: Found, field: Field, old: int, file_block: int | None) -> list[int]:
    """What a field is set to."""
    bits = 8 * field.nbytes
    ones = (1 << bits) - 1
    wanted = [0, 1, 2, old + 1, old - 1, 2 * old + 1, ones, ones - 1, 1 << bits - 1, ones >> 1, old ^ 1 << bits // 2]
    if field.nbytes >= 4:
        last_ag = (image.ag_count - 1) << image.agblklog
        wanted += [
            found.agb, found.fsb, found.offset >> 9, image.ag_blocks, image.ag_blocks - 1, image.dblocks,
            image.fsb_offset(found.fsb) // image.block_bytes, last_ag + image.ag_blocks,
            image.ag_count << image.agblklog,
            32 << 30 >> image.block_bytes.bit_length() - 1, 64 << 30 >> image.block_bytes.bit_length() - 1,
        ]  # fmt: skip
        if file_block is not None:
            wanted.append(file_block)
        if found.kind == "superblock":
            wanted += [8, 16, 17, 64, 100, 1000, 1 << 20]
    if field.nbytes == 8:
        wanted += [image.root_ino, image.ino_of(found.offset), image.root_ino + 1, image.fsb_offset(found.fsb) << 12]
        if "low" in field.name:  # an extent's start and length share this word
            count = old & 0x1FFFFF
            wanted += [(old & ~0x1FFFFF) | length for length in (0, 1, count + 1, 0x1FFFFF)]
            wanted += [
                start << 21 & NULL8 | count for start in (0, 1, found.fsb, last_ag + image.ag_blocks, image.dblocks)
            ]
    if field.nbytes == 2 and field.name == "mode":
        wanted += [kind << 12 | 0o644 for kind in range(16)]
    if field.nbytes == 1:
        wanted += list(range(3, 9)) + [16, 32, 47, 100]
    return sorted({value for value in wanted if 0 <= value <= ones and value != old})


def structured(image: Image, file_blocks: dict[int, int], per_kind: int = BLOCKS_PER_KIND) -> Iterator[Case]:
    """Every case of the fixed set.  `file_blocks`: file block of each byte offset that an inode's fork maps."""
    blocks = chosen(image, per_kind)
    for found in blocks:
        raw = image.bytes_of(found)
        for field in image.fields(found):
            old = int.from_bytes(raw[field.offset : field.offset + field.nbytes], "big")
            for value in values(image, found, field, old, file_blocks.get(found.offset)):
                name = f"{class_of(image, found)} at {found.offset:#x}: {field.name} {old:#x} -> {value:#x}"
                yield Case(name, patched(image, found, [(field, value)]))
    yield from _blotted(image, blocks)
    yield from _relatives(image, blocks, file_blocks)
    yield from _swaps(image, blocks)
    yield from _doubles(image, blocks)


def _blotted(image: Image, blocks: list[Found]) -> Iterator[Case]:
    """Whole blocks of zeros, of ones; a block with a wrong checksum and nothing else."""
    for found in blocks:
        label = f"{class_of(image, found)} at {found.offset:#x}"
        yield Case(f"{label}: zeros", ((found.offset, bytes(found.nbytes)),))
        yield Case(f"{label}: ones", ((found.offset, b"\xff" * found.nbytes),))
        body = bytearray(image.bytes_of(found))
        body[found.nbytes // 2 :] = b"\xff" * (found.nbytes - found.nbytes // 2)
        yield Case(f"{label}: second half ones", ((found.offset, repair(image, found, body)),))
        body = bytearray(image.bytes_of(found))
        body[min(176, found.nbytes // 2) :] = bytes(found.nbytes - min(176, found.nbytes // 2))
        yield Case(f"{label}: all but the head zeros", ((found.offset, repair(image, found, body)),))
        crc = image.kinds[found.kind].crc
        if crc is not None:
            yield Case(f"{label}: checksum", ((found.offset + crc, bytes(4)),))


def _pointer_words(found: Found) -> tuple[str, ...]:
    if found.kind in RECORDS:
        return ("leftsib", "rightsib", "ptr")
    return ("forw", "back", "entry", "data-ptr", "attr-ptr", "valueblk")


def _relatives(image: Image, blocks: list[Found], file_blocks: dict[int, int]) -> Iterator[Case]:
    """Pointers to every other block of the family: loops among siblings, children that are parents, strangers."""
    for found in blocks:
        fields = [
            field for field in image.fields(found)
            if field.name.startswith(_pointer_words(found)) and field.nbytes >= 4 and ".hash" not in field.name
        ]  # fmt: skip
        if not fields:
            continue
        family = [other for other in image.blocks if other.kind[:3] == found.kind[:3] and other.offset != found.offset]
        if found.kind == "inode":
            family = [other for other in image.blocks if other.kind in ("bmbt", "attr-leaf", "da-node", "inode", "AGF")]
        rng = random.Random(found.offset)
        for field in fields:
            for other in rng.sample(family, min(6, len(family))):
                if found.kind in RECORDS or found.kind == "inode":
                    value = other.fsb if field.nbytes == 8 else other.agb
                else:
                    value = file_blocks.get(other.offset, other.agb)
                name = f"{class_of(image, found)} at {found.offset:#x}: {field.name} -> {other.kind} {value:#x}"
                yield Case(name, patched(image, found, [(field, value)]))


def _swaps(image: Image, blocks: list[Found]) -> Iterator[Case]:
    """Two blocks in each other's place: as they are, and with addresses and owners made to fit."""
    rng = random.Random(1)
    for found in blocks:
        others = [other for other in image.blocks if other.nbytes == found.nbytes and other.offset != found.offset]
        near = [other for other in others if other.kind == found.kind]
        for other in [*rng.sample(near, min(3, len(near))), *rng.sample(others, min(3, len(others)))]:
            one, two = image.bytes_of(found), image.bytes_of(other)
            label = f"{class_of(image, found)} at {found.offset:#x}: swapped with {other.kind} at {other.offset:#x}"
            yield Case(label, ((found.offset, two), (other.offset, one)))
            if image.v5:
                believed = (
                    (found.offset, _believed(image, found, other, two)),
                    (other.offset, _believed(image, other, found, one)),
                )  # fmt: skip
                yield Case(label + ", believable", believed)


def _believed(image: Image, place: Found, content: Found, raw: bytes) -> bytes:
    """`raw`, a block of `content`'s kind, with the addresses and owner of the block whose place it takes."""
    body = bytearray(raw)
    here = {field.name: field for field in image.kinds[place.kind].fields}
    there = {field.name: field for field in image.kinds[content.kind].fields}
    original = image.bytes_of(place)
    for name in ("blkno", "owner", "ino", "seqno"):
        if name in here and name in there and here[name].nbytes == there[name].nbytes:
            source, target = here[name], there[name]
            body[target.offset : target.offset + target.nbytes] = original[
                source.offset : source.offset + source.nbytes
            ]
        elif name == "blkno" and name in there:
            target = there[name]
            body[target.offset : target.offset + 8] = (place.offset >> 9).to_bytes(8, "big")
    return repair(image, content._replace(offset=place.offset), body)


def _doubles(image: Image, blocks: list[Found]) -> Iterator[Case]:
    """Two fields wrong together, where the second bounds the first."""
    for found in blocks:
        if found.kind != "inode":
            continue
        fields = {field.name: field for field in image.fields(found)}
        raw = image.bytes_of(found)
        huge = [(fields["nblocks"], (1 << 55) - 1)]
        for size in (0x7FFFFFFFFFFFFFFF, 1 << 40, 1 << 33, 1 << 20):
            yield Case(
                f"{class_of(image, found)} at {found.offset:#x}: size {size:#x}",
                patched(image, found, [(fields["size"], size)]),
            )
            yield Case(
                f"{class_of(image, found)} at {found.offset:#x}: size {size:#x}, nblocks",
                patched(image, found, [*huge, (fields["size"], size)]),
            )
        for name in ("nextents", "anextents"):
            for value in (1, 19, 20, 21, 22, 400, 0x7FFF):
                yield Case(
                    f"{class_of(image, found)} at {found.offset:#x}: {name} {value}, nblocks",
                    patched(image, found, [*huge, (fields[name], value)]),
                )
        for form in range(6):
            for kind in (4, 8, 10):
                mode = kind << 12 | 0o755
                yield Case(
                    f"{class_of(image, found)} at {found.offset:#x}: mode {mode:o} format {form}",
                    patched(image, found, [*huge, (fields["mode"], mode), (fields["format"], form)]),
                )
        for forkoff in (0, 1, 2, 15, 24, raw[82] + 1, len(raw) // 8 - 23, 255):
            for aformat in range(4):
                yield Case(
                    f"{class_of(image, found)} at {found.offset:#x}: forkoff {forkoff} aformat {aformat}",
                    patched(image, found, [*huge, (fields["forkoff"], forkoff & 255), (fields["aformat"], aformat)]),
                )


def cuts(image: Image, seed: int, count: int) -> Iterator[Case]:
    """Images cut short: nearly empty, at the edges of blocks of metadata, anywhere."""
    for size in (0, 1, 3, 4, 100, 303, 304, 511, 512, 513, 1024, 2047, 4095, 4096, 65_536):
        yield Case(f"cut to {size}", cut=size)
    rng = random.Random(f"cuts {seed}")
    whole = len(image.data)
    for _ in range(count):
        found = rng.choice(image.blocks)
        size = rng.choice(
            (found.offset, found.offset + 1, found.offset + found.nbytes - 1, found.offset + found.nbytes,
             rng.randrange(whole), found.offset + 512 * rng.randrange(8))
        )  # fmt: skip
        yield Case(f"cut to {min(size, whole)}", cut=min(size, whole))


def random_case(image: Image, seed: int, index: int) -> Case:
    """Case `index` of the flips of a seed: bits, bytes, runs; in one block or some; half with checksums repaired."""
    rng = random.Random(f"{seed} {index}")
    if rng.random() < 0.03:
        size = rng.randrange(len(image.data))
        return Case(f"random {seed}/{index}: cut to {size}", cut=size)
    patches: list[Patch] = []
    words = []
    mend = rng.random() < 0.5
    classes = image.by_class()
    for _ in range(1 if rng.random() < 0.8 else rng.randrange(2, 5)):
        found = rng.choice(rng.choice(classes))
        raw = bytearray(image.bytes_of(found))
        for _ in range(1 if rng.random() < 0.7 else rng.randrange(2, 9)):
            _flip(rng, image, found, raw)
        patches.append((found.offset, repair(image, found, raw) if mend else bytes(raw)))
        words.append(f"{found.kind} at {found.offset:#x}")
    return Case(f"random {seed}/{index}: {', '.join(words)}{', repaired' if mend else ''}", tuple(patches))


def _flip(rng: random.Random, image: Image, found: Found, raw: bytearray) -> None:
    """One change, more often in the head than in the body."""
    near = rng.random() < 0.5
    at = rng.randrange(min(len(raw), 192)) if near else rng.randrange(len(raw))
    how = rng.randrange(6)
    if how <= 1:
        raw[at] ^= 1 << rng.randrange(8)
    elif how == 2:
        raw[at] = rng.randrange(256)
    elif how == 3:
        raw[at : at + 4] = rng.randbytes(min(4, len(raw) - at))
    elif how == 4:
        fields = image.fields(found)
        if fields:
            field = rng.choice(fields)
            raw[field.offset : field.offset + field.nbytes] = rng.choice(
                (bytes(field.nbytes), b"\xff" * field.nbytes, rng.randbytes(field.nbytes))
            )
    else:
        other = rng.choice(image.blocks)
        length = min(rng.choice((8, 16, 64)), len(raw) - at)
        source = image.data[other.offset : other.offset + length]
        raw[at : at + len(source)] = source
