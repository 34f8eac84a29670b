"""Random work on a cache with hardly any memory or addresses: what is held stays what it is, nothing is left behind.

Reclaim runs inside every kind of allocation here, also of page tables and of the books of mappings.
"""

from __future__ import annotations

import gc
import io
import random

import pytest

from pocketxfs.buffer import BACKINGS, BufferCache
from pocketxfs.buffer.backing import refusal
from pocketxfs.device import open_device
from pocketxfs.errors import NoMemory
from pocketxfs.memory import Machine, profile

from .test_cache import FINE, GEO, IMAGE, IMAGE_BYTES, LAZY, STAY

SIZES = (512, 1024, 1536, 4096, 8192, 12288, 16384, 17 * 4096, 65536, 20 * 4096)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["x86_64", "i386:vmalloc=2M:cpus=32", "arm32:vmalloc=4M:cpus=32", "nommu-16m"])
@pytest.mark.parametrize("backing", BACKINGS)
def test_random_work(backing: str, name: str, seed: int) -> None:
    rng = random.Random(seed)
    with Machine(profile(name, rng.choice((384, 640, 1024)) << 10)) as machine:
        if refusal(backing, machine) is not None:
            return
        device = open_device(io.BytesIO(IMAGE), whole=True)
        cache = BufferCache(machine, device, GEO, backing, readahead="read")
        held: dict[int, tuple] = {}
        refused = 0
        for _ in range(1200):
            draw = rng.random()
            # every place has one size, so that buffers never differ over it
            number = rng.randrange(IMAGE_BYTES // (80 << 10))
            daddr, nbytes = number * 160, SIZES[number % len(SIZES)]
            if draw < 0.6:
                try:
                    buf = cache.read(daddr, nbytes, rng.choice((FINE, LAZY, STAY)))
                except NoMemory:
                    refused += 1
                    for other, _, _ in held.values():
                        other.release()
                    held.clear()
                    continue
                if number in held or rng.random() < 0.7:
                    buf.release()
                else:
                    held[number] = (buf, daddr, nbytes)
            elif draw < 0.8 and held:
                held.pop(rng.choice(list(held)))[0].release()
            elif draw < 0.9:
                cache.readahead(daddr, nbytes, FINE)
            elif draw < 0.95:
                if number not in held:
                    cache.invalidate(daddr)
            else:
                cache.shrink(rng.choice((4096, 1 << 18, 1 << 30)))
            for buf, at, length in rng.sample(list(held.values()), min(2, len(held))):
                assert buf.view(0, 16) == IMAGE[at << 9 : (at << 9) + 16]
                assert bytes(buf.view(length - 500, 500)) == IMAGE[(at << 9) + length - 500 : (at << 9) + length]
                assert buf.holds == 1
        for buf, at, length in held.values():
            assert bytes(buf.view(0, length)) == IMAGE[at << 9 : (at << 9) + length]
            buf.release()
        assert refused < 600
        assert cache.release_all() == 0
        if cache.backing.maps:
            area = machine.vmalloc_area
            area.reclaim_and_purge()
            assert area.holes() == [(0, area.npages)]
        assert machine.owners().keys() <= {"pagetable"}
        gc.collect()
    assert machine.used_bytes == 0
