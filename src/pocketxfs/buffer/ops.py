"""What kind of block a buffer holds and how it is judged (kernel: struct xfs_buf_ops and b_lru_ref).

Each format module writes its verifier; the module that reads such blocks makes the constant.  `lru_ref` is how many
times reclaim passes a buffer by before it goes (MEMORY.md): AG headers that every operation needs stay longest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..format.block import Block
from ..format.geometry import Geometry

AGF_REF = AGI_REF = 4
AGFL_REF = INOBT_REF = 3
ALLOCBT_REF = BMBT_REF = RMAPBT_REF = DIR_REF = INODE_REF = 2
ATTR_REF = DQUOT_REF = REFCOUNTBT_REF = 1


class BufferOps(NamedTuple):
    """One kind of metadata block.  `verify` raises `Corrupt`; it runs once for each read from the device."""

    name: str
    kind: str
    lru_ref: int
    verify: Callable[[Block, Geometry], None]
