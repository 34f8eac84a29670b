"""What machine it is: RAM, page size, MMU or none, vmalloc area, CPUs.

The named machines differ in what they can do with addresses, not in RAM: each has 16 MiB unless its name says
otherwise, so that backings can be compared; `profile(name, ram_bytes)` (`--memory`) gives any of them another size.

Behind the name may stand words, each after a colon (or a comma, where the shell or mount(8) leaves those alone):

    i386:vmalloc=4M              another size of vmalloc area
    x86_64:cpus=8                another number of CPUs
    arm32:flags-per-call         the allocation contexts of 2015: flags on each call, no scopes (see `context`)

Source of the vmalloc sizes: MEMORY.md (i386 128 MiB is recalled, not looked up); of `ptes_per_page`: the kernel's
PTRS_PER_PTE, which on 32-bit ARM is 512 because each table is kept twice.
"""

from __future__ import annotations

import os
import re
import sys
from typing import NamedTuple

KIB, MIB, TIB = 1 << 10, 1 << 20, 1 << 40

#: Less RAM than this holds neither the largest metadata buffer (64 KiB) nor the watermarks.
MIN_RAM_BYTES = 256 * KIB


class Profile(NamedTuple):
    """A machine.  Sizes in bytes; `ram_bytes` is a whole number of pages, `vmalloc_bytes` 0 without an MMU."""

    name: str
    ram_bytes: int
    page_bytes: int
    mmu: bool
    vmalloc_bytes: int
    cpus: int
    #: The profile allows a page to be mapped a second time.  Whether the host can is `Frames.double_map`.
    double_map: bool
    #: Bits of a long (kernel: BITS_PER_LONG, the largest run that vm_map_ram takes from a block), and pages that one
    #: page of a page table maps.
    bits: int = 64
    ptes_per_page: int = 512
    #: Contexts as in 2015: callers pass flags, nobody opens scopes, page tables are allocated GFP_KERNEL.
    flags_per_call: bool = False


def _host() -> Profile:
    wide = sys.maxsize > 1 << 32
    double_map = hasattr(os, "memfd_create")
    area = (32 * TIB if wide else 128 * MIB) if double_map else 0
    return Profile(
        "host", 16 * MIB, 4096, double_map, area, os.cpu_count() or 1, double_map, *((64, 512) if wide else (32, 1024))
    )


PROFILES: dict[str, Profile] = {
    # name, ram, page, mmu, vmalloc area, cpus, double_map, bits, ptes_per_page
    "host": _host(),
    "nommu-16m": Profile("nommu-16m", 16 * MIB, 4096, False, 0, 1, False),
    "nommu-8m": Profile("nommu-8m", 8 * MIB, 4096, False, 0, 1, False),
    "arm32": Profile("arm32", 16 * MIB, 4096, True, 240 * MIB, 4, True, 32, 512),
    "i386": Profile("i386", 16 * MIB, 4096, True, 128 * MIB, 1, True, 32, 1024),
    "x86_64": Profile("x86_64", 16 * MIB, 4096, True, 32 * TIB, 4, True),
}

_SUFFIXES = {"": 1, "K": KIB, "M": MIB, "G": 1 << 30, "T": TIB}


def parse_size(text: str) -> int:
    """Bytes in "16M", "16MiB", "512k", "1G" or "16777216".  Raises `ValueError`."""
    word = text.strip().upper()
    digits = word.rstrip("KMGTIB")
    suffix = word[len(digits) :]
    if suffix.endswith("IB") and len(suffix) == 3:
        suffix = suffix[0]
    elif suffix.endswith("B"):
        suffix = suffix[:-1]
    if suffix not in _SUFFIXES or not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"not a size: {text!r} (a number of bytes, or a number with K, M, G or T)")
    return int(digits) * _SUFFIXES[suffix]


def profile(name: str = "host", ram_bytes: int | None = None) -> Profile:
    """The machine of that name, with `ram_bytes` of RAM (rounded down to whole pages).  Raises `ValueError`."""
    base, *words = re.split("[:,]", name)
    found = PROFILES.get(base)
    if found is None:
        raise ValueError(f"no machine is called {base!r}; there are {', '.join(PROFILES)}")
    for word in words:
        found = _changed(found, word)
    if words:
        found = found._replace(name=":".join((base, *words)))
    if ram_bytes is None:
        return found
    ram_bytes -= ram_bytes % found.page_bytes
    if ram_bytes < MIN_RAM_BYTES:
        raise ValueError(f"a machine needs at least {MIN_RAM_BYTES // KIB}K of memory")
    return found._replace(ram_bytes=ram_bytes)


def _changed(shape: Profile, word: str) -> Profile:
    """The machine with one word of its name's taken in."""
    key, equals, value = word.partition("=")
    if key == "flags-per-call" and not equals:
        return shape._replace(flags_per_call=True)
    if key == "cpus" and value.isascii() and value.isdigit() and 0 < int(value) <= 4096:
        return shape._replace(cpus=int(value))
    if key == "vmalloc" and equals:
        if not shape.mmu:
            raise ValueError(f"machine {shape.name} has no MMU and so no vmalloc area to give {value} to")
        area = parse_size(value)
        if not shape.page_bytes <= area <= 1 << (47 if shape.bits == 64 else 30) or area % shape.page_bytes:
            raise ValueError(f"a vmalloc area of {value}: whole pages, to 1G on 32-bit machines, 128T on others")
        return shape._replace(vmalloc_bytes=area)
    raise ValueError(f"{word!r} says nothing of a machine: there are vmalloc=SIZE, cpus=N, flags-per-call")
