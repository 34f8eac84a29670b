"""The damage campaign: broken images against the reading side.

`images` makes small filesystems with the kernel, `catalogue` finds every block of metadata in one, `mutate` breaks
them, `survey` reads everything that is left, `campaign` judges; `test_damage.py` states the invariant.
"""
